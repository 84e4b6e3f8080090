"""JSON objects out of a file: as they were written, however they stand and wherever a read ends."""

import io
import json

import pytest
from hypothesis import given, settings, strategies as st

from kima_stream.cli import json_objects
from kima_stream.cli.json_objects import objects
from kima_stream.errors import UserFacingError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(['"', "\\", "}{", "é", "𝄞"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)
STYLES = st.sampled_from([{}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (",", ":")}])


@given(
    st.lists(st.tuples(OBJECTS, STYLES), max_size=6), st.sampled_from(["\n", "", ",\n", "\r\n\t"]), st.integers(1, 40)
)
@settings(max_examples=200, deadline=None)
def test_each_object_comes_out_as_it_was_written(
    written: list[tuple[dict[str, object], dict[str, object]]], between: str, chunk_bytes: int
) -> None:
    """Lines, an array, or nothing in between; cut anywhere, also within a character."""
    texts = [json.dumps(value, **style) for value, style in written]  # type: ignore[arg-type]  # options of dumps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_objects, "CHUNK_BYTES", chunk_bytes)
        for file in (between.join(texts), f"[\n{between.join(texts)}]\n"):
            assert list(objects(io.BytesIO(file.encode()))) == texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a":1}\n"b"', "object 2 of the file is no JSON object"),
        (b'{"a":1}\n{"b"', "object 2 of the file is not complete"),
        (b'{"a":}', "object 1 of the file is not complete, or no JSON"),
        (b'{"a":"\xff"}', "the file is not UTF-8, in object 1"),
        (b'{"a":"\xc3', "the file is not UTF-8, in object 1"),
        (b'{"a":' + b"[" * 100_000, "object 1 of the file nests too deep"),
        (b'{"a":"' + b"x" * (json_objects.MAX_CHARACTERS + json_objects.CHUNK_BYTES), "longer than"),
    ],
)
def test_what_is_no_object_is_named(text: bytes, said: str) -> None:
    """By its number, so that it can be found; memory is bounded."""
    with pytest.raises(UserFacingError, match=said):
        list(objects(io.BytesIO(text)))
