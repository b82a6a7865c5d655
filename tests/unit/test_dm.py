"""Device-mapper: the ioctls, dmsetup's words for them, and the lines of single targets."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from nodedev.errors import FactError
from nodedev.facts import dm_targets, dm_text
from nodedev.facts.dm import maps_by, read_map, read_maps
from nodedev.facts.dm_text import DmMap, DmTarget, parse_text
from nodedev.facts.text import printable

# --- a kernel ---------------------------------------------------------------------------------------


class Header(ctypes.Structure):
    """struct dm_ioctl, laid out by the compiler's rules and not by the struct module's."""

    _fields_ = (
        ("version", ctypes.c_uint32 * 3),
        ("data_size", ctypes.c_uint32),
        ("data_start", ctypes.c_uint32),
        ("target_count", ctypes.c_uint32),
        ("open_count", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("event_nr", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("dev", ctypes.c_uint64),
        ("name", ctypes.c_char * 128),
        ("uuid", ctypes.c_char * 129),
        ("data", ctypes.c_char * 7),
    )


class NameList(ctypes.Structure):
    """struct dm_name_list, whose name follows the two fields."""

    _fields_ = (("dev", ctypes.c_uint64), ("next", ctypes.c_uint32))


class TargetSpec(ctypes.Structure):
    """struct dm_target_spec, whose parameters follow it."""

    _fields_ = (
        ("sector_start", ctypes.c_uint64),
        ("length", ctypes.c_uint64),
        ("status", ctypes.c_int32),
        ("next", ctypes.c_uint32),
        ("target_type", ctypes.c_char * 16),
    )


READONLY, SUSPENDED, TABLE, ACTIVE, FULL, NOFLUSH, SECURE = 1, 2, 16, 32, 256, 2048, 32768
VERSION, LIST, STATUS = 0xC138FD00, 0xC138FD02, 0xC138FD0C


@dataclass
class Device:
    """One device of the kernel that is played here: bytes, as the kernel holds them."""

    number: int
    name: bytes
    uuid: bytes = b""
    flags: int = 0
    targets: list[tuple[int, int, bytes, bytes, bytes]] = field(default_factory=list)


@dataclass
class Kernel:
    """Answers the ioctls as drivers/md/dm-ioctl.c does."""

    devices: list[Device] = field(default_factory=list)
    major: int = 4
    refusal: int = 0
    listed_only: list[Device] = field(default_factory=list)
    after_table: Callable[[], None] = lambda: None

    def __call__(self, command: int, buffer: bytearray) -> None:
        """ioctl(2) on the control node."""
        header = Header.from_buffer(buffer)
        assert header.data_size == len(buffer)
        wanted = header.version[0]
        header.version[:] = (self.major, 48, 0)
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        if wanted != self.major:
            raise OSError(errno.EINVAL, "Invalid argument")
        if command == VERSION:
            return
        assert header.flags & NOFLUSH
        header.data_start = ctypes.sizeof(Header)
        room = len(buffer) - header.data_start
        if command == LIST:
            answer = self._list()
        else:
            assert command == STATUS
            answer = self._status(header)
        if len(answer) > room:
            header.flags |= FULL
            return
        buffer[header.data_start : header.data_start + len(answer)] = answer

    def _list(self) -> bytes:
        answer = b""
        devices = [*self.listed_only, *self.devices]
        for device in devices:
            # The event number follows the name since 4.37.
            name = aligned(device.name + b"\0" + bytes(8), ctypes.sizeof(NameList))
            size = ctypes.sizeof(NameList) - 4 + len(name)
            entry = NameList(device.number, 0 if device is devices[-1] else size)
            answer += bytes(entry)[:12] + name
        return answer or bytes(ctypes.sizeof(NameList))

    def _status(self, header: Header) -> bytes:
        assert header.dev
        device = next((one for one in self.devices if one.number == header.dev), None)
        if device is None:
            raise OSError(errno.ENXIO, "No such device or address")
        wants_table = bool(header.flags & TABLE)
        header.flags = device.flags | NOFLUSH | (ACTIVE if device.targets else 0)
        header.name, header.uuid = device.name, device.uuid
        header.open_count, header.event_nr, header.target_count = 3, 7, len(device.targets)
        answer = b""
        for start, length, kind, parameters, status in device.targets:
            text = (parameters if wants_table else status) + b"\0"
            text += bytes(-(len(answer) + ctypes.sizeof(TargetSpec) + len(text)) % 8)
            following = len(answer) + ctypes.sizeof(TargetSpec) + len(text)
            answer += bytes(TargetSpec(start, length, 0, following, kind)) + text
        if wants_table:
            self.after_table()
        return answer


def aligned(name: bytes, header_size: int) -> bytes:
    """The name so filled up that the next entry starts at a multiple of 8."""
    return name + bytes(-(header_size - 4 + len(name)) % 8)


def linear(number: int, name: bytes) -> Device:
    """A device of one linear target."""
    return Device(number, name, targets=[(0, 8, b"linear", b"8:16 0", b"")])


MPATH = Device(
    os.makedev(253, 300),
    b"mpatha",
    b"mpath-3500a0980000000a0",
    targets=[
        (
            0,
            262144,
            b"multipath",
            b"0 0 1 1 service-time 0 1 2 8:16 1 1 ",
            b"2 0 0 0 1 1 A 0 1 2 8:16 A 0 0 1 ",
        )
    ],
)


def test_a_map_is_read_with_table_and_status() -> None:
    """Both answers of the kernel make one value, its numbers and flags from the header."""
    assert list(maps_by(Kernel([replace(MPATH, flags=READONLY | SUSPENDED)]))) == [
        DmMap(
            name="mpatha",
            uuid="mpath-3500a0980000000a0",
            device_number="253:300",
            suspended=True,
            read_only=True,
            open_count=3,
            event_number=7,
            targets=(
                DmTarget(
                    0,
                    262144,
                    "multipath",
                    "0 0 1 1 service-time 0 1 2 8:16 1 1 ",
                    "2 0 0 0 1 1 A 0 1 2 8:16 A 0 0 1 ",
                ),
            ),
        )
    ]


def test_no_devices_are_no_maps() -> None:
    """An empty list of the kernel is one entry of number 0."""
    assert list(maps_by(Kernel())) == []


def test_a_device_without_a_table_is_there() -> None:
    """A device that was created and never got a table is listed, with no targets."""
    (found,) = maps_by(Kernel([Device(os.makedev(253, 1), b"bare")]))
    assert (found.name, found.targets, found.suspended) == ("bare", (), False)


def test_a_device_that_vanishes_is_left_out() -> None:
    """Between the list and the status a device may go; the others stay."""
    kernel = Kernel([linear(1, b"a")], listed_only=[Device(9, b"gone")])
    assert [found.name for found in maps_by(kernel)] == ["a"]


def test_an_answer_longer_than_the_buffer_is_asked_for_again() -> None:
    """The buffer grows until the kernel does not say any more that it is full, for lists and for tables."""
    parameters = b" ".join(b"8:%d 0" % minor for minor in range(20000))
    many = [linear(os.makedev(253, minor), b"device-%d" % minor) for minor in range(2000)]
    many[7].targets = [(0, 8, b"striped", parameters, b"")]
    found = list(maps_by(Kernel(many)))
    assert [one.name for one in found] == [f"device-{minor}" for minor in range(2000)]
    assert found[7].targets[0].parameters == parameters.decode()


def test_several_targets_keep_their_order() -> None:
    """A table of several lines gives as many targets."""
    spans = [(0, 8, b"linear", b"8:16 0", b""), (8, 16, b"error", b"", b""), (24, 8, b"zero", b"", b"x")]
    (found,) = maps_by(Kernel([Device(1, b"a", targets=spans)]))
    assert [(target.start, target.type, target.status) for target in found.targets] == [
        (0, "linear", ""),
        (8, "error", ""),
        (24, "zero", "x"),
    ]


def test_a_table_reloaded_in_between_is_read_again() -> None:
    """A status never joins the table before it."""
    device = linear(1, b"a")
    kernel = Kernel([device])
    reloads = iter([[(0, 16, b"zero", b"new", b"status")]])

    def reload() -> None:
        device.targets = next(reloads, device.targets)

    kernel.after_table = reload
    (found,) = maps_by(kernel)
    assert found.targets == (DmTarget(0, 16, "zero", "new", "status"),)


def test_a_number_that_changes_hands_again_and_again_has_no_status() -> None:
    """The status of another device with the same number is not taken for this one's."""
    device = linear(1, b"a")
    device.targets = [(0, 8, b"zero", b"", b"status")]
    kernel = Kernel([device])

    def reuse() -> None:
        device.name += b"a"

    kernel.after_table = reuse
    (found,) = maps_by(kernel)
    assert found.targets == (DmTarget(0, 8, "zero", "", ""),)


