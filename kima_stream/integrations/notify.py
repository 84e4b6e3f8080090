"""How people and programs are told: Apprise addresses, and signed webhooks (Standard Webhooks).

Addresses are secrets: outside of this module a channel is known by the hash of its address. Nothing here
tries again; who calls does.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec
from standardwebhooks import Webhook

from kima_stream.errors import ConfigurationError, IntegrationError
from kima_stream.settings import callbacks
from kima_stream.settings.callbacks import CallbackRefusedError

APPRISE: Final = "apprise"
WEBHOOK: Final = "webhook"
SYSTEM: Final = "notify"
APPRISE_SECONDS: Final = 60.0  # one address; Apprise's own time-outs are shorter


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a signed webhook says: the body is this as JSON; ``type`` is ``download.completed`` and the like."""

    type: str
    timestamp: datetime
    data: "Ended"


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt of a job that is over."""

    id: UUID
    attempt: int
    user_id: str
    artist: str
    album: str
    reason: str | None
    next_step: str | None


def channel(way: str, address: str) -> str:
    """Return the name of a channel, which says nothing of its address."""
    return f"{way}:{sha256(address.encode()).hexdigest()[:16]}"


def address_of(name: str, apprise_urls: Sequence[str], webhook_urls: Sequence[str]) -> str | None:
    """Return the address of a channel, if it is still one of those configured."""
    ways = ((APPRISE, apprise_urls), (WEBHOOK, webhook_urls))
    return next((each for way, urls in ways for each in urls if channel(way, each) == name), None)


async def tell_apprise(address: str, *, title: str, body: str) -> None:
    """Send a message to one Apprise address.

    Raises:
        ConfigurationError: Apprise is not installed, or the address is none that it knows.
        IntegrationError: it was not taken; Apprise does not say why, so it may heal.
    """
    try:
        import apprise  # noqa: PLC0415 - an extra
    except ImportError:
        message = "notificationUrls: Apprise is not installed; install kima-stream with its extra `notify`"
        raise ConfigurationError([message]) from None
    # It logs addresses: nothing of it may reach our log.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    sender = apprise.Apprise()
    if not sender.add(address):
        raise ConfigurationError(["notificationUrls: an address is none that Apprise knows"])
    try:
        async with asyncio.timeout(APPRISE_SECONDS):
            taken = await asyncio.to_thread(sender.notify, body=body, title=title)
    except TimeoutError:
        raise IntegrationError("no answer", system=SYSTEM, retryable=True) from None
    if not taken:
        raise IntegrationError("the message was not taken", system=SYSTEM, retryable=True)


async def tell_webhook(address: str, *, message_id: UUID, secret: str, told: Told) -> None:
    """Post ``told`` to an address that an admin configured, signed; ``message_id`` is the same at every try.

    Raises:
        ConfigurationError: the secret is none of Standard Webhooks' form, or the address may not be called.
        IntegrationError: it was not taken; ``retryable`` says whether it may be later.
    """
    body = msgspec.json.encode(told)
    now = datetime.now(UTC)
    try:
        signature = Webhook(secret).sign(str(message_id), now, body.decode())
    except ValueError:
        raise ConfigurationError(
            ["webhookSigningSecret: expected base64 of 24 to 64 bytes, with or without whsec_"]
        ) from None
    headers = {
        "Content-Type": "application/json",
        "webhook-id": str(message_id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    try:
        await callbacks.post_to(address, body, headers)
    except CallbackRefusedError as error:
        raise ConfigurationError([f"webhookUrls: {error.reason}"]) from None
