"""Erasing a person: all of it or nothing, once and for ever, and the log does not notice."""

import asyncio
from pathlib import Path
from typing import get_args
from uuid import UUID

import asyncpg
import pytest

from kima_stream import audit, event_store, replay
from kima_stream.database import Connection, Pool
from kima_stream.errors import ConfigurationError, ConflictError, ErasedUserError, NotFoundError, SealError
from kima_stream.events import Policy, UserErased, derived_id, event_type
from kima_stream.http import download_requests
from kima_stream.http.download_requests import Requested
from kima_stream.read_models import PROJECTIONS, download_jobs, erasure, settings, users
from kima_stream.settings import api_keys, subject_keys
from kima_stream.settings.api_keys import ApiKey
from kima_stream.settings.config import Settings
from kima_stream.settings.known_keys import ApiKeys
from kima_stream.settings.seals import ERASED, UNREADABLE
from kima_stream.settings.secrets import Roots
from kima_stream.settings.store import Sources
from kima_stream.settings.subject_keys import PlainText
from projections.correlation import Album
from projections.user import stream_of
from tests import front_door
from tests.factories import number_all
from tests.front_door import ROOT

OTHER_ROOT = "another root: 83a1, much like it, but newer"
ROOTS = Roots(given=ROOT, previous=None, data_dir=Path("/nowhere"))
NOTE = "für Tante Käthe, zum Achtzigsten"


async def make_user(conn: Connection, name: str = "Anna Brandt", role: api_keys.Role = "user") -> ApiKey:
    """Make somebody with one key."""
    return (await users.create_key(conn, ROOTS, name=name, role=role, user_id=None, by="admin"))[1]


async def ask(
    conn: Connection, user_id: str, note: str | None = NOTE, *, album: str = "Tidewater", roots: Roots = ROOTS
) -> Requested:
    """Ask for an album, with a note."""
    wanted = Album(artist="The Harbour Lights", title=album, mbid=None)
    plain = None if note is None else PlainText(note, roots)
    async with conn.transaction():
        return await download_requests.request(
            conn, wanted, user_id=user_id, correlation_id="c", policy=Policy(), note=plain
        )


async def note_of(conn: Connection, asked: Requested, roots: Roots = ROOTS) -> str | None:
    """Return the note of a job as it is shown."""
    row = await download_jobs.get(conn, asked.id)
    assert row is not None
    return (await subject_keys.reader(conn, roots, [row.state.note])).show("note", row.state.note)


async def name_of(conn: Connection, user_id: str) -> str | None:
    """Return the name of a user as it is opened."""
    row = await users.TABLE.find(conn, stream_of(user_id))
    assert row is not None
    return (await users.reader(conn, ROOTS, [row])).show(users.NAME, row.state.name)


async def check_log(conn: Connection) -> str:
    """See that the log verifies and that every read model is its fold, byte for byte; return the chain's head."""
    await number_all(conn)
    verified = await audit.verify(conn)
    assert verified.faults == ()
    for projection in PROJECTIONS.values():
        assert (await replay.replay(conn, projection)).different == 0
    return verified.chain_hash


async def test_somebody_new_has_an_opaque_id_and_a_sealed_name(conn: Connection) -> None:
    """Neither the id nor any row says who it is; whoever may see names opens them."""
    made = await make_user(conn)
    program = await make_user(conn, "Lidarr", "webhook")
    second = (await users.create_key(conn, ROOTS, name="Anna's phone", role="user", user_id=made.user_id, by="admin"))[
        1
    ]

    assert UUID(made.user_id) != UUID(program.user_id)
    assert (made.name, second.user_id) == ("Anna Brandt", made.user_id)
    stored = await api_keys.list_keys(conn)
    assert [key.name.startswith("kima1.") for key in stored] == [True, False, True]
    shown = await users.named_keys(conn, ROOTS, stored)
    assert [key.name for key in shown] == ["Anna Brandt", "Lidarr", "Anna's phone"]
    assert await name_of(conn, made.user_id) == "Anna Brandt"
    assert len(await event_store.read_stream(conn, stream_of(made.user_id))) == 1