def test_a_kernel_of_another_version_is_a_fact_error() -> None:
    """The kernel tells its version when it refuses ours."""
    with pytest.raises(FactError, match=r"speaks version 5\.48\.0"):
        list(maps_by(Kernel(major=5)))


def test_an_ordinary_user_is_told_why() -> None:
    """The kernel's refusal becomes a sentence."""
    with pytest.raises(FactError, match="CAP_SYS_ADMIN"):
        list(maps_by(Kernel(refusal=errno.EACCES)))


def test_names_of_any_bytes_become_printable_text() -> None:
    """A name that is no UTF-8 or holds control characters can still stand in XML and protobuf."""
    kernel = Kernel([linear(1, b"a\xff\n\x01\xc3\xa4 \\x20"), linear(2, "\u200b".encode())])
    assert [found.name for found in maps_by(kernel)] == [r"a\xff\x0a\x01ä \x20", r"\xe2\x80\x8b"]


@given(st.binary())
def test_any_bytes_are_printable(raw: bytes) -> None:
    """No byte string gives text that XML or UTF-8 refuse."""
    text = printable(raw)
    assert text.isprintable()
    assert text.encode().decode() == text
    assert printable(os.fsdecode(raw)) == text


@given(st.text(st.characters()))
@example("\ud800")
@example("\udcff")
def test_any_text_is_printable(text: str) -> None:
    """Neither does text with halves of surrogate pairs."""
    assert printable(text).isprintable()
    assert printable(text).encode().decode() == printable(text)


