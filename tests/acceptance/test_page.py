"""The web page in a real browser: what an admin sees, and the settings form."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kima_stream.database import Connection, Pool
from kima_stream.settings.kinds import MASK
from tests import browser, front_door
from tests.factories import number_all
from tests.front_door import OpenDoor

SECRET = "a-lidarr-key-that-nobody-sees-4b1f"
NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
async def door(pool: Pool) -> AsyncIterator[OpenDoor]:
    """Open the door of this test."""
    async with front_door.opened(pool) as opened:
        yield opened


def enter(key: str) -> str:
    """Return the script that types a key and sends it off."""
    return f"at('key').value = {json.dumps(key)}; at('form').requestSubmit()"


def put(**values: str) -> str:
    """Return the script that types values into the settings and saves them."""
    typed = "".join(
        f"document.querySelector('[name={key}]').value = {json.dumps(text)};" for key, text in values.items()
    )
    return f"{typed} at('change').requestSubmit()"


async def settings(door: OpenDoor) -> dict[str, object]:
    """Return the values in force."""
    async with door.client.get("/api/settings") as answer:
        return {each["key"]: each["value"] for each in (await answer.json())["settings"]}


async def test_an_admin_sees_and_changes_the_settings(door: OpenDoor, conn: Connection, tmp_path: Path) -> None:
    """Saved, masked, refused with every reason, tried, and cleared; a secret is in no part of the page."""
    assert (await door.post(front_door.webhook("grab")))[0] == 200
    await number_all(conn)
    async with browser.page(door.url, tmp_path) as page:
        await page.until("at('status').textContent != '…'")
        assert await page.run("at('settings').hidden")
        await page.run(enter(door.key))
        await page.until("!at('settings').hidden && at('events').rows.length && at('events').rows[0].cells.length == 4")
        assert await page.run("at('events').rows[0].cells[1].textContent") == "lidarr.grab"

        await page.run(put(lidarrUrl="http://127.0.0.1:9", lidarrApiKey=SECRET, soulseekEnabled="false"))
        await page.until("at('outcome').className == 'ok'")
        stored = await settings(door)
        assert (stored["lidarrUrl"], stored["lidarrApiKey"], stored["soulseekEnabled"]) == (
            "http://127.0.0.1:9",
            MASK,
            False,
        )
        assert SECRET not in await page.run("document.documentElement.outerHTML")
        assert await page.run("document.querySelector('[name=lidarrApiKey]').value") == MASK

        await page.run("document.querySelector('[data-test=lidarr]').click()")
        await page.until("at('outcome').className == 'unavailable'")

        await page.run(put(lidarrUrl="no address", soulseekListenPort="many"))
        await page.until("at('outcome').textContent.includes('lidarrUrl')")
        assert "soulseekListenPort" in await page.run("at('outcome').textContent")
        assert (await settings(door))["lidarrUrl"] == "http://127.0.0.1:9"

        await page.run(put(lidarrUrl="", soulseekListenPort="2235", soulseekUsername=NASTY))
        await page.until("at('outcome').className == 'ok'")
        stored = await settings(door)
        assert (stored["lidarrUrl"], stored["soulseekListenPort"], stored["soulseekUsername"]) == (None, 2235, NASTY)
        assert await page.run("document.images.length") == 0
        assert page.faults == []


async def test_who_is_no_admin_sees_no_settings(door: OpenDoor, pool: Pool, tmp_path: Path) -> None:
    """Their downloads, and nothing else."""
    key = await front_door.make_key(pool, "user")
    async with browser.page(door.url, tmp_path) as page:
        await page.run(enter(key))
        await page.until("at('downloads').textContent.includes('Nothing yet')")
        assert await page.run("at('settings').hidden")
        assert page.faults == []
