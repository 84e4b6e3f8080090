"""``demo``: a story in half a minute, on servers and data of its own, and what came of it.

The real program as processes, a simulated Lidarr that keeps its own records, kill -9 and FLUSHALL in
the middle. The verdict holds those records against what the HTTP API answers, never against tables.
"""

import asyncio
import secrets
import sys
from collections import Counter
from importlib.metadata import version
from typing import Final

import click
import msgspec

from kima_stream import logs
from kima_stream.cli import demo_play
from kima_stream.cli.demo_play import Stage, Story
from kima_stream.cli.loop import run, stopping
from kima_stream.simulator import verdict
from kima_stream.simulator.verdict import Fault, Seen

SHOWN_FAULTS: Final = 20


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` says."""

    lost: int
    doubled: int
    seed: int
    seconds: float
    albums: int
    requests: int
    clicks: int
    webhooks: int
    repeats: int
    reordered: int
    refused: int
    events: int
    jobs: dict[str, int]
    replay_differences: int
    verify_faults: int
    faults: list[Fault]


@click.command()
@click.option("--requests", "albums", default=200, show_default=True, type=click.IntRange(10, 5_000), help="Albums.")
@click.option("--seed", type=int, help="Play the same again; drawn and told if left out.")
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, until Ctrl-C.")
@click.option("--lie", is_flag=True, help="Put an import into the records that never was: the verdict must find it.")
@click.option("--json", "as_json", is_flag=True, help="Say nothing but the ending, in JSON.")
def demo(*, albums: int, seed: int | None, keep: bool, lie: bool, as_json: bool) -> None:
    """Play a story: requests, webhooks, crashes, a replay, the proof. Touches nothing of yours.

    Exit 1 when anything was lost or doubled.
    """
    logs.configure("auto", "error")
    chosen = secrets.randbelow(2**32) if seed is None else seed
    if not run(_played(Story(silent=as_json), albums, chosen, keep=keep, lie=lie, as_json=as_json)):
        sys.exit(1)


async def _played(story: Story, albums: int, seed: int, *, keep: bool, lie: bool, as_json: bool) -> bool:
    """Play; without an ending there is no verdict, and that is not well."""
    try:
        return await _play(story, albums, seed, keep=keep, lie=lie, as_json=as_json)
    except asyncio.CancelledError:
        click.echo("kima-stream: interrupted, no verdict", err=True)
        return False


async def _play(story: Story, albums: int, seed: int, *, keep: bool, lie: bool, as_json: bool) -> bool:
    """Play to the end and return whether all is well; Ctrl-C ends it in order."""
    name = f"kima-stream {version('kima-stream')}"
    story.say(f"{name}, seed {seed}: starting PostgreSQL, Valkey and 5 roles as processes")
    async with stopping() as stop, demo_play.staged(story, albums, seed) as stage:
        await demo_play.first_act(stage)
        await demo_play.second_act(stage)
        await demo_play.settle(stage)
        if lie:
            _lie(stage)
        ending = await _judge(stage, seed)
        if as_json:
            click.echo(msgspec.json.encode(ending))
        if keep:
            story.say(f"page {stage.house.url}/  key {stage.house.key}  Ctrl-C ends it and removes the data")
            await stop.wait()
    return not (ending.lost or ending.doubled or ending.replay_differences or ending.verify_faults)


def _lie(stage: Stage) -> None:
    """Claim one more import than was sent."""
    found = next(fact for fact in stage.records.facts if fact.kind == "import")
    claimed = stage.records.happened(
        "import", found.at, found.body + b" ", albums=found.albums, download_id=found.download_id, files=1
    )
    stage.records.told(claimed, status=200)


async def _judge(stage: Stage, seed: int) -> Ending:
    """Replay, verify, ask for everything over HTTP and compare."""
    story, house = stage.story, stage.house
    replay, verify = await asyncio.gather(
        house.command("replay", "download_jobs", "--shadow", "--json"), house.command("verify", "--log-only", "--json")
    )
    replayed, verified = (msgspec.json.decode(answer) for _, answer in (replay, verify))
    story.say(
        f"replayed beside the live rows: {replayed['events']} events, {replayed['streams']} jobs, "
        f"{replayed['different']} differ"
    )
    story.say(f"verified: the chain over {verified['log']['checked']} events, {len(verified['log']['faults'])} faults")
    seen = await verdict.look(stage.admin)
    faults = verdict.judge(stage.records, seen)
    ending = _ending(stage, seed, seen, faults, replayed["different"], len(verified["log"]["faults"]))
    jobs = ", ".join(f"{count} {status}" for status, count in ending.jobs.items())
    story.say(f"asked over HTTP: {ending.events} events, {len(seen.jobs)} jobs: {jobs}")
    for fault in faults[:SHOWN_FAULTS]:
        story.say(f"{fault.kind}: {fault.count} {fault.what}", "red")
    story.say(f"{ending.lost} lost, {ending.doubled} doubled", "bold red" if faults else "bold green")
    return ending


def _ending(stage: Stage, seed: int, seen: Seen, faults: list[Fault], differences: int, broken: int) -> Ending:
    records = stage.records
    wishes = records.wishes.values()
    return Ending(
        lost=sum(fault.count for fault in faults if fault.kind == "lost"),
        doubled=sum(fault.count for fault in faults if fault.kind == "doubled"),
        seed=seed,
        seconds=round(stage.story.seconds, 1),
        albums=len(stage.lidarr.catalogue.albums),
        requests=len(records.wishes),
        clicks=sum(wish.acknowledged for wish in wishes),
        webhooks=len(records.acknowledged()),
        repeats=sum(delivery.is_repeat for delivery in records.deliveries),
        reordered=len(stage.lidarr.postman.overtaken),
        refused=records.count("refused"),
        events=len(seen.received) + len(seen.decided),
        jobs=dict(sorted(Counter(job.status for job in seen.jobs).items())),
        replay_differences=differences,
        verify_faults=broken,
        faults=faults,
    )