def test_a_key_in_the_kernel_never_gets_out() -> None:
    """A crypt table read live has zeros for its key."""
    spans = [(0, 8, b"crypt", b"aes-xts-plain64 00112233aabbccdd 0 8:16 4096", b"")]
    (found,) = maps_by(Kernel([Device(1, b"c", targets=spans)]))
    assert found.targets[0].parameters == "aes-xts-plain64 0000000000000000 0 8:16 4096"


@pytest.fixture(name="misc")
def fixture_misc(tmp_path: Path) -> Path:
    """A /proc/misc of a kernel with device-mapper."""
    misc = tmp_path / "misc"
    misc.write_text("236 device-mapper\n 63 vga_arbiter\n")
    return misc


def test_a_kernel_without_device_mapper_has_no_maps(tmp_path: Path) -> None:
    """The control node is not even opened, as that would load the module."""
    misc = tmp_path / "misc"
    misc.write_text("229 fuse\n")
    assert list(read_maps(misc=misc, control=tmp_path)) == []
    assert read_map("253:0", misc=misc, control=tmp_path) is None


def test_a_missing_control_node_is_a_fact_error(misc: Path, tmp_path: Path) -> None:
    """A kernel with device-mapper and no node is trouble, not an empty host."""
    with pytest.raises(FactError, match="does not exist"):
        list(read_maps(misc=misc, control=tmp_path / "control"))


def test_a_file_in_the_nodes_place_is_not_asked(misc: Path, tmp_path: Path) -> None:
    """Only the character device that the kernel registered is the control node."""
    for control in (tmp_path / "control", Path("/dev/null")):
        (tmp_path / "control").touch()
        with pytest.raises(FactError, match="not the control node"):
            list(read_maps(misc=misc, control=control))


# --- dmsetup's words --------------------------------------------------------------------------------

INFO = """\
mpatha:mpath-3500a0980000000a0:253:0:0:1:0:L--w
vg0-mir:LVM-y0miIdbKrqyg3htR5w9nN7A4ch7OVRfKLRVf1oOO46dld8xVfZogJrtvqsm3EaA1:253:7:2:2:1:LIsr
bare::253:8:0:0:0:---w
"""
TABLES = """\
bare: 
mpatha: 0 262144 multipath 0 0 1 1 service-time 0 1 2 8:16 1 1 
vg0-mir: 0 40960 raid raid1 3 0 region_size 4096 2 253:3 253:4 253:5 253:6
vg0-mir: 40960 8 linear 8:0 0
"""  # noqa: W291 - dmsetup prints the blanks
STATUSES = """\
bare: 
mpatha: 0 262144 multipath 2 0 0 0 1 1 A 0 1 2 8:16 A 0 0 1 
vg0-mir: 0 40960 raid raid1 2 AA 40960/40960 idle 0 0 -
vg0-mir: 40960 8 linear 
"""  # noqa: W291


