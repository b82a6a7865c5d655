"""What would be run: plans from recorded hosts, checked without running anything."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedev.capabilities import attributes, kinds
from nodedev.capabilities._raid import Member, Raid
from nodedev.capabilities._raid_change import create as create_array
from nodedev.capabilities._raid_dm_change import _dm_name, _volume
from nodedev.capabilities.claim import Claim
from nodedev.capabilities.loop import Backing, Loop
from nodedev.capabilities.loop import create as create_loop
from nodedev.capabilities.mpath import Mpath
from nodedev.changes import runner
from nodedev.changes.definitions import (
    Definitions,
    Wish,
    changing_of,
    definition_of,
    wish_of,
)
from nodedev.changes.pending import Locks, Requests
from nodedev.discovery import Discovery
from nodedev.documents import read_device
from nodedev.errors import (
    AbortedError,
    AlreadyExistsError,
    DeadlineError,
    InvalidError,
    NodedevError,
    PreconditionError,
)
from nodedev.facts.host import Host
from nodedev.facts.recorded import RecordedSource
from nodedev.inventory import Inventory
from nodedev.model import Capability, Device, Site
from nodedev.plan import Command, Consent, Ioctl, Message, Plan, Probe

DATA = Path(__file__).parent.parent / "data"
HOSTS = sorted(path.name for path in DATA.iterdir() if (path / "host.umockdev").exists())
# Claims that a caller may allow by naming the device.
CONTENTS = {"signature", "partitioned"}


@cache
def site(host: str) -> Site:
    """A recorded host, as planners see it."""
    return site_of(Host.scan(RecordedSource.open(DATA / host, attributes())))


def site_of(scanned: Host) -> Site:
    """A host that was read, as planners see it."""
    inventory = Inventory()
    inventory.replace(Discovery().survey(scanned).devices)
    devices = inventory.snapshot.devices

    def name_of(facts: object) -> str:
        path = f"/sys{getattr(facts, 'path', '')}"
        return next((device.name for device in devices.values() if device.sysfs_path == path), path)

    return Site(devices, scanned, inventory.find, name_of, (6, 1))


def claims(device: Device) -> set[str]:
    """The types of the device's claims."""
    found = device.capability(Claim.TYPE)
    return {reason.type for reason in found.reasons} if isinstance(found, Claim) else set()


def named(plan: Plan) -> set[str]:
    """Every word of a plan's steps."""
    words: set[str] = set()
    for step in plan.steps:
        match step:
            case Command(argv) | Probe(argv, _):
                words.update(argv)
            case Ioctl(_, node, arguments):
                words.update((node, *(value for _, value in arguments)))
            case Message(text):
                words.update(text.split())
    return words


def blocks(host: str) -> list[Device]:
    """The host's block devices with a node."""
    return [device for device in site(host).devices.values() if device.device_number and device.devnode]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_no_plan_names_a_claimed_device(data: st.DataObject) -> None:
    """Whatever is to be made of whatever devices, none that has a claim is named unless it was allowed."""
    host = data.draw(st.sampled_from(HOSTS))
    devices = blocks(host)
    if not devices:
        return
    chosen = data.draw(st.lists(st.sampled_from(devices), min_size=1, max_size=4))
    overwrite = frozenset(device.name for device in data.draw(st.lists(st.sampled_from(chosen))))
    wanted: Capability
    if data.draw(st.booleans()):
        members = tuple(
            Member(device=device.name, role=data.draw(st.sampled_from([None, "active", "spare"])))
            for device in chosen
        )
        wanted = Raid(
            name="new", level=data.draw(st.sampled_from(["raid0", "raid1", "raid5"])), members=members
        )
        create = create_array
    else:
        wanted = Loop(backing=Backing(path=chosen[0].devnode))
        create = create_loop
    try:
        plan = create(wanted, site(host), Consent(overwrite=overwrite))
    except NodedevError:
        return
    words = named(plan)
    for device in devices:
        if device.devnode in words:
            allowed = CONTENTS if device.name in overwrite else set()
            assert claims(device) <= allowed, (host, device.name, plan)


@pytest.mark.parametrize("host", [host for host in HOSTS if len(blocks(host)) > 1])
def test_every_claimed_device_is_refused(host: str) -> None:
    """Each device of each host is refused with all its claims, but for its contents if it is named."""
    devices = blocks(host)
    for device, partner in zip(devices, [*devices[1:], devices[0]], strict=True):
        members = (Member(device=device.name), Member(device=partner.name))
        wanted = Raid(name="new", level="raid1", members=members)
        for overwrite, allowed in ((frozenset[str](), set[str]()), (frozenset({device.name}), CONTENTS)):
            try:
                plan = create_array(wanted, site(host), Consent(overwrite=overwrite))
            except AlreadyExistsError:
                continue  # both are of one array
            except PreconditionError as error:
                told = {found.type for found in error.obstacles if found.device == device.name}
            else:
                assert plan.existing is None
                told = set()
            assert told == claim_types(claims(device) - allowed)


def claim_types(types: set[str]) -> set[str]:
    """The proto's words for claims."""
    return {f"TYPE_{type_.upper().replace('-', '_')}" for type_ in types}


