"""Files on our disk: they grow under a hidden name beside their place, and get there whole, checked and synced.

All of it blocks: call it in a thread. What fails here is our disk's fault, never a peer's.

A partial file is adopted by copying it: a paused process of an earlier owner may still write into the old one,
and two writers would spoil it. A file at its final name is never replaced: it may be somebody else's.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final

from kima_stream.errors import KimaStreamError
from kima_stream.integrations.soulseek import names
from kima_stream.integrations.soulseek.found import AUDIO, FoundFile

RESERVE_BYTES: Final = 64_000_000  # left free on the disk, for its other users
MAX_NUMBER: Final = 9
_PROBE_BYTES: Final = 1_048_576


class DiskError(KimaStreamError):
    """Our own disk fails or is full; a human must look. ``reason`` is for people."""

    def __init__(self, reason: str) -> None:
        """Say what failed, without a path of the machine."""
        super().__init__(f"disk: {reason}")
        self.reason = reason


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(f"the library's folder: {os.strerror(error.errno or 0)}") from error


def find_complete(root: Path, relative: PurePosixPath, size_bytes: int) -> PurePosixPath | None:
    """Return where the file is already, of that size, under its name or one that was numbered."""
    for candidate in _places(relative):
        try:
            found = (root / candidate).lstat()
        except OSError:
            return None  # a name that is free: none after it was given
        if stat.S_ISREG(found.st_mode) and found.st_size == size_bytes:
            return candidate
    return None


def find_audio(folder: Path) -> list[str]:
    """Return the names of the music files in a folder and its discs, relative to it."""
    with suppress(OSError):
        folders = [folder, *(disc for disc in folder.iterdir() if names.disc(disc.name))]
        return [
            file.relative_to(folder).as_posix()
            for inside in folders
            for file in inside.iterdir()
            if file.suffix[1:].lower() in AUDIO and not file.name.startswith(".") and file.is_file()
        ]
    return []


def adopt(root: Path, relative: PurePosixPath, wanted: FoundFile) -> Path:
    """Return the partial file of ``wanted``, ours alone, beside its place below ``root``.

    Raises:
        DiskError: it cannot be made, or the rest does not fit on the disk.
    """
    with _ours():
        if not root.is_dir():
            raise DiskError("the library's folder is not there")
        folder = (root / relative).parent
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(root.resolve()):
            raise DiskError("a link leads out of the library's folder")
        name = names.partial(relative.name, peer=wanted.peer, path=wanted.path, size_bytes=wanted.size_bytes)
        partial = folder / name
        have = _take_over(partial, wanted.size_bytes)
        if shutil.disk_usage(folder).free < wanted.size_bytes - have + RESERVE_BYTES:
            raise DiskError("no space left for this file")
        return partial


def _take_over(partial: Path, size_bytes: int) -> int:
    """Leave a partial file that nobody else has open; return its size. What cannot be a beginning goes."""
    with suppress(FileNotFoundError):
        found = partial.lstat()
        if stat.S_ISREG(found.st_mode) and 0 < found.st_size <= size_bytes:
            fresh = partial.with_name(f"{partial.name}.new")
            shutil.copyfile(partial, fresh)
            fresh.replace(partial)
            return partial.stat().st_size
        partial.unlink()
    return 0


def size_of(partial: Path) -> int:
    """Return how much is there, 0 of what is not."""
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0


def keep(root: Path, relative: PurePosixPath, partial: Path) -> PurePosixPath:
    """Put a finished file in its place, synced, in one step; return the place, numbered if the name was taken.

    Raises:
        DiskError: it cannot be put there.
    """
    with _ours():
        _sync(partial)
        size_bytes = partial.stat().st_size
        for candidate in _places(relative):
            target = root / candidate
            if _put(partial, target, size_bytes):
                partial.unlink(missing_ok=True)
                _sync(target.parent)
                return candidate
    raise DiskError("there are too many files of one name")


def _put(partial: Path, target: Path, size_bytes: int) -> bool:
    """Give ``partial`` its name; True as well when the same file is there already, False when another one is."""
    try:
        os.link(partial, target, follow_symlinks=False)  # fails if the name is taken, unlike a rename
    except FileExistsError:
        found = target.lstat()
        return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes
    except OSError:  # a file system without links
        if os.path.lexists(target):
            return False
        partial.rename(target)
    return True


def discard(partial: Path) -> None:
    """Remove a partial file."""
    with _ours():
        partial.unlink(missing_ok=True)


def discard_all(folder: Path) -> None:
    """Remove what was left of an album that is complete: the partial files of peers that gave up."""
    with suppress(OSError):
        for file in [*folder.glob(f".*{names.PARTIAL}*"), *folder.glob(f"*/.*{names.PARTIAL}*")]:
            file.unlink(missing_ok=True)


def check_writable(partial: Path, size_bytes: int) -> None:
    """Write what would come next, and take it back: whether it is the disk that fails.

    Raises:
        DiskError: it is.
    """
    with _ours(), partial.open("ab") as file:
        end = file.tell()
        try:
            file.write(bytes(max(1, min(_PROBE_BYTES, size_bytes - end))))
            file.flush()
            os.fsync(file.fileno())
        finally:
            file.truncate(end)


def _places(relative: PurePosixPath) -> Iterator[PurePosixPath]:
    yield relative
    for number in range(2, MAX_NUMBER + 1):
        yield relative.with_name(names.numbered(relative.name, number))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
