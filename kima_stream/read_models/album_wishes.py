"""Who wants an album: the keys that find every job of it, and whether another of them is under way.

Lidarr's library is shared: what one job does not want any more stays there while another one waits for it.
"""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from kima_stream import correlation_keys
from kima_stream.database import Connection
from kima_stream.events import stream_category
from kima_stream.read_models.download_jobs import PROJECTION, find_many
from projections import correlation
from projections.correlation import Album
from projections.download_job import DownloadJob


def keys_of(album: Album) -> list[str]:
    """Return the keys of an album as a user names it."""
    names = correlation_keys.of_names(correlation.derived_target(album.artist, album.title))
    return [names] if album.mbid is None else [names, correlation_keys.of_mbid(album.mbid)]


def keys_of_job(job: DownloadJob) -> list[str]:
    """Return the keys that find all jobs which may want the same album."""
    lidarr = [correlation_keys.of_lidarr_album(album.instance, album.album_id) for album in job.lidarr_albums]
    return keys_of(_album(job)) + lidarr


async def is_wanted_elsewhere(
    conn: Connection, job: DownloadJob, stream: str, found: Mapping[str, Sequence[str]]
) -> bool:
    """Say whether an active job other than ``job``, which is that of ``stream``, wants its album.

    ``found`` is what ``correlation_keys.lock`` returned for its keys: whoever may become such a job waits for them.
    """
    albums = [replace(_album(job), lidarr=lidarr) for lidarr in (None, *job.lidarr_albums)]
    others = {each for streams in found.values() for each in streams} - {stream}
    rows = await find_many(conn, sorted(each for each in others if stream_category(each) == PROJECTION.category))
    return any(other.state.is_active and correlation.is_for(other.state, album) for other in rows for album in albums)


def _album(job: DownloadJob) -> Album:
    return Album(artist=job.artist, title=job.album, mbid=None if job.target_is_derived else job.target_mbid)
