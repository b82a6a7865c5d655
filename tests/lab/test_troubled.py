"""A host in trouble: nodedev reads it to the end, in its usual time, and says what is missing."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from google.protobuf.json_format import Parse

from nodedev.v1 import device_pb2
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.capability_pb2 import Block, Claim, Loop, Mpath, Raid

from .guest import Guest
from .seen import capability, the

pytestmark = pytest.mark.lab

MAP = "mpatha"
COMMANDS = {"list": "list --json", "dumpxml": "dumpxml --all", "record": "record {out}/recording.tar.gz"}
# What a command may take more than without trouble, before it counts as one that hangs: a machine with other
# work to do is slower at times, and what is waited for has deadlines of seconds, not of minutes.
HANGS_RATIO = 3.0
BASELINE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the three commands printed, and how long each one took."""

    devices: dict[str, device_pb2.Device]
    dumps: str
    recorded: dict[str, device_pb2.Device]
    seconds: dict[str, float]
    waited: dict[str, float]  # of these not on a CPU: how busy this machine is hardly shows in them

    def notes(self, source: str) -> set[str]:
        """What some device has to say of a source."""
        return {
            note.message for device in self.devices.values() for note in device.notes if note.source == source
        }


def listed(text: str) -> dict[str, device_pb2.Device]:
    """The devices of `list --json` by name."""
    return {device.name: device for device in Parse(text, pb.ListDevicesResponse()).devices}


def read(guest: Guest, deadlines: dict[str, float], wrap: str = "") -> Reading:
    """Run the three commands, each with its deadline; `wrap` is a command that runs them, as setpriv."""
    folder = guest.run("mktemp -d /run/reading.XXXXXX && chmod 777 /run/reading.*").stdout.strip()
    seconds, waited, printed = {}, {}, {}
    for name, arguments in COMMANDS.items():
        shell = f"nodedev {arguments.format(out=folder)} >{folder}/{name} 2>{folder}/{name}.err"
        timed = f"TIMEFORMAT='%R %U %S'; time {wrap} sh -c '{shell}'"
        done = guest.run(timed, timeout=deadlines.get(name, BASELINE_SECONDS), check=False)
        assert done.returncode == 0, (name, done, guest.run(f"cat {folder}/{name}.err").stdout)
        seconds[name], user, system = map(float, done.stderr.splitlines()[-1].split())
        waited[name] = max(seconds[name] - user - system, 0.0)
        printed[name] = guest.run(f"cat {folder}/{name}").stdout
    recorded = guest.run(f"nodedev --host {folder}/recording.tar.gz list --json", timeout=BASELINE_SECONDS)
    guest.run(f"rm -r {folder}")
    return Reading(listed(printed["list"]), printed["dumpxml"], listed(recorded.stdout), seconds, waited)


@pytest.fixture(scope="module")
def first(nodedev_guest: Guest) -> dict[str, device_pb2.Device]:
    """The host before all trouble; from here on nodedev's files are in the guest's memory."""
    return listed(nodedev_guest.run("nodedev list --json", timeout=BASELINE_SECONDS).stdout)


@pytest.fixture
def well(nodedev_guest: Guest, first: dict[str, device_pb2.Device]) -> Reading:
    """The host right before the trouble: how fast this machine is may be different a minute later."""
    return read(nodedev_guest, {})


def troubled(guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str], wrap: str = "") -> Reading:
    """The three commands within their deadlines, and on the terminal how they compare."""
    deadlines = {name: seconds * HANGS_RATIO for name, seconds in well.seconds.items()}
    found = read(guest, deadlines, wrap)
    with capsys.disabled():
        for name, seconds in found.seconds.items():
            ratio = seconds / well.seconds[name]
            waits = f"{well.waited[name]:.1f} s waiting before, {found.waited[name]:.1f} s now"
            sys.stdout.write(f"\n  {name}: {ratio:.2f} of {well.seconds[name]:.1f} s; {waits}")
    return found


def assert_same_devices(found: Reading, well: Reading) -> None:
    """Nothing is missing in any of the three."""
    assert found.devices.keys() == well.devices.keys()
    assert found.recorded.keys() == well.devices.keys()
    assert set(re.findall(r"^  <name>(.*)</name>", found.dumps, re.MULTILINE)) == well.devices.keys()


def the_map(devices: dict[str, device_pb2.Device]) -> device_pb2.Device:
    """The map that gets into trouble."""
    found = (device for device in devices.values() if capability(device, Mpath))
    (named,) = (device for device in found if the(device, Mpath).alias == MAP)
    return named


