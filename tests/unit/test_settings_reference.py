"""The page of the settings: as true as the definitions that it is made from."""

from pathlib import Path

import pytest

from kima_stream.settings import reference
from kima_stream.settings.definitions import DEFINITIONS

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_definitions_say() -> None:
    """If this fails: make docs."""
    assert (ROOT / "docs" / "settings.md").read_text() == reference.markdown()


@pytest.mark.parametrize("key", DEFINITIONS)
def test_every_setting_explains_itself(key: str) -> None:
    """A sentence for people, and names for the environment, ours first."""
    definition = DEFINITIONS[key]

    assert definition.doc.endswith(".")
    assert definition.environment[0].startswith("KIMA_")
    assert f"| `{key}`{' 🔒' if definition.is_secret else ''} |" in reference.markdown()


def test_the_settings_of_the_release_notes_are_there() -> None:
    """Under their names; the switches have three states, the secrets are secret."""
    for key in ("soulseekEnabled", "lastfmEnabled"):
        assert (DEFINITIONS[key].kind, DEFINITIONS[key].default) == ("boolean", None)
    assert DEFINITIONS["soulseekDownloadPath"].kind == "text"
    assert DEFINITIONS["lastfmApiSecret"].is_secret
    assert DEFINITIONS["lastfmUserKey"].is_secret


def test_no_two_settings_share_a_name_of_the_environment() -> None:
    """One variable means one thing."""
    names = [name for definition in DEFINITIONS.values() for name in definition.environment]

    assert len(names) == len(set(names))
