"""What a change of the host would run: plain values, made by the capabilities, run by `nodedev.changes`.

A plan is what `validate_only` shows and what is then run, step by step, as it stands.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

COMMAND_SECONDS = 60.0

# In place of a node: the one that an earlier LOOP_CTL_GET_FREE has found.
FREE_NODE = "/dev/loopN"


class Command(Struct, frozen=True):
    """A program with its arguments; no shell has a part in it."""

    argv: tuple[str, ...]
    deadline_seconds: float = COMMAND_SECONDS


class Probe(Struct, frozen=True):
    """A program that looks for signatures on `device`, and must find none for the plan to go on."""

    argv: tuple[str, ...]
    device: str
    deadline_seconds: float = COMMAND_SECONDS


class Examine(Struct, frozen=True):
    """A program that only reads; `judge` raises where what it prints rules the plan out."""

    argv: tuple[str, ...]
    judge: Callable[[str], None]
    deadline_seconds: float = COMMAND_SECONDS


class Ioctl(Struct, frozen=True):
    """An ioctl(2) by the kernel's name, on a node, with the arguments that matter."""

    request: str
    node: str
    arguments: tuple[tuple[str, str], ...] = ()

    def argument(self, name: str) -> str | None:
        """The argument of that name."""
        return dict(self.arguments).get(name)


class Message(Struct, frozen=True):
    """A command over multipathd's socket.

    Its answer to one that is not `conclusive` may be "fail" though all was done: what counts then is
    whether the device comes.
    """

    text: str
    conclusive: bool = True


Step = Command | Probe | Examine | Ioctl | Message


class Node(Struct, frozen=True):
    """A node that a step names, and the "MAJOR:MINOR" it must still have when the steps are run."""

    path: str
    device_number: str


class Plan(Struct, frozen=True):
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


class Consent(Struct, frozen=True):
    """What the caller has said may happen.

    `overwrite` names devices whose signatures may be lost; `lazy` lets a loop device go with its
    last opener; `force` flushes a map without usable paths, and starts an array that lacks members.
    """

    overwrite: frozenset[str] = frozenset()
    lazy: bool = False
    force: bool = False


NOTHING_ALLOWED = Consent()
