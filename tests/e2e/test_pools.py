"""Storage pools over real sockets and by the command line, of the recorded SAN host."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from msgspec.structs import replace

from nodedev.client import Client, PoolUpdate, PoolWatch, VolumeChange
from nodedev.errors import NodedevError
from nodedev.facts.recorded import RecordedSource
from nodedev.inventory import Inventory
from nodedev.model import Device
from nodedev.pools.document import pool_xml
from nodedev.pools.store import Activity
from nodedev.server import pool_watching
from nodedev.server.inprocess import in_process
from nodedev.server.service import Service
from nodedev.v1 import pool_service_pb2 as pb
from nodedev.v1.pool_service_pb2_grpc import StoragePoolServiceStub
from tests.e2e.services import Nodedev, process, recorded, serving
from tests.unit.pool_hosts import IQN, SAN, iscsi, scsi

if TYPE_CHECKING:
    from nodedev.v1.pool_service_pb2_grpc import StoragePoolServiceAsyncStub

DEADLINE_SECONDS = 30
ADDED, CHANGED, REMOVED = (
    pb.VolumeChange.TYPE_ADDED,
    pb.VolumeChange.TYPE_CHANGED,
    pb.VolumeChange.TYPE_REMOVED,
)
ACTIVE = Activity(active=True)
REFUSING = f"""
case $2 in
  discovery) echo '127.0.0.1:3260,1 {IQN}' ;;
  session) exit 21 ;;
  node) case $* in *login*) echo 'reported error (24 - authorization failure)' >&2; exit 24 ;; esac ;;
esac"""
LUN = "iqn.2026-11.com.example:virtimages-lun"


@pytest.fixture(scope="module")
def source() -> RecordedSource:
    """The recorded SAN host."""
    return recorded(SAN)


@pytest.fixture(scope="module")
def client(source: RecordedSource) -> Iterator[Client]:
    """A client of a service of the recorded SAN host, with the predefined pools."""
    with in_process(source, "san") as address, Client(address) as connected:
        yield connected


@asynccontextmanager
async def running(
    source: RecordedSource,
    folder: Path,
) -> AsyncIterator[tuple[Service, StoragePoolServiceAsyncStub]]:
    """A service that may be written to, and its stub."""
    path = folder / "pools.sock"
    async with serving(source, path) as service:
        task = asyncio.create_task(service.run())
        await service.engine.published.wait()
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            yield service, StoragePoolServiceStub(channel)
        task.cancel()


async def define(stub: StoragePoolServiceAsyncStub, xml: str) -> pb.Pool:
    """Defines a pool."""
    return (await stub.DefinePool(pb.DefinePoolRequest(xml=xml))).pool


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """The code and text of a refused call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


def test_predefined_pools_are_listed(client: Client) -> None:
    """The pools that every host has are there, with what their volumes come to."""
    pools = {pool.name: pool for pool in client.list_pools().pools}
    assert list(pools) == ["loop", "mpath", "raid"]
    mpath = pools["mpath"]
    volumes = client.list_volumes("mpath").volumes
    assert mpath.active
    assert mpath.volume_count == len(volumes) == 8
    assert mpath.capacity_bytes == mpath.allocation_bytes == sum(one.capacity_bytes for one in volumes)
    assert mpath.available_bytes == 0
    assert [pool.name for pool in client.list_pools(["raid"]).pools] == ["raid"]
    assert not client.list_pools(active=False).pools


