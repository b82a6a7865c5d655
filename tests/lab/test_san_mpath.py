"""Multipath devices: each word that the kernel, multipathd, iscsiadm and nvme say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedev.v1.capability_pb2 import Mpath

from .seen import Seen, the

pytestmark = pytest.mark.lab


def kernel_groups(words: list[str]) -> Iterator[tuple[str, list[tuple[str, str, int]]]]:
    """The groups of a multipath status line: state, and each path's number, state and failures."""
    rest = iter(words[3:])

    def skip_counted() -> None:
        for _ in range(int(next(rest))):
            next(rest)

    skip_counted()  # features
    skip_counted()  # hardware handler
    groups = int(next(rest))
    next(rest)  # the group to begin with
    for _ in range(groups):
        state = next(rest)
        skip_counted()  # the selector's
        paths, arguments = int(next(rest)), int(next(rest))
        found = []
        for _ in range(paths):
            found.append((next(rest), next(rest), int(next(rest))))
            for _ in range(arguments):
                next(rest)
        yield state, found


def test_maps_are_what_the_kernel_says(seen: Seen) -> None:
    """Groups, their states, and each path's state and failures are those of dmsetup status."""
    states = {"A": "active", "E": "enabled", "D": "disabled"}
    path_states = {"A": "active", "F": "failed"}
    status = seen.dmsetup("dmsetup-status.txt")
    for _, found in seen.every(Mpath):
        if found.implementation != "dm":
            continue
        theirs = [
            (
                states[state],
                [(seen.number(number), path_states[word], count) for number, word, count in paths],
            )
            for state, paths in kernel_groups(status[found.alias])
        ]
        ours = [
            (group.state, [(Path(path.block).name, path.state, path.failures) for path in group.paths])
            for group in found.groups
        ]
        assert ours == theirs, found.alias


def test_maps_are_what_multipathd_says(seen: Seen) -> None:
    """Alias, priorities, checkers, device states, failback and queueing are multipathd's."""
    for theirs in seen.json("multipathd-maps.json")["maps"]:
        device = seen.block(theirs["sysfs"])
        ours = the(device, Mpath)
        assert device.name == f"mpath_{theirs['uuid']}"
        assert (ours.wwid, ours.alias, ours.state) == (theirs["uuid"], theirs["name"], theirs["dm_st"])
        assert [
            (
                group.number,
                group.state,
                group.priority,
                group.selector,
                [
                    (path.block, path.checker, path.device_state, path.priority, path.marginal, path.state)
                    for path in group.paths
                ],
            )
            for group in ours.groups
        ] == [
            (
                group["group"],
                group["dm_st"],
                group["pri"],
                group["selector"],
                [
                    (
                        f"/dev/{path['dev']}",
                        path["chk_st"],
                        path["dev_st"],
                        path["pri"],
                        path["marginal_st"],
                        path["dm_st"],
                    )
                    for path in group["paths"]
                ],
            )
            for group in theirs["path_groups"]
        ]
        handler = theirs["hwhandler"].partition(" ")[2]
        assert ours.hardware_handler == handler
        queueing = "off" if theirs["queueing"] == "-" else theirs["queueing"]
        assert ours.queueing == queueing
        usable = [
            path for group in theirs["path_groups"] for path in group["paths"] if path["chk_st"] == "ready"
        ]
        assert ours.redundancy.usable_paths == len(usable)
        assert ours.health == "optimal"


def sessions(text: str) -> dict[str, tuple[str, str]]:
    """Each iSCSI disk's target and portal, as iscsiadm -P 3 prints them."""
    found = {}
    target = portal = ""
    for line in text.splitlines():
        if opened := re.match(r"Target: (\S+)", line):
            target = opened[1]
        elif opened := re.match(r"\s+Persistent Portal: (\S+),\d+$", line):
            portal = opened[1]
        elif opened := re.search(r"Attached scsi disk (\S+)", line):
            found[f"/dev/{opened[1]}"] = (target, portal)
    return found


def test_transports_are_what_iscsiadm_says(seen: Seen) -> None:
    """Each iSCSI path has its session's target and portal, every other SCSI path goes over virtio."""
    iscsi = sessions(seen.text("iscsi-sessions.txt"))
    assert len(iscsi) == 4
    for _, found in seen.every(Mpath):
        for path in (path for group in found.groups for path in group.paths):
            way = path.transport
            if found.implementation == "nvme":
                assert way.type == "pcie"
            elif path.block in iscsi:
                assert (way.type, (way.target, way.portal)) == ("iscsi", iscsi.pop(path.block))
            else:
                assert way.type == "virtio"
    assert not iscsi


def test_nvme_paths_are_what_nvme_says(seen: Seen) -> None:
    """Native NVMe multipath has the paths of its subsystem, each over its controller."""
    (host,) = seen.json("nvme-subsys.json")
    (subsystem,) = host["Subsystems"]
    ((head, found),) = (pair for pair in seen.every(Mpath) if pair[1].implementation == "nvme")
    assert subsystem["Name"] in head.sysfs_path
    ours = sorted(
        (path.address.controller, path.transport.type, path.transport.address, path.state, path.transport.nqn)
        for group in found.groups
        for path in group.paths
    )
    theirs = [
        (path["Name"], path["Transport"], path["Address"], path["State"], subsystem["NQN"])
        for path in subsystem["Paths"]
    ]
    assert ours == sorted(theirs)
