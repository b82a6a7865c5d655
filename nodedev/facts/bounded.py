"""Calls that may block in the kernel, with a deadline.

A thread in uninterruptible sleep cannot be cancelled: it is left behind, as a daemon, and nothing
more is asked of the same source until it comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, Thread
from typing import TypeVar

from nodedev.errors import FactError

T = TypeVar("T")


class _Call(Thread):
    def __init__(self, function: Callable[[], object], source: str) -> None:
        super().__init__(daemon=True, name=f"nodedev-{source}")
        self.function = function
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.function()
        except BaseException as error:  # noqa: BLE001  it is raised again where it was called for
            self.error = error


_stuck: dict[tuple[str, str], Thread] = {}
_lock = Lock()


def call(function: Callable[[], T], deadline_seconds: float, source: str, scope: str = "") -> T:
    """What the function returns; raises FactError when that takes longer than the deadline.

    `scope` tells apart what blocks independently within a source, as mounts do; while one call is
    stuck, further ones of its source and scope raise at once.
    """
    key = (source, scope)
    with _lock:
        if key in _stuck and _stuck[key].is_alive():
            raise FactError(source, f"an earlier call still blocks{f' ({scope})' if scope else ''}")
        _stuck.pop(key, None)
    results: list[T] = []
    thread = _Call(lambda: results.append(function()), source)
    thread.start()
    thread.join(deadline_seconds)
    if thread.is_alive():
        with _lock:
            _stuck[key] = thread
        raise FactError(source, f"no answer within {deadline_seconds:g} s{f' ({scope})' if scope else ''}")
    if thread.error:
        raise thread.error
    return results[0]


def stuck(source: str, scope: str = "") -> Thread | None:
    """The thread that a source still waits for."""
    with _lock:
        thread = _stuck.get((source, scope))
    return thread if thread and thread.is_alive() else None
