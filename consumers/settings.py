"""The group that keeps the table ``settings`` up to date with its stream."""

from typing import Final

from kima_stream import projector
from kima_stream.read_models import settings

GROUP: Final = projector.consumer_group(settings.PROJECTION)
