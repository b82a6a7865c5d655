"""How results reach the reader: plain and stable in a pipe, fitted and coloured on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from msgspec import Struct

if TYPE_CHECKING:
    from google.protobuf.message import Message

ABSENT = "-"

_GAP = "  "
_NARROW = 12  # no column of a terminal's table is made narrower
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP = 1024
_WHOLE_FROM = 100
_BROKEN_PIPE = 141  # as a shell shows SIGPIPE
_COLOURS = {
    "degraded": "yellow",
    "recovering": "yellow",
    "suspended": "yellow",
    "failed": "red",
    "faulty": "red",
    "inactive": "red",
    "deleted": "yellow",
}


def on_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()


def boxes() -> bool:
    """Whether lines may be drawn with box characters."""
    return on_terminal() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def emit(text: str) -> None:
    """Writes the text; a reader that has gone away (`| head`) ends the program quietly."""
    # Unbuffered (PYTHONUNBUFFERED), Python takes what a pipe took for the whole, and drops the rest.
    rest = memoryview(text.encode(sys.stdout.encoding, "backslashreplace"))
    try:
        while rest:
            rest = rest[sys.stdout.buffer.write(rest) :]
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)


def emit_json(message: Message) -> None:
    """Writes protobuf's JSON, field names as in the proto."""
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415  start-up cost

    emit(MessageToJson(message, preserving_proto_field_name=True, ensure_ascii=False) + "\n")


def plain(text: str) -> str:
    """The text with what a terminal could obey, control and other unprintable characters, escaped."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def painted(word: str) -> str:
    """A word of health or state, in its colour on a terminal."""
    colour = _COLOURS.get(word)
    if colour is None or not on_terminal() or os.environ.get("NO_COLOR"):
        return word
    return click.style(word, fg=colour)


def human_size(size_bytes: int) -> str:
    """The size in binary units to three figures, "931 GiB"; exact ones without a fraction."""
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size /= _STEP
        unit += 1
    if size >= _WHOLE_FROM or size == int(size):
        return f"{size:.0f} {_UNITS[unit]}"
    return f"{size:.1f} {_UNITS[unit]}"


class Heading(Struct, frozen=True):
    """A table's column: its title, and on which side its cells stand."""

    title: str
    right: bool = False


def _terminal_width() -> int:
    import shutil  # noqa: PLC0415  start-up cost: it loads every compression

    return shutil.get_terminal_size().columns


def table(headings: Sequence[Heading], rows: Iterable[Sequence[str]], *, header: bool = True) -> str:
    """The rows in aligned columns; on a terminal the widest ones are narrowed until a line fits."""
    titles = [[heading.title for heading in headings]] if header else []
    cells = titles + [[plain(cell) or ABSENT for cell in row] for row in rows]
    widths = [max(map(len, column), default=0) for column in zip(*cells, strict=True)]
    width = _terminal_width() if on_terminal() else None
    if width is not None:
        widths = _narrowed(widths, width)
        cells = [[_cut(cell, size) for cell, size in zip(row, widths, strict=True)] for row in cells]
    return "".join(f"{_line(row, headings, widths, width)}\n" for row in cells)


def _narrowed(widths: Sequence[int], width: int) -> list[int]:
    """The widths of columns that together fit, if that leaves each its due; the widest give first."""
    narrowed = list(widths)
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while excess > 0 and max(narrowed) > _NARROW:
        widest = narrowed.index(max(narrowed))
        next_widest = max((*narrowed[:widest], *narrowed[widest + 1 :], _NARROW))
        taken = min(excess, max(narrowed[widest] - next_widest, 1))
        narrowed[widest] -= taken
        excess -= taken
    return narrowed


def _cut(cell: str, size: int) -> str:
    """Leaves out the middle: names, paths and UUIDs differ at their ends."""
    if len(cell) <= size:
        return cell
    tail = (size - 1) // 2
    return f"{cell[: size - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{cell[len(cell) - tail :]}"


def _line(row: Sequence[str], headings: Sequence[Heading], widths: Sequence[int], width: int | None) -> str:
    placed = [
        cell.rjust(size) if heading.right else cell.ljust(size)
        for cell, heading, size in zip(row, headings, widths, strict=True)
    ]
    line = _GAP.join(placed).rstrip()
    if width is None:
        return line
    if len(line) > width:
        return f"{line[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
    for cell in row:
        if cell in _COLOURS:
            line = line.replace(f" {cell}", f" {painted(cell)}", 1)
    return line
