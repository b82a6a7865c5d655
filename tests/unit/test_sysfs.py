"""Reading devices from a sysfs tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedev.facts.host import Note
from nodedev.facts.sysfs import Sysfs, Wanted, attribute_text, by_number, parse_uevent
from tests.unit import trees
from tests.unit.trees import ATTRIBUTES, CCISS, DM0, MD0, SDA, SESSION, Tree

WANTED = {subsystem: Wanted(names) for subsystem, names in ATTRIBUTES.items()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A host with one of each."""
    return trees.storage(tmp_path)


def test_only_declared_attributes_are_read(tree: Tree) -> None:
    """Of an attribute that no capability declared, nothing is read."""
    entry = Sysfs(str(tree.sysfs)).read(SDA, WANTED)
    assert entry
    assert entry.attributes == {"size": "2048", "ro": "0", "queue/rotational": "1"}


def test_wildcards_match_within_one_component(tree: Tree) -> None:
    """A pattern finds each member's file, and links that it names become symlinks."""
    entry = Sysfs(str(tree.sysfs)).read(MD0, WANTED)
    assert entry
    assert {name: text for name, text in entry.attributes.items() if name.startswith("md/")} == {
        "md/level": "raid1",
        "md/dev-sda1/state": "in_sync",
        "md/dev-sda10/state": "faulty\nspare",
    }
    assert entry.symlinks == {"md/rd0": "dev-sda1"}


def test_a_named_link_is_followed(tree: Tree) -> None:
    """A pattern through a link lists what stands behind it, as an IOMMU group's devices."""
    entry = Sysfs(str(tree.sysfs)).read("/devices/pci0000:00/0000:00:04.0", WANTED)
    assert entry
    assert set(entry.symlinks) == {"driver", "iommu_group", "iommu_group/devices/0000:00:04.0"}


def test_relations_are_kernel_names_in_the_kernels_order(tree: Tree) -> None:
    """Slaves, holders and partitions come by name, sda2 before sda10."""
    sysfs = Sysfs(str(tree.sysfs))
    disk, mapped = sysfs.read(SDA, WANTED), sysfs.read(DM0, WANTED)
    assert disk
    assert mapped
    assert (disk.holders, disk.slaves, disk.partitions) == (("dm-0",), (), ("sda1", "sda2", "sda10"))
    assert mapped.slaves == ("sda",)


def test_devices_of_a_bus_and_of_a_class(tree: Tree) -> None:
    """Both /sys/bus and /sys/class lead to their devices, and an unknown subsystem to none."""
    sysfs = Sysfs(str(tree.sysfs))
    assert list(sysfs.devices("scsi")) == [SDA.removesuffix("/block/sda")]
    assert list(sysfs.devices("iscsi_session")) == [SESSION]
    assert list(sysfs.devices("nvme")) == []


def test_files_of_a_class_are_no_devices(tree: Tree) -> None:
    """A class's own attribute beside its devices, such as zram-control/hot_add, is passed over."""
    (tree.sysfs / "class/iscsi_session/version").write_text("1\n")
    assert list(Sysfs(str(tree.sysfs)).devices("iscsi_session")) == [SESSION]


def test_locating_by_name_and_by_number(tree: Tree) -> None:
    """A device is found by its kernel name, `!` included, and a block device by its number."""
    sysfs = Sysfs(str(tree.sysfs))
    assert sysfs.locate("block", "cciss!c0d0") == CCISS
    assert sysfs.locate("scsi", "0:0:0:0") == SDA.removesuffix("/block/sda")
    assert sysfs.locate("block", "sdz") is None
    assert sysfs.locate_number("253:0") == DM0
    assert sysfs.locate_number("99:0") is None


def test_a_folder_that_is_no_device_is_none(tree: Tree) -> None:
    """Between devices stand plain folders, which have no subsystem."""
    sysfs = Sysfs(str(tree.sysfs))
    assert sysfs.read("/devices/pci0000:00/0000:00:04.0/host0", WANTED) is None
    assert sysfs.read("/devices/gone", WANTED) is None


class _Vanishing(Sysfs):
    """A tree whose device goes away while its attributes are read."""

    def data(self, path: str) -> bytes | OSError:
        """The file's bytes, after which the device is gone."""
        found = super().data(path)
        if path.endswith("/size"):
            Path(path).with_name("uevent").unlink()
        return found


def test_a_device_that_vanishes_while_it_is_read_is_none(tree: Tree) -> None:
    """Half a device is never returned."""
    assert _Vanishing(str(tree.sysfs)).read(SDA, WANTED) is None


def test_an_unreadable_attribute_is_absent(tree: Tree) -> None:
    """What the kernel refuses, or prints as (efault), is absent, and the others are there."""
    folder = tree.sysfs / SDA.lstrip("/")
    (folder / "size").write_text("(efault)")
    (folder / "ro").unlink()
    (folder / "ro").mkdir()
    entry = Sysfs(str(tree.sysfs)).read(SDA, WANTED)
    assert entry
    assert entry.attributes == {"queue/rotational": "1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be able to drop it")
def test_a_forbidden_attribute_is_absent_with_a_note(tree: Tree) -> None:
    """What only root may read is a note for anybody else, as DMI's serial number."""
    for folder in tree.sysfs.parents:
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    (tree.sysfs / SDA.lstrip("/") / "size").chmod(0o400)
    os.seteuid(65534)
    try:
        entry = Sysfs(str(tree.sysfs)).read(SDA, WANTED)
    finally:
        os.seteuid(0)
    assert entry
    assert "size" not in entry.attributes
    assert entry.notes == [Note("sysfs", "size: Permission denied")]


def test_reads_are_counted(tree: Tree) -> None:
    """Reading a device again costs the same again."""
    sysfs = Sysfs(str(tree.sysfs))
    sysfs.read(SDA, WANTED)
    once = sysfs.reads
    sysfs.read(SDA, WANTED)
    assert sysfs.reads == 2 * once


def test_exactly_one_newline_is_taken_off() -> None:
    """An attribute's own blank lines stay."""
    assert attribute_text(b"a\n\n") == "a\n"
    assert attribute_text(b" a ") == " a "
    assert attribute_text(b"\xff\n") == "\udcff"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("ABC_", min_size=1, max_size=8),
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])),
    )
)
def test_uevent_is_read_back(values: dict[str, str]) -> None:
    """Each line's first equals sign parts name and value."""
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    assert parse_uevent(text.encode()) == values


@settings(deadline=None)
@given(st.sets(st.integers(1, 200)))
def test_numbers_in_names_are_counted(numbers: set[int]) -> None:
    """Names that differ in their number stand in its order."""
    assert by_number(f"sda{number}" for number in numbers) == tuple(
        f"sda{number}" for number in sorted(numbers)
    )


def test_this_machines_loop_devices_are_found() -> None:
    """The real sysfs is read as the fake one is."""
    sysfs = Sysfs()
    paths = list(sysfs.devices("block"))
    assert all((entry := sysfs.read(path, WANTED)) is None or entry.subsystem == "block" for path in paths)
    assert [path for path in paths if not path.startswith("/devices/")] == []
