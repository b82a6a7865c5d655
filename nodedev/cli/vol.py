"""`nodedev vol`: the volumes of storage pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from nodedev.cli.devices import claim_sentence
from nodedev.cli.output import Heading, emit, emit_json, human_size, plain, table
from nodedev.cli.session import Session
from nodedev.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from nodedev.client import Client

_HEADINGS = (Heading("NAME"), Heading("PATH"))
_DETAILS = (
    Heading("CAPACITY", right=True),
    Heading("KEY"),
    Heading("USABLE"),
    Heading("MADE-OF"),
    Heading("CLAIMS"),
)


@click.group("vol")
def vol() -> None:
    """Volumes of storage pools."""


_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_volume = click.argument("volume", metavar="VOL")
_pool = click.option("--pool", metavar="POOL", help="In this pool only.")


@vol.command("list")
@click.argument("pool", metavar="[POOL]", required=False)
@click.option("--details", is_flag=True, help="Sizes, keys, constituents and claims as well.")
@click.option("-b", "--bytes", "exact", is_flag=True, help="Sizes in bytes.")
@_json
@click.pass_obj
def list_volumes(session: Session, *, pool: str | None, details: bool, exact: bool, as_json: bool) -> None:
    """List the volumes of a pool, or of all active ones."""
    with session.client() as client:
        found = client.list_volumes(pool)
    if as_json:
        emit_json(found)
        return
    headings = (*_HEADINGS, *_DETAILS) if details else _HEADINGS
    if pool is None:
        headings = (Heading("POOL"), *headings)
    size = str if exact else human_size
    rows = (
        [*((volume.pool,) if pool is None else ()), *_row(volume, size, details=details)]
        for volume in found.volumes
    )
    emit(table(headings, rows))


def _row(volume: pb.Volume, size: Callable[[int], str], *, details: bool) -> Iterator[str]:
    yield volume.name
    yield volume.path
    if details:
        yield size(volume.capacity_bytes) if volume.HasField("capacity_bytes") else ""
        yield volume.key
        yield "yes" if volume.available_for_use else "no"
        yield ",".join(part.path or part.device for part in volume.constituents)
        yield "; ".join(map(claim_sentence, volume.reasons))


def find(client: Client, volume: str, pool: str | None) -> pb.Volume:
    """The volume that a person means by name, key or path; refuses to guess between several."""
    found = client.find_volumes(pb.FindVolumesRequest(handle=volume, pool=pool)).volumes
    pools = {other.pool for other in found}
    if len({other.device for other in found}) > 1:
        listed = ", ".join(f"{other.pool}/{other.name}" for other in found)
        raise click.UsageError(f"{volume} may be any of {listed}: say --pool, or a key or path")
    # One device in several pools is the same volume under a rule of naming each; the first does.
    return next((other for other in found if other.name == volume and other.pool in pools), found[0])


def _reference(volume: pb.Volume) -> pb.VolumeReference:
    return pb.VolumeReference(pool=volume.pool, name=volume.name)


@vol.command("info")
@_volume
@_pool
@click.option("-b", "--bytes", "exact", is_flag=True, help="Sizes in bytes.")
@_json
@click.pass_obj
def info(session: Session, *, volume: str, pool: str | None, exact: bool, as_json: bool) -> None:
    """Tell about one volume; VOL is a name, a key or a path."""
    with session.client() as client:
        found = find(client, volume, pool)
    if as_json:
        emit_json(found)
        return
    emit("".join(f"{line}\n" for line in _lines(found, str if exact else human_size)))


def _lines(volume: pb.Volume, size: Callable[[int], str]) -> Iterator[str]:
    capacity = size(volume.capacity_bytes) if volume.HasField("capacity_bytes") else ""
    rights = volume.permissions
    heads = (
        ("Name", volume.name),
        ("Pool", volume.pool),
        ("Type", "block"),
        ("Key", volume.key),
        ("Path", volume.path),
        ("Stable path", volume.stable_path),
        ("Device", volume.device),
        ("Capacity", capacity),
        ("Allocation", capacity),
        ("Permissions", f"{rights.mode:04o} {rights.owner}:{rights.group}" if rights.mode else ""),
        ("Read-only", "yes" if volume.read_only else ""),
        ("Usable", "yes" if volume.available_for_use else "no"),
    )
    yield from (f"{f'{title}:':<15} {plain(text)}" for title, text in heads if text)
    sections = (
        ("Made of", [f"{part.kind} {part.path or part.device}" for part in volume.constituents]),
        ("Claims", [claim_sentence(reason) for reason in volume.reasons]),
        ("Notes", [f"{note.source}: {note.message}" for note in volume.notes]),
    )
    for title, texts in sections:
        if texts:
            yield f"{title}:"
            yield from (f"  {plain(text)}" for text in texts)


@vol.command("dumpxml")
@_volume
@_pool
@click.pass_obj
def dumpxml(session: Session, *, volume: str, pool: str | None) -> None:
    """Print a volume as libvirt's XML."""
    with session.client() as client:
        emit(client.volume_xml(_reference(find(client, volume, pool))))


