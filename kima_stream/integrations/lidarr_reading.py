"""How every part of Lidarr's client reads: lists, single things that may be gone, resources kept whole."""

from http import HTTPStatus
from typing import Final, TypeVar

import msgspec

from kima_stream.integrations.lidarr_http import ORDINARY_SECONDS, LidarrError, Query, Transport
from kima_stream.integrations.lidarr_types import Json, Whole

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)

_BODIES: Final = msgspec.json.Decoder(list[dict[str, object]])
_BODY: Final = msgspec.json.Decoder(dict[str, object])


class Reader:
    """Base of the parts: one transport."""

    def __init__(self, transport: Transport) -> None:
        """Take the way to Lidarr."""
        self.transport = transport

    async def _list(
        self,
        endpoint: str,
        decoder: "msgspec.json.Decoder[tuple[T, ...]]",
        query: Query | None = None,
        seconds: float = ORDINARY_SECONDS,
    ) -> tuple[T, ...]:
        return decoded(decoder, await self.transport.read(endpoint, query=query, seconds=seconds))

    async def _wholes(
        self, endpoint: str, of: type[R], query: Query | None = None, seconds: float = ORDINARY_SECONDS
    ) -> tuple[Whole[R], ...]:
        bodies = decoded(_BODIES, await self.transport.read(endpoint, query=query, seconds=seconds))
        return tuple(_whole(body, of) for body in bodies)

    async def _one_or_none(self, endpoint: str, decoder: "msgspec.json.Decoder[T]", number: int) -> T | None:
        try:
            return decoded(decoder, await self.transport.read(endpoint, number=number))
        except LidarrError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise


def decoded(decoder: "msgspec.json.Decoder[T]", content: bytes) -> T:
    """Return what an answer says.

    Raises:
        LidarrError: it is not of the kind that Lidarr documents; not retryable.
    """
    try:
        found: T = decoder.decode(content)
    except msgspec.DecodeError as error:
        raise LidarrError(f"answered what does not fit: {error}", retryable=False) from None
    return found


def decoded_whole(content: bytes, of: type[R]) -> Whole[R]:
    """Return the one resource of an answer with all its fields.

    Raises:
        LidarrError: as above.
    """
    return _whole(decoded(_BODY, content), of)


def _whole(body: Json, of: type[R]) -> Whole[R]:
    try:
        return Whole(resource=msgspec.convert(body, of), body=body)
    except msgspec.ValidationError as error:
        raise LidarrError(f"answered what does not fit: {error}", retryable=False) from None