def test_volumes_come_in_pages(source: RecordedSource) -> None:
    """Pages of two volumes make the whole list, in the order of pools and names."""
    with in_process(source, "san") as address, grpc.insecure_channel(address) as channel:
        stub = StoragePoolServiceStub(channel)
        whole = [(one.pool, one.name) for one in stub.ListVolumes(pb.ListVolumesRequest()).volumes]
        assert whole == sorted(whole)
        paged, token = [], ""
        while True:
            page = stub.ListVolumes(pb.ListVolumesRequest(page_size=2, page_token=token))
            assert len(page.volumes) <= 2
            paged += [(one.pool, one.name) for one in page.volumes]
            token = page.next_page_token
            if not token:
                break
        assert paged == whole


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (pb.FindVolumesRequest(key="36001405000000016e6f6465646576000"), ["mpathg"]),
        (pb.FindVolumesRequest(path="/dev/disk/by-id/wwn-0x500a0980000000a0"), ["mpatha"]),
        (pb.FindVolumesRequest(name="mpathb"), ["mpathb"]),
        (pb.FindVolumesRequest(device="mpathc"), ["mpathc"]),
        (pb.FindVolumesRequest(handle="/dev/mapper/mpathd"), ["mpathd"]),
        (pb.FindVolumesRequest(handle="3500a0980000000a4"), ["mpathe"]),
    ],
    ids=lambda value: value.WhichOneof("by") if isinstance(value, pb.FindVolumesRequest) else None,
)
def test_lookups(client: Client, wanted: pb.FindVolumesRequest, names: list[str]) -> None:
    """A volume is found by key, path, name, device, and by what a person has at hand."""
    assert [volume.name for volume in client.find_volumes(wanted).volumes] == names


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda client: client.get_pool("none"), "POOL_NOT_FOUND"),
        (lambda client: client.list_volumes("none"), "POOL_NOT_FOUND"),
        (lambda client: client.list_pools(["zfs"]), "POOL_TYPE_UNKNOWN"),
        (lambda client: client.find_volumes(pb.FindVolumesRequest(key="none")), "VOLUME_NOT_FOUND"),
        (lambda client: client.find_volumes(pb.FindVolumesRequest(device="none")), "DEVICE_NOT_FOUND"),
        (lambda client: client.find_volumes(pb.FindVolumesRequest()), "ARGUMENT_INVALID"),
        (lambda client: client.volume_xml(pb.VolumeReference(pool="mpath", name="none")), "VOLUME_NOT_FOUND"),
        (lambda client: client.disk_xml(pb.VolumeReference(pool="mpath", name="mpathd")), "DEVICE_BUSY"),
        (lambda client: client.define_pool("<pool/>"), "RECORDED_HOST"),
        (lambda client: client.stop_pool("mpath"), "RECORDED_HOST"),
    ],
)
def test_refusals(client: Client, call: Callable[[Client], object], reason: str) -> None:
    """What cannot be answered is refused with a stable reason."""
    with pytest.raises(NodedevError) as caught:
        call(client)
    assert caught.value.reason == reason


def test_a_claimed_disk_needs_force(client: Client) -> None:
    """The disk of a claimed volume is refused with every claim, and given when it is forced."""
    reference = pb.VolumeReference(pool="mpath", name="mpathd")
    with pytest.raises(NodedevError) as caught:
        client.disk_xml(reference)
    assert {found.type for found in caught.value.obstacles} >= {"member", "mounted"}
    assert "dm-uuid-mpath-3500a0980000000a3" in client.disk_xml(reference, "vdc", force=True)


async def test_a_pool_from_define_to_undefine(source: RecordedSource, folder: Path) -> None:
    """Defined, started, listed, stopped and undefined: each state shows, and inactive ones list nothing."""
    async with running(source, folder) as (_, stub):
        assert not (await define(stub, pool_xml(scsi("/dev/mapper")))).active
        code, text = await refusal(stub.ListVolumes(pb.ListVolumesRequest(pool="hba")))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "start it first" in text
        started = (await stub.StartPool(pb.StartPoolRequest(name="hba"))).pool
        assert started.active
        assert started.volume_count == 6
        await stub.SetPoolAutostart(pb.SetPoolAutostartRequest(name="hba", autostart=True))
        refreshed = (await stub.RefreshPool(pb.RefreshPoolRequest(name="hba"))).pool
        assert refreshed.autostart
        code, _ = await refusal(stub.UndefinePool(pb.UndefinePoolRequest(name="hba")))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        await stub.StopPool(pb.StopPoolRequest(name="hba"))
        for _ in range(2):
            await stub.UndefinePool(pb.UndefinePoolRequest(name="hba"))
        code, _ = await refusal(stub.GetPool(pb.GetPoolRequest(name="hba")))
        assert code is grpc.StatusCode.NOT_FOUND


