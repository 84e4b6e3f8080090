"""An outside system that keeps its own books, and a small domain that orders from it.

The shop is a real HTTP server. Its books are the oracle: what it was asked to do, how often, in which order. It can
be asked what it has (``shop.order``); of ``till.ring`` it keeps no account that a caller could ask for.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4, uuid5

import aiohttp
import msgspec
from aiohttp import web
from msgspec.structs import replace

from kima_stream import event_store, projector
from kima_stream.database import Connection, Pool
from kima_stream.effects import CannotAsk, Executor, MayRepeat, Owner, Progress, Work
from kima_stream.errors import IntegrationError
from kima_stream.events import (
    Effect,
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    Event,
    NewEvent,
    new_event,
    open_effects,
)
from kima_stream.projector import Projection
from kima_stream.read_models.table import Table

CATEGORY: Final = "order"


class Delivered(Event, frozen=True, kw_only=True, tag="order.delivered"):
    """The shop has delivered; ``receipt`` is its number for it."""

    effect_id: UUID
    receipt: str


class Complained(Event, frozen=True, kw_only=True, tag="order.complained"):
    """What follows from a failure, for whoever still wants it."""

    code: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What was ordered and what came of it."""

    effects: tuple[Effect, ...] = ()
    receipts: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    delivered: int = 0


def apply(state: Order, event: Event) -> Order:
    """Return the order as it stands after ``event``."""
    state = replace(state, effects=open_effects(state.effects, event))
    if isinstance(event, Delivered):
        return replace(state, receipts=(*state.receipts, event.receipt), delivered=state.delivered + 1)
    if isinstance(event, EffectFailed):
        return replace(state, failures=(*state.failures, event.code))
    return state


def decide(state: Order, news: Event, at: datetime) -> Sequence[Event]:
    """Keep a delivery once; complain about a failure, saying it again as a decider may."""
    if isinstance(news, Delivered) and news.receipt in state.receipts:
        return []
    return [news, Complained(code=news.code)] if isinstance(news, EffectFailed) else [news]


TABLE: Final = Table("orders", Order, columns=("delivered",))
PROJECTION: Final = Projection(name="orders", category=CATEGORY, initial=Order(), apply=apply, read_model=TABLE)
GROUP: Final = projector.consumer_group(PROJECTION)
OWNER: Final = Owner(projection=PROJECTION, decide=decide)

CREATE_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS orders (
        stream text PRIMARY KEY, version bigint NOT NULL, created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL, state json NOT NULL, delivered bigint NOT NULL
    )
