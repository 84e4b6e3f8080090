"""The group that keeps the table ``search_sessions`` up to date with the streams of its sessions."""

from typing import Final

from kima_stream import projector
from kima_stream.read_models import search_sessions

GROUP: Final = projector.consumer_group(search_sessions.PROJECTION)
