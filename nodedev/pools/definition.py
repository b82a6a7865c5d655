"""What a storage pool is defined to be: its type, its source, and under which folder volumes are named.

The types and their sources are libvirt's (storage pool XML: mpath, scsi, iscsi), and two of our own:
raid and loop. Which target folders a type can name volumes under is declared in KINDS.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from posixpath import normpath

from msgspec import Struct

from nodedev.errors import InvalidError, Violation

DEV, MAPPER, MPATH, MD = "/dev", "/dev/mapper", "/dev/mpath", "/dev/md"
BY_ID, BY_PATH = "/dev/disk/by-id", "/dev/disk/by-path"
# In these folders only what is built on disks has a name.
MAP_FOLDERS = frozenset({MAPPER, MPATH})
ISCSI_PORT = 3260

_NAME_MAX_BYTES = 200  # with a suffix it is still a file name
_SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?", re.ASCII)
_IQN = re.compile(r"iqn\.[0-9]{4}-(?:0[1-9]|1[0-2])\.[A-Za-z0-9.-]+(?::[!-~]+)?", re.ASCII)
# libvirt's documentation also has names as plain as demo-target.
_OTHER_TARGET = re.compile(
    r"eui\.[0-9A-Fa-f]{16}|naa\.(?:[0-9A-Fa-f]{16}|[0-9A-Fa-f]{32})|[A-Za-z0-9_+][A-Za-z0-9_+-]*", re.ASCII
)
_ADAPTER = re.compile(r"(?:scsi_|fc_)?host([0-9]{1,9})", re.ASCII)
_WWN = re.compile(r"(?:0x)?([0-9a-fA-F]{16})", re.ASCII)
# The UUIDs of the predefined pools are the same on every host, and after every start.
_PREDEFINED = uuid.UUID("a1f0cb6c-4b0a-5f0e-9d5b-6d7061746800")


class PciAddress(Struct, frozen=True):
    """A PCI function."""

    domain: int
    bus: int
    slot: int
    function: int

    def __str__(self) -> str:
        """As sysfs has it: 0000:00:1f.2."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


class Adapter(Struct, frozen=True):
    """Which SCSI host: by number, by the PCI function it is on, or by its Fibre Channel names."""

    number: int | None = None
    pci: PciAddress | None = None
    unique_id: int | None = None
    wwnn: str | None = None
    wwpn: str | None = None


class Portal(Struct, frozen=True):
    """Where an iSCSI target is asked for."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        """As iscsiadm takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port or ISCSI_PORT}"


class Chap(Struct, frozen=True):
    """Who logs in, and which secret file holds the password; `by` is libvirt's attribute, uuid or usage."""

    username: str
    secret: str
    by: str = "usage"


class Definition(Struct, frozen=True):
    """A pool as it was defined. `target` is a folder, never absent once the definition is checked."""

    type: str
    name: str
    target: str
    uuid: str
    adapter: Adapter | None = None
    portals: tuple[Portal, ...] = ()
    iqn: str | None = None
    chap: Chap | None = None

    @property
    def source(self) -> tuple[object, ...]:
        """What the pool's volumes come from, and how it is got at."""
        return (self.type, self.adapter, self.portals, self.iqn, self.chap)


class Kind(Struct, frozen=True):
    """A type of pool: the folders its volumes can be named under, the first being used where none is given.

    `single` types stand once on a host, predefined; `asks` ones must be told the folder, since it
    decides which volumes they have.
    """

    targets: tuple[str, ...]
    single: bool = False
    asks: bool = False


KINDS: Mapping[str, Kind] = {
    "mpath": Kind((MAPPER, MPATH, BY_ID, DEV), single=True),
    "raid": Kind((BY_ID, MD, MAPPER, DEV), single=True),
    "loop": Kind((DEV,), single=True),
    "scsi": Kind((BY_PATH, BY_ID, MAPPER, MPATH, DEV), asks=True),
    "iscsi": Kind((BY_PATH, BY_ID, MAPPER, MPATH, DEV), asks=True),
}


def predefined() -> tuple[Definition, ...]:
    """The pools that every host has."""
    return tuple(
        Definition(type_, type_, kind.targets[0], str(uuid.uuid5(_PREDEFINED, type_)))
        for type_, kind in KINDS.items()
        if kind.single
    )


