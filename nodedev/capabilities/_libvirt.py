"""How libvirt reads a string from sysfs (node_device_udev.c, udevGetStringSysfsAttr)."""

from __future__ import annotations

import re

from nodedev.facts.host import DeviceFacts

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def sysfs_string(facts: DeviceFacts, attribute: str) -> str | None:
    """The attribute without control characters, blanks kept; None where nothing is left."""
    return _CONTROL.sub("", facts.attributes.get(attribute, "")) or None
