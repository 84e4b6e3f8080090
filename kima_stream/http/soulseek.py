"""The Soulseek account over HTTP, and the peers that are left alone. Any process answers; one owns the account.

Asking to connect raises a number in Postgres and waits for the owner's answer, so however many ask at the same time
at however many doors, there is one login.
"""

import asyncio
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec
from aiohttp import web

from kima_stream.errors import ConfigurationError, ConflictError
from kima_stream.http.routes import ADMIN, USER, Call, Nothing, Route, json_response
from kima_stream.integrations.soulseek import account, peers
from kima_stream.integrations.soulseek.account import Account
from kima_stream.integrations.soulseek.peers import BlockedPeer
from kima_stream.settings import definitions

ANSWER_SECONDS: Final = 30.0  # two time-outs of a connection that cannot be made, and a little
OWNER_SECONDS: Final = 1.0  # so long for a process that stands by to become the owner
POLL_SECONDS: Final = 0.1

Shown: TypeAlias = Literal["off", "disconnected", "connecting", "connected", "waiting", "refused", "kicked", "unowned"]


class SoulseekStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the account is; ``detail`` is for people. ``unowned``: no process that may own it runs.

    ``waiting``: it will be tried again by itself. ``refused`` and ``kicked``: it will not, until somebody asks.
    """

    enabled: bool
    connected: bool
    state: Shown
    detail: str
    username: str | None
    is_wanted: bool
    changed_at: datetime


class BlockList(msgspec.Struct, frozen=True):
    """Peers that are not asked, the latest first."""

    peers: tuple[BlockedPeer, ...]


async def show_status(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer how the account is."""
    async with call.door.pool.acquire() as conn:
        return json_response(_status(call, await account.read(conn)))


async def connect(call: Call[Nothing, Nothing]) -> web.Response:
    """Ask for the account to be connected and wait a while for it; 202: it was asked for, and is not connected yet."""
    row = await _asked(call, wanted=True)
    if row.is_owned and row.state in {"off", "refused"}:
        raise ConfigurationError([row.detail or f"Soulseek is {row.state}."])
    if row.is_owned and row.state == "kicked":
        raise ConflictError("Somebody else logs in with this account at this moment.")
    status = _status(call, row)
    return json_response(status, status=200 if status.connected else 202)


async def disconnect(call: Call[Nothing, Nothing]) -> web.Response:
    """Ask for the account to be disconnected, until somebody asks to connect."""
    return json_response(_status(call, await _asked(call, wanted=False)))


async def list_blocked(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer which peers are left alone."""
    async with call.door.pool.acquire() as conn:
        return json_response(BlockList(tuple(await peers.list_blocked(conn))))


async def unblock(call: Call[Nothing, Nothing]) -> web.Response:
    """Forget what a peer failed of."""
    async with call.door.pool.acquire() as conn:
        await peers.unblock(conn, call.parameter("peer"))
    await call.door.copies.drop(peers.copy_key(call.parameter("peer")))
    return web.Response(status=204)


async def _asked(call: Call[Nothing, Nothing], *, wanted: bool) -> Account:
    """Ask, and return the answer, or how it is when there is none in time: what was asked for stays asked for."""
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    async with call.door.pool.acquire() as conn:
        asked = await account.ask(conn, wanted=wanted)
    while True:
        async with call.door.pool.acquire() as conn:
            row = await account.read(conn)
        waited = loop.time() - began_at
        if row.answered >= asked or waited > (ANSWER_SECONDS if row.is_owned else OWNER_SECONDS):
            return row
        await asyncio.sleep(POLL_SECONDS)


def _status(call: Call[Nothing, Nothing], row: Account) -> SoulseekStatus:
    is_enabled = False
    with suppress(ConfigurationError):  # of a setting that cannot be used; the owner's detail says which
        is_enabled = call.door.settings_store.current.is_on(definitions.SOULSEEK_ENABLED)
    state: Shown = row.state if row.is_owned else "unowned"
    return SoulseekStatus(
        enabled=is_enabled,
        connected=state == "connected",
        state=state,
        detail=row.detail if row.is_owned else "No process that may own the account runs.",
        username=row.username if row.is_owned else None,
        is_wanted=row.is_wanted,
        changed_at=row.changed_at,
    )


ROUTES: Final = (
    Route(
        method="GET",
        path="/api/soulseek/status",
        handler=show_status,
        summary="How the Soulseek account is.",
        roles=USER,
        responses={200: SoulseekStatus},
    ),
    Route(
        method="POST",
        path="/api/soulseek/connect",
        handler=connect,
        summary="Connect the account; however many ask, there is one login.",
        roles=ADMIN,
        responses={200: SoulseekStatus, 202: SoulseekStatus},
        problems=(409,),
    ),
    Route(
        method="POST",
        path="/api/soulseek/disconnect",
        handler=disconnect,
        summary="Disconnect the account until somebody asks to connect.",
        roles=ADMIN,
        responses={200: SoulseekStatus},
    ),
    Route(
        method="GET",
        path="/api/blocklist",
        handler=list_blocked,
        summary="Peers that failed too often and are left alone for a day.",
        roles=ADMIN,
        responses={200: BlockList},
    ),
    Route(
        method="DELETE",
        path="/api/blocklist/{peer}",
        handler=unblock,
        summary="Give a blocked peer another chance.",
        roles=ADMIN,
        responses={204: None},
    ),
)
