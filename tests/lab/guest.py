"""A Linux host with SAN hardware, as an emulated guest, and the channel that runs commands in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from . import hardware

HERE = Path(__file__).parent
PORTS = 8  # commands in flight, from any number of processes
# Deadlines are for a machine that is busy with other things: ten times what an idle one needs.
BOOT_SECONDS = 300.0
BUILD_SECONDS = 1800.0
PROVISION_SECONDS = 1200.0
COPY_SECONDS = 300.0
REPLY_GRACE_SECONDS = 30.0
QMP_SECONDS = 10.0


class LabError(Exception):
    """The guest does not do what was asked; the text holds the end of its serial log where that may help."""


class CommandError(LabError):
    """A command exited with something else than 0; the text holds the end of what it printed."""

    def __init__(self, completed: Completed) -> None:
        ending = (
            "was killed at its deadline" if completed.timed_out else f"exited with {completed.returncode}"
        )
        super().__init__(
            f"{completed.command!r} {ending}\n{completed.stdout[-4000:]}\n{completed.stderr[-4000:]}"
        )
        self.completed = completed


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended, or was killed at its deadline: no `returncode` when not even that ended it."""

    command: str
    returncode: int | None
    stdout: str
    stderr: str
    timed_out: bool


class _Reply(TypedDict):
    id: str
    returncode: int | None
    stdout: str
    stderr: str
    timed_out: bool


