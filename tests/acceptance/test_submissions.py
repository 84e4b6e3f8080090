"""``POST /api/events``: what others submit is kept as it was sent, once, and read back byte for byte."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import payload
from cloudevents.core.bindings import http as oracle
from cloudevents.core.bindings.http import HTTPMessage
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from kima_stream.database import Pool
from kima_stream.errors import UserFacingError
from kima_stream.events import OWN_CATEGORIES
from kima_stream.http import cloudevents, kept_cloudevents
from tests import front_door
from tests.front_door import OpenDoor
from tests.polling import eventually

EVENTS = "/api/events"
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.placed"}

DATA: dict[str, tuple[Any, str | None]] = {
    "object": ({"ordered": ["IV", 1.0, "é", "\u2028"]}, "application/json"),
    "text": ('<much wow="xml"/>\r\n é', "text/xml"),
    "bytes": (bytes(range(256)), "application/octet-stream"),
    "json as bytes": (b'{ "a" : 1.0 }', "application/vnd.shop+json"),
    "nothing": (None, None),
}


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


def an_event(**over: object) -> dict[str, Any]:
    """Return a CloudEvent in the JSON format."""
    made: dict[str, Any] = {"specversion": "1.0", "id": str(uuid4()), "source": "/shop", "type": "order.placed"}
    return {name: value for name, value in (made | {"data": {"n": 1}} | over).items() if value is not ...}


async def post(door: OpenDoor, body: bytes, headers: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Post and return status and answer."""
    async with door.client.post(EVENTS, data=payload.BytesIOPayload(io.BytesIO(body)), headers=headers) as answer:
        assert answer.status < 500
        return answer.status, await answer.json(content_type=None)


async def submit(door: OpenDoor, *events: dict[str, Any], **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """Submit one event structured, several as a batch; return status and where they stand."""
    body: object = events[0] if len(events) == 1 else events
    kind = STRUCTURED if len(events) == 1 else BATCH
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status, answer = await post(door, json.dumps(body).encode(), {**kind, **named})
    return status, answer.get("events", [])


async def read(door: OpenDoor, event_id: object, query: str = "", **headers: str) -> HTTPMessage:
    """Return the answer to a GET as the oracle takes it."""
    async with door.client.get(f"{EVENTS}/{event_id}{query}", headers=headers) as answer:
        assert answer.status == 200
        return HTTPMessage({name.lower(): value for name, value in answer.headers.items()}, await answer.read())


@pytest.mark.parametrize("mode", ["structured", "binary", "batch"])
@pytest.mark.parametrize("kind", DATA)
async def test_the_reference_client_reads_back_what_it_sent(door: OpenDoor, mode: str, kind: str) -> None:
    """In each mode in, and in each mode out: the same attributes and the same bytes."""
    data, content_type = DATA[kind]
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": f'{mode} {kind} é " % 100%',
        "source": "https://shop.example/é?a=1&b=%20",
        "type": "order.placed",
        "subject": "Ordered: “IV”",
        "time": datetime(2026, 11, 24, 2, 0, 0, 123456, tzinfo=UTC),
        "stream": f"order-{mode} {kind}",
    }
    event = CloudEvent(attributes | ({"datacontenttype": content_type} if content_type else {}), data)
    sent = oracle.to_binary(event, JSONFormat())
    if mode == "structured":
        message = oracle.to_structured(event, JSONFormat())
    elif mode == "batch":
        message = HTTPMessage(dict(BATCH), b"[" + oracle.to_structured(event, JSONFormat()).body + b"]")
    else:
        message = sent

    status, answer = await post(door, message.body, message.headers)
    assert status == 202, answer
    (stands,) = answer["events"]
    assert stands == {**stands, "stream": f"order-{mode} {kind}", "version": 0, "duplicate": False}

    binary = await read(door, stands["event_id"], "?format=binary")
    assert binary.body == sent.body
    structured = await read(door, stands["event_id"], Accept="application/cloudevents+json")
    async with door.client.get(
        f"{EVENTS}?stream=order-{mode} {kind}", headers={"Accept": BATCH["Content-Type"]}
    ) as got:
        (item,) = json.loads(await got.read())
    for found in (
        oracle.from_http(binary, JSONFormat()),
        oracle.from_http(structured, JSONFormat()),
        JSONFormat().read(None, json.dumps(item)),
    ):
        assert {**found.get_attributes(), "datacontenttype": content_type} == {
            **event.get_attributes(),
            "datacontenttype": content_type,
        }
        if kind == "json as bytes" and isinstance(found.get_data(), dict):
            assert found.get_data() == json.loads(sent.body)  # the oracle has parsed it
        else:
            assert JSONFormat().write_data(found.get_data(), content_type) == sent.body


