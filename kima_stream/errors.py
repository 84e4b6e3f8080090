"""The one tree of errors; every class says what to do next.

    KimaStreamError
    ├── UserFacingError            the caller's mistake; carries the HTTP status to answer with
    │   ├── NotFoundError          404
    │   ├── ConflictError          409
    │   └── ErasedUserError        409, this user was erased; nothing of theirs is taken any more
    ├── IntegrationError           an outside system failed; ``retryable`` says whether it may heal
    ├── ConfigurationError         a setting is missing or wrong; a human must change it
    ├── RateLimitError             too fast; wait ``retry_after_seconds``
    ├── WrongExpectedVersionError  the stream moved on; read again and decide again
    ├── DuplicateEventError        the fact is in the log already; treat it as done
    ├── UndecodableEventError      a stored event does not fit its type; the stream is parked
    ├── FencedError                another process took the lease; stop and stand by
    ├── SealError                  a sealed value was changed, or its key is not ours; never garbage
    └── ForkedLogError             the log was replaced by another past; a human must decide

Imports nothing of ours.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec


class KimaStreamError(Exception):
    """Base of everything that kima-stream raises on purpose."""


class UserFacingError(KimaStreamError):
    """The caller can mend it; ``detail`` tells how, in words fit for a person."""

    def __init__(self, detail: str, *, status: int = 400, code: str = "invalid") -> None:
        """Keep what the answer needs: the HTTP status and a code that never changes."""
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code


class NotFoundError(UserFacingError):
    """There is no such thing, or it is not the caller's to see."""

    def __init__(self, detail: str) -> None:
        """Answer 404."""
        super().__init__(detail, status=404, code="not_found")


class ConflictError(UserFacingError):
    """What is asked contradicts what is recorded already."""

    def __init__(self, detail: str) -> None:
        """Answer 409."""
        super().__init__(detail, status=409, code="conflict")


class ErasedUserError(UserFacingError):
    """The key of this user is destroyed for ever; somebody who comes back is a new user."""

    def __init__(self) -> None:
        """Answer 409, without naming anybody."""
        super().__init__("This user was erased; nothing was stored.", status=409, code="user_erased")


class IntegrationError(KimaStreamError):
    """An outside system failed us; ``retryable`` is true when it may heal by itself.

    ``nothing_done`` is true when the call surely had no effect: it was not sent, or refused unread.
    ``retry_after_seconds`` is how long it asked us to wait, if it did.
    """

    def __init__(
        self,
        detail: str,
        *,
        system: str,
        retryable: bool,
        nothing_done: bool = False,
        retry_after_seconds: float | None = None,
    ) -> None:
        """Name the system, e.g. ``lidarr``."""
        super().__init__(f"{system}: {detail}")
        self.detail = detail
        self.system = system
        self.retryable = retryable
        self.nothing_done = nothing_done
        self.retry_after_seconds = retry_after_seconds


class ConfigurationError(KimaStreamError):
    """The start or the call stops here: each fault names its setting and its remedy."""

    def __init__(self, faults: Sequence[str]) -> None:
        """Hold all faults at once, so that one round mends them all."""
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)


class RateLimitError(KimaStreamError):
    """Too many calls; nothing was done."""

    def __init__(self, *, retry_after_seconds: int) -> None:
        """Say how long to wait."""
        super().__init__(f"too many requests, try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class WrongExpectedVersionError(KimaStreamError):
    """The stream moved on between our read and our append; nothing was written, safe to retry."""

    def __init__(self, *, stream: str, expected_version: int, actual_version: int) -> None:
        """Keep both versions: -1 means that there is no such stream."""
        super().__init__(f"{stream} is at version {actual_version}, not {expected_version}")
        self.stream = stream
        self.expected_version = expected_version
        self.actual_version = actual_version


class EventRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event stands in the log."""

    event_id: UUID
    stream: str
    version: int


class DuplicateEventError(KimaStreamError):
    """All ids are in the log already; ``originals`` says where, in the order asked."""

    def __init__(self, originals: Sequence[EventRef]) -> None:
        """Keep the originals: their answer is the answer."""
        super().__init__(f"{len(originals)} event(s) are in the log already")
        self.originals = tuple(originals)


class TornAppendError(KimaStreamError):
    """Some ids are in the log and some are not: a defect of the caller; nothing was written."""

    def __init__(self, known: Sequence[EventRef]) -> None:
        """Keep those that are known."""
        super().__init__(f"{len(known)} of the ids are in the log already, the others are not")
        self.known = tuple(known)


class UndecodableEventError(KimaStreamError):
    """A stored event does not fit its type: a missing upcaster or a defect; park the stream."""

    def __init__(self, *, type: str, schema_version: int, reason: str) -> None:  # noqa: A002 - the field's name everywhere
        """Name the type and the reason, never the payload."""
        super().__init__(f"{type} (schema {schema_version}) cannot be decoded: {reason}")
        self.type = type
        self.schema_version = schema_version


class FencedError(KimaStreamError):
    """The lease is somebody else's now; whatever we were about to write was not written."""

    def __init__(self, *, lease: str, epoch: int) -> None:
        """Name the lease and the epoch that is over."""
        super().__init__(f"lease {lease} has moved on from epoch {epoch}")
        self.lease = lease
        self.epoch = epoch


class SealError(KimaStreamError):
    """A sealed value does not open; it is never guessed at. Set it again, or give the right root."""

    def __init__(self, name: str, reason: str) -> None:
        """Name what was sealed and why it does not open, never the value."""
        super().__init__(f"{name} cannot be opened: {reason}")
        self.name = name
        self.reason = reason


class ForkedLogError(KimaStreamError):
    """The log is not the one that this group read: Postgres was restored or failed over to a shorter past.

    Nothing is handled until a human decides; ``replay GROUP --apply`` builds the read model anew.
    """

    def __init__(self, *, group: str, position: int) -> None:
        """Name the group and the position at which its past and the log's differ."""
        super().__init__(
            f"the chain at position {position} is not the one that group {group} verified: the log was replaced"
        )
        self.group = group
        self.position = position
