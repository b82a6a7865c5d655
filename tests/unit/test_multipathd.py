"""multipathd's maps: its command socket and its JSON."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodedev.errors import FactError
from nodedev.facts.multipathd import MultipathdMap, parse_maps, read_map, read_maps, read_text
from nodedev.facts.text import printable

SIZE = struct.Struct("@N")

# As multipathd 0.9.4 prints it; `paths` of the map is a count, that of a group a list.
ANSWER = """{
   "major_version": 0,
   "minor_version": 1,
   "maps": [{
      "name" : "mpatha",
      "uuid" : "3500a0980000000a0",
      "sysfs" : "dm-0",
      "failback" : "immediate",
      "queueing" : "12 chk",
      "paths" : 1,
      "write_prot" : "rw",
      "dm_st" : "active",
      "features" : "0",
      "hwhandler" : "1 alua",
      "action" : "create",
      "path_faults" : 3,
      "vend" : "ACME",
      "prod" : "SAN-LUN",
      "rev" : "2.5+",
      "switch_grp" : 0,
      "map_loads" : 1,
      "total_q_time" : 4,
      "q_timeouts" : 5,
      "path_groups": [{
         "selector" : "service-time 0",
         "pri" : 50,
         "dm_st" : "active",
         "marginal_st" : "normal",
         "group" : 1,
         "paths": [{
            "dev" : "sdb",
            "dev_t" : "8:16",
            "dm_st" : "active",
            "dev_st" : "running",
            "chk_st" : "ready",
            "checker" : "tur",
            "pri" : 50,
            "host_wwnn" : "[undef]",
            "target_wwnn" : "iqn.2026-11.com.example:a",
            "host_wwpn" : "[undef]",
            "target_wwpn" : "[undef]",
            "host_adapter" : "127.0.0.1",
            "lun_hex" : "0x0000000000000000",
            "marginal_st" : "normal"
         },{
            "dev" : "sdc",
            "dev_t" : "8:32",
            "dm_st" : "failed",
            "dev_st" : "offline",
            "chk_st" : "faulty",
            "checker" : "tur",
            "pri" : -1,
            "host_wwnn" : "[undef]",
            "target_wwnn" : "[undef]",
            "host_wwpn" : "[undef]",
            "target_wwpn" : "[undef]",
            "host_adapter" : "[undef]",
            "lun_hex" : "0x0000000000000000",
            "marginal_st" : "normal"
         }]
      }]
   }]
}
"""

Peer = Callable[[socket.socket], None]


@contextmanager
def multipathd(path: Path, behave: Peer) -> Iterator[None]:
    """A peer that takes one connection and behaves so; it ends when the client goes."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            # Nobody may come.
            with suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    behave(peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def command_of(peer: socket.socket) -> bytes:
    """The command the client sent, by its frame."""
    (length,) = SIZE.unpack(peer.recv(SIZE.size, socket.MSG_WAITALL))
    return peer.recv(length, socket.MSG_WAITALL)


def answering(answer: bytes) -> Peer:
    """A good peer with that answer, its NUL counted as multipathd counts it."""

    def behave(peer: socket.socket) -> None:
        assert command_of(peer) == b"show maps json\0"
        peer.sendall(SIZE.pack(len(answer) + 1) + answer + b"\0")

    return behave


def silent(peer: socket.socket) -> None:
    """A peer that reads all and never answers, until the client gives up."""
    while peer.recv(1024):
        pass


@pytest.fixture(name="path")
def fixture_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the client looks for multipathd."""
    path = tmp_path / "socket"
    monkeypatch.setenv("MULTIPATH_SOCKET_NAME", str(path))
    return path


def only(text: str) -> MultipathdMap:
    """The one map of an answer."""
    (found,) = parse_maps(text)
    return found


def test_a_running_multipathd_tells_its_maps(path: Path) -> None:
    """The command and its answer travel in frames of a native size."""
    with multipathd(path, answering(ANSWER.encode())):
        assert read_maps() == parse_maps(ANSWER)


@contextmanager
def answering_each(path: Path, answers: dict[str, str]) -> Iterator[list[str]]:
    """A peer that answers commands as told, "fail" to any other; gives the commands it took."""
    taken: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(4)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    with peer:
                        taken.append(command_of(peer).decode().rstrip("\0"))
                        answer = answers.get(taken[-1], "fail\n").encode() + b"\0"
                        peer.sendall(SIZE.pack(len(answer)) + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


ONE = ANSWER.replace('"maps": [', '"map": ').replace("      }]\n   }]\n}", "      }]\n   }\n}")
WWID = "3500a0980000000a0"


def test_one_map_is_asked_for_by_its_wwid(path: Path) -> None:
    """An event on one map costs one map's answer, however many there are."""
    with answering_each(path, {f"show map {WWID} json": ONE}) as taken:
        assert read_map(WWID) == only(ANSWER)
    assert taken == [f"show map {WWID} json"]


@pytest.mark.parametrize("answer", ["fail\n", ONE.replace(WWID, "another")])
def test_a_map_that_is_not_told_by_wwid_is_looked_for_among_all(path: Path, answer: str) -> None:
    """An older multipathd, or an alias that equals the WWID, costs the long way and not the map."""
    with answering_each(path, {f"show map {WWID} json": answer, "show maps json": ANSWER}) as taken:
        assert read_map(WWID) == only(ANSWER)
    assert len(taken) == 2


@pytest.mark.parametrize("wwid", ["a b", "dm-0", "", "x\ny"])
def test_a_wwid_that_is_no_plain_word_is_no_command(path: Path, wwid: str) -> None:
    """What multipathd would take for something else is never sent to it."""
    with answering_each(path, {"show maps json": ANSWER}) as taken:
        assert read_map(wwid) is None
    assert taken == ["show maps json"]


def test_the_recorders_text_is_the_answer_itself(path: Path) -> None:
    """What is recorded is what multipathd said, so that a recording can be made with its own tool."""
    with multipathd(path, answering(ANSWER.encode())):
        assert read_text() == ANSWER


def test_an_answer_in_pieces_is_put_together(path: Path) -> None:
    """A long answer arrives in parts."""

    def piecemeal(peer: socket.socket) -> None:
        command_of(peer)
        frame = SIZE.pack(len(ANSWER) + 1) + ANSWER.encode() + b"\0"
        for at in range(0, len(frame), 100):
            peer.sendall(frame[at : at + 100])

    with multipathd(path, piecemeal):
        assert len(read_maps()) == 1


def test_an_abstract_name_is_reached_by_its_at_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    """`@name` is a socket without a file, as multipathd's default is."""
    name = f"nodedev-test-{os.getpid()}"
    monkeypatch.setenv("MULTIPATH_SOCKET_NAME", f"@{name}")
    with multipathd(Path(f"\0{name}"), answering(ANSWER.encode())):
        assert len(read_maps()) == 1


def test_a_stopped_multipathd_ends_at_the_deadline(path: Path) -> None:
    """A daemon that accepts and never answers holds nobody up."""
    with multipathd(path, silent), pytest.raises(FactError, match=r"no answer within 0\.05 s"):
        read_maps(timeout_seconds=0.05)


def test_a_trickling_answer_ends_at_the_deadline_too(path: Path) -> None:
    """The time is that of the whole exchange, not of each part of the answer."""

    def trickle(peer: socket.socket) -> None:
        command_of(peer)
        peer.sendall(SIZE.pack(1 << 20))
        try:
            while True:
                peer.sendall(b"{")
                peer.settimeout(0.01)
                try:
                    if not peer.recv(1):
                        return
                except TimeoutError:
                    continue
        except OSError:
            return

    with multipathd(path, trickle), pytest.raises(FactError, match="no answer within"):
        read_maps(timeout_seconds=0.2)


@contextmanager
def crowded(path: Path) -> Iterator[socket.socket]:
    """A listener that has accepted nobody, and whose queue takes no further connection."""
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        for client in waiting:
            client.close()
        yield listener


def test_a_full_queue_of_connections_ends_at_the_deadline(path: Path) -> None:
    """A frozen daemon's queue fills up, and then even connect(2) waits."""
    with crowded(path), pytest.raises(FactError, match="no answer within"):
        read_maps(timeout_seconds=0.05)


def test_a_full_queue_that_moves_on_is_waited_for(path: Path) -> None:
    """A daemon that was busy for a moment still answers."""

    def serve(listener: socket.socket) -> None:
        while True:
            peer, _ = listener.accept()
            with peer:
                if peer.recv(1, socket.MSG_PEEK):
                    answering(ANSWER.encode())(peer)
                    return

    with crowded(path) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        assert len(read_maps(timeout_seconds=60)) == 1
        thread.join()


def test_a_connection_closed_early_is_a_fact_error(path: Path) -> None:
    """A daemon that dies in mid answer gives no half list."""

    def dying(peer: socket.socket) -> None:
        command_of(peer)
        peer.sendall(SIZE.pack(1000) + b'{"maps": [')

    with multipathd(path, dying), pytest.raises(FactError, match="closed the connection"):
        read_maps()


@pytest.mark.parametrize("length", [0, 32 << 20, (1 << (8 * SIZE.size)) - 1])
def test_an_impossible_length_is_refused(path: Path, length: int) -> None:
    """A length beyond multipathd's own limit is no answer, and is not waited for."""

    def boasting(peer: socket.socket) -> None:
        command_of(peer)
        peer.sendall(SIZE.pack(length))
        silent(peer)

    with multipathd(path, boasting), pytest.raises(FactError, match=f"{length} bytes"):
        read_maps()


@pytest.mark.parametrize("words", ["fail", "timeout", "permission deny: need to be root"])
def test_an_error_in_place_of_the_answer_is_told(path: Path, words: str) -> None:
    """The daemon tells its errors as text where the JSON should be."""
    with multipathd(path, answering(f"{words}\n".encode())), pytest.raises(FactError, match=words):
        read_maps()


def test_no_multipathd_is_told_as_such(path: Path) -> None:
    """Neither a missing socket nor a stale one is a running multipathd."""
    with pytest.raises(FactError, match="not running"):
        read_maps()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(FactError, match="not running"):
        read_maps()


def test_systemds_socket_is_not_touched_while_multipathd_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To connect to a socket that systemd holds would start multipathd; its unlocked pid file tells."""
    monkeypatch.delenv("MULTIPATH_SOCKET_NAME", raising=False)
    pid_file = tmp_path / "multipathd.pid"
    with pytest.raises(FactError, match="no process holds"):
        read_text(pid_file=pid_file, systemd=tmp_path)
    pid_file.write_text("1")
    with pytest.raises(FactError, match="no process holds"):
        read_text(pid_file=pid_file, systemd=tmp_path)


@contextmanager
def locked(pid_file: Path) -> Iterator[int]:
    """A process that holds its lock on the file, as multipathd does."""
    pid_file.write_text("1")
    hold = f"import fcntl, sys; f = open({str(pid_file)!r}, 'r+'); fcntl.lockf(f, {fcntl.LOCK_EX})"
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        yield holder.pid


def test_a_locked_pid_file_is_a_running_multipathd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon holds a lock on its pid file as long as it lives; then it is asked, at any of its names."""
    monkeypatch.delenv("MULTIPATH_SOCKET_NAME", raising=False)
    sockets = (str(tmp_path / "none"), str(tmp_path / "socket"))
    pid_file = tmp_path / "multipathd.pid"
    with locked(pid_file), multipathd(tmp_path / "socket", answering(ANSWER.encode())):
        assert read_text(sockets=sockets, pid_file=pid_file, systemd=tmp_path) == ANSWER


def test_a_stopped_multipathd_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that a signal has stopped is told at once, though its socket would take the command."""
    monkeypatch.delenv("MULTIPATH_SOCKET_NAME", raising=False)
    pid_file = tmp_path / "multipathd.pid"
    with locked(pid_file) as pid:
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        try:
            with pytest.raises(FactError, match=f"process {pid} is stopped"):
                read_text(sockets=(), pid_file=pid_file, systemd=tmp_path / "none")
        finally:
            os.kill(pid, signal.SIGCONT)


def test_every_field_is_read() -> None:
    """Each key has its field; multipathd's words pass through as they are."""
    found = only(ANSWER)
    assert (found.wwid, found.alias, found.sysfs_name) == ("3500a0980000000a0", "mpatha", "dm-0")
    assert (found.dm_state, found.queueing, found.failback) == ("active", "12 chk", "immediate")
    assert (found.write_protection, found.features, found.hardware_handler) == ("rw", "0", "1 alua")
    assert (found.action, found.path_faults, found.revision) == ("create", 3, "2.5+")
    assert (found.vendor, found.product) == ("ACME", "SAN-LUN")
    assert (found.switch_group_count, found.map_loads) == (0, 1)
    assert (found.total_queue_time, found.queue_timeouts) == (4, 5)
    (group,) = found.groups
    assert (group.number, group.selector, group.priority) == (1, "service-time 0", 50)
    assert (group.dm_state, group.marginal_state) == ("active", "normal")
    path = group.paths[0]
    assert (path.device, path.device_number, path.checker, path.priority) == ("sdb", "8:16", "tur", 50)
    assert (path.dm_state, path.device_state, path.checker_state) == ("active", "running", "ready")
    assert (path.host_wwnn, path.target_wwnn) == ("[undef]", "iqn.2026-11.com.example:a")
    assert (path.host_wwpn, path.target_wwpn, path.marginal_state) == ("[undef]", "[undef]", "normal")
    assert path.host_adapter == "127.0.0.1"


def test_the_paths_are_those_of_the_groups() -> None:
    """The map's own `paths` counts only usable ones, and is not taken for the paths there are."""
    assert [path.device for group in only(ANSWER).groups for path in group.paths] == ["sdb", "sdc"]


def test_an_undefined_priority_is_none() -> None:
    """Minus one is multipathd's word for a priority it does not know."""
    assert only(ANSWER).groups[0].paths[1].priority is None


def test_missing_keys_are_none_and_unknown_ones_ignored() -> None:
    """An older multipathd prints fewer keys, a newer one more."""
    text = '{"maps": [{"name": "a", "uuid": "3600", "novel": {"x": 1}, "path_groups": [{"paths": []}]}]}'
    found = only(text)
    assert (found.vendor, found.path_faults) == (None, None)
    assert (found.groups[0].number, found.groups[0].priority) == (1, None)


def test_no_maps_is_an_empty_list() -> None:
    """A multipathd without maps is no error."""
    assert parse_maps('{\n   "major_version": 0,\n   "minor_version": 1,\n   "maps": []\n}\n') == ()


@given(st.text(st.characters(codec="utf-8").filter(str.isprintable)))
@example(r"odd\x20name")
@example(r"a\tb")
@example('a", "uuid" : "b')
def test_names_that_multipathd_does_not_escape_are_recovered(name: str) -> None:
    """Quotes and backslashes in alias, vendor and product stand bare in the JSON and are read as they are."""
    text = (
        ANSWER.replace('"mpatha"', f'"{name}"')
        .replace('"ACME"', f'"{name}"')
        .replace('"SAN-LUN"', f'"{name}"')
    )
    found = only(text)
    assert (found.alias, found.vendor, found.product) == (name, name, name)
    assert found.groups == only(ANSWER).groups


@given(st.text(st.characters()))
def test_json_that_another_program_wrote_is_read_by_its_own_escapes(name: str) -> None:
    """A recording whose JSON was printed anew has proper escapes; the unprintable is shown as bytes."""
    document = json.loads(ANSWER)
    document["maps"][0]["name"] = name
    assert only(json.dumps(document, indent=2)).alias == printable(name)
    assert only(json.dumps(document)).alias == printable(name)


@given(st.integers(min_value=0, max_value=len(ANSWER.rstrip()) - 1))
def test_json_cut_off_anywhere_is_a_fact_error(end: int) -> None:
    """A truncated answer never passes for a shorter list."""
    with pytest.raises(FactError):
        parse_maps(ANSWER[:end])


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is recorded, the parser gives maps or a FactError."""
    for candidate in (
        text,
        f'{{"maps": [{text}]}}',
        f'{{"maps": [{{"name": "", "uuid": "", "path_groups": {text}}}]}}',
    ):
        try:
            parse_maps(candidate)
        except FactError:
            continue
