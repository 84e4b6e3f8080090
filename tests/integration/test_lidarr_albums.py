"""An album in Lidarr, and a search for it, whatever goes wrong in between: one artist, one album, one search."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import stamina

from kima_stream.errors import ConfigurationError
from kima_stream.integrations import lidarr_albums, lidarr_searches
from kima_stream.integrations.lidarr_albums import (
    AddedAlbum,
    Choice,
    HiddenAlbumError,
    NotFoundAtLidarrError,
    Wanted,
    ensure_album,
)
from kima_stream.integrations.lidarr_http import LidarrError
from kima_stream.integrations.lidarr_searches import Searched, search_album
from kima_stream.simulator.catalogue import Catalogue, KnownAlbum, KnownArtist, invent
from kima_stream.simulator.lidarr import Luck
from kima_stream.simulator.weather import Strike
from tests import lidarr
from tests.lidarr import LidarrHouse


@pytest.fixture(autouse=True)
def no_second_try() -> Iterator[None]:
    """Let a read that fails be a failure, so that each break counts."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
async def house() -> AsyncIterator[LidarrHouse]:
    """Run a Lidarr that knows 30 albums and has none."""
    async with lidarr.opened(luck=Luck(ends=0)) as found:
        yield found


def wanted(house: LidarrHouse, number: int = 0, *, with_mbid: bool = True) -> Wanted:
    """Return an album of the catalogue as somebody asks for it."""
    known = house.lidarr.catalogue.albums[number]
    artist = house.lidarr.catalogue.artist_of(known)
    return Wanted(artist=artist.name, title=known.title, mbid=str(known.mbid) if with_mbid else None)


async def ensure(house: LidarrHouse, what: Wanted, *, choice: Choice | None = None) -> AddedAlbum:
    """Ensure it, comparing names as they are."""
    return await ensure_album(
        house.client,
        what,
        lambda artist, title: (artist.lower(), title.lower()) == (what.artist.lower(), what.title.lower()),
        choice=choice,
        pause=house.pause,
    )


def monitored(house: LidarrHouse) -> list[str]:
    """Return the albums that Lidarr looks for."""
    return [str(album.known.mbid) for album in house.lidarr.albums.values() if album.monitored]


async def test_an_album_of_a_new_artist_is_added_and_is_all_that_is_monitored(house: LidarrHouse) -> None:
    """The artist's other albums appear, and nobody looks for them."""
    what = wanted(house)

    added = await ensure(house, what)

    known = house.lidarr.catalogue.albums[0]
    assert added.mbid == what.mbid
    assert (added.instance, added.tracks_total, added.tracks_present) == ("Lidarr", len(known.tracks), 0)
    assert monitored(house) == [what.mbid]
    assert len(house.lidarr.albums) == len(house.lidarr.catalogue.artist_of(known).albums)
    assert len(house.happened("POST", "/artist")) == 1
    assert house.happened("POST", "/album") == house.happened("POST", "/command") == []


async def test_an_album_that_is_there_costs_no_lookup_and_no_change(house: LidarrHouse) -> None:
    """A repeated request asks Lidarr, and its metadata server is left alone."""
    first = await ensure(house, wanted(house))
    before = len(house.calls)

    assert await ensure(house, wanted(house)) == first
    assert {call.method for call in house.calls[before:]} == {"GET"}
    assert not any(call.path.endswith("lookup") for call in house.calls[before:])


async def test_files_that_are_there_are_counted(house: LidarrHouse) -> None:
    """A job for an album that is complete has nothing to do."""
    added = await ensure(house, wanted(house))
    album = next(iter(each for each in house.lidarr.albums.values() if each.id == added.album_id))
    await house.lidarr.import_album(album, [0, 1], download=None)

    assert (await ensure(house, wanted(house))).tracks_present == 2


async def test_a_second_album_of_an_artist_adds_no_artist(house: LidarrHouse) -> None:
    """It is monitored beside the first one."""
    artist = max(house.lidarr.catalogue._artists.values(), key=lambda each: len(each.albums))
    both = [Wanted(artist=artist.name, title=album.title, mbid=str(album.mbid)) for album in artist.albums[:2]]

    for what in both:
        await ensure(house, what)

    assert sorted(monitored(house)) == sorted(str(album.mbid) for album in artist.albums[:2])
    assert len(house.happened("POST", "/artist")) == 1


