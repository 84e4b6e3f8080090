"""Settings: the database before the environment before the default, and secrets that nobody finds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kima_stream import database, event_store, projector, replay
from kima_stream.database import Connection, Pool
from kima_stream.errors import ConfigurationError, WrongExpectedVersionError
from kima_stream.read_models import settings
from kima_stream.settings import definitions, keyring, kinds, store
from kima_stream.settings.config import Settings
from kima_stream.settings.definitions import DEFINITIONS, AnyDefinition
from kima_stream.settings.secrets import Roots
from kima_stream.settings.store import SettingsStore, Sources
from tests.polling import eventually

ROOT = "Xo9-a-root-that-nobody-guesses-0451"
OTHER_ROOT = "another root: 83a1, much like it, but newer"
SECRETS = sorted(key for key, definition in DEFINITIONS.items() if definition.is_secret)

# For each setting two values that fit, as JSON and as text of the environment.
EXAMPLES: dict[str, tuple[kinds.Json, str]] = {
    "lidarrUrl": ("http://lidarr:8686", "https://elsewhere/lidarr"),
    "slskdUrl": ("http://slskd:5030", "https://elsewhere/slskd"),
    "lastfmUrl": ("http://127.0.0.1:1/2.0", "https://elsewhere/2.0"),
    "musicbrainzUrl": ("http://127.0.0.1:1/ws/2", "https://mirror/ws/2"),
    "publicUrl": ("http://kima:3006", "https://kima.example.org"),
    "soulseekServer": ("127.0.0.1:2242", "server.example.org:2416"),
    "soulseekListenHost": ("127.0.0.1", "::1"),
    "soulseekDownloadPath": ("/music/soulseek", "/downloads"),
    "musicPath": ("/music", "/srv/music"),
    "downloadSource": ("lidarr", "soulseek"),
    "primaryFailureFallback": ("lidarr", "none"),
    "notificationUrls": (["mailto://u:pw@example.org", "json://host/path"], "ntfy://topic ntfy://other"),
    "webhookUrls": (["https://example.org/hook?t=1"], "http://host/hook"),
    "libraryScanUrl": ("https://example.org/scan?t=1", "http://host/scan"),
}


def example(definition: AnyDefinition) -> tuple[kinds.Json, str]:
    """Return two values of a setting: one for the database, one for the environment."""
    if definition.key in EXAMPLES:
        return EXAMPLES[definition.key]
    match definition.kind:
        case "boolean":
            return True, "no"
        case "integer":
            return 7, "8"
        case _:
            return f"a value of {definition.key}", f"another-{definition.key}"


def sources(folder: Path | None = None, **environment: object) -> Sources:
    """Return an environment, and a root that is given, or else in ``folder``."""
    roots = Roots(given=None if folder else ROOT, previous=None, data_dir=folder or Path("/nowhere"))
    return Sources(environment=environment, roots=roots)


async def change(conn: Connection, changes: dict[str, object], where: Sources | None = None) -> store.Snapshot:
    """Change settings as the admin."""
    return await settings.change(conn, where or sources(), changes, by="admin")


async def everything(conn: Connection) -> str:
    """Return all rows of all tables, as a dump would have them."""
    tables = await conn.fetch(
        """SELECT oid::regclass::text AS name FROM pg_class
            WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"""
    )
    return "\n".join([str(await conn.fetch(f"SELECT t::text FROM {table['name']} AS t")) for table in tables])


@pytest.fixture
async def settings_store(pool: Pool) -> AsyncIterator[SettingsStore]:
    """Follow the settings as a role does."""
    async with SettingsStore(pool, sources()).following() as following:
        yield following


@pytest.mark.parametrize("key", DEFINITIONS)
async def test_the_database_comes_before_the_environment_before_the_default(key: str, conn: Connection) -> None:
    """For every setting; clearing falls back; each value says where it is from and who changed it."""
    definition = DEFINITIONS[key]
    value, text = example(definition)
    given = sources(**{key: definition.from_text(text)})

    def seen(snapshot: store.Snapshot) -> tuple[object, str]:
        assert snapshot[definition] == snapshot.entries[key].value
        return snapshot[definition], snapshot.entries[key].source

    assert seen(await store.read(conn, sources())) == (definition.default, "default")
    assert seen(await store.read(conn, given)) == (definition.from_text(text), "environment")

    others: dict[str, object] = {
        "lidarrUrl": "http://l",
        "lidarrApiKey": "k",
        "soulseekUsername": "u",
        "soulseekPassword": "p",
        "lastfmApiKey": "k",
    }
    changed = await change(conn, {**others, key: value}, given)
    assert changed.version == 0
    read = await store.read(conn, given)
    assert seen(read) == seen(changed) == (definition.from_json(value), "database")
    assert read.entries[key].changed_by == "admin"
    assert read.entries[key].changed_at is not None

    await change(conn, {key: None}, given)
    read = await store.read(conn, given)
    assert seen(read) == (definition.from_text(text), "environment")
    assert (read.entries[key].changed_by, (await store.read(conn, sources()))[definition]) == (
        "admin",
        definition.default,
    )


async def test_every_fault_comes_at_once_and_none_tells_a_value(conn: Connection) -> None:
    """Unknown names, wrong types, wrong bounds and what cannot be true together; nothing was changed."""
    wrong: dict[str, object] = {
        "lidarrUrl": "ftp://secret-value",
        "lidarrApiKey": 7,
        "soulseekConcurrentDownloads": 11,
        "soulseekEnabled": "secret-value",
        "soulseekServer": "secret-value",
        "musicPath": "secret-value/..",
        "primaryFailureFallback": "soulseek",
        "downloadSource": "soulseek",
        "notificationUrls": ["secret-value"],
        "lastfmApiSecret": " ",
        "webhookSigningSecret": "secret-value\n",
        "lastfmEnabled": True,
        "pendingTimeoutMinutes": True,
        "noSuchThing": "secret-value",
        "publicUrl": "http://user:secret-value@host",
    }

    with pytest.raises(ConfigurationError) as caught:
        await change(conn, {**wrong, "retentionless": None})

    named = {fault.partition(":")[0].strip("'") for fault in caught.value.faults}
    assert named == {*wrong.keys() - {"downloadSource"}, "retentionless"}
    assert "secret-value" not in str(caught.value)
    assert (await store.read(conn, sources())).version == -1


async def test_three_states_of_a_switch(conn: Connection) -> None:
    """Nobody said: on when user name and password are there. Somebody said: as they said."""
    switch = definitions.SOULSEEK_ENABLED

    assert not (await store.read(conn, sources())).is_on(switch)
    assert (await change(conn, {"soulseekUsername": "u", "soulseekPassword": "p"})).is_on(switch)
    off = await change(conn, {"soulseekEnabled": False})
    assert (off[switch], off.is_on(switch)) == (False, False)
    assert (await change(conn, {"soulseekEnabled": None})).is_on(switch)
    assert (await change(conn, {"soulseekEnabled": True}))[switch] is True
    with pytest.raises(ConfigurationError, match="soulseekEnabled: needs soulseekPassword"):
        await change(conn, {"soulseekPassword": None})


async def test_the_mask_and_the_same_value_change_nothing(conn: Connection) -> None:
    """A form that is sent back as it came makes no event, and keeps the secrets."""
    await change(conn, {"lidarrApiKey": "0123456789", "notificationUrls": ["json://host"], "musicPath": "/music"})

    same = await change(
        conn,
        {
            "lidarrApiKey": kinds.MASK,
            "notificationUrls": [kinds.MASK],
            "musicPath": "/music",
            "lastfmApiKey": kinds.MASK,
        },
    )
    again = await change(conn, {"lidarrApiKey": "0123456789", "lidarrUrl": None})

    assert (same.version, again.version, len(await event_store.read_stream(conn, store.STREAM))) == (0, 0, 1)
    assert same[definitions.LIDARR_API_KEY] == "0123456789"
    assert same[definitions.LASTFM_API_KEY] is None


async def test_a_version_that_has_passed_is_refused(conn: Connection) -> None:
    """Two admins with one form: the second one learns of the first."""
    await settings.change(conn, sources(), {"musicPath": "/a"}, by="one", expected_version=-1)
    with pytest.raises(WrongExpectedVersionError):
        await settings.change(conn, sources(), {"musicPath": "/b"}, by="two", expected_version=-1)

    await settings.change(conn, sources(), {"musicPath": "/b"}, by="two", expected_version=0)
    assert (await store.read(conn, sources()))[definitions.MUSIC_PATH] == "/b"


async def test_no_dump_has_a_secret_and_each_is_sealed_under_its_name(conn: Connection) -> None:
    """Events, rows, keys: only what does not open without the root."""
    for key in SECRETS:
        await change(conn, {key: example(DEFINITIONS[key])[0]})
    dump = await everything(conn)

    assert "settings.changed" in dump
    for key in SECRETS:
        value = example(DEFINITIONS[key])[0]
        assert isinstance(value, str | list)
        for text in (*([value] if isinstance(value, str) else value), ROOT):
            raw = text.encode()
            assert text not in dump, key
            assert raw.hex() not in dump


async def test_a_tampered_value_is_an_error_that_names_its_setting(conn: Connection, pool: Pool) -> None:
    """Never garbage, never another's value, never the environment's instead; the others work on."""
    given = sources(lidarrApiKey="of the environment")
    await change(conn, {"lidarrApiKey": "right", "soulseekPassword": "other", "slskdApiKey": "third"}, given)
    state = await conn.fetchval("SELECT state FROM settings")
    values = msgspec.json.decode(state)["values"]
    one, other = values["lidarrApiKey"]["sealed"], values["soulseekPassword"]["sealed"]
    flipped = one[:-9] + ("A" if one[-9] != "A" else "B") + one[-8:]

    for fault in (flipped, other, "in clear", "", one[:-4]):
        await conn.execute("UPDATE settings SET state = $1", state.replace(one, fault))
        read = await store.read(conn, given)
        with pytest.raises(ConfigurationError, match="lidarrApiKey: cannot be opened"):
            read[definitions.LIDARR_API_KEY]
        assert read.entries["lidarrApiKey"].value is None
        assert read[definitions.SLSKD_API_KEY] == "third"
        with pytest.raises(ConfigurationError, match="lidarrApiKey: cannot be opened"):
            await settings.rotate_key(conn, given, by="admin")

    assert (await SettingsStore(pool, given).refresh()).version == 0
    mended = await change(conn, {"lidarrApiKey": "right"}, given)
    assert mended[definitions.LIDARR_API_KEY] == "right"


async def test_another_root_opens_nothing_and_says_so(conn: Connection) -> None:
    """A start with the wrong KIMA_SECRET_KEY must not overwrite, nor guess."""
    await change(conn, {"lidarrApiKey": "right"})
    wrong = Sources(environment={}, roots=Roots(given=OTHER_ROOT, previous=None, data_dir=Path("/nowhere")))

    assert "another root" in str((await store.read(conn, wrong)).entries["lidarrApiKey"].fault)
    with pytest.raises(ConfigurationError, match="KIMA_SECRET_KEY"):
        await change(conn, {"slskdApiKey": "new"}, wrong)
    with pytest.raises(ConfigurationError, match="KIMA_SECRET_KEY"):
        await settings.rotate_key(conn, wrong, by="admin")
    assert (await store.read(conn, sources()))[definitions.LIDARR_API_KEY] == "right"


async def test_a_new_root_takes_over_and_the_old_one_can_go(conn: Connection) -> None:
    """Give both, rotate, forget the old one: all is readable, also what old events hold."""
    await change(conn, {"lidarrApiKey": "right"})
    both = Sources(environment={}, roots=Roots(given=OTHER_ROOT, previous=ROOT, data_dir=Path("/nowhere")))
    new = Sources(environment={}, roots=Roots(given=OTHER_ROOT, previous=None, data_dir=Path("/nowhere")))

    await settings.rotate_key(conn, both, by="admin")

    assert (await store.read(conn, new))[definitions.LIDARR_API_KEY] == "right"
    assert (await store.read(conn, sources())).entries["lidarrApiKey"].fault is not None
    first = msgspec.json.decode((await event_store.read_stream(conn, store.STREAM))[0].data)
    sealed = first["changes"]["lidarrApiKey"]["sealed"]
    ring = await keyring.load(conn, new.roots)
    assert ring.open(store.sealed_name("lidarrApiKey"), sealed) == '"right"'


async def test_rotation_under_load_loses_nothing(pool: Pool, scaled: Callable[[int], int], tmp_path: Path) -> None:
    """Writers, readers and two who rotate at once, over a root in a file that nobody had made yet."""
    where, turns = sources(tmp_path), scaled(100)
    written: dict[str, str] = {}
    done = asyncio.Event()

    async def write(key: str) -> None:
        for turn in range(turns):
            async with pool.acquire() as conn:
                await change(conn, {key: f"{key} {turn}"}, where)
            written[key] = f"{key} {turn}"

    async def rotate() -> None:
        for _ in range(turns):
            async with pool.acquire() as conn:
                await settings.rotate_key(conn, where, by="admin")

    async def read() -> int:
        reads = 0
        while not done.is_set():
            async with pool.acquire() as conn:
                snapshot = await store.read(conn, where)
            assert [key for key, entry in snapshot.entries.items() if entry.fault] == []
            reads += 1
        return reads

    readers = [asyncio.create_task(read()) for _ in range(2)]
    keys = [definitions.LIDARR_API_KEY, definitions.SLSKD_API_KEY, definitions.SOULSEEK_PASSWORD]
    await asyncio.gather(*(write(key.key) for key in keys), rotate(), rotate())
    done.set()

    assert all(reads > 0 for reads in await asyncio.gather(*readers))
    async with pool.acquire() as conn:
        snapshot = await store.read(conn, where)
        assert {key.key: snapshot[key] for key in keys} == written
        assert snapshot.version == 5 * turns - 1
        row = await conn.fetchrow("SELECT state, key_id FROM settings")
        newest = await conn.fetchval("SELECT key_id FROM secret_keys ORDER BY number DESC LIMIT 1")
        assert row is not None
        assert row["key_id"] == newest
        outcome = await replay.replay(conn, settings.PROJECTION)
        assert outcome.different == 0


async def test_a_rotation_that_dies_changes_nothing(
    dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection goes when all but the commit is done: the old key is still the one."""
    await change(conn, {"lidarrApiKey": "right"})
    keys = await conn.fetch("SELECT * FROM secret_keys")
    victim = await database.connect(dsn, role="victim")
    decide = projector.decide

    async def die(at: Connection, projection: Any, row: Any, events: Any) -> Any:  # noqa: ANN401 - as it comes
        await decide(at, projection, row, events)
        await conn.execute("SELECT pg_terminate_backend($1)", at.get_server_pid())

    monkeypatch.setattr(projector, "decide", die)
    with pytest.raises(database.OUTAGE):
        await settings.rotate_key(victim, sources(), by="admin")

    assert await conn.fetch("SELECT * FROM secret_keys") == keys
    assert (await store.read(conn, sources()))[definitions.LIDARR_API_KEY] == "right"


