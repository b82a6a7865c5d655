"""A pool, a volume and a guest's disk as libvirt's XML.

Follows libvirt's storagepool.rng and storagevol.rng, to which our mpath, scsi and iscsi documents are
valid as they stand. Of a pool's document what only tells of a pool (sizes, permissions) is passed over
on reading; what is unknown is refused. A password has no place in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from msgspec import Struct

from nodedev.documents import read_element
from nodedev.errors import InvalidError, Violation
from nodedev.facts.nodes import Permissions
from nodedev.fields import Attribute, Element, Text
from nodedev.pools import definition as defined
from nodedev.pools.definition import Adapter, Definition, PciAddress
from nodedev.pools.volumes import Volume
from nodedev.xml import element_xml

_BYTES = "bytes"
_TARGET_DEVICE = re.compile(r"[a-z]{2,4}[0-9a-z]{0,8}", re.ASCII)
_BUSES = {"vd": "virtio", "sd": "scsi", "hd": "ide", "xvd": "xen", "ubd": "uml", "fd": "fdc"}


class _Size(Struct, frozen=True):
    value: Annotated[str, Text()]
    unit: Annotated[str | None, Attribute()] = None


class _Host(Struct, frozen=True):
    name: Annotated[str, Attribute()]
    port: Annotated[int | None, Attribute()] = None


class _SourceDevice(Struct, frozen=True):
    path: Annotated[str, Attribute()]


class _Pci(Struct, frozen=True):
    domain: Annotated[str | None, Attribute()] = None
    bus: Annotated[str | None, Attribute()] = None
    slot: Annotated[str | None, Attribute()] = None
    function: Annotated[str | None, Attribute()] = None


class _ParentAddress(Struct, frozen=True):
    address: _Pci
    unique_id: Annotated[int | None, Attribute()] = None


class _Adapter(Struct, frozen=True):
    type: Annotated[str | None, Attribute()] = None
    name: Annotated[str | None, Attribute()] = None
    managed: Annotated[bool | None, Attribute()] = None
    wwnn: Annotated[str | None, Attribute()] = None
    wwpn: Annotated[str | None, Attribute()] = None
    parent_address: Annotated[_ParentAddress | None, Element("parentaddr")] = None


class _Secret(Struct, frozen=True):
    uuid: Annotated[str | None, Attribute()] = None
    usage: Annotated[str | None, Attribute()] = None


class _Auth(Struct, frozen=True):
    secret: _Secret
    type: Annotated[str, Attribute()]
    username: Annotated[str, Attribute()]


class _Named(Struct, frozen=True):
    name: Annotated[str, Attribute()]


class _Source(Struct, frozen=True):
    hosts: Annotated[tuple[_Host, ...], Element("host")] = ()
    device: _SourceDevice | None = None
    adapter: _Adapter | None = None
    auth: _Auth | None = None
    vendor: _Named | None = None
    product: _Named | None = None


class _Permissions(Struct, frozen=True):
    mode: str | None = None
    owner: int | None = None
    group: int | None = None
    label: str | None = None


class _Target(Struct, frozen=True):
    path: str | None = None
    permissions: _Permissions | None = None


class _Pool(Struct, frozen=True):
    type: Annotated[str, Attribute()]
    name: str
    uuid: str | None = None
    capacity: _Size | None = None
    allocation: _Size | None = None
    available: _Size | None = None
    source: _Source | None = None
    target: _Target | None = None


def read_pool(text: bytes | str, uuid_of: Callable[[str], str | None] = lambda _: None) -> Definition:
    """The definition that a document is of; without a UUID in it that of the pool's name, or a new one.

    Errors: XML_INVALID, POOL_TYPE_UNKNOWN, POOL_NAME_INVALID, POOL_SOURCE_INVALID, POOL_TARGET_INVALID.
    """
    pool = read_element(_Pool, text, "pool")
    defined.checked_type(pool.type)
    name = defined.checked_name(pool.name)
    source = pool.source or _Source()
    _refuse_foreign(pool.type, source)
    adapter = _adapter(source) if pool.type == "scsi" else None
    portals, iqn = (_portals(source), _iqn(source)) if pool.type == "iscsi" else ((), None)
    return Definition(
        type=pool.type,
        name=name,
        target=defined.checked_target(pool.type, pool.target.path if pool.target else None),
        uuid=defined.checked_uuid(pool.uuid or uuid_of(name)),
        adapter=adapter,
        portals=portals,
        iqn=iqn,
        chap=_chap(source.auth) if source.auth else None,
    )


def _refuse_foreign(type_: str, source: _Source) -> None:
    """What the source of another type has, so that no wish is ignored."""
    allowed = {"scsi": {"adapter"}, "iscsi": {"hosts", "device", "auth"}}.get(type_, set())
    given = {"hosts": source.hosts, "device": source.device, "adapter": source.adapter, "auth": source.auth}
    for field, value in given.items():
        if value and field not in allowed:
            message = f"a pool of type {type_} has no such source"
            raise InvalidError(
                message,
                reason="POOL_SOURCE_INVALID",
                violations=(Violation(f"/pool/source/{field.removesuffix('s')}", message),),
            )


def _portals(source: _Source) -> tuple[defined.Portal, ...]:
    if not source.hosts:
        raise defined.missing("/pool/source", "<host name='...'/> in its source", "iscsi")
    return tuple(defined.checked_portal(host.name, host.port) for host in source.hosts)


def _iqn(source: _Source) -> str:
    if source.device is None:
        raise defined.missing("/pool/source", "<device path='iqn...'/> in its source", "iscsi")
    return defined.checked_iqn(source.device.path)


def _chap(auth: _Auth) -> defined.Chap:
    by = "uuid" if auth.secret.uuid else "usage"
    if auth.type != "chap":
        raise defined.missing("/pool/source/auth/@type", "an <auth> of type chap", "iscsi")
    return defined.checked_chap(auth.username, by, auth.secret.uuid or auth.secret.usage or "")


def _adapter(source: _Source) -> Adapter:
    found = source.adapter
    if found is None:
        raise defined.missing("/pool/source", "<adapter name='scsi_host0'/> in its source", "scsi")
    if found.wwnn and found.wwpn:
        return Adapter(wwnn=defined.checked_wwn(found.wwnn), wwpn=defined.checked_wwn(found.wwpn))
    if found.parent_address:
        return Adapter(pci=_pci(found.parent_address.address), unique_id=found.parent_address.unique_id)
    if not found.name:
        what = "an adapter by name, by <parentaddr>, or by wwnn and wwpn"
        raise defined.missing("/pool/source/adapter", what, "scsi")
    return defined.checked_adapter(found.name)


def _pci(address: _Pci) -> PciAddress:
    try:
        # libvirt writes these in hexadecimal with 0x, and reads decimal ones as well.
        parts = (address.domain, address.bus, address.slot, address.function)
        return PciAddress(*(int(part or "0", 0) for part in parts))
    except ValueError:
        raise defined.missing("/pool/source/adapter/parentaddr", "a PCI address in numbers", "scsi") from None


def pool_xml(pool: Definition, capacity_bytes: int | None = None) -> str:
    """The pool's document; with its volumes' sizes where they are told. All of it is always allocated."""
    source = _Source(
        hosts=tuple(_Host(portal.host, portal.port) for portal in pool.portals),
        device=_SourceDevice(pool.iqn) if pool.iqn else None,
        adapter=_adapter_shape(pool.adapter) if pool.adapter else None,
        auth=_auth_shape(pool.chap) if pool.chap else None,
    )
    size = None if capacity_bytes is None else _Size(str(capacity_bytes), _BYTES)
    document = _Pool(
        type=pool.type,
        name=pool.name,
        uuid=pool.uuid,
        capacity=size,
        allocation=size,
        available=None if size is None else _Size("0", _BYTES),
        source=source,
        target=_Target(pool.target),
    )
    return element_xml(document, "pool")


def _auth_shape(chap: defined.Chap) -> _Auth:
    secret = _Secret(uuid=chap.secret) if chap.by == "uuid" else _Secret(usage=chap.secret)
    return _Auth(secret, "chap", chap.username)


def _adapter_shape(adapter: Adapter) -> _Adapter:
    if adapter.pci:
        address = _Pci(*(f"0x{part:02x}" for part in _parts(adapter.pci)))
        return _Adapter(type="scsi_host", parent_address=_ParentAddress(address, adapter.unique_id))
    if adapter.wwnn:
        return _Adapter(type="fc_host", wwnn=adapter.wwnn, wwpn=adapter.wwpn)
    return _Adapter(type="scsi_host", name=f"scsi_host{adapter.number}")


def _parts(pci: PciAddress) -> tuple[int, int, int, int]:
    return (pci.domain, pci.bus, pci.slot, pci.function)


class _VolumeSource(Struct, frozen=True):
    devices: Annotated[tuple[_SourceDevice, ...], Element("device")] = ()


class _VolumeShape(Struct, frozen=True):
    type: Annotated[str, Attribute()]
    name: str
    key: str | None
    source: _VolumeSource
    capacity: _Size | None
    allocation: _Size | None
    target: _Target


def volume_xml(volume: Volume, permissions: Permissions | None = None) -> str:
    """The volume's document; what it is made of stands as devices in its source."""
    size = None if volume.capacity_bytes is None else _Size(str(volume.capacity_bytes), _BYTES)
    mode = None
    if permissions:
        mode = _Permissions(f"0{permissions.mode:o}", permissions.owner, permissions.group)
    document = _VolumeShape(
        type="block",
        name=volume.name,
        key=volume.key,
        source=_VolumeSource(
            tuple(_SourceDevice(found.path) for found in volume.constituents if found.path is not None)
        ),
        capacity=size,
        allocation=size,
        target=_Target(volume.path, mode),
    )
    return element_xml(document, "volume")


