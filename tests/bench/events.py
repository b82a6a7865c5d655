"""From a change of this host to a client that watches: real loop devices, the service against udevadm.

Times run from the return of the ioctl, as both see the same kernel event. Without root or loop devices
there is nothing to measure.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import time
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import cast

import grpc

from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.device_service_pb2_grpc import DeviceServiceStub
from tests.bench.serving import served
from tests.bench.timing import percentile

_SET_FD, _CLR_FD, _ADD, _REMOVE = 0x4C00, 0x4C01, 0x4C80, 0x4C81
_MAJOR, _FIRST = 7, 1000
_PAUSE_SECONDS = 0.3
WATCHERS = (1, 50, 200)

Seen = dict[str, list[float]]


@contextmanager
def _loop(image: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """A loop device of our own: its name, how to bind it to the file, and how to let go."""
    # One by a high number, as two programs that ask for a free one may get the same.
    with Path("/dev/loop-control").open("rb") as control:
        number = _FIRST + os.getpid() % _FIRST
        ioctl(control, _ADD, number)
        name = f"loop{number}"
        node = Path(f"/dev/{name}")
        if not node.exists():  # no devtmpfs
            os.mknod(node, stat.S_IFBLK | 0o600, os.makedev(_MAJOR, number))

        def bind() -> None:
            with node.open("rb+") as device, image.open("rb+") as file:
                ioctl(device, _SET_FD, file.fileno())

        def release() -> None:
            # Since Linux 6.10 the file is let go when the last one who has the node open closes it.
            with node.open("rb") as device:
                ioctl(device, _CLR_FD)

        try:
            yield name, bind, release
        finally:
            with suppress(OSError):
                release()
            ioctl(control, _REMOVE, number)
            node.unlink(missing_ok=True)


def measure(cycles: int = 40, burst: int = 5000) -> dict[str, float]:
    """Seconds from the change to each reader, and how fast a burst is worked off."""
    result: dict[str, float] = {}
    with TemporaryDirectory(prefix="nodedev-bench-") as folder:
        image = Path(folder) / "image"
        with image.open("wb") as file:
            file.truncate(16 << 20)
        with served() as (address, _), _loop(image) as (name, bind, release):
            for watchers in WATCHERS:
                taken = asyncio.run(_watched(address, f"loop_{name}", bind, release, watchers, cycles))
                result[f"watch_{watchers}_p50_s"] = percentile(taken, 0.5)
                result[f"watch_{watchers}_p99_s"] = percentile(taken, 0.99)
            bind()
            time.sleep(1)
            result |= asyncio.run(_burst(address, name, release, burst))
            time.sleep(_PAUSE_SECONDS)
            taken = _udevadm(name, bind, release, cycles)
            if taken:
                result["udevadm_p50_s"] = percentile(taken, 0.5)
                result["udevadm_p99_s"] = percentile(taken, 0.99)
    return result


async def _watched(  # noqa: C901  one closure and one measuring loop
    address: str,
    device: str,
    bind: Callable[[], None],
    release: Callable[[], None],
    watchers: int,
    cycles: int,
) -> list[float]:
    """The seconds until the last of so many watchers has each change."""
    seen: list[asyncio.Queue[float]] = [asyncio.Queue() for _ in range(watchers)]
    ready = [asyncio.Event() for _ in range(watchers)]

    async def watch(stub: DeviceServiceStub, at: int) -> None:
        responses = cast(
            "AsyncIterable[pb.WatchDevicesResponse]", stub.WatchDevices(pb.WatchDevicesRequest())
        )
        async for response in responses:
            now = time.perf_counter()
            if not ready[at].is_set():
                if response.snapshot_complete:
                    ready[at].set()
            elif any(change.device.name == device for change in response.changes):
                seen[at].put_nowait(now)

    taken: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = DeviceServiceStub(channel)
        tasks = [asyncio.create_task(watch(stub, at)) for at in range(watchers)]
        await asyncio.gather(*(event.wait() for event in ready))
        for _ in range(cycles if watchers == 1 else cycles // 4):
            for act in (bind, release):
                act()
                start = time.perf_counter()
                with suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        taken.append(max([await queue.get() for queue in seen]) - start)
                await asyncio.sleep(_PAUSE_SECONDS)
                for queue in seen:
                    while not queue.empty():
                        queue.get_nowait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return taken


def _storm(name: str, count: int) -> None:
    with Path(f"/sys/block/{name}/uevent").open("wb", buffering=0) as file:
        # Unbuffered: each write is one event.
        file.writelines(b"change" for _ in range(count))


async def _burst(address: str, name: str, release: Callable[[], None], count: int) -> dict[str, float]:
    """Events of one device as fast as the kernel makes them, until a watcher has what changed after them."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = DeviceServiceStub(channel)
        revision = (await stub.GetDevice(pb.GetDeviceRequest(handle="computer"))).revision
        responses = stub.WatchDevices(pb.WatchDevicesRequest(after_revision=revision))
        start = time.perf_counter()
        await asyncio.to_thread(_storm, name, count)
        release()
        sent = time.perf_counter()
        async for response in responses:
            if any(f"loop_{name}" == change.device.name for change in response.changes):
                break
        drained = time.perf_counter()
        responses.cancel()
    return {
        "burst_events": count,
        "burst_sent_s": sent - start,
        "burst_left_s": drained - sent,
        "burst_per_s": count / (drained - start),
    }


def _udevadm(name: str, bind: Callable[[], None], release: Callable[[], None], cycles: int) -> list[float]:
    """The same through udevadm monitor; nothing where it is not installed."""
    command = ["stdbuf", "-oL", "udevadm", "monitor", "--kernel", "--subsystem-match=block"]
    try:
        monitor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    except FileNotFoundError:
        return []
    lines: list[float] = []
    pattern = re.compile(rf"KERNEL\[.*/{name} ")

    def read() -> None:
        assert monitor.stdout
        lines.extend(time.perf_counter() for line in monitor.stdout if pattern.match(line))

    reader = Thread(target=read, daemon=True)
    reader.start()
    time.sleep(1)
    taken = []
    for _ in range(cycles):
        for act in (bind, release):
            act()
            start = time.perf_counter()
            time.sleep(_PAUSE_SECONDS)
            taken += [max(0.0, when - start) for when in lines[-8:] if start - 0.01 < when][:1]
    monitor.terminate()
    monitor.wait()
    return taken
