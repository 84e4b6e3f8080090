"""Notifications: the table that shows them, and the calls that tell people and programs.

A channel is told once. A signed webhook carries the effect's id, by which its receiver knows a repeat;
Apprise's services know no such id, so after a crash in the middle nobody is told a second time: the channel
fails, and says so.
"""

from typing import Final

from kima_stream import projector
from kima_stream.database import Pool
from kima_stream.effect_work import CannotAsk, Executor, MayRepeat, Work
from kima_stream.effects import Owner
from kima_stream.errors import ConfigurationError
from kima_stream.events import Event, NotificationAddressed, NotificationDelivered
from kima_stream.integrations import notify
from kima_stream.integrations.notify import Ended, Told
from kima_stream.projector import Row
from kima_stream.read_models import notifications
from kima_stream.settings import definitions
from kima_stream.settings.store import SettingsStore, Snapshot
from projections import notification
from projections.notification import Notification

GROUP: Final = projector.consumer_group(notifications.PROJECTION)
OWNER: Final = Owner(projection=notifications.PROJECTION, decide=notification.decide)

MAX_ATTEMPTS: Final = 10  # over some minutes: what nobody takes by then is old news
_MEND: Final = "An admin mends the settings; the next notification uses them."
_GONE: Final = ("not_found", "The address is not among the settings any more.")
_TITLES: Final = {
    "completed": "{album} by {artist} is there",
    "partial": "A part of {album} by {artist} is there",
    "failed": "{album} by {artist} could not be had",
}


class Address(MayRepeat):
    """Finds the channels that are configured at this moment."""

    kind = notification.ADDRESS

    def __init__(self, settings: SettingsStore) -> None:
        """Read them when asked."""
        self._settings = settings

    async def perform(self, work: Work) -> Event:  # noqa: ARG002 - whichever it is
        """Name the channels."""
        current = await self._settings.loaded()
        apprise = (notify.channel(notify.APPRISE, each) for each in _urls(current, definitions.NOTIFICATION_URLS))
        webhooks = (notify.channel(notify.WEBHOOK, each) for each in _urls(current, definitions.WEBHOOK_URLS))
        return NotificationAddressed(channels=tuple(dict.fromkeys((*apprise, *webhooks))))


class TellApprise(CannotAsk):
    """Sends a message to one Apprise address, at most once."""

    kind = f"{notify.APPRISE}.tell"
    max_attempts = MAX_ATTEMPTS

    def __init__(self, pool: Pool, settings: SettingsStore) -> None:
        """Read the address when asked."""
        self._pool = pool
        self._settings = settings

    async def perform(self, work: Work) -> Event:
        """Tell it."""
        row, channel, address = await _addressed(self._pool, self._settings, work)
        if row is None or address is None:
            return work.failure(*_GONE)
        told = row.state
        title = _TITLES[told.kind].format(album=told.album, artist=told.artist)
        body = " ".join(filter(None, (told.reason, told.next_step))) or title
        work.check_lease()
        try:
            await notify.tell_apprise(address, title=title, body=body)
        except ConfigurationError as error:
            return work.failure("refused", str(error), _MEND)
        return NotificationDelivered(channel=channel)


class TellWebhook(MayRepeat):
    """Posts a signed webhook; the effect's id is its ``webhook-id``."""

    kind = f"{notify.WEBHOOK}.tell"
    max_attempts = MAX_ATTEMPTS

    def __init__(self, pool: Pool, settings: SettingsStore) -> None:
        """Read the address when asked."""
        self._pool = pool
        self._settings = settings

    async def perform(self, work: Work) -> Event:
        """Tell it."""
        row, channel, address = await _addressed(self._pool, self._settings, work)
        secret = self._settings.current[definitions.WEBHOOK_SIGNING_SECRET]
        if row is None or address is None:
            return work.failure(*_GONE)
        if secret is None:
            return work.failure("refused", "webhookSigningSecret: missing, and nothing is sent unsigned.", _MEND)
        try:
            work.check_lease()
            await notify.tell_webhook(address, message_id=work.effect.effect_id, secret=secret, told=_told(row))
        except ConfigurationError as error:
            return work.failure("refused", str(error), _MEND)
        return NotificationDelivered(channel=channel)


def executors(pool: Pool, settings: SettingsStore) -> list[Executor]:
    """Return what tells; none needs to be in one process only."""
    return [Address(settings), TellApprise(pool, settings), TellWebhook(pool, settings)]


def _urls(current: Snapshot, definition: definitions.AnyDefinition) -> tuple[str, ...]:
    """Return the addresses; such that cannot be opened are nobody's: ``doctor`` shows the fault."""
    try:
        urls: tuple[str, ...] = current[definition]
    except ConfigurationError:
        return ()
    return urls


async def _addressed(
    pool: Pool, settings: SettingsStore, work: Work
) -> tuple[Row[Notification] | None, str, str | None]:
    """Return the notification, the channel and its address, None where one is gone."""
    current = await settings.loaded()
    channel = work.effect.target or ""
    async with pool.acquire() as conn:
        row = await notifications.TABLE.find(conn, work.stream)
    apprise, webhooks = _urls(current, definitions.NOTIFICATION_URLS), _urls(current, definitions.WEBHOOK_URLS)
    return row, channel, notify.address_of(channel, apprise, webhooks)


def _told(row: Row[Notification]) -> Told:
    told = row.state
    return Told(
        type=f"download.{told.kind}",
        timestamp=row.created_at,
        data=Ended(
            id=told.job_id,
            attempt=told.attempt,
            user_id=told.user_id,
            artist=told.artist,
            album=told.album,
            reason=told.reason,
            next_step=told.next_step,
        ),
    )
