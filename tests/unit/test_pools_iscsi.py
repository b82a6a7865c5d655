"""Logging in and out by iscsiadm: what is run, what is read of its answers, and what is undone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.changes.runner import Completed
from nodedev.errors import DeadlineError, NodedevError
from nodedev.facts.iscsi import LogicalUnit, logical_units
from nodedev.pools.definition import Definition, checked_chap, checked_portal
from nodedev.pools.iscsi import Deadline, Tools, login, logout, parse_nodes, parse_sessions
from nodedev.pools.store import Activity, Session
from tests.unit.pool_hosts import IQN, iscsi

PORTALS = ("127.0.0.1:3260,1", "127.0.0.2:3260,1")
OTHER = "iqn.2026-11.com.example:other"


@dataclass
class Initiator:
    """What the command runner meets: records, sessions, and portals that misbehave by exit code."""

    records: dict[str, str] = field(default_factory=dict)
    sessions: dict[int, tuple[str, str]] = field(default_factory=dict)
    refuses: dict[str, int] = field(default_factory=dict)
    discovery: int = 0
    silent: frozenset[str] = frozenset()
    database: Path | None = None
    commands: list[str] = field(default_factory=list)
    last: int = 0

    def run(self, argv: tuple[str, ...], deadline_seconds: float) -> Completed:
        """Runs one command."""
        assert deadline_seconds > 0
        words = " ".join(argv[1:])
        self.commands.append(words)
        code, text = self._answer(words)
        return Completed(argv, code, text if code == 0 else "", "" if code == 0 else "iscsiadm: some error")

    def _answer(self, words: str) -> tuple[int, str]:
        found = re.search(r"-p (\S+)", words)
        portal = found[1] if found else ""
        if portal in self.silent and ("discovery" in words or words.endswith("--login")):
            raise DeadlineError("killed")
        match words.split():
            case ["-m", "session"]:
                return self._lines(
                    f"tcp: [{key}] {one[0]} {one[1]} (nf)" for key, one in self.sessions.items()
                )
            case ["-m", "node"]:
                return self._lines(f"{place} {name}" for place, name in self.records.items())
            case ["-m", "discovery", *_]:
                listed = (*((place, IQN) for place in PORTALS), ("127.0.0.1:3260,1", OTHER))
                return self.discovery, "".join(f"{place} {name}\n" for place, name in listed)
            case [*_, "-o", verb]:
                return self._change(verb, portal)
        if words.endswith("--logout"):
            return self._log_out(words, portal)
        return self._log_in(portal) if words.endswith("--login") else (0, "")

    def _lines(self, lines: Iterable[str]) -> tuple[int, str]:
        text = "\n".join(lines)
        return (0 if text else 21), text

    def _log_in(self, portal: str) -> tuple[int, str]:
        if portal not in self.refuses:
            self.last += 1
            self.sessions[self.last] = (portal, IQN)
        return self.refuses.get(portal, 0), ""

    def _log_out(self, words: str, portal: str) -> tuple[int, str]:
        number = re.search(r"-r (\d+)", words)
        gone = [
            key
            for key, (place, _) in self.sessions.items()
            if (key == int(number[1]) if number else place == portal)
        ]
        for key in gone:
            del self.sessions[key]
        return (0 if gone else 21), ""

    def _change(self, verb: str, portal: str) -> tuple[int, str]:
        if verb == "new":
            self._record(portal)
            return 0, ""
        return (0 if self.records.pop(portal, None) else 21), ""

    def _record(self, portal: str) -> None:
        self.records[portal] = IQN
        if self.database:
            place = self.database / IQN / portal.replace(":", ",")
            place.mkdir(parents=True)
            (place / "default").write_text("# BEGIN RECORD\nnode.name = x\n# END RECORD\n")


def tools(initiator: Initiator) -> Tools:
    """The runner, with a database that is the initiator's own."""
    return Tools(initiator.run, (initiator.database,) if initiator.database else ())


