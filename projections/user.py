"""A user: an opaque id, a sealed name, and whether they were erased.

Pure: the name is carried as it was sealed. Erased is for ever.
"""

from typing import Final

import msgspec
from msgspec.structs import replace

from kima_stream.events import Event, UserErased, UserNamed


class User(msgspec.Struct, frozen=True, kw_only=True):
    """The user as they stand; ``name`` is a sealed string, None once they are erased."""

    user_id: str = ""
    name: str | None = None
    is_erased: bool = False
    erased_by: str | None = None


INITIAL: Final = User()


def apply(state: User, event: Event) -> User:
    """Return the user as they stand after ``event``; never refuses, the fact has happened."""
    match event:
        case UserNamed() if not state.is_erased:
            return replace(state, user_id=event.user_id, name=event.name)
        case UserErased() if not state.is_erased:
            return replace(state, user_id=event.user_id, name=None, is_erased=True, erased_by=event.erased_by)
        case _:
            return state


def stream_of(user_id: str) -> str:
    """Return the stream of a user."""
    return f"user-{user_id}"
