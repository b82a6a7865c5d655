"""Commands and calls, timed; medians of repeated runs."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

# What has taken longer than this is not repeated.
_ENOUGH_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Run:
    """A command's median wall and processor time, its peak memory, and its last output.

    `complete` is false for one that took longer than it was given; its time is that then.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: bytes
    complete: bool = True


def run(
    command: Sequence[str], environment: Mapping[str, str], *, times: int = 3, limit_s: float = 300.0
) -> Run:
    """Runs a command so many times, fewer if it takes long; raises RuntimeError where it fails."""
    runs: list[Run] = []
    while len(runs) < times and sum(one.wall_s for one in runs) < min(limit_s, _ENOUGH_SECONDS):
        runs.append(_once(command, environment, limit_s))
        if not runs[-1].complete:
            break
    last = runs[-1]
    return Run(
        median(one.wall_s for one in runs),
        median(one.cpu_s for one in runs),
        max(one.peak_bytes for one in runs),
        last.output,
        last.complete,
    )


def _once(command: Sequence[str], environment: Mapping[str, str], limit_s: float) -> Run:
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        stop = threading.Timer(limit_s, lambda: os.killpg(process.pid, 9))
        stop.start()
        assert process.stdout
        output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        stop.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and wall < limit_s:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    peak = used.ru_maxrss * 1024
    return Run(wall, used.ru_utime + used.ru_stime, peak, output, process.returncode == 0)


def median_of(call: Callable[[], object], times: int = 3) -> float:
    """The median seconds of a call."""
    return median(seconds_of(call) for _ in range(times))


def seconds_of(call: Callable[[], object]) -> float:
    """The seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
