"""One Lidarr: what can happen to its albums.

Each thing that happens is written into its history, then into the records, then told by webhook.
Searches find something or nothing, downloads end in an import or a failure: by chance from a seed.
"""

import random
from collections.abc import Sequence
from itertools import count
from typing import Final
from uuid import UUID

import msgspec

from kima_stream.simulator import payloads
from kima_stream.simulator.agenda import Agenda
from kima_stream.simulator.catalogue import Catalogue, KnownAlbum, KnownArtist
from kima_stream.simulator.commands import Commands
from kima_stream.simulator.library import (
    ROOT,
    SHOWN_TYPES,
    Album,
    Artist,
    Command,
    Download,
    EventType,
    HistoryRow,
    Release,
    TrackFile,
    grabbed,
    iso,
    ticks,
)
from kima_stream.simulator.payloads import Body, Sender
from kima_stream.simulator.postman import Postman
from kima_stream.simulator.records import Kind, Records

SEARCH_SECONDS: Final = 2.0
REFRESH_SECONDS: Final = 1.0


class Luck(msgspec.Struct, frozen=True, kw_only=True):
    """How likely things go well, and how long a download takes, in seconds of the agenda."""

    finds: float = 1.0
    imports: float = 0.8  # of downloads that end; the others fail
    ends: float = 1.0  # the others go on for ever
    seconds: tuple[float, float] = (30.0, 600.0)


