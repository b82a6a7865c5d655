"""A recorded host as a source."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from nodedev.errors import FactError, RecordingError
from nodedev.facts.host import FileIdentity, Host, Note
from nodedev.facts.recorded import DEVICES, MANIFEST, RecordedSource

SDA = "/devices/pci0/host0/target0:0:0/0:0:0:0/block/sda"
UMOCKDEV = f"""\
P: {SDA}/sda10
N: sda10
E: DEVNAME=/dev/sda10
E: DEVTYPE=partition
E: MAJOR=8
E: MINOR=10
E: SUBSYSTEM=block
A: partition=10\\n

P: {SDA}/sda2
N: sda2
E: DEVTYPE=partition
E: MAJOR=8
E: MINOR=2
E: SUBSYSTEM=block
A: partition=2\\n

P: {SDA}
N: sda
S: disk/by-id/wwn-0x5
E: DEVLINKS=/dev/disk/by-id/wwn-0x5
E: DEVNAME=/dev/sda
E: DEVTYPE=disk
E: MAJOR=8
E: MINOR=0
E: SUBSYSTEM=block
E: TAGS=:systemd:
L: device=../../../0:0:0:0
L: holders/dm-0=../../../../../../../virtual/block/dm-0
A: queue/rotational=1\\n
A: size=2048\\n
A: md/dev-sdb/state=in_sync\\n
H: vpd_pg80=00800004

P: /devices/virtual/block/dm-0
N: dm-0
E: DEVLINKS=/dev/mapper/b /dev/mapper/a
E: DEVNAME=/dev/dm-0
E: DEVTYPE=disk
E: MAJOR=253
E: MINOR=0
E: SUBSYSTEM=block
L: slaves/sdaa=../../../sdaa
L: slaves/sdb=../../../sdb
A: dm/uuid=mpath-3\\n

P: /devices/pci0/host0/target0:0:0/0:0:0:0
E: SUBSYSTEM=scsi
A: vendor=ACME    \\n

"""
TABLE = "m: 0 2048 linear 8:0 0\n"
STATUS = "m: 0 2048 linear \n"
INFO = "m:mpath-3:253:0:1:1:0:L--w\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording made of a device description alone."""
    made = tmp_path / "host"
    made.mkdir()
    (made / DEVICES).write_text(UMOCKDEV)
    return made


def _archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_device_is_as_a_live_one(folder: Path) -> None:
    """Attributes lose one newline, relations are kernel names, links and partitions are there."""
    facts = RecordedSource.open(folder).read(SDA)
    assert facts
    assert dict(facts.attributes) == {
        "queue/rotational": "1",
        "size": "2048",
        "md/dev-sdb/state": "in_sync",
        "vpd_pg80": "\0\udc80\0\x04",
    }
    assert facts.symlinks["device"] == "../../../0:0:0:0"
    assert facts.links == ("/dev/disk/by-id/wwn-0x5",)
    assert facts.holders == ("dm-0",)
    assert facts.partitions == ("sda2", "sda10")
    assert "DEVLINKS" not in facts.properties
    assert "TAGS" not in facts.properties
    assert facts.initialized


def test_relations_and_links_of_a_map(folder: Path) -> None:
    """Slaves come in the kernel's order, and links from the property where no line names them."""
    facts = RecordedSource.open(folder).read("/devices/virtual/block/dm-0")
    assert facts
    assert facts.slaves == ("sdb", "sdaa")
    assert facts.links == ("/dev/mapper/a", "/dev/mapper/b")


def test_only_declared_attributes_are_kept(folder: Path) -> None:
    """With attributes declared, others are not kept, and other subsystems are not scanned."""
    source = RecordedSource.open(folder, {"block": ("size", "md/dev-*/state")})
    facts = source.read(SDA)
    assert facts
    assert dict(facts.attributes) == {"size": "2048", "md/dev-sdb/state": "in_sync"}
    assert {found.subsystem for found in source.scan()} == {"block"}
    above = source.read("/devices/pci0/host0/target0:0:0/0:0:0:0")
    assert above
    assert above.attributes == {}


def test_devices_are_located(folder: Path) -> None:
    """By subsystem and kernel name, and block devices by number."""
    source = RecordedSource.open(folder)
    assert source.locate("block", "sda") == SDA
    assert source.locate("scsi", "0:0:0:0") == "/devices/pci0/host0/target0:0:0/0:0:0:0"
    assert source.locate("scsi", "sda") is None
    assert source.locate_number("8:0") == SDA
    assert source.locate_number("9:9") is None
    assert source.read("/devices/none") is None


