"""Carries out plans, step by step as they stand. Blocks, so it runs in a thread of its own."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Mapping

from msgspec import Struct

from nodedev.changes import loop_ioctls, openers, runner
from nodedev.errors import (
    AbortedError,
    FactError,
    NodedevError,
    Obstacle,
    PermissionDeniedError,
    PreconditionError,
)
from nodedev.facts import multipathd
from nodedev.plan import Command, Examine, Ioctl, Message, Node, Plan, Probe, Step

_MULTIPATHD_SECONDS = 30.0
_NOTHING_FOUND = 2  # blkid(8): no known signature
_SEVERAL_FOUND = 8  # blkid(8): an ambivalent result
_CAP_SYS_ADMIN = 21
_BUSY = re.compile(r"exclusive access|busy|in use|still open", re.IGNORECASE)


class Ran(Struct):
    """What became of the steps: the `node` of a new loop device, `descriptor` if it is to stay open.

    `detached` is False for a loop device that waits for its last opener. `doubt` is what a step said
    that only the device's coming can prove wrong.
    """

    node: str | None = None
    descriptor: int | None = None
    detached: bool = True
    doubt: PreconditionError | None = None


def nothing() -> None:
    """Lets go of nothing."""


def require_rights() -> None:
    """Raises NOT_PRIVILEGED in a process that the kernel will not let change devices."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", file.read(), re.MULTILINE)
    if found and not int(found[1], 16) >> _CAP_SYS_ADMIN & 1:
        raise PermissionDeniedError(
            "this process may not change devices, which needs root (CAP_SYS_ADMIN)", reason="NOT_PRIVILEGED"
        )


def check(plan: Plan) -> None:
    """What of a plan only looks: nodes that are still those of their devices, signatures, superblocks."""
    for node in plan.nodes:
        _require_node(node)
    for step in plan.steps:
        if isinstance(step, Command | Probe | Examine) and not runner.available(step.argv[0]):
            raise PreconditionError(
                f"{step.argv[0]} is not installed", reason="TOOL_MISSING", tool=step.argv[0]
            )
    # What is to be wiped first is not empty yet.
    wiped = {step.argv[-1] for step in plan.steps if isinstance(step, Command) and step.argv[0] == "wipefs"}
    for step in plan.steps:
        if isinstance(step, Probe) and step.argv[-1] not in wiped:
            _probe(step)
        if isinstance(step, Examine):
            _examine(step)


def run(plan: Plan, device: str, release: Callable[[], None] = nothing) -> Ran:
    """Runs the steps; `device` is what they are about, for messages.

    Errors: DEVICE_BUSY, NODE_CHANGED, STEP_FAILED, TOOL_MISSING, NOT_PRIVILEGED, DEADLINE_EXCEEDED.
    """
    ran = Ran()
    keep = False
    try:
        for node in plan.nodes:
            _require_node(node)
        for step in plan.steps:
            try:
                _run(step, ran, device, plan, release)
            except OSError as error:
                raise _refusal(error, step, device) from error
        keep = plan.held
        if keep and ran.descriptor is not None:
            loop_ioctls.unlock(ran.descriptor)
    finally:
        if ran.descriptor is not None and not keep:
            os.close(ran.descriptor)
            ran.descriptor = None
    return ran


def _run(step: Step, ran: Ran, device: str, plan: Plan, release: Callable[[], None]) -> None:
    match step:
        case Probe():
            _probe(step)
        case Examine():
            _examine(step)
        case Command():
            _command(step, device, plan)
        case Message():
            _message(step, ran)
        case Ioctl():
            _IOCTLS[step.request](step, ran, release)


def _bind(step: Ioctl, ran: Ran, release: Callable[[], None]) -> None:  # noqa: ARG001
    ran.node, ran.descriptor = loop_ioctls.bind(step)


def _settle(step: Ioctl, ran: Ran, release: Callable[[], None]) -> None:  # noqa: ARG001
    if ran.descriptor is not None:
        loop_ioctls.settle(ran.descriptor, step)


def _detach(step: Ioctl, ran: Ran, release: Callable[[], None]) -> None:
    ran.detached = loop_ioctls.detach(step, release)


