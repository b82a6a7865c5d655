"""multipathd's own view of its maps and paths, over its command socket.

Follows multipath-tools libmpathcmd/mpath_cmd.c (framing) and libmultipath/print.c (JSON). What is
said here is multipathd's; the kernel's word on the same path is in the DM status.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from collections.abc import Sequence
from fcntl import F_GETLK, F_UNLCK, F_WRLCK, fcntl
from pathlib import Path

from msgspec import Struct

from nodedev.errors import FactError
from nodedev.facts.text import printable

SOURCE = "multipathd"
# libmpathcmd tries the path, there since 0.12, then the abstract name.
SOCKETS = ("/run/multipathd.socket", "@/org/kernel/linux/storage/multipathd")
PID_FILE = Path("/run/multipathd.pid")
SYSTEMD = Path("/run/systemd/system")
# multipathd itself gives up waiting for its lock after uxsock_timeout, by default 4 s.
TIMEOUT_SECONDS = 4.0

_SHOW_MAPS = "show maps json"
# A WWID that the command line takes as one word as it is, and for nothing but a WWID.
_PLAIN_WWID = re.compile(r"(?!dm-)[A-Za-z0-9][A-Za-z0-9._:-]+")
_LENGTH = struct.Struct("@N")
_FLOCK = struct.Struct("@hhqqi4x")
# MAX_REPLY_LEN of mpath_cmd.h.
_REPLY_LIMIT_BYTES = 32 << 20


class MultipathdPath(Struct, frozen=True):
    """One path as multipathd sees it; the words are its own (chk_st, dev_st, dm_st, marginal_st)."""

    device: str
    device_number: str
    dm_state: str | None
    device_state: str | None
    checker_state: str | None
    checker: str | None
    priority: int | None
    marginal_state: str | None
    host_wwnn: str | None
    target_wwnn: str | None
    host_wwpn: str | None
    target_wwpn: str | None
    host_adapter: str | None


class MultipathdGroup(Struct, frozen=True):
    """One path group; `number` counts from 1 as in the kernel's table."""

    number: int
    selector: str | None
    priority: int | None
    dm_state: str | None
    marginal_state: str | None
    paths: tuple[MultipathdPath, ...]


class MultipathdMap(Struct, frozen=True):
    """One map; `wwid` is what the JSON calls uuid.

    The paths are those of the groups: the JSON's own `paths` counts only those up or ghost.
    """

    wwid: str
    alias: str
    sysfs_name: str | None
    dm_state: str | None
    queueing: str | None
    failback: str | None
    write_protection: str | None
    features: str | None
    hardware_handler: str | None
    action: str | None
    path_faults: int | None
    vendor: str | None
    product: str | None
    revision: str | None
    switch_group_count: int | None
    map_loads: int | None
    total_queue_time: int | None
    queue_timeouts: int | None
    groups: tuple[MultipathdGroup, ...]


