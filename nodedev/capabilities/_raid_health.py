"""How an array fares, told from what the kernel says and nothing else."""

from __future__ import annotations

from msgspec import Struct

from nodedev.facts.md import Copies

# How many slots may be without usable data; raid1, raid10 and multipath depend on their number.
_SPARABLE = {"raid0": 0, "linear": 0, "faulty": 0, "raid4": 1, "raid5": 1, "raid6": 2}


class Evidence(Struct, frozen=True):
    """What health is told from; None is not known.

    `unusable` are the slots whose data is gone or not there yet, `degraded` the count of slots
    that are not in sync. `synced` is False while a first or repeated sync has yet to be made, None
    where nobody can tell. `copies` is RAID10's.
    """

    level: str | None
    running: bool | None
    broken: bool
    total: int | None
    unusable: frozenset[int] | None
    degraded: int | None
    action: str | None
    synced: bool | None
    copies: Copies | None = None


def health(evidence: Evidence) -> str | None:  # noqa: PLR0911  one line for each word
    """How the array fares, the first of these that holds.

    - inactive: no driver runs it (md array_state clear or inactive).
    - failed: data is lost. md says "broken"; or more slots are without usable data than the level
      can spare: any of raid0 and linear, one more than the parity of raid4, 5 and 6, all of raid1
      and multipath, all copies of one chunk of raid10.
    - recovering: a resync or a recovery runs.
    - degraded: a slot is not in sync, or its device is faulty or missing.
    - recovering: all are there, and a resync has yet to begin or go on.
    - optimal: every slot is in sync. A reshape or a check does not change that.

    None where that cannot be known: a state that could not be read, or an array built with
    "nosync", where in sync means only that nobody ever compared.
    """
    if evidence.running is None:
        return None
    if not evidence.running:
        return "inactive"
    if evidence.broken or data_lost(evidence):
        return "failed"
    if evidence.action in ("resync", "recover"):
        return "recovering"
    if evidence.unusable is None and evidence.degraded is None:
        return None
    if evidence.degraded if evidence.degraded is not None else evidence.unusable:
        return "degraded"
    if evidence.synced is None:
        return None
    return "optimal" if evidence.synced else "recovering"


def data_lost(evidence: Evidence) -> bool:
    """Whether more slots are without usable data than the level can spare."""
    total, unusable, degraded = evidence.total, evidence.unusable, evidence.degraded
    # A count of zero is the kernel's word; a member's state may have been read a moment before it.
    if total is None or degraded == 0:
        return False
    count = len(unusable) if unusable is not None else degraded or 0
    if evidence.level in _SPARABLE:
        return count > _SPARABLE[evidence.level]
    if evidence.level == "raid10" and evidence.copies and unusable is not None:
        return _chunk_lost(total, unusable, evidence.copies)
    return evidence.level in ("raid1", "raid10", "multipath") and count >= total > 0


def _chunk_lost(total: int, unusable: frozenset[int], copies: Copies) -> bool:
    """Whether all copies of some chunk are gone: they lie on neighbours, from each near-th slot on."""
    number = copies.near * copies.far
    return any(
        all((first + step) % total in unusable for step in range(number))
        for first in range(0, total * copies.near, copies.near)
    )


def container_health(state: str | None, faulty: bool) -> str | None:
    """How a container fares: degraded with a faulty disk, else optimal; only its arrays are ever active."""
    if state is None:
        return None
    return "degraded" if faulty else "optimal"
