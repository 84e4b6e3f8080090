"""``openapi``, ``asyncapi``: what the front door and the log speak, without a running server."""

import click
import msgspec

from kima_stream.http import asyncapi as events, openapi as routes, table

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="On one line.")
_URL_BASE = click.option("--url-base", default="", help="The path in front of all routes, as KIMA_URL_BASE has it.")


@click.command()
@_URL_BASE
@_AS_JSON
def openapi(*, url_base: str, as_json: bool) -> None:
    """Print the OpenAPI 3.1 document of the HTTP routes."""
    _say(routes.document(table.ROUTES, url_base=url_base), as_json=as_json)


@click.command()
@_URL_BASE
@_AS_JSON
def asyncapi(*, url_base: str, as_json: bool) -> None:
    """Print the AsyncAPI 3.0 document of the events: in Redis, as server-sent events, as CloudEvents."""
    _say(events.document(url_base=url_base), as_json=as_json)


def _say(document: object, *, as_json: bool) -> None:
    encoded = msgspec.json.encode(document)
    click.echo(encoded if as_json else msgspec.json.format(encoded))
