"""How far an array's sync is, as the service tells it while it goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from nodedev.cli import devices
from nodedev.cli.output import plain

if TYPE_CHECKING:
    from nodedev.client import DeviceWatch
    from nodedev.v1 import device_pb2

_PERCENT = 100
_RESTING = ("", "idle", "frozen")
_WHOLE = ("", "optimal")


def follow(watched: DeviceWatch, name: str) -> None:
    """Waits for the end of the array's sync, with a line on a terminal that says how far it is."""
    shown = sys.stderr.isatty()
    width = 0

    def tell(text: str) -> None:
        nonlocal width
        click.echo(f"\r{plain(text):{width}}", err=True, nl=False)
        width = len(text)

    asyncio.run(until_synced(watched, name, tell if shown else lambda _: None))
    if width:
        click.echo(err=True)


async def until_synced(watched: DeviceWatch, name: str, tell: Callable[[str], None]) -> None:
    """Returns when the array rests or is gone; tells each step of a sync, and how it has ended."""
    told = ""
    complete = False
    async for update in watched:
        complete = complete or update.complete
        device = watched.devices.get(name)
        step = _step(device) if device else ""
        if step and step != told:
            tell(step)
            told = step
        if complete and not step:
            break
    if told:
        health = devices.health(watched.devices[name]) if name in watched.devices else "gone"
        tell("in sync" if health in _WHOLE else health)


def _step(device: device_pb2.Device) -> str:
    """What the array does besides serving, "resync 25 %"; empty when that is nothing."""
    action = devices.word(devices.capability(device, "raid"), "sync", "action")
    if action in _RESTING:
        return ""
    progress = devices.progress(device)
    return f"{action} {int(_PERCENT * progress[1])} %" if progress else action
