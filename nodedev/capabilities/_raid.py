"""What is told of a RAID array, whoever drives it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from nodedev.facts import md
from nodedev.fields import Attribute, Element
from nodedev.model import Capability


class Devices(Struct, frozen=True):
    """How many devices the array has, and how many of each sort.

    `total` are the slots; `active` those of them in sync; `missing` those that no working device
    fills. `failed` counts faulty devices, which in md lose their slot; `spare` the working ones that
    are not in sync, which hold a slot only while they are rebuilt.
    """

    total: Annotated[int | None, Attribute()] = None
    active: Annotated[int | None, Attribute()] = None
    failed: Annotated[int | None, Attribute()] = None
    spare: Annotated[int | None, Attribute()] = None
    missing: Annotated[int | None, Attribute()] = None


class Sync(Struct, frozen=True):
    """What keeps the copies or the parity right; how far only while it runs.

    `mismatches` are in 512-byte sectors.
    """

    action: Annotated[str | None, Attribute()] = None
    completed_bytes: Annotated[int | None, Attribute("completed")] = None
    total_bytes: Annotated[int | None, Attribute("total")] = None
    rate_bytes: Annotated[int | None, Attribute("rate")] = None
    mismatches: Annotated[int | None, Attribute()] = None


class Member(Struct, frozen=True):
    """One device of the array; the state is the kernel's words for it."""

    slot: Annotated[int | None, Attribute()] = None
    role: Annotated[str | None, Attribute()] = None
    state: Annotated[str | None, Attribute()] = None
    errors: Annotated[int | None, Attribute()] = None
    device: str | None = None
    block: str | None = None


class Volume(Struct, frozen=True):
    """An array that lies in a container."""

    device: str | None = None
    block: str | None = None


class Raid(Capability, frozen=True):
    """A RAID array, or a container of arrays with external metadata."""

    TYPE = "raid"

    implementation: str | None = None
    uuid: str | None = None
    name: str | None = None
    level: str | None = None
    metadata: str | None = None
    state: str | None = None
    health: str | None = None
    devices: Devices | None = None
    chunk_bytes: Annotated[int | None, Element("chunk")] = None
    layout: str | None = None
    consistency_policy: str | None = None
    sync: Sync | None = None
    members: Annotated[tuple[Member, ...], Element("member")] = ()
    container: str | None = None
    volumes: Annotated[tuple[Volume, ...], Element("volume")] = ()

    @property
    def level_name(self) -> str | None:
        """The level as mdadm calls it: raid5, whether it was given so or as 5."""
        return f"raid{self.level}" if self.level and self.level.isdecimal() else self.level

    def handles(self) -> tuple[str, ...]:
        """The UUID, an md one as mdadm and as the kernel spell it, and the name."""
        dashed = md.dashed_uuid(self.uuid) if self.uuid else None
        return tuple(filter(None, (self.uuid, dashed, self.name)))
