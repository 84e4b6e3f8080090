"""The bodies of Lidarr's webhooks, byte for byte as Newtonsoft.Json writes them.

Two spaces of indentation, no null, letters beyond ASCII as they are; the keys of the derived class
first, then ``eventType``, ``instanceName``, ``applicationUrl``. Source: Lidarr
``NzbDrone.Core/Notifications/Webhook/WebhookBase.cs`` and ``NzbDrone.Common/Serializer``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from kima_stream.simulator.library import Album, Artist, Download, TrackFile

Body: TypeAlias = dict[str, object]

_ESCAPED: Final = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class Sender(msgspec.Struct, frozen=True):
    """What each webhook ends with."""

    instance_name: str = "Lidarr"
    application_url: str = ""


class HealthIssue(msgspec.Struct, frozen=True, kw_only=True):
    """What a check of Lidarr's found; ``type`` is the check's class."""

    level: str
    message: str
    type: str
    wiki_url: str | None = None


def encode(body: Body) -> bytes:
    """Return ``body`` as it goes over the wire: UTF-8, indented, no newline at the end."""
    return json.dumps(body, indent=2, ensure_ascii=False).translate(_ESCAPED).encode()


def test(sender: Sender) -> Body:
    """Return what Test and Save send; its MBID is none, and it has no release."""
    artist = {
        "id": 1,
        "name": "Test Name",
        "path": "C:\\testpath",
        "mbId": "aaaaa-aaa-aaaa-aaaaaa",
        "tags": ["test-tag"],
    }
    return _signed({"artist": artist, "albums": [{"id": 123, "title": "Test title"}]}, "Test", sender)


def grab(download: Download, sender: Sender) -> Body:
    """Return the news that a release was handed to the download client."""
    release = download.release
    body = {
        "artist": _artist(download.albums[0].artist),
        "albums": [_album(album) for album in download.albums],
        "release": _present(
            {
                "quality": release.quality,
                "qualityVersion": 1,
                "releaseGroup": release.group,
                "releaseTitle": release.title,
                "indexer": release.indexer,
                "size": release.size_bytes,
                "customFormatScore": release.custom_format_score,
                "customFormats": list(release.custom_formats),
            }
        ),
        **_client(download),
    }
    return _signed(body, "Grab", sender)


def imported(
    album: Album,
    files: dict[int, TrackFile],
    sender: Sender,
    *,
    download: Download | None,
    deleted: Sequence[TrackFile] = (),
) -> Body:
    """Return the news that files of one album were imported: ``files`` by the index of their track.

    Args:
        album: whose files they are.
        files: may be a part of the album.
        sender: who sends.
        download: None of an import by hand.
        deleted: files that better ones replaced, which makes it an upgrade.
    """
    body: Body = {
        "artist": _artist(album.artist),
        "album": _album(album),
        "tracks": [
            {
                "id": album.first_track_id + index,
                "title": album.known.tracks[index].title,
                "trackNumber": album.known.tracks[index].number,
                "qualityVersion": 0,
            }
            for index in files
        ],
        "trackFiles": [_track_file(file) for file in files.values()],
    }
    if deleted:
        body["deletedFiles"] = [_track_file(file) for file in deleted]
    body["isUpgrade"] = bool(deleted)
    if download is not None:
        body |= _client(download)
    return _signed(body, "Download", sender)


def download_failure(download: Download, sender: Sender) -> Body:
    """Return the news that the client gave up: no artist, no album, no reason."""
    body = {
        "quality": download.release.quality,
        "qualityVersion": 1,
        "releaseTitle": download.release.title,
        "downloadClient": download.client,
        "downloadId": download.id,
    }
    return _signed(_present(body), "DownloadFailure", sender)


def import_failure(sender: Sender) -> Body:
    """Return the news that something could not be imported: Lidarr does not say what."""
    return _signed({"tracks": [], "trackFiles": [], "isUpgrade": False}, "ImportFailure", sender)


def rename(artist: Artist, files: Iterable[tuple[TrackFile, str]], sender: Sender) -> Body:
    """Return the news that files got new names; each comes with its path before."""
    renamed = [{"previousPath": before, **_track_file(file)} for file, before in files]
    return _signed({"artist": _artist(artist), "renamedTrackFiles": renamed}, "Rename", sender)


def retag(artist: Artist, file: TrackFile, sender: Sender) -> Body:
    """Return the news that tags were written."""
    return _signed({"artist": _artist(artist), "trackFile": _track_file(file)}, "Retag", sender)


def artist_add(artist: Artist, sender: Sender) -> Body:
    """Return the news that an artist was added and refreshed."""
    return _signed({"artist": _artist(artist)}, "ArtistAdd", sender)


def artist_delete(artist: Artist, sender: Sender, *, deleted_files: bool) -> Body:
    """Return the news that an artist left."""
    return _signed({"artist": _artist(artist), "deletedFiles": deleted_files}, "ArtistDelete", sender)


def album_delete(album: Album, sender: Sender, *, deleted_files: bool) -> Body:
    """Return the news that an album left."""
    body = {"artist": _artist(album.artist), "album": _album(album), "deletedFiles": deleted_files}
    return _signed(body, "AlbumDelete", sender)


def health(issue: HealthIssue, sender: Sender) -> Body:
    """Return the news that Lidarr is not well."""
    return _signed(_issue(issue), "Health", sender)


def health_restored(issue: HealthIssue, sender: Sender) -> Body:
    """Return the news that ``issue`` is over; of all webhooks this one has no ``applicationUrl``."""
    body = _signed(_issue(issue), "HealthRestored", sender)
    del body["applicationUrl"]
    return body


def application_update(before: str, after: str, sender: Sender) -> Body:
    """Return the news that Lidarr updated itself."""
    body: Body = {
        "message": f"Lidarr updated from {before} to {after}",
        "previousVersion": before,
        "newVersion": after,
    }
    return _signed(body, "ApplicationUpdate", sender)


def _signed(body: Body, event_type: str, sender: Sender) -> Body:
    ending = {
        "eventType": event_type,
        "instanceName": sender.instance_name,
        "applicationUrl": sender.application_url,
    }
    return {**body, **ending}


def _present(body: Mapping[str, object]) -> Body:
    """Leave out what is null, as Lidarr does."""
    return {name: value for name, value in body.items() if value is not None}


def _client(download: Download) -> Body:
    body = {"downloadClient": download.client, "downloadClientType": download.client_type, "downloadId": download.id}
    return _present(body)


def _issue(issue: HealthIssue) -> Body:
    body = {"level": issue.level, "message": issue.message, "type": issue.type, "wikiUrl": issue.wiki_url}
    return _present(body)


def _artist(artist: Artist) -> Body:
    known = artist.known
    return {
        "id": artist.id,
        "name": known.name,
        "disambiguation": known.disambiguation,
        "path": artist.path,
        "mbId": str(known.mbid),
        "type": known.type,
        "overview": known.overview,
        "genres": list(known.genres),
        "images": [_image(kind, f"{artist.id}", f"artist/{artist.id}", artist) for kind in ("poster", "fanart")],
        "tags": sorted(artist.tags),
    }


def _album(album: Album) -> Body:
    known = album.known
    return {
        "id": album.id,
        "mbId": str(known.mbid),
        "title": known.title,
        "disambiguation": known.disambiguation,
        "overview": known.overview,
        "albumType": known.album_type,
        "secondaryAlbumTypes": [],
        "releaseDate": f"{known.released.isoformat()}T00:00:00Z",
        "genres": list(known.genres),
        "images": [_image("cover", f"Albums/{album.id}", f"album/{album.id}", album.artist)],
    }


def _image(kind: str, place: str, remote: str, artist: Artist) -> Body:
    return {
        "coverType": kind,
        "url": f"/MediaCover/{place}/{kind}.jpg?lastWrite={artist.last_write}",
        "remoteUrl": f"https://assets.example.org/{remote}/{kind}.jpg",
    }


def _track_file(file: TrackFile) -> Body:
    return _present(
        {
            "id": file.id,
            "path": file.path,
            "quality": file.quality,
            "qualityVersion": 1,
            "releaseGroup": file.release_group,
            "sceneName": file.scene_name,
            "size": file.size_bytes,
            "dateAdded": file.date_added,
        }
    )
