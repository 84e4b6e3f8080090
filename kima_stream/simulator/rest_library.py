"""Artists and albums: look them up, add them, monitor them; tell Lidarr to search."""

from typing import Final
from uuid import UUID

from aiohttp import web

from kima_stream.simulator import resources
from kima_stream.simulator.catalogue import KnownAlbum, KnownArtist
from kima_stream.simulator.library import ROOT, Album, Artist
from kima_stream.simulator.lidarr import Lidarr
from kima_stream.simulator.resources import Json
from kima_stream.simulator.rest import LIDARR, InvalidError, RefusedError, answer, body_of, number_of

_ID_PREFIXES: Final = ("lidarr:", "lidarrid:", "mbid:")
_COMMANDS: Final = {
    name.lower(): name
    for name in (
        "AlbumSearch", "ArtistSearch", "MissingAlbumSearch", "CutoffUnmetAlbumSearch", "RefreshArtist",
        "RefreshMonitoredDownloads", "DownloadedAlbumsScan", "RescanFolders", "ManualImport",
    )
}  # fmt: skip
_PROFILE: Final = 1  # the only one


async def look_up_artists(request: web.Request) -> web.Response:
    """Answer the artists that fit ``term``: words, or ``lidarr:<mbid>``."""
    lidarr, term = request.app[LIDARR], request.query.get("term", "")
    mbid = _mbid_in(term)
    found = lidarr.catalogue.find_artists(term) if mbid is None else [lidarr.catalogue.artist(mbid)]
    return answer([_artist(lidarr, known) for known in found if known])


async def look_up_albums(request: web.Request) -> web.Response:
    """Answer the albums that fit ``term``: words, or ``lidarr:<mbid>``."""
    lidarr, term = request.app[LIDARR], request.query.get("term", "")
    mbid = _mbid_in(term)
    found = lidarr.catalogue.find_albums(term) if mbid is None else [lidarr.catalogue.album(mbid)]
    return answer([_album(lidarr, known) for known in found if known])


async def list_artists(request: web.Request) -> web.Response:
    """Answer the artists of the library, or the one of ``mbId``."""
    lidarr, mbid = request.app[LIDARR], request.query.get("mbId")
    return answer(
        [_artist(lidarr, each.known) for each in lidarr.artists.values() if mbid in {None, str(each.known.mbid)}]
    )


async def add_artist(request: web.Request) -> web.Response:
    """Add an artist; the albums come later, when the refresh has ended."""
    lidarr, body = request.app[LIDARR], await body_of(request)
    known = _known_artist(lidarr, body)
    if known.mbid in lidarr.artists:
        message = "This artist has already been added."
        raise InvalidError(
            "ForeignArtistId", message, code="ArtistExistsValidator", attempted=body.get("foreignArtistId")
        )
    _check_new_artist(body)
    artist = await lidarr.add_artist(known, to_monitor=_to_monitor(known, body.get("addOptions")))
    artist.monitored = bool(body.get("monitored"))
    return answer(_artist(lidarr, known), 201, location=f"/api/v1/artist/{artist.id}")


async def list_albums(request: web.Request) -> web.Response:
    """Answer the albums of the library, by ``foreignAlbumId``, ``artistId`` or ``albumIds``."""
    lidarr, query = request.app[LIDARR], request.query
    ids, mbid = set(query.getall("albumIds", [])), query.get("foreignAlbumId")
    artist_id = query.get("artistId")
    return answer(
        [
            _album(lidarr, album.known)
            for album in lidarr.albums.values()
            if (not ids or str(album.id) in ids)
            and mbid in {None, str(album.known.mbid)}
            and artist_id in {None, str(album.artist.id)}
        ]
    )


async def show_album(request: web.Request) -> web.Response:
    """Answer one album."""
    lidarr = request.app[LIDARR]
    return answer(_album(lidarr, _album_of(lidarr, number_of(request, "id")).known))


async def add_album(request: web.Request) -> web.Response:
    """Add an album, and its artist when that is new; search for it when ``addOptions`` say so."""
    lidarr, body = request.app[LIDARR], await body_of(request)
    mbid = _uuid(body.get("foreignAlbumId"))
    known = lidarr.catalogue.album(mbid) if mbid else None
    if known is None:
        raise RefusedError(404, f"Album with ID {body.get('foreignAlbumId')} was not found, it may have been removed")
    if known.mbid in lidarr.albums:
        raise InvalidError("ForeignAlbumId", "This album has already been added.", code="AlbumExistsValidator")
    maker = lidarr.catalogue.artist_of(known)
    artist = lidarr.artists.get(maker.mbid)
    if artist is None:
        given = body.get("artist")
        _check_new_artist(given if isinstance(given, dict) else {})
        artist = await lidarr.add_artist(maker)
    album = lidarr.add_album(known, artist)
    album.monitored = bool(body.get("monitored", True))
    options = body.get("addOptions")
    if isinstance(options, dict) and options.get("searchForNewAlbum"):
        lidarr.command("AlbumSearch", {"albumIds": [album.id]})
    return answer(_album(lidarr, known), 201, location=f"/api/v1/album/{album.id}")


async def change_album(request: web.Request) -> web.Response:
    """Take over ``monitored`` from the whole resource."""
    lidarr, body = request.app[LIDARR], await body_of(request)
    album = _album_of(lidarr, number_of(request, "id"))
    album.monitored = bool(body.get("monitored", album.monitored))
    return answer(_album(lidarr, album.known), 202)