async def test_json_goes_out_as_it_came_in(door: OpenDoor) -> None:
    """Not a byte of the data is touched; extensions keep their type."""
    data = '{ "b":1.0,\n"a" : "\\u00e9 \\u0000" }'
    body = f'{{"specversion":"1.0","id":"1","source":"s","type":"t","count":7,"big":true,"data":{data}}}'
    _, answer = await post(door, body.encode(), STRUCTURED)
    event_id = answer["events"][0]["event_id"]

    assert (await read(door, event_id, "?format=structured")).body == body.encode()
    binary = await read(door, event_id, "?format=binary")
    assert binary.body == data.encode()
    assert (binary.headers["ce-count"], binary.headers["ce-big"]) == ("7", "true")
    assert json.loads((await read(door, event_id)).body)["data"] == json.loads(data)


async def test_what_came_in_otherwise_goes_out_as_a_cloudevent(door: OpenDoor) -> None:
    """A webhook has no CloudEvent attributes: it gets those that its event has."""
    _, answer = await door.post(front_door.webhook("grab"))
    message = await read(door, answer["event_id"], "?format=structured")

    event = oracle.from_http(message, JSONFormat())
    assert (event.get_id(), event.get_type(), event.get_source()) == (answer["event_id"], "lidarr.grab", "lidarr")
    binary = await read(door, answer["event_id"], "?format=binary")
    assert binary.body == front_door.webhook("grab")


async def test_what_others_sent_runs_in_no_browser(door: OpenDoor) -> None:
    """A page that somebody submitted is saved, not shown."""
    _, answer = await post(door, b"<script>alert(1)</script>", BINARY | {"Content-Type": "text/html"})
    message = await read(door, answer["events"][0]["event_id"], "?format=binary")

    assert message.body == b"<script>alert(1)</script>"
    assert message.headers["content-security-policy"].startswith("sandbox")
    assert message.headers["content-disposition"] == "attachment"


async def test_an_event_has_one_id(door: OpenDoor) -> None:
    """A UUID is the id; anything else is an id of its source only."""
    uuid = uuid4()
    for sent_id, source, expected in (
        (str(uuid), "/a", uuid),
        ("4711", "/a", kept_cloudevents.event_id("/a", "4711")),
        ("4711", "/b", kept_cloudevents.event_id("/b", "4711")),
        (uuid.hex, "/a", kept_cloudevents.event_id("/a", uuid.hex)),
    ):
        status, (stands,) = await submit(door, an_event(id=sent_id, source=source))
        assert (status, UUID(stands["event_id"]), stands["duplicate"]) == (202, expected, False)
    assert len({kept_cloudevents.event_id(source, "4711") for source in ("/a", "/b")}) == 2


async def test_a_stream_is_named_or_follows_from_what_it_is_about(door: OpenDoor) -> None:
    """The extension, else one per subject, else one per source."""
    _, stands = await submit(
        door,
        an_event(stream="order-1"),
        an_event(subject="IV"),
        an_event(subject="IV", source="/other"),
        an_event(),
        an_event(source="/other"),
    )
    streams = [event["stream"] for event in stands]
    assert streams[0] == "order-1"
    assert streams[1] == streams[2]
    assert len(set(streams)) == 4
    assert all(stream.startswith("external-") for stream in streams[1:])


async def test_sent_again_is_the_same_event(door: OpenDoor, pool: Pool) -> None:
    """The same answer, one event; also with another time stamp; also twice within one request."""
    event = an_event(stream="order-1")
    _, (first,) = await submit(door, event)
    _, (again,) = await submit(door, event | {"time": "2026-11-24T02:00:00Z"})
    assert again == first | {"duplicate": True}

    other = an_event(stream="order-1")
    status, stands = await submit(door, other, event, other)
    assert (status, [(s["version"], s["duplicate"]) for s in stands]) == (202, [(1, False), (0, True), (1, True)])
    assert await pool.fetchval("SELECT count(*) FROM events") == 2


