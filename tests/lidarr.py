"""A simulated Lidarr to talk to, and its own description to hold both sides against.

``KIMA_LIDARR_OPENAPI`` names Lidarr's OpenAPI document; without it, it is looked for beside the project.
Where it is not, calls are not held against it, and the tests that are about nothing else say so.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from openapi_schema_validator import OAS30Validator

from kima_stream.integrations.lidarr import Lidarr as Client, session
from kima_stream.simulator import server
from kima_stream.simulator.agenda import Agenda
from kima_stream.simulator.catalogue import Catalogue, invent
from kima_stream.simulator.lidarr import Lidarr, Luck
from kima_stream.simulator.postman import Postman
from kima_stream.simulator.records import ApiCall, Records
from kima_stream.simulator.weather import Strike, Weather

KEY = "5e1f0f6a7b8c4d2e9a3b6c5d4e7f8a90"  # of the form that Lidarr's have; it opens nothing
BEGIN = datetime(2026, 3, 14, 9, tzinfo=UTC)
DESCRIPTION = Path(
    os.environ.get("KIMA_LIDARR_OPENAPI")
    or Path(__file__).parents[1].parent / "shared" / "contracts" / "lidarr-openapi.json"
)


@dataclass
class LidarrHouse:
    """A Lidarr that serves, the weather before its door, and our client of it.

    ``pause`` is what waiting does: it moves Lidarr's clock, and nobody's else.
    """

    lidarr: Lidarr
    app: web.Application
    url: str
    client: Client
    pauses: list[float] = field(default_factory=list)
    _clock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def weather(self) -> Weather:
        """What goes wrong."""
        return self.app[server.WEATHER]

    @property
    def calls(self) -> list[ApiCall]:
        """All calls so far."""
        return self.lidarr.records.calls

    async def pause(self, seconds: float) -> None:
        """Let so many seconds go by at Lidarr."""
        self.pauses.append(seconds)
        async with self._clock:
            await self.lidarr.agenda.advance(seconds)

    def strike(self, strike: Strike) -> Strike:
        """Plan something to go wrong."""
        self.weather.strikes.append(strike)
        return strike

    def happened(self, method: str, path: str) -> list[ApiCall]:
        """Return the calls of this kind that Lidarr took and did not refuse, also those whose answer was lost."""
        return [
            call
            for call in self.calls
            if (call.method, call.path) == (method, f"/api/v1{path}") and 0 < call.status < HTTPStatus.BAD_REQUEST
        ]


@asynccontextmanager
async def opened(
    *,
    catalogue: Catalogue | None = None,
    luck: Luck | None = None,
    seed: int = 1,
    begin: datetime = BEGIN,
    shares_clock: bool = False,
) -> AsyncIterator[LidarrHouse]:
    """Run a Lidarr, of 30 albums unless told otherwise; leaving holds every call against Lidarr's description.

    With ``shares_clock`` our client's clock is Lidarr's, which goes on when somebody pauses.
    """
    rng, records, agenda = random.Random(seed), Records(), Agenda(begin)
    postman = Postman(records, rng)
    lidarr = Lidarr(catalogue or invent(rng, 30), agenda, rng, records, postman, luck=luck)
    app = server.build(lidarr, KEY)
    async with postman.working(), server.serving(app) as url, session() as connections:
        now = (lambda: agenda.now) if shares_clock else (lambda: datetime.now(UTC))
        yield LidarrHouse(lidarr, app, url, Client(url, KEY, connections, now=now))
        check_calls(records.calls)


@cache
def description() -> dict[str, Any] | None:
    """Return Lidarr's own description, or None where it is not."""
    if not DESCRIPTION.exists():
        return None
    document: dict[str, Any] = json.loads(DESCRIPTION.read_text())
    # A command repeats what it is told, by its class; the document knows the base class only.
    for name in ("Command", "CommandResource"):
        del document["components"]["schemas"][name]["additionalProperties"]
    return document


def require_description() -> None:
    """Skip the test where there is no description."""
    if description() is None:
        pytest.skip(f"not checked: there is no {DESCRIPTION}; name it with KIMA_LIDARR_OPENAPI")


def operation(method: str, path: str) -> dict[str, Any]:
    """Return what the description says of a call; the path begins with /api/v1."""
    document = description()
    assert document is not None
    template = "/".join("{id}" if part.isdigit() else part for part in path.split("?", maxsplit=1)[0].split("/"))
    found: dict[str, Any] = document["paths"][template][method.lower()]
    return found


def check_answer(method: str, path: str, status: int, content: object) -> None:
    """Hold a good answer against the description; it describes nothing else, and calls all of them 200."""
    document = description()
    if document is None or status >= HTTPStatus.BAD_REQUEST:
        return
    described = operation(method, path)["responses"]["200"].get("content", {}).get("application/json")
    if described is not None:
        _validate(described["schema"], content)


def check_calls(calls: Iterable[ApiCall]) -> None:
    """Hold calls against the description: path, method, parameters and body are Lidarr's."""
    if description() is None:
        return
    for call in calls:
        described = operation(call.method, call.path)
        parameters = {each["name"]: each["schema"] for each in described.get("parameters", []) if each["in"] == "query"}
        for name, value in call.query:
            assert name in parameters, f"{call.method} {call.path} has no parameter {name}"
            _validate(parameters[name], _of_query(parameters[name], value))
        content = described.get("requestBody", {}).get("content", {}).get("application/json")
        assert (content is not None) == bool(call.body), f"{call.method} {call.path}: a body, or none?"
        if content is not None:
            _validate(content["schema"], json.loads(call.body))


def _of_query(schema: dict[str, Any], text: str) -> object:
    """Return a parameter as its type; one of a list stands for the list."""
    match schema.get("type"):
        case "array":
            return [_of_query(schema["items"], text)]
        case "integer":
            return int(text)
        case "boolean":
            return {"true": True, "false": False}[text]
        case _:
            return text


def _validate(schema: dict[str, Any], value: object) -> None:
    document = description()
    assert document is not None
    OAS30Validator({**schema, "components": document["components"]}).validate(value)
