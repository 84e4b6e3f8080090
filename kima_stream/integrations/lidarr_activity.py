"""What Lidarr does: commands, releases, its queue, its history."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import msgspec

from kima_stream.integrations.lidarr_http import SLOW_SECONDS, LidarrError, LidarrTimeoutError
from kima_stream.integrations.lidarr_reading import Reader, decoded
from kima_stream.integrations.lidarr_types import Command, HistoryRow, Page, QueueItem, Release

QUEUE_PAGE: Final = 500  # Lidarr's own default is 10
HISTORY_PAGE: Final = 250
READINGS: Final = 5  # of a queue that moves while it is read
HISTORY_NUMBERS: Final[Mapping[str, int]] = {  # as the filter of /history takes them
    "grabbed": 1,
    "trackFileImported": 3,
    "downloadFailed": 4,
    "albumImportIncomplete": 7,
    "downloadImported": 8,
    "downloadIgnored": 10,
}

_COMMANDS: Final = msgspec.json.Decoder(tuple[Command, ...])
_COMMAND: Final = msgspec.json.Decoder(Command)
_RELEASES: Final = msgspec.json.Decoder(tuple[Release, ...])
_QUEUE: Final = msgspec.json.Decoder(Page[QueueItem])
_DETAILS: Final = msgspec.json.Decoder(tuple[QueueItem, ...])
_HISTORY: Final = msgspec.json.Decoder(tuple[HistoryRow, ...])
_HISTORY_PAGE: Final = msgspec.json.Decoder(Page[HistoryRow])


class Activity(Reader):
    """What one Lidarr does."""

    async def commands(self) -> tuple[Command, ...]:
        """Return what Lidarr does, will do, and did in the last minutes."""
        return await self._list("/command", _COMMANDS)

    async def command(self, command_id: int) -> Command | None:
        """Return a command; None when Lidarr has forgotten it."""
        return await self._one_or_none("/command/{id}", _COMMAND, command_id)

    async def start(self, name: str, **body: int | str | list[int]) -> Command:
        """Give a command, e.g. ``start("AlbumSearch", albumIds=[3])``; one that waits or runs already is returned."""
        return decoded(_COMMAND, await self.transport.call("POST", "/command", body={"name": name, **body}))

    async def releases(self, album_id: int) -> tuple[Release, ...]:
        """Ask all indexers for an album and return what they have, best first; slow."""
        return await self._list("/release", _RELEASES, {"albumId": album_id}, SLOW_SECONDS)

    async def queue(self, *, page_size: int = QUEUE_PAGE) -> tuple[QueueItem, ...]:
        """Return the whole queue: every album of every download, also of artists that Lidarr does not know.

        A line that moves to a page that was read already would be missed: several pages are read until
        two readings agree.

        Raises:
            LidarrError: retryable, the queue moved each time while it was read; half of it is never returned.
        """
        before: tuple[int, ...] | None = None
        for _ in range(READINGS):
            items, is_one_page = await self._read_queue(page_size)
            found = tuple(item.id for item in items)
            if is_one_page or found == before:
                return items
            before = found
        raise LidarrError("its queue moves too fast to be read", retryable=True)

    async def queue_of(self, album_ids: Sequence[int]) -> tuple[QueueItem, ...]:
        """Return the queue's lines of these albums."""
        return await self._list("/queue/details", _DETAILS, {"albumIds": album_ids})

    async def remove_from_queue(
        self, queue_id: int, *, remove_from_client: bool = True, blocklist: bool = False, skip_redownload: bool = False
    ) -> bool:
        """Remove a download by one of its lines, with all its albums; False when it is not there any more.

        With ``blocklist`` Lidarr takes it for failed, says so by webhook, and searches again unless
        ``skip_redownload``.
        """
        query = {
            "removeFromClient": remove_from_client,
            "blocklist": blocklist,
            "skipRedownload": skip_redownload,
        }
        try:
            await self.transport.call("DELETE", "/queue/{id}", query=query, number=queue_id)
        except LidarrError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return False
            raise
        return True

    async def remove_download(
        self, download_id: str, *, blocklist: bool = False, skip_redownload: bool = False
    ) -> bool:
        """Remove a download with all its albums, once; False when the queue does not have it (any more).

        Any of its lines stands for it: a second removal would make it fail a second time.
        """
        lines = [item for item in await self.queue() if item.download_id == download_id]
        if not lines:
            return False
        return await self.remove_from_queue(lines[0].id, blocklist=blocklist, skip_redownload=skip_redownload)

    async def history_since(self, since: datetime, *, event_type: str | None = None) -> tuple[HistoryRow, ...]:
        """Return all that happened since, oldest first, by Lidarr's own clock; keep it some days at most."""
        query: dict[str, str | int] = {"date": _utc(since)}
        if event_type is not None:
            query["eventType"] = event_type
        rows = await self._list("/history/since", _HISTORY, query)
        return tuple(sorted(rows, key=lambda row: row.id))

    async def history_from(
        self, since: datetime, *, page_size: int = HISTORY_PAGE
    ) -> AsyncIterator[tuple[HistoryRow, ...]]:
        """Yield all that happened since, oldest first: at once, or page by page where it is too much for one answer.

        A row may come twice, and some before ``since`` may come along.
        """
        try:
            rows = await self.history_since(since)
        except LidarrError as error:
            if not _may_be_too_much(error):
                raise
        else:
            yield rows
            return
        async for rows in self._pages_from(since, page_size):
            yield rows

    async def _pages_from(self, since: datetime, page_size: int) -> AsyncIterator[tuple[HistoryRow, ...]]:
        """Yield the pages from the one that ``since`` is in, oldest first, so that what is new comes at the end."""
        number, before = await self._page_of(since, page_size), 0
        while True:
            page = await self._history_page(number, page_size)
            taken_out = before - page.total_records
            before = page.total_records
            if taken_out > 0 and number > 1:  # what we had not read moved up
                number = max(1, number - 1 - taken_out // page_size)
                continue
            yield page.records
            if number * page_size >= page.total_records:
                return
            number += 1

    async def _page_of(self, since: datetime, page_size: int) -> int:
        """Return the first page that has something of ``since`` or later; the last one when none has."""
        low, total = 1, (await self._history_page(1, page_size)).total_records
        high = max(1, -(-total // page_size))
        while low < high:
            middle = (low + high) // 2
            page = await self._history_page(middle, page_size)
            if any(row.date >= since for row in page.records) or not page.records:
                high = middle
            else:
                low = middle + 1
        return low

    async def _history_page(self, number: int, page_size: int) -> Page[HistoryRow]:
        query: dict[str, str | int] = {
            "page": number,
            "pageSize": page_size,
            "sortKey": "date",
            "sortDirection": "ascending",
        }
        return decoded(_HISTORY_PAGE, await self.transport.read("/history", query=query))

    async def history(
        self,
        *,
        event_types: Sequence[str] = (),
        album_id: int | None = None,
        download_id: str | None = None,
        page_size: int = HISTORY_PAGE,
    ) -> AsyncIterator[HistoryRow]:
        """Yield the history, newest first, each row once, page by page as far as it is read."""
        query: dict[str, str | int | Sequence[int]] = {
            "pageSize": page_size,
            "sortKey": "date",
            "sortDirection": "descending",
        }
        if event_types:
            query["eventType"] = [HISTORY_NUMBERS[name] for name in event_types]
        if album_id is not None:
            query["albumId"] = album_id
        if download_id is not None:
            query["downloadId"] = download_id
        seen: set[int] = set()  # what happens while we read moves rows on to the next page
        number, total = 1, 1
        while (number - 1) * page_size < total:
            content = await self.transport.read("/history", query={**query, "page": number})
            page = decoded(_HISTORY_PAGE, content)
            for row in page.records:
                if row.id not in seen:
                    seen.add(row.id)
                    yield row
            number, total = number + 1, page.total_records if page.records else 0

    async def _read_queue(self, page_size: int) -> tuple[tuple[QueueItem, ...], bool]:
        items: list[QueueItem] = []
        number = 1
        while True:
            query = {"page": number, "pageSize": page_size, "includeUnknownArtistItems": True}
            page = decoded(_QUEUE, await self.transport.read("/queue", query=query))
            items += page.records
            if not page.records or len(items) >= page.total_records:
                return tuple(items), number == 1
            number += 1


def _may_be_too_much(error: LidarrError) -> bool:
    """Return whether less may be answered: it was longer than we read, or took longer than somebody waits."""
    too_much = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.GATEWAY_TIMEOUT}
    return isinstance(error, LidarrTimeoutError) or error.status in too_much


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
