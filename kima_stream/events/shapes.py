"""The shape of an event: on its way into the log, and as the log has it."""

from datetime import datetime
from hashlib import sha1
from uuid import UUID

import msgspec
import uuid_utils

_UUID5 = 5 << 76 | 1 << 63  # version and variant
_UUID_BITS = ~(0xF << 76 | 0b11 << 62)  # all the others

NO_STREAM = -1  # the version of a stream that has no event yet


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all facts of our own; ``type`` tells them apart on the wire."""


class NewEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fact on its way into the log.

    ``data`` and ``metadata`` are JSON text and are stored exactly as given.
    ``correlation_id`` None means the event's own id; ``occurred_at`` None means the
    database's clock.
    """

    event_id: UUID
    type: str
    data: str
    source: str
    schema_version: int = 1
    subject: str | None = None
    metadata: str = "{}"
    correlation_id: str | None = None
    causation_id: UUID | None = None
    occurred_at: datetime | None = None


class RecordedEvent(msgspec.Struct, frozen=True, gc=False):
    """A fact as the log has it: who, what, when, and where it stands.

    ``version`` counts from 0 within ``stream``; ``position`` from 1 over the whole log and is
    None until the publisher has numbered the event.
    """

    event_id: UUID
    stream: str
    version: int
    category: str
    type: str
    schema_version: int
    source: str
    subject: str | None
    data: str
    metadata: str
    correlation_id: str
    causation_id: UUID | None
    occurred_at: datetime
    recorded_at: datetime
    position: int | None = None


def stream_category(stream: str) -> str:
    """Return the text before the first ``-``, e.g. ``download_job`` of ``download_job-6f1c``."""
    return stream.partition("-")[0]


def new_event_id() -> UUID:
    """Return a fresh id whose order is roughly that of time (UUIDv7: near in time, near in the index)."""
    return UUID(int=uuid_utils.uuid7().int)


def derived_id(cause: UUID, name: str | bytes) -> UUID:
    """Return the id that ``cause`` gives to its consequence ``name``: handled twice, one event.

    It is ``uuid.uuid5`` of both, at a third of what that costs.
    """
    digest = sha1(cause.bytes + (name.encode() if isinstance(name, str) else name), usedforsecurity=False).digest()
    return UUID(int=int.from_bytes(digest[:16]) & _UUID_BITS | _UUID5)


def is_derived(event_id: UUID) -> bool:
    """Return whether ``derived_id`` may have made it: an id of others like this is not taken as it is."""
    return event_id.version == 5  # noqa: PLR2004 - as above


def new_event(
    fact: Event,
    *,
    event_id: UUID | None = None,
    source: str = "kima-stream",
    subject: str | None = None,
    cause: RecordedEvent | None = None,
    correlation_id: str | None = None,
    metadata: str = "{}",
) -> NewEvent:
    """Return ``fact`` ready to append; ``cause`` gives causation and, unless named, correlation."""
    if correlation_id is None and cause is not None:
        correlation_id = cause.correlation_id
    return NewEvent(
        event_id=event_id or new_event_id(),
        type=event_type(type(fact)),
        data=msgspec.json.encode(fact).decode(),
        source=source,
        subject=subject,
        metadata=metadata,
        correlation_id=correlation_id,
        causation_id=None if cause is None else cause.event_id,
    )


def event_type(cls: type[Event]) -> str:
    """Return the tag of an event class, which is its ``type`` in the log."""
    tag = cls.__struct_config__.tag
    if not isinstance(tag, str):
        message = f"{cls.__name__} has no tag"
        raise TypeError(message)
    return tag


# Streams that only kima-stream writes; what others submit goes to categories that they name.
OWN_CATEGORIES = frozenset(
    {
        "lidarr", "slskd", "soulseek", "download_job", "discovery_batch", "search_session",
        "unmatched", "settings", "user", "effect", "notification",
    }
)  # fmt: skip