def test_a_recording_made_with_dmsetup_is_read() -> None:
    """The three files of dmsetup make the same values as the ioctls."""
    mpatha, mirror, bare = parse_text(TABLES, STATUSES, INFO)
    assert (mpatha.device_number, mpatha.uuid) == ("253:0", "mpath-3500a0980000000a0")
    assert mpatha.targets[0].status == "2 0 0 0 1 1 A 0 1 2 8:16 A 0 0 1 "
    assert (mirror.suspended, mirror.read_only, mirror.open_count, mirror.event_number) == (True, True, 2, 1)
    assert [target.type for target in mirror.targets] == ["raid", "linear"]
    assert (bare.uuid, bare.targets) == ("", ())


def test_a_host_without_devices_is_recorded_in_words() -> None:
    """The sentence for none is dmsetup's own, and understood."""
    none = "No devices found\n"
    assert dm_text.format_text(()) == (none, none, none)
    assert parse_text(none, none, none) == ()
    assert parse_text("", "", "") == ()


def test_a_device_that_went_between_two_commands_is_left_out() -> None:
    """The three files are not of one instant; what is not in table and info is not told."""
    table, info = TABLES.replace("mpatha", "other"), INFO
    assert [found.name for found in parse_text(table, STATUSES, info)] == ["vg0-mir", "bare"]


@pytest.mark.parametrize(
    ("table", "info"),
    [
        ("mpatha 0 8 linear\n", INFO),
        (TABLES, "mpatha:mpath-1:253:0:0:1:0\n"),
        (TABLES, "x:y:253:0:0:1:0:L--z\n"),
    ],
)
def test_a_line_that_is_none_of_dmsetups_is_a_fact_error(table: str, info: str) -> None:
    """A damaged recording is told, not read in part."""
    with pytest.raises(FactError, match="not a line"):
        parse_text(table, STATUSES, info)


def test_colons_part_name_and_uuid_where_a_table_says_so() -> None:
    """Both may hold colons, so that the table tells which part is the name."""
    info = "a:b:c:253:0:0:1:0:L--w\na:x:253:1:0:1:0:L--w\n"
    table = "a:b: 0 8 linear 8:0 0\na: 0 8 zero \n"
    assert [(found.name, found.uuid) for found in parse_text(table, table, info)] == [
        ("a:b", "c"),
        ("a", "x"),
    ]


def test_names_are_shown_unmangled_as_dmsetup_does() -> None:
    """The kernel holds what libdm mangled, dmsetup prints what a person called it."""
    text = (
        "odd name: 0 8 zero \n",
        "odd name: 0 8 zero \n",
        "odd name:mpath-ATA disk/1:253:0:0:1:0:L--w\n",
    )
    (found,) = parse_text(*text)
    assert (found.name, found.uuid) == (r"odd\x20name", r"mpath-ATA\x20disk\x2f1")
    assert dm_text.format_text([found]) == text


@pytest.mark.parametrize(
    "name", [r"a:\x200\x208\x20zero\x20", r"\x2fa", "/", r"a\x0ab", r"a\x2Fb", "a:", ": 0 8 zero "]
)
def test_names_that_would_be_misread_are_recorded_safely(name: str) -> None:
    """A name that looks like part of a line, or like the form for odd ones, comes back as it was."""
    target = DmTarget(0, 8, "zero", "", "")
    odd = DmMap(
        name, name, "253:0", suspended=True, read_only=True, open_count=1, event_number=2, targets=(target,)
    )
    both = (odd, structs.replace(odd, name="a", device_number="253:1"))
    assert parse_text(*dm_text.format_text(both)) == both


def test_names_that_dmsetup_refuses_are_recorded_too() -> None:
    """A blank that the kernel holds bare is not the same name as a mangled one."""
    bare = DmMap(
        "odd name", "", "253:0", suspended=False, read_only=False, open_count=0, event_number=0, targets=()
    )
    both = (bare, structs.replace(bare, name=r"odd\x20name", device_number="253:1"))
    assert dm_text.format_text(both)[0].splitlines() == [r"/odd\x20name: ", "odd name: "]
    assert parse_text(*dm_text.format_text(both)) == both


