"""Runs in the guest: kills the service with SIGKILL while it changes an array, and looks at what is left.

    kill_probe.py ROUNDS SEED DISK DISK

Each round one change of one array, or of its definition, is asked for, and the service is killed at a random
moment of it. What the service had begun goes on to its end without it. Then a new service must list what
there is, nothing may be left over, and the same change again must succeed and find the data.
Prints one JSON object: how often each change was cut off and how far it had come, and all that was wrong.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from nodedev.client import Client
from nodedev.documents import read_device
from nodedev.errors import NodedevError, UnavailableError
from nodedev.v1.device_pb2 import Device
from nodedev.v1.device_service_pb2 import DestroyDeviceResponse, DeviceFilter, Presence

FOLDER = Path("/run/nodedev-kills")
ADDRESS = f"unix:{FOLDER}/run/nodedev.sock"
START_SECONDS = 120.0
CALL_SECONDS = 120.0
REST_SECONDS = 60.0
TOOLS = ("mdadm", "blkid", "wipefs")
ARRAY = "kill"
KEPT = ("define", "undefine")
# How many of the kills come while a tool runs, and how long after its start.
IN_TOOL = 0.6
TOOL_SECONDS = 1.0


def shell(command: str) -> str:
    """What a command prints."""
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=True).stdout


def tools() -> Iterator[int]:
    """The processes that a change runs, but for mdadm's monitor."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                line = (folder / "cmdline").read_bytes().split(b"\0")
                if os.path.basename(line[0]).decode() in TOOLS and b"--monitor" not in line:  # noqa: PTH119
                    yield int(folder.name)


def mdstat() -> dict[str, str]:
    """Each array's state as /proc/mdstat has it."""
    return dict(
        re.findall(r"^(md\S+) : (\w+)", Path("/proc/mdstat").read_text(encoding="ascii"), re.MULTILINE)
    )


@cache
def known_uuid(array: str) -> str:
    """The UUID of an array that nobody changes."""
    return uuid_of(array)


def uuid_of(array: str) -> str:
    """What mdadm says is its UUID."""
    return shell(f"mdadm --detail --export /dev/{array} | sed -n 's/^MD_UUID=//p'").strip()


def raid_of(device: Device) -> tuple[str, str, str]:
    """UUID, state and level of a device's array."""
    found = next(each.raid for each in device.capabilities if each.HasField("raid"))
    return found.uuid, found.state, found.level


class Service:
    """One `nodedev serve` after another."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Starts one, and returns when it answers."""
        self.process = subprocess.Popen(
            [
                "/usr/local/bin/nodedev",
                "serve",
                "--runtime-dir",
                FOLDER / "run",
                "--state-dir",
                FOLDER / "state",
            ],
            stdin=subprocess.DEVNULL,
        )
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.server_info()
            except UnavailableError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """Ends it, as nothing else is."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def client(self) -> Client:
        """A client of the one that runs."""
        return Client(ADDRESS, call_seconds=CALL_SECONDS)


class Array:
    """The array that is changed: what is known of it, and what may be done with it next."""

    def __init__(self, disks: list[str]) -> None:
        self.disks = disks
        members = "".join(f"<member><device>loop_{disk}</device></member>" for disk in disks)
        self.xml = (
            f"<device><capability type='raid'><name>{ARRAY}</name><level>raid1</level>{members}"
            "</capability></device>"
        )
        self.state = "none"
        self.name = ""
        self.uuid = ""
        self.data = ""
        self.defined = False

    def changes(self) -> list[str]:
        """What may be asked for now."""
        found = {"none": ["create"], "active": ["destroy"], "stopped": ["start"]}[self.state]
        if self.name and self.state != "none":
            found = [*found, *found, "undefine" if self.defined else "define"]
        return found

    def ask(self, change: str, client: Client) -> None:
        """Asks for a change; an error is raised."""
        match change:
            case "create":
                device = client.create_device(self.xml).device
                self.name, self.uuid = device.name, raid_of(device)[0]
            case "destroy":
                outcome = client.destroy_device(self.name).outcome
                gone = (DestroyDeviceResponse.OUTCOME_DESTROYED, DestroyDeviceResponse.OUTCOME_ABSENT)
                assert outcome in gone, f"destroy: {DestroyDeviceResponse.Outcome.Name(outcome)}"
            case "start":
                client.start_device(self.name)
            case "define":
                client.define_device(
                    f"<device><name>{self.name}</name><capability type='raid'><uuid>{self.uuid}</uuid>"
                    "</capability></device>"
                )
            case "undefine":
                client.undefine_device(self.name)

    def done(self, change: str) -> None:
        """Takes note of a change that has been made, and sees that the data are there."""
        match change:
            case "create":
                self.state = "active"
                shell(f"dd if=/dev/urandom of={self.node()} bs=1M count=4 conv=fsync")
                self.data = self.digest()
            case "destroy":
                self.state = "stopped"
            case "start":
                self.state = "active"
                assert self.digest() == self.data, "the data are not what they were"
            case "define" | "undefine":
                self.defined = change == "define"

    def forget(self) -> None:
        """Makes the disks of a stopped array empty."""
        for disk in self.disks:
            shell(f"mdadm --zero-superblock /dev/{disk}")
        shell("udevadm settle")
        self.state, self.name = "none", ""

    def node(self) -> str:
        """The array's node, by what mdadm finds there."""
        return next(f"/dev/{array}" for array in mdstat() if uuid_of(array) == self.uuid)

    def digest(self) -> str:
        """A checksum over the whole of it."""
        return shell(f"sha256sum < {self.node()}")


