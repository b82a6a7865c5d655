"""gRPC alone: a grpc.aio service with answers made beforehand, of the sizes that nodedev's have.

Run as a process: the folder with the answers, in which it makes its socket. What a single call takes
here, with the same client, is gRPC's share of what it takes of nodedev.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc

from nodedev.v1 import device_service_pb2 as pb
from tests.bench.services import SOCKET, started

_DEVICES, _DOCUMENTS = "devices", "documents"
_SERVICE = pb.DESCRIPTOR.services_by_name["DeviceService"].full_name


async def serve(folder: Path) -> None:
    """Answers GetDevice and GetDeviceXml by name until SIGTERM."""
    listed = pb.ListDevicesResponse.FromString((folder / _DEVICES).read_bytes())
    dumped = pb.GetDeviceXmlResponse.FromString((folder / _DOCUMENTS).read_bytes())
    devices = {
        device.name: pb.GetDeviceResponse(device=device, revision=listed.revision).SerializeToString()
        for device in listed.devices
    }
    documents = {
        one.name: pb.GetDeviceXmlResponse(devices=[one], revision=dumped.revision).SerializeToString()
        for one in dumped.devices
    }

    async def device(request: pb.GetDeviceRequest, context: object) -> bytes:
        return devices[request.handle]

    async def document(request: pb.GetDeviceXmlRequest, context: object) -> bytes:
        return b"".join([documents[handle] for handle in request.handles])

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetDevice": grpc.unary_unary_rpc_method_handler(device, pb.GetDeviceRequest.FromString),
        "GetDeviceXml": grpc.unary_unary_rpc_method_handler(document, pb.GetDeviceXmlRequest.FromString),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, methods),))
    server.add_insecure_port(f"unix:{folder}/{SOCKET}")
    await server.start()
    await stop.wait()
    await server.stop(0)


@contextmanager
def bare(listed: pb.ListDevicesResponse, dumped: pb.GetDeviceXmlResponse) -> Iterator[tuple[str, int]]:
    """The address and the id of a process that gives these answers."""
    with TemporaryDirectory(prefix="nodedev-bench-", dir="/tmp") as folder:
        Path(folder, _DEVICES).write_bytes(listed.SerializeToString())
        Path(folder, _DOCUMENTS).write_bytes(dumped.SerializeToString())
        command = [sys.executable, "-m", "tests.bench.bare", folder]
        with started(command, Path(folder, SOCKET), None) as process:
            yield f"unix:{folder}/{SOCKET}", process


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
