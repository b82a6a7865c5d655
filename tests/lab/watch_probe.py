"""Runs in the guest: holds a watch, changes the host step by step, and tells what the watch came to say.

Prints one JSON object: for each step whether its change arrived, and what differs at the end between
the watch's copy and a fresh scan.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from nodedev.capabilities import attributes
from nodedev.client import DeviceWatch, Update
from nodedev.discovery import Discovery
from nodedev.facts.host import Host
from nodedev.facts.live import LiveSource
from nodedev.proto import device_message

STEP_SECONDS = 120.0
SETTLE_SECONDS = 60.0

Copy = dict[str, dict[str, object]]


def shell(command: str) -> str:
    """Runs a command, and gives what it prints."""
    done = subprocess.run(["/bin/bash", "-ec", command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr or done.stdout}")
    return done.stdout.strip()


def capability(device: Message, type_: str) -> dict[str, object] | None:
    """The device's capability as JSON has it."""
    for found in MessageToDict(device, preserving_proto_field_name=True).get("capabilities", []):
        if type_ in found:
            value = found[type_]
            assert isinstance(value, dict)
            return value
    return None


class Probe:
    """The watch, and what was seen."""

    def __init__(self, address: str) -> None:
        self.watch = DeviceWatch(address)
        self.updates: AsyncIterator[Update] = aiter(self.watch)
        self.seen: dict[str, bool] = {}

    def named(self, type_: str, field: str, value: str) -> dict[str, object] | None:
        """The capability of the device that has that value in a field."""
        for device in self.watch.devices.values():
            found = capability(device, type_)
            if found and found.get(field) == value:
                return found
        return None

    async def step(self, name: str, command: str, arrived: Callable[[], bool]) -> None:
        """Runs a command and waits for what it must change in the copy."""
        await asyncio.to_thread(shell, command)
        try:
            async with asyncio.timeout(STEP_SECONDS):
                while not arrived():
                    await anext(self.updates)
        except TimeoutError:
            # A cancelled iterator is at its end; another goes on from the same copy.
            self.updates = aiter(self.watch)
        self.seen[name] = arrived()

    def path_states(self, alias: str) -> set[object]:
        """The kernel's states of a map's paths."""
        found = self.named("mpath", "alias", alias) or {}
        groups = found.get("groups", [])
        assert isinstance(groups, list)
        return {path.get("state") for group in groups for path in group["paths"]}

    def health(self, type_: str, field: str, value: str) -> object:
        """The health of a map or an array."""
        return (self.named(type_, field, value) or {}).get("health")

    def node(self, node: str) -> Message | None:
        """The device of that node."""
        return next((device for device in self.watch.devices.values() if device.devnode == node), None)

    async def differences(self) -> list[str]:
        """What differs from a fresh scan, once the host has come to rest."""
        different: list[str] = ["not compared"]
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while different:
                    different = await asyncio.to_thread(self._differences)
                    if different:
                        await anext(self.updates)
        except TimeoutError:
            pass
        return different

    def _differences(self) -> list[str]:
        found = Discovery().survey(Host.scan(LiveSource(attributes())))
        fresh = {device.name: device_message(device) for device in found.devices}
        copy = self.watch.devices
        return [
            f"{name}: {copy.get(name)} in the copy, {fresh.get(name)} in the scan"
            for name in sorted(copy.keys() | fresh.keys())
            if copy.get(name) != fresh.get(name)
        ]


async def main(address: str) -> None:
    """All steps, one after the other."""
    probe = Probe(address)
    await anext(probe.updates)
    before = set(probe.watch.devices)
    first, *_ = shell("ls /sys/block/dm-0/slaves").split()
    down = shell("multipathd show paths raw format '%d %m' | awk '$2 == \"mpathc\" {print $1}'").split()
    victim = shell(f"realpath /sys/block/{first}/device")
    alias = shell("cat /sys/block/dm-0/dm/name")
    host = victim.rpartition("/")[2].split(":")[0]

    await probe.step(
        "a path fails", f"multipathd fail path {first}", lambda: "failed" in probe.path_states(alias)
    )
    await probe.step(
        "it is restored", f"multipathd reinstate path {first}", lambda: probe.path_states(alias) == {"active"}
    )
    offline = "; ".join(
        f"echo offline > /sys/block/{disk}/device/state; multipathd fail path {disk}" for disk in down
    )
    await probe.step("all paths fail", offline, lambda: probe.health("mpath", "alias", "mpathc") == "failed")
    running = "; ".join(
        f"echo running > /sys/block/{disk}/device/state; multipathd reinstate path {disk}" for disk in down
    )
    await probe.step("all are back", running, lambda: probe.health("mpath", "alias", "mpathc") == "optimal")
    gone = f"/dev/{first}"
    await probe.step("a LUN goes", f"echo 1 > {victim}/delete", lambda: probe.node(gone) is None)
    await probe.step(
        "a LUN comes",
        f"echo '- - -' > /sys/class/scsi_host/host{host}/scan",
        lambda: set(probe.watch.devices) >= before and len(probe.path_states(alias)) == 1,
    )
    count = len(probe.watch.devices)
    await probe.step(
        "an iSCSI session goes",
        "iscsiadm -m node -p 127.0.0.2 --logout",
        lambda: len(probe.watch.devices) < count,
    )
    await probe.step(
        "an iSCSI session comes",
        "iscsiadm -m node -p 127.0.0.2 --login",
        lambda: len(probe.watch.devices) >= count,
    )
    array = shell("mdadm --detail --export /dev/md/mirror | sed -n 's/^MD_UUID=//p'")
    leg = shell("ls /sys/class/block/$(basename $(realpath /dev/md/mirror))/slaves").split()[0]
    await probe.step(
        "an array degrades",
        f"mdadm /dev/md/mirror --fail /dev/{leg} && sleep 1 && mdadm /dev/md/mirror --remove /dev/{leg}",
        lambda: probe.health("raid", "uuid", array) == "degraded",
    )
    await probe.step(
        "it is rebuilt",
        f"mdadm --zero-superblock /dev/{leg}; mdadm /dev/md/mirror --add /dev/{leg}",
        lambda: probe.health("raid", "uuid", array) == "optimal",
    )
    shell("truncate -s 16M /root/probe.img; mkfs.ext4 -qF /root/probe.img; mkdir -p /root/probe")
    loop = ["none"]

    def attach() -> str:
        loop[0] = shell("losetup -f --show /root/probe.img")
        return loop[0]

    def attached() -> bool:
        return probe.node(loop[0]) is not None

    await asyncio.to_thread(attach)
    await probe.step("a loop device comes", "true", attached)

    def mounted() -> bool:
        device = probe.node(loop[0])
        return "/root/probe" in json.dumps(capability(device, "claim") if device else None)

    await probe.step("it is mounted", f"mount {loop[0]} /root/probe", mounted)
    await probe.step("it is unmounted", "umount /root/probe", lambda: not mounted())
    await probe.step("the loop device goes", f"losetup -d {loop[0]}", lambda: not attached())
    shell("systemctl kill -s STOP systemd-udevd")
    await asyncio.to_thread(attach)
    await probe.step("a loop device comes while udevd hangs", "true", attached)
    await probe.step("and goes", f"losetup -d {loop[0]}", lambda: not attached())
    shell("systemctl kill -s CONT systemd-udevd")
    print(json.dumps({"seen": probe.seen, "differences": await probe.differences()}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
