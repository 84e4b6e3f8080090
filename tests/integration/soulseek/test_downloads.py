"""Albums and files of real peers: what comes is what was offered, or there is a reason; nothing leaves the folder."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import redis.asyncio as redis_client

from kima_stream import metrics
from kima_stream.cache import Copies
from kima_stream.database import Pool
from kima_stream.integrations.soulseek import names, peers, plans
from kima_stream.integrations.soulseek.acquisition import Acquisition, NothingFoundError
from kima_stream.integrations.soulseek.album_work import Album, Hand
from kima_stream.integrations.soulseek.downloads import Bounds
from kima_stream.integrations.soulseek.files import DiskError
from kima_stream.integrations.soulseek.found import FoundFile
from kima_stream.integrations.soulseek.gate import Gate
from kima_stream.integrations.soulseek.ownership import Owner
from kima_stream.integrations.soulseek.plans import Plan
from kima_stream.integrations.soulseek.ranking import Candidate
from kima_stream.integrations.soulseek.searching import Searches
from tests.integration.soulseek.conftest import owning, until
from tests.polling import eventually
from tests.soulseek_peers import Offer, nicotine, peer
from tests.soulseek_server import SoulseekServer

ALBUM = Album(artist="Some Artist", title="An Album")
FOLDER = "Some Artist/An Album"
HAND = Hand(asker="download_job-test")
SHORT = Bounds(start_seconds=1.0, idle_seconds=0.5, offline_seconds=0.5, look_seconds=0.02)


def noise(seed: object, size: int) -> bytes:
    """Return bytes that are like no others."""
    return random.Random(str(seed)).randbytes(size)


@asynccontextmanager
async def acquiring(
    pool: Pool, environment: dict[str, str], *, bounds: Bounds = SHORT, seconds: float = 1.0
) -> AsyncIterator[Acquisition]:
    """Run an owner that is connected, and what it fetches with."""
    async with owning(pool, environment) as owner:
        await until(pool, "connected")
        yield made(pool, owner, bounds, seconds)


def made(pool: Pool, owner: Owner, bounds: Bounds = SHORT, seconds: float = 1.0) -> Acquisition:
    """Return what an owner fetches with."""
    searches = Searches(Gate(pool, poll_seconds=0.02), owner.client, seconds=seconds)
    return Acquisition(pool, owner._settings, searches, owner.client, bounds=bounds)


def offers(
    titles: Sequence[str] = ("One", "Two"), *, content: bytes | None = None, **over: str | int | bool
) -> list[Offer]:
    """Return an album as a peer offers it."""
    return [
        Offer(
            path=f"music\\Some Artist - An Album\\{n:02} - {title}.flac",
            content=noise(title, 20_000) if content is None else content,
            **over,  # type: ignore[arg-type]
        )
        for n, title in enumerate(titles, 1)
    ]


def tree(folder: Path) -> dict[str, str]:
    """Return every file below ``folder`` and what is in it."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_an_album_of_a_real_peer_arrives_byte_for_byte(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """nicotine-plus, which nobody here wrote: search, choose, fetch three files, sha256 equal."""
    share = tmp_path / "share"
    folder = share / "Some Artist - An Album (2003)"
    folder.mkdir(parents=True)
    for n in range(1, 4):
        (folder / f"0{n} - Song {n}.mp3").write_bytes(noise(n, 400_000))

    before = _counted()
    async with (
        nicotine(server, tmp_path / "home", share),
        acquiring(pool, environment, bounds=Bounds(), seconds=3) as it,
    ):
        got = await it.album(ALBUM, HAND)
        searched = len(server.searches)  # more than one, where a busy peer answers late
        again = await it.album(ALBUM, HAND)

    assert tree(tmp_path / "music") == {f"{FOLDER}/{name}": digest for name, digest in tree(folder).items()}
    assert [file.size_bytes for file in got.files] == [400_000] * 3
    assert (got.tracks_wanted, got.peers) == (3, ("nicotine",))
    assert again == got  # and nothing was searched or fetched for it
    assert _counted() == before + 3
    assert len(server.searches) == searched


def _counted() -> float:
    """Return how many files came, as Prometheus is told."""
    return float(metrics.soulseek_downloads.labels(status="success")._value.get())


async def test_partial_files_that_nobody_went_on_with_are_removed(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """A peer that stalls leaves a beginning; a week later it goes, with the next plan that is made."""
    stalling = offers(("One",), stalls_after=5_000)
    other = Offer(path="music\\Other - Other Album\\01 - One.flac", content=b"x" * 100)
    async with (
        peer(server, tmp_path / "a", stalling, username="a"),
        peer(server, tmp_path / "b", [other], username="b"),
        acquiring(pool, environment) as it,
    ):
        await it.album(ALBUM, HAND)
        assert [name for name in tree(tmp_path / "music") if name.endswith(names.PARTIAL)]
        async with pool.acquire() as conn:
            await conn.execute("UPDATE soulseek_plans SET made_at = made_at - interval '8 days'")
        await it.album(Album(artist="Other", title="Other Album"), HAND)

    assert list(tree(tmp_path / "music")) == ["Other/Other Album/01 - One.flac"]


async def test_a_restart_in_mid_download_goes_on_where_it_was(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """What was here is not fetched again, and no second search is spent; the bytes match."""
    share = tmp_path / "share"
    folder = share / "Some Artist - An Album"
    folder.mkdir(parents=True)
    (folder / "01 - Song.flac").write_bytes(noise("song", 3_000_000))
    seen: list[int] = []

    def report(_text: str, done: int, _total: int) -> None:
        seen.append(done)

    async with nicotine(server, tmp_path / "home", share, kilobytes_per_second=800):
        async with acquiring(pool, environment, bounds=Bounds(), seconds=3) as it:
            first = asyncio.create_task(it.album(ALBUM, Hand(asker="a", report=report)))
            await eventually(lambda: max(seen, default=0) > 500_000, 30)
            first.cancel()
            with suppress(asyncio.CancelledError):
                await first
        (partial,) = (tmp_path / "music" / FOLDER).iterdir()
        had = partial.stat().st_size
        assert partial.name.endswith(names.PARTIAL)
        assert 500_000 <= had < 3_000_000
        searched = len(server.searches)  # more than one, where a busy peer answers late
        seen.clear()
        async with acquiring(pool, environment, bounds=Bounds(), seconds=3) as it:
            got = await it.album(ALBUM, Hand(asker="a", report=report))

    assert min(byte for byte in seen if byte) >= had
    assert [file.peer for file in got.files] == ["nicotine"]
    assert tree(tmp_path / "music") == {f"{FOLDER}/01 - Song.flac": sha256(noise("song", 3_000_000)).hexdigest()}
    assert len(server.searches) == searched


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({"size_bytes": 10_000}, "offers 20000 bytes instead of 10000"),
        ({"announced_bytes": 30_000, "size_bytes": 30_000}, "sent nothing for 0.5 s"),
        ({"refusal": "Banned, don't\x07 bother"}, "refused: Banned, don't bother"),
        ({"is_silent": True}, "did not begin within 1 s"),
        ({"stalls_after": 5_000}, "sent nothing for 0.5 s"),
    ],
    ids=["lying size", "less than said", "denied", "silent", "stalls"],
)
async def test_a_peer_that_fails_is_a_reason_and_counted(
    pool: Pool,
    server: SoulseekServer,
    environment: dict[str, str],
    tmp_path: Path,
    over: dict[str, Any],
    reason: str,
) -> None:
    """And no file has its name."""
    async with peer(server, tmp_path / "peer", offers(("One",), **over)), acquiring(pool, environment) as it:
        got = await it.album(ALBUM, HAND)

    assert got.files == ()
    assert got.reasons == (f"peer {reason}",)
    assert [name for name in tree(tmp_path / "music") if not name.endswith(names.PARTIAL)] == []
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT failures FROM soulseek_peers WHERE peer = 'peer'") == 1


async def test_what_a_peer_does_not_share_any_more_is_no_failure_of_it(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """It is a reason, and nobody is blamed."""
    async with (
        peer(server, tmp_path / "peer", offers(("One",), refusal="File not shared.")),
        acquiring(pool, environment) as it,
    ):
        got = await it.album(ALBUM, HAND)

    assert got.reasons == ("peer refused: File not shared.",)
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM soulseek_peers") == 0


async def test_a_peer_that_leaves_is_not_waited_for(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """It answered the search and went: the library would wait for ever."""
    async with acquiring(pool, environment) as it:
        async with peer(server, tmp_path / "peer", offers(("One",))):
            plan = await it._planned(ALBUM, names.album_folder(ALBUM.artist, ALBUM.title), HAND)
        assert plan.tracks == ("one",)

        got = await it.album(ALBUM, HAND)

    assert got.reasons == ("peer is offline",)


async def test_names_of_peers_stay_in_the_folder(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Parents, absolute paths, drives, NUL, reserved and overlong names: all of it lands in the album's folder."""
    folder = "x\\..\\..\\Some Artist - An Album"
    hostile = [
        f"{folder}\\..\\..\\..\\An Album\\Some Artist - An Album\\01 up.flac",
        f"{folder}\\02 nul\x00byte.flac",
        f"{folder}\\NUL.flac",
        f"{folder}\\{'long ' * 100}.flac",
        f"{folder}\\C:.flac",
        f"{folder}\\/etc/Some Artist - An Album/05 absolute.flac",
        f"{folder}\\.hidden.flac",
    ]
    bad = [Offer(path=path, content=noise(path, 1_000 + n)) for n, path in enumerate(hostile)]
    before = tree(tmp_path)

    async with peer(server, tmp_path / "peer", bad), acquiring(pool, environment) as it:
        found = await it._search("some artist an album", HAND)
        for file in found:
            await it.file(file, PurePosixPath(FOLDER), HAND)

    music = tree(tmp_path / "music")
    assert len(found) == len(hostile)
    assert sorted(music.values()) == sorted(sha256(one.content).hexdigest() for one in bad)
    assert all(name.startswith(f"{FOLDER}/") and name.count("/") == 2 for name in music)
    assert all(name.rpartition("/")[2].isprintable() for name in music)
    outside = {name for name in tree(tmp_path) if not name.startswith(("music/", "peer/", "data/"))}
    assert outside == set(before)


