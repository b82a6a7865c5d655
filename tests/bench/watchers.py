"""Watches of a service while a loop device changes: how late, how much, and whether they lose anything."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from nodedev.capabilities import attributes
from nodedev.client import Client
from nodedev.discovery import Discovery
from nodedev.facts.host import Host
from nodedev.facts.live import LiveSource
from nodedev.proto import device_message
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.device_service_pb2_grpc import DeviceServiceStub
from tests.bench.loops import Loop

if TYPE_CHECKING:
    from nodedev.v1.device_service_pb2_grpc import DeviceServiceAsyncStub

# Longer than the service goes on to collect what comes after an event: each change stands alone.
PAUSE_SECONDS = 0.25
_LOST_SECONDS = 5.0
_REST_SECONDS = 20.0


@dataclass(slots=True)
class Watcher:
    """One watch: when it was told of the device, and how much it was sent of it."""

    device: str
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    seen: asyncio.Queue[float] = field(default_factory=asyncio.Queue)
    sent_bytes: list[int] = field(default_factory=list)

    async def read(self, stub: DeviceServiceAsyncStub) -> None:
        """Reads for as long as it is let."""
        async for response in stub.WatchDevices(pb.WatchDevicesRequest()):
            now = time.perf_counter()
            if not self.ready.is_set():
                if response.snapshot_complete:
                    self.ready.set()
            elif any(change.device.name == self.device for change in response.changes):
                self.seen.put_nowait(now)
                self.sent_bytes.append(response.ByteSize())

    def drain(self) -> None:
        """Forgets what has come."""
        while not self.seen.empty():
            self.seen.get_nowait()


async def watched(address: str, loop: Loop, watchers: int, cycles: int) -> tuple[list[float], list[int]]:
    """The seconds until the last of so many watches has each change, and the bytes that one was sent."""
    watches = [Watcher(f"loop_{loop.name}") for _ in range(watchers)]
    taken: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = DeviceServiceStub(channel)
        tasks = [asyncio.create_task(watch.read(stub)) for watch in watches]
        await asyncio.gather(*(watch.ready.wait() for watch in watches))
        for act in (loop.bind, loop.release) * cycles:
            act()
            start = time.perf_counter()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOST_SECONDS):
                    taken.append(max(0.0, max([await watch.seen.get() for watch in watches]) - start))
            await asyncio.sleep(PAUSE_SECONDS)
            for watch in watches:
                watch.drain()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return taken, watches[0].sent_bytes


async def burst(address: str, loop: Loop, count: int) -> dict[str, float]:
    """Events of one device as fast as the kernel makes them, until a watch has the change after them."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = DeviceServiceStub(channel)
        revision = (await stub.GetDevice(pb.GetDeviceRequest(handle="computer"))).revision
        responses = stub.WatchDevices(pb.WatchDevicesRequest(after_revision=revision))
        start = time.perf_counter()
        await asyncio.to_thread(loop.storm, count)
        loop.release()
        sent = time.perf_counter()
        async for response in responses:
            if any(
                change.device.name == f"loop_{loop.name}" and change.type == pb.DeviceChange.TYPE_REMOVED
                for change in response.changes
            ):
                break
        drained = time.perf_counter()
        responses.cancel()
    return {
        "burst_events": count,
        "burst_sent_s": sent - start,
        "burst_left_s": drained - sent,
        "burst_per_s": count / (drained - start),
    }


def differences(address: str) -> int:
    """How many devices the service has otherwise than a fresh scan, once the host has come to rest."""
    end = time.monotonic() + _REST_SECONDS
    with Client(address) as client:
        while True:
            served = {device.name: device for device in client.list_devices().devices}
            found = Discovery().survey(Host.scan(LiveSource(attributes()))).devices
            fresh = {device.name: device_message(device) for device in found}
            names = served.keys() | fresh.keys()
            different = [name for name in names if served.get(name) != fresh.get(name)]
            if not different or time.monotonic() > end:
                return len(different)
            time.sleep(PAUSE_SECONDS)
