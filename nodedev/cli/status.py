"""`nodedev status`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from nodedev.cli.output import emit, emit_json, plain
from nodedev.cli.session import Session

if TYPE_CHECKING:
    from nodedev.v1.admin_service_pb2 import GetServerInfoResponse


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def status(session: Session, *, as_json: bool) -> None:
    """Tell who answers, and which sources of facts could not be read."""
    with session.client(follow=True) as client:
        found = client.server_info()
    if as_json:
        emit_json(found)
        return
    emit("".join(f"{line}\n" for line in _lines(found, session.service() or "this process")))


def _lines(found: GetServerInfoResponse, address: str) -> Iterator[str]:
    heads = (
        ("Answered by", address),
        ("Version", found.version),
        ("Host", found.host),
        ("Devices", str(found.device_count)),
        ("Revision", str(found.revision)),
        ("Events", found.events),
        ("Connection", "read-only" if found.read_only else "read-write"),
    )
    yield from (f"{f'{title}:':<15} {plain(text)}" for title, text in heads)
    if found.notes:
        yield "Notes:"
        yield from (f"  {plain(note.source)}: {plain(note.message)}" for note in found.notes)
