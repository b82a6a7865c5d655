"""MD arrays as sysfs shows them: each file in each of the forms the kernel gives it."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.facts import md
from nodedev.facts.host import DeviceFacts
from nodedev.facts.md import Copies, MdMember, Progress

UUID_MDADM = "81f65092:018bd9d2:25fc793d:dc146dc0"
UUID_KERNEL = "81f65092-018b-d9d2-25fc-793ddc146dc0"
WORDS = ("in_sync", "spare", "faulty", "journal", "replacement", "write_mostly", "blocked", "from-the-future")


def array(attributes: dict[str, str], **properties: str) -> md.MdArray:
    """The array of these files in its md folder."""
    return md.read(facts({f"md/{name}": text for name, text in attributes.items()}, **properties))


def facts(attributes: dict[str, str], **properties: str) -> DeviceFacts:
    """A block device with these attributes and udev properties."""
    return DeviceFacts(
        path="/devices/virtual/block/md0",
        subsystem="block",
        properties={"DEVTYPE": "disk", "MAJOR": "9", "MINOR": "0", **properties},
        attributes=attributes,
        symlinks={},
    )


@pytest.mark.parametrize("text", [UUID_MDADM, UUID_KERNEL, UUID_MDADM.upper(), UUID_KERNEL.replace("-", "")])
def test_each_spelling_of_a_uuid_is_the_same(text: str) -> None:
    """A UUID is canonical in mdadm's spelling, whichever it came in."""
    assert md.canonical_uuid(text) == UUID_MDADM


@given(st.uuids())
def test_uuid_spellings_go_both_ways(uuid: UUID) -> None:
    """The dashed spelling of a canonical UUID is the one it was made from."""
    canonical = md.canonical_uuid(str(uuid))

    assert canonical is None or md.dashed_uuid(canonical) == str(uuid)


@given(st.text())
def test_a_canonical_uuid_stays_as_it_is(text: str) -> None:
    """Whatever text comes in, what comes out is nothing, or a UUID that is canonical itself."""
    canonical = md.canonical_uuid(text)

    assert canonical is None or md.canonical_uuid(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "0" * 32, "00000000-0000-0000-0000-000000000000", "lab:mirror", "81f65092"]
)
def test_no_uuid(text: str) -> None:
    """Zeros, which the kernel has for external metadata, and other texts are no UUID."""
    assert md.canonical_uuid(text) is None


def test_dm_uuid_has_no_dashed_spelling() -> None:
    """A dm uuid is left alone."""
    assert md.dashed_uuid("LVM-y0miIdbKrqyg3htR5w9nN7A4ch7OVRfK") is None


def test_uuid_is_the_kernels_before_udevs() -> None:
    """Where both know a UUID, the kernel's is the one of the array that runs now."""
    found = array({"metadata_version": "1.2", "uuid": UUID_KERNEL}, MD_UUID="1" * 32)

    assert found.uuid == UUID_MDADM


@pytest.mark.parametrize("attributes", [{}, {"uuid": "00000000-0000-0000-0000-000000000000"}])
def test_uuid_is_udevs_where_the_kernel_has_none(attributes: dict[str, str]) -> None:
    """Old kernels have no md/uuid, and arrays with external metadata have zeros in it."""
    assert array(attributes, MD_UUID=UUID_MDADM).uuid == UUID_MDADM


@pytest.mark.parametrize(
    ("byteorder", "uuid"), [("little", "9250f681:d2d98b01:3d79fc25:c06d14dc"), ("big", UUID_MDADM)]
)
def test_uuid_of_an_old_superblock(monkeypatch: pytest.MonkeyPatch, byteorder: str, uuid: str) -> None:
    """Of 0.90 metadata the kernel shows the bytes in memory, mdadm the words they are of."""
    monkeypatch.setattr("sys.byteorder", byteorder)

    assert array({"metadata_version": "0.90", "uuid": UUID_KERNEL}).uuid == uuid


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_progress_counts_sectors(completed: int, total: int) -> None:
    """Two numbers of 512-byte sectors with a slash between them."""
    assert md.parse_progress(f"{completed} / {total}\n") == Progress(completed * 512, total * 512)


@given(
    st.text() | st.sampled_from(["none", "delayed", "", "1 /", "/ 2", "-1 / 2", "٣ / 4", "9" * 5000 + " / 1"])
)
def test_progress_of_anything_else_is_none(text: str) -> None:
    """No text makes the reader fail, and none without two numbers is taken for a progress."""
    progress = md.parse_progress(text)

    assert progress is None or "/" in text


@given(st.integers(-5, 2**40), st.integers(0, 2**40))
def test_the_new_value_counts_while_reshaping(new: int, old: int) -> None:
    """A file that reads "new (old)" means the new value."""
    assert md.parse_current(f"{new} ({old})") == md.parse_current(f"{new}") == new


@given(st.text())
def test_no_text_makes_a_value_fail(text: str) -> None:
    """A file with anything but a number in front has no value."""
    assert md.parse_current("x" + text) is None
    assert md.parse_current("9" * 5000) is None


