"""What the results are to be read with: the machine, and the versions of everything that ran."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from tests.bench import libvirtd

_COMMANDS = {
    "libvirtd": [libvirtd.program() or "libvirtd", "--version"],
    "lsblk": ["lsblk", "--version"],
    "udevadm": ["udevadm", "--version"],
    "gcc (the C floor's)": ["gcc", "-dumpfullversion"],
}
_PACKAGES = ("grpcio", "protobuf", "pyudev", "lxml")


def machine() -> dict[str, object]:
    """Its shape, and how busy it was."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return {
        "processors": os.cpu_count(),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Each peer's and library's, of those that are installed."""
    floor = hashlib.sha256(Path(__file__).with_name("floor.c").read_bytes()).hexdigest()[:12]
    found = {"floor.c": f"sha256 {floor}"}
    for name, command in _COMMANDS.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            continue
        found[name] = done.stdout.strip().splitlines()[0].split()[-1] if done.stdout.strip() else "?"
    return found | {name: version(name) for name in _PACKAGES}
