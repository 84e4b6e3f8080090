"""The one kind of table that feeds routing, keys, validation, OpenAPI and the tests.

A module of the door lists its ``ROUTES``; ``app`` joins the lists. A handler gets a ``Call``: who
asks, and what was asked, decoded and checked. It returns a response or raises one of ``errors``.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec
from aiohttp import web

from kima_stream.cache import Copies
from kima_stream.database import Pool
from kima_stream.group_commit import GroupCommit
from kima_stream.http.categories import Categories
from kima_stream.http.feed import Feed
from kima_stream.http.protection import protect
from kima_stream.settings.api_keys import Principal, Role
from kima_stream.settings.config import Settings
from kima_stream.settings.known_keys import ApiKeys
from kima_stream.settings.store import SettingsStore

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]


class Nothing(msgspec.Struct, frozen=True):
    """No query parameters, or no body."""


Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Door:
    """What the handlers need of the process; the composition root fills it.

    ``copies`` is what Redis keeps for a while; it may be missed.
    ``ping_redis`` raises when Redis does not answer; None means that this process has none.
    ``wake_publisher`` says that something was committed, to the live feed as well; it must not block.
    """

    settings: Settings
    pool: Pool
    commit: GroupCommit
    keys: ApiKeys
    categories: Categories
    feed: Feed
    settings_store: SettingsStore
    copies: Copies = field(default_factory=Copies)
    ping_redis: Callable[[], Awaitable[object]] | None = None
    wake_publisher: Callable[[], None] = lambda: None


DOOR: Final = web.AppKey("door", Door)


class Call(msgspec.Struct, Generic[Q, B], frozen=True, kw_only=True):
    """One request, after its key and its parameters were checked.

    ``principal`` is None only on routes without roles. ``raw`` is the body as received.
    ``correlation_id`` is the caller's, or fresh; it is echoed in the answer.
    """

    request: web.Request
    door: Door
    principal: Principal | None
    query: Q
    body: B
    raw: bytes
    correlation_id: str

    @property
    def user(self) -> Principal:
        """Return who asks, on a route that has roles."""
        if self.principal is None:
            message = "this route is open: it has no user"
            raise TypeError(message)
        return self.principal

    async def begin(self, response: web.StreamResponse) -> None:
        """Begin to send a response that the handler writes piece by piece."""
        protect(self.request, response)
        await response.prepare(self.request)

    def parameter(self, name: str) -> str:
        """Return the part of the path named ``{name}``."""
        return self.request.match_info[name]


@dataclass(frozen=True, kw_only=True)
class Route(Generic[Q, B]):
    """One line of the table.

    Args:
        path: with ``{name}`` for parameters, without a trailing slash; both forms are served.
        roles: whose key opens it; empty for everybody.
        query, body: structs the request must fit; unknown fields of a body are refused if they say so.
        raw_body: type, for OpenAPI only, of a body that the handler reads from ``call.raw`` itself.
        accepts: media types of the body, for OpenAPI only.
        takes_any_object: for OpenAPI only, what does not fit ``raw_body`` is kept all the same.
        request_headers, response_headers: of its own, for OpenAPI only; described there.
        responses: status -> struct or None, for OpenAPI; the problems of every such route are added by themselves.
        problems: statuses of problems of its own, for OpenAPI.
        media_type: of the answers that are no problem and have no struct; empty when they have no body.
        also_answers: other media types of the answer, for OpenAPI.
        observe: told the status and the seconds of every answer, whoever gave it.
    """

    method: Method
    path: str
    handler: Callable[[Call[Q, B]], Awaitable[web.StreamResponse]]
    summary: str
    roles: frozenset[Role] = frozenset()
    query: type[Q] = Nothing  # type: ignore[assignment]  # Nothing stands for "no Q"
    body: type[B] = Nothing  # type: ignore[assignment]  # as above
    raw_body: object = None
    accepts: tuple[str, ...] = ("application/json",)
    takes_any_object: bool = False
    request_headers: tuple[str, ...] = ()
    response_headers: tuple[str, ...] = ()
    responses: Mapping[int, type[msgspec.Struct] | None] = field(default_factory=lambda: {200: None})
    problems: tuple[int, ...] = ()
    media_type: str = "application/json"
    also_answers: tuple[str, ...] = ()
    observe: Callable[[web.Request, int, float], None] | None = None


AnyRoute: TypeAlias = Route[Any, Any]  # a table holds routes of all parameter types

ROUTE: Final = web.RequestKey("route", AnyRoute)  # of a request whose address is in the table

ADMIN: Final[frozenset[Role]] = frozenset({"admin"})
USER: Final[frozenset[Role]] = frozenset({"admin", "user"})
WEBHOOK: Final[frozenset[Role]] = frozenset({"admin", "webhook"})


JSON_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "no-store", "Content-Type": "application/json"}


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return ``value`` as JSON; a ``msgspec.Raw`` in it goes out byte for byte."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        headers=JSON_HEADERS if headers is None else {**JSON_HEADERS, **headers},
    )
