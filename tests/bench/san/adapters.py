"""PCI functions, SCSI hosts and what their transports add: Fibre Channel, iSCSI (scsi_transport_*.c), SAS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nodedev.facts.umockdev import Stanza
from tests.bench.san.layout import ARRAY_DISKS, FC_HOSTS, IQN, ISCSI_HOSTS, PCI, PORTS, SAS_HOST, San, wwpn
from tests.bench.san.stanza import class_device, stanza


def adapters(san: San) -> Iterator[Stanza]:
    """The machine, its adapters, and what their transports see."""
    dmi = {"sys_vendor": "ACME", "product_name": "SAN Host", "product_serial": "1", "bios_vendor": "ACME"}
    yield stanza("/devices/virtual/dmi/id", "dmi", {}, dmi)
    yield _pci(PCI, "8086:2030", "60400", "pcieport")
    for host in FC_HOSTS:
        pci = f"{PCI}/0000:3b:00.{host - 1}"
        yield _pci(pci, "10DF:F400", "C0400", "lpfc")
        yield from _scsi_host(f"{pci}/host{host}", {"proc_name": "lpfc"})
        ports = {"node_name": f"0x200000109b00000{host}", "port_name": f"0x100000109b00000{host}"}
        ports |= {"fabric_name": "0x1000c4f57c000001", "max_npiv_vports": "255", "npiv_vports_inuse": "0"}
        yield class_device(f"{pci}/host{host}", "fc_host", ports)
        for port in range(PORTS):
            names = {"port_name": f"0x{wwpn(host, port)}", "node_name": "0x2000d039ea000001"}
            names["port_state"] = "Online"
            yield class_device(f"{pci}/host{host}/rport-{host}:0-{port}", "fc_remote_ports", names)
    for host in ISCSI_HOSTS:
        base = f"/devices/platform/host{host}"
        yield from _scsi_host(base, {"proc_name": "iscsi_tcp"})
        yield class_device(base, "iscsi_host", {"ipaddress": f"10.0.{host}.100"})
        session = {"targetname": IQN, "state": "LOGGED_IN"}
        yield class_device(f"{base}/session{host}", "iscsi_session", session)
        portal = {"persistent_address": f"10.0.{host}.1", "persistent_port": "3260"}
        portal |= {"address": f"10.0.{host}.1", "port": "3260"}
        yield class_device(f"{base}/session{host}/connection{host}:0", "iscsi_connection", portal)
    pci = f"{PCI}/0000:3b:01.0"
    yield _pci(pci, "1000:0097", "10700", "mpt3sas")
    base = f"{pci}/host{SAS_HOST}"
    yield from _scsi_host(base, {"proc_name": "mpt3sas", "host_sas_address": "0x500605b000000001"})
    for number in range(san.arrays * ARRAY_DISKS):
        end_device = f"{base}/port-{SAS_HOST}:{number}/end_device-{SAS_HOST}:{number}"
        yield class_device(end_device, "sas_device", {"sas_address": f"0x5000c500{number:08x}"})


def _scsi_host(base: str, attributes: Mapping[str, str]) -> Iterator[Stanza]:
    yield stanza(base, "scsi", {"DEVTYPE": "scsi_host"})
    number = base.rpartition("/host")[2]
    yield class_device(base, "scsi_host", {"unique_id": number, "state": "running", **attributes})


def _pci(path: str, identity: str, class_: str, driver: str) -> Stanza:
    slot = path.rpartition("/")[2]
    vendor, device = identity.split(":")
    properties = {
        "DRIVER": driver,
        "PCI_CLASS": class_,
        "PCI_ID": identity,
        "PCI_SUBSYS_ID": identity,
        "PCI_SLOT_NAME": slot,
        "ID_PATH": f"pci-{slot}",
        "MODALIAS": f"pci:v0000{vendor}d0000{device}",
    }
    attributes = {"class": f"0x{class_.lower():>06}", "vendor": f"0x{vendor.lower()}", "numa_node": "0"}
    attributes["device"] = f"0x{device.lower()}"
    return stanza(
        path,
        "pci",
        properties,
        attributes,
        {"driver": f"{'../' * path.count('/')}bus/pci/drivers/{driver}"},
    )