async def test_what_goes_and_what_stays(conn: Connection, pool: Pool) -> None:
    """The name, the notes, the keys and their names go; jobs, events and the chain stay, and all others."""
    await make_user(conn, "an admin", "admin")
    anna, ben = await make_user(conn), await make_user(conn, "Ben")
    of_anna, of_ben = await ask(conn, anna.user_id), await ask(conn, ben.user_id, "mine")
    assert await note_of(conn, of_anna) == NOTE
    before = await check_log(conn)
    planned = await erasure.plan(conn, ROOTS, anna.user_id)
    assert (planned.name, planned.key_names, planned.jobs) == ("Anna Brandt", ("Anna Brandt",), 1)
    assert (planned.id_is_opaque, planned.is_erased) == (True, False)
    rows = await conn.fetch("SELECT event_id, data FROM events ORDER BY id")

    erased = await erasure.erase(conn, anna.user_id, by="admin")

    assert (erased.keys_revoked, erased.duplicate, erased.erased_by) == (1, False, "admin")
    assert await note_of(conn, of_anna) == ERASED
    assert (await note_of(conn, of_ben), await name_of(conn, ben.user_id)) == ("mine", "Ben")
    assert await conn.fetchval("SELECT wrapped FROM subject_keys WHERE subject = $1", anna.user_id) is None
    row = await users.TABLE.find(conn, stream_of(anna.user_id))
    assert row is not None
    assert (row.state.is_erased, row.state.name) == (True, None)
    shown = await users.named_keys(conn, ROOTS, await api_keys.list_keys(conn))
    assert [(key.name, key.revoked_at is None) for key in shown] == [("an admin", True), (ERASED, False), ("Ben", True)]
    after = await conn.fetch("SELECT event_id, data FROM events ORDER BY id")
    assert (after[:-1], after[-1]["event_id"]) == (rows, erased.event_id)
    assert await conn.fetchval("SELECT type FROM events ORDER BY id DESC LIMIT 1") == event_type(UserErased)
    # The chain goes on from where it was, by one event.
    assert await check_log(conn) != before
    assert (await audit.verify(conn, last=len(rows))).chain_hash == before


async def test_twice_is_once(conn: Connection) -> None:
    """The second time tells what the first one did, also when many ask at once."""
    anna = await make_user(conn)
    await ask(conn, anna.user_id)
    first = await erasure.erase(conn, anna.user_id, by="admin")
    again = await erasure.erase(conn, anna.user_id, by="somebody else")

    assert (again.event_id, again.erased_at, again.erased_by) == (first.event_id, first.erased_at, "admin")
    assert (again.duplicate, again.keys_revoked) == (True, 0)
    assert (await erasure.plan(conn, ROOTS, anna.user_id)).is_erased
    assert len(await event_store.read_stream(conn, stream_of(anna.user_id))) == 2


async def test_of_many_who_erase_at_once_one_does(pool: Pool, conn: Connection) -> None:
    """One event, one tombstone, one revocation."""
    anna = await make_user(conn)

    async def erase(number: int) -> erasure.Erased:
        async with pool.acquire() as own:
            return await erasure.erase(own, anna.user_id, by=f"admin {number}")

    outcomes = await asyncio.gather(*(erase(number) for number in range(8)))

    assert sorted(outcome.duplicate for outcome in outcomes) == [False] + [True] * 7
    assert sum(outcome.keys_revoked for outcome in outcomes) == 1
    assert len({(outcome.event_id, outcome.erased_at, outcome.erased_by) for outcome in outcomes}) == 1
    assert len(await event_store.read_stream(conn, stream_of(anna.user_id))) == 2


async def test_nobody_comes_back_under_an_erased_id(conn: Connection) -> None:
    """Neither by a request, nor by a new key, nor by a change of the table; who comes back is somebody new."""
    anna = await make_user(conn)
    await ask(conn, anna.user_id)
    key_id = await conn.fetchval("SELECT key_id FROM subject_keys WHERE subject = $1", anna.user_id)
    await erasure.erase(conn, anna.user_id, by="admin")
    events = await conn.fetchval("SELECT count(*) FROM events")

    for note in (NOTE, None):
        with pytest.raises(ErasedUserError):
            await ask(conn, anna.user_id, note, album="Ebb")
    for role in get_args(api_keys.Role):
        with pytest.raises(ErasedUserError):
            await users.create_key(conn, ROOTS, name="Anna", role=role, user_id=anna.user_id, by="admin")
    assert await conn.fetchval("SELECT count(*) FROM events") == events
    for statement in (
        "UPDATE subject_keys SET wrapped = 'kima1.k.AAAA', erased_at = NULL, erased_by = NULL",
        "UPDATE subject_keys SET erased_by = 'nobody'",
        "UPDATE subject_keys SET subject = 'somebody else'",
        "DELETE FROM subject_keys",
        "TRUNCATE subject_keys",
    ):
        with pytest.raises(asyncpg.RestrictViolationError):
            await conn.execute(statement)
    again = await make_user(conn)
    assert again.user_id != anna.user_id
    await ask(conn, again.user_id)
    fresh = await conn.fetchval("SELECT key_id FROM subject_keys WHERE subject = $1", again.user_id)
    assert fresh != key_id


