"""The live host as a source, over a fake tree and this machine, and calls with a deadline."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from nodedev.errors import FactError
from nodedev.facts import bounded
from nodedev.facts.host import FileIdentity, Host
from nodedev.facts.live import LiveSource
from tests.unit import trees
from tests.unit.trees import CCISS, DM0, LOOP0, SDA, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A host with one of each."""
    return trees.storage(tmp_path)


def test_a_scan_has_every_device_of_the_declared_subsystems(tree: Tree) -> None:
    """Nothing else is listed, and each device once."""
    names = sorted(facts.kernel_name for facts in tree.source({"block": (), "scsi": ()}).scan())
    assert names == sorted(["0:0:0:0", "cciss!c0d0", "dm-0", "loop0", "md0", "sda", "sda1", "sda10", "sda2"])


def test_kernel_and_udev_make_one_device(tree: Tree) -> None:
    """The kernel's properties, udev's, its links and sysfs are one value."""
    facts = tree.source().read(SDA)
    assert facts
    assert facts.properties == {
        "DEVNAME": "/dev/sda",
        "DEVTYPE": "disk",
        "ID_SERIAL": "360",
        "MAJOR": "8",
        "MINOR": "0",
        "SUBSYSTEM": "block",
    }
    assert facts.links == ("/dev/disk/by-id/wwn-0x5", "/dev/disk/by-path/pci-0")
    assert facts.initialized


def test_a_device_that_udev_has_not_finished_says_so(tree: Tree) -> None:
    """Without an entry in the database a device is listed as not initialized."""
    facts = tree.source().read(LOOP0)
    assert facts
    assert not facts.initialized


def test_a_slash_in_a_kernel_name(tree: Tree) -> None:
    """Sysfs keeps the exclamation mark that stands for it, the node has the slash."""
    facts = tree.source().read(CCISS)
    assert facts
    assert (facts.kernel_name, facts.sysname, facts.devnode) == (
        "cciss!c0d0",
        "cciss/c0d0",
        "/dev/cciss/c0d0",
    )


def test_an_ancestor_of_another_subsystem_is_found(tree: Tree) -> None:
    """Ancestors are read though their subsystem is not scanned, without attributes."""
    source = tree.source({"block": ("size",)})
    host = Host(source)
    disk = host.block("sda")
    assert disk
    above = list(host.ancestors(disk))
    assert [facts.subsystem for facts in above] == ["scsi", "pci"]
    assert above[0].attributes == {}


def test_one_device_costs_the_same_in_any_host(tree: Tree) -> None:
    """Reading one device again reads as many files with a hundred devices more."""
    source = tree.source()
    source.read(DM0)
    before = source.reads
    for number in range(100):
        tree.block(f"/devices/virtual/block/zram{number}", f"251:{number}")
    source.read(DM0)
    assert source.reads == 2 * before


def test_a_scan_is_linear(tree: Tree) -> None:
    """Each further device of a kind costs the same number of reads."""
    costs = []
    for number in range(3):
        tree.block(f"/devices/virtual/block/zram{number}", f"251:{number}")
        source = tree.source({"block": ("size",)})
        list(source.scan())
        costs.append(source.reads)
    assert costs[2] - costs[1] == costs[1] - costs[0]


def test_a_missing_database_is_one_note_of_the_host(tree: Tree) -> None:
    """Without udev the host says so once, and its devices are listed."""
    tree.database.rename(tree.database.with_name("gone"))
    host = Host.scan(tree.source())
    assert "udev" in host.notes
    assert all(not facts.initialized and facts.notes == () for facts in host)


def test_this_machine_is_scanned() -> None:
    """The host the tests run on has its block devices under their numbers."""
    source = LiveSource({"block": ("dev",)})
    for facts in source.scan():
        assert facts.attributes["dev"] == facts.device_number
        assert source.locate_number(facts.attributes["dev"]) == facts.path
        assert source.locate("block", facts.kernel_name) == facts.path


def test_sources_without_their_daemon_or_kernel_module_are_facts_or_notes() -> None:
    """Maps, mounts and swaps of this machine can be asked for in any environment."""
    host = Host.scan(LiveSource({"block": ()}))
    assert host.mounts is not None
    assert host.swaps is not None
    assert set(host.notes) <= {"udev", "dm", "multipathd", "mounts"}


def test_a_file_is_identified(tmp_path: Path) -> None:
    """A path gives its file system's number and its inode, a missing one None."""
    file = tmp_path / "disk.img"
    file.touch()
    status = file.stat()
    number = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    source = LiveSource({})
    assert source.identify(str(file)) == FileIdentity(number, status.st_ino, "file", 0)
    assert source.identify(str(tmp_path / "none")) is None
    assert source.identify(str(file / "below")) is None


def test_a_name_that_is_no_utf8_is_identified(tmp_path: Path) -> None:
    """The bytes of sysfs reach stat(2) as they are."""
    name = os.fsencode(tmp_path) + b"/\xff"
    os.close(os.open(name, os.O_CREAT))
    assert LiveSource({}).identify(name.decode("utf-8", "surrogateescape"))


def test_a_path_that_may_not_be_asked_for_is_an_error(tmp_path: Path) -> None:
    """A loop of links is neither there nor not there."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FactError, match="symbolic links"):
        LiveSource({}).identify(str(tmp_path / "loop"))


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A loop device of this machine and the file behind it."""
    file = tmp_path / "disk.img"
    file.write_bytes(b"\0" * (1 << 20))
    made = subprocess.run(["losetup", "--show", "-f", file], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop devices here: {made.stderr.strip()}")
    node = made.stdout.strip()
    yield Path(node), file
    subprocess.run(["losetup", "-d", node], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_bound_loop_device(bound: tuple[Path, Path]) -> None:
    """Binding a file makes the kernel's loop attributes appear, and a node gives its own number."""
    node, file = bound
    source = LiveSource({"block": ("loop/backing_file", "loop/offset", "size")})
    path = source.locate("block", node.name)
    assert path
    facts = source.read(path)
    assert facts
    assert facts.attributes == {"loop/backing_file": str(file), "loop/offset": "0", "size": "2048"}
    found = source.identify(str(node))
    assert found
    assert found.device_number == facts.device_number


def test_a_call_within_its_deadline_returns() -> None:
    """Its value, or its own exception, comes back to the caller."""
    assert bounded.call(lambda: 3, 10, "test-returns") == 3
    with pytest.raises(ZeroDivisionError):
        bounded.call(lambda: 1 // 0, 10, "test-raises")


def test_a_call_that_blocks_is_given_up_and_not_repeated() -> None:
    """While one is stuck no further one is started in its scope, and once it is back they are."""
    release, started = Event(), []

    def block() -> None:
        started.append(1)
        release.wait()

    with pytest.raises(FactError, match="no answer within"):
        bounded.call(block, 0.01, "test-blocks", "/mnt")
    with pytest.raises(FactError, match="still blocks"):
        bounded.call(block, 0.01, "test-blocks", "/mnt")
    assert started == [1]
    assert bounded.call(lambda: 1, 10, "test-blocks", "/other") == 1
    thread = bounded.stuck("test-blocks", "/mnt")
    assert thread
    release.set()
    thread.join()
    assert bounded.call(lambda: 1, 10, "test-blocks", "/mnt") == 1
