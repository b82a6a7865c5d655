"""In the guest: each kind of change reaches a watch, and its copy ends equal to a fresh scan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .guest import Guest

pytestmark = pytest.mark.lab

PROBE = Path(__file__).with_name("watch_probe.py")
SERVE = (
    "systemd-run --quiet --collect --unit nodedev-watch nodedev serve --runtime-dir /run/nodedev-watch;"
    " for i in $(seq 300); do nodedev --connect unix:/run/nodedev-watch/nodedev-ro.sock list >/dev/null 2>&1"
    " && exit 0; sleep 0.2; done; exit 1"
)
PROBE_SECONDS = 900


def test_every_change_arrives(nodedev_guest: Guest) -> None:
    """Paths, LUNs, sessions, arrays, loops and mounts: each change is seen, and nothing is left over."""
    nodedev_guest.put(PROBE, "/root/watch_probe.py")
    try:
        nodedev_guest.run(SERVE, timeout=PROBE_SECONDS)
        told = nodedev_guest.run(
            "PYTHONPATH=/opt/nodedev python3 /root/watch_probe.py unix:/run/nodedev-watch/nodedev-ro.sock",
            timeout=PROBE_SECONDS,
        ).stdout
    finally:
        nodedev_guest.run("systemctl stop nodedev-watch", check=False)
    result = json.loads(told)
    assert [step for step, arrived in result["seen"].items() if not arrived] == []
    assert result["differences"] == []