def free(host: str) -> list[Device]:
    """Devices of a host without any claim."""
    return [device for device in blocks(host) if not claims(device)]


def host_with_free(count: int) -> tuple[str, list[Device]]:
    """A recorded host with that many unclaimed devices."""
    return next((host, found) for host in HOSTS if len(found := free(host)) >= count)


def test_a_new_array() -> None:
    """Each member is looked at by libblkid, then mdadm is called once, actives before spares."""
    host, (first, second, third, *_) = host_with_free(3)
    wanted = Raid(
        name="new",
        level="1",
        metadata="1.2",
        chunk_bytes=65536,
        layout="near=2",
        consistency_policy="bitmap",
        members=(
            Member(device=first.name, role="spare"),
            Member(block=second.devnode),
            Member(device=third.name),
        ),
    )
    plan = create_array(wanted, site(host), Consent())
    assert [step.device for step in plan.steps if isinstance(step, Probe)] == [
        device.name for device in (first, second, third)
    ]
    assert plan.steps[-1] == Command(
        (
            *("mdadm", "--create", "/dev/md/new", "--run", "--level=raid1", "--raid-devices=2"),
            *("--spare-devices=1", "--metadata=1.2", "--chunk=64K", "--layout=n2", "--bitmap=internal"),
            *(node for node in (second.devnode, third.devnode, first.devnode) if node),
        )
    )
    assert {node.path for node in plan.nodes} == {first.devnode, second.devnode, third.devnode}


@pytest.mark.parametrize(
    "changed",
    [
        {"level": "raid9"},
        {"level": None},
        {"name": None},
        {"name": "../x"},
        {"name": "-x"},
        {"metadata": "2.0"},
        {"metadata": "ddf"},
        {"metadata": "imsm", "level": "container"},
        {"layout": "--force"},
        {"consistency_policy": "none; true"},
        {"chunk_bytes": 1000},
        {"uuid": "xyz"},
        {"members": (Member(),)},
        {"members": (Member(device="vda", role="journal"), Member(device="vdb"))},
    ],
)
def test_an_array_that_cannot_be(changed: dict[str, object]) -> None:
    """What mdadm would not take, or take for something else, is refused before it is asked."""
    host, (first, second, *_) = host_with_free(2)
    members = (Member(device=first.name), Member(device=second.name))
    values: dict[str, object] = {"name": "new", "level": "raid1", "members": members}
    with pytest.raises(InvalidError):
        create_array(Raid(**{**values, **changed}), site(host), Consent())  # type: ignore[arg-type]


def test_the_same_array_again() -> None:
    """The members of an array, in any order, are that array; with another level it exists already."""
    found = site("raid-md")
    device, raid = next(
        (device, raid)
        for device in found.devices.values()
        if isinstance(raid := device.capability("raid"), Raid)
        and raid.level == "raid1"
        and raid.uuid
        and not raid.container
    )
    members = tuple(Member(device=member.device) for member in reversed(raid.members))
    name = (raid.name or "").rpartition(":")[2] or "x"
    plan = create_array(Raid(name=name, level="raid1", members=members), found, Consent())
    assert plan.existing == (device.sysfs_path or "").removeprefix("/sys")
    assert plan.steps == ()
    with pytest.raises(AlreadyExistsError):
        create_array(Raid(name=name, level="raid0", members=members), found, Consent())
    again = create_array(Raid(uuid=raid.uuid), found, Consent())
    assert again.existing == plan.existing


@given(
    *(st.text(st.sampled_from("ab-._"), min_size=1).filter(lambda name: name[0] != "-") for _ in range(2)),
)
def test_lvm_names_come_back(group: str, volume: str) -> None:
    """A dm name is the vg and lv that it was made of, hyphens and all."""
    if group[-1] == "-":
        return  # LVM's own rule for what it doubles is ambiguous there
    assert _volume(_dm_name(f"{group}/{volume}")) == f"{group}/{volume}"


def test_maps_are_multipathds_business() -> None:
    """A map is made and flushed by a command to multipathd, and by nothing else."""
    found = site("mpath-iscsi")
    device = next(device for device in found.devices.values() if device.capability("mpath"))
    mpath = device.capability("mpath")
    changed = changing_of(device)
    assert isinstance(mpath, Mpath)
    assert changed
    plan = changed[1].create(Mpath(wwid=mpath.wwid), found, Consent())
    assert plan.existing
    try:
        end = changed[1].destroy(device, found, Consent(force=True))
    except PreconditionError as error:
        assert error.obstacles  # noqa: PT017  one of both it is
    else:
        assert end.steps == (Message(f"del map {mpath.alias}"),)
    with pytest.raises(PreconditionError) as refused:
        changed[1].create(Mpath(wwid="3600nowhere"), found, Consent())
    assert refused.value.reason == "PATHS_MISSING"
    with pytest.raises(InvalidError):
        changed[1].create(Mpath(wwid="a b"), found, Consent())


