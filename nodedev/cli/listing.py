"""`nodedev list`."""

from __future__ import annotations

from collections.abc import Callable

import click
from msgspec import Struct

from nodedev.cli import devices
from nodedev.cli.devices import Device
from nodedev.cli.output import Heading, emit, emit_json, human_size, table
from nodedev.cli.session import Session


class Column(Struct, frozen=True):
    """One column: how a device fills it, and what help says of it."""

    text: Callable[[Device], str]
    about: str
    right: bool = False


def _storage(device: Device, field: str) -> str:
    return devices.word(devices.capability(device, "storage"), field)


def _size(device: Device) -> str:
    size_bytes = devices.size_bytes(device)
    return "" if size_bytes is None else human_size(size_bytes)


def _size_bytes(device: Device) -> str:
    size_bytes = devices.size_bytes(device)
    return "" if size_bytes is None else str(size_bytes)


def _autostart(device: Device) -> str:
    if not device.persistent:
        return ""
    return "yes" if device.autostart else "no"


COLUMNS = {
    "NAME": Column(lambda device: device.name, "libvirt's node-device name"),
    "KIND": Column(devices.kind, "what it is first of all: mpath, raid, loop, disk, partition, ..."),
    "SIZE": Column(_size, "with --bytes in bytes", right=True),
    "HEALTH": Column(devices.health, "of a map or an array"),
    "STATE": Column(
        devices.state, "of a map, an array or another dm device as the kernel says; deleted: a loop's file"
    ),
    "NODE": Column(lambda device: device.devnode, "device node"),
    "ALIAS": Column(devices.alias, "dm name, array name, loop device's file"),
    "USED-BY": Column(devices.used_by, "holders, mount points, swap, signatures"),
    "CAPABILITIES": Column(lambda device: ",".join(devices.capabilities(device)), "all capability types"),
    "PATHS": Column(devices.paths, "a map's usable paths of all", right=True),
    "ACTIVE": Column(lambda device: "no" if device.inactive else "yes", "whether it is there"),
    "AUTOSTART": Column(_autostart, "of a defined device: whether it is started with the service"),
    "PARENT": Column(lambda device: device.parent, "libvirt's parent"),
    "MAJ:MIN": Column(lambda device: device.device_number, "device number"),
    "DRIVER": Column(lambda device: device.driver, "kernel driver"),
    "VENDOR": Column(lambda device: _storage(device, "vendor"), "of a disk"),
    "MODEL": Column(lambda device: _storage(device, "model"), "of a disk"),
    "SERIAL": Column(lambda device: _storage(device, "serial"), "of a disk; a map's WWID"),
    "MEMBERS": Column(
        lambda device: ",".join(found.device for found in device.members), "what it is made of"
    ),
    "HOLDERS": Column(
        lambda device: ",".join(found.device for found in device.holders), "what is made of it"
    ),
    "SYSFS": Column(lambda device: device.sysfs_path, "sysfs path"),
    "NOTES": Column(lambda device: str(len(device.notes)), "how many notes it has", right=True),
}
DEFAULT = ("NAME", "KIND", "SIZE", "STATE", "HEALTH", "NODE", "ALIAS", "USED-BY")


def _columns(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[str, ...]:  # noqa: ARG001
    """Reads -o: names, or +NAME to add to the default ones."""
    if text is None:
        return DEFAULT
    names = tuple(name.strip().upper() for name in text.removeprefix("+").split(","))
    for name in names:
        if name not in COLUMNS:
            raise click.BadParameter(f"no column {name}; there are {', '.join(COLUMNS)}")
    return (*DEFAULT, *names) if text.startswith("+") else names


def split(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG001
    """Reads --cap, which may be repeated or hold several types."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


@click.command("list", epilog="\b\nColumns:\n" + "\n".join(f"  {n:<13}{c.about}" for n, c in COLUMNS.items()))
@click.option(
    "--cap", metavar="TYPE,...", multiple=True, callback=split, help="Only with one of these types."
)
@click.option("--parent", metavar="DEV", help="Only those right below this device.")
@click.option(
    "-o", "--output", "columns", metavar="COL,...", callback=_columns, help="Columns; +COL,... adds to them."
)
@click.option("-n", "--noheadings", is_flag=True, help="Leave the header out.")
@click.option("-b", "--bytes", "exact", is_flag=True, help="Sizes in bytes.")
@click.option("--tree", "as_tree", is_flag=True, help="As a tree, with the parents of those selected.")
@click.option("--all", "everything", is_flag=True, help="Those that could be started, too.")
@click.option("--inactive", is_flag=True, help="Only those that could be started.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def list_devices(
    session: Session,
    *,
    cap: tuple[str, ...],
    parent: str | None,
    columns: tuple[str, ...],
    noheadings: bool,
    exact: bool,
    as_tree: bool,
    everything: bool,
    inactive: bool,
    as_json: bool,
) -> None:
    """List devices."""
    from nodedev.v1 import device_service_pb2 as pb  # noqa: PLC0415  start-up cost

    presence = pb.PRESENCE_INACTIVE if inactive else pb.PRESENCE_ALL if everything else pb.PRESENCE_ACTIVE
    with session.client() as client:
        parent = client.get_device(parent).device.name if parent else None
        found = client.list_devices(pb.DeviceFilter(capabilities=cap, parent=parent, presence=presence))
        if as_json:
            emit_json(found)
            return
        if as_tree:
            from nodedev.cli.tree import by_parent  # noqa: PLC0415  start-up cost

            wanted = {device.name for device in found.devices} if cap or parent else None
            everyone = client.list_devices().devices if wanted is not None else found.devices
            emit(by_parent(everyone, wanted))
            return
    shown = {**COLUMNS, "SIZE": Column(_size_bytes, "", right=True)} if exact else COLUMNS
    headings = [Heading(name, shown[name].right) for name in columns]
    rows = ([shown[name].text(device) for name in columns] for device in found.devices)
    emit(table(headings, rows, header=not noheadings))
