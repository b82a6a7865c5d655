"""Random storage stacks: built layer upon layer, and judged by how they were built.

What is in use is told here from the stack itself, never from what the program makes of the recording.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from hypothesis import strategies as st

SD, LOOP, MD, DM = 8, 7, 9, 253
VIRTUAL = "/devices/virtual/block"
WWIDS = ("3600a098000000001", "3600a098000000002", "3600a098000000003")
UUIDS = ("11111111:22222222:33333333:44444444", "aaaaaaaa:bbbbbbbb:cccccccc:dddddddd")
CARRIER = "linux_raid_member"
SIGNATURES = ("ext4", "xfs", "LVM2_member", "crypto_LUKS", "swap", CARRIER, CARRIER, "mpath_member")
SHARED = ("linear", "crypt", "bare")
CONTENTS = frozenset({"signature", "partitioned"})
HOLDS = {
    "mpath": "path",
    "md": "member",
    "volume": "member",
    "container": "member",
    "raid": "member",
    "loop": "backing",
}


@dataclass(eq=False, slots=True)
class Block:
    """A block device of the stack: what it was built of, and what was done to it."""

    kind: str
    name: str
    number: str
    path: str
    below: tuple[Block, ...] = ()
    disk: Block | None = None
    container: Block | None = None
    dm_name: str = ""
    uuid: str = ""
    serial: str = ""
    signature: str = ""
    table: str = ""
    ambivalent: bool = False
    wanted: bool = False
    uninitialized: bool = False
    keep_off: bool = False
    failed: bool = False
    mounts: list[str] = field(default_factory=list)
    anonymous: bool = False
    swap: bool = False
    openers: int = 0

    @property
    def node(self) -> str:
        """The device node."""
        return f"/dev/{self.name}"

    @property
    def link(self) -> str:
        """Another name of the node."""
        return f"/dev/disk/by-test/{self.name}"

    @property
    def is_dm(self) -> bool:
        """Whether it is device-mapper's."""
        return self.name.startswith("dm-")


@dataclass(eq=False)
class Stack:
    """A host; each block device stands behind those that it is built of."""

    blocks: list[Block] = field(default_factory=list)

    def users(self, block: Block) -> list[Block]:
        """What is built directly on it."""
        return [user for user in self.blocks if block in user.below]

    def parts(self, block: Block) -> list[Block]:
        """The kernel's partitions of it."""
        return [part for part in self.blocks if part.disk is block]

    def tower(self, block: Block) -> set[Block]:
        """It, and all that would be lost with it: what is built on it and on its partitions.

        Who has a partition of a disk cannot have it while somebody has the disk.
        """
        found: set[Block] = set()
        waiting = [block]
        if block.disk:
            found.add(block.disk)
            waiting += self.users(block.disk)
        while waiting:
            top = waiting.pop()
            if top not in found:
                found.add(top)
                waiting += (*self.users(top), *self.parts(top))
        return found

    def builders(self, block: Block) -> list[Block]:
        """What is built on it, on a partition of it, or on the disk that it is a partition of."""
        family = [block, *self.parts(block), *([block.disk] if block.disk else [])]
        return list(dict.fromkeys(user for base in family for user in self.users(base)))

    def claims(self, block: Block) -> set[str]:
        """The types of all reasons why it is not free."""
        found = {HOLDS.get(user.kind, "held") for user in self.builders(block)}
        tower = self.tower(block)
        found |= {"mounted"} if any(top.mounts for top in tower) else set()
        found |= {"swap"} if any(top.swap for top in tower) else set()
        lone_table = block.table and not self.parts(block) and not (block.disk and block.disk.table)
        if block.signature not in ("", "mpath_member") or block.ambivalent or lone_table:
            found.add("signature")
        if self.parts(block):
            found.add("partitioned")
        if (block.wanted or block.signature == "mpath_member") and "path" not in found:
            found.add("multipath")
        if block.uninitialized or block.keep_off:
            found.add("not-ready")
        if block.openers:
            found.add("open")
        return found

    def users_to_respect(self, block: Block) -> set[tuple[str, Block]]:
        """Why it may not be taken away: the types of use, each with the device that is so used."""
        found: set[tuple[str, Block]] = set()
        for user in self.builders(block):
            if user.kind == "kpartx" and block.kind in ("mpath", "kpartx"):
                found |= self.users_to_respect(user)
            else:
                found.add((HOLDS.get(user.kind, "held"), block))
        tower = self.tower(block)
        found |= {("mounted", block)} if any(top.mounts for top in tower) else set()
        found |= {("swap", block)} if any(top.swap for top in tower) else set()
        found |= {("open", block)} if block.openers else set()
        found |= {("held", block)} if any(top.container is block for top in self.blocks) else set()
        return found


