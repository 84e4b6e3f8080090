"""JSON objects out of a file of any length: one a line, one after the other, or in one array.

Each is handed over as it is written, so that nothing between its braces changes.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from kima_stream.errors import UserFacingError

CHUNK_BYTES: Final = 256 * 1024
MAX_CHARACTERS: Final = 4 * 1024 * 1024  # of one object: beyond what the door takes, with its metadata
_BETWEEN: Final = re.compile(r"[\s,\[\]]*")
_DECODER: Final = json.JSONDecoder()


def objects(file: BinaryIO) -> Iterator[str]:
    """Yield the text of each object of ``file``.

    Raises:
        UserFacingError: what comes next is no object; its number is named, those before it were handed over.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")()
    text, start, number, is_over = "", 0, 1, False
    while True:
        start = _BETWEEN.match(text, start).end()  # type: ignore[union-attr]  # it matches nothing, too
        end = _end(text, start, number, is_over=is_over)
        if end is not None:
            yield text[start:end]
            start, number = end, number + 1
            continue
        if is_over:
            return
        chunk = file.read(CHUNK_BYTES)
        is_over = not chunk
        try:
            text = text[start:] + utf8.decode(chunk, final=is_over)
        except UnicodeDecodeError:
            detail = f"the file is not UTF-8, in object {number} of it or in one of those after it"
            raise UserFacingError(detail, status=422) from None
        start = 0


def _end(text: str, start: int, number: int, *, is_over: bool) -> int | None:
    """Return where the object at ``start`` ends, None when more must be read or nothing is left."""
    if start == len(text):
        return None
    if text[start] != "{":
        raise _fault(number, "is no JSON object")
    try:
        return _DECODER.raw_decode(text, start)[1]
    except RecursionError:
        raise _fault(number, "nests too deep") from None
    except json.JSONDecodeError as error:
        if is_over:
            raise _fault(number, f"is not complete, or no JSON: {error.msg}") from None
        if len(text) - start > MAX_CHARACTERS:
            raise _fault(number, f"is no JSON, or longer than {MAX_CHARACTERS} characters: {error.msg}") from None
        return None


def _fault(number: int, reason: str) -> UserFacingError:
    return UserFacingError(f"object {number} of the file {reason}", status=422)
