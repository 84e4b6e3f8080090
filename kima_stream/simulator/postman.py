"""The way of a webhook from Lidarr to the receiver, with what goes wrong on it.

Lidarr sends once and forgets. A proxy in between may send again after an error, repeat what it
sent, and change the order; a network may lose it. By chance from a seed, and written down.
"""

import asyncio
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from uuid import UUID

import aiohttp
import msgspec

from kima_stream.simulator.records import ERROR, Fact, Kind, Records

USER_AGENT: Final = "Lidarr/2.14.2.4786 (ubuntu 22.04)"
TIMEOUT_SECONDS: Final = 100.0  # Lidarr's own
AGAIN_SECONDS: Final = 0.1
# A repeat of these is told from news by its order, so a proxy that repeats them does so before it goes on.
_IN_ROUNDS: Final = frozenset({"grab", "failure"})
_REPEATABLE: Final = _IN_ROUNDS | {"import"}  # of the others each delivery is a fact of its own


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How likely each is, per webhook; ``sends_again`` is a proxy that does not give up."""

    repeat: float = 0.0
    swap: float = 0.0  # with the next webhook of the same download
    lose: float = 0.0
    sends_again: bool = False


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where webhooks go, and which, as a notification of Lidarr's says it."""

    url: str
    wants: frozenset[Kind]
    method: str = "POST"
    username: str = ""
    password: str = ""
    headers: Mapping[str, str] = {}

    def all_headers(self) -> dict[str, str]:
        """Return the headers of each request; Basic goes out unasked, in ISO-8859-1."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": USER_AGENT}
        if self.username or self.password:
            pair = f"{self.username}:{self.password}".encode("iso-8859-1", "replace")
            headers["Authorization"] = f"Basic {b64encode(pair).decode()}"
        return {**headers, "Connection": "close", **self.headers}


class _Answer(msgspec.Struct):
    event_id: UUID | None = None


class _Errand(msgspec.Struct, frozen=True):
    """A webhook and what the dice said of it, thrown before it goes: so its lane changes nothing."""

    fact: Fact
    is_repeated: bool
    is_lost: bool


class Postman:
    """Carries webhooks in lanes, as Lidarr's threads do: a download keeps to one lane, lanes overtake each other."""

    def __init__(
        self,
        records: Records,
        rng: random.Random,
        *,
        faults: Faults | None = None,
        lanes: int = 1,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``wait`` is what a proxy does before it sends again."""
        self.addresses: list[Address] = []
        self._records = records
        self._rng = rng
        self.faults = faults or Faults()
        self._wait = wait
        self._lanes: list[asyncio.Queue[_Errand]] = [asyncio.Queue(maxsize=20) for _ in range(lanes)]
        self.overtaken: set[str] = set()  # downloads whose webhooks changed their order
        self._held: dict[str, Fact] = {}  # by download: waits to be overtaken
        self._client: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Carry while the body runs; it ends at once, ``drain`` first."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._client:
            tasks = [asyncio.create_task(self._carry(lane)) for lane in self._lanes]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def take(self, fact: Fact) -> None:
        """Take a webhook that somebody wants on its way, or hold it so that the next of its download overtakes it."""
        if not self._addresses_of(fact):
            return
        held = self._held.pop(fact.download_id or "", None)
        if held is None and fact.download_id and fact.kind == "grab" and self._rng.random() < self.faults.swap:
            self._held[fact.download_id] = fact
            return
        if held is not None:
            self.overtaken.add(held.download_id or "")
        for each in (fact, held) if held is not None else (fact,):
            await self._queue(each)

    async def drain(self) -> None:
        """Return when everything that was taken is delivered, or given up."""
        for fact in list(self._held.values()):
            del self._held[fact.download_id or ""]
            await self._queue(fact)
        for lane in self._lanes:
            await lane.join()

    async def send(self, address: Address, body: bytes) -> tuple[int, UUID | None]:
        """Send ``body`` once and return the status and the event id in the answer, if there is one.

        Raises:
            aiohttp.ClientError, OSError, TimeoutError: nobody answered.
        """
        assert self._client is not None  # noqa: S101 - inside ``working``
        async with self._client.request(
            address.method, address.url, data=body, headers=address.all_headers(), allow_redirects=False
        ) as answer:
            content = await answer.read()
            try:
                return answer.status, msgspec.json.decode(content, type=_Answer).event_id
            except msgspec.DecodeError:
                return answer.status, None

    async def _queue(self, fact: Fact) -> None:
        is_repeated = fact.kind in _REPEATABLE and self._rng.random() < self.faults.repeat
        is_lost = self._rng.random() < self.faults.lose
        lane = sum((fact.download_id or "").encode()) % len(self._lanes)
        await self._lanes[lane].put(_Errand(fact, is_repeated, is_lost))

    async def _carry(self, lane: "asyncio.Queue[_Errand]") -> None:
        while True:
            errand = await lane.get()
            if errand.is_lost:
                self._records.told(errand.fact, undelivered="lost")
            for address in () if errand.is_lost else self._addresses_of(errand.fact):
                await self._deliver(address, errand.fact, is_repeat=False)
                if errand.is_repeated:
                    await self._deliver(address, errand.fact, is_repeat=True)
            lane.task_done()

    def _addresses_of(self, fact: Fact) -> list[Address]:
        return [address for address in self.addresses if fact.kind in address.wants]

    async def _deliver(self, address: Address, fact: Fact, *, is_repeat: bool) -> None:
        while True:
            status, event_id = None, None
            with suppress(aiohttp.ClientError, OSError):  # TimeoutError is one
                status, event_id = await self.send(address, fact.body)
            self._records.told(fact, status=status, event_id=event_id, is_repeat=is_repeat)
            if (status is not None and status < ERROR) or not self.faults.sends_again:
                return
            await self._wait(AGAIN_SECONDS)
