"""Secrets at rest: what is sealed with AES-256-GCM, and the root secret that everything hangs on.

A *root* is the operator's: ``KIMA_SECRET_KEY``, or the generated file ``secret_key``. It opens nothing but
the *data keys*, which are random and lie wrapped in the table ``secret_keys``; a data key seals values.
So a new data key costs no restart, and a new root costs no old event.

A sealed string is ``kima1.<key id>.<base64url of nonce, ciphertext and tag>``. The key id and the name
of what is sealed are bound to it: a value that was changed, or moved to another name, does not open.
``SealingKey`` is also for keys of others, for one person's data for example.
"""

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BinasciiError
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from kima_stream import logs
from kima_stream.errors import ConfigurationError, SealError
from kima_stream.settings import key_files

FORMAT: Final = "kima1"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
ROOT_FILE: Final = "secret_key"  # in the data directory, mode 0600
MIN_ROOT_CHARACTERS: Final = 32
MIN_ROOT_DISTINCT: Final = 8
KNOWN_ROOTS: Final = frozenset(
    {
        "default-encryption-key-change-me",
        "your-secret-key-here-change-in-production",
        "change-me-to-a-random-32-char-string",
    }
)
_PLACEHOLDER: Final = re.compile(r"change[-_ ]?(me|this|it)|default[-_ ](encryption|secret)|your[-_ ]", re.IGNORECASE)
_REPEATED: Final = re.compile(r"(.{1,16}?)\1+", re.DOTALL)


class SealingKey:
    """One AES-256-GCM key and its name."""

    def __init__(self, key_id: str, key: bytes) -> None:
        """Take 32 bytes; ``key_id`` has no dot."""
        self.key_id = key_id
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        """Never show the key."""
        return f"SealingKey({self.key_id})"

    def seal(self, name: str, text: str, *, nonce: bytes | None = None) -> str:
        """Return ``text`` sealed under ``name``, a sealed string.

        Args:
            name: what it is, e.g. ``settings/lidarrApiKey``; needed again to open it.
            text: of any length; how long it is can be seen.
            nonce: 12 bytes, never the same twice for different texts; random unless given.
        """
        nonce = os.urandom(NONCE_BYTES) if nonce is None else nonce
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), self._bound(name))
        return f"{FORMAT}.{self.key_id}.{_code(sealed)}"

    def open(self, name: str, sealed: str) -> str:
        """Return the text of a sealed string.

        Raises:
            SealError: it was changed, is another name's, or of another key.
        """
        try:
            raw = _raw(sealed.removeprefix(f"{FORMAT}.{self.key_id}."))
            return self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], self._bound(name)).decode()
        except (BinasciiError, ValueError, InvalidTag):
            raise SealError(name, "it was changed, or sealed under another name") from None

    def _bound(self, name: str) -> bytes:
        return f"{FORMAT}\0{self.key_id}\0{name}".encode()


