"""Releases, queue and history: what can be had, what is on its way, what happened."""

from typing import Final

from aiohttp import web

from kima_stream.simulator import resources
from kima_stream.simulator.library import NUMBERS, Album, Download, HistoryRow
from kima_stream.simulator.lidarr import Lidarr
from kima_stream.simulator.rest import (
    LIDARR,
    InvalidError,
    RefusedError,
    answer,
    body_of,
    moment_of,
    number_of,
    page_of,
)

_IN_QUEUE: Final = frozenset({"downloading", "importPending", "importFailed"})


async def list_releases(request: web.Request) -> web.Response:
    """Answer what the indexers have of an album, best first."""
    lidarr = request.app[LIDARR]
    album = _album(lidarr, number_of(request, "albumId"))
    found = [
        resources.release(release, album, number=number, published=lidarr.agenda.now)
        for number, release in enumerate(lidarr.releases(album))
    ]
    return answer(found)


async def grab_release(request: web.Request) -> web.Response:
    """Grab a release that a search has shown."""
    lidarr, body = request.app[LIDARR], await body_of(request)
    for album in lidarr.albums.values():
        for number, release in enumerate(lidarr.releases(album)):
            if (release.guid, release.indexer_id) == (body.get("guid"), body.get("indexerId")):
                await lidarr.grab([album], release)
                return answer(resources.release(release, album, number=number, published=lidarr.agenda.now))
    raise RefusedError(404, "Couldn't find requested release in cache, try searching again")


async def list_queue(request: web.Request) -> web.Response:
    """Answer a page of what is on its way, one line per album."""
    lines = [resources.queue_record(download, album) for download, album in _queue(request.app[LIDARR])]
    return page_of(request, lines, sort_key="timeleft", direction="ascending")


async def list_queue_details(request: web.Request) -> web.Response:
    """Answer all that is on its way for some albums, or an artist; no pages."""
    albums, artist = set(request.query.getall("albumIds", [])), request.query.get("artistId")
    return answer(
        [
            resources.queue_record(download, album)
            for download, album in _queue(request.app[LIDARR])
            if (not albums or str(album.id) in albums) and artist in {None, str(album.artist.id)}
        ]
    )


async def remove_from_queue(request: web.Request) -> web.Response:
    """Remove a download; with ``blocklist`` it has failed, and says so by webhook."""
    lidarr, number = request.app[LIDARR], number_of(request, "id")
    for download, album in _queue(lidarr):
        if resources.queue_id(download, album) == number:
            if request.query.get("blocklist", "false").lower() == "true":
                await lidarr.fail(download, "Manually marked as failed")
                if request.query.get("skipRedownload", "false").lower() != "true":
                    lidarr.command("AlbumSearch", {"albumIds": [each.id for each in download.albums]})
            download.state = "failed"
            return answer({})
    raise RefusedError(404, f"Queue item with ID {number} does not exist")


async def list_history(request: web.Request) -> web.Response:
    """Answer a page of the history, newest first unless told otherwise; ``eventType`` are numbers here."""
    query = request.query
    types = {number_of_type(text) for text in query.getall("eventType", [])}
    is_ascending = query.get("sortDirection", "").lower() == "ascending"
    history = request.app[LIDARR].history
    rows = [
        resources.history_row(row)
        for row in (history if is_ascending else reversed(history))
        if (not types or NUMBERS[row.event_type] in types)
        and query.get("downloadId") in {None, row.download_id}
        and query.get("albumId") in {None, str(row.album.id)}
    ]
    return page_of(request, rows, sort_key="date", direction="ascending" if is_ascending else "descending")


async def list_history_since(request: web.Request) -> web.Response:
    """Answer all of the history since ``date``, no pages; ``eventType`` is a name here."""
    since, wanted = moment_of(request.query.get("date", "")), request.query.get("eventType", "")
    rows: list[HistoryRow] = [
        row
        for row in request.app[LIDARR].history
        if row.date >= since and wanted.lower() in {"", row.event_type.lower(), str(NUMBERS[row.event_type])}
    ]
    return answer([resources.history_row(row) for row in rows])


def number_of_type(text: str) -> int:
    """Return the number of an event type.

    Raises:
        InvalidError: it is no number.
    """
    if not text.isdigit():
        raise InvalidError("eventType", f"The value '{text}' is not valid.", code="number", attempted=text)
    return int(text)


def _queue(lidarr: Lidarr) -> list[tuple[Download, Album]]:
    return [
        (download, album) for download in lidarr.downloads if download.state in _IN_QUEUE for album in download.albums
    ]


def _album(lidarr: Lidarr, number: int) -> Album:
    found = next((album for album in lidarr.albums.values() if album.id == number), None)
    if found is None:
        raise RefusedError(404, f"Album with ID {number} does not exist")
    return found


ROUTES: Final = (
    web.get("/api/v1/release", list_releases),
    web.post("/api/v1/release", grab_release),
    web.get("/api/v1/queue", list_queue),
    web.get("/api/v1/queue/details", list_queue_details),
    web.delete(r"/api/v1/queue/{id:\d+}", remove_from_queue),
    web.get("/api/v1/history", list_history),
    web.get("/api/v1/history/since", list_history_since),
)
