"""How a disk is addressed on this host, and over what it reaches its storage.

Follows the kernel's transport classes (drivers/scsi/scsi_transport_{iscsi,fc,sas}.c, ib_srp) and
drivers/nvme/host/sysfs.c. The objects between a disk and its adapter (session1, rport-0:0-1,
end_device-0:0:1) stand in the disk's sysfs path but carry no attributes of their own: those are in
the class device of the same name. So a disk costs one match of its path and a few lookups by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from msgspec import Struct

from nodedev.facts.host import DeviceFacts, Host
from nodedev.fields import Attribute

# iscsi_session also has username and password: never listed here, so never read.
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "block": ("nsid",),
    "scsi_host": ("host_sas_address", "ioc_guid", "dgid"),
    "iscsi_host": ("ipaddress",),
    "iscsi_session": ("targetname", "state"),
    "iscsi_connection": ("persistent_address", "persistent_port", "address", "port"),
    "fc_remote_ports": ("port_name", "node_name", "port_state"),
    "fc_host": ("port_name",),
    "sas_device": ("sas_address",),
    "nvme": ("transport", "address", "state", "subsysnqn"),
}

_SCSI = re.compile(r"/(\d+):(\d+):(\d+):(\d+)/block/")
_HOST = re.compile(r".*/(host\d+)(?=/)")
_PCI = re.compile(r".*/([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/")
_LINK = re.compile(r"/(?:session(\d+)|(rport-\d+:\d+-\d+)|(end_device-[\d:]+))/")
_CONTROLLER = re.compile(r"/(nvme\d+)/nvme\d+(?:c\d+)?n\d+(?:/|$)")
_BUS = re.compile(r".*/(?:(virtio)|(usb)|(ata))\d+/")

_INT64_MAX = 2**63 - 1
# What the kernel and open-iscsi print for a value that was never set.
_UNSET = frozenset({"(null)", "<NULL>", "[default]", "default"})


class Address(Struct, frozen=True):
    """Where a path stands on this host; SCSI fields for a SCSI disk, NVMe ones for a namespace."""

    type: Annotated[str, Attribute()]
    host: Annotated[int | None, Attribute()] = None
    bus: Annotated[int | None, Attribute()] = None
    target: Annotated[int | None, Attribute()] = None
    unit: Annotated[int | None, Attribute()] = None
    controller: Annotated[str | None, Attribute()] = None
    namespace: Annotated[int | None, Attribute()] = None


class Transport(Struct, frozen=True):
    """How a path reaches the storage; what the transport does not have is None."""

    type: Annotated[str, Attribute()]
    target: Annotated[str | None, Attribute()] = None
    portal: Annotated[str | None, Attribute()] = None
    wwpn: Annotated[str | None, Attribute()] = None
    wwnn: Annotated[str | None, Attribute()] = None
    host_wwpn: Annotated[str | None, Attribute()] = None
    sas_address: Annotated[str | None, Attribute()] = None
    host_sas_address: Annotated[str | None, Attribute()] = None
    nqn: Annotated[str | None, Attribute()] = None
    address: Annotated[str | None, Attribute()] = None
    state: Annotated[str | None, Attribute()] = None


class Ends(Struct, frozen=True):
    """The two ends of a path, in words that are equal where the end is the same one."""

    adapter: str | None
    target_port: str | None


def address_of(facts: DeviceFacts) -> Address | None:
    """A SCSI disk's or an NVMe namespace's address; None for any other block device."""
    if scsi := _SCSI.search(facts.path):
        host, bus, target, unit = map(int, scsi.groups())
        # The kernel's LUN has 64 bits, the last of which no array uses and no int64 holds.
        return Address("scsi", host=host, bus=bus, target=target, unit=unit if unit <= _INT64_MAX else None)
    if controller := _CONTROLLER.search(facts.path):
        return Address("nvme", controller=controller[1], namespace=facts.number("nsid"))
    return None


def transport_of(facts: DeviceFacts, host: Host) -> Transport | None:
    """The transport behind a disk; None where sysfs does not tell which it is (a RAID card's volume)."""
    controller = controller_of(facts, host)
    if controller:
        return _nvme(controller)
    link = _LINK.search(facts.path)
    if link:
        session, rport, end_device = link.groups()
        if session:
            return _iscsi(session, host)
        return _fc(rport, facts, host) if rport else _sas(end_device, facts, host)
    scsi_host = _class_device("scsi_host", _HOST.match(facts.path), host)
    # ib_srp alone of the SCSI hosts has the I/O controller's GUID.
    if scsi_host and scsi_host.text("ioc_guid"):
        return Transport("srp", target=scsi_host.text("ioc_guid"), address=scsi_host.text("dgid"))
    bus = _BUS.match(facts.path)
    return Transport(bus[1] or bus[2] or bus[3], address=_pci(facts.path)) if bus else None


def controller_of(facts: DeviceFacts, host: Host) -> DeviceFacts | None:
    """The NVMe controller that a namespace, or a path of one, belongs to."""
    found = _CONTROLLER.search(facts.path)
    return host.find("nvme", found[1]) if found else None


def ends_of(facts: DeviceFacts, transport: Transport | None, host: Host) -> Ends:
    """Which adapter and which target port a path runs through, as far as they can be told apart.

    The adapter is the PCI function nearest to the disk, so that two ports of an HBA that are two
    functions count as two, and two NPIV ports of one function as one. Without PCI it is the source
    address of a software iSCSI session or an NVMe connection, else the SCSI host. The target port is
    the iSCSI portal, the FC or SAS port, the SRP port, or the NVMe controller's transport address;
    virtio, USB and ATA name none.
    """
    return Ends(_adapter(facts, transport, host), _target_port(transport))


def _adapter(facts: DeviceFacts, transport: Transport | None, host: Host) -> str | None:
    if pci := _pci(facts.path):
        return pci
    if transport and transport.type == "iscsi":
        initiator = _class_device("iscsi_host", _HOST.match(facts.path), host)
        return _set(initiator, "ipaddress") if initiator else None
    if transport and transport.nqn:
        # src_addr since Linux 6.1; host_traddr is there only if the connection was made with it.
        options = _options(transport.address)
        return options.get("src_addr") or options.get("host_traddr") or options.get("host_iface")
    scsi_host = _HOST.match(facts.path)
    return scsi_host[0] if scsi_host else None


def _target_port(transport: Transport | None) -> str | None:
    match transport:
        case Transport(type="iscsi", target=str(target), portal=str(portal)):
            return f"{target} {portal}"
        case Transport(type="srp", target=str(target), address=str(address)):
            return f"{target} {address}"
        case Transport(nqn=str(), address=str(address)):
            options = _options(address)
            return " ".join(filter(None, (options.get("traddr", address), options.get("trsvcid"))))
        case Transport(wwpn=str(port)) | Transport(sas_address=str(port)):
            return port
    return None


def _iscsi(number: str, host: Host) -> Transport:
    session = host.find("iscsi_session", f"session{number}")
    # Linux' initiators keep one connection a session, number 0.
    connection = host.find("iscsi_connection", f"connection{number}:0")
    return Transport(
        "iscsi",
        target=_set(session, "targetname"),
        portal=_portal(connection) if connection else None,
        state=_set(session, "state"),
    )


def _portal(connection: DeviceFacts) -> str | None:
    """The portal that was logged in to, where a redirected login may stand elsewhere now."""
    for address, port in (("persistent_address", "persistent_port"), ("address", "port")):
        where, number = _set(connection, address), _set(connection, port)
        if where and number:
            return f"[{where}]:{number}" if ":" in where else f"{where}:{number}"
    return None


def _fc(rport: str, facts: DeviceFacts, host: Host) -> Transport:
    port = host.find("fc_remote_ports", rport)
    initiator = _class_device("fc_host", _HOST.match(facts.path), host)
    return Transport(
        "fc",
        wwpn=_set(port, "port_name"),
        wwnn=_set(port, "node_name"),
        host_wwpn=_set(initiator, "port_name"),
        state=_set(port, "port_state"),
    )


def _sas(end_device: str, facts: DeviceFacts, host: Host) -> Transport:
    scsi_host = _class_device("scsi_host", _HOST.match(facts.path), host)
    return Transport(
        "sas",
        sas_address=_set(host.find("sas_device", end_device), "sas_address"),
        host_sas_address=_set(scsi_host, "host_sas_address"),
    )


def _nvme(controller: DeviceFacts) -> Transport | None:
    kind = controller.text("transport")
    if kind is None:
        return None
    return Transport(
        kind,
        nqn=controller.text("subsysnqn"),
        address=controller.text("address"),
        state=controller.text("state"),
    )


def _class_device(subsystem: str, found: re.Match[str] | None, host: Host) -> DeviceFacts | None:
    return host.find(subsystem, found[1]) if found else None


def _set(facts: DeviceFacts | None, attribute: str) -> str | None:
    value = facts.text(attribute) if facts else None
    return None if value in _UNSET else value


def _pci(path: str) -> str | None:
    found = _PCI.match(path)
    return found[1] if found else None


def _options(address: str | None) -> Mapping[str, str]:
    """A fabrics address, `traddr=10.0.0.1,trsvcid=4420,src_addr=10.0.0.2`, by its keys."""
    pairs = (part.partition("=") for part in (address or "").split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if value}
