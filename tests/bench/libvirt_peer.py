"""libvirtd with nothing but its nodedev driver, timed on the host that this process sees; prints JSON.

To be run with the Python that has libvirt's module, not the project's own. Arguments: how many
seconds it may take to its first complete list, and how many lookups to time.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import libvirt  # type: ignore[import-not-found]  # Debian's, for its own Python

DRIVERS = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver")
DRIVER = "libvirt_driver_nodedev.so"


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """The median seconds of a call."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken)


def resident_bytes(pid: int) -> int:
    """The daemon's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(folder: Path, limit_s: float, lookups: int) -> dict[str, float]:
    """Everything, by name; only the time where it took longer than allowed."""
    (folder / "drivers").mkdir()
    (folder / "drivers" / DRIVER).symlink_to(DRIVERS / DRIVER)
    config = folder / "libvirtd.conf"
    config.write_text(f'unix_sock_dir = "{folder}"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n')
    uri = f"nodedev:///system?socket={folder}/libvirt-sock"
    environment = {**os.environ, "LIBVIRT_DRIVER_DIR": str(folder / "drivers")}
    libvirt.registerErrorHandler(lambda *_: None, None)
    start = time.perf_counter()
    command = [shutil.which("libvirtd") or "/usr/sbin/libvirtd", "-f", str(config), "-p", str(folder / "pid")]
    daemon = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        connection = None
        while connection is None:
            # It takes connections early, and lets them wait until its enumeration is done.
            probe = "import libvirt,sys; libvirt.openReadOnly(sys.argv[1]).listAllDevices(0)"
            left = limit_s - (time.perf_counter() - start)
            if left <= 0 or daemon.poll() is not None:
                return {"start_s": time.perf_counter() - start, "complete": False}
            try:
                asked = subprocess.run(
                    [sys.executable, "-c", probe, uri], timeout=left, capture_output=True, check=False
                )
            except subprocess.TimeoutExpired:
                continue
            if asked.returncode == 0:
                result = {"start_s": time.perf_counter() - start, "complete": True}
                connection = libvirt.openReadOnly(uri)
            else:
                time.sleep(0.02)
        result["list_s"] = seconds(lambda: connection.listAllDevices(0))
        devices = connection.listAllDevices(0)
        result["devices"] = len(devices)
        result["xml_s"] = seconds(lambda: [device.XMLDesc(0) for device in devices])
        names = sorted(device.name() for device in devices)
        chosen, taken = random.Random(7), []
        for name in (chosen.choice(names) for _ in range(lookups)):
            begun = time.perf_counter()
            connection.nodeDeviceLookupByName(name).XMLDesc(0)
            taken.append(time.perf_counter() - begun)
        taken.sort()
        result |= {"one_p50_s": taken[len(taken) // 2], "one_p99_s": taken[len(taken) * 99 // 100]}
        result["one_per_s"] = len(taken) / sum(taken)
        result["bytes"] = resident_bytes(daemon.pid)
        return result
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()


def main() -> None:
    """Measures in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="nodedev-libvirt-", dir="/tmp") as folder:
        json.dump(measure(Path(folder), float(sys.argv[1]), int(sys.argv[2])), sys.stdout)


if __name__ == "__main__":
    main()
