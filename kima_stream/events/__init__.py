"""The vocabulary: the shape of an event, and every fact that kima-stream itself can record.

One module per category; all of it is imported from here. Imports nothing of ours but itself. Times are
aware UTC, sizes bytes, durations seconds.
A tag is forever: a changed meaning is a new tag plus a function in ``upcasters``.
"""

from kima_stream.events.download_job import (
    JobAttemptOpened,
    JobCompleted,
    JobDownloadFailed,
    JobFailed,
    JobGrabbed,
    JobImported,
    JobRequested,
    JobRequestMerged,
)
from kima_stream.events.effect import (
    Effect,
    EffectDone,
    EffectFailed,
    EffectIntended,
    EffectWithdrawn,
    Outcome,
    open_effects,
)
from kima_stream.events.settings import (
    SettingsChanged,
    SettingsKeyRotated,
    SettingValue,
)
from kima_stream.events.shapes import (
    NO_STREAM,
    OWN_CATEGORIES,
    Event,
    NewEvent,
    RecordedEvent,
    derived_id,
    event_type,
    new_event,
    new_event_id,
    stream_category,
)
from kima_stream.events.unmatched import (
    UnmatchedResolved,
    UnmatchedWaiting,
)
from kima_stream.events.user import (
    UserErased,
    UserNamed,
)

__all__ = [
    "NO_STREAM",
    "OWN_CATEGORIES",
    "Effect",
    "EffectDone",
    "EffectFailed",
    "EffectIntended",
    "EffectWithdrawn",
    "Event",
    "JobAttemptOpened",
    "JobCompleted",
    "JobDownloadFailed",
    "JobFailed",
    "JobGrabbed",
    "JobImported",
    "JobRequestMerged",
    "JobRequested",
    "NewEvent",
    "Outcome",
    "RecordedEvent",
    "SettingValue",
    "SettingsChanged",
    "SettingsKeyRotated",
    "UnmatchedResolved",
    "UnmatchedWaiting",
    "UserErased",
    "UserNamed",
    "derived_id",
    "event_type",
    "new_event",
    "new_event_id",
    "open_effects",
    "stream_category",
]