def test_what_was_not_recorded_is_a_fact_error(folder: Path) -> None:
    """Each source that has no file fails by itself, which a pass turns into notes."""
    source = RecordedSource.open(folder)
    for read in (source.maps, source.multipathd, source.mounts, source.swaps):
        with pytest.raises(FactError, match="not in this recording"):
            read()
    with pytest.raises(FactError, match="not in this recording"):
        source.identify("/srv/x")
    assert set(Host.scan(source).notes) >= {"dm", "multipathd"}


def test_without_dm_devices_no_dm_files_are_needed(folder: Path) -> None:
    """A host without device-mapper devices has no maps rather than an error."""
    (folder / DEVICES).write_text(UMOCKDEV.replace("dm-0", "zram0"))
    assert list(RecordedSource.open(folder).maps()) == []


def test_maps_are_read_by_number(folder: Path) -> None:
    """The text of dmsetup gives the maps."""
    for name, text in {"table": TABLE, "status": STATUS, "info": INFO}.items():
        (folder / f"dmsetup-{name}.txt").write_text(text)
    source = RecordedSource.open(folder)
    (found,) = source.maps()
    assert (found.name, found.uuid, found.targets[0].parameters) == ("m", "mpath-3", "8:0 0")
    assert source.map("253:0") == found
    assert source.map("253:1") is None


def test_mounts_swaps_and_multipathd(folder: Path) -> None:
    """The other files are read as their live counterparts are."""
    (folder / "mountinfo").write_text("25 1 8:2 / / rw - ext4 /dev/sda2 rw\n")
    (folder / "swaps").write_text("Filename Type Size Used Priority\n/dev/sda10 partition 8 0 -2\n")
    (folder / "multipathd-maps.json").write_text('{"major_version": 0, "minor_version": 1, "maps": []}')
    host = Host.scan(RecordedSource.open(folder))
    assert host.mounts["8:2"][0].mount_point == "/"
    assert host.swaps["/dev/sda10"].size_bytes == 8192
    assert host.notes.keys() == {"dm"}


def test_the_manifest_tells_what_could_not_be_read(folder: Path) -> None:
    """Its notes are the host's and the reason of the source that failed; its files are identified."""
    (folder / MANIFEST).write_text(
        json.dumps(
            {
                "format": 1,
                "udev": False,
                "files": {"/srv/a": {"device_number": "8:2", "inode": 7}, "/srv/gone": None},
                "notes": [{"source": "multipathd", "message": "not running"}],
            }
        )
    )
    source = RecordedSource.open(folder)
    assert Host.scan(source).notes["multipathd"] == Note("multipathd", "not running")
    with pytest.raises(FactError, match="multipathd: not running"):
        source.multipathd()
    assert source.identify("/srv/a") == FileIdentity("8:2", 7)
    assert source.identify("/srv/gone") is None
    assert not any(facts.initialized for facts in source.scan())


def test_devices_that_udev_had_not_finished(folder: Path) -> None:
    """The manifest names those that were not initialized."""
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "uninitialized": [SDA, "/devices/other"]}))
    source = RecordedSource.open(folder)
    assert [facts.kernel_name for facts in source.scan() if not facts.initialized] == ["sda"]


@pytest.mark.parametrize("prefix", ["", "host/", "./"])
def test_an_archive_is_as_a_folder(folder: Path, prefix: str) -> None:
    """A .tar.gz may hold the files themselves, or one folder of them."""
    path = _archive(folder.with_suffix(".tar.gz"), {f"{prefix}{DEVICES}": UMOCKDEV.encode()})
    assert list(RecordedSource.open(path).scan()) == list(RecordedSource.open(folder).scan())


