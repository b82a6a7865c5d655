"""A scan of the host as this process sees it, or of a recording, and what its parts cost; prints JSON.

With `--trace FILE` it writes instead what was read, for floor.c and reread.py to read again. What is
imported counts, and is as little as the service needs.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

from nodedev.capabilities import attributes
from nodedev.discovery import Discovery
from nodedev.facts.host import Host, Source
from nodedev.inventory import Inventory


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _source(recording: Path | None) -> Source:
    """The host to read; its module alone is imported, as the command line does it."""
    if recording:
        from nodedev.facts.recorded import RecordedSource  # noqa: PLC0415

        return RecordedSource.open(recording, attributes())
    from nodedev.facts.live import LiveSource  # noqa: PLC0415

    return LiveSource(attributes())


def measure(recording: Path | None) -> dict[str, float]:
    """Seconds of each part, and bytes; the collector is kept still, as the server does it."""
    attributes()
    before = _resident_bytes()
    gc.disable()
    cpu = time.process_time()
    start = time.perf_counter()
    host = Host.scan(_source(recording))
    read = time.perf_counter()
    found = Discovery().survey(host)
    surveyed = time.perf_counter()
    inventory = Inventory()
    inventory.replace(found.devices)
    count = len(inventory.snapshot.devices)
    end = time.perf_counter()
    return {
        "devices": count,
        "blocks": sum(1 for device in found.devices if device.device_number),
        "facts_s": read - start,
        "discovery_s": surveyed - read,
        "publish_s": end - surveyed,
        "total_s": end - start,
        "cpu_s": time.process_time() - cpu,
        "bytes": _resident_bytes() - before,
    }


def trace(file: Path) -> None:
    """Notes every file, link and folder that a scan of sysfs and udev's database reads."""
    lines: list[str] = []
    read, follow, listed = os.open, os.readlink, os.scandir

    def noted_open(path: str, flags: int) -> int:
        lines.append(f"f {path}\n")
        return read(path, flags)

    def noted_readlink(path: str) -> str:
        lines.append(f"l {path}\n")
        return follow(path)

    def noted_scandir(path: str) -> object:
        lines.append(f"d {path}\n")
        return listed(path)

    vars(os).update(open=noted_open, readlink=noted_readlink, scandir=noted_scandir)
    for _ in _source(None).scan():
        pass
    vars(os).update(open=read, readlink=follow, scandir=listed)
    with file.open("w", encoding="utf-8", errors="surrogateescape") as out:
        out.writelines(lines)


def main() -> None:
    """Does one of both."""
    match sys.argv[1:]:
        case ["--trace", file]:
            trace(Path(file))
        case ["--recording", folder]:
            json.dump(measure(Path(folder)), sys.stdout)
        case []:
            json.dump(measure(None), sys.stdout)
        case other:
            sys.exit(f"not understood: {other}")


if __name__ == "__main__":
    main()
