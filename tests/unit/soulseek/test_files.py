"""Files on our disk: whole or not there, ours or left alone."""

from pathlib import Path, PurePosixPath

import pytest

from kima_stream.integrations.soulseek import files, names
from kima_stream.integrations.soulseek.files import DiskError
from kima_stream.integrations.soulseek.found import FoundFile

PLACE = PurePosixPath("Artist/Album/01 Song.flac")
SONG = FoundFile(peer="peer", path="x\\01 Song.flac", size_bytes=10, extension="flac")


def test_what_a_paused_process_still_writes_spoils_nothing(tmp_path: Path) -> None:
    """It wakes up after another one took over and goes on writing into the file that it has open."""
    partial = files.adopt(tmp_path, PLACE, SONG)
    with partial.open("ab") as paused:
        paused.write(b"12345")
        paused.flush()
        again = files.adopt(tmp_path, PLACE, SONG)
        with again.open("ab") as file:
            file.write(b"67890")
        paused.write(b"?????")
        paused.flush()

    assert again == partial
    assert partial.read_bytes() == b"1234567890"


def test_a_finished_file_gets_its_name_in_one_step(tmp_path: Path) -> None:
    """And leaves nothing behind; the same again is there already."""
    partial = files.adopt(tmp_path, PLACE, SONG)
    partial.write_bytes(b"1234567890")

    assert files.find_complete(tmp_path, PLACE, 10) is None
    assert files.keep(tmp_path, PLACE, partial) == PLACE
    assert files.find_complete(tmp_path, PLACE, 10) == PLACE
    assert [path.name for path in (tmp_path / PLACE).parent.iterdir()] == ["01 Song.flac"]


def test_a_crash_between_the_two_halves_of_a_step_is_mended(tmp_path: Path) -> None:
    """The file has both names: its place is found, and the other name goes with the next sweep of the folder."""
    partial = files.adopt(tmp_path, PLACE, SONG)
    partial.write_bytes(b"1234567890")
    (tmp_path / PLACE).hardlink_to(partial)

    assert files.find_complete(tmp_path, PLACE, 10) == PLACE
    files.discard_all((tmp_path / PLACE).parent)
    assert [path.name for path in (tmp_path / PLACE).parent.iterdir()] == ["01 Song.flac"]


def test_a_file_system_without_links_gets_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network share: still in one step, still replacing nothing."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    partial = files.adopt(tmp_path, PLACE, SONG)
    partial.write_bytes(b"1234567890")
    (tmp_path / PLACE).write_bytes(b"theirs")

    assert files.keep(tmp_path, PLACE, partial) == PurePosixPath("Artist/Album/01 Song (2).flac")
    assert (tmp_path / PLACE).read_bytes() == b"theirs"


@pytest.mark.parametrize("made", ["link", "longer", "folder"])
def test_what_cannot_be_a_beginning_of_it_is_not_gone_on_with(tmp_path: Path, made: str) -> None:
    """A link to elsewhere, more bytes than the file has; a folder in its way is our disk's fault."""
    folder = (tmp_path / PLACE).parent
    folder.mkdir(parents=True)
    partial = folder / names.partial(PLACE.name, peer=SONG.peer, path=SONG.path, size_bytes=10)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"precious")
    match made:
        case "link":
            partial.symlink_to(elsewhere)
        case "longer":
            partial.write_bytes(b"12345678901")
        case _:
            partial.mkdir()
            with pytest.raises(DiskError):
                files.adopt(tmp_path, PLACE, SONG)
            return

    assert files.size_of(files.adopt(tmp_path, PLACE, SONG)) == 0
    assert elsewhere.read_bytes() == b"precious"


def test_a_file_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    """The disk keeps room for its other users."""
    with pytest.raises(DiskError, match="no space"):
        files.adopt(tmp_path, PLACE, FoundFile(peer="p", path="x", size_bytes=2**60, extension="flac"))


def test_music_of_a_folder_and_its_discs_is_found_and_nothing_else(tmp_path: Path) -> None:
    """Partial files, covers and other folders are no tracks."""
    for name in ("01 A.flac", "CD1/01 B.mp3", "cover.jpg", ".x.kima-part", "Scans/02 C.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    assert sorted(files.find_audio(tmp_path)) == ["01 A.flac", "CD1/01 B.mp3"]
    assert files.find_audio(tmp_path / "missing") == []
