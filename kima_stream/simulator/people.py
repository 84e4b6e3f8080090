"""People who ask for albums, impatiently: several clicks at once, and again when nobody answers."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from uuid import UUID

import aiohttp
import msgspec

from kima_stream.simulator.catalogue import KnownAlbum, KnownArtist
from kima_stream.simulator.records import Records

AGAIN_SECONDS: Final = 0.1


class _Answer(msgspec.Struct):
    id: UUID


class People:
    """Asks through ``POST /api/downloads`` and writes down what was answered."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        records: Records,
        *,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``client`` knows the address and a key of role user."""
        self._client = client
        self._records = records
        self._wait = wait

    async def ask(self, artist: KnownArtist, album: KnownAlbum, *, clicks: int) -> None:
        """Ask for ``album`` by ``clicks`` requests at once; return when all are answered."""
        body = {"artist": artist.name, "album": album.title, "mbid": str(album.mbid)}
        await asyncio.gather(*(self._click(album.mbid, body) for _ in range(clicks)))

    async def _click(self, album: UUID, body: dict[str, str]) -> None:
        wish = self._records.wish(album)
        while True:
            wish.sent += 1
            try:
                async with self._client.post("/api/downloads", json=body) as answer:
                    if answer.status == HTTPStatus.ACCEPTED:
                        wish.jobs.add(msgspec.json.decode(await answer.read(), type=_Answer).id)
                        wish.acknowledged += 1
                        return
                    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                        answer.raise_for_status()
            except aiohttp.ClientResponseError:
                raise
            except (aiohttp.ClientError, OSError):  # TimeoutError is one
                pass  # not answered: it may have been taken or not
            await self._wait(AGAIN_SECONDS)
