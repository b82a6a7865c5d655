"""What a recording says of itself, `recording.json`: when, on what, and what could not be read."""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec import Struct, field

from nodedev.facts.host import FileIdentity, Note

FORMAT = 1


class Content(Struct, frozen=True):
    """One file of the recording as it was written."""

    sha256: str
    size_bytes: int


class Manifest(Struct, frozen=True):
    """A recording's own description.

    `files` are the backing files that a reader may ask about, None for one that was not there.
    `uninitialized` lists the sysfs paths of devices that udev had not finished; without `udev`
    that holds for all of them. `notes` are the sources that could not be read.
    """

    recorded: str = ""
    kernel: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)
    udev: bool = True
    uninitialized: tuple[str, ...] = ()
    files: Mapping[str, FileIdentity | None] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    contents: Mapping[str, Content] = field(default_factory=dict)


def write(manifest: Manifest) -> bytes:
    """The manifest as JSON."""
    document = {
        "format": FORMAT,
        "recorded": manifest.recorded,
        "kernel": manifest.kernel,
        "tools": dict(manifest.tools),
        "udev": manifest.udev,
        "uninitialized": list(manifest.uninitialized),
        "files": {
            path: {"device_number": found.device_number, "inode": found.inode} if found else None
            for path, found in manifest.files.items()
        },
        "notes": [{"source": note.source, "message": note.message} for note in manifest.notes],
        "contents": {
            name: {"sha256": content.sha256, "size_bytes": content.size_bytes}
            for name, content in manifest.contents.items()
        },
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def parse(data: bytes) -> Manifest:
    """Reads the manifest; raises ValueError for anything that is none."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, which this nodedev does not know")
        return Manifest(
            recorded=str(document.get("recorded", "")),
            kernel=str(document.get("kernel", "")),
            tools={str(name): str(version) for name, version in document.get("tools", {}).items()},
            udev=bool(document.get("udev", True)),
            uninitialized=tuple(str(path) for path in document.get("uninitialized", ())),
            files={
                str(path): FileIdentity(str(found["device_number"]), int(found["inode"])) if found else None
                for path, found in document.get("files", {}).items()
            },
            notes=tuple(
                Note(str(note["source"]), str(note["message"])) for note in document.get("notes", ())
            ),
            contents={
                str(name): Content(str(content["sha256"]), int(content["size_bytes"]))
                for name, content in document.get("contents", {}).items()
            },
        )
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"not a recording's manifest ({error!r})") from error
