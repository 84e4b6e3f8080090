"""CloudEvents in the log: what becomes of one on the way in, and how any event goes out as one.

Pure. The attributes as they were sent lie in the event's metadata, so that it goes out as it came
in; an event that came in another way goes out as a CloudEvent of our making.
"""

import re
from typing import Final
from uuid import UUID, uuid5

import msgspec

from kima_stream.events import NewEvent, RecordedEvent, is_derived
from kima_stream.http import cloudevents
from kima_stream.http.cloudevents import CloudEvent, Scalar

NAMESPACE: Final = UUID("8d9fb4ce-2f0e-5f0b-9d34-5d3f2b9f0a11")  # of ids made from (source, id)

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_MAY_CHANGE: Final = frozenset({"time", "traceparent", "tracestate"})  # from try to try of the same event


class _Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the metadata of an event keeps of how it was sent, and by whom."""

    cloudevent: dict[str, Scalar]
    submitted_by: str = ""
    is_base64: bool = False
    has_no_data: bool = False


def event_id(source: str, sent_id: str) -> UUID:
    """Return the id itself if it is written as a UUID, else the one that (source, id) gives.

    So does one of version 5: those are what our consequences get, and nobody is to take their place beforehand.
    """
    sent = _uuid(sent_id)
    if sent is None:
        return uuid5(uuid5(NAMESPACE, source), sent_id)
    return uuid5(uuid5(NAMESPACE, source), str(sent)) if is_derived(sent) else sent


def _uuid(text: str) -> UUID | None:
    return UUID(text) if _UUID.fullmatch(text) else None


def to_new_event(event: CloudEvent, *, correlation_id: str | None, submitted_by: str) -> NewEvent:
    """Return ``event`` ready to append; ``correlation_id`` is for one that names none."""
    kept = _Kept(event.attributes, submitted_by, is_base64=event.is_base64, has_no_data=event.data is None)
    causation = event.text("causationid")
    return NewEvent(
        event_id=event_id(event.source, event.id),
        type=str(event.attributes["type"]),
        data="null" if event.data is None else event.data,
        source=event.source,
        subject=event.text("subject"),
        metadata=msgspec.json.encode(kept).decode(),
        correlation_id=event.text("correlationid") or correlation_id,
        causation_id=(_uuid(causation) or event_id(event.source, causation)) if causation else None,
        occurred_at=cloudevents.moment(event),
    )


def from_recorded(event: RecordedEvent) -> CloudEvent:
    """Return an event of the log as it was sent, or as the CloudEvent it would have been."""
    try:
        kept = msgspec.json.decode(event.metadata, type=_Kept)
    except msgspec.ValidationError:
        return CloudEvent(attributes=_attributes(event), data=event.data)
    data = None if kept.has_no_data else event.data
    return CloudEvent(attributes=kept.cloudevent, data=data, is_base64=kept.is_base64)


def is_same(one: CloudEvent, other: CloudEvent) -> bool:
    """Return whether both say the same, apart from what may change when an event is sent again."""
    return _essence(one) == _essence(other) and cloudevents.content(one) == cloudevents.content(other)


def _essence(event: CloudEvent) -> dict[str, str | None]:
    values = {name: event.text(name) for name in event.attributes if name not in _MAY_CHANGE}
    return {"datacontenttype": cloudevents.JSON} | values


def _attributes(event: RecordedEvent) -> dict[str, Scalar]:
    values: dict[str, Scalar | None] = {
        "specversion": "1.0",
        "id": str(event.event_id),
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.occurred_at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": cloudevents.JSON,
        "stream": event.stream,
        "correlationid": event.correlation_id,
        "causationid": None if event.causation_id is None else str(event.causation_id),
    }
    return {name: value for name, value in values.items() if value is not None}
