"""``verify``, ``replay``, ``state``: is the log what it was, and is what we show the fold of it?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kima_stream import audit, replay as replays
from kima_stream.audit import Verified
from kima_stream.cli.database import connected, with_connection
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.errors import NotFoundError
from kima_stream.projector import Projection
from kima_stream.read_models import PROJECTIONS
from kima_stream.replay import Replayed

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
PROJECTION = click.argument("projection", type=click.Choice(sorted(PROJECTIONS)))


class PositionOrTime(click.ParamType[int | datetime]):
    """``4711``, or ``2026-11-24T02:00:00Z``; a time without a zone is UTC."""

    name = "position|time"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int | datetime:
        """Return a position, or a moment."""
        if str(value).isdigit():
            return int(value)
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a position nor a time like 2026-11-24T02:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _position(conn: Connection, moment: int | datetime | None) -> int | None:
    return await audit.position_at(conn, moment) if isinstance(moment, datetime) else moment


@contextmanager
def _bar(text: str, *, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where somebody looks at it."""
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not shown or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@click.command()
@click.option("--from", "first", default=1, show_default=True, type=click.IntRange(1), help="First position.")
@click.option("--to", "last", type=PositionOrTime(), help="Last position, or a time; the head if left out.")
@click.option("--log-only", is_flag=True, help="Do not hold the read models against their folds.")
@AS_JSON
def verify(*, first: int, last: int | datetime | None, log_only: bool, as_json: bool) -> None:
    """Check hashes, chain, positions and versions of the log, and that each read model is its fold.

    Exit 1 when anything is wrong; the first bad position is named.
    """

    async def work(conn: Connection) -> tuple[Verified, list[Replayed]]:
        with _bar("verifying", shown=not as_json) as progress:
            verified = await audit.verify(conn, first=first, last=await _position(conn, last), progress=progress)
        if log_only or first != 1 or last is not None or verified.faults:
            return verified, []
        async with connected() as reader:
            with _bar("folding", shown=not as_json) as progress:
                replayed = [
                    await replays.replay(conn, p, progress=progress, reader=reader) for p in PROJECTIONS.values()
                ]
        return verified, replayed

    verified, replayed = with_connection(work)
    drifted = [outcome for outcome in replayed if any(d.kind != "behind" for d in outcome.differences)]
    if as_json:
        answer = {"log": verified, "first_bad_position": verified.first_bad_position, "read_models": replayed}
        click.echo(msgspec.json.encode(answer))
    else:
        _say_verified(verified, replayed)
    if verified.faults or drifted:
        raise SystemExit(1)


def _say_verified(verified: Verified, replayed: list[Replayed]) -> None:
    click.echo(f"positions {verified.first_position} to {verified.last_position}: {verified.checked} events checked")
    if verified.unnumbered:
        click.echo(f"{verified.unnumbered} more wait for the publisher")
    if verified.faults:
        click.echo(f"first bad position: {verified.first_bad_position}")
        for fault in verified.faults:
            click.echo(f"  {fault.position}  {fault.kind:<10} {fault.detail}")
        return
    click.echo(f"chain holds, {verified.chain_hash}")
    for outcome in replayed:
        _say_replayed(outcome, full=False)


@click.command()
@PROJECTION
@click.option("--to", "up_to", type=PositionOrTime(), help="As of this position or time; the head if left out.")
@click.option("--shadow", is_flag=True, help="Change nothing (this is the default; say it to be sure).")
@click.option("--diff", is_flag=True, help="Show every difference, field by field.")
@click.option("--apply", is_flag=True, help="Replace the live rows by the replayed ones.")
@AS_JSON
def replay(
    *, projection: str, up_to: int | datetime | None, shadow: bool, diff: bool, apply: bool, as_json: bool
) -> None:
    """Fold PROJECTION again beside its live rows and compare. Exit 1 when they differ.

    Nothing is changed, unless you say --apply: then the replayed rows take the place of the live
    ones, in one transaction.
    """
    if apply and (shadow or up_to is not None):
        message = "--apply replaces the live rows: it goes neither with --shadow nor with --to"
        raise click.UsageError(message)

    async def work(conn: Connection) -> Replayed:
        position = await _position(conn, up_to)
        async with connected() as reader:
            with _bar("replaying", shown=not as_json) as progress:
                return await replays.replay(
                    conn, PROJECTIONS[projection], up_to=position, apply=apply, progress=progress, reader=reader
                )

    outcome = with_connection(work)
    if as_json:
        click.echo(msgspec.json.encode(outcome))
    else:
        _say_replayed(outcome, full=diff)
    if outcome.different and not apply:
        raise SystemExit(1)


def _say_replayed(outcome: Replayed, *, full: bool) -> None:
    verdict = "no difference" if not outcome.different else f"{outcome.different} rows differ"
    if outcome.different and outcome.applied:
        verdict = f"{outcome.different} rows replaced"
    click.echo(f"{outcome.projection}: {outcome.events} events of {outcome.streams} streams replayed, {verdict}")
    for difference in outcome.differences if full else ():
        click.echo(f"  {difference.stream}  {difference.kind}")
        for name, (live, replayed) in difference.fields.items():
            click.echo(f"    {name}: {live!r} live, {replayed!r} replayed")


@click.command()
@PROJECTION
@click.argument("item_id", metavar="ID")
@click.option("--at", "moment", type=PositionOrTime(), help="As of this position or time; now if left out.")
@AS_JSON
def state(*, projection: str, item_id: str, moment: int | datetime | None, as_json: bool) -> None:
    """Show what ID of PROJECTION was at a moment: the fold of its events up to there."""
    chosen: Projection[Any] = PROJECTIONS[projection]
    prefix = f"{chosen.category}-"
    stream = item_id if item_id.startswith(prefix) else prefix + item_id

    async def work(conn: Connection) -> Any:  # noqa: ANN401 - a row of any state
        return await replays.state_at(conn, chosen, stream, up_to=await _position(conn, moment))

    row = with_connection(work)
    if row.version < 0:
        raise NotFoundError(f"{plain(stream)} had no event by then")
    encoded = msgspec.json.encode({"stream": stream, "version": row.version, "state": row.state})
    click.echo(encoded if as_json else msgspec.json.format(encoded))
