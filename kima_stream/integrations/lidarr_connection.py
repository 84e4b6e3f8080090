"""Connect Lidarr: register our webhook there, with a key made for it, and prove that its words arrive.

The door must be open: Lidarr posts a Test before it keeps anything. First it posts one on our word, with
an id that we look for in our own log; only when that is there, the webhook is saved. So a wrong address
changes nothing at Lidarr. Doing it again changes nothing but what is wrong; a crash leaves at worst a key
that nobody has.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, Literal
from uuid import UUID, uuid4

import msgspec
import structlog

from kima_stream import leases
from kima_stream.database import Pool
from kima_stream.errors import ConfigurationError, ConflictError
from kima_stream.integrations import lidarr_registration
from kima_stream.integrations.lidarr import Lidarr, LidarrError
from kima_stream.integrations.lidarr_types import Json, Notification, Whole
from kima_stream.integrations.lidarr_waits import Pause, looks
from kima_stream.settings import api_keys, known_keys
from kima_stream.settings.api_keys import ApiKey

LEASE: Final = "connect lidarr"
LEASE_SECONDS: Final = 150.0  # beyond the longest call, which waits for a Test
ARRIVAL_SECONDS: Final = 2.0  # more than it takes: our door answers when it is in the log
NEW_KEY_SECONDS: Final = 2 * known_keys.MISS_AGE_SECONDS  # until every door knows a key that was made just now
CORRELATION_HEADER: Final = "X-Correlation-Id"

log = structlog.get_logger(__name__)


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. ``test_event_id`` is the Test that Lidarr sent and our log has."""

    action: Literal["registered", "updated", "unchanged"]
    notification_id: int
    name: str
    url: str
    key: Literal["made", "kept"]
    test_event_id: UUID
    instance_name: str
    version: str
    notes: tuple[str, ...] = ()


class _Key(msgspec.Struct, frozen=True):
    """The key for the header; ``made`` is its row when it was made just now."""

    text: str
    made: ApiKey | None


async def connect(pool: Pool, lidarr: Lidarr, url: str, *, pause: Pause = asyncio.sleep) -> Connected:
    """Register the webhook that leads to ``url``, or set right what is there.

    Raises:
        ConfigurationError: Lidarr cannot reach ``url``, or what is there is not this server; and as the client.
        ConflictError: somebody else does the same right now.
        LidarrError: Lidarr is away, or refuses for another reason.
    """
    async with _alone(pool) as still_alone:
        status = await lidarr.status()
        notifications = await lidarr.notifications()
        ours = lidarr_registration.find(notifications, url, await _our_keys(pool, notifications))
        key = await _key(pool, ours)
        try:
            wanted = await _wanted(lidarr, notifications, ours, url, key.text)
            await still_alone()
            if key.made is not None:
                await pause(NEW_KEY_SECONDS)
            test_event_id = await _prove(pool, lidarr, wanted, url, pause)
        except Exception:
            await _take_back(pool, key)
            raise
        await still_alone()
        saved = await _save(pool, lidarr, ours, wanted, url, key)
    others = [each.resource for each in notifications]
    connected = Connected(
        action="registered" if ours is None else "unchanged" if saved is ours else "updated",
        notification_id=saved.resource.id,
        name=saved.resource.name,
        url=url,
        key="kept" if key.made is None else "made",
        test_event_id=test_event_id,
        instance_name=status.instance_name,
        version=status.version,
        notes=lidarr_registration.notes(saved.resource, others),
    )
    log.info("lidarr_connected", action=connected.action, key=connected.key, notification_id=saved.resource.id)
    return connected


