"""Bound loop devices.

Follows Linux' Documentation/ABI/testing/sysfs-block-loop. An unbound node is no device: the
kernel makes /sys/block/loopN/loop/ only while a file is bound. What is done to create and to destroy
one follows drivers/block/loop.c and include/uapi/linux/loop.h.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodedev.capabilities._loops import Backing, Loop, bound, is_bound
from nodedev.capabilities._obstacles import in_the_way_of_removal, in_the_way_of_writing, node_of, refuse
from nodedev.errors import AlreadyExistsError, FactError, InvalidError, PreconditionError
from nodedev.facts.host import DeviceFacts, FileIdentity, Host
from nodedev.model import Capability, CapabilityKind, Changing, Device, Scene, Site
from nodedev.plan import FREE_NODE, Consent, Ioctl, Node, Plan

__all__ = ["KIND", "Backing", "Loop"]

_DELETED = " (deleted)"


def probe(facts: DeviceFacts, scene: Scene) -> Loop | None:
    """A bound loop device's parameters, from sysfs and a stat(2) of its file."""
    if not is_bound(facts):
        return None
    return Loop(
        backing=_backing(facts, scene),
        offset_bytes=facts.number("loop/offset"),
        size_limit_bytes=facts.number("loop/sizelimit"),
        read_only=facts.flag("ro"),
        direct_io=facts.flag("loop/dio"),
        partition_scan=facts.flag("loop/partscan"),
        autoclear=facts.flag("loop/autoclear"),
        sector_size_bytes=facts.number("queue/logical_block_size"),
    )


def _backing(facts: DeviceFacts, scene: Scene) -> Backing:
    """Tells a deleted file from one whose name ends so: the kernel's text is the same for both."""
    text = facts.attributes["loop/backing_file"]
    try:
        found = scene.host.identify(text)
        if found:
            return Backing(path=text, device=found.device_number, inode=found.inode, deleted=False)
    except FactError as error:
        scene.note(error.source, error.message)
        return Backing(path=text)
    if text.endswith(_DELETED):
        return Backing(path=text.removesuffix(_DELETED), deleted=True)
    scene.note("stat", f"{text} is not in this mount namespace")
    return Backing(path=text)


def members(facts: DeviceFacts, host: Host) -> Iterator[tuple[str, DeviceFacts]]:
    """The disk that holds the backing file, or is it."""
    text = facts.attributes.get("loop/backing_file")
    if text is None:
        return
    try:
        found = host.identify(text)
    except FactError:
        return
    below = host.block_number(found.device_number) if found else None
    if below:
        yield "backing", below


# Changing

_BLOCK_SIZES = (512, 1024, 2048, 4096)
_CONFIGURE_SINCE = (5, 8)  # Linux: LOOP_CONFIGURE; until then the file and its parameters come apart
_SETTABLE = ("read_only", "direct_io", "partition_scan", "autoclear", "sector_size_bytes")


def create(wanted: Capability, site: Site, consent: Consent) -> Plan:
    """Binds the file to a free loop device.

    LOOP_CONFIGURE asks for autoclear, which the last step takes back: a service that dies in between
    leaves nothing behind. It leaves the partition scan to that step too, as a device that is
    configured with it has its partitions for a moment twice (systemd#41425).
    """
    loop = _checked(wanted)
    path = _path_of(loop)
    file = _file(path, loop, site.host)
    locks = [_lock(file)]
    found = _on(path, file, site.host)
    for other in found:
        if _range(other) == (loop.offset_bytes or 0, loop.size_limit_bytes or 0):
            _require_alike(loop, other, site)
            return Plan((), tuple(locks), existing=other.path)
    _refuse_overlap(loop, found, file.size_bytes, site)
    _refuse_swap(path, file, site.host)
    nodes: tuple[Node, ...] = ()
    below = site.host.block_number(file.device_number)
    # A recording does not tell what a path is; there a device is one whose node or link it is.
    if below and (file.kind == "block" or (file.kind is None and path in (below.devnode, *below.links))):
        name = site.name_of(below)
        refuse(in_the_way_of_writing(below, site, overwrite=name in consent.overwrite), name)
        locks.append(name)
        nodes = (node_of(below),)
    return Plan(_binding(loop, path, file, site.kernel), tuple(locks), nodes=nodes, held=bool(loop.autoclear))


