"""Writes a recording of a live host, for support and as a fixture: what RecordedSource reads back.

Every attribute of the storage stack's devices is in it but secrets, and those whose reading does
something: it talks to the hardware, or waits for it.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from posixpath import dirname

from nodedev.errors import FactError, RecordingError
from nodedev.facts import discretion, dm_text, manifest, mounts, multipathd, recorded, replay, umockdev
from nodedev.facts.host import DeviceFacts, FileIdentity, Note, Watch
from nodedev.facts.live import LiveSource
from nodedev.facts.manifest import Content, Manifest
from nodedev.facts.replay import EVENTS, Event
from nodedev.facts.sysfs import SYSFS, Listing, attribute_text
from nodedev.facts.umockdev import Stanza

# Beside those that the source reads: classes that tell what lies behind a disk.
SUBSYSTEMS = (
    "ata_device",
    "ata_link",
    "ata_port",
    "block",
    "ccw",
    "dmi",
    "fc_host",
    "fc_remote_ports",
    "fc_transport",
    "fc_vports",
    "iscsi_connection",
    "iscsi_endpoint",
    "iscsi_host",
    "iscsi_iface",
    "iscsi_session",
    "nvme",
    "nvme-fabrics",
    "nvme-subsystem",
    "pci",
    "sas_device",
    "sas_end_device",
    "sas_host",
    "sas_port",
    "scsi",
    "scsi_device",
    "scsi_disk",
    "scsi_generic",
    "scsi_host",
    "srp_host",
    "srp_remote_ports",
    "virtio",
)

MDSTAT = "mdstat"

# Binary attributes that the SCSI layer keeps from its own inquiries: no command is sent for them.
_CACHED_BINARY = re.compile(r"inquiry|vpd_pg[0-9a-f]+")
_BINARY_LIMIT_BYTES = 4096
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# md/dev-sda/state: folders below a device's own.
_DEPTH = 2

# Those that print and do nothing else: dmsetup makes /dev/mapper/control even for its version.
_TOOLS = {
    "iscsiadm": ("iscsiadm", "--version"),
    "losetup": ("losetup", "--version"),
    "mdadm": ("mdadm", "--version"),
    "nvme": ("nvme", "--version"),
    "udevadm": ("udevadm", "--version"),
}
_TOOL_TIMEOUT_SECONDS = 5
# How long a wait for events goes on before it is asked whether to follow still.
_FOLLOW_SECONDS = 0.5


def record(
    source: LiveSource,
    out: Path,
    *,
    proc: Path = Path("/proc"),
    following: Callable[[], bool] | None = None,
) -> Manifest:
    """Records the source's host into a new folder, or a .tar.gz by that ending, and says what it holds.

    With `following` the host's events after that are recorded too, until it answers False.

    A source that fails is a note in the manifest. Raises RecordingError where the path exists
    already or cannot be written.
    """
    if os.path.lexists(out):
        raise RecordingError(f"{out}: exists already", reason="RECORDING_EXISTS")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            folder = Path(temporary) / "recording"
            folder.mkdir(mode=0o700)
            about = _Recorder(source, folder, proc).record(following)
            if out.name.endswith((".tar.gz", ".tgz")):
                archive = Path(temporary) / "archive"
                _pack(folder, archive, out.name.removesuffix(".tgz").removesuffix(".tar.gz"))
                # Other than a rename, a link never takes the place of what has come to be there.
                os.link(archive, out)
            else:
                folder.rename(out)
    except OSError as error:
        raise RecordingError(f"{out}: cannot be written: {error.strerror or error}") from error
    return about


class _Recorder:
    """One recording on its way into a folder."""

    def __init__(self, source: LiveSource, folder: Path, proc: Path) -> None:
        self.source = source
        self.folder = folder
        self.proc = proc
        self.notes: list[Note] = []
        self.contents: dict[str, Content] = {}
        self.files: dict[str, FileIdentity | None] = {}
        self.uninitialized: list[str] = []
        self._written: dict[str, DeviceFacts] = {}

    def record(self, following: Callable[[], bool] | None) -> Manifest:
        """Writes every file, the manifest last."""
        # Before the snapshot, so that nothing falls between the two.
        watch = self.source.watch() if following else None
        self._write(recorded.DEVICES, self._devices())
        for name, text in self._texts(noting=True).items():
            self._write(name, [text])
        if watch and following:
            self._write(EVENTS, self._events(watch, following))
            watch.close()
        kernel = os.uname()
        about = Manifest(
            format=manifest.FORMAT,
            recorded=datetime.now(UTC).isoformat(timespec="seconds"),
            kernel=f"{kernel.sysname} {kernel.release} {kernel.version} {kernel.machine}",
            tools=_tool_versions(),
            udev=self.source.udev.exists,
            uninitialized=tuple(self.uninitialized) if self.source.udev.exists else (),
            files=self.files,
            notes=(*self.source.notes(), *self.notes),
            contents=self.contents,
        )
        (self.folder / recorded.MANIFEST).write_bytes(manifest.write(about))
        return about

    def _devices(self) -> Iterator[bytes]:
        for path in self._paths():
            facts = self.source.read(path)
            if facts is None:
                continue
            if not facts.initialized:
                self.uninitialized.append(path)
            self._identify(facts)
            self._written[path] = facts
            yield umockdev.write(self._stanza(facts))

    def _paths(self) -> list[str]:
        """The devices of the storage subsystems and those above them."""
        paths: set[str] = set()
        for subsystem in dict.fromkeys((*SUBSYSTEMS, *self.source.subsystems)):
            for path in self.source.sysfs.devices(subsystem):
                above = path
                while above not in paths and len(above) > len("/devices"):
                    paths.add(above)
                    above = dirname(above)
        return sorted(paths)

    def _stanza(self, facts: DeviceFacts) -> Stanza:
        attributes: dict[str, bytes] = {}
        symlinks = dict(facts.symlinks)
        self._folder(facts.path, "", attributes, symlinks)
        for name, text in facts.attributes.items():
            # What a capability reads through a link is not below the device itself.
            if not discretion.is_left_out(f"{facts.path}/{name}"):
                attributes.setdefault(name, text.encode("utf-8", "surrogateescape") + b"\n")
        properties = {
            name: value for name, value in facts.properties.items() if not discretion.is_secret(name)
        }
        if facts.links:
            properties["DEVLINKS"] = " ".join(facts.links)
        return Stanza(facts.path, facts.devnode, facts.links, properties, attributes, symlinks)

    def _folder(self, path: str, prefix: str, attributes: dict[str, bytes], symlinks: dict[str, str]) -> None:
        sysfs = self.source.sysfs
        directory = f"{sysfs.root}{path}/{prefix}"
        listing = sysfs.listing(directory)
        if prefix and _is_device(listing):
            return
        for name in listing.files:
            if discretion.is_left_out(f"{path}/{prefix}{name}") or not self._is_text(
                f"{directory}{name}", name
            ):
                continue
            data = sysfs.data(f"{directory}{name}")
            if isinstance(data, bytes) and (len(data) <= _BINARY_LIMIT_BYTES or b"\0" not in data):
                attributes[prefix + name] = data
        for name in listing.symlinks if prefix else ():
            if target := sysfs.link(f"{directory}{name}"):
                symlinks[prefix + name] = target
        if prefix.count("/") < _DEPTH:
            for name in listing.folders - discretion.SKIPPED_FOLDERS:
                self._folder(path, f"{prefix}{name}/", attributes, symlinks)

    def _is_text(self, path: str, name: str) -> bool:
        """Whether the attribute can be read, and is text or kept by the kernel.

        In sysfs a text attribute has a page's size whatever it holds, and a binary one its own,
        often none (fs/sysfs/file.c). Binary ones are where drivers hand out registers and flash.
        """
        try:
            status = os.lstat(path)
        except OSError:
            return False
        readable = bool(stat.S_IMODE(status.st_mode) & 0o444)
        sized = self.source.sysfs.root != SYSFS or status.st_size == _PAGE_BYTES
        return readable and (sized or _CACHED_BINARY.fullmatch(name) is not None)

    def _identify(self, facts: DeviceFacts) -> None:
        backing = self.source.sysfs.data(f"{self.source.sysfs.root}{facts.path}/loop/backing_file")
        if facts.subsystem != "block" or not isinstance(backing, bytes):
            return
        path = attribute_text(backing)
        try:
            self.files[path] = self.source.identify(path)
        except FactError as error:
            self._note(error.source, error)

    def _texts(self, *, noting: bool) -> dict[str, bytes]:
        """The other files as they are now; what could not be read is noted the first time."""
        found: dict[str, bytes] = {}
        reads: tuple[tuple[str, Callable[[], Mapping[str, bytes]]], ...] = (
            (dm_text.SOURCE, self._maps),
            (multipathd.SOURCE, lambda: {recorded.MULTIPATHD: multipathd.read_text().encode()}),
            ("md", self._mdstat),
            (mounts.SOURCE, self._mounts),
            (mounts.SOURCE, lambda: {recorded.SWAPS: (self.proc / "swaps").read_bytes()}),
        )
        for source, read in reads:
            try:
                found.update(read())
            except (FactError, FileNotFoundError) as error:
                if noting:
                    self._note(source, error)
        return found

    def _maps(self) -> Mapping[str, bytes]:
        texts = dm_text.format_text(self.source.maps())
        names = (recorded.DM_TABLE, recorded.DM_STATUS, recorded.DM_INFO)
        return {name: text.encode() for name, text in zip(names, texts, strict=True)}

    def _mounts(self) -> Mapping[str, bytes]:
        lines = (self.proc / "self" / "mountinfo").read_bytes().splitlines(keepends=True)
        return {recorded.MOUNTS: b"".join(map(discretion.without_options, lines))}

    def _mdstat(self) -> Mapping[str, bytes]:
        # A kernel without MD has no such file.
        path = self.proc / "mdstat"
        return {MDSTAT: path.read_bytes()} if path.exists() else {}

    def _events(self, watch: Watch, following: Callable[[], bool]) -> Iterator[bytes]:
        """The events as they come, each with what it left behind."""
        start = time.monotonic()
        texts = self._texts(noting=False)
        while following():
            hints = watch.wait(_FOLLOW_SECONDS)
            if not (hints.paths or hints.lost):
                continue
            paths = self._paths() if hints.lost else self._around(hints.paths)
            devices, gone = self._changed(paths)
            now = self._texts(noting=False)
            changed = {
                name: text.decode(errors="replace") for name, text in now.items() if text != texts.get(name)
            }
            texts = now
            yield replay.write(
                Event(
                    seconds=round(time.monotonic() - start, 6),
                    paths=tuple(sorted(hints.paths)),
                    lost=hints.lost,
                    devices=devices,
                    gone=gone,
                    texts=changed,
                )
            )

    def _around(self, paths: Iterable[str]) -> set[str]:
        """The devices and all that are related to them, now or when they were last written."""
        around: set[str] = set()
        waiting = list(paths)
        while waiting:
            path = waiting.pop()
            if path in around:
                continue
            around.add(path)
            facts = [found for found in (self.source.read(path), self._written.get(path)) if found]
            for found in facts:
                if found.subsystem != "block":
                    continue
                names = (*found.slaves, *found.holders)
                located = (self.source.locate("block", name) for name in names)
                waiting.extend(filter(None, located))
                waiting.extend(f"{path}/{name}" for name in found.partitions)
                if found.devtype == "partition":
                    waiting.append(dirname(path))
        return around

    def _changed(self, paths: Iterable[str]) -> tuple[str, tuple[str, ...]]:
        """Those of the devices that are not as they were last written, as text, and those gone."""
        stanzas: list[str] = []
        gone: list[str] = []
        for path in sorted(paths):
            before, facts = self._written.get(path), self.source.read(path)
            if facts is None:
                if self._written.pop(path, None):
                    gone.append(path)
            elif facts != before:
                self._identify(facts)
                self._written[path] = facts
                stanzas.append(umockdev.write(self._stanza(facts)).decode("utf-8", "replace"))
        return "".join(stanzas), tuple(gone)

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        digest, size = sha256(), 0
        with (self.folder / name).open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        self.contents[name] = Content(digest.hexdigest(), size)

    def _note(self, source: str, error: FactError | OSError) -> None:
        if isinstance(error, FactError):
            self.notes.append(Note(error.source, error.message))
        else:
            self.notes.append(Note(source, f"{error.filename}: {error.strerror}"))


def _is_device(listing: Listing) -> bool:
    return "uevent" in listing.files or "subsystem" in listing.symlinks


def _tool_versions() -> dict[str, str]:
    """The first line that each tool says of its version; those not installed are left out."""
    found: dict[str, str] = {}
    for name, command in _TOOLS.items():
        try:
            answer = subprocess.run(  # noqa: S603  fixed commands that only print
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TOOL_TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        lines = answer.stdout.decode(errors="replace").split("\n")
        found[name] = next((line.strip() for line in lines if any(map(str.isdigit, line))), "")
    return found


def _pack(folder: Path, archive: Path, name: str) -> None:
    with tarfile.open(archive, "x:gz") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, f"{name}/{file.name}", filter=_anonymous)
    archive.chmod(0o600)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
