"""Who may do what on a port: what only reads is open to all who get in, the rest is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Protocol

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import Default
from msgspec import Struct

from nodedev.errors import PermissionDeniedError

_OWN_SERVICES = "/nodedev."


class Caller(Protocol):
    """Who calls, as a call's context knows it: over a unix socket gRPC's Python does not (grpc#28755)."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The certificate's names, by property."""


class Names(Struct, frozen=True):
    """The certificate names (SAN or CN) that may call over TLS, by role."""

    admins: frozenset[str]
    readers: frozenset[str]


class Access(Struct, frozen=True):
    """What the callers of one port may do.

    On a local socket the socket's mode decides who calls; `writable` is what they may do there.
    With `names` the callers' certificates decide. A recorded host is never written to.
    """

    writable: bool
    recorded: bool = False
    names: Names | None = None

    def admit(self, method: str, caller: Caller) -> None:
        """Raises PermissionDeniedError unless the caller may call the method ("/package.Service/Method")."""
        writable = self._may_write(caller)
        if not method.startswith(_OWN_SERVICES) or only_reads(method):
            return
        if self.recorded:
            raise PermissionDeniedError("a recorded host cannot be changed", reason="RECORDED_HOST")
        if not writable:
            raise PermissionDeniedError("this connection is read-only")

    def read_only(self, caller: Caller) -> bool:
        """Whether every change would be refused."""
        return self.recorded or not self._may_write(caller)

    def _may_write(self, caller: Caller) -> bool:
        if self.names is None:
            return self.writable
        called = _certificate_names(caller)
        if called & self.names.admins:
            return self.writable
        if called & self.names.readers:
            return False
        raise PermissionDeniedError(
            "no name of this certificate is known here",
            reason="CERTIFICATE_UNKNOWN",
            names=", ".join(sorted(called)),
        )


@cache
def only_reads(method: str) -> bool:
    """Whether the proto declares the method free of side effects; False for an unknown one."""
    try:
        found = Default().FindMethodByName(method.removeprefix("/").replace("/", "."))
    except KeyError:
        return False
    return bool(found.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)


def _certificate_names(caller: Caller) -> frozenset[str]:
    about = caller.auth_context()
    keys = ("x509_common_name", "x509_subject_alternative_name")
    return frozenset(name.decode(errors="replace") for key in keys for name in about.get(key, ()))
