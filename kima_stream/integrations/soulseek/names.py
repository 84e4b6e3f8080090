"""Names of peers and people made fit for our disk: pure. Nothing of theirs is ever a path.

Each part of a path of ours is one name, made here: no separators, no ``..``, no drive letters, no control
characters, nothing that Windows or a file server reserves, and no longer than a file system takes.
"""

import re
import unicodedata
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Final

MAX_BYTES: Final = 200  # of 255: a number or a mark may come to it
_MAX_EXTENSION_BYTES: Final = 12
_FORBIDDEN: Final = re.compile(r'[<>:"/\\|?*]')
_RESERVED: Final = re.compile(r"^(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(?:\.|$)", re.IGNORECASE)
_DISC: Final = re.compile(r"^(?:cd|disc|disk|disco|volume|vol\.?)[\s._-]*\d{1,2}\b.{0,40}$", re.IGNORECASE)


def safe(name: str, *, instead: str = "_") -> str:
    """Return ``name`` as one part of a path; ``instead`` when nothing of it can be kept."""
    text = unicodedata.normalize("NFC", name)
    text = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    text = " ".join(_FORBIDDEN.sub("_", text).split()).strip(" .")
    if not text.strip("_"):
        return instead
    if _RESERVED.match(text):
        text = f"_{text}"
    return _cut(text)


def _cut(text: str) -> str:
    """Return ``text`` cut to what fits, its extension kept; cut names stay different from each other."""
    if len(text.encode()) <= MAX_BYTES:
        return text
    stem, dot, extension = text.rpartition(".")
    if not dot or len(extension.encode()) > _MAX_EXTENSION_BYTES:
        stem, extension = text, ""
    mark = sha256(text.encode()).hexdigest()[:8]
    room = MAX_BYTES - len(mark) - 1 - len(extension.encode()) - len(dot)
    head = stem.encode()[:room].decode(errors="ignore").rstrip(" .")
    return f"{head}~{mark}{'.' if extension else ''}{extension}"


def album_folder(artist: str, album: str) -> PurePosixPath:
    """Return where an album goes, below the library's folder."""
    return PurePosixPath(safe(artist, instead="Unknown Artist"), safe(album, instead="Unknown Album"))


def disc(folder: str) -> str:
    """Return the name of the disc if the last part of a peer's folder is one, else nothing."""
    last = folder.replace("/", "\\").rstrip("\\").rpartition("\\")[2]
    return safe(last) if _DISC.match(last) else ""


def numbered(name: str, number: int) -> str:
    """Return ``name`` as the ``number``-th of that name: ``song (2).flac``."""
    stem, dot, extension = name.rpartition(".")
    return f"{stem} ({number}){dot}{extension}" if dot else f"{name} ({number})"


def partial(name: str, *, peer: str, path: str, size_bytes: int) -> str:
    """Return the name under which a file grows: hidden, and of this peer's file alone."""
    mark = sha256("\0".join((name, peer, path, str(size_bytes))).encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f".{mark}{PARTIAL}"


PARTIAL: Final = ".kima-part"
