"""What a service costs its clients: lists as messages and XML, single devices alone and many at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import grpc

from nodedev.client import Client
from nodedev.v1 import device_service_pb2 as pb
from nodedev.v1.device_service_pb2_grpc import DeviceServiceStub
from tests.bench.bare import bare
from tests.bench.services import CALL_SECONDS, cpu_seconds, resident_bytes, served
from tests.bench.timing import median_of, percentile, seconds_of

IN_FLIGHT = (1, 16, 64)
LOOKUPS = 1000
_BATCH = 100


def measure(recording: Path, lookups: int = LOOKUPS) -> dict[str, float]:
    """Seconds, calls a second and bytes of a service of a recorded host, and of gRPC alone."""
    with served("--host", str(recording)) as (address, process):
        result = {"idle_bytes": float(resident_bytes(process))}
        lists, listed, dumped = of_lists(address)
        names = [device.name for device in listed.devices]
        result |= {"devices": len(names), "listed_bytes": resident_bytes(process), **lists}
        result |= of_singles(address, process, names, lookups)
    with bare(listed, dumped) as (address, process):
        alone = of_singles(address, process, names, lookups)
        result |= {f"bare_{name}": value for name, value in alone.items()}
    return result


def of_lists(address: str) -> tuple[dict[str, float], pb.ListDevicesResponse, pb.GetDeviceXmlResponse]:
    """All devices, cold and warm, and what came."""
    with Client(address, call_seconds=CALL_SECONDS) as client:
        result = {
            "messages_cold_s": seconds_of(client.list_devices),
            "messages_warm_s": median_of(client.list_devices),
            "xml_cold_s": seconds_of(client.device_xml),
            "xml_warm_s": median_of(client.device_xml),
        }
        return result, client.list_devices(), client.device_xml()


def of_singles(address: str, process: int, names: Sequence[str], lookups: int) -> dict[str, float]:
    """One device a call, by the library's client and by stubs of the event loop."""
    chosen = random.Random(7)
    asked = [chosen.choice(names) for _ in range(lookups)]
    with Client(address, call_seconds=CALL_SECONDS) as client:
        client.device_xml(asked[:1])
        before = cpu_seconds(process)
        taken = [seconds_of(partial(client.device_xml, [name])) for name in asked]
        cpu = cpu_seconds(process) - before
    result = {
        "one_xml_sync_p50_s": percentile(taken, 0.5),
        "one_xml_sync_p99_s": percentile(taken, 0.99),
        "one_xml_service_cpu_s": cpu / len(asked),
    }
    return result | asyncio.run(_in_flight(address, asked))


async def _in_flight(address: str, asked: Sequence[str]) -> dict[str, float]:
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
        for at in range(0, len(asked), _BATCH):
            await stub.GetDeviceXml(pb.GetDeviceXmlRequest(handles=asked[at : at + _BATCH]))
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
