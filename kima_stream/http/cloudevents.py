"""CloudEvents 1.0 over HTTP: structured, binary and batch, in and out, without changing a byte of the data.

Pure. JSON data stays the text it came in; anything else becomes base64 in a JSON string, so that
the log can hold it. A value that Postgres, an index or a header cannot take is refused here.

Source: CloudEvents core, JSON format and HTTP binding, version 1.0.2.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from kima_stream.errors import UserFacingError
from kima_stream.integrations.received import is_too_deep

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
FAMILY: Final = "application/cloudevents"  # of all structured modes, also those we do not speak
JSON: Final = "application/json"
MAX_BATCH: Final = 1_000
MAX_ATTRIBUTES: Final = 64
MAX_ATTRIBUTE_BYTES: Final = 2_048  # percent-encoded it still fits the line of a header
MAX_TYPE_BYTES: Final = 256  # the column's
MAX_STREAM_BYTES: Final = 512  # the column's
MAX_CORRELATION_BYTES: Final = 512  # below what an index takes
_MAX_INTEGER: Final = 2**31  # CloudEvents' Integer is of 32 bits

_STREAM: Final = re.compile(r"[a-z][a-z0-9_]{0,62}-.+")
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # CloudEvents' String has none of them
_REQUIRED: Final = ("specversion", "id", "source", "type")
_TEXTS: Final = (
    *_REQUIRED,
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "stream",
    "correlationid",
    "causationid",
)
_QUOTED: Final = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*')
_UNCHANGED: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')  # in a header

Scalar: TypeAlias = str | int | bool
_Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event as sent: ``data`` is JSON text, None without any; ``is_base64``: it is a string of base64."""

    attributes: dict[str, Scalar]
    data: str | None = None
    is_base64: bool = False

    def text(self, name: str) -> str | None:
        """Return an attribute as text, None without it."""
        value = self.attributes.get(name)
        return ("true" if value else "false") if isinstance(value, bool) else None if value is None else str(value)

    @property
    def source(self) -> str:
        """Where it happened; with ``id`` its identity."""
        return str(self.attributes["source"])

    @property
    def id(self) -> str:
        """Its sender's own id."""
        return str(self.attributes["id"])

    @property
    def stream(self) -> str:
        """Its stream: the extension ``stream``, else one for its subject, else one for its source."""
        named = self.text("stream")
        return named or f"external-{sha256((self.text('subject') or self.source).encode()).hexdigest()[:32]}"


def from_structured(body: bytes) -> CloudEvent:
    """Return the event of a body of type STRUCTURED.

    Raises:
        UserFacingError: 400, it is no CloudEvent; the fault is named.
    """
    return _from_members(_decode(body, dict[str, msgspec.Raw]))


def from_batch(body: bytes) -> list[CloudEvent]:
    """Return the events of a body of type BATCH, at most MAX_BATCH; raises as ``from_structured`` does."""
    items = _decode(body, list[dict[str, msgspec.Raw]])
    if len(items) > MAX_BATCH:
        raise UserFacingError(f"A batch holds at most {MAX_BATCH} events.", status=413, code="too_large")
    return [_from_members(members) for members in items]


