"""From a change of this host to those who want to know it: real loop devices, the service beside its peers.

Times run from the return of the ioctl that binds or frees a loop device. Twice: natively, where without a
udevd the service reads the kernel's events as `udevadm monitor --kernel` does; and beside a udevd of our own,
whose events the service, `udevadm monitor --udev` and libvirtd all wait for. Each reader runs by itself.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from threading import Thread

from tests.bench.libvirtd import libvirtd
from tests.bench.libvirtd import program as libvirtd_program
from tests.bench.loops import Loop, loop
from tests.bench.services import served
from tests.bench.timing import percentile
from tests.bench.udevd import beside_udevd
from tests.bench.udevd import program as udevd_program
from tests.bench.watchers import PAUSE_SECONDS, burst, differences, watched

WATCHERS = (1, 50, 200)
CYCLES, BURST = 60, 5000
_MANY_CYCLES_SHARE = 4
_AWAKE_TRIES = 40
# Whoever does not collect events needs no more than the time to print all that one change makes.
_PEER_PAUSE_SECONDS = 0.1
_LINE_SECONDS = 5.0
_LIBVIRTD_SECONDS = 60.0


@contextmanager
def printed(command: Sequence[str], pattern: str) -> Iterator[Queue[float]]:
    """When each line came that a program printed of the device."""
    lines: Queue[float] = Queue()
    wanted = re.compile(pattern)
    # Line by line: into a pipe the C library would write whole blocks.
    monitor = subprocess.Popen(
        ["stdbuf", "-oL", *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )

    def read() -> None:
        assert monitor.stdout
        for line in monitor.stdout:
            if wanted.search(line):
                lines.put(time.perf_counter())

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lines
    finally:
        monitor.terminate()
        monitor.wait()
        reader.join()


def _drain(lines: Queue[float]) -> None:
    while not lines.empty():
        lines.get_nowait()


def _awake(lines: Queue[float], device: Loop) -> bool:
    """Whether the program prints: most do not say when they have begun to listen."""
    for _ in range(_AWAKE_TRIES):
        device.bind()
        try:
            lines.get(timeout=PAUSE_SECONDS)
        except Empty:
            continue
        else:
            return True
        finally:
            device.release()
    return False


def _of_program(
    name: str,
    command: Sequence[str],
    pattern: str,
    device: Loop,
    cycles: int,
    pause_s: float = _PEER_PAUSE_SECONDS,
) -> dict[str, float]:
    """The seconds until a program prints each change; nothing where it is not installed, or prints none."""
    if not shutil.which(command[0]) or not shutil.which("stdbuf"):
        return {}
    taken = []
    with printed(command, pattern) as lines:
        if not _awake(lines, device):
            sys.stderr.write(f"  {name}: printed nothing\n")
            return {}
        for act in (device.bind, device.release) * cycles:
            time.sleep(pause_s)
            _drain(lines)
            act()
            start = time.perf_counter()
            try:
                taken.append(max(0.0, lines.get(timeout=_LINE_SECONDS) - start))
            except Empty:
                continue
    return _spread(name, taken, 2 * cycles)


def _spread(name: str, taken: Sequence[float], expected: int) -> dict[str, float]:
    """The percentiles, and how many changes did not come within the time."""
    found: dict[str, float] = {f"{name}_missed_count": expected - len(taken)}
    if taken:
        found |= {f"{name}_p50_s": percentile(taken, 0.5), f"{name}_p99_s": percentile(taken, 0.99)}
    return found


def _of_service(address: str, device: Loop, cycles: int) -> dict[str, float]:
    """The service's watches, from one to many."""
    result: dict[str, float] = {}
    for watchers in WATCHERS:
        turns = cycles if watchers == 1 else max(1, cycles // _MANY_CYCLES_SHARE)
        taken, sent = asyncio.run(watched(address, device, watchers, turns))
        result |= _spread(f"watch_{watchers}", taken, 2 * turns)
        if watchers == 1 and sent:
            result["watch_event_bytes"] = sum(sent) / len(sent)
    return result


def measure(cycles: int = CYCLES, count: int = BURST) -> dict[str, dict[str, float]]:
    """Natively, and beside a udevd; loop devices must be usable."""
    result: dict[str, dict[str, float]] = {}
    with TemporaryDirectory(prefix="nodedev-bench-") as folder, loop(Path(folder) / "image") as device:
        with served() as (address, _):
            native = _of_service(address, device, cycles)
            device.bind()
            time.sleep(PAUSE_SECONDS)
            native |= asyncio.run(burst(address, device, count))
            native["burst_wrong_count"] = differences(address)
        command = ["udevadm", "monitor", "--kernel", "--subsystem-match=block"]
        native |= _of_program("udevadm", command, rf"KERNEL\[.*/{device.name} ", device, cycles)
    result["native"] = native
    udevd = udevd_program()
    if udevd is None:
        sys.stderr.write("  events beside udevd: left out, it is not installed\n")
        return result
    here = [sys.executable, "-m", "tests.bench.events", str(cycles), str(count)]
    done = subprocess.run(beside_udevd(udevd, here), stdout=subprocess.PIPE, check=True)
    result["udevd"] = json.loads(done.stdout)
    return result


def measure_here(cycles: int, count: int) -> dict[str, float]:
    """What waits for udevd, where it runs."""
    result: dict[str, float] = {}
    with TemporaryDirectory(prefix="nodedev-bench-") as folder, loop(Path(folder) / "image") as device:
        with served() as (address, _):
            result |= _of_service(address, device, cycles)
            command = [sys.executable, "-m", "nodedev", "--connect", address, "watch"]
            pattern = rf"\bloop_{device.name}\b"
            result |= _of_program("nodedev_watch", command, pattern, device, cycles, PAUSE_SECONDS)
            device.bind()
            time.sleep(PAUSE_SECONDS)
            result |= asyncio.run(burst(address, device, count))
            result["burst_wrong_count"] = differences(address)
        command = ["udevadm", "monitor", "--udev", "--subsystem-match=block"]
        pattern = rf"UDEV .*/{device.name} "
        result |= _of_program("udevadm", command, pattern, device, cycles)
        result["udevd_delivers_per_s"] = _delivered(command, pattern, device, count)
        if libvirtd_program() and shutil.which("virsh"):
            with libvirtd(_LIBVIRTD_SECONDS) as daemon:
                # An unbound loop device is there for libvirt too: binding it is an update.
                command = ["virsh", "-r", "-c", daemon.uri, "nodedev-event", "--event", "update", "--loop"]
                result |= _of_program("virsh", command, rf"\bblock_{device.name}\b", device, cycles)
        else:
            sys.stderr.write("  virsh nodedev-event: left out, libvirtd and virsh are not both installed\n")
    return result


def _delivered(command: Sequence[str], pattern: str, device: Loop, count: int) -> float:
    """How many events a second udevd passes on, of one device."""
    with printed(command, pattern) as lines:
        if not _awake(lines, device):
            return 0.0
        time.sleep(PAUSE_SECONDS)
        _drain(lines)
        start = last = time.perf_counter()
        device.storm(count)
        got = 0
        while got < count:
            try:
                last = lines.get(timeout=_LINE_SECONDS)
            except Empty:
                break
            got += 1
    return got / (last - start) if got else 0.0


def main() -> None:
    """Prints what is measured beside the udevd of this namespace."""
    cycles, count = map(int, sys.argv[1:])
    json.dump(measure_here(cycles, count), sys.stdout)


if __name__ == "__main__":
    main()
