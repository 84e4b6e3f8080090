"""``healthcheck``: ask the process beside us whether it is well; for containers."""

from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import click
import msgspec

from kima_stream.cli import parts
from kima_stream.cli.loop import settings
from kima_stream.errors import IntegrationError
from kima_stream.http.health import Readiness

ANSWER_SECONDS = 5.0
_OK = 200


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON: what the process says about itself.")
def healthcheck(*, as_json: bool) -> None:
    """Ask this machine's kima-stream whether it is ready.

    Exit 1 when it is not, 3 when nobody answers.
    """
    loaded = settings()
    if loaded.metrics_port:
        loaded = msgspec.structs.replace(loaded, port=loaded.metrics_port)
    url = urlsplit(parts.door_url(loaded))
    connection = HTTPConnection(url.hostname or "", url.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", f"{url.path}/readyz")
        answer = connection.getresponse()
        text = answer.read().decode()
        msgspec.json.decode(text, type=Readiness)
    except (HTTPException, UnicodeDecodeError, msgspec.DecodeError):
        message = f"what answers on {url.netloc} is not kima-stream"
        raise IntegrationError(message, system="front door", retryable=False) from None
    finally:
        connection.close()
    click.echo(text if as_json else "ready" if answer.status == _OK else f"not ready: {text}")
    if answer.status != _OK:
        raise SystemExit(1)
