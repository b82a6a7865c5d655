"""The results of a run, and what is computed of them: per device, against a peer, from size to size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.bench.live import FLOOR, LIBVIRTD, PLAIN

# Read back from JSON: what is in it depends on which peers there were.
Results = dict[str, Any]

# What grows with the host, each per device, by what it is called.
GROWING = {
    "nodedev, live, cpu": ("live", "parts", "cpu_s"),
    "with its start, cpu": ("live", "nodedev", "cpu_s"),
    "plain Python, same files, cpu": ("live", PLAIN, "cpu_s"),
    "C, same files, cpu": ("live", FLOOR, "cpu_s"),
    "nodedev, recorded, cpu": ("recorded", "cpu_s"),
    "nodedev, live, memory": ("live", "parts", "bytes"),
    "nodedev, recorded, memory": ("recorded", "bytes"),
}
LIVE_CPU, STARTED_CPU, FLOOR_CPU, LIVE_MEMORY, RECORDED_CPU, RECORDED_MEMORY = (
    "nodedev, live, cpu",
    "with its start, cpu",
    "C, same files, cpu",
    "nodedev, live, memory",
    "nodedev, recorded, cpu",
    "nodedev, recorded, memory",
)


def at(values: Mapping[str, Any], *keys: str) -> float | None:
    """The number there; None where it was not measured, or not to its end."""
    found: Any = values
    for key in keys:
        if not isinstance(found, Mapping) or (key != "complete" and found.get("complete") is False):
            return None
        found = found.get(key)
    return None if found is None else float(found)


def ratio(one: float | None, other: float | None) -> float | None:
    """One over the other."""
    return one / other if one is not None and other else None


def per_device(size: Results, *keys: str) -> float | None:
    """A figure of a host, by the number of its devices."""
    return ratio(at(size, *keys), at(size, "recorded", "devices"))


def growth(results: Results, label: str) -> list[float | None]:
    """What a device takes at each size, over what it takes at the first."""
    sizes = list(results["sizes"].values())
    first, *_ = figures = [per_device(size, *GROWING[label]) for size in sizes]
    return [ratio(each, first) for each in figures]


def growth_over_floor(results: Results, label: str) -> list[float | None]:
    """The same, over the growth of the C floor: what is left is not the kernel's, nor the machine's load."""
    pairs = zip(growth(results, label), growth(results, FLOOR_CPU), strict=True)
    return [ratio(ours, floor) for ours, floor in pairs]


def listed_over(size: Results, key: str) -> float | None:
    """The time of libvirt's list and XML of each, over that of our list of all.

    Each has its own number of devices, as libvirt leaves out maps, arrays and loop devices: its time is
    scaled to ours.
    """
    peer = size.get("live", {}).get(LIBVIRTD, {})
    listed, dumped, devices = at(peer, "list_s"), at(peer, "xml_s"), at(peer, "devices")
    ours, count = at(size, "serving", key), at(size, "serving", "devices")
    if listed is None or dumped is None or not devices or not ours or not count:
        return None
    return (listed + dumped) * count / devices / ours


def service_bytes_per_device(results: Results, size: Results) -> float | None:
    """The memory of a service of the live tree, over one that has next to no device, a device."""
    whole, idle = at(size, "scanning", "live_bytes"), at(results, "start", "idle service of 100, bytes")
    devices = at(size, "recorded", "devices")
    return (whole - idle) / devices if whole is not None and idle is not None and devices else None


def times(value: float | None) -> str:
    """A ratio as it is printed."""
    return "-" if value is None else f"{value:.1f}x" if value >= 10 else f"{value:.2f}x"


def milliseconds(seconds: float | None) -> str:
    """A time as it is printed."""
    return "-" if seconds is None else f"{seconds * 1000:.2f} ms"