@vol.command("disk-xml")
@_volume
@_pool
@click.option("--target", metavar="DEV", default="", help="Its name in the guest; vda if not given.")
@click.option("--force", is_flag=True, help="Though it is claimed.")
@click.pass_obj
def disk_xml(session: Session, *, volume: str, pool: str | None, target: str, force: bool) -> None:
    """Print a volume as a disk of a guest, libvirt's <disk>."""
    with session.client() as client:
        emit(client.disk_xml(_reference(find(client, volume, pool)), target, force=force))


@vol.command("related")
@_volume
@_pool
@_json
@click.pass_obj
def related(session: Session, *, volume: str, pool: str | None, as_json: bool) -> None:
    """List what a volume is made of and what is built on it, in every active pool."""
    with session.client() as client:
        found = client.related_volumes(_reference(find(client, volume, pool)))
    if as_json:
        emit_json(found)
        return
    headings = [Heading(title) for title in ("RELATION", "POOL", "NAME", "PATH", "KEY")]
    rows = (
        [_relation(other), other.volume.pool, other.volume.name, other.volume.path, other.volume.key]
        for other in found.related
    )
    emit(table(headings, rows))


def _relation(related: pb.RelatedVolume) -> str:
    """In words from the volume asked about: "path", "member of its path"; "used by: path"."""
    if related.side == pb.RelatedVolume.SIDE_SAME:
        return "same"
    chain = "/".join(related.chain)
    return f"holder:{chain}" if related.side == pb.RelatedVolume.SIDE_HOLDER else chain


@vol.command("lookup")
@click.option("--key", metavar="KEY", help="A WWID, an array's UUID, a loop device's file.")
@click.option("--path", metavar="PATH", help="The volume's, or any node or link of its device.")
@click.option("--device", metavar="DEV", help="Any handle of a device.")
@click.option("--name", metavar="NAME", help="In any pool.")
@_pool
@_json
@click.pass_obj
def lookup(
    session: Session,
    *,
    key: str | None,
    path: str | None,
    device: str | None,
    name: str | None,
    pool: str | None,
    as_json: bool,
) -> None:
    """Find volumes by key, path, device or name.

    Where a volume and those that it is made of answer, it is the one to be used that is given.
    """
    options = {"key": key, "path": path, "device": device, "name": name}
    given = [(field, value) for field, value in options.items() if value is not None]
    if len(given) != 1:
        raise click.UsageError("give one of --key, --path, --device, --name")
    wanted = pb.FindVolumesRequest(pool=pool)
    setattr(wanted, *given[0])
    with session.client() as client:
        found = client.find_volumes(wanted)
    if as_json:
        emit_json(found)
        return
    headings = [Heading(title) for title in ("POOL", "NAME", "PATH", "KEY")]
    emit(table(headings, ([other.pool, other.name, other.path, other.key] for other in found.volumes)))


def _field(name: str, field: Callable[[pb.Volume], str], about: str) -> None:
    """Adds a command that prints one field of a volume, as virsh has them."""

    @vol.command(name, help=about)
    @_volume
    @_pool
    @click.pass_obj
    def show(session: Session, *, volume: str, pool: str | None) -> None:
        with session.client() as client:
            emit(f"{plain(field(find(client, volume, pool)))}\n")


_field("path", lambda volume: volume.path, "Print a volume's path.")
_field("key", lambda volume: volume.key, "Print a volume's key.")
_field("name", lambda volume: volume.name, "Print a volume's name.")
_field("pool", lambda volume: volume.pool, "Print the pool of a volume.")