@pytest.mark.parametrize("same", [True, False])
async def test_two_who_want_it_at_once_add_one_artist(house: LidarrHouse, same: bool) -> None:
    """The loser hears that it has already been added, and goes on."""
    artist = max(house.lidarr.catalogue._artists.values(), key=lambda each: len(each.albums))
    albums = [artist.albums[0], artist.albums[0 if same else 1]]
    asked = [Wanted(artist=artist.name, title=album.title, mbid=str(album.mbid)) for album in albums]

    added = await asyncio.gather(*(ensure(house, what) for what in asked))

    assert [each.mbid for each in added] == [str(album.mbid) for album in albums]
    assert len(house.happened("POST", "/artist")) == 1
    assert set(monitored(house)) == {str(album.mbid) for album in albums}


async def test_without_an_mbid_names_decide(house: LidarrHouse) -> None:
    """Of all that the lookup finds, the one that the rule says is the same."""
    assert (await ensure(house, wanted(house, with_mbid=False))).mbid == wanted(house).mbid


async def test_a_part_of_a_name_is_not_the_name(house: LidarrHouse) -> None:
    """The letters of "IV" are in "IVory"; nothing is added."""
    what = wanted(house, with_mbid=False)

    with pytest.raises(NotFoundAtLidarrError, match="give the album's MBID"):
        await ensure(house, msgspec.structs.replace(what, title=what.title[:-2]))

    assert house.lidarr.artists == {}


async def test_an_unknown_mbid_is_said_so(house: LidarrHouse) -> None:
    """And is no reason to try again."""
    with pytest.raises(NotFoundAtLidarrError, match="00000000-0000-4000-8000-000000000000") as refused:
        await ensure(house, Wanted(artist="Nobody", title="Nothing", mbid="00000000-0000-4000-8000-000000000000"))

    assert not refused.value.retryable


def with_a_single() -> tuple[Catalogue, KnownArtist, KnownAlbum]:
    """Return a catalogue of one artist whose second album is a single."""
    known = max(invent(random.Random(3), 30)._artists.values(), key=lambda each: len(each.albums))
    single = msgspec.structs.replace(known.albums[1], album_type="Single")
    artist = msgspec.structs.replace(known, albums=(known.albums[0], single, *known.albums[2:]))
    return Catalogue((artist,)), artist, single


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_album_that_the_metadata_profile_hides_is_refused_before_anything_is_added(is_there: bool) -> None:
    """It would be added and vanish: the profile and the kind are named, for a human to decide."""
    catalogue, artist, single = with_a_single()
    async with lidarr.opened(catalogue=catalogue) as house:
        if is_there:
            await ensure(house, Wanted(artist=artist.name, title="", mbid=str(artist.albums[0].mbid)))
        before = set(house.lidarr.artists)

        with pytest.raises(HiddenAlbumError, match="'Albums only' hides albums of the kind Single") as refused:
            await ensure(house, Wanted(artist=artist.name, title=single.title, mbid=str(single.mbid)))

        assert not refused.value.retryable
        assert set(house.lidarr.artists) == before


async def test_an_album_newer_than_the_artist_s_last_refresh_is_added_alone(house: LidarrHouse) -> None:
    """No refresh of a whole discography for one album."""
    what = wanted(house)
    known = house.lidarr.catalogue.albums[0]
    await house.lidarr.add_artist(house.lidarr.catalogue.artist_of(known))
    await house.lidarr.agenda.advance(5)
    del house.lidarr.albums[known.mbid]

    added = await ensure(house, what)

    assert added.mbid == what.mbid
    assert len(house.happened("POST", "/album")) == 1
    assert house.happened("POST", "/artist") == []
    assert monitored(house) == [what.mbid]