@asynccontextmanager
async def _alone(pool: Pool) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """See that nobody else connects meanwhile: two at once would make two webhooks."""
    async with pool.acquire() as conn:
        lease = await leases.acquire(conn, LEASE, holder=str(uuid4()), seconds=LEASE_SECONDS)
    if lease is None:
        raise ConflictError(f"Somebody connects Lidarr right now; try again in {LEASE_SECONDS:.0f} s at most.")

    async def hold() -> None:
        async with pool.acquire() as conn:
            await leases.hold(conn, lease, seconds=LEASE_SECONDS)

    try:
        yield hold
    finally:
        async with pool.acquire() as conn:
            await leases.release(conn, lease)


async def _our_keys(pool: Pool, notifications: tuple[Whole[Notification], ...]) -> frozenset[str]:
    """Return those keys in the headers of webhooks that open our door."""
    secrets = {lidarr_registration.secret_of(each.resource) for each in notifications}
    async with pool.acquire() as conn:
        return frozenset(
            [secret for secret in secrets if secret and await api_keys.role_of(conn, secret) in {"webhook", "admin"}]
        )


async def _key(pool: Pool, ours: Whole[Notification] | None) -> _Key:
    """Return the key that is there, if it is good and no more than that, else a new one."""
    there = lidarr_registration.secret_of(ours.resource) if ours is not None else None
    async with pool.acquire() as conn:
        if there and await api_keys.role_of(conn, there) == "webhook":
            return _Key(there, None)
        text, row = await api_keys.create(conn, name="lidarr", role="webhook")
    return _Key(text, row)


async def _take_back(pool: Pool, key: _Key) -> None:
    """Revoke a key that nobody was given."""
    if key.made is not None:
        async with pool.acquire() as conn:
            await api_keys.revoke(conn, key.made.key_id)


async def _wanted(
    lidarr: Lidarr,
    notifications: tuple[Whole[Notification], ...],
    ours: Whole[Notification] | None,
    url: str,
    key: str,
) -> Json:
    if ours is not None:
        return lidarr_registration.changed(ours.body, url, key)
    schema = await lidarr.notification_schema()
    names = [each.resource.name for each in notifications]
    return lidarr_registration.new(schema.body if schema is not None else None, names, url, key)


_FIND_TEST: Final = """
    SELECT event_id FROM events WHERE correlation_id = $1 AND source = 'lidarr' AND type = 'lidarr.test'
"""


async def _prove(pool: Pool, lidarr: Lidarr, wanted: Json, url: str, pause: Pause) -> UUID:
    """Let Lidarr post a Test that we know again, and return the event that it became."""
    sign = f"connect-{uuid4()}"
    try:
        await lidarr.try_notification(lidarr_registration.with_header(wanted, CORRELATION_HEADER, sign))
    except LidarrError as error:
        raise _explained(error, url) from None
    async for _ in looks(ARRIVAL_SECONDS, pause):
        found = await pool.fetchval(_FIND_TEST, sign)
        if isinstance(found, UUID):
            return found
    raise ConfigurationError(
        [f"url: something takes webhooks at {url}, but they do not arrive here; give the address of this very server"]
    )


async def _save(
    pool: Pool, lidarr: Lidarr, ours: Whole[Notification] | None, wanted: Json, url: str, key: _Key
) -> Whole[Notification]:
    """Return the webhook as Lidarr has it now; what may have been saved keeps its key."""
    if ours is not None and wanted == ours.body:
        return ours
    try:
        if ours is None:
            return await lidarr.register(wanted)
        return await lidarr.change_notification(ours.resource.id, wanted)
    except LidarrError as error:
        if HTTPStatus.BAD_REQUEST <= error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            await _take_back(pool, key)
        raise _explained(error, url) from None


def _explained(error: LidarrError, url: str) -> Exception:
    """Return what Lidarr's answer to a Test means."""
    if error.status == HTTPStatus.BAD_REQUEST and any(fault.property_name == "Url" for fault in error.faults):
        return ConfigurationError([f"url: {lidarr_registration.refusal(url, error.detail)}"])
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        said = f"Lidarr cannot reach {url} from where it runs ({error.detail})"
        return ConfigurationError([f"url: {said}; is the door open, and is this our address as seen from there?"])
    return error
