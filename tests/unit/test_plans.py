"""No plan takes what is in use: random stacks, planned upon as recordings, judged by how they were built."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import event, given, settings
from hypothesis import strategies as st

from nodedev.capabilities import attributes, kinds
from nodedev.capabilities._raid import Member, Raid
from nodedev.capabilities.claim import Claim
from nodedev.capabilities.loop import Backing, Loop
from nodedev.capabilities.mpath import Mpath
from nodedev.changes.definitions import changing_of
from nodedev.discovery import Discovery, plain_name
from nodedev.errors import NodedevError, PreconditionError
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.recorded import RecordedSource
from nodedev.inventory import Inventory
from nodedev.model import Capability, Changing, Device, Site
from nodedev.plan import FREE_NODE, Command, Consent, Examine, Ioctl, Message, Plan, Step
from tests.unit.stack_recording import record
from tests.unit.stacks import CARRIER, CONTENTS, UUIDS, WWIDS, Block, Stack, stacks

KEPT_OFF = frozenset({"multipath", "not-ready"})
EXAMPLES = int(os.environ.get("NODEDEV_EXAMPLES", "100"))


@dataclass(frozen=True, slots=True)
class Scene:
    """A stack as it was built, and as it is read."""

    stack: Stack
    site: Site
    devices: dict[Block, Device]

    def block(self, name: str) -> Block:
        """The block device of a device's name or node, or of a node's link."""
        return next(
            block for block, device in self.devices.items() if name in (device.name, block.node, block.link)
        )


@contextmanager
def read(stack: Stack) -> Iterator[Scene]:
    """The stack through a recording of it."""
    with TemporaryDirectory() as folder:
        record(stack, Path(folder))
        source = RecordedSource.open(Path(folder), attributes())
    inventory = Inventory()
    inventory.replace(Discovery().survey(Host.scan(source)).devices)
    devices = inventory.snapshot.devices
    paths = {device.sysfs_path: device for device in devices.values()}
    host = Host(source)

    def name_of(facts: DeviceFacts) -> str:
        found = paths.get(f"/sys{facts.path}")
        return found.name if found else plain_name(facts, host)

    site = Site(devices, host, inventory.find, name_of, (6, 1))
    yield Scene(stack, site, {block: paths[f"/sys{block.path}"] for block in stack.blocks})


def words_of(steps: Iterable[Step]) -> set[str]:
    """Every word of the steps."""
    words: set[str] = set()
    for step in steps:
        match step:
            case Ioctl(_, node, arguments):
                words.update((node, *(value for _, value in arguments)))
            case Message(text):
                words.update(text.split())
            case _:
                words.update(step.argv)
    return words


def named(steps: Iterable[Step], scene: Scene) -> set[Block]:
    """The devices that the steps name in any way."""
    words = words_of(steps)
    return {
        block
        for block in scene.stack.blocks
        if words & {block.node, block.link, block.dm_name, block.dm_name.replace("-", "/", 1)} - {""}
        or (block.kind == "disk" and block.serial in words)
    }


def told(error: PreconditionError) -> set[tuple[str, str]]:
    """The obstacles' types, as claims have them, and devices."""
    return {
        (found.type.removeprefix("TYPE_").lower().replace("_", "-"), found.device)
        for found in error.obstacles
    }


@settings(max_examples=EXAMPLES, deadline=None)
@given(stacks())
def test_claims_are_what_was_built(stack: Stack) -> None:
    """Every device has a claim of each sort for which it was given cause, and no other."""
    with read(stack) as scene:
        for block, device in scene.devices.items():
            claim = device.capability(Claim.TYPE)
            found = {reason.type for reason in claim.reasons} if isinstance(claim, Claim) else set()
            assert found == stack.claims(block), block.name


def wishes(scene: Scene, data: st.DataObject) -> Capability:
    """Something to create of the stack: a loop device, an array, an array assembled, a map."""
    blocks = st.sampled_from(scene.stack.blocks)
    carriers = [block for block in scene.stack.blocks if block.signature == CARRIER]
    match data.draw(st.sampled_from(("loop", "array", "assembly", "map", *("assembly" for _ in carriers)))):
        case "loop":
            block = data.draw(blocks)
            return Loop(backing=Backing(path=data.draw(st.sampled_from((block.node, block.link)))))
        case "assembly":
            return Raid(uuid=data.draw(st.sampled_from([block.uuid for block in carriers] or UUIDS)))
        case "map":
            return Mpath(wwid=data.draw(st.sampled_from(WWIDS)))
        case _:
            unused = [block for block in scene.stack.blocks if scene.stack.claims(block) <= CONTENTS]
            some = st.sampled_from(unused) if len(unused) > 1 and data.draw(st.booleans()) else blocks
            chosen = data.draw(st.lists(some, min_size=2, max_size=3, unique_by=id))
            members = (
                Member(device=scene.devices[block].name)
                if data.draw(st.booleans())
                else Member(block=block.node)
                for block in chosen
            )
            return Raid(name="new", level="raid1", members=tuple(members))


