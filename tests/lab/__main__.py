"""The lab by hand: `up` keeps one provisioned guest, `run` runs a command in it, `down` ends it."""

# ruff: noqa: T201 -- a command line prints

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .guest import Completed, Guest, LabError, build, cache_folder
from .install import install

TIMED_OUT = 124  # as timeout(1) says it


def _standing() -> Guest:
    return Guest(cache_folder() / "up")


def _print(completed: Completed) -> int:
    sys.stdout.write(completed.stdout)
    sys.stderr.write(completed.stderr)
    if completed.timed_out:
        print("killed at its deadline", file=sys.stderr)
    if completed.timed_out or completed.returncode is None:
        return TIMED_OUT
    return completed.returncode % 256


def _build(_: argparse.Namespace) -> int:
    print(build())
    return 0


def _up(options: argparse.Namespace) -> int:
    guest = _standing()
    if guest.running():
        print("it runs already")
        return 0
    shutil.rmtree(guest.folder, ignore_errors=True)
    build()
    begin = time.monotonic()
    guest.start(outlive=True)
    print(f"booted in {time.monotonic() - begin:.0f} s")
    if not options.plain:
        begin = time.monotonic()
        status = _print(guest.script("san_basic.sh"))
        print(f"provisioned in {time.monotonic() - begin:.0f} s")
        return status
    return 0


def _down(_: argparse.Namespace) -> int:
    guest = _standing()
    guest.stop()
    shutil.rmtree(guest.folder, ignore_errors=True)
    return 0


def _run(options: argparse.Namespace) -> int:
    return _print(_standing().run(options.command, timeout=options.timeout, check=False))


def _put(options: argparse.Namespace) -> int:
    _standing().put(Path(options.source), options.destination)
    return 0


def _get(options: argparse.Namespace) -> int:
    _standing().get(options.source, Path(options.destination))
    return 0


def _install(_: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as work:
        install(_standing(), Path(work))
    return 0


def _peers(options: argparse.Namespace) -> int:
    guest = _standing()
    status = _print(guest.script("peers.sh", "/run/peers"))
    guest.get("/run/peers", Path(options.destination))
    return status


def _shell(options: argparse.Namespace) -> int:
    """Each line is a shell of its own: `cd` and variables do not last."""
    if not _standing().running():
        _up(options)
    while True:
        try:
            line = input("lab# ")
        except EOFError:
            return 0
        if line:
            _print(_standing().run(line, timeout=600, check=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(
        name: str, function: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(function=function)
        return added

    command("build", _build, "build the image unless it is there, and print its folder")
    for name, function, text in (
        ("up", _up, "boot and provision a guest that stays"),
        ("shell", _shell, "run lines typed here in the guest, after `up` if need be"),
    ):
        command(name, function, text).add_argument(
            "--plain", action="store_true", help="without the scenario"
        )
    command("down", _down, "end the guest")
    run = command("run", _run, "run a shell command in the guest")
    run.add_argument("--timeout", type=float, default=60.0, help="seconds until the command is killed (60)")
    run.add_argument("command")
    for name, function, text in (
        ("put", _put, "copy a file or folder in"),
        ("get", _get, "copy a file or folder out"),
    ):
        copy = command(name, function, text)
        copy.add_argument("source")
        copy.add_argument("destination")
    command("install", _install, "build this checkout's wheel and install it in the guest")
    command("peers", _peers, "dump what the peers print into a folder").add_argument("destination")
    return parser


def main() -> int:
    """Run one command; its exit status is that of what ran in the guest."""
    options = _parser().parse_args()
    try:
        status: int = options.function(options)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
