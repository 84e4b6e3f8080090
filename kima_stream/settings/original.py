"""What the original sealed: AES-256-CBC, ``hex(iv):hex(ciphertext)``, read for the sake of those who move.

Its key is the sha256 of ``SETTINGS_ENCRYPTION_KEY``, in older values the first 32 bytes of it. CBC has no
tag: a wrong key gives garbage once in 256 times, so what comes out must also be text that one can print.
"""

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from kima_stream.errors import SealError

_SEALED: Final = re.compile(r"[0-9a-fA-F]{32}:(?:[0-9a-fA-F]{32})+")
_KEY_BYTES: Final = 32
_BLOCK_BITS: Final = 128


def is_sealed(text: str) -> bool:
    """Say whether ``text`` has the form of the original's sealed values; it kept other text as it was."""
    return _SEALED.fullmatch(text) is not None


def opened(name: str, text: str, passphrase: str | None) -> str:
    """Return ``text``, opened when it has the form of what the original sealed.

    Raises:
        SealError: it has, and ``passphrase`` is missing or another one; names ``name``.
    """
    if not is_sealed(text):
        return text
    if passphrase is None:
        raise SealError(name, "it is sealed as the original did; give its SETTINGS_ENCRYPTION_KEY")
    return open_sealed(name, text, passphrase)


def open_sealed(name: str, text: str, passphrase: str) -> str:
    """Return what the original sealed with ``passphrase``.

    Raises:
        SealError: it has another form, or was sealed with another passphrase; names ``name``.
    """
    if not is_sealed(text):
        raise SealError(name, "it has not the form hex:hex of the original")
    iv, ciphertext = (bytes.fromhex(part) for part in text.split(":"))
    for key in _keys(passphrase):
        plain = _decrypt(key, iv, ciphertext)
        if plain is not None and plain.isprintable():
            return plain
    raise SealError(name, "SETTINGS_ENCRYPTION_KEY does not open it")


def _keys(passphrase: str) -> Iterator[bytes]:
    raw = passphrase.encode()
    yield sha256(raw).digest()
    if len(raw) >= _KEY_BYTES:
        yield raw[:_KEY_BYTES]


def _decrypt(key: bytes, iv: bytes, ciphertext: bytes) -> str | None:
    decryptor = Cipher(AES256(key), CBC(iv)).decryptor()
    unpadder = PKCS7(_BLOCK_BITS).unpadder()
    try:
        padded = decryptor.update(ciphertext) + decryptor.finalize()
        return (unpadder.update(padded) + unpadder.finalize()).decode()
    except ValueError:  # a UnicodeDecodeError is one
        return None
