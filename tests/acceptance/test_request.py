"""``request`` and ``reconcile --once`` over a real database and a simulated Lidarr."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from kima_stream.database import Pool
from kima_stream.simulator.lidarr import Luck
from tests import acquisition
from tests.acquisition import Play
from tests.lidarr import KEY
from tests.polling import eventually


async def told(play: Play, dsn: str, tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command as a process and return exit code, stdout and stderr."""
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KIMA_DATABASE_URL": dsn, "KIMA_DATA_DIR": str(tmp_path),
           "LIDARR_URL": play.house.url, "LIDARR_API_KEY": KEY, "COLUMNS": "200"}  # fmt: skip
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kima_stream", *arguments,
        cwd=Path(__file__).parents[2], env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(), 60)
    return child.returncode or 0, out.decode(), err.decode()


async def test_it_follows_a_job_to_its_end(pool: Pool, dsn: str, tmp_path: Path) -> None:
    """Each step is a line; exit 0 when the album is there."""
    async with acquisition.playing(pool) as play:
        album = play.albums[0]
        artist = play.house.lidarr.catalogue.artist_of(album).name
        code, out, err = await told(play, dsn, tmp_path, "request", artist, album.title, "--mbid", str(album.mbid))

    assert (code, err) == (0, "")
    assert "asked for" in out
    assert "✓ completed" in out


@pytest.mark.parametrize("luck", [Luck(finds=0.0)])
async def test_a_job_that_fails_says_why_in_json_too(pool: Pool, dsn: str, tmp_path: Path, luck: Luck) -> None:
    """Exit 1, and the job with its reason on stdout, nothing else."""
    async with acquisition.playing(pool, luck=luck) as play:
        album = play.albums[0]
        artist = play.house.lidarr.catalogue.artist_of(album).name
        code, out, _ = await told(
            play, dsn, tmp_path, "request", artist, album.title, "--mbid", str(album.mbid), "--json"
        )

    job = json.loads(out)
    assert (code, job["status"]) == (1, "failed")
    assert job["reason"]
    assert job["next_step"]


async def test_without_waiting_it_only_asks(pool: Pool, dsn: str, tmp_path: Path) -> None:
    """Exit 0 at once; a name without a letter is refused with 2."""
    async with acquisition.playing(pool, luck=Luck(ends=0.0)) as play:
        album = play.albums[0]
        artist = play.house.lidarr.catalogue.artist_of(album).name
        code, out, _ = await told(play, dsn, tmp_path, "request", artist, album.title, "--no-wait", "--json")
        refused, _, err = await told(play, dsn, tmp_path, "request", " ", album.title)

    assert (code, json.loads(out)["status"] in {"requested", "searching", "downloading"}) == (0, True)
    assert refused == 2
    assert "at least one letter" in err


async def test_reconciling_once_finds_what_no_webhook_told(pool: Pool, dsn: str, tmp_path: Path) -> None:
    """It looks at Lidarr's history before it sweeps; one that does not answer is something left behind."""
    async with acquisition.playing(pool, webhooks=False) as play:
        job_id = await play.ask(play.albums[0])
        await eventually(lambda: any(d.state == "imported" for d in play.house.lidarr.downloads), timeout=30)
        code, out, _ = await told(play, dsn, tmp_path, "reconcile", "--once", "--json")
        await play.ends(job_id, "completed")
        play.house.weather.is_down = True
        failed, away, _ = await told(play, dsn, tmp_path, "reconcile", "--once")

    assert code == 0
    assert json.loads(out)["lidarr"]["history"] > 0
    assert failed == 1
    assert "lidarr" in away
