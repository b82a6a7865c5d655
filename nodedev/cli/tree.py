"""`nodedev tree`: devices below their parents, or the storage stack from its top down to the disks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from nodedev.cli import devices
from nodedev.cli.devices import Device
from nodedev.cli.output import boxes, emit, emit_json, human_size, on_terminal, painted, plain
from nodedev.cli.session import Session

if TYPE_CHECKING:
    from nodedev.client import DeviceWatch


class Strokes(Struct, frozen=True):
    """What a tree is drawn with."""

    branch: str
    last: str
    line: str
    blank: str


# A label has no room for what is as it should be; a container of arrays is always inactive (md.rst).
_UNUSUAL = ("suspended", "deleted")

_BAR = 20
# To the upper left corner, and everything below it cleared (ECMA-48 CUP, ED).
_HOME = "\x1b[H\x1b[J"

ASCII = Strokes("+- ", "+- ", "|  ", "   ")
BOXES = Strokes("├─ ", "└─ ", "│  ", "   ")


class Node(Struct, frozen=True):
    """A label, and the nodes below it."""

    label: str
    below: tuple[Node, ...] = ()


@click.command("tree")
@click.option("--inverse", is_flag=True, help="What is used on top, and below it what it is made of.")
@click.option("--json", "as_json", is_flag=True, help="The relations as JSON.")
@click.option("--watch", "live", is_flag=True, help="Draw it anew with each change, until interrupted.")
@click.pass_obj
def tree(session: Session, *, inverse: bool, as_json: bool, live: bool) -> None:
    """Show how devices hang together.

    Below a device whose parent says nothing of it, "<-" tells what it is made of. A dm device whose
    name is too long to read goes by its dm name.
    """
    if live and as_json:
        raise click.UsageError("--json tells of one moment; nodedev watch --json goes on")
    draw = stack if inverse else by_parent
    if live:
        with session.watch() as watched:
            asyncio.run(_redraw(watched, draw))
    with session.client() as client:
        if as_json:
            emit_json(client.topology())
            return
        found = client.list_devices().devices
    emit(draw(found))


async def _redraw(watched: DeviceWatch, draw: Callable[[Iterable[Device]], str]) -> None:
    """Draws the tree in place on a terminal, one tree after the other elsewhere."""
    async for _ in watched:
        if watched.revision:
            found = (device for _, device in sorted(watched.devices.items()))
            emit(f"{_HOME if on_terminal() else ''}{draw(found)}{'' if on_terminal() else chr(10)}")


def by_parent(found: Iterable[Device], wanted: set[str] | None = None) -> str:
    """Each device below its parent as libvirt draws it, maps and arrays with what they are made of.

    With `wanted` only these, and those above them.
    """
    known = {device.name: device for device in found}
    children: dict[str, list[str]] = {}
    for device in known.values():
        if device.parent in known:
            children.setdefault(device.parent, []).append(device.name)
    shown = known.keys() if wanted is None else _with_parents(known, wanted)

    def node(name: str) -> Node:
        device = known[name]
        legs = (Node(f"<- {label}") for label, member in _legs(device, known) if member != device.parent)
        below = (node(child) for child in children.get(name, ()) if child in shown)
        return Node(_label(device), (*legs, *below))

    roots = (name for name, device in known.items() if device.parent not in known and name in shown)
    return "".join(f"{line}\n" for root in roots for line in _drawn(node(root)))


def stack(found: Iterable[Device]) -> str:
    """The storage stack: what nothing is made of first, and below it its members; each device once."""
    known = {device.name: device for device in found if devices.is_block(device)}
    seen: set[str] = set()

    def node(name: str, label: str) -> Node:
        device = known.get(name)
        if device is None:
            return Node(label)
        if name in seen and device.members:
            return Node(f"{label} (above)")
        seen.add(name)
        return Node(label, tuple(node(member, text) for text, member in _legs(device, known, _label)))

    tops = (
        name for name, device in known.items() if not any(held.device in known for held in device.holders)
    )
    return "".join(f"{line}\n" for top in tops for line in _drawn(node(top, _label(known[top]))))


def _with_parents(known: Mapping[str, Device], wanted: set[str]) -> set[str]:
    shown: set[str] = set()
    for name in wanted:
        above = name
        while above in known and above not in shown:
            shown.add(above)
            above = known[above].parent
    return shown


def _legs(
    device: Device, known: Mapping[str, Device], label: Callable[[Device], str] = devices.short_name
) -> Iterator[tuple[str, str]]:
    """A label for each member, with its state in this device, and the member's name."""
    states = devices.leg_states(device)
    for relation in device.members:
        state = states.get(relation.device, "")
        words = " ".join(painted(plain(part)) for part in state.split())
        member = known.get(relation.device)
        called = label(member) if member else plain(relation.device)
        yield f"{relation.kind} {called}{f' {words}' if words else ''}", relation.device


def _label(device: Device) -> str:
    """The name, and of a block device what one wants to see first."""
    if not devices.is_block(device):
        return plain(device.name)
    size_bytes = devices.size_bytes(device)
    kind, alias, name = devices.kind(device), devices.alias(device), devices.short_name(device)
    size = "" if size_bytes is None else human_size(size_bytes)
    words: tuple[str, ...] = (kind, "" if name == alias else alias, size, device.devnode)
    state = devices.state(device)
    doing = devices.progress(device)
    if doing:
        words = (*words, f"{doing[0]} {_bar(doing[1])} {doing[1]:.0%}")
    conditions = (state if state in _UNUSUAL or device.inactive else "", devices.health(device))
    about = (*map(plain, filter(None, words)), *(painted(plain(word)) for word in conditions if word))
    return f"{plain(name)} [{', '.join(about)}]"


def _bar(share: float) -> str:
    """How much is done, as a bar."""
    done = int(share * _BAR)
    return f"|{'#' * done}{'.' * (_BAR - done)}|"


def _drawn(node: Node, first: str = "", rest: str = "") -> Iterator[str]:
    strokes = BOXES if boxes() else ASCII
    yield f"{first}{node.label}"
    for number, below in enumerate(node.below, 1):
        last = number == len(node.below)
        yield from _drawn(
            below,
            rest + (strokes.last if last else strokes.branch),
            rest + (strokes.blank if last else strokes.line),
        )
