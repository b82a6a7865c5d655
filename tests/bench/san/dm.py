"""Device-mapper: multipath maps, LVM mirrors and their legs, as stanzas and as dmsetup prints them."""

from __future__ import annotations

from collections.abc import Iterable

from nodedev.facts.umockdev import Stanza
from tests.bench.san.layout import DM_MAJOR, Mapped, San
from tests.bench.san.stanza import BLOCK_BYTES, related, stanza


def map_stanza(mapped: Mapped, san: San) -> Stanza:
    """One device as sysfs and udev show it."""
    properties = {
        "DEVTYPE": "disk",
        "DISKSEQ": str(san.blocks * 2 + mapped.minor),
        "DM_ACTIVATION": "1",
        "DM_NAME": mapped.name,
        "DM_SUSPENDED": "0",
        "DM_UDEV_PRIMARY_SOURCE_FLAG": "1",
        "DM_UDEV_RULES": "1",
        "DM_UDEV_RULES_VSN": "2",
        "DM_UUID": mapped.uuid,
        "TAGS": ":systemd:",
    }
    if mapped.uuid.startswith("mpath-"):
        wwid = mapped.uuid.removeprefix("mpath-")
        properties |= {"DM_SERIAL": wwid, "DM_TYPE": "scsi", "DM_WWN": f"0x{wwid[1:]}"}
        properties["MPATH_DEVICE_READY"] = "1"
    attributes = {
        "size": str(mapped.sectors),
        "diskseq": properties["DISKSEQ"],
        "dm/name": mapped.name,
        "dm/uuid": mapped.uuid,
        "dm/suspended": "0",
    }
    links = [
        f"mapper/{mapped.name}",
        f"disk/by-id/dm-name-{mapped.name}",
        f"disk/by-id/dm-uuid-{mapped.uuid}",
    ]
    return stanza(
        mapped.path,
        "block",
        properties,
        attributes,
        {**related(mapped.slaves, "slaves"), **related(mapped.holders, "holders")},
        f"dm-{mapped.minor}",
        f"{DM_MAJOR}:{mapped.minor}",
        [*links, *mapped.links],
        BLOCK_BYTES,
    )


def dmsetup(maps: Iterable[Mapped]) -> dict[str, str]:
    """What dmsetup prints of the maps, by the name of its command."""
    tables, statuses, infos = [], [], []
    for mapped in maps:
        tables.append(f"{mapped.name}: 0 {mapped.sectors} {mapped.table}\n")
        statuses.append(f"{mapped.name}: 0 {mapped.sectors} {mapped.status}\n")
        opened = len(mapped.holders)
        infos.append(f"{mapped.name}:{mapped.uuid}:{DM_MAJOR}:{mapped.minor}:{opened}:1:0:L--w\n")
    return {"table": "".join(tables), "status": "".join(statuses), "info": "".join(infos)}
