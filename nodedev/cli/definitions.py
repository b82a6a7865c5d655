"""`nodedev define`, `undefine`, `start` and `autostart`."""

from __future__ import annotations

from typing import BinaryIO

import click

from nodedev.cli.change import CHANGE_SECONDS, FORCE, read_xml
from nodedev.cli.completion import complete_device
from nodedev.cli.output import emit, emit_json, plain
from nodedev.cli.plans import emit_plan
from nodedev.cli.session import Session

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Check it, and change nothing.")


@click.command("define")
@click.argument("file", type=click.File("rb"))
@_DRY_RUN
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@click.pass_obj
def define(session: Session, file: BinaryIO, *, dry_run: bool, as_json: bool) -> None:
    """Keep XML, so that `start` can make the device; FILE may be - for standard input."""
    with session.client() as client:
        done = client.define_device(read_xml(file), validate_only=dry_run)
    if as_json:
        emit_json(done)
    else:
        emit(f"{plain(done.device.name)} {'could be' if dry_run else 'is'} defined\n")


@click.command("undefine")
@click.argument("name", metavar="DEV", shell_complete=complete_device)
@_DRY_RUN
@click.pass_obj
def undefine(session: Session, name: str, *, dry_run: bool) -> None:
    """Forget a definition; the device stays as it is."""
    with session.client() as client:
        done = client.undefine_device(name, validate_only=dry_run)
    known = "would be forgotten" if dry_run else "is no longer defined"
    emit(f"{plain(name)} {known if done.existed else 'was not defined'}\n")


@click.command("start")
@click.argument("name", metavar="DEV", shell_complete=complete_device)
@click.option("--dry-run", is_flag=True, help="Print what would be run, and change nothing.")
@FORCE
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
@click.pass_obj
def start(session: Session, name: str, *, dry_run: bool, force: bool, as_json: bool) -> None:
    """Make a device that is listed as inactive; prints its name."""
    with session.client(follow=True, seconds=CHANGE_SECONDS) as client:
        done = client.start_device(name, force=force, validate_only=dry_run)
    if as_json:
        emit_json(done)
    elif dry_run:
        emit_plan(done.steps, done.device.name)
    else:
        emit(f"{plain(done.device.name)}\n")


@click.command("autostart")
@click.argument("name", metavar="DEV", shell_complete=complete_device)
@click.option("--disable", is_flag=True, help="No longer.")
@_DRY_RUN
@click.pass_obj
def autostart(session: Session, name: str, *, disable: bool, dry_run: bool) -> None:
    """Start a defined device with the service."""
    with session.client() as client:
        done = client.set_device_autostart(name, autostart=not disable, validate_only=dry_run)
    emit(f"{plain(done.device.name)} is {'not ' if disable else ''}started with the service\n")
