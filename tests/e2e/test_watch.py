"""Watches: over real sockets, of a host that plays what is published, and of this one's loop devices."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from msgspec.structs import replace

from nodedev.capabilities import attributes
from nodedev.client import DeviceWatch, Update
from nodedev.discovery import Discovery
from nodedev.errors import NodedevError
from nodedev.facts import uevents
from nodedev.facts.host import Hints, Host, Watch
from nodedev.facts.live import LiveSource
from nodedev.facts.watch import LiveWatch
from nodedev.inventory import Inventory
from nodedev.model import Device
from nodedev.proto import device_message
from nodedev.server import watching
from nodedev.server.service import Service
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1 import device_service_pb2_grpc
from tests.e2e.services import PLAIN, recorded, serving

DEADLINE_SECONDS = 30
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")


@asynccontextmanager
async def published(folder: Path) -> AsyncIterator[tuple[Service, str]]:
    """A running service of the plain host, and its address."""
    path = folder / "watch.sock"
    async with serving(recorded(PLAIN), path) as service:
        running = asyncio.create_task(service.run())
        await service.engine.published.wait()
        yield service, f"unix:{path}"
        running.cancel()


def renamed(device: Device, name: str, generation: int = 1) -> Device:
    """Another device like this one."""
    return replace(device, name=name, generation=generation)


def matches(watch: DeviceWatch, inventory: Inventory) -> bool:
    """Whether the copy is the present inventory, field by field."""
    present = {name: device_message(device) for name, device in inventory.snapshot.devices.items()}
    return watch.devices == present


async def until(updates: AsyncIterator[Update], wanted: Callable[[], bool]) -> list[Update]:
    """The updates up to the one with which it is as wanted."""
    seen: list[Update] = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not wanted():
            seen.append(await anext(updates))
    return seen


async def test_a_watch_starts_with_the_present_and_goes_on_with_changes(folder: Path) -> None:
    """The present devices come first and are marked complete, then each change in order."""
    async with published(folder) as (service, address):
        inventory = service.engine.inventory
        watch = DeviceWatch(address)
        updates = aiter(watch)
        first = await anext(updates)
        assert first.complete
        assert matches(watch, inventory)
        device = next(iter(inventory.snapshot.devices.values()))
        inventory.publish([renamed(device, "x")])
        inventory.publish([renamed(device, "x", 2)])
        inventory.publish([], ["x"])
        seen = [await anext(updates) for _ in range(3)]
        types = pb.DeviceChange
        assert [update.changes[0].type for update in seen] == [
            types.TYPE_ADDED,
            types.TYPE_CHANGED,
            types.TYPE_REMOVED,
        ]
        assert [update.revision for update in seen] == [
            inventory.revision - 2,
            inventory.revision - 1,
            inventory.revision,
        ]
        assert matches(watch, inventory)


async def test_a_filter_turns_changes_into_coming_and_going(folder: Path) -> None:
    """A device that begins to pass the filter is added, one that no longer does is removed."""
    async with published(folder) as (service, address):
        inventory = service.engine.inventory
        loop = next(d for d in inventory.snapshot.devices.values() if d.capability("loop"))
        watch = DeviceWatch(address, pb.DeviceFilter(capabilities=["loop"]))
        updates = aiter(watch)
        await anext(updates)
        assert loop.name in watch.devices
        inventory.publish([replace(loop, capabilities=loop.capabilities[:1])])
        assert (await anext(updates)).changes[0].type == pb.DeviceChange.TYPE_REMOVED
        inventory.publish([loop])
        assert (await anext(updates)).changes[0].type == pb.DeviceChange.TYPE_ADDED


async def test_a_filtered_watch_keeps_up_by_bookmarks(folder: Path) -> None:
    """What the filter swallows still moves the revision from which to resume."""
    async with published(folder) as (service, address):
        inventory = service.engine.inventory
        device = next(iter(inventory.snapshot.devices.values()))
        async with grpc.aio.insecure_channel(address) as channel:
            stub = device_service_pb2_grpc.DeviceServiceStub(channel)
            request = pb.WatchDevicesRequest(
                after_revision=inventory.revision, filter=pb.DeviceFilter(names=["nobody"])
            )
            call = stub.WatchDevices(request)
            responses = aiter(call)
            inventory.publish([renamed(device, "x")])
            async with asyncio.timeout(DEADLINE_SECONDS):
                bookmark = await anext(responses)
            assert (bookmark.revision, list(bookmark.changes)) == (inventory.revision, [])
            call.cancel()


async def test_what_is_large_comes_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the last part of a revision carries it, so that a watch cut off in between misses nothing."""
    monkeypatch.setattr(watching, "MESSAGE_BYTES", 500)
    async with published(folder) as (service, address):
        inventory = service.engine.inventory
        device = next(iter(inventory.snapshot.devices.values()))
        start = inventory.revision
        inventory.publish([renamed(device, f"x{number}") for number in range(20)])
        async with grpc.aio.insecure_channel(address) as channel:
            stub = device_service_pb2_grpc.DeviceServiceStub(channel)
            call = stub.WatchDevices(pb.WatchDevicesRequest(after_revision=start))
            parts: list[pb.WatchDevicesResponse] = []
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not parts or parts[-1].revision == start:
                    parts.append(await anext(aiter(call)))
            assert len(parts) > 1
            assert sum(len(part.changes) for part in parts) == 20
            call.cancel()