def changing(capability: Capability) -> Changing:
    """How devices of that capability are made and unmade."""
    return next(kind.changing for kind in kinds() if kind.changing and kind.type == capability.TYPE)


def outcome(plan: Callable[[], Plan]) -> Plan | NodedevError:
    """The plan, or why there is none."""
    try:
        return plan()
    except NodedevError as error:
        return error


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(stacks(), st.data())
def test_no_plan_names_what_has_a_claim(stack: Stack, data: st.DataObject) -> None:
    """A plan to create names no device that has a claim, but for the contents of those allowed by name."""
    with read(stack) as scene:
        wanted = wishes(scene, data)
        allowed = data.draw(st.sets(st.sampled_from(stack.blocks), max_size=3))
        names = frozenset(scene.devices[block].name for block in allowed)
        consent = Consent(overwrite=names, lazy=data.draw(st.booleans()), force=data.draw(st.booleans()))
        found = outcome(lambda: changing(wanted).create(wanted, scene.site, consent))
        if isinstance(found, NodedevError):
            event(f"{wanted.TYPE} {found.reason}")
            require_true_refusal(found, wanted, scene, allowed)
            return
        event(f"{wanted.TYPE} {'existing' if found.existing else 'planned'}")
        looks = [step for step in found.steps if isinstance(step, Examine)]
        used = named((step for step in found.steps if step not in looks), scene)
        assert used or looks or found.existing
        assert not any(
            isinstance(step, Command) and step.argv[-1].startswith("--uuid=") for step in found.steps
        )
        # mdadm --examine only reads, from what may be of the array.
        for block in named(looks, scene) - used:
            assert any(user.kind == "container" for user in stack.users(block))
        for block in used:
            may = CONTENTS if block in allowed else frozenset[str]()
            if isinstance(wanted, Mpath):
                may = CONTENTS | KEPT_OFF  # multipathd looks at its paths itself, and writes to none
            if isinstance(wanted, Raid) and wanted.uuid:
                if block.kind == "container":
                    continue  # it has the volume that is meant, and is itself left as it is
                assert block.uuid == wanted.uuid
                may = CONTENTS
            assert stack.claims(block) <= may, block.name
        known = {path for block in stack.blocks for path in (block.node, block.link)}
        new = re.compile("/dev/(md/.*|loop-control)") if isinstance(wanted, Raid | Loop) else None
        for word in words_of(found.steps) - known - {FREE_NODE}:
            assert not word.startswith("/dev/") or (new and new.fullmatch(word))


def require_true_refusal(error: NodedevError, wanted: Capability, scene: Scene, allowed: set[Block]) -> None:
    """Every obstacle is a claim; of a new array's members each is told that was not allowed."""
    if not isinstance(error, PreconditionError):
        return
    for type_, name in told(error):
        assert type_ in scene.stack.claims(scene.block(name))
    if isinstance(wanted, Raid) and wanted.members and error.reason == PreconditionError.reason:
        members = {scene.block(member.device or member.block or "") for member in wanted.members}
        assert told(error) == {
            (type_, scene.devices[block].name)
            for block in members
            for type_ in scene.stack.claims(block) - (CONTENTS if block in allowed else set())
        }


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(stacks(), st.data())
def test_no_plan_takes_away_what_is_in_use(stack: Stack, data: st.DataObject) -> None:
    """What is used, or carries what is, goes only lazily; every use is told, and nothing else is named."""
    with read(stack) as scene:
        everything = frozenset(scene.site.devices)
        for block, device in scene.devices.items():
            changed = changing_of(device)
            if changed is None:
                continue
            consent = Consent(everything, lazy=data.draw(st.booleans()), force=data.draw(st.booleans()))
            found = outcome(lambda: changed[1].destroy(device, scene.site, consent))  # noqa: B023
            uses = stack.users_to_respect(block)
            lazily = consent.lazy and block.kind == "loop"
            if isinstance(found, Plan):
                event(f"{block.kind} planned")
                assert lazily or not uses
                assert consent.force or not block.failed
                assert named(found.steps, scene) == {block}
                continue
            event(f"{block.kind} {found.reason}")
            assert isinstance(found, PreconditionError)
            if found.reason == "NO_USABLE_PATH":
                assert (block.failed, consent.force, uses) == (True, False, set())
            else:
                assert not lazily
                assert uses
                assert told(found) == {(type_, scene.devices[user].name) for type_, user in uses}
