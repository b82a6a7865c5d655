"""libvirtd timed on the host that this process sees; prints JSON.

To be run with the Python that has libvirt's module, not the project's own. Arguments: how many
seconds it may take to its first complete list, how often to start it, and how many lookups to time.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import libvirt  # type: ignore[import-not-found]  # Debian's, for its own Python

from tests.bench.libvirtd import Daemon, libvirtd


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


def measure(daemon: Daemon, lookups: int) -> dict[str, float]:
    """Everything, by name; only the time where it took longer than allowed."""
    result: dict[str, float] = {"start_s": daemon.seconds, "complete": daemon.complete}
    if not daemon.complete:
        return result
    libvirt.registerErrorHandler(lambda *_: None, None)
    connection = libvirt.openReadOnly(daemon.uri)
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


def main() -> None:
    """Starts the daemon so often, and measures the last one; the time of a start is the median."""
    limit_s, times, lookups = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    starts = []
    for _ in range(times - 1):
        with libvirtd(limit_s) as daemon:
            starts.append(daemon.seconds)
    with libvirtd(limit_s) as daemon:
        result = measure(daemon, lookups)
    json.dump({**result, "start_s": median((*starts, result["start_s"]))}, sys.stdout)


if __name__ == "__main__":
    main()