def log_in(initiator: Initiator, pool: Definition | None = None, password: str | None = None) -> Activity:
    """Logs in to the mail's target."""
    return login(pool or iscsi("/dev/mapper"), password, tools(initiator), Deadline(60)).activity


def refusal(initiator: Initiator, pool: Definition | None = None) -> NodedevError:
    """How a login fails."""
    with pytest.raises(NodedevError) as caught:
        log_in(initiator, pool)
    return caught.value


def test_login_goes_through_every_portal() -> None:
    """Each portal of the target gets a record and a session, and each session's units are scanned for."""
    initiator = Initiator()
    activity = log_in(initiator)
    assert {session.portal for session in activity.sessions} == set(PORTALS)
    assert set(activity.records) == set(PORTALS)
    for session in activity.sessions:
        assert f"-m session -r {session.number} --rescan" in initiator.commands
    assert OTHER not in initiator.records.values()


def test_what_is_there_already_is_used_and_left() -> None:
    """A session and a record from before are not the pool's: stop leaves them."""
    initiator = Initiator(records={PORTALS[0]: IQN}, sessions={7: (PORTALS[0], IQN)}, last=7)
    pool = iscsi("/dev/mapper")
    activity = log_in(initiator, pool)
    assert activity == Activity(True, (Session(8, PORTALS[1]),), (PORTALS[1],))
    logout(pool, activity, tools(initiator), Deadline(60))
    assert initiator.sessions == {7: (PORTALS[0], IQN)}
    assert initiator.records == {PORTALS[0]: IQN}


def test_a_session_of_another_number_is_not_logged_out() -> None:
    """A session that came in the place of the pool's own is somebody else's."""
    initiator = Initiator(sessions={9: (PORTALS[0], IQN)})
    activity = Activity(True, (Session(3, PORTALS[0]),), ())
    logout(iscsi("/dev/mapper"), activity, tools(initiator), Deadline(60))
    assert initiator.sessions == {9: (PORTALS[0], IQN)}


def test_a_refused_login_leaves_nothing() -> None:
    """Refused at each portal: one reason, and neither session nor record stays."""
    initiator = Initiator(refuses=dict.fromkeys(PORTALS, 24))
    assert refusal(initiator).reason == "ISCSI_LOGIN_REFUSED"
    assert initiator.sessions == {}
    assert initiator.records == {}


def test_one_portal_is_enough() -> None:
    """A portal that is down does not keep the pool from starting over the other one."""
    initiator = Initiator(refuses={PORTALS[0]: 8})
    found = login(iscsi("/dev/mapper"), None, tools(initiator), Deadline(60))
    assert [session.portal for session in found.sessions] == [PORTALS[1]]
    assert len(found.failures) == 1
    assert PORTALS[0] in found.failures[0]


def test_a_silent_portal_is_given_up() -> None:
    """A login that is killed at its deadline is also ended in iscsid, which would go on trying."""
    initiator = Initiator(silent=frozenset(PORTALS))
    assert refusal(initiator).reason == "DEADLINE_EXCEEDED"
    assert initiator.records == {}
    assert sum(command.endswith("--logout") for command in initiator.commands) >= len(PORTALS)


def test_an_unreachable_host() -> None:
    """Discovery that fails says which host, one that hangs that it was too late."""
    assert refusal(Initiator(discovery=4)).reason == "ISCSI_UNREACHABLE"
    assert refusal(Initiator(silent=frozenset({"127.0.0.1:3260"}))).reason == "DEADLINE_EXCEEDED"


def test_a_target_that_is_not_offered() -> None:
    """A host that does not know the target is told, and nothing is recorded."""
    initiator = Initiator()
    assert refusal(initiator, iscsi("/dev/mapper", iqn="iqn.2026-11.com.example:none")).reason == (
        "ISCSI_TARGET_UNKNOWN"
    )
    assert initiator.records == {}


