"""Pool definitions as files, and which pools are active since the last boot.

    NAME.xml             a definition, libvirt's XML
    autostart/NAME.xml   a link to it: started with the service
    active/NAME          whether it is active, and the sessions it logged in to, since that boot

Files are replaced as a whole, so that a crash leaves the old one or the new one. What cannot be read is
told and left alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from msgspec import Struct

from nodedev.errors import NodedevError, PreconditionError
from nodedev.facts.host import Note
from nodedev.pools.definition import Definition
from nodedev.pools.document import pool_xml, read_pool

SOURCE = "pools"

_SUFFIX = ".xml"
_LIMIT_BYTES = 1 << 20
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_ACTIVE, _INACTIVE, _BOOT, _SESSION, _RECORD = "active", "inactive", "boot", "session", "record"


class Session(Struct, frozen=True):
    """An iSCSI session that a pool logged in to: the kernel's number, and the portal, "HOST:PORT,TAG"."""

    number: int
    portal: str


class Activity(Struct, frozen=True):
    """Whether a pool is active, and what it did to become so.

    `records` are the portals for which it added records to open-iscsi's database.
    """

    active: bool
    sessions: tuple[Session, ...] = ()
    records: tuple[str, ...] = ()


class Stored(Struct, frozen=True):
    """One pool as it was found."""

    definition: Definition
    autostart: bool


class Found(Struct, frozen=True):
    """What a folder held: definitions, activities of this boot, and what could not be read."""

    pools: tuple[Stored, ...]
    activities: tuple[tuple[str, Activity], ...]
    problems: tuple[Note, ...]


class Store:
    """The folder; `boot` is what tells this boot from another one.

    Errors of all that write: STATE_UNWRITABLE.
    """

    def __init__(self, folder: Path, boot: str) -> None:
        self._folder = folder
        self._boot = boot

    def read(self) -> Found:
        """Everything there is; an absent folder is an empty one."""
        pools: list[Stored] = []
        problems: list[Note] = []
        for path in self._files(self._folder, problems):
            if path.suffix != _SUFFIX:
                continue
            try:
                pools.append(self._stored(path))
            except (NodedevError, OSError, UnicodeDecodeError) as error:
                told = error.message if isinstance(error, NodedevError) else str(error)
                problems.append(Note(SOURCE, f"{path} is left alone: {told}"))
        activities = []
        for path in self._files(self._folder / "active", problems):
            activity = self._activity(path)
            if activity:
                activities.append((path.name, activity))
        return Found(tuple(pools), tuple(activities), tuple(problems))

    def define(self, definition: Definition) -> None:
        """Keeps a definition; POOL_FILE_BROKEN where a file that cannot be read has its name."""
        path = self._path(definition.name)
        if path.exists():
            self._readable(path)
        self._write(path, pool_xml(definition))

    def undefine(self, name: str) -> None:
        """Forgets a definition, and that it is to be started."""
        path = self._path(name)
        if path.exists():
            self._readable(path)
        self.autostart(name, wanted=False)
        self._remove(path)

    def autostart(self, name: str, *, wanted: bool) -> None:
        """Says whether the pool is started with the service."""
        link = self._folder / "autostart" / f"{name}{_SUFFIX}"
        self._remove(link)
        if wanted:
            try:
                self._make(link.parent)
                link.symlink_to(f"../{name}{_SUFFIX}")
            except OSError as error:
                raise _unwritable(link, error) from error

    def activity(self, name: str, activity: Activity | None) -> None:
        """Keeps what a pool did until the next boot; None forgets it."""
        path = self._folder / "active" / name
        if activity is None:
            self._remove(path)
            return
        lines = [f"{_BOOT} {self._boot}", _ACTIVE if activity.active else _INACTIVE]
        lines += [f"{_SESSION} {session.number} {session.portal}" for session in activity.sessions]
        lines += [f"{_RECORD} {portal}" for portal in activity.records]
        self._write(path, "".join(f"{line}\n" for line in lines))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"

    def _files(self, folder: Path, problems: list[Note]) -> Iterable[Path]:
        try:
            return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
        except FileNotFoundError:
            return ()
        except OSError as error:
            problems.append(Note(SOURCE, f"{folder} cannot be read: {error.strerror}"))
            return ()

    def _stored(self, path: Path) -> Stored:
        with path.open("rb") as file:
            text = file.read(_LIMIT_BYTES + 1)
        name = path.name.removesuffix(_SUFFIX)
        # A file written by hand may have no UUID, which must not be another one after each start.
        definition = read_pool(text, lambda _: str(uuid5(NAMESPACE_URL, f"nodedev:pool:{name}")))
        if definition.name != name:
            raise PreconditionError(f"it defines {definition.name!r}, which its name does not say")
        return Stored(definition, (self._folder / "autostart" / path.name).is_symlink())

    def _readable(self, path: Path) -> None:
        try:
            self._stored(path)
        except (NodedevError, OSError) as error:
            raise PreconditionError(
                f"{path} cannot be read, and is left alone: {error}",
                reason="POOL_FILE_BROKEN",
                path=str(path),
            ) from error

    def _activity(self, path: Path) -> Activity | None:
        """What the file says, if it is whole and of this boot: sessions do not outlast one."""
        try:
            lines = [line.split(" ") for line in path.read_text().splitlines()]
            if len(lines) < 2 or lines[0] != [_BOOT, self._boot]:  # noqa: PLR2004
                return None
            sessions = [Session(int(line[1]), line[2]) for line in lines if line[0] == _SESSION]
            records = [line[1] for line in lines if line[0] == _RECORD]
        except (OSError, ValueError, IndexError):
            return None
        return Activity(lines[1] == [_ACTIVE], tuple(sessions), tuple(records))

    def _write(self, path: Path, text: str) -> None:
        """Replaces a file as a whole, on the disk before under its name."""
        try:
            self._make(path.parent)
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
            try:
                with os.fdopen(descriptor, "w") as file:
                    os.fchmod(descriptor, _FILE_MODE)
                    file.write(text)
                    file.flush()
                    os.fsync(descriptor)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._sync(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error

    def _make(self, folder: Path) -> None:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)

    def _sync(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> PreconditionError:
    return PreconditionError(f"{path}: {error.strerror or error}", reason="STATE_UNWRITABLE", path=str(path))
