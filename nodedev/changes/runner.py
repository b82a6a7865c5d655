"""The one place that runs programs: no shell, no terminal, a deadline, and bounded output.

What a program prints is read to its end, so that it never blocks, but only the beginning is kept.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time

from msgspec import Struct

from nodedev.errors import DeadlineError, PreconditionError

DEADLINE_SECONDS = 60.0
OUTPUT_BYTES = 1 << 16

# The tools of storage stand where a service's PATH may not lead.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK_BYTES = 1 << 16
_KILL_SECONDS = 2.0
# Settings of mdadm(8), such as IMSM_NO_PLATFORM.
_PASSED = ("IMSM_", "MDADM_")


class Completed(Struct, frozen=True):
    """A program that has ended; `returncode` is negative for one that a signal ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def run(argv: tuple[str, ...], deadline_seconds: float = DEADLINE_SECONDS) -> Completed:
    """Runs a program to its end, whatever that is; blocks, so not on an event loop.

    It gets no input, and messages in the C locale. At the deadline it is killed with all that it
    started; one that waits in the kernel is left there. Errors: TOOL_MISSING, DEADLINE_EXCEEDED.
    """
    passed = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
    environment = {**passed, "PATH": os.environ.get("PATH", "") + ":" + _PATH, "LC_ALL": "C"}
    deadline = time.monotonic() + deadline_seconds
    try:
        process = subprocess.Popen(  # noqa: S603  an argument list, of our own making
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            executable=_found(argv[0], environment["PATH"]),
            start_new_session=True,
            # Should the service die, what a program prints then must not end it half way: Python ignores
            # SIGPIPE, and so does the program.
            restore_signals=False,
        )
    except OSError as error:
        raise PreconditionError(
            f"{argv[0]}: {error.strerror}", reason="TOOL_MISSING", tool=argv[0]
        ) from error
    try:
        stdout, stderr = _read(process, deadline)
        process.wait(max(deadline - time.monotonic(), 0))
    except (TimeoutError, subprocess.TimeoutExpired):
        _kill(process)
        raise DeadlineError(
            f"{' '.join(argv)} did not end within {deadline_seconds:g} s", command=" ".join(argv)
        ) from None
    finally:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    return Completed(argv, process.returncode, stdout, stderr)


def available(tool: str) -> bool:
    """Whether a program of that name can be run."""
    try:
        _found(tool, os.environ.get("PATH", "") + ":" + _PATH)
    except FileNotFoundError:
        return False
    return True


def _found(tool: str, path: str) -> str:
    if "/" in tool:
        return tool
    for folder in filter(None, path.split(":")):
        candidate = f"{folder}/{tool}"
        if os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(2, "not installed", tool)


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, str]:
    """What it prints, until it has closed both ends; a child that keeps them open counts too."""
    kept = (bytearray(), bytearray())
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            if pipe:
                selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, _CHUNK_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                data = kept[key.fileobj is process.stderr]
                data.extend(chunk[: OUTPUT_BYTES - len(data)])
    stdout, stderr = (data.decode(errors="backslashreplace") for data in kept)
    return stdout, stderr


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return  # it waits in the kernel, and ends whenever that lets it
