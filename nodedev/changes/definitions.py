"""Devices that outlast their being there: documents in the state folder.

    devices/NAME.xml             what StartDevice is to create
    devices/autostart/NAME.xml   a link to it: started with the service

A file is replaced as a whole, so that a crash leaves the old one or the new one. What cannot be read is
told as a note and left alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

from msgspec import Struct

from nodedev.capabilities import kinds
from nodedev.documents import Document, read_device
from nodedev.errors import (
    AlreadyExistsError,
    InvalidError,
    NodedevError,
    PreconditionError,
    UnimplementedError,
)
from nodedev.facts.host import Note
from nodedev.model import Capability, Changing, Device
from nodedev.xml import device_xml

SOURCE = "definitions"

_SUFFIX = ".xml"
_NAME = re.compile(r"[A-Za-z0-9_]{1,200}", re.ASCII)
_LIMIT_BYTES = 1 << 20


class Wish(Struct, frozen=True):
    """What of a document can be created, and how."""

    name: str | None
    capability: Capability
    changing: Changing


class Definition(Struct, frozen=True):
    """A wish that is kept under a name; `identity` is what is one with the active device's."""

    name: str
    wish: Wish
    identity: str
    autostart: bool = False

    def device(self) -> Device:
        """The device as it is listed while it is not there."""
        return Device(
            name=self.name,
            parent=None,
            sysfs_path=None,
            devnode=None,
            links=(),
            driver=None,
            device_number=None,
            generation=None,
            capabilities=(self.wish.capability,),
            inactive=True,
            persistent=True,
            autostart=self.autostart,
        )


@cache
def _creatable() -> dict[str, Changing]:
    return {kind.type: kind.changing for kind in kinds() if kind.changing}


def changing_of(device: Device) -> tuple[Capability, Changing] | None:
    """The capability by which a device can be changed, the first of them."""
    for found in device.capabilities:
        changing = _creatable().get(found.TYPE)
        if changing:
            return found, changing
    return None


def wish_of(document: Document) -> Wish:
    """What a document asks to create; CAPABILITY_NOT_CREATABLE, XML_INVALID."""
    found = [
        (capability, changing)
        for capability in document.capabilities
        if (changing := _creatable().get(capability.TYPE))
    ]
    if not found:
        types = ", ".join(capability.TYPE for capability in document.capabilities) or "none"
        raise UnimplementedError(
            f"no capability of the document ({types}) can be created, which {', '.join(_creatable())} can"
        )
    if len(found) > 1:
        raise InvalidError("the document asks for more than one device", reason="XML_INVALID")
    return Wish(document.name, *found[0])


def definition_of(wish: Wish) -> Definition:
    """The definition that a wish makes; NAME_INVALID, DEFINITION_INVALID."""
    identity = wish.changing.identity(wish.capability)
    if identity is None:
        raise InvalidError(
            f"a {wish.capability.TYPE} can only be defined by what it is known by for ever:"
            " an array's UUID, a map's WWID, a loop device's file",
            reason="DEFINITION_INVALID",
        )
    name = wish.name or re.sub(r"[^A-Za-z0-9]", "_", wish.changing.default_name(wish.capability))
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"{name[:60]!r} is no name: letters, digits and _, at most 200", reason="NAME_INVALID"
        )
    return Definition(name, wish, identity)


