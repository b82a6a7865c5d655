"""Puts this checkout's `nodedev` into a guest, which needs neither pip nor a network for it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from .guest import Guest, LabError

PROJECT = Path(__file__).parents[2]
INSTALL_SECONDS = 600.0


def _pip(*arguments: str | Path) -> None:
    """Run pip; what it prints, warnings about this machine's settings included, matters when it fails."""
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise LabError(f"{shlex.join(command)} failed\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def install(guest: Guest, work: Path) -> None:
    """Put this checkout and its dependencies into the guest, as /usr/local/bin/nodedev."""
    _pip("wheel", "--no-deps", "--wheel-dir", work, PROJECT)
    (wheel,) = work.glob("nodedev-*.whl")
    version = guest.run("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").stdout.strip()
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("2014", "_2_17", "_2_28", "_2_34")]
    for_guest = ["--python-version", version, "--only-binary=:all:", *platforms]
    _pip("install", "--no-compile", "--target", work / "site", *for_guest, wheel)
    # one file: the share is slow for many
    archive = shutil.make_archive(str(work / "site"), "tar", work / "site")
    guest.put(Path(archive), "/root/site.tar")
    wrapper = work / "nodedev"
    # pip's own script names this machine's Python in its first line
    wrapper.write_text('#!/bin/sh\nPYTHONPATH=/opt/nodedev exec python3 /opt/nodedev/bin/nodedev "$@"\n')
    guest.put(wrapper, "/usr/local/bin/nodedev")
    guest.run(
        "chmod +x /usr/local/bin/nodedev && rm -rf /opt/nodedev && mkdir -p /opt/nodedev"
        " && tar -C /opt/nodedev -xf /root/site.tar && rm /root/site.tar",
        timeout=INSTALL_SECONDS,
    )