"""


def an_effect(number: int = 0, kind: str = "shop.order", target: str | None = None) -> Effect:
    """Return the same effect for the same number and kind."""
    return Effect(effect_id=uuid5(UUID(int=number), kind), kind=kind, target=target)


def stream_of(number: int) -> str:
    """Return the stream of an order."""
    return f"{CATEGORY}-{number}"


async def order(conn: Connection, number: int, *effects: Effect) -> list[NewEvent]:
    """Intend effects as a shell does: append, fold, save, in one transaction."""
    return await say(conn, number, *(EffectIntended(effect=effect) for effect in effects or (an_effect(number),)))


async def withdraw(conn: Connection, number: int, *effects: Effect) -> list[NewEvent]:
    """Want some effects no more."""
    facts = (EffectWithdrawn(effect_id=effect.effect_id) for effect in effects or (an_effect(number),))
    return await say(conn, number, *facts)


async def say(conn: Connection, number: int, *facts: Event) -> list[NewEvent]:
    """Append facts to an order and save it."""
    events = [new_event(fact, correlation_id=f"c{number}") for fact in facts]
    async with conn.transaction():
        row = await projector.load(conn, PROJECTION, stream_of(number))
        await projector.decide(conn, PROJECTION, row, events)
    return events


async def state(conn: Connection, number: int) -> Order:
    """Return an order as its row has it."""
    row = await TABLE.find(conn, stream_of(number))
    return Order() if row is None else row.state


async def types(conn: Connection, number: int) -> list[str]:
    """Return what happened to an order."""
    return [event.type for event in await event_store.read_stream(conn, stream_of(number))]


class Shop:
    """The books of the outside: ``calls`` counts by key what was really done."""

    def __init__(self) -> None:
        """Be open."""
        self.calls: Counter[str] = Counter()
        self.questions: Counter[str] = Counter()
        self.refused = 0
        self.is_open = True
        self.answer = asyncio.Event()  # unset: what is asked is done, the answer does not come
        self.answer.set()
        self.called = asyncio.Event()
        self.url = ""
        self.rng: random.Random | None = None  # takes a while for each call

    async def call(self, request: web.Request) -> web.Response:
        """Do what is asked, and write it down."""
        if not self.is_open:
            self.refused += 1
            return web.Response(status=503)
        key = request.match_info["key"]
        if self.rng is not None:
            await asyncio.sleep(self.rng.random() / 5)  # its nature
        if key.startswith("bad"):
            return web.Response(status=404, text="no such thing")
        self.calls[key] += 1
        self.called.set()
        await self.answer.wait()
        return web.json_response({"receipt": f"receipt {key}"})

    async def ask(self, request: web.Request) -> web.Response:
        """Say whether something was done."""
        self.questions[request.match_info["key"]] += 1
        if not self.is_open:
            return web.Response(status=503)
        key = request.match_info["key"]
        if not self.calls[key]:
            return web.Response(status=404)
        return web.json_response({"receipt": f"receipt {key}"})


@asynccontextmanager
async def opened() -> AsyncIterator[Shop]:
    """Open a shop on a free port of 127.0.0.1."""
    shop = Shop()
    app = web.Application()
    app.add_routes([web.post("/calls/{key}", shop.call), web.get("/calls/{key}", shop.ask)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    shop.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield shop
    finally:
        shop.answer.set()
        await runner.cleanup()


class _Calls(Executor):
    """One POST, whose key is the effect's id unless a target names another."""

    def __init__(self, url: str, *, max_attempts: int | None = None, timeout_seconds: float | None = 30.0) -> None:
        """``url`` is the shop's."""
        self._url = url
        self.max_attempts = max_attempts
        self.timeout_seconds = timeout_seconds
        self.works: list[Work] = []
        self.reached = asyncio.Event()  # the call is about to be made
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def perform(self, work: Work) -> Event:
        """Order it."""
        self.works.append(work)
        work.report(Progress(text="ordering", done_bytes=1, total_bytes=2))
        self.reached.set()
        await self.go_on.wait()
        work.check_lease()
        receipt = await self._send(work, "POST")
        assert receipt is not None
        return Delivered(effect_id=work.effect.effect_id, receipt=receipt)

    async def _send(self, work: Work, method: str) -> str | None:
        system, key = work.effect.system, work.effect.target or str(work.effect.effect_id)
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.request(method, f"{self._url}/calls/{key}") as answer,
            ):
                if answer.status == 503:
                    raise IntegrationError("it is closed", system=system, retryable=True, nothing_done=True)
                if answer.status == 404 and method == "GET":
                    return None
                if answer.status != 200:
                    raise IntegrationError(await answer.text(), system=system, retryable=False)
                receipt: str = (await answer.json())["receipt"]
                return receipt
        except aiohttp.ClientConnectorError as error:
            raise IntegrationError(str(error), system=system, retryable=True, nothing_done=True) from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise IntegrationError(str(error), system=system, retryable=True) from error


class AskingExecutor(_Calls):
    """Of a shop that says what it has."""

    kind = "shop.order"

    async def resolve(self, work: Work) -> Event | None:
        """Ask the shop."""
        receipt = await self._send(work, "GET")
        return None if receipt is None else Delivered(effect_id=work.effect.effect_id, receipt=receipt)


class MuteExecutor(_Calls, CannotAsk):
    """Of a till that takes no key and answers no question."""

    kind = "till.ring"

    resolve = CannotAsk.resolve


class RepeatingExecutor(_Calls, MayRepeat):
    """Of a bell that may be rung twice."""

    kind = "bell.ring"

    resolve = MayRepeat.resolve


async def prepare(pool: Pool) -> None:
    """Make the table of the orders."""
    async with pool.acquire() as conn:
        await conn.execute(CREATE_TABLE)


def unique() -> str:
    """Return a holder."""
    return f"test-{uuid4().hex[:8]}"
