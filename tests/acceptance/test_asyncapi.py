"""The AsyncAPI document: its form is that of 3.0, it names every fact, and real events fit it."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import jsonschema_rs
import pytest
import redis.asyncio as redis_client
from click.testing import CliRunner

from kima_stream.cli import main
from kima_stream.database import Connection, Pool
from kima_stream.event_stream import EventStream, key
from kima_stream.events import RecordedEvent, event_type
from kima_stream.http import asyncapi
from kima_stream.numbering import Numberer
from kima_stream.publisher import Publisher
from tests import front_door
from tests.front_door import FIXTURES, SLSKD, OpenDoor

DOCUMENT: dict[str, Any] = json.loads(json.dumps(asyncapi.document()))
COMPONENT = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


def references(node: object) -> Iterator[str]:
    """Yield every reference within ``node``."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def resolve(reference: str) -> dict[str, Any]:
    """Return what a reference leads to."""
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Return what checks values against a schema that refers to the document's components."""
    return jsonschema_rs.Draft202012Validator(schema | {"components": DOCUMENT["components"]})


def test_its_form_is_that_of_asyncapi_3() -> None:
    """What the specification demands of each object; every reference leads somewhere."""
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert set(DOCUMENT["info"]) >= {"title", "version"}
    assert DOCUMENT.keys() <= {
        "asyncapi", "id", "info", "servers", "defaultContentType", "channels", "operations", "components",
    }  # fmt: skip
    for server in DOCUMENT["servers"].values():
        assert server.keys() >= {"host", "protocol"}
        assert "://" not in server["host"]
    for channel in DOCUMENT["channels"].values():
        assert set(re.findall(r"{(\w+)}", channel["address"])) == set(channel.get("parameters", {}))
        assert channel["messages"]
        assert all(message["$ref"].startswith("#/components/messages/") for message in channel["messages"].values())
        assert all(server["$ref"].startswith("#/servers/") for server in channel["servers"])
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
        assert operation["channel"]["$ref"].startswith("#/channels/")
    for kind in DOCUMENT["components"].values():
        assert all(COMPONENT.fullmatch(name) for name in kind)
    assert all(resolve(reference) for reference in references(DOCUMENT))


def test_every_fact_is_a_message_of_its_category() -> None:
    """Also those that somebody adds later; what Lidarr and slskd send is there too."""
    for fact in asyncapi.own_facts():
        name = event_type(fact)
        category = name.partition(".")[0]
        if category != "effect":  # of the streams that want a call
            assert name in DOCUMENT["channels"][category]["messages"]
            assert DOCUMENT["channels"][category]["parameters"]["slot"]["enum"] == [f"{{{category}}}"]
            assert DOCUMENT["channels"][category]["title"] == key(category)
    assert {"lidarr.grab", "lidarr.unknown"} <= DOCUMENT["channels"]["lidarr"]["messages"].keys()
    assert {"slskd.download_file_complete", "slskd.unknown"} <= DOCUMENT["channels"]["slskd"]["messages"].keys()


def test_it_is_printed_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as over HTTP, for whoever generates a client; likewise OpenAPI."""
    for name in ("KIMA_DATABASE_URL", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for flags in ([], ["--json"]):
        assert json.loads(CliRunner().invoke(main, ["asyncapi", *flags]).stdout) == DOCUMENT
    printed = json.loads(CliRunner().invoke(main, ["openapi", "--url-base", "/kima"]).stdout)
    assert (printed["openapi"], printed["servers"]) == ("3.1.0", [{"url": "/kima"}])
    assert "/api/asyncapi.json" in printed["paths"]


async def test_it_is_answered_by_the_door(door: OpenDoor) -> None:
    """Open to everybody, as the description of the routes."""
    async with door.client.get("/api/asyncapi.json", headers={"X-Api-Key": ""}) as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == DOCUMENT


async def fill(door: OpenDoor, conn: Connection) -> list[RecordedEvent]:
    """Post every webhook that we have an example of, and a request; return the numbered events."""
    for file in sorted((FIXTURES / "webhooks").glob("*.json")):
        assert (await door.post(file.read_bytes()))[0] == 200
    for file in sorted((FIXTURES / "slskd").glob("webhook-*.json")):
        assert (await door.post(file.read_bytes(), SLSKD))[0] == 200
    assert (await door.post(b'{"eventType":"Novelty"}'))[0] == 200
    assert (await door.post(b'{"artist":"Nina Simone","album":"Pastel Blues"}', "/api/downloads"))[0] == 202
    numberer = Numberer(conn, holder="test")
    assert await numberer.lead()
    events = await numberer.number_once()
    await numberer.resign()
    return events


async def test_real_events_fit_as_they_are_shown(door: OpenDoor, conn: Connection) -> None:
    """Each of every type that can be posted; a changed one does not fit, so the shapes say something."""
    await fill(door, conn)
    check = validator(DOCUMENT["components"]["messages"]["recorded"]["payload"])
    async with door.client.get("/api/events?limit=1000") as answer:
        events = (await answer.json())["events"]
    assert len({event["type"] for event in events}) > 15
    for event in events:
        check.validate(event)

    requested = next(event for event in events if event["type"] == "download_job.requested")
    assert not check.is_valid(requested | {"data": requested["data"] | {"artist": 7}})
    assert not check.is_valid(requested | {"position": None})


async def test_real_entries_of_redis_fit(door: OpenDoor, conn: Connection, redis_url: str, pool: Pool) -> None:
    """Field by field, and their data by its own schema; each type is in the channel of its stream."""
    await fill(door, conn)
    async with EventStream(redis_url) as stream:
        await Publisher(pool, stream, holder="test").publish_once()
    seen = 0
    async with redis_client.Redis.from_url(redis_url, decode_responses=True) as client:
        for channel in DOCUMENT["channels"].values():
            for slot in channel.get("parameters", {}).get("slot", {}).get("enum", []):
                entries: Any = await client.xrange(channel["address"].replace("{slot}", slot))
                for _, fields in entries:
                    payload = resolve(channel["messages"][fields["type"]]["$ref"])["payload"]
                    validator(payload).validate(fields)
                    data = payload["allOf"][1]["properties"]["data"]["contentSchema"]
                    validator(data).validate(json.loads(fields["data"]))
                    seen += 1
    assert seen > 20
