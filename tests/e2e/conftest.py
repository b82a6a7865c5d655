"""Services to test, in short folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedev.client import Client
from nodedev.server.inprocess import in_process
from tests.e2e.services import PLAIN, READY_SECONDS, Nodedev, Process, process, recorded


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, which pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="nd-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of a service that runs in another thread, of the plain host."""
    with in_process(recorded(PLAIN), "plain") as address, Client(address) as connected:
        yield connected


@pytest.fixture(scope="module")
def served() -> Iterator[Process]:
    """A serving process of the plain host, for tests that leave it as it is."""
    path = Path(tempfile.mkdtemp(prefix="nd-", dir="/tmp"))
    with process(path) as running:
        yield running
    shutil.rmtree(path)


@pytest.fixture
def nodedev(folder: Path) -> Nodedev:
    """Runs the program as a user without a service of his own would."""

    def run(*arguments: str, **kwargs: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NODEDEV_")}
        return subprocess.run(
            [sys.executable, "-m", "nodedev", *arguments],
            capture_output=True,
            text=True,
            env=environment | {"XDG_RUNTIME_DIR": str(folder)},
            timeout=READY_SECONDS,
            check=False,
            input=kwargs.get("input", ""),
        )

    return run
