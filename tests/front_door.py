"""A real front door over a test's database: server, key and client, as a sender meets them."""

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import StreamReader, web
from aiohttp.http_parser import RawRequestMessage

from kima_stream.database import Pool
from kima_stream.http import app, connection, requests, server
from kima_stream.http.express import Express, Parcel
from kima_stream.http.limits import LIMITS, Policies, Policy
from kima_stream.http.routes import DOOR, AnyRoute, Door
from kima_stream.http.table import ROUTES
from kima_stream.settings import api_keys
from kima_stream.settings.api_keys import Role
from kima_stream.settings.config import Settings

FIXTURES = Path(__file__).parent / "fixtures"
# What a door reaches when nobody tells it anything lies outside; in tests it is a port that nobody listens on.
NOWHERE: Mapping[str, object] = {"soulseekServer": "127.0.0.1:1", "lastfmUrl": "http://127.0.0.1:1/2.0"}
NOWHERE_NAMED: Mapping[str, str] = {"SOULSEEK_SERVER": "127.0.0.1:1", "KIMA_LASTFM_URL": "http://127.0.0.1:1/2.0"}
UNLIMITED: Policies = Policies(
    key=Policy("key", 10**7), sender=Policy("sender", 10**7), address=Policy("address", 10**7),
    refused=Policy("refused", 10**7),
)  # fmt: skip
LIDARR = "/api/webhooks/lidarr"
SLSKD = "/api/webhooks/slskd"
ROOT = "Xo9-a-root-that-nobody-guesses-0451"  # that sealed things hang on, so that no test makes a file of one


def webhook(name: str) -> bytes:
    """Return a webhook of Lidarr as it came over the wire, e.g. ``grab``."""
    return (FIXTURES / "webhooks" / f"{name}.json").read_bytes()


@dataclass(frozen=True)
class OpenDoor:
    """A door that listens: ``url`` is its base, ``client`` sends the admin key with everything."""

    door: Door
    url: str
    key: str
    client: aiohttp.ClientSession

    async def post(self, body: bytes, path: str = LIDARR) -> tuple[int, dict[str, object]]:
        """Post ``body`` as Lidarr does and return status and answer."""
        headers = {"Content-Type": "application/json"}
        async with self.client.post(path, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)


async def make_key(pool: Pool, role: Role = "admin") -> str:
    """Create a key of the one user of ``role`` and return it."""
    async with pool.acquire() as conn:
        return (await api_keys.create(conn, name=f"a {role}", role=role, user_id=f"a {role}"))[0]


class Watched(Express):
    """A short way that counts who takes it."""

    taken = 0

    def accept(self, message: RawRequestMessage, payload: StreamReader) -> Parcel | None:
        """Count those that are accepted."""
        parcel = super().accept(message, payload)
        self.taken += parcel is not None
        return parcel


def watched(application: web.Application) -> Watched:
    """Return a short way to the webhooks of ``application`` that counts."""
    return Watched(application[DOOR], application[LIMITS], ROUTES, application[app.DRAINING])


def closed(application: web.Application) -> Express:
    """Return a short way to nowhere: all webhooks go the long way."""
    return Express(application[DOOR], application[LIMITS], (), application[app.DRAINING])


@asynccontextmanager
async def opened(  # noqa: PLR0913 - what a test may want otherwise
    pool: Pool,
    *,
    settings: Settings | None = None,
    routes: Iterable[AnyRoute] = ROUTES,
    ping_redis: Callable[[], Awaitable[object]] | None = None,
    drain_seconds: float = 0.0,
    connections: int = 100,
    policies: Policies | None = None,
    body_seconds: float = requests.BODY_SECONDS,
    head_seconds: float = connection.HEAD_SECONDS,
    express: Callable[[web.Application], Express] = app.express_to,
) -> AsyncIterator[OpenDoor]:
    """Open a door on a free port of 127.0.0.1; leaving stops it gracefully."""
    key = await make_key(pool)
    settings = settings or Settings(environment=NOWHERE)
    if settings.secret_key is None:
        settings = msgspec.structs.replace(settings, secret_key=ROOT)
    async with (
        app.opened(settings, pool, redis_url=settings.redis_url, ping_redis=ping_redis) as door,
        server.serving(
            application := app.build(door, routes, policies=policies, body_seconds=body_seconds),
            host="127.0.0.1",
            port=0,
            drain_seconds=drain_seconds,
            head_seconds=head_seconds,
            express=express(application),
        ) as port,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}",
            headers={"X-Api-Key": key},
            connector=aiohttp.TCPConnector(limit=connections),
        ) as client,
    ):
        yield OpenDoor(door=door, url=f"http://127.0.0.1:{port}", key=key, client=client)
