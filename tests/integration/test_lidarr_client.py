"""The client of Lidarr against the simulated one: each call, each shape of error, and what is never repeated."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import prometheus_client
import pytest
import stamina
import structlog

from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.integrations import lidarr_http
from kima_stream.integrations.lidarr import Lidarr, LidarrError, session
from kima_stream.integrations.lidarr_types import MetadataProfile
from kima_stream.simulator.lidarr import Luck
from kima_stream.simulator.weather import Strike
from tests import lidarr
from tests.lidarr import BEGIN, KEY, LidarrHouse


@pytest.fixture
async def house() -> AsyncIterator[LidarrHouse]:
    """Run a Lidarr whose downloads all end well; each call is held against its description."""
    with stamina.set_testing(True, attempts=lidarr_http.READ_ATTEMPTS):
        async with lidarr.opened(luck=Luck(imports=1.0)) as found:
            yield found


async def add(house: LidarrHouse, count: int) -> list[int]:
    """Add albums, let Lidarr grab each, and return their numbers."""
    ids = []
    for known in house.lidarr.catalogue.albums[:count]:
        maker = house.lidarr.catalogue.artist_of(known)
        artist = house.lidarr.artists.get(maker.mbid) or await house.lidarr.add_artist(maker)
        album = house.lidarr.add_album(known, artist)
        await house.lidarr.grab([album], house.lidarr.releases(album)[0])
        ids.append(album.id)
    return ids


def calls(endpoint: str, status: str) -> float:
    """Return how often this was counted."""
    labels = {"endpoint": f"/api/v1{endpoint}", "status": status}
    return prometheus_client.REGISTRY.get_sample_value("kima_lidarr_api_calls_total", labels) or 0.0


async def test_what_lidarr_has_is_read_as_structs(house: LidarrHouse) -> None:
    """Status, profiles, folders and tags are what a new artist needs."""
    client = house.client

    assert (await client.status()).instance_name == "Lidarr"
    assert [profile.name for profile in await client.quality_profiles()] == ["Lossless"]
    assert [profile.name for profile in await client.metadata_profiles()] == ["Albums only"]
    assert [(folder.path, folder.default_quality_profile_id) for folder in await client.root_folders()] == [
        ("/music", 1)
    ]
    assert await client.add_tag("Kima") in await client.tags()


async def test_an_album_is_looked_up_with_all_its_fields(house: LidarrHouse) -> None:
    """What goes back to Lidarr must hold what we do not read."""
    known = house.lidarr.catalogue.albums[0]
    found = (await house.client.look_up_album(f"lidarr:{known.mbid}"))[0]

    assert (found.resource.title, found.resource.id) == (known.title, 0)
    assert found.resource.artist is not None
    assert found.body["duration"] == sum(track.milliseconds for track in known.tracks)
    artist = (await house.client.look_up_artist(found.resource.artist.artist_name))[0]
    assert artist.resource.foreign_artist_id == str(known.artist_mbid)


async def test_what_is_not_there_is_none(house: LidarrHouse) -> None:
    """Absence is an answer; only another kind of 404 is a fault."""
    client, known = house.client, house.lidarr.catalogue.albums[0]

    assert await client.album(99) is None
    assert await client.command(99) is None
    assert await client.album_by_mbid(str(known.mbid)) is None
    assert await client.artist_by_mbid(str(known.artist_mbid)) is None
    assert await client.remove_from_queue(99) is False


async def test_adding_an_artist_twice_is_known_as_such(house: LidarrHouse) -> None:
    """Lidarr says it with 400 and an array."""
    known = house.lidarr.catalogue.albums[0]
    found = (await house.client.look_up_artist(f"lidarr:{known.artist_mbid}"))[0]
    body = found.body | {"qualityProfileId": 1, "metadataProfileId": 1, "rootFolderPath": "/music"}
    artist = await house.client.add_artist(body)

    with pytest.raises(LidarrError) as refused:
        await house.client.add_artist(body)

    assert artist.id == 1
    assert refused.value.is_already_added
    assert (refused.value.status, refused.value.retryable) == (400, False)
    assert "This artist has already been added." in str(refused.value)


async def test_the_database_s_own_conflict_means_already_added_too(house: LidarrHouse) -> None:
    """Two that add at once get past the check, and the second one fails in the database."""
    body = b'{"message":"constraint failed: UNIQUE constraint failed: Artists.ForeignArtistId","description":"at x"}'
    house.strike(Strike(method="POST", status=409, body=body, content_type="application/json"))

    with pytest.raises(LidarrError) as refused:
        await house.client.add_tag("kima")

    assert refused.value.is_already_added


async def test_another_refusal_is_not_already_added(house: LidarrHouse) -> None:
    """A profile that is missing must not pass for an artist that is there."""
    known = house.lidarr.catalogue.albums[0]

    with pytest.raises(LidarrError, match="QualityProfileId") as refused:
        await house.client.add_artist({"foreignArtistId": str(known.artist_mbid), "rootFolderPath": "/music"})

    assert not refused.value.is_already_added


async def test_the_whole_queue_is_read_beyond_the_first_ten(house: LidarrHouse) -> None:
    """Whoever reads one page takes a download for vanished."""
    ids = await add(house, 23)

    assert sorted(item.album_id or 0 for item in await house.client.queue()) == ids
    assert sorted(item.album_id or 0 for item in await house.client.queue(page_size=10)) == ids
    assert {dict(call.query)["pageSize"] for call in house.calls if call.path == "/api/v1/queue"} == {"500", "10"}


async def test_a_queue_that_moves_while_it_is_read_hides_nothing(house: LidarrHouse) -> None:
    """A line of a later page that moves to an earlier one must not be missed."""
    await add(house, 23)
    held = asyncio.Event()
    # The second page waits until a download of the first one is gone.
    house.strike(Strike(kind="hold", path="/api/v1/queue", times=1, until=None))
    house.strike(Strike(kind="hold", path="/api/v1/queue", times=1, until=held))
    reading = asyncio.create_task(house.client.queue(page_size=10))
    async with asyncio.timeout(5):
        while len(house.calls) < 1:  # noqa: ASYNC110 - the house has no event for it
            await asyncio.sleep(0)
    house.lidarr.downloads[0].state = "imported"
    held.set()

    found = await reading

    expected = {download.id for download in house.lidarr.downloads if download.state == "downloading"}
    assert {item.download_id for item in found} == expected


async def test_a_removed_download_is_blocklisted_and_searched_again(house: LidarrHouse) -> None:
    """One line stands for the download; what becomes of it is in the history."""
    await add(house, 1)
    line = (await house.client.queue())[0]

    assert await house.client.remove_from_queue(line.id, blocklist=True)
    await house.lidarr.agenda.advance(3)

    assert [download.state for download in house.lidarr.downloads] == ["failed", "downloading"]
    rows = [row async for row in house.client.history(event_types=["downloadFailed"], download_id=line.download_id)]
    assert [row.data["message"] for row in rows] == ["Manually marked as failed"]


async def test_a_removed_download_is_not_searched_again_when_nobody_wants_it(house: LidarrHouse) -> None:
    """A cancelled job must not come back."""
    await add(house, 1)
    line = (await house.client.queue())[0]

    assert await house.client.remove_from_queue(line.id, blocklist=True, skip_redownload=True)
    await house.lidarr.agenda.advance(3)

    assert [download.state for download in house.lidarr.downloads] == ["failed"]


async def test_a_download_of_several_albums_is_removed_once(house: LidarrHouse) -> None:
    """One deletion, one failure; asking again finds it gone."""
    first, second = await add(house, 2)
    albums = [album for album in house.lidarr.albums.values() if album.id in {first, second}]
    download = await house.lidarr.grab(albums, house.lidarr.releases(albums[0])[1])
    assert download.id is not None

    removed = [await house.client.remove_download(download.id, blocklist=True, skip_redownload=True) for _ in range(2)]

    assert removed == [True, False]
    assert [call.method for call in house.calls].count("DELETE") == 1
    assert [fact.download_id for fact in house.lidarr.records.facts if fact.kind == "failure"] == [download.id]


async def test_a_slow_answer_is_not_waited_for_again(house: LidarrHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty seconds three times would be longer than anybody has."""
    until = asyncio.Event()
    house.strike(Strike(kind="hold", until=until, times=9))

    with pytest.raises(LidarrError, match="no answer within"):
        await house.client.transport.read("/tag", seconds=0.05)
    until.set()

    assert house.weather.strikes[0].times == 8