async def test_errors_of_a_watch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old, an unknown revision, an unknown capability and one watch too many have their reasons."""

    async def reason(address: str, **request: object) -> str:
        watch = DeviceWatch(address, request.get("wanted"), after=int(str(request.get("after", 0))))  # type: ignore[arg-type]
        with pytest.raises(NodedevError) as refused:
            await anext(aiter(watch))
        return refused.value.reason

    async with published(folder) as (service, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stub = device_service_pb2_grpc.DeviceServiceStub(channel)
            for after in (1, service.engine.inventory.revision + 1000):
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await anext(aiter(stub.WatchDevices(pb.WatchDevicesRequest(after_revision=after))))
                assert failed.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert await reason(address, wanted=pb.DeviceFilter(capabilities=["no"])) == "FILTER_INVALID"
        monkeypatch.setattr(watching, "WATCHERS_MAX", 0)
        assert await reason(address) == "TOO_MANY_WATCHERS"


async def test_a_watch_outlives_compaction_and_restarts(folder: Path) -> None:
    """A client whose service restarts, with other devices, ends up with a true copy without help."""
    async with published(folder) as (service, address):
        inventory = service.engine.inventory
        device = next(iter(inventory.snapshot.devices.values()))
        inventory.publish([renamed(device, "old")])
        watch = DeviceWatch(address)
        updates = aiter(watch)
        await anext(updates)
    async with published(folder) as (service, _):
        inventory = service.engine.inventory
        inventory.publish([renamed(device, "new")])
        seen = await until(updates, lambda: matches(watch, inventory))
        changed = {change.device.name: change.type for update in seen for change in update.changes}
        assert changed == {"old": pb.DeviceChange.TYPE_REMOVED, "new": pb.DeviceChange.TYPE_ADDED}


async def test_one_that_does_not_read_holds_up_nobody(folder: Path) -> None:
    """Of 200 watches one is never read: all the others end with a true copy."""
    async with published(folder) as (service, address):
        inventory = service.engine.inventory
        device = next(iter(inventory.snapshot.devices.values()))
        async with grpc.aio.insecure_channel(address) as channel:
            stub = device_service_pb2_grpc.DeviceServiceStub(channel)
            idle = stub.WatchDevices(pb.WatchDevicesRequest())
            await idle.read()
            watches = [DeviceWatch(address) for _ in range(199)]
            streams = [aiter(watch) for watch in watches]
            await asyncio.gather(*(anext(stream) for stream in streams))
            for generation in range(20):
                inventory.publish([renamed(device, "x", generation)])
            for watch, stream in zip(watches, streams, strict=True):
                await until(stream, lambda watch=watch: matches(watch, inventory))  # type: ignore[misc]
            idle.cancel()
            for stream in streams:
                await stream.aclose()  # type: ignore[attr-defined]


class SmallBuffer(LiveSource):
    """This host, watched through a buffer in which events get lost."""

    def watch(self) -> Watch:
        """The smallest buffer that the kernel gives."""
        return LiveWatch(self, attributes(), buffer_bytes=1)


def hints_of(watch: Watch) -> Iterator[Hints]:
    """What the watch tells until the host is quiet."""
    while (hints := watch.wait(1)) != Hints():
        yield hints


@needs_root
def test_lost_events_are_noticed() -> None:
    """5,000 uevents into a small buffer: the loss is told, and the watch goes on after it."""
    watch = SmallBuffer(attributes()).watch()
    nodes = [folder / "uevent" for folder in Path("/sys/block").iterdir()]
    for number in range(5000):
        nodes[number % len(nodes)].write_text("change")
    assert any(hints.lost for hints in hints_of(watch))
    nodes[0].write_text("change")
    assert any(hints.paths for hints in hints_of(watch))
    watch.close()


@needs_root
def test_a_silent_udevd_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, folder: Path, loop: str) -> None:
    """Where udevd seems to run and passes nothing on, the kernel's events count all the same."""
    monkeypatch.setattr(uevents, "CONTROL", str(folder))
    watch = LiveSource(attributes()).watch()
    assert watch.mode == "udev"
    node = subprocess.run(
        ["losetup", "-f", "--show", loop], check=True, capture_output=True, text=True
    ).stdout
    wanted = f"/devices/virtual/block/{Path(node.strip()).name}"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while wanted not in watch.wait(1).paths:
        assert time.monotonic() < deadline
    watch.close()