def destroy(device: Device, site: Site, consent: Consent) -> Plan:
    """Detaches the file: at once, or if the caller is `lazy` with the last opener."""
    facts = site.facts(device)
    if not consent.lazy:
        refuse(in_the_way_of_removal(facts, site), device.name)
    node = node_of(facts)
    arguments = [("lazy", "yes" if consent.lazy else "no")]
    if device.generation is not None:
        arguments.append(("generation", str(device.generation)))
    step = Ioctl("LOOP_CLR_FD", node.path, tuple(arguments))
    return Plan((step,), (device.name, *_file_lock(facts, site.host)), nodes=(node,))


def same(wanted: Capability, device: Device, host: Host) -> bool:
    """Whether the device is of that file, offset and limit."""
    found = device.capability(Loop.TYPE)
    if not isinstance(wanted, Loop) or not isinstance(found, Loop) or not wanted.backing or not found.backing:
        return False
    ranges = [(loop.offset_bytes or 0, loop.size_limit_bytes or 0) for loop in (wanted, found)]
    if ranges[0] != ranges[1] or found.backing.deleted or not wanted.backing.path:
        return False
    if wanted.backing.path == found.backing.path:
        return True
    try:
        file = host.identify(wanted.backing.path)
    except FactError:
        return False
    return file is not None and (file.device_number, file.inode) == (
        found.backing.device,
        found.backing.inode,
    )


def identity(wanted: Capability) -> str | None:
    """The path and range; None without a path."""
    if (
        not isinstance(wanted, Loop)
        or not wanted.backing
        or not wanted.backing.path
        or wanted.backing.deleted
    ):
        return None
    return f"loop {wanted.offset_bytes or 0} {wanted.size_limit_bytes or 0} {wanted.backing.path}"


def aliases(wanted: Capability, host: Host) -> Iterator[str]:
    """The file itself and the range, as a file may have several paths."""
    if not isinstance(wanted, Loop) or not wanted.backing or not identity(wanted):
        return
    try:
        file = host.identify(wanted.backing.path or "")
    except FactError:
        return
    if file:
        yield f"loop {wanted.offset_bytes or 0} {wanted.size_limit_bytes or 0} {_lock(file)}"


def default_name(wanted: Capability) -> str:
    """By the path, as the number is the kernel's to give."""
    if not isinstance(wanted, Loop):
        return Loop.TYPE
    return "loop" + _path_of(wanted) + (f"_{wanted.offset_bytes}" if wanted.offset_bytes else "")


def _checked(wanted: Capability) -> Loop:
    """The wish, as far as it can be judged without the host."""
    if not isinstance(wanted, Loop):
        raise TypeError(f"{wanted.TYPE} is no loop")
    for field, value in (("offset", wanted.offset_bytes), ("size_limit", wanted.size_limit_bytes)):
        if value is not None and value < 0:
            raise InvalidError(f"{field} must not be negative", reason="XML_INVALID")
    if wanted.sector_size_bytes is not None and wanted.sector_size_bytes not in _BLOCK_SIZES:
        sizes = ", ".join(map(str, _BLOCK_SIZES))
        raise InvalidError(f"sector_size must be one of {sizes}", reason="XML_INVALID")
    return wanted


def _path_of(loop: Loop) -> str:
    path = loop.backing.path if loop.backing else None
    if not path or not path.startswith("/"):
        raise InvalidError("the backing file must be given by its whole path", reason="BACKING_INVALID")
    return path


def _file(path: str, loop: Loop, host: Host) -> FileIdentity:
    try:
        found = host.identify(path)
    except FactError as error:
        raise PreconditionError(error.message, reason="BACKING_UNREADABLE", path=path) from error
    if found is None:
        raise PreconditionError(f"there is no {path}", reason="BACKING_MISSING", path=path)
    if found.kind == "other":
        raise InvalidError(
            f"{path} is neither a file nor a block device", reason="BACKING_INVALID", path=path
        )
    if found.size_bytes is not None and (loop.offset_bytes or 0) >= found.size_bytes:
        raise PreconditionError(
            f"{path} has {found.size_bytes} bytes, and none behind offset {loop.offset_bytes or 0}",
            reason="BACKING_TOO_SMALL",
            path=path,
        )
    return found


def _lock(file: FileIdentity) -> str:
    return f"file {file.device_number} {file.inode}"


