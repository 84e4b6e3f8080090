"""From settings to the policy of an attempt: who is asked, in which order, how often and how long."""

from datetime import UTC, datetime

import pytest

from kima_stream.errors import ConfigurationError
from kima_stream.events import Policy, SettingValue
from kima_stream.settings.policies import policy_of
from kima_stream.settings.secrets import Keyring
from kima_stream.settings.store import Snapshot, snapshot

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
LIDARR = {"lidarrUrl": "http://lidarr:8686", "lidarrApiKey": "k" * 32}
SOULSEEK = {"soulseekUsername": "ann", "soulseekPassword": "secret"}
BOTH = LIDARR | SOULSEEK


def settings(**values: object) -> Snapshot:
    """Return these settings in force, the others at their defaults."""
    return snapshot(-1, {}, Keyring({}), values)


def test_the_defaults_are_those_of_the_original() -> None:
    """Nothing set up: nobody is asked, within the bounds that an attempt has by itself."""
    assert policy_of(settings()) == Policy()


@pytest.mark.parametrize(
    ("values", "sources"),
    [
        (LIDARR, ("lidarr",)),
        (SOULSEEK, ("soulseek",)),
        (LIDARR | {"downloadSource": "soulseek"}, ("lidarr",)),
        (SOULSEEK | {"downloadSource": "lidarr", "primaryFailureFallback": "lidarr"}, ("soulseek",)),
        (BOTH, ("soulseek",)),
        (BOTH | {"primaryFailureFallback": "none"}, ("soulseek",)),
        (BOTH | {"primaryFailureFallback": "lidarr"}, ("soulseek", "lidarr")),
        (BOTH | {"primaryFailureFallback": "soulseek"}, ("soulseek",)),
        (BOTH | {"downloadSource": "lidarr", "primaryFailureFallback": "soulseek"}, ("lidarr", "soulseek")),
        (BOTH | {"soulseekEnabled": False, "primaryFailureFallback": "lidarr"}, ("lidarr",)),
        (BOTH | {"lidarrEnabled": False, "primaryFailureFallback": "lidarr"}, ("soulseek",)),
        ({"lidarrEnabled": True, "lidarrUrl": "http://lidarr:8686"}, ()),
    ],
)
def test_who_is_asked(values: dict[str, object], sources: tuple[str, ...]) -> None:
    """The only one that is there, or the first; another one only where the settings name it; none means none."""
    assert policy_of(settings(**values)).sources == sources


def test_how_often_and_how_long() -> None:
    """Minutes become seconds; no retries is one release, and none of them blocked."""
    policy = policy_of(
        settings(
            downloadRetryAttempts=0, requireAllTracks=False, noSourceTimeoutMinutes=1, pendingTimeoutMinutes=2,
            stalledTimeoutMinutes=3, importTimeoutMinutes=4, soulseekTimeoutMinutes=5, downloadTimeoutMinutes=6,
        )
    )  # fmt: skip

    assert policy == Policy(
        max_releases=1, max_blocklists=0, requires_all_tracks=False, no_source_seconds=60, no_grab_seconds=120,
        no_progress_seconds=180, import_seconds=240, soulseek_seconds=300, total_seconds=360,
    )  # fmt: skip


def test_a_setting_that_cannot_be_used_is_no_policy() -> None:
    """Rather no attempt than one that asks somebody else."""
    stored = {"lidarrApiKey": SettingValue(value=7, changed_by="ann", changed_at=NOW)}
    broken = snapshot(0, stored, Keyring({}), {"lidarrUrl": "http://lidarr:8686"})

    with pytest.raises(ConfigurationError, match="lidarrApiKey"):
        policy_of(broken)
