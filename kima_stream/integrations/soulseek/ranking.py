"""Whose album to take: pure. Folders are matched by names made comparable, then ranked by quality and chance.

"IV" is not "IVory": a title matches when its words are the same, never because one is a part of the other.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from kima_stream.integrations.soulseek import names, queries
from kima_stream.integrations.soulseek.found import AUDIO, FoundFile

MAX_CANDIDATES: Final = 5
MIN_RATIO: Final = 0.5  # of the wanted tracks that a folder must have
MAX_TRACKS: Final = 200  # more is no album
MAX_TRACK_BYTES: Final = 4_000_000_000
MEGABYTE: Final = 1_000_000
FAST_BYTES_PER_SECOND: Final = MEGABYTE
LONG_QUEUE: Final = 20
_LOSSLESS: Final = frozenset({"flac", "wav"})
_HIGH_KBPS: Final = 320
_GOOD_KBPS: Final = 256
_NUMBER: Final = re.compile(r"^(?:(?:cd|disc)\s*\d{1,2}\s+|[a-d]?\d{1,2}\s+)*(?:[a-d]?\d{1,3}\s+)(?=\S)")
_DISC_KEY: Final = re.compile(r"^(?:cd|disc|disk|disco|volume|vol)\s?\d{1,2}\s")
_FEATURING: Final = re.compile(r"\s(?:feat|ft|featuring)\s.*$")


class Candidate(msgspec.Struct, frozen=True):
    """One peer's folder of an album; ``tracks`` by their key, in the order of the folder."""

    peer: str
    folder: str
    tracks: dict[str, FoundFile]

    def find(self, key: str) -> FoundFile | None:
        """Return its file of a track of another folder: on the same disc, or on any when there is but one."""
        if key in self.tracks:
            return self.tracks[key]
        plain = without_disc(key)
        fitting = [file for other, file in self.tracks.items() if without_disc(other) == plain]
        return fitting[0] if len(fitting) == 1 else None


def without_disc(key: str) -> str:
    """Return the key of a track wherever it stands."""
    return _DISC_KEY.sub("", key) or key


def comparable(name: str) -> str:
    """Return ``name`` without case, accents, punctuation and single spaces."""
    decomposed = unicodedata.normalize("NFKD", name.casefold().replace("&", " and ").replace("'", ""))
    letters = (letter for letter in decomposed if unicodedata.category(letter) != "Mn")
    return " ".join("".join(letter if letter.isalnum() else " " for letter in letters).split())


def track_key(title: str, artist: str = "", album: str = "") -> str:
    """Return what two names of one track have in common: no number, no artist, no album, no guests."""
    stem = title.rpartition(".")[0] if title.rpartition(".")[2].lower() in AUDIO else title
    words = comparable(stem)
    for known in ("", comparable(artist), comparable(album)):
        if known and words.startswith(f"{known} "):
            words = words.removeprefix(f"{known} ")
        words = _NUMBER.sub("", words) or words
    return _FEATURING.sub("", words)


def rank_albums(
    files: Iterable[FoundFile],
    *,
    artist: str,
    album: str,
    tracks: Sequence[str] = (),
    blocked: Collection[str] = (),
    limit: int = MAX_CANDIDATES,
) -> list[Candidate]:
    """Return the folders that are this album, best first, one per peer and ``limit`` at most.

    Args:
        files: what a search found.
        artist: as it is asked for.
        album: as it is asked for; an edition in brackets need not be there.
        tracks: titles, if they are known: a folder must have MIN_RATIO of them. Else its names decide.
        blocked: peers to leave alone.
        limit: how many alternatives there may be.
    """
    folders: dict[tuple[str, str], list[FoundFile]] = defaultdict(list)
    for file in files:
        if is_track(file) and file.peer not in blocked:
            folders[file.peer, _album_folder(file.folder)].append(file)
    wanted = [track_key(title, artist, album) for title in tracks]
    candidates = [_candidate(peer, folder, inside, artist, album) for (peer, folder), inside in folders.items()]
    fitting = [one for one in candidates if len(one.tracks) <= MAX_TRACKS and _is_album(one, artist, album, wanted)]
    usual = usual_count(fitting)
    best: dict[str, Candidate] = {}
    for one in sorted(fitting, key=lambda one: (*(-part for part in _score(one, wanted, usual)), one.peer, one.folder)):
        best.setdefault(one.peer, one)
    return list(best.values())[:limit]


def is_track(file: FoundFile) -> bool:
    """Say whether it may be a track, by its name and size."""
    return file.is_audio and file.size_bytes <= MAX_TRACK_BYTES


def usual_count(candidates: Sequence[Candidate]) -> int:
    """Return how many tracks most of the folders have: so many the album has, as far as anybody knows."""
    counts = Counter(len(one.tracks) for one in candidates)
    return max(counts, key=lambda count: (counts[count], count), default=0)