def checked_name(name: str) -> str:
    """The name, which also is a file's; POOL_NAME_INVALID."""
    if not name:
        problem = "it is empty"
    elif "/" in name:
        problem = "it has a slash"
    elif not name.isprintable():
        problem = "it has a newline or another character that cannot be printed"
    elif name.startswith("."):
        problem = "it begins with a dot"
    elif name != name.strip():
        problem = "it begins or ends with a blank"
    elif len(name.encode()) > _NAME_MAX_BYTES:
        problem = f"it is longer than {_NAME_MAX_BYTES} bytes"
    else:
        return name
    raise _invalid("/pool/name", f"{name[:60]!r} cannot be a pool's name: {problem}", "POOL_NAME_INVALID")


def checked_type(type_: str) -> Kind:
    """The kind of that type; POOL_TYPE_UNKNOWN."""
    if type_ not in KINDS:
        raise _invalid(
            "/pool/@type",
            f"no pool has the type {type_[:60]!r}; there are {', '.join(KINDS)}",
            "POOL_TYPE_UNKNOWN",
        )
    return KINDS[type_]


def checked_target(type_: str, path: str | None) -> str:
    """The target folder, or the type's own where none is given; POOL_TARGET_INVALID."""
    kind = checked_type(type_)
    works = ", ".join(kind.targets)
    if not path:
        if kind.asks:
            message = f"a pool of type {type_} needs a target path, which decides its volumes: {works}"
            raise _invalid("/pool/target/path", message, "POOL_TARGET_INVALID")
        return kind.targets[0]
    folder = normpath(path)
    if folder not in kind.targets:
        message = f"{path[:100]!r} names no volumes of a pool of type {type_}; these do: {works}"
        raise _invalid("/pool/target/path", message, "POOL_TARGET_INVALID")
    return folder


def checked_uuid(text: str | None) -> str:
    """The UUID as libvirt spells it, or a new one."""
    if text is None:
        return str(uuid.uuid4())
    try:
        return str(uuid.UUID(text.strip()))
    except ValueError:
        raise _invalid("/pool/uuid", f"{text[:60]!r} is no UUID") from None


def checked_adapter(name: str) -> Adapter:
    """The SCSI host that libvirt calls host0, scsi_host0 or fc_host0."""
    found = _ADAPTER.fullmatch(name)
    if not found:
        message = f"{name[:60]!r} is no SCSI host; one is called scsi_host0 or host0"
        raise _invalid("/pool/source/adapter/@name", message, "POOL_SOURCE_INVALID")
    return Adapter(number=int(found[1]))


def checked_wwn(text: str) -> str:
    """A Fibre Channel name in small letters, without 0x."""
    found = _WWN.fullmatch(text)
    if not found:
        raise _invalid("/pool/source/adapter", f"{text[:60]!r} is no WWN", "POOL_SOURCE_INVALID")
    return found[1].lower()


def checked_portal(host: str, port: int | None) -> Portal:
    """A host name or address, and a port; nothing that a command line could take for an option."""
    if not _HOST.fullmatch(host) or host.startswith("-"):
        message = f"{host[:60]!r} is neither a host name nor an address"
        raise _invalid("/pool/source/host/@name", message, "POOL_SOURCE_INVALID")
    if port is not None and port not in range(1, 1 << 16):
        raise _invalid("/pool/source/host/@port", f"there is no port {port}", "POOL_SOURCE_INVALID")
    return Portal(host, port)


def checked_iqn(text: str) -> str:
    """An iSCSI target's name: iqn., eui., naa. or a plain word."""
    # A name of this form is also a folder's in open-iscsi's database.
    if not (_IQN.fullmatch(text) or _OTHER_TARGET.fullmatch(text)) or "/" in text:
        message = f"{text[:100]!r} is no iSCSI target; one is called iqn.2026-11.com.example:disks"
        raise _invalid("/pool/source/device/@path", message, "POOL_SOURCE_INVALID")
    return text


def checked_chap(username: str, by: str, secret: str) -> Chap:
    """CHAP credentials; the secret names a file, and a user name stands in a line of a file."""
    if not _SECRET.fullmatch(secret):
        message = f"{secret[:60]!r} names no secret: letters, digits, '.', '_' and '-' do"
        raise _invalid("/pool/source/auth/secret", message, "POOL_SOURCE_INVALID")
    if not username or not username.isprintable() or username.startswith("-"):
        raise _invalid("/pool/source/auth/@username", "the user name cannot be used", "POOL_SOURCE_INVALID")
    return Chap(username, secret, by)


def missing(place: str, what: str, type_: str) -> InvalidError:
    """The refusal of a definition that lacks what its type needs."""
    return _invalid(place, f"a pool of type {type_} needs {what}", "POOL_SOURCE_INVALID")


def _invalid(place: str, message: str, reason: str = "XML_INVALID") -> InvalidError:
    return InvalidError(message, reason=reason, violations=(Violation(place, message),))
