"""``erase``: forget a person. Without ``--yes`` it only says what would go and what would stay."""

import click
import msgspec

from kima_stream.cli.database import roots, with_connection
from kima_stream.cli.keys import TERMINAL
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.read_models import erasure
from kima_stream.read_models.erasure import Erased, Plan


@click.command()
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Do it; it cannot be undone.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def erase(*, subject: str, yes: bool, as_json: bool) -> None:
    """Make what SUBJECT, a user id of `keys list`, said about themselves unreadable for ever, and revoke their keys.

    Without --yes nothing is changed: it says what would go, and what would stay. The log, its chain and every
    rebuild stay as they are. A backup from before still has the key: do it again after one was restored.
    """

    async def described(conn: Connection) -> Plan:
        return await erasure.plan(conn, roots(), subject)

    async def done(conn: Connection) -> Erased:
        return await erasure.erase(conn, subject, by=TERMINAL)

    if not yes:
        planned = with_connection(described)
        click.echo(msgspec.json.encode(planned) if as_json else _planned(planned))
        return
    erased = with_connection(done)
    click.echo(msgspec.json.encode(erased) if as_json else _erased(erased))


def _planned(planned: Plan) -> str:
    if planned.is_erased:
        return f"{plain(planned.user_id)} was erased before; nothing is left to go."
    names = ", ".join(plain(name) for name in planned.key_names) or "none"
    lines = [
        f"{plain(planned.user_id)} is called {plain(planned.name or 'nothing')}.",
        "Goes for ever:",
        "  the key that opens their name and the notes of their requests, wherever these are stored",
        f"  {len(planned.key_names)} API keys with their names: {names}",
        "Stays:",
        f"  every event, what is sealed in it unreadable, and {planned.jobs} download jobs with artist and album",
    ]
    if not planned.id_is_opaque:
        lines.append("  the id itself, in all of these: it was chosen by somebody and may say who it is")
    lines.append("Nothing was changed; say --yes to do it.")
    return "\n".join(lines)


def _erased(erased: Erased) -> str:
    when = erased.erased_at.isoformat(timespec="seconds")
    if erased.duplicate:
        return f"{plain(erased.user_id)} was erased before, {when}, by {plain(erased.erased_by)}"
    return f"erased {plain(erased.user_id)}: {erased.keys_revoked} keys revoked, event {erased.event_id}"
