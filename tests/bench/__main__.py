"""`make bench`: nodedev and its peers on one synthetic host after the other; JSON and a table.

Needs root for the private mount namespace, as the peers read /sys itself. A peer that is not
installed is left out with a line: util-linux, udev, python3-pyudev, libvirt-daemon with
python3-libvirt, gcc for the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import events, serving
from tests.bench.generate import San, record, stanzas
from tests.bench.report import Results, table
from tests.bench.timing import Run, run
from tests.bench.tree import environment, inside, tree

SIZES, FULL = (1000, 5000, 20000), 50000
HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
_PYUDEV = "import pyudev; print(sum(bool(dict(d.properties)) for d in pyudev.Context().list_devices()))"
_LIBVIRT_LOOKUPS = 1000


def main() -> None:
    """Measures what is asked for, and prints and writes the results."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), default=SIZES)
    parser.add_argument("--full", action="store_true", help=f"{FULL} block devices as well")
    parser.add_argument("--limit", type=float, default=40.0, help="seconds that one run of a peer may take")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    wanted = parser.parse_args()
    start = time.perf_counter()
    results: Results = {"machine": machine(), "sizes": {}, "start": start_up()}
    for blocks in (*wanted.sizes, *((FULL,) if wanted.full else ())):
        say(f"{blocks} block devices")
        results["sizes"][str(blocks)] = of_size(blocks, wanted.limit)
        keep(results, wanted.out)
    if os.geteuid() == 0 and Path("/dev/loop-control").exists():
        say("events")
        results["events"] = events.measure()
    else:
        say("events: left out, they need root and loop devices")
    results["seconds"] = time.perf_counter() - start
    keep(results, wanted.out)
    sys.stdout.write(f"{table(results)}\n")


def keep(results: Results, out: Path) -> None:
    """Writes what there is so far."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1))


def say(text: str) -> None:
    """What is going on, beside the results."""
    sys.stderr.write(f"{text}\n")


def machine() -> dict[str, object]:
    """What the results are to be read with."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {
        "processors": os.cpu_count(),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def start_up() -> dict[str, float]:
    """What a command costs before it does anything."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "nodedev --help": [sys.executable, "-m", "nodedev", "--help"],
    }
    times = {name: run(command, environment(), times=7).wall_s for name, command in commands.items()}
    with TemporaryDirectory() as folder:
        record(San(100), Path(folder))
        with serving.served("--host", folder) as (address, pid):
            listing = [sys.executable, "-m", "nodedev", "--connect", address, "list"]
            times["nodedev list, of a service"] = run(listing, environment(), times=7).wall_s
            times["idle service of 100, bytes"] = serving.resident_bytes(pid)
    return times


def of_size(blocks: int, limit_s: float) -> dict[str, object]:
    """Everything that is measured on one host."""
    result: dict[str, object] = {}
    san = San(blocks)
    with TemporaryDirectory(prefix="nodedev-bench-") as folder:
        recording = Path(folder) / "host"
        record(san, recording)
        scan = [sys.executable, "-m", "tests.bench.scan", "--recording", str(recording)]
        result["recorded"] = json.loads(run(scan, environment()).output)
        result["serving"] = serving.measure(recording)
        if os.geteuid() == 0:
            with tree(stanzas(san)) as root:
                result["live"] = live(root, Path(folder), limit_s)
        else:
            say("  live: left out, a private mount namespace needs root")
    return result


def live(root: Path, folder: Path, limit_s: float) -> dict[str, object]:
    """The readers of one tree, in turn."""
    scan, reads = [sys.executable, "-m", "tests.bench.scan"], folder / "reads"
    run(inside(root, [*scan, "--trace", reads]), environment(), times=1)
    ours = run(inside(root, scan), environment())
    result: dict[str, object] = {"nodedev": plain(ours), "parts": json.loads(ours.output)}
    readers: dict[str, list[str | Path]] = {
        "plain Python, same files": [sys.executable, HERE / "reread.py", reads]
    }
    if shutil.which("gcc"):
        floor = folder / "floor"
        subprocess.run(["gcc", "-O2", "-o", floor, HERE / "floor.c"], check=True)
        readers["C, same files"] = [floor, reads]
    if shutil.which("lsblk"):
        readers["lsblk -J -O"] = ["lsblk", "-J", "-O"]
    if shutil.which("udevadm"):
        readers["udevadm info -e"] = ["udevadm", "info", "-e"]
    readers["pyudev, all devices"] = [sys.executable, "-c", _PYUDEV]
    for name, command in readers.items():
        say(f"  {name}")
        result[name] = plain(run(inside(root, command), environment(), limit_s=limit_s))
    if has_libvirt():
        say("  libvirtd")
        peer = [SYSTEM_PYTHON, HERE / "libvirt_peer.py", limit_s, _LIBVIRT_LOOKUPS]
        measured = run(inside(root, list(map(str, peer))), environment(), times=1, limit_s=limit_s * 4)
        result["libvirtd"] = json.loads(measured.output or b"{}")
    else:
        say("  libvirtd: left out, libvirt-daemon and python3-libvirt are not both installed")
    return result


def has_libvirt() -> bool:
    """Whether the daemon and its Python module are there."""
    asked = subprocess.run([SYSTEM_PYTHON, "-c", "import libvirt"], capture_output=True, check=False)
    return asked.returncode == 0 and Path("/usr/sbin/libvirtd").exists()


def plain(measured: Run) -> dict[str, float | bool]:
    """A run without its output."""
    return {
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "peak_bytes": measured.peak_bytes,
        "complete": measured.complete,
    }


if __name__ == "__main__":
    main()
