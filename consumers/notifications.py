"""Notifications: the table that shows them, and the calls that tell people and programs.

A channel is told once. A signed webhook carries the effect's id, by which its receiver knows a repeat;
Apprise's services know no such id, so after a crash in the middle nobody is told a second time: the channel
fails, and says so.
"""

from abc import abstractmethod
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


class _Tell(Executor):
    """Tells one channel: finds the notification and the address, says failures in our words."""

    max_attempts = MAX_ATTEMPTS

    def __init__(self, pool: Pool, settings: SettingsStore) -> None:
        """Read the address when asked."""
        self._pool = pool
        self._settings = settings

    @abstractmethod
    async def tell(self, address: str, row: Row[Notification], work: Work) -> None:
        """Tell it, or raise."""

    async def perform(self, work: Work) -> Event:
        """Tell the channel that the effect names."""
        current = await self._settings.loaded()
        channel = work.effect.target or ""
        urls = (_urls(current, definitions.NOTIFICATION_URLS), _urls(current, definitions.WEBHOOK_URLS))
        address = notify.address_of(channel, *urls)
        async with self._pool.acquire() as conn:
            row = await notifications.TABLE.find(conn, work.stream)
        if row is None or address is None:
            return work.failure("not_found", "The address is not among the settings any more.")
        work.check_lease()
        try:
            await self.tell(address, row, work)
        except ConfigurationError as error:
            return work.failure("refused", str(error), _MEND)
        return NotificationDelivered(channel=channel)


class TellApprise(_Tell, CannotAsk):
    """Sends a message to one Apprise address, at most once."""

    kind = f"{notify.APPRISE}.tell"

    async def tell(self, address: str, row: Row[Notification], work: Work) -> None:  # noqa: ARG002 - the class' shape
        """Send it."""
        told = row.state
        title = _TITLES[told.kind].format(album=told.album, artist=told.artist)
        body = " ".join(filter(None, (told.reason, told.next_step))) or title
        await notify.tell_apprise(address, title=title, body=body)


class TellWebhook(_Tell, MayRepeat):
    """Posts a signed webhook; the effect's id is its ``webhook-id``."""

    kind = f"{notify.WEBHOOK}.tell"

    async def tell(self, address: str, row: Row[Notification], work: Work) -> None:
        """Post it; nothing is sent unsigned."""
        secret = self._settings.current[definitions.WEBHOOK_SIGNING_SECRET]
        if secret is None:
            raise ConfigurationError(["webhookSigningSecret: missing, and nothing is sent unsigned"])
        await notify.tell_webhook(address, message_id=work.effect.effect_id, secret=secret, told=_told(row))


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
