"""A search through the gate, answers as they come; in the owner's process only."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import TYPE_CHECKING, Final

from kima_stream import metrics
from kima_stream.errors import UserFacingError
from kima_stream.integrations.soulseek import queries
from kima_stream.integrations.soulseek.found import MAX_FILES, FoundFile
from kima_stream.integrations.soulseek.gate import Gate, Passed, Shared

if TYPE_CHECKING:
    from kima_stream.integrations.soulseek.library.client import Client

SEARCH_SECONDS: Final = 12.0


class Searches:
    """What the owner searches for everybody."""

    def __init__(
        self, gate: Gate, client: Callable[[], Awaitable["Client"]], *, seconds: float = SEARCH_SECONDS
    ) -> None:
        """``client`` returns the connected one or raises; a search lasts ``seconds``."""
        self._gate = gate
        self._client = client
        self._seconds = seconds

    async def search(self, query: str, *, asker: str) -> AsyncGenerator[Sequence[FoundFile]]:
        """Yield what peers answer to ``query``, a peer at a time; what somebody just searched for comes at once.

        Args:
            query: as people type it.
            asker: for whom, e.g. a stream: the gate is fair among them.

        Raises:
            UserFacingError: there is nothing in the query to search for.
            RateLimitError: the gate is full; nothing was sent.
            IntegrationError: not connected, or cut off in the middle; may heal.
        """
        words = queries.normalised(query)
        if not queries.MIN_CHARACTERS <= len(words) <= queries.MAX_CHARACTERS:
            detail = f"A search has {queries.MIN_CHARACTERS} to {queries.MAX_CHARACTERS} letters."
            raise UserFacingError(detail, status=422)
        await self._client()  # whoever is not connected uses up no place
        while True:
            turn = await self._gate.enter(words, asker=asker, seconds=self._seconds)
            if isinstance(turn, Shared):
                metrics.soulseek_searches.labels(status="shared").inc()
                yield turn.files
                return
            client = await self._connected(turn)
            if turn.is_fresh:
                break
            await self._gate.give_up(turn)  # sent so late it would come on top of those that pass now
        async with aclosing(self._sent(client, turn, words)) as found:
            async for files in found:
                yield files

    async def _connected(self, turn: Passed) -> "Client":
        """Return the connection, which may have to be made anew by now; without one the turn is given up."""
        try:
            return await self._client()
        except BaseException:
            await self._gate.give_up(turn)
            metrics.soulseek_searches.labels(status="failed").inc()
            raise

    async def _sent(self, client: "Client", turn: Passed, words: str) -> AsyncGenerator[Sequence[FoundFile]]:
        began_at = perf_counter()
        answer: list[FoundFile] = []
        status, is_whole = "failed", False
        try:
            async with aclosing(client.search(words, seconds=self._seconds)) as found:
                async for files in found:
                    room = MAX_FILES - len(answer)
                    answer += files[:room]
                    yield files
                    if len(answer) >= MAX_FILES:
                        break
            status, is_whole = "success" if answer else "not_found", True
        finally:
            metrics.soulseek_searches.labels(status=status).inc()
            metrics.soulseek_search_seconds.observe(perf_counter() - began_at)
            # Of a search that was cut off nobody knows what else there is.
            await (self._gate.settle(turn, answer) if is_whole else self._gate.give_up(turn))