PRINTABLE = st.text(st.characters(codec="utf-8").filter(str.isprintable))
AWKWARD = st.lists(
    st.sampled_from(["a", "1", ":", " ", r"\x20", "-", "ä", ": ", "/", r"\x5c", "#"]), min_size=1
).map("".join)
NAMES = PRINTABLE.filter(bool) | AWKWARD
NUMBERS = st.integers(min_value=0, max_value=2**63)


@st.composite
def tables(draw: st.DrawFn) -> tuple[DmTarget, ...]:
    """A table of some targets, one behind the other."""
    found = []
    start = 0
    for _ in range(draw(st.integers(0, 3))):
        length = draw(st.integers(1, 2**40))
        kind = draw(st.text(st.sampled_from("abcxyz-_0123456789"), min_size=1, max_size=15))
        found.append(DmTarget(start, length, kind, draw(PRINTABLE), draw(PRINTABLE)))
        start += length
    return tuple(found)


@st.composite
def host_maps(draw: st.DrawFn) -> list[DmMap]:
    """The devices of a host: each name is there once, as the kernel has it."""
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    return [
        DmMap(
            name=name,
            uuid=draw(NAMES | st.just("")),
            device_number=f"253:{minor}",
            suspended=draw(st.booleans()),
            read_only=draw(st.booleans()),
            open_count=draw(NUMBERS),
            event_number=draw(NUMBERS),
            targets=draw(tables()),
        )
        for minor, name in enumerate(names)
    ]


@given(host_maps())
def test_what_is_recorded_is_what_was_read(maps: list[DmMap]) -> None:
    """Text and back gives the same values, whatever colons, blanks and escapes the names hold."""
    assert parse_text(*dm_text.format_text(maps)) == tuple(maps)


def test_a_recording_of_dmsetup_comes_out_again_as_it_was() -> None:
    """The text is dmsetup's to the last blank."""
    text = (
        "a: 0 8 linear 8:0 0\nb: \n",
        "a: 0 8 linear \nb: \n",
        "a:U-1:253:0:0:1:0:L--w\nb::253:1:0:0:0:---w\n",
    )
    assert dm_text.format_text(parse_text(*text)) == text


KEY, ZEROS = "00112233445566778899aabbccddeeff", "0" * 32


@pytest.mark.parametrize(
    ("kind", "parameters", "shown"),
    [
        ("crypt", f"aes-xts-plain64 {KEY} 0 8:1 0", f"aes-xts-plain64 {ZEROS} 0 8:1 0"),
        ("crypt", "aes-xts-plain64 :32:logon:dm:key 0 8:1 0", None),
        ("crypt", "cipher_null-ecb - 0 8:1 0", None),
        ("crypt", f"aes {KEY}", f"aes {ZEROS}"),
        ("inlinecrypt", f"aes-xts-plain64 {KEY} 0 8:1 0", f"aes-xts-plain64 {ZEROS} 0 8:1 0"),
        (
            "integrity",
            f"8:1 0 32 J 3 internal_hash:hmac(sha256):{KEY} journal_mac:crc32c journal_crypt:aes:{KEY}",
            f"8:1 0 32 J 3 internal_hash:hmac(sha256):{ZEROS} journal_mac:crc32c journal_crypt:aes:{ZEROS}",
        ),
        ("verity", f"1 8:1 8:2 4096 4096 1 1 sha256 {KEY} {KEY}", None),
        ("linear", "8:1 4096", None),
    ],
)
def test_keys_are_zeros_as_dmsetup_prints_them(kind: str, parameters: str, shown: str | None) -> None:
    """Key material never leaves, from a recording neither; references to the keyring are no secret."""
    table = f"c: 0 8 {kind} {parameters}\n"
    (found,) = parse_text(table, "", "c::253:0:0:1:0:L--w\n")
    assert found.targets[0].parameters == (shown or parameters)


@given(st.text())
def test_no_text_breaks_the_reader_of_recordings(text: str) -> None:
    """Whatever a recording holds, it gives maps or a FactError."""
    for texts in ((text, text, INFO), (TABLES, text, INFO), (TABLES, STATUSES, text)):
        try:
            parse_text(*texts)
        except FactError:
            continue


