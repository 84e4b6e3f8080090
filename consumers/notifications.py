"""The group that keeps the table ``notifications`` up to date with its streams."""

from typing import Final

from kima_stream import projector
from kima_stream.read_models import notifications

GROUP: Final = projector.consumer_group(notifications.PROJECTION)
