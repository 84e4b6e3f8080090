"""Log lines: for a person on a terminal, JSON for a machine; never a secret.

Lines go to stderr, so that a command's answer has stdout to itself. ``correlation_id`` and whatever
else is bound at the edge comes along by contextvars. A secret is known by its name, by its looks, or
because whoever holds it said so (``hide``). Imports nothing of ours.
"""

import json
import logging
import re
import sys
from base64 import b64encode
from collections.abc import Collection, Iterator
from typing import Literal
from urllib.parse import quote, quote_plus

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "***"
# By the name of the value: whatever holds one of these words is not for a log.
_SECRET_NAME = re.compile(r"secret|passw|token|api_?key|authorization|cookie|credential|dsn|_url$", re.IGNORECASE)
_NOT_SECRET = frozenset({"key_id", "url_base"})
MIN_HIDDEN = 4  # characters; to hide less would make the log unreadable
# By its looks, wherever it stands: our keys, and a user with a password in a URL.
_SECRET_LOOKS = re.compile(r"kima_[0-9a-f]{64}|(?<=://)[^/@\s]*:[^/@\s]+(?=@)")


def configure(log_format: Literal["auto", "console", "json"] = "auto", level: str = "info") -> None:
    """Set up structlog and the logging of the libraries, once, in the composition root."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    minimum = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # here, on the console too: what is text by now can be redacted
        redact,
    ]
    renderer: Processor = (
        # Plain: a pretty traceback prints local variables, and those hold payloads.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(minimum),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[*shared[:2], structlog.stdlib.ExtraAdder(), *shared[2:]],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(minimum, logging.WARNING), force=True)


class _Hidden:
    """The secrets that somebody said, and one expression for all their spellings."""

    def __init__(self) -> None:
        self._now: dict[str, frozenset[str]] = {}
        self._before: dict[str, frozenset[str]] = {}
        self.spellings: re.Pattern[str] | None = None

    def say(self, owner: str, secrets: Collection[str]) -> None:
        fresh = frozenset(secret for secret in secrets if len(secret) >= MIN_HIDDEN)
        if fresh == self._now.get(owner, frozenset()):
            return
        self._before[owner], self._now[owner] = self._now.get(owner, frozenset()), fresh
        every = frozenset[str]().union(*self._now.values(), *self._before.values())
        spellings = {spelling for secret in every for spelling in _spellings(secret)}
        longest_first = sorted(spellings, key=lambda spelling: (-len(spelling), spelling))
        self.spellings = re.compile("|".join(map(re.escape, longest_first))) if spellings else None


_hidden = _Hidden()


def hide(owner: str, secrets: Collection[str]) -> None:
    """Hide ``secrets`` and their common encodings from every line, from now on.

    The next call of the same ``owner`` takes their place, but those of the call before stay hidden: somebody
    may still be using them.
    """
    _hidden.say(owner, secrets)


def _spellings(secret: str) -> Iterator[str]:
    """Return ``secret`` as it may stand in a line: plain, escaped, quoted for URLs, in hex, within base64."""
    raw = secret.encode("utf-8", "surrogatepass")
    escaped = {secret, *_escaped(secret), repr(raw)[2:-1]}
    yield from escaped.union(*map(_escaped, escaped))  # JSON in JSON, JSON in a repr
    yield from (raw.hex(), raw.hex().upper())
    yield from (quote(raw), quote(raw, safe=""), quote_plus(raw))
    for offset in range(3):  # a user name may stand before it, as in Basic authentication
        # Only the characters that are all the secret's own: its neighbours have a part in the others.
        encoded = b64encode(bytes(offset) + raw).decode()[-(-offset * 8 // 6) : (offset + len(raw)) * 8 // 6]
        if len(encoded) > MIN_HIDDEN:
            yield from (encoded, encoded.replace("+", "-").replace("/", "_"))


def _escaped(text: str) -> set[str]:
    return {repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide what is secret by its name, by its looks, or because somebody said so; in nested values too."""
    for name, value in event.items():
        if not name.startswith("_"):  # structlog's own
            event[name] = HIDDEN if _is_secret(name) and value else _without_secrets(value)
    return event


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and name not in _NOT_SECRET and _SECRET_NAME.search(name) is not None


def _without_secrets(value: object) -> object:
    match value:
        case bool() | int() | float() | None:
            return value
        case str():
            return _without_secret_text(value)
        case bytes():
            return f"{len(value)} bytes"
        case dict():
            return {
                _without_secrets(name): HIDDEN if _is_secret(name) and inner else _without_secrets(inner)
                for name, inner in value.items()
            }
        case list() | tuple():
            return [_without_secrets(inner) for inner in value]
        case _:
            return _without_secret_text(str(value) if isinstance(value, BaseException) else repr(value))


def _without_secret_text(text: str) -> str:
    text = _SECRET_LOOKS.sub(HIDDEN, text)
    return text if _hidden.spellings is None else _hidden.spellings.sub(HIDDEN, text)
