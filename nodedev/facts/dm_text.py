r"""Device-mapper's devices as values, and as text in dmsetup's own words for a recording.

The text is that of `dmsetup table`, `dmsetup status` and `dmsetup info -c --noheadings -o
name,uuid,major,minor,open,segments,events,attr` (dmsetup(8)), so that stock tools make it as well.
No key is in either: it stands as zeros, as in `dmsetup table` without --showkeys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from nodedev.errors import FactError
from nodedev.facts.text import bytes_of, printable

SOURCE = "dm"

Span = tuple[int, int, str]


class DmTarget(Struct, frozen=True):
    """One line of a table: the target's span in 512-byte sectors, its parameters and its status."""

    start: int
    length: int
    type: str
    parameters: str
    status: str


class DmMap(Struct, frozen=True):
    r"""One device-mapper device; `name` and `uuid` as the kernel holds them.

    `dmsetup create "odd name"` itself gives the kernel `odd\x20name`, as any program of libdm does. Bytes
    that cannot be printed stand as `\xNN`. A device without a live table has no targets.
    """

    name: str
    uuid: str
    device_number: str
    suspended: bool
    read_only: bool
    open_count: int
    event_number: int
    targets: tuple[DmTarget, ...]


def targets(parameters: Mapping[Span, str], statuses: Mapping[Span, str]) -> tuple[DmTarget, ...]:
    """A table's targets from their parameters and statuses by span, without keys whatever the source."""
    return tuple(
        DmTarget(*span, without_keys(span[2], text), statuses.get(span, ""))
        for span, text in parameters.items()
    )


_KEYED_TYPES = frozenset({"crypt", "inlinecrypt", "default-key"})
_INTEGRITY_KEY = re.compile(r"(?<!\S)((?:internal_hash|journal_crypt|journal_mac):[^ :]*:)(\S+)")


def without_keys(target_type: str, parameters: str) -> str:
    """The parameters with zeros for every key, as dmsetup without --showkeys.

    What stays is "-" for none and a reference to the kernel's keyring (":32:logon:name"). Of the targets,
    crypt, inlinecrypt and Android's default-key have the key as their second word, integrity has three
    optional ones; verity's salt and digest are public.
    """
    if target_type == "integrity":
        return _INTEGRITY_KEY.sub(lambda found: found[1] + "0" * len(found[2]), parameters)
    cipher, space, rest = parameters.partition(" ")
    key, more, others = rest.partition(" ")
    if target_type in _KEYED_TYPES and key != "-" and not key.startswith(":"):
        return f"{cipher}{space}{'0' * len(key)}{more}{others}"
    return parameters


_MANGLED = re.compile(rb"\\x([0-9a-f]{2})")
_NOT_WHITELISTED = re.compile(rb"[^0-9A-Za-z#+\-.:=@_]")


def mangled(text: str) -> str:
    r"""The name or uuid as libdm gives it to the kernel: `\xNN` for each byte not on its whitelist."""
    return _NOT_WHITELISTED.sub(lambda found: b"\\x%02x" % found[0][0], bytes_of(text)).decode("ascii")


def unmangled(text: str) -> str:
    r"""The name or uuid as libdm and its users show it: multipathd's WWID is the map's uuid after this."""
    return printable(_MANGLED.sub(lambda found: bytes([int(found[1], 16)]), bytes_of(text)))


# No name that dmsetup prints begins so: the kernel refuses slashes.
_VERBATIM = "/"


def _shown(held: str) -> str:
    r"""The kernel's name or uuid as dmsetup prints it: unmangled, `odd name` for the `odd\x20name` held.

    dmsetup refuses to print any device of a host where one is held unmangled, "odd name" itself. Such a
    one, and what could be taken for two fields or lines, is written as "/" and its mangled form.
    """
    plain = unmangled(held)
    if mangled(plain) == held and ": " not in plain and not plain.startswith(_VERBATIM):
        return plain
    return _VERBATIM + mangled(held)


def _held(shown: str) -> str:
    if shown.startswith(_VERBATIM):
        return unmangled(shown.removeprefix(_VERBATIM))
    return mangled(shown)


