"""Reading what was written: stored text to typed facts, old shapes to the current ones.

Pure, and applied on every read. An upcaster is a function from the old JSON object to the next
schema version's; it is kept for ever, with a fixture of the old JSON in its test.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Union

import msgspec

from kima_stream.errors import UndecodableEventError
from kima_stream.events import Event, RecordedEvent

# JSON of any shape: this is the one place where it is still untyped.
type_upcaster = Callable[[dict[str, Any]], dict[str, Any]]

CURRENT_SCHEMA = 1  # of every type not named in UPCASTERS
UPCASTERS: Mapping[tuple[str, int], type_upcaster] = {}  # (type, schema version) -> to the next version


def decode(recorded: RecordedEvent) -> Event:
    """Return the fact in ``recorded``, brought to its current schema.

    Raises:
        UndecodableEventError: no such type, or the data does not fit it; park the stream.
    """
    try:
        if (recorded.type, recorded.schema_version) in UPCASTERS:
            return _upcast(recorded)
        return _decoder().decode(recorded.data)
    except msgspec.MsgspecError as error:
        raise UndecodableEventError(
            type=recorded.type, schema_version=recorded.schema_version, reason=str(error)
        ) from error


def _upcast(recorded: RecordedEvent) -> Event:
    data = msgspec.json.decode(recorded.data, type=dict[str, Any])
    version = recorded.schema_version
    while upcaster := UPCASTERS.get((recorded.type, version)):
        data = upcaster(data)
        version += 1
    return msgspec.convert(data, _union())


@cache
def _decoder() -> msgspec.json.Decoder[Event]:
    return msgspec.json.Decoder(_union())


@cache
def _union() -> type[Event]:
    # Built from the classes themselves, so that a new fact needs no second registration.
    union: type[Event] = Union[tuple(facts())]  # type: ignore[assignment]  # noqa: UP007 - a dynamic union
    return union


def facts(base: type[Event] = Event) -> list[type[Event]]:
    """Return the classes of all facts of our own, each of which is a type of event."""
    children = base.__subclasses__()
    return [leaf for child in children for leaf in facts(child)] if children else [base]