# --- lines of targets -------------------------------------------------------------------------------


def test_a_multipath_table_is_read_by_its_counts() -> None:
    """Features, handler, groups and the selectors' own arguments are told apart by counts alone."""
    table = dm_targets.parse_multipath_table(
        "3 queue_if_no_path pg_init_retries 50 1 alua 2 1 service-time 0 2 2 8:144 1 1 8:128 1 3 "
        "historical-service-time 2 972 0 1 1 8:96 0 "
    )
    assert table.features == ("queue_if_no_path", "pg_init_retries", "50")
    assert (table.hardware_handler, table.initial_group) == (("alua",), 1)
    first, second = table.groups
    assert [path.device_number for path in first.paths] == ["8:144", "8:128"]
    assert first.paths[1].selector_arguments == ("1", "3")
    assert (second.selector, second.selector_arguments) == ("historical-service-time", ("972", "0"))
    assert second.paths[0].selector_arguments == ("0",)


def test_a_multipath_status_is_read_by_its_counts() -> None:
    """States and fail counts stand where the counts say, whatever the selector prints beside them."""
    status = dm_targets.parse_multipath_status(
        "2 1 4 0 2 1 A 0 1 2 8:16 A 0 5 1 D 2 972 0 2 3 8:48 F 12 1024 0 7 8:64 A 1 1024 2 8 "
    )
    assert status.features == ("1", "4")
    assert [group.state for group in status.groups] == ["A", "D"]
    assert [path.device_number for path in status.groups[1].paths] == ["8:48", "8:64"]
    failed = status.groups[1].paths[0]
    assert (failed.state, failed.fail_count, failed.selector_status) == ("F", 12, ("1024", "0", "7"))


def test_a_map_without_paths_has_no_groups() -> None:
    """A map whose last path went has an empty table and status."""
    assert dm_targets.parse_multipath_table("1 queue_if_no_path 0 0 0 ").groups == ()
    assert dm_targets.parse_multipath_status("2 0 0 0 0 0 ").groups == ()


def test_a_raid_table_tells_parameters_and_legs() -> None:
    """Options are taken by name, and each leg is a pair of metadata and data."""
    table = dm_targets.parse_raid_table(
        "raid10 12 128 nosync rebuild 1 rebuild 2 region_size 4096 raid10_copies 2 raid10_format near "
        "4 253:3 253:4 - - - 253:6 253:7 253:8"
    )
    assert (table.type, table.chunk_size_sectors, table.sync) == ("raid10", 128, "nosync")
    assert (table.rebuild, table.write_mostly, table.region_size_sectors) == ((1, 2), (), 4096)
    assert (table.raid10_copies, table.raid10_format) == (2, "near")
    assert [(leg.metadata, leg.data) for leg in table.legs] == [
        ("253:3", "253:4"),
        (None, None),
        (None, "253:6"),
        ("253:7", "253:8"),
    ]


def test_a_raid_tables_journal_is_told() -> None:
    """A raid5 may have a journal device and its mode."""
    table = dm_targets.parse_raid_table(
        "raid5_ls 7 128 region_size 64 journal_dev 253:9 journal_mode writeback 1 253:3 253:4"
    )
    assert (table.journal_device, table.journal_mode, table.sync) == ("253:9", "writeback", None)


def test_a_raid_tables_wrong_count_does_not_matter() -> None:
    """Older kernels count rebuild and write_mostly twice; the line then adds up from its end."""
    table = dm_targets.parse_raid_table("raid1 7 0 rebuild 0 region_size 64 2 253:3 253:4 253:5 253:6")
    assert (table.rebuild, len(table.legs)) == ((0,), 2)


def test_a_raid_status_tells_health_and_progress() -> None:
    """The fields are those of the target's documentation."""
    status = dm_targets.parse_raid_status("raid5_ls 3 AaD 2/490221568 recover 4 2048 A")
    assert (status.type, status.device_count, status.health) == ("raid5_ls", 3, "AaD")
    assert (status.synced_sectors, status.total_sectors, status.action) == (2, 490221568, "recover")
    assert (status.mismatch_count, status.data_offset_sectors, status.journal) == (4, 2048, "A")


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("raid1 2 AA 8/8", (None, None, None, None)),
        ("raid1 2 AA 8/8 idle 0", ("idle", 0, None, None)),
        ("raid1 2 AA 8/8 idle 0 0", ("idle", 0, 0, None)),
        ("raid1 2 AA 8/8 idle 0 0 - novel", ("idle", 0, 0, "-")),
    ],
)
def test_older_and_newer_kernels_status_lines_are_read(line: str, known: tuple[object, ...]) -> None:
    """Fields that an old kernel does not print are None, those of a newer one are ignored."""
    status = dm_targets.parse_raid_status(line)
    assert (status.action, status.mismatch_count, status.data_offset_sectors, status.journal) == known


