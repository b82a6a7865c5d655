"""Recording a host, and reading the recording back."""

from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest

from nodedev.capabilities import attributes
from nodedev.errors import RecordingError
from nodedev.facts import discretion
from nodedev.facts.discretion import without_options
from nodedev.facts.host import DeviceFacts
from nodedev.facts.live import LiveSource
from nodedev.facts.recorded import DEVICES, MANIFEST, RecordedSource
from nodedev.facts.recorder import record
from tests.unit import trees
from tests.unit.trees import ATTRIBUTES, LOOP0, MD0, SDA, SESSION, Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A host with one of each."""
    return trees.storage(tmp_path / "host")


def _devices(source: LiveSource | RecordedSource) -> dict[str, DeviceFacts]:
    return {facts.path: facts for facts in source.scan()}


@pytest.mark.parametrize("name", ["recording", "recording.tar.gz", "recording.tgz"])
def test_a_recording_is_the_host(tree: Tree, tmp_path: Path, name: str) -> None:
    """Every device reads from the recording as it does from the host, in either form."""
    source = tree.source()
    record(source, tmp_path / name, proc=tree.proc)
    recorded = RecordedSource.open(tmp_path / name, ATTRIBUTES)
    live = _devices(source)
    assert len(live) == 11
    assert _devices(recorded) == live
    for path in live:
        above = path.rpartition("/")[0]
        assert recorded.read(above) == source.read(above)
    assert recorded.locate_number("8:0") == SDA


def test_what_no_capability_reads_yet_is_recorded(tree: Tree, tmp_path: Path) -> None:
    """A recording holds every attribute two folders deep, for capabilities to come."""
    record(tree.source({}), tmp_path / "out", proc=tree.proc)
    recorded = RecordedSource.open(
        tmp_path / "out", {"block": ("md/dev-*/state",), "scsi": ("rev", "vpd_pg80")}
    )
    array, disk = recorded.read(MD0), recorded.read(SDA.removesuffix("/block/sda"))
    assert array
    assert disk
    assert array.attributes == {"md/dev-sda1/state": "in_sync", "md/dev-sda10/state": "faulty\nspare"}
    assert disk.attributes == {"rev": "é", "vpd_pg80": "\0\udc80\0\x04LUN0"}


def test_no_secret_is_opened_or_written(tree: Tree, tmp_path: Path) -> None:
    """CHAP names and passwords, and the options of network mounts, are nowhere in a recording."""
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for secret in (b"geheim", b"wer", b"joe"):
        assert secret not in written
    session = RecordedSource.open(tmp_path / "out").read(SESSION)
    assert session
    assert set(session.attributes) == {"targetname"}


SECRETS = [
    "password",
    "password_in",
    "username",
    "username_in",
    "dhchap_secret",
    "dhchap_ctrl_secret",
    "tls_key",
]
RISKS = ["config", "rom", "vpd", "resource0", "resource10_wc", "hot_add", "nuse", "uevent"]


@pytest.mark.parametrize("name", [*SECRETS, *RISKS])
def test_what_must_not_be_read_is_not_opened(tree: Tree, tmp_path: Path, name: str) -> None:
    """An attribute that is secret, or does something when read, is passed by: here it would block."""
    folder = tree.sysfs / "devices/platform/host1"
    tree.device("/devices/platform/host1/nvme0", "nvme", None, {"model": "x"})
    if name != "uevent":
        os.mkfifo(folder / "nvme0" / name)
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    found = RecordedSource.open(tmp_path / "out").read("/devices/platform/host1/nvme0")
    assert found
    assert set(found.attributes) == {"model"}


@pytest.mark.parametrize("name", ["power", "trace", "statistics", "mq"])
def test_folders_that_are_passed_by(tree: Tree, tmp_path: Path, name: str) -> None:
    """Power management and tracing tell nothing, and an adapter's statistics are asked of its firmware."""
    tree.device("/devices/platform/host1/nvme0", "nvme", None, {"model": "x", f"{name}/a": "1"})
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    found = RecordedSource.open(tmp_path / "out").read("/devices/platform/host1/nvme0")
    assert found
    assert set(found.attributes) == {"model"}


def test_a_virtio_disks_serial_is_not_asked_for(tree: Tree, tmp_path: Path) -> None:
    """The driver of virtio disks sends a request for it each time."""
    path = tree.block("/devices/pci0/virtio1/block/vda", "254:0", {"serial": "x"})
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    found = RecordedSource.open(tmp_path / "out").read(path)
    assert found
    assert "serial" not in found.attributes


def test_write_only_attributes_are_passed_by(tree: Tree, tmp_path: Path) -> None:
    """Root could open them in a folder; sysfs refuses."""
    path = tree.device("/devices/platform/host1/nvme0", "nvme", None, {"model": "x", "reset_controller": "1"})
    (tree.sysfs / path.lstrip("/") / "reset_controller").chmod(0o200)
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    found = RecordedSource.open(tmp_path / "out").read(path)
    assert found
    assert set(found.attributes) == {"model"}


