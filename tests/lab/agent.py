"""Runs inside the guest: serves shell commands as JSON lines on each of the lab's virtio-serial ports.

A request is {"id", "command", "timeout"}, its reply {"id", "returncode", "stdout", "stderr", "timed_out"}.
Standard library only, and one file: the guest starts it from the share.
"""

import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO

PORTS = Path("/dev/virtio-ports")
KILLED_GRACE_SECONDS = 1.0
CONNECT_GRACE_SECONDS = 5.0


class Port:
    """One virtio-serial port; the kernel lets each be opened once."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._pending = b""
        self._write_lock = threading.Lock()

    def requests(self) -> list[bytes]:
        """Read what has come, as whole lines."""
        while True:
            try:
                data = os.read(self.descriptor, 65536)
            except BlockingIOError:
                break
            if not data:
                # Nobody is connected, or not yet as far as the kernel knows: data can overtake that news.
                break
            self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        return [line for line in lines if line]

    def send(self, reply: bytes) -> None:
        """Write one line, or drop it when nobody is connected any more."""
        deadline = time.monotonic() + CONNECT_GRACE_SECONDS
        # A line that an earlier client left half read ends with the first newline.
        data = b"\n" + reply + b"\n"
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        with self._write_lock:
            while data:
                try:
                    data = data[os.write(self.descriptor, data[:32768]) :]
                except BlockingIOError:
                    if any(event & select.POLLHUP for _, event in ready.poll()):
                        if time.monotonic() > deadline:
                            return
                        time.sleep(0.05)


def _text(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="surrogateescape")


def run(command: str, timeout: float) -> dict[str, object]:
    """Run a shell command; output goes to files, since a daemon left behind would hold a pipe open."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            ["/bin/bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            cwd="/root",
        )
        timed_out = False
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            os.killpg(process.pid, signal.SIGKILL)
            try:
                process.wait(KILLED_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                # In D state no signal helps: it is reaped whenever its I/O ends, and nobody waits for that.
                threading.Thread(target=process.wait, daemon=True).start()
        return {
            "returncode": process.returncode,
            "stdout": _text(stdout),
            "stderr": _text(stderr),
            "timed_out": timed_out,
        }


def answer(port: Port, line: bytes) -> None:
    """Run what a request asks for, and reply; its own thread may wait as long as the command does."""
    try:
        request = json.loads(line)
    except ValueError:  # the end of a line whose beginning an earlier client sent
        return
    result = run(request["command"], request["timeout"])
    port.send(json.dumps({"id": request["id"], **result}).encode())


def main() -> None:
    """Serve for ever."""
    os.environ.update(
        HOME="/root", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8"
    )
    while not (paths := sorted(PORTS.glob("nodedev.lab.*"))):
        time.sleep(0.1)
    ports = {port.descriptor: port for port in map(Port, paths)}
    # Edge-triggered: a port without a client is always in POLLHUP.
    events = select.epoll()
    for descriptor in ports:
        events.register(descriptor, select.EPOLLIN | select.EPOLLET)
    while True:
        for descriptor, _ in events.poll():
            port = ports[descriptor]
            for line in port.requests():
                threading.Thread(target=answer, args=(port, line), daemon=True).start()


if __name__ == "__main__":
    main()
