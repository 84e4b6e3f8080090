"""What every sender's webhook has in common: the checks of the body, its name in the log, its id.

Pure. A body that passes ``checked_object`` is taken by Postgres' ``json`` as it stands, so that
one bad webhook can never fail a commit that it shares with others.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from kima_stream.errors import UserFacingError
from kima_stream.events import NewEvent, derived_id, new_event_id

MAX_DEPTH: Final = 128  # arrays and objects within each other; readers in other languages stop near there
MAX_NAME_BYTES: Final = 400  # of the sender's own id in a stream name; the table takes 512 for the whole name

T = TypeVar("T")

_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class MalformedBodyError(UserFacingError):
    """The body cannot be kept: nothing was stored; the sender has to mend it."""

    def __init__(self, detail: str) -> None:
        """Answer 400."""
        super().__init__(detail, status=400, code="malformed_body")


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook, understood as far as it can be.

    ``key`` is what makes two deliveries the same fact, None when each is a fact of its own;
    ``name`` is the sender's id that names the stream, None when there is none.
    ``is_in_rounds``: the same key may come back as a new fact, see ``lidarr_webhooks``.
    """

    source: str
    type: str
    label: str  # of the metrics: the sender's own word, or "other"
    data: str
    name: str | None = None
    key: tuple[object, ...] | None = None
    event_id: UUID | None = None
    is_in_rounds: bool = False

    def stream(self, event_id: UUID) -> str:
        """Return the stream of this fact, a valid name whatever the sender's id holds."""
        return stream_name(self.source, self.name, event_id)

    def identify(self, namespace: UUID, *, round: int = 0) -> UUID:  # noqa: A002 - the word of the contract
        """Return the id: the sender's own, else derived from ``key`` and ``round``, else a fresh one."""
        if self.event_id is not None:
            return self.event_id
        if self.key is None:
            return new_event_id()
        return derived_id(namespace, msgspec.json.encode([self.type, *self.key, round]))

    def new_event(self, event_id: UUID, *, metadata: str, correlation_id: str | None) -> NewEvent:
        """Return the fact ready to append: the body byte for byte, and what we know about its way."""
        return NewEvent(
            event_id=event_id,
            type=self.type,
            data=self.data,
            source=self.source,
            metadata=metadata,
            correlation_id=correlation_id,
        )


def stream_name(category: str, name: str | None, event_id: UUID) -> str:
    """Return ``<category>-<name>``; without a name the event's id, with an impossible one its hash.

    Postgres takes no NUL in a text and the table no name above 512 bytes.
    """
    if not name:
        return f"{category}-{event_id}"
    encoded = name.encode()
    if b"\0" in encoded or len(encoded) > MAX_NAME_BYTES:
        return f"{category}-sha256:{sha256(encoded).hexdigest()}"
    return f"{category}-{name}"


def understood(body: bytes, decode: Callable[[bytes], T]) -> tuple[str, T | None]:
    """Return ``body`` as text, unchanged, and as what ``decode`` makes of it, None if it does not fit.

    ``decode`` reads all of the body as msgspec does, so that what it takes is one JSON object that can be kept.

    Raises:
        MalformedBodyError: invalid UTF-8, nested too deep, not JSON, or not an object.
    """
    text = _checked_text(body)
    try:
        return text, decode(body)
    except msgspec.DecodeError:
        _check_object(body)
        return text, None


def checked_object(body: bytes) -> str:
    """Return ``body`` as text, unchanged, once it is known to be one JSON object that can be kept.

    Raises:
        MalformedBodyError: invalid UTF-8, nested too deep, not JSON, or not an object.
    """
    text = _checked_text(body)
    _check_object(body)
    return text


def _checked_text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8: byte {error.start} is invalid."
        raise MalformedBodyError(detail) from None
    if is_too_deep(body):
        detail = f"The body nests arrays and objects deeper than {MAX_DEPTH}."
        raise MalformedBodyError(detail)
    return text


def _check_object(body: bytes) -> None:
    try:
        _OBJECT.decode(body)
    except msgspec.ValidationError:
        detail = "The body is JSON, but not an object."
        raise MalformedBodyError(detail) from None
    except msgspec.DecodeError as error:
        detail = f"The body is not JSON: {error}."
        raise MalformedBodyError(detail) from None


def is_too_deep(body: bytes) -> bool:
    """Return whether ``body`` nests deeper than ``MAX_DEPTH``, in time linear in its size."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        innermost_taken = brackets.replace(b"[]", b"")
        if len(innermost_taken) == len(brackets):
            break
        brackets = innermost_taken
    return brackets.count(b"[") > 0