_IOCTLS: Mapping[str, Callable[[Ioctl, Ran, Callable[[], None]], None]] = {
    # Part of the step that follows, which does both again when the free device was taken.
    "LOOP_CTL_GET_FREE": lambda step, ran, release: None,  # noqa: ARG005
    "LOOP_CONFIGURE": _bind,
    "LOOP_SET_FD": _bind,
    "LOOP_SET_STATUS64": _settle,
    "LOOP_CLR_FD": _detach,
}


def _require_node(node: Node) -> None:
    """Raises NODE_CHANGED when the path leads to another device than it did."""
    try:
        found = os.stat(node.path)  # noqa: PTH116
    except OSError as error:
        raise AbortedError(f"{node.path}: {error.strerror}", reason="NODE_CHANGED", node=node.path) from error
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    if not stat.S_ISBLK(found.st_mode) or number != node.device_number:
        raise AbortedError(f"{node.path} is another device now", reason="NODE_CHANGED", node=node.path)


def _command(step: Command, device: str, plan: Plan) -> None:
    done = runner.run(step.argv, step.deadline_seconds)
    if done.returncode == 0:
        return
    said = (done.stderr or done.stdout).strip()
    line = next(iter(said.splitlines()), f"exit status {done.returncode}")
    if _BUSY.search(said):
        used = next((node.path for node in plan.nodes if _named_openers(node.path)), "")
        message = f"open by {_named_openers(used)}" if used else f"in use: {line}"
        raise PreconditionError(
            f"{device} is {message}", obstacles=(Obstacle("TYPE_OPEN", device, message),), device=device
        )
    raise PreconditionError(
        f"{step.argv[0]} failed: {line}",
        reason="STEP_FAILED",
        command=" ".join(step.argv),
        status=str(done.returncode),
        output=said,
    )


def _probe(step: Probe) -> None:
    done = runner.run(step.argv, step.deadline_seconds)
    if done.returncode == _NOTHING_FOUND:
        return
    if done.returncode not in (0, _SEVERAL_FOUND):
        raise PreconditionError(
            f"{step.device} could not be looked at for signatures: {done.stderr.strip()}",
            reason="STEP_FAILED",
            command=" ".join(step.argv),
            status=str(done.returncode),
        )
    pairs = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    what = pairs.get("TYPE") or pairs.get("PTTYPE") or "several signatures"
    message = f"not empty, it holds {what}"
    raise PreconditionError(
        f"{step.device} is {message}",
        obstacles=(Obstacle("TYPE_SIGNATURE", step.device, message),),
        device=step.device,
    )


def _examine(step: Examine) -> None:
    # Its exit status tells of devices that it knows nothing of, which the judge can do without.
    step.judge(runner.run(step.argv, step.deadline_seconds).stdout)


def _message(step: Message, ran: Ran) -> None:
    try:
        said = multipathd.ask(step.text, _MULTIPATHD_SECONDS).strip()
    except FactError as error:
        raise PreconditionError(
            f"multipathd: {error.message}", reason="TOOL_MISSING", tool="multipathd"
        ) from error
    if said == "ok":
        return
    failed = PreconditionError(
        f"multipathd answers {said!r} to {step.text!r}", reason="STEP_FAILED", command=step.text, output=said
    )
    if step.conclusive:
        raise failed
    ran.doubt = failed


def _refusal(error: OSError, step: Step, device: str) -> NodedevError:
    """What the kernel's errno means to the caller."""
    place = step.node if isinstance(step, Ioctl) else ""
    request = step.request if isinstance(step, Ioctl) else ""
    text = f"{error.filename or place}: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return PermissionDeniedError(text, reason="NOT_PRIVILEGED")
    if error.errno == errno.EBUSY:
        named = _named_openers(place)
        message = f"open by {named}" if named else "open, by whom could not be told"
        return PreconditionError(
            f"{device} is {message}", obstacles=(Obstacle("TYPE_OPEN", device, message),), device=device
        )
    return PreconditionError(f"{request}: {text}".removeprefix(": "), reason="STEP_FAILED", device=device)


def _named_openers(node: str) -> str:
    try:
        return ", ".join(openers.of_node(node))
    except OSError:
        return ""
