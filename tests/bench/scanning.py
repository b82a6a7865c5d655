"""What clients wait while the service reads the host: before the first list, and during a rescan."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import grpc

from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.device_service_pb2_grpc import DeviceServiceStub
from tests.bench.restless import GO
from tests.bench.services import SOCKET, resident_bytes, started
from tests.bench.timing import percentile
from tests.bench.tree import environment, inside

if TYPE_CHECKING:
    from nodedev.v1.device_service_pb2_grpc import DeviceServiceAsyncStub

_IDLE_SECONDS = 3.0
_RESCANS = 3
_BUSY_SECONDS, _BUSY_SECONDS_MAX = 5.0, 45.0
# Between two tries, so that the client's own work does not keep the service from reading.
_BREATH_SECONDS = 0.01


def measure(root: Path, profile: Path | None = None) -> dict[str, float]:
    """Seconds of a page and of one device, idle and during rescans; the service's bytes."""
    with TemporaryDirectory(prefix="nodedev-bench-", dir="/tmp") as name:
        folder = Path(name)
        through = ["tests.bench.profiled", str(profile)] if profile else []
        command = [sys.executable, "-m", *through, "tests.bench.restless", name]
        begun = time.perf_counter()
        with started(inside(root, command), folder / SOCKET, environment()) as process:
            return asyncio.run(_measure(folder, process, begun))


async def _measure(folder: Path, process: int, begun: float) -> dict[str, float]:
    async with grpc.aio.insecure_channel(f"unix:{folder / SOCKET}") as channel:
        stub = DeviceServiceStub(channel)
        refused = await _refused(stub)
        result = {"first_page_s": time.perf_counter() - begun, "live_bytes": float(resident_bytes(process))}
        if refused:
            result |= {"starting_p50_s": percentile(refused, 0.5), "starting_max_s": max(refused)}
        end = time.perf_counter() + _IDLE_SECONDS
        result |= _spread("idle", await _calls(stub, lambda: time.perf_counter() > end))
        (folder / GO).touch()
        resyncs: list[float] = [time.perf_counter()]
        counting = asyncio.create_task(_count(stub, resyncs))

        def enough() -> bool:
            taken = time.perf_counter() - resyncs[0]
            return taken > (_BUSY_SECONDS if len(resyncs) > _RESCANS else _BUSY_SECONDS_MAX)

        result |= _spread("rescan", await _calls(stub, enough))
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        result["rescans"] = len(resyncs) - 1
        result["rescan_s"] = (resyncs[-1] - resyncs[0]) / max(1, len(resyncs) - 1)
        return result


async def _refused(stub: DeviceServiceAsyncStub) -> list[float]:
    """The seconds of each answer that the host is still being read; then it has been."""
    taken: list[float] = []
    while True:
        start = time.perf_counter()
        try:
            await stub.ListDevices(pb.ListDevicesRequest())
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            taken.append(time.perf_counter() - start)
            await asyncio.sleep(_BREATH_SECONDS)
        else:
            return taken


async def _count(stub: DeviceServiceAsyncStub, resyncs: list[float]) -> None:
    """Notes when each rescan was published."""
    revision = (await stub.GetDevice(pb.GetDeviceRequest(handle="computer"))).revision
    with suppress(asyncio.CancelledError):
        async for response in stub.WatchDevices(pb.WatchDevicesRequest(after_revision=revision)):
            resyncs += [time.perf_counter()] * response.resync


async def _calls(stub: DeviceServiceAsyncStub, done: Callable[[], bool]) -> dict[str, list[float]]:
    """The seconds of calls, one after the other, until it is done."""
    taken: dict[str, list[float]] = {"page": [], "device": []}
    while not done() or not taken["page"]:
        start = time.perf_counter()
        await stub.ListDevices(pb.ListDevicesRequest())
        listed = time.perf_counter()
        await stub.GetDevice(pb.GetDeviceRequest(handle="computer"))
        taken["page"].append(listed - start)
        taken["device"].append(time.perf_counter() - listed)
        await asyncio.sleep(_BREATH_SECONDS)
    return taken


def _spread(state: str, taken: dict[str, list[float]]) -> dict[str, float]:
    return dict(_figures(state, taken.items()))


def _figures(state: str, taken: Iterable[tuple[str, Sequence[float]]]) -> Iterable[tuple[str, float]]:
    for call, seconds in taken:
        yield f"{state}_{call}_p50_s", percentile(seconds, 0.5)
        yield f"{state}_{call}_p99_s", percentile(seconds, 0.99)
        yield f"{state}_{call}_max_s", max(seconds)