def rank_tracks(
    files: Iterable[FoundFile],
    *,
    artist: str,
    title: str,
    album: str = "",
    blocked: Collection[str] = (),
    limit: int = MAX_CANDIDATES,
) -> list[FoundFile]:
    """Return the files that are this track, best first, one per peer and ``limit`` at most."""
    key, name = track_key(title, artist, album), comparable(artist)
    fitting = [
        file
        for file in files
        if is_track(file)
        and file.peer not in blocked
        and track_key(file.name, artist, album) == key
        and _has_words(comparable(file.path), name)
    ]
    best: dict[str, FoundFile] = {}
    for file in sorted(fitting, key=lambda one: (*(-part for part in _promise([one])), one.peer, one.path)):
        best.setdefault(file.peer, file)
    return list(best.values())[:limit]


def _album_folder(folder: str) -> str:
    """Return the album's folder of a disc's."""
    return folder.rpartition("\\")[0] if names.disc(folder) else folder


def _candidate(peer: str, folder: str, files: list[FoundFile], artist: str, album: str) -> Candidate:
    """Return a folder with one file per track: where a track is there twice, the better one."""
    tracks: dict[str, FoundFile] = {}
    for file in sorted(files, key=lambda one: one.path):
        key = " ".join(filter(None, (comparable(names.disc(file.folder)), track_key(file.name, artist, album))))
        if key not in tracks or _quality(file) > _quality(tracks[key]):
            tracks[key] = file
    return Candidate(peer, folder, tracks)


def _is_album(one: Candidate, artist: str, album: str, wanted: Sequence[str]) -> bool:
    """Say whether a folder is the album: always by its names, and by its tracks if they are known."""
    last, name = comparable(one.folder.rpartition("\\")[2]), comparable(artist)
    if not any(_is_titled(last, name, comparable(title)) for title in (album, queries.loosened(album))):
        return False
    is_by = queries.is_various(artist) or any(_has_words(comparable(file.path), name) for file in _files(one))
    return is_by and _ratio(one, wanted) >= MIN_RATIO


def _files(one: Candidate) -> Collection[FoundFile]:
    return one.tracks.values()


def _has_words(text: str, words: str) -> bool:
    """Say whether ``words`` stand in ``text``, whole and in their order."""
    return f" {words} " in f" {text} "


_HARMLESS: Final = re.compile(
    r"(?:the|a|by|\d{4}|flac|mp3|ogg|m4a|aac|wav|web|cd|vinyl|lp|ep|album|lossless|320|256|v0|vbr|cbr|kbps|k|\d{1,2}bit"
    r"|\d{2,3}khz|\d{2,3}|bit|khz|hz|remaster|remastered|deluxe|edition|expanded|anniversary|bonus|tracks?|reissue"
    r"|version|explicit|digital|download|hi|res|us|uk|eu|japan|and|\d{1,2}(?:st|nd|rd|th))"
)


def _is_titled(folder: str, artist: str, title: str) -> bool:
    """Say whether a folder's name is the title: what else stands there may be the artist, years, formats, editions.

    Any other word makes it another album.
    """
    if not title or not _has_words(folder, title):
        return False
    rest = f" {folder} ".replace(f" {title} ", "  ", 1)
    if artist:
        rest = rest.replace(f" {artist} ", "  ", 1)
    return all(_HARMLESS.fullmatch(word) for word in rest.split())


def _ratio(one: Candidate, wanted: Sequence[str]) -> float:
    """Return how much of the wanted tracks a folder has; all of them when nobody knows which they are."""
    return sum(key in _keys(one) for key in wanted) / len(wanted) if wanted else 1.0


def _keys(one: Candidate) -> frozenset[str]:
    """Return the keys of its tracks without the discs."""
    return frozenset(without_disc(key) for key in one.tracks)


def _score(one: Candidate, wanted: Sequence[str], usual: int) -> tuple[float, ...]:
    """Return what decides, the weightiest first: completeness, then what a peer promises."""
    complete = _ratio(one, wanted) if wanted else -abs(len(one.tracks) - usual)
    return (round(complete, 3), *_promise(list(_files(one))))


def _promise(files: Sequence[FoundFile]) -> tuple[float, ...]:
    """Return how good it would be and how soon: a slot that is free now, quality, speed, queue."""
    first = files[0]
    queue = min(first.queue_length, LONG_QUEUE) / LONG_QUEUE
    return (
        float(first.has_free_slot),
        round(sum(map(_quality, files)) / len(files), 2),
        min(first.speed_bytes_per_second / FAST_BYTES_PER_SECOND, 10.0),
        -queue,
    )


def _quality(file: FoundFile) -> float:
    if file.extension in _LOSSLESS:
        return 3.0
    kbps = file.bitrate_kbps or 0
    return 2.0 if kbps >= _HIGH_KBPS else 1.0 if kbps >= _GOOD_KBPS else 0.5 if kbps else 0.25
