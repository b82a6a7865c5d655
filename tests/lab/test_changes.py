"""Changing a SAN host: maps, arrays and volumes come and go, and their data stay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .changing import CLOSE, OPEN, Host, array_xml, changing, in_use, map_xml, volume_xml
from .guest import Guest

pytestmark = pytest.mark.lab

IDLE_MAP = "36001405000000026e6f6465646576000"
DISKS = ("loop60", "loop61", "loop62", "loop63")
SIGNATURES = {
    "ext4": "mkfs.ext4 -q -F {}",
    "xfs": "mkfs.xfs -q -f --unsupported {}",
    "LVM2_member": "pvcreate -q -y {}",
    "linux_raid_member": (
        "mdadm --create /dev/md/sign --run --level=1 --force --raid-devices=1 {} && mdadm --stop /dev/md/sign"
    ),
    "crypto_LUKS": "printf key | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {} -",
    "dos": "echo , | sfdisk -q --label dos {}",
}


@pytest.fixture(scope="module")
def host(nodedev_guest: Guest) -> Iterator[Host]:
    """The guest, its service started, with four empty disks, which are gone in the end."""
    with changing(nodedev_guest, DISKS) as found:
        yield found


def test_a_map(host: Host) -> None:
    """Busy: refused with the reason, unchanged; flushed, listed as inactive, and back with its data."""
    name, node = f"mpath_{IDLE_MAP}", f"/dev/disk/by-id/dm-uuid-mpath-{IDLE_MAP}"
    host.run(f"dd if=/dev/urandom of={node} bs=1M count=8 conv=fsync 2>/dev/null; mkfs.ext4 -q -F {node}")
    before = host.run("multipathd show maps json | md5sum; dmsetup table").stdout.partition("\n")[2]
    with in_use(host, f"mount {node} /mnt", "umount /mnt"):
        assert "mounted at /mnt" in host.refused(f"nodedev destroy {name}")
    with in_use(host, f"dmsetup create above --table '0 2048 linear {node} 0'", "dmsetup remove above"):
        assert "built on by" in host.refused(f"nodedev destroy {name}")
    with in_use(host, OPEN.format(node), CLOSE):
        assert "open" in host.refused(f"nodedev destroy {name}")
    assert "GENERATION_MISMATCH" in host.refused(f"nodedev destroy {name} --generation 1")
    assert host.run("multipathd show maps json | md5sum; dmsetup table").stdout.partition("\n")[2] == before

    data = host.digest(node)
    plan = host.run(f"nodedev destroy {name} --dry-run").stdout
    assert plan.startswith("multipathd del map mpath")
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} destroyed\n"
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} was not there\n"
    assert name in host.names("--inactive")
    assert host.create(map_xml(IDLE_MAP)) == name
    assert host.create(map_xml(IDLE_MAP)) == name
    assert name not in host.names("--inactive")
    host.run(f"until test -b {node}; do sleep 0.2; done")
    assert host.digest(node) == data


def test_an_array(host: Host) -> None:
    """Created, the same again, another refused; stopped and started with its data."""
    more = "<chunk>65536</chunk><metadata>1.2</metadata>"
    xml = array_xml("changes", "raid5", *DISKS[:3], more=more)
    name = host.create(xml, "--wait")
    found = host.info(name)
    node = found["devnode"]
    assert host.create(xml) == name
    other = array_xml("changes", "raid0", *DISKS[:3])
    assert "DEVICE_EXISTS" in host.refused(f"nodedev create - <<'END'\n{other}\nEND")
    taken = array_xml("second", "raid1", DISKS[0], DISKS[3])
    assert "a member of" in host.refused(f"nodedev create - <<'END'\n{taken}\nEND")
    host.run(f"dd if=/dev/urandom of={node} bs=1M count=16 conv=fsync 2>/dev/null; mkswap -q {node}")
    with in_use(host, f"swapon {node}", f"swapoff {node}"):
        assert "used as swap" in host.refused(f"nodedev destroy {name}")
    with in_use(host, OPEN.format(node), CLOSE):
        assert "sleep (" in host.refused(f"nodedev destroy {name}")
    assert host.run(f"cat /sys/block/{node[5:]}/md/array_state").stdout in (
        "clean\n",
        "active\n",
        "active-idle\n",
    )
    data = host.digest(node)
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} destroyed\n"
    assert name in host.names("--inactive")
    plan = host.run(f"nodedev start {name} --dry-run").stdout
    assert [line.rpartition("/dev/md/")[0] for line in plan.splitlines()] == ["", "mdadm --assemble "]
    assert plan.startswith(f"mdadm --examine /dev/{DISKS[0]}")
    assert host.run(f"nodedev start {name}").stdout.strip() == name
    assert host.digest(host.info(name)["devnode"]) == data
    host.run(f"nodedev destroy {name}")
    for disk in DISKS[:3]:
        host.run(f"wipefs -aq /dev/{disk}")


@pytest.mark.parametrize("what", SIGNATURES)
def test_every_signature_is_refused(host: Host, what: str) -> None:
    """A new array refuses a member with something on it, which stays; and takes it when it is named."""
    node = f"/dev/{DISKS[3]}"
    host.run(SIGNATURES[what].format(node))
    before = host.digest(node)
    xml = array_xml("signed", "raid1", DISKS[2], DISKS[3])
    said = host.refused(f"nodedev create - <<'END'\n{xml}\nEND")
    assert "DEVICE_BUSY" in said
    assert f"loop_{DISKS[3]}: not empty, it holds {what}" in said or "partitions" in said
    assert host.digest(node) == before
    host.run(f"wipefs -aq {node}; partx -d {node} 2>/dev/null; true")


def test_overwriting_takes_the_device_by_name(host: Host) -> None:
    """A member that the caller has named is wiped and taken; naming another one does not help."""
    host.run(f"mkfs.ext4 -q -F /dev/{DISKS[3]}")
    xml = array_xml("forced", "raid1", DISKS[2], DISKS[3])
    assert "DEVICE_BUSY" in host.refused(f"nodedev create - --overwrite loop_{DISKS[2]} <<'END'\n{xml}\nEND")
    name = host.create(xml, f"--overwrite loop_{DISKS[3]}")
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} destroyed\n"
    for disk in DISKS[2:]:
        host.run(f"wipefs -aq /dev/{disk}")


def test_a_volume(host: Host) -> None:
    """An LVM raid volume is deactivated and activated."""
    data = host.digest("/dev/vg0/mir")
    name = host.info("vg0-mir")["name"]
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} destroyed\n"
    assert "-a-" not in host.run("lvs --noheadings -o lv_attr vg0/mir").stdout
    assert host.create(volume_xml("vg0/mir")) == name
    assert host.create(volume_xml("vg0/mir")) == name
    assert host.digest("/dev/vg0/mir") == data


def test_a_loop_device_has_its_partitions(host: Host) -> None:
    """They are there when the call returns."""
    host.run("truncate -s 16M /srv/scan.img; echo , | sfdisk -q --label dos /srv/scan.img")
    wish = "<backing>/srv/scan.img</backing><partition_scan>yes</partition_scan>"
    xml = f"<device><capability type='loop'>{wish}</capability></device>"
    name = host.create(xml)
    node = host.info(name)["devnode"]
    assert host.run(f"ls {node}p1").stdout == f"{node}p1\n"
    with in_use(host, f"mkfs.ext4 -q {node}p1; mount {node}p1 /mnt", "umount /mnt"):
        assert "mounted at /mnt" in host.refused(f"nodedev destroy {name}")
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} destroyed\n"
    host.run(f"! test -e {node}p1 && rm /srv/scan.img")
