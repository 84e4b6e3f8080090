"""What a search finds: one struct per file, and the bytes in which an answer is kept for others."""

from collections.abc import Sequence
from typing import Final

import msgspec

MAX_FILES: Final = 2_000  # of one answer: the first ones, whoever sends more

AUDIO: Final = frozenset({"flac", "mp3", "m4a", "ogg", "opus", "wav", "aac"})


class FoundFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A file that a peer offers; all of it is the peer's word.

    ``path`` is the peer's own, with its separators, and goes back to it as it is; it is never a path of ours.
    ``extension`` is lower case without a dot, taken from the name.
    """

    peer: str
    path: str
    size_bytes: int
    extension: str
    bitrate_kbps: int | None = None
    duration_seconds: int | None = None
    has_free_slot: bool = False
    speed_bytes_per_second: int = 0
    queue_length: int = 0

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.replace("/", "\\").rpartition("\\")[2]

    @property
    def folder(self) -> str:
        """Return the path without its last part."""
        return self.path.replace("/", "\\").rpartition("\\")[0]

    @property
    def is_audio(self) -> bool:
        """Say whether it is music, by its name."""
        return self.extension in AUDIO


def encode(files: Sequence[FoundFile]) -> bytes:
    """Return an answer as bytes."""
    return msgspec.msgpack.encode(files[:MAX_FILES])


def decode(answer: bytes) -> list[FoundFile]:
    """Return the files of an answer."""
    return msgspec.msgpack.decode(answer, type=list[FoundFile])
