"""Pools and volumes as messages."""

from __future__ import annotations

from nodedev import proto
from nodedev.facts.host import Note
from nodedev.facts.nodes import Permissions
from nodedev.pools.book import Pool
from nodedev.pools.definition import Adapter, Definition
from nodedev.pools.relations import Related, Side
from nodedev.pools.volumes import View, Volume
from nodedev.v1 import pool_service_pb2 as pb

_SIDES = {
    Side.SAME: pb.RelatedVolume.SIDE_SAME,
    Side.MEMBER: pb.RelatedVolume.SIDE_MEMBER,
    Side.HOLDER: pb.RelatedVolume.SIDE_HOLDER,
}


def pool_message(pool: Pool, view: View, notes: tuple[Note, ...] = ()) -> pb.Pool:
    """The pool with what its volumes come to."""
    definition = pool.definition
    return pb.Pool(
        name=definition.name,
        uuid=definition.uuid,
        type=definition.type,
        active=pool.active,
        autostart=pool.autostart,
        persistent=pool.persistent,
        target_path=definition.target,
        source=_source(definition),
        capacity_bytes=view.capacity_bytes,
        allocation_bytes=view.capacity_bytes,
        available_bytes=0,
        volume_count=len(view.volumes),
        sessions=[pb.PoolSession(number=found.number, portal=found.portal) for found in pool.sessions],
        notes=[proto.note(note) for note in (*view.notes, *notes)],
    )


def _source(definition: Definition) -> pb.PoolSource:
    source = pb.PoolSource(
        hosts=[pb.PoolSource.Host(name=portal.host, port=portal.port) for portal in definition.portals],
        device_path=definition.iqn,
    )
    if definition.adapter:
        source.adapter.CopyFrom(_adapter(definition.adapter))
    if definition.chap:
        chap = definition.chap
        source.auth.CopyFrom(pb.PoolSource.Auth(type="chap", username=chap.username, secret=chap.secret))
    return source


def _adapter(adapter: Adapter) -> pb.PoolSource.Adapter:
    return pb.PoolSource.Adapter(
        name=None if adapter.number is None else f"scsi_host{adapter.number}",
        pci_address=str(adapter.pci) if adapter.pci else None,
        unique_id=adapter.unique_id,
        wwnn=adapter.wwnn,
        wwpn=adapter.wwpn,
    )


def volume_message(volume: Volume, permissions: Permissions | None) -> pb.Volume:
    """The volume; permissions are its node's, where they can be known."""
    message = proto.filled(volume, pb.Volume())
    message.available_for_use = volume.available_for_use
    if volume.capacity_bytes is not None:
        message.allocation_bytes = volume.capacity_bytes
    if permissions:
        message.permissions.mode = permissions.mode
        message.permissions.owner = permissions.owner
        message.permissions.group = permissions.group
    return message


def related_message(related: Related, permissions: Permissions | None) -> pb.RelatedVolume:
    """A related volume, and how it is related."""
    return pb.RelatedVolume(
        side=_SIDES[related.side],
        chain=related.chain,
        volume=volume_message(related.volume, permissions),
    )
