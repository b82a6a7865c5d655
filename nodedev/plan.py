"""What a change of the host would run: plain values, made by the capabilities, run by `nodedev.changes`.

A plan is what `validate_only` shows and what is then run, step by step, as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

COMMAND_SECONDS = 60.0

# In place of a node: the one that an earlier LOOP_CTL_GET_FREE has found.
FREE_NODE = "/dev/loopN"


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments; no shell has a part in it."""

    argv: tuple[str, ...]
    deadline_seconds: float = COMMAND_SECONDS


@dataclass(frozen=True, slots=True)
class Probe:
    """A program that looks for signatures on `device`, and must find none for the plan to go on."""

    argv: tuple[str, ...]
    device: str
    deadline_seconds: float = COMMAND_SECONDS


@dataclass(frozen=True, slots=True)
class Examine:
    """A program that only reads; `judge` raises where what it prints rules the plan out."""

    argv: tuple[str, ...]
    judge: Callable[[str], None]
    deadline_seconds: float = COMMAND_SECONDS


@dataclass(frozen=True, slots=True)
class Ioctl:
    """An ioctl(2) by the kernel's name, on a node, with the arguments that matter."""

    request: str
    node: str
    arguments: tuple[tuple[str, str], ...] = ()

    def argument(self, name: str) -> str | None:
        """The argument of that name."""
        return dict(self.arguments).get(name)


@dataclass(frozen=True, slots=True)
class Message:
    """A command over multipathd's socket.

    Its answer to one that is not `conclusive` may be "fail" though all was done: what counts then is
    whether the device comes.
    """

    text: str
    conclusive: bool = True


Step = Command | Probe | Examine | Ioctl | Message


@dataclass(frozen=True, slots=True)
class Node:
    """A node that a step names, and the "MAJOR:MINOR" it must still have when the steps are run."""

    path: str
    device_number: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in their order.

    `locks` names what no other change may touch meanwhile: devices, or a backing file. `existing`
    is the device that already is what was asked for, by its sysfs path, and then there are no steps.
    `nodes` are checked right before the steps are run. `held` keeps the node open afterwards, as a
    loop device with autoclear that nobody uses yet would be gone with the last closing of it.
    """

    steps: tuple[Step, ...]
    locks: tuple[str, ...]
    existing: str | None = None
    nodes: tuple[Node, ...] = ()
    held: bool = False


@dataclass(frozen=True, slots=True)
class Consent:
    """What the caller has said may happen.

    `overwrite` names devices whose signatures may be lost; `lazy` lets a loop device go with its
    last opener; `force` flushes a map without usable paths, and starts an array that lacks members.
    """

    overwrite: frozenset[str] = frozenset()
    lazy: bool = False
    force: bool = False


NOTHING_ALLOWED = Consent()
