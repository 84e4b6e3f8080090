"""The table effects is what the states have open: after a rebuild too, and never more than that."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from kima_stream import dead_letters, delivery, effect_rows, event_store
from kima_stream.database import Connection, Pool
from kima_stream.effects import Worker
from kima_stream.events import Effect, EffectDone, EffectIntended, EffectWithdrawn, new_event
from kima_stream.projector import blank
from kima_stream.read_models.table import Table
from kima_stream.reconciler import sweep_once
from kima_stream.replay import replay
from tests import shop as shops
from tests.factories import number_all
from tests.shop import GROUP, OWNER, PROJECTION, TABLE, AskingExecutor, Order, Shop, an_effect, order, stream_of

DONE, FAILED, WITHDRAWN, OPEN = range(1, 5)


@pytest.fixture
async def shop(pool: Pool) -> AsyncIterator[Shop]:
    """An open shop, and the table of its orders."""
    await shops.prepare(pool)
    async with shops.opened() as opened:
        yield opened


@pytest.fixture
async def filled(pool: Pool, conn: Connection, shop: Shop) -> Connection:
    """One effect that was done, one that failed, one that was withdrawn, one that is open."""
    await order(conn, DONE)
    await order(conn, FAILED, an_effect(FAILED, target="bad"))
    await order(conn, WITHDRAWN)
    await shops.withdraw(conn, WITHDRAWN)
    await Worker(pool, [AskingExecutor(shop.url)], [OWNER], holder=shops.unique()).run_once()
    await order(conn, OPEN)
    await number_all(conn)
    return conn


async def table(conn: Connection) -> dict[str, str]:
    """Return what is open: stream by effect."""
    rows = await conn.fetch("SELECT effect_id, stream FROM effects")
    return {str(row["effect_id"]): row["stream"] for row in rows}


STILL_OPEN = {str(an_effect(OPEN).effect_id): stream_of(OPEN)}


async def test_a_rebuild_from_zero_reopens_none(pool: Pool, filled: Connection, shop: Shop) -> None:
    """Rows and effects dropped, folded anew by the sweep: what was open is, and is called once."""
    assert await table(filled) == STILL_OPEN
    before = await filled.fetch("SELECT o::text FROM orders AS o ORDER BY stream")
    await filled.execute("DELETE FROM orders; DELETE FROM effects; DELETE FROM group_checkpoints")

    await sweep_once(pool, GROUP)

    assert await filled.fetch("SELECT o::text FROM orders AS o ORDER BY stream") == before
    assert await table(filled) == STILL_OPEN


async def test_a_rebuild_event_by_event_opens_nothing_on_the_way(pool: Pool, filled: Connection) -> None:
    """A row behind the head of its stream has no say: what ended later was never open again."""
    await filled.execute("DELETE FROM orders; DELETE FROM effects")
    seen: list[dict[str, str]] = []
    for event in await event_store.read_log(filled):
        await delivery.deliver(pool, GROUP, {event.stream: [event]})
        seen.append(await table(filled))

    assert {effect_id for found in seen for effect_id in found} == STILL_OPEN.keys()
    assert seen[-1] == STILL_OPEN


async def test_a_rebuild_closes_nothing_that_runs(pool: Pool, conn: Connection, shop: Shop) -> None:
    """A row that has not come to the intention yet does not know of the effect, which is open all the same."""
    await shops.say(conn, OPEN, shops.Delivered(effect_id=an_effect(9).effect_id, receipt="of before"))
    await order(conn, OPEN)
    await number_all(conn)
    await conn.execute("DELETE FROM orders")
    first, second = await event_store.read_log(conn)

    await delivery.deliver(pool, GROUP, {first.stream: [first]})
    assert await table(conn) == STILL_OPEN
    await delivery.deliver(pool, GROUP, {second.stream: [second]})
    assert await table(conn) == STILL_OPEN


async def test_a_shadow_has_no_effects(filled: Connection) -> None:
    """A replay beside the live rows opens and closes none, a replay that is applied none either."""
    rows = await filled.fetch("SELECT * FROM effects")

    assert (await replay(filled, PROJECTION)).different == 0
    assert await filled.fetch("SELECT * FROM effects") == rows
    await filled.execute("DELETE FROM effects")
    await replay(filled, PROJECTION)
    assert await table(filled) == {}
    await filled.executemany("INSERT INTO effects VALUES ($1, $2, $3, $4, $5, $6, $7)", [tuple(row) for row in rows])
    await filled.execute("UPDATE orders SET delivered = 7")
    assert (await replay(filled, PROJECTION, apply=True)).different == 4

    assert await filled.fetch("SELECT * FROM effects") == rows


async def test_what_a_replay_puts_in_has_its_effects(filled: Connection) -> None:
    """Rows and effects that were lost come back, effects that no state has go."""
    lost = an_effect(7)
    await order(filled, 7, lost)
    await number_all(filled)
    await filled.execute("DELETE FROM orders; DELETE FROM effects")
    await filled.execute("INSERT INTO orders SELECT 'order-ghost', 0, now(), now(), '{}', 0")
    await filled.execute(
        "INSERT INTO effects VALUES (gen_random_uuid(), 'order-ghost', 'order', 'shop.order', 'shop', NULL, now())"
    )

    await replay(filled, PROJECTION, apply=True)

    assert await table(filled) == STILL_OPEN | {str(lost.effect_id): stream_of(7)}


async def test_that_it_began_survives_the_loss_of_the_table(pool: Pool, conn: Connection, shop: Shop) -> None:
    """A call that may have been made is asked about, not made again."""
    await order(conn, OPEN)
    await number_all(conn)
    shop.calls[str(an_effect(OPEN).effect_id)] = 1
    await conn.execute(
        "INSERT INTO effect_leases (effect_id, fence, holder, expires_at, began_at) VALUES ($1, 1, 'x', now(), now())",
        an_effect(OPEN).effect_id,
    )
    await conn.execute("DELETE FROM orders; DELETE FROM effects")
    await sweep_once(pool, GROUP)

    await Worker(pool, [AskingExecutor(shop.url)], [OWNER], holder=shops.unique()).run_once()

    assert set(shop.calls.values()) == {1}
    assert (await shops.state(conn, OPEN)).delivered == 1


async def test_an_outcome_that_was_discarded_reopens_nothing(pool: Pool, conn: Connection, shop: Shop) -> None:
    """The state goes on without it, but the call was made."""
    await order(conn, OPEN)
    done = new_event(EffectDone(effect_id=an_effect(OPEN).effect_id), event_id=an_effect(OPEN).outcome_id)
    await event_store.append(conn, stream_of(OPEN), [done])
    await number_all(conn)
    await dead_letters.record_failure(conn, GROUP.name, stream_of(OPEN), 1, ValueError("poison"))
    await dead_letters.discard(conn, GROUP.name, stream_of(OPEN))
    await conn.execute("DELETE FROM orders; DELETE FROM effects")

    await sweep_once(pool, GROUP)

    assert (await shops.state(conn, OPEN)).effects == (an_effect(OPEN),)
    assert await table(conn) == {}


async def test_an_effect_that_ended_in_the_same_save_was_never_open(conn: Connection, shop: Shop) -> None:
    """Decided and withdrawn in one step."""
    await shops.say(
        conn, OPEN, EffectIntended(effect=an_effect(OPEN)), EffectWithdrawn(effect_id=an_effect(OPEN).effect_id)
    )

    assert await table(conn) == {}


async def test_a_save_that_loses_changes_no_effect(conn: Connection, shop: Shop) -> None:
    """An older version has no say."""
    await order(conn, OPEN)

    await TABLE.save(conn, [blank(PROJECTION, stream_of(OPEN))])

    assert await table(conn) == STILL_OPEN


async def test_many_rows_are_kept_at_once(conn: Connection, shop: Shop) -> None:
    """Each with several effects of its own."""
    effects = {stream_of(number): [an_effect(number, f"shop.{n}") for n in range(3)] for number in range(50)}
    for stream, wanted in effects.items():
        await event_store.append(conn, stream, [new_event(EffectIntended(effect=effect)) for effect in wanted])
    await number_all(conn)
    now = await conn.fetchval("SELECT now()")

    await effect_rows.keep(conn, [effect_rows.Holder(stream, 2, now, wanted) for stream, wanted in effects.items()])
    assert len(await table(conn)) == 150
    await effect_rows.keep(conn, [effect_rows.Holder(stream, 2, now, wanted[1:]) for stream, wanted in effects.items()])

    assert len(await table(conn)) == 100


def test_the_field_effects_is_what_it_says() -> None:
    """Another field of that name is found when the program starts."""

    class Wrong(msgspec.Struct):
        effects: tuple[str, ...] = ()

    with pytest.raises(TypeError, match="no tuple of effects"):
        Table("orders", Wrong, [])
    assert Effect in msgspec.structs.fields(Order)[0].type.__args__
