"""Waiting for an array's sync: a recorded host whose events take it to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodedev.cli.sync import until_synced
from nodedev.client import DeviceWatch
from nodedev.facts import replay
from nodedev.facts.recorded import DEVICES
from nodedev.facts.replay import EVENTS, Event
from nodedev.server.inprocess import in_process
from nodedev.v1.device_service_pb2 import DeviceFilter
from tests.e2e.services import recorded

ARRAY = "raid_11111111_22222222_33333333_44444444"
PATH = "/devices/virtual/block/md0"
STANZA = """\
P: {path}
N: md0
E: SUBSYSTEM=block
E: DEVTYPE=disk
E: DEVNAME=/dev/md0
E: MAJOR=9
E: MINOR=0
A: size=2048\\n
A: md/array_state=clean\\n
A: md/level=raid1\\n
A: md/raid_disks=2\\n
A: md/metadata_version=1.2\\n
A: md/uuid=11111111-2222-2222-3333-333344444444\\n
A: md/degraded={degraded}\\n
A: md/resync_start={start}\\n
A: md/sync_action={action}\\n
A: md/sync_completed={completed}\\n

"""


def stanza(action: str, completed: str, degraded: int = 0) -> str:
    """The array at one moment of its sync."""
    start = "none" if action == "idle" else "0"
    return STANZA.format(path=PATH, action=action, completed=completed, degraded=degraded, start=start)


def write(folder: Path, first: str, events: list[tuple[str, tuple[str, ...]]]) -> Path:
    """A recording of the array and what then becomes of it: its new description, or that it is gone."""
    (folder / DEVICES).write_text(first)
    lines = (
        replay.write(Event(0.1 * number, (PATH,), lost=False, devices=devices, gone=gone, texts={}))
        for number, (devices, gone) in enumerate(events)
    )
    (folder / EVENTS).write_bytes(b"".join(lines))
    return folder


async def told(host: Path) -> list[str]:
    """What is told until the end."""
    found: list[str] = []
    with in_process(recorded(host), "sync", follow=True) as address:
        await until_synced(DeviceWatch(address, DeviceFilter(names=[ARRAY])), ARRAY, found.append)
    return found


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ((stanza("idle", "none"), ()), "in sync"),
        ((stanza("idle", "none", degraded=1), ()), "degraded"),
        (("", (PATH,)), "gone"),
    ],
)
async def test_a_sync_is_followed_to_its_end(
    tmp_path: Path, last: tuple[str, tuple[str, ...]], end: str
) -> None:
    """Each step is told once, in order, and the end is what has become of the array."""
    steps = [stanza("resync", f"{done} / 2000") for done in (0, 500, 500, 1999)]
    host = write(tmp_path, stanza("resync", "delayed"), [*((step, ()) for step in steps), last])
    found = await told(host)
    # Steps may have passed before the watch began, and close ones come as one.
    order = ["resync", "resync 0 %", "resync 25 %", "resync 99 %"]
    assert found[-1] == end
    assert found[:-1] == [step for step in order if step in found]
    assert found[:-1]


async def test_an_array_in_sync_is_not_waited_for(tmp_path: Path) -> None:
    """Where nothing is to be waited for nothing is told."""
    assert await told(write(tmp_path, stanza("idle", "none"), [])) == []
