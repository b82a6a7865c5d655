"""`nodedev info`."""

from __future__ import annotations

from collections.abc import Iterator

import click
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from nodedev.cli import devices
from nodedev.cli.completion import complete_device
from nodedev.cli.devices import Device
from nodedev.cli.output import emit, emit_json, human_size, painted, plain
from nodedev.cli.session import Session

_INDENT = "  "


@click.command("info")
@click.argument("handle", metavar="DEV", shell_complete=complete_device)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def info(session: Session, handle: str, as_json: bool) -> None:
    """Tell all about one device.

    DEV is a name, node or link, dm name, WWID, UUID, MAJ:MIN or sysfs path.
    """
    with session.client() as client:
        found = client.get_device(handle)
    if as_json:
        emit_json(found)
        return
    emit("".join(f"{line}\n" for line in _lines(found.device)))


def _lines(device: Device) -> Iterator[str]:
    heads = (
        ("Name", device.name),
        ("Parent", device.parent),
        ("Node", device.devnode),
        ("Device number", device.device_number),
        ("Driver", device.driver),
        ("Sysfs", device.sysfs_path),
        ("Generation", str(device.generation) if device.HasField("generation") else ""),
    )
    yield from (f"{f'{title}:':<15} {plain(text)}" for title, text in heads if text)
    sections = (
        ("Links", [plain(link) for link in device.links]),
        ("Claims", [plain(devices.claim_sentence(reason)) for reason in devices.claims(device)]),
        ("Made of", [f"{plain(found.kind)} {plain(found.device)}" for found in device.members]),
        ("Used by", [f"{plain(found.kind)} {plain(found.device)}" for found in device.holders]),
        ("Notes", [f"{plain(note.source)}: {plain(note.message)}" for note in device.notes]),
    )
    for title, texts in sections:
        if texts:
            yield f"{title}:"
            yield from (f"{_INDENT}{text}" for text in texts)
    for capability in device.capabilities:
        type_ = capability.WhichOneof("kind")
        if type_ and type_ != "claim":
            yield f"{type_}:"
            yield from _fields(getattr(capability, type_), _INDENT)


def _fields(message: Message, indent: str) -> Iterator[str]:
    """Every field that is set, nested ones indented."""
    for field, found in message.ListFields():
        values = found if field.is_repeated else [found]
        if field.message_type is None:
            text = ", ".join(_text(field, value) for value in values)
            yield f"{indent}{field.name}: {text}"
            continue
        for number, value in enumerate(values, 1):
            yield f"{indent}{field.name}{f' {number}' if field.is_repeated else ''}:"
            yield from _fields(value, indent + _INDENT)


def _text(field: FieldDescriptor, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and field.name.endswith("_bytes"):
        return f"{human_size(value)} ({value})"
    return painted(plain(str(value)))
