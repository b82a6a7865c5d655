"""What the command line makes of changes: lines that say what changed, and the progress of resyncs."""

from __future__ import annotations

from nodedev.cli import devices
from nodedev.cli.tree import by_parent
from nodedev.cli.watch import differences
from nodedev.v1 import capability_pb2, device_pb2


def device(*capabilities: capability_pb2.Capability, name: str = "block_x") -> device_pb2.Device:
    """A device with these capabilities."""
    return device_pb2.Device(name=name, capabilities=capabilities)


def mpath(state: str, health: str | None = None) -> capability_pb2.Capability:
    """A map with one path in that state."""
    path = capability_pb2.Mpath.Path(device="block_sda", state=state)
    group = capability_pb2.Mpath.Group(number=1, paths=[path])
    return capability_pb2.Capability(mpath=capability_pb2.Mpath(groups=[group], health=health))


def raid(**sync: int | str) -> capability_pb2.Capability:
    """An array that does something."""
    return capability_pb2.Capability(
        raid=capability_pb2.Raid(sync=capability_pb2.Raid.Sync(**sync)),  # type: ignore[arg-type]
    )


def test_a_change_tells_the_field_with_its_old_and_new_value() -> None:
    """A path that fails is told by capability, group and path; a value that was not known is a dash."""
    before, after = device(mpath("active")), device(mpath("failed", "degraded"))
    assert list(differences(before, after)) == [
        "mpath.health: - -> degraded",
        "mpath.groups[1].paths[block_sda].state: active -> failed",
    ]


def test_what_comes_and_goes_is_told_by_its_key() -> None:
    """Capabilities are told by type, relations by their device, links by themselves."""
    before, after = device(), device(mpath("active"))
    before.links.append("/dev/disk/by-id/old")
    after.holders.append(device_pb2.Relation(kind="path", device="mpath_1"))
    assert list(differences(before, after)) == [
        "-links[/dev/disk/by-id/old]",
        "+mpath",
        "+holders[mpath_1]",
    ]


def test_nothing_is_told_of_equals() -> None:
    """A device that is as it was makes no words."""
    assert list(differences(device(mpath("active")), device(mpath("active")))) == []


def test_a_running_resync_shows_how_far_it_is() -> None:
    """The tree has a bar for an array that recovers, and none for one at rest."""
    storage = capability_pb2.Capability(storage=capability_pb2.Storage())
    busy = device(storage, raid(action="recover", completed_bytes=45, total_bytes=100))
    assert devices.progress(busy) == ("recover", 0.45)
    assert "recover |#########...........| 45%" in by_parent([busy])
    assert devices.progress(device(storage, raid(action="idle"))) is None
    assert "%" not in by_parent([device(storage, raid(action="idle"))])
