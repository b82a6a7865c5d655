"""This host as a source of facts: sysfs, udev's database, device-mapper, multipathd, mounts and swaps.

No block device is opened, and what may block in the kernel or in a daemon has a deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from time import monotonic

from nodedev.errors import FactError
from nodedev.facts import bounded, dm, dm_text, identity, mounts, multipathd, udev
from nodedev.facts.dm_text import DmMap
from nodedev.facts.host import DeviceFacts, FileIdentity, Note, Watch
from nodedev.facts.mounts import Mount, Swap
from nodedev.facts.multipathd import MultipathdMap
from nodedev.facts.sysfs import SYSFS, Entry, Sysfs, Wanted
from nodedev.facts.watch import LiveWatch

# An ioctl waits behind a table load of the same device; multipathd behind its reconfigure.
DM_DEADLINE_SECONDS = 10.0
STAT_DEADLINE_SECONDS = 2.0
# Which file systems are remote is asked for each backing file: a thousand of them read one table.
_MOUNTS_SECONDS = 1.0


class LiveSource:
    """This host, or a tree laid out like it.

    `attributes` names by subsystem the sysfs files to read; its keys are the subsystems of a scan.
    """

    live = True

    def __init__(
        self,
        attributes: Mapping[str, tuple[str, ...]],
        *,
        sysfs: str = SYSFS,
        database: str = udev.DATABASE,
    ) -> None:
        self.sysfs = Sysfs(sysfs)
        self.udev = udev.Database(database)
        self.subsystems = tuple(attributes)
        self._wanted = {subsystem: Wanted(names) for subsystem, names in attributes.items()}
        self._mounts: tuple[float, tuple[Mount, ...]] | None = None

    @property
    def reads(self) -> int:
        """How many files, folders and links of sysfs and udev have been read since the start."""
        return self.sysfs.reads + self.udev.reads

    def scan(self) -> Iterator[DeviceFacts]:
        """Every device of the subsystems asked for, one subsystem after the other."""
        for subsystem in self.subsystems:
            yield from filter(None, map(self.read, self.sysfs.devices(subsystem)))

    def read(self, path: str) -> DeviceFacts | None:
        """The device at a sysfs path as it is now."""
        entry = self.sysfs.read(path, self._wanted)
        if entry is None:
            return None
        known = self.udev.read(entry.subsystem, path, entry.uevent)
        return _facts(path, entry, known)

    def locate(self, subsystem: str, sysname: str) -> str | None:
        """The sysfs path of a device known by subsystem and kernel name."""
        return self.sysfs.locate(subsystem, sysname)

    def locate_number(self, device_number: str) -> str | None:
        """The sysfs path of the block device with that "MAJOR:MINOR"."""
        return self.sysfs.locate_number(device_number)

    def notes(self) -> Iterable[Note]:
        """What is missing of the host as a whole: without udev no device has its properties."""
        if not self.udev.exists:
            yield Note("udev", "there is no udev database: no identities, links or signatures are known")

    def maps(self) -> Iterable[DmMap]:
        """Every device-mapper device."""
        return bounded.call(lambda: tuple(dm.read_maps()), DM_DEADLINE_SECONDS, dm_text.SOURCE)

    def map(self, device_number: str) -> DmMap | None:
        """One device-mapper device."""
        return bounded.call(lambda: dm.read_map(device_number), DM_DEADLINE_SECONDS, dm_text.SOURCE)

    def multipathd(self) -> Iterable[MultipathdMap]:
        """What multipathd says of its maps."""
        return multipathd.read_maps()

    def multipathd_map(self, wwid: str) -> MultipathdMap | None:
        """What multipathd says of one map."""
        return multipathd.read_map(wwid)

    def mounts(self) -> Iterable[Mount]:
        """The mounts of this mount namespace."""
        return mounts.read_mounts()

    def swaps(self) -> Iterable[Swap]:
        """The active swap areas."""
        return mounts.read_swaps()

    def identify(self, path: str) -> FileIdentity | None:
        """The file a path names now; raises FactError where asking might block, or is not allowed.

        A file system over the network, or on a map without paths, can hold stat(2) for ever.
        """
        mount = mounts.mount_of(path, self._recent_mounts())
        if mount and mounts.is_remote(mount.filesystem):
            reason = f"{path} is on {mount.filesystem}, which is not asked: it may not answer"
            raise FactError(identity.SOURCE, reason)
        return identity.identify(path, STAT_DEADLINE_SECONDS)

    def watch(self) -> Watch:
        """The host's own events, of the subsystems asked for."""
        return LiveWatch(self, self._wanted)

    def _recent_mounts(self) -> tuple[Mount, ...]:
        if self._mounts is None or monotonic() - self._mounts[0] > _MOUNTS_SECONDS:
            self._mounts = (monotonic(), tuple(mounts.read_mounts()))
        return self._mounts[1]


def _facts(path: str, entry: Entry, known: udev.Known) -> DeviceFacts:
    return DeviceFacts(
        path=path,
        subsystem=entry.subsystem,
        properties=udev.with_kernel(known, entry.subsystem, entry.uevent),
        attributes=entry.attributes,
        symlinks=entry.symlinks,
        links=known.links,
        slaves=entry.slaves,
        holders=entry.holders,
        partitions=entry.partitions,
        initialized=known.initialized,
        notes=tuple(entry.notes),
    )
