"""`nodedev watch` and `nodedev pool watch`: one line for each change, saying what changed, or JSON lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING

import click
from google.protobuf.message import Message

from nodedev.cli.listing import split
from nodedev.cli.output import ABSENT, emit, plain
from nodedev.cli.session import Session

if TYPE_CHECKING:
    from nodedev.client import PoolUpdate, Update

_WORDS = {1: "added", 2: "changed", 3: "removed"}  # of the protos' change types
_RESYNC = "resync: events were lost, the host was read anew"
_ALL = "these are all"


@click.command("watch")
@click.option(
    "--cap", metavar="TYPE,...", multiple=True, callback=split, help="Only with one of these types."
)
@click.option(
    "--since", metavar="REV", type=int, default=0, help="After this revision, not with all devices first."
)
@click.option("--json", "as_json", is_flag=True, help="Each change as one line of JSON.")
@click.pass_obj
def watch(session: Session, *, cap: tuple[str, ...], since: int, as_json: bool) -> None:
    """Print changes as they happen, until interrupted.

    The devices there are come first as added ones, but for a watch --since a revision.
    """
    from nodedev.v1.device_service_pb2 import DeviceFilter  # noqa: PLC0415  start-up cost

    with session.watch(DeviceFilter(capabilities=cap), since) as watched:
        lines = _json_lines if as_json else _lines
        asyncio.run(_print(lines(update) async for update in watched))


@click.command("watch")
@click.argument("names", metavar="[POOL]...", nargs=-1)
@click.option(
    "--since", metavar="REV", type=int, default=0, help="After this revision, not with all volumes first."
)
@click.option("--json", "as_json", is_flag=True, help="Each change as one line of JSON.")
@click.pass_obj
def watch_pools(session: Session, *, names: tuple[str, ...], since: int, as_json: bool) -> None:
    """Print changes of pools and volumes as they happen, until interrupted.

    What is there comes first as added, but for a watch --since a revision.
    """
    with session.watch_pools(names, since) as watched:
        lines = _pool_json_lines if as_json else _pool_lines
        asyncio.run(_print(lines(update) async for update in watched))


async def _print(updates: AsyncIterator[Iterable[str]]) -> None:
    async for lines in updates:
        emit("".join(f"{line}\n" for line in lines))


def _json_lines(update: Update) -> Iterator[str]:
    from nodedev.v1.device_service_pb2 import DeviceChange, WatchDevicesResponse  # noqa: PLC0415

    # One change a line, as in a stream of responses; the last one has the marks.
    responses = [
        WatchDevicesResponse(
            revision=update.revision, changes=[DeviceChange(type=change.type, device=change.device)]
        )
        for change in update.changes
    ] or [WatchDevicesResponse(revision=update.revision)]
    responses[-1].snapshot_complete, responses[-1].resync = update.complete, update.resync
    yield from map(_json, responses)


def _pool_json_lines(update: PoolUpdate) -> Iterator[str]:
    from nodedev.v1.pool_service_pb2 import PoolChange, VolumeChange, WatchPoolsResponse  # noqa: PLC0415

    pools = (PoolChange(type=change.type, pool=change.pool) for change in update.pools)
    volumes = (VolumeChange(type=change.type, volume=change.volume) for change in update.volumes)
    responses = [
        *(WatchPoolsResponse(revision=update.revision, pools=[change]) for change in pools),
        *(WatchPoolsResponse(revision=update.revision, volumes=[change]) for change in volumes),
    ] or [WatchPoolsResponse(revision=update.revision)]
    responses[-1].snapshot_complete, responses[-1].resync = update.complete, update.resync
    yield from map(_json, responses)


def _json(response: Message) -> str:
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415  start-up cost

    return MessageToJson(response, preserving_proto_field_name=True, ensure_ascii=False, indent=None)


def _lines(update: Update) -> Iterator[str]:
    from nodedev.cli import devices  # noqa: PLC0415  start-up cost

    if update.resync:
        yield f"{update.revision} {_RESYNC}"
    for change in update.changes:
        word = _WORDS[change.type]
        about = ", ".join(filter(None, (devices.kind(change.device), devices.health(change.device))))
        if change.before and word == "changed":
            about = "; ".join(differences(change.before, change.device))
        yield f"{update.revision} {word} {plain(change.device.name)}{f' {about}' if about else ''}"
    if update.complete:
        yield f"{update.revision} {_ALL}"


def _pool_lines(update: PoolUpdate) -> Iterator[str]:
    if update.resync:
        yield f"{update.revision} {_RESYNC}"
    for pool in update.pools:
        yield _pool_line(update.revision, f"pool {pool.pool.name}", pool.type, pool.before, pool.pool)
    for volume in update.volumes:
        about = f"volume {volume.volume.name} of {volume.volume.pool}"
        yield _pool_line(update.revision, about, volume.type, volume.before, volume.volume)
    if update.complete:
        yield f"{update.revision} {_ALL}"


def _pool_line(revision: int, about: str, type_: int, before: Message | None, now: Message) -> str:
    told = f" {'; '.join(differences(before, now))}" if before and _WORDS[type_] == "changed" else ""
    return f"{revision} {_WORDS[type_]} {plain(about)}{told}"


def differences(before: Message, after: Message, place: str = "") -> Iterator[str]:
    """What differs, field by field: "mpath.groups[1].paths[block_sda].state: active -> failed"."""
    for field in after.DESCRIPTOR.fields:
        here = f"{place}.{field.name}" if place else field.name
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.is_repeated:
            if old != new:
                yield from _list_differences(old, new, here)
        elif field.message_type:
            if old != new:
                yield from differences(old, new, here)
        elif (spelled := (_spelled(before, field.name), _spelled(after, field.name)))[0] != spelled[1]:
            yield f"{here}: {spelled[0]} -> {spelled[1]}"


def _list_differences(before: Iterable[object], after: Iterable[object], place: str) -> Iterator[str]:
    old, new = _keyed(before), _keyed(after)
    for key in dict.fromkeys((*old, *new)):
        left, right = old.get(key), new.get(key)
        here = key if place == "capabilities" else f"{place}[{key}]"
        if left is None or right is None:
            yield f"{'+' if left is None else '-'}{here}"
        elif isinstance(left, Message) and isinstance(right, Message):
            yield from differences(left, right, here)


def _keyed(items: Iterable[object]) -> dict[str, object]:
    """The items by what tells them apart: a capability's type, a leg's device, a number, or the place."""
    keyed: dict[str, object] = {}
    for number, item in enumerate(items):
        if not isinstance(item, Message):
            keyed[str(item)] = item
        elif "kind" in item.DESCRIPTOR.oneofs_by_name:
            type_ = item.WhichOneof("kind") or ""
            keyed[type_] = getattr(item, type_)
        else:
            keyed[str(getattr(item, "device", "") or getattr(item, "number", number))] = item
    return keyed


def _spelled(message: Message, field: str) -> str:
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    if descriptor.has_presence and not message.HasField(field):
        return ABSENT
    value = getattr(message, field)
    return plain(descriptor.enum_type.values_by_number[value].name if descriptor.enum_type else str(value))
