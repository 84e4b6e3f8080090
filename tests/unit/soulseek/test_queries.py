"""What is searched for: pure words in, a few queries out."""

import pytest
from hypothesis import given, strategies as st

from kima_stream.integrations.soulseek import queries


@pytest.mark.parametrize(
    ("artist", "album", "expected"),
    [
        ("The Beatles", "Abbey Road", ("beatles abbey road", "abbey road")),
        ("The The", "Soul Mining", ("the the soul mining", "soul mining")),
        ("Simon & Garfunkel", "Bookends", ("simon and garfunkel bookends", "bookends")),
        ("Various Artists", "Trainspotting", ("trainspotting",)),
        ("Sigur Rós", "( )", ("sigur rós",)),
        ("AC/DC", "Back in Black (Deluxe Edition)",
         ("ac dc back in black", "ac dc back in black deluxe edition", "back in black")),
    ],
)  # fmt: skip
def test_an_album_is_asked_for_from_exact_to_loose(artist: str, album: str, expected: tuple[str, ...]) -> None:
    """Editions go, articles go, signs become plain."""
    assert queries.album_queries(artist, album) == expected


def test_a_track_is_asked_for_in_five_ways_each_once() -> None:
    """Artist and title loose, less loose, the title alone, with the album, with both."""
    asked = queries.track_queries("The Band", "Song (Live) feat. Somebody", "Album")

    assert asked == ("band song", "band song live", "song", "album song", "band album song")


def test_what_classical_music_adds_goes() -> None:
    """Catalogue numbers and keys are in few file names."""
    assert queries.track_queries("Bach", "Cello Suite in G major, BWV 1007")[0] == "bach cello suite"


def test_equal_queries_are_one() -> None:
    """So that the gate lets them through once."""
    assert queries.normalised("  Abbey\u2019s  ROAD ") == queries.normalised("abbey's road")
    assert queries.normalised("-minus plus") == "minus plus"  # a minus would exclude the word


@given(artist=st.text(max_size=60), album=st.text(max_size=60))
def test_whatever_the_names_a_query_can_be_sent(artist: str, album: str) -> None:
    """No control characters, neither too short nor too long, no word that excludes."""
    for query in (*queries.album_queries(artist, album), *queries.track_queries(artist, album, artist)):
        assert queries.MIN_CHARACTERS <= len(query) <= queries.MAX_CHARACTERS
        assert query.isprintable()
        assert not any(word.startswith("-") for word in query.split())
        assert queries.normalised(query) == query
