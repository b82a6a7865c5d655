"""`nodedev serve` as a process: its sockets, its rivals, its end, and systemd."""

from __future__ import annotations

import signal
import socket
import stat
from pathlib import Path

import pytest

from nodedev.client import Client
from tests.e2e.services import PLAIN, Nodedev, Process, process

HOST = ("--host", str(PLAIN))


def test_both_sockets_serve(served: Process) -> None:
    """The read-write socket is for its group, the read-only one for everybody; both list."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in served.folder.iterdir()}
    assert modes["nodedev.sock"] == 0o660
    assert modes["nodedev-ro.sock"] == 0o666
    for address in (served.address, served.read_only_address):
        with Client(address) as client:
            assert client.get_device("vda").device.name == "block_vda_plain"


def test_a_second_service_is_refused(served: Process, nodedev: Nodedev) -> None:
    """A second start on the same sockets fails, and the first service keeps them."""
    second = nodedev(*HOST, "serve", "--runtime-dir", str(served.folder))
    assert second.returncode == 1
    assert "SOCKET_IN_USE" in second.stderr
    with Client(served.address) as client:
        assert client.server_info().host == "plain"


def test_a_stale_socket_is_replaced(folder: Path) -> None:
    """What a killed service left behind does not keep the next one from starting."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "nodedev.sock"))
    with process(folder) as running, Client(running.address) as client:
        assert client.server_info().host == "plain"


def test_a_killed_service_releases_its_sockets(folder: Path) -> None:
    """After SIGKILL another service can take the sockets at once."""
    with process(folder) as first:
        first.stop(signal.SIGKILL)
        with process(folder) as second, Client(second.address) as client:
            assert client.server_info().host == "plain"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_end(folder: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the service with 0, and no socket is left."""
    with process(folder) as running:
        assert running.stop(number) == 0
    assert not list(folder.glob("*.sock"))
    assert "Traceback" not in "".join(running.log)


def test_what_is_no_socket_is_not_touched(folder: Path, nodedev: Nodedev) -> None:
    """A file in a socket's place is an error, and stays."""
    (folder / "nodedev.sock").write_text("mine")
    refused = nodedev(*HOST, "serve", "--runtime-dir", str(folder))
    assert (refused.returncode, "SOCKET_PATH_INVALID" in refused.stderr) == (1, True)
    assert (folder / "nodedev.sock").read_text() == "mine"


def test_a_path_too_long_for_a_socket(folder: Path, nodedev: Nodedev) -> None:
    """The kernel's limit is told instead of gRPC's failure."""
    refused = nodedev(*HOST, "serve", "--runtime-dir", str(folder / ("x" * 100)))
    assert (refused.returncode, "SOCKET_PATH_INVALID" in refused.stderr) == (1, True)


def test_systemd_is_told(folder: Path) -> None:
    """A Type=notify service is ready once the host has been read, and says when it stops."""
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(30)
        with process(folder, NOTIFY_SOCKET=address) as running:
            assert systemd.recv(100) == b"READY=1"
            running.stop()
            assert systemd.recv(100) == b"STOPPING=1"


def test_tcp_without_tls_is_refused(nodedev: Nodedev, folder: Path) -> None:
    """There is no TCP port without certificates."""
    refused = nodedev(*HOST, "serve", "--runtime-dir", str(folder), "--listen", "127.0.0.1:0")
    assert refused.returncode == 2
    assert "--tls-cert" in refused.stderr
