"""One file on its way from a peer, as the library has it: state, bytes, and what the peer said."""

import asyncio
from contextlib import suppress
from typing import Final, Literal, TypeAlias

from aioslsk.exceptions import AioSlskException
from aioslsk.transfer.manager import TransferManager
from aioslsk.transfer.model import FailReason, Transfer
from aioslsk.transfer.state import TransferState

# waiting: in the peer's queue, or the peer is away · broken: the line was cut, it is resumed by itself
Phase: TypeAlias = Literal["waiting", "receiving", "complete", "broken", "failed"]

_PHASES: Final[dict[TransferState.State, Phase]] = {
    TransferState.DOWNLOADING: "receiving",
    TransferState.COMPLETE: "complete",
    TransferState.INCOMPLETE: "broken",
    TransferState.FAILED: "failed",
    TransferState.ABORTED: "failed",
}


class Incoming:
    """A file that is asked for; ``changed`` is set with every step of it."""

    def __init__(self, transfers: TransferManager, transfer: Transfer) -> None:
        """Made by ``Client.fetch``."""
        self._transfers = transfers
        self._transfer = transfer
        self._was_receiving = False
        self.changed = asyncio.Event()
        transfer.state_listeners.append(self)

    @property
    def phase(self) -> Phase:
        """Return how far it is."""
        return _PHASES.get(self._transfer.state.VALUE, "waiting")

    @property
    def offered_bytes(self) -> int | None:
        """Return the size that the peer offers; None before it did."""
        return self._transfer.filesize

    @property
    def received_bytes(self) -> int:
        """Return how much of the file is here, what was there before included."""
        return int(self._transfer.bytes_transfered)

    @property
    def place_in_queue(self) -> int | None:
        """Return the place in the peer's queue, if it told."""
        return self._transfer.place_in_queue

    @property
    def reason(self) -> str:
        """Return why it failed, in the peer's words or the library's."""
        return str(self._transfer.fail_reason or self._transfer.abort_reason or "")

    @property
    def is_cut_off(self) -> bool:
        """Say whether the peer ended in the middle: it may be asked again and goes on from there."""
        return self.phase == "failed" and self._transfer.fail_reason in {None, FailReason.CANCELLED}

    @property
    def may_be_local(self) -> bool:
        """Say whether it may be our own disk that failed: the peer can use the same words."""
        return self._was_receiving and self._transfer.fail_reason == FailReason.FILE_READ_ERROR

    async def again(self) -> None:
        """Ask the peer once more, from where it ended."""
        with suppress(AioSlskException):  # the library may have asked by itself
            await self._transfers.queue(self._transfer)

    async def end(self) -> None:
        """Stop and forget it; the file stays as far as it came."""
        if not self._transfer.is_finalized():
            with suppress(AioSlskException):
                await self._transfers.pause(self._transfer)
        self._transfer.local_path = None  # to remove a transfer removes its file
        with suppress(AioSlskException, ValueError):
            await self._transfers.remove(self._transfer)

    async def on_transfer_state_changed(
        self, transfer: Transfer, old: TransferState.State, new: TransferState.State
    ) -> None:
        """Take a step of the library; it calls this by name."""
        del transfer, old
        self._was_receiving |= new in {TransferState.INITIALIZING, TransferState.DOWNLOADING}
        self.changed.set()