async def test_validate_only_defines_nothing(source: RecordedSource, folder: Path) -> None:
    """A definition that is only checked answers as if, and leaves no pool."""
    async with running(source, folder) as (_, stub):
        request = pb.DefinePoolRequest(xml=pool_xml(scsi("/dev/mapper")), validate_only=True)
        assert (await stub.DefinePool(request)).pool.name == "hba"
        code, _ = await refusal(stub.GetPool(pb.GetPoolRequest(name="hba")))
        assert code is grpc.StatusCode.NOT_FOUND


def put_iscsiadm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An iscsiadm of our own before any other."""
    tool = folder / "bin" / "iscsiadm"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        (
            "echo 'iscsiadm: cannot make connection' >&2; exit 4",
            grpc.StatusCode.FAILED_PRECONDITION,
            "cannot make",
        ),
        ("exec sleep 300", grpc.StatusCode.DEADLINE_EXCEEDED, "127.0.0.1:3260"),
        ("echo '127.0.0.1:3260,1 iqn.other'", grpc.StatusCode.FAILED_PRECONDITION, "does not offer"),
        (
            REFUSING,
            grpc.StatusCode.FAILED_PRECONDITION,
            "authorization failure",
        ),
    ],
    ids=["unreachable", "silent", "unknown", "refused"],
)
async def test_a_start_that_fails_leaves_the_pool_inactive(
    source: RecordedSource,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    code: grpc.StatusCode,
    words: str,
) -> None:
    """An iSCSI host that does not answer, or refuses, is one error within the deadline."""
    put_iscsiadm(folder, monkeypatch, script)
    async with running(source, folder) as (_, stub):
        await define(stub, pool_xml(iscsi("/dev/mapper")))
        found, text = await refusal(stub.StartPool(pb.StartPoolRequest(name="virtimages"), timeout=4))
        assert found is code
        assert words in text
        assert not (await stub.GetPool(pb.GetPoolRequest(name="virtimages"))).pool.active


async def test_a_pool_is_started_once_at_a_time(
    source: RecordedSource, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a start is under way another one is ABORTED."""
    put_iscsiadm(folder, monkeypatch, "exec sleep 300")
    async with running(source, folder) as (_, stub):
        await define(stub, pool_xml(iscsi("/dev/mapper")))
        first = stub.StartPool(pb.StartPoolRequest(name="virtimages"), timeout=5)
        second = stub.StartPool(pb.StartPoolRequest(name="virtimages"), timeout=5)
        codes = {(await refusal(call))[0] for call in (first, second)}
        assert codes == {grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}


async def read(
    watch: AsyncIterable[pb.WatchPoolsResponse], wanted: Callable[[pb.WatchPoolsResponse], bool]
) -> list[pb.WatchPoolsResponse]:
    """The responses up to the one that is wanted."""
    found = []
    async with asyncio.timeout(DEADLINE_SECONDS):
        async for response in watch:
            found.append(response)
            if wanted(response):
                break
    return found


async def test_watch_begins_with_what_is_present(source: RecordedSource, folder: Path) -> None:
    """After revision 0 each pool and volume comes as added, then the mark."""
    async with running(source, folder) as (_, stub):
        found = await read(
            stub.WatchPools(pb.WatchPoolsRequest()), lambda response: response.snapshot_complete
        )
        volumes = (await stub.ListVolumes(pb.ListVolumesRequest())).volumes
        assert [change.volume for response in found for change in response.volumes] == list(volumes)
        pools = (await stub.ListPools(pb.ListPoolsRequest())).pools
        assert [change.pool for response in found for change in response.pools] == list(pools)


async def test_volumes_follow_the_inventory(source: RecordedSource, folder: Path) -> None:
    """A map that goes and comes again shows in the watch without any refresh."""
    async with running(source, folder) as (service, stub):
        inventory = service.engine.inventory
        device = inventory.find("mpathg")
        watch = stub.WatchPools(pb.WatchPoolsRequest(after_revision=inventory.revision, pools=["mpath"]))
        inventory.publish((), [device.name])
        (gone,) = await read(watch, lambda response: bool(response.volumes))
        assert [(change.type, change.volume.name) for change in gone.volumes] == [(REMOVED, "mpathg")]
        inventory.publish([device])
        (back,) = await read(watch, lambda response: bool(response.volumes))
        assert [(change.type, change.volume.name) for change in back.volumes] == [(ADDED, "mpathg")]


