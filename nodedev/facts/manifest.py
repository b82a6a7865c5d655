"""What a recording says of itself, `recording.json`: when, on what, and what could not be read."""

from __future__ import annotations

# A name that is no UTF-8 is kept by an escape that json reads and writes, and msgspec.json does not.
import json
from collections.abc import Mapping

from msgspec import Struct, convert, field, to_builtins

from nodedev.facts.host import FileIdentity, Note

FORMAT = 1


class Content(Struct, frozen=True):
    """One file of the recording as it was written."""

    sha256: str
    size_bytes: int


class Manifest(Struct, frozen=True, kw_only=True):
    """A recording's own description.

    `files` are the backing files that a reader may ask about, None for one that was not there.
    `uninitialized` lists the sysfs paths of devices that udev had not finished; without `udev`
    that holds for all of them. `notes` are the sources that could not be read.
    """

    format: int
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
    return json.dumps(to_builtins(manifest), indent=1).encode() + b"\n"


def parse(data: bytes) -> Manifest:
    """Reads the manifest; raises ValueError for anything that is none."""
    try:
        manifest = convert(json.loads(data), Manifest)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not a recording's manifest ({error})") from error
    if manifest.format != FORMAT:
        raise ValueError(f"format {manifest.format}, which this nodedev does not know")
    return manifest
