"""A recording's stream of events: what a followed host told after its snapshot, played again.

`events.jsonl` has one event a line: which devices the host hinted at, and what had become of them
and of the tables that go with them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct, convert, to_builtins

from nodedev.facts.host import Hints

EVENTS = "events.jsonl"


class Event(Struct, frozen=True):
    """One event, `seconds` after the snapshot.

    `devices` is umockdev's text of those that came out different, `gone` the sysfs paths of those no
    longer there, `texts` the recording's other files that changed, by name.
    """

    seconds: float
    paths: tuple[str, ...]
    lost: bool
    devices: str
    gone: tuple[str, ...]
    texts: Mapping[str, str]


def write(event: Event) -> bytes:
    """The event as its line."""
    return json.dumps(to_builtins(event)).encode() + b"\n"


def parse(data: bytes) -> tuple[Event, ...]:
    """The events of a file; raises ValueError with the line for one that is none."""
    return tuple(_event(line, number) for number, line in enumerate(data.splitlines(), 1) if line)


def _event(line: bytes, number: int) -> Event:
    try:
        return convert(json.loads(line), Event)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"line {number}: no event ({error})") from error


class Replay:
    """A watch that gives a recording's events at their times; `pace` 0 gives them one after the other."""

    mode = "recording"

    def __init__(self, events: Iterable[Event], apply: Callable[[Event], None], pace: float = 1.0) -> None:
        self._events = list(reversed(list(events)))
        self._apply = apply
        self._pace = pace
        self._start = time.monotonic()

    def wait(self, timeout_seconds: float) -> Hints:
        """The next event, once its time has come; the source is as it was then."""
        due = self._start + self._events[-1].seconds * self._pace if self._events else float("inf")
        time.sleep(max(0.0, min(timeout_seconds, due - time.monotonic())))
        if time.monotonic() < due:
            return Hints()
        event = self._events.pop()
        self._apply(event)
        return Hints(frozenset(event.paths), event.lost)

    def close(self) -> None:
        """Ends the watch."""
        self._events.clear()
