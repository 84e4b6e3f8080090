"""What is on its way to a download job, and what has come: the part of its fold that is about releases and files.

Pure. A download is known by its client's id, a file by Lidarr's number or by its path.
"""

from typing import Final, Literal

from msgspec.structs import replace

from kima_stream.events import (
    JobAddedToLidarr,
    JobDownloadBlocked,
    JobDownloadFailed,
    JobDownloadFinished,
    JobDownloadRemoved,
    JobGrabbed,
    JobImported,
    JobImportFailed,
    JobProgressed,
    JobSoulseekFinished,
    JobTracksCounted,
)
from projections.download_job_state import (
    MAX_FILES,
    MAX_REMEMBERED,
    Download,
    DownloadJob,
    LidarrAlbum,
    answered,
    moved,
)

# What the page says: (reason, next step).
_DOWNLOADING: Final = ("Lidarr grabbed a release.", "The download ends, then Lidarr imports it.")
_FINISHED: Final = ("The download is complete.", "Lidarr imports it.")
_IMPORTING: Final = ("Lidarr imported files.", "The job is about to complete.")
_SHORT: Final = "Lidarr imports the other tracks, or the next source is asked."
_BLOCKED: Final = ("Lidarr will not take that release again.", "Lidarr grabs another one.")
_GIVEN_UP: Final = ("A release failed.", "Lidarr grabs another one.")
_LATE: Final = ("The time for the download is up.", "Another source is asked.")
_ARRIVED: Final = "Files came through Soulseek."


def counted(state: DownloadJob, event: JobAddedToLidarr | JobTracksCounted) -> DownloadJob:
    """Return the job that knows how much of the album Lidarr has."""
    state = _with_album(state, event)
    if isinstance(event, JobAddedToLidarr):
        state = answered(state, "lidarr.add")
    # News overtakes news: what was there stays there.
    state = _with_tracks(state, lidarr=max(state.tracks_in_lidarr, event.tracks_present))
    if event.tracks_total is not None and 0 < event.tracks_total <= event.tracks_present:
        return replace(state, tracks_total=event.tracks_total)  # Lidarr has all of its edition, whichever that is
    return _with_total(state, event.tracks_total)


def grabbed(state: DownloadJob, event: JobGrabbed) -> DownloadJob:
    """Return the job with a release on its way."""
    key = key_of(event)
    known = state.download(key)
    is_imported = known is not None and known.outcome == "imported"
    is_new = known is None or not (known.is_running or is_imported)
    grabbed = Download(
        key=key,
        attempt=known.attempt if known and is_imported else state.attempt,
        outcome=known.outcome if known and not is_new else "running",
        download_id=event.download_id,
        was_grabbed=True,
        release_title=event.release_title,
        indexer=event.indexer,
        quality=event.quality,
        size_bytes=event.size_bytes,
    )
    state = _with_album(_with_download(state, grabbed), event)
    if grabbed.attempt != state.attempt:
        return state
    is_counted = is_new or (known is not None and not known.was_grabbed)
    state = replace(state, source=state.source or "lidarr", releases=state.releases + is_counted)
    # When the import overtook its grab nothing is on its way.
    return state if is_imported else moved(state, "downloading", *_DOWNLOADING)


def progressed(state: DownloadJob, event: JobProgressed) -> DownloadJob:
    """Return the job of whose download more has come; whichever attempt began it, it is of this one now."""
    known = state.download(event.download_id)
    if known is None or not known.may_come:
        return state
    adopted = replace(
        known,
        attempt=state.attempt,
        outcome="running",
        size_bytes=event.size_bytes,
        left_bytes=event.left_bytes,
    )
    return moved(_with_download(state, adopted), "downloading", *_DOWNLOADING)


def finished(state: DownloadJob, event: JobDownloadFinished) -> DownloadJob:
    """Return the job whose download the client has all of; it is of this attempt now."""
    known = state.download(event.download_id)
    if known is None or not known.may_come:
        return state
    adopted = replace(known, attempt=state.attempt, outcome="finished", left_bytes=0)
    return moved(_with_download(state, adopted), "importing", *_FINISHED)


def imported(state: DownloadJob, event: JobImported) -> DownloadJob:
    """Return the job whose files are in the library."""
    if event.download_id is not None:
        known = state.download(event.download_id) or _unseen(state, event.download_id)
        state = _with_download(state, replace(known, outcome="imported"))
    before = set(state.track_file_ids.get(event.lidarr_instance, ()))
    files = before.union(event.track_file_ids)
    fresh = len(files) - len(before)  # a file may hold several tracks, and an upgrade brings those that were there
    came = 0 if event.is_upgrade else max(fresh, event.tracks) if fresh == len(event.track_file_ids) else fresh
    state = replace(
        _with_tracks(_with_album(state, event), lidarr=state.tracks_in_lidarr + came),
        track_file_ids=state.track_file_ids | {event.lidarr_instance: tuple(sorted(files))},
        source=state.source or "lidarr",
    )
    reason, next_step = _IMPORTING
    return moved(state, "importing", reason, next_step if state.is_enough else _SHORT)


