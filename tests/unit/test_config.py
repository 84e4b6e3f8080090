"""The configuration: what is accepted, and that all faults come at once, without values."""

from pathlib import Path

import pytest

from kima_stream.errors import ConfigurationError
from kima_stream.settings import config
from kima_stream.settings.config import Settings


def test_nothing_set_is_enough() -> None:
    """Two commands on a fresh machine: every value has a default."""
    settings = config.load({})

    assert settings == Settings()
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 3006, Path(".kima"))
    assert (settings.database_url, settings.redis_url) == (None, None)


def test_values_come_from_the_environment() -> None:
    """Each in its type; words for yes and no as people write them."""
    settings = config.load(
        {
            "KIMA_PORT": "80",
            "KIMA_DATABASE_URL": "postgresql://host/kima",
            "KIMA_DATA_DIR": "/data",
            "KIMA_METRICS_KEYED": "Yes",
            "KIMA_LOG_LEVEL": "DEBUG",
            "KIMA_URL_BASE": "kima/",
            "KIMA_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "PATH": "/bin",
        }
    )

    assert (settings.port, settings.database_url, settings.data_dir) == (80, "postgresql://host/kima", Path("/data"))
    assert (settings.metrics_keyed, settings.log_level, settings.url_base) == (True, "debug", "/kima")


def test_the_names_of_the_original_are_accepted() -> None:
    """Ours comes first when both are there."""
    settings = config.load(
        {
            "DATABASE_URL": "postgres://old/kima",
            "REDIS_URL": "redis://old",
            "KIMA_REDIS_URL": "redis://new",
            "LIDARR_URL": "http://lidarr:8686",
            "SETTINGS_ENCRYPTION_KEY": "Xo9-a-root-that-nobody-guesses-0451",
        }
    )

    assert (settings.database_url, settings.redis_url) == ("postgres://old/kima", "redis://new")
    assert settings.environment == {"lidarrUrl": "http://lidarr:8686"}
    assert settings.secret_key == "Xo9-a-root-that-nobody-guesses-0451"


@pytest.mark.parametrize("name", ["KIMA_ORIGINAL_KEY", "SETTINGS_ENCRYPTION_KEY", "ENCRYPTION_KEY"])
def test_a_secret_may_be_as_the_original_sealed_it(name: str) -> None:
    """``hex:hex`` is opened with its key, under any of that key's names; without the key it is a fault."""
    sealed = "000102030405060708090a0b0c0d0e0f:46b3e58b47b6216751dfeef7ccf0c07b"
    given = {"LIDARR_API_KEY": sealed, name: "the passphrase of the original, long"}

    assert config.load(given).environment == {"lidarrApiKey": "0123456789"}
    for wrong in ({"LIDARR_API_KEY": sealed}, {**given, name: "another passphrase: 83a1 of the original"}):
        with pytest.raises(ConfigurationError, match="LIDARR_API_KEY: ") as caught:
            config.load(wrong)
        assert sealed not in str(caught.value)


def test_what_is_secret_is_known_to_be() -> None:
    """All that the log must hide: keys, passwords within URLs, and the secrets of the environment."""
    settings = config.load(
        {
            "KIMA_DATABASE_URL": "postgresql://kima:pass%20word@host/kima",
            "KIMA_API_KEY": "0123456789abcdef",
            "KIMA_SECRET_KEY": "Xo9-a-root-that-nobody-guesses-0451",
            "LIDARR_API_KEY": "of-lidarr",
            "LIDARR_URL": "http://lidarr:8686",
            "KIMA_WEBHOOK_URLS": "http://a/1 http://b/2",
        }
    )

    assert config.secrets(settings) == {
        "postgresql://kima:pass%20word@host/kima", "pass word", "0123456789abcdef",
        "Xo9-a-root-that-nobody-guesses-0451", "of-lidarr", "http://a/1", "http://b/2",
    }  # fmt: skip


def test_a_value_can_come_from_a_file(tmp_path: Path) -> None:
    """As container secrets do; the newline at the end is not part of it."""
    file = tmp_path / "key"
    file.write_text("0123456789abcdef\n")

    assert config.load({"KIMA_API_KEY_FILE": str(file)}).api_key == "0123456789abcdef"
    assert config.load({"LIDARR_API_KEY_FILE": str(file)}).environment == {"lidarrApiKey": "0123456789abcdef"}


def test_an_empty_value_is_no_value() -> None:
    """Compose files pass empty variables on."""
    assert config.load({"KIMA_DATABASE_URL": "", "KIMA_PORT": ""}) == Settings()


def test_all_faults_come_at_once() -> None:
    """One round mends them all; each names its variable."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(
            {
                "KIMA_PORT": "99999",
                "KIMA_DATABASE_URL": "mysql://x",
                "KIMA_REDIS_URL": "http://[",
                "KIMA_LOG_FORMAT": "xml",
                "KIMA_API_KEY": "short",
                "KIMA_METRICS_KEYED": "perhaps",
                "KIMA_TRUSTED_PROXIES": "everybody",
                "KIMA_URL_BASE": "/a?b",
                "KIMA_SECRET_KEY_FILE": "/does/not/exist",
                "KIMA_SECRET_KEY_PREVIOUS": "default-encryption-key-change-me",
                "LIDARR_URL": "lidarr:8686",
                "SLSKD_API_KEY": "a",
                "SLSKD_API_KEY_FILE": "b",
            }
        )

    names = {fault.partition(":")[0] for fault in caught.value.faults}
    assert names == {
        "KIMA_PORT", "KIMA_DATABASE_URL", "KIMA_REDIS_URL", "KIMA_LOG_FORMAT", "KIMA_API_KEY", "KIMA_METRICS_KEYED",
        "KIMA_TRUSTED_PROXIES", "KIMA_URL_BASE", "KIMA_SECRET_KEY_FILE",
        "KIMA_SECRET_KEY_PREVIOUS", "LIDARR_URL",
        "SLSKD_API_KEY and SLSKD_API_KEY_FILE",
    }  # fmt: skip


def test_no_fault_and_no_repr_tells_a_secret() -> None:
    """Both may end in a log."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(
            {
                "KIMA_DATABASE_URL": "mysql://user:secret@host",
                "KIMA_API_KEY": "secret",
                "KIMA_SECRET_KEY": "secret" * 9,
                "LIDARR_URL": "http://user:secret@lidarr",
                "KIMA_NOTIFICATION_URLS": "secret",
            }
        )

    assert "secret" not in str(caught.value.faults)
    assert "secret" not in repr(Settings(database_url="postgresql://user:secret@host"))
    assert "secret" not in repr(Settings(environment={"lidarrApiKey": "secret"}))
    assert "secret" not in str(Settings(api_key="secret"))


@pytest.mark.parametrize("name", ["KIMA_REDIS_URL", "KIMA_DATABASE_URL"])
def test_a_password_that_is_not_escaped_is_refused_and_not_repeated(name: str) -> None:
    """Read as a part of the address it would be in every complaint of the client."""
    scheme = "redis" if name == "KIMA_REDIS_URL" else "postgresql"
    with pytest.raises(ConfigurationError) as refused:
        config.load({name: f"{scheme}://:ab12/cd34@host/0"})

    assert f"{name}: expected a URL" in str(refused.value)
    assert not any(part in str(refused.value) for part in ("ab12", "cd34"))
