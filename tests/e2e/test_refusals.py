"""Changes where nothing may be changed: a recorded host refuses each, and its plan, with the reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nodedev.client import Client
from nodedev.errors import PermissionDeniedError
from tests.e2e.services import PLAIN, Nodedev

XML = "<device><capability type='loop'><backing>/srv/a.img</backing></capability></device>"
DEVICE = "computer"


@pytest.mark.parametrize(
    "change",
    [
        lambda client, plan: client.create_device(XML, validate_only=plan),
        lambda client, plan: client.destroy_device(DEVICE, validate_only=plan),
        lambda client, plan: client.define_device(XML, validate_only=plan),
        lambda client, plan: client.undefine_device(DEVICE, validate_only=plan),
        lambda client, plan: client.start_device(DEVICE, validate_only=plan),
        lambda client, plan: client.set_device_autostart(DEVICE, autostart=True, validate_only=plan),
    ],
)
@pytest.mark.parametrize("plan", [False, True])
def test_a_recorded_host_cannot_be_changed(
    client: Client, change: Callable[[Client, bool], object], *, plan: bool
) -> None:
    """Each method refuses, and so does the plan alone: there is nothing that it could be checked against."""
    with pytest.raises(PermissionDeniedError) as refused:
        change(client, plan)
    assert refused.value.reason == "RECORDED_HOST"


@pytest.mark.parametrize(
    "command",
    [
        ("create", "-", "--dry-run"),
        ("create", "-"),
        ("destroy", DEVICE, "--dry-run"),
        ("define", "-", "--dry-run"),
        ("start", DEVICE),
    ],
)
def test_the_program_says_so_in_one_line(nodedev: Nodedev, command: tuple[str, ...]) -> None:
    """The reason stands in a sentence, and the exit code is that of a refusal."""
    done = nodedev("--host", str(PLAIN), *command, input=XML)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nodedev: a recorded host cannot be changed (RECORDED_HOST)\n"