@contextlib.contextmanager
def without_paths(guest: Guest) -> Iterator[None]:
    """The map queues, and every path of it is offline: from here on, to open it is to hang."""
    disks = guest.run(f"ls $(readlink -f /sys/class/block/$(basename $(realpath /dev/mapper/{MAP})))/slaves")
    names = disks.stdout.split()
    each = f"for disk in {' '.join(names)}; do"
    guest.run(
        f"dmsetup message {MAP} 0 queue_if_no_path; {each} echo offline >/sys/block/$disk/device/state;"
        " multipathd fail path $disk; done"
    )
    try:
        yield
    finally:
        guest.run(
            f"{each} echo running >/sys/block/$disk/device/state; multipathd reinstate path $disk; done;"
            f' until [ $(multipathd show maps json | jq \'[.maps[] | select(.name == "{MAP}")'
            ' | .path_groups[].paths[] | select(.chk_st == "ready" and .dm_st == "active")] | length\')'
            f" = {len(names)} ]; do sleep 0.2; done; dmsetup message {MAP} 0 fail_if_no_path;"
            " until ! pgrep -x dd; do sleep 0.2; done; udevadm settle --timeout=60",
            timeout=180,
        )


def test_all_paths_down(nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    """With every path of a queueing map offline all is listed, dumped and recorded, the map as failed."""
    guest = nodedev_guest
    assert the(the_map(well.devices), Mpath).health == "optimal"
    with without_paths(guest):
        hung = guest.run(f"dd if=/dev/mapper/{MAP} of=/dev/null count=1 iflag=direct", timeout=2, check=False)
        assert hung.timed_out
        found = troubled(guest, well, capsys)
    assert_same_devices(found, well)
    for devices in (found.devices, found.recorded):
        failed = the(the_map(devices), Mpath)
        assert (failed.health, failed.redundancy.usable_paths) == ("failed", 0)
        assert "queue_if_no_path" in failed.features
        paths = [path for group in failed.groups for path in group.paths]
        assert {(path.state, path.device_state) for path in paths} == {("failed", "offline")}
        assert len(paths) == 2
    document = found.dumps[found.dumps.index(f"<name>{the_map(found.devices).name}</name>") :]
    assert "<health>failed</health>" in document[: document.index("</device>")]


def test_a_file_system_on_a_map_without_paths(
    nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of files on a mounted map without paths nothing waits: not of one in use, nor of one that is deleted.

    The first stands in the kernel's memory; to look for the other's name is to sleep until a path is back,
    unless its folder is in memory still, which nobody can keep from happening.
    """
    guest = nodedev_guest
    guest.run(
        # A journal would keep the folder's block in memory, and the name would be looked up in that.
        f"mkfs.ext4 -q -O ^has_journal /dev/mapper/{MAP} && mkdir -p /mnt/down"
        f" && mount /dev/mapper/{MAP} /mnt/down"
        " && mkdir /mnt/down/deep && truncate -s 1M /mnt/down/deep/{file,gone}"
        " && losetup /dev/loop60 /mnt/down/deep/file && losetup /dev/loop61 /mnt/down/deep/gone"
        " && rm /mnt/down/deep/gone && sync && udevadm settle --timeout=60"
    )
    try:
        with without_paths(guest):
            guest.run("echo 3 >/proc/sys/vm/drop_caches")
            guest.run("nodedev list", timeout=BASELINE_SECONDS)  # its own files were dropped too
            found = troubled(guest, well, capsys)
    finally:
        guest.run(
            f"losetup -d /dev/loop60 /dev/loop61; umount /mnt/down; wipefs -qa /dev/mapper/{MAP};"
            " udevadm settle --timeout=60"
        )
    assert found.devices.keys() == well.devices.keys() | {"loop_loop60", "loop_loop61"}
    assert the(the_map(found.devices), Mpath).health == "failed"
    claim = the(the_map(found.devices), Claim)
    assert "/mnt/down" in {reason.target for reason in claim.reasons}
    used = the(found.devices["loop_loop60"], Loop).backing
    assert (used.path, used.deleted) == ("/mnt/down/deep/file", False)
    gone = found.devices["loop_loop61"]
    backing = the(gone, Loop).backing
    if backing.HasField("deleted"):
        assert (backing.path, backing.deleted) == ("/mnt/down/deep/gone", True)
    else:
        assert backing.path == "/mnt/down/deep/gone (deleted)"
        assert any("no answer" in note.message for note in gone.notes if note.source == "stat")


@contextlib.contextmanager
def without_multipathd(guest: Guest) -> Iterator[None]:
    """Neither the daemon nor the socket at which systemd would start it."""
    guest.run("systemctl stop multipathd.socket multipathd.service", timeout=120)
    try:
        yield
    finally:
        guest.run(
            "systemctl start multipathd && until [ $(multipathd show maps json | jq '.maps | length') = 8 ];"
            " do sleep 0.2; done; udevadm settle --timeout=60",
            timeout=180,
        )


def test_multipathd_stopped(nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    """Without multipathd the maps are what the kernel says, with a note, and nothing has started it."""
    with without_multipathd(nodedev_guest):
        found = troubled(nodedev_guest, well, capsys)
        assert nodedev_guest.run("pgrep -x multipathd", check=False).stdout == ""
    assert_without_multipathds_word(found, well)
    assert any("not running" in message for message in found.notes("multipathd"))


def assert_without_multipathds_word(found: Reading, well: Reading) -> None:
    """The maps have what the kernel tells of them, and only that."""
    assert_same_devices(found, well)
    for devices in (found.devices, found.recorded):
        kernels = the(the_map(devices), Mpath)
        assert (kernels.health, kernels.state) == ("optimal", "active")
        paths = [path for group in kernels.groups for path in group.paths]
        assert {(path.state, path.checker, path.device_state) for path in paths} == {
            ("active", "", "running")
        }


def test_multipathd_socket_alone(
    nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where systemd listens for a multipathd that is down, reading does not start it."""
    with without_multipathd(nodedev_guest):
        nodedev_guest.run("systemctl start multipathd.socket")
        found = troubled(nodedev_guest, well, capsys)
        assert nodedev_guest.run("pgrep -x multipathd", check=False).stdout == ""
    assert_without_multipathds_word(found, well)


def test_multipathd_frozen(nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    """A multipathd that a signal has stopped is not waited for; its word is missing, with a note."""
    nodedev_guest.run("kill -STOP $(pgrep -x multipathd)")
    try:
        found = troubled(nodedev_guest, well, capsys)
    finally:
        nodedev_guest.run("kill -CONT $(pgrep -x multipathd); multipathd show daemon")
    assert_without_multipathds_word(found, well)
    assert any("stopped by a signal" in message for message in found.notes("multipathd"))


def test_udevd_stopped(nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    """Without udevd all it has noted before is still there, and no device is different."""
    sockets = "systemd-udevd-control.socket systemd-udevd-kernel.socket"
    nodedev_guest.run(f"systemctl stop {sockets} systemd-udevd.service", timeout=120)
    try:
        found = troubled(nodedev_guest, well, capsys)
    finally:
        nodedev_guest.run(f"systemctl start {sockets} systemd-udevd && udevadm settle --timeout=60")
    assert_same_devices(found, well)
    assert {name: list(device.links) for name, device in found.devices.items()} == {
        name: list(device.links) for name, device in well.devices.items()
    }


def test_no_udev_database(nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    """Where udev has never run every block device is there, without what only udev tells."""
    hidden = "unshare --mount sh -c 'mount -t tmpfs none /run/udev && exec \"$@\"' -"
    found = troubled(nodedev_guest, well, capsys, hidden)
    assert nodes(found) == nodes(well)
    assert the(the_map(found.devices), Mpath).health == "optimal"
    assert len([device for device in found.devices.values() if capability(device, Raid)]) == len(
        [device for device in well.devices.values() if capability(device, Raid)]
    )


def nodes(reading: Reading) -> set[str]:
    """The block devices by sysfs path."""
    return {device.sysfs_path for device in reading.devices.values() if device.device_number}


def test_ordinary_user(nodedev_guest: Guest, well: Reading, capsys: pytest.CaptureFixture[str]) -> None:
    """An ordinary user sees what the files let everybody read; what needs root is a note."""
    found = troubled(nodedev_guest, well, capsys, "setpriv --reuid=65534 --regid=65534 --clear-groups")
    missing = {device.device_number for device in well.devices.values()} - {
        device.device_number for device in found.devices.values()
    }
    # A dm device without a table is known to the DM ioctls alone, and those are root's.
    (empty,) = (device for device in well.devices.values() if device.device_number in missing)
    assert the(empty, Block).device_mapper.name == "empty"
    # Nor does anything else tell an LVM RAID volume: it is there as any other, and says so.
    mapped = [device for device in found.devices.values() if "/block/dm-" in device.sysfs_path]
    assert [device.name for device in mapped if "dm" not in {note.source for note in device.notes}] == []
    shown = the(the_map(found.devices), Mpath)
    assert shown.wwid == the(the_map(well.devices), Mpath).wwid
    assert len([path for group in shown.groups for path in group.paths]) == 2


def test_as_before(nodedev_guest: Guest, first: dict[str, device_pb2.Device]) -> None:
    """After all that the host is what it was."""
    last = listed(nodedev_guest.run("nodedev list --json", timeout=BASELINE_SECONDS).stdout)
    assert last.keys() == first.keys()
    before, after = (
        {name: [note.message for note in device.notes] for name, device in devices.items()}
        for devices in (first, last)
    )
    assert after == before
    assert the(the_map(last), Mpath).health == "optimal"
