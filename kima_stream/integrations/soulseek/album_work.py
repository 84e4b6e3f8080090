"""What is here of one album and what is missing, while it comes: from one peer after the other."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

import msgspec

from kima_stream.integrations.soulseek import files, names, ranking
from kima_stream.integrations.soulseek.downloads import PeerError
from kima_stream.integrations.soulseek.found import FoundFile
from kima_stream.integrations.soulseek.plans import Plan
from kima_stream.integrations.soulseek.ranking import Candidate

AT_ONCE: Final = 3  # files from one peer; how many from all is a setting
MAX_FAILURES_PER_FOLDER: Final = 3  # then the next peer; those three block it as well


class Album(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted; ``tracks`` are the titles, where somebody knows them."""

    artist: str
    title: str
    tracks: tuple[str, ...] = ()


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is here; ``path`` relative to the library's folder. ``peer`` is empty if it was there before."""

    path: str
    size_bytes: int
    peer: str


class Acquired(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; ``reasons`` say why what is missing did not come, in words for people."""

    files: tuple[Kept, ...]
    tracks_wanted: int
    peers: tuple[str, ...]
    reasons: tuple[str, ...] = ()


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """What one piece of work brings: for whom, whether it may go on, and whom to tell how far it is."""

    asker: str
    check_lease: Callable[[], None] = lambda: None
    report: Callable[[str, int, int], None] = lambda _text, _done, _total: None


class Place(msgspec.Struct, frozen=True):
    """Where an album goes: a folder below the library's ``root``."""

    root: Path
    folder: PurePosixPath


Fetch: TypeAlias = Callable[[FoundFile, Path, PurePosixPath, Hand, Callable[[int], None]], Awaitable[PurePosixPath]]


class AlbumWork:
    """One album on its way."""

    def __init__(self, fetch: Fetch, album: Album, plan: Plan, place: Place, hand: Hand) -> None:
        """``fetch`` brings one file here in its turn, or raises what ``downloads.fetch`` does."""
        self._fetch = fetch
        self.album = album
        self.hand = hand
        self._plan = plan
        self._root = place.root
        self._folder = place.folder
        self._here: dict[str, Kept] = {}
        self._peers: dict[str, None] = {}
        self._reasons: dict[str, None] = {}
        self.failed: set[str] = set()  # peers that failed us here: not asked again for this album
        self._bytes: dict[str, int] = {}
        self._expected: dict[str, int] = {}

    def missing(self) -> list[str]:
        """Return the keys of the tracks that are not here."""
        return [key for key in self._plan.tracks if key not in self._here]

    @property
    def is_begun(self) -> bool:
        """Say whether some of it is here."""
        return bool(self._here)

    def title_of(self, key: str) -> str:
        """Return what to search for when a track is looked for by itself."""
        album = self.album
        titles = {ranking.track_key(title, album.artist, album.title): title for title in album.tracks}
        return titles.get(key, ranking.without_disc(key))

    def result(self) -> Acquired:
        """Return what came of it so far."""
        return Acquired(
            files=tuple(self._here[key] for key in self._plan.tracks if key in self._here),
            tracks_wanted=len(self._plan.tracks),
            peers=tuple(self._peers),
            reasons=tuple(self._reasons),
        )

    async def find_what_is_here(self) -> None:
        """Count what was fetched before a crash, and tracks that are there by their names."""
        for candidate in self._plan.candidates:
            for key in self.missing():
                file = candidate.find(key)
                if file is not None:
                    place = await asyncio.to_thread(
                        files.find_complete, self._root, self._relative(file), file.size_bytes
                    )
                    if place is not None:
                        self._keep(key, place, file.size_bytes, file.peer)
        for name in await asyncio.to_thread(files.find_audio, self._root / self._folder):
            self._count_other(PurePosixPath(name))

    def _count_other(self, name: PurePosixPath) -> None:
        own = ranking.track_key(name.name, self.album.artist, self.album.title)
        disc = ranking.comparable(name.parent.name) if len(name.parts) > 1 else ""
        for key in self.missing():
            if key in {own, f"{disc} {own}"}:
                size = files.size_of(self._root / self._folder / name)
                self._keep(key, self._folder / name, size, "")
                return

    async def take_from(self, candidate: Candidate) -> None:
        """Fetch from one peer what it has of what is missing."""
        offered = {key: file for key in self.missing() if (file := candidate.find(key)) is not None}
        if not offered:
            return
        waiting = list(reversed(offered.items()))
        failures = 0

        async def work() -> None:
            nonlocal failures
            while waiting and failures < MAX_FAILURES_PER_FOLDER:
                if not await self.take(*waiting.pop()):
                    failures += 1

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(work())
        except ExceptionGroup as errors:  # the others were stopped; what they have so far stays
            raise errors.exceptions[0] from None

    async def take(self, key: str, file: FoundFile) -> bool:
        """Fetch one track; False, and the reason is kept, when the peer failed."""
        self._peers[file.peer] = None
        self._expected[key] = file.size_bytes

        def report(received: int) -> None:
            self._bytes[key] = received
            text = f"{len(self._here)} of {len(self._plan.tracks)} tracks, from {file.peer}"
            self.hand.report(text, sum(self._bytes.values()), sum(self._expected.values()))

        try:
            place = await self._fetch(file, self._root, self._relative(file), self.hand, report)
        except PeerError as error:
            self._reasons[f"{file.peer} {error.reason}"] = None
            self.failed.add(file.peer)
            return False
        self._keep(key, place, file.size_bytes, file.peer)
        report(file.size_bytes)
        return True

    def _keep(self, key: str, place: PurePosixPath, size_bytes: int, peer: str) -> None:
        self._here[key] = Kept(path=str(place), size_bytes=size_bytes, peer=peer)
        if peer:
            self._peers[peer] = None

    def _relative(self, file: FoundFile) -> PurePosixPath:
        disc = names.disc(file.folder)
        return self._folder / disc / names.safe(file.name) if disc else self._folder / names.safe(file.name)