async def test_a_slow_refresh_is_waited_for_and_then_comes_back_later(
    house: LidarrHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a failure nor a second artist."""
    monkeypatch.setattr(lidarr_albums, "REFRESH_SECONDS", 20.0)
    house.lidarr.refresh_seconds = 30.0

    with pytest.raises(LidarrError, match="still refreshing") as late:
        await ensure(house, wanted(house))
    added = await ensure(house, wanted(house))

    assert late.value.retryable
    assert added.mbid == wanted(house).mbid
    assert len(house.happened("POST", "/artist")) == 1
    assert monitored(house) == [added.mbid]


async def test_the_end_of_a_refresh_does_not_take_back_what_was_monitored(house: LidarrHouse) -> None:
    """Somebody has just added artist and album by hand: what he chose is set when the refresh ends, then ours."""
    known = house.lidarr.catalogue.albums[0]
    artist = await house.lidarr.add_artist(house.lidarr.catalogue.artist_of(known), to_monitor=frozenset())
    house.lidarr.add_album(known, artist)

    await ensure(house, wanted(house))
    await house.lidarr.agenda.finish()

    assert monitored(house) == [str(known.mbid)]


async def test_a_profile_that_lidarr_does_not_have_is_for_a_human(house: LidarrHouse) -> None:
    """The setting is named, and what there is."""
    with pytest.raises(ConfigurationError, match="lidarrQualityProfileId: Lidarr has no profile 7; it has 1"):
        await ensure(house, wanted(house), choice=Choice(quality_profile_id=7))


async def test_a_lidarr_without_a_root_folder_is_for_a_human(house: LidarrHouse) -> None:
    """A fresh Lidarr: nothing can be added anywhere."""
    house.strike(Strike(path="/api/v1/rootfolder", status=200, body=b"[]", content_type="application/json"))

    with pytest.raises(ConfigurationError, match="root folder"):
        await ensure(house, wanted(house))


async def until_done(house: LidarrHouse, what: Wanted, breaks: list[tuple[int, str]]) -> AddedAlbum:
    """Ensure the album, broken at the given calls, each time begun anew, until it is done."""
    for number, kind in breaks:
        await broken(house, ensure(house, what), number, kind)
    return await ensure(house, what)


async def broken(house: LidarrHouse, doing: Coroutine[Any, Any, object], number: int, kind: str) -> None:
    """Begin, and break at call ``number``: before it happened, after it, or by a death while it was on its way."""
    skip = Strike(kind="hold", times=number)  # holds nobody: only counts
    death = asyncio.Event()
    house.weather.strikes[:] = [skip]
    if kind == "death":
        house.strike(Strike(kind="hold", until=death))
    else:
        house.strike(Strike(kind="before" if kind == "before" else "after"))
    work = asyncio.create_task(doing)
    while not work.done() and house.weather.strikes[-1].times:  # noqa: ASYNC110 - the house has no event for it
        await asyncio.sleep(0)
    if kind == "death":
        work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    death.set()  # what was on its way arrives all the same, later
    house.weather.strikes.clear()


def judge(house: LidarrHouse, added: AddedAlbum, what: Wanted) -> None:
    """Hold the records of Lidarr against what was asked for."""
    assert added.mbid == what.mbid
    assert len(house.lidarr.artists) == 1
    assert len(house.happened("POST", "/artist")) == 1
    assert house.happened("POST", "/album") == house.happened("POST", "/command") == []
    assert monitored(house) == [what.mbid]


@pytest.mark.parametrize("kind", ["before", "after", "death"])
async def test_a_break_at_any_call_is_mended_by_doing_it_again(kind: str) -> None:
    """Each call in turn: one artist, one album, in every case."""
    async with lidarr.opened() as whole:
        await ensure(whole, wanted(whole))
        count = len(whole.calls)

    for number in range(count):
        async with lidarr.opened() as house:
            added = await until_done(house, wanted(house), [(number, kind)])
            judge(house, added, wanted(house))
    assert count > 10


async def test_many_breaks_are_mended_too(rng: random.Random, scaled: Callable[[int], int]) -> None:
    """Broken again and again, anywhere, while Lidarr's clock goes on."""
    for _ in range(scaled(300)):
        breaks = [(rng.randrange(16), rng.choice(["before", "after", "death"])) for _ in range(rng.randint(1, 5))]
        async with lidarr.opened() as house:
            house.lidarr.refresh_seconds = rng.choice([0.2, 1.0, 7.0])
            added = await until_done(house, wanted(house), breaks)
            judge(house, added, wanted(house))


async def search(house: LidarrHouse, album_id: int, since: datetime) -> Searched:
    """Search, letting Lidarr's clock go on."""
    return await search_album(house.client, album_id, since, pause=house.pause)


async def test_a_search_is_followed_to_its_end(house: LidarrHouse) -> None:
    """One command, and what it found."""
    added = await ensure(house, wanted(house))

    assert await search(house, added.album_id, datetime.now(UTC)) == Searched(found=1)
    assert len(house.happened("POST", "/command")) == 1


async def test_a_search_in_vain_found_nothing(house: LidarrHouse) -> None:
    """Nothing, said for sure, sends a job to its next source."""
    house.lidarr.luck = Luck(finds=0)
    added = await ensure(house, wanted(house))

    assert await search(house, added.album_id, datetime.now(UTC)) == Searched(found=0)


async def test_what_waits_in_the_queue_counts_as_found(house: LidarrHouse) -> None:
    """A search grabs nothing more when something is on its way."""
    added = await ensure(house, wanted(house))
    album = next(each for each in house.lidarr.albums.values() if each.id == added.album_id)
    await house.lidarr.grab([album], house.lidarr.releases(album)[0])
    house.lidarr.luck = Luck(finds=0)

    assert await search(house, added.album_id, datetime.now(UTC)) == Searched(found=1)


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_search_that_was_begun_is_not_begun_again(house: LidarrHouse, forgotten: bool) -> None:
    """Whether the command is still known or only the album remembers; Lidarr's clock may be any year."""
    added = await ensure(house, wanted(house))
    since = datetime.now(UTC) - timedelta(seconds=5 if forgotten else 0)  # as much as Lidarr's clock will be moved
    await house.client.start("AlbumSearch", albumIds=[added.album_id])
    if forgotten:
        await house.lidarr.agenda.advance(5)
        house.lidarr.commands.forget()

    assert await search(house, added.album_id, since) == Searched(found=1)
    assert len(house.happened("POST", "/command")) == 1


@pytest.mark.parametrize("kind", ["before", "after", "death"])
async def test_a_search_broken_at_any_call_is_one_search(kind: str) -> None:
    """Each call in turn, then again: Lidarr was told once."""
    number, count = 0, 1
    while number < count:
        async with lidarr.opened(luck=Luck(ends=0), shares_clock=True) as house:
            added = await ensure(house, wanted(house))
            since, before = house.lidarr.agenda.now, len(house.calls)
            await broken(house, search(house, added.album_id, since), number, kind)
            found = await search(house, added.album_id, since)
            names = [command.name for command in house.lidarr.commands.all()]
            assert (found, names.count("AlbumSearch")) == (Searched(found=1), 1), number
            # What was on its way at a death may arrive after we have asked, and then Lidarr takes two for one.
            assert kind == "death" or len(house.happened("POST", "/command")) == 1, number
            number, count = number + 1, max(count, len(house.calls) - before - number)
    assert count > 5


async def test_an_older_search_does_not_count(house: LidarrHouse) -> None:
    """The next attempt of a job searches anew."""
    added = await ensure(house, wanted(house))
    await house.client.start("AlbumSearch", albumIds=[added.album_id])
    await house.lidarr.agenda.advance(3600)

    await search(house, added.album_id, datetime.now(UTC))

    assert len(house.happened("POST", "/command")) == 2


async def test_a_search_that_lidarr_broke_off_is_begun_again(house: LidarrHouse) -> None:
    """A restart of Lidarr in the middle: retryable, and the next try is a new command."""
    added = await ensure(house, wanted(house))
    since = datetime.now(UTC)

    async def restart(seconds: float) -> None:
        house.lidarr.commands.break_off("orphaned")

    with pytest.raises(LidarrError, match="broke the search off") as broken_off:
        await search_album(house.client, added.album_id, since, pause=restart)
    found = await search(house, added.album_id, since)

    assert broken_off.value.retryable
    assert found == Searched(found=1)


async def test_an_endless_search_is_not_waited_for(house: LidarrHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded; coming back follows the same command."""
    monkeypatch.setattr(lidarr_searches, "SEARCH_SECONDS", 1.0)
    added = await ensure(house, wanted(house))
    since = datetime.now(UTC)

    with pytest.raises(LidarrError, match="still searching") as late:
        await search(house, added.album_id, since)
    monkeypatch.undo()
    found = await search(house, added.album_id, since)

    assert late.value.retryable
    assert (found, len(house.happened("POST", "/command"))) == (Searched(found=1), 1)


async def test_an_album_that_left_the_library_cannot_be_searched(house: LidarrHouse) -> None:
    """Somebody deleted it in between."""
    with pytest.raises(NotFoundAtLidarrError, match="not in the library any more"):
        await search(house, 99, datetime.now(UTC) - timedelta(hours=1))
