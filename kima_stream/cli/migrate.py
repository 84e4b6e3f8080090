"""``migrate``: bring the tables up to date, or say how far they are."""

import click
import msgspec

from kima_stream import schema
from kima_stream.cli import parts
from kima_stream.cli.loop import settings


@click.command()
@click.option(
    "--status", "only_status", is_flag=True, help="Show each migration and when it was applied; exit 1 if any waits."
)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def migrate(*, only_status: bool, as_json: bool) -> None:
    """Create or update the tables in KIMA_DATABASE_URL."""
    dsn = parts.database_url(settings())
    if not only_status:
        applied = schema.migrate(dsn)
        click.echo(msgspec.json.encode({"applied": applied}) if as_json else "\n".join(applied) or "nothing to do")
        return
    migrations = schema.status(dsn)
    if as_json:
        click.echo(msgspec.json.encode(migrations))
    else:
        for migration in migrations:
            click.echo(f"{migration.id:<40} {migration.applied_at or 'waits'}")
    if any(migration.applied_at is None for migration in migrations):
        raise SystemExit(1)