def _refused(path: Path) -> str:
    with pytest.raises(RecordingError) as caught:
        RecordedSource.open(path)
    assert caught.value.reason == "RECORDING_INVALID"
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def test_what_is_no_recording(tmp_path: Path) -> None:
    """A path that is not there, another kind of file, and a folder of other things are told apart."""
    assert "does not exist" in _refused(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    assert "neither a folder nor a .tar.gz" in _refused(tmp_path / "text")
    (tmp_path / "empty").touch()
    assert "empty" in _refused(tmp_path / "empty")
    os.mkfifo(tmp_path / "fifo")
    assert "neither a folder nor a .tar.gz" in _refused(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert f"no {DEVICES}" in _refused(tmp_path / "folder")
    os.mkfifo(tmp_path / "folder" / DEVICES)
    assert f"no {DEVICES}" in _refused(tmp_path / "folder")
    assert f"no {DEVICES}" in _refused(_archive(tmp_path / "a.tar.gz", {"other": b""}))


def test_a_gzip_of_something_else(tmp_path: Path) -> None:
    """Compressed text is no archive."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(b"P: /devices/x\n" * 1000))
    assert "neither a folder nor a .tar.gz" in _refused(path)


def test_damage_is_told_with_file_and_line(folder: Path) -> None:
    """A bad line is named by the file it stands in and its number."""
    (folder / DEVICES).write_text(UMOCKDEV.replace("size=2048\\n", "size=\\q"))
    assert f"{DEVICES}, line 31: size: bad escape \\q" in _refused(folder)


def test_a_file_cut_off_in_a_line(folder: Path) -> None:
    """A description that ends within a line is cut off."""
    (folder / DEVICES).write_text(UMOCKDEV[:500])
    assert "cut off" in _refused(folder)


def test_a_file_cut_off_between_lines_is_noted(folder: Path) -> None:
    """Where nothing but the last empty line is missing, the last device says that it may be cut off."""
    (folder / DEVICES).write_text(UMOCKDEV[:-1])
    notes = {facts.kernel_name: facts.notes for facts in RecordedSource.open(folder).scan() if facts.notes}
    assert list(notes) == ["0:0:0:0"]


def test_an_empty_description(folder: Path) -> None:
    """A host always has devices."""
    (folder / DEVICES).write_text("\n\n")
    assert "no device in it" in _refused(folder)


def test_a_device_described_twice(folder: Path) -> None:
    """One of two would silently hide the other."""
    (folder / DEVICES).write_text(UMOCKDEV + UMOCKDEV)
    assert "described twice" in _refused(folder)


@pytest.mark.parametrize("kept", [10, 60, 200, 0.5, 0.9])
def test_an_archive_cut_off(tmp_path: Path, kept: float) -> None:
    """An archive that ends too early is refused wherever it was cut."""
    noise = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(200))
    whole = _archive(tmp_path / "whole.tar.gz", {DEVICES: UMOCKDEV.encode(), "swaps": noise.encode()})
    data = whole.read_bytes()
    path = tmp_path / "cut.tar.gz"
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    _refused(path)


@pytest.mark.parametrize("name", ["/etc/host.umockdev", "../host.umockdev", "a/../../swaps"])
def test_an_archive_that_points_outside(tmp_path: Path, name: str) -> None:
    """A member with an absolute path, or one that climbs, is refused."""
    path = _archive(tmp_path / "a.tar.gz", {DEVICES: UMOCKDEV.encode(), name: b""})
    assert "points outside" in _refused(path)


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    """A member that is a link to a file of this machine gives nothing of it."""
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(DEVICES)
        member.type = tarfile.SYMTYPE
        member.linkname = "/etc/passwd"
        tar.addfile(member)
    assert f"no {DEVICES}" in _refused(path)


def _manifest(folder: Path, data: bytes) -> None:
    content = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "contents": {DEVICES: content}}))


def test_a_file_other_than_it_was_written(folder: Path) -> None:
    """The manifest's sizes and checksums find what was cut off or changed since, in whole lines too."""
    _manifest(folder, UMOCKDEV.encode())
    assert RecordedSource.open(folder)
    (folder / DEVICES).write_text(UMOCKDEV[: UMOCKDEV.rindex("P: ")])
    assert "bytes" in _refused(folder)
    (folder / DEVICES).write_text(UMOCKDEV.replace("2048", "4096"))
    assert "changed since" in _refused(folder)


def test_a_file_that_the_manifest_lists_and_is_gone(folder: Path) -> None:
    """A missing file that was written is damage, other than one that never was."""
    content = {"sha256": "0", "size_bytes": 1}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "contents": {"swaps": content}}))
    assert "swaps is missing" in _refused(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "files": 3}', "\x00", "[" * 9999]
)
def test_a_manifest_that_is_none(folder: Path, text: str) -> None:
    """A manifest that cannot be read, or of a later format, refuses the recording."""
    (folder / MANIFEST).write_text(text)
    assert MANIFEST in _refused(folder)


def test_an_absurd_size_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than any host's is not read to its end."""
    monkeypatch.setattr("nodedev.facts.recorded._DEVICES_LIMIT_BYTES", 1000)
    assert "larger than" in _refused(folder)