def wait_for_rest() -> None:
    """Until what the service had begun is done, and udev with it."""
    end = time.monotonic() + REST_SECONDS
    while any(True for _ in tools()) and time.monotonic() < end:
        time.sleep(0.05)
    shell("udevadm settle")


def wrong(client: Client, array: Array, others: set[str]) -> Iterator[str]:
    """Where list and host differ, and what is there that nobody asked for."""
    present = mdstat()
    listed = {
        device.devnode.removeprefix("/dev/"): raid_of(device)
        for device in client.list_devices(DeviceFilter(capabilities=["raid"])).devices
        if device.devnode.startswith("/dev/md")
    }
    if listed.keys() != present.keys():
        yield f"listed are {sorted(listed)}, there are {sorted(present)}"
    for name, (uuid, state, level) in listed.items():
        real = known_uuid(name) if name in others else uuid_of(name)
        if uuid != real:
            yield f"{name} is listed as {uuid}, and is {real}"
        idle = state in ("inactive", "clear", "")
        if level != "container" and idle != (present.get(name) == "inactive"):
            yield f"{name} is listed as {state}, and is {present.get(name)}"
    extra = {name: state for name, state in present.items() if name not in others}
    if len(extra) > 1 or "inactive" in extra.values():
        yield f"left over: {extra}"
    inactive = client.list_devices(
        DeviceFilter(capabilities=["raid"], presence=Presence.PRESENCE_INACTIVE)
    ).devices
    if array.name and (array.name in {device.name for device in inactive}) == bool(extra):
        yield f"{array.name} is {'also' if extra else 'not'} listed as inactive, and there is {extra}"
    yield from (note.message for note in client.server_info().notes if note.source == "definitions")


def broken(array: Array, may_be: set[bool]) -> Iterator[str]:
    """What is wrong with the definitions that are kept."""
    folder = FOLDER / "state" / "devices"
    names = {path.stem for path in folder.glob("*.xml")} if folder.is_dir() else set()
    for name in names:
        try:
            read_device((folder / f"{name}.xml").read_bytes())
        except NodedevError as error:
            yield f"the definition {name}: {error.message}"
    if bool(names) not in may_be or (names and array.name and names != {array.name}):
        yield f"defined are {names}"


def attempt(service: Service, array: Array, change: str, moment: float, *, in_tool: bool) -> bool:
    """Asks for a change, and kills the service so long after it or its tool began; whether it answered."""
    answered = threading.Event()

    def ask() -> None:
        with service.client() as client, suppress(NodedevError):
            array.ask(change, client)
            answered.set()

    thread = threading.Thread(target=ask)
    thread.start()
    if in_tool:
        while thread.is_alive() and not any(True for _ in tools()):
            time.sleep(0.01)
    thread.join(moment)
    had = answered.is_set()
    service.kill()
    thread.join()
    return had


def main(rounds: int, seed: int, disks: list[str]) -> None:
    """All rounds, each with one kill."""
    chance = random.Random(seed)
    others = set(mdstat())
    array, service = Array(disks), Service()
    lasts = {"create": 3.0, "destroy": 3.0, "start": 3.0, "define": 0.3, "undefine": 0.3}
    kills: Counter[str] = Counter()
    problems: list[str] = []
    for number in range(rounds):
        if array.state == "stopped" and not array.defined and chance.random() < 1 / 3:
            array.forget()
        change = chance.choice(array.changes())
        there = set(mdstat()) - others
        in_tool = change not in KEPT and chance.random() < IN_TOOL
        moment = chance.uniform(0, TOOL_SECONDS if in_tool else lasts[change])
        had = attempt(service, array, change, moment, in_tool=in_tool)
        running = any(True for _ in tools())
        wait_for_rest()
        made = (set(mdstat()) - others) != there
        far = "answered" if had else "made" if made else "not begun or nothing to see"
        kills[f"{change}: {far}{', its tool went on alone' if running else ''}"] += 1
        service.start()
        with service.client() as client:
            found = [*wrong(client, array, others)]
            found += broken(array, {array.defined, array.defined ^ (change in KEPT)})
            try:
                begin = time.monotonic()
                array.ask(change, client)
                took = time.monotonic() - begin
                if not made and not had:
                    lasts[change] = (lasts[change] + took) / 2
                array.done(change)
                found += [*wrong(client, array, others), *broken(array, {array.defined})]
            except (NodedevError, AssertionError) as error:
                found.append(f"again: {error}")
        problems += [f"round {number}, {change}, {far}: {each}" for each in found]
        if found:
            break
    with service.client() as client:
        if array.state == "active":
            client.destroy_device(array.name)
    service.kill()
    lines = {change: round(seconds, 2) for change, seconds in lasts.items()}
    print(json.dumps({"kills": kills, "seconds": lines, "problems": problems}))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
