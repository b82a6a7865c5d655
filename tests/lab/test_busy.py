"""Each kind of device on a SAN host through its life, and in each use: a refusal leaves all as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from .changing import CALL_SECONDS, CLOSE, OPEN, Host, array_xml, changing, in_use, map_xml, volume_xml
from .guest import Guest

pytestmark = pytest.mark.lab

DISKS = ("loop60", "loop61", "loop62")
IDLE_MAP = "36001405000000026e6f6465646576000"
USES = {
    "swap": ("mkswap -q {0}; swapon {0}", "swapoff {0}", "used as swap"),
    "mounted": ("mkfs.ext4 -q -F {0}; mount {0} /mnt", "umount /mnt", "mounted at /mnt"),
    "held": (
        "dmsetup create above --table '0 2048 linear {0} 0'",
        "dmsetup remove above",
        "built on by",
    ),
    "open": (OPEN, CLOSE, "open"),
}
# All that a refused change might have touched; what the kernel does by itself in between is left out.
LOOK = (
    "grep -v bitmap /proc/mdstat; ls -l /dev/md /dev/mapper; dmsetup table; lvs -o name,attr,devices vg0;"
    " multipathd show maps json; for md in /sys/block/md*; do"
    " mdadm --detail /dev/${md##*/} | grep -vE 'State :|Time :|Events :'; done"
)
WATCH = "/run/nodedev-watch.json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A device that is there: how it is made again, and a wish for it that differs."""

    name: str
    node: str
    again: str
    other: str
    listed: bool = True


@pytest.fixture(scope="module")
def host(nodedev_guest: Guest) -> Iterator[Host]:
    """The guest, its service and a watch."""
    with changing(nodedev_guest, DISKS) as found:
        found.run(
            "systemd-run --quiet --collect --unit=nodedev-watch sh -c"
            f" 'exec /usr/local/bin/nodedev watch --json > {WATCH}'"
        )
        yield found
        found.run("systemctl stop nodedev-watch", check=False)


@pytest.fixture(scope="module")
def kinds(host: Host) -> Iterator[Mapping[str, Kind]]:
    """One of each kind."""
    md = array_xml("life", "raid5", *DISKS, more="<chunk>65536</chunk>")
    array = host.create(md, "--wait")
    yield {
        "md": Kind(array, "/dev/md/life", md, array_xml("life", "raid0", *DISKS)),
        "lvm": Kind(
            host.info("vg0-mir")["name"],
            "/dev/vg0/mir",
            volume_xml("vg0/mir"),
            volume_xml("vg0/mir", "<level>raid5</level>"),
            listed=False,  # an LVM volume that is not active has no trace that could be seen
        ),
        "mpath": Kind(
            f"mpath_{IDLE_MAP}",
            f"/dev/disk/by-id/dm-uuid-mpath-{IDLE_MAP}",
            map_xml(IDLE_MAP),
            map_xml(IDLE_MAP, "<alias>another</alias>"),
        ),
    }
    host.run(f"nodedev destroy {array}")
    for disk in DISKS:
        host.run(f"wipefs -aq /dev/{disk}")


def watched(host: Host, change: str, name: str) -> int:
    """How often the watch has told of that change of a device."""
    line = f'"type": "TYPE_{change}", "device": {{"name": "{name}"'
    return int(host.run(f"grep -cF '{line}' {WATCH}", check=False).stdout)


def wait_for_watch(host: Host, change: str, name: str, times: int) -> None:
    """Until the watch has told of it that often."""
    end = time.monotonic() + CALL_SECONDS
    while watched(host, change, name) < times:
        assert time.monotonic() < end, f"{change} of {name} not seen"
        time.sleep(0.5)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", ["md", "lvm", "mpath"])
def test_a_device_in_use_stays(host: Host, kinds: Mapping[str, Kind], kind: str, use: str) -> None:
    """To destroy it is refused with the reason, and nothing at all has changed."""
    device = kinds[kind]
    begin, end, reason = (text.format(device.node) for text in USES[use])
    with in_use(host, begin, end):
        host.run("udevadm settle")
        before = host.run(LOOK).stdout
        said = host.refused(f"nodedev destroy {device.name}")
        assert "DEVICE_BUSY" in said
        assert reason in said
        assert host.run(LOOK).stdout == before
    assert watched(host, "REMOVED", device.name) == 0


@pytest.mark.parametrize("kind", ["md", "lvm", "mpath"])
def test_the_life_of_a_device(host: Host, kinds: Mapping[str, Kind], kind: str) -> None:
    """The same again is the one there, another is refused; gone and back it has its data; a watch sees it."""
    device = kinds[kind]
    host.run(f"dd if=/dev/urandom of={device.node} bs=1M count=8 conv=fsync 2>/dev/null; udevadm settle")
    data, before = host.digest(device.node), host.run(LOOK).stdout
    assert host.create(device.again) == device.name
    assert "DEVICE_EXISTS" in host.not_created(device.other)
    assert "GENERATION_MISMATCH" in host.refused(f"nodedev destroy {device.name} --generation 1")
    host.run(f"nodedev destroy {device.name} --dry-run")
    assert host.run(LOOK).stdout == before

    added = watched(host, "ADDED", device.name)
    assert host.run(f"nodedev destroy {device.name}").stdout == f"{device.name} destroyed\n"
    wait_for_watch(host, "REMOVED", device.name, 1)
    assert host.run(f"nodedev destroy {device.name}").stdout == f"{device.name} was not there\n"
    assert device.name not in host.names()
    assert (device.name in host.names("--inactive")) == device.listed
    if kind == "md":
        assert host.run(f"nodedev start {device.name}").stdout.strip() == device.name
    else:
        assert host.create(device.again) == device.name
    wait_for_watch(host, "ADDED", device.name, added + 1)
    host.run(f"until test -b {device.node}; do sleep 0.2; done")
    assert host.digest(device.node) == data
