"""What slskd sends: an id of its own, a time, and one of eight types.

Pure. The id makes it one event however often it comes; a transfer that belongs to a batch lies in
the batch's stream, another in its own. A sample event that slskd makes on request has the id zero:
each of those is a fact of its own.
Source: slskd ``Events/Types/Events.cs``, ``Integrations/Webhooks``; tests/fixtures/slskd.
"""

import re
from typing import Final
from uuid import UUID, uuid5

import msgspec

from kima_stream.events import is_derived
from kima_stream.integrations.received import Received, understood
from kima_stream.metrics import OTHER

SOURCE: Final = "slskd"
NAMESPACE: Final = UUID("5c3e5a0f-3d0e-5b52-8f0a-9a1b7e4c2d60")  # of ids that are no UUID: never changes
UNKNOWN: Final = "slskd.unknown"
TYPES: Final = (
    "DownloadFileComplete",
    "DownloadDirectoryComplete",
    "UploadFileComplete",
    "PrivateMessageReceived",
    "RoomMessageReceived",
    "SoulseekClientConnected",
    "SoulseekClientDisconnected",
    "Noop",
)

_NIL: Final = UUID(int=0)
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")


class Transfer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A file on its way; ``size`` in bytes, ``state`` a set joined by ``", "``."""

    id: str
    batch_id: str | None = None
    username: str | None = None
    direction: str | None = None
    filename: str | None = None
    size: int | None = None
    state: str | None = None


class SlskdWebhook(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all types share, and the fields by which ours are told apart."""

    type: str
    id: str | None = None
    timestamp: str | None = None
    username: str | None = None
    local_filename: str | None = None
    remote_filename: str | None = None
    local_directory_name: str | None = None
    remote_directory_name: str | None = None
    transfer: Transfer | None = None


_WEBHOOK: Final = msgspec.json.Decoder(SlskdWebhook)


def decode(data: str | bytes) -> SlskdWebhook:
    """Return the typed webhook of a stored event's data.

    Raises:
        msgspec.ValidationError: it does not fit; it was stored as unknown.
    """
    return _WEBHOOK.decode(data)


def receive(body: bytes) -> Received:
    """Return what the webhook in ``body`` is; its data is the body, byte for byte.

    Raises:
        MalformedBodyError: it is no JSON object that can be kept.
    """
    text, webhook = understood(body, decode)
    if webhook is None:
        return Received(source=SOURCE, type=UNKNOWN, label=OTHER, data=text)
    is_known = webhook.type in TYPES
    transfer = webhook.transfer
    return Received(
        source=SOURCE,
        type=event_type(webhook.type) if is_known else UNKNOWN,
        label=webhook.type if is_known else OTHER,
        data=text,
        name=(transfer.batch_id or transfer.id) if transfer else None,
        event_id=_event_id(webhook.id),
    )


def event_type(label: str) -> str:
    """Return the type of the event that keeps a webhook of slskd's type ``label``."""
    return f"{SOURCE}.{_CAPITAL.sub('_', label).lower()}"


def _event_id(own: str | None) -> UUID | None:
    if not own:
        return None
    try:
        event_id = UUID(own)
    except ValueError:
        return uuid5(NAMESPACE, own)
    if is_derived(event_id):  # as ours are: taken as it is it could stand where a consequence belongs
        return uuid5(NAMESPACE, str(event_id))
    return None if event_id == _NIL else event_id
