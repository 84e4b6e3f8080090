"""Webhooks in: understand, name, append; answered only after the commit.

Lidarr sends each webhook once, does not repeat it after an error, does not follow a redirect and
waits for the answer before it goes on. So whatever can be kept is kept with a 200, also a type that
nobody knows, and the work is done later by the consumers.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
import structlog
from aiohttp import web
from prometheus_client import Counter, Histogram

from kima_stream import event_store, metrics
from kima_stream.database import Connection
from kima_stream.errors import WrongExpectedVersionError
from kima_stream.events import NO_STREAM
from kima_stream.group_commit import Receipt
from kima_stream.http.routes import ROUTE, WEBHOOK, Call, Door, Method, Nothing, Route, json_response
from kima_stream.integrations import lidarr_webhooks, slskd_webhooks
from kima_stream.integrations.received import Received
from kima_stream.read_models import users

MAX_USER_AGENT: Final = 256
SENDERS: Final = 100  # whose metadata is made once and not with every webhook

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


class Source(NamedTuple):
    """A sender of webhooks: how a body of it is read, and what its ids are derived from."""

    receive: Callable[[bytes], Received]
    namespace: UUID


class Delivery:
    """One webhook, read, on its way into the log; ``outcome`` is known once it was answered.

    Raises:
        MalformedBodyError: there is nothing that can be kept.
    """

    __slots__ = ("_correlation_id", "_door", "_metadata", "_namespace", "_received", "label", "outcome")

    def __init__(
        self, door: Door, source: Source, raw: bytes, *, path: str, user_agent: str, correlation_id: str
    ) -> None:
        """Read ``raw``, sent to ``path`` by the program ``user_agent``."""
        self._received = source.receive(raw)
        self._namespace = source.namespace
        self._door = door
        self._metadata = _metadata(path, user_agent[:MAX_USER_AGENT])
        self._correlation_id = correlation_id
        self.label = self._received.label
        self.outcome = ""

    def begin(self) -> "asyncio.Future[Receipt]":
        """Append under the id of the first round: nearly always the stream is new and it is the first."""
        return self._append(0, NO_STREAM if self._received.is_in_rounds else event_store.ANY)

    def is_settled(self, receipt: Receipt) -> bool:
        """Return whether the first append says all; in a later round it found what was there before."""
        return not (receipt.duplicate and self._received.is_in_rounds)

    async def settle(self, first: "asyncio.Future[Receipt]") -> Receipt:
        """Return where the webhook stands; ``first`` is what ``begin`` returned."""
        with suppress(WrongExpectedVersionError):
            receipt = await first
            if self.is_settled(receipt):
                return receipt
        received = self._received
        async with self._door.pool.acquire() as conn:
            turn = await find_round(conn, received.stream(received.identify(self._namespace)), received.type)
        return await self._append(turn, event_store.ANY)

    def accepted(self, receipt: Receipt) -> Accepted:
        """Return what to answer."""
        event_id = receipt.events[0].event_id
        if receipt.conflicting:
            # The first body stands; the sender cannot mend it, and an error would make it back off.
            log.warning("webhook_conflicted", event_id=str(event_id), type=self._received.type)
            self.outcome = "conflicting"
        elif receipt.duplicate:
            self.outcome = "duplicate"
        return Accepted(event_id=event_id, duplicate=receipt.duplicate)

    def _append(self, turn: int, expected_version: int | None) -> "asyncio.Future[Receipt]":
        received = self._received
        event_id = received.identify(self._namespace, round=turn)
        event = received.new_event(event_id, metadata=self._metadata, correlation_id=self._correlation_id)
        return self._door.commit.append(received.stream(event_id), (event,), expected_version=expected_version)


async def receive(call: Call[Nothing, Nothing]) -> web.Response:
    """Keep one webhook."""
    request = call.request
    delivery = request[_DELIVERY] = Delivery(
        call.door,
        SOURCES[request[ROUTE].path],
        call.raw,
        path=request.path,
        user_agent=request.headers.get("User-Agent", ""),
        correlation_id=call.correlation_id,
    )
    return json_response(delivery.accepted(await delivery.settle(delivery.begin())))


async def verify(call: Call[Nothing, Nothing]) -> web.Response:
    """Say that the key is good, for a sender that wants to know before it sends."""
    name = await users.shown_name(call.door.pool, call.door.settings_store.sources.roots, call.user.name)
    return json_response(Verified(status="ok", name=name, role=call.user.role))


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


@lru_cache(maxsize=SENDERS)
def _metadata(path: str, user_agent: str) -> str:
    return msgspec.json.encode(
        _Metadata(
            route=path.rstrip("/"),
            user_agent=user_agent.encode("utf-8", "replace").decode() or None,
        )
    ).decode()


def observe(delivery: Delivery | None, status: int, seconds: float) -> None:
    """Count an answer; without a ``delivery`` the body was not even read."""
    label = metrics.OTHER if delivery is None else delivery.label
    outcome = (delivery and delivery.outcome) or _OUTCOMES.get(status, "rejected")
    webhooks, durations = _figures(label, outcome)
    webhooks.inc()
    durations.observe(seconds)


def _observe(request: web.Request, status: int, seconds: float) -> None:
    observe(request.get(_DELIVERY), status, seconds)


@cache
def _figures(label: str, outcome: str) -> tuple[Counter, Histogram]:
    return (
        metrics.webhook_events.labels(event_type=label, status=outcome),
        metrics.webhook_processing_seconds.labels(event_type=label),
    )


_DELIVERY: Final = web.RequestKey("delivery", Delivery)
_LIDARR: Final = "/api/webhooks/lidarr"
_SLSKD: Final = "/api/webhooks/slskd"
SOURCES: Final[Mapping[str, Source]] = {  # by the path of their route
    _LIDARR: Source(lidarr_webhooks.receive, lidarr_webhooks.NAMESPACE),
    _SLSKD: Source(slskd_webhooks.receive, slskd_webhooks.NAMESPACE),
}

_LIDARR_METHODS: Final[tuple[Method, ...]] = ("POST", "PUT")

ROUTES: Final = (
    *(
        Route(
            method=method,
            path=_LIDARR,
            handler=receive,
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
        path=_SLSKD,
        handler=receive,
        summary="Keep a webhook of slskd (integrations, webhooks).",
        roles=WEBHOOK,
        raw_body=slskd_webhooks.SlskdWebhook,
        takes_any_object=True,
        responses={200: Accepted},
        observe=_observe,
    ),
)
