"""The bound loop devices of a host.

A loop device leaves no trace on what is behind it, so they are gone through by number; a pass that
reads only some devices can do that too.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodedev.facts.host import DeviceFacts, Host

# The kernel gives a new loop device the lowest free number; only one made by hand leaves a gap.
_GAP = 16


def is_bound(facts: DeviceFacts) -> bool:
    """Whether a file is bound to the loop device."""
    return "loop/backing_file" in facts.attributes


def bound(host: Host) -> Iterator[DeviceFacts]:
    """The bound loop devices in the order of their numbers."""
    number = missing = 0
    while missing < _GAP:
        loop = host.block(f"loop{number}")
        missing = 0 if loop else missing + 1
        number += 1
        if loop and is_bound(loop):
            yield loop
