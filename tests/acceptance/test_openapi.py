"""The OpenAPI document is the truth: schemathesis asks a running door for whatever it promises, and for what not."""

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kima_stream.database import Pool
from kima_stream.http import soulseek
from kima_stream.http.table import ROUTES
from tests import front_door

NOT_ASKED = ("/api/live", "/api/openapi.json")  # it never ends; schemathesis leaves out where it found the document
EXAMPLES = 200  # at full size, per operation
CONFIG = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 429, 431]

# What a schema cannot say: a page's `next` is made by us; a name of control characters is empty;
# a batch is an array, a single event is none; a version is right only while nobody has written;
# there is no Lidarr to connect.
[[operations]]
include-path = "/api/downloads"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/effects"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/events"
include-method = "POST"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/connect/lidarr"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/api/settings"
include-method = "PUT"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.timeout(900)
async def test_every_answer_is_documented(
    pool: Pool, tmp_path: Path, seed: int, scaled: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server error, no status, header, type or shape that the document does not name, and no open door."""
    monkeypatch.setattr(soulseek, "OWNER_SECONDS", 0.0)  # nobody owns the account here, and nobody will
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with front_door.opened(pool, policies=front_door.UNLIMITED) as door:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            "run",
            f"{door.url}/api/openapi.json",
            f"--header=X-Api-Key: {door.key}",
            "--phases=examples,coverage,fuzzing",
            f"--seed={seed}",
            f"--max-examples={scaled(EXAMPLES)}",
            f"--exclude-path={NOT_ASKED[0]}",
            "--suppress-health-check=all",
            "--generation-database=none",
            "--no-color",
            "--warnings=off",
            "--workers=1",  # with two, CPython 3.11's ast.parse, which hypothesis calls in both threads, may raise
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    text = said.decode()
    assert process.returncode == 0, text
    assert re.search(rf"Tested: +{len(ROUTES) - len(NOT_ASKED)}\b", text), (
        f"not every route of the table was asked: {text}"
    )
