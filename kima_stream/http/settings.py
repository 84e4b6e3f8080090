"""Settings over HTTP, for admins: see, change, and try a connection before it is saved.

A secret goes in and never out: its mask stands for it.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from aiohttp import web

from kima_stream.errors import UserFacingError, WrongExpectedVersionError
from kima_stream.http import requests
from kima_stream.http.routes import ADMIN, AnyRoute, Call, Nothing, Route, json_response
from kima_stream.integrations import connection_checks
from kima_stream.integrations.connection_checks import Checked
from kima_stream.read_models import settings
from kima_stream.read_models.settings import Rotated
from kima_stream.settings.definitions import DEFINITIONS
from kima_stream.settings.store import Snapshot
from kima_stream.settings.views import SettingsView, public_version, view

_OBJECT: Final[msgspec.json.Decoder[dict[str, object]]] = msgspec.json.Decoder(dict[str, Any])
_ETAG: Final = re.compile(r'"([0-9]{1,18})"')

# The document has the exact types; the handler checks them, so that all faults come at once.
SettingsChange: Final = msgspec.defstruct(
    "SettingsChange",
    [
        (
            key,
            Annotated[
                Any,
                msgspec.Meta(
                    description=definition.doc,
                    extra_json_schema={"anyOf": [msgspec.json.schema(definition.type), {"type": "null"}]},
                ),
            ],
            msgspec.field(default=None),
        )
        for key, definition in DEFINITIONS.items()
    ],
    module=__name__,
    frozen=True,
    kw_only=True,
)
Change: TypeAlias = msgspec.Struct  # of SettingsChange


async def show_settings(call: Call[Nothing, Nothing]) -> web.Response:
    """Answer all settings as they are in force here."""
    return _answer(await call.door.settings_store.refresh())


async def change_settings(call: Call[Nothing, Change]) -> web.Response:
    """Change what the body names, all or nothing; null clears, and the mask leaves a secret as it is."""
    door = call.door
    expected = _expected_version(call.request)
    try:
        async with door.pool.acquire() as conn:
            await settings.change(
                conn,
                door.settings_store.sources,
                _asked(call),
                by=call.user.user_id,
                expected_version=expected,
                correlation_id=call.correlation_id,
            )
    except WrongExpectedVersionError:
        detail = "Somebody changed the settings in between; read them again."
        raise UserFacingError(detail, status=412, code="precondition_failed") from None
    door.wake_publisher()
    return _answer(await door.settings_store.refresh())


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``give_up_lost`` clears the secrets that no root of ours opens; without it they stop the rotation."""

    give_up_lost: bool = False


async def rotate_key(call: Call[Nothing, Rotation]) -> web.Response:
    """Seal every secret with a new data key."""
    door = call.door
    async with door.pool.acquire() as conn:
        rotated = await settings.rotate_key(
            conn,
            door.settings_store.sources,
            by=call.user.user_id,
            give_up_lost=call.body.give_up_lost,
            correlation_id=call.correlation_id,
        )
    door.wake_publisher()
    await door.settings_store.refresh()
    return json_response(rotated)


def _trial(system: str) -> Callable[[Call[Nothing, Change]], Awaitable[web.Response]]:
    async def try_system(call: Call[Nothing, Change]) -> web.Response:
        store, asked = call.door.settings_store, _asked(call)
        current = await store.refresh()
        trial = settings.trial(asked, current, store.sources)
        return json_response(await connection_checks.check(system, trial.values, current, trial.given))

    return try_system


def _asked(call: Call[Nothing, Change]) -> dict[str, object]:
    """Return the body by key; the first decoding skipped what it did not know, this one reads all."""
    return requests.body(call.request, _OBJECT, call.raw)


def _expected_version(request: web.Request) -> int | None:
    given = request.headers.get("If-Match")
    if given is None or given == "*":
        return None
    tag = _ETAG.fullmatch(given)
    if tag is None:
        raise UserFacingError('Send If-Match: "<version>", or leave it out.')
    return int(tag[1]) - 1


def _answer(current: Snapshot) -> web.Response:
    return json_response(view(current), headers={"ETag": f'"{public_version(current)}"'})


_TESTS: Final = {
    "lidarr": "Ask Lidarr for its status, with the values of the body over those in force.",
    "soulseek": "Connect to the Soulseek server; no login is tried.",
    "lastfm": "Ask Last.fm for one artist, with the values of the body over those in force.",
}
ROUTES: Final[tuple[AnyRoute, ...]] = (
    Route(
        method="GET",
        path="/api/settings",
        handler=show_settings,
        summary="All settings with their source, secrets masked.",
        roles=ADMIN,
        responses={200: SettingsView},
        response_headers=("ETag",),
    ),
    Route(
        method="PUT",
        path="/api/settings",
        handler=change_settings,
        summary="Change the settings named; null clears, the mask leaves a secret as it is.",
        roles=ADMIN,
        body=SettingsChange,
        responses={200: SettingsView},
        request_headers=("If-Match",),
        response_headers=("ETag",),
        problems=(412,),
    ),
    Route(
        method="POST",
        path="/api/settings/rotate-key",
        handler=rotate_key,
        summary="Seal every secret with a new data key.",
        roles=ADMIN,
        body=Rotation,
        responses={200: Rotated},
    ),
    *(
        Route(
            method="POST",
            path=f"/api/settings/{system}/test",
            handler=_trial(system),
            summary=summary,
            roles=ADMIN,
            body=SettingsChange,
            responses={200: Checked},
        )
        for system, summary in _TESTS.items()
    ),
)
