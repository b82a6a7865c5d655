"""`nodedev dumpxml` and `nodedev validate`."""

from __future__ import annotations

from typing import BinaryIO

import click

from nodedev.cli.completion import complete_device
from nodedev.cli.output import emit, emit_json, plain
from nodedev.cli.session import Session

_INVALID = 1


@click.command("dumpxml")
@click.argument("handles", metavar="DEV...", nargs=-1, shell_complete=complete_device)
@click.option("--all", "everything", is_flag=True, help="Every device.")
@click.option("--json", "as_json", is_flag=True, help="Names and documents as JSON.")
@click.pass_obj
def dumpxml(session: Session, handles: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Print devices as XML, one document after the other."""
    if everything == bool(handles):
        raise click.UsageError("name one device or more, or give --all")
    with session.client() as client:
        found = client.device_xml(handles)
    if as_json:
        emit_json(found)
        return
    emit("\n".join(device.xml.rstrip("\n") + "\n" for device in found.devices))


@click.command("validate")
@click.argument("file", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="What is wrong as JSON.")
@click.pass_context
def validate(context: click.Context, file: BinaryIO, as_json: bool) -> None:
    """Check a device's XML against the grammar; FILE may be - for standard input.

    Prints FILE:LINE: PATH: MESSAGE for each violation, and then exits with 1.
    """
    session = context.find_object(Session)
    if session is None:
        raise TypeError("no session")
    name = str(file.name)
    try:
        xml = file.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{name} is not UTF-8") from None
    with session.client(read=False) as client:
        found = client.validate(xml)
    if as_json:
        emit_json(found)
    else:
        emit(
            "".join(
                f"{plain(name)}:{wrong.line or 1}: {plain(wrong.path)}: {plain(wrong.message)}\n"
                for wrong in found.violations
            )
            or f"{plain(name)} is valid\n"
        )
    if found.violations:
        context.exit(_INVALID)
