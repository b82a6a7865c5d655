"""Loop devices over files."""

from __future__ import annotations

from nodedev.facts.umockdev import Stanza
from tests.bench.san.stanza import BLOCK_BYTES, stanza

LOOP_MAJOR = 7


def loop_stanza(number: int) -> Stanza:
    """One bound device."""
    attributes = {
        "size": "131072",
        "loop/backing_file": f"/srv/images/{number}.img",
        "loop/offset": "0",
        "loop/sizelimit": "0",
        "loop/autoclear": "0",
        "loop/partscan": "0",
        "loop/dio": "0",
    }
    return stanza(
        f"/devices/virtual/block/loop{number}",
        "block",
        {"DEVTYPE": "disk", "DISKSEQ": str(10_000_000 + number)},
        attributes,
        {},
        f"loop{number}",
        f"{LOOP_MAJOR}:{number}",
        (),
        BLOCK_BYTES,
    )
