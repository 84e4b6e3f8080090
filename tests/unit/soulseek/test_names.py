"""Names of peers are never paths of ours."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given, strategies as st

from kima_stream.integrations.soulseek import names
from kima_stream.integrations.soulseek.found import FoundFile

HOSTILE = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["..", ".", "\\", "/", "C:", "NUL", "con", "a", "\x00", " ", ".flac", "\u202e"])).map(
        "".join
    ),
)


@given(name=HOSTILE)
def test_whatever_a_peer_calls_it_it_is_one_name(name: str) -> None:
    """No separator, no parent, no drive, no control character, nothing reserved, not too long, not hidden."""
    safe = names.safe(name)

    assert PurePosixPath(safe).parts == (safe,)
    assert safe not in {".", ".."}
    assert not any(sign in safe for sign in '<>:"/\\|?*\x00')
    assert safe.isprintable() or any(not letter.isprintable() for letter in name)
    assert len(safe.encode()) <= 255
    assert not safe.startswith((".", " "))
    assert not safe.endswith((".", " "))
    assert safe.split(".")[0].lower() not in {"con", "nul", "aux", "prn", "com1", "lpt9"}
    assert names.safe(safe) == safe


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("share\\..\\..\\etc\\passwd.flac", "passwd.flac"),
        ("C:\\Music\\01 - Song.flac", "01 - Song.flac"),
        ("/etc/cron.d/evil.mp3", "evil.mp3"),
        ("share\\NUL.flac", "_NUL.flac"),
        ("share\\..", "_"),
        ("share\\a:b?.mp3", "a_b_.mp3"),
        ("share\\.hidden.mp3", "hidden.mp3"),
    ],
)
def test_of_a_path_the_last_name_counts(path: str, expected: str) -> None:
    """Both separators part it."""
    assert names.safe(FoundFile(peer="p", path=path, size_bytes=1, extension="").name) == expected


def test_a_long_name_keeps_its_extension_and_stays_itself() -> None:
    """Cut names that differ at their ends stay different."""
    one, two = (names.safe("\u00e9" * 300 + end + ".flac") for end in ("1", "2"))

    assert one.endswith(".flac")
    assert one != two
    assert len(one.encode()) <= names.MAX_BYTES


def test_an_album_goes_below_its_artist() -> None:
    """Also when the names are none."""
    assert names.album_folder("AC/DC", "..") == PurePosixPath("AC_DC/Unknown Album")


@pytest.mark.parametrize("folder", ["x\\CD1", "x\\Disc 2", "x\\cd_03", "x\\CD 1 - The Hits"])
def test_a_disc_is_seen(folder: str) -> None:
    """A folder within an album's."""
    assert names.disc(folder)


@pytest.mark.parametrize("folder", ["x\\Discovery", "x\\Cdk", "x\\Album", ""])
def test_what_is_no_disc_is_none(folder: str) -> None:
    """An album whose name begins alike."""
    assert not names.disc(folder)


def test_a_partial_file_is_of_one_peers_file_alone() -> None:
    """Bytes of two peers never end in one file."""
    made = {
        names.partial("song.flac", peer=peer, path=path, size_bytes=size)
        for peer in ("a", "b")
        for path in ("x", "y")
        for size in (1, 2)
    }

    assert len(made) == 8
    assert all(name.startswith(".") and name.endswith(names.PARTIAL) for name in made)
