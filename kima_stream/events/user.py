"""Who the people are, as far as the log has to know: an opaque id, and a name that can be made unreadable."""

from kima_stream.events.shapes import Event


class UserNamed(Event, frozen=True, kw_only=True, tag="user.named"):
    """A user has this name from here on; ``name`` is a sealed string, ``named_by`` an opaque id."""

    user_id: str
    name: str
    named_by: str


class UserErased(Event, frozen=True, kw_only=True, tag="user.erased"):
    """The key that opens what this user's sealed strings say is destroyed; ``erased_by`` is an opaque id."""

    user_id: str
    erased_by: str
