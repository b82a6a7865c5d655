"""AdminService: the service about itself."""

from __future__ import annotations

import grpc

from nodedev import proto
from nodedev.capabilities import kinds
from nodedev.server.access import Access
from nodedev.server.engine import Engine
from nodedev.v1 import admin_service_pb2 as pb
from nodedev.v1 import admin_service_pb2_grpc
from nodedev.version import own_version


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """What one port tells of the service; it answers before the host has been read, too."""

    def __init__(self, engine: Engine, access: Access) -> None:
        self._engine = engine
        self._access = access

    async def GetServerInfo(  # noqa: N802
        self,
        request: pb.GetServerInfoRequest,  # noqa: ARG002
        context: grpc.aio.ServicerContext[pb.GetServerInfoRequest, pb.GetServerInfoResponse],
    ) -> pb.GetServerInfoResponse:
        """Version, snapshot, and which sources of facts could not be read."""
        snapshot = self._engine.inventory.snapshot
        return pb.GetServerInfoResponse(
            version=own_version(),
            instance_id=self._engine.instance_id,
            host=self._engine.host,
            read_only=self._access.read_only(context),
            revision=snapshot.revision,
            device_count=len(snapshot.devices),
            notes=[proto.note(note) for note in (*snapshot.notes, *self._engine.state_notes)],
            capabilities=sorted(kind.type for kind in kinds()),
            starting=not self._engine.published.is_set(),
            events=self._engine.events,
        )
