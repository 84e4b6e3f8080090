"""Keys: shown once, kept as a hash, refused within a second after they were revoked."""

import asyncio
import hmac
import os
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from kima_stream.database import Connection, Pool
from kima_stream.errors import NotFoundError
from kima_stream.settings import api_keys, known_keys
from kima_stream.settings.known_keys import ApiKeys
from tests.polling import eventually


class Clock:
    """A clock that stands still until it is moved; seconds."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def names(keys: ApiKeys, *candidates: str) -> list[str]:
    """Return the names of those whom the candidates stand for."""
    return [principal.name for principal in await keys.verify(key.encode() for key in candidates)]


async def test_a_key_opens_and_is_kept_as_a_hash(pool: Pool, conn: Connection) -> None:
    """Nothing in the table gives the key back."""
    key, row = await api_keys.create(conn, name="Lidarr", role="webhook")

    principal, *_ = await ApiKeys(pool).verify([key.encode()])
    assert (principal.key_id, principal.name, principal.role, principal.user_id) == (
        row.key_id, "Lidarr", "webhook", row.user_id,
    )  # fmt: skip
    assert key.startswith("kima_")
    assert len(key) == 69
    stored = repr([dict(record) for record in await conn.fetch("SELECT * FROM api_keys")])
    assert key not in stored
    assert key.removeprefix("kima_") not in stored


async def test_strangers_stand_for_nobody(pool: Pool, conn: Connection) -> None:
    """Nothing, nonsense and a key cut short open nothing."""
    key, _ = await api_keys.create(conn, name="a", role="admin")

    assert await names(ApiKeys(pool), "", "nonsense", key[:-1], key + "0", key.upper()) == []
    assert await names(ApiKeys(pool)) == []


async def test_every_known_key_is_compared_in_constant_time_whatever_was_asked(
    pool: Pool, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On bytes of one length, the first and the last key alike, also after one fitted: time says nothing of any."""
    made = [(await api_keys.create(conn, name=f"{number}", role="user"))[0] for number in range(5)]
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(known_keys, "compare_digest", compare)
    for asked in (made[0].encode(), made[-1].encode(), "pässwörd 密".encode(), b"\xff\xfe", b"x"):
        keys = ApiKeys(pool, clock=Clock())
        await keys.verify([made[1].encode()])  # one that fits is known for a moment, and so by itself only
        compared.clear()
        found = await keys.verify([asked])
        assert len(found) == (asked.decode("latin-1") in made)
        assert len({other for _, other in compared}) == 5
        assert {len(part) for pair in compared for part in pair} == {32}


async def test_a_revoked_key_is_refused_within_a_second(pool: Pool, conn: Connection) -> None:
    """Also in a process that has just used it."""
    clock = Clock()
    keys = ApiKeys(pool, clock=clock)
    key, row = await api_keys.create(conn, name="a", role="user")
    assert await names(keys, key) == ["a"]

    await api_keys.revoke(conn, row.key_id)
    clock.now += 0.9
    assert await names(keys, key) == ["a"]
    clock.now += 0.2
    assert await names(keys, key) == []


async def test_a_new_key_opens_at_once(pool: Pool, conn: Connection) -> None:
    """A stranger is looked up again before he is refused, but not more often than twenty times a second."""
    clock, waited = Clock(), list[float]()

    async def sleep(seconds: float) -> None:
        waited.append(round(seconds, 6))
        clock.now += seconds

    keys = ApiKeys(pool, clock=clock, sleep=sleep)
    assert await names(keys, "kima_nobody") == []
    for number in range(3):
        key, _ = await api_keys.create(conn, name=f"new {number}", role="user")
        assert await names(keys, key) == [f"new {number}"]

    assert waited == [0.05] * 4
    clock.now += 0.5
    key, _ = await api_keys.create(conn, name="late", role="user")
    assert await names(keys, key) == ["late"]
    assert waited == [0.05] * 4


