"""A profile of each thing that is measured, as text in build/profiles, to be read before making it faster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import scanning, serving
from tests.bench.generate import record, stanzas
from tests.bench.loops import loop, usable
from tests.bench.san.layout import San
from tests.bench.services import served
from tests.bench.tree import environment, inside, tree
from tests.bench.watchers import PAUSE_SECONDS, burst, watched

FOLDER = Path("build/profiles")
_LOOKUPS, _CYCLES, _BURST, _WATCHERS = 1000, 10, 2000, 50


def keep(blocks: int, say: Callable[[str], None]) -> None:
    """Writes all of them, of a host of so many block devices."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    san = San(blocks)
    with TemporaryDirectory(prefix="nodedev-bench-") as folder:
        recording = Path(folder) / "host"
        record(san, recording)
        for name in _all(san, recording):
            say(f"  profile of {name}")


def _file(name: str) -> Path:
    return (FOLDER / f"{name}.txt").resolve()


def _all(san: San, recording: Path) -> Iterator[str]:
    """Makes each, and gives its name."""
    _start_up(_file("start-up"))
    yield "start-up"
    scan = [sys.executable, "-m", "tests.bench.profiled"]
    of_recording = [str(_file("recorded")), "tests.bench.scan", "--recording", str(recording)]
    subprocess.run([*scan, *of_recording], check=True, stdout=subprocess.DEVNULL)
    yield "recorded"
    with served("--host", str(recording), profile=_file("lists")) as (address, _):
        _, listed, _ = serving.of_lists(address)
    yield "lists"
    names = [device.name for device in listed.devices]
    with served("--host", str(recording), profile=_file("single-calls")) as (address, process):
        serving.of_singles(address, process, names, _LOOKUPS)
    yield "single-calls"
    if os.geteuid() == 0:
        with tree(stanzas(san)) as root:
            command = inside(root, [*scan, str(_file("scan")), "tests.bench.scan"])
            subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
            yield "scan"
            scanning.measure(root, _file("rescan"))
            yield "rescan"
    if usable():
        _events(_file("events"))
        yield "events"


def _start_up(file: Path) -> None:
    """What the command line imports, the most expensive last."""
    command = [sys.executable, "-X", "importtime", "-m", "nodedev", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    title, *lines = done.stderr.splitlines()
    lines.sort(key=lambda line: int(line.removeprefix("import time:").split("|")[0]))
    file.write_text("".join(f"{line}\n" for line in (title, *lines)))


def _events(file: Path) -> None:
    with (
        TemporaryDirectory(prefix="nodedev-bench-") as folder,
        loop(Path(folder) / "image") as device,
        served(profile=file) as (address, _),
    ):
        asyncio.run(watched(address, device, 1, _CYCLES))
        asyncio.run(watched(address, device, _WATCHERS, _CYCLES))
        device.bind()
        time.sleep(PAUSE_SECONDS)
        asyncio.run(burst(address, device, _BURST))
