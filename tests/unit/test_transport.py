"""How a disk is addressed and over what it reaches its storage, from small recorded hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.capabilities import attributes
from nodedev.capabilities._transport import (
    ATTRIBUTES,
    Address,
    Ends,
    Transport,
    address_of,
    ends_of,
    transport_of,
)
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.recorded import RecordedSource

DATA = Path(__file__).parent.parent / "data"
IQN = "iqn.2026-11.com.example:virtimages"


def a_host(recording: str) -> Host:
    """A scanned pass over a recording of tests/data."""
    return Host.scan(RecordedSource.open(DATA / recording, attributes()))


def disk(host: Host, name: str) -> DeviceFacts:
    """The block device of that kernel name."""
    found = host.block(name)
    assert found
    return found


@pytest.mark.parametrize(
    ("recording", "name", "expected"),
    [
        ("mpath-iscsi", "sda", Transport("iscsi", target=IQN, portal="192.0.2.5:3260", state="LOGGED_IN")),
        (
            "mpath-iscsi",
            "sdb",
            Transport("iscsi", target=IQN, portal="[2001:db8::5]:3260", state="LOGGED_IN"),
        ),
        (
            "mpath-fc",
            "sdb",
            Transport(
                "fc",
                wwpn="0x500a098000000002",
                wwnn="0x500a098000000000",
                host_wwpn="0x10000090fa000002",
                state="Blocked",
            ),
        ),
        (
            "mpath-sas",
            "sdb",
            Transport("sas", sas_address="0x5000c50000000002", host_sas_address="0x500605b000000001"),
        ),
        (
            "mpath-nvme",
            "nvme0c1n1",
            Transport("pcie", nqn="nqn.2019-08.org.qemu:sub0", address="0000:00:07.0", state="live"),
        ),
        (
            "mpath-nvme",
            "nvme2c10n1",
            Transport(
                "tcp",
                nqn="nqn.2014-08.com.example:array",
                address="traddr=192.0.2.9,trsvcid=4420",
                state="connecting",
            ),
        ),
        ("mpath-nvme", "nvme6n1", Transport("pcie", nqn="nqn.local", address="0000:00:0a.0", state="live")),
        ("buses", "sdu", Transport("usb", address="0000:00:14.0")),
        ("buses", "sdt", Transport("ata", address="0000:00:1f.2")),
        ("buses", "vda", Transport("virtio", address="0000:00:08.0")),
        (
            "buses",
            "sds",
            Transport("srp", target="0x0002c90300a1b2c3", address="fe80:0000:0000:0000:0002:c903:00a1:b2c4"),
        ),
        ("buses", "sdr", None),
        ("buses", "sdv", None),
    ],
)
def test_transports(recording: str, name: str, expected: Transport | None) -> None:
    """Each transport is told by the sysfs path and its class devices, an unknown one is none."""
    host = a_host(recording)

    assert transport_of(disk(host, name), host) == expected


def test_npiv_port_is_the_initiator() -> None:
    """A disk behind a virtual FC port names that port, though the remote port's class has no device."""
    host = a_host("buses")

    assert transport_of(disk(host, "sdn"), host) == Transport("fc", host_wwpn="0x2100000000000008")


@pytest.mark.parametrize(
    ("recording", "name", "expected"),
    [
        ("mpath-iscsi", "sdb", Address("scsi", host=5, bus=0, target=0, unit=1)),
        ("mpath-nvme", "nvme0c1n1", Address("nvme", controller="nvme1", namespace=1)),
        ("mpath-nvme", "nvme6n1", Address("nvme", controller="nvme6", namespace=1)),
        ("mpath-nvme", "nvme0n1", None),
        ("buses", "vda", None),
        ("buses", "sdn", Address("scsi", host=8, bus=0, target=2)),
    ],
)
def test_addresses(recording: str, name: str, expected: Address | None) -> None:
    """SCSI disks and NVMe paths have an address, a LUN beyond int64 is left out of it."""
    host = a_host(recording)

    assert address_of(disk(host, name)) == expected


@pytest.mark.parametrize(
    ("recording", "name", "expected"),
    [
        ("mpath-iscsi", "sda", Ends("192.0.2.101", f"{IQN} 192.0.2.5:3260")),
        ("mpath-fc", "sda", Ends("0000:05:00.0", "0x500a098000000001")),
        ("mpath-sas", "sda", Ends("0000:02:00.0", "0x5000c50000000001")),
        ("mpath-nvme", "nvme0c0n1", Ends("0000:00:06.0", "0000:00:06.0")),
        ("mpath-nvme", "nvme2c2n1", Ends("192.0.2.100", "192.0.2.7 4420")),
        ("mpath-nvme", "nvme2c10n1", Ends(None, "192.0.2.9 4420")),
        ("mpath-nvme", "nvme4c6n1", Ends("nn-0x100000:pn-0x100001", "nn-0x200000:pn-0x200004")),
        ("buses", "sds", Ends("0000:04:00.0", "0x0002c90300a1b2c3 fe80:0000:0000:0000:0002:c903:00a1:b2c4")),
        ("buses", "sdr", Ends("0000:01:00.0", None)),
        (
            "buses",
            "sdv",
            Ends("/devices/LNXSYSTM:00/VMBUS:00/f8b3781a-1e82-4818-a1c3-63d806ec15bb/host3", None),
        ),
    ],
)
def test_ends(recording: str, name: str, expected: Ends) -> None:
    """Adapter and target port are words that are equal where they are the same, none where unknown."""
    host = a_host(recording)
    facts = disk(host, name)

    assert ends_of(facts, transport_of(facts, host), host) == expected


def test_secrets_are_not_read() -> None:
    """No attribute that may hold a CHAP name or password is asked for, and so none is in the facts."""
    session = a_host("mpath-iscsi").find("iscsi_session", "session1")

    assert session
    assert not {"username", "password"} & session.attributes.keys()
    assert not any("pass" in name or "user" in name for names in ATTRIBUTES.values() for name in names)


components = st.sampled_from(
    [
        "host1",
        "session3",
        "rport-0:0-1",
        "end_device-0:1",
        "virtio2",
        "usb1",
        "ata4",
        "nvme0",
        "0000:00:04.0",
        "x",
    ]
)


@given(st.lists(components, max_size=6), st.sampled_from(["1:0:0:0/block/sda", "nvme0c1n1", "block/vda"]))
def test_any_path_is_told(middle: list[str], end: str) -> None:
    """Whatever stands in a sysfs path, and however little of it is recorded, nothing raises."""
    host = a_host("buses")
    path = "/".join(["/devices", *middle, end])
    facts = DeviceFacts(path=path, subsystem="block", properties={}, attributes={}, symlinks={})

    transport = transport_of(facts, host)

    assert ends_of(facts, transport, host).target_port is None
    assert address_of(facts) is None or "block/vda" not in path
