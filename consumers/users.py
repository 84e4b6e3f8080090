"""The group that keeps the table ``users`` up to date with their streams."""

from typing import Final

from kima_stream import projector
from kima_stream.read_models import users

GROUP: Final = projector.consumer_group(users.PROJECTION)