async def test_the_next_peer_gives_what_the_first_did_not(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Track by track, and a peer that gave something is cleared of what it failed of."""
    refused = Offer(path="music\\Some Artist - An Album\\02 - Two.flac", content=b"x" * 9, refusal="no")
    first = [*offers(("One",)), refused]
    second = offers(("One", "Two"))
    async with (
        peer(server, tmp_path / "a", first, username="a"),
        peer(server, tmp_path / "b", second, username="b"),
        acquiring(pool, environment) as it,
    ):
        got = await it.album(ALBUM, HAND)

    assert [(file.path, file.peer) for file in got.files] == [
        (f"{FOLDER}/01 - One.flac", "a"),
        (f"{FOLDER}/02 - Two.flac", "b"),
    ]
    assert set(tree(tmp_path / "music")) == {file.path for file in got.files}


async def test_a_part_is_a_part_and_the_next_time_adds_to_it(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Two of three came; another peer has the third: the two are not fetched again."""
    three = offers(("One", "Two"))
    refused = Offer(path="music\\Some Artist - An Album\\03 - Three.flac", content=b"x", refusal="no")
    async with acquiring(pool, environment) as it:
        async with peer(server, tmp_path / "a", [*three, refused], username="a"):
            part = await it.album(ALBUM, HAND)
        async with pool.acquire() as conn:
            await conn.execute("DELETE FROM soulseek_searches")  # the window has passed
        async with peer(
            server, tmp_path / "b", offers(("One", "Two", "Three"), content=b"y" * 500), username="b"
        ) as other:
            whole = await it.album(ALBUM, HAND)

    assert (len(part.files), part.tracks_wanted) == (2, 3)
    assert (len(whole.files), whole.tracks_wanted) == (3, 3)
    assert other.asked == ["music\\Some Artist - An Album\\03 - Three.flac"]


async def test_two_jobs_of_one_album_fetch_it_once(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Two users want it at the same time."""
    async with peer(server, tmp_path / "peer", offers()) as one, acquiring(pool, environment) as it:
        results = await asyncio.gather(*(it.album(ALBUM, Hand(asker=f"job {n}")) for n in range(2)))

    assert [len(result.files) for result in results] == [2, 2]
    assert sorted(one.asked) == sorted(set(one.asked))
    assert len(server.searches) == 1


async def test_a_file_of_somebody_else_is_never_replaced(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """One of the same name and another size: ours gets a number. The same again is there already."""
    (tmp_path / "music" / FOLDER).mkdir(parents=True)
    theirs = tmp_path / "music" / FOLDER / "01 - One.flac"
    theirs.write_bytes(b"theirs")
    async with peer(server, tmp_path / "peer", offers(("One",))) as one, acquiring(pool, environment) as it:
        (file,) = await it._search("some artist an album", HAND)
        got = [await it.file(file, PurePosixPath(FOLDER), HAND) for _ in range(2)]

    assert theirs.read_bytes() == b"theirs"
    assert [result.files[0].path for result in got] == [f"{FOLDER}/01 - One (2).flac"] * 2
    assert len(one.asked) == 1


async def test_a_full_disk_is_our_fault(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """The peer is not counted; what came is kept for when there is room.

    Here a file may not grow beyond a size: the same error as of a disk that is full.
    """
    big = offers(("One",), content=noise("big", 3_000_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with peer(server, tmp_path / "peer", big), acquiring(pool, environment) as it:
        (file,) = await it._search("some artist an album", HAND)
        Path(tmp_path / "peer" / "0").write_bytes(big[0].content)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(DiskError):
                await it.file(file, PurePosixPath(FOLDER), HAND)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        got = await it.file(file, PurePosixPath(FOLDER), HAND)

    assert got.files[0].size_bytes == 3_000_000
    async with pool.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM soulseek_peers") == 0


async def test_a_folder_that_is_missing_or_a_link_out_of_it_is_our_fault(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """A disk that is not mounted is not written beside; a link does not lead us away."""
    outside = tmp_path / "outside"
    outside.mkdir()
    async with peer(server, tmp_path / "peer", offers(("One",))), acquiring(pool, environment) as it:
        (file,) = await it._search("some artist an album", HAND)
        (tmp_path / "music" / "Some Artist").symlink_to(outside)
        with pytest.raises(DiskError):
            await it.file(file, PurePosixPath(FOLDER), HAND)
        (tmp_path / "music").rename(tmp_path / "unmounted")
        with pytest.raises(DiskError):
            await it.file(file, PurePosixPath(FOLDER), HAND)

    assert not (tmp_path / "music").exists()
    assert [path for path in outside.rglob("*") if path.is_file()] == []


async def test_three_failures_block_a_peer_for_the_next_search(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path, redis_url: str
) -> None:
    """An album of nine refused files: three are enough, the others are not asked for, and nobody is left.

    Redis shows it for the day that it lasts.
    """
    bad = offers([f"Song {letter}" for letter in "ABCDEFGHI"], refusal="no")
    async with (
        peer(server, tmp_path / "peer", bad) as one,
        acquiring(pool, environment | {"KIMA_SOULSEEK_CONCURRENT_DOWNLOADS": "1"}) as it,
        Copies(redis_url) as it._copies,
        redis_client.Redis.from_url(redis_url) as client,
    ):
        got = await it.album(ALBUM, HAND)
        assert 86_390 < await client.ttl(peers.copy_key("peer")) <= 86_400
        async with pool.acquire() as conn:
            assert await peers.blocked(conn) == {"peer"}
        with pytest.raises(NothingFoundError):
            await it.album(ALBUM, HAND)

    assert got.files == ()
    assert 3 <= len(one.asked) <= 5  # two were on their way


async def test_a_plan_that_was_kept_asks_no_blocked_peer(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """The connection broke in mid-album, and the peer was blocked meanwhile, for another album perhaps."""
    offered = offers()
    files = {
        f"{n:02} {offer.path}": FoundFile(peer="peer", path=offer.path, size_bytes=20_000, extension="flac")
        for n, offer in enumerate(offered, 1)
    }
    plan = Plan(tracks=tuple(files), candidates=(Candidate("peer", "music", files),))
    async with (
        peer(server, tmp_path / "peer", offered) as one,
        acquiring(pool, environment) as it,
        pool.acquire() as conn,
    ):
        await plans.save(conn, PurePosixPath(FOLDER), plan)
        for _ in range(3):
            await peers.failed(conn, "peer", "no bytes")

        got = await it.album(ALBUM, HAND)

    assert (got.files, one.asked) == ((), [])


async def test_so_many_at_once_as_the_settings_say(
    pool: Pool, server: SoulseekServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Silent offers fill the places; the others wait in turn."""
    silent = offers([f"Song {letter}" for letter in "ABCDEF"], is_silent=True)
    async with (
        peer(server, tmp_path / "peer", silent) as one,
        acquiring(pool, environment | {"KIMA_SOULSEEK_CONCURRENT_DOWNLOADS": "2"}, bounds=Bounds()) as it,
    ):
        task = asyncio.create_task(it.album(ALBUM, HAND))
        await eventually(lambda: len(one.asked) == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(one.asked) == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
