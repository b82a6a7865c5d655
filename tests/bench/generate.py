"""A synthetic SAN host of any size, from a seed: the same arguments give the same bytes.

LUNs over four paths with a map each (two in three over Fibre Channel, the others over iSCSI), MD
mirrors of SAS disks, LVM mirrors on maps, and loop devices over files. `stanzas` gives the devices
one at a time, `record` writes them as a recording, `tests.bench.tree` as a tree to read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from nodedev.facts.umockdev import Stanza, write
from tests.bench.san.adapters import adapters
from tests.bench.san.dm import dmsetup, map_stanza
from tests.bench.san.layout import DM_MAJOR, San
from tests.bench.san.loop import loop_stanza
from tests.bench.san.md import array_stanza
from tests.bench.san.multipathd import multipathd_json
from tests.bench.san.scsi import disk_stanzas
from tests.bench.san.stanza import stanza

__all__ = ["San", "multipathd_json", "record", "stanzas"]


def stanzas(san: San) -> Iterator[Stanza]:
    """Every device of the host, one at a time, parents first."""
    yield from adapters(san)
    targets: set[str] = set()
    for disk in san.disks():
        target = disk.scsi.rpartition("/")[0]
        if target not in targets:
            targets.add(target)
            yield stanza(target, "scsi", {"DEVTYPE": "scsi_target"})
        yield from disk_stanzas(san, disk)
    for mapped in san.maps():
        yield map_stanza(mapped, san)
    for array in range(san.arrays):
        yield array_stanza(array, list(san.array_disks(array)))
    yield from map(loop_stanza, range(san.loops))


def record(san: San, folder: Path) -> None:
    """Writes the host as `nodedev record` does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "host.umockdev").open("wb") as file:
        file.writelines(map(write, stanzas(san)))
    for command, text in dmsetup(san.maps()).items():
        (folder / f"dmsetup-{command}.txt").write_text(text)
    (folder / "multipathd-maps.json").write_text(multipathd_json(san, range(san.luns)))
    (folder / "mountinfo").write_text(f"25 1 {DM_MAJOR}:0 / / rw - ext4 /dev/mapper/mpatha rw\n")
    (folder / "swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")


def main() -> None:
    """Writes a recording from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--paths", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    record(San(wanted.blocks, paths=wanted.paths, seed=wanted.seed), wanted.folder)


if __name__ == "__main__":
    main()