async def test_the_history_since_a_moment_comes_in_order(house: LidarrHouse) -> None:
    """What a reconciler reads; the cursor is Lidarr's own time."""
    await add(house, 2)
    await house.lidarr.agenda.finish()

    rows = await house.client.history_since(BEGIN)
    grabs = await house.client.history_since(BEGIN, event_type="grabbed")

    assert [row.id for row in rows] == [row.id for row in house.lidarr.history]
    assert [row.event_type for row in grabs] == ["grabbed", "grabbed"]
    assert await house.client.history_since(rows[-1].date + timedelta(seconds=1)) == ()


async def test_the_history_in_pages_yields_each_row_once(house: LidarrHouse) -> None:
    """Newest first, while it grows at that end."""
    await add(house, 12)
    seen: list[int] = []
    async for row in house.client.history(page_size=5):
        if len(seen) == 5:
            await add(house, 1)
        seen.append(row.id)

    assert seen[:12] == list(range(12, 0, -1))


async def test_a_history_too_long_for_one_answer_comes_in_pages(
    house: LidarrHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the page on that the moment is in, oldest first; what comes in or goes out meanwhile hides no line."""
    for _ in range(23):
        await add(house, 1)
        await house.lidarr.agenda.advance(1.0)
    rows, history = list(house.lidarr.history), house.lidarr.history
    house.strike(Strike(path="/api/v1/history/since", status=413, body=b"{}", content_type="application/json"))
    pages = []
    async for page in house.client.history_from(rows[12].date, page_size=5):
        pages.append([row.id for row in page])
        if len(pages) == 1:
            await add(house, 1)
            del history[2:9]

    assert pages[0] == [11, 12, 13, 14, 15]
    seen = [number for page in pages for number in page]
    assert {row.id for row in rows[10:]} <= set(seen)
    assert seen[-1] == history[-1].id
    assert max(seen.count(number) for number in seen) <= 2


async def test_a_command_is_given_once_while_it_waits(house: LidarrHouse) -> None:
    """Lidarr answers with the one that waits."""
    ids = await add(house, 1)

    first = await house.client.start("AlbumSearch", albumIds=ids)
    second = await house.client.start("AlbumSearch", albumIds=ids)
    await house.lidarr.agenda.advance(3)
    ended = await house.client.command(first.id)

    assert first.id == second.id
    assert ended is not None
    assert (ended.is_over, ended.message) == (True, "Album search completed. 1 reports downloaded.")
    assert [release.approved for release in await house.client.releases(ids[0])] == [True, True]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_for_a_human(house: LidarrHouse, status: int) -> None:
    """It says where the key is, and does not say what was sent."""
    house.strike(Strike(status=status))

    with pytest.raises(ConfigurationError, match="Settings, General, Security") as refused:
        await house.client.status()

    assert KEY not in str(refused.value)
    assert len(house.calls) == 1


@pytest.mark.parametrize(
    ("strike", "remedy"),
    [
        (Strike(status=307, headers={"Location": "/lidarr/api/v1/system/status"}), "URL base"),
        (Strike(status=200, body=b"<!doctype html><title>Login</title>"), "not Lidarr's API"),
        (Strike(status=404, body=b"<h1>Not Found</h1>"), "not Lidarr's API"),
        (Strike(status=404), "URL base"),
        (Strike(status=200, body=b'{"appName":"Radarr"}', content_type="application/json"), "not Lidarr"),
    ],
)
async def test_a_wrong_address_is_for_a_human(house: LidarrHouse, strike: Strike, remedy: str) -> None:
    """No redirect is followed: the key would go along."""
    house.strike(strike)

    with pytest.raises(ConfigurationError, match=remedy):
        await house.client.status()

    assert len(house.calls) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_read_is_tried_again_where_that_may_help(house: LidarrHouse, status: int) -> None:
    """A restart of Lidarr is over in seconds; each try is counted."""
    before = calls("/system/status", str(status))
    house.strike(Strike(status=status, times=2))

    assert (await house.client.status()).app_name == "Lidarr"
    assert [call.status for call in house.calls] == [status, status, 200]
    assert calls("/system/status", str(status)) == before + 2


@pytest.mark.parametrize("kind", ["before", "after"])
async def test_a_read_whose_connection_breaks_is_tried_again(house: LidarrHouse, kind: str) -> None:
    """Reading twice changes nothing."""
    house.strike(Strike(kind="before" if kind == "before" else "after", times=2))

    assert (await house.client.status()).app_name == "Lidarr"


@pytest.mark.parametrize("strike", [Strike(status=503), Strike(kind="before"), Strike(kind="after")])
async def test_a_write_is_never_sent_twice(house: LidarrHouse, strike: Strike) -> None:
    """It may have happened: whoever called asks first."""
    house.strike(strike)

    with pytest.raises(IntegrationError) as failed:
        await house.client.start("AlbumSearch", albumIds=[1])

    assert failed.value.retryable
    assert len(house.calls) == 1


async def test_a_long_retry_after_is_passed_on(house: LidarrHouse) -> None:
    """Nobody waits a minute inside a call; the queue of effects does."""
    house.strike(Strike(status=429, headers={"Retry-After": "60"}))

    with pytest.raises(LidarrError) as failed:
        await house.client.status()

    assert failed.value.retry_after_seconds == 60
    assert len(house.calls) == 1


async def test_an_answer_that_does_not_come_is_a_timeout(house: LidarrHouse) -> None:
    """Bounded, counted, and worth another try later."""
    until = asyncio.Event()
    house.strike(Strike(kind="hold", until=until, times=9))
    before = calls("/system/status", "timeout")

    with pytest.raises(LidarrError, match="no answer within 0 s") as failed:
        await house.client.transport.call("GET", "/system/status", seconds=0.05)
    until.set()

    assert failed.value.retryable
    assert calls("/system/status", "timeout") == before + 1


async def test_nobody_at_the_address_may_heal(unused_tcp_port: int) -> None:
    """A container that is not up yet."""
    before = calls("/tag", "unreachable")
    async with session() as connections:
        client = Lidarr(f"http://127.0.0.1:{unused_tcp_port}", KEY, connections)
        with pytest.raises(LidarrError, match="cannot be reached") as failed:
            await client.transport.call("GET", "/tag")

    assert failed.value.retryable
    assert calls("/tag", "unreachable") == before + 1


async def test_an_endless_answer_is_not_read(house: LidarrHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on memory, whatever answers there."""
    monkeypatch.setattr(lidarr_http, "MAX_ANSWER_BYTES", 100)

    with pytest.raises(LidarrError, match="longer than") as failed:
        await house.client.status()

    assert not failed.value.retryable


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"appName":7}', b"\xff"])
async def test_an_answer_that_is_no_lidarr_s_is_said_so(house: LidarrHouse, body: bytes) -> None:
    """Never an error of the decoder."""
    house.strike(Strike(status=200, body=body, content_type="application/json"))

    with pytest.raises(LidarrError, match="does not fit"):
        await house.client.status()


