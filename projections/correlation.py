"""Which job a fact is about: names made comparable, targets, job ids, and the match itself.

Pure. An album is matched by its MBID, then by what Lidarr calls it, then by normalised equality of
artist and title, never by a part of a name: "IV" is not "IVory", "Blue" is not "Blue (Deluxe)".
"""

import unicodedata
from typing import Final
from uuid import UUID, uuid5

import msgspec

from projections.download_job import DownloadJob, LidarrAlbum

NAMESPACE: Final = UUID("5b1d4c0e-6a8e-5f0b-9c55-3f6f0f6c2d10")  # of targets and job ids: never changes
LIDARR_USER: Final = "lidarr"  # owns what nobody here asked for

# What ``normalise`` makes of ASCII, most names by far: punctuation, spaces and controls part words.
_ASCII_WORDS: Final = {code: " " for code in range(128) if unicodedata.category(chr(code))[0] in "PZC"}


class Album(msgspec.Struct, frozen=True, kw_only=True):
    """An album as a fact names it; ``mbid`` is the release group, ``lidarr`` its number in one Lidarr."""

    artist: str
    title: str
    mbid: UUID | None
    lidarr: LidarrAlbum | None = None

    @property
    def target(self) -> UUID:
        """Return the MBID, or what stands for it."""
        return self.mbid or derived_target(self.artist, self.title)


def normalise(name: str) -> str:
    """Return ``name`` without what people type differently: case, width, spaces and punctuation.

    Letters, digits, marks and symbols stay ("1+1" is not "11"), and so does every word, also one in
    brackets. A name of nothing but punctuation ("!!!") is compared by its punctuation.
    """
    if name.isascii():
        return " ".join(name.lower().translate(_ASCII_WORDS).split()) or "".join(name.split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")
    words = "".join(" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in visible).split()
    return " ".join(words) or "".join(visible.split())


def derived_target(artist: str, album: str) -> UUID:
    """Return the target of an album that has no MBID: equal names, equal target."""
    return uuid5(NAMESPACE, f"{normalise(artist)}\n{normalise(album)}")


def job_id(user_id: str, target: UUID, discovery_batch_id: UUID | None = None) -> UUID:
    """Return the id of the one job of a user for a target, so that all who ask at once mean the same."""
    return uuid5(NAMESPACE, f"{target}|{discovery_batch_id or ''}|{user_id}")


def stream_of(job: UUID) -> str:
    """Return the stream of a job."""
    return f"download_job-{job}"


def clean(name: str) -> str:
    """Return ``name`` fit to be kept and shown: no control characters, single spaces, none around it."""
    if name.isprintable():
        return " ".join(name.split())
    printable = "".join(" " if unicodedata.category(letter) in {"Cc", "Cs"} else letter for letter in name)
    return " ".join(printable.split())


def is_for(state: DownloadJob, album: Album) -> bool:
    """Return whether the job wants this album; names count only where one side has no MBID."""
    if album.mbid == state.target_mbid or album.lidarr in state.lidarr_albums:
        return True
    if album.mbid is not None and not state.target_is_derived:
        return False
    return derived_target(album.artist, album.title) == derived_target(state.artist, state.album)
