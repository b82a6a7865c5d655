"""A plan as a person reads it: a line for each step."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nodedev.cli.output import emit, plain

if TYPE_CHECKING:
    from nodedev.v1.device_service_pb2 import Step


def emit_plan(steps: Iterable[Step], existing: str) -> None:
    """Prints the steps, or the device that is there already."""
    lines = [plain(_line(step)) for step in steps]
    if not lines:
        lines = [f"nothing to do: {plain(existing)} is there" if existing else "nothing to do"]
    emit("".join(f"{line}\n" for line in lines))


def _line(step: Step) -> str:
    match step.WhichOneof("kind"):
        case "command":
            return shlex.join(step.command.arguments)
        case "probe":
            return f"{shlex.join(step.probe.arguments)}  # {step.probe.device} must be empty"
        case "multipathd":
            return f"multipathd {step.multipathd.command}"
        case _:
            ioctl = step.ioctl
            arguments = [
                f"{found.name}={shlex.quote(found.value)}" for found in ioctl.arguments if found.value
            ]
            return " ".join(("ioctl", ioctl.node, ioctl.request, *arguments))