async def test_no_secret_is_in_an_error_or_a_log_line(house: LidarrHouse) -> None:
    """Lidarr's own words may hold an indexer's key, or ours."""
    said = {
        "message": f"HTTP 401 at [http://bob:pw@prowlarr:9696/3/api?t=music&apikey=0123456789abcdef] key={KEY}",
        "description": "   at NzbDrone.Core.Secret()",
    }
    house.strike(Strike(status=500, body=msgspec.json.encode(said), content_type="application/json", times=9))

    with structlog.testing.capture_logs() as lines, pytest.raises(LidarrError) as failed:
        await house.client.status()

    told = f"{failed.value} {failed.value!r} {lines}"
    assert "http://prowlarr:9696" in told
    for secret in (KEY, "0123456789abcdef", "bob:pw", "NzbDrone.Core.Secret"):
        assert secret not in told


async def test_ids_do_not_become_labels(house: LidarrHouse) -> None:
    """A path with its number would be a time series per album."""
    before = calls("/album/{id}", "404")

    await house.client.album(4711)

    assert calls("/album/{id}", "404") == before + 1
    assert "/4711" not in prometheus_client.generate_latest().decode()


@pytest.mark.parametrize(
    ("kinds", "hidden"),
    [(("Album", ()), None), (("Single", ()), "Single"), (("Album", ("Live",)), "Live"), (("", ()), None)],
)
def test_a_metadata_profile_says_what_it_hides(kinds: tuple[str, tuple[str, ...]], hidden: str | None) -> None:
    """Albums without a second kind are of the kind Studio."""
    profile = msgspec.convert(
        {
            "primaryAlbumTypes": [
                {"albumType": {"name": "Album"}, "allowed": True},
                {"albumType": {"name": "Single"}, "allowed": False},
            ],
            "secondaryAlbumTypes": [
                {"albumType": {"name": "Studio"}, "allowed": True},
                {"albumType": {"name": "Live"}, "allowed": False},
            ],
        },
        MetadataProfile,
    )

    assert profile.hides(*kinds) == hidden
