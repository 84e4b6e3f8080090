"""A peer's answer to a search as the library gives it, made ours; what cannot be used is left out."""

from typing import Final

from aioslsk.protocol.primitives import AttributeKey, FileData
from aioslsk.search.model import SearchResult

from kima_stream.integrations.soulseek.found import FoundFile

MAX_FILES_PER_PEER: Final = 500
MAX_NAME_CHARACTERS: Final = 100
MAX_PATH_CHARACTERS: Final = 2_000
_MAX_INT: Final = 2**53


def found_files(answer: SearchResult) -> list[FoundFile]:
    """Return what a peer offers; all numbers and names are its word."""
    peer = answer.username
    if not peer.isprintable() or not 0 < len(peer) <= MAX_NAME_CHARACTERS:
        return []
    return [_file(answer, file) for file in answer.shared_items[:MAX_FILES_PER_PEER] if _is_usable(file)]


def _is_usable(file: FileData) -> bool:
    return 0 < file.filesize <= _MAX_INT and 0 < len(file.filename) <= MAX_PATH_CHARACTERS


def _file(answer: SearchResult, file: FileData) -> FoundFile:
    attributes = file.get_attribute_map()
    name = file.filename.replace("/", "\\").rpartition("\\")[2]
    _, dot, extension = name.rpartition(".")
    return FoundFile(
        peer=answer.username,
        path=file.filename,
        size_bytes=int(file.filesize),
        extension=extension.lower()[:10] if dot else "",
        bitrate_kbps=attributes.get(AttributeKey.BITRATE),
        duration_seconds=attributes.get(AttributeKey.DURATION),
        has_free_slot=bool(answer.has_free_slots),
        speed_bytes_per_second=int(answer.avg_speed),
        queue_length=int(answer.queue_size),
    )
