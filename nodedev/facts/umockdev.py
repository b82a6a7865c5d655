"""The text format in which a recording holds its devices, umockdev's device description.

Follows umockdev's `add_from_string` and what umockdev-record writes: one stanza for each device,
closed by an empty line. `P:` is the sysfs path, `N:` the node, `S:` its links, `E:` udev's properties,
`A:` and `H:` attributes as escaped text and as hexadecimal, `L:` symlinks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from nodedev.facts.sysfs import text_of

_CHUNK_BYTES = 1 << 20
# The longest stanza seen is 20 KiB (a SATA host with its PCI configuration).
_STANZA_LIMIT_BYTES = 16 << 20

_LINE = r"(?:[PSEALN]: [^\n]+|H: [^=\n]+=(?:[0-9A-Fa-f]{2})*|#[^\n]*)\n"
_WELL_FORMED = re.compile(f"(?:{_LINE})*+")
_PATH = re.compile(r"^P: (/devices/[^\n]+)$", re.MULTILINE)
_NODE = re.compile(r"^N: ([^=\n]+)", re.MULTILINE)
_LINK = re.compile(r"^S: ([^\n]+)$", re.MULTILINE)
_PROPERTY = re.compile(r"^E: ([^=\n]+)=([^\n]*)$", re.MULTILINE)
_SYMLINK = re.compile(r"^L: ([^=\n]+)=([^\n]*)$", re.MULTILINE)
_KEYLESS = re.compile(r"^[EAL]: [^=\n]*$", re.MULTILINE)

# What GLib's g_strescape writes and g_strcompress reads.
_ESCAPE = re.compile(r"\\([0-3]?[0-7]{1,2}|.|$)", re.DOTALL)
_ESCAPED = {"b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v", "\\": b"\\", '"': b'"'}
_TO_ESCAPE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_ESCAPES = {value: b"\\" + name.encode() for name, value in _ESCAPED.items()}


class Readable(Protocol):
    """Where the description comes from: an open file, or what counts its bytes."""

    def read(self, size: int, /) -> bytes:
        """At most that many bytes, none at the end."""


class StanzaError(ValueError):
    """A description that cannot be read; `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class Stanza(Struct, frozen=True):
    """One device; `attributes` and `symlinks` are keyed by their path below the device.

    `closed` is False for a last one without the empty line that umockdev-record ends with.
    """

    path: str
    node: str | None
    links: tuple[str, ...]
    properties: Mapping[str, str]
    attributes: Mapping[str, bytes]
    symlinks: Mapping[str, str]
    closed: bool = True


def parse(stream: Readable, patterns: Callable[[str], re.Pattern[str]]) -> Iterator[Stanza]:
    """The devices of a description, one at a time.

    `patterns` gives for a subsystem what matches the names of the attributes to keep; the others
    are passed over without being looked at, which is what makes 100,000 devices load in seconds.
    Raises StanzaError.
    """
    for block, line, closed in _blocks(stream):
        path = _PATH.match(block)
        if not path or _WELL_FORMED.fullmatch(block) is None or _KEYLESS.search(block):
            raise _bad_line(block, line)
        properties = dict(_PROPERTY.findall(block))
        if "SUBSYSTEM" not in properties:
            raise StanzaError(f"half a device: {path[1]} has no SUBSYSTEM", line)
        node = _NODE.search(block)
        yield Stanza(
            path=path[1],
            node=f"/dev/{node[1]}" if node else None,
            links=tuple(f"/dev/{name}" for name in _LINK.findall(block)),
            properties=properties,
            attributes=_attributes(block, patterns(properties["SUBSYSTEM"]), line),
            symlinks=dict(_SYMLINK.findall(block)),
            closed=closed,
        )


def write(stanza: Stanza) -> bytes:
    """The device as umockdev-record writes it."""
    lines = [b"P: " + stanza.path.encode()]
    if stanza.node:
        lines.append(b"N: " + _raw(stanza.node.removeprefix("/dev/")))
    lines += (b"S: " + _raw(link.removeprefix("/dev/")) for link in stanza.links)
    lines += (b"E: " + _raw(f"{name}={value}") for name, value in sorted(stanza.properties.items()))
    contents = [(name, _attribute(name, data)) for name, data in stanza.attributes.items()]
    contents += ((name, b"L: " + _raw(f"{name}={target}")) for name, target in stanza.symlinks.items())
    lines += (line for _, line in sorted(contents))
    return b"\n".join(lines) + b"\n\n"


def line_pattern(names: str) -> re.Pattern[str]:
    """What finds in a stanza the attributes whose names match a regular expression."""
    return re.compile(rf"^([AH]): ({names})=([^\n]*)$", re.MULTILINE)


def _blocks(stream: Readable) -> Iterator[tuple[str, int, bool]]:
    """The stanzas as text, the number of their first line, and whether an empty line closes them."""
    line = 1
    rest = b""
    while chunk := stream.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n\n")
        for block in whole:
            # More than one empty line leaves newlines at the front.
            stripped = block.lstrip(b"\n")
            line += len(block) - len(stripped)
            if stripped:
                yield text_of(stripped) + "\n", line, True
            line += stripped.count(b"\n") + 2
        if len(rest) > _STANZA_LIMIT_BYTES:
            raise StanzaError(f"a device of more than {_STANZA_LIMIT_BYTES >> 20} MiB", line)
    stripped = rest.lstrip(b"\n")
    line += len(rest) - len(stripped)
    if not stripped:
        return
    if not stripped.endswith(b"\n"):
        raise StanzaError("cut off in the middle of a line", line + stripped.count(b"\n"))
    yield text_of(stripped), line, False


def _bad_line(block: str, first: int) -> StanzaError:
    for number, content in enumerate(block.removesuffix("\n").split("\n")):
        if re.fullmatch(_LINE, content + "\n") is None or _KEYLESS.match(content):
            return StanzaError(f"not a line of umockdev's format: {content[:60]!r}", first + number)
    return StanzaError("a device does not begin with its path (P: /devices/...)", first)


def _attributes(block: str, pattern: re.Pattern[str], first: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for match in pattern.finditer(block):
        kind, name, value = match.groups()
        try:
            found[name] = bytes.fromhex(value) if kind == "H" else unescape(value)
        except ValueError as error:
            raise StanzaError(f"{name}: {error}", first + block.count("\n", 0, match.start())) from None
    return found


def unescape(value: str) -> bytes:
    """The bytes behind an `A:` line's text; raises ValueError for an escape that is none."""
    body, newline = (value[:-2], b"\n") if value.endswith("\\n") else (value, b"")
    if "\\" not in body:
        return _raw(body) + newline
    parts = _ESCAPE.split(value)
    # The pattern's one group makes every second part the escape's letters.
    return b"".join(_raw(part) if index % 2 == 0 else _byte(part) for index, part in enumerate(parts))


def _byte(letters: str) -> bytes:
    if letters in _ESCAPED:
        return _ESCAPED[letters]
    if letters and letters[0] in "01234567":
        return bytes([int(letters, 8)])
    raise ValueError(f"bad escape \\{letters}")


def escape(data: bytes) -> bytes:
    """The text of an `A:` line for an attribute's bytes."""
    return _TO_ESCAPE.sub(lambda found: _ESCAPES.get(found[0], b"\\%03o" % found[0][0]), data)


def _attribute(name: str, data: bytes) -> bytes:
    try:
        printable = b"\0" not in data and data.decode() is not None
    except UnicodeDecodeError:
        printable = False
    if printable:
        return b"A: " + _raw(name) + b"=" + escape(data)
    return b"H: " + _raw(name) + b"=" + data.hex().upper().encode()


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
