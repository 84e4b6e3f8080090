"""What a setting can be: its key, type, default and names, and how a value is read and checked.

A value comes as JSON (HTTP, the table) or as text (environment, command line). The faults say what is
expected and never repeat the value: it may be a secret.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, get_args, get_origin
from urllib.parse import urlsplit

import msgspec

T = TypeVar("T")
Json: TypeAlias = bool | int | str | list[str] | None

MASK: Final = "********"
MAX_CHARACTERS: Final = 4096
MAX_ITEMS: Final = 50
MAX_PORT: Final = 65_535
_WORDS: Final = {
    "yes": True,
    "on": True,
    "true": True,
    "1": True,
    "no": False,
    "off": False,
    "false": False,
    "0": False,
}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}")
_WORD_BREAK: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class Definition(Generic[T]):
    """One setting of type ``T``.

    Args:
        key: its name everywhere but in the environment, in camelCase like the original's.
        default: when neither the database nor the environment has it.
        type: of the value, without None; ``list[str]`` is a tuple in ``T``.
        doc: one sentence, for people.
        is_secret: sealed in the database, masked in every answer, hidden in the log.
        also: names in the environment beside ``KIMA_<KEY>``, those of the original.
        check: returns the value, tidied, or raises ValueError with what is expected.
    """

    key: str
    default: T
    type: object
    doc: str
    is_secret: bool = False
    also: tuple[str, ...] = ()
    check: Callable[[Any], Any] = field(default=lambda value: value)

    @property
    def environment(self) -> tuple[str, ...]:
        """Return its names in the environment, ours first."""
        return (f"KIMA_{_WORD_BREAK.sub('_', self.key).upper()}", *self.also)

    def from_json(self, value: object) -> T:
        """Return the value that JSON gives.

        Raises:
            ValueError: it does not fit; what is expected, without the value.
        """
        if isinstance(value, str) and not value.strip():
            raise ValueError("expected a value; null clears it")
        converted = msgspec.convert(value, self.type)
        _check_text(converted)
        checked = self.check(converted)
        return tuple(checked) if isinstance(checked, list) else checked  # type: ignore[return-value]  # it fits T

    def from_text(self, text: str) -> T:
        """Return the value that the environment or the command line gives.

        Raises:
            ValueError: as above.
        """
        return self.from_json(self.json_of(text))

    def json_of(self, text: str) -> Json:
        """Return the JSON that ``text`` means, whether or not it fits."""
        if self.type is bool:
            return _WORDS.get(text.strip().lower(), text)
        if _base(self.type) is int:
            return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text.strip()) else text
        return text.split() if self.type == list[str] else text

    def to_json(self, value: T) -> Json:
        """Return a value as JSON has it."""
        return list(value) if isinstance(value, tuple) else value  # type: ignore[return-value]  # T is JSON or a tuple

    @property
    def kind(self) -> str:
        """Return what it is in one word, for people."""
        if get_origin(self.type) is Literal:
            return "|".join(get_args(self.type))
        names: dict[object, str] = {bool: "boolean", int: "integer", str: "text"}
        return names.get(_base(self.type), "list")


def _base(kind: object) -> object:
    """Return ``int`` of an annotated ``int``."""
    return getattr(kind, "__origin__", kind) if hasattr(kind, "__metadata__") else kind


def _check_text(value: object) -> None:
    texts = value if isinstance(value, list) else [value]
    if len(texts) > MAX_ITEMS:
        raise ValueError(f"expected at most {MAX_ITEMS} of them")
    for text in texts:
        if isinstance(text, str) and (_CONTROL.search(text) or len(text) > MAX_CHARACTERS):
            raise ValueError(f"expected text of at most {MAX_CHARACTERS} characters without control characters")


def http_url(value: str) -> str:
    """Check a base URL: http or https, a host, no user, query or fragment; trailing slashes go."""
    try:
        parts = urlsplit(value.strip())
        fits = parts.scheme in {"http", "https"} and _HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:
        fits = False
    else:
        fits = fits and not (parts.username or parts.password or parts.query or parts.fragment)
    if not fits or re.search(r"\s|\\", value.strip()):
        raise ValueError("expected a URL like http://host:8686 without user, query or fragment")
    return value.strip().rstrip("/")


def any_urls(values: list[str]) -> list[str]:
    """Check a list of URLs of any scheme, such as Apprise takes."""
    for value in values:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", value):
            raise ValueError("expected URLs like mailto://user:password@example.org")
    return values


def http_urls(values: list[str]) -> list[str]:
    """Check a list of addresses to call, each with whatever it needs to let us in."""
    for value in values:
        if not re.fullmatch(r"https?://\S+", value):
            raise ValueError("expected URLs that begin with http:// or https://")
    return values


def call_url(value: str) -> str:
    """Check one address to call, with whatever it needs to let us in."""
    return http_urls([value.strip()])[0]


def host(value: str) -> str:
    """Check a host name or an address, without a port."""
    if not _HOST.fullmatch(value.strip()):
        raise ValueError("expected a host name or an address")
    return value.strip()


def server(value: str) -> str:
    """Check ``host:port``."""
    name, colon, port = value.strip().rpartition(":")
    if not colon or not _HOST.fullmatch(name.strip("[]")) or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("expected host:port")
    if not 1 <= int(port) <= MAX_PORT:
        raise ValueError(f"expected a port from 1 to {MAX_PORT}")
    return value.strip()


def folder(value: str) -> str:
    """Check an absolute path without ``..``; whether it is there is another question."""
    path = PurePosixPath(value.strip())
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError("expected an absolute path without ..")
    return str(path)


def plain(value: str) -> str:
    """Check a key or name: no blanks around it, and not the mask."""
    if value != value.strip():
        raise ValueError("expected no blanks around it")
    if value == MASK:
        raise ValueError("this is the mask, not a value")
    return value
