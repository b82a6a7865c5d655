"""Devices as they stand in answers, serialized once for each state of a device."""

from __future__ import annotations

from collections.abc import Callable

from nodedev.inventory import Inventory
from nodedev.model import Device

_SPARE = 1000


class Rendered:
    """What a function makes of devices, kept until they change.

    An answer costs little more than a copy then.
    """

    def __init__(self, inventory: Inventory, make: Callable[[Device], bytes]) -> None:
        self._inventory = inventory
        self._make = make
        self._kept: dict[str, tuple[Device, bytes]] = {}
        self._limit = _SPARE

    def __call__(self, device: Device) -> bytes:
        """The device in its form."""
        kept = self._kept.get(device.name)
        # Devices do not change: another state is another object.
        if kept and kept[0] is device:
            return kept[1]
        if len(self._kept) >= self._limit:
            self._drop_gone()
        made = self._make(device)
        self._kept[device.name] = (device, made)
        return made

    def _drop_gone(self) -> None:
        present = self._inventory.snapshot.devices
        self._kept = {name: kept for name, kept in self._kept.items() if present.get(name) is kept[0]}
        self._limit = 2 * len(self._kept) + _SPARE
