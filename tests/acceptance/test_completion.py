"""Shell completion, asked of the real shells: what Tab offers a person. A shell that is not here is left out."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from kima_stream.cli import completion, main, parts
from kima_stream.read_models import PROJECTIONS

# Each prints what it would offer for the words of $LINE, one a line.
BASH = """
eval "$(kima-stream completion bash)"
read -ra COMP_WORDS <<< "$LINE"
[[ $LINE == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
handler=$(complete -p kima-stream | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
$handler kima-stream
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -U compinit && compinit -u -d "$HOME/.zcompdump"
eval "$(kima-stream completion zsh)"
_describe() { local name=${@[-2]}; [[ $name == -* ]] && name=${@[-1]}; print -rl -- ${${(P)${3}}%%:*} }
compadd() { print -rl -- ${(P)${@[-1]}} }
words=(${(z)LINE}); [[ $LINE == *" " ]] && words+=("")
CURRENT=$#words
$_comps[kima-stream]
"""
FISH = """
kima-stream completion fish | source
complete --do-complete "$LINE" | string replace --regex '\\t.*' ''
"""
SCRIPTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "bash": (BASH, ("--norc", "-c")),
    "zsh": (ZSH, ("-f", "-c")),
    "fish": (FISH, ("--no-config", "-c")),
}


@pytest.fixture(params=SCRIPTS)
def offered(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], list[str]]:
    """Return what a shell offers after a line was typed and Tab pressed."""
    script, flags = SCRIPTS[request.param]
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"{request.param} is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KIMA_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def ask(line: str) -> list[str]:
        answer = subprocess.run(
            [shell, *flags, script], env=environment | {"LINE": line}, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert answer.stderr == ""
        return answer.stdout.split()

    return ask


def test_tab_offers_what_there_is(offered: Callable[[str], list[str]]) -> None:
    """Commands, subcommands, options, projections and consumer groups, also without any database."""
    commands = set(main.list_commands(None))  # type: ignore[arg-type]  # it asks nothing
    assert set(offered("kima-stream ")) == commands
    assert set(offered("kima-stream e")) == {name for name in commands if name.startswith("e")}
    assert set(offered("kima-stream events t")) == {"tail"}
    assert set(offered("kima-stream replay ")) == set(PROJECTIONS)
    groups = {group.name for group in parts.consumer_groups()}
    assert set(offered("kima-stream consume ")) == groups
    assert set(offered("kima-stream consume inta")) == {"intake"}
    assert set(offered("kima-stream dead-letters revive ")) == groups
    assert "--follow" in offered("kima-stream events tail --f")


@pytest.mark.parametrize("shell", sorted(completion.INSTALL))
def test_the_script_says_how_to_install_it(shell: str) -> None:
    """For each shell, as the last line of what is printed; the variable is the one that click listens to."""
    answer = CliRunner().invoke(main, ["completion", shell])

    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[-1] == f"# To keep it: {completion.INSTALL[shell]}"
    assert f"_{completion.PROGRAM}_COMPLETE".replace("-", "_").upper() == completion.VARIABLE
    assert f"{completion.VARIABLE}={shell}_complete" in answer.stdout
    assert f"  {completion.INSTALL[shell]}\n" in CliRunner().invoke(main, ["completion", "--help"]).stdout


def test_an_unknown_shell_is_wrong_use() -> None:
    """Exit 2, and it says which there are."""
    answer = CliRunner().invoke(main, ["completion", "ksh"])

    assert answer.exit_code == 2
    assert "'bash', 'fish', 'zsh'" in answer.stderr
