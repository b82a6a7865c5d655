"""The readers of one synthetic host's tree, in turn: nodedev, the least that reading takes, and the peers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tests.bench import libvirtd
from tests.bench.timing import Run, run
from tests.bench.tree import environment, inside

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
PLAIN, FLOOR, LIBVIRTD = "plain Python, same files", "C, same files", "libvirtd"
_PYUDEV = "import pyudev; print(sum(bool(dict(d.properties)) for d in pyudev.Context().list_devices()))"
_PEERS: dict[str, list[str]] = {
    "lsblk -J -O": ["lsblk", "-J", "-O"],
    "udevadm info -e": ["udevadm", "info", "-e"],
    "pyudev, all devices": [sys.executable, "-c", _PYUDEV],
}
_LOOKUPS = 1000
# The Python module's calls after the first list, over what the first list may take.
_LIBVIRT_MORE_SECONDS = 120.0

Results = dict[str, dict[str, float | bool]]


def measure(
    root: Path, folder: Path, *, times: int, limit_s: float, expected: Mapping[str, float]
) -> dict[str, object]:
    """Everything by the reader's name; one that is expected to take more than the limit is left out."""
    scan, reads = [sys.executable, "-m", "tests.bench.scan"], folder / "reads"
    run(inside(root, [*scan, "--trace", reads]), environment(), times=1)
    ours = run(inside(root, scan), environment(), times=times)
    result: dict[str, object] = {"nodedev": _plain(ours), "parts": json.loads(ours.output)}
    readers: dict[str, list[str | Path]] = {PLAIN: [sys.executable, HERE / "reread.py", reads]}
    if shutil.which("gcc"):
        floor = folder / "floor"
        subprocess.run(["gcc", "-O2", "-o", floor, HERE / "floor.c"], check=True)
        readers[FLOOR] = [floor, reads]
    for name, command in readers.items():
        result[name] = _plain(run(inside(root, command), environment(), times=times))
    for name, peer in _PEERS.items():
        if not shutil.which(peer[0]):
            continue
        result[name] = _within(
            limit_s,
            expected.get(name, 0.0),
            lambda peer=peer: _plain(  # type: ignore[misc]  # mypy infers no default argument
                run(inside(root, peer), environment(), times=times, limit_s=limit_s)
            ),
        )
    if has_libvirt():
        likely = expected.get(LIBVIRTD, 0.0)
        starts = times if likely * times <= limit_s else 1
        result[LIBVIRTD] = _within(limit_s, likely, lambda: _libvirt(root, limit_s, starts))
    return result


def _within(
    limit_s: float, expected_s: float, measured: Callable[[], dict[str, float | bool]]
) -> dict[str, float | bool]:
    """What is measured, unless it would take longer than it may."""
    if expected_s > limit_s:
        return {"complete": False, "expected_s": expected_s}
    return measured()


def expectations(blocks: int, before: tuple[int, Mapping[str, object]] | None) -> dict[str, float]:
    """The seconds that each peer will take of so many devices, by what it took of a smaller number.

    All of them search lists for each device that they add: they are quadratic.
    """
    if before is None:
        return {}
    smaller, results = before
    found: dict[str, float] = {}
    for name in (*_PEERS, LIBVIRTD):
        result = results.get(name)
        if isinstance(result, dict):
            taken = result.get("expected_s") or result.get("start_s") or result["wall_s"]
            found[name] = taken * (blocks / smaller) ** 2
    return found


def _libvirt(root: Path, limit_s: float, starts: int) -> dict[str, float | bool]:
    peer = [SYSTEM_PYTHON, "-m", "tests.bench.libvirt_peer", *map(str, (limit_s, starts, _LOOKUPS))]
    done = run(inside(root, peer), environment(), times=1, limit_s=limit_s + _LIBVIRT_MORE_SECONDS)
    result: dict[str, float | bool] = json.loads(done.output or b'{"complete": false}')
    return result


@cache
def has_libvirt() -> bool:
    """Whether the daemon, virsh and the Python module are there."""
    asked = subprocess.run([SYSTEM_PYTHON, "-c", "import libvirt"], capture_output=True, check=False)
    return not asked.returncode and bool(libvirtd.program()) and bool(shutil.which("virsh"))


def _plain(measured: Run) -> dict[str, float | bool]:
    """A run without its output."""
    return {
        "wall_s": measured.wall_s,
        "cpu_s": measured.cpu_s,
        "peak_bytes": measured.peak_bytes,
        "complete": measured.complete,
    }


def missing() -> list[str]:
    """The peers that are not installed, each with what it takes."""
    wanted = {"lsblk": "util-linux", "udevadm": "udev", "gcc": "gcc", "stdbuf": "coreutils"}
    lines = [
        f"{program} is left out: {package}"
        for program, package in wanted.items()
        if not shutil.which(program)
    ]
    if not has_libvirt():
        lines.append("libvirtd is left out: libvirt-daemon libvirt-clients python3-libvirt")
    return lines
