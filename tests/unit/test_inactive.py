"""Which definitions are of devices that are not there."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodedev.capabilities import attributes, kinds
from nodedev.capabilities._raid import Raid
from nodedev.capabilities.loop import Backing, Loop
from nodedev.capabilities.mpath import Mpath
from nodedev.changes.definitions import Definitions, Wish, changing_of, definition_of
from nodedev.changes.inactive import inactive
from nodedev.errors import InvalidError
from nodedev.facts.host import Host
from nodedev.model import Capability, Device, Site
from tests.unit.test_changes import HOSTS, site, site_of
from tests.unit.trees import Tree

_WORDS = st.sampled_from(["", "0"])


class Drawn(NamedTuple):
    """A site that some devices are missing from, and what is defined."""

    site: Site
    definitions: Definitions


def another(found: Capability, word: str) -> Capability:
    """The capability, or one like it of a device that is nowhere."""
    match found:
        case Loop(backing=Backing(path=path)):
            return replace(found, backing=Backing(path=f"{path}{word}"))
        case Mpath(wwid=wwid):
            return replace(found, wwid=f"{wwid}{word}")
        case Raid(uuid=str(uuid)) if word:
            return replace(found, uuid=uuid[::-1], name=f"{found.name}{word}")
    return found


def defined(definitions: Definitions, devices: list[Device], words: list[str]) -> None:
    """Keeps a definition of each that can have one."""
    for number, (device, word) in enumerate(zip(devices, words, strict=True)):
        changed = changing_of(device)
        if changed is None:
            continue
        capability, changing = changed
        try:
            definition = definition_of(Wish(f"number{number}", another(capability, word), changing))
        except InvalidError:  # a loop device whose file is deleted, an array without UUID
            continue
        if definitions.by_identity(definition.identity) is None:
            definitions.keep(definition)


def by_asking_each(drawn: Drawn) -> set[str]:
    """The same, each definition held against each device."""
    return {
        definition.name
        for definition in drawn.definitions
        if not any(
            definition.wish.changing.same(definition.wish.capability, device, drawn.site.host)
            for device in drawn.site.devices.values()
        )
    }


@pytest.mark.parametrize("host", HOSTS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_definitions_of_what_is_not_there(
    host: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Exactly those are inactive that no device is the same as."""
    whole = site(host)
    able = [device for device in whole.devices.values() if changing_of(device)]
    gone = data.draw(st.sets(st.sampled_from(able))) if able else set()
    devices = {name: device for name, device in whole.devices.items() if device not in gone}
    drawn = Drawn(replace(whole, devices=devices), Definitions(tmp_path_factory.mktemp("state")))
    words = data.draw(st.lists(_WORDS, min_size=len(able), max_size=len(able)))
    defined(drawn.definitions, able, words)
    found = {wish.name for wish in inactive(drawn.definitions, drawn.site)}
    assert found & {definition.name for definition in drawn.definitions} == by_asking_each(drawn)


def live(tree: Tree) -> Site:
    """The tree as it is now."""
    return site_of(Host.scan(tree.source(attributes())))


def test_a_file_by_another_path(tmp_path: Path) -> None:
    """A loop device is there whichever way its definition names the file, until the way leads elsewhere."""
    file, link = tmp_path / "disk.img", tmp_path / "link.img"
    file.touch()
    link.symlink_to(file)
    tree = Tree(tmp_path / "host")
    uevent = {"MAJOR": "7", "MINOR": "0", "DEVNAME": "loop0", "DEVTYPE": "disk"}
    tree.device("/devices/virtual/block/loop0", "block", uevent, {"loop/backing_file": str(file)}, udev="")
    definitions = Definitions(tmp_path)
    (changing,) = (kind.changing for kind in kinds() if kind.changing and kind.shape is Loop)
    for name, path in (("by_link", link), ("by_path", file), ("elsewhere", tmp_path)):
        definitions.keep(definition_of(Wish(name, Loop(backing=Backing(path=str(path))), changing)))
    assert [found.name for found in inactive(definitions, live(tree))] == ["elsewhere"]
    link.unlink()
    link.touch()
    assert [found.name for found in inactive(definitions, live(tree))] == ["by_link", "elsewhere"]
