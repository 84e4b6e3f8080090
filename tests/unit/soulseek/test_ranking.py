"""Whose album is taken, and what is not the album at all."""

from collections.abc import Sequence

import pytest

from kima_stream.integrations.soulseek import ranking
from kima_stream.integrations.soulseek.found import FoundFile


def album(
    folder: str, peer: str = "somebody", titles: Sequence[str] = ("One", "Two", "Three"), **over: object
) -> list[FoundFile]:
    """Return an album of a peer."""
    extension = str(over.pop("extension", "flac"))
    promise = {"size_bytes": 30_000_000, "has_free_slot": True, "speed_bytes_per_second": 1_000_000} | over
    return [
        FoundFile(peer=peer, path=f"{folder}\\{n:02} - {title}.{extension}", extension=extension, **promise)  # type: ignore[arg-type]
        for n, title in enumerate(titles, 1)
    ]


def peers(files: list[FoundFile], **over: object) -> list[str]:
    """Return whose folders are taken for Artist's Album, best first."""
    return [one.peer for one in ranking.rank_albums(files, **({"artist": "Artist", "album": "Album"} | over))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "folder",
    ["Artist - Album", "Artist\\Album", "music\\Artist\\2003 - Album [FLAC]", "The Artist - Album (Deluxe Edition)",
     "artist_-_album-WEB-2003", "x\\ARTIST\\(1999) Album {24bit 96kHz}"],
)  # fmt: skip
def test_the_ways_people_name_an_album(folder: str) -> None:
    """Case, signs, years, formats and editions beside it."""
    assert peers(album(folder)) == ["somebody"]


@pytest.mark.parametrize(
    "folder",
    ["Artist - Albums", "Artist - Album II", "Artist - Album Live", "Other - Album", "Artist - Another Album",
     "Artist - The Making of Album", "Artist", "Artist\\Albumish"],
)  # fmt: skip
def test_what_is_another_album(folder: str) -> None:
    """A word more, or a part of a word: "IV" is not "IVory"."""
    assert peers(album(folder)) == []


def test_discs_are_one_album() -> None:
    """Both discs' tracks, also where a title is on both."""
    files = album("Artist - Album\\CD1") + album("Artist - Album\\CD2", titles=("One", "Four"))

    (found,) = ranking.rank_albums(files, artist="Artist", album="Album")

    assert len(found.tracks) == 5
    assert found.folder == "Artist - Album"


def test_complete_before_quality_before_speed() -> None:
    """A slow FLAC of all tracks goes before a fast one of two, and before an MP3."""
    files = [
        *album("Artist - Album", "part", ("One", "Two"), speed_bytes_per_second=9_000_000),
        *album("Artist - Album", "mp3", extension="mp3", bitrate_kbps=320, speed_bytes_per_second=9_000_000),
        *album("Artist - Album", "slow", speed_bytes_per_second=100_000),
        *album("Artist - Album", "fast"),
    ]

    assert peers(files) == ["fast", "slow", "mp3", "part"]


def test_a_free_slot_counts_more_than_quality() -> None:
    """Who cannot send now may never."""
    files = album("Artist - Album", "busy", has_free_slot=False, queue_length=30) + album(
        "Artist - Album", "free", extension="mp3", bitrate_kbps=128
    )

    assert peers(files) == ["free", "busy"]


def test_blocked_peers_are_left_alone_and_alternatives_are_few() -> None:
    """One folder per peer, and an end of them."""
    files = [
        file for n in range(9) for file in album("Artist - Album", f"peer {n}") + album("Artist\\Album", f"peer {n}")
    ]

    assert len(peers(files)) == ranking.MAX_CANDIDATES
    assert "peer 0" not in peers(files, blocked={"peer 0"})


def test_known_tracks_decide_how_complete_a_folder_is() -> None:
    """Half of them at least; equal titles only, whatever stands before them."""
    files = [
        *album("Artist - Album", "whole", ("Artist - Album - 01 - One", "Two (feat. X)", "Three", "Four", "Bonus")),
        *album("Artist - Album", "half", ("One", "Two")),
        *album("Artist - Album", "wrong", ("Oneness", "Twofold", "Threesome", "Fourth")),
    ]

    assert peers(files, tracks=("One", "Two", "Three", "Four")) == ["whole", "half"]


def test_most_folders_tell_how_many_tracks_there_are() -> None:
    """A box of thirty is not the album of three."""
    files = [file for n in range(3) for file in album("Artist - Album", f"usual {n}")]
    files += album("Artist - Album", "box", [f"Song {n}" for n in range(30)], speed_bytes_per_second=9_000_000)

    assert peers(files)[-1] == "box"


def test_only_music_counts() -> None:
    """A cover and a log are no tracks."""
    files = album("Artist - Album") + album("Artist - Album", titles=("cover",), extension="jpg")

    (found,) = ranking.rank_albums(files, artist="Artist", album="Album")
    assert len(found.tracks) == 3


def test_a_track_is_found_by_its_title_and_artist() -> None:
    """Best first; a remix is another track."""
    files = [
        *album("Artist - Hits", "mp3", ("One",), extension="mp3", bitrate_kbps=320),
        *album("Artist - Album", "flac", ("One",)),
        *album("Artist - Album", "remix", ("One (Remix)",)),
        *album("Other - Album", "other", ("One",)),
    ]

    assert [file.peer for file in ranking.rank_tracks(files, artist="Artist", title="One")] == ["flac", "mp3"]


def test_what_would_fill_the_disk_is_no_album() -> None:
    """Hundreds of tracks, or one of a terabyte."""
    many = album("Artist - Album", titles=[f"Song {n}" for n in range(300)])
    huge = album("Artist - Album", titles=("One",), size_bytes=10**12)

    assert peers(many) == []
    assert peers(huge) == []
