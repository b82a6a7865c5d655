"""`nodedev pool`: storage pools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import click
from google.protobuf.message import Message

from nodedev.cli.output import Heading, emit, emit_json, human_size, plain, table
from nodedev.cli.session import Session
from nodedev.cli.watch import watch_pools
from nodedev.v1 import pool_service_pb2 as pb

START_SECONDS = 120.0

_HEADINGS = (Heading("NAME"), Heading("STATE"), Heading("AUTOSTART"), Heading("TYPE"))
_DETAILS = (
    Heading("PERSISTENT"),
    Heading("VOLUMES", right=True),
    Heading("CAPACITY", right=True),
    Heading("TARGET"),
    Heading("NOTES", right=True),
)


@click.group("pool")
def pool() -> None:
    """Storage pools: devices as volumes."""


_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_name = click.argument("name", metavar="POOL")
_seconds = click.option(
    "--timeout",
    "seconds",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=START_SECONDS,
    show_default=True,
    help="How long it may take.",
)


@pool.command("list")
@click.option("--type", "types", metavar="TYPE", multiple=True, help="Only of this type; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Inactive ones too.")
@click.option("--inactive", is_flag=True, help="Inactive ones alone.")
@click.option("--name", "names_only", is_flag=True, help="Names alone, one a line.")
@click.option("--uuid", "uuids_only", is_flag=True, help="UUIDs alone, one a line.")
@click.option("--details", is_flag=True, help="Volumes, sizes and target folders as well.")
@_json
@click.pass_obj
def list_pools(
    session: Session,
    *,
    types: tuple[str, ...],
    everything: bool,
    inactive: bool,
    names_only: bool,
    uuids_only: bool,
    details: bool,
    as_json: bool,
) -> None:
    """List active pools."""
    active = False if inactive else None if everything else True
    with session.client() as client:
        found = client.list_pools(types, active=active)
    if as_json:
        emit_json(found)
        return
    if names_only or uuids_only:
        emit("".join(f"{plain(pool.name if names_only else pool.uuid)}\n" for pool in found.pools))
    else:
        headings = (*_HEADINGS, *_DETAILS) if details else _HEADINGS
        emit(table(headings, (list(_row(pool, details=details)) for pool in found.pools)))
    for note in found.notes:
        click.echo(f"nodedev: {plain(note.source)}: {plain(note.message)}", err=True)


def _row(pool: pb.Pool, *, details: bool) -> Iterator[str]:
    yield pool.name
    yield _state(pool)
    yield _word(pool.autostart)
    yield pool.type
    if details:
        yield _word(pool.persistent)
        yield str(pool.volume_count)
        yield human_size(pool.capacity_bytes)
        yield pool.target_path
        yield str(len(pool.notes))


def _state(pool: pb.Pool) -> str:
    return "active" if pool.active else "inactive"


def _word(flag: bool) -> str:
    return "yes" if flag else "no"


@pool.command("info")
@_name
@click.option("-b", "--bytes", "exact", is_flag=True, help="Sizes in bytes.")
@_json
@click.pass_obj
def info(session: Session, *, name: str, exact: bool, as_json: bool) -> None:
    """Tell about one pool, by name or UUID."""
    with session.client() as client:
        found = client.get_pool(name)
    if as_json:
        emit_json(found)
        return
    emit("".join(f"{line}\n" for line in _lines(found, str if exact else human_size)))


def _lines(pool: pb.Pool, size: Callable[[int], str]) -> Iterator[str]:
    heads = (
        ("Name", pool.name),
        ("UUID", pool.uuid),
        ("Type", pool.type),
        ("State", _state(pool)),
        ("Persistent", _word(pool.persistent)),
        ("Autostart", _word(pool.autostart)),
        ("Source", _source(pool.source)),
        ("Target", pool.target_path),
        ("Volumes", str(pool.volume_count)),
        ("Capacity", size(pool.capacity_bytes)),
        ("Allocation", size(pool.allocation_bytes)),
        ("Available", size(pool.available_bytes)),
    )
    yield from (f"{f'{title}:':<15} {plain(text)}" for title, text in heads if text)
    if pool.sessions:
        yield "Logged in:"
        yield from (f"  session{found.number} {plain(found.portal)}" for found in pool.sessions)
    if pool.notes:
        yield "Notes:"
        yield from (f"  {plain(note.source)}: {plain(note.message)}" for note in pool.notes)


def _source(source: pb.PoolSource) -> str:
    hosts = (f"{host.name}:{host.port}" if host.HasField("port") else host.name for host in source.hosts)
    adapter = source.adapter
    names = (adapter.name, adapter.pci_address, adapter.wwpn)
    return " ".join(filter(None, (source.device_path, *hosts, *names)))


@pool.command("dumpxml")
@_name
@click.pass_obj
def dumpxml(session: Session, name: str) -> None:
    """Print a pool as libvirt's XML."""
    with session.client() as client:
        emit(client.pool_xml(name))


@pool.command("define")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Check it, and change nothing.")
@_json
@click.pass_obj
def define(session: Session, *, file: BinaryIO, dry_run: bool, as_json: bool) -> None:
    """Define a pool by libvirt's XML; FILE may be - for standard input."""
    try:
        xml = file.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{file.name} is not UTF-8") from None
    with session.client() as client:
        found = client.define_pool(xml, validate_only=dry_run)
    done = "could be defined" if dry_run else "defined"
    _tell(found, f"Pool {plain(found.name)} {done} from {plain(str(file.name))}", as_json=as_json)


@pool.command("undefine")
@_name
@click.pass_obj
def undefine(session: Session, name: str) -> None:
    """Forget a pool's definition."""
    with session.client() as client:
        client.undefine_pool(name)
    emit(f"Pool {plain(name)} has been undefined\n")


@pool.command("start")
@_name
@_seconds
@_json
@click.pass_obj
def start(session: Session, *, name: str, seconds: float, as_json: bool) -> None:
    """Make a pool active; an iscsi one logs in to its target."""
    with session.client(follow=True, seconds=seconds) as client:
        found = client.start_pool(name)
    _tell(found, f"Pool {plain(found.name)} started, {found.volume_count} volumes", as_json=as_json)


@pool.command("stop")
@_name
@_seconds
@_json
@click.pass_obj
def stop(session: Session, *, name: str, seconds: float, as_json: bool) -> None:
    """Make a pool inactive; an iscsi one logs out of what it logged in to."""
    with session.client(follow=True, seconds=seconds) as client:
        found = client.stop_pool(name)
    _tell(found, f"Pool {plain(found.name)} stopped", as_json=as_json)


@pool.command("autostart")
@_name
@click.option("--disable", is_flag=True, help="No longer.")
@_json
@click.pass_obj
def autostart(session: Session, *, name: str, disable: bool, as_json: bool) -> None:
    """Start a pool with the service."""
    with session.client() as client:
        found = client.autostart_pool(name, autostart=not disable)
    marked = "unmarked as" if disable else "marked as"
    _tell(found, f"Pool {plain(found.name)} {marked} autostarted", as_json=as_json)


@pool.command("refresh")
@_name
@_json
@click.pass_obj
def refresh(session: Session, *, name: str, as_json: bool) -> None:
    """Answer at the newest revision; volumes follow the devices by themselves."""
    with session.client() as client:
        found = client.refresh_pool(name)
    _tell(found, f"Pool {plain(found.name)} refreshed", as_json=as_json)


pool.add_command(watch_pools)


def _tell(message: Message, sentence: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(message)
    else:
        emit(f"{sentence}\n")
