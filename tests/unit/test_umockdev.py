"""The text format of a recording's devices."""

from __future__ import annotations

import re
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodedev.facts.umockdev import Stanza, StanzaError, escape, line_pattern, parse, unescape, write

EVERYTHING = line_pattern(r"[^=\n]+")


def _all(_subsystem: str) -> re.Pattern[str]:
    return EVERYTHING


def _read(data: bytes) -> list[Stanza]:
    return list(parse(BytesIO(data), _all))


def test_every_kind_of_line() -> None:
    """Node, links, properties, text and binary attributes and symlinks are told apart."""
    (found,) = _read(
        b"P: /devices/x\n# made by hand\nN: x0=00FF\nS: disk/a\nE: SUBSYSTEM=block\nE: K=a=b\n"
        b"A: t=one\\ntwo\\n\nA: empty=\nH: vpd_pg80=00ff41\nL: driver=../sd\nL: slaves/sda=../../sda\n\n"
    )
    assert found == Stanza(
        path="/devices/x",
        node="/dev/x0",
        links=("/dev/disk/a",),
        properties={"SUBSYSTEM": "block", "K": "a=b"},
        attributes={"t": b"one\ntwo\n", "empty": b"", "vpd_pg80": b"\x00\xffA"},
        symlinks={"driver": "../sd", "slaves/sda": "../../sda"},
    )


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a\\n", b"a\n"),
        ("\\\\n", b"\\n"),
        ("A\\\\_S\\n", b"A\\_S\n"),
        ("\\303\\251", "é".encode()),
        ("é", "é".encode()),
        ('\\"\\t\\0011', b'"\t\x011'),
        ("", b""),
    ],
)
def test_escapes(text: str, data: bytes) -> None:
    """The escapes are GLib's, octal bytes among them."""
    assert unescape(text) == data


@pytest.mark.parametrize("text", ["\\", "a\\q", "\\x41", "\\8", "\\\\\\"])
def test_an_escape_that_is_none(text: str) -> None:
    """A backslash that nothing valid follows is damage."""
    with pytest.raises(ValueError, match="bad escape"):
        unescape(text)


@settings(deadline=None)
@given(st.binary())
def test_bytes_survive_escaping(data: bytes) -> None:
    """What is escaped reads back as it was, in one line of ASCII."""
    text = escape(data)
    assert b"\n" not in text
    assert unescape(text.decode("ascii")) == data


_NAMES = st.lists(st.text("ab_-*", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join)
_WORDS = st.text("ab/:!\\x2é", min_size=1, max_size=8)
_LINES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20)
_STANZAS = st.builds(
    Stanza,
    path=_WORDS.map("/devices/{}".format),
    node=st.none() | _WORDS.map("/dev/{}".format),
    links=st.lists(_WORDS.map("/dev/{}".format), max_size=3).map(tuple),
    properties=st.dictionaries(
        st.text("AB_.", min_size=1, max_size=4),
        _LINES,
    ).map(lambda found: {**found, "SUBSYSTEM": "block"}),
    attributes=st.dictionaries(_NAMES, st.binary(max_size=60)),
    symlinks=st.dictionaries(_NAMES, _LINES),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(_STANZAS, max_size=2))
def test_what_is_written_is_read_back(stanzas: list[Stanza]) -> None:
    """Any device survives the format, whatever bytes its attributes hold."""
    assert _read(b"".join(map(write, stanzas))) == stanzas


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"P: /devices/x\nE: SUBSYSTEM=block\nA: size=20", 3, "cut off in the middle of a line"),
        (b"P: /devices/x\nE: DEVNAME=x\n\n", 1, "half a device"),
        (b"P: /devices/x\nE: SUBSYSTEM=a\n\n\nP: /devices/y\nE: SUBSYSTEM=a\nA: b=\\q\n\n", 7, "bad escape"),
        (b"P: /devices/x\nE: SUBSYSTEM=a\nH: b=0\n\n", 3, "not a line"),
        (b"P: /devices/x\nE: SUBSYSTEM\n\n", 2, "not a line"),
        (b"E: SUBSYSTEM=a\n\n", 1, "does not begin with its path"),
        (b"P: /etc/passwd\nE: SUBSYSTEM=a\n\n", 1, "does not begin with its path"),
        (b"\x1f\x8b\x00\n\n", 1, "not a line"),
    ],
)
def test_damage_is_told_with_its_line(data: bytes, line: int, message: str) -> None:
    """A damaged description is refused, and the line counts from 1."""
    with pytest.raises(StanzaError, match=message) as caught:
        _read(data)
    assert caught.value.line == line


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing else than StanzaError comes of anything."""
    with suppress(StanzaError):
        _read(data)


def test_a_last_device_that_nothing_closes() -> None:
    """Without its empty line the last device may be cut off, and says so."""
    first, last = _read(b"P: /devices/x\nE: SUBSYSTEM=a\n\nP: /devices/y\nE: SUBSYSTEM=a\n")
    assert (first.closed, last.closed) == (True, False)


def test_only_wanted_attributes_are_decoded() -> None:
    """An attribute that nobody asked for may hold anything."""
    data = b"P: /devices/x\nE: SUBSYSTEM=block\nA: bad=\\q\nA: size=1\\n\nA: size2=1\n\n"
    (found,) = parse(BytesIO(data), lambda _subsystem: line_pattern("size|ro"))
    assert found.attributes == {"size": b"1\n"}
