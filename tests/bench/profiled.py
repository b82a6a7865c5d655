"""Runs a module under cProfile, and writes what took its time as text: `profiled FILE MODULE ARGUMENTS...`.

Each thread has a profile of its own, so that the reading of the host, which is not done on the main thread,
is in it. Times under a profile are no measurements: calls cost more there, the kernel's part does not.
"""

from __future__ import annotations

import cProfile
import pstats
import runpy
import sys
import threading
from contextlib import suppress
from io import StringIO
from pathlib import Path

_LINES = 40


def main() -> None:
    """Runs it, and exits as it does."""
    file, module, *arguments = sys.argv[1:]
    profiles = {"main thread": cProfile.Profile()}

    def begin(*_: object) -> None:
        """The first thing that a new thread calls; from here on its profile is told instead."""
        profile = cProfile.Profile()
        # From Python 3.12 on there is one for all threads, and it is in use.
        with suppress(ValueError):
            profile.enable()
            profiles[threading.current_thread().name] = profile

    sys.argv = [module, *arguments]
    threading.setprofile(begin)
    try:
        profiles["main thread"].runcall(runpy.run_module, module, run_name="__main__", alter_sys=True)
    finally:
        threading.setprofile(None)
        Path(file).write_text("".join(_told(name, profile) for name, profile in profiles.items()))


def _told(name: str, profile: cProfile.Profile) -> str:
    """The functions that took most themselves, and with all that they called."""
    text = StringIO()
    try:
        stats = pstats.Stats(profile, stream=text)
    except TypeError:  # a thread that had called nothing
        return ""
    text.write(f"==== {name}, by own time\n")
    stats.sort_stats("tottime").print_stats(_LINES)
    text.write(f"==== {name}, with callees\n")
    stats.sort_stats("cumulative").print_stats(_LINES)
    return text.getvalue()


if __name__ == "__main__":
    main()
