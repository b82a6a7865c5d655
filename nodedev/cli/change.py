"""`nodedev create` and `nodedev destroy`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, BinaryIO

import click

from nodedev.cli import devices
from nodedev.cli.completion import complete_device
from nodedev.cli.output import emit, emit_json, on_terminal, plain
from nodedev.cli.plans import emit_plan
from nodedev.cli.session import Session

if TYPE_CHECKING:
    from nodedev.client import Client
    from nodedev.v1 import device_pb2

# mdadm waits for udev, and udev for its rules.
CHANGE_SECONDS = 120.0

_PROGRESS_SECONDS = 1.0
_LIVES_ON = 1
_PERCENT = 100


@click.command("create")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Print what would be run, and change nothing.")
@click.option(
    "--overwrite", metavar="DEV", multiple=True, help="A member of a new array whose contents may be lost."
)
@click.option("--wait", is_flag=True, help="Until a new array is in sync.")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@click.pass_obj
def create(
    session: Session, *, file: BinaryIO, dry_run: bool, overwrite: tuple[str, ...], wait: bool, as_json: bool
) -> None:
    """Make the device that XML describes; FILE may be - for standard input.

    Prints its name. The same again is the device that is there.
    """
    xml = read_xml(file)
    with session.client(follow=True, seconds=CHANGE_SECONDS) as client:
        done = client.create_device(xml, overwrite=overwrite, validate_only=dry_run)
        if as_json:
            emit_json(done)
        elif dry_run:
            emit_plan(done.steps, done.device.name)
        else:
            emit(f"{plain(done.device.name)}\n")
        if wait and done.device.name:
            _wait_for_sync(client, done.device)


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
            _ask(device)
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
        context.exit(_LIVES_ON)


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


def _ask(device: device_pb2.Device) -> None:
    """Shows what the device is and who has claims on it; aborts unless the answer is yes."""
    alias = devices.alias(device)
    click.echo(f"{plain(device.name)}{f' ({plain(alias)})' if alias else ''}", err=True)
    claims = [plain(devices.claim_sentence(reason)) for reason in devices.claims(device)]
    for claim in claims or ["no claims"]:
        click.echo(f"  {claim}", err=True)
    click.confirm("Destroy it?", abort=True, err=True)


def _wait_for_sync(client: Client, device: device_pb2.Device) -> None:
    """Follows a new array's sync, with a line on a terminal that says how far it is."""
    shown = False
    while True:
        raid = devices.capability(client.get_device(device.name).device, "raid")
        action = devices.word(raid, "sync", "action")
        if raid is None or action in ("", "idle", "frozen"):
            break
        done, total = (devices.value(raid, "sync", f"{part}_bytes") for part in ("completed", "total"))
        if sys.stderr.isatty():
            part = f" {_PERCENT * int(done or 0) // int(total)} %" if total else ""
            click.echo(f"\r{plain(action)}{part}  ", err=True, nl=False)
            shown = True
        time.sleep(_PROGRESS_SECONDS)
    if shown:
        click.echo("\rin sync      ", err=True)
