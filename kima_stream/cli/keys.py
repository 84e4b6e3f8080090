"""``keys``: who may do what. A key is shown once, when it is made."""

from typing import get_args
from uuid import UUID

import click
import msgspec

from kima_stream.cli import tables
from kima_stream.cli.database import require_root, roots, with_connection
from kima_stream.cli.loop import settings
from kima_stream.database import Connection
from kima_stream.read_models import users
from kima_stream.settings import api_keys
from kima_stream.settings.api_keys import ApiKey, Role

TERMINAL = "the terminal"  # who asks when a command does
COLUMNS = ("id", "name", "role", "user", "created", "last used", "revoked")
_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")


@click.group()
def keys() -> None:
    """Create, list and revoke the keys that open the front door."""


@keys.command()
@click.option("--name", required=True, help="What or who the key is for, e.g. lidarr.")
@click.option("--role", type=click.Choice(get_args(Role)), default="user", show_default=True, help="What it may do.")
@click.option("--user", "user_id", default=None, help="Whose it is: an id of `keys list`; somebody new unless given.")
@_AS_JSON
def create(*, name: str, role: Role, user_id: str | None, as_json: bool) -> None:
    """Create a key and print it, this once."""
    if role in users.PERSONS or user_id is not None:
        require_root(settings())

    async def work(conn: Connection) -> tuple[str, ApiKey]:
        return await users.create_key(conn, roots(), name=name, role=role, user_id=user_id, by=TERMINAL)

    key, row = with_connection(work)
    click.echo(msgspec.json.encode({"key": key, **msgspec.structs.asdict(row)}) if as_json else key)


@keys.command(name="list")
@_AS_JSON
def list_keys(*, as_json: bool) -> None:
    """List all keys, the revoked ones too, without their secrets."""

    async def work(conn: Connection) -> list[ApiKey]:
        return await users.named_keys(conn, roots(), await api_keys.list_keys(conn))

    found = with_connection(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        tables.show(COLUMNS, (_row(key) for key in found))


@keys.command()
@click.argument("key_id", type=click.UUID)
@_AS_JSON
def revoke(*, key_id: UUID, as_json: bool) -> None:
    """Revoke a key; every process refuses it within a second."""

    async def work(conn: Connection) -> ApiKey:
        return (await users.named_keys(conn, roots(), [await api_keys.revoke(conn, key_id)]))[0]

    row = with_connection(work)
    click.echo(msgspec.json.encode(row) if as_json else f"revoked {row.name} ({row.key_id})")


def _row(key: ApiKey) -> tuple[object, ...]:
    moments = (key.created_at, key.last_used_at, key.revoked_at)
    written = (moment and moment.isoformat(timespec="seconds") for moment in moments)
    return (key.key_id, key.name, key.role, key.user_id, *written)