class _Driver(Struct, frozen=True):
    name: Annotated[str, Attribute()] = "qemu"
    type: Annotated[str, Attribute()] = "raw"


class _DiskSource(Struct, frozen=True):
    dev: Annotated[str, Attribute()]


class _DiskTarget(Struct, frozen=True):
    dev: Annotated[str, Attribute()]
    bus: Annotated[str, Attribute()]


class _Empty(Struct, frozen=True):
    """An element without content."""


class _Disk(Struct, frozen=True):
    type: Annotated[str, Attribute()]
    device: Annotated[str, Attribute()]
    driver: _Driver
    source: _DiskSource
    target: _DiskTarget
    read_only: Annotated[_Empty | None, Element("readonly")] = None


def disk_xml(volume: Volume, target: str) -> str:
    """The volume as a guest's disk of that name there (vda, sdb), by a path that stays the volume's.

    Errors: ARGUMENT_INVALID for a name that no disk of a guest can have. Claims are the caller's to judge.
    """
    bus = next((bus for prefix, bus in _BUSES.items() if target.startswith(prefix)), None)
    if bus is None or not _TARGET_DEVICE.fullmatch(target):
        message = f"{target[:20]!r} is no disk of a guest; one is called vda, sdb or hdc"
        raise InvalidError(message, violations=(Violation("target", message),))
    disk = _Disk(
        type="block",
        device="disk",
        driver=_Driver(),
        source=_DiskSource(volume.stable_path),
        target=_DiskTarget(target, bus),
        read_only=_Empty() if volume.read_only else None,
    )
    return element_xml(disk, "disk")