async def test_the_first_two_secrets_at_once_make_one_root(pool: Pool, tmp_path: Path) -> None:
    """Two processes, no file yet: one file, both values readable."""

    async def put(key: str) -> None:
        async with pool.acquire() as conn:
            await change(conn, {key: key}, sources(tmp_path))

    await asyncio.gather(*(put(key) for key in ("lidarrApiKey", "slskdApiKey", "lastfmApiKey")))

    async with pool.acquire() as conn:
        read = await store.read(conn, sources(tmp_path))
    assert [read.entries[key].value for key in ("lidarrApiKey", "slskdApiKey")] == ["lidarrApiKey", "slskdApiKey"]
    assert [path.name for path in tmp_path.iterdir()] == ["secret_key"]


async def test_a_store_follows_and_tells_who_waits(settings_store: SettingsStore, conn: Connection) -> None:
    """The snapshot in hand never changes; the next one is there within a second."""
    before = await settings_store.loaded()
    waiting = asyncio.create_task(settings_store.changed(before.version))

    await change(conn, {"musicPath": "/music"})

    after = await asyncio.wait_for(waiting, 1.0)
    assert (before[definitions.MUSIC_PATH], after[definitions.MUSIC_PATH]) == (None, "/music")
    assert settings_store.current is after
    assert "music" not in repr(after)


