"""What to search for: pure. From the exact name to a looser one; the first query with an answer is enough.

The network matches every word of a query anywhere in a file's path, so what is not in most paths must go: "feat."
tails, editions in brackets, quotes. Queries that say the same are one: the gate lets it through once.
"""

import re
import unicodedata
from typing import Final

MAX_CHARACTERS: Final = 100  # the network drops longer ones
MIN_CHARACTERS: Final = 3  # peers ignore shorter ones

_VARIOUS: Final = frozenset({"various artists", "various", "va"})
_SIGNS: Final = str.maketrans(
    {
        "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"',
        "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2014": "-", "\u2212": "-",
        "\u00d7": "x", "\u2026": " ", "/": " ", "\\": " ", "*": " ",
    }
)  # fmt: skip
_FEATURING: Final = re.compile(r"\s*[(\[]?\b(?:feat\.?|ft\.?|featuring)\s.*$", re.IGNORECASE)
_LOOSE_BRACKETS: Final = re.compile(
    r"\s*[(\[][^)\]]*\b(?:live|remaster(?:ed)?|remix|mix|version|edit|demo|acoustic|radio|single|extended|instrumental"
    r"|deluxe|edition|expanded|anniversary|bonus|reissue|mono|stereo|explicit)\b[^)\]]*[)\]]",
    re.IGNORECASE,
)
_TAIL: Final = re.compile(
    r"\s+-\s+(?:\d{4}\s+)?(?:re-?master(?:ed)?|live|mono|stereo|single|radio)\b.*$", re.IGNORECASE
)
_CLASSICAL: Final = re.compile(
    r"\b(?:(?:op|no|k|kv|d)\.|(?:bwv|rv|hob|woo)\.?)\s*[\dIVX]+[a-z]?\b(?:\s*/\s*\d+)?"
    r"|\bin [A-G](?:[- ](?:flat|sharp))? (?:major|minor)\b"
    r"|\(arr\.[^)]*\)",
    re.IGNORECASE,
)
_BRACKETS: Final = re.compile(r"[()\[\]{}\"]")


def normalised(query: str) -> str:
    """Return ``query`` as it is sent and compared: plain signs, single spaces, lower case."""
    plain = unicodedata.normalize("NFC", query).translate(_SIGNS)
    words = "".join(letter if letter.isprintable() else " " for letter in plain).split()
    # A leading minus would exclude the word.
    return " ".join(word.lstrip("-") for word in words if any(letter.isalnum() for letter in word)).lower()


def album_queries(artist: str, album: str) -> tuple[str, ...]:
    """Return what to search for an album, best first."""
    name, title = _artist(artist), loosened(album)
    together = () if is_various(artist) else (f"{name} {title}", f"{name} {_BRACKETS.sub(' ', album)}")
    return _usable(*together, title)


def track_queries(artist: str, title: str, album: str = "") -> tuple[str, ...]:
    """Return what to search for a track, best first."""
    name, loose = _artist(artist), loosened(title)
    moderate = _BRACKETS.sub(" ", _or(_FEATURING.sub("", title), title))
    with_album = (f"{loosened(album)} {loose}", f"{name} {loosened(album)} {loose}") if album else ()
    if is_various(artist):
        return _usable(*with_album[:1], loose)
    return _usable(f"{name} {loose}", f"{name} {moderate}", loose, *with_album)


def _usable(*queries: str) -> tuple[str, ...]:
    """Return what can be sent, each once, in order."""
    sent = dict.fromkeys(normalised(query) for query in queries)
    return tuple(query for query in sent if MIN_CHARACTERS <= len(query) <= MAX_CHARACTERS)


def is_various(artist: str) -> bool:
    """Say whether the artist is nobody in particular."""
    return normalised(artist) in _VARIOUS


def _artist(artist: str) -> str:
    plain = re.sub(r"\s*&\s*", " and ", artist.translate(_SIGNS))
    return re.sub(r"^the\s+(?!the\b)", "", plain, flags=re.IGNORECASE) or plain


def loosened(title: str) -> str:
    """Return ``title`` without what is not in most file names; as it was if nothing is left."""
    plain = title.translate(_SIGNS)
    loose = _FEATURING.sub("", _TAIL.sub("", _LOOSE_BRACKETS.sub("", plain)))
    loose = " ".join(_BRACKETS.sub(" ", _CLASSICAL.sub(" ", loose)).split()).strip(" ,-")
    return _or(loose, plain)


def _or(changed: str, original: str) -> str:
    return changed if len(changed.strip()) >= MIN_CHARACTERS else original
