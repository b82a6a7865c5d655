"""The program as its users run it, in processes: output, exit codes, and never a traceback."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.services import PLAIN, Nodedev, Process, write_loops

HOST = ("--host", str(PLAIN))
SAN = ("--host", str(Path(__file__).parents[2] / "fixtures" / "san-basic"))


def test_list_is_plain_in_a_pipe(nodedev: Nodedev) -> None:
    """A piped table has its header, aligned columns, a dash for nothing, and no control characters."""
    found = nodedev(*HOST, "list", "--cap", "loop,block", "-o", "name,kind,size,node,alias")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "NAME        KIND          SIZE  NODE        ALIAS",
        "block_vda1  partition    1 GiB  /dev/vda1   -",
        "block_vda2  partition  3.0 GiB  /dev/vda2   -",
        "loop_loop0  loop        64 MiB  /dev/loop0  /srv/odd \\x1b[31mname.img",
    ]


def test_list_options(nodedev: Nodedev) -> None:
    """-n leaves out the header, -b prints bytes, --parent restricts."""
    found = nodedev(*HOST, "list", "-n", "-b", "-o", "SIZE,NAME", "--parent", "block_vda_plain")
    assert found.stdout.splitlines() == ["1073741824  block_vda1", "3220176896  block_vda2"]


def test_json_is_the_response(nodedev: Nodedev) -> None:
    """--json prints protobuf JSON with the proto's field names, all pages in one."""
    found = json.loads(nodedev(*HOST, "list", "--json").stdout)
    assert [device["name"] for device in found["devices"]][-1] == "pci_0000_00_04_0"
    assert "next_page_token" not in found
    loop = next(device for device in found["devices"] if device["name"] == "loop_loop0")
    assert [item["loop"]["backing"]["path"] for item in loop["capabilities"] if "loop" in item] == [
        "/srv/odd \x1b[31mname.img"
    ]


def test_tree_by_parents(nodedev: Nodedev) -> None:
    """The tree hangs devices below libvirt's parents, in ASCII when piped."""
    assert nodedev(*HOST, "tree").stdout.splitlines() == [
        "computer",
        "+- loop_loop0 [loop, /srv/odd \\x1b[31mname.img, 64 MiB, /dev/loop0]",
        "+- pci_0000_00_04_0",
        "   +- block_vda_plain [disk, 4 GiB, /dev/vda]",
        "      +- block_vda1 [partition, 1 GiB, /dev/vda1]",
        "      +- block_vda2 [partition, 3.0 GiB, /dev/vda2]",
    ]


def test_tree_from_the_top_of_the_stack(nodedev: Nodedev) -> None:
    """--inverse begins with what nothing stands on, and goes down to the disks."""
    assert nodedev(*HOST, "tree", "--inverse").stdout.splitlines()[:2] == [
        "block_vda1 [partition, 1 GiB, /dev/vda1]",
        "+- partition block_vda_plain [disk, 4 GiB, /dev/vda]",
    ]


def test_info_by_any_handle(nodedev: Nodedev) -> None:
    """The command tells name, node, relations and capabilities of a device known by its node."""
    found = nodedev(*HOST, "info", "/dev/vda1")
    assert found.returncode == 0
    assert found.stdout.startswith("Name:           block_vda1\nParent:         block_vda_plain\n")
    assert "Made of:\n  partition block_vda_plain\n" in found.stdout
    assert "  size_bytes: 1 GiB (1073741824)\n" in found.stdout


def test_dumpxml_and_validate(nodedev: Nodedev) -> None:
    """What dumpxml prints is what validate accepts from standard input."""
    dumped = nodedev(*HOST, "dumpxml", "vda2")
    assert dumped.stdout.startswith("<device>\n  <name>block_vda2</name>\n")
    checked = nodedev(*HOST, "validate", "-", input=dumped.stdout)
    assert (checked.returncode, checked.stdout) == (0, "<stdin> is valid\n")
    everything = nodedev(*HOST, "dumpxml", "--all").stdout
    assert everything.count("<device>\n") == 6


def test_validate_tells_lines(nodedev: Nodedev, tmp_path: Path) -> None:
    """A violation is FILE:LINE: PATH: MESSAGE, and the exit code 1."""
    (tmp_path / "d.xml").write_text("<device>\n  <name>x</name>\n  <nonsense/>\n</device>\n")
    found = nodedev(*HOST, "validate", str(tmp_path / "d.xml"))
    assert (found.returncode, found.stderr) == (1, "")
    assert found.stdout.startswith(f"{tmp_path / 'd.xml'}:3: /device")


def test_virsh_names_work(nodedev: Nodedev) -> None:
    """nodedev-list, with --cap and --tree together, and nodedev-dumpxml do what virsh users expect."""
    found = nodedev(*HOST, "nodedev-list", "--tree", "--cap", "loop")
    assert [line.split()[1:2] for line in found.stdout.splitlines()] == [[], ["loop_loop0"]]
    assert nodedev(*HOST, "nodedev-dumpxml", "computer").stdout.startswith("<device>")