class Definitions:
    """The definitions there are; `notes` tell of files that could not be read.

    Without a folder nothing can be kept. Any thread may ask, and write: one writes at a time. Errors of
    what writes: STATE_UNWRITABLE, DEFINITION_BROKEN.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, Definition] = {}
        self._identities: dict[str, Definition] = {}
        self._broken: dict[str, Note] = {}
        self._writer = Lock()
        for path in sorted(self._files()):
            self._load(path)

    @property
    def notes(self) -> tuple[Note, ...]:
        """The files that were left alone, and why."""
        return tuple(self._broken.values())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known)

    def __iter__(self) -> Iterator[Definition]:
        """All, in the order of their names."""
        return iter(sorted(self._known.values(), key=lambda definition: definition.name))

    def get(self, name: str) -> Definition | None:
        """The one of that name."""
        return self._known.get(name)

    def by_identity(self, identity: str | None) -> Definition | None:
        """The one that means that device."""
        return self._identities.get(identity or "")

    def require_free(self, definition: Definition) -> None:
        """Raises DEVICE_EXISTS where its name is another's, or its device has another name."""
        known = self._known.get(definition.name)
        if known and known.identity != definition.identity:
            raise AlreadyExistsError(
                f"{definition.name} is defined as another device", device=definition.name
            )
        twin = self.by_identity(definition.identity)
        if twin and twin.name != definition.name:
            raise AlreadyExistsError(f"that device is defined already, as {twin.name}", device=twin.name)

    def keep(self, definition: Definition) -> None:
        """Writes it, in place of one of the same name and device; DEVICE_EXISTS as `require_free`."""
        path = self._path(definition.name)
        with self._writer:
            self.require_free(definition)
            if definition.name in self._broken:
                raise PreconditionError(
                    f"{path} holds something that cannot be read, and is not overwritten",
                    reason="DEFINITION_BROKEN",
                    path=str(path),
                )
            with _writing(path):
                _replace(path, device_xml(definition.device()))
                self._link(definition)
            self._know(definition)

    def drop(self, name: str) -> bool:
        """Forgets it; whether there was one."""
        with self._writer:
            if name not in self._known:
                return False
            path = self._path(name)
            with _writing(path):
                with suppress(FileNotFoundError):
                    self._link_path(name).unlink()
                with suppress(FileNotFoundError):
                    path.unlink()
                _sync_folder(path.parent)
            del self._identities[self._known.pop(name).identity]
            return True

    def _know(self, definition: Definition) -> None:
        self._known[definition.name] = self._identities[definition.identity] = definition

    def _link(self, definition: Definition) -> None:
        link = self._link_path(definition.name)
        if link.is_symlink() == definition.autostart:
            return
        if definition.autostart:
            link.parent.mkdir(mode=0o700, exist_ok=True)
            link.symlink_to(f"../{link.name}")
        else:
            link.unlink()
        _sync_folder(link.parent)

    def _files(self) -> list[Path]:
        if self._folder is None:
            return []
        try:
            return [path for path in self._folder.iterdir() if path.suffix == _SUFFIX and path.name[0] != "."]
        except OSError:
            return []

    def _load(self, path: Path) -> None:
        name = path.name.removesuffix(_SUFFIX)
        try:
            with path.open("rb") as file:
                found = definition_of(wish_of(read_device(file.read(_LIMIT_BYTES + 1))))
            if found.name != name:
                raise InvalidError(f"it is of the device {found.name}")
            other = self.by_identity(found.identity)
            if other:
                raise InvalidError(f"{other.name} is the same device")
        except (NodedevError, OSError) as error:
            told = error.message if isinstance(error, NodedevError) else str(error)
            self._broken[name] = Note(SOURCE, f"{path} is left alone: {told}")
        else:
            autostart = self._link_path(name).is_symlink()
            self._know(Definition(name, found.wish, found.identity, autostart))

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise PreconditionError("there is no state folder to keep it in", reason="STATE_UNWRITABLE")
        return self._folder / f"{name}{_SUFFIX}"

    def _link_path(self, name: str) -> Path:
        path = self._path(name)
        return path.parent / "autostart" / path.name


class _writing:  # noqa: N801  reads as a word of the with statement
    """Turns what the file system refuses into STATE_UNWRITABLE."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise PreconditionError(
                f"{self._path}: {error.strerror}", reason="STATE_UNWRITABLE", path=str(self._path)
            ) from error


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A name of its own per file is enough: one service alone has the folder.
    waiting = path.with_name(f".{path.name}.new")
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        waiting.replace(path)
    except OSError:
        with suppress(OSError):
            waiting.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
