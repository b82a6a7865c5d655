"""The lab itself: the channel keeps its promises, and the peers see the scenario."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .guest import CommandError, Guest
from .hardware import LUNS

pytestmark = pytest.mark.lab


def test_a_command_gives_its_output_and_status(guest: Guest) -> None:
    """Output, errors and status come back apart."""
    completed = guest.run("echo out; echo err >&2; exit 3", check=False)
    assert (completed.stdout, completed.stderr, completed.returncode) == ("out\n", "err\n", 3)


def test_a_failure_raises_with_what_was_printed(guest: Guest) -> None:
    """A checked command that fails says why."""
    with pytest.raises(CommandError, match="no such thing"):
        guest.run("echo no such thing >&2; false")


def test_a_command_is_killed_at_its_deadline(guest: Guest) -> None:
    """The deadline ends the whole process group, and what was printed before it is kept."""
    begin = time.monotonic()
    completed = guest.run("echo before; sleep 1000 & sleep 1000", timeout=2, check=False)
    assert completed.timed_out
    assert completed.stdout == "before\n"
    assert time.monotonic() - begin < 20


def test_a_command_that_nothing_ends_is_left(guest: Guest) -> None:
    """A direct read of a suspended device cannot be killed: it is reported, and the channel stays."""
    completed = guest.run(
        "dd if=/dev/mapper/paused of=/dev/null count=1 iflag=direct", timeout=2, check=False
    )
    try:
        assert completed.timed_out
        assert completed.returncode is None
        assert guest.run("echo still here").stdout == "still here\n"
    finally:
        guest.run(
            "dmsetup resume paused; until ! pgrep -x dd; do sleep 0.1; done; dmsetup suspend --noflush paused"
        )


def test_commands_run_side_by_side(guest: Guest) -> None:
    """Each of several commands waits for a file that the last of them makes."""
    marks = [f"/run/side-by-side-{number}" for number in range(4)]
    command = "touch {}; until [ $(ls /run/side-by-side-* | wc -l) = 4 ]; do sleep 0.1; done"
    with ThreadPoolExecutor(4) as pool:
        for completed in pool.map(lambda mark: guest.run(command.format(mark)), marks):
            assert completed.returncode == 0
    guest.run("rm /run/side-by-side-*")


def test_files_go_in_and_come_out(guest: Guest, tmp_path: Path) -> None:
    """A folder comes back as it went."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(bytes(range(256)))
    guest.put(tmp_path / "there", "/run/transferred")
    guest.get("/run/transferred", tmp_path / "back")
    assert (tmp_path / "back" / "file").read_bytes() == bytes(range(256))


def test_multipathd_sees_every_map_with_its_paths(guest: Guest) -> None:
    """Six maps on virtio-scsi with two or four paths, two on iSCSI with two."""
    expected = {f"3{lun.wwn:x}": len(lun.adapters) for lun in LUNS}
    expected |= {f"360014050000000{number}6e6f6465646576000": 2 for number in (1, 2)}
    maps = json.loads(guest.run("multipathd show maps json").stdout)["maps"]
    assert {
        each["uuid"]: sum(len(group["paths"]) for group in each["path_groups"]) for each in maps
    } == expected


def test_md_has_every_array(guest: Guest) -> None:
    """Each level once, one array degraded, one DDF container with its volume."""
    shown = guest.run(
        "for md in /sys/block/md*/md; do echo $(cat $md/metadata_version) $(cat $md/level $md/degraded); done"
    ).stdout
    assert sorted(re.sub(r"/md\d+/", "/container/", line).split() for line in shown.splitlines()) == [
        ["1.2", "raid0"],
        ["1.2", "raid1", "0"],
        ["1.2", "raid1", "0"],
        ["1.2", "raid1", "1"],
        ["1.2", "raid10", "0"],
        ["1.2", "raid5", "0"],
        ["external:/container/0", "raid1", "0"],
        ["external:ddf"],
    ]


def test_losetup_sees_every_kind_of_loop(guest: Guest) -> None:
    """Offset, read-only, deleted backing, partitions, 4096-byte sectors, direct I/O, autoclear."""
    listed = json.loads(guest.run("losetup --json --list --output-all").stdout)["loopdevices"]
    loops = {each["back-file"]: each for each in listed}
    assert (loops["/srv/offset.img"]["offset"], loops["/srv/offset.img"]["sizelimit"]) == (1048576, 8388608)
    assert loops["/srv/read-only.img"]["ro"]
    assert "/srv/deleted.img (deleted)" in loops
    assert "/srv/live (deleted)" in loops
    assert loops["/srv/parted.img"]["partscan"]
    assert loops["/srv/sector4k.img"]["log-sec"] == 4096
    assert loops["/srv/direct.img"]["dio"]
    assert loops["/srv/mounted.img"]["autoclear"]


def test_device_mapper_has_the_odd_ones(guest: Guest) -> None:
    """A suspended device, one without a table, names to be escaped, and each kind of UUID."""
    shown = guest.run(
        "dmsetup info -c --noheadings --separator '|' -o name,uuid,suspended,tables_loaded"
    ).stdout
    devices = {name: (uuid, state) for name, uuid, *state in (line.split("|") for line in shown.splitlines())}
    assert devices["paused"] == ("LAB-paused", ["Suspended", "Live"])
    assert devices["empty"][1][1] == "None"
    assert {"odd name", "a.b", "vg0-with--hyphen"} <= devices.keys()
    prefixes = {uuid.split("-")[0] for uuid, _ in devices.values()}
    assert prefixes == {"", "mpath", "part1", "part2", "LVM", "CRYPT", "DMRAID", "LAB"}


def test_libvirt_lists_the_paths(guest: Guest) -> None:
    """The node devices of libvirt are there to compare with."""
    names = guest.run("virsh -q -c qemu:///system nodedev-list --cap storage").stdout.split()
    assert sum(name.endswith("3500a0980000000a3") for name in names) == 4
