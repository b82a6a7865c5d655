"""A service of the host that this process sees, which reads it anew without end once told to.

Arguments: the folder for its sockets, in which the file `go` sets it going. On a real host it is lost events
that make it read everything anew.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from nodedev.capabilities import attributes
from nodedev.facts.host import Hints, Watch
from nodedev.facts.live import LiveSource
from nodedev.server.serve import serve

GO = "go"
_LOOK_SECONDS = 0.05


class Endless:
    """A watch that has nothing to tell but that events were lost."""

    mode = "udev"

    def __init__(self, go: Path) -> None:
        self._go = go

    def wait(self, timeout_seconds: float) -> Hints:
        """At once, from when the file is there."""
        if self._go.exists():
            return Hints(lost=True)
        time.sleep(min(timeout_seconds, _LOOK_SECONDS))
        return Hints()

    def close(self) -> None:
        """Nothing is held."""


class Restless(LiveSource):
    """This host, with that watch."""

    go = Path()

    def watch(self) -> Watch:
        """What never rests."""
        return Endless(self.go)


def main() -> None:
    """Serves until SIGTERM."""
    folder = Path(sys.argv[1])
    source = Restless(attributes())
    source.go = folder / GO
    asyncio.run(serve(source, "live", folder, None, folder / "state"))


if __name__ == "__main__":
    main()
