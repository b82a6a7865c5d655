"""MD arrays that lack members, that are half way, that have a container; and a sync that is followed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .changing import Host, array_xml, changing, uuid_xml
from .guest import Guest

pytestmark = pytest.mark.lab

DISKS = ("loop60", "loop61", "loop62", "loop63")
SUPERBLOCKS = "cat /proc/mdstat; mdadm --examine {}"


@pytest.fixture(scope="module")
def host(nodedev_guest: Guest) -> Iterator[Host]:
    """The guest, its service started, with empty disks."""
    with changing(nodedev_guest, DISKS) as found:
        yield found


@pytest.fixture(autouse=True)
def _empty(host: Host) -> Iterator[None]:
    """Whatever became of a test, the next one begins with empty disks."""
    yield
    members = "|".join(DISKS)
    for _ in ("volumes", "containers"):
        arrays = f"awk '/^md.*({members})\\[/ {{print $1}}' /proc/mdstat"
        host.run(f"for array in $({arrays}); do mdadm --stop /dev/$array; done; true")
    for disk in DISKS:
        host.detach(disk)
        host.attach(disk)
    host.run("udevadm settle")


def stopped(host: Host, name: str, level: str, *disks: str) -> tuple[str, str]:
    """A new array with data, stopped again: its name, and its data's checksum."""
    array = host.create(array_xml(name, level, *disks), "--wait")
    node = host.info(array)["devnode"]
    host.run(f"dd if=/dev/urandom of={node} bs=1M count=8 conv=fsync 2>/dev/null")
    data = host.digest(node)
    assert host.run(f"nodedev destroy {array}").stdout == f"{array} destroyed\n"
    return array, data


def test_an_array_that_lacks_a_member(host: Host) -> None:
    """Refused, and nothing changed; with force it runs degraded, with its data."""
    first, second = DISKS[:2]
    array, data = stopped(host, "lacking", "raid1", first, second)
    host.detach(second)
    host.run("udevadm settle")
    look = SUPERBLOCKS.format(f"/dev/{first}")
    before = host.run(look).stdout
    said = host.refused(f"nodedev start {array}")
    assert "MEMBERS_MISSING" in said
    assert "1 of the 2 members" in said
    assert "MEMBERS_MISSING" in host.refused(f"nodedev start {array} --dry-run")
    host.run("udevadm settle")
    assert host.run(look).stdout == before
    assert array in host.names("--inactive")

    assert host.run(f"nodedev start {array} --force").stdout.strip() == array
    assert host.raid(array)["health"] == "degraded"
    assert host.digest(host.info(array)["devnode"]) == data
    assert host.run(f"nodedev destroy {array}").stdout == f"{array} destroyed\n"


def test_force_does_not_make_up_for_data_that_is_gone(host: Host) -> None:
    """An array without redundancy does not start without a member, forced or not."""
    first, second = DISKS[:2]
    array, _ = stopped(host, "striped", "raid0", first, second)
    host.detach(second)
    before = host.run("cat /proc/mdstat").stdout
    for option in ("", "--force"):
        said = host.refused(f"nodedev start {array} {option}")
        assert "MEMBERS_MISSING" in said
        assert "not enough" in said
    assert host.run("cat /proc/mdstat").stdout == before


def test_an_array_that_udev_has_begun(host: Host) -> None:
    """What udev's rules assembled in part is taken over: refused unchanged, forced, or whole."""
    first, second = DISKS[:2]
    array, data = stopped(host, "begun", "raid1", first, second)
    host.run(f"mdadm --incremental /dev/{first}; udevadm settle")
    assert "inactive" in host.run(f"grep {first} /proc/mdstat").stdout
    assert host.run(f"nodedev start {array}").stdout.strip() == array
    assert host.digest(host.info(array)["devnode"]) == data
    assert host.raid(array)["health"] == "optimal"
    host.run(f"nodedev destroy {array}")

    host.detach(second)
    host.run(f"mdadm --incremental /dev/{first}; udevadm settle")
    before = host.run("cat /proc/mdstat").stdout
    assert "MEMBERS_MISSING" in host.refused(f"nodedev start {array}")
    assert host.run("cat /proc/mdstat").stdout == before
    assert host.run(f"nodedev start {array} --force").stdout.strip() == array
    assert host.digest(host.info(array)["devnode"]) == data
    host.run(f"nodedev destroy {array}")


def test_a_container(host: Host) -> None:
    """A container and a volume in it are made, stopped from the top down, and come back by their UUIDs."""
    disks = DISKS[:2]
    container = host.create(array_xml("box", "container", *disks, more="<metadata>ddf</metadata>"))
    assert host.raid(container)["metadata"] == "ddf"
    inside = (
        "<device><capability type='raid'><name>inside</name><level>raid1</level>"
        f"<container>{container}</container></capability></device>"
    )
    volume = host.create(inside, "--wait")
    assert host.create(inside) == volume
    node = host.info(volume)["devnode"]
    host.run(f"dd if=/dev/urandom of={node} bs=1M count=8 conv=fsync 2>/dev/null")
    data = host.digest(node)
    uuid = host.raid(volume)["uuid"]
    whole = uuid_xml(host.raid(container)["uuid"], "<name>box</name>")
    part = uuid_xml(uuid, f"<name>inside</name><container>{container}</container>")

    before = host.run("cat /proc/mdstat").stdout
    assert "the container of" in host.refused(f"nodedev destroy {container}")
    assert host.run("cat /proc/mdstat").stdout == before
    assert host.run(f"nodedev destroy {volume}").stdout == f"{volume} destroyed\n"
    assert "start that one first" in host.not_created(uuid_xml(uuid))
    assert host.create(part) == volume
    assert host.digest(host.info(volume)["devnode"]) == data
    assert host.run(f"nodedev destroy {volume}").stdout == f"{volume} destroyed\n"
    assert host.run(f"nodedev destroy {container}").stdout == f"{container} destroyed\n"

    assert "start that one first" in host.not_created(uuid_xml(uuid))
    gone = host.run(f"nodedev create - <<'END'\n{part}\nEND", check=False)
    assert "DEVICE_NOT_FOUND" in gone.stderr
    assert "MEMBERS_MISSING" in host.not_created(uuid_xml("6e6f6465:64657600:6c616200:ffffffff"))
    assert host.create(whole) == container
    assert host.create(part) == volume
    assert host.digest(host.info(volume)["devnode"]) == data
    assert host.run(f"nodedev destroy {volume}").stdout == f"{volume} destroyed\n"
    assert host.run(f"nodedev destroy {container}").stdout == f"{container} destroyed\n"


def test_a_sync_is_followed_on_a_terminal(host: Host) -> None:
    """`create --wait` shows how far the sync is, and ends when the array is in sync."""
    host.run(f"cat > /run/wait.xml <<'END'\n{array_xml('waited', 'raid1', *DISKS[:2])}\nEND")
    limit = "/proc/sys/dev/raid/speed_limit_max"
    before = host.run(f"cat {limit}").stdout.strip()
    host.run(f"echo 4000 > {limit}")
    try:
        shown = host.run("script -qec 'nodedev create --wait /run/wait.xml' /dev/null").stdout
    finally:
        host.run(f"echo {before} > {limit}")
    name = shown.split()[0]
    assert re.search(r"resync \d+ %", shown)
    assert shown.rstrip().endswith("in sync")
    raid = host.raid(name)
    assert (raid["health"], raid["sync"]["action"]) == ("optimal", "idle")
    assert host.run(f"nodedev destroy {name}").stdout == f"{name} destroyed\n"
