"""MD mirrors of local disks."""

from __future__ import annotations

from nodedev.facts.umockdev import Stanza
from tests.bench.san.layout import Disk
from tests.bench.san.stanza import BLOCK_BYTES, related, stanza

MD_MAJOR = 9


def array_stanza(number: int, disks: list[Disk]) -> Stanza:
    """One mirror over its disks."""
    uuid = f"{number:08x}-0000-4000-8000-00000000beef"
    attributes = {
        "size": str(disks[0].sectors - 2048),
        "md/array_state": "clean",
        "md/level": "raid1",
        "md/raid_disks": str(len(disks)),
        "md/metadata_version": "1.2",
        "md/uuid": uuid,
        "md/degraded": "0",
        "md/chunk_size": "0",
        "md/layout": "0",
        "md/consistency_policy": "resync",
        "md/resync_start": "none",
        "md/sync_action": "idle",
        "md/sync_completed": "none",
        "md/sync_speed": "none",
        "md/mismatch_cnt": "0",
    }
    symlinks = related([disk.path for disk in disks], "slaves")
    for slot, disk in enumerate(disks):
        attributes[f"md/dev-{disk.name}/slot"] = str(slot)
        attributes[f"md/dev-{disk.name}/state"] = "in_sync"
        attributes[f"md/dev-{disk.name}/errors"] = "0"
        symlinks[f"md/rd{slot}"] = f"dev-{disk.name}"
    properties = {"DEVTYPE": "disk", "MD_LEVEL": "raid1", "MD_UUID": uuid.replace("-", ":")}
    return stanza(
        f"/devices/virtual/block/md{number}",
        "block",
        {**properties, "MD_DEVNAME": f"array{number}"},
        attributes,
        symlinks,
        f"md{number}",
        f"{MD_MAJOR}:{number}",
        [f"md/array{number}"],
        BLOCK_BYTES,
    )
