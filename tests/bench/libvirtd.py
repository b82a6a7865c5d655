"""libvirtd with nothing but its nodedev driver, on the host that this process sees; standard library only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DRIVER = "libvirt_driver_nodedev.so"
_POLL_SECONDS = 0.02


def program() -> str | None:
    """The daemon; none where it is not installed."""
    return shutil.which("libvirtd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _drivers() -> Path:
    """The folder of the drivers: /usr/lib/x86_64-linux-gnu/libvirt/... or /usr/lib64/libvirt/..."""
    return next(
        found
        for base in ("lib", "lib64")
        for found in Path("/usr", base).glob(f"**/connection-driver/{DRIVER}")
    ).parent


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon, and how many seconds its first complete list took, if it came in time."""

    uri: str
    pid: int
    seconds: float
    complete: bool


@contextmanager
def libvirtd(limit_s: float) -> Iterator[Daemon]:
    """A daemon with a configuration of its own, once it has given its first list or the time is over."""
    with tempfile.TemporaryDirectory(prefix="nodedev-libvirt-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "drivers").mkdir()
        (folder / "drivers" / DRIVER).symlink_to(_drivers() / DRIVER)
        config = folder / "libvirtd.conf"
        config.write_text(f'unix_sock_dir = "{folder}"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n')
        environment = {**os.environ, "LIBVIRT_DRIVER_DIR": str(folder / "drivers")}
        command = [program() or "libvirtd", "-f", str(config), "-p", str(folder / "pid")]
        uri = f"nodedev:///system?socket={folder}/libvirt-sock"
        start = time.perf_counter()
        daemon = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            complete = _listed(uri, daemon, start + limit_s)
            yield Daemon(uri, daemon.pid, time.perf_counter() - start, complete)
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _listed(uri: str, daemon: subprocess.Popen[bytes], end: float) -> bool:
    """Waits for the first list; connections that come early have to wait for it."""
    while (left := end - time.perf_counter()) > 0 and daemon.poll() is None:
        try:
            command = ["virsh", "-r", "-c", uri, "nodedev-list"]
            if not subprocess.run(command, timeout=left, capture_output=True, check=False).returncode:
                return True
        except subprocess.TimeoutExpired:
            return False
        time.sleep(_POLL_SECONDS)
    if daemon.poll() is not None:
        sys.stderr.write(f"libvirtd has ended with {daemon.returncode}\n")
    return False