@pytest.mark.parametrize(
    ("level", "number", "name"),
    [
        ("raid5", "2", "left-symmetric"),
        ("raid5", "5", "parity-last"),
        ("raid6", "8", "ddf-zero-restart"),
        ("raid6", "18", "left-symmetric-6"),
        ("raid6", "77", "77"),
        ("raid0", "0", None),
        ("raid0", "-1", None),
        ("raid0", "1", "original"),
        ("raid0", "2", "alternate"),
        ("raid1", "0", None),
        ("raid10", str(0x102), "near=2"),
        ("raid10", str(0x103), "near=3"),
        ("raid10", str(0x201), "far=2"),
        ("raid10", str(0x20201), "far=2"),
        ("raid10", str(0x10201), "offset=2"),
        ("raid10", str(0x202), "near=2, far=2"),
        ("raid10", str(0x101), None),
    ],
)
def test_layouts_have_mdadms_names(level: str, number: str, name: str | None) -> None:
    """A layout is named as `mdadm --detail` names it; an unknown one keeps its number."""
    assert array({"level": level, "layout": number}).layout == name


def test_copies_of_raid10() -> None:
    """The layout's low byte counts near copies, the next one far ones, bit 16 makes those an offset."""
    assert array({"level": "raid10", "layout": str(0x10302)}).copies == Copies(near=2, far=3, offset=True)


@pytest.mark.parametrize(
    ("text", "level"),
    [("raid5", "raid5"), ("1", "raid1"), ("-1", "linear"), ("-4", "multipath"), ("", "raid6")],
)
def test_level_without_a_personality(text: str, level: str) -> None:
    """Before an array starts, the file holds the superblock's number or nothing, and udev may know."""
    assert array({"level": text}, MD_LEVEL="raid6").level == level


@pytest.mark.parametrize(
    ("text", "metadata", "container", "level"),
    [
        ("1.2", "1.2", None, None),
        ("none", "none", None, None),
        ("external:imsm", "imsm", None, "container"),
        ("external:ddf", "ddf", None, "container"),
        ("external:/md127/0", None, "md127", None),
        ("external:-md127/1", None, "md127", None),
        ("external:/md_d4/a/b", None, "md_d4", None),
        ("external:", None, None, None),
    ],
)
def test_metadata_tells_containers_and_their_volumes(
    text: str, metadata: str | None, container: str | None, level: str | None
) -> None:
    """External metadata names its format on a container, and the container on a volume."""
    found = array({"metadata_version": text})

    assert (found.metadata, found.container, found.level) == (metadata, container, level)


@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_member_state_may_grow(words: list[str]) -> None:
    """Any list of words has its words, a role or none, and is in sync only when it says so."""
    member = MdMember("sda", state=",".join(words) or None)

    assert member.words == set(words)
    assert member.in_sync == ("in_sync" in words and "faulty" not in words)


@pytest.mark.parametrize(
    ("state", "role"),
    [
        ("in_sync", "active"),
        ("in_sync,write_mostly,want_replacement", "active"),
        ("spare", "spare"),
        ("faulty,blocked,write_error", "faulty"),
        ("journal", "journal"),
        ("spare,replacement", "replacement"),
        ("from-the-future", None),
        (None, None),
    ],
)
def test_role_of_a_member(state: str | None, role: str | None) -> None:
    """The role follows from the state's words."""
    assert MdMember("sda", state=state).role == role


def test_members_are_in_the_order_of_their_slots() -> None:
    """Members without a slot come last; a journal's slot is a word, and none of the numbers."""
    found = array(
        {
            "dev-sdc/slot": "0",
            "dev-sda/slot": "10",
            "dev-sdb/slot": "none",
            "dev-sdd/slot": "journal",
            "dev-sdd/state": "journal",
            "dev-cciss!c0d0/slot": "2",
        }
    )

    assert [(member.kernel_name, member.slot) for member in found.members] == [
        ("sdc", 0),
        ("cciss!c0d0", 2),
        ("sda", 10),
        ("sdb", None),
        ("sdd", None),
    ]


def test_what_a_level_does_not_have_is_none() -> None:
    """raid0 has no degraded, sync_action or mismatch_cnt, and none of them is zero for it."""
    found = array({"array_state": "clean", "level": "raid0", "raid_disks": "2", "consistency_policy": "none"})

    assert (found.degraded, found.sync_action, found.mismatches, found.progress) == (None, None, None, None)
    assert found.consistency_policy == "none"


def test_speed_is_in_bytes() -> None:
    """sync_speed counts KiB a second; "none" is no speed, and not zero."""
    assert array({"sync_speed": "3"}).sync_rate_bytes == 3 * 1024
    assert array({"sync_speed": "none"}).sync_rate_bytes is None


@pytest.mark.parametrize(("text", "pending"), [("none", False), ("0", True), ("12345", True), ("", False)])
def test_resync_that_has_yet_to_be_made(text: str, pending: bool) -> None:
    """resync_start holds the sector from which on a resync is due."""
    assert array({"resync_start": text}).resync_pending == pending


@given(st.dictionaries(st.sampled_from(md.ATTRIBUTES).map(lambda name: name.replace("*", "sda")), st.text()))
def test_any_text_in_any_file_is_read(attributes: dict[str, str]) -> None:
    """Whatever the files hold, and whichever of them are missing, an array comes out."""
    found = md.read(facts(attributes))

    assert {member.kernel_name for member in found.members} <= {"sda"}


def test_a_partition_is_no_array() -> None:
    """A partition of an array is none itself, nor is a disk."""
    assert md.is_array(facts({}))
    assert not md.is_array(facts({}, DEVTYPE="partition"))
    assert not md.is_array(facts({}, MAJOR="8"))
    assert md.is_array(facts({"md/array_state": "clear"}, MAJOR="254"))
