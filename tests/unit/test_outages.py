"""What Postgres says when it goes is an outage at every door, also when asyncpg has no better word for it."""

import asyncpg
import pytest

from kima_stream import database
from kima_stream.http import feed, problems

# Seen when a server stopped between two statements of a connection: "another operation is in progress".
GONE = sorted({*database.OUTAGE, asyncpg.InternalClientError}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", GONE)
def test_it_is_answered_with_503(kind: type[Exception]) -> None:
    """And with the advice to come again; 500 would say that the sender need not."""
    problem, headers = problems.from_error(kind("gone"))

    assert problem.status == 503
    assert "Retry-After" in headers


@pytest.mark.parametrize("kind", GONE)
def test_the_live_feed_sits_it_out(kind: type[Exception]) -> None:
    """An error that is none of these would end it for every reader."""
    assert issubclass(kind, feed.OUTAGE)
