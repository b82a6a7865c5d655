"""A random stack as `nodedev record` would write it: devices, tables, mounts, swaps and what files are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from nodedev.facts.umockdev import Stanza, write
from tests.unit.stacks import CARRIER, Block, Stack


def record(stack: Stack, folder: Path) -> None:
    """Writes the stack as a recording."""
    (folder / "host.umockdev").write_bytes(b"".join(map(write, _stanzas(stack))))
    tables, statuses, infos = [], [], []
    for block in stack.blocks:
        if block.is_dm:
            kind, table, status = _target(block)
            tables.append(f"{block.dm_name}: 0 2048 {kind} {table}\n")
            statuses.append(f"{block.dm_name}: 0 2048 {kind} {status}\n")
            opened = len(stack.users(block)) + bool(block.mounts) + block.swap + block.openers
            infos.append(f"{block.dm_name}:{block.uuid}:{block.number}:{opened}:1:0:L--w\n")
    for name, lines in (("table", tables), ("status", statuses), ("info", infos)):
        (folder / f"dmsetup-{name}.txt").write_text("".join(lines) or "No devices found\n")
    (folder / "mountinfo").write_text("".join(_mounts(stack)))
    swaps = "".join(f"{block.node} partition 1048572 0 -2\n" for block in stack.blocks if block.swap)
    (folder / "swaps").write_text(f"Filename\tType\tSize\tUsed\tPriority\n{swaps}")
    files = {
        path: {"device_number": block.number, "inode": inode}
        for inode, block in enumerate(stack.blocks)
        for path in (block.node, block.link)
    }
    files |= {
        _image(block): {"device_number": "254:0", "inode": 1000 + number}
        for number, block in enumerate(stack.blocks)
        if block.kind == "loop"
    }
    manifest = {
        "format": 1,
        "udev": True,
        "uninitialized": [block.path for block in stack.blocks if block.uninitialized],
        "files": files,
    }
    (folder / "recording.json").write_text(json.dumps(manifest))


def _mounts(stack: Stack) -> Iterator[str]:
    yield "20 1 254:0 / / rw - ext4 /dev/vda rw\n"
    for block in stack.blocks:
        number, kind = ("0:41", "btrfs") if block.anonymous else (block.number, "ext4")
        source = block.link if block.anonymous else block.node
        for point in block.mounts:
            yield f"25 1 {number} / {point} rw - {kind} {source} rw\n"


def _stanzas(stack: Stack) -> Iterator[Stanza]:
    for block in stack.blocks:
        properties = {"SUBSYSTEM": "block", "DEVTYPE": "partition" if block.disk else "disk"}
        properties |= {"DEVNAME": block.node, "DEVLINKS": block.link}
        properties["MAJOR"], properties["MINOR"] = block.number.split(":")
        told = {
            "ID_SERIAL": block.serial,
            "ID_TYPE": "disk" if block.serial else "",
            "ID_FS_TYPE": block.signature,
            "ID_FS_AMBIVALENT": "filesystem:ext4 raid:ddf" if block.ambivalent else "",
            # udev's rules copy the disk's.
            "ID_PART_TABLE_TYPE": block.table or (block.disk.table if block.disk else ""),
            "DM_MULTIPATH_DEVICE_PATH": "1" if block.wanted else "",
            "DM_UDEV_DISABLE_OTHER_RULES_FLAG": "1" if block.keep_off else "",
            "ID_FS_UUID": block.uuid if block.signature == CARRIER else "",
        }
        properties |= {name: value for name, value in told.items() if value}
        if not block.disk:
            properties["DISKSEQ"] = str(stack.blocks.index(block) + 1)
        symlinks = {f"holders/{user.name}": "x" for user in stack.users(block) if user.kind != "loop"}
        if block.kind != "loop":
            symlinks |= {f"slaves/{base.name}": "x" for base in block.below}
        content = {name: f"{value}\n".encode() for name, value in _attributes(block).items()}
        yield Stanza(block.path, block.node, (block.link,), properties, content, symlinks)


def _image(block: Block) -> str:
    """What a loop device is over."""
    return block.below[0].node if block.below else f"/srv/{block.name}.img"


def _attributes(block: Block) -> dict[str, str]:
    """What sysfs has of the block device."""
    found = {"size": "2048", "ro": "0", "dev": block.number}
    if block.disk:
        found["partition"] = block.name[-1]
    if block.is_dm:
        found |= {"dm/name": block.dm_name, "dm/uuid": block.uuid, "dm/suspended": "0"}
    if block.kind == "loop":
        numbers = {"offset": "0", "sizelimit": "0", "dio": "0", "partscan": "0", "autoclear": "0"}
        found |= {"loop/backing_file": _image(block)}
        found |= {f"loop/{name}": value for name, value in numbers.items()}
    if block.kind in ("md", "container", "volume"):
        found |= {
            "md/array_state": "inactive" if block.kind == "container" else "clean",
            "md/level": "" if block.kind == "container" else "raid1",
            "md/raid_disks": str(len(block.below)),
            "md/uuid": block.uuid.replace(":", ""),
            "md/metadata_version": "1.2",
        }
        if block.kind == "container":
            found["md/metadata_version"] = "external:imsm"
        if block.container:
            found["md/metadata_version"] = f"external:/{block.container.name}/0"
        for slot, base in enumerate(block.below):
            found |= {f"md/dev-{base.name}/slot": str(slot), f"md/dev-{base.name}/state": "in_sync"}
    return found


def _target(block: Block) -> tuple[str, str, str]:
    """The type, table and status of a device-mapper device, as the kernel prints them."""
    numbers = [base.number for base in block.below]
    match block.kind:
        case "mpath":
            paths = " ".join(f"{number} 1" for number in numbers)
            states = " ".join(f"{number} {'F 1' if block.failed else 'A 0'}" for number in numbers)
            table = f"0 0 1 1 service-time 0 {len(numbers)} 1 {paths}"
            return "multipath", table, f"2 0 0 0 1 1 A 0 {len(numbers)} 0 {states}"
        case "raid":
            legs = " ".join(f"- {number}" for number in numbers)
            letters = "A" * len(numbers)
            table = f"raid1 3 0 region_size 1024 {len(numbers)} {legs}"
            return "raid", table, f"raid1 {len(numbers)} {letters} 2048/2048 idle 0 0 -"
        case "crypt":
            return "crypt", f"aes-xts-plain64 00 0 {numbers[0]} 4096", ""
        case _:
            return "linear", f"{numbers[0]} 0", ""