def download_failed(state: DownloadJob, event: JobDownloadFailed | JobImportFailed) -> DownloadJob:
    """Return the job that lost a release."""
    known = state.download(event.download_id) or replace(
        _unseen(state, event.download_id), release_title=event.release_title
    )
    if known.outcome == "imported":
        return state
    outcome: Literal["failed", "not_imported"] = "not_imported" if isinstance(event, JobImportFailed) else "failed"
    return _lost(state, replace(known, outcome=outcome), *_GIVEN_UP)


def blocked(state: DownloadJob, event: JobDownloadBlocked) -> DownloadJob:
    """Return the job whose release Lidarr will not take again."""
    is_awaited = state.awaits is not None and state.awaits.target == event.download_id
    state = answered(state, "lidarr.blocklist") if is_awaited else state
    known = state.download(event.download_id)
    if known is None or known.outcome == "imported":
        return state
    return _lost(state, replace(known, outcome="blocked"), *_BLOCKED)


def removed(state: DownloadJob, event: JobDownloadRemoved) -> DownloadJob:
    """Return the job whose download is gone."""
    known = state.download(event.download_id)
    if known is None or known.outcome == "imported":
        return state
    return _lost(state, replace(known, outcome="removed"), *_GIVEN_UP)


def soulseek_finished(state: DownloadJob, event: JobSoulseekFinished) -> DownloadJob:
    """Return the job with what Soulseek brought."""
    paths = {file.path for file in event.files}
    files = (*(file for file in state.soulseek_files if file.path not in paths), *event.files)
    peers = (*state.peers, *(peer for peer in event.peers if peer not in state.peers))
    state = replace(
        answered(state, "soulseek.acquire"),
        soulseek_files=files[-MAX_FILES:],
        peers=peers[-MAX_REMEMBERED:],
    )
    state = _with_total(_with_tracks(state, soulseek=event.tracks_found), max(event.tracks_wanted, 0) or None)
    return moved(state, "importing", _ARRIVED, _IMPORTING[1]) if event.files else state


def abandoned(state: DownloadJob) -> DownloadJob:
    """Return the job that does not wait for its downloads any more."""
    for hope in state.hopes:
        state = _lost(state, replace(hope, outcome="abandoned"), *_LATE)
    return state


def key_of(event: JobGrabbed) -> str:
    """Return what names the download: the client's id, or else the release and where it is from."""
    return event.download_id or f"{event.release_title} [{event.indexer}]"


def _unseen(state: DownloadJob, download_id: str) -> Download:
    """Return a download whose grab nobody has seen."""
    return Download(key=download_id, download_id=download_id, attempt=state.attempt, outcome="running")


def _lost(state: DownloadJob, download: Download, reason: str, next_step: str) -> DownloadJob:
    """Return the job without one of its hopes; with the last of them it searches again."""
    state = _with_download(state, download)
    if state.status not in {"downloading", "importing"} or state.hopes:
        return state
    return replace(state, status="searching", reason=reason, next_step=next_step)


def _with_download(state: DownloadJob, download: Download) -> DownloadJob:
    if state.download(download.key) is not None:
        downloads = tuple(download if known.key == download.key else known for known in state.downloads)
        return replace(state, downloads=downloads)
    downloads = (*state.downloads, download)
    if len(downloads) > MAX_REMEMBERED:
        ended = next((each for each in downloads if not each.is_running), downloads[0])
        downloads = tuple(each for each in downloads if each is not ended)
    return replace(state, downloads=downloads)


def _with_tracks(state: DownloadJob, *, lidarr: int | None = None, soulseek: int = 0) -> DownloadJob:
    """Return the job of which each source has so much by now; the larger number counts, never the sum."""
    in_lidarr = state.tracks_in_lidarr if lidarr is None else lidarr
    present = max(state.tracks_present, in_lidarr, soulseek)
    return replace(state, tracks_present=present, lidarr_tracks=None if in_lidarr == present else in_lidarr)


def _with_total(state: DownloadJob, total: int | None) -> DownloadJob:
    """Return the job whose album has at least so many tracks: a source that knows of fewer knows a part."""
    return state if total is None else replace(state, tracks_total=max(state.tracks_total or 0, total))


def _with_album(
    state: DownloadJob, event: JobGrabbed | JobImported | JobAddedToLidarr | JobTracksCounted
) -> DownloadJob:
    album = LidarrAlbum(event.lidarr_instance, event.lidarr_album_id)
    return state if album in state.lidarr_albums else replace(state, lidarr_albums=(*state.lidarr_albums, album))
