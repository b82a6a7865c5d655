"""One device of a synthetic host as sysfs and udev show it, and what every block device has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodedev.facts.umockdev import Stanza

_QUEUE = {
    "add_random": "0",
    "dax": "0",
    "discard_granularity": "4096",
    "discard_max_bytes": "1073741824",
    "discard_zeroes_data": "0",
    "hw_sector_size": "512",
    "logical_block_size": "512",
    "max_sectors_kb": "1280",
    "minimum_io_size": "4096",
    "nr_requests": "256",
    "optimal_io_size": "65536",
    "physical_block_size": "4096",
    "read_ahead_kb": "128",
    "rotational": "0",
    "rq_affinity": "1",
    "scheduler": "[none] mq-deadline ",
    "write_cache": "write back",
    "write_same_max_bytes": "0",
    "zoned": "none",
}
_BLOCK = {
    "alignment_offset": "0",
    "discard_alignment": "0",
    "ext_range": "256",
    "hidden": "0",
    "inflight": "       0        0",
    "range": "16",
    "removable": "0",
    "ro": "0",
    "stat": "     208        0    10174      891        1        0        0        9        0      852",
    **{f"queue/{name}": value for name, value in _QUEUE.items()},
}
BLOCK_BYTES = {name: f"{value}\n".encode() for name, value in _BLOCK.items()}


def stanza(
    path: str,
    subsystem: str,
    properties: Mapping[str, str] = {},
    attributes: Mapping[str, str] = {},
    symlinks: Mapping[str, str] = {},
    node: str | None = None,
    number: str | None = None,
    links: Iterable[str] = (),
    shared: Mapping[str, bytes] = {},
) -> Stanza:
    """A device; its attributes get the newline that sysfs ends them with, but for the `shared` ones."""
    every = {**properties, "SUBSYSTEM": subsystem}
    links = tuple(f"/dev/{link}" for link in links)
    content = {**shared, **{name: f"{value}\n".encode() for name, value in attributes.items()}}
    if node and number:
        every["DEVNAME"] = f"/dev/{node}"
        every["MAJOR"], every["MINOR"] = number.split(":")
        content["dev"] = f"{number}\n".encode()
    if links:
        every["DEVLINKS"] = " ".join(links)
    return Stanza(path, f"/dev/{node}" if node else None, links, every, content, dict(symlinks))


def class_device(base: str, subsystem: str, attributes: Mapping[str, str]) -> Stanza:
    """A class device under the object of the same name."""
    name = base.rpartition("/")[2]
    return stanza(f"{base}/{subsystem}/{name}", subsystem, {}, attributes, {"device": f"../../../{name}"})


def related(paths: Iterable[str], folder: str) -> dict[str, str]:
    """The links to related devices from one of /devices/virtual/block."""
    return {
        f"{folder}/{path.rpartition('/')[2]}": f"../../../../{path.removeprefix('/devices/')}"
        for path in paths
    }
