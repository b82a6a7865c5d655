"""Destroying from a terminal: claims are shown and asked about; from anywhere else nobody is asked."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedev.client import Client
from nodedev.v1 import device_pb2
from tests.e2e.living import REAL, Live, document, living, loops_of
from tests.e2e.services import READY_SECONDS

pytestmark = REAL

QUESTION = "Destroy it? [y/N]: "


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """One service for all."""
    with living() as running:
        yield running


@pytest.fixture
def made(live: Live) -> Iterator[device_pb2.Device]:
    """A loop device, gone in the end."""
    with Client(live.address) as client:
        device = client.create_device(document(live.file("terminal.img"))).device
        yield device
        client.destroy_device(device.name)


def typed(live: Live, *arguments: str, answer: str = "", pipes: str = "") -> tuple[int, str]:
    """The exit code of `nodedev destroy` on a terminal of its own, and what stands on that.

    The answer is typed when the question has come. `pipes` names what is no terminal: stdin, stdout.
    """
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "nodedev", "--connect", live.address, "destroy", *arguments],
            stdin=subprocess.DEVNULL if "stdin" in pipes else theirs,
            stdout=subprocess.DEVNULL if "stdout" in pipes else theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    try:
        text = _conversation(ours, answer)
        return process.wait(READY_SECONDS), text.replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _conversation(terminal: int, answer: str) -> str:
    """All that is written to the terminal until nobody has it open any more."""
    text, answered = "", False
    end = time.monotonic() + READY_SECONDS
    while True:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        assert ready, f"nothing more came after {text!r}"
        try:
            text += os.read(terminal, 4096).decode()
        except OSError:
            return text  # EIO: the other side is closed
        if text.endswith(QUESTION) and not answered:
            os.write(terminal, answer.encode())
            answered = True


@pytest.mark.parametrize(("answer", "expected"), [("n\n", 1), ("\n", 1), ("\x04", 130)])
def test_no_leaves_everything_as_it_was(
    live: Live, made: device_pb2.Device, answer: str, expected: int
) -> None:
    """A no and an empty line are refusals, and an end of input an interrupt; nothing is changed."""
    code, text = typed(live, made.name, answer=answer)
    assert code == expected
    if expected == 1:
        assert text.endswith(f"\n{made.name} is as it was\n")
    assert text.startswith(f"{made.name} ({live.folder / 'terminal.img'})\n  no claims\n{QUESTION}")
    assert made.devnode in loops_of(live.folder)
    with Client(live.address) as client:
        assert client.get_device(made.name).device == made


def test_yes_destroys(live: Live, made: device_pb2.Device) -> None:
    """A yes is a yes, and the answer says what happened."""
    code, text = typed(live, made.devnode, answer="y\n")
    assert code == 0
    assert QUESTION in text
    assert text.endswith(f"\n{made.name} destroyed\n")
    assert made.devnode not in loops_of(live.folder)


def test_claims_are_shown(live: Live, made: device_pb2.Device) -> None:
    """Who uses the device stands before the question; a yes does not make it less used."""
    with Client(live.address) as client:
        above = client.create_device(document(Path(made.devnode))).device
        try:
            code, text = typed(live, made.name, answer="y\n")
        finally:
            client.destroy_device(above.name)
    shown, _, rest = text.partition(QUESTION)
    assert f"\n  backing: {above.name}\n" in shown
    assert code == 1
    assert "DEVICE_BUSY" in rest
    assert made.devnode in loops_of(live.folder)


@pytest.mark.parametrize(
    ("arguments", "pipes"),
    [(("-y",), ""), (("--yes",), ""), ((), "stdin"), ((), "stdout"), ((), "stdin stdout")],
)
def test_nobody_is_asked(live: Live, made: device_pb2.Device, arguments: tuple[str, ...], pipes: str) -> None:
    """With -y, and where there is no terminal to ask on, it is destroyed without a question."""
    code, text = typed(live, made.name, *arguments, pipes=pipes)
    assert code == 0
    assert QUESTION not in text
    assert text in ("", f"{made.name} destroyed\n")
    assert made.devnode not in loops_of(live.folder)


def test_a_plan_is_not_asked_about(live: Live, made: device_pb2.Device) -> None:
    """--dry-run changes nothing, and so asks nothing."""
    code, text = typed(live, made.name, "--dry-run")
    assert (code, QUESTION in text) == (0, False)
    assert text.startswith(f"ioctl {made.devnode} LOOP_CLR_FD")
    assert made.devnode in loops_of(live.folder)