def cache_folder() -> Path:
    """Where the image and the guests live: never in the tree."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("NODEDEV_LAB") or Path(cache) / "nodedev-lab")


def build() -> Path:
    """Build the image unless it is there; the folder with root.img, vmlinuz and initrd.gz."""
    done = subprocess.run(
        [HERE / "build.sh"], stdout=subprocess.PIPE, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode:
        raise LabError(f"build.sh failed with {done.returncode}")
    return Path(done.stdout.strip())


def _copy(source: Path, destination: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy(source, destination)


def _channels(folder: Path) -> list[str]:
    arguments = ["-device", "virtio-serial-pci,id=channels,max_ports=31,addr=0xb"]
    for port in range(PORTS):
        arguments += [
            *("-chardev", f"socket,id=channel{port},path={folder}/channel{port}.sock,server=on,wait=off"),
            *("-device", f"virtserialport,chardev=channel{port},name=nodedev.lab.{port}"),
        ]
    return arguments


def _qemu(image: Path, folder: Path, *, plain: bool) -> list[str]:
    return [
        "qemu-system-x86_64",
        # /dev/kvm may exist and hang the guest at its first instruction.
        *(
            "-machine",
            "pc",
            "-accel",
            "tcg,thread=multi,tb-size=1024",
            # of the processors that Debian's programs want the one with the least to emulate
            "-cpu",
            "Nehalem",
            "-smp",
            "2",
            "-m",
            "4096",
        ),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", f"file:{folder}/serial.log"),
        *("-qmp", f"unix:{folder}/qmp.sock,server=on,wait=off"),
        *("-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd.gz"),
        *("-append", "console=ttyS0 panic=-1 quiet net.ifnames=0 systemd.show_status=0 mitigations=off"),
        *("-drive", f"id=root,file={image}/root.img,format=raw,if=none,snapshot=on,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=root,serial=ROOT,addr=0x3"),
        *("-fsdev", f"local,id=lab,path={folder}/share,security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=lab,mount_tag=lab,addr=0xa"),
        *_channels(folder),
        *(hardware.plain(folder) if plain else hardware.san(folder)),
    ]


class Guest:
    """A booted guest, by the folder that holds its sockets, its disks, its log and its share.

    Any process can hold one on the same folder. As a context manager it boots in a folder of its own, and
    ends with the block; `start` and `stop` are for a guest that outlives the process. A `plain` one has
    no SAN.
    """

    def __init__(self, folder: Path | None = None, *, plain: bool = False) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="run-", dir=cache_folder()))
        self._plain = plain
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Boot."""
        self.start(outlive=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the guest, and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def start(self, *, outlive: bool) -> None:
        """Boot, and return when the guest answers; it dies with this process unless it is to `outlive` it."""
        image = build()
        share = self.folder / "share"
        (share / "transfer").mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "agent.py", share)
        bound = [] if outlive else ["setpriv", "--pdeathsig", "KILL"]
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*bound, *_qemu(image, self.folder, plain=self._plain)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=outlive,
                # the changes to the root image go to an unlinked file here
                env={**os.environ, "TMPDIR": str(self.folder)},
            )
        try:
            process = self._process
            self._wait_while(lambda: process.poll() is None and not self.running(), "QEMU does not start")
            self.run("true", timeout=BOOT_SECONDS)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the guest at once, whatever state it is in."""
        with contextlib.suppress(LabError, OSError):
            self.qmp("quit")
        if self._process is not None:
            try:
                self._process.wait(REPLY_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        else:
            self._wait_while(self.running, "QEMU does not end")

    def running(self) -> bool:
        """Whether QEMU runs, by its monitor."""
        with socket.socket(socket.AF_UNIX) as monitor:
            try:
                monitor.connect(f"{self.folder}/qmp.sock")
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def run(self, command: str, *, timeout: float = 60.0, check: bool = True) -> Completed:
        """Run a command in the guest's shell as root; at its deadline its whole process group is killed."""
        identity = uuid.uuid4().hex
        request = {"id": identity, "command": command, "timeout": timeout}
        with self._channel(timeout) as channel:
            # An unfinished line of an earlier client ends with the first newline.
            channel.sendall(b"\n" + json.dumps(request).encode() + b"\n")
            reply = self._reply(channel, identity, time.monotonic() + timeout + REPLY_GRACE_SECONDS)
        completed = Completed(
            command, reply["returncode"], reply["stdout"], reply["stderr"], reply["timed_out"]
        )
        if check and completed.returncode != 0:
            raise CommandError(completed)
        return completed

    def script(self, name: str, *arguments: str, timeout: float = PROVISION_SECONDS) -> Completed:
        """Run a script of this folder in the guest, as it is now."""
        shutil.copy(HERE / name, self.folder / "share")
        return self.run(shlex.join(["bash", f"/lab/{name}", *arguments]), timeout=timeout)

    def put(self, source: Path, destination: str) -> None:
        """Copy a file or folder into the guest."""
        with self._transfer() as (outside, inside):
            _copy(source, outside / "item")
            self.run(f"cp -rT {inside}/item {shlex.quote(destination)}", timeout=COPY_SECONDS)

    def get(self, source: str, destination: Path) -> None:
        """Copy a file or folder out of the guest."""
        with self._transfer() as (outside, inside):
            self.run(f"cp -rT {shlex.quote(source)} {inside}/item", timeout=COPY_SECONDS)
            _copy(outside / "item", destination)

    def qmp(self, command: str, **arguments: str | int) -> None:
        """Tell QEMU to do something to the hardware, as `device_del` with `id="LUN0-1"`."""
        with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as stream:
            monitor.settimeout(QMP_SECONDS)
            monitor.connect(f"{self.folder}/qmp.sock")
            for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                for line in stream:
                    answer = json.loads(line)
                    if "error" in answer:
                        raise LabError(f"QEMU: {answer['error']['desc']}")
                    if "return" in answer:
                        break
                else:
                    raise LabError("QEMU has closed its monitor")

    def _wait_while(self, condition: Callable[[], bool], trouble: str) -> None:
        deadline = time.monotonic() + QMP_SECONDS
        while condition():
            if time.monotonic() > deadline:
                raise LabError(f"{trouble}\n{self._tail('qemu.log')}")
            time.sleep(0.05)

    @contextlib.contextmanager
    def _channel(self, timeout: float) -> Iterator[socket.socket]:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with contextlib.ExitStack() as stack:
                if channel := self._free_port(stack):
                    yield channel
                    return
            time.sleep(0.1)
        raise LabError(f"all {PORTS} channels are busy")

    def _free_port(self, stack: contextlib.ExitStack) -> socket.socket | None:
        """Connect to the first port that no other client has: QEMU serves one at a time."""
        try:
            for port in range(PORTS):
                lock = stack.enter_context((self.folder / f"channel{port}.lock").open("w"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                channel = stack.enter_context(socket.socket(socket.AF_UNIX))
                channel.connect(f"{self.folder}/channel{port}.sock")
                return channel
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise LabError(f"no guest runs in {self.folder}\n{self._tail('qemu.log')}") from error
        return None

    def _reply(self, channel: socket.socket, identity: str, deadline: float) -> _Reply:
        pending = b""
        while True:
            channel.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = channel.recv(1 << 20)
            except TimeoutError:
                raise LabError(f"the guest does not answer\n{self._tail('serial.log')}") from None
            if not data:
                raise LabError(f"the guest has ended\n{self._tail('serial.log')}")
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                try:
                    reply: _Reply = json.loads(line)
                except ValueError:  # the end of a reply to an earlier client
                    continue
                if reply["id"] == identity:
                    return reply

    @contextlib.contextmanager
    def _transfer(self) -> Iterator[tuple[Path, str]]:
        """Make a folder of the share, as the two sides name it."""
        with tempfile.TemporaryDirectory(dir=self.folder / "share" / "transfer") as outside:
            yield Path(outside), f"/lab/transfer/{Path(outside).name}"

    def _tail(self, log: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / log).read_text(errors="replace")[-4000:]
        return ""
