"""Runs inside the guest, in nodedev's own Python: everything one service says of this host, as JSON.

With it what the other authorities on the same things say at that moment: libudev of the properties that
were read directly, the grammars of the documents, the kernel of what stands on what.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import groupby
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from lxml import etree

from nodedev.capabilities import attributes, kinds
from nodedev.client import Client
from nodedev.facts import udev
from nodedev.facts.live import LiveSource
from nodedev.server.inprocess import in_process
from nodedev.v1 import device_service_pb2 as pb

BLOCK = Path("/sys/class/block")


def sysfs_edges() -> list[tuple[str, str]]:
    """Each block device with each of its slaves, by kernel names; the kernel's holders must agree."""
    below = {(disk.name, each.name) for disk in BLOCK.iterdir() for each in disk.glob("slaves/*")}
    above = {(each.name, disk.name) for disk in BLOCK.iterdir() for each in disk.glob("holders/*")}
    if below != above:
        raise SystemExit(f"the kernel's slaves and holders differ: {below ^ above}")
    return sorted(below)


def stock_violations(xml: str, grammar: etree.RelaxNG) -> list[str]:
    """What libvirt's own grammar has against a document without our capabilities."""
    ours = {kind.type for kind in kinds() if not kind.stock}
    device = etree.fromstring(xml)
    for capability in device.findall("capability"):
        if capability.get("type") in ours:
            device.remove(capability)
    grammar.validate(device)
    return [str(error.message) for error in grammar.error_log]


def udev_differences(source: LiveSource) -> list[str]:
    """Where the properties that were read directly are not libudev's."""
    found: list[str] = []
    for subsystem, devices in groupby(source.scan(), lambda facts: facts.subsystem):
        known = [
            (facts.path, udev.Known(facts.properties, facts.links, facts.initialized)) for facts in devices
        ]
        found += udev.differences(known, subsystem)
    return found


def main() -> None:
    """Prints one JSON object. The arguments are handles, of which each one's topology is asked."""
    source = LiveSource(attributes())
    grammar = etree.RelaxNG(file="/usr/share/libvirt/schemas/nodedev.rng")
    with in_process(source, "live") as address, Client(address, call_seconds=300) as client:
        dumps = {dump.name: dump.xml for dump in client.device_xml().devices}
        directions = (pb.DIRECTION_MEMBERS, pb.DIRECTION_HOLDERS)
        answer = {
            "listed": MessageToDict(client.list_devices(), preserving_proto_field_name=True),
            "dumps": dumps,
            "violations": {
                name: [one.message for one in client.validate(xml).violations] for name, xml in dumps.items()
            },
            "stock_violations": {name: stock_violations(xml, grammar) for name, xml in dumps.items()},
            "topology": MessageToDict(client.topology(), preserving_proto_field_name=True),
            "walks": {
                handle: [list(client.topology([handle], direction).devices) for direction in directions]
                for handle in sys.argv[1:]
            },
            "sysfs_edges": sysfs_edges(),
            "block_devices": sorted(os.listdir("/sys/block")),  # noqa: PTH208
            "udev_differences": udev_differences(LiveSource(attributes())),
        }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
