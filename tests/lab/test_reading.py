"""What reading does to a host: nothing; and that a recording is the host, without its secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse

from nodedev.capabilities import attributes
from nodedev.discovery import Discovery
from nodedev.facts.host import Host
from nodedev.facts.recorded import RecordedSource
from nodedev.proto import device_message
from nodedev.v1.device_service_pb2 import ListDevicesResponse

from .guest import Guest

pytestmark = pytest.mark.lab

HOST_STATE = """
dmsetup table; dmsetup info -c --noheadings -o name,open,events,suspended; cat /proc/mdstat /proc/swaps
losetup --list --noheadings -O NAME,BACK-FILE,AUTOCLEAR | sort; cut -d' ' -f1 /proc/modules | sort
grep -H . /sys/block/*/diskseq; find /dev -newer /run/before | sort; cat /sys/kernel/uevent_seqnum
multipathd show maps raw format '%n %w %S %1 %2'; cut -d' ' -f4- /proc/self/mountinfo; iscsiadm -m session
"""


@dataclass(frozen=True, slots=True)
class Traced:
    """What list and record did: the host before and after, every open of theirs, and what they left."""

    before: str
    after: str
    opens: dict[str, list[str]]
    listed: Path
    recording: Path


@pytest.fixture(scope="module")
def traced(nodedev_guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The two commands under strace, which tells of each opened file what it is."""
    guest, folder = nodedev_guest, tmp_path_factory.mktemp("traced")
    guest.run("rm -rf /run/recorded* /run/trace*; touch /run/before")
    before = guest.run(HOST_STATE).stdout
    trace = "strace -f -qq --seccomp-bpf -yy -e trace=open,openat,openat2 -o /run/trace"
    guest.run(f"{trace}.list nodedev list --json >/run/listed.json", timeout=600)
    guest.run(f"{trace}.record nodedev record /run/recorded", timeout=600)
    after = guest.run(HOST_STATE).stdout
    for name in ("trace.list", "trace.record", "listed.json", "recorded"):
        guest.get(f"/run/{name}", folder / name)
    opens = {name: (folder / f"trace.{name}").read_text().splitlines() for name in ("list", "record")}
    return Traced(before, after, opens, folder / "listed.json", folder / "recorded")


def test_reading_opens_no_block_device(traced: Traced) -> None:
    """Neither list nor record opens one, or tries to; of /dev they open DM's control node and plain ones."""
    for calls in traced.opens.values():
        assert len(calls) > 1000
        # O_PATH opens nothing: it names the file behind a path.
        opened = [call for call in calls if "O_PATH" not in call]
        assert [call for call in opened if "<block " in call] == []
        named = (re.search(r'"(/dev/[^"]*)"', call) for call in opened)
        nodes = {found[1] for found in named if found}
        assert nodes <= {"/dev/mapper/control", "/dev/null", "/dev/urandom", "/dev/tty", "/dev/shm"}


def test_reading_changes_nothing(traced: Traced) -> None:
    """Maps, arrays, loops, sessions, mounts, modules and nodes are as before, and no uevent was sent."""
    assert traced.after == traced.before


def test_a_recording_is_the_host(traced: Traced) -> None:
    """What a recording shows is what the host shows, device for device."""
    source = RecordedSource.open(traced.recording, attributes())
    devices = Discovery().survey(Host.scan(source)).devices
    recorded = {device.name: device_message(device) for device in devices}
    listed = Parse(traced.listed.read_text(), ListDevicesResponse())
    assert recorded == {device.name: device for device in listed.devices}


def test_no_secret_is_recorded(traced: Traced) -> None:
    """Neither the CHAP password that sysfs shows, nor the key in the DM table, as text or hexadecimal."""
    for file in (*traced.recording.iterdir(), traced.listed):
        content = file.read_bytes()
        for secret in (b"a-chap-secret", b"a-key-that-no-recording-may-hold"):
            assert secret not in content, file
            assert secret.hex().encode() not in content, file