async def test_the_first_admin_who_was_erased_comes_back_as_somebody_new(conn: Connection, tmp_path: Path) -> None:
    """Their key stays revoked, also when it is given again; another one given opens, and may ask."""
    first, second = "the first key of an admin", "the second key of an admin"
    await api_keys.ensure_admin(conn, given=first, data_dir=tmp_path)
    await make_user(conn, "another admin", "admin")
    await erasure.erase(conn, "admin", by="another")

    for given in (first, second):
        await api_keys.ensure_admin(conn, given=given, data_dir=tmp_path)
    keys = [key for key in await api_keys.list_keys(conn) if key.name in {"", "KIMA_API_KEY"}]
    assert [(key.user_id == "admin", key.revoked_at is None) for key in keys] == [(True, False), (False, True)]
    await ask(conn, keys[1].user_id)


async def test_strangers_and_programs_of_ours_are_nobody_to_erase(conn: Connection) -> None:
    """And asking leaves nothing behind."""
    for user_id in ("nobody", "lidarr"):
        with pytest.raises(NotFoundError):
            await erasure.erase(conn, user_id, by="admin")
        with pytest.raises(NotFoundError):
            await erasure.plan(conn, ROOTS, user_id)
    for table in ("subject_keys", "users", "events"):
        assert await conn.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_an_id_that_somebody_chose_is_erased_and_said_to_stay(conn: Connection) -> None:
    """As the first admin's is, and those of keys from before ids were opaque: their plain names go."""
    await make_user(conn, "an admin", "admin")
    await api_keys.create(conn, name="Anna's old phone", role="user", user_id="anna")
    await ask(conn, "anna")

    planned = await erasure.plan(conn, ROOTS, "anna")
    assert (planned.id_is_opaque, planned.key_names, planned.name) == (False, ("Anna's old phone",), None)
    await erasure.erase(conn, "anna", by="admin")
    assert await conn.fetchval("SELECT name FROM api_keys WHERE user_id = 'anna'") == ""


async def test_the_last_admin_stays(pool: Pool, conn: Connection) -> None:
    """Somebody must be able to open the door: of two who erase each other, one remains, with all of theirs."""
    one, other = await make_user(conn, "One", "admin"), await make_user(conn, "Other", "admin")

    async def erase(whom: ApiKey) -> bool:
        async with pool.acquire() as own:
            try:
                await erasure.erase(own, whom.user_id, by="each other")
            except ConflictError:
                return False
        return True

    assert sorted(await asyncio.gather(erase(one), erase(other))) == [False, True]
    assert await api_keys.has_admin(conn)
    assert await conn.fetchval("SELECT count(*) FROM subject_keys WHERE wrapped IS NOT NULL") == 1
    names = [key.name for key in await users.named_keys(conn, ROOTS, await api_keys.list_keys(conn))]
    assert sorted(names) in (["One", ERASED], ["Other", ERASED])


async def test_whoever_is_asking_comes_before_or_learns_of_it(pool: Pool, conn: Connection) -> None:
    """A request under way is waited for; one that comes while somebody is being erased waits, and is refused."""
    anna = await make_user(conn)
    async with pool.acquire() as asking, pool.acquire() as erasing, pool.acquire() as late:
        under_way = asking.transaction()
        await under_way.start()
        asked = await ask(asking, anna.user_id)
        erase = asyncio.create_task(erasure.erase(erasing, anna.user_id, by="admin"))
        assert not (await asyncio.wait([erase], timeout=0.2))[0]
        await under_way.commit()
        await erase
        assert await note_of(conn, asked) == ERASED
        with pytest.raises(ErasedUserError):
            await ask(late, anna.user_id, album="Ebb")


async def test_nobody_who_keeps_asking_is_kept_from_being_erased(pool: Pool, conn: Connection) -> None:
    """Requests that overlap without a gap do not starve it, and afterwards each one is refused."""
    anna = await make_user(conn)
    refused = 0

    async def keep_asking(number: int) -> None:
        nonlocal refused
        for each in range(200):
            async with pool.acquire() as own:
                try:
                    await ask(own, anna.user_id, album=f"{number} {each}")
                except ErasedUserError:
                    refused += 1
                    return

    async with asyncio.TaskGroup() as tasks:
        for number in range(6):
            tasks.create_task(keep_asking(number))
        await asyncio.sleep(0)
        async with pool.acquire() as erasing:
            await erasure.erase(erasing, anna.user_id, by="admin")
    assert refused == 6


async def test_an_erased_users_keys_open_nothing(pool: Pool, conn: Connection) -> None:
    """Their use is not written down either."""
    key, row = await users.create_key(conn, ROOTS, name="Anna", role="user", user_id=None, by="admin")
    keys = ApiKeys(pool)
    (principal,) = await keys.verify([key.encode()])
    assert principal.user_id == row.user_id
    await erasure.erase(conn, row.user_id, by="admin")
    keys.forget()

    assert await keys.verify([key.encode()]) == ()
    await keys.write_used()
    assert await conn.fetchval("SELECT last_used_at FROM api_keys") is None


