"""The documentation names everything that the code declares."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodedev.capabilities import kinds
from nodedev.capabilities.claim import TYPES
from nodedev.cli.app import app
from nodedev.fields import shape
from nodedev.model import CapabilityKind

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REASON = re.compile(r"[A-Z]+(?:_[A-Z]+)*")
IN_PROTOS = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")


def names(cls: type) -> Iterator[str]:
    """The XML names that a dataclass and all below it declare."""
    for field in shape(cls):
        if field.xml_name:
            yield field.xml_name
        if field.nested:
            yield from names(field.type)


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title}"
    return found[1]


def reasons() -> set[str]:
    """Every reason that stands in the code."""
    modules = (path for path in (ROOT / "nodedev").rglob("*.py") if path.parent.name != "v1")
    trees = (ast.parse(path.read_text()) for path in modules)
    places = (place for tree in trees for node in ast.walk(tree) for place in raised(node))
    words = (word.value for place in places for word in ast.walk(place) if isinstance(word, ast.Constant))
    return {word for word in words if isinstance(word, str) and REASON.fullmatch(word)}


def raised(node: ast.AST) -> Iterator[ast.expr]:
    """What is a reason in this node: an argument of that name, a class's own, or what _invalid hands on."""
    match node:
        case ast.keyword(arg="reason", value=value):
            yield value
        case ast.Assign(targets=[ast.Name(id="reason")], value=value):
            yield value
        case ast.AnnAssign(target=ast.Name(id="reason"), value=ast.expr() as value):
            yield value
        case ast.Call(func=ast.Name(id="_invalid"), args=[*_, last]):
            yield last


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.type)
def test_each_element_is_documented(kind: CapabilityKind) -> None:
    """Every XML element and attribute of a capability stands in its section, as code."""
    text = section((DOCS / "xml.md").read_text(), kind.type)
    documented = set(re.findall(r"`([\w-]+)`", text))
    assert sorted(set(names(kind.shape)) - documented) == []


def test_each_claim_is_documented() -> None:
    """Every type of claim has a row."""
    text = section((DOCS / "xml.md").read_text(), "claim")
    assert [type_ for type_ in TYPES if f"| `{type_}` |" not in text] == []


def test_each_reason_is_documented() -> None:
    """Every reason that is raised has a row, and no row is of a reason that is not."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert sorted(reasons() - set(rows)) == []
    assert sorted(set(rows) - reasons()) == []


def test_each_reason_of_the_protos_is_raised() -> None:
    """The protos promise no reason that the code does not know."""
    statuses = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "OUT_OF_RANGE"}
    statuses |= {"PERMISSION_DENIED", "RESOURCE_EXHAUSTED"}
    promised: set[str] = set()
    for path in (ROOT / "protos").rglob("*_service.proto"):
        comments = re.findall(r"^\s*// ?(.*)", path.read_text(), re.MULTILINE)
        for passage in re.findall(r"Errors:.*?(?:\n\s*\n|\Z)", "\n".join(comments), re.DOTALL):
            promised.update(IN_PROTOS.findall(passage))
    assert sorted(promised - statuses - reasons()) == []


def test_each_command_is_documented() -> None:
    """Every command of the program stands in the README."""
    text = (ROOT / "README.md").read_text()
    commands = app.to_info_dict(app.make_context("nodedev", ["--help"], resilient_parsing=True))["commands"]
    assert [name for name in commands if f"`{name}" not in text] == []


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """A link to a file of this project is to one that exists, and to a heading of it."""
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", path.read_text()):
        file, _, heading = target.partition("#")
        if "://" in file:
            continue
        found = (path.parent / file) if file else path
        assert found.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, target
