"""What a webhook of Lidarr is: its type, its stream, its id."""

import json
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from kima_stream.integrations import lidarr_webhooks, slskd_webhooks
from kima_stream.integrations.lidarr_webhooks import NAMESPACE, receive
from kima_stream.integrations.received import MAX_DEPTH, MalformedBodyError, checked_object

FIXTURES = Path(__file__).parent.parent / "fixtures"
TYPES = {
    "album-delete": "lidarr.album_delete",
    "application-update": "lidarr.application_update",
    "artist-add": "lidarr.artist_add",
    "artist-delete": "lidarr.artist_delete",
    "download": "lidarr.download",
    "download-failure": "lidarr.download_failure",
    "download-manual-import": "lidarr.download",
    "download-upgrade": "lidarr.download",
    "grab": "lidarr.grab",
    "grab-multi-album-no-download-id": "lidarr.grab",
    "health": "lidarr.health",
    "health-restored": "lidarr.health_restored",
    "import-failure": "lidarr.import_failure",
    "rename": "lidarr.rename",
    "retag": "lidarr.retag",
    "test": "lidarr.test",
}
DOWNLOAD_ID = "3F2504E04F8911D39A0C0305E82C3301A1B2C3D4"


def webhook(name: str) -> bytes:
    """Return a fixture as it came over the wire."""
    return (FIXTURES / "webhooks" / f"{name}.json").read_bytes()


def changed(name: str, **fields: object) -> bytes:
    """Return a fixture with other ``fields``."""
    return json.dumps({**json.loads(webhook(name)), **fields}).encode()


@pytest.mark.parametrize(("name", "type_"), TYPES.items())
def test_every_type_is_known_and_kept_as_it_came(name: str, type_: str) -> None:
    """Each fixture, Lidarr's own output, gets its type; its data is the body, byte for byte."""
    received = receive(webhook(name))

    assert received.type == type_
    assert received.data.encode() == webhook(name)


def test_the_fixtures_cover_all_types() -> None:
    """A type without a fixture is a type that nobody has seen on the wire."""
    assert set(TYPES.values()) == set(lidarr_webhooks.TYPES.values())
    assert {path.stem for path in (FIXTURES / "webhooks").glob("*.json")} == set(TYPES)


@pytest.mark.parametrize("name", TYPES)
def test_the_structs_lose_no_field(name: str) -> None:
    """What the struct holds is what was sent: no field of the wire is missing from our types."""
    decoded = json.loads(msgspec.json.encode(lidarr_webhooks.decode(webhook(name))))

    assert _without_none(decoded) == json.loads(webhook(name))


def _without_none(value: object) -> object:
    match value:
        case dict():
            return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_none(inner) for inner in value]
        case _:
            return value


@pytest.mark.parametrize("name", ["grab", "grab-multi-album-no-download-id", "download", "download-failure"])
def test_the_same_fact_has_the_same_id(name: str) -> None:
    """A delivery repeated by a proxy is one event."""
    first, second = receive(webhook(name)), receive(webhook(name))

    assert first.identify(NAMESPACE) == second.identify(NAMESPACE)


@pytest.mark.parametrize("name", ["health", "test", "import-failure", "artist-add", "rename"])
def test_a_fact_without_a_key_is_new_each_time(name: str) -> None:
    """Ten identical Health webhooks are ten facts: nothing tells them apart, so nothing merges them."""
    ids = {receive(webhook(name)).identify(NAMESPACE) for _ in range(10)}

    assert len(ids) == 10


def test_two_albums_under_one_download_id_are_two_facts() -> None:
    """A multi-album grab is imported album by album."""
    other = changed("download", album={"id": 318, "title": "Low Water Mark"})

    assert receive(webhook("download")).identify(NAMESPACE) != receive(other).identify(NAMESPACE)
    assert receive(other).name == DOWNLOAD_ID


def test_the_order_of_albums_and_files_does_not_matter() -> None:
    """Lidarr promises no order, so the key sorts."""
    albums = json.loads(webhook("grab-multi-album-no-download-id"))["albums"]
    turned = changed("grab-multi-album-no-download-id", albums=albums[::-1])

    assert receive(turned).identify(NAMESPACE) == receive(webhook("grab-multi-album-no-download-id")).identify(
        NAMESPACE
    )


@pytest.mark.parametrize("name", ["grab", "download-failure"])
def test_the_round_is_part_of_the_id(name: str) -> None:
    """The same torrent grabbed again after it failed is a new fact under an old download id."""
    received = receive(webhook(name))

    assert received.is_in_rounds
    assert received.identify(NAMESPACE, round=0) != received.identify(NAMESPACE, round=1)