def test_each_kind_that_is_made_can_be_kept() -> None:
    """Each capability that can be created has an identity for its definitions, or says why not."""
    assert {kind.type for kind in kinds() if kind.changing} == {"loop", "mpath", "raid"}
    with pytest.raises(InvalidError) as refused:
        definition_of(
            wish_of(read_device("<device><capability type='raid'><name>n</name></capability></device>"))
        )
    assert refused.value.reason == "DEFINITION_INVALID"


LOOP = "<device><name>kept</name><capability type='loop'><backing>/srv/a</backing></capability></device>"


def test_definitions_are_whole_or_not_there(tmp_path: Path) -> None:
    """A definition is read again as it was kept; a file cut off in writing is not taken for one."""
    folder = tmp_path / "devices"
    kept = Definitions(folder)
    definition = definition_of(wish_of(read_device(LOOP)))
    kept.keep(definition)
    (folder / ".other.xml.new").write_text("<device><na")
    (folder / "broken.xml").write_text("<device><na")
    again = Definitions(folder)
    assert [found.name for found in again] == ["kept"]
    assert again.get("kept") == definition
    assert [str(folder / "broken.xml") in note.message for note in again.notes] == [True]
    with pytest.raises(PreconditionError) as refused:
        again.keep(definition_of(wish_of(read_device(LOOP.replace("kept", "broken").replace("srv/a", "b")))))
    assert refused.value.reason == "DEFINITION_BROKEN"
    assert (folder / "broken.xml").read_text() == "<device><na"
    assert again.drop("kept")
    assert not again.drop("kept")
    assert not list(Definitions(folder))


def test_a_device_has_one_definition(tmp_path: Path) -> None:
    """Of those who define one device under many names at once one has his way, and the others are told."""
    definitions = Definitions(tmp_path)
    wishes = [wish_of(read_device(LOOP.replace("kept", f"name{number}"))) for number in range(20)]

    def keep(wish: Wish) -> bool:
        try:
            definitions.keep(definition_of(wish))
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(len(wishes)) as pool:
        assert sum(pool.map(keep, wishes)) == 1
    (kept,) = definitions
    assert [path.name for path in tmp_path.iterdir()] == [f"{kept.name}.xml"]
    assert definitions.by_identity(kept.identity) == kept
    assert definitions.drop(kept.name)
    assert definitions.by_identity(kept.identity) is None


def test_without_a_folder_nothing_is_kept() -> None:
    """A service without a state folder says that it cannot keep anything."""
    with pytest.raises(PreconditionError) as refused:
        Definitions(None).keep(definition_of(wish_of(read_device(LOOP))))
    assert refused.value.reason == "STATE_UNWRITABLE"


@pytest.mark.parametrize("name", ["../etc", "a/b", "", "x" * 201, "é"])
def test_a_name_is_no_path(name: str) -> None:
    """A definition's name cannot lead anywhere but into its folder."""
    document = read_device(LOOP.replace("kept", name))
    if not name:
        assert definition_of(wish_of(document)).name == "loop_srv_a"
        return
    with pytest.raises(InvalidError) as refused:
        definition_of(wish_of(document))
    assert refused.value.reason == "NAME_INVALID"


def test_locks() -> None:
    """What a change has is nobody else's until it ends; a refused one takes nothing."""
    locks = Locks()
    with locks.held(("a", "b")):
        with pytest.raises(AbortedError) as refused, locks.held(("c", "b")):
            pass
        assert refused.value.metadata == {"device": "b"}
        with locks.held(("c",)):
            pass
    with locks.held(("a", "b")):
        pass


async def test_requests_are_answered_once() -> None:
    """An answer is kept by its request id; an error is not, so that the request may be sent again."""
    requests, calls = Requests(), list[int]()

    async def answer() -> int:
        calls.append(1)
        if len(calls) == 1:
            raise PreconditionError("not yet")
        return len(calls)

    with pytest.raises(PreconditionError):
        await requests.once("id", "x", answer)
    assert await requests.once("id", "x", answer) == 2
    assert await requests.once("id", "x", answer) == 2
    with pytest.raises(InvalidError):
        await requests.once("id", "y", answer)
    assert await requests.once("", "y", answer) == 3


def test_the_runner() -> None:
    """Output is bounded and split, exit codes are told, and nothing can be asked."""
    done = runner.run(("sh", "-c", "echo out; echo err >&2; cat; echo $LC_ALL; exit 3"))
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\nC\n", "err\n")
    loud = runner.run(("sh", "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"))
    assert (len(loud.stdout), len(loud.stderr)) == (runner.OUTPUT_BYTES, runner.OUTPUT_BYTES)
    with pytest.raises(PreconditionError) as missing:
        runner.run(("no-such-program",))
    assert missing.value.reason == "TOOL_MISSING"
    assert not runner.available("no-such-program")


def test_the_runner_kills_at_the_deadline(tmp_path: Path) -> None:
    """A program that does not end is killed with what it started."""
    mark = tmp_path / "pid"
    with pytest.raises(DeadlineError):
        runner.run(("sh", "-c", f"sleep 1000 & echo $! > {mark}; wait"), deadline_seconds=0.5)
    state = Path(f"/proc/{mark.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
