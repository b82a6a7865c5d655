"""The local sockets: where they are, whose they are, and that no other service has them.

gRPC replaces an existing socket silently, that of a living server too, whose clients it thereby
loses; and the first server's stop then removes the second one's. Hence a lock beside each socket.
"""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from nodedev.errors import InvalidError, PreconditionError

if TYPE_CHECKING:
    import grpc  # a client looks for the socket before it needs it

GROUP = "nodedev"
READ_WRITE = "nodedev.sock"
READ_ONLY = "nodedev-ro.sock"
SYSTEM_FOLDER = Path("/run/nodedev")

_PATH_LIMIT_BYTES = 107  # sockaddr_un's 108 with the terminating NUL


class LocalSocket(Struct, frozen=True):
    """One socket to serve: `mode` is its permissions, `group` its group where that exists."""

    path: Path
    mode: int
    group: str | None = None


def runtime_folder() -> Path | None:
    """Where this user's service has its sockets; None for a user without a runtime folder."""
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    folder = os.environ.get("XDG_RUNTIME_DIR")
    return Path(folder) / "nodedev" if folder else None


def candidates() -> tuple[Path, ...]:
    """The sockets on which a service may be found, the user's own first."""
    folders = dict.fromkeys(filter(None, (runtime_folder(), SYSTEM_FOLDER)))
    return tuple(folder / name for folder in folders for name in (READ_WRITE, READ_ONLY))


def answers(path: Path) -> bool:
    """Whether somebody listens on the socket, and this user may connect."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:
            return True  # somebody does, with a full backlog
        except OSError:
            return False
        return True


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Claims the path for this process as long as the context lasts, and leaves no socket behind.

    Errors: SOCKET_IN_USE, SOCKET_PATH_INVALID.
    """
    _check(path)
    # The lock file stays: whoever removed it could leave two holders of two files of that name.
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PreconditionError(
                f"another nodedev serves {path}", reason="SOCKET_IN_USE", path=str(path)
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _check(path: Path) -> None:
    if len(os.fsencode(path)) > _PATH_LIMIT_BYTES:
        raise InvalidError(
            f"{path} is too long for a socket, {_PATH_LIMIT_BYTES} bytes are the limit",
            reason="SOCKET_PATH_INVALID",
            path=str(path),
        )
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise InvalidError(f"{path} is no socket", reason="SOCKET_PATH_INVALID", path=str(path))


def bind(server: grpc.aio.Server, local: LocalSocket) -> None:
    """Binds the server to the socket, which never has more than its permissions, not for a moment."""
    # gRPC creates it with 0777 less the umask, which belongs to the whole process: bind before
    # any thread that creates files has started.
    previous = os.umask(0o777 & ~local.mode)
    try:
        server.add_insecure_port(f"unix:{local.path}")
    finally:
        os.umask(previous)
    if local.group and os.geteuid() == 0:
        try:
            group = grp.getgrnam(local.group).gr_gid
        except KeyError:
            return  # without the group only root may write
        os.chown(local.path, -1, group)
