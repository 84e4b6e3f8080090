"""Soulseek's library is an extra: who has it not is told, and everything else works."""

import subprocess
import sys

PROGRAM = """
import sys
sys.modules["aioslsk"] = None  # as if it were not installed
import kima_stream.cli.soulseek, kima_stream.http.table, consumers.soulseek_calls
from kima_stream.errors import ConfigurationError
from kima_stream.integrations.soulseek import library, rules
try:
    library.open_client(rules.Credentials(username="", password="", host="", port=0, listen_host="", listen_port=0))
except ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_it_says_what_to_install() -> None:
    """Doors and consumers start without it."""
    said = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout

    assert "kima-stream[soulseek]" in said