class Lidarr:
    """The state of one Lidarr and everything that can happen to it."""

    def __init__(
        self,
        catalogue: Catalogue,
        agenda: Agenda,
        rng: random.Random,
        records: Records,
        postman: Postman,
        *,
        sender: Sender | None = None,
        luck: Luck | None = None,
    ) -> None:
        """Begin with an empty library."""
        self.catalogue = catalogue
        self.agenda = agenda
        self.records = records
        self.postman = postman
        self.sender = sender or Sender()
        self.luck = luck or Luck()
        self.artists: dict[UUID, Artist] = {}
        self.albums: dict[UUID, Album] = {}
        self.downloads: list[Download] = []
        self.history: list[HistoryRow] = []
        self.commands = Commands(agenda)
        self.tags: list[str] = []
        self.blocklist: set[str] = set()
        self.refresh_seconds = REFRESH_SECONDS
        self.search_seconds = SEARCH_SECONDS
        self._rng = rng
        self._tracks = self._files = 0
        self._album_ids = count(1)

    async def add_artist(
        self, known: KnownArtist, *, tags: tuple[str, ...] = (), to_monitor: frozenset[UUID] | None = None
    ) -> Artist:
        """Add an artist; the albums appear, and ArtistAdd goes out, when the refresh has ended."""
        artist = Artist(
            id=len(self.artists) + 1,
            known=known,
            added=self.agenda.now,
            path=f"{ROOT}/{known.name.replace('/', '+')}",
            tags=tags,
            to_monitor=to_monitor,
            last_write=ticks(self.agenda.now),
        )
        self.artists[known.mbid] = artist

        async def refresh() -> str:
            await self._refresh(artist)
            await self._tell("artist_add", payloads.artist_add(artist, self.sender))
            return "Completed"

        body: dict[str, object] = {"artistIds": [artist.id], "isNewArtist": True}
        self.commands.take("RefreshArtist", body, seconds=self.refresh_seconds, work=refresh)
        return artist

    async def _refresh(self, artist: Artist) -> None:
        for known in artist.known.albums:
            if known.album_type in SHOWN_TYPES:
                self.add_album(known, artist)
        wanted, artist.to_monitor = artist.to_monitor, None
        if wanted is not None:  # what was chosen when it was added goes over whatever was changed since
            for album in [album for album in self.albums.values() if album.artist is artist]:
                album.monitored = album.known.mbid in wanted

    def add_album(self, known: KnownAlbum, artist: Artist) -> Album:
        """Return the album of ``artist``, which is in the library from now on."""
        found = self.albums.get(known.mbid)
        if found is None:
            found = Album(
                id=next(self._album_ids), artist=artist, known=known, first_track_id=self._tracks + 1, files={}
            )
            self._tracks += len(known.tracks)
            self.albums[known.mbid] = found
        return found

    def command(self, name: str, body: dict[str, object]) -> Command:
        """Take a command; one that waits or runs already is not taken twice."""

        async def work() -> str:
            ids = body.get("albumIds") if name == "AlbumSearch" else None
            found = 0
            for album in [album for album in self.albums.values() if isinstance(ids, list) and album.id in ids]:
                album.last_search = self.agenda.now
                found += await self.search(album) is not None
            for artist in [artist for artist in self.artists.values() if artist.id == body.get("artistId")]:
                await self._refresh(artist)
            return f"Album search completed. {found} reports downloaded." if ids is not None else "Completed"

        return self.commands.take(name, body, seconds=self.search_seconds, work=work)

    def releases(self, album: Album) -> list[Release]:
        """Return what the indexers have of ``album``, best first: always the same for the same album."""
        known, artist = album.known, album.artist.known.name
        size = sum(track.size_bytes for track in known.tracks)
        titles = [f"{artist}-{known.title}-WEB-FLAC-{known.released.year}-{group}" for group in ("WEBGRP", "DEEP")]
        return [
            Release(guid=f"indexer-3-{known.mbid}-{number}", title=title, size_bytes=size, group=title.split("-")[-1])
            for number, title in enumerate(titles)
        ]

    async def search(self, album: Album) -> Download | None:
        """Grab the best release that is not blocklisted, if chance finds one."""
        found = [release for release in self.releases(album) if release.guid not in self.blocklist]
        if not found or self._rng.random() >= self.luck.finds:
            return None
        return await self.grab([album], found[0])

    async def grab(
        self,
        albums: Sequence[Album],
        release: Release,
        *,
        download_id: str | None = None,
        will_import: bool | None = None,
    ) -> Download:
        """Hand a release to the download client; how it ends is drawn now, unless ``will_import`` says it."""
        new_id = f"{self._rng.getrandbits(160):040X}"  # the info-hash of a torrent
        download = Download(id=download_id or new_id, albums=list(albums), release=release, added=self.agenda.now)
        self.downloads.append(download)
        for album in albums:
            self._note(album, "grabbed", download, grabbed(download, self.agenda.now))
        ends, imports = self._rng.random() < self.luck.ends, self._rng.random() < self.luck.imports
        if will_import is not None:
            ends, imports = True, will_import
        if ends:

            async def end() -> None:
                if download.state == "downloading":
                    await (self.import_all(download) if imports else self.fail(download, "The torrent has no seeds."))

            self.agenda.plan(self._rng.uniform(*self.luck.seconds), end)
        await self._tell("grab", payloads.grab(download, self.sender), download)
        return download

    async def import_all(self, download: Download) -> None:
        """Import every album of the download, each with a webhook of its own."""
        download.state = "imported"
        for album in download.albums:
            await self.import_album(album, range(len(album.known.tracks)), download=download)

    async def import_album(
        self, album: Album, tracks: Sequence[int], *, download: Download | None
    ) -> dict[int, TrackFile]:
        """Import these tracks of one album, by hand when there is no download; return the files."""
        deleted = [album.files[index] for index in tracks if index in album.files]
        files = {index: self._file(album, index, download) for index in tracks}
        album.files |= files
        for file in files.values():
            data = {"fileId": str(file.id), "droppedPath": f"/downloads/{file.id}.flac", "importedPath": file.path,
                    "downloadClient": download.client if download else "", "size": str(file.size_bytes),
                    "releaseGroup": file.release_group or "", "indexerFlags": "0"}  # fmt: skip
            self._note(album, "trackFileImported", download, data)
        self._note(album, "downloadImported", download, {"indexerFlags": "0"})
        body = payloads.imported(album, files, self.sender, download=download, deleted=deleted)
        await self._tell("import", body, download, albums=(album,), files=len(files))
        return files

    async def fail(self, download: Download, message: str, *, is_blocklisted: bool = True) -> None:
        """Let the download fail; the webhook says neither of what nor why, the history does."""
        download.state, download.message = "failed", message
        if is_blocklisted:
            self.blocklist.add(download.release.guid)
        for album in download.albums:
            data = {"downloadClient": download.client, "message": message, "indexer": download.release.indexer,
                    "releaseGroup": download.release.group or "", "size": str(download.release.size_bytes)}  # fmt: skip
            self._note(album, "downloadFailed", download, data)
        await self._tell("failure", payloads.download_failure(download, self.sender), download)

    async def fail_import(self, download: Download, message: str) -> None:
        """Let the import fail; the webhook says nothing at all, queue and history do."""
        download.state, download.message = "importFailed", message
        status = msgspec.json.encode([{"title": download.release.title, "messages": [message]}]).decode()
        for album in download.albums:
            data = {"statusMessages": status, "releaseGroup": download.release.group or "", "indexerFlags": "0"}
            self._note(album, "albumImportIncomplete", download, data)
        # Known to the records by its download, though nobody could read that from the webhook.
        await self._tell("import_failure", payloads.import_failure(self.sender), download)

    async def _tell(
        self,
        kind: Kind,
        body: Body,
        download: Download | None = None,
        *,
        albums: Sequence[Album] | None = None,
        files: int = 0,
    ) -> None:
        about = albums if albums is not None else download.albums if download else ()
        fact = self.records.happened(
            kind,
            self.agenda.now,
            payloads.encode(body),
            albums=tuple(album.known.mbid for album in about),
            download_id=download.id if download else None,
            files=files,
        )
        await self.postman.take(fact)

    def _file(self, album: Album, index: int, download: Download | None) -> TrackFile:
        self._files += 1
        track = album.known.tracks[index]
        name = f"{album.artist.known.name} - {album.known.title} - {index + 1:02} - {track.title}"
        return TrackFile(
            id=self._files,
            path=f"{album.folder}/{name.replace('/', '+')}.flac",
            size_bytes=track.size_bytes,
            date_added=iso(self.agenda.now),
            release_group=download.release.group if download else None,
            scene_name=download.release.title.replace(" ", ".") if download else None,
        )

    def _note(self, album: Album, event_type: EventType, download: Download | None, data: dict[str, str]) -> None:
        row = HistoryRow(
            id=len(self.history) + 1,
            album=album,
            event_type=event_type,
            date=self.agenda.now,
            source_title=download.release.title if download else album.known.title,
            download_id=download.id if download else None,
            data=data,
        )
        self.history.append(row)
