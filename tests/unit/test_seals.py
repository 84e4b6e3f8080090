"""What persons said, sealed: opens with their key, in its place, and in no other way."""

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from hypothesis import assume, given, strategies as st

from kima_stream.errors import SealError
from kima_stream.settings.seals import ERASED, UNREADABLE, SubjectKey, seal_of
from kima_stream.settings.secrets import SealingKey, key_id_of
from kima_stream.settings.subject_keys import Reader

KEY = SubjectKey("anna", "k1", bytes(range(32)))
EVENT = UUID("01890000-0000-7000-8000-00000000abcd")
texts = st.text(max_size=200)
fields = st.sampled_from(["note", "name", "query"])


@given(texts, fields, st.uuids(), st.text(min_size=1, max_size=40))
def test_what_was_sealed_opens_and_is_the_same_each_time(text: str, field: str, event_id: UUID, subject: str) -> None:
    """So a decision made twice is the same event; and nothing of the text can be seen."""
    key = SubjectKey(subject, "k1", bytes(range(32)))
    sealed = key.seal(event_id, field, text)

    assert key.open(field, sealed, event_id=event_id) == key.open(field, sealed) == text
    assert sealed == key.seal(event_id, field, text)
    assert seal_of(sealed) == ("k1", event_id)
    assert len(text) < 5 or text not in sealed


@given(texts, texts, fields, fields, st.uuids(), st.uuids())
def test_no_two_texts_share_a_nonce(
    text: str, other: str, field: str, elsewhere: str, event_id: UUID, another: UUID
) -> None:
    """Not in two events or fields, and not in one whose first text was rolled back."""
    assume((text, field, event_id) != (other, elsewhere, another))

    def nonce(sealed: str) -> str:
        return sealed.split(".")[2][:16]  # 12 bytes in base64

    assert nonce(KEY.seal(event_id, field, text)) != nonce(KEY.seal(another, elsewhere, other))


@given(texts, st.data())
def test_no_changed_character_opens(text: str, data: st.DataObject) -> None:
    """Each single character counts, the key's name and the event's id as well, and so does the length."""
    sealed = KEY.seal(EVENT, "note", text)
    place = data.draw(st.integers(0, len(sealed) - 1))
    letter = data.draw(st.sampled_from("ABZaz09_-+/=.\n \0ß").filter(lambda drawn: drawn != sealed[place]))
    cut = data.draw(st.integers(1, len(sealed)))

    for changed in (sealed[:place] + letter + sealed[place + 1 :], sealed[:-cut], sealed + letter, sealed.upper()):
        with pytest.raises(SealError, match="note"):
            KEY.open("note", changed)


@given(texts, st.uuids(), st.uuids())
def test_a_text_opens_in_its_own_place_only(text: str, event_id: UUID, another: UUID) -> None:
    """Not as another field, not in another event, not as another person's, not with another key."""
    assume(event_id != another)
    sealed = KEY.seal(event_id, "note", text)
    moved = sealed.replace(event_id.hex, another.hex)

    fails: tuple[Callable[[], str], ...] = (
        lambda: KEY.open("name", sealed),
        lambda: KEY.open("note", sealed, event_id=another),
        lambda: KEY.open("note", moved),
        lambda: KEY.open("note", moved, event_id=another),
        lambda: SubjectKey("ben", "k1", bytes(range(32))).open("note", sealed),
        lambda: SubjectKey("anna", "k2", bytes(range(32))).open("note", sealed.replace(".k1.", ".k2.")),
        lambda: SubjectKey("anna", "k1", bytes(32)).open("note", sealed),
    )
    for fail in fails:
        with pytest.raises(SealError):
            fail()


def test_the_parts_of_a_place_cannot_be_shifted() -> None:
    """A field that ends like a subject begins makes no other place look the same."""
    one = SubjectKey("b/c", "k1", bytes(32)).seal(EVENT, "a", "text")

    with pytest.raises(ValueError, match="slash"):
        SubjectKey("c", "k1", bytes(32)).open("a/b", one)
    with pytest.raises(SealError):
        SubjectKey("c", "k1", bytes(32)).open("a", one)


def test_the_two_kinds_of_sealed_strings_are_told_apart() -> None:
    """A person's is none of a setting's, and neither is a text that looks much like one."""
    sealed = KEY.seal(EVENT, "note", "text")
    setting = SealingKey("k1", bytes(32)).seal("settings/lidarrApiKey", "text")

    assert key_id_of(sealed) is None
    for other in (setting, "", "text", "kima1", "kima1.k1.AAAA.nonsense", f"kima1.k1.AAAA.{EVENT}", sealed + "0"):
        assert seal_of(other) is None


def test_the_edge_tells_erased_from_unreadable() -> None:
    """What is gone is said to be gone; what was changed raises, and is shown as neither text nor gone."""
    broken = SealError("subject_keys/k3", "it was changed")
    reader = Reader({"k1": KEY, "k2": None, "k3": broken})
    sealed = KEY.seal(EVENT, "note", "text")
    gone, faulty, unknown = (sealed.replace(".k1.", f".{other}.") for other in ("k2", "k3", "k4"))

    assert reader.open("note", sealed) == reader.show("note", sealed) == "text"
    assert reader.open("note", gone) == reader.show("note", gone) == ERASED
    assert reader.show("note", None) is None
    for text in (faulty, unknown, "in clear", sealed[:-1]):
        with pytest.raises(SealError):
            reader.open("note", text)
        assert reader.show("note", text) == UNREADABLE
    with pytest.raises(SealError):
        reader.open("note", sealed, event_id=uuid4())


def test_no_key_shows_itself() -> None:
    """Neither in a log nor in a traceback."""
    assert repr(KEY) == "SubjectKey(k1)"
