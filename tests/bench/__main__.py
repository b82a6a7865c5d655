"""`make bench`: nodedev and its peers on one synthetic host after the other; JSON, tables and profiles.

Needs root for the private namespaces, as the peers read /sys itself. A peer that is not installed is
left out with a line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import events, live, loops, profiles, scanning, serving
from tests.bench.generate import record, stanzas
from tests.bench.machine import machine, versions
from tests.bench.report import Results, report
from tests.bench.san.layout import San
from tests.bench.services import resident_bytes, served
from tests.bench.timing import run
from tests.bench.tree import environment, tree

SIZES = (1000, 5000, 20000, 50000)
# At more block devices than these, unless with --full: one run of each reader, and no serving.
WHOLE = 20000
PROFILED = 5000
LIMIT_SECONDS, FULL_LIMIT_SECONDS = 40.0, 240.0
_TIMES = 3
# Of so few block devices a run takes a second, in which what else the machine does tells.
SMALL, _TIMES_SMALL = 1000, 9


@dataclass(frozen=True, slots=True)
class Scope:
    """How much is measured at a size, and how long one run of a peer may take."""

    full: bool
    limit_s: float

    def times(self, blocks: int) -> int:
        """How often a reader is run."""
        if blocks <= SMALL:
            return _TIMES_SMALL
        return _TIMES if self.serving(blocks) else 1

    def serving(self, blocks: int) -> bool:
        """Whether clients are measured as well."""
        return self.full or blocks <= WHOLE


def main() -> None:
    """Measures what is asked for, and prints and writes the results."""
    wanted = _arguments()
    # What is installed has its bytecode, and so has whoever measures it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    scope = Scope(wanted.full, wanted.limit or (FULL_LIMIT_SECONDS if wanted.full else LIMIT_SECONDS))
    say("\n".join(live.missing()))
    start = time.perf_counter()
    if wanted.profile:
        profiles.keep(min(*wanted.sizes, PROFILED), say)
        return
    results: Results = {"machine": machine(), "versions": versions(), "sizes": {}, "start": start_up()}
    before: tuple[int, dict[str, object]] | None = None
    for blocks in wanted.sizes:
        say(f"{blocks} block devices")
        found = results["sizes"][str(blocks)] = of_size(blocks, scope, before)
        before = (blocks, found.get("live", {}))
        keep(results, wanted.out)
    if loops.usable():
        say("events")
        results["events"] = events.measure()
    else:
        say("events: left out, they need root and loop devices")
    results["seconds"] = time.perf_counter() - start
    keep(results, wanted.out)
    if not wanted.no_profiles:
        say("profiles")
        profiles.keep(max((size for size in wanted.sizes if size <= PROFILED), default=PROFILED), say)
    say(f"{time.perf_counter() - start:.0f} s in all")
    sys.stdout.write(f"{report(results)}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), default=SIZES)
    parser.add_argument("--full", action="store_true", help="all is measured at every size; takes an hour")
    parser.add_argument("--limit", type=float, help="seconds that one run of a peer may take (40, full 240)")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--profile", action="store_true", help="the profiles alone")
    parser.add_argument("--no-profiles", action="store_true", help="measure only")
    return parser.parse_args()


def keep(results: Results, out: Path) -> None:
    """Writes what there is so far."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1))


def say(text: str) -> None:
    """What is going on, beside the results."""
    sys.stderr.write(f"{text}\n" if text else "")


def start_up() -> dict[str, float]:
    """What a command costs before it does anything, and a service that has next to nothing."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "nodedev --help": [sys.executable, "-m", "nodedev", "--help"],
    }
    times = {name: run(command, environment(), times=7).wall_s for name, command in commands.items()}
    with TemporaryDirectory() as folder:
        record(San(100), Path(folder))
        with served("--host", folder) as (address, process):
            listing = [sys.executable, "-m", "nodedev", "--connect", address, "list"]
            times["nodedev list, of a service"] = run(listing, environment(), times=7).wall_s
            times["idle service of 100, bytes"] = resident_bytes(process)
    return times


def of_size(blocks: int, scope: Scope, before: tuple[int, dict[str, object]] | None) -> Results:
    """Everything that is measured on one host, each with the seconds that measuring it took."""
    result: Results = {"seconds": {}}
    san, times = San(blocks), scope.times(blocks)
    with TemporaryDirectory(prefix="nodedev-bench-") as folder:
        recording = Path(folder) / "host"
        with _noted(result, "record"):
            record(san, recording)
        scan = [sys.executable, "-m", "tests.bench.scan", "--recording", str(recording)]
        with _noted(result, "recorded"):
            result["recorded"] = json.loads(run(scan, environment(), times=times).output)
        count = [sys.executable, "-m", "tests.bench.counted", str(blocks), "--recording", str(recording)]
        with _noted(result, "counted"):
            result["counted"] = json.loads(run(count, environment(), times=1).output)
        if scope.serving(blocks):
            with _noted(result, "serving"):
                result["serving"] = serving.measure(recording)
        if os.geteuid() != 0:
            say("  live: left out, a private mount namespace needs root")
            return result
        with tree(stanzas(san)) as root:
            expected = live.expectations(blocks, before)
            with _noted(result, "live"):
                result["live"] = live.measure(
                    root, Path(folder), times=times, limit_s=scope.limit_s, expected=expected
                )
            if scope.serving(blocks):
                with _noted(result, "scanning"):
                    result["scanning"] = scanning.measure(root)
    return result


@contextmanager
def _noted(result: Results, part: str) -> Iterator[None]:
    """Notes how long a part of the measuring took."""
    start = time.perf_counter()
    yield
    result["seconds"][part] = time.perf_counter() - start
    say(f"  {part}: {result['seconds'][part]:.0f} s")


if __name__ == "__main__":
    main()