def test_a_service_is_used_when_named(nodedev: Nodedev, served: Process) -> None:
    """--connect asks a running service, over either socket."""
    for address in (served.address, served.read_only_address):
        found = nodedev("--connect", address, "list", "--cap", "loop", "-n", "-o", "NAME")
        assert (found.returncode, found.stdout) == (0, "loop_loop0\n")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("info", "gone"), 4, "nodedev: no device is called 'gone' (DEVICE_NOT_FOUND)\n"),
        (("dumpxml", "vda", "gone"), 4, "nodedev: no device is called 'gone' (DEVICE_NOT_FOUND)\n"),
        (
            ("list", "--cap", "disc"),
            1,
            (
                "nodedev: no capability is called 'disc'; there are system, pci, usb, usb_device,"
                " scsi_host, scsi_target, scsi, scsi_generic, storage, block, mpath, raid, loop, claim"
                " (FILTER_INVALID)\n"
            ),
        ),
        (("list", "-o", "COLOUR"), 2, None),
        (("dumpxml",), 2, None),
        (("nonsense",), 2, None),
        (("record", "/tmp/x"), 2, None),
        (("info", "\x1b[31m"), 4, "nodedev: no device is called '\\x1b[31m' (DEVICE_NOT_FOUND)\n"),
    ],
)
def test_errors_are_one_line(
    nodedev: Nodedev, arguments: tuple[str, ...], code: int, told: str | None
) -> None:
    """An error is one line on standard error with its reason, and an exit code of its kind."""
    found = nodedev(*HOST, *arguments)
    assert (found.returncode, found.stdout) == (code, "")
    assert told is None or found.stderr == told
    assert found.stderr.count("\n") == 1


def test_an_unreachable_service(nodedev: Nodedev, folder: Path) -> None:
    """Without a service the exit code is 3, and the line says which socket and what to do."""
    found = nodedev("--connect", f"unix:{folder}/none", "list")
    assert found.returncode == 3
    assert found.stderr == (
        f"nodedev: cannot connect to unix:{folder}/none: there is no such socket;"
        " is the service running (nodedev serve)? (SERVICE_UNREACHABLE)\n"
    )


def test_connect_and_host_exclude_each_other(nodedev: Nodedev) -> None:
    """One cannot ask for a service and for a recording."""
    assert nodedev(*HOST, "--connect", "unix:/x", "list").returncode == 2


def test_no_recording(nodedev: Nodedev, tmp_path: Path) -> None:
    """A folder that is no recording is refused with the reason."""
    found = nodedev("--host", str(tmp_path), "list")
    assert (found.returncode, "RECORDING_INVALID" in found.stderr) == (1, True)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, unbuffered: str) -> None:
    """`| head` ends the program without a word, and with the exit code of SIGPIPE."""
    write_loops(tmp_path, 3000)
    script = f"{sys.executable} -m nodedev --host {tmp_path} list | head -1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(
        ["/bin/bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    assert found.stdout.split()[0] == "NAME"
    assert found.stdout.split()[-1] == "141"
    assert found.stderr == ""


def test_an_interrupt_is_quiet(tmp_path: Path) -> None:
    """Ctrl-C ends the program with 130 and no traceback."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "nodedev", *HOST, "validate", str(fifo)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with fifo.open("w"):  # returns when the program has opened it, too
        process.send_signal(signal.SIGINT)
        assert [text.strip() for text in process.communicate()] == ["", ""]  # click ends the line of ^C
    assert process.returncode == 130


def test_completion_scripts(nodedev: Nodedev) -> None:
    """Each shell gets its script, and completing a device asks the host."""
    for shell in ("bash", "zsh", "fish"):
        assert "_NODEDEV_COMPLETE" in nodedev("completion", shell).stdout
    environment = {"_NODEDEV_COMPLETE": "bash_complete", "COMP_CWORD": "4"}
    words = f"nodedev --host {PLAIN} info block_"
    found = subprocess.run(
        [sys.executable, "-m", "nodedev"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment | {"COMP_WORDS": words},
    )
    assert found.stdout.split() == ["plain,block_vda1", "plain,block_vda2", "plain,block_vda_plain"]


def test_help_and_version_need_no_host(nodedev: Nodedev) -> None:
    """Help names the commands and loads neither gRPC nor the readers of the host."""
    assert "dumpxml" in nodedev("--help").stdout
    code = "import sys; from nodedev.cli import run; run(['--help']); print(sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"'grpc'", "'lxml'", "'pyudev'"} & set(found.stdout.replace(",", " ").split())


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Runs the program on a terminal of 60 columns, and gives its exit code and what it showed."""
    environment = os.environ | {"COLUMNS": "60", "PYTHONUTF8": "1", "TERM": "xterm"}
    terminal, other_side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nodedev", *arguments],
        stdin=other_side,
        stdout=other_side,
        stderr=other_side,
        env=environment,
    )
    os.close(other_side)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # EIO: the other side has closed
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    return process.wait(), shown.decode()