async def test_rotation_wraps_the_keys_of_persons_anew(conn: Connection, tmp_path: Path) -> None:
    """A new data key, then a new root: everything opens as before, the old root opens nothing, sealed is as sealed."""
    anna = await make_user(conn)
    asked = await ask(conn, anna.user_id)
    wrapped = await conn.fetchval("SELECT wrapped FROM subject_keys")
    data = await conn.fetch("SELECT data FROM events WHERE category <> 'settings' ORDER BY id")
    moving = Sources(environment={}, roots=Roots(given=OTHER_ROOT, previous=ROOT, data_dir=tmp_path))

    key_id = (await settings.rotate_key(conn, moving, by="admin")).key_id

    now = await conn.fetchval("SELECT wrapped FROM subject_keys")
    assert (now != wrapped, now.split(".")[1]) == (True, key_id)
    only_new = Roots(given=OTHER_ROOT, previous=None, data_dir=tmp_path)
    assert await note_of(conn, asked, only_new) == NOTE
    assert await note_of(conn, asked, ROOTS) == UNREADABLE
    assert data == await conn.fetch("SELECT data FROM events WHERE category <> 'settings' ORDER BY id")
    with pytest.raises((SealError, ConfigurationError)):
        await ask(conn, anna.user_id, album="Ebb")
    with pytest.raises(ConfigurationError, match="KIMA_SECRET_KEY"):
        await users.create_key(conn, ROOTS, name="Ben", role="user", user_id=None, by="admin")


async def test_who_lost_the_root_gives_up_what_persons_sealed(conn: Connection, tmp_path: Path) -> None:
    """Nothing until it is asked for; then their old words are unreadable, and they can say new ones."""
    anna = await make_user(conn)
    asked = await ask(conn, anna.user_id)
    lost = Sources(environment={}, roots=Roots(given=OTHER_ROOT, previous=None, data_dir=tmp_path))
    with pytest.raises(ConfigurationError, match="KIMA_SECRET_KEY"):
        await settings.rotate_key(conn, lost, by="admin")

    rotated = await settings.rotate_key(conn, lost, by="admin", give_up_lost=True)

    assert rotated.persons_given_up == 1
    assert await note_of(conn, asked, lost.roots) == UNREADABLE
    again = await ask(conn, anna.user_id, album="Ebb", roots=lost.roots)
    assert await note_of(conn, again, lost.roots) == NOTE
    assert (await settings.rotate_key(conn, lost, by="admin")).persons_given_up == 0
    await erasure.erase(conn, anna.user_id, by="admin")
    assert await note_of(conn, again, lost.roots) == ERASED


async def test_an_id_that_somebody_took_does_not_keep_them_from_being_erased(pool: Pool, conn: Connection) -> None:
    """The ids of our facts follow from what users see: nobody takes one beforehand."""
    anna = await make_user(conn)
    taken = derived_id(erasure.NAMESPACE, anna.user_id)
    async with front_door.opened(pool, settings=Settings(secret_key=ROOT)) as door:
        event = {"specversion": "1.0", "id": str(taken), "source": "/a", "type": "a.b", "data": {}}
        headers = {"Content-Type": "application/cloudevents+json"}
        async with door.client.post("/api/events", json=event, headers=headers) as answer:
            assert answer.status == 202, await answer.text()
            (stands,) = (await answer.json())["events"]
        async with door.client.post("/api/events", json=event, headers=headers) as answer:
            (again,) = (await answer.json())["events"]

    erased = await erasure.erase(conn, anna.user_id, by="admin")

    assert stands["event_id"] != str(taken)
    assert (again["event_id"], again["duplicate"]) == (stands["event_id"], True)
    assert (erased.event_id, erased.duplicate) == (taken, False)


async def test_rotation_does_not_bring_anybody_back(conn: Connection) -> None:
    """A tombstone stays one."""
    anna = await make_user(conn)
    await erasure.erase(conn, anna.user_id, by="admin")

    await settings.rotate_key(conn, Sources(environment={}, roots=ROOTS), by="admin")

    assert await conn.fetchval("SELECT wrapped FROM subject_keys") is None


async def test_a_key_moved_to_somebody_else_opens_nothing(conn: Connection) -> None:
    """Whoever can write to the table cannot read one person's texts as another's."""
    anna, ben = await make_user(conn), await make_user(conn, "Ben")
    asked = await ask(conn, anna.user_id)
    wrapped = await conn.fetchval("SELECT wrapped FROM subject_keys WHERE subject = $1", ben.user_id)
    await conn.execute("UPDATE subject_keys SET wrapped = $1 WHERE subject = $2", wrapped, anna.user_id)

    assert await note_of(conn, asked) == UNREADABLE
    with pytest.raises(SealError):
        await ask(conn, anna.user_id, album="Ebb")