def test_the_password_goes_into_the_record_alone(tmp_path: Path) -> None:
    """The password is in open-iscsi's record and in no argument, which every user could read."""
    initiator = Initiator(database=tmp_path)
    pool = iscsi("/dev/mapper")
    pool = Definition(
        **{name: getattr(pool, name) for name in ("type", "name", "target", "uuid", "portals", "iqn")},
        chap=checked_chap("host1", "usage", "virtimages"),
    )
    log_in(initiator, pool, "a-chap-secret")
    assert not any("a-chap-secret" in command for command in initiator.commands)
    record = tmp_path / IQN / "127.0.0.1,3260,1" / "default"
    assert record.read_text().splitlines() == [
        "# BEGIN RECORD",
        "node.name = x",
        "node.session.auth.authmethod = CHAP",
        "node.session.auth.username = host1",
        "node.session.auth.password = a-chap-secret",
        "# END RECORD",
    ]
    assert record.stat().st_mode & 0o077 == 0
    assert list(record.parent.iterdir()) == [record]


def test_no_time_is_no_login() -> None:
    """Without time left nothing is begun."""
    initiator = Initiator()
    with pytest.raises(DeadlineError):
        login(iscsi("/dev/mapper"), None, tools(initiator), Deadline(0))
    assert initiator.commands == []


def test_answers_are_read_as_iscsiadm_prints_them() -> None:
    """Records and sessions, IPv6 ones and those with a negative tag among them."""
    assert parse_nodes("127.0.0.1:3260,1 iqn.a\n[fe80::1]:3260,-1 iqn.b\niscsiadm: No records found\n") == (
        ("127.0.0.1:3260,1", "iqn.a"),
        ("[fe80::1]:3260,-1", "iqn.b"),
    )
    assert parse_sessions("tcp: [2] 127.0.0.2:3260,1 iqn.a (non-flash)\ntcp: [11] [::1]:3260,2 iqn.b\n") == (
        (Session(2, "127.0.0.2:3260,1"), "iqn.a"),
        (Session(11, "[::1]:3260,2"), "iqn.b"),
    )


@given(st.text())
def test_any_answer_can_be_read(text: str) -> None:
    """Whatever iscsiadm prints, reading it ends with what could be understood."""
    assert all(name for _, name in parse_nodes(text))
    assert all(session.number >= 0 for session, _ in parse_sessions(text))


@given(st.text(max_size=20), st.one_of(st.none(), st.integers()))
def test_a_host_is_never_an_option(host: str, port: int | None) -> None:
    """No host name that is taken can be an option of iscsiadm, or more than one word."""
    try:
        argument = str(checked_portal(host, port))
    except NodedevError:
        return
    assert not argument.startswith("-")
    assert len(argument.split()) == 1


def test_units_of_a_session_are_read_from_sysfs(tmp_path: Path) -> None:
    """Each unit's type and disk are told; one whose driver is not there yet has no disk."""
    session = tmp_path / "devices" / "session1"
    for address, type_, block in (("4:0:0:0", "0", "sdh"), ("4:0:0:1", "12", None), ("4:0:0:2", "0", None)):
        unit = session / "target4:0:0" / address
        unit.mkdir(parents=True)
        (unit / "type").write_text(f"{type_}\n")
        if block:
            (unit / "block" / block).mkdir(parents=True)
    (tmp_path / "class" / "iscsi_session" / "session1").mkdir(parents=True)
    (tmp_path / "class" / "iscsi_session" / "session1" / "device").symlink_to(session)
    assert logical_units(1, tmp_path) == (
        LogicalUnit("4:0:0:0", 0, "sdh"),
        LogicalUnit("4:0:0:1", 12, None),
        LogicalUnit("4:0:0:2", 0, None),
    )
    assert logical_units(2, tmp_path) == ()
