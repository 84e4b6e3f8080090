"""Where a page of a list ends, as opaque text: ``next`` of one answer is ``after`` of the next request."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from kima_stream.errors import UserFacingError

S = TypeVar("S", bound=msgspec.Struct)


def encode(cursor: msgspec.Struct) -> str:
    """Return ``cursor`` as text for a query."""
    return urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def decode(text: str | None, kind: type[S]) -> S | None:
    """Return the cursor that ``encode`` made, None for the first page.

    Raises:
        UserFacingError: 422, it is none of ours.
    """
    if text is None:
        return None
    try:
        return msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=kind)
    except (ValueError, msgspec.DecodeError):
        raise UserFacingError("Query: `after` is not the `next` of a page.", status=422, code="invalid") from None