async def test_the_last_settings_stay_in_force_while_the_table_is_built_anew(
    settings_store: SettingsStore, conn: Connection
) -> None:
    """An empty table is not an order to forget everything; what is then there counts."""
    await change(conn, {"musicPath": "/music"})
    await settings_store.refresh()

    await conn.execute("DELETE FROM settings")
    assert (await settings_store.refresh())[definitions.MUSIC_PATH] == "/music"
    await replay.replay(conn, settings.PROJECTION, apply=True)
    assert (await change(conn, {"musicPath": "/other"}))[definitions.MUSIC_PATH] == "/other"
    await eventually(lambda: settings_store.current[definitions.MUSIC_PATH] == "/other")


async def test_settings_are_followed_whatever_became_of_the_table(
    settings_store: SettingsStore, conn: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restore that takes it away for a while: the last ones stay in force, and later changes are seen."""
    await change(conn, {"musicPath": "/music"})
    await eventually(lambda: settings_store.current[definitions.MUSIC_PATH] == "/music")
    said: list[str] = []

    def is_missed() -> bool:
        said.append(capsys.readouterr().out)
        return "settings_not_read" in "".join(said)

    await conn.execute("ALTER TABLE settings RENAME TO settings_away")
    await eventually(is_missed)
    assert settings_store.current[definitions.MUSIC_PATH] == "/music"
    await conn.execute("ALTER TABLE settings_away RENAME TO settings")

    await change(conn, {"musicPath": "/other"})
    await eventually(lambda: settings_store.current[definitions.MUSIC_PATH] == "/other")


async def test_a_data_key_cannot_be_deleted(conn: Connection) -> None:
    """With it every secret that it sealed would be gone, in old events too."""
    await change(conn, {"lidarrApiKey": "right"})

    for statement in ("DELETE FROM secret_keys", "TRUNCATE secret_keys"):
        with pytest.raises(Exception, match="refused"):
            await conn.execute(statement)


def test_a_configuration_gives_the_store_its_sources() -> None:
    """Root and environment, as the composition root has them."""
    loaded = Settings(secret_key=ROOT, environment={"musicPath": "/music"})

    assert Sources.of(loaded).roots.is_there()
    assert Sources.of(loaded).environment == {"musicPath": "/music"}
    assert ROOT not in repr(Sources.of(loaded))
