"""The lab's fixtures: a SAN host, and the same host with this checkout's `nodedev` installed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator

import pytest

from .guest import Guest, cache_folder
from .install import install
from .seen import Seen, look


def _missing() -> str | None:
    """What this machine lacks for the lab."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the lab needs Linux on x86-64"
    if os.geteuid() != 0:
        return "the lab needs root, to build its image"
    if not (shutil.which("qemu-system-x86_64") or shutil.which("apt-get")):
        return "the lab needs QEMU, and apt-get is not here to install it"
    return None


@pytest.fixture(scope="session")
def guest() -> Iterator[Guest]:
    """A booted guest with the san-basic scenario.

    With NODEDEV_LAB_STANDING=1 it is the one that `python -m tests.lab up` has made.
    """
    if reason := _missing():
        pytest.skip(reason)
    if os.environ.get("NODEDEV_LAB_STANDING"):
        yield Guest(cache_folder() / "up")
        return
    with Guest() as booted:
        booted.script("san_basic.sh")
        yield booted


@pytest.fixture(scope="session")
def nodedev_guest(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """The guest with /usr/local/bin/nodedev."""
    install(guest, tmp_path_factory.mktemp("install"))
    return guest


@pytest.fixture(scope="session")
def seen(nodedev_guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """All that nodedev and the tools say, asked once."""
    return look(nodedev_guest, tmp_path_factory.mktemp("seen"))
