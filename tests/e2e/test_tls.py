"""TCP with mutual TLS: roles by certificate name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from nodedev.client import Certificate, Client
from nodedev.errors import InvalidError, PermissionDeniedError, UnavailableError
from nodedev.server.access import Access, Names, only_reads
from tests.e2e.services import Nodedev, process


@dataclass(frozen=True, slots=True)
class Remote:
    """A service on TCP, and whose certificates it knows."""

    address: str
    folder: Path
    authority: trustme.CA

    def certificate(self, *names: str, common_name: str | None = None) -> Certificate:
        """A client's certificate from the service's CA."""
        return issue(self.folder, self.authority, "client", *names, common_name=common_name)


def issue(
    folder: Path, authority: trustme.CA, file: str, *names: str, common_name: str | None = None
) -> Certificate:
    """A certificate for these names, in files."""
    issued = authority.issue_cert(*names, common_name=common_name)
    chain, key, ca = (folder / f"{file}-{part}.pem" for part in ("cert", "key", "ca"))
    chain.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    return Certificate(chain, key, ca)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A process that serves the plain host on a TCP port of its own choice."""
    folder, authority = tmp_path_factory.mktemp("t"), trustme.CA()
    own = issue(folder, authority, "server", "localhost")
    arguments = ["--listen", "localhost:0", "--admin", "ops.example.org", "--reader", "viewer"]
    files = {"--tls-cert": own.certificate, "--tls-key": own.key, "--tls-ca": own.authority}
    for option, path in files.items():
        arguments += [option, str(path)]
    with process(folder, *arguments) as running:
        found = re.search(r"on (localhost:\d+)", "".join(running.log))
        assert found
        yield Remote(found[1], folder, authority)


@pytest.mark.parametrize("identity", [("ops.example.org", None), ("other.example.org", "viewer")])
def test_known_names_may_read(remote: Remote, identity: tuple[str, str | None]) -> None:
    """A certificate is known by an alternative name or by its common name."""
    name, common_name = identity
    with Client(remote.address, remote.certificate(name, common_name=common_name)) as client:
        assert client.get_device("vda").device.name == "block_vda_plain"


def test_unknown_names_may_not(remote: Remote) -> None:
    """A good certificate of nobody in particular is refused, by a reason of its own."""
    certificate = remote.certificate("stranger.example.org")
    with Client(remote.address, certificate) as client, pytest.raises(PermissionDeniedError) as caught:
        client.list_devices()
    assert caught.value.reason == "CERTIFICATE_UNKNOWN"
    assert "stranger.example.org" in caught.value.metadata["names"]


def test_another_authority_is_not_trusted(remote: Remote, tmp_path: Path) -> None:
    """A certificate of another CA does not even get a connection."""
    foreign = issue(tmp_path, trustme.CA(), "foreign", "ops.example.org")
    certificate = Certificate(foreign.certificate, foreign.key, remote.certificate("x.example.org").authority)
    with Client(remote.address, certificate) as client, pytest.raises(UnavailableError):
        client.list_devices()


def test_without_a_certificate_nothing_is_answered(remote: Remote) -> None:
    """A client that shows none gets no connection; nodedev's own does not try."""
    credentials = grpc.ssl_channel_credentials(remote.authority.cert_pem.bytes())
    with grpc.secure_channel(remote.address, credentials) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/nodedev.v1.AdminService/GetServerInfo"
        )
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(InvalidError):
        Client(remote.address)


def test_the_command_line_connects(remote: Remote, nodedev: Nodedev) -> None:
    """HOST:PORT with the three files lists the remote host; without them the reason is told."""
    certificate = remote.certificate("ops.example.org")
    files = {"cert": certificate.certificate, "key": certificate.key, "ca": certificate.authority}
    options = [part for name, path in files.items() for part in (f"--tls-{name}", str(path))]
    found = nodedev("--connect", remote.address, *options, "list", "--cap", "loop", "-n", "-o", "name")
    assert (found.returncode, found.stdout) == (0, "loop_loop0\n")
    refused = nodedev("--connect", remote.address, "list")
    assert (refused.returncode, "CERTIFICATE_REQUIRED" in refused.stderr) == (1, True)


class Caller:
    """A caller with a certificate of these names."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()

    def auth_context(self) -> dict[str, list[bytes]]:
        """As gRPC gives it."""
        return {"x509_subject_alternative_name": [self._name]}


def test_roles() -> None:
    """Admins may change, readers may only read."""
    access = Access(writable=True, names=Names(frozenset({"admin"}), frozenset({"reader"})))
    read, write = "/nodedev.v1.DeviceService/ListDevices", "/nodedev.v1.Future/Create"
    assert (only_reads(read), only_reads(write)) == (True, False)
    assert not only_reads("/grpc.health.v1.Health/Check")  # known, and does not say so
    access.admit(write, Caller("admin"))
    access.admit(read, Caller("reader"))
    with pytest.raises(PermissionDeniedError) as caught:
        access.admit(write, Caller("reader"))
    assert caught.value.reason == "READ_ONLY_CONNECTION"
    assert not access.read_only(Caller("admin"))