def read_maps(timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[MultipathdMap, ...]:
    """Every map of the running multipathd; raises FactError without one, or when it gives no good answer."""
    return parse_maps(read_text(timeout_seconds))


def read_map(wwid: str, timeout_seconds: float = TIMEOUT_SECONDS) -> MultipathdMap | None:
    """One map by its WWID; None where multipathd has none. Errors as read_maps.

    `show map WWID json` is as old as `show maps json`, and takes an alias or dm name as well: where it
    fails or means another map, all are asked for.
    """
    if _PLAIN_WWID.fullmatch(wwid):
        answer = ask(f"show map {wwid} json", timeout_seconds)
        found = _parse_map(answer) if answer.startswith("{") else None
        if found and found.wwid == wwid:
            return found
    return next((found for found in read_maps(timeout_seconds) if found.wwid == wwid), None)


def read_text(
    timeout_seconds: float = TIMEOUT_SECONDS,
    *,
    sockets: Sequence[str] = SOCKETS,
    pid_file: Path = PID_FILE,
    systemd: Path = SYSTEMD,
) -> str:
    """The answer to "show maps json" as multipathd gives it, within the timeout; errors as read_maps."""
    return ask(_SHOW_MAPS, timeout_seconds, sockets=sockets, pid_file=pid_file, systemd=systemd)


def ask(
    command: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    *,
    sockets: Sequence[str] = SOCKETS,
    pid_file: Path = PID_FILE,
    systemd: Path = SYSTEMD,
) -> str:
    """What multipathd answers to a command, within the timeout; errors as read_maps.

    The environment's MULTIPATH_SOCKET_NAME goes before `sockets`.
    """
    data = command.encode() + b"\0"
    deadline = time.monotonic() + timeout_seconds
    named = os.environ.get("MULTIPATH_SOCKET_NAME")
    holder = None if named else _holder(pid_file)
    # Where systemd listens for multipathd, to connect would start it, and that makes maps.
    if not named and systemd.is_dir() and holder is None:
        raise FactError(SOURCE, f"not running (no process holds {pid_file})")
    # The kernel takes the connection and the command of a process that will not answer.
    if holder and _is_stopped(holder):
        raise FactError(SOURCE, f"its process {holder} is stopped by a signal")
    try:
        with _connected([named] if named else sockets, deadline) as peer:
            _send(peer, _LENGTH.pack(len(data)) + data, deadline)
            (length,) = _LENGTH.unpack(_receive(peer, _LENGTH.size, deadline))
            if not 0 < length < _REPLY_LIMIT_BYTES:
                raise FactError(SOURCE, f"announces an answer of {length} bytes")
            answer = _receive(peer, length, deadline)
    except (TimeoutError, BlockingIOError) as error:
        raise FactError(SOURCE, f"no answer within {timeout_seconds:g} s: busy or stopped") from error
    except OSError as error:
        raise FactError(SOURCE, f"the connection broke: {error.strerror or error}") from error
    return printable(answer.partition(b"\0")[0], keep="\n\t")


def _holder(pid_file: Path) -> int | None:
    """The process whose lock is on the file, as multipathd's is while it runs (pidfile.c); None without one.

    0 is one that cannot be told: of another PID namespace, or behind a file that only root may read.
    """
    try:
        with pid_file.open("rb") as file:
            wish = _FLOCK.pack(F_WRLCK, os.SEEK_SET, 0, 0, 0)
            lock_type, _, _, _, pid = _FLOCK.unpack(fcntl(file, F_GETLK, wish))
            return None if lock_type == F_UNLCK else max(pid, 0)
    except FileNotFoundError:
        return None
    except PermissionError:
        return 0
    except OSError as error:
        raise FactError(SOURCE, f"cannot read {pid_file}: {error.strerror or error}") from error


def _is_stopped(pid: int) -> bool:
    """Whether the process is stopped, by SIGSTOP or a debugger: state T or t of proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] in (["T"], ["t"])


def _connected(names: Sequence[str], deadline: float) -> socket.socket:
    refusals = []
    for name in names:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # A full queue of connections holds up connect(2) for as long as this option says; a
            # non-blocking connect(2) to a unix socket could not be waited for.
            seconds = _left(deadline)
            whole = int(seconds)
            timeval = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1_000_000)))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            peer.connect("\0" + name[1:] if name.startswith("@") else name)
        except (FileNotFoundError, ConnectionRefusedError, PermissionError) as error:
            peer.close()
            refusals.append(f"{name}: {error.strerror}")
        except BaseException:
            peer.close()
            raise
        else:
            return peer
    raise FactError(SOURCE, f"not running ({'; '.join(refusals)})")


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _send(peer: socket.socket, data: bytes, deadline: float) -> None:
    peer.settimeout(_left(deadline))
    peer.sendall(data)


def _receive(peer: socket.socket, size: int, deadline: float) -> bytes:
    """So many bytes, each wait no longer than what is left until the deadline."""
    parts = []
    while size:
        peer.settimeout(_left(deadline))
        part = peer.recv(min(size, 1 << 20))
        if not part:
            raise FactError(SOURCE, "closed the connection before its answer was complete")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def parse_maps(text: str) -> tuple[MultipathdMap, ...]:
    """The maps in an answer to "show maps json"; raises FactError for an error in its place, or bad JSON."""
    text = text.rstrip("\0 \n\t")
    if not text.startswith("{"):
        # uxlsnr.c: "fail", "timeout", "permission deny: need to be root".
        raise FactError(SOURCE, f"answers {printable(text[:200])!r} to `show maps json`")
    answer = _answer(text)
    if not answer.has("maps"):
        raise FactError(SOURCE, "its JSON is no list of maps")
    return tuple(_map(record) for record in answer.records("maps"))


def _parse_map(text: str) -> MultipathdMap | None:
    """The map in an answer to "show map WWID json"; raises FactError for bad JSON."""
    answer = _answer(text)
    return _map(answer.record("map")) if answer.has("map") else None


def _answer(text: str) -> _Record:
    try:
        return _Record(_decoded(text), "answer")
    except (ValueError, RecursionError) as error:
        raise FactError(SOURCE, f"its JSON is damaged or cut off: {error}") from error


# `            "vend" : "AC"ME",`: one key a line, a blank before the colon, and in the value what needs
# an escape.
_BARE_LINE = re.compile(r'^([ \t]*"\w+" : )"([^"\\\n]*["\\].*)"(,?)$', re.MULTILINE)


def _decoded(text: str) -> object:
    r"""The JSON, its strings escaped first, which multipathd does not do (print.c).

    A vendor, product or alias stands as it is between the first quote and the last of its line: the alias
    `odd\x20name` would break the JSON, `a\tb` not mean what it says, and a product `", "pri" : "` add
    keys of its own. Lines of another form (JSON that went through another program) are left alone.
    """
    escaped = _BARE_LINE.sub(lambda found: f"{found[1]}{json.dumps(found[2])}{found[3]}", text)
    return json.loads(escaped, strict=False)


class _Record:
    """One JSON object: keys that are missing are None, keys that are not asked for are ignored."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise FactError(SOURCE, f"its JSON has no object where a {place} should be")
        self._values: dict[str, object] = value
        self._place = place

    def has(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return printable(value) if isinstance(value, str) else None

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise FactError(SOURCE, f'a {self._place} in its JSON has no "{key}"')
        return value

    def number(self, key: str) -> int | None:
        value = self._values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def record(self, key: str) -> _Record:
        return _Record(self._values.get(key), key)

    def records(self, key: str) -> list[_Record]:
        values = self._values.get(key, [])
        if not isinstance(values, list):
            raise FactError(SOURCE, f'a {self._place} in its JSON has no list "{key}"')
        return [_Record(value, key.removesuffix("s").replace("_", " ")) for value in values]


def _map(record: _Record) -> MultipathdMap:
    return MultipathdMap(
        wwid=record.required("uuid"),
        alias=record.required("name"),
        sysfs_name=record.text("sysfs"),
        dm_state=record.text("dm_st"),
        queueing=record.text("queueing"),
        failback=record.text("failback"),
        write_protection=record.text("write_prot"),
        features=record.text("features"),
        hardware_handler=record.text("hwhandler"),
        action=record.text("action"),
        path_faults=record.number("path_faults"),
        vendor=record.text("vend"),
        product=record.text("prod"),
        revision=record.text("rev"),
        switch_group_count=record.number("switch_grp"),
        map_loads=record.number("map_loads"),
        total_queue_time=record.number("total_q_time"),
        queue_timeouts=record.number("q_timeouts"),
        groups=tuple(_group(group, at) for at, group in enumerate(record.records("path_groups"), start=1)),
    )


def _group(record: _Record, place: int) -> MultipathdGroup:
    return MultipathdGroup(
        number=record.number("group") or place,
        selector=record.text("selector"),
        priority=_priority(record),
        dm_state=record.text("dm_st"),
        marginal_state=record.text("marginal_st"),
        paths=tuple(_path(path) for path in record.records("paths")),
    )


def _path(record: _Record) -> MultipathdPath:
    return MultipathdPath(
        device=record.required("dev"),
        device_number=record.required("dev_t"),
        dm_state=record.text("dm_st"),
        device_state=record.text("dev_st"),
        checker_state=record.text("chk_st"),
        checker=record.text("checker"),
        priority=_priority(record),
        marginal_state=record.text("marginal_st"),
        host_wwnn=record.text("host_wwnn"),
        target_wwnn=record.text("target_wwnn"),
        host_wwpn=record.text("host_wwpn"),
        target_wwpn=record.text("target_wwpn"),
        host_adapter=record.text("host_adapter"),
    )


def _priority(record: _Record) -> int | None:
    """The priority; multipathd's PRIO_UNDEF, -1, is none (libmultipath/prio.h)."""
    value = record.number("pri")
    return None if value is None or value < 0 else value
