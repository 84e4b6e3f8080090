"""Webhooks in: understand, name, append; answered only after the commit.

Lidarr sends each webhook once, does not repeat it after an error, does not follow a redirect and
waits for the answer before it goes on. So whatever can be kept is kept with a 200, also a type that
nobody knows, and the work is done later by the consumers.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

import msgspec
import structlog
from aiohttp import web

from kima_stream import event_store, metrics
from kima_stream.database import Connection
from kima_stream.errors import WrongExpectedVersionError
from kima_stream.events import NO_STREAM
from kima_stream.group_commit import Receipt
from kima_stream.http.routes import WEBHOOK, Call, Method, Nothing, Route, json_response
from kima_stream.integrations import lidarr_webhooks, slskd_webhooks
from kima_stream.integrations.received import Received

MAX_USER_AGENT: Final = 256

_LABEL: Final = web.RequestKey("webhook_label", str)
_OUTCOME: Final = web.RequestKey("webhook_outcome", str)
_OUTCOMES: Final = {200: "accepted", 401: "unauthorized", 403: "unauthorized", 503: "unavailable"}

log = structlog.get_logger(__name__)


class Accepted(msgspec.Struct, frozen=True):
    """The webhook is in the log under ``event_id``; ``duplicate``: it was there before."""

    event_id: UUID
    duplicate: bool


class Verified(msgspec.Struct, frozen=True):
    """The key is good for webhooks; nothing was stored."""

    status: str
    name: str
    role: str


class _Metadata(msgspec.Struct, frozen=True):
    route: str
    user_agent: str | None


async def receive_lidarr(call: Call[Nothing, Nothing]) -> web.Response:
    """Keep one webhook of Lidarr."""
    return await _receive(call, lidarr_webhooks.receive, lidarr_webhooks.NAMESPACE)


async def receive_slskd(call: Call[Nothing, Nothing]) -> web.Response:
    """Keep one webhook of slskd."""
    return await _receive(call, slskd_webhooks.receive, slskd_webhooks.NAMESPACE)


async def verify(call: Call[Nothing, Nothing]) -> web.Response:
    """Say that the key is good, for a sender that wants to know before it sends."""
    return json_response(Verified(status="ok", name=call.user.name, role=call.user.role))


async def _receive(call: Call[Nothing, Nothing], receive: Callable[[bytes], Received], namespace: UUID) -> web.Response:
    received = receive(call.raw)
    call.request[_LABEL] = received.label
    receipt = await _append(call, received, namespace)
    if receipt.conflicting:
        # The first body stands; the sender cannot mend it, and an error would make it back off.
        log.warning("webhook_conflicted", event_id=str(receipt.events[0].event_id), type=received.type)
        call.request[_OUTCOME] = "conflicting"
    elif receipt.duplicate:
        call.request[_OUTCOME] = "duplicate"
    return json_response(Accepted(event_id=receipt.events[0].event_id, duplicate=receipt.duplicate))


async def _append(call: Call[Nothing, Nothing], received: Received, namespace: UUID) -> Receipt:
    """Append under the id of its round; nearly always the stream is new and it is the first."""

    async def append(turn: int, expected_version: int | None = event_store.ANY) -> Receipt:
        event_id = received.identify(namespace, round=turn)
        event = received.new_event(event_id, metadata=_metadata(call.request), correlation_id=call.correlation_id)
        return await call.door.commit.append(received.stream(event_id), [event], expected_version=expected_version)

    if not received.is_in_rounds:
        return await append(0)
    with suppress(WrongExpectedVersionError):
        receipt = await append(0, NO_STREAM)
        if not receipt.duplicate:
            return receipt
    async with call.door.pool.acquire() as conn:
        turn = await find_round(conn, received.stream(received.identify(namespace)), received.type)
    return await append(turn)


# A failure that was seen in Lidarr's history counts as one that it told: the next Grab is another one.
_FIND_ROUND: Final = """
    SELECT count(*) FILTER (WHERE kind = 'failure' AND before IS DISTINCT FROM kind) AS failures,
           count(*) FILTER (WHERE kind = 'grab' AND before = 'failure') AS grabs_again
      FROM (SELECT kind, lag(kind) OVER (ORDER BY version) AS before
              FROM (SELECT version, CASE type WHEN 'lidarr.grab' THEN 'grab' ELSE 'failure' END AS kind
                      FROM events
                     WHERE stream = $1
                       AND type IN ('lidarr.grab', 'lidarr.download_failure', 'lidarr.failure_seen')) AS told) AS turns
"""


async def find_round(conn: Connection, stream: str, type: str) -> int:  # noqa: A002 - the field's name everywhere
    """Return which round of ``stream`` a Grab or DownloadFailure that comes now belongs to, from 0.

    A Grab after a failure opens the next round; a failure belongs to the round of the last Grab.
    """
    row = await conn.fetchrow(_FIND_ROUND, stream)
    if row is None:
        return 0
    return int(row["failures"] if type == "lidarr.grab" else row["grabs_again"])


def _metadata(request: web.Request) -> str:
    user_agent = request.headers.get("User-Agent", "")[:MAX_USER_AGENT]
    return msgspec.json.encode(
        _Metadata(
            route=request.path.rstrip("/"),
            user_agent=user_agent.encode("utf-8", "replace").decode() or None,
        )
    ).decode()


def _observe(request: web.Request, status: int, seconds: float) -> None:
    label = request.get(_LABEL, metrics.OTHER)
    outcome = request.get(_OUTCOME) or _OUTCOMES.get(status, "rejected")
    metrics.webhook_events.labels(event_type=label, status=outcome).inc()
    metrics.webhook_processing_seconds.labels(event_type=label).observe(seconds)


_LIDARR_METHODS: Final[tuple[Method, ...]] = ("POST", "PUT")

ROUTES: Final = (
    *(
        Route(
            method=method,
            path="/api/webhooks/lidarr",
            handler=receive_lidarr,
            summary="Keep a webhook of Lidarr (Settings, Connect, Webhook).",
            roles=WEBHOOK,
            raw_body=lidarr_webhooks.AnyWebhook,
            takes_any_object=True,
            responses={200: Accepted},
            observe=_observe,
        )
        for method in _LIDARR_METHODS
    ),
    Route(
        method="GET",
        path="/api/webhooks/lidarr/verify",
        handler=verify,
        summary="Say whether this key is good for webhooks.",
        roles=WEBHOOK,
        responses={200: Verified},
    ),
    Route(
        method="POST",
        path="/api/webhooks/slskd",
        handler=receive_slskd,
        summary="Keep a webhook of slskd (integrations, webhooks).",
        roles=WEBHOOK,
        raw_body=slskd_webhooks.SlskdWebhook,
        takes_any_object=True,
        responses={200: Accepted},
        observe=_observe,
    ),
)
