"""What really happened, and what was said about it: the records that judge.

Kept by the simulator alone. Nobody asks the judged one what should be true.
"""

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

ERROR: Final = 400  # from here on Lidarr takes a status for a failure

Kind = Literal["test", "grab", "import", "failure", "import_failure", "artist_add"]
Outcome = Literal["acknowledged", "refused", "lost"]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to albums, once; ``body`` is the webhook that tells it."""

    number: int
    kind: Kind
    at: datetime
    albums: tuple[UUID, ...]
    download_id: str | None
    files: int
    body: bytes


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One try to tell a fact; ``event_id`` as the receiver answered it, None when it did not."""

    fact: int
    outcome: Outcome
    status: int | None = None
    event_id: UUID | None = None
    is_repeat: bool = False


class Wish(msgspec.Struct, kw_only=True):
    """An album that people asked for: how often, what was answered."""

    album: UUID
    sent: int = 0
    acknowledged: int = 0
    jobs: set[UUID] = set()


class ApiCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the REST API; ``status`` 0 when it never reached Lidarr, ``is_lost`` when its answer was."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    body: bytes
    status: int
    is_lost: bool = False


class Records:
    """All facts, all deliveries and all calls, in order, and what people asked for."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self.facts: list[Fact] = []
        self.deliveries: list[Delivery] = []
        self.wishes: dict[UUID, Wish] = {}
        self.calls: list[ApiCall] = []

    def happened(
        self,
        kind: Kind,
        at: datetime,
        body: bytes,
        *,
        albums: tuple[UUID, ...] = (),
        download_id: str | None = None,
        files: int = 0,
    ) -> Fact:
        """Write down a fact before anybody is told."""
        fact = Fact(
            number=len(self.facts),
            kind=kind,
            at=at,
            albums=albums,
            download_id=download_id,
            files=files,
            body=body,
        )
        self.facts.append(fact)
        return fact

    def told(self, fact: Fact, *, undelivered: Literal["refused", "lost"] = "refused", status: int | None = None,
             event_id: UUID | None = None, is_repeat: bool = False) -> Delivery:  # fmt: skip
        """Write down one try: a status below 400 is an acknowledgement, as Lidarr sees it."""
        delivery = Delivery(
            fact=fact.number,
            outcome="acknowledged" if status is not None and status < ERROR else undelivered,
            status=status,
            event_id=event_id,
            is_repeat=is_repeat,
        )
        self.deliveries.append(delivery)
        return delivery

    def wish(self, album: UUID) -> Wish:
        """Return what is known about the wish for ``album``, empty at first."""
        return self.wishes.setdefault(album, Wish(album=album))

    def acknowledged(self) -> set[int]:
        """Return the numbers of the facts that somebody took."""
        return {delivery.fact for delivery in self.deliveries if delivery.outcome == "acknowledged"}

    def count(self, outcome: Outcome) -> int:
        """Return how many tries ended like this."""
        return sum(delivery.outcome == outcome for delivery in self.deliveries)
