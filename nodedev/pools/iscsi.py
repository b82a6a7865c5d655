"""Logging in to a pool's iSCSI target and out again, through open-iscsi's iscsiadm.

What was there before is used and left: sessions to the target that others logged in to, and records in
open-iscsi's database. What this adds is told, so that the pool's stop can take it away again. All here
blocks, and belongs in a thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from nodedev.changes.runner import Completed
from nodedev.errors import DeadlineError, NodedevError, PreconditionError
from nodedev.pools.definition import Chap, Definition, Portal
from nodedev.pools.store import Activity, Session

ISCSIADM = "iscsiadm"
# Where open-iscsi keeps its records: Debian and Fedora, others.
DATABASES = (Path("/etc/iscsi/nodes"), Path("/var/lib/iscsi/nodes"))

# usr/iscsi_err.h
_SESSION_EXISTS, _NOTHING_FOUND, _AUTHENTICATION = 15, 21, 24
_RETRIED_BY_ISCSID = frozenset({4, 8})  # no transport, no answer: the daemon goes on trying
_UNDO_SECONDS = 15.0
# A dead portal takes its time; what the others need after it must remain.
_LOGIN_SHARE = 0.6
_PARALLEL = 8
_TEXT_MAX = 300

_NODE = re.compile(r"(\[?[^\s\[\],]+\]?:\d+),(-?\d+) (\S+)")
_SESSION = re.compile(r"\S+: \[(\d+)\] (\[?[^\s\[\],]+\]?:\d+),(-?\d+) (\S+)")
_AUTH = re.compile(r"node\.session\.auth\.(?:authmethod|username|password) *=")
_END = "# END RECORD"


class Run(Protocol):
    """The command runner."""

    def __call__(self, argv: tuple[str, ...], deadline_seconds: float) -> Completed:
        """Runs a program to its end."""


class Tools(Struct, frozen=True):
    """What is used of the host: the runner, and where open-iscsi's records lie."""

    run: Run
    databases: tuple[Path, ...] = DATABASES


class Login(Struct, frozen=True):
    """What a login came to: what was added, each session of the target, and portals that failed."""

    activity: Activity
    sessions: tuple[Session, ...]
    failures: tuple[str, ...]


class Deadline:
    """A moment by which all is to be done."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """The seconds left; DeadlineError when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineError(f"not done within {self._seconds:.0f} s")
        return left


def parse_nodes(text: str) -> tuple[tuple[str, str], ...]:
    """Portals with their tags ("127.0.0.1:3260,1") and targets, as discovery and -m node print them."""
    found = filter(None, map(_NODE.fullmatch, map(str.strip, text.splitlines())))
    return tuple((f"{line[1]},{line[2]}", line[3]) for line in found)


def parse_sessions(text: str) -> tuple[tuple[Session, str], ...]:
    """Sessions and their targets, as `iscsiadm -m session` prints them."""
    found = filter(None, map(_SESSION.match, map(str.strip, text.splitlines())))
    return tuple((Session(int(line[1]), f"{line[2]},{line[3]}"), line[4]) for line in found)


def login(pool: Definition, password: str | None, tools: Tools, deadline: Deadline) -> Login:
    """Logs in through every portal of the target that has no session yet; adds all or nothing.

    Errors: TOOL_MISSING, ISCSI_UNREACHABLE, ISCSI_TARGET_UNKNOWN, ISCSI_LOGIN_REFUSED, ISCSI_FAILED,
    DEADLINE_EXCEEDED.
    """
    target = pool.iqn or ""
    portals = _discover(pool.portals, target, tools, deadline)
    before = _sessions(target, tools, deadline)
    wanted = [portal for portal in portals if portal not in {session.portal for session in before}]
    known = {portal for portal, name in _records(target, tools, deadline) if name == target}
    added = tuple(portal for portal in wanted if portal not in known)
    try:
        for portal in added:
            _must(tools, (*_node(target, portal), "-o", "new"), deadline)
        for portal in wanted if pool.chap and password else ():
            _authenticate(target, portal, pool.chap, password, tools)
        failures = _log_in(target, wanted, tools, deadline)
        sessions = _any(_sessions(target, tools, deadline), failures, target)
        own = tuple(session for session in sessions if session not in before)
        for session in own:
            # The one by iscsid runs in the background; this one has found each unit when it ends.
            _must(tools, ("-m", "session", "-r", str(session.number), "--rescan"), deadline)
    except BaseException:
        _undo(target, before, added, wanted, tools)
        raise
    activity = Activity(active=True, sessions=own, records=added)
    return Login(activity, sessions, tuple(failure.message for failure in failures))