def test_two_instances_are_strangers() -> None:
    """Two Lidarrs may hand out the same ids."""
    other = changed("grab", instanceName="Lidarr at the cabin")

    assert receive(webhook("grab")).identify(NAMESPACE) != receive(other).identify(NAMESPACE)


@pytest.mark.parametrize(
    ("download_id", "stream"),
    [
        ("ABC", "lidarr-ABC"),
        ("Ünïcode / and spaces", "lidarr-Ünïcode / and spaces"),
        ("", None),
        (None, None),
        ("a\0b", "lidarr-sha256:"),
        ("x" * 10_000, "lidarr-sha256:"),
        ("ü" * 300, "lidarr-sha256:"),
    ],
)
def test_any_download_id_gives_a_stream_that_the_table_takes(download_id: str | None, stream: str | None) -> None:
    """No NUL, not above 512 bytes, never empty; two impossible ids stay two streams."""
    event_id = uuid4()
    name = receive(changed("grab", downloadId=download_id)).stream(event_id)

    assert name.startswith(f"lidarr-{event_id}" if stream is None else stream)
    assert "\0" not in name
    assert len(name.encode()) <= 512


def test_impossible_download_ids_stay_apart() -> None:
    """A hash stands for the whole id, not for its beginning."""
    one, other = (receive(changed("grab", downloadId="x" * 10_000 + end)).stream(uuid4()) for end in "ab")

    assert one != other


@pytest.mark.parametrize(
    "body",
    [
        b'{"eventType": "ManualInteractionRequired", "downloadId": "D"}',
        b'{"eventType": "Grab", "downloadId": "D", "albums": "not a list"}',
        b'{"downloadId": "D"}',
        b'{"eventType": 7, "downloadId": "D"}',
        b'{"eventType": null, "downloadId": "D", "big": 1e999}',
    ],
)
def test_what_nobody_knows_is_kept_as_unknown(body: bytes) -> None:
    """A newer Lidarr, or a body that does not fit, is never refused; it still finds its stream."""
    received = receive(body)

    assert received.type == "lidarr.unknown"
    assert received.label == "other"
    assert received.data.encode() == body
    assert received.stream(uuid4()) == "lidarr-D"


def test_unknown_fields_are_no_reason_to_refuse() -> None:
    """Later versions add fields."""
    assert receive(changed("grab", somethingNew={"a": [1]})).type == "lidarr.grab"


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"text"', b"nonsense", b'{"a": 1', b'{"a": NaN}', b'{"a": "\xff"}', b'{"a": 01}', b"{}{}", b"\0"],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    """Postgres could not keep it as it is."""
    with pytest.raises(MalformedBodyError):
        receive(body)


@pytest.mark.parametrize("opening", [b'{"a":', b"["])
@pytest.mark.parametrize(("depth", "is_refused"), [(MAX_DEPTH - 1, False), (MAX_DEPTH, True), (100_000, True)])
def test_depth_is_bounded(opening: bytes, depth: int, is_refused: bool) -> None:
    """128 levels pass, 129 do not, and a hundred thousand do not crash."""
    closing = b"}" if opening.startswith(b"{") else b"]"
    body = b'{"a":' + opening * depth + b"1" + closing * depth + b"}"

    if is_refused:
        with pytest.raises(MalformedBodyError, match="deeper"):
            checked_object(body)
    else:
        assert checked_object(body).encode() == body


def test_brackets_in_text_are_not_depth() -> None:
    """Only structure counts, however many brackets a title has."""
    body = b'{"a": "' + b'[{\\"' * 1_000 + b'"}'

    assert checked_object(body).encode() == body


@pytest.mark.parametrize("path", sorted((FIXTURES / "slskd").glob("webhook-*.json")), ids=lambda path: path.stem)
def test_slskd_brings_its_own_id(path: Path) -> None:
    """The payload's id is the event's id, so slskd's own retries are one event."""
    received = slskd_webhooks.receive(path.read_bytes())

    assert received.type != slskd_webhooks.UNKNOWN
    assert str(received.identify(slskd_webhooks.NAMESPACE)) == json.loads(path.read_bytes())["id"]


def test_a_sample_of_slskd_is_a_fact_of_its_own() -> None:
    """Samples made by hand all have the id zero."""
    body = b'{"type":"Noop","version":0,"id":"00000000-0000-0000-0000-000000000000"}'

    assert len({slskd_webhooks.receive(body).identify(slskd_webhooks.NAMESPACE) for _ in range(3)}) == 3
