"""The group that keeps the table ``download_jobs`` up to date with the streams of its jobs."""

from typing import Final

from kima_stream import projector
from kima_stream.read_models import download_jobs

GROUP: Final = projector.consumer_group(download_jobs.PROJECTION)
