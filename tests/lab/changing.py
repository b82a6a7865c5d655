"""A guest whose service changes it: what the tests of changes share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .guest import Completed, Guest

# Each call starts Python under emulation.
CALL_SECONDS = 180.0
# A process that has a device open: begun when it has, ended when it is gone.
OPEN = "sleep 600 < {0} & echo $! > /run/holder; until test /proc/$!/fd/0 -ef {0}; do sleep 0.1; done"
CLOSE = "kill $(cat /run/holder); while test -d /proc/$(cat /run/holder); do sleep 0.1; done"


@dataclass(frozen=True, slots=True)
class Host:
    """The guest with a running service."""

    guest: Guest

    def run(self, command: str, *, check: bool = True) -> Completed:
        """A shell command in the guest."""
        return self.guest.run(command, timeout=CALL_SECONDS, check=check)

    def create(self, xml: str, *options: str) -> str:
        """The name of the device that was made."""
        return self.run(f"nodedev create - {' '.join(options)} <<'END'\n{xml}\nEND").stdout.strip()

    def refused(self, command: str) -> str:
        """What the program says when it refuses."""
        done = self.run(command, check=False)
        assert done.returncode == 1, done
        return done.stderr

    def not_created(self, xml: str, *options: str) -> str:
        """What is said of a device that cannot be made."""
        return self.refused(f"nodedev create - {' '.join(options)} <<'END'\n{xml}\nEND")

    def names(self, *options: str) -> set[str]:
        """The names of a list."""
        return set(self.run(f"nodedev list -n -o NAME {' '.join(options)}").stdout.split())

    def info(self, handle: str) -> Any:  # noqa: ANN401  JSON
        """A device as JSON."""
        return json.loads(self.run(f"nodedev info {handle} --json").stdout)["device"]

    def raid(self, handle: str) -> Any:  # noqa: ANN401  JSON
        """The raid capability of a device as JSON."""
        return next(found["raid"] for found in self.info(handle)["capabilities"] if "raid" in found)

    def digest(self, node: str) -> str:
        """A checksum over a whole device."""
        return self.run(f"sha256sum < {node}").stdout

    def attach(self, disk: str, size: str = "48M") -> None:
        """An empty loop device of that kernel name."""
        self.run(
            f"rm -f /srv/{disk}.img; truncate -s {size} /srv/{disk}.img; losetup /dev/{disk} /srv/{disk}.img"
        )

    def detach(self, disk: str) -> None:
        """Takes a loop device away; what was on it is gone."""
        self.run(f"losetup -d /dev/{disk}; rm -f /srv/{disk}.img", check=False)


@contextmanager
def changing(guest: Guest, disks: tuple[str, ...]) -> Iterator[Host]:
    """The guest, its service started, with some empty disks, which are gone in the end."""
    found = Host(guest)
    found.run(
        "systemd-run --quiet --unit=nodedev-changes -p Type=notify /usr/local/bin/nodedev"
        " serve --state-dir /run/nodedev-state"
    )
    try:
        for disk in disks:
            found.attach(disk)
        yield found
    finally:
        found.run("systemctl stop nodedev-changes; rm -rf /run/nodedev-state", check=False)
        for disk in disks:
            found.detach(disk)


@contextmanager
def in_use(host: Host, begin: str, end: str) -> Iterator[None]:
    """A device in some use, for as long as the block runs."""
    host.run(begin)
    try:
        yield
    finally:
        host.run(end)


def array_xml(name: str, level: str, *disks: str, more: str = "") -> str:
    """A new array of loop devices."""
    members = "".join(f"<member><device>loop_{disk}</device></member>" for disk in disks)
    return (
        f"<device><capability type='raid'><name>{name}</name><level>{level}</level>{more}{members}"
        "</capability></device>"
    )


def uuid_xml(uuid: str, more: str = "") -> str:
    """The array of a UUID."""
    return f"<device><capability type='raid'><uuid>{uuid}</uuid>{more}</capability></device>"


def map_xml(wwid: str, more: str = "") -> str:
    """The map of a WWID."""
    return f"<device><capability type='mpath'><wwid>{wwid}</wwid>{more}</capability></device>"


def volume_xml(name: str, more: str = "") -> str:
    """The LVM volume of a name."""
    asked = f"<implementation>dm</implementation><name>{name}</name>{more}"
    return f"<device><capability type='raid'>{asked}</capability></device>"
