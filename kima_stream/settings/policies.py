"""From the settings to the policy of a download attempt: which sources, how often, how long.

An attempt records its policy when it opens, so a setting that changes is for the next one.
"""

from typing import Final

from kima_stream.events import Policy, Source
from kima_stream.settings import definitions
from kima_stream.settings.kinds import Definition
from kima_stream.settings.store import Snapshot

_SWITCHES: Final[dict[Source, Definition[bool | None]]] = {
    "lidarr": definitions.LIDARR_ENABLED,
    "soulseek": definitions.SOULSEEK_ENABLED,
}
_MINUTE: Final = 60


def policy_of(snapshot: Snapshot) -> Policy:
    """Return what an attempt may do that opens now.

    Raises:
        ConfigurationError: a setting cannot be opened or does not fit.
    """
    retries = snapshot[definitions.DOWNLOAD_RETRY_ATTEMPTS]
    return Policy(
        sources=_sources(snapshot),
        max_releases=1 + retries,
        max_blocklists=retries,
        requires_all_tracks=snapshot[definitions.REQUIRE_ALL_TRACKS],
        no_source_seconds=snapshot[definitions.NO_SOURCE_TIMEOUT_MINUTES] * _MINUTE,
        no_grab_seconds=snapshot[definitions.PENDING_TIMEOUT_MINUTES] * _MINUTE,
        no_progress_seconds=snapshot[definitions.STALLED_TIMEOUT_MINUTES] * _MINUTE,
        import_seconds=snapshot[definitions.IMPORT_TIMEOUT_MINUTES] * _MINUTE,
        soulseek_seconds=snapshot[definitions.SOULSEEK_TIMEOUT_MINUTES] * _MINUTE,
        total_seconds=snapshot[definitions.DOWNLOAD_TIMEOUT_MINUTES] * _MINUTE,
    )


def _sources(snapshot: Snapshot) -> tuple[Source, ...]:
    """Return who is asked, in order: the only one that is set up, or the first and, if there is one, its fallback."""
    usable = [source for source, switch in _SWITCHES.items() if _is_usable(snapshot, switch)]
    if len(usable) < len(_SWITCHES):
        return tuple(usable)
    first, fallback = snapshot[definitions.DOWNLOAD_SOURCE], snapshot[definitions.PRIMARY_FAILURE_FALLBACK]
    return (first,) if fallback in {"none", first} else (first, fallback)


def _is_usable(snapshot: Snapshot, switch: Definition[bool | None]) -> bool:
    return snapshot.is_on(switch) and all(snapshot[needed] is not None for needed in definitions.needs(switch))
