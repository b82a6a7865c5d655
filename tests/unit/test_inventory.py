"""The inventory: snapshots, revisions, the bounded log, handles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodedev.errors import NotFoundError, OutOfRangeError, PreconditionError
from nodedev.inventory import Batch, ChangeKind, Inventory, Snapshot
from nodedev.model import Capability, Device, Relation


class Named(Capability, frozen=True):
    """A capability that gives its device further handles."""

    TYPE = "named"
    words: tuple[str, ...] = ()

    def handles(self) -> tuple[str, ...]:
        """The words."""
        return self.words


def device(name: str, *words: str, generation: int = 1) -> Device:
    """A block device of that name and of further handles."""
    return Device(
        name=name,
        parent="computer",
        sysfs_path=f"/sys/devices/virtual/block/{name}",
        devnode=f"/dev/{name}",
        links=(),
        driver=None,
        device_number=f"7:{sum(map(ord, name))}",
        generation=generation,
        capabilities=(Named(words),),
    )


def follow(copy: dict[str, Device], batch: Batch) -> None:
    """Brings a copy up to date, as a client does."""
    for change in batch.changes:
        if change.kind is ChangeKind.REMOVED:
            del copy[change.device.name]
        else:
            copy[change.device.name] = change.device


def test_only_what_differs_is_published() -> None:
    """A device that comes out as it was makes no revision."""
    inventory = Inventory()
    inventory.replace([device("a")])
    revision = inventory.revision
    inventory.replace([device("a")])
    inventory.publish([device("a")], ["unknown"])
    assert inventory.revision == revision


def test_a_snapshot_does_not_change() -> None:
    """What was listed stays what it was whatever is published after."""
    inventory = Inventory()
    inventory.replace([device("b"), device("a")])
    snapshot = inventory.snapshot
    inventory.publish([device("a", generation=2)], ["b"])
    assert list(snapshot.devices) == ["a", "b"]
    assert snapshot.devices["a"].generation == 1
    assert list(inventory.snapshot.devices) == ["a"]


def test_changes_say_what_was_before() -> None:
    """Added, changed and removed devices come with their former selves."""
    inventory = Inventory()
    inventory.replace([device("a"), device("b")])
    start = inventory.revision
    inventory.publish([device("a", generation=2), device("c")], ["b"])
    batch = inventory.next(start)
    assert batch is not None
    told = {
        change.device.name: (change.kind, change.previous and change.previous.generation)
        for change in batch.changes
    }
    assert told == {
        "a": (ChangeKind.CHANGED, 1),
        "b": (ChangeKind.REMOVED, 1),
        "c": (ChangeKind.ADDED, None),
    }
    assert inventory.next(batch.revision) is None


def test_a_resync_is_told_even_without_differences() -> None:
    """Clients learn that events were lost, also when nothing had changed meanwhile."""
    inventory = Inventory()
    inventory.replace([device("a")])
    start = inventory.revision
    inventory.replace([device("a")], resync=True)
    batch = inventory.next(start)
    assert batch is not None
    assert (batch.resync, batch.changes) == (True, ())


def test_what_the_log_cannot_tell_is_an_error() -> None:
    """A revision before the log, and one that was never published, each have their reason."""
    inventory = Inventory(log_limit=2)
    start = inventory.revision
    for generation in range(5):
        inventory.publish([device("a", generation=generation)])
    with pytest.raises(OutOfRangeError) as compacted:
        inventory.next(start)
    assert compacted.value.reason == "REVISION_COMPACTED"
    assert inventory.next(int(compacted.value.metadata["compacted_revision"])) is not None
    with pytest.raises(OutOfRangeError) as unknown:
        inventory.next(inventory.revision + 1)
    assert unknown.value.reason == "REVISION_UNKNOWN"


def test_revisions_grow_across_restarts() -> None:
    """An inventory made later starts behind what an earlier one published."""
    first = Inventory()
    first.replace([device("a")])
    assert Inventory().revision > first.revision


def test_every_subscriber_is_woken_until_it_leaves() -> None:
    """Each publication wakes whoever subscribed, once, and nobody who has left."""
    inventory = Inventory()
    woken: list[str] = []
    leave = inventory.subscribe(lambda: woken.append("x"))
    inventory.replace([device("a")])
    leave()
    inventory.publish([], ["a"])
    assert woken == ["x"]


def test_handles() -> None:
    """A device answers to name, node, number, kernel name, sysfs paths and its capabilities' words."""
    inventory = Inventory()
    inventory.replace([device("a", "wwid", r"odd\x20name"), device("b")])
    number = device("a").device_number or ""
    words = ("wwid", r"odd\x20name", "odd name")
    for handle in ("a", "/dev/a", number, "/sys/devices/virtual/block/a", "/sys/block/a", *words):
        assert inventory.find(handle).name == "a"
    with pytest.raises(NotFoundError):
        inventory.find("c")


def test_a_map_answers_for_its_paths() -> None:
    """Where a map and its paths share a WWID it is the map that is meant; two equals are ambiguous."""
    inventory = Inventory()
    paths = [device("p1", "wwid"), device("p2", "wwid")]
    inventory.replace(paths)
    with pytest.raises(PreconditionError) as ambiguous:
        inventory.find("wwid")
    assert ambiguous.value.reason == "HANDLE_AMBIGUOUS"
    top = replace(device("m", "wwid"), members=(Relation("path", "p1"), Relation("path", "p2")))
    inventory.publish([top])
    assert inventory.find("wwid").name == "m"
    inventory.publish([], ["m", "p2"])
    assert inventory.find("wwid").name == "p1"


names = st.sampled_from("abcdef")
publications = st.tuples(
    st.dictionaries(names, st.integers(1, 3), max_size=4), st.sets(names, max_size=2), st.booleans()
)


@given(steps=st.lists(publications, max_size=9))
def test_snapshots_are_in_the_order_of_names(steps: list[tuple[dict[str, int], set[str], bool]]) -> None:
    """Whatever is added, changed and removed, each snapshot has the names in order, and keeps them."""
    inventory = Inventory()
    taken: list[tuple[Snapshot, dict[str, Device]]] = []
    for changed, removed, resync in steps:
        inventory.publish(
            [device(name, generation=number) for name, number in changed.items()], removed, resync=resync
        )
        taken.append((inventory.snapshot, dict(inventory.snapshot.devices)))
    for snapshot, devices in taken:
        assert list(snapshot.devices) == sorted(devices)
        assert snapshot.devices == devices


@given(steps=st.lists(st.one_of(publications, st.just("read"), st.just("reconnect")), max_size=40))
def test_any_course_of_events_leaves_a_true_copy(steps: list[object]) -> None:
    """Whatever is published, read, resumed or compacted in between, a client ends with the present set."""
    inventory = Inventory(log_limit=5)
    copy: dict[str, Device] = {}
    cursor = inventory.revision

    def read(cursor: int) -> int:
        while batch := inventory.next(cursor):
            follow(copy, batch)
            cursor = batch.revision
        return cursor

    for step in steps:
        if isinstance(step, tuple):
            changed, removed, resync = step
            devices = [
                device(name, generation=generation)
                for name, generation in changed.items()
                if name not in removed
            ]
            inventory.publish(devices, removed, resync=resync)
        else:
            try:
                cursor = read(cursor)
            except OutOfRangeError:
                snapshot = inventory.snapshot
                copy = dict(snapshot.devices)
                cursor = snapshot.revision
    try:
        read(cursor)
    except OutOfRangeError:
        copy = dict(inventory.snapshot.devices)
    assert copy == dict(inventory.snapshot.devices)
