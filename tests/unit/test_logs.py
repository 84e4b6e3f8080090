"""A log line tells what happened, and never a secret."""

import json
import logging
from base64 import b64encode, urlsafe_b64encode
from types import SimpleNamespace
from typing import Literal
from urllib.parse import quote, urlencode

import pytest
import structlog

from kima_stream import logs

KEY = "kima_" + "ab" * 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", "abc"),
        ("lidarr_api_key", "abc"),
        ("password", "abc"),
        ("X-Webhook-Secret", "abc"),
        ("Authorization", "Basic abc"),
        ("dsn", "abc"),
        ("database_url", "abc"),
        ("note", f"made {KEY} for abc"[:-4]),
        ("note", "postgresql://kima:abc@db/kima"),
        ("headers", {"Cookie": "abc", "Host": "here"}),
        ("nested", [{"token": "abc"}]),
        ("body", b"abc"),
    ],
)
def test_a_secret_is_hidden_by_its_name_or_its_looks(name: str, value: object) -> None:
    """Whatever a caller hands over, the line has no secret."""
    event = logs.redact(None, "info", {"event": "tried", name: value})

    assert "abc" not in str(event)
    assert KEY not in str(event)


def test_what_is_no_secret_is_kept() -> None:
    """A line that hides everything tells nothing."""
    event = {"event": "key_created", "key_id": "7", "stream": "lidarr-1", "position": 4, "url": "http://here/x"}

    assert logs.redact(None, "info", dict(event)) == event


def test_json_lines_have_the_correlation_id_and_the_traceback_without_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is bound at the edge is in every line; an error's local variables are in none."""
    logs.configure("json", "info")
    log = structlog.get_logger("test")
    payload = "what somebody sent"

    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        log.debug("not_shown")
        try:
            len(payload) / 0
        except ZeroDivisionError:
            log.exception("handling_failed", stream="lidarr-1")

    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["correlation_id"]) == ("handling_failed", "error", "c-1")
    assert "ZeroDivisionError" in event["exception"]
    assert payload not in line


SECRET = 'pä"ss/w+rd\\ & 42'


@pytest.fixture
def hidden() -> None:
    """Say that SECRET is one, for as long as the test runs."""
    logs.hide("test", {SECRET})


def spellings(secret: str) -> dict[str, str]:
    """Return how a secret may come into a log."""
    raw = secret.encode()
    basic = {f"basic auth of {name}": b64encode(f"{name}:{secret}".encode()).decode() for name in ("a", "ab", "abc")}
    return {
        "plain": secret,
        "repr": repr({"password": secret}),
        "bytes": repr(raw),
        "json": json.dumps([secret]),
        "json as it is": json.dumps([secret], ensure_ascii=False),
        "url": f"https://user:{quote(secret, safe='')}@host/",
        "path": f"https://host/{quote(secret)}",
        "form": urlencode({"api_key": secret, "format": "json"}),
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "base64": b64encode(raw).decode(),
        "base64url": urlsafe_b64encode(raw + b"?>").decode(),
        **basic,
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("spelling", spellings(""))
def test_a_secret_that_is_known_is_hidden_in_every_spelling(
    spelling: str, log_format: Literal["json", "console"], hidden: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under an innocent name, nested, as a key, in an exception, and in the lines of a library."""
    logs.configure(log_format, "info")
    text = spellings(SECRET)[spelling]

    log = structlog.get_logger("test")
    log.info(
        "tried",
        note=text,
        nested=[{"note": (text,), text: 1}],
        error=ValueError(text),
        other=SimpleNamespace(note=text),
    )
    try:
        int(text)
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed with %s", text)

    said = capsys.readouterr().err
    assert "failed with" in said
    assert said.count(logs.HIDDEN) >= 8
    for part in (text, SECRET, SECRET.encode().hex(), json.dumps(text)[1:-1]):
        assert part not in said


def test_the_secret_before_stays_hidden_and_the_short_is_not_hunted(hidden: None) -> None:
    """Whoever still uses the old password may fail with it; a password of one letter would blank the log."""
    logs.hide("test", {"another secret", "a"})

    event = logs.redact(None, "info", {"event": f"{SECRET} and another secret were tried"})

    assert event == {"event": "*** and *** were tried"}


def test_numbers_and_nothing_stay_what_they_are(hidden: None) -> None:
    """A line stays a line that a machine can read."""
    logs.hide("test", {"12345"})

    assert logs.redact(None, "info", {"event": "done", "position": 1234567, "ok": True, "seconds": 1.5, "x": None}) == {
        "event": "done", "position": 1234567, "ok": True, "seconds": 1.5, "x": None,
    }  # fmt: skip
