"""What a device document may be: the limits within which it is parsed, and its grammar.

The grammar is device.rng and one fragment for each registered capability. A fragment stands beside
this file as <type>.rng, so a new capability brings its own and edits no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from lxml import etree

from nodedev.capabilities import kinds
from nodedev.errors import Violation, XmlError

SIZE_MAX_BYTES = 1 << 20
DEPTH_MAX = 32
# libxml2's validation takes quadratic time over an element's children and attributes.
ELEMENTS_MAX = 10_000
ATTRIBUTES_MAX = 64

# So little that nesting is told here before libxml2 gives up at its own 256 levels.
_FEED_BYTES = 512
_RELAXNG = "http://relaxng.org/ns/structure/1.0"
_POSITION = re.compile(r", line \d+, column \d+$")
_LACKING = re.compile(r"Expecting an? element (\S+), got nothing")


def parse(xml: bytes | str) -> etree._Element:
    """The root of a document; comments and processing instructions are left out.

    Raises XmlError for what is not well-formed, over a limit, or has a DOCTYPE: without one there
    are no entities, and nothing to be fetched.
    """
    # An encoding that a str declares is of bytes that are gone; what is fed here is UTF-8.
    data = xml.encode("utf-8", "surrogatepass") if isinstance(xml, str) else xml
    if len(data) > SIZE_MAX_BYTES:
        raise refusal([Violation("/", f"larger than {SIZE_MAX_BYTES} bytes")])
    parser = etree.XMLPullParser(
        ("start", "end"),
        encoding="utf-8" if isinstance(xml, str) else None,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        depth = count = 0
        for start in range(0, len(data), _FEED_BYTES):
            parser.feed(data[start : start + _FEED_BYTES])
            for event, element in parser.read_events():
                depth += 1 if event == "start" else -1
                count += event == "start"
                _check_limits(element, depth, count)
        return parser.close()
    except etree.XMLSyntaxError as error:
        # Not the exception's own log, which goes on over all documents of the thread.
        first = next(iter(parser.feed_error_log), None)
        message = first.message if first else _POSITION.sub("", error.msg or "not well-formed")
        raise refusal([Violation("/", message, first.line if first else None)]) from error


def _check_limits(element: etree._Element, depth: int, count: int) -> None:
    if element.getroottree().docinfo.doctype:
        raise refusal([Violation("/", "a DOCTYPE is not allowed")])
    message = None
    if depth > DEPTH_MAX:
        message = f"elements nest more than {DEPTH_MAX} deep"
    elif count > ELEMENTS_MAX:
        message = f"more than {ELEMENTS_MAX} elements"
    elif len(element.attrib) > ATTRIBUTES_MAX:
        message = f"an element with more than {ATTRIBUTES_MAX} attributes"
    if message:
        raise refusal([Violation("/", message, element.sourceline)])


def refusal(violations: list[Violation]) -> XmlError:
    """The error for a document's violations: its message is the first one's."""
    first = violations[0]
    where = f"line {first.line}: " if first.line else ""
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return XmlError(f"{where}{first.field}: {first.message}{more}", violations=tuple(violations))


def fragment(name: str) -> etree._Element:
    """The grammar element of a fragment; FileNotFoundError when the capability brings none."""
    return etree.fromstring((files(__name__) / f"{name}.rng").read_bytes())


@cache
def device_grammar() -> etree.RelaxNG:
    """The grammar of whole device documents, every registered capability in it."""
    return _assembled(*(kind.type for kind in kinds()))


@cache
def header_grammar() -> etree.RelaxNG:
    """The grammar of a device element without capabilities."""
    return _assembled()


@cache
def capability_grammar(type_: str) -> etree.RelaxNG:
    """The grammar of one capability element by itself."""
    return _assembled(type_, start="capability")


def _assembled(*types: str, start: str = "device") -> etree.RelaxNG:
    grammar = fragment("device")
    for type_ in types:
        grammar.extend(fragment(type_))
    if not types:
        none = etree.SubElement(grammar, f"{{{_RELAXNG}}}define", name="capability")
        etree.SubElement(none, f"{{{_RELAXNG}}}notAllowed")
    for reference in grammar.iterfind(f"{{{_RELAXNG}}}start/{{{_RELAXNG}}}ref"):
        reference.set("name", start)
    return etree.RelaxNG(grammar)


def misfit(grammar: etree.RelaxNG, element: etree._Element) -> tuple[etree._Element, str] | None:
    """The place deepest in the element that does not fit the grammar, and why; None when it fits.

    libxml2 logs the element that fails and then each one around it; of an element in an interleave
    it says no more than that it is one too many.
    """
    if grammar.validate(element):
        return None
    place, message = max(_complaints(grammar, element), key=lambda found: len(list(found[0].iterancestors())))
    return place, message


def _complaints(grammar: etree.RelaxNG, element: etree._Element) -> Iterator[tuple[etree._Element, str]]:
    for entry in grammar.error_log:
        # The log's paths start at the element that was judged, as if it were the root.
        found = _at(element, entry.path or "")
        if found is not None:
            lacking = _LACKING.match(entry.message)
            yield (
                found,
                f"<{lacking[1]}> is missing" if lacking else "is not allowed here, or not with this content",
            )
    yield element, "does not fit the grammar"


def _at(element: etree._Element, path: str) -> etree._Element | None:
    below = path.lstrip("/").partition("/")[2]
    try:
        # etree.XPath rather than find(), whose member[9999] takes quadratic time.
        found = etree.XPath(below or ".")(element)
    except etree.XPathError:  # a namespace's prefix, of which the path alone tells nothing
        return None
    return next((each for each in found if etree.iselement(each)), None) if isinstance(found, list) else None
