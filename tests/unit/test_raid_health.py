"""The health of arrays, from the evidence alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodedev.capabilities._raid_health import Evidence, container_health, data_lost, health
from nodedev.facts.md import Copies

HEALTHY = Evidence(
    level="raid5",
    running=True,
    broken=False,
    total=4,
    unusable=frozenset(),
    degraded=0,
    action="idle",
    synced=True,
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "optimal"),
        ({"running": None}, None),
        ({"running": False, "broken": True}, "inactive"),
        ({"broken": True}, "failed"),
        ({"action": "resync"}, "recovering"),
        ({"action": "check"}, "optimal"),
        ({"action": "reshape"}, "optimal"),
        ({"degraded": 1}, "degraded"),
        ({"degraded": 1, "action": "recover"}, "recovering"),
        ({"degraded": 1, "action": "frozen"}, "degraded"),
        ({"degraded": 2, "unusable": None}, "failed"),
        ({"degraded": 2, "unusable": frozenset({0, 1}), "action": "recover"}, "failed"),
        ({"degraded": None, "unusable": frozenset({3})}, "degraded"),
        ({"degraded": None, "unusable": None}, None),
        ({"degraded": 0, "unusable": frozenset({3})}, "optimal"),
        ({"synced": False}, "recovering"),
        ({"synced": None}, None),
        ({"synced": None, "degraded": 1}, "degraded"),
    ],
)
def test_health(changes: dict[str, object], expected: str | None) -> None:
    """Health is the first word that the evidence bears out."""
    assert health(replace(HEALTHY, **changes)) == expected


@pytest.mark.parametrize(
    ("level", "unusable", "copies", "lost"),
    [
        ("raid0", {0}, None, True),
        ("linear", {3}, None, True),
        ("raid1", {0, 1, 2}, None, False),
        ("raid1", {0, 1, 2, 3}, None, True),
        ("raid4", {0}, None, False),
        ("raid5", {0, 1}, None, True),
        ("raid6", {0, 1}, None, False),
        ("raid6", {0, 1, 2}, None, True),
        ("raid10", {0, 2}, Copies(near=2), False),
        ("raid10", {0, 1}, Copies(near=2), True),
        ("raid10", {1, 2}, Copies(near=2), False),
        ("raid10", {1, 2}, Copies(far=2), True),
        ("raid10", {0, 3}, Copies(far=2), True),
        ("raid10", {0, 2}, Copies(far=2), False),
        ("raid10", {0, 1, 2}, Copies(near=2, far=2), False),
        ("multipath", {0, 1, 2}, None, False),
        ("multipath", {0, 1, 2, 3}, None, True),
        ("from-the-future", {0, 1, 2, 3}, None, False),
    ],
)
def test_what_a_level_can_spare(level: str, unusable: set[int], copies: Copies | None, lost: bool) -> None:
    """Four slots, and those without data: a level loses its data when its redundancy is used up."""
    evidence = replace(
        HEALTHY, level=level, unusable=frozenset(unusable), degraded=len(unusable), copies=copies
    )

    assert data_lost(evidence) == lost


@given(st.integers(2, 12), st.integers(1, 3), st.integers(1, 3), st.data())
def test_raid10_survives_what_leaves_a_copy(total: int, near: int, far: int, data: st.DataObject) -> None:
    """RAID10 outlives fewer losses than it has copies, wherever they are, and not the loss of all."""
    copies = Copies(near=near, far=far)
    few = data.draw(st.frozensets(st.integers(0, total - 1), max_size=min(near * far, total) - 1))
    ten = replace(HEALTHY, level="raid10", total=total, copies=copies, degraded=None)

    assert not data_lost(replace(ten, unusable=few))
    assert data_lost(replace(ten, unusable=frozenset(range(total))))


@pytest.mark.parametrize(
    ("state", "faulty", "expected"),
    [("inactive", False, "optimal"), ("inactive", True, "degraded"), (None, False, None)],
)
def test_container(state: str | None, faulty: bool, expected: str | None) -> None:
    """A container is inactive for all its life; only a faulty disk speaks against it."""
    assert container_health(state, faulty) == expected