def logout(pool: Definition, activity: Activity, tools: Tools, deadline: Deadline) -> None:
    """Logs out of the sessions and removes the records that a login added; what is gone is no error."""
    target = pool.iqn or ""
    present = _sessions(target, tools, deadline)
    for session in activity.sessions:
        if session in present:
            _must(tools, ("-m", "session", "-r", str(session.number), "--logout"), deadline)
    for portal in activity.records:
        _ask(tools, (*_node(target, portal), "-o", "delete"), deadline)


def _any(sessions: tuple[Session, ...], failures: list[NodedevError], target: str) -> tuple[Session, ...]:
    """The sessions, of which one is enough; without any the first failure is raised."""
    if not sessions:
        raise failures[0] if failures else _failed("no session came of the login", target)
    return sessions


def _undo(
    target: str, before: Iterable[Session], added: Iterable[str], tried: Iterable[str], tools: Tools
) -> None:
    """Leaves the host as it was; the failure that led here is what is told."""
    deadline = Deadline(_UNDO_SECONDS)
    with suppress(NodedevError):
        kept = {session.portal for session in before}
        for portal in tried:
            if portal not in kept:
                # Also ends a login that iscsid still tries in the background.
                _ask(tools, (*_node(target, portal), "--logout"), deadline)
        for portal in added:
            _ask(tools, (*_node(target, portal), "-o", "delete"), deadline)


def _discover(portals: Iterable[Portal], target: str, tools: Tools, deadline: Deadline) -> tuple[str, ...]:
    """The target's portals; asked of each host in turn until one knows the target.

    Nothing of it is kept: discovery would otherwise make a record for every target of the host.
    """
    trouble: NodedevError | None = None
    for portal in portals:
        try:
            done = _ask(
                tools,
                ("-m", "discovery", "-t", "sendtargets", "-p", str(portal), "-o", "nonpersistent"),
                deadline,
            )
        except DeadlineError:
            raise DeadlineError(
                f"{portal} does not answer iSCSI discovery in time", portal=str(portal)
            ) from None
        if done.returncode not in (0, _NOTHING_FOUND):
            trouble = PreconditionError(
                f"iSCSI discovery at {portal} fails: {_complaint(done)}",
                reason="ISCSI_LOGIN_REFUSED" if done.returncode == _AUTHENTICATION else "ISCSI_UNREACHABLE",
                portal=str(portal),
            )
            continue
        found = tuple(place for place, name in parse_nodes(done.stdout) if name == target)
        if found:
            return tuple(dict.fromkeys(found))
        trouble = PreconditionError(
            f"{portal} does not offer the target {target}", reason="ISCSI_TARGET_UNKNOWN", target=target
        )
    raise trouble or _failed("there is no host to ask", target)


