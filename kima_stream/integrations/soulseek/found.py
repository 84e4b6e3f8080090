"""What a search finds: one struct per file, and the bytes in which an answer is kept for others."""

from collections.abc import Sequence
from typing import Final

import msgspec

from kima_stream import events

MAX_FILES: Final = 2_000  # of one answer: the first ones, whoever sends more

AUDIO: Final = frozenset({"flac", "mp3", "m4a", "ogg", "opus", "wav", "aac"})


class FoundFile(events.FoundFile, frozen=True, kw_only=True, gc=False):
    """A file that a peer offers; its path goes back to the peer as it is, and is never a path of ours."""

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
