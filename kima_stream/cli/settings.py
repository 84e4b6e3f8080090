"""``settings``: what integrations and policies go by; the same table, checks and answers as over HTTP.

A secret comes from a prompt, stdin or a file, never from the command line unless that is asked for: others
can see it, and shells keep it. It is never shown. What the environment says here need not be what it says
where the roles run.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO, Final, TypeVar

import click
import msgspec

from kima_stream.cli import loop, tables
from kima_stream.cli.database import require_root, with_connection
from kima_stream.cli.text import plain
from kima_stream.database import Connection
from kima_stream.errors import ConfigurationError, ConflictError, WrongExpectedVersionError
from kima_stream.integrations import connection_checks
from kima_stream.read_models import settings as table
from kima_stream.settings import store
from kima_stream.settings.config import Settings
from kima_stream.settings.definitions import DEFINITIONS
from kima_stream.settings.kinds import MASK, Json
from kima_stream.settings.store import Snapshot, Sources
from kima_stream.settings.views import SettingView, public_version, view

BY: Final = "cli"  # who changed it, as events and answers name it
_COLUMNS: Final = ("setting", "value", "source", "changed by", "changed", "fault")
_AS_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, as over HTTP.")
_OBJECT: Final[msgspec.json.Decoder[dict[str, object]]] = msgspec.json.Decoder(dict[str, Any])

T = TypeVar("T")


@click.group()
def settings() -> None:
    """See and change settings; a change is in force everywhere within a second."""


@settings.command(name="list")
@_AS_JSON
def list_settings(*, as_json: bool) -> None:
    """List all settings with their source; secrets are masked."""
    found = view(_with(store.read))
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        tables.show(_COLUMNS, (_row(setting) for setting in found.settings))


@settings.command()
@click.argument("key")
@_AS_JSON
def get(*, key: str, as_json: bool) -> None:
    """Show one setting; a secret that is there is its mask. Exit 2 when it cannot be used."""
    if key not in DEFINITIONS:
        raise ConfigurationError([f"{key[:80]!r}: there is no such setting"])
    (found,) = (setting for setting in view(_with(store.read)).settings if setting.key == key)
    if as_json:
        click.echo(msgspec.json.encode(found))
    elif found.fault is None:
        click.echo(_text(found.value))
    if found.fault is not None:
        raise ConfigurationError([f"{key}: {found.fault}"])


_ASSIGNMENTS: Final = click.argument("assignments", metavar="[KEY[=VALUE]]...", nargs=-1)
_FILE: Final = click.option(
    "--file", "file", type=click.File("rb"), help="A JSON object by key, as over HTTP; - is stdin."
)
_SECRETS_IN_ARGUMENTS: Final = click.option(
    "--secrets-in-arguments", is_flag=True, help="Take secrets from the command line too."
)


@settings.command(name="set")
@_ASSIGNMENTS
@click.option("--clear", multiple=True, metavar="KEY", help="Fall back to environment or default.")
@_FILE
@_SECRETS_IN_ARGUMENTS
@click.option("--if-version", type=click.IntRange(min=0), help="Only when the settings are of this version.")
@_AS_JSON
def set_settings(
    *,
    assignments: tuple[str, ...],
    clear: tuple[str, ...],
    file: BinaryIO | None,
    secrets_in_arguments: bool,
    if_version: int | None,
    as_json: bool,
) -> None:
    """Change settings, all or nothing; a KEY without a value is asked for, or read as a line of stdin."""
    loaded = loop.settings()
    changes = _changes(loaded, assignments, clear, file, takes_secrets=secrets_in_arguments)
    if not changes:
        raise click.UsageError("Nothing to set: give KEY=VALUE, --clear KEY or --file.")
    if any(key in DEFINITIONS and DEFINITIONS[key].is_secret and value is not None for key, value in changes.items()):
        require_root(loaded)
    before, after = _with(lambda conn, sources: _change(conn, sources, changes, if_version), loaded)
    click.echo(msgspec.json.encode(view(after)) if as_json else _summary(changes, before, after))


@settings.command(name="test")
@click.argument("system", type=click.Choice(connection_checks.SYSTEMS))
@_ASSIGNMENTS
@_FILE
@_SECRETS_IN_ARGUMENTS
@_AS_JSON
def test_connection(
    *, system: str, assignments: tuple[str, ...], file: BinaryIO | None, secrets_in_arguments: bool, as_json: bool
) -> None:
    """Connect to SYSTEM with the settings in force, or with those given, before they are saved. Exit 1: it failed.

    The connection is made from here, which need not be where the roles run.
    """
    loaded = loop.settings()
    changes = _changes(loaded, assignments, (), file, takes_secrets=secrets_in_arguments)

    async def work(conn: Connection, sources: Sources) -> connection_checks.Checked:
        current = await store.read(conn, sources)
        trial = table.trial(changes, current, sources)
        return await connection_checks.check(system, trial.values, current, trial.given)

    checked = _with(work, loaded)
    click.echo(msgspec.json.encode(checked) if as_json else plain(checked.detail))
    if not checked.ok:
        sys.exit(1)


@settings.command(name="rotate-key")
@click.option("--give-up-lost", is_flag=True, help="Clear what no root of ours opens: secrets, names, notes.")
@_AS_JSON
def rotate_key(*, give_up_lost: bool, as_json: bool) -> None:
    """Seal every secret with a new data key, while everything runs.

    With a new KIMA_SECRET_KEY, and the old one as KIMA_SECRET_KEY_PREVIOUS, all hangs on the new one afterwards.
    """
    loaded = loop.settings()
    require_root(loaded)

    async def work(conn: Connection, sources: Sources) -> table.Rotated:
        return await table.rotate_key(conn, sources, by=BY, give_up_lost=give_up_lost)

    done = _with(work, loaded)
    if as_json:
        click.echo(msgspec.json.encode(done))
        return
    click.echo(f"{len(done.resealed)} secrets are sealed with the new key {done.key_id}")
    if done.given_up:
        click.echo(f"given up: {', '.join(done.given_up)}")
    if done.persons_given_up:
        click.echo(f"given up: the names and notes of {done.persons_given_up} users, who have new keys")


def _with(work: Callable[[Connection, Sources], Awaitable[T]], loaded: Settings | None = None) -> T:
    found = loaded or loop.settings()
    return with_connection(lambda conn: work(conn, Sources.of(found)), found)


async def _change(
    conn: Connection, sources: Sources, changes: dict[str, object], if_version: int | None
) -> tuple[Snapshot, Snapshot]:
    expected = None if if_version is None else if_version - 1
    before = await store.read(conn, sources)
    try:
        return before, await table.change(conn, sources, changes, by=BY, expected_version=expected)
    except WrongExpectedVersionError as error:
        detail = f"Somebody changed the settings in between: they are at version {error.actual_version + 1}."
        raise ConflictError(detail) from None


def _changes(
    loaded: Settings,
    assignments: tuple[str, ...],
    clear: tuple[str, ...],
    file: BinaryIO | None,
    *,
    takes_secrets: bool,
) -> dict[str, object]:
    """Return all that was given, by key; with all faults at once."""
    faults: list[str] = []
    changes = _from_file(file) | dict.fromkeys(clear, None)
    for number, assignment in enumerate(assignments, start=1):
        _assign(changes, assignment, number, faults, takes_secrets=takes_secrets)
    if faults:
        table.read_changes(changes, Sources.of(loaded), faults)
        raise ConfigurationError(faults)
    return changes


def _from_file(file: BinaryIO | None) -> dict[str, object]:
    if file is None:
        return {}
    try:
        return _OBJECT.decode(file.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"the file is not JSON by key: {error}"]) from None


def _assign(
    changes: dict[str, object], assignment: str, number: int, faults: list[str], *, takes_secrets: bool
) -> None:
    key, equals, text = assignment.partition("=")
    definition = DEFINITIONS.get(key)
    if definition is None and not equals:  # what stands alone may be a secret: it is not repeated
        faults.append(f"argument {number}: there is no such setting; a value follows its key and =")
    elif definition is None:
        changes[key] = text
    elif key in changes:
        faults.append(f"{key}: given twice")
    elif not equals:
        said = _asked(key, is_secret=definition.is_secret)
        if said is None:
            faults.append(f"{key}: no line of stdin is left for it")
        else:
            changes[key] = definition.json_of(said)
    elif definition.is_secret and text != MASK and not takes_secrets:
        faults.append(f"{key}: others can see command lines; leave =VALUE out and it is asked for, or read from stdin")
    else:
        changes[key] = definition.json_of(text)


def _asked(key: str, *, is_secret: bool) -> str | None:
    """Return what a person types, or the next line of stdin."""
    if sys.stdin.isatty():
        return str(click.prompt(key, hide_input=is_secret, err=True))
    return sys.stdin.readline().rstrip("\r\n") or None


def _summary(changes: dict[str, object], before: Snapshot, after: Snapshot) -> str:
    version = f"version {public_version(after)}"
    if after.version == before.version:
        return f"nothing changed: {version}"
    cleared = [key for key, value in changes.items() if value is None]
    kept = [key for key in changes if key not in cleared]
    done = (f"set {', '.join(kept)}" if kept else "", f"cleared {', '.join(cleared)}" if cleared else "")
    return f"{'; '.join(filter(None, done))}: {version}"


def _row(setting: SettingView) -> tuple[object, ...]:
    moment = setting.changed_at and setting.changed_at.isoformat(timespec="seconds")
    return (setting.key, _text(setting.value), setting.source, setting.changed_by, moment, setting.fault)


def _text(value: Json) -> str:
    """Return a value as ``set`` takes it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return " ".join(map(plain, value))
        case _:
            return plain(str(value))