class _Builder:
    """Draws a stack, one thing after the other."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.stack = Stack()
        self.counts: dict[str, int] = {}

    def chance(self, of: int) -> bool:
        """True once in so many times; what is simplest is false."""
        return self.draw(st.integers(0, of - 1)) == of - 1

    def next(self, what: str) -> int:
        """Counts from 0."""
        self.counts[what] = self.counts.get(what, -1) + 1
        return self.counts[what]

    def add(self, block: Block) -> Block:
        """Puts it on the stack."""
        self.stack.blocks.append(block)
        return block

    def disk(self) -> None:
        """A disk, which may be one of several with the same serial."""
        number = self.next("sd")
        name = f"sd{chr(97 + number)}"
        path = f"/devices/pci0000:00/0000:00:04.0/host0/target0:0:{number}/0:0:{number}:0/block/{name}"
        serial = self.draw(st.sampled_from((f"disk{number}", *WWIDS)))
        self.add(Block("disk", name, f"{SD}:{number * 16}", path, serial=serial))

    def virtual(self, kind: str, below: tuple[Block, ...], **more: str) -> Block:
        """A device over others."""
        sort, major = {"loop": ("loop", LOOP)}.get(kind, ("dm-", DM))
        if kind in ("md", "container", "volume"):
            sort, major = "md", MD
        number = self.next(sort)
        name = f"{sort}{number}"
        return self.add(Block(kind, name, f"{major}:{number}", f"{VIRTUAL}/{name}", below, **more))  # type: ignore[arg-type]

    def partition(self) -> None:
        """One to three partitions of a disk, an array or a loop device that nobody uses."""
        disk = self.base(lambda block: self.free(block) and block.kind in ("disk", "md", "loop"))
        if not disk:
            return
        disk.table = "gpt"
        between = "" if disk.kind == "disk" else "p"
        major, minor = map(int, disk.number.split(":"))
        for number in range(1, self.draw(st.integers(1, 3)) + 1):
            name = f"{disk.name}{between}{number}"
            place = f"{major}:{minor + number}" if disk.kind == "disk" else f"259:{self.next('ext')}"
            self.add(Block("partition", name, place, f"{disk.path}/{name}", disk=disk, serial=disk.serial))

    def free(self, block: Block) -> bool:
        """Whether an exclusive opener would be let in."""
        stack = self.stack
        return not (stack.builders(block) or stack.parts(block) or block.mounts or block.swap or block.table)

    def shareable(self, block: Block) -> bool:
        """Whether one of several device-mapper devices would be."""
        stack = self.stack
        others = all(user.kind in SHARED for user in stack.builders(block))
        return others and not (stack.parts(block) or block.mounts or block.swap)

    def base(self, fits: Callable[[Block], bool]) -> Block | None:
        """A device that fits."""
        found = self.newest([block for block in self.stack.blocks if fits(block)])
        return self.draw(st.sampled_from(found)) if found else None

    def newest(self, found: list[Block]) -> list[Block]:
        """Every other time only what came last, so that stacks grow high."""
        return found[-2:] if self.draw(st.booleans()) else found

    def mappable(self, block: Block) -> bool:
        """Whether it could be a path: a partition table that the kernel has read keeps multipath not away."""
        tower = self.stack.tower(block)
        used = self.stack.builders(block) or any(top.mounts or top.swap for top in tower)
        return block.kind == "disk" and not used

    def several(self, fits: Callable[[Block], bool] | None = None) -> tuple[Block, ...]:
        """One to three free devices."""
        found = self.newest([block for block in self.stack.blocks if (fits or self.free)(block)])
        if not found:
            return ()
        chosen = self.draw(st.lists(st.sampled_from(found), min_size=1, max_size=3, unique_by=id))
        disks = [block.disk or block for block in chosen]
        # A disk and its partition are not both free once one of them is taken.
        return tuple(chosen) if len(set(disks)) == len(disks) else (chosen[0],)

    def mpath(self) -> None:
        """A map, its serial that of its paths or not."""
        below = self.several(self.mappable)
        if below:
            number = self.next("mpath")
            wwid = self.draw(st.sampled_from((below[0].serial, f"3600other{number}")))
            uuid = f"mpath-{wwid}"
            if any(block.uuid == uuid for block in self.stack.blocks):
                uuid = f"mpath-3600other{number}"
            made = self.virtual("mpath", below, dm_name=f"mpath{number}", uuid=uuid)
            made.failed = self.draw(st.booleans())
            for path in below:
                path.wanted = not self.chance(4)
                path.signature = self.draw(st.sampled_from(("", "mpath_member")))

    def kpartx(self) -> None:
        """A partition of a map."""
        below = self.base(lambda block: block.kind == "mpath" and self.kpartable(block))
        if below:
            part = len(self.stack.users(below)) + 1
            name = f"{below.dm_name}-part{part}"
            self.virtual("kpartx", (below,), dm_name=name, uuid=f"part{part}-{below.uuid}")

    def kpartable(self, block: Block) -> bool:
        """Whether nobody but kpartx has the map."""
        others = all(user.kind == "kpartx" for user in self.stack.users(block))
        return others and not (block.mounts or block.swap)

    def md(self) -> None:
        """An array."""
        below = self.several()
        if below:
            self.virtual("md", below, uuid=f"{self.next('array') + 1:08x}" * 4)

    def container(self) -> None:
        """A container of an array with external metadata, and perhaps a volume in it."""
        below = self.several(lambda block: block.kind == "disk" and self.free(block))
        if below:
            made = self.virtual("container", below, uuid=f"{self.next('array') + 1:08x}" * 4)
            if not self.chance(3):
                volume = self.virtual("volume", below, uuid=f"{self.next('array') + 1:08x}" * 4)
                volume.container = made

    def raid(self) -> None:
        """An LVM raid volume on images of its own."""
        below = self.several()
        number = self.next("lv")
        images = tuple(
            self.virtual("linear", (base,), dm_name=f"vg-lv{number}_rimage_{leg}", uuid=self.lvm())
            for leg, base in enumerate(below)
        )
        if images:
            self.virtual("raid", images, dm_name=f"vg-lv{number}", uuid=self.lvm())

    def lvm(self) -> str:
        """The dm uuid of a volume."""
        return f"LVM-{self.next('lvm'):064d}"

    def mapped(self) -> None:
        """A linear or crypt device, or one of nobody knows whom."""
        below = self.base(self.shareable)
        if below:
            kind = self.draw(st.sampled_from(SHARED))
            number = self.next("mapped")
            uuid = {"linear": self.lvm(), "crypt": f"CRYPT-LUKS2-{number:032d}-x"}.get(kind, "")
            self.virtual(kind, (below,), dm_name=f"map{number}", uuid=uuid)

    def loop(self) -> None:
        """A loop device over a file."""
        self.virtual("loop", ())

    def loop_over(self) -> None:
        """A loop device over a node, which whoever else may use as well."""
        below = self.base(lambda _: True)
        if below:
            self.virtual("loop", (below,))

    def mount(self) -> None:
        """One or two mounts of what nobody else has."""
        block = self.base(self.mountable)
        if block:
            block.anonymous = self.chance(3)
            count = self.draw(st.integers(1, 2))
            block.mounts = [f"/mnt/{block.name}.{number}" for number in range(count)]

    def mountable(self, block: Block) -> bool:
        """Whether it could be mounted; loop devices over it keep nobody away."""
        others = all(user.kind == "loop" for user in self.stack.builders(block))
        return others and not (self.stack.parts(block) or block.mounts or block.swap)

    def swap(self) -> None:
        """A swap area."""
        block = self.base(self.mountable)
        if block:
            block.swap = True

    def marks(self) -> None:
        """What udev found on a device, or is yet to find, or who else has it open."""
        words = ("signature", "signature", "ambivalent", "table", "wanted", "late", "open")
        mark = self.draw(st.sampled_from(words))
        fits = {"table": lambda block: block.disk is None, "open": lambda block: block.is_dm}
        block = self.base(fits.get(mark, lambda _: True))
        if block is None:
            return
        match mark:
            case "signature":
                block.signature = self.draw(st.sampled_from(SIGNATURES))
                if block.signature == CARRIER and not block.uuid:
                    block.uuid = self.draw(st.sampled_from(UUIDS))
            case "ambivalent":
                block.ambivalent = True
            case "table":
                block.table = "gpt"
            case "wanted":
                block.wanted = True
            case "late":
                block.uninitialized = not block.is_dm
                block.keep_off = block.is_dm
            case _:
                block.openers = 1

    @cached_property
    def layers(self) -> dict[str, Callable[[], None]]:
        """What can be put on top of what is there."""
        return {word: getattr(self, word) for word in LAYERS.split()}


# What is worth more has more of them.
LAYERS = "disk partition mpath kpartx md container raid mapped loop loop_over mount swap marks"
WORDS = (*LAYERS.split(), "mpath", "mpath", "kpartx", "marks", "marks", "mount", "partition", "loop_over")


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """A host of two to five disks and up to twelve things upon them."""
    builder = _Builder(draw)
    for _ in range(draw(st.integers(2, 5))):
        builder.disk()
    for word in draw(st.lists(st.sampled_from(WORDS), max_size=12)):
        builder.layers[word]()
    return builder.stack
