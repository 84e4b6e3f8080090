"""The shapes of Lidarr's REST API: camelCase, no null, times in UTC. Pure.

Source: Lidarr ``src/Lidarr.Api.V1``; its own OpenAPI document is what the tests hold them against.
"""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Final, TypeAlias

from kima_stream.simulator.catalogue import KnownAlbum, KnownArtist
from kima_stream.simulator.library import QUALITY, Album, Artist, Command, Download, HistoryRow, Release, iso

Json: TypeAlias = dict[str, object]

QUALITY_MODEL: Final[Json] = {
    "quality": {"id": 6, "name": QUALITY},
    "revision": {"version": 1, "real": 0, "isRepack": False},
}


def present(body: Json) -> Json:
    """Leave out what is null."""
    return {name: value for name, value in body.items() if value is not None}


def page(records: Sequence[Json], *, number: int, size: int, sort_key: str, direction: str) -> Json:
    """Return one page of ``records``, counted from 1."""
    first = (number - 1) * size
    return {
        "page": number,
        "pageSize": size,
        "sortKey": sort_key,
        "sortDirection": direction,
        "totalRecords": len(records),
        "records": list(records[first : first + size]),
    }


def artist(known: KnownArtist, added: Artist | None, albums: Sequence[Album] = ()) -> Json:
    """Return an artist; without an id when it is not in the library."""
    sort_name = known.name.lower()
    body: Json = {
        "artistName": known.name,
        "foreignArtistId": str(known.mbid),
        "mbId": str(known.mbid),
        "status": "continuing",
        "ended": False,
        "overview": known.overview,
        "artistType": known.type,
        "disambiguation": known.disambiguation,
        "links": [{"url": f"https://musicbrainz.org/artist/{known.mbid}", "name": "musicbrainz"}],
        "images": [],
        "genres": list(known.genres),
        "cleanName": "".join(letter for letter in sort_name if letter.isalnum()),
        "sortName": sort_name,
        "ratings": {"votes": 0, "value": 0.0},
        "tags": [],
        "statistics": _statistics(albums) | {"albumCount": len(albums)},
        "monitored": False,
    }
    if added is not None:
        body |= {
            "id": added.id,
            "path": added.path,
            "qualityProfileId": added.quality_profile_id,
            "metadataProfileId": added.metadata_profile_id,
            "monitored": added.monitored,
            "monitorNewItems": added.monitor_new_items,
            "added": iso(added.added),
        }
    return body


def album(known: KnownAlbum, found: Album | None, maker: Json | None) -> Json:
    """Return an album, with its artist when asked for; ``duration`` in milliseconds."""
    body: Json = {
        "title": known.title,
        "disambiguation": known.disambiguation,
        "overview": known.overview,
        "artistId": found.artist.id if found else 0,
        "foreignAlbumId": str(known.mbid),
        "monitored": found.monitored if found else False,
        "anyReleaseOk": True,
        "profileId": 1,
        "duration": sum(track.milliseconds for track in known.tracks),
        "albumType": known.album_type,
        "secondaryTypes": [],
        "mediumCount": 1,
        "ratings": {"votes": 0, "value": 0.0},
        "releaseDate": f"{known.released.isoformat()}T00:00:00Z",
        "releases": [],
        "genres": list(known.genres),
        "media": [{"mediumNumber": 1, "mediumName": "", "mediumFormat": "Digital Media"}],
        "artist": maker,
        "images": [],
        "links": [],
        "lastSearchTime": iso(found.last_search) if found and found.last_search else None,
        "statistics": _statistics([found] if found else []),
        "id": found.id if found else None,
    }
    return present(body)


def _statistics(albums: Sequence[Album]) -> Json:
    files = sum(len(each.files) for each in albums)
    tracks = sum(len(each.known.tracks) for each in albums)
    return {
        "trackFileCount": files,
        "trackCount": tracks,
        "totalTrackCount": tracks,
        "sizeOnDisk": sum(file.size_bytes for each in albums for file in each.files.values()),
        "percentOfTracks": 100.0 * files / tracks if tracks else 0.0,
    }


