"""A service of this very host, whose loop devices are of files in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nodedev.client import Client
from nodedev.errors import AbortedError
from nodedev.v1 import device_pb2

REAL = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]
SIZE = 4 << 20
READY = " devices at revision "


class Live:
    """A service of this host, with folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix:{folder / 'nodedev.sock'}"
        self.start()

    def start(self) -> None:
        """Starts the service, and returns when it has read the host."""
        command = [sys.executable, "-m", "nodedev", "serve"]
        self.process = subprocess.Popen(
            [*command, "--runtime-dir", self.folder, "--state-dir", self.folder / "state"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        log = []
        for line in self.process.stderr:
            if READY in line:
                return
            log.append(line)
        raise AssertionError(f"the service has not started: {''.join(log)}")

    def kill(self) -> None:
        """Ends the service as the kernel would, without a moment to put anything in order."""
        self.process.kill()
        self.process.communicate()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the service."""
        self.process.send_signal(number)
        self.process.communicate(timeout=30)

    def file(self, name: str, size: int = SIZE) -> Path:
        """A backing file."""
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(size)
        return path


@contextmanager
def living() -> Iterator[Live]:
    """A service; what loop devices of its files are left in the end are detached."""
    folder = Path(tempfile.mkdtemp(prefix="nd-", dir="/tmp"))
    try:
        live = Live(folder)
        try:
            yield live
        finally:
            live.stop()
    finally:
        for node in loops_of(folder):
            subprocess.run(["losetup", "-d", node], check=False)
        shutil.rmtree(folder)


def loops_of(folder: Path) -> dict[str, str]:
    """The bound loop devices whose files are in the folder, as the kernel has them: nodes and files."""
    found = {}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            text = path.read_text().rstrip("\n")
            if text.startswith(f"{folder}/"):
                found[f"/dev/{path.parent.parent.name}"] = text
    return found


def document(path: Path, more: str = "") -> str:
    """The XML of a loop device."""
    return f"<device><capability type='loop'><backing>{path}</backing>{more}</capability></device>"


def started(client: Client, name: str) -> device_pb2.Device:
    """The device, when the service's own start of it is over."""
    while True:
        with suppress(AbortedError):
            return client.start_device(name).device