def _log_in(target: str, portals: Iterable[str], tools: Tools, deadline: Deadline) -> list[NodedevError]:
    """Logs in through the portals at once; what fails is returned, as others may have got through."""
    share = deadline.left() * _LOGIN_SHARE

    def attempt(portal: str) -> NodedevError | None:
        try:
            done = tools.run((ISCSIADM, *_node(target, portal), "--login"), share)
        except DeadlineError:
            failure: NodedevError = DeadlineError(f"{portal} does not answer the login to {target} in time")
        else:
            if done.returncode in (0, _SESSION_EXISTS):
                return None
            refused = done.returncode == _AUTHENTICATION
            failure = PreconditionError(
                f"{portal} {'refuses' if refused else 'fails'} the login to {target}: {_complaint(done)}",
                reason="ISCSI_LOGIN_REFUSED" if refused else "ISCSI_FAILED",
                portal=portal,
            )
            if done.returncode not in _RETRIED_BY_ISCSID:
                return failure
        with suppress(NodedevError):
            tools.run((ISCSIADM, *_node(target, portal), "--logout"), _UNDO_SECONDS)
        return failure

    with ThreadPoolExecutor(_PARALLEL) as threads:
        return list(filter(None, threads.map(attempt, portals)))


def _sessions(target: str, tools: Tools, deadline: Deadline) -> tuple[Session, ...]:
    done = _ask(tools, ("-m", "session"), deadline)
    if done.returncode not in (0, _NOTHING_FOUND):
        raise _failed(_complaint(done), target)
    return tuple(session for session, name in parse_sessions(done.stdout) if name == target)


def _records(target: str, tools: Tools, deadline: Deadline) -> Iterator[tuple[str, str]]:
    done = _ask(tools, ("-m", "node"), deadline)
    if done.returncode not in (0, _NOTHING_FOUND):
        raise _failed(_complaint(done), target)
    yield from parse_nodes(done.stdout)


def _authenticate(target: str, portal: str, chap: Chap | None, password: str | None, tools: Tools) -> None:
    """Writes the credentials into the record, a file only root reads.

    iscsiadm would take the password as an argument, which every user of the host could read.
    """
    if chap is None or password is None:
        return
    address, _, tag = portal.rpartition(",")
    host, _, port = address.rpartition(":")
    name = f"{host.strip('[]')},{port},{tag}"
    records = [path for database in tools.databases for path in _record_files(database / target / name)]
    if not records:
        raise _failed(f"open-iscsi has no record of {portal} where it could be written", target)
    credentials = (
        "node.session.auth.authmethod = CHAP",
        f"node.session.auth.username = {chap.username}",
        f"node.session.auth.password = {password}",
    )
    for path in records:
        _rewrite(path, credentials)


def _record_files(place: Path) -> Iterator[Path]:
    """A record is a file, or a folder with one for each interface."""
    if place.is_dir():
        yield from (path for path in sorted(place.iterdir()) if path.is_file())
    elif place.is_file():
        yield place


def _rewrite(path: Path, credentials: Iterable[str]) -> None:
    try:
        lines = path.read_text().splitlines()
        kept = [line for line in lines if not _AUTH.match(line) and line != _END]
        temporary = path.with_name(f".{path.name}.nodedev")
        temporary.touch(mode=0o600)
        temporary.write_text("\n".join((*kept, *credentials, _END, "")))
        temporary.replace(path)
    except OSError as error:
        raise _failed(f"{path}: {error.strerror}", str(path)) from None


def _node(target: str, portal: str) -> tuple[str, ...]:
    return ("-m", "node", "-T", target, "-p", portal)


def _must(tools: Tools, arguments: tuple[str, ...], deadline: Deadline) -> Completed:
    done = _ask(tools, arguments, deadline)
    if done.returncode != 0:
        raise _failed(_complaint(done), " ".join(arguments))
    return done


def _ask(tools: Tools, arguments: tuple[str, ...], deadline: Deadline) -> Completed:
    return tools.run((ISCSIADM, *arguments), deadline.left())


def _complaint(done: Completed) -> str:
    """What it said of the cause, on one line; no argument holds a secret, so no message does."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    causes = [line for line in lines if "reported error" in line]
    said = (causes or lines or ["no reason given"])[-1][:_TEXT_MAX]
    return f"{said} ({ISCSIADM} exit code {done.returncode})"


def _failed(why: str, about: str) -> PreconditionError:
    return PreconditionError(f"{ISCSIADM}: {why}", reason="ISCSI_FAILED", about=about)
