"""A udevd of our own, in private network, mount and process namespaces: the machine's own is not touched.

The kernel sends uevents to each network namespace of the first user namespace (lib/kobject_uevent.c,
since Linux 4.18); what udevd makes of them stays in its own. It has one rule: it calls loop devices disks,
as libvirt discards a disk without ID_TYPE. /dev and /run are the namespace's own, too, so that nothing that
udevd writes reaches the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_PROGRAMS = (Path("/usr/lib/systemd/systemd-udevd"), Path("/lib/systemd/systemd-udevd"))

_ENTER = r"""
set -e
udevd=$0
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/udev /run/rules /run/empty /run/dev/shm
echo 'SUBSYSTEM=="block", KERNEL=="loop*", ENV{ID_TYPE}="disk"' >/run/rules/10-loop.rules
cp -a /dev/null /dev/zero /dev/random /dev/urandom /dev/loop-control /run/dev
ln -s /proc/self/fd /run/dev/fd
for rules in /usr/lib/udev/rules.d /lib/udev/rules.d; do
  if [ -d $rules ]; then mount --bind /run/rules $rules; fi
done
for rules in /etc/udev /usr/local/lib/udev; do
  if [ -d $rules ]; then mount --bind /run/empty $rules; fi
done
mount --bind /run/dev /dev
"$udevd" >/run/udevd.log 2>&1 &
waited=0
until [ -e /run/udev/control ]; do
  sleep 0.05
  waited=$((waited + 1))
  if [ $waited = 200 ]; then cat /run/udevd.log >&2; exit 1; fi
done
"$@"
"""


def program() -> Path | None:
    """The daemon; none where it is not installed."""
    return next((path for path in _PROGRAMS if path.exists()), None)


def beside_udevd(udevd: Path, command: Sequence[str]) -> list[str]:
    """The command line that runs a command where that udevd is the only one."""
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *spaces, "--propagation", "private", "sh", "-c", _ENTER, str(udevd), *command]
