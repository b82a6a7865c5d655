"""`nodedev record`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from nodedev.cli.output import plain
from nodedev.cli.session import Session


@click.command("record")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Record the host's events too, until interrupted.")
@click.pass_obj
def record(session: Session, out: Path, *, follow: bool) -> None:
    """Record this host for --host: OUT is a new folder, or a new .tar.gz.

    Nothing on the host is changed, and no passwords are recorded. With --follow the recording also
    holds what happens until Ctrl-C or SIGTERM; --host then plays it, as `watch` shows.
    """
    from nodedev.capabilities import attributes  # noqa: PLC0415  start-up cost
    from nodedev.facts.live import LiveSource  # noqa: PLC0415
    from nodedev.facts.recorder import record as write  # noqa: PLC0415

    if session.address or session.recording:
        raise click.UsageError("record reads the host it runs on: no --connect, no --host")
    ended = threading.Event()
    if follow:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        click.echo("nodedev: recording until interrupted", err=True)
    about = write(LiveSource(attributes()), out, following=(lambda: not ended.is_set()) if follow else None)
    for note in about.notes:
        click.echo(f"nodedev: not recorded: {plain(note.source)}: {plain(note.message)}", err=True)
