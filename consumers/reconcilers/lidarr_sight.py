"""What a look at Lidarr's history and queue says, as facts of our own; pure.

Ids follow from what was seen, so seeing it again is the same event. Of a line's ``data`` only named values are
kept: the rest holds addresses of indexers with keys in them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set as AbstractSet
from typing import Final
from uuid import UUID, uuid5

import msgspec

from kima_stream.event_store import Append
from kima_stream.events import (
    Event,
    LidarrAlbumSeen,
    LidarrFailureSeen,
    LidarrHistorySeen,
    LidarrQueueSeen,
    RecordedEvent,
    new_event,
)
from kima_stream.integrations import lidarr_webhooks
from kima_stream.integrations.lidarr_types import Album, HistoryRow, QueueItem
from kima_stream.integrations.lidarr_webhooks import Download, DownloadFailure, Grab
from kima_stream.integrations.received import stream_name

CATEGORY: Final = "lidarr"
NAMESPACE: Final = UUID("8f2c7c55-3a36-5c55-9d0c-4d6d7d1f0a42")  # of what was seen: never changes
KEPT: Final = ("indexer", "releaseGroup", "size", "fileId", "message", "statusMessages", "downloadClient")
MAX_TEXT: Final = 2_000  # characters of one value
MAX_MESSAGES: Final = 20
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
FAILED: Final = "downloadFailed"
_WEBHOOKS: Final = frozenset(lidarr_webhooks.TYPES[each] for each in (Grab, Download, DownloadFailure))
WATCHED: Final = frozenset({"grabbed", "trackFileImported", FAILED, "albumImportIncomplete"})


def of_history(instance: str, row: HistoryRow, album: Album | None) -> Append:
    """Return the append of one line of the history."""
    kind = LidarrFailureSeen if row.event_type == FAILED else LidarrHistorySeen
    artist = album.artist if album is not None else None
    seen = kind(
        instance=instance,
        history_id=row.id,
        event_type=row.event_type,
        happened_at=row.date,
        download_id=row.download_id or None,
        release_title=_text(row.source_title),
        album_id=row.album_id,
        artist=_text(artist.artist_name) or "" if artist is not None else "",
        album=_text(album.title) or "" if album is not None else "",
        album_mbid=album.foreign_album_id or None if album is not None else None,
        data={name: text for name in KEPT if (text := _text(row.data.get(name))) is not None},
    )
    return _append(seen, row.download_id, history_id(instance, row))


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What webhooks have told of one download: grabs and failures by number, imported files by id."""

    grabs: int = 0
    failures: int = 0
    files: frozenset[int] = frozenset()


def told(events: Iterable[RecordedEvent]) -> Told:
    """Return what the webhooks in a download's stream say."""
    grabs = failures = 0
    files: set[int] = set()
    for event in events:
        if event.type not in _WEBHOOKS:
            continue
        match lidarr_webhooks.decode(event.data):
            case Grab():
                grabs += 1
            case DownloadFailure():
                failures += 1
            case Download() as imported:
                files.update(file.id for file in imported.track_files)
            case _:
                continue
    return Told(grabs=grabs, failures=failures, files=frozenset(files))


def untold(rows: Sequence[HistoryRow], seen: AbstractSet[int], by: Told) -> list[HistoryRow]:
    """Return the rows of one download that neither webhooks nor earlier looks have told, oldest first.

    Webhooks carry no id of the history's: the first so many grabs of an album that no look had to tell are those
    that webhooks told, since a webhook comes at once.

    Args:
        rows: all of the download's, whenever they were.
        seen: the ids of those that earlier looks have told.
        by: what webhooks have told.
    """
    counts: Counter[tuple[str, int]] = Counter()
    fresh = []
    for row in sorted(rows, key=lambda each: each.id):
        if row.id in seen or row.event_type not in WATCHED:
            continue
        counts[row.event_type, row.album_id] += 1
        number = counts[row.event_type, row.album_id]
        match row.event_type:
            case "grabbed":
                is_told = number <= by.grabs
            case "downloadFailed":
                is_told = number <= by.failures
            case "trackFileImported":
                is_told = number_of(row.data.get("fileId")) in by.files
            case _:
                is_told = False
        if not is_told:
            fresh.append(row)
    return fresh


def history_id(instance: str, row: HistoryRow) -> UUID:
    """Return the id of the event that says what a line of the history says."""
    return uuid5(NAMESPACE, f"{instance}/history/{row.id}/{row.date.isoformat()}")


def of_queue(instance: str, item: QueueItem) -> Append:
    """Return the append of one line of the queue; one that did not move since is the same event."""
    messages = [text for each in item.status_messages for text in (*each.messages, each.title)]
    seen = LidarrQueueSeen(
        instance=instance,
        download_id=item.download_id or "",
        album_id=item.album_id or 0,
        state=item.tracked_download_state,
        size_bytes=int(item.size),
        left_bytes=int(item.sizeleft),
        messages=tuple(_text(text) or "" for text in [*filter(None, (item.error_message,)), *messages][:MAX_MESSAGES]),
    )
    name = f"{instance}/queue/{seen.download_id}/{seen.album_id}/{seen.state}/{seen.left_bytes}/{item.added}"
    return _append(seen, item.download_id, uuid5(NAMESPACE, name))


def of_album(instance: str, album: Album) -> Append:
    """Return the append of how much of an album is there."""
    seen = LidarrAlbumSeen(
        instance=instance,
        album_id=album.id,
        tracks_total=album.statistics.total_track_count or None,
        tracks_present=album.statistics.track_file_count,
    )
    name = f"{instance}/album/{album.id}/{seen.tracks_present}/{seen.tracks_total}"
    return _append(seen, None, uuid5(NAMESPACE, name))


def number_of(text: str | None) -> int | None:
    """Return a number that Lidarr writes as text; None for anything else."""
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def messages_of(data: Mapping[str, str]) -> str:
    """Return why an import failed, as the history has it: a list of titles and messages, as JSON in a text."""
    if "message" in data:
        return data["message"]
    try:
        said = msgspec.json.decode(data.get("statusMessages", "[]"), type=list[_Message])
    except msgspec.DecodeError:
        return ""
    return "; ".join(dict.fromkeys(text for each in said for text in each.messages))


class _Message(msgspec.Struct, frozen=True):
    title: str = ""
    messages: tuple[str, ...] = ()


def _append(seen: Event, download_id: str | None, event_id: UUID) -> Append:
    return Append(stream_name(CATEGORY, download_id, event_id), [new_event(seen, event_id=event_id)])


def _text(text: str | None) -> str | None:
    """Return a text of bounded length without what Postgres cannot keep; None for none."""
    return None if text is None else text.replace("\0", "")[:MAX_TEXT]