def test_on_a_terminal(tmp_path: Path) -> None:
    """A terminal gets box characters in trees, and no line wider than itself."""
    code, shown = on_a_terminal(*HOST, "tree")
    assert (code, "└─ block_vda2" in shown) == (0, True)
    write_loops(tmp_path, 2, name="x" * 200)
    code, shown = on_a_terminal("--host", str(tmp_path), "list")
    assert (code, max(map(len, shown.splitlines()))) == (0, 60)


def test_tables_fit_a_terminal() -> None:
    """On a terminal the widest columns give way, from their middle, so that each column is seen."""
    code, shown = on_a_terminal(*SAN, "list", "--cap", "mpath", "-o", "NAME,HEALTH,ALIAS,USED-BY,SYSFS")
    heading, *rows = shown.splitlines()
    assert (code, heading.split()) == (0, ["NAME", "HEALTH", "ALIAS", "USED-BY", "SYSFS"])
    assert max(map(len, rows)) <= 60
    assert next(row for row in rows if " mpathb " in row).startswith("mpath_…0000a1 ")


def test_trees_tell_what_kpartx_made(nodedev: Nodedev) -> None:
    """A partition of a map, whose parent is the machine, shows its map."""
    lines = nodedev(*SAN, "tree").stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "mpathb-part1" in line)
    assert lines[at + 1] == "|  +- <- partition mpath_3500a0980000000a1"


def test_trees_have_readable_names(nodedev: Nodedev) -> None:
    """What LVM gave a name of eighty characters goes by its dm name, as a member too."""
    lines = nodedev(*SAN, "tree").stdout.splitlines()
    assert "+- vg0-mir_rimage_0 [lvm-internal, 20 MiB, /dev/dm-12]" in lines
    assert "|  +- <- member vg0-mir_rimage_0 active A" in lines
    assert max(map(len, lines)) < 140


def test_trees_tell_what_is_not_as_usual(nodedev: Nodedev) -> None:
    """A suspended device and a loop device's deleted file can be seen; a container at rest is as usual."""
    shown = nodedev(*SAN, "tree").stdout
    assert "block_dm_25_LAB_paused [dm, paused, 32 MiB, /dev/dm-25, suspended]" in shown
    assert "loop_loop27 [loop, /srv/deleted.img, 32 MiB, /dev/loop27, deleted]" in shown
    assert "[raid, ddf, 0 B, /dev/md121, optimal]" in shown


def test_lists_tell_the_state(nodedev: Nodedev) -> None:
    """The state is among a list's columns; dm names are shown as they were given."""
    rows = {row.split()[0]: row for row in nodedev(*SAN, "list").stdout.splitlines()}
    assert rows["block_dm_25_LAB_paused"].split()[4] == "suspended"
    assert rows["loop_loop27"].split()[4] == "deleted"
    assert " odd name " in rows["block_dm_22"]


def test_lists_tell_who_uses_lvm_internals(nodedev: Nodedev) -> None:
    """Only the volume they are for, not the flag by which LVM keeps udev's rules off them."""
    found = nodedev(*SAN, "list", "-n", "-o", "KIND,USED-BY").stdout.splitlines()
    users = {row.split()[1] for row in found if row.startswith("lvm-internal")}
    assert all(user.startswith("raid_LVM_") for user in users)
    assert not any("DM_UDEV" in row or "not-ready" in row for row in found if row.startswith("lvm-internal"))


def test_list_below_a_device_by_any_handle(nodedev: Nodedev) -> None:
    """--parent takes a handle, and one that nobody answers to is told."""
    found = nodedev(*SAN, "list", "-n", "-o", "NAME", "--parent", "/dev/loop28")
    assert found.stdout.splitlines() == ["block_loop28p1", "block_loop28p2"]
    found = nodedev(*SAN, "list", "--parent", "nobody")
    assert (found.returncode, found.stderr) == (
        4,
        "nodedev: no device is called 'nobody' (DEVICE_NOT_FOUND)\n",
    )


def test_without_a_command_the_usage_is_shown(nodedev: Nodedev) -> None:
    """On stderr and in lines, as a usage error."""
    for arguments in ((), ("pool",)):
        found = nodedev(*arguments)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.startswith("Usage: nodedev ")
        assert "\\n" not in found.stderr


def test_status(nodedev: Nodedev, served: Process) -> None:
    """Who answers is told, of which host, and whether it may be changed."""
    found = nodedev("--connect", served.address, "status")
    assert found.returncode == 0
    assert f"Answered by:    {served.address}\n" in found.stdout
    assert "Host:           plain\n" in found.stdout
    assert "Connection:     read-only\n" in found.stdout
    assert nodedev(*SAN, "status").stdout.startswith("Answered by:    this process\n")


def test_an_address_of_neither_kind(nodedev: Nodedev) -> None:
    """What is neither a socket nor a host with a port is a usage error."""
    found = nodedev("--connect", "somewhere", "list")
    assert found.returncode == 2
    assert "somewhere is neither unix:PATH nor HOST:PORT" in found.stderr