_NONE = "No devices found"
_NAME_END = re.compile(r": |:$")
_TARGET = re.compile(r"([0-9]+) ([0-9]+) ([^\s:]+)(?: (.*))?")
_INFO = re.compile(r"(.+):([0-9]+):([0-9]+):(-?[0-9]+):([0-9]+):([0-9]+):([L-][I-])([s-])([rw])")


def format_text(maps: Iterable[DmMap]) -> tuple[str, str, str]:
    """The maps in dmsetup's words: table, status and info."""
    table, status, info = [], [], []
    for found in maps:
        name = _shown(found.name)
        prefix = f"{name}: "
        spans = [f"{prefix}{target.start} {target.length} {target.type} " for target in found.targets]
        table += [s + t.parameters for s, t in zip(spans, found.targets, strict=True)] or [prefix]
        status += [s + t.status for s, t in zip(spans, found.targets, strict=True)] or [prefix]
        live, suspended = "L" if found.targets else "-", "s" if found.suspended else "-"
        attributes = f"{live}-{suspended}{'r' if found.read_only else 'w'}"
        counts = f"{found.open_count}:{len(found.targets)}:{found.event_number}"
        info.append(f"{name}:{_shown(found.uuid)}:{found.device_number}:{counts}:{attributes}")
    return _joined(table), _joined(status), _joined(info)


def _joined(lines: list[str]) -> str:
    return "\n".join(lines or [_NONE]) + "\n"


def parse_text(table: str, status: str, info: str) -> tuple[DmMap, ...]:
    """The maps of a recording, in the order of `info`; raises FactError for a line that is none of dmsetup's.

    The three are taken one after the other: a device that is not in both `table` and `info` came or
    went meanwhile and is left out.
    """
    table_lines = [_line(line) for line in _lines(table)]
    records = [_record(line) for line in _lines(info)]
    names = _names([record[1] for record in records], [name for name, _, _ in table_lines])
    parameters = _by_name(table_lines)
    statuses = _by_name([_line(line) for line in _lines(status)])
    return tuple(
        DmMap(
            name=_held(name),
            uuid=_held(record[1][len(name) + 1 :]),
            device_number=f"{int(record[2])}:{int(record[3])}",
            suspended=record[8] == "s",
            read_only=record[9] == "r",
            open_count=int(record[4]),
            event_number=int(record[6]),
            targets=targets(parameters.get(name, {}), statuses.get(name, {})),
        )
        for name, record in zip(names, records, strict=True)
        if name is not None
    )


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line not in {"", _NONE}]


def _record(line: str) -> re.Match[str]:
    found = _INFO.fullmatch(line)
    if not found:
        raise FactError(SOURCE, f"not a line of `dmsetup info -c` with the recorded fields: {line!r}")
    return found


def _line(line: str) -> tuple[str, Span | None, str]:
    """The name, the target's span and its text; a name may hold a colon itself."""
    for end in _NAME_END.finditer(line, 1):
        name, rest = line[: end.start()], _TARGET.fullmatch(line, end.end())
        if rest:
            return name, (int(rest[1]), int(rest[2]), rest[3]), printable(rest[4] or "")
        if end.end() == len(line):
            return name, None, ""
    raise FactError(SOURCE, f"not a line of `dmsetup table` or `dmsetup status`: {line!r}")


def _names(joined: list[str], in_tables: list[str]) -> list[str | None]:
    """The name of each record of "name:uuid", which both may hold colons: it is one that has a table.

    Where two fit, it is the one at the same place among the tables, else the longest.
    """
    in_order = list(dict.fromkeys(in_tables))
    known = set(in_order)
    names: list[str | None] = []
    for place, text in enumerate(joined):
        fitting = [
            text[: colon.start()] for colon in re.finditer(":", text) if text[: colon.start()] in known
        ]
        same_place = [name for name in fitting if in_order[place : place + 1] == [name]]
        names.append(next(reversed(same_place or fitting), None))
    return names


def _by_name(lines: Iterable[tuple[str, Span | None, str]]) -> Mapping[str, Mapping[Span, str]]:
    tables: dict[str, dict[Span, str]] = {}
    for name, span, text in lines:
        if span:
            tables.setdefault(name, {})[span] = text
    return tables
