"""Tables at the terminal: complete, and harmless."""

import click
import pytest
from rich.text import Text

from kima_stream.cli import tables

STREAM = "download_job-" + "0123456789abcdef" * 20


def test_nothing_is_cut_where_nobody_looks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe a line is as long as it need be, whatever the terminal's width, and has no blanks at its end."""
    monkeypatch.setenv("COLUMNS", "20")

    tables.show(("stream", "state"), [(STREAM, 7), ("a", None)])

    assert capsys.readouterr().out == f"{'stream':<{len(STREAM)}}  state\n{STREAM}  7\na\n"


def test_a_narrow_terminal_folds_and_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All characters are there, in order, and no line is wider than the terminal."""
    for name, value in {"COLUMNS": "40", "TTY_COMPATIBLE": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)

    tables.show(("stream",), [(STREAM,)])

    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(line.strip() for line in lines[1:]) == STREAM


def test_what_others_sent_neither_colours_nor_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup is shown as it is, a control character as its escape sequence."""
    tables.show(("error", "state"), [("[red]a\x1b[2J\nb[/red]", Text("stopped", "red"))])

    assert capsys.readouterr().out.splitlines()[1] == "[red]a\\x1b[2J\\nb[/red]  stopped"


def test_an_empty_table_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, for whoever skips the first."""
    tables.show(("id", "name"), [])

    assert capsys.readouterr().out == "id  name\n"
