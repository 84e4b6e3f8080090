"""Callbacks go where an admin said, and nowhere else, whatever a URL, a name or an answer tries."""

import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.settings.callbacks import CallbackRefusedError, Callbacks

RULE = Callbacks(
    ["hooks.example.org", "homeassistant:8123", "192.168.1.5:8080", "[fd00::5]:8080", "169.254.1.1:80", "1.1.1.1"]
)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org/a?b=c",
        "http://hooks.example.org/",
        "HTTPS://HOOKS.example.org./",
        "http://homeassistant:8123/api/webhook/x",
        "http://192.168.1.5:8080/",
        "http://[fd00::5]:8080/",
        "http://169.254.1.1/",
        "https://1.1.1.1/",
    ],
)
def test_what_was_configured_may_be_called(url: str) -> None:
    """Host and port as the admin wrote them."""
    assert RULE.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "http://",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "gopher://homeassistant:8123/",
        "https://hooks.example.org:8443/",
        "https://hooks.example.org.evil.test/",
        "https://evil.test/hooks.example.org",
        "https://hooks.example.org@evil.test/",
        "https://user:word@hooks.example.org/",
        "http://homeassistant/",
        "http://homeassistant:8124/",
        "http://192.168.1.5/",
        "http://192.168.1.6:8080/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:192.168.1.5]:8081/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
        "http://hooks.example.org:0/",
        "http://hooks.example.org:99999/",
    ],
)
def test_everything_else_is_refused(url: str) -> None:
    """Other hosts, other ports, other schemes, and every way to write this machine."""
    with pytest.raises(CallbackRefusedError) as refused:
        RULE.check(url)
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("host", "port", "addresses", "allowed"),
    [
        ("hooks.example.org", 443, ["93.184.215.14", "2606:2800:21f:cb07::1"], True),
        ("hooks.example.org", 443, ["93.184.215.14", "127.0.0.1"], False),  # one bad address spoils the name
        ("hooks.example.org", 443, ["10.0.0.1"], False),
        ("hooks.example.org", 443, ["::1"], False),
        ("hooks.example.org", 443, ["::ffff:10.0.0.1"], False),
        ("hooks.example.org", 443, ["64:ff9b::a00:1"], False),
        ("hooks.example.org", 443, ["2002:a00:1::"], False),
        ("hooks.example.org", 443, ["100.64.0.1"], False),
        ("hooks.example.org", 443, ["224.0.0.1"], False),
        ("homeassistant", 8123, ["172.18.0.4"], True),
        ("homeassistant", 8123, ["127.0.0.1", "::1"], True),
        ("homeassistant", 8123, ["100.64.0.1"], True),
        ("homeassistant", 8123, ["169.254.169.254"], False),
        ("homeassistant", 8123, ["fe80::1"], False),
        ("homeassistant", 8123, ["0.0.0.0"], False),  # noqa: S104 - refused, not bound
        ("homeassistant", 80, ["172.18.0.4"], False),
    ],
)
def test_a_name_is_judged_by_what_it_resolves_to(host: str, port: int, addresses: list[str], allowed: bool) -> None:
    """Whoever owns a name cannot make it mean something inside, but for a host:port that the admin wrote."""
    if allowed:
        RULE.judge_resolved(host, port, addresses)
    else:
        with pytest.raises(CallbackRefusedError):
            RULE.judge_resolved(host, port, addresses)


def test_all_faults_of_the_list_are_named() -> None:
    """An entry is a host or host:port."""
    with pytest.raises(ConfigurationError) as error:
        Callbacks(["ok.example.org", "http://a/", "a b", "", "user@host", "host/path", "host:port"])
    assert len(error.value.faults) == 6


@pytest.fixture
async def listener() -> AsyncIterator[tuple[int, list[str]]]:
    """Listen on 127.0.0.1; yield the port and the paths that were asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        match request.path:
            case "/redirect":
                return web.Response(status=307, headers={"Location": f"http://127.0.0.1:{request.url.port}/inside"})
            case "/busy":
                return web.Response(status=503)
            case "/no":
                return web.Response(status=403)
            case _:
                return web.Response(text=(await request.read()).decode())

    app = web.Application()
    app.router.add_post("/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield int(runner.addresses[0][1]), asked
    await runner.cleanup()


async def test_the_client_keeps_the_rule(listener: tuple[int, list[str]]) -> None:
    """It calls what is allowed, follows no redirect, and never reaches what is not allowed."""
    port, asked = listener
    async with Callbacks([f"localhost:{port}", f"127.0.0.1:{port}"]).client() as client:
        assert await client.post(f"http://localhost:{port}/hook", b"{}", {}) == 200
        assert await client.post(f"http://127.0.0.1:{port}/hook", b"{}", {}) == 200
        for path, retryable in (("redirect", False), ("busy", True), ("no", False)):
            with pytest.raises(IntegrationError) as failed:
                await client.post(f"http://127.0.0.1:{port}/{path}", b"{}", {})
            assert failed.value.retryable is retryable
    assert asked == ["/hook", "/hook", "/redirect", "/busy", "/no"]

    async with Callbacks(["hooks.example.org"]).client() as client:
        with pytest.raises(CallbackRefusedError):
            await client.post(f"http://127.0.0.1:{port}/hook", b"{}", {})
    assert len(asked) == 5


async def test_a_name_that_leads_inside_is_never_connected_to(listener: tuple[int, list[str]]) -> None:
    """``localhost`` stands for any name whose owner points it here: refused when resolved, before any byte."""
    async with Callbacks(["localhost"]).client() as client:
        with pytest.raises(CallbackRefusedError) as refused:
            await client.post("http://localhost/", b"{}", {})
    assert refused.value.code == "callback_refused"


async def test_nobody_there_may_heal() -> None:
    """A refused connection is an outage of theirs, not a refusal of ours."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with Callbacks([f"127.0.0.1:{port}"]).client() as client:
        with pytest.raises(IntegrationError) as failed:
            await client.post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert failed.value.retryable
