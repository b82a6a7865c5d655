"""What the documentation shows of the recorded hosts that come with the source is what the program prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.services import READY_SECONDS

ROOT = Path(__file__).parents[2]
LEFT_OUT = "..."


def examples() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each command on a recorded host in a console block, and the lines below it."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in re.findall(r"^```console\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            for command, *shown in (
                part.splitlines() for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
            ):
                if command.startswith("nodedev --host fixtures/"):
                    yield command, tuple(line for line in shown if line.strip() != LEFT_OUT)


@pytest.mark.parametrize(
    ("command", "shown"), list(examples()), ids=lambda part: part if isinstance(part, str) else ""
)
def test_the_output_is_real(command: str, shown: tuple[str, ...]) -> None:
    """Every line shown is printed, in that order."""
    done = subprocess.run(
        [sys.executable, "-m", "nodedev", *shlex.split(command)[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )
    lines = iter(done.stdout.splitlines())
    assert [line for line in shown if line not in lines] == []