def command(found: Command) -> Json:
    """Return a command; its body repeats what it was told."""
    body = {"sendUpdatesToClient": True, "name": found.name, "trigger": "manual", **found.body}
    return present(
        {
            "id": found.id,
            "name": found.name,
            "commandName": found.name,
            "message": found.message,
            "body": body,
            "priority": "normal",
            "status": found.status,
            "result": found.result,
            "queued": iso(found.queued),
            "started": iso(found.started) if found.started else None,
            "ended": iso(found.ended) if found.ended else None,
            "trigger": "manual",
            "sendUpdatesToClient": True,
            "updateScheduledTask": True,
        }
    )


def release(found: Release, of: Album, *, number: int, published: datetime) -> Json:
    """Return what an indexer offers; ``number`` 0 is the best."""
    return present(
        {
            "guid": found.guid,
            "quality": QUALITY_MODEL,
            "qualityWeight": 600,
            "age": 1,
            "ageHours": 24.0,
            "ageMinutes": 1440.0,
            "size": found.size_bytes,
            "indexerId": found.indexer_id,
            "indexer": found.indexer,
            "releaseGroup": found.group,
            "title": found.title,
            "discography": False,
            "artistName": of.artist.known.name,
            "albumTitle": of.known.title,
            "approved": True,
            "temporarilyRejected": False,
            "rejected": False,
            "rejections": [],
            "publishDate": iso(published),
            "downloadUrl": f"https://indexer.example.org/{found.guid}",
            "infoUrl": f"https://indexer.example.org/info/{found.guid}",
            "downloadAllowed": True,
            "releaseWeight": number,
            "customFormats": [],
            "customFormatScore": found.custom_format_score,
            "seeders": 9,
            "leechers": 1,
            "protocol": "torrent",
            "indexerFlags": 0,
            "artistId": of.artist.id,
            "albumId": of.id,
        }
    )


def queue_id(download: Download, of: Album) -> int:
    """Return the id of a line of the queue: a hash, of no meaning after a restart."""
    return random.Random(f"{download.id}-{of.id}").randrange(1, 2**31)  # noqa: S311 - a hash, no secret


def queue_record(download: Download, of: Album) -> Json:
    """Return one album of one download."""
    is_failed = download.state in {"failed", "importFailed"}
    is_loading = download.state == "downloading"
    messages = [{"title": download.release.title, "messages": [download.message]}] if download.message else []
    return present(
        {
            "id": queue_id(download, of),
            "artistId": of.artist.id,
            "albumId": of.id,
            "quality": QUALITY_MODEL,
            "customFormats": [],
            "customFormatScore": 0,
            "size": float(download.release.size_bytes),
            "title": download.release.title,
            "sizeleft": float(download.release.size_bytes) if is_loading else 0.0,
            "timeleft": "00:05:00" if is_loading else None,
            "added": iso(download.added),
            "status": "downloading" if is_loading else "completed",
            "trackedDownloadStatus": "warning" if is_failed else "ok",
            "trackedDownloadState": download.state,
            "statusMessages": messages,
            "downloadId": download.id,
            "protocol": "torrent",
            "downloadClient": download.client,
            "downloadClientHasPostImportCategory": False,
            "indexer": download.release.indexer,
            "outputPath": f"/downloads/{download.release.title}",
            "trackFileCount": len(of.files),
            "trackHasFileCount": len(of.files),
            "downloadForced": False,
        }
    )


def history_row(row: HistoryRow) -> Json:
    """Return a line of the history; all values of ``data`` are text."""
    return present(
        {
            "id": row.id,
            "albumId": row.album.id,
            "artistId": row.album.artist.id,
            "trackId": 0,
            "sourceTitle": row.source_title,
            "quality": QUALITY_MODEL,
            "customFormats": [],
            "customFormatScore": 0,
            "qualityCutoffNotMet": False,
            "date": iso(row.date),
            "downloadId": row.download_id,
            "eventType": row.event_type,
            "data": row.data,
        }
    )
