"""Service processes to be measured: nodedev's own, and others that speak like it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nodedev.client import Client

SOCKET = "nodedev.sock"
CALL_SECONDS = 300.0
_POLL_SECONDS = 0.01
_STOP_SECONDS = 60.0


@contextmanager
def started(command: Sequence[str], socket: Path, environment: Mapping[str, str] | None) -> Iterator[int]:
    """A process that makes that socket, by its id; ended with SIGTERM."""
    service = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        while not socket.exists():
            if service.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: exit code {service.returncode}")
            time.sleep(_POLL_SECONDS)
        yield service.pid
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(_STOP_SECONDS)


@contextmanager
def served(*options: str, profile: Path | None = None) -> Iterator[tuple[str, int]]:
    """`nodedev serve`: its address, once the host is published, and its process; profiled into a file."""
    with TemporaryDirectory(prefix="nodedev-bench-", dir="/tmp") as folder:
        through = ["-m", "tests.bench.profiled", str(profile), "nodedev"] if profile else ["-m", "nodedev"]
        command = [sys.executable, *through, *options, "serve"]
        command += ["--runtime-dir", folder, "--state-dir", f"{folder}/state"]
        with started(command, Path(folder, SOCKET), None) as process:
            address = f"unix:{folder}/{SOCKET}"
            with Client(address, call_seconds=CALL_SECONDS) as client:
                client.device_xml(["computer"])
            yield address, process


def cpu_seconds(process: int) -> float:
    """The processor time that a process has taken so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(process: int) -> int:
    """A process's memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
