"""What a service costs its clients: lists as messages and XML, single devices alone and many at a time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

from nodedev.client import Client
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.device_service_pb2_grpc import DeviceServiceStub
from tests.bench.timing import median_of, percentile

SOCKET = "nodedev.sock"
IN_FLIGHT = (1, 16, 64)
_CALL_SECONDS = 300.0


@contextmanager
def served(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """A service process and its address, once the host is published."""
    with TemporaryDirectory(prefix="nodedev-bench-", dir="/tmp") as folder:
        command = [sys.executable, "-m", "nodedev", *options, "serve"]
        command += ["--runtime-dir", folder, "--state-dir", f"{folder}/state"]
        service = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            address = f"unix:{folder}/{SOCKET}"
            while not (Path(folder) / SOCKET).exists() and service.poll() is None:
                time.sleep(0.01)
            with Client(address, call_seconds=_CALL_SECONDS) as client:
                client.device_xml(["computer"])
            yield address, service.pid
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(30)


def resident_bytes(pid: int) -> int:
    """A process's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(recording: Path, lookups: int = 1000) -> dict[str, float]:
    """Seconds, calls a second and bytes of a service of a recorded host."""
    with served("--host", str(recording)) as (address, pid):
        idle = resident_bytes(pid)
        with Client(address, call_seconds=_CALL_SECONDS) as client:
            result = {"idle_bytes": float(idle)}
            result["messages_cold_s"] = median_of(client.list_devices, 1)
            result["messages_warm_s"] = median_of(client.list_devices)
            result["xml_cold_s"] = median_of(client.device_xml, 1)
            result["xml_warm_s"] = median_of(client.device_xml)
            names = [device.name for device in client.list_devices().devices]
            taken = [_seconds(client, name) for name in names[:: max(1, len(names) // lookups)]]
        result["one_xml_sync_p50_s"] = percentile(taken, 0.5)
        result["one_xml_sync_p99_s"] = percentile(taken, 0.99)
        result["devices"] = len(names)
        result["listed_bytes"] = resident_bytes(pid)
        return result | asyncio.run(_singles(address, names, lookups))


def _seconds(client: Client, name: str) -> float:
    start = time.perf_counter()
    client.device_xml([name])
    return time.perf_counter() - start


async def _singles(address: str, names: Sequence[str], lookups: int) -> dict[str, float]:
    chosen = random.Random(7)
    asked = [chosen.choice(names) for _ in range(lookups)]
    result: dict[str, float] = {}
    async with grpc.aio.insecure_channel(address) as channel:
        stub = DeviceServiceStub(channel)

        async def xml(name: str) -> object:
            return await stub.GetDeviceXml(pb.GetDeviceXmlRequest(handles=[name]))

        async def message(name: str) -> object:
            return await stub.GetDevice(pb.GetDeviceRequest(handle=name))

        for label, call in (("xml", xml), ("message", message)):
            for width in IN_FLIGHT:
                taken, seconds = await _calls(call, asked, width)
                result[f"one_{label}_{width}_p50_s"] = percentile(taken, 0.5)
                result[f"one_{label}_{width}_p99_s"] = percentile(taken, 0.99)
                result[f"one_{label}_{width}_per_s"] = len(asked) / seconds
        start = time.perf_counter()
        for at in range(0, len(asked), 100):
            await stub.GetDeviceXml(pb.GetDeviceXmlRequest(handles=asked[at : at + 100]))
        result["xml_by_hundreds_per_s"] = len(asked) / (time.perf_counter() - start)
    return result


async def _calls(
    call: Callable[[str], Awaitable[object]], names: Sequence[str], width: int
) -> tuple[list[float], float]:
    """The seconds of each call with so many in flight, and of all of them."""
    waiting, taken = iter(names), []

    async def worker() -> None:
        for name in waiting:
            start = time.perf_counter()
            await call(name)
            taken.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(width)))
    return taken, time.perf_counter() - start
