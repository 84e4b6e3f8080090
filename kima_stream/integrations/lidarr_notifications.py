"""Whom Lidarr tells what happens. It tries each with a Test before it keeps it: serve first, register second."""

from kima_stream.integrations.lidarr_http import SLOW_SECONDS
from kima_stream.integrations.lidarr_reading import Reader, decoded_whole
from kima_stream.integrations.lidarr_types import Json, Notification, Whole


class Notifications(Reader):
    """The notifications of one Lidarr."""

    async def notifications(self) -> tuple[Whole[Notification], ...]:
        """Return whom Lidarr tells what happens, each with all its fields."""
        return await self._wholes("/notification", Notification)

    async def notification_schema(self) -> Whole[Notification] | None:
        """Return the empty form of a webhook."""
        found = await self._wholes("/notification/schema", Notification)
        return next((each for each in found if each.resource.implementation == "Webhook"), None)

    async def register(self, body: Json) -> Whole[Notification]:
        """Add a notification; Lidarr posts a Test to it first and refuses when that fails."""
        content = await self.transport.call("POST", "/notification", body=body, seconds=SLOW_SECONDS)
        return decoded_whole(content, Notification)

    async def change_notification(self, notification_id: int, body: Json) -> Whole[Notification]:
        """Change a notification; Lidarr posts a Test to it first if anything is different."""
        content = await self.transport.call(
            "PUT", "/notification/{id}", body=body, seconds=SLOW_SECONDS, number=notification_id
        )
        return decoded_whole(content, Notification)

    async def try_notification(self, body: Json) -> None:
        """Let Lidarr post a Test as ``body`` says, and keep nothing."""
        await self.transport.call("POST", "/notification/test", body=body, seconds=SLOW_SECONDS)
