"""Changing this host: real loop devices through a real service, as root."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import grpc
import pytest

from nodedev.capabilities import attributes
from nodedev.capabilities.loop import Backing, Loop, create
from nodedev.changes import execute
from nodedev.client import Client
from nodedev.errors import (
    AbortedError,
    AlreadyExistsError,
    InvalidError,
    NodedevError,
    PermissionDeniedError,
    PreconditionError,
    UnimplementedError,
)
from nodedev.facts.host import Host
from nodedev.facts.live import LiveSource
from nodedev.model import Device, Site
from nodedev.plan import Consent, Ioctl
from nodedev.v1 import capability_pb2, device_pb2, device_service_pb2_grpc
from nodedev.v1 import device_service_pb2 as pb
from tests.e2e.living import REAL, Live, document, living, loops_of, started
from tests.e2e.services import READY_SECONDS

Outcome = pb.DestroyDeviceResponse

pytestmark = REAL


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """One service for the tests that leave it as it was."""
    with living() as running:
        yield running


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    """A client of it."""
    with Client(live.address) as connected:
        yield connected


def attribute(device: device_pb2.Device, name: str) -> str:
    """A sysfs attribute of the device, as the kernel has it."""
    return Path(f"{device.sysfs_path}/{name}").read_text().strip()


@pytest.fixture
def made(live: Live, client: Client) -> Iterator[device_pb2.Device]:
    """A loop device, gone in the end."""
    path = live.file("made.img")
    device = client.create_device(document(path)).device
    yield device
    client.destroy_device(device.name, lazy=True)


def test_a_life(live: Live, client: Client) -> None:
    """Created, listed, found again by the same document, destroyed, and destroyed again without error."""
    xml = document(live.file("life.img"))
    created = client.create_device(xml)
    assert not created.existed
    name = created.device.name
    assert name in {device.name for device in client.list_devices().devices}
    assert loops_of(live.folder)[created.device.devnode] == str(live.folder / "life.img")
    assert attribute(created.device, "loop/autoclear") == "0"

    again = client.create_device(xml)
    assert again.existed
    assert (again.device, list(again.steps)) == (created.device, [])
    with pytest.raises(AlreadyExistsError) as refused:
        client.create_device(document(live.folder / "life.img", "<read_only>yes</read_only>"))
    assert refused.value.metadata == {"device": name, "fields": "read_only"}

    destroyed = client.destroy_device(created.device.devnode, generation=created.device.generation)
    assert destroyed.outcome == Outcome.OUTCOME_DESTROYED
    assert not loops_of(live.folder)
    assert name not in {device.name for device in client.list_devices().devices}
    assert client.destroy_device(name).outcome == Outcome.OUTCOME_ABSENT


def loop_of(device: device_pb2.Device) -> capability_pb2.Loop:
    """What is told of it as a loop device."""
    return next(found.loop for found in device.capabilities if found.HasField("loop"))


def test_what_is_answered_is_the_finished_device(live: Live, client: Client) -> None:
    """The last step of making one sends no event, and still nobody is told of a device half made."""
    xml = document(live.file("finished.img"), "<partition_scan>yes</partition_scan>")
    for _ in range(20):
        device = client.create_device(xml).device
        for told in (device, client.get_device(device.name).device):
            assert (loop_of(told).autoclear, loop_of(told).partition_scan) == (False, True)
        client.destroy_device(device.name)


def test_a_watch_sees_it(live: Live, client: Client) -> None:
    """Created, defined, forgotten, destroyed: a watch tells each once and in order, of the right device."""
    xml = document(live.file("watched.img"))
    marker = document(live.file("marker.img"))
    with grpc.insecure_channel(live.address) as channel:
        wanted = pb.WatchDevicesRequest(filter=pb.DeviceFilter(capabilities=["loop"]))
        stream = device_service_pb2_grpc.DeviceServiceStub(channel).WatchDevices(
            wanted, timeout=READY_SECONDS
        )
        assert any(response.snapshot_complete for response in stream)
        created = client.create_device(xml).device
        client.define_device(xml)
        client.undefine_device(created.name)
        client.destroy_device(created.name)
        # What comes after it has come says that nothing more is to come.
        end = client.create_device(marker).device
        client.destroy_device(end.name)
        seen: list[pb.DeviceChange] = []
        for response in stream:
            seen += (change for change in response.changes)
            if any(change.type == change.TYPE_REMOVED and change.device == end for change in seen):
                break
        stream.cancel()
    mine = [change for change in seen if loop_of(change.device).backing.path == f"{live.folder}/watched.img"]
    types = [change.type for change in mine]
    kinds = pb.DeviceChange
    assert (types[0], types[-1]) == (kinds.TYPE_ADDED, kinds.TYPE_REMOVED)
    assert set(types[1:-1]) == {kinds.TYPE_CHANGED}
    assert {(change.device.name, change.device.generation) for change in mine} == {
        (created.name, created.generation)
    }
    assert mine[-1].device == created
    persistent = [change.device.persistent for change in mine]
    assert [state for state, _ in groupby(persistent)] == [False, True, False]
    assert persistent.count(True) == 1


def test_what_is_shown_is_what_is_run(live: Live, client: Client) -> None:
    """The plan changes nothing, and is the steps of the call that then carries it out."""
    xml = document(live.file("plan.img"), "<partition_scan>yes</partition_scan>")
    plan = client.create_device(xml, validate_only=True)
    assert not loops_of(live.folder)
    assert not plan.HasField("device")
    assert [step.ioctl.request for step in plan.steps] == [
        "LOOP_CTL_GET_FREE",
        "LOOP_CONFIGURE",
        "LOOP_SET_STATUS64",
    ]
    created = client.create_device(xml)
    assert list(created.steps) == list(plan.steps)
    end = client.destroy_device(created.device.name, validate_only=True)
    assert end.outcome == Outcome.OUTCOME_UNSPECIFIED
    assert loops_of(live.folder)
    assert list(client.destroy_device(created.device.name).steps) == list(end.steps)


def test_every_parameter(live: Live, client: Client) -> None:
    """Offset, size limit, sector size, read-only and partition scan are what was asked for."""
    path = live.file("parameters.img")
    more = "<offset>4096</offset><size_limit>1048576</size_limit><sector_size>4096</sector_size>"
    device = client.create_device(document(path, f"{more}<read_only>yes</read_only>")).device
    assert attribute(device, "loop/offset") == "4096"
    assert attribute(device, "loop/sizelimit") == "1048576"
    assert attribute(device, "queue/logical_block_size") == "4096"
    assert attribute(device, "ro") == "1"
    assert attribute(device, "size") == "2048"
    client.destroy_device(device.name)

    scanned = client.create_device(document(path, "<partition_scan>yes</partition_scan>")).device
    assert attribute(scanned, "loop/partscan") == "1"
    assert attribute(scanned, "loop/autoclear") == "0"
    client.destroy_device(scanned.name)


def test_overlap_is_refused(live: Live, client: Client) -> None:
    """A second device on the same bytes is refused, unless both only read; one on other bytes is not."""
    path = live.file("overlap.img")
    first = client.create_device(document(path, "<size_limit>1048576</size_limit>")).device
    with pytest.raises(PreconditionError) as refused:
        client.create_device(document(path, "<offset>4096</offset>"))
    assert (refused.value.reason, refused.value.metadata["device"]) == ("BACKING_OVERLAP", first.name)
    other = client.create_device(document(path, "<offset>1048576</offset>")).device
    for device in (first, other):
        client.destroy_device(device.name)
    read_only = "<read_only>yes</read_only>"
    readers = [
        client.create_device(document(path, f"{read_only}<offset>{offset}</offset>")).device
        for offset in (0, 4096)
    ]
    for device in readers:
        client.destroy_device(device.name)


@pytest.mark.parametrize(
    ("path", "more", "reason"),
    [
        ("/no/such/file", "", "BACKING_MISSING"),
        ("relative", "", "BACKING_INVALID"),
        ("/tmp", "", "BACKING_INVALID"),
        ("FILE", "<offset>99999999</offset>", "BACKING_TOO_SMALL"),
        ("FILE", "<sector_size>1000</sector_size>", "XML_INVALID"),
        ("FILE", "<nonsense/>", "XML_INVALID"),
    ],
)
def test_what_cannot_be_made(live: Live, client: Client, path: str, more: str, reason: str) -> None:
    """Each has its reason, and none leaves a device behind."""
    file = live.file("wrong.img")
    with pytest.raises(NodedevError) as refused:
        client.create_device(document(file if path == "FILE" else Path(path), more))
    assert refused.value.reason == reason
    assert not loops_of(live.folder)


def test_before_linux_5_8(live: Live) -> None:
    """Without LOOP_CONFIGURE the same device comes of LOOP_SET_FD and what follows it."""
    host = Host(LiveSource(attributes()))

    def find(handle: str) -> Device:
        raise AssertionError(handle)

    site = Site({}, host, find, lambda facts: facts.kernel_name, (5, 4))
    wanted = Loop(
        backing=Backing(path=str(live.file("old.img"))),
        offset_bytes=4096,
        sector_size_bytes=4096,
        partition_scan=True,
    )
    plan = create(wanted, site, Consent())
    assert isinstance(plan.steps[1], Ioctl)
    assert plan.steps[1].request == "LOOP_SET_FD"
    node = execute.run(plan, "loop").node
    assert node
    folder = Path(f"/sys/block/{Path(node).name}")
    found = {name: (folder / name).read_text().strip() for name in ("loop/offset", "loop/autoclear")}
    assert found == {"loop/offset": "4096", "loop/autoclear": "0"}
    assert (folder / "queue/logical_block_size").read_text().strip() == "4096"
    with Client(live.address) as client:
        again = client.create_device(document(live.folder / "old.img", "<offset>4096</offset>"))
        assert (again.existed, again.device.devnode) == (True, node)
        assert client.destroy_device(node).outcome == Outcome.OUTCOME_DESTROYED


def test_what_is_no_device_to_make(client: Client) -> None:
    """A document without a capability that can be created is UNIMPLEMENTED, and so is destroying a disk."""
    with pytest.raises(UnimplementedError) as refused:
        client.create_device("<device><capability type='system'/></device>")
    assert refused.value.reason == "CAPABILITY_NOT_CREATABLE"
    with pytest.raises(UnimplementedError) as refused:
        client.destroy_device("computer")
    assert refused.value.reason == "CAPABILITY_NOT_DESTROYABLE"


def test_an_open_device_stays(made: device_pb2.Device, client: Client) -> None:
    """DEVICE_BUSY names who has it open, and nothing has changed; lazily it goes with the last opener."""
    with open(made.devnode, "rb", buffering=0):  # noqa: PTH123  the point is to hold it
        with pytest.raises(PreconditionError) as refused:
            client.destroy_device(made.name)
        assert refused.value.reason == "DEVICE_BUSY"
        (obstacle,) = refused.value.obstacles
        assert (obstacle.type, obstacle.device) == ("TYPE_OPEN", made.name)
        assert f"({os.getpid()})" in obstacle.message
        assert attribute(made, "loop/autoclear") == "0"
        assert client.get_device(made.name).device == made
        detaching = client.destroy_device(made.name, lazy=True)
        assert detaching.outcome == Outcome.OUTCOME_DETACHING
        assert loop_of(detaching.device).autoclear
        assert Path(f"{made.sysfs_path}/loop").exists()
    assert not Path(f"{made.sysfs_path}/loop").exists()


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs mkfs.ext4")
def test_a_mounted_device_stays(made: device_pb2.Device, client: Client, tmp_path: Path) -> None:
    """DEVICE_BUSY says where it is mounted, and nothing has changed."""
    subprocess.run(["mkfs.ext4", "-q", made.devnode], check=True)
    try:
        subprocess.run(["mount", made.devnode, tmp_path], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(PreconditionError) as refused:
            client.destroy_device(made.name)
        assert refused.value.reason == "DEVICE_BUSY"
        assert [(found.type, found.message) for found in refused.value.obstacles] == [
            ("TYPE_MOUNTED", f"mounted at {tmp_path}")
        ]
        assert attribute(made, "loop/autoclear") == "0"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(not shutil.which("mkswap"), reason="needs mkswap")
def test_a_swap_device_stays(made: device_pb2.Device, client: Client) -> None:
    """DEVICE_BUSY says that it is swapped on."""
    subprocess.run(["mkswap", "-q", made.devnode], check=False, capture_output=True)
    if subprocess.run(["swapon", made.devnode], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody swap")
    try:
        with pytest.raises(PreconditionError) as refused:
            client.destroy_device(made.name)
        assert "TYPE_SWAP" in {found.type for found in refused.value.obstacles}
    finally:
        subprocess.run(["swapoff", made.devnode], check=True)


def test_a_device_behind_a_device_stays(live: Live, made: device_pb2.Device, client: Client) -> None:
    """What is behind another loop device is DEVICE_BUSY, and so is a second use of it."""
    above = client.create_device(document(Path(made.devnode))).device
    with pytest.raises(PreconditionError) as refused:
        client.destroy_device(made.name)
    assert [found.type for found in refused.value.obstacles] == ["TYPE_BACKING"]
    with pytest.raises(PreconditionError) as refused:
        client.create_device(document(Path(made.devnode), "<offset>4096</offset>"))
    assert refused.value.reason == "BACKING_OVERLAP"
    assert client.destroy_device(above.name).outcome == Outcome.OUTCOME_DESTROYED


def test_autoclear(live: Live, client: Client) -> None:
    """A device with autoclear is there until somebody has used it, or destroys it."""
    xml = document(live.file("clear.img"), "<autoclear>yes</autoclear>")
    device = client.create_device(xml).device
    assert client.create_device(xml).existed
    assert attribute(device, "loop/autoclear") == "1"
    assert client.destroy_device(device.name).outcome == Outcome.OUTCOME_DESTROYED
    assert not loops_of(live.folder)


def test_another_generation(live: Live, client: Client) -> None:
    """A name that was given again is not hit by who means the former device."""
    xml = document(live.file("generation.img"))
    first = client.create_device(xml).device
    client.destroy_device(first.name)
    second = client.create_device(xml).device
    assert second.name == first.name
    with pytest.raises(AbortedError) as refused:
        client.destroy_device(first.name, generation=first.generation)
    assert refused.value.reason == "GENERATION_MISMATCH"
    assert loops_of(live.folder)
    client.destroy_device(second.name, generation=second.generation)


def test_a_request_is_carried_out_once(live: Live, client: Client) -> None:
    """The same request id is answered as before, and refused for another request."""
    xml = document(live.file("request.img"))
    first = client.create_device(xml, request_id="one")
    client.destroy_device(first.device.name)
    assert client.create_device(xml, request_id="one") == first
    assert not loops_of(live.folder)
    with pytest.raises(InvalidError) as refused:
        client.create_device(document(live.file("other.img")), request_id="one")
    assert refused.value.reason == "REQUEST_ID_REUSED"


def test_definitions(live: Live, client: Client) -> None:
    """Defined, inactive, started, active, destroyed, inactive again, forgotten."""
    path = live.file("kept.img")
    name = client.define_device(
        document(path).replace("<capability", "<name>kept</name><capability", 1)
    ).device.name
    assert name == "kept"

    def inactive() -> list[str]:
        wanted = pb.DeviceFilter(presence=pb.PRESENCE_INACTIVE)
        return [device.name for device in client.list_devices(wanted).devices]

    assert "kept" in inactive()
    assert client.get_device("kept").device.inactive
    assert "<name>kept</name>" in client.device_xml(["kept"]).devices[0].xml
    started = client.start_device("kept").device
    assert (started.persistent, started.inactive, started.autostart) == (True, False, False)
    assert "kept" not in inactive()
    assert client.start_device("kept").existed
    client.set_device_autostart(started.name, autostart=True)
    assert client.get_device(started.name).device.autostart
    client.destroy_device(started.name)
    assert "kept" in inactive()
    assert client.undefine_device("kept").existed
    assert not client.undefine_device("kept").existed
    assert "kept" not in inactive()
    assert not list((live.folder / "state" / "devices").rglob("*.xml"))


def test_definitions_outlast_the_service() -> None:
    """Autostarted devices are there after a restart; a broken file is told of, and left alone."""
    with living() as live:
        path = live.file("kept.img")
        with Client(live.address) as client:
            client.define_device(document(path).replace("<capability", "<name>kept</name><capability", 1))
            client.set_device_autostart("kept", autostart=True)
        live.stop()
        broken = live.folder / "state" / "devices" / "broken.xml"
        broken.write_text("<device>")
        live.start()
        with Client(live.address) as client:
            assert started(client, "kept").autostart
            assert any(str(broken) in note.message for note in client.server_info().notes)
        assert broken.read_text() == "<device>"
        assert list(loops_of(live.folder).values()) == [str(path)]


def test_who_may_not(live: Live, folder: Path) -> None:
    """The read-only socket and a process without rights each refuse with their own reason."""
    xml = document(live.file("rights.img"))
    with (
        Client(f"unix:{live.folder / 'nodedev-ro.sock'}") as reader,
        pytest.raises(PermissionDeniedError) as refused,
    ):
        reader.create_device(xml)
    assert refused.value.reason == "READ_ONLY_CONNECTION"
    (folder / "wish.xml").write_text(xml)
    folder.chmod(0o755)
    program = [sys.executable, "-m", "nodedev", "create", "-"]
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *program]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder), "NODEDEV_CONNECT": ""}
    done = subprocess.run(
        command, input=xml, capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert done.returncode == 1
    assert "NOT_PRIVILEGED" in done.stderr
    assert not loops_of(live.folder)


def test_fifty_clients(live: Live) -> None:
    """Fifty clients on the same and on different files: no wrong answer, nothing left."""
    paths = [live.file(f"crowd{number}.img") for number in range(10)]
    # What its last step gives a device tells one that is still being made from one that is there.
    more = dict.fromkeys(paths[::2], "<partition_scan>yes</partition_scan>")
    mistakes: list[str] = []

    def work(seed: int) -> None:
        chooser = random.Random(seed)
        with Client(live.address) as client:
            for _ in range(6):
                path = chooser.choice(paths)
                try:
                    done = client.create_device(document(path, more.get(path, "")))
                    if done.device.capabilities and str(path) not in {
                        found.loop.backing.path for found in done.device.capabilities
                    }:
                        mistakes.append(f"{path} became {done.device}")
                    client.destroy_device(done.device.name, generation=done.device.generation)
                except AbortedError as error:
                    if error.reason not in ("OPERATION_IN_PROGRESS", "GENERATION_MISMATCH", "NODE_CHANGED"):
                        mistakes.append(f"{error.reason}: {error.message}")
                except NodedevError as error:
                    mistakes.append(f"{error.reason}: {error.message}")

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(work, range(50)))
    assert mistakes == []
    with Client(live.address) as client:
        for node in loops_of(live.folder):
            client.destroy_device(node)
    assert not loops_of(live.folder)
