"""Sealed strings: nothing changed, moved or foreign ever opens; what the original sealed does."""

import os
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given, strategies as st

from kima_stream.errors import ConfigurationError, SealError
from kima_stream.settings import original, secrets
from kima_stream.settings.secrets import Keyring, Root, Roots, SealingKey

ROOT = "Xo9-a-root-that-nobody-guesses-0451"
KEY = SealingKey("k1", bytes(range(32)))


@given(st.text(max_size=200), st.text(min_size=1, max_size=40))
def test_what_was_sealed_opens_and_shows_nothing(text: str, name: str) -> None:
    """Every text comes back, and twice the same text does not look the same."""
    sealed = KEY.seal(name, text)

    assert KEY.open(name, sealed) == text
    assert sealed != KEY.seal(name, text)
    assert secrets.key_id_of(sealed) == "k1"


def test_no_changed_character_opens() -> None:
    """Each single character of it counts, and so does its length."""
    sealed = KEY.seal("settings/lidarrApiKey", "0123456789abcdef")
    changed = [
        sealed[:n] + letter + sealed[n + 1 :]
        for n in range(len(sealed))
        for letter in "ABZaz9_-+/=\n "
        if letter != sealed[n]
    ]

    for text in (*changed, sealed[:-1], sealed + "A", "", "kima1.k1.", "plain"):
        with pytest.raises(SealError, match="settings/lidarrApiKey"):
            KEY.open("settings/lidarrApiKey", text)


def test_a_value_does_not_open_in_another_place() -> None:
    """Whoever can write to the table cannot make a password of a key, nor use an older data key's name."""
    sealed = KEY.seal("settings/lidarrApiKey", "abc")

    with pytest.raises(SealError):
        KEY.open("settings/soulseekPassword", sealed)
    with pytest.raises(SealError):
        SealingKey("k2", bytes(range(32))).open("settings/lidarrApiKey", sealed.replace(".k1.", ".k2."))
    with pytest.raises(SealError):
        SealingKey("k1", bytes(32)).open("settings/lidarrApiKey", sealed)


def test_a_ring_opens_with_the_key_that_sealed_and_says_why_not() -> None:
    """Old values stay readable; an unknown key, and one of another root, are told apart."""
    old, new = KEY, SealingKey("k2", os.urandom(32))
    ring = Keyring({"k1": old, "k2": new, "k3": None}, "k2")

    assert ring.open("n", old.seal("n", "old")) == "old"
    assert secrets.key_id_of(ring.seal("n", "new")) == "k2"
    with pytest.raises(SealError, match="does not exist"):
        ring.open("n", "kima1.k9.AAAA")
    with pytest.raises(SealError, match="another root"):
        ring.open("n", "kima1.k3.AAAA")
    with pytest.raises(SealError, match="no sealed string"):
        ring.open("n", "in clear")
    with pytest.raises(ConfigurationError, match="KIMA_SECRET_KEY"):
        Keyring({"k3": None}, "k3").seal("n", "text")


def test_a_root_opens_only_what_it_wrapped() -> None:
    """And its public id says nothing of it."""
    root, other = Root(ROOT), Root(ROOT + "!")

    assert root.unwrap("k1", root.wrap("k1", bytes(32))) == bytes(32)
    assert root.id != other.id
    assert ROOT not in repr(vars(root))
    for opener, key_id in ((other, "k1"), (root, "k2")):
        with pytest.raises(SealError):
            opener.unwrap(key_id, root.wrap("k1", bytes(32)))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "short",
        "a" * 40,
        "abc" * 20,
        "default-encryption-key-change-me",
        "please-change-me-please-change-it-00",
        "0" * 31 + "1",
    ],
)
def test_a_weak_root_is_refused(secret: str) -> None:
    """The well-known, the short and the repeated; the fault does not repeat it."""
    fault = secrets.weakness(secret)

    assert fault is not None
    assert not secret or secret not in fault


def test_a_strong_root_is_taken() -> None:
    """Random text of every common spelling, and a long sentence."""
    for secret in (os.urandom(32).hex(), ROOT, "correct horse battery staple, twice over"):
        assert secrets.weakness(secret) is None


def test_the_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """Reading makes none; sealing does; everybody after that has the same root."""
    roots = Roots(given=None, previous=None, data_dir=tmp_path)

    assert (dict(roots.known()), roots.is_there()) == ({}, False)
    root = roots.primary()
    file = tmp_path / secrets.ROOT_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    assert roots.primary().id == root.id == next(iter(roots.known()))
    assert file.read_text().strip() not in repr(roots)

    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        roots.primary()
    file.chmod(0o600)
    file.write_text("weak\n")
    with pytest.raises(ConfigurationError, match="secret_key"):
        roots.known()


def test_a_given_root_comes_before_the_file_and_the_older_ones_still_open(tmp_path: Path) -> None:
    """So that one can move from the file to the environment, and from one root to the next."""
    filed = Roots(given=None, previous=None, data_dir=tmp_path).primary()
    roots = Roots(given=ROOT, previous=ROOT + " before", data_dir=tmp_path)

    assert list(roots.known()) == [Root(ROOT).id, filed.id, Root(ROOT + " before").id]
    assert roots.primary().id == Root(ROOT).id


def _sealed_by_the_original(text: str, key: bytes) -> str:
    """Do as ``utils/encryption.ts`` does."""
    iv, padder = os.urandom(16), PKCS7(128).padder()
    encryptor = Cipher(AES256(key), CBC(iv)).encryptor()
    ciphertext = encryptor.update(padder.update(text.encode()) + padder.finalize()) + encryptor.finalize()
    return f"{iv.hex()}:{ciphertext.hex()}"


PASSPHRASE = "the passphrase of the original, long"


@pytest.mark.parametrize(
    "key", [sha256(PASSPHRASE.encode()).digest(), PASSPHRASE.encode()[:32]], ids=["sha256", "legacy"]
)
@pytest.mark.parametrize("text", ["", "0123456789abcdef0123456789abcdef", "pässwörd 密"])
def test_what_the_original_sealed_can_be_read(key: bytes, text: str) -> None:
    """With both of the keys that it ever used."""
    sealed = _sealed_by_the_original(text, key)

    assert original.is_sealed(sealed)
    assert original.open_sealed("lidarrApiKey", sealed, PASSPHRASE) == text


def test_a_value_of_the_original_never_comes_out_as_garbage() -> None:
    """CBC has no tag; 2,000 wrong keys give an error, each time, and name the setting."""
    sealed = _sealed_by_the_original("a key of Lidarr's", sha256(PASSPHRASE.encode()).digest())

    for number in range(2_000):
        with pytest.raises(SealError, match="lidarrApiKey"):
            original.open_sealed("lidarrApiKey", sealed, f"another passphrase {number}")
    for text in ("plain", "ab:cd", sealed[:-2], sealed.replace(":", "")):
        assert not original.is_sealed(text)
        with pytest.raises(SealError):
            original.open_sealed("lidarrApiKey", text, PASSPHRASE)
