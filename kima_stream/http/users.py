"""Users over HTTP, for admins: who there is, and how somebody is forgotten."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from aiohttp import web

from kima_stream.http.routes import ADMIN, Call, Nothing, Route, json_response
from kima_stream.projector import Row
from kima_stream.read_models import erasure, users
from kima_stream.read_models.erasure import Erased
from kima_stream.settings.seals import ERASED
from kima_stream.settings.subject_keys import Reader
from projections.user import User

MAX_PAGE: Final = 200


class UserQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``after`` is the ``next`` of the page before."""

    after: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_PAGE)] = 50


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """A user who was given a name, or erased; ``erased_by`` is the id of an admin, or says who else."""

    user_id: str
    name: str | None
    is_erased: bool
    erased_by: str | None
    created_at: datetime
    updated_at: datetime


class UserPage(msgspec.Struct, frozen=True):
    """Users by id; ``next`` is null on the last page."""

    users: tuple[UserView, ...]
    next: str | None


async def list_users(call: Call[UserQuery, Nothing]) -> web.Response:
    """Answer one page of the users, their names opened."""
    query, roots = call.query, call.door.settings_store.sources.roots
    async with call.door.pool.acquire() as conn:
        rows = await users.list_page(conn, limit=query.limit + 1, after=query.after)
        page = rows[: query.limit]
        reader = await users.reader(conn, roots, page)
    following = page[-1].state.user_id if len(rows) > len(page) else None
    return json_response(UserPage(tuple(_view(row, reader) for row in page), following))


def _view(row: Row[User], reader: Reader) -> UserView:
    state = row.state
    return UserView(
        user_id=state.user_id,
        name=ERASED if state.is_erased else reader.show(users.NAME, state.name),
        is_erased=state.is_erased,
        erased_by=state.erased_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def erase_user(call: Call[Nothing, Nothing]) -> web.Response:
    """Erase a user for ever; their keys are refused here at once, elsewhere within a second."""
    async with call.door.pool.acquire() as conn:
        erased = await erasure.erase(
            conn, call.parameter("id"), by=call.user.user_id, correlation_id=call.correlation_id
        )
    call.door.keys.forget()
    call.door.wake_publisher()
    return json_response(erased)


ROUTES: Final = (
    Route(
        method="GET",
        path="/api/users",
        handler=list_users,
        summary="List the users with their names.",
        roles=ADMIN,
        query=UserQuery,
        responses={200: UserPage},
    ),
    Route(
        method="POST",
        path="/api/users/{id}/erase",
        handler=erase_user,
        summary="Make a user's name and notes unreadable for ever and revoke their keys; twice is once.",
        roles=ADMIN,
        responses={200: Erased},
        problems=(409,),
    ),
)
