"""``bench``: measure this machine; what measures is a part of a checkout, see bench/README.md."""

import subprocess
import sys
from pathlib import Path

import click

import kima_stream
from kima_stream.errors import ConfigurationError

CHECKOUT = Path(kima_stream.__file__).parents[1]


@click.command()
@click.argument("name", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
def bench(*, name: tuple[str, ...], as_json: bool) -> None:
    """Measure this machine, or NAME of it, on servers of its own: about four minutes, alone on the machine."""
    if not (CHECKOUT / "bench" / "__main__.py").exists():
        raise ConfigurationError(["bench is a part of a checkout of the project, not of its package: clone it"])
    command = [sys.executable, "-m", "bench", *(["--json"] if as_json else []), *name]
    sys.exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)  # noqa: S603 - ourselves, with words from our own command line