def _code(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _raw(code: str) -> bytes:
    raw = urlsafe_b64decode(code + "=" * (-len(code) % 4))
    if _code(raw) != code:
        raise ValueError("base64 has more than one spelling; ours is one")
    return raw


def key_id_of(sealed: str) -> str | None:
    """Return which key sealed a string, None when it is no sealed string."""
    match sealed.split("."):
        case [word, key_id, _] if word == FORMAT:
            return key_id
        case _:
            return None


class Root:
    """The operator's secret: wraps data keys and is used for nothing else."""

    def __init__(self, secret: str) -> None:
        """Derive the wrapping key and a public id; the secret itself is not kept."""
        self.id = _derive(secret, b"kima-stream root id", 8).hex()
        self._key = SealingKey(self.id, _derive(secret, b"kima-stream root wraps data keys", KEY_BYTES))

    def wrap(self, key_id: str, key: bytes) -> str:
        """Return a data key, sealed."""
        return self._key.seal(f"secret_keys/{key_id}", key.hex())

    def unwrap(self, key_id: str, wrapped: str) -> bytes:
        """Return a data key.

        Raises:
            SealError: it was changed, or wrapped by another root.
        """
        return bytes.fromhex(self._key.open(f"secret_keys/{key_id}", wrapped))


def _derive(secret: str, purpose: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=b"kima-stream", info=purpose).derive(secret.encode())


def weakness(secret: str) -> str | None:
    """Return why ``secret`` is no root, without repeating it; None when it will do."""
    remedy = "make one with `openssl rand -base64 32`"
    if secret in KNOWN_ROOTS or _PLACEHOLDER.search(secret):
        return f"it is a well-known placeholder; {remedy}"
    if len(secret) < MIN_ROOT_CHARACTERS:
        return f"expected at least {MIN_ROOT_CHARACTERS} characters; {remedy}"
    if len(set(secret)) < MIN_ROOT_DISTINCT or _REPEATED.fullmatch(secret):
        return f"it is easily guessed; {remedy}"
    return None


class Roots:
    """The roots that this process knows: the one to wrap with, and older ones to unwrap with."""

    def __init__(self, *, given: str | None, previous: str | None, data_dir: Path) -> None:
        """Read nothing yet.

        Args:
            given: ``KIMA_SECRET_KEY``; without it the file counts, made when something is to be sealed.
            previous: ``KIMA_SECRET_KEY_PREVIOUS``, while the data keys move from one root to the next.
            data_dir: where the file is, or will be.
        """
        self._given = given
        self._previous = previous
        self._path = data_dir / ROOT_FILE

    def __repr__(self) -> str:
        """Never show a root."""
        return f"Roots({self._path})"

    def is_there(self) -> bool:
        """Say whether there is a root without making one."""
        return self._given is not None or self._path.exists()

    def known(self) -> Mapping[str, Root]:
        """Return all roots by their id; the one to wrap with comes first. Makes none.

        Raises:
            ConfigurationError: the file can be read by others, or does not hold a root.
        """
        secrets = (self._given, self._from_file(), self._previous)
        return {root.id: root for root in (Root(secret) for secret in secrets if secret is not None)}

    def primary(self) -> Root:
        """Return the root to wrap with; makes the file when there is none at all.

        Raises:
            ConfigurationError: as above, or the file cannot be written.
        """
        if self._given is not None:
            return Root(self._given)
        secret = self._from_file()
        if secret is None:
            try:
                secret = key_files.write_once(self._path, token_urlsafe(KEY_BYTES))
            except OSError as error:
                raise ConfigurationError([f"{self._path} cannot be written ({type(error).__name__})"]) from None
        return Root(secret)

    def _from_file(self) -> str | None:
        try:
            secret = key_files.read(self._path)
            if secret is not None and key_files.is_open_to_others(self._path):
                raise ConfigurationError([f"{self._path}: others can read it; chmod 600 {self._path}"])
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError([f"{self._path} cannot be read ({type(error).__name__})"]) from None
        fault = weakness(secret) if secret is not None else None
        if fault is not None:
            raise ConfigurationError([f"{self._path}: {fault}"])
        if secret is not None:
            logs.hide(f"{self._path}", {secret})
        return secret


class Keyring:
    """The data keys as a moment found them; the newest seals, each opens what it sealed."""

    def __init__(self, keys: Mapping[str, SealingKey | None], current: str | None = None) -> None:
        """Take keys by id, None for one that no root of ours opens, and the id of the newest."""
        self._keys = keys
        self.current = current

    @property
    def is_lost(self) -> bool:
        """Say that there are keys, and that the newest one hangs on a root that is not ours."""
        return self.current is not None and self._keys[self.current] is None

    def seal(self, name: str, text: str) -> str:
        """Return ``text`` sealed under ``name`` with the newest key.

        Raises:
            ConfigurationError: there is none, or it hangs on another root.
        """
        key = self._keys.get(self.current or "")
        if key is None:
            raise ConfigurationError([WRONG_ROOT])
        return key.seal(name, text)

    def open(self, name: str, sealed: str) -> str:
        """Return the text of a sealed string, whichever key sealed it.

        Raises:
            SealError: it was changed or is another name's; or its key is unknown or hangs on another root.
        """
        key_id = key_id_of(sealed)
        if key_id is None:
            raise SealError(name, "it was changed: this is no sealed string")
        if key_id not in self._keys:
            raise SealError(name, "the key that sealed it does not exist")
        key = self._keys[key_id]
        if key is None:
            raise SealError(name, "the key that sealed it hangs on another root than KIMA_SECRET_KEY")
        return key.open(name, sealed)


WRONG_ROOT: Final = (
    "KIMA_SECRET_KEY: not the root that the stored secrets hang on; give that one, as KIMA_SECRET_KEY_PREVIOUS "
    "beside a new one"
)


def new_data_key() -> tuple[str, bytes]:
    """Return an id and 32 random bytes."""
    return token_hex(8), os.urandom(KEY_BYTES)