async def monitor_albums(request: web.Request) -> web.Response:
    """Monitor several albums, or stop to."""
    lidarr, body = request.app[LIDARR], await body_of(request)
    given = body.get("albumIds")
    albums = [_album_of(lidarr, number) for number in (given if isinstance(given, list) else [])]
    for album in albums:
        album.monitored = bool(body.get("monitored"))
    return answer([_album(lidarr, album.known) for album in albums], 202)


async def take_command(request: web.Request) -> web.Response:
    """Queue a command; a name that Lidarr does not have is a 500 there."""
    lidarr, body = request.app[LIDARR], await body_of(request)
    name = _COMMANDS.get(str(body.pop("name", "")).lower())
    if name is None:
        raise RefusedError(500, "Sequence contains no matching element")
    command = lidarr.command(name, body)
    return answer(resources.command(command), 201, location=f"/api/v1/command/{command.id}")


async def list_commands(request: web.Request) -> web.Response:
    """Answer all commands that are not forgotten."""
    return answer([resources.command(command) for command in request.app[LIDARR].commands.all()])


async def show_command(request: web.Request) -> web.Response:
    """Answer how far a command is."""
    number = number_of(request, "id")
    command = request.app[LIDARR].commands.find(number)
    if command is None:
        raise RefusedError(404, f"Command with ID {number} does not exist")
    return answer(resources.command(command))


async def list_tags(request: web.Request) -> web.Response:
    """Answer all tags."""
    return answer([{"id": number, "label": label} for number, label in enumerate(request.app[LIDARR].tags, 1)])


async def add_tag(request: web.Request) -> web.Response:
    """Make a tag, in lower case; one that is there is answered."""
    tags, label = request.app[LIDARR].tags, str((await body_of(request)).get("label", "")).lower()
    if label not in tags:
        tags.append(label)
    return answer({"id": tags.index(label) + 1, "label": label}, 201)


def _artist(lidarr: Lidarr, known: KnownArtist) -> Json:
    added: Artist | None = lidarr.artists.get(known.mbid)
    albums = [lidarr.albums[album.mbid] for album in known.albums if album.mbid in lidarr.albums]
    return resources.artist(known, added, albums)


def _album(lidarr: Lidarr, known: KnownAlbum) -> Json:
    return resources.album(known, lidarr.albums.get(known.mbid), _artist(lidarr, lidarr.catalogue.artist_of(known)))


def _album_of(lidarr: Lidarr, number: object) -> Album:
    found = next((album for album in lidarr.albums.values() if album.id == number), None)
    if found is None:
        raise RefusedError(404, f"Album with ID {number} does not exist")
    return found


def _known_artist(lidarr: Lidarr, body: Json) -> KnownArtist:
    mbid = _uuid(body.get("foreignArtistId"))
    if mbid is None:
        raise InvalidError("ForeignArtistId", "'Foreign Artist Id' must not be empty.", code="NotEmptyValidator")
    known = lidarr.catalogue.artist(mbid)
    if known is None:
        message = "An artist with this ID was not found"
        raise InvalidError("MusicbrainzId", message, code="NotFound", attempted=str(mbid))
    return known


def _check_new_artist(body: Json) -> None:
    """Refuse an artist without profiles and folder."""
    for name in ("qualityProfileId", "metadataProfileId"):
        if body.get(name) != _PROFILE:
            message = "Profile does not exist" if body.get(name) else "must be greater than '0'."
            raise InvalidError(name[0].upper() + name[1:], message, code="ProfileExists", attempted=body.get(name))
    if body.get("rootFolderPath") != ROOT and not body.get("path"):
        raise InvalidError(
            "RootFolderPath",
            f"Root folder '{body.get('rootFolderPath')}' does not exist",
            code="RootFolderExistsValidator",
            attempted=body.get("rootFolderPath"),
        )


def _to_monitor(known: KnownArtist, options: object) -> frozenset[UUID]:
    """Return which albums are monitored once they are there: the ones named, else all or none."""
    given = options if isinstance(options, dict) else {}
    named = given.get("albumsToMonitor")
    if isinstance(named, list) and named:
        return frozenset(mbid for mbid in map(_uuid, named) if mbid is not None)
    return frozenset(album.mbid for album in known.albums) if given.get("monitor") == "all" else frozenset()


def _mbid_in(term: str) -> UUID | None:
    for prefix in _ID_PREFIXES:
        if term.startswith(prefix):
            return _uuid(term.removeprefix(prefix).strip()) or UUID(int=0)
    return None


def _uuid(text: object) -> UUID | None:
    try:
        return UUID(str(text))
    except ValueError:
        return None


ROUTES: Final = (
    web.get("/api/v1/tag", list_tags),
    web.post("/api/v1/tag", add_tag),
    web.get("/api/v1/artist/lookup", look_up_artists),
    web.get("/api/v1/album/lookup", look_up_albums),
    web.get("/api/v1/artist", list_artists),
    web.post("/api/v1/artist", add_artist),
    web.get("/api/v1/album", list_albums),
    web.post("/api/v1/album", add_album),
    web.put("/api/v1/album/monitor", monitor_albums),
    web.get(r"/api/v1/album/{id:\d+}", show_album),
    web.put(r"/api/v1/album/{id:\d+}", change_album),
    web.get("/api/v1/command", list_commands),
    web.post("/api/v1/command", take_command),
    web.get(r"/api/v1/command/{id:\d+}", show_command),
)
