"""Heads of native NVMe multipath, and the hidden disks that are their paths."""

from __future__ import annotations

import re

from nodedev.facts.host import DeviceFacts, Host

HEAD = re.compile(r"/devices/virtual/nvme-subsystem/[^/]+/nvme(\d+)n(\d+)")
_HIDDEN = re.compile(r"nvme(\d+)c\d+n(\d+)")


def is_head(facts: DeviceFacts) -> bool:
    """Whether it is a namespace's one disk over all its controllers."""
    return facts.subsystem == "block" and HEAD.fullmatch(facts.path) is not None


def head_of(facts: DeviceFacts, host: Host) -> DeviceFacts | None:
    """The head that a hidden NVMe disk is a path of: nvme1c0n1's is nvme1n1."""
    if facts.attributes.get("hidden") != "1":
        return None
    found = _HIDDEN.fullmatch(facts.kernel_name)
    head = host.block(f"nvme{found[1]}n{found[2]}") if found else None
    return head if head and is_head(head) else None
