"""Mounts and swap areas as /proc tells them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.errors import FactError
from nodedev.facts.mounts import (
    Mount,
    Swap,
    is_remote,
    mount_of,
    parse_mountinfo,
    parse_swaps,
    read_mounts,
    read_swaps,
)

HEADINGS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
# What proc(5) files hold in a name: anything but NUL, its blanks and backslashes escaped.
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.sampled_from(" \t\n\\"))


def escaped(name: str) -> str:
    """The name as the kernel's seq_path prints it."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in name)


def mount(point: str, *, filesystem: str = "ext4", device_number: str = "8:1") -> Mount:
    """A mount where only the point matters."""
    return Mount(device_number, point, filesystem, "/dev/sda1", read_only=False)


def test_a_line_gives_device_number_point_type_and_source() -> None:
    """A line of mountinfo gives what a claim needs."""
    line = "25 1 254:0 / /srv rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro\n"
    assert parse_mountinfo(line) == (Mount("254:0", "/srv", "ext4", "/dev/vda", read_only=False),)


@pytest.mark.parametrize("optional", ["", "shared:1 ", "shared:1 master:2 propagate_from:3 unbindable "])
def test_optional_fields_may_be_any_number(optional: str) -> None:
    """The fields between options and separator are skipped, however many there are."""
    (found,) = parse_mountinfo(f"25 1 254:0 / /srv rw {optional}- ext4 /dev/vda rw\n")
    assert found.filesystem == "ext4"


@pytest.mark.parametrize(("options", "superblock"), [("ro,nosuid", "rw"), ("rw", "ro,seclabel")])
def test_read_only_is_the_mount_or_its_file_system(options: str, superblock: str) -> None:
    """A mount is read-only when either it or its whole file system is."""
    (found,) = parse_mountinfo(f"25 1 254:0 / /srv {options} - ext4 /dev/vda {superblock}\n")
    assert found.read_only


def test_anonymous_device_numbers_pass_through() -> None:
    """Btrfs and overlay have a device number of no device, which is told as it is."""
    text = (
        "29 1 0:26 /@home /home rw - btrfs /dev/sdb2 rw,subvol=/@home\n"
        "30 1 0:41 / /merged rw - overlay overlay rw,lowerdir=/a\n"
    )
    assert [found.device_number for found in parse_mountinfo(text)] == ["0:26", "0:41"]


def test_an_empty_source_and_blanks_in_options_are_accepted() -> None:
    """The source of a mount may be empty, and a file system may print blanks into its options."""
    (found,) = parse_mountinfo("29 1 0:26 / /x rw - tmpfs  rw,comment=a b\n")
    assert (found.source, found.filesystem) == ("", "tmpfs")


@given(NAMES.filter(bool), NAMES)
def test_names_survive_the_kernels_escapes(point: str, source: str) -> None:
    """Blanks, newlines and backslashes in a mount's names are decoded from their octal escapes."""
    (found,) = parse_mountinfo(f"29 1 8:1 / /{escaped(point)} rw - xfs {escaped(source)} rw\n")
    assert (found.mount_point, found.source) == (f"/{point}", source)


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    """Whatever a recording holds, the parsers give values or a FactError."""
    for parse in (parse_mountinfo, parse_swaps):
        try:
            parse(text)
        except FactError:
            continue


def test_a_damaged_line_is_told_with_its_text() -> None:
    """A line that is no mount is an error that shows the line."""
    with pytest.raises(FactError, match="25 1 nonsense"):
        parse_mountinfo("25 1 nonsense\n")


def test_swap_areas_are_in_bytes() -> None:
    """The kernel's KiB become bytes; the line of headings is none."""
    text = HEADINGS + "/dev/sda2                               partition\t2097148\t\t1024\t\t-2\n"
    assert parse_swaps(text) == (Swap("/dev/sda2", "partition", 2097148 * 1024, 1024 * 1024, -2),)


def test_a_wide_path_and_big_sizes_are_accepted() -> None:
    """One blank or tab parts wide columns; fields that a newer kernel adds are ignored."""
    path = "/var/lib/a-very-long-path-to-a-swap-file/swapfile"
    (found,) = parse_swaps(f"{HEADINGS}{path} file\t\t104857600\t0\t5\t\t\t7\n")
    assert (found.path, found.kind, found.priority) == (path, "file", 5)


def test_a_deleted_device_node_keeps_its_claim() -> None:
    """The kernel's mark of a vanished node is taken off a partition and left on a file."""
    text = HEADINGS + "/dev/sda2\\040(deleted) partition\t4\t0\t-2\n/swap\\040(deleted) file\t\t4\t0\t-3\n"
    assert [found.path for found in parse_swaps(text)] == ["/dev/sda2", "/swap (deleted)"]


@given(NAMES)
def test_a_swap_files_name_survives_the_kernels_escapes(name: str) -> None:
    """A swap file may have blanks in its name."""
    (found,) = parse_swaps(f"{HEADINGS}/{escaped(name)} file\t\t4\t0\t-2\n")
    assert found.path == f"/{name}"


def test_this_hosts_mounts_and_swaps_are_readable() -> None:
    """The running kernel's own files are understood."""
    assert mount_of("/", read_mounts()) is not None
    assert all(found.size_bytes > 0 for found in read_swaps())


def test_an_unreadable_file_is_a_fact_error(tmp_path: Path) -> None:
    """A missing mountinfo is trouble; a missing swaps file is a kernel without swap."""
    with pytest.raises(FactError, match="cannot read"):
        read_mounts(path=tmp_path / "mountinfo")
    assert read_swaps(path=tmp_path / "swaps") == ()


def test_bytes_that_are_no_text_are_shown_as_bytes(tmp_path: Path) -> None:
    """A mount point of arbitrary bytes still makes a string that XML and protobuf accept."""
    path = tmp_path / "mountinfo"
    path.write_bytes(b"29 1 8:1 / /a\xff\x01 rw - ext4 /dev/sda1 rw\n")
    assert read_mounts(path=path)[0].mount_point == r"/a\xff\x01"
    assert parse_mountinfo(os.fsdecode(path.read_bytes())) == read_mounts(path=path)


def test_the_longest_mount_point_above_a_path_is_its_mount() -> None:
    """A path lies on the deepest mount; a name that only begins alike does not count."""
    mounts = [mount("/"), mount("/srv"), mount("/srv/data"), mount("/srv/dat")]
    assert mount_of("/srv/data2/x", mounts) == mounts[1]
    assert mount_of("/srv/data", mounts) == mounts[2]
    assert mount_of("/var", mounts) == mounts[0]
    assert mount_of("/var", mounts[1:]) is None


def test_of_stacked_mounts_the_last_counts() -> None:
    """A mount upon a mount hides the first."""
    below, above = mount("/srv"), mount("/srv", filesystem="nfs4", device_number="0:50")
    assert mount_of("/srv/x", [below, above]) == above


@pytest.mark.parametrize(
    "filesystem", ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs", "gfs2", "autofs"]
)
def test_file_systems_that_ask_somebody_else_are_remote(filesystem: str) -> None:
    """A stat(2) on these can wait for a server, a cluster or a process."""
    assert is_remote(filesystem)


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs", "overlay", "tmpfs", "fusectl", "nfsd"])
def test_file_systems_of_this_kernel_alone_are_not_remote(filesystem: str) -> None:
    """A stat(2) on these waits for nobody outside."""
    assert not is_remote(filesystem)