async def test_a_path_change_shows_in_its_maps_volume(source: RecordedSource, folder: Path) -> None:
    """A disk that leaves its map changes the map's volume, and under a mapper target becomes a note."""
    async with running(source, folder) as (service, stub):
        inventory = service.engine.inventory
        await define(stub, pool_xml(iscsi("/dev/mapper")))
        service.pools.set_activity("virtimages", ACTIVE)
        map_ = inventory.find("mpathg")
        path = inventory.find(map_.members[0].device)
        watch = stub.WatchPools(pb.WatchPoolsRequest(after_revision=inventory.revision))
        inventory.publish([replace(map_, members=map_.members[1:]), replace(path, holders=())])
        (found,) = await read(watch, lambda response: bool(response.volumes))
        changed = {(change.volume.pool, change.volume.name, change.type) for change in found.volumes}
        assert changed == {("mpath", "mpathg", CHANGED), ("virtimages", "mpathg", CHANGED)}
        (pool,) = found.pools
        assert any(path.name in note.message for note in pool.pool.notes)


async def test_definitions_and_states_show_in_the_watch(source: RecordedSource, folder: Path) -> None:
    """Define, start, stop and undefine each are a change, with the volumes that come and go."""
    async with running(source, folder) as (service, stub):
        watch = stub.WatchPools(pb.WatchPoolsRequest(after_revision=service.engine.inventory.revision))
        seen = []
        steps: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: define(stub, pool_xml(scsi("/dev/mapper"))),
            lambda: stub.StartPool(pb.StartPoolRequest(name="hba")),
            lambda: stub.StopPool(pb.StopPoolRequest(name="hba")),
            lambda: stub.UndefinePool(pb.UndefinePoolRequest(name="hba")),
        )
        for step in steps:
            await step()
            (found,) = await read(watch, lambda response: bool(response.pools))
            seen.append((found.pools[0].type, len(found.volumes), {change.type for change in found.volumes}))
        assert seen == [
            (pb.PoolChange.TYPE_ADDED, 0, set()),
            (pb.PoolChange.TYPE_CHANGED, 6, {ADDED}),
            (pb.PoolChange.TYPE_CHANGED, 6, {REMOVED}),
            (pb.PoolChange.TYPE_REMOVED, 0, set()),
        ]


async def test_a_revision_that_is_not_known_ends_the_watch(source: RecordedSource, folder: Path) -> None:
    """A cursor that the log does not hold is OUT_OF_RANGE."""
    async with running(source, folder) as (_, stub):
        for revision in (1, 1 << 62):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read(stub.WatchPools(pb.WatchPoolsRequest(after_revision=revision)), lambda _: True)
            assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