def _file_lock(facts: DeviceFacts, host: Host) -> tuple[str, ...]:
    """Keeps others from binding the file anew while it is being let go."""
    try:
        file = host.identify(facts.attributes.get("loop/backing_file", ""))
    except FactError:
        return ()
    return (_lock(file),) if file else ()


def _on(path: str, file: FileIdentity, host: Host) -> tuple[DeviceFacts, ...]:
    """The loop devices of the file, however they name it."""
    return tuple(facts for facts in bound(host) if _is_of(facts, path, file, host))


def _is_of(facts: DeviceFacts, path: str, file: FileIdentity, host: Host) -> bool:
    text = facts.attributes["loop/backing_file"]
    try:
        found = host.identify(text)
    except FactError:
        return text == path
    return found is not None and (found.device_number, found.inode) == (file.device_number, file.inode)


def _range(facts: DeviceFacts) -> tuple[int, int]:
    return facts.number("loop/offset") or 0, facts.number("loop/sizelimit") or 0


def _require_alike(wanted: Loop, facts: DeviceFacts, site: Site) -> None:
    """Raises DEVICE_EXISTS where the device that is there is another than the one asked for."""
    present = probe(facts, Scene(site.host, site.name_of))
    different = [
        field
        for field in _SETTABLE
        if getattr(wanted, field) is not None and getattr(wanted, field) != getattr(present, field)
    ]
    if different:
        name = site.name_of(facts)
        raise AlreadyExistsError(
            f"{name} has that file, and differs in {', '.join(different)}",
            device=name,
            fields=", ".join(different),
        )


def _refuse_overlap(wanted: Loop, found: tuple[DeviceFacts, ...], size_bytes: int | None, site: Site) -> None:
    """Two devices that write the same bytes destroy them; two that only read do not."""
    whole = size_bytes if size_bytes is not None else 1 << 63
    begin = wanted.offset_bytes or 0
    end = begin + wanted.size_limit_bytes if wanted.size_limit_bytes else whole
    for other in found:
        offset, limit = _range(other)
        apart = end <= offset or begin >= (offset + limit if limit else whole)
        if not apart and not (wanted.read_only and other.flag("ro")):
            name = site.name_of(other)
            raise PreconditionError(
                f"{name} has a part of that file that overlaps", reason="BACKING_OVERLAP", device=name
            )


def _refuse_swap(path: str, file: FileIdentity, host: Host) -> None:
    for swap in host.swaps.values():
        try:
            used = host.identify(swap.path)
        except FactError:
            used = None
        if swap.path == path or (
            used and (used.device_number, used.inode) == (file.device_number, file.inode)
        ):
            raise PreconditionError(f"{path} is used as swap", path=path)


def _binding(loop: Loop, path: str, file: FileIdentity, kernel: tuple[int, int]) -> tuple[Ioctl, ...]:
    parameters = (
        ("file", path),
        ("identity", f"{file.device_number} {file.inode}"),
        ("offset", str(loop.offset_bytes or 0)),
        ("size_limit", str(loop.size_limit_bytes or 0)),
        ("block_size", str(loop.sector_size_bytes or 0)),
    )
    flags = [name for name, on in (("READ_ONLY", loop.read_only), ("DIRECT_IO", loop.direct_io)) if on]
    final = [name for name, on in (("AUTOCLEAR", loop.autoclear), ("PARTSCAN", loop.partition_scan)) if on]
    free = Ioctl("LOOP_CTL_GET_FREE", "/dev/loop-control")
    last = Ioctl("LOOP_SET_STATUS64", FREE_NODE, (("flags", " ".join(final)),))
    asked = ("flags", " ".join((*flags, "AUTOCLEAR")))
    name = "LOOP_CONFIGURE" if kernel >= _CONFIGURE_SINCE else "LOOP_SET_FD"
    return (free, Ioctl(name, FREE_NODE, (*parameters, asked)), last)


KIND = CapabilityKind(
    shape=Loop,
    probe=probe,
    naming=lambda facts, _host: f"loop_{facts.kernel_name}" if is_bound(facts) else None,
    members=members,
    attributes={
        "block": (
            "ro",
            "queue/logical_block_size",
            "loop/backing_file",
            "loop/offset",
            "loop/sizelimit",
            "loop/dio",
            "loop/partscan",
            "loop/autoclear",
        )
    },
    order=30,
    changing=Changing(create, destroy, same, identity, default_name, aliases),
)