def test_a_mirror_is_read_from_table_and_status() -> None:
    """The old mirror target tells its log, its legs and their health."""
    table = dm_targets.parse_mirror_table("disk 3 253:2 1024 nosync 2 253:3 0 253:4 8 1 handle_errors")
    assert (table.log_type, table.log_arguments) == ("disk", ("253:2", "1024", "nosync"))
    assert [(leg.device_number, leg.offset_sectors) for leg in table.legs] == [("253:3", 0), ("253:4", 8)]
    assert table.features == ("handle_errors",)
    status = dm_targets.parse_mirror_status("2 253:3 253:4 400/1024 1 AD 3 disk 253:2 A")
    assert (status.synced_regions, status.total_regions) == (400, 1024)
    assert [(leg.device_number, leg.state) for leg in status.legs] == [("253:3", "A"), ("253:4", "D")]
    assert status.log == ("disk", "253:2", "A")


def test_a_mirror_without_features_or_log_status_is_read() -> None:
    """Features and the log's status are optional."""
    assert dm_targets.parse_mirror_table("core 1 1024 2 253:3 0 253:4 0").features == ()
    assert dm_targets.parse_mirror_status("2 253:3 253:4 1/2 1 AA ").log == ()


PARSERS = (
    dm_targets.parse_multipath_table,
    dm_targets.parse_multipath_status,
    dm_targets.parse_raid_table,
    dm_targets.parse_raid_status,
    dm_targets.parse_mirror_table,
    dm_targets.parse_mirror_status,
)
LINES = (
    "1 queue_if_no_path 1 alua 1 1 service-time 0 2 2 8:144 1 1 8:128 1 1",
    "2 0 1 0 1 1 A 0 2 2 8:144 A 0 0 1 8:128 A 0 0 1",
    "raid1 3 0 region_size 4096 2 253:3 253:4 253:5 253:6",
    "raid1 2 AA 40960/40960 idle 0 0 -",
    "core 1 1024 2 253:3 0 253:4 0",
    "2 253:3 253:4 400/1024 1 AA 1 core",
)
WORDS = st.sampled_from(
    ["0", "1", "2", "-", "A", "8:16", "1/2", "sync", "rebuild", "99999999999", "²", "9" * 5000]
)


def test_a_mirrors_health_is_one_letter_a_leg() -> None:
    """Letters that do not fit the legs are no health."""
    with pytest.raises(ValueError, match="not a mirror status"):
        dm_targets.parse_mirror_status("2 253:3 253:4 1/2 1 AAA 1 core")


def complaint(parse: Callable[[str], object], line: str) -> str | None:
    """What the parser says against the line."""
    try:
        parse(line)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("parse", PARSERS)
@given(line=st.text() | st.lists(WORDS, max_size=20).map(" ".join))
def test_a_line_that_does_not_add_up_is_a_value_error(parse: Callable[[str], object], line: str) -> None:
    """No line breaks a parser in another way, and the error shows the line."""
    assert (complaint(parse, line) or repr(line)).endswith(repr(line))


def shortened() -> Iterator[tuple[Callable[[str], object], str]]:
    """Each sample line without its last words, as far as that makes it wrong."""
    for parse, line in zip(PARSERS, LINES, strict=True):
        assert parse(line)
        words = line.split()
        needed = (
            4
            if parse is dm_targets.parse_raid_status
            else 6
            if parse is dm_targets.parse_mirror_status
            else len(words)
        )
        for count in range(needed):
            yield parse, " ".join(words[:count])


@pytest.mark.parametrize(("parse", "line"), list(shortened()))
def test_a_line_cut_short_is_a_value_error(parse: Callable[[str], object], line: str) -> None:
    """A truncated line never passes for a smaller device."""
    with pytest.raises(ValueError, match="not a "):
        parse(line)
