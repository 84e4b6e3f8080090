"""What the metadata server knows: artists, their albums and tracks, invented from a seed.

Names hold what breaks careless readers: quotes, letters beyond ASCII, a roman number, an ampersand.
"""

import random
from datetime import date
from typing import Final
from uuid import UUID

import msgspec

_NAMES: Final = (
    ("The Harbour Lights", "Sjöfn & the Tides", "Ana “Nika” Duarte", 'The "Low" Choir', "Łódź Wire", "Ölberg", "四季"),
    ("Quartet", "Ensemble", "Collective", "Trio", "Orchestra", "Players", "Union", "Club"),
)
_TITLES: Final = (
    ("Tidewater", "Lantern", "Northeast", "Salt", "IV", "Ivory", "Ærø", "Slack", "Low Water", "Signal", "Çelik", "雨"),
    ("Rooms", "& Other Weather", "(Live)", 'or "the Sea"', "Sessions", "Nocturnes", "Variations", "in Blue"),
)
_GENRES: Final = ("Dream Pop", "Indie Rock", "Ambient", "Chamber Folk", "Jazz")
MAX_ALBUMS_OF_ARTIST: Final = 5


class KnownTrack(msgspec.Struct, frozen=True, kw_only=True):
    """A track; ``number`` is text, since vinyl has A1."""

    title: str
    number: str
    milliseconds: int
    size_bytes: int


class KnownAlbum(msgspec.Struct, frozen=True, kw_only=True):
    """A release group."""

    mbid: UUID
    artist_mbid: UUID
    title: str
    released: date
    genres: tuple[str, ...]
    tracks: tuple[KnownTrack, ...]
    overview: str = ""
    disambiguation: str = ""
    album_type: str = "Album"


class KnownArtist(msgspec.Struct, frozen=True, kw_only=True):
    """An artist and all albums."""

    mbid: UUID
    name: str
    albums: tuple[KnownAlbum, ...]
    genres: tuple[str, ...]
    disambiguation: str = ""
    overview: str = ""
    type: str = "Group"


class Catalogue:
    """All artists, found by id or by words."""

    def __init__(self, artists: tuple[KnownArtist, ...]) -> None:
        """Index them."""
        self._artists = {artist.mbid: artist for artist in artists}
        self.albums = tuple(album for artist in artists for album in artist.albums)
        self._albums = {album.mbid: album for album in self.albums}

    def artist(self, mbid: UUID) -> KnownArtist | None:
        """Return the artist of this id."""
        return self._artists.get(mbid)

    def artist_of(self, album: KnownAlbum) -> KnownArtist:
        """Return who made ``album``."""
        return self._artists[album.artist_mbid]

    def album(self, mbid: UUID) -> KnownAlbum | None:
        """Return the album of this id."""
        return self._albums.get(mbid)

    def find_artists(self, words: str) -> list[KnownArtist]:
        """Return the artists that have all ``words`` in their name."""
        return [artist for artist in self._artists.values() if _has(artist.name, words)]

    def find_albums(self, words: str) -> list[KnownAlbum]:
        """Return the albums that have all ``words`` in title or artist."""
        return [album for album in self.albums if _has(f"{self.artist_of(album).name} {album.title}", words)]


def invent(rng: random.Random, albums: int) -> Catalogue:
    """Return a catalogue of exactly ``albums`` albums, the same for the same ``rng``."""
    artists: list[KnownArtist] = []
    left = albums
    while left:
        count = min(left, rng.randint(1, MAX_ALBUMS_OF_ARTIST))
        artists.append(_artist(rng, len(artists), count))
        left -= count
    return Catalogue(tuple(artists))


def random_uuid(rng: random.Random) -> UUID:
    """Return a version 4 UUID drawn from ``rng``."""
    return UUID(int=rng.getrandbits(128), version=4)


def _has(text: str, words: str) -> bool:
    found = text.casefold()
    return all(word in found for word in words.casefold().split())


def _artist(rng: random.Random, number: int, albums: int) -> KnownArtist:
    mbid = random_uuid(rng)
    name = f"{rng.choice(_NAMES[0])} {rng.choice(_NAMES[1])} {number + 1}"
    genres = tuple(sorted(rng.sample(_GENRES, 2)))
    known = tuple(_album(rng, mbid, each, genres[:1]) for each in range(albums))
    return KnownArtist(mbid=mbid, name=name, albums=known, genres=genres, overview=f"{name} never existed.")


def _album(rng: random.Random, artist_mbid: UUID, number: int, genres: tuple[str, ...]) -> KnownAlbum:
    tracks = tuple(
        KnownTrack(
            title=f"{rng.choice(_TITLES[0])} {each}",
            number=str(each),
            milliseconds=rng.randint(90_000, 400_000),
            size_bytes=rng.randint(10_000_000, 60_000_000),
        )
        for each in range(1, rng.randint(3, 12))
    )
    return KnownAlbum(
        mbid=random_uuid(rng),
        artist_mbid=artist_mbid,
        title=f"{rng.choice(_TITLES[0])} {rng.choice(_TITLES[1])} {number + 1}",
        released=date(rng.randint(1965, 2025), rng.randint(1, 12), rng.randint(1, 28)),
        genres=genres,
        tracks=tracks,
        overview="An album that nobody recorded.",
    )