async def test_forgetting_reads_again(pool: Pool, conn: Connection) -> None:
    """Who revokes a key in this process need not wait at all."""
    keys = ApiKeys(pool, clock=(clock := Clock()))
    key, row = await api_keys.create(conn, name="a", role="user")
    assert await names(keys, key) == ["a"]

    await api_keys.revoke(conn, row.key_id)
    clock.now += 0.001
    keys.forget()
    assert await names(keys, key) == []


async def test_many_at_once_read_the_table_once(pool: Pool, conn: Connection) -> None:
    """A hundred requests after a quiet second cost one query."""
    keys = ApiKeys(pool)
    key, _ = await api_keys.create(conn, name="a", role="user")
    async with conn.transaction():
        await conn.execute("LOCK TABLE api_keys")  # whoever reads waits here, and can be counted
        asking = [asyncio.create_task(names(keys, key)) for _ in range(100)]
        await eventually(lambda: _readers(conn))
        assert await _readers(conn) == 1

    assert await asyncio.gather(*asking) == [["a"]] * 100


async def _readers(conn: Connection) -> int:
    count: int = await conn.fetchval(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'api_keys'::regclass"
    )
    return count


async def test_revoking_twice_changes_nothing(conn: Connection) -> None:
    """The first time stands; a key that never was is said to be so."""
    _, row = await api_keys.create(conn, name="a", role="user")

    first = await api_keys.revoke(conn, row.key_id)
    assert await api_keys.revoke(conn, row.key_id) == first
    with pytest.raises(NotFoundError):
        await api_keys.revoke(conn, uuid4())


async def test_use_is_written_apart_from_the_request(pool: Pool, conn: Connection) -> None:
    """Verifying writes nothing; the minute's round does, for the keys that were used."""
    keys = ApiKeys(pool)
    used, row = await api_keys.create(conn, name="used", role="user")
    await api_keys.create(conn, name="idle", role="user")

    await names(keys, used)
    assert {key.last_used_at for key in await api_keys.list_keys(conn)} == {None}

    await keys.write_used()
    assert {key.key_id for key in await api_keys.list_keys(conn) if key.last_used_at} == {row.key_id}


async def test_the_first_admin_key_is_made_once(pool: Pool, conn: Connection, tmp_path: Path) -> None:
    """In a file that only its owner reads; starting again, and two starts at once, change nothing."""
    data_dir = tmp_path / "data"

    async def start() -> Path | None:
        async with pool.acquire() as own:
            return await api_keys.ensure_admin(own, given=None, data_dir=data_dir)

    paths = await asyncio.gather(*(start() for _ in range(5)))
    assert set(paths) == {data_dir / "api_key"}
    assert await start() == data_dir / "api_key"

    assert stat.S_IMODE((data_dir / "api_key").stat().st_mode) == 0o600
    assert [path.name for path in data_dir.iterdir()] == ["api_key"]
    key = (data_dir / "api_key").read_text().strip()
    assert [principal.role for principal in await ApiKeys(pool).verify([key.encode()])] == ["admin"]
    assert len(await api_keys.list_keys(conn)) == 1


async def test_a_given_key_makes_no_file(pool: Pool, conn: Connection, tmp_path: Path) -> None:
    """KIMA_API_KEY opens as admin, and is nowhere but where the operator put it."""
    for _ in range(2):
        assert await api_keys.ensure_admin(conn, given="a-key-of-the-operator", data_dir=tmp_path) is None

    assert os.listdir(tmp_path) == []  # noqa: PTH208 - pathlib's would count as slow in a coroutine
    assert [principal.role for principal in await ApiKeys(pool).verify([b"a-key-of-the-operator"])] == ["admin"]
    assert len(await api_keys.list_keys(conn)) == 1


async def test_a_revoked_first_key_is_not_made_again(conn: Connection, tmp_path: Path) -> None:
    """A restart does not open a door that somebody closed."""
    path = await api_keys.ensure_admin(conn, given=None, data_dir=tmp_path)
    (first,) = await api_keys.list_keys(conn)
    await api_keys.revoke(conn, first.key_id)

    assert await api_keys.ensure_admin(conn, given=None, data_dir=tmp_path) == path
    assert not await api_keys.has_admin(conn)