@pytest.mark.parametrize(
    "change", [{"data": 2}, {"type": "order.paid"}, {"source": "/b"}, {"stream": "order-2"}, {"subject": "x"}]
)
async def test_the_same_id_with_another_body_is_a_conflict(door: OpenDoor, pool: Pool, change: dict[str, Any]) -> None:
    """409, from the log and from within one request, and nothing is written."""
    event = an_event(stream="order-1")
    assert (await submit(door, event, event | change))[0] == 409
    assert await pool.fetchval("SELECT count(*) FROM events") == 0
    assert (await submit(door, event))[0] == 202
    assert (await submit(door, event | change))[0] == 409
    assert (await submit(door, event | change, an_event(stream=(event | change)["stream"])))[0] == 409
    assert await pool.fetchval("SELECT count(*) FROM events") == 1


async def test_a_batch_is_of_one_piece_within_a_stream(door: OpenDoor, pool: Pool) -> None:
    """Its events follow each other in the order of the request; a bad one keeps all of them out."""
    batch = [an_event(stream=f"order-{n % 2}") for n in range(10)]
    status, stands = await submit(door, *batch)
    assert status == 202
    assert [(s["event_id"], s["stream"], s["version"]) for s in stands] == [
        (event["id"], event["stream"], n // 2) for n, event in enumerate(batch)
    ]
    assert (await submit(door, an_event(), an_event(type=...)))[0] == 400
    assert await pool.fetchval("SELECT count(*) FROM events") == 10


async def test_a_batch_has_its_limit(door: OpenDoor) -> None:
    """1,000 events go in at once, one more does not; none is fine."""
    batch = [an_event(stream="order-1") for _ in range(1_001)]
    assert (await submit(door, *batch))[0] == 413
    status, stands = await submit(door, *batch[:1_000])
    assert (status, stands[-1]["version"]) == (202, 999)
    assert await post(door, b"[]", BATCH) == (202, {"events": []})


async def test_a_version_can_be_demanded(door: OpenDoor) -> None:
    """If-Match and If-None-Match: 412 when somebody was faster; sent again it is the same event."""
    event = an_event(stream="order-1")
    assert (await submit(door, event, If_None_Match="*"))[0] == 202
    assert (await submit(door, an_event(stream="order-1"), If_None_Match="*"))[0] == 412
    assert (await submit(door, an_event(stream="order-1"), If_Match='"1"'))[0] == 412
    second = an_event(stream="order-1")
    for duplicate in (False, True):
        status, (stands,) = await submit(door, second, If_Match='"0"')
        assert (status, stands["version"], stands["duplicate"]) == (202, 1, duplicate)

    for header in ({"If_Match": "1"}, {"If_Match": '"x"'}, {"If_Match": "*"}, {"If_None_Match": '"1"'}):
        assert (await submit(door, an_event(stream="order-1"), **header))[0] == 400
    assert (await submit(door, an_event(), an_event(stream="order-2"), If_None_Match="*"))[0] == 400


async def test_rivals_for_a_version_have_one_winner(door: OpenDoor) -> None:
    """Of twenty at once one gets the version, the others 412."""
    rivals = [submit(door, an_event(stream="order-1"), If_None_Match="*") for _ in range(20)]
    assert sorted(status for status, _ in await asyncio.gather(*rivals)) == [202] + [412] * 19


async def test_the_same_event_from_many_at_once_is_one(door: OpenDoor, pool: Pool) -> None:
    """Retries that overtake each other, in batches that overlap: each event once, everybody accepted."""
    batch = [an_event(stream="order-1") for _ in range(8)]
    answers = await asyncio.gather(*(submit(door, *batch[n % 4 : n % 4 + 5]) for n in range(24)))

    assert {status for status, _ in answers} == {202}
    assert await pool.fetchval("SELECT count(*) FROM events") == 8
    stands = {s["event_id"]: s["version"] for _, events in answers for s in events}
    assert sorted(stands.values()) == list(range(8))
    assert sum(not s["duplicate"] for _, events in answers for s in events) == 8


async def test_requests_at_the_same_time_share_commits(door: OpenDoor, pool: Pool) -> None:
    """What comes while one commit is in flight goes into the next one, all of it."""
    await submit(door, an_event(stream="order-0"))
    async with pool.acquire() as blocker, blocker.transaction():
        await blocker.execute("LOCK TABLE events IN SHARE MODE")
        posted = [asyncio.create_task(submit(door, an_event(stream="order-0")))]
        await eventually(lambda: pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
        posted += [asyncio.create_task(submit(door, an_event(stream=f"order-{n}"))) for n in range(1, 51)]
        await eventually(lambda: len(door.door.commit._gathered) == 50)
    assert {status for status, _ in await asyncio.gather(*posted)} == {202}
    assert await pool.fetchval("SELECT count(DISTINCT xid) FROM events") == 3


async def test_our_own_categories_are_ours(door: OpenDoor, pool: Pool) -> None:
    """403, whatever else the request holds; nothing is written."""
    for category in OWN_CATEGORIES:
        assert (await submit(door, an_event(), an_event(stream=f"{category}-1")))[0] == 403
    assert await pool.fetchval("SELECT count(*) FROM events") == 0


async def test_there_are_64_categories_at_most(pool: Pool) -> None:
    """Also when many come at once, at two doors; those that are there stay open."""
    async with front_door.opened(pool) as one, front_door.opened(pool) as other:
        answers = await asyncio.gather(
            *(submit((one, other)[n % 2], an_event(stream=f"c{n}-1")) for n in range(80)),
        )
        statuses = [status for status, _ in answers]
        assert (statuses.count(202), statuses.count(422)) == (64, 16)
        assert (await submit(one, an_event(stream=f"c{statuses.index(202)}-2")))[0] == 202
        assert (await submit(other, an_event(stream=f"c{statuses.index(422)}-1")))[0] == 422


async def test_a_refused_event_opens_no_category(door: OpenDoor) -> None:
    """Only what is in the log counts."""
    for n in range(70):
        assert (await submit(door, an_event(stream=f"c{n}-1"), If_Match='"5"'))[0] == 412
    assert (await submit(door, an_event(stream="order-1")))[0] == 202


async def test_who_and_why_is_kept(door: OpenDoor, pool: Pool) -> None:
    """The submitter in the metadata, cause and correlation in their columns."""
    cause, effect = an_event(), an_event(id="b", correlationid="c-1", causationid="a")
    await submit(door, cause, X_Correlation_Id="given")
    await submit(door, effect)
    rows = await pool.fetch("SELECT correlation_id, causation_id, metadata FROM events ORDER BY id")
    assert [row["correlation_id"] for row in rows] == ["given", "c-1"]
    assert rows[1]["causation_id"] == kept_cloudevents.event_id("/shop", "a")
    assert json.loads(rows[0]["metadata"])["submitted_by"] == "a admin"


HOSTILE = {
    "no CloudEvent": ({"Content-Type": "application/json"}, b"{}"),
    "another format": (BINARY | {"Content-Type": "application/cloudevents+xml"}, b"<x/>"),
    "invalid percent": (BINARY | {"ce-subject": "%FF"}, b"{}"),
    "half a pair": (BINARY | {"ce-subject": "%ED%A0%80"}, b"{}"),
    "a NUL": (BINARY | {"ce-subject": "%00"}, b"{}"),
    "a new line": (BINARY | {"ce-stream": "order-%0A"}, b"{}"),
    "a name": (BINARY | {"ce-a_b": "1"}, b"{}"),
    "no JSON": (BINARY | {"Content-Type": "application/json"}, b"{"),
    "no UTF-8": (BINARY | {"Content-Type": "application/json"}, b'"\xff"'),
    "deep": (BINARY | {"Content-Type": "application/json"}, b"[" * 9_000 + b"]" * 9_000),
    "batch of deep": (BATCH, b"[" + b"[" * 9_000 + b"]" * 9_000 + b"]"),
    "half a pair in data": (STRUCTURED, json.dumps(an_event(data="\ud800")).encode()),
    "half a pair in an attribute": (STRUCTURED, json.dumps(an_event(subject="\ud800")).encode()),
    "both data": (STRUCTURED, json.dumps(an_event(data_base64="YQ==")).encode()),
    "no base64": (STRUCTURED, json.dumps(an_event(data=..., data_base64="a")).encode()),
    **{
        f"{name}={str(value)[:20]}": (STRUCTURED, json.dumps(an_event(**{name: value})).encode())
        for name, value in [
            ("specversion", "0.3"), ("specversion", 1), ("id", ""), ("id", 7), ("source", ...), ("type", "t" * 257),
            ("type", "\x00"), ("stream", ""), ("stream", "Order-1"), ("stream", "order"), ("stream", "order-"),
            ("stream", "order-" + "é" * 300), ("stream", 5), ("subject", "x" * 3_000), ("correlationid", "x" * 600),
            ("time", "yesterday"), ("time", "2026-11-24T02:00:00"), ("time", "0001-01-01T00:00:00+14:00"),
            ("time", "9999-12-31T23:59:59-14:00"), ("ratio", 1.5), ("nested", {"a": 1}), ("count", 2**31),
            ("count", 10**400), ("Upper", "x"), ("x" * 65, "x"),
        ]
    },
    "too many": (STRUCTURED, json.dumps(an_event(**{f"a{n}": "x" for n in range(70)})).encode()),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
async def test_nothing_hostile_gets_in(door: OpenDoor, pool: Pool, name: str) -> None:
    """Each is refused by a 4xx that says what is wrong, and nothing is written."""
    headers, body = HOSTILE[name]
    status, problem = await post(door, body, headers)

    assert status in {400, 415}, problem
    assert len(problem["detail"]) > 20
    assert await pool.fetchval("SELECT count(*) FROM events") == 0


async def test_a_header_is_not_taken_twice(door: OpenDoor) -> None:
    """Two ids are no id."""
    async with door.client.post(EVENTS, data=b"{}", headers=[*BINARY.items(), ("ce-id", "2")]) as answer:
        assert answer.status == 400


async def test_at_the_limits_all_is_well(door: OpenDoor) -> None:
    """The longest and oldest values that are allowed are kept and read back, in every mode."""
    event = an_event(
        id="é" * 1_024, source="é" * 1_024, type="é" * 128, subject="é" * 1_024, stream="order-" + "é" * 253,
        correlationid="é" * 256, time="0001-01-01T00:00:00Z", dataschema="x" * 2_048, quoted='"a\\b"',
    )  # fmt: skip
    status, (stands,) = await submit(door, event)
    assert status == 202
    structured = await read(door, stands["event_id"], "?format=structured")
    assert json.loads(structured.body) == event
    async with door.client.get(f"{EVENTS}/{stands['event_id']}?format=binary") as answer:
        assert answer.headers["ce-quoted"] == "%22a\\b%22"
        sent_again = {name: value for name, value in answer.headers.items() if name.startswith("ce-")}
        body = await answer.read()
    status, again = await post(door, body, sent_again | {"Content-Type": "application/json"})
    assert (status, [sent["duplicate"] for sent in again["events"]]) == (202, [True])


async def test_a_quoted_header_is_unquoted(door: OpenDoor) -> None:
    """As old senders write them; percent-encoding is undone once."""
    headers = BINARY | {"ce-subject": '"a \\"b\\" %2525"', "Content-Type": "application/json"}
    _, answer = await post(door, b"1", headers)
    structured = await read(door, answer["events"][0]["event_id"], "?format=structured")
    assert json.loads(structured.body)["subject"] == 'a "b" %25'


SCALARS = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.floats())
MEMBERS = st.dictionaries(
    st.one_of(
        st.sampled_from(["specversion", "id", "source", "type", "time", "stream", "subject", "data", "data_base64"]),
        st.text(max_size=5),
    ),
    st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.sampled_from(["1.0", "order-1", "YQ=="])),
)


@given(MEMBERS, st.booleans())
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_comes_is_read_or_refused(members: dict[str, Any], is_complete: bool) -> None:
    """No body makes the reader fail in another way than by saying what is wrong."""
    body = json.dumps(
        {**members, **({"specversion": "1.0", "id": "1", "source": "s", "type": "t"} if is_complete else {})}
    )
    try:
        event = cloudevents.from_structured(body.encode())
    except UserFacingError as error:
        assert_refused(error)
    else:
        kept_cloudevents.to_new_event(event, correlation_id=None, submitted_by="x")
        headers, content = cloudevents.to_binary(event)
        again = cloudevents.from_binary(headers, content)
        assert cloudevents.content(again) == content
        texts = {name: event.text(name) for name in event.attributes}
        assert texts | {"datacontenttype": ""} == again.attributes | {"datacontenttype": ""}


def assert_refused(error: UserFacingError) -> None:
    """Check that the sender is told."""
    assert error.status == 400
    assert error.detail.startswith("This is no CloudEvent: ")
