"""People and programs are told once, signed, and no address is shown anywhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from consumers import notifications
from kima_stream import event_store, projector
from kima_stream.database import Connection, Pool
from kima_stream.effects import Worker, breaker, waiting
from kima_stream.effects.breaker import LONGEST_PROBE_SECONDS, OPEN_AFTER_FAILURES
from kima_stream.events import NotificationWanted, new_event_id
from kima_stream.read_models import notifications as table
from kima_stream.settings.config import Settings
from kima_stream.settings.store import SettingsStore, Sources
from projections import notification
from projections.notification import Notification

SECRET = "whsec_c2VjcmV0IG9mIHRoaXJ0eSBieXRlcyBvciBzbywgZm9yIHRlc3Rz"
TOKEN = "a-token-that-must-not-be-seen"


@dataclass
class Receiver:
    """A server that somebody configured: keeps what it was sent, and answers as it is told."""

    url: str = ""
    status: int = 200
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Keep it."""
        self.received.append((request.path, dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Listen on 127.0.0.1."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    receiver.url = f"127.0.0.1:{receiver.url}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver."""
    async with receiving() as opened:
        yield opened


class Clock:
    """Goes when it is told to."""

    def __init__(self) -> None:
        """Begin now."""
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        """Return the moment."""
        return self.now


async def a_worker(pool: Pool, environment: dict[str, object], clock: Clock | None = None) -> Worker:
    """Return a worker under these settings."""
    store = SettingsStore(pool, Sources.of(Settings(environment=environment)))
    await store.refresh()
    executors = notifications.executors(pool, store)
    return Worker(pool, executors, [notifications.OWNER], holder=str(uuid4()), clock=clock or Clock())


async def want(conn: Connection, kind: str = "completed") -> str:
    """Let an attempt end and return the stream of its notification."""
    job_id = uuid4()
    wanted = NotificationWanted(
        notification_id=notification.notification_id(job_id, 1, kind), job_id=job_id, attempt=1,
        kind=kind, user_id="ann", artist="Sjöfn", album="雨", reason="It is there.",  # type: ignore[arg-type]
    )  # fmt: skip
    stream = table.stream_of(wanted.notification_id)
    decided = notification.decide(notification.INITIAL, wanted, datetime.now(UTC))
    async with conn.transaction():
        row = await projector.load(conn, table.PROJECTION, stream)
        events = projector.consequences(decided, event_id=new_event_id(), correlation_id="c")
        await projector.decide(conn, table.PROJECTION, row, events)
    return stream


async def state(conn: Connection, stream: str) -> Notification:
    """Return the notification as the table has it."""
    row = await table.TABLE.find(conn, stream)
    assert row is not None
    return row.state


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Apprise's own modules
async def test_each_channel_is_told_once(pool: Pool, conn: Connection, receiver: Receiver) -> None:
    """One message to an Apprise address, one signed webhook; then nothing is open and nothing more is sent."""
    environment: dict[str, object] = {
        "notificationUrls": (f"json://{receiver.url}/apprise/{TOKEN}",),
        "webhookUrls": (f"http://{receiver.url}/hook/{TOKEN}",),
        "webhookSigningSecret": SECRET,
    }
    stream = await want(conn)
    with capture_logs() as lines:
        worker = await a_worker(pool, environment)
        while await worker.run_once():
            pass

    assert sorted(path for path, _, _ in receiver.received) == [f"/apprise/{TOKEN}", f"/hook/{TOKEN}"]
    told = await state(conn, stream)
    assert (told.status, {channel.status for channel in told.channels}, told.effects) == ("told", {"delivered"}, ())
    recorded = [event.data for event in await event_store.read_stream(conn, stream)]
    assert TOKEN not in str(recorded)
    assert TOKEN not in str(lines)
    message = next(body for path, _, body in receiver.received if path.startswith("/apprise"))
    assert "雨 by Sjöfn is there" in msgspec.json.decode(message)["title"]


async def test_a_webhook_is_signed(pool: Pool, conn: Connection, receiver: Receiver) -> None:
    """Its receiver can verify it with the secret, and knows a repeat by its id."""
    stream = await want(conn, "failed")
    worker = await a_worker(pool, {"webhookUrls": (f"http://{receiver.url}/",), "webhookSigningSecret": SECRET})
    while await worker.run_once():
        pass

    [(_, headers, body)] = receiver.received
    data = Webhook(SECRET).verify(body, headers)
    assert (data["type"], data["data"]["album"], data["data"]["attempt"]) == ("download.failed", "雨", 1)
    intended = [e for e in await event_store.read_stream(conn, stream) if e.type == "effect.intended"]
    assert UUID(headers["webhook-id"]) == UUID(msgspec.json.decode(intended[-1].data)["effect"]["effect_id"])
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(body.replace(b"failed", b"passed"), headers)


async def test_a_receiver_that_is_away_is_told_later(pool: Pool, conn: Connection, receiver: Receiver) -> None:
    """A failure that may heal is tried again under the same id; one that may not ends the channel, with a reason."""
    clock = Clock()
    receiver.status = 503
    stream = await want(conn)
    worker = await a_worker(pool, {"webhookUrls": (f"http://{receiver.url}/",), "webhookSigningSecret": SECRET}, clock)
    for _ in range(3):
        await worker.run_once()
        clock.now += timedelta(minutes=2)
    assert (await state(conn, stream)).status == "addressed"
    receiver.status = 204
    clock.now += timedelta(minutes=5)
    await worker.run_once()
    assert (await state(conn, stream)).status == "told"
    assert len({headers["webhook-id"] for _, headers, _ in receiver.received}) == 1

    receiver.status = 410
    stream = await want(conn)
    while await worker.run_once():
        pass
    assert [(c.status, c.reason) for c in (await state(conn, stream)).channels] == [("failed", "answered 410")]


async def test_receivers_that_are_away_are_left_alone(pool: Pool, conn: Connection, receiver: Receiver) -> None:
    """The breaker of webhooks opens: what waits is not tried, one probe at a time is, and then all is told."""
    clock = Clock()
    receiver.status = 503
    streams = [await want(conn) for _ in range(12)]
    worker = await a_worker(pool, {"webhookUrls": (f"http://{receiver.url}/",), "webhookSigningSecret": SECRET}, clock)
    while await worker.run_once():
        pass
    assert OPEN_AFTER_FAILURES <= len(receiver.received) < len(streams)
    assert {effect.state for effect in await waiting.list_page(conn)} == {"blocked"}

    for _ in range(2 * len(streams)):  # each of them a second time as well
        before = len(receiver.received)
        clock.now += timedelta(seconds=LONGEST_PROBE_SECONDS)
        while await worker.run_once():
            pass
        assert len(receiver.received) == before + 1
    [(found, standing)] = await breaker.read(conn, now=clock.now)
    assert (found.system, standing) == ("webhook", "open")

    receiver.status = 204
    clock.now += timedelta(seconds=LONGEST_PROBE_SECONDS)
    while await worker.run_once():
        pass
    assert {(await state(conn, stream)).status for stream in streams} == {"told"}
    assert [standing for _, standing in await breaker.read(conn)] == ["closed"]


@pytest.mark.parametrize("environment", [{}, {"webhookUrls": ("http://127.0.0.1:9/",)}])
async def test_wrong_settings_are_said_and_nothing_is_sent(
    pool: Pool, conn: Connection, environment: dict[str, object]
) -> None:
    """No channel: it is over. No secret: nothing goes out unsigned, and the channel says what is missing."""
    stream = await want(conn)
    worker = await a_worker(pool, environment)
    while await worker.run_once():
        pass

    told = await state(conn, stream)
    assert told.status == "told"
    assert all("webhookSigningSecret" in str(channel.reason) for channel in told.channels)
    assert len(told.channels) == len(environment)
