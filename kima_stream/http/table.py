"""The route table of the front door: every list of routes, joined."""

from typing import Final

from kima_stream.http import (
    asyncapi,
    audit,
    downloads,
    events,
    health,
    keys,
    live,
    openapi,
    page,
    settings,
    submissions,
    trace,
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
    *audit.ROUTES,
    *health.ROUTES,
    *keys.ROUTES,
    *settings.ROUTES,
    *openapi.ROUTES,
    *asyncapi.ROUTES,
    *page.ROUTES,
)
