"""The configuration: one frozen struct, read once from the environment by the composition root.

Each value may come from ``KIMA_<NAME>`` or, for secrets in files, from ``KIMA_<NAME>_FILE``; the
names of the original are accepted after ours. An empty value is no value. All faults are reported
at once, by name and without the values. What the environment says about integrations and policies
(``definitions``) is read here too, checked, and kept as ``environment``: the database comes before it.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from kima_stream.errors import ConfigurationError, SealError
from kima_stream.settings import original
from kima_stream.settings.definitions import DEFINITIONS, AnyDefinition
from kima_stream.settings.secrets import weakness

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator decides before the start; see the README for each name.

    ``database_url`` and ``redis_url`` None: ``up`` starts its own under ``data_dir``.
    ``environment`` has the values of ``definitions`` that the environment gives, by key.
    Port 0 of ``port`` takes a free one; of ``metrics_port`` it means none.
    """

    database_url: str | None = None
    redis_url: str | None = None
    host: str = "127.0.0.1"
    port: Port = 3006
    data_dir: Path = Path(".kima")
    api_key: str | None = None
    secret_key: str | None = None
    secret_key_previous: str | None = None
    original_key: str | None = None
    metrics_port: Port = 0
    metrics_keyed: bool = False
    redis_max_entries: Annotated[int, msgspec.Meta(ge=100)] = 20_000
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    url_base: str = ""
    trusted_proxies: str = ""
    environment: Mapping[str, object] = msgspec.field(default_factory=dict)

    def __repr__(self) -> str:
        """Show which values are set, never what they are: this may end in a log."""
        names = [field.name for field in msgspec.structs.fields(self) if getattr(self, field.name) is not None]
        return f"Settings({', '.join(names)})"


SECRETS: Final = ("database_url", "redis_url", "api_key", "secret_key", "secret_key_previous", "original_key")
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "database_url": ("DATABASE_URL",),
    "redis_url": ("REDIS_URL",),
    "secret_key": ("SETTINGS_ENCRYPTION_KEY",),
    "original_key": ("SETTINGS_ENCRYPTION_KEY", "ENCRYPTION_KEY"),  # it only opens: a weak one will do
}
MIN_KEY_CHARACTERS: Final = 16
_WORDS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_SCHEMES: Final[Mapping[str, tuple[str, ...]]] = {
    "database_url": ("postgresql", "postgres"),
    "redis_url": ("redis", "rediss", "unix", "valkey", "valkeys"),
}


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings that ``environ`` asks for.

    Raises:
        ConfigurationError: with every fault: name, what is wrong, what is expected.
    """
    faults: list[str] = []
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(Settings):
        names = (f"KIMA_{field.name.upper()}", *ALIASES.get(field.name, ()))
        name, text = _find(names, environ, faults) if field.name != "environment" else ("", None)
        if text is None:
            continue
        try:
            values[field.name] = _convert(field.name, text, field.type)
        except ValueError as error:  # msgspec's ValidationError is one
            faults.append(f"{name}: {error}")
    environment = _environment(environ, values.get("original_key"), faults)
    if faults:
        raise ConfigurationError(faults)
    return msgspec.structs.replace(msgspec.convert(values, Settings), environment=environment)


def secrets(settings: Settings) -> frozenset[str]:
    """Return what must never be in a log, passwords within URLs too."""
    found = {value for name in SECRETS if (value := getattr(settings, name))}
    for key, value in settings.environment.items():
        if DEFINITIONS[key].is_secret:
            found |= set(value) if isinstance(value, tuple) else {str(value)}
    return frozenset(found | {unquote(urlsplit(value).password or "") for value in found if "://" in value} - {""})


def _environment(environ: Mapping[str, str], original_key: object, faults: list[str]) -> Mapping[str, object]:
    """Return the values of ``definitions`` that the environment gives, by key."""
    values: dict[str, object] = {}
    for definition in DEFINITIONS.values():
        name, text = _find(definition.environment, environ, faults)
        if text is not None:
            try:
                values[definition.key] = _value(definition, name, text, original_key)
            except SealError as error:
                faults.append(f"{name}: {error.reason}")
            except ValueError as error:
                faults.append(f"{name}: {error}")
    return values


def _value(definition: AnyDefinition, name: str, text: str, original_key: object) -> object:
    """Return what ``text`` says; a secret may still be as the original sealed it."""
    if definition.is_secret:
        text = original.opened(name, text, original_key if isinstance(original_key, str) else None)
    return definition.from_text(text)


def _find(names: Sequence[str], environ: Mapping[str, str], faults: list[str]) -> tuple[str, str | None]:
    for name in names:
        value, path = environ.get(name), environ.get(f"{name}_FILE")
        if value and path:
            faults.append(f"{name} and {name}_FILE: give one of them, not both")
            return name, None
        if value:
            return name, value
        if path:
            try:
                return name, Path(path).read_text(encoding="utf-8").strip() or None
            except (OSError, UnicodeDecodeError) as error:
                faults.append(f"{name}_FILE: {path} cannot be read ({type(error).__name__})")
                return name, None
    return names[0], None


def _convert(field: str, text: str, kind: object) -> object:
    match field:
        case "database_url" | "redis_url":
            _check_url(text, _SCHEMES[field])
        case "url_base":
            text = _url_base(text)
        case "api_key" if len(text) < MIN_KEY_CHARACTERS:
            message = f"expected at least {MIN_KEY_CHARACTERS} characters; leave it out to have one made"
            raise ValueError(message)
        case "trusted_proxies":
            for network in text.split(","):
                ip_network(network.strip(), strict=False)
        case "secret_key" | "secret_key_previous":
            _check_root(text)
        case "data_dir":
            return Path(text).expanduser()
        case "log_level" | "log_format":
            text = text.lower()
        case _:
            pass
    if kind is bool:
        text = _WORDS.get(text.lower(), text.lower())
    return msgspec.convert(text, kind, strict=False)


def _check_root(text: str) -> None:
    fault = weakness(text)
    if fault is not None:
        raise ValueError(fault)


def _check_url(text: str, schemes: tuple[str, ...]) -> None:
    """Refuse what a client of Postgres or Redis would refuse later, with a part of the password in its words."""
    try:
        parts = urlsplit(text)
        scheme, _ = parts.scheme, parts.port
    except ValueError:
        message = "expected a URL; in a password / is written %2F, ? %3F, # %23, @ %40 and : %3A"
        raise ValueError(message) from None
    if scheme not in schemes:
        message = f"expected a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        raise ValueError(message)


def _url_base(text: str) -> str:
    base = "/" + text.strip("/")
    if base == "/":
        return ""
    if any(character in base for character in "{}?#% \\") or "//" in base:
        message = "expected a plain path such as /kima"
        raise ValueError(message)
    return base
