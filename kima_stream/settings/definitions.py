"""Every setting of the integrations and the policies, in one table.

The order of precedence is database, environment, default. What a process needs before it can open the
database is not here but in ``config``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from kima_stream.settings import kinds
from kima_stream.settings.kinds import Definition

AnyDefinition: TypeAlias = Definition[Any]  # a table holds definitions of all types

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]
_Minutes: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=7 * 24 * 60)]
_Days: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=36_500)]


def _given(key: str, type_: object, doc: str, check: Callable[[Any], Any], *also: str) -> Definition[str | None]:
    return Definition(key=key, default=None, type=type_, doc=doc, check=check, also=also)


def _secret(key: str, doc: str, *also: str) -> Definition[str | None]:
    return Definition(key=key, default=None, type=str, doc=doc, is_secret=True, check=kinds.plain, also=also)


def _enabled(key: str, doc: str, *also: str) -> Definition[bool | None]:
    return Definition(key=key, default=None, type=bool, doc=doc, also=also)


def _bound(key: str, default: int, type_: object, doc: str) -> Definition[int]:
    return Definition(key=key, default=default, type=type_, doc=doc)


LIDARR_ENABLED: Final = _enabled(
    "lidarrEnabled", "Use Lidarr; without a value: when its URL and key are there.", "LIDARR_ENABLED"
)
LIDARR_URL: Final = _given("lidarrUrl", str, "Lidarr's address.", kinds.http_url, "LIDARR_URL")
LIDARR_API_KEY: Final = _secret("lidarrApiKey", "Lidarr's key: Settings, General, Security.", "LIDARR_API_KEY")
LIDARR_QUALITY_PROFILE_ID: Final[Definition[int | None]] = Definition(
    key="lidarrQualityProfileId", default=None, type=_Count, doc="Quality profile of new artists; else Lidarr's first."
)
LIDARR_METADATA_PROFILE_ID: Final[Definition[int | None]] = Definition(
    key="lidarrMetadataProfileId", default=None, type=_Count, doc="Metadata profile of new artists; else the first."
)
SOULSEEK_ENABLED: Final = _enabled(
    "soulseekEnabled", "Use Soulseek; without a value: when user name and password are there.", "SOULSEEK_ENABLED"
)
SOULSEEK_USERNAME: Final = _given(
    "soulseekUsername", str, "User name; one login per account in the world.", kinds.plain, "SOULSEEK_USERNAME"
)
SOULSEEK_PASSWORD: Final = _secret("soulseekPassword", "Password.", "SOULSEEK_PASSWORD")
SOULSEEK_SERVER: Final[Definition[str]] = Definition(
    key="soulseekServer", default="server.slsknet.org:2242", type=str, doc="Server, `host:port`.",
    check=kinds.server, also=("SOULSEEK_SERVER",),
)  # fmt: skip
SOULSEEK_LISTEN_HOST: Final = _given(
    "soulseekListenHost", str, "Address for peers; else all.", kinds.host, "SOULSEEK_LISTEN_HOST"
)
SOULSEEK_LISTEN_PORT: Final = _bound(
    "soulseekListenPort", 2234, Annotated[int, msgspec.Meta(ge=1, le=kinds.MAX_PORT)], "Port for peers."
)
SOULSEEK_CONCURRENT_DOWNLOADS: Final = _bound(
    "soulseekConcurrentDownloads", 4, Annotated[int, msgspec.Meta(ge=1, le=10)], "Downloads at once, 1 to 10."
)
SOULSEEK_DOWNLOAD_PATH: Final = _given(
    "soulseekDownloadPath", str, "Folder for its files; else `musicPath`.", kinds.folder, "SOULSEEK_DOWNLOAD_PATH"
)
SLSKD_URL: Final = _given("slskdUrl", str, "slskd's address.", kinds.http_url, "SLSKD_URL")
SLSKD_API_KEY: Final = _secret("slskdApiKey", "slskd's key.", "SLSKD_API_KEY")
LASTFM_ENABLED: Final = _enabled(
    "lastfmEnabled", "Use Last.fm; without a value: when its key is there.", "LASTFM_ENABLED"
)
LASTFM_API_KEY: Final = _secret("lastfmApiKey", "Last.fm's key.", "LASTFM_API_KEY")
LASTFM_API_SECRET: Final = _secret("lastfmApiSecret", "Shared secret, for what is done as a user.", "LASTFM_API_SECRET")
LASTFM_USER_KEY: Final = _secret("lastfmUserKey", "Session key of a user.", "LASTFM_USER_KEY")
LASTFM_URL: Final[Definition[str]] = Definition(
    key="lastfmUrl", default="https://ws.audioscrobbler.com/2.0", type=str, doc="Last.fm's address.",
    check=kinds.http_url,
)  # fmt: skip
MUSICBRAINZ_URL: Final = _given(
    "musicbrainzUrl", str,
    "Who knows an album's tracks, e.g. https://musicbrainz.org/ws/2; without it Soulseek goes by what peers have.",
    kinds.http_url, "MUSICBRAINZ_BASE_URL",
)  # fmt: skip
DOWNLOAD_SOURCE: Final[Definition[Literal["lidarr", "soulseek"]]] = Definition(
    key="downloadSource", default="soulseek", type=Literal["lidarr", "soulseek"], doc="Where albums come from first.",
    also=("DOWNLOAD_SOURCE",),
)  # fmt: skip
PRIMARY_FAILURE_FALLBACK: Final[Definition[Literal["none", "lidarr", "soulseek"]]] = Definition(
    key="primaryFailureFallback", default="none", type=Literal["none", "lidarr", "soulseek"],
    doc="Where they come from when that failed; `none` asks nobody.",
)  # fmt: skip
MUSIC_PATH: Final = _given("musicPath", str, "The library's folder.", kinds.folder, "MUSIC_PATH")
PUBLIC_URL: Final = _given(
    "publicUrl", str, "Where others, Lidarr too, reach this server.", kinds.http_url, "KIMA_CALLBACK_URL"
)
PENDING_TIMEOUT_MINUTES: Final = _bound(
    "pendingTimeoutMinutes", 10, _Minutes, "A request that nothing was grabbed for fails after this."
)
IMPORT_TIMEOUT_MINUTES: Final = _bound(
    "importTimeoutMinutes", 15, _Minutes, "A finished download that was not imported fails after this."
)
NO_SOURCE_TIMEOUT_MINUTES: Final = _bound(
    "noSourceTimeoutMinutes", 5, _Minutes, "A request that no source can take fails after this."
)
STALLED_TIMEOUT_MINUTES: Final = _bound(
    "stalledTimeoutMinutes", 60, _Minutes, "A download without progress fails after this."
)
SOULSEEK_TIMEOUT_MINUTES: Final = _bound(
    "soulseekTimeoutMinutes", 120, _Minutes, "An album that Soulseek brings nothing more of for so long fails."
)
DOWNLOAD_TIMEOUT_MINUTES: Final = _bound(
    "downloadTimeoutMinutes", 24 * 60, _Minutes, "One source has so long, whatever progress it makes."
)
REQUIRE_ALL_TRACKS: Final[Definition[bool]] = Definition(
    key="requireAllTracks", default=True, type=bool, doc="An album is complete with all its tracks; else with some."
)
DOWNLOAD_RETRY_ATTEMPTS: Final = _bound(
    "downloadRetryAttempts", 3, Annotated[int, msgspec.Meta(ge=0, le=10)], "Further tries of one request, 0 to 10."
)
DOWNLOAD_JOB_RETENTION_DAYS: Final = _bound("downloadJobRetentionDays", 30, _Days, "Ended downloads are kept so long.")
WEBHOOK_EVENT_RETENTION_DAYS: Final = _bound(
    "webhookEventRetentionDays", 30, _Days, "Webhooks that were handled are kept so long."
)
DISCOVERY_BATCH_RETENTION_DAYS: Final = _bound(
    "discoveryBatchRetentionDays", 60, _Days, "Ended discovery batches are kept so long."
)
LIBRARY_SCAN_URL: Final[Definition[str | None]] = Definition(
    key="libraryScanUrl", default=None, type=str, is_secret=True, check=kinds.call_url,
    doc="Address that is posted to when Soulseek brought an album, e.g. the music server's scan; it may hold a key.",
)  # fmt: skip
NOTIFICATION_URLS: Final[Definition[tuple[str, ...]]] = Definition(
    key="notificationUrls", default=(), type=list[str], is_secret=True, check=kinds.any_urls,
    doc="Apprise URLs to tell what ended; blanks between them.",
)  # fmt: skip
WEBHOOK_URLS: Final[Definition[tuple[str, ...]]] = Definition(
    key="webhookUrls", default=(), type=list[str], is_secret=True, check=kinds.http_urls,
    doc="Addresses for signed webhooks of ours; blanks between them.",
)  # fmt: skip
WEBHOOK_SIGNING_SECRET: Final = _secret("webhookSigningSecret", "Signs them (Standard Webhooks).")

DEFINITIONS: Final[Mapping[str, AnyDefinition]] = MappingProxyType(
    {value.key: value for value in tuple(globals().values()) if isinstance(value, Definition)}
)

# Which settings switch a part on by themselves, when nobody said.
_NEEDS: Final[Mapping[str, tuple[Definition[str | None], ...]]] = MappingProxyType(
    {
        LIDARR_ENABLED.key: (LIDARR_URL, LIDARR_API_KEY),
        SOULSEEK_ENABLED.key: (SOULSEEK_USERNAME, SOULSEEK_PASSWORD),
        LASTFM_ENABLED.key: (LASTFM_API_KEY,),
    }
)


def needs(switch: Definition[bool | None]) -> tuple[Definition[str | None], ...]:
    """Return what a part needs to be on; nobody having said, having these switches it on."""
    return _NEEDS[switch.key]


def parse(changes: Mapping[str, object], faults: list[str]) -> dict[str, object]:
    """Return the values of ``changes``, JSON by key, those that fit; None (clear) and the mask stay as they are.

    What does not fit is in ``faults``: its key and what is expected, without the value.
    """
    values: dict[str, object] = {}
    for key, value in changes.items():
        definition = DEFINITIONS.get(key)
        if definition is None:
            faults.append(f"{key[:80]!r}: there is no such setting")
        elif value is None or is_mask(definition, value):
            values[key] = value
        else:
            try:
                values[key] = definition.from_json(value)
            except ValueError as error:  # msgspec's ValidationError is one
                faults.append(f"{key}: {error}")
    return values


def is_mask(definition: AnyDefinition, value: object) -> bool:
    """Say whether ``value`` is what stands for a secret that nobody touched."""
    return definition.is_secret and value in (kinds.MASK, [kinds.MASK])


def contradictions(values: Mapping[str, object], touched: Mapping[str, object]) -> list[str]:
    """Return what cannot be true together of all ``values`` by key, where ``touched`` has a part in it."""
    faults: list[str] = []
    for key, needed in _NEEDS.items():
        missing = [other.key for other in needed if values[other.key] is None]
        if values[key] is True and missing and not touched.keys().isdisjoint((key, *(n.key for n in needed))):
            faults.append(f"{key}: needs {' and '.join(missing)}")
    source, fallback = DOWNLOAD_SOURCE.key, PRIMARY_FAILURE_FALLBACK.key
    if values[source] == values[fallback] and (source in touched or fallback in touched):
        faults.append(f"{fallback}: it is the source that failed; expected another one, or none")
    return faults
