"""`nodedev create` and `nodedev destroy`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO

import click

from nodedev.cli import devices
from nodedev.cli.completion import complete_device
from nodedev.cli.output import emit, emit_json, on_terminal, plain
from nodedev.cli.plans import emit_plan
from nodedev.cli.session import Session
from nodedev.cli.sync import follow

if TYPE_CHECKING:
    from nodedev.v1 import device_pb2

# mdadm waits for udev, and udev for its rules.
CHANGE_SECONDS = 120.0

_NOT_DESTROYED = 1


FORCE = click.option("--force", is_flag=True, help="Start an array that lacks members, if it can run.")


@click.command("create")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Print what would be run, and change nothing.")
@click.option(
    "--overwrite", metavar="DEV", multiple=True, help="A member of a new array whose contents may be lost."
)
@FORCE
@click.option("--wait", is_flag=True, help="Until a new array is in sync.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@click.pass_obj
def create(
    session: Session,
    *,
    file: BinaryIO,
    dry_run: bool,
    overwrite: tuple[str, ...],
    force: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Make the device that XML describes; FILE may be - for standard input.

    Prints its name. The same again is the device that is there.
    """
    xml = read_xml(file)
    with session.client(follow=True, seconds=CHANGE_SECONDS) as client:
        done = client.create_device(xml, overwrite=overwrite, force=force, validate_only=dry_run)
        if as_json:
            emit_json(done)
        elif dry_run:
            emit_plan(done.steps, done.device.name)
        else:
            emit(f"{plain(done.device.name)}\n")
        if wait and done.device.name:
            follow(session.watch_beside(client, done.device.name), done.device.name)


@click.command("destroy")
@click.argument("handle", metavar="DEV", shell_complete=complete_device)
@click.option("--dry-run", is_flag=True, help="Print what would be run, and change nothing.")
@click.option("--generation", type=int, help="Only if the device has this one (info shows it).")
@click.option("--lazy", is_flag=True, help="A loop device in use goes with its last opener.")
@click.option("--force", is_flag=True, help="Flush a map without usable paths; its queued writes are lost.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@click.pass_context
def destroy(
    context: click.Context,
    *,
    handle: str,
    dry_run: bool,
    generation: int | None,
    lazy: bool,
    force: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take a device away and leave its data: detach, stop, flush or deactivate it.

    On a terminal its claims are shown first, and asked about. What is gone already is no error.
    """
    from nodedev.errors import NotFoundError  # noqa: PLC0415  start-up cost

    session = context.find_object(Session)
    if session is None:
        raise TypeError("no session")
    with session.client(follow=True, seconds=CHANGE_SECONDS) as client:
        try:
            device = client.get_device(handle).device
        except NotFoundError:
            device = None
        if device and not (dry_run or yes) and on_terminal() and sys.stdin.isatty():
            _ask(device, context)
        if generation is None and device and device.HasField("generation"):
            generation = device.generation
        done = client.destroy_device(
            handle, generation=generation, lazy=lazy, force=force, validate_only=dry_run
        )
    if as_json:
        emit_json(done)
    elif dry_run:
        emit_plan(done.steps, "")
    else:
        outcome = type(done).Outcome.Name(done.outcome).removeprefix("OUTCOME_").lower()
        emit(f"{plain(done.device.name or handle)} {_SENTENCES[outcome]}\n")
    if done.outcome == type(done).OUTCOME_REAPPEARED:
        context.exit(_NOT_DESTROYED)


_SENTENCES = {
    "destroyed": "destroyed",
    "detaching": "is detaching: it goes with its last opener",
    "reappeared": "was destroyed, and has been made again at once",
    "absent": "was not there",
    "unspecified": "is as it was",
}


def read_xml(file: BinaryIO) -> str:
    """A document's text."""
    try:
        return file.read().decode()
    except UnicodeDecodeError:
        raise click.UsageError(f"{file.name} is not UTF-8") from None


def _ask(device: device_pb2.Device, context: click.Context) -> None:
    """Shows what the device is and who has claims on it; ends the program unless the answer is yes."""
    alias = devices.alias(device)
    click.echo(f"{plain(device.name)}{f' ({plain(alias)})' if alias else ''}", err=True)
    claims = [plain(devices.claim_sentence(reason)) for reason in devices.claims(device)]
    for claim in claims or ["no claims"]:
        click.echo(f"  {claim}", err=True)
    if not click.confirm("Destroy it?", err=True):
        click.echo(f"{plain(device.name)} {_SENTENCES['unspecified']}", err=True)
        context.exit(_NOT_DESTROYED)
