"""The route table of the front door: every list of routes, joined."""

from typing import Final

from kima_stream.http import (
    asyncapi,
    audit,
    connect,
    downloads,
    effects,
    events,
    health,
    keys,
    live,
    openapi,
    page,
    searches,
    settings,
    soulseek,
    submissions,
    trace,
    users,
    webhooks,
)
from kima_stream.http.routes import AnyRoute

ROUTES: Final[tuple[AnyRoute, ...]] = (
    *webhooks.ROUTES,
    *submissions.ROUTES,
    *events.ROUTES,
    *live.ROUTES,
    *trace.ROUTES,
    *downloads.ROUTES,
    *searches.ROUTES,
    *effects.ROUTES,
    *audit.ROUTES,
    *health.ROUTES,
    *keys.ROUTES,
    *users.ROUTES,
    *settings.ROUTES,
    *soulseek.ROUTES,
    *connect.ROUTES,
    *openapi.ROUTES,
    *asyncapi.ROUTES,
    *page.ROUTES,
)
