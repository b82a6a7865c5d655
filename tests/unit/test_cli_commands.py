"""The program's commands: what its help says of them, and what they load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from nodedev.cli.app import app
from tests.e2e.services import process

CONTEXT = click.Context(app)
LOADED = "import sys; from nodedev.cli import run; run({arguments}); print(*sys.modules, file=sys.stderr)"


def loaded(*arguments: str) -> frozenset[str]:
    """The modules in memory once a command has run."""
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return frozenset(done.stderr.split())


@pytest.mark.parametrize("name", app.list_commands(CONTEXT))
def test_a_line_of_help_begins_as_the_command_s_own(name: str) -> None:
    """What the program's help says of a command without loading it, the command says too."""
    command = app.get_command(CONTEXT, name)
    assert command
    assert command.help
    (line,) = (line for line in app.get_help(CONTEXT).splitlines() if line.startswith(f"  {name} "))
    about = line.removeprefix(f"  {name}").strip().removesuffix(".")
    assert " ".join(command.help.split()).startswith(about)


def test_help_loads_no_command() -> None:
    """The program's help costs what click costs."""
    modules = loaded("--help")
    own = {name for name in modules if name.startswith("nodedev.")}
    assert own == {
        "nodedev.cli",
        "nodedev.cli.app",
        "nodedev.cli.output",
        "nodedev.cli.session",
        "nodedev.errors",
    }


def test_a_list_of_a_service_loads_what_a_client_needs(tmp_path: Path) -> None:
    """A command that a service answers loads nothing that reads hosts, watches or tells of errors."""
    with process(tmp_path) as service:
        modules = loaded("--connect", service.address, "list")
    assert "nodedev.client.calls" in modules
    unwanted = {"lxml", "pyudev", "grpc_status", "nodedev.client.watch", "nodedev.model", "nodedev.discovery"}
    assert not modules & unwanted