def from_binary(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Return the event of ``ce-*`` headers and a body that is the data itself; raises as ``from_structured`` does."""
    attributes: dict[str, Scalar] = {}
    for header, value in headers.items():
        name = header.lower().removeprefix("ce-")
        if name == header.lower() or name == "datacontenttype":
            continue
        if name in attributes:
            raise _fault(f"header ce-{name} comes twice")
        attributes[name] = _from_header(name, value)
    content_type = headers.get("Content-Type")
    if content_type:
        attributes["datacontenttype"] = content_type
    _check(attributes)
    if not body:
        return CloudEvent(attributes=attributes)
    if not is_json(content_type) or (not content_type and not _holds_json(body)):
        return CloudEvent(attributes=attributes, data=f'"{b64encode(body).decode()}"', is_base64=True)
    return with_json(attributes, body)


def with_json(attributes: dict[str, Scalar], data: bytes) -> CloudEvent:
    """Return the event of ``attributes`` and JSON ``data``; raises as ``from_structured`` does."""
    _check(attributes)
    _decode(data, msgspec.Raw)
    return CloudEvent(attributes=attributes, data=data.decode())


def is_binary(headers: Iterable[str]) -> bool:
    """Return whether any of these header names says that a CloudEvent comes in binary mode."""
    return any(name.lower().startswith("ce-") for name in headers)


def to_structured(event: CloudEvent) -> bytes:
    """Return ``event`` in the JSON format; JSON data goes out byte for byte."""
    members: dict[str, Any] = dict(event.attributes)
    if event.data is not None:
        members["data_base64" if event.is_base64 else "data"] = msgspec.Raw(event.data.encode())
    return msgspec.json.encode(members)


def to_batch(events: Iterable[CloudEvent]) -> bytes:
    """Return ``events`` in the JSON batch format."""
    return b"[" + b",".join(to_structured(event) for event in events) + b"]"


def to_binary(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Return headers and body of ``event`` in binary mode."""
    headers = {
        f"ce-{name}": quote(event.text(name) or "", safe=_UNCHANGED)
        for name in event.attributes
        if name != "datacontenttype"
    }
    body = content(event)
    content_type = event.text("datacontenttype") or (JSON if body and not event.is_base64 else None)
    return (headers | {"Content-Type": content_type} if content_type else headers), body


def content(event: CloudEvent) -> bytes:
    """Return the data itself, as binary mode carries it."""
    if event.data is None:
        return b""
    if event.is_base64:
        return b64decode(msgspec.json.decode(event.data, type=str))
    if event.data.startswith('"') and not is_json(event.text("datacontenttype")):
        return msgspec.json.decode(event.data, type=str).encode()  # a text that the JSON format carries as a string
    return event.data.encode()


def is_json(content_type: str | None) -> bool:
    """Return whether data of this type is JSON; without a type it is."""
    media = (content_type or JSON).partition(";")[0].strip().lower()
    return media.endswith(("/json", "+json"))


def moment(event: CloudEvent) -> datetime | None:
    """Return the attribute ``time`` in UTC, None without one.

    Raises:
        UserFacingError: 400, it is not RFC 3339, or beyond what a date can be.
    """
    text = event.text("time")
    return None if text is None else _moment(text)


def _from_members(members: dict[str, msgspec.Raw]) -> CloudEvent:
    data, base64 = members.pop("data", None), members.pop("data_base64", None)
    attributes = {name: _scalar(name, bytes(value)) for name, value in members.items() if bytes(value) != b"null"}
    _check(attributes)
    if base64 is None or bytes(base64) == b"null":
        return CloudEvent(attributes=attributes, data=None if data is None else bytes(data).decode())
    if data is not None and bytes(data) != b"null":
        raise _fault("it has both data and data_base64")
    return CloudEvent(attributes=attributes, data=_checked_base64(bytes(base64)), is_base64=True)


def _scalar(name: str, raw: bytes) -> Scalar:
    try:
        value: Scalar = msgspec.json.decode(raw, type=str | int | bool)
    except msgspec.MsgspecError:
        raise _fault(f"attribute {name} is neither a string nor an integer nor a boolean") from None
    if isinstance(value, int) and not -_MAX_INTEGER <= value < _MAX_INTEGER:
        raise _fault(f"attribute {name} is an integer of more than 32 bits")
    return value


def _holds_json(body: bytes) -> bool:
    try:
        _decode(body, msgspec.Raw)
    except UserFacingError:
        return False
    return True


def _from_header(name: str, value: str) -> str:
    quoted = _QUOTED.fullmatch(value)
    text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _fault(f"header ce-{name} is not percent-encoded UTF-8") from None


def _checked_base64(raw: bytes) -> str:
    try:
        b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.MsgspecError, Base64Error, ValueError):
        raise _fault("data_base64 is not a string of base64") from None
    return raw.decode()


def _check(attributes: Mapping[str, Scalar]) -> None:
    missing = [name for name in _REQUIRED if attributes.get(name, "") == ""]
    if missing:
        raise _fault(f"it lacks {', '.join(missing)}")
    if attributes["specversion"] != "1.0":
        raise _fault("specversion is not 1.0")
    if len(attributes) > MAX_ATTRIBUTES:
        raise _fault(f"it has more than {MAX_ATTRIBUTES} attributes")
    for name in _TEXTS:
        if not isinstance(attributes.get(name, ""), str):
            raise _fault(f"attribute {name} is not a string")
    for name, value in attributes.items():
        _check_attribute(name, value)
    _check_limits(attributes)


def _check_attribute(name: str, value: Scalar) -> None:
    if not _NAME.fullmatch(name):
        raise _fault("an attribute's name is 1 to 64 lower-case letters and digits")
    if not isinstance(value, str):
        return
    if _UNPRINTABLE.search(value):
        raise _fault(f"attribute {name} holds a control character or half a surrogate pair")
    if len(value.encode()) > MAX_ATTRIBUTE_BYTES:
        raise _fault(f"attribute {name} is longer than {MAX_ATTRIBUTE_BYTES} bytes")


def _check_limits(attributes: Mapping[str, Scalar]) -> None:
    for name, limit in (
        ("type", MAX_TYPE_BYTES),
        ("stream", MAX_STREAM_BYTES),
        ("correlationid", MAX_CORRELATION_BYTES),
    ):
        if len(str(attributes.get(name, "")).encode()) > limit:
            raise _fault(f"{name} is longer than {limit} bytes")
    if "stream" in attributes and not _STREAM.fullmatch(str(attributes["stream"])):
        raise _fault("stream is not <category>-<id>, e.g. order-4711")
    if "time" in attributes:
        _moment(str(attributes["time"]))


def _moment(text: str) -> datetime:
    try:
        return msgspec.convert(text, _Moment).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise _fault("time is not RFC 3339, e.g. 2026-11-24T02:00:00Z") from None


def _decode(body: bytes, shape: Any) -> Any:  # noqa: ANN401 - as the caller's shape says
    if is_too_deep(body):
        raise _fault("it nests too deep")
    try:
        body.decode()
        return msgspec.json.decode(body, type=shape)
    except UnicodeDecodeError:
        raise _fault("it is not UTF-8") from None
    except msgspec.MsgspecError as error:
        raise _fault(str(error)) from None


def _fault(reason: str) -> UserFacingError:
    return UserFacingError(f"This is no CloudEvent: {reason}.", status=400, code="malformed_cloudevent")
