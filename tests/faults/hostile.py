"""Requests that no honest client sends, from a seed: heads, bodies and half a conversation."""

import gzip
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from copy import deepcopy

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PRI", "get", "G\xe9T")
TARGETS = (
    "%00", "..%2f..%2fetc%2fpasswd", "%ff%fe", "%ed%a0%80", "'; DROP TABLE events; --", "{{7*7}}", "${jndi:ldap://x}",
    "%0d%0aSet-Cookie:%20a=b", "a" * 3_000, "%u0041", "\\\\host\\share", "é", "%F0%9F%8E%B5", "..;/", "//", "null",
    "-1", "9" * 40, "1e309", "NaN", "true", "[]", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+23:59",
)  # fmt: skip
FIELDS = (
    "X-Api-Key", "X-Webhook-Secret", "Authorization", "Content-Type", "Content-Encoding", "Content-Length", "Expect",
    "Transfer-Encoding", "If-Match", "If-None-Match", "Idempotency-Key", "Prefer", "Accept", "Last-Event-ID", "Range",
    "X-Forwarded-For", "X-Correlation-Id", "traceparent", "ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time",
    "ce-stream", "Cookie", "Host", "Connection", "Upgrade", "Te", "Trailer", "Referer", "Origin", "Date", "X-\xff",
)  # fmt: skip
VALUES = (
    b"", b"\xff\xfe\xfd", b"\xed\xa0\x80", b"a\tb", b"x" * 8_000, b'"', b"\\", b"%00", b"1, 2, 3", b"*", b'"1"',
    b'W/"1"', b"-1", b"99999999999999999999", b"0x10", b"chunked", b"gzip", b"deflate", b"gzip, gzip", b"100-continue",
    b"close", b"upgrade", b"websocket", b"h2c", b"Basic !!!", b"Basic " + b"QUFB" * 50, b"Basic Og==", b"Bearer",
    b"Bearer \xc3\xa9", b"application/json", b"application/json; charset=utf-16", b"text/html; q=nan",
    b"application/cloudevents-batch+json", b"multipart/form-data; boundary=x", b"a/b/c;;;==", b"1.0", b"order-1",
    b"2026-01-01T00:00:00Z", b"wait=10000000000", b"respond-async, wait=1", b"bytes=0-,0-,0-", b"\xc2\x85", b"kima_",
)  # fmt: skip
SCALARS: tuple[object, ...] = (
    None, True, 0, -0.0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, "", "\0", "\ud800", "é", "a" * 5_000, "\u202e",
    "<script>", "NaN", "2026-02-30", "' OR 1=1", [], {}, [[]], {"": {"": ""}},
)  # fmt: skip
NO_JSON = (
    b"", b"{", b"[", b"nul", b"NaN", b'"', b"\xff", b"{}{}", b"\xef\xbb\xbf{}", b"[1,]", b'{"a":1,"a":2}',
    b"1" * 10_000, b"[" * 100_000, b'{"a":' * 5_000, b'"\\ud800"', b'{"eventType":"Grab","\\u0000":1}', b"\0" * 9,
)  # fmt: skip


class Hostile:
    """Draws requests; the same seed draws the same."""

    def __init__(
        self, rng: random.Random, routes: Mapping[tuple[str, str], bytes | None], bodies: Sequence[bytes]
    ) -> None:
        """Know where honest requests go, by method and path, and what they look like; ``bodies`` fit anywhere."""
        self._rng = rng
        self._routes = routes
        self._bodies = bodies

    def request(self, key: str) -> bytes:
        """Return one request as it goes over the wire; one in twenty is no request at all."""
        rng = self._rng
        if rng.random() < 0.05:
            return rng.randbytes(rng.randrange(1, 2_000)) + b"\r\n\r\n"
        route = rng.choice(list(self._routes))
        body = self._body(self._routes[route])
        fields = [
            b"Host: x", b"Connection: close", b"X-Api-Key: " + key.encode(), b"X-Forwarded-For: " + self._address(),
            *self._type(), *self._coding(body), *(self._field() for _ in range(rng.choice((0, 0, 1, 2, 5, 60)))),
        ]  # fmt: skip
        rng.shuffle(fields)
        return b"\r\n".join([self._line(*route), *fields]) + b"\r\n\r\n" + body

    def _line(self, method: str, path: str) -> bytes:
        rng = self._rng
        method = method if rng.random() < 0.85 else rng.choice(METHODS)
        while "{" in path:
            before, _, rest = path.partition("{")
            path = before + rng.choice((*TARGETS, "00000000-0000-0000-0000-000000000000")) + rest.partition("}")[2]
        if rng.random() < 0.5:
            names = ("stream", "category", "type", "after", "limit", "order", "at", "status", "q", "group", "x" * 100)
            path += "?" + "&".join(f"{rng.choice(names)}={rng.choice(TARGETS)}" for _ in range(rng.randrange(1, 4)))
        version = "HTTP/1.1" if rng.random() < 0.97 else rng.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "ICY", ""))
        return f"{method} {path} {version}".encode("utf-8", "surrogatepass")

    def _field(self) -> bytes:
        rng = self._rng
        value = rng.choice(VALUES) if rng.random() < 0.9 else rng.randbytes(rng.randrange(40))
        return rng.choice(FIELDS).encode("latin-1") + b": " + value

    def _type(self) -> list[bytes]:
        kinds = (
            b"application/json",
            b"application/cloudevents+json",
            b"application/cloudevents-batch+json",
            b"text/plain",
        )
        return [b"Content-Type: " + self._rng.choice(kinds)] if self._rng.random() < 0.9 else []

    def _coding(self, body: bytes) -> list[bytes]:
        rng = self._rng
        if not body and rng.random() < 0.9:
            return []
        length = len(body) if rng.random() < 0.9 else rng.choice((0, 1, len(body) + 5, 10**7))
        return [b"Content-Length: %d" % length]

    def _address(self) -> bytes:
        return ".".join(str(self._rng.randrange(256)) for _ in range(4)).encode()

    def _body(self, honest: bytes | None) -> bytes:
        rng = self._rng
        match rng.randrange(6):
            case 0:
                return b""
            case 1:
                return rng.choice(NO_JSON)
            case 2:
                return json.dumps({rng.choice(("artist", "stream", "name", "eventType")): rng.choice(SCALARS)}).encode()
            case 3:
                packed = rng.choice((gzip.compress, zlib.compress))(rng.choice((b"{}", b" " * 5_000_000)))
                return packed if rng.random() < 0.5 else packed[: len(packed) // 2]
            case 4 | 5 if honest:
                return self._mutated(honest)
            case _:
                return self._mutated(rng.choice(self._bodies))

    def _mutated(self, body: bytes) -> bytes:
        """Return an honest body with values swapped, or with bytes swapped."""
        rng = self._rng
        if rng.random() < 0.5:
            bytes_ = bytearray(body)
            for _ in range(rng.randrange(1, 10)):
                bytes_[rng.randrange(len(bytes_))] = rng.randrange(256)
            return bytes(bytes_)
        value = json.loads(body)
        for _ in range(rng.randrange(1, 4)):
            place = value
            while isinstance(place, dict) and place:
                name = rng.choice(list(place))
                inner = place[name]
                if not isinstance(inner, dict) or not inner or rng.random() < 0.3:
                    place[name] = deepcopy(rng.choice(SCALARS))
                    break
                place = inner
        return json.dumps(value).encode()
