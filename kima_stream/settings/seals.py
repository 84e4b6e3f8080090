"""Sealed strings of persons: what somebody said, readable as long as that person's key exists.

Pure. A sealed string is ``kima1.<key id>.<base64url of nonce, ciphertext and tag>.<event id>``. Event, field
and subject are bound to it, so it opens nowhere else. The nonce is an HMAC, under a key of its own, over event,
field and text: sealing the same twice gives the same bytes, so that a decision made again is the same event;
and no two texts ever share a nonce, also not when one of them was rolled back.
"""

import hmac
from hashlib import sha256
from typing import Final, NamedTuple
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kima_stream.errors import SealError
from kima_stream.settings.secrets import KEY_BYTES, NONCE_BYTES, SealingKey, key_id_of

ERASED: Final = "[erased]"  # shown for a text whose key is gone
UNREADABLE: Final = "[unreadable]"  # shown for one that was changed, or whose key hangs on another root


class Seal(NamedTuple):
    """What a sealed string says about itself: the key and the event that it was made for."""

    key_id: str
    event_id: UUID


def seal_of(sealed: str) -> Seal | None:
    """Return which key and event a string was sealed for, None when it is no sealed string of a person."""
    inner, _, tail = sealed.rpartition(".")
    key_id = key_id_of(inner)
    if key_id is None:
        return None
    try:
        event_id = UUID(hex=tail)
    except ValueError:
        return None
    return Seal(key_id, event_id) if event_id.hex == tail else None  # one spelling only


class SubjectKey:
    """One person's key: seals what they say and opens it again."""

    def __init__(self, subject: str, key_id: str, key: bytes) -> None:
        """Take the user id, the key's name without a dot, and 32 bytes."""
        self.subject = subject
        self.key_id = key_id
        self._sealing = SealingKey(key_id, _derive(key, b"kima-stream subject seals"))
        self._nonces = _derive(key, b"kima-stream subject nonces")

    def __repr__(self) -> str:
        """Never show the key."""
        return f"SubjectKey({self.key_id})"

    def seal(self, event_id: UUID, field: str, text: str) -> str:
        """Return ``text`` sealed for the ``field`` of an event; the same arguments give the same bytes."""
        name = self._name(event_id, field)
        nonce = hmac.digest(self._nonces, sha256(name.encode()).digest() + text.encode(), "sha256")
        return f"{self._sealing.seal(name, text, nonce=nonce[:NONCE_BYTES])}.{event_id.hex}"

    def open(self, field: str, sealed: str, *, event_id: UUID | None = None) -> str:
        """Return the text of a sealed string.

        Args:
            field: what it was sealed as.
            sealed: the string.
            event_id: of the event where it was found, None when that is not known, as in a read model.

        Raises:
            SealError: it was changed, or belongs to another event, field or person.
        """
        seal = seal_of(sealed)
        if seal is None or event_id not in {None, seal.event_id}:
            raise SealError(field, "it was changed, or sealed for another event")
        return self._sealing.open(self._name(seal.event_id, field), sealed.rpartition(".")[0])

    def _name(self, event_id: UUID, field: str) -> str:
        if not field.isidentifier():
            raise ValueError("a field has no slash: no other event, field and subject must give the same name")
        return f"{event_id.hex}/{field}/{self.subject}"


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=b"kima-stream", info=purpose).derive(key)
