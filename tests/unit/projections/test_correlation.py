"""Which job a fact is about: equal names, and nothing less."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given, strategies as st

from kima_stream.events import JobGrabbed, JobRequested
from projections import correlation
from projections.correlation import Album, derived_target, is_for, job_id, normalise
from projections.download_job import DownloadJob, LidarrAlbum, fold

MBID = UUID("0d9b7f3e-1c2d-4a5b-8e6f-7a8b9c0d1e2f")


def job(artist: str, album: str, mbid: UUID | None = None) -> DownloadJob:
    """A job that was asked for by these names."""
    wanted = Album(artist=artist, title=album, mbid=mbid)
    return fold(
        [
            JobRequested(
                job_id=job_id("ann", wanted.target), user_id="ann", artist=artist, album=album,
                target_mbid=wanted.target, target_is_derived=mbid is None, origin="user", correlation_id="trace",
            )
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Harbour Lights", "  the  HARBOUR lights "),
        ("Sgt. Pepper's", "Sgt Pepper\u2019s"),
        ("Straße", "STRASSE"),
        ("Ⅳ", "IV"),
        ("\uff26ull width", "full width"),
        ("AC/DC", "ac\u2010dc"),
        ("Björk", "Bjo\u0308rk"),
        ("zero\u200bwidth", "ZeroWidth"),
    ],
)
def test_what_people_type_differently_is_equal(one: str, other: str) -> None:
    """Case, width, composition, spaces and punctuation do not tell albums apart."""
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("IV", "IVory"),
        ("IV", "V"),
        ("Blue", "Blue (Deluxe)"),
        ("Blue", "Blue [Remastered]"),
        ("1+1", "11"),
        ("!!!", "???"),
        ("( )", "÷"),
        ("Björk", "Bjork"),
        ("Help", "Helpless"),
    ],
)
def test_what_means_something_else_is_not(one: str, other: str) -> None:
    """A part of a name is not the name, and a name of signs is a name."""
    assert normalise(one) != normalise(other)


@given(st.text())
def test_a_normal_name_is_normal(name: str) -> None:
    """Once is enough, and nothing but spaces and invisible signs becomes nothing."""
    assert normalise(normalise(name)) == normalise(name)
    assert normalise(f"  {name} ") == normalise(name)


@given(st.text(), st.text(), st.text(), st.text())
def test_artist_and_album_do_not_run_together(artist: str, album: str, other: str, title: str) -> None:
    """Targets are equal exactly when both names are."""
    equal = (normalise(artist), normalise(album)) == (normalise(other), normalise(title))

    assert (derived_target(artist, album) == derived_target(other, title)) is equal


@given(st.text(), st.uuids(), st.none() | st.uuids(), st.text(), st.uuids(), st.none() | st.uuids())
def test_each_user_target_and_batch_has_its_own_job(
    user: str, target: UUID, batch: UUID | None, other: str, aim: UUID, lot: UUID | None
) -> None:
    """The id is a function of the three, and of nothing less."""
    equal = (user, target, batch) == (other, aim, lot)

    assert (job_id(user, target, batch) == job_id(other, aim, lot)) is equal


def test_the_ids_never_change() -> None:
    """They name streams: another id would be another job."""
    assert str(derived_target("The Harbour Lights", "Tidewater")) == "ff30d1ca-fbfb-57f3-8e60-0a8893b228d8"
    assert str(job_id("ann", MBID)) == "b5fe9ac8-c6a1-509a-844b-4685887a742e"


def test_a_job_with_an_mbid_is_matched_by_it_alone() -> None:
    """Another release group of the same name is another album."""
    wanted = job("The Harbour Lights", "Tidewater", MBID)

    assert is_for(wanted, Album(artist="whoever", title="renamed", mbid=MBID))
    assert not is_for(wanted, Album(artist="The Harbour Lights", title="Tidewater", mbid=uuid4()))


def test_without_an_mbid_on_either_side_the_names_decide() -> None:
    """Equal names match, "IV" and "IVory" do not."""
    assert is_for(job("A", "IV"), Album(artist="a", title="iv", mbid=MBID))
    assert is_for(job("A", "IV", MBID), Album(artist="a", title="iv", mbid=None))
    assert not is_for(job("A", "IV"), Album(artist="A", title="IVory", mbid=None))
    assert not is_for(job("A", "IV"), Album(artist="B", title="IV", mbid=MBID))


def test_what_lidarr_called_it_once_is_enough() -> None:
    """An album whose MBID was merged away in MusicBrainz keeps its number in Lidarr."""
    wanted = fold([JobGrabbed(download_id="D", lidarr_instance="Lidarr", lidarr_album_id=317)], job("A", "B", MBID))

    assert is_for(wanted, Album(artist="A", title="B", mbid=uuid4(), lidarr=LidarrAlbum("Lidarr", 317)))
    assert not is_for(wanted, Album(artist="A", title="B", mbid=uuid4(), lidarr=LidarrAlbum("4K", 317)))


def test_a_name_can_be_kept_and_shown() -> None:
    """NUL and other control characters would break tables and terminals."""
    assert correlation.clean(" Tide\0water\x1b[31m \n II ") == "Tide water [31m II"