@pytest.mark.parametrize(("namespaces", "polling"), [("--net", False), ("--user --net -r", True)])
def test_where_no_event_can_come_the_host_is_read_again(namespaces: str, *, polling: bool) -> None:
    """Uevents reach the network namespaces of the first user namespace, and no other's."""
    ask = "from nodedev.facts.live import LiveSource; print(LiveSource({}).watch().mode)"
    done = subprocess.run(
        ["unshare", *namespaces.split(), sys.executable, "-c", ask],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"namespaces cannot be made here: {done.stderr.strip()}")
    assert done.stdout, done.stderr
    assert (done.stdout.strip() == "polling") is polling


@needs_root
async def test_a_storm_leaves_a_true_copy(folder: Path, loop: str) -> None:
    """5,000 uevents overflow the buffer: a resync is marked, and the copy equals a fresh scan."""
    path = folder / "storm.sock"
    async with serving(SmallBuffer(attributes()), path) as service:
        running = asyncio.create_task(service.run())
        await service.engine.published.wait()
        watch = DeviceWatch(f"unix:{path}")
        updates = aiter(watch)
        await anext(updates)

        def storm() -> None:
            nodes = [found / "uevent" for found in Path("/sys/block").iterdir()]
            for number in range(5000):
                nodes[number % len(nodes)].write_text("change")

        await asyncio.gather(asyncio.to_thread(storm), losetup("-f", loop))
        resynced = False

        def true_again() -> bool:
            found = Discovery().survey(Host.scan(LiveSource(attributes())))
            return resynced and watch.devices == {
                device.name: device_message(device) for device in found.devices
            }

        async with asyncio.timeout(DEADLINE_SECONDS):
            while not true_again():
                resynced = (await anext(updates)).resync or resynced
        assert not running.done()
        running.cancel()


@pytest.fixture
def loop(folder: Path) -> Iterator[str]:
    """A file to bind, detached in the end wherever it is bound."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    yield str(image)
    bound = subprocess.run(
        ["losetup", "-j", str(image), "-n", "-O", "NAME"], capture_output=True, text=True, check=True
    )
    for node in bound.stdout.split():
        subprocess.run(["losetup", "-d", node], check=True)


async def losetup(*arguments: str) -> str:
    """Runs losetup, and gives what it prints."""
    process = await asyncio.create_subprocess_exec("losetup", *arguments, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


@needs_root
async def test_this_hosts_loop_devices_come_and_go(folder: Path, loop: str) -> None:
    """Attaching and detaching a real loop device is seen, udevd or not; the copy equals a fresh scan."""
    path = folder / "live.sock"
    async with serving(LiveSource(attributes()), path) as service:
        running = asyncio.create_task(service.run())
        await service.engine.published.wait()
        watch = DeviceWatch(f"unix:{path}", pb.DeviceFilter(capabilities=["loop"]))
        updates = aiter(watch)
        await anext(updates)

        def bound() -> bool:
            return any(
                capability.loop.backing.path == loop
                for device in watch.devices.values()
                for capability in device.capabilities
            )

        node = (await losetup("-f", "--show", loop)).strip()
        await until(updates, bound)
        fresh = Discovery().survey(Host.scan(LiveSource(attributes())))
        name = f"loop_{Path(node).name}"
        expected = next(device for device in fresh.devices if device.name == name)
        await until(updates, lambda: watch.devices[name] == device_message(expected))
        await losetup("-d", node)
        await until(updates, lambda: not bound())
        running.cancel()


@needs_root
def test_a_killed_service_is_no_loss(folder: Path, loop: str) -> None:
    """After SIGKILL and a new start `nodedev watch` goes on, and tells what happened in between."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    serve = [sys.executable, "-m", "nodedev", "serve", "--runtime-dir", str(folder)]
    watch = [
        sys.executable,
        "-m",
        "nodedev",
        "--connect",
        f"unix:{folder}/nodedev-ro.sock",
        "watch",
        "--cap",
        "loop",
    ]

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr
        assert any(" devices at revision " in line for line in process.stderr)
        return process

    first = start()
    with subprocess.Popen(watch, stdout=subprocess.PIPE, text=True, env=environment) as watching_process:
        assert watching_process.stdout
        assert any("these are all" in line for line in watching_process.stdout)
        first.kill()
        first.communicate()
        subprocess.run(["losetup", "-f", loop], check=True)
        second = start()
        assert any(" added loop_" in line for line in watching_process.stdout)
        watching_process.terminate()
    second.terminate()
    second.communicate()