def test_long_binary_attributes_are_left_out(tree: Tree, tmp_path: Path) -> None:
    """Nothing that a host can be understood by is longer than a page and binary."""
    tree.device("/devices/platform/host1/nvme0", "nvme", None, {"model": "x", "dump": b"\0" * 5000})
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    found = RecordedSource.open(tmp_path / "out").read("/devices/platform/host1/nvme0")
    assert found
    assert set(found.attributes) == {"model"}


def test_capabilities_read_nothing_that_is_left_out() -> None:
    """Whatever a capability declares is in a recording."""
    names = {f"/devices/x/{name}" for found in attributes().values() for name in found}
    assert [name for name in sorted(names) if discretion.is_left_out(name)] == []
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert folders & discretion.SKIPPED_FOLDERS == set()


def test_backing_files_are_identified(tree: Tree, tmp_path: Path) -> None:
    """What a loop device's file was is known to readers elsewhere, also that it was gone."""
    file = tmp_path / "disk.img"
    file.touch()
    tree.block("/devices/virtual/block/loop1", "7:1", {"loop/backing_file": str(file)})
    source = tree.source()
    record(source, tmp_path / "out", proc=tree.proc)
    recorded = RecordedSource.open(tmp_path / "out")
    was, told = source.identify(str(file)), recorded.identify(str(file))
    assert was
    assert told == was
    gone = _devices(recorded)[LOOP0].attributes["loop/backing_file"]
    assert recorded.identify(gone) is None


def test_devices_that_udev_has_not_finished_stay_so(tree: Tree, tmp_path: Path) -> None:
    """A recording knows which devices were not initialized, and of a host without udev that none was."""
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    found = _devices(RecordedSource.open(tmp_path / "out", ATTRIBUTES))
    assert [path for path, facts in found.items() if not facts.initialized] == [SESSION, LOOP0]
    tree.database.rename(tree.database.with_name("gone"))
    about = record(tree.source(), tmp_path / "without", proc=tree.proc)
    recorded = RecordedSource.open(tmp_path / "without", ATTRIBUTES)
    assert not about.udev
    assert not any(facts.initialized for facts in recorded.scan())
    assert "udev" in {note.source for note in recorded.notes()}


def test_a_source_that_fails_is_a_note(tree: Tree, tmp_path: Path) -> None:
    """What cannot be read does not keep the rest from being recorded."""
    (tree.proc / "self" / "mountinfo").unlink()
    about = record(tree.source(), tmp_path / "out", proc=tree.proc)
    assert "mounts" in {note.source for note in about.notes}
    recorded = RecordedSource.open(tmp_path / "out")
    assert recorded.manifest == about
    assert list(recorded.swaps()) == []


def test_nothing_is_overwritten(tree: Tree, tmp_path: Path) -> None:
    """A path that exists is refused, and left as it is."""
    for name in ("file.tar.gz", "folder", "dangling"):
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
        elif name == "dangling":
            path.symlink_to("nowhere")
        else:
            path.write_text("mine")
        with pytest.raises(RecordingError, match="exists already") as caught:
            record(tree.source(), path, proc=tree.proc)
        assert caught.value.reason == "RECORDING_EXISTS"
    assert (tmp_path / "file.tar.gz").read_text() == "mine"


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tree: Tree, tmp_path: Path) -> None:
    """Without the folder to write into there is one clear sentence."""
    with pytest.raises(RecordingError, match="cannot be written: No such file or directory"):
        record(tree.source(), tmp_path / "none" / "out", proc=tree.proc)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host"]


def test_a_recording_is_for_its_owner_alone(tree: Tree, tmp_path: Path) -> None:
    """Serial numbers and mount points are nobody else's business, and no half recording stays."""
    record(tree.source(), tmp_path / "out", proc=tree.proc)
    record(tree.source(), tmp_path / "out.tar.gz", proc=tree.proc)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "out.tar.gz").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "out", "out.tar.gz"]
    with tarfile.open(tmp_path / "out.tar.gz") as tar:
        assert {f"out/{DEVICES}", f"out/{MANIFEST}"} <= set(tar.getnames())


def test_this_machine_is_recorded(tmp_path: Path) -> None:
    """The host the tests run on reads the same from its recording."""
    source = LiveSource(attributes())
    record(source, tmp_path / "out.tar.gz")
    recorded = RecordedSource.open(tmp_path / "out.tar.gz", attributes())
    assert _devices(recorded) == _devices(source)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"25 1 254:0 / / rw shared:1 - ext4 /dev/vda rw,errors=remount-ro\n",
            b"25 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n",
        ),
        (b"30 25 0:40 / /m rw - cifs //u:p@nas/x ro,password=p\n", b"30 25 0:40 / /m rw - cifs //nas/x ro\n"),
        (b"31 25 0:41 / /\\040-\\040 rw - tmpfs  rw\n", b"31 25 0:41 / /\\040-\\040 rw - tmpfs  rw\n"),
    ],
)
def test_a_mounts_options_are_left_out(line: bytes, expected: bytes) -> None:
    """Of a file system's options stays whether it can be written to."""
    assert without_options(line) == expected
