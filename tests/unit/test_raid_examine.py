"""Whether an array could start, told from what mdadm prints of its members' superblocks."""

from __future__ import annotations

import pytest

from nodedev.capabilities._raid_examine import parse, present, startable
from nodedev.changes import runner
from nodedev.errors import PreconditionError

UUID = "6e6f6465:64657600:6c616200:00000001"
VOLUME = "6e6f6465:64657600:6c616200:00000002"


def native(
    node: str,
    role: str,
    states: str,
    *,
    level: str = "raid1",
    events: int = 18,
    state: str = "clean",
    uuid: str = UUID,
) -> str:
    """What mdadm 4.2 prints of a 1.2 superblock."""
    return f"""{node}:
          Magic : a92b4efc
        Version : 1.2
    Feature Map : 0x0
     Array UUID : {uuid}
           Name : san:lacking
  Creation Time : Sun Nov 22 22:00:00 2026
     Raid Level : {level}
   Raid Devices : {len(states)}

 Avail Dev Size : 96256 sectors (47.00 MiB 49.28 MB)
     Array Size : 48128 KiB (47.00 MiB 49.28 MB)
    Data Offset : 2048 sectors
   Super Offset : 8 sectors
   Unused Space : before=1968 sectors, after=0 sectors
          State : {state}
    Device UUID : 5a8d1f1f:ba5b3d4d:97d2e7b8:9f0ee4e1

    Update Time : Sun Nov 22 22:00:10 2026
  Bad Block Log : 512 entries available at offset 16 sectors
       Checksum : 4d3a9a0 - correct
         Events : {events}


   Device Role : {role}
   Array State : {states} ('A' == active, '.' == missing, 'R' == replacing)
"""


OLD = f"""/dev/loop0:
          Magic : a92b4efc
        Version : 0.90.00
           UUID : {UUID}
  Creation Time : Sun Nov 22 22:00:00 2026
     Raid Level : raid1
  Used Dev Size : 49088 (47.94 MiB 50.27 MB)
     Array Size : 49088 (47.94 MiB 50.27 MB)
   Raid Devices : 2
  Total Devices : 2
Preferred Minor : 127

    Update Time : Sun Nov 22 22:00:10 2026
          State : clean
 Active Devices : 2
Working Devices : 2
 Failed Devices : 0
  Spare Devices : 0
       Checksum : 6b6e2a3d - correct
         Events : 18


      Number   Major   Minor   RaidDevice State
this     1       7        1        1      active sync   /dev/loop1

   0     0       7        0        0      active sync   /dev/loop0
   1     1       7        1        1      active sync   /dev/loop1
"""


def verdict(text: str, *, force: bool = False) -> str | None:
    """Why the array may not be started."""
    try:
        startable(UUID, force=force)(text)
    except PreconditionError as error:
        return f"{error.reason}: {error.message}"
    return None


def active(slot: int, states: str, **more: object) -> str:
    """A member with a part in the array."""
    return native(f"/dev/loop{slot}", f"Active device {slot}", states, **more)  # type: ignore[arg-type]


def test_superblocks_are_read() -> None:
    """Both native formats, spares, and what is no superblock at all."""
    spare = native("/dev/loop2", "spare", "AA")
    found = list(parse(active(1, "A.") + spare + "/dev/sda:\n   MBR Magic : aa55\n" + OLD))
    assert [(each.slot, each.required, each.total, each.events) for each in found] == [
        (1, 1, 2, 18),
        (None, 2, 2, 18),
        (1, 2, 2, 18),
    ]
    assert {each.uuid for each in found} == {UUID}


@pytest.mark.parametrize(
    ("text", "refused", "forced"),
    [
        (active(0, "AA") + active(1, "AA"), None, None),
        (active(0, "AA"), "it had 2", None),
        (active(0, "A."), None, None),
        (OLD, "it had 2", None),
        (active(0, "A.", events=30) + active(1, "AA", events=12), None, None),
        (active(0, "AA", events=30) + active(1, "AA", events=29), None, None),
        (active(0, "AA", events=30) + active(1, "AA", events=12), "it had 2", None),
        (active(0, "AA") + native("/dev/loop1", "spare", "AA"), "it had 2", None),
        (active(0, "AA", level="raid0"), "not enough", "not enough"),
        (native("/dev/loop1", "spare", "AA"), "not enough", "not enough"),
        (active(0, "AAA", level="raid5") + active(1, "AAA", level="raid5"), "it had 3", None),
        (active(0, "AAA", level="raid5"), "not enough", "not enough"),
        (
            "".join(active(slot, "AAA", level="raid5", state="active") for slot in (0, 1)),
            "was not stopped",
            "was not stopped",
        ),
        ("".join(active(slot, "AAA", level="raid5", state="active") for slot in range(3)), None, None),
        (active(0, "AA") + active(1, "AA", uuid=VOLUME), "it had 2", None),
        ("nothing that is known", None, None),
    ],
)
def test_an_array_starts_when_mdadm_would_start_it(
    text: str, refused: str | None, forced: str | None
) -> None:
    """All that it had last are here; with force, as many as its level needs."""
    for expected, force in ((refused, False), (forced, True)):
        told = verdict(text, force=force)
        assert (told is None) == (expected is None)
        assert (expected or "") in (told or "")
        assert told is None or told.startswith("MEMBERS_MISSING: ")


def test_external_metadata_is_found_by_mdadm() -> None:
    """A container is there by its UUID, a volume by its own when its container is named."""
    text = f"ARRAY metadata=ddf UUID={UUID}\nARRAY container={UUID} member=0 UUID={VOLUME}\n"
    present(UUID, volume=False)(text)
    present(VOLUME, volume=True)(text)
    with pytest.raises(PreconditionError, match="start that one first"):
        present(VOLUME, volume=False)(text)
    with pytest.raises(PreconditionError, match="are taken"):
        present(UUID, volume=False, free=False)(text)
    with pytest.raises(PreconditionError, match="no device here"):
        present(VOLUME.replace("2", "3"), volume=True)(text)


def test_a_program_outlives_its_reader() -> None:
    """A pipe that nobody reads any more does not end it: it runs with SIGPIPE ignored."""
    assert runner.run(("sh", "-c", "kill -PIPE $$; echo it goes on")).stdout == "it goes on\n"
