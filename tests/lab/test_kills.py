"""The service dies in the middle of changing arrays, and what it leaves is as good as if it had not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .changing import Host
from .guest import Guest

pytestmark = pytest.mark.lab

PROBE = Path(__file__).with_name("kill_probe.py")
DISKS = ("loop64", "loop65")
ROUNDS = int(os.environ.get("NODEDEV_LAB_KILLS", "5"))
SEED = int(os.environ.get("NODEDEV_LAB_SEED", "1"))
ROUND_SECONDS = 120.0


@pytest.fixture
def host(nodedev_guest: Guest) -> Iterator[Host]:
    """The guest with two small empty disks, on which a sync is short."""
    found = Host(nodedev_guest)
    for disk in DISKS:
        found.attach(disk, "16M")
    yield found
    found.run("rm -rf /run/nodedev-kills", check=False)
    for disk in DISKS:
        found.detach(disk)


def test_killed_while_it_changes_arrays(host: Host) -> None:
    """No orphan, no half definition, a true list; the same change again succeeds, and the data are there."""
    host.guest.put(PROBE, "/root/kill_probe.py")
    told = host.guest.run(
        f"PYTHONPATH=/opt/nodedev python3 /root/kill_probe.py {ROUNDS} {SEED} {' '.join(DISKS)}",
        timeout=ROUND_SECONDS * (ROUNDS + 2),
    ).stdout
    print(told)  # noqa: T201  the counts are of interest by themselves
    result = json.loads(told)
    assert result["problems"] == []
    assert sum(result["kills"].values()) == ROUNDS
