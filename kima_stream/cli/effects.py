"""``effects``: what waits to be called outside, why, and since when."""

from datetime import UTC, datetime
from typing import get_args

import click
import msgspec
from rich.text import Text

from kima_stream.cli import tables
from kima_stream.cli.database import with_connection
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.effects import breaker, waiting
from kima_stream.effects.breaker import Breaker
from kima_stream.effects.waiting import EffectState, WaitingEffect

COLUMNS = ("effect", "kind", "target", "stream", "state", "waits", "attempts", "next", "why")
_COLORS = {"running": "green", "blocked": "red", "postponed": "yellow", "ready": ""}


class Listed(msgspec.Struct, frozen=True):
    """The answer in JSON: what is open, and the systems that failed lately."""

    effects: list[WaitingEffect]
    breakers: list[tuple[Breaker, breaker.State]]


@click.command()
@click.option("--system", help="Only calls to this system, e.g. lidarr.")
@click.option("--stream", help="Only what this stream wants, e.g. download_job-….")
@click.option("--state", type=click.Choice(get_args(EffectState)))
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def effects(*, system: str | None, stream: str | None, state: EffectState | None, limit: int, as_json: bool) -> None:
    """List the calls to the outside that have no outcome yet, and the systems that do not answer.

    Exit 1 when a system is not called, but for probes.
    """

    async def read(conn: Connection) -> Listed:
        found = await waiting.list_page(conn, system=system, stream=stream, state=state, limit=limit)
        return Listed(found, await breaker.read(conn, None if system is None else [system]))

    listed = with_connection(read)
    if as_json:
        click.echo(msgspec.json.encode(listed))
    else:
        _show(listed)
    if any(standing != "closed" for _, standing in listed.breakers):
        raise SystemExit(1)


def _show(listed: Listed) -> None:
    now = datetime.now(UTC)
    for found, standing in listed.breakers:
        if standing != "closed" and found.opened_at is not None:
            since = _seconds(now, found.opened_at)
            click.echo(f"{found.system} does not answer for {since}: {plain(found.last_error or '')}")
    if listed.effects:
        tables.show(COLUMNS, (_row(effect, now) for effect in listed.effects))
    else:
        click.echo("nothing waits to be called")


def _row(effect: WaitingEffect, now: datetime) -> tuple[object, ...]:
    return (
        effect.effect_id,
        effect.kind,
        effect.target,
        effect.stream,
        Text(effect.state + (" (to be asked)" if effect.is_unknown else ""), _COLORS[effect.state]),
        _seconds(now, effect.intended_at),
        effect.attempts,
        None if effect.next_attempt_at is None else f"in {_seconds(effect.next_attempt_at, now)}",
        effect.last_error if effect.progress is None else effect.progress.text,
    )


def _seconds(later: datetime, earlier: datetime) -> str:
    return f"{max((later - earlier).total_seconds(), 0):.0f} s"