async def test_an_idle_watch_gets_bookmarks(
    source: RecordedSource, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch to which nothing happens is told the newest revision now and then."""
    monkeypatch.setattr(pool_watching, "BOOKMARK_SECONDS", 0.05)
    async with running(source, folder) as (service, stub):
        inventory = service.engine.inventory
        watch = stub.WatchPools(pb.WatchPoolsRequest(after_revision=inventory.revision, pools=["mpath"]))
        inventory.advance()
        newest = inventory.revision
        found = await read(watch, lambda response: response.revision == newest)
        assert not any(response.volumes or response.pools for response in found)


def key(volume: pb.Volume) -> tuple[str, str]:
    """What a watch keeps a volume by."""
    return volume.pool, volume.name


class Copy:
    """The volumes that a watch has told of."""

    def __init__(self) -> None:
        self.volumes: dict[tuple[str, str], pb.Volume] = {}
        self.revision = 0

    def take(self, response: pb.WatchPoolsResponse) -> None:
        """Follows one response; what is added was not there, what is changed or removed was."""
        for change in response.volumes:
            assert (key(change.volume) in self.volumes) == (change.type != ADDED)
            if change.type == REMOVED:
                del self.volumes[key(change.volume)]
            else:
                self.volumes[key(change.volume)] = change.volume
        self.revision = response.revision


async def test_a_watch_is_a_true_copy(source: RecordedSource, folder: Path) -> None:
    """Whatever devices go and come, in whatever steps, the watch's sum is the list."""
    chance = random.Random(20090706)  # the same steps each time
    async with running(source, folder) as (service, stub):
        for target in ("/dev/disk/by-path", "/dev/mapper", "/dev/disk/by-id"):
            name = target.rpartition("/")[2]
            await define(stub, pool_xml(iscsi(target, name)))
            service.pools.set_activity(name, ACTIVE)
        inventory = service.engine.inventory
        original = inventory.snapshot.devices
        blocks = [device for device in original.values() if device.device_number]
        copy = Copy()
        watch = stub.WatchPools(pb.WatchPoolsRequest())
        for _ in range(60):
            chosen = chance.sample(blocks, 6)
            match chance.randrange(4):
                case 0:
                    inventory.publish((), [device.name for device in chosen])
                case 1:
                    inventory.publish([replace(device, links=()) for device in _there(chosen, inventory)])
                case 2:
                    inventory.publish(
                        [
                            found
                            for device in chosen
                            for found in _detached(device, inventory.snapshot.devices)
                        ]
                    )
                case _:
                    names = {name for device in chosen for name in _joined(device, original)}
                    inventory.publish([original[name] for name in sorted(names)])
            if chance.random() < 0.4:
                continue  # so that a watch also gets several steps as one
            while copy.revision < inventory.revision:
                (response,) = await read(watch, bool)
                copy.take(response)
            assert copy.volumes == await listed(stub)


async def test_a_copy_outlasts_the_service(source: RecordedSource, folder: Path) -> None:
    """A client's watch goes on with the next service, and drops what is not there any more."""
    watch = PoolWatch(f"unix:{folder / 'pools.sock'}")
    updates = aiter(watch)
    gone = ("mpath", "mpathg")
    async with asyncio.timeout(DEADLINE_SECONDS):
        async with running(source, folder) as (_, stub):
            while not (await anext(updates)).complete:
                pass
            assert watch.volumes == await listed(stub)
            assert gone in watch.volumes
        async with running(source, folder) as (service, stub):
            inventory = service.engine.inventory
            # The first is gone before the watch is back, the second goes while it looks on.
            for name in (gone, ("mpath", "mpathf")):
                inventory.publish((), [inventory.find(name[1]).name])
                changes = [change async for change in _until_gone(updates, watch, name)]
                assert [(change.type, key(change.volume)) for change in changes] == [(REMOVED, name)]
            assert watch.volumes == await listed(stub)


async def listed(stub: StoragePoolServiceAsyncStub) -> dict[tuple[str, str], pb.Volume]:
    """The volumes of all pools."""
    return {key(volume): volume for volume in (await stub.ListVolumes(pb.ListVolumesRequest())).volumes}


async def _until_gone(
    updates: AsyncIterator[PoolUpdate], watch: PoolWatch, name: tuple[str, str]
) -> AsyncIterator[VolumeChange]:
    while name in watch.volumes:
        for change in (await anext(updates)).volumes:
            yield change


def test_changes_are_lines() -> None:
    """`pool watch` tells of each pool and volume asked for, then that these are all, under either name."""
    for words in (["pool", "watch"], ["pool-event"]):
        command = [sys.executable, "-m", "nodedev", "--host", str(SAN), *words, "mpath"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
            assert watching.stdout
            lines = list(itertools.takewhile(lambda line: "these are all" not in line, watching.stdout))
            watching.send_signal(signal.SIGINT)
        assert [line.split(maxsplit=1)[1] for line in lines] == [
            "added pool mpath\n",
            *(f"added volume mpath{letter} of mpath\n" for letter in "abcdefgh"),
        ]


def _there(devices: list[Device], inventory: Inventory) -> list[Device]:
    """Those of the devices that are present, as they are."""
    present = inventory.snapshot.devices
    return [present[device.name] for device in devices if device.name in present]


def _detached(device: Device, devices: Mapping[str, Device]) -> list[Device]:
    """A path and its map as they are once the map has lost the path; both tell of it, as discovery does."""
    path = devices.get(device.name)
    maps = [devices[held.device] for held in path.holders if held.device in devices] if path else []
    if path is None or len(maps) != 1:
        return []
    rest = tuple(member for member in maps[0].members if member.device != path.name)
    return [replace(path, holders=()), replace(maps[0], members=rest)]


def _joined(device: Device, devices: Mapping[str, Device]) -> set[str]:
    """All that a device is related to, at any distance: put back together, their relations agree."""
    found = {device.name}
    waiting = [device]
    for near in waiting:
        for relation in (*near.members, *near.holders):
            if relation.device not in found and relation.device in devices:
                found.add(relation.device)
                waiting.append(devices[relation.device])
    return found


def test_command_line_shows_pools_and_volumes(nodedev: Nodedev, folder: Path) -> None:
    """The pools of a recorded host are shown by virsh's names too, as tables, XML and JSON."""
    with process(folder, host=SAN) as served:

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return nodedev("--connect", served.address, *arguments)

        for arguments in (("pool", "list"), ("pool-list",)):
            shown = run(*arguments).stdout
            assert re.search(r"^mpath +active +no +mpath$", shown, re.MULTILINE)
        found = json.loads(run("vol-list", "mpath", "--json").stdout)
        assert [volume["name"] for volume in found["volumes"]] == [f"mpath{letter}" for letter in "abcdefgh"]
        details = run("vol", "list", "mpath", "--details").stdout
        assert "mounted: /mnt/data" in details
        assert run("vol-key", "mpathg").stdout == "36001405000000016e6f6465646576000\n"
        assert run("vol-path", "3500a0980000000a0").stdout == "/dev/mapper/mpatha\n"
        assert run("vol-name", "/dev/mapper/mpatha").stdout == "mpatha\n"
        assert "<name>mpath</name>" in run("pool-dumpxml", "mpath").stdout
        assert "<key>3500a0980000000a0</key>" in run("vol-dumpxml", "mpatha").stdout
        refused = run("vol", "disk-xml", "mpathd")
        assert refused.returncode == 1
        assert "DEVICE_BUSY" in refused.stderr
        assert run("vol", "disk-xml", "mpathd", "--force").returncode == 0
        assert run("pool", "info", "none").returncode == 4
        assert run("pool-destroy", "mpath").stderr.count("RECORDED_HOST") == 1


def test_definitions_beside_a_recorded_host(nodedev: Nodedev, folder: Path, tmp_path: Path) -> None:
    """A recorded host shows the pools of a state folder, all of them active, and relates their volumes."""
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools" / "virtimages.xml").write_text(pool_xml(iscsi("/dev/disk/by-path")))
    (tmp_path / "pools" / "luns.xml").write_text(pool_xml(iscsi("/dev/mapper", "luns")))
    (tmp_path / "pools" / "broken.xml").write_text("<pool")
    with process(folder, "--state-dir", str(tmp_path), host=SAN) as served:
        listed = nodedev("--connect", served.address, "pool", "list", "--details")
        assert "broken.xml" in listed.stderr
        assert re.search(r"^luns +active +no +iscsi +yes +2 ", listed.stdout, re.MULTILINE)
        related = nodedev(
            "--connect", served.address, "vol", "related", "mpathg", "--pool", "mpath"
        ).stdout.splitlines()
        assert [line.split()[:3] for line in related[1:]] == [
            ["same", "luns", "mpathg"],
            *(["path", "virtimages", f"ip-127.0.0.{portal}:3260-iscsi-{LUN}-0"] for portal in (2, 1)),
        ]
        shown = MessageToDict(Client(served.address).get_pool("luns"), preserving_proto_field_name=True)
        assert shown["source"] == {"hosts": [{"name": "127.0.0.1"}], "device_path": IQN}
