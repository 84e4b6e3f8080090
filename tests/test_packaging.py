"""What is built, locked and promised at the top of the house."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import msgspec
import pytest

from kima_stream.cli import main
from kima_stream.http.table import ROUTES
from kima_stream.settings.config import Settings

ROOT = Path(__file__).parent.parent
PACKAGES = ("kima_stream", "projections", "consumers")
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULE_LINES = 300
FUNCTION_LINES = 40


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel as pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """No tests, no bench, no loose file lands in somebody's site-packages."""
    top = {name.split("/")[0] for name in wheel.namelist()}

    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_brings_the_migrations_and_finds_them(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """An installed wheel has no checkout beside it: the SQL travels inside."""
    wheel.extractall(tmp_path)
    program = "from kima_stream import schema; print(schema.folder())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()

    assert Path(found) == tmp_path / "kima_stream" / "_migrations"
    assert sorted(path.name for path in Path(found).iterdir()) == sorted(
        path.name for path in (ROOT / "migrations").glob("*.sql")
    )


def test_the_wheel_is_free_software_that_nobody_uploads_by_mistake(wheel: zipfile.ZipFile) -> None:
    """Its import names are generic: PyPI refuses the classifier. The licence travels with it."""
    info = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(info).decode())

    assert "Private :: Do Not Upload" in metadata.get_all("Classifier", [])
    assert metadata["License-Expression"] == "GPL-3.0-or-later"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_pins_by_hash_and_names_no_registry(lock: Path) -> None:
    """Whoever installs uses their own registry and gets the same files."""
    text = lock.read_text()
    requirements = re.split(r"\n(?=\S)", text.strip())

    assert "://" not in text
    assert all(re.match(r"[A-Za-z0-9._-]+==\S+", line) for line in requirements)
    assert all("--hash=sha256:" in line for line in requirements)


def test_the_locks_fit_every_python_and_hold_every_dependency() -> None:
    """Debian's 3.11.2 needs async-timeout, which 3.11.7 does not; every name in pyproject is locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = {
        "runtime": project["dependencies"],
        "embedded": extras["embedded"],
        "run": [*project["dependencies"], *extras["embedded"], *extras["checkout"]],
        "dev": [*extras["dev"], *extras["checkout"]],
    }
    locked = {path.stem: path.read_text() for path in LOCKS}

    assert "async-timeout==" in locked["runtime"]
    for lock, requirements in asked.items():
        for requirement in requirements:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert name is not None
            pinned = re.search(rf"^{re.escape(name[0].lower())}==", locked[lock], re.MULTILINE)
            assert pinned or name[0] == "kima-stream", requirement


def test_make_help_knows_every_target() -> None:
    """The two commands and what else one may ask for."""
    text = subprocess.run(["/usr/bin/env", "make", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert {line.split()[1] for line in text.splitlines() if line.startswith("  make ")} == {
        "install", "run", "demo", "test", "test-all", "check", "format", "bench", "lock", "docs", "clean", "help",
    }  # fmt: skip


def test_every_setting_command_and_route_is_in_the_readme() -> None:
    """A table that is not true is worse than none."""
    readme = (ROOT / "README.md").read_text()
    settings = [
        f"`KIMA_{field.name.upper()}`" for field in msgspec.structs.fields(Settings) if field.name != "environment"
    ]
    commands = [f"`{name}" for name in main.list_commands(None)]  # type: ignore[arg-type]
    routes = [f"`{route.path}`" for route in ROUTES]

    assert [word for word in (*settings, *commands, *routes) if word not in readme] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_and_a_function_stay_small(path: Path) -> None:
    """What wants to be longer is a new noun."""
    text = path.read_text()
    functions = [
        (node.name, (node.end_lineno or 0) - node.lineno + 1 - _docstring_lines(node))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]

    assert len(text.splitlines()) <= MODULE_LINES
    assert [(name, lines) for name, lines in functions if lines > FUNCTION_LINES] == []


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return len((ast.get_docstring(node, clean=False) or "").splitlines())
