"""Keys over HTTP: create, list, revoke; for admins. A key is in one answer, the one that made it."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from aiohttp import web

from kima_stream.errors import NotFoundError
from kima_stream.http.routes import ADMIN, Call, Nothing, Route, json_response
from kima_stream.read_models import users
from kima_stream.settings import api_keys
from kima_stream.settings.api_keys import ApiKey, Role

# No control characters: the name is shown in logs and on pages.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class KeyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to make; ``user_id`` owns what is asked for with it, and is opaque: for somebody new leave it out.

    The id stays in the log for ever, the names do not: erasing the user makes them unreadable.
    """

    name: Name
    role: Role
    user_id: Name | None = None


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key itself, shown this once."""

    key: str
    key_id: UUID
    name: str
    role: Role
    user_id: str
    created_at: datetime


class KeyList(msgspec.Struct, frozen=True):
    """All keys, the revoked ones too, without their secrets."""

    keys: tuple[ApiKey, ...]


async def create_key(call: Call[Nothing, KeyRequest]) -> web.Response:
    """Make a key."""
    asked = call.body
    async with call.door.pool.acquire() as conn:
        key, row = await users.create_key(
            conn,
            call.door.settings_store.sources.roots,
            name=asked.name,
            role=asked.role,
            user_id=asked.user_id,
            by=call.user.user_id,
            correlation_id=call.correlation_id,
        )
    call.door.keys.forget()
    call.door.wake_publisher()
    made = NewKey(
        key=key, key_id=row.key_id, name=row.name, role=row.role, user_id=row.user_id, created_at=row.created_at
    )
    return json_response(made, status=201)


async def list_keys(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer all keys."""
    async with call.door.pool.acquire() as conn:
        keys = await users.named_keys(conn, call.door.settings_store.sources.roots, await api_keys.list_keys(conn))
        return json_response(KeyList(tuple(keys)))


async def revoke_key(call: Call[Nothing, Nothing]) -> web.Response:
    """Revoke a key for ever; here at once, elsewhere within a second."""
    try:
        key_id = UUID(call.parameter("key_id"))
    except ValueError:
        detail = "There is no such key."
        raise NotFoundError(detail) from None
    async with call.door.pool.acquire() as conn:
        row = await api_keys.revoke(conn, key_id)
        (row,) = await users.named_keys(conn, call.door.settings_store.sources.roots, [row])
    call.door.keys.forget()
    return json_response(row)


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/keys",
        handler=create_key,
        summary="Create a key; it is shown this once.",
        roles=ADMIN,
        body=KeyRequest,
        responses={201: NewKey},
        problems=(409,),
    ),
    Route(
        method="GET",
        path="/api/keys",
        handler=list_keys,
        summary="List the keys, without their secrets.",
        roles=ADMIN,
        responses={200: KeyList},
    ),
    Route(
        method="DELETE",
        path="/api/keys/{key_id}",
        handler=revoke_key,
        summary="Revoke a key for ever.",
        roles=ADMIN,
        responses={200: ApiKey},
    ),
)
