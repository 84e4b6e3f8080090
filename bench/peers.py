"""Peers to be measured against: the least that such a server can do, and what one writes first."""

import asyncio
import os
import sys
from uuid import uuid4

import asyncpg
import msgspec
import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    """Read the body and answer: the ceiling of the front door."""
    await request.read()
    return web.json_response(body=b'{"ok":true}', content_type="application/json")


def one_insert(pool: asyncpg.Pool) -> web.Application:
    """One INSERT, one commit per request: what one writes first."""

    async def store(request: web.Request) -> web.Response:
        body = await request.read()
        parsed = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        async with pool.acquire() as conn:
            await conn.execute(
                "INSERT INTO naive_events (event_id, type, data) VALUES ($1, $2, $3)",
                uuid4(), bytes(parsed["eventType"]).decode(), body.decode(),
            )  # fmt: skip
        return web.Response(body=b'{"ok":true}', content_type="application/json")

    app = web.Application()
    app.router.add_post("/api/webhooks/lidarr", store)
    return app


async def main(kind: str, port: int) -> None:
    """Serve one peer on ``port`` until killed."""
    if kind == "echo":
        app = web.Application()
        app.router.add_post("/api/webhooks/lidarr", echo)
    else:
        pool = await asyncpg.create_pool(os.environ["KIMA_DATABASE_URL"], min_size=1, max_size=10)
        await pool.execute(
            """CREATE TABLE IF NOT EXISTS naive_events (
                   id bigserial PRIMARY KEY, event_id uuid UNIQUE NOT NULL, type text NOT NULL, data json NOT NULL,
                   created_at timestamptz NOT NULL DEFAULT now())"""
        )
        app = one_insert(pool)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
