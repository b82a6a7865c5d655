"""Topology: relations walked both ways."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodedev.model import Device, Relation
from nodedev.topology import Edge, above, below, edges

Graph = dict[str, Device]


def graph(members: dict[str, list[str]]) -> Graph:
    """Devices that stand on each other as said, holders made from members."""
    holders: dict[str, list[str]] = {}
    for name, below_it in members.items():
        for member in below_it:
            holders.setdefault(member, []).append(name)
    return {
        name: Device(
            name=name,
            parent="computer",
            sysfs_path=None,
            devnode=None,
            links=(),
            driver=None,
            device_number=None,
            generation=None,
            capabilities=(),
            members=tuple(Relation("slave", member) for member in members[name]),
            holders=tuple(Relation("slave", holder) for holder in holders.get(name, ())),
        )
        for name in members
    }


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any relations among a few devices, cycles included."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1))
    return graph({name: draw(st.lists(st.sampled_from(names), unique=True)) for name in names})


STACK = graph({"lv": ["map", "gone"], "map": ["sda", "sdb"], "sda": [], "sdb": [], "sdc": []})


def test_below_is_all_that_a_device_is_made_of() -> None:
    """From the volume down one comes to the map and its paths, and to no device that is not listed."""
    assert below(STACK, ["lv"]) == {"lv", "map", "sda", "sdb"}


def test_above_is_all_that_is_made_of_a_device() -> None:
    """From one path up one comes to the map and the volume, and not to the other path."""
    assert above(STACK, ["sda"]) == {"lv", "map", "sda"}


def test_edges_tell_the_kind() -> None:
    """An edge names holder, member and how the one uses the other."""
    assert edges(STACK["map"]) == (Edge("map", "sda", "slave"), Edge("map", "sdb", "slave"))


@given(graphs(), st.data())
def test_both_ways_agree(devices: Graph, data: st.DataObject) -> None:
    """What is below a device has that device above it, whatever loops there are."""
    name = data.draw(st.sampled_from(sorted(devices)))
    assert below(devices, [name]) == {other for other in devices if name in above(devices, [other])}
