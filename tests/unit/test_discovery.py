"""Discovery: what a pass after an event finds is what a survey of the whole host finds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from nodedev import discovery as discovery_module
from nodedev.capabilities import attributes, kinds_of
from nodedev.discovery import Discovery
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.recorded import RecordedSource
from nodedev.facts.replay import Event
from nodedev.model import Capability, CapabilityKind, Device, Scene

FIXTURE = Path(__file__).parents[2] / "fixtures" / "san-basic"


@pytest.fixture
def source() -> RecordedSource:
    """A SAN host."""
    return RecordedSource.open(FIXTURE, attributes())


def surveyed(source: RecordedSource) -> dict[str, Device]:
    """The host's devices, found anew."""
    return by_name(Discovery().survey(Host.scan(source)).devices)


def by_name(devices: Iterable[Device]) -> dict[str, Device]:
    """The devices by their names."""
    return {device.name: device for device in devices}


def block(source: RecordedSource, alias: str) -> DeviceFacts:
    """The block device with that dm name or kernel name."""
    return next(
        facts
        for facts in source.scan()
        if facts.subsystem == "block" and alias in (facts.attributes.get("dm/name"), facts.kernel_name)
    )


def gone(facts: DeviceFacts) -> Event:
    """What happens when a device goes away, from device-mapper's tables too."""
    name = facts.attributes.get("dm/name", facts.kernel_name)
    texts = {
        file.name: "".join(
            line for line in file.read_text().splitlines(keepends=True) if not line.startswith(f"{name}:")
        )
        for file in FIXTURE.glob("dmsetup-*.txt")
    }
    return Event(seconds=0, paths=(facts.path,), lost=False, devices="", gone=(facts.path,), texts=texts)


def test_nothing_new_without_a_change(source: RecordedSource) -> None:
    """A visit to each device by itself finds what the survey found."""
    discovery = Discovery()
    before = by_name(discovery.survey(Host.scan(source)).devices)
    for facts in list(source.scan()):
        found = discovery.revisit(Host(source), [facts.path])
        assert found.removed == ()
        assert by_name(found.devices).items() <= before.items()


@pytest.mark.parametrize("alias", ["mpatha", "mpathd", "md127", "vg1-data", "loop0", "mpathb-part1", "zram0"])
def test_a_removal_reaches_what_it_concerns(source: RecordedSource, alias: str) -> None:
    """When a device goes, its members and holders come out as in a survey of the host without it."""
    discovery = Discovery()
    copy = by_name(discovery.survey(Host.scan(source)).devices)
    device = block(source, alias)
    source.advance(gone(device))
    found = discovery.revisit(Host(source), [device.path])
    for name in found.removed:
        del copy[name]
    copy.update(by_name(found.devices))
    assert copy == surveyed(source)


def test_a_survey_after_changes_forgets_what_is_gone(source: RecordedSource) -> None:
    """A second survey, as after lost events, tells the names of those that went."""
    discovery = Discovery()
    before = by_name(discovery.survey(Host.scan(source)).devices)
    source.advance(gone(block(source, "mpatha")))
    found = discovery.survey(Host.scan(source))
    assert found.removed == tuple(before.keys() - by_name(found.devices).keys())
    assert by_name(found.devices) == surveyed(source)


def test_work_is_that_of_what_changed(source: RecordedSource) -> None:
    """A visit that finds nothing changed looks at the one device."""
    discovery = Discovery()
    discovery.survey(Host.scan(source))
    start = discovery.probes
    discovery.revisit(Host(source), [block(source, "mpatha").path])
    assert discovery.probes == start + 1


def test_two_of_one_name_are_told_apart(source: RecordedSource) -> None:
    """Names that would fall together are numbered, and the second device says so."""
    text = "".join(
        f"P: /devices/virtual/block/{name}\nN: {name}\nE: SUBSYSTEM=block\nE: DEVTYPE=disk\nE: MAJOR=240\n"
        f"E: MINOR={minor}\nA: size=8\\n\n\n"
        for minor, name in enumerate(("x-y", "x_y"))
    )
    source.advance(Event(0, (), False, text, (), {}))
    found = surveyed(source)
    assert found["block_x_y"].notes == ()
    assert "block_x_y" in found["block_x_y_2"].notes[0].message


def test_a_reused_kernel_name_is_another_device(source: RecordedSource) -> None:
    """When another map stands where one was, the old name goes and the new one comes."""
    discovery = Discovery()
    before = by_name(discovery.survey(Host.scan(source)).devices)
    path = block(source, "mpatha").path
    old = next(name for name, device in before.items() if device.sysfs_path == f"/sys{path}")
    text = (
        f"P: {path}\nN: dm-0\nE: SUBSYSTEM=block\nE: DEVTYPE=disk\nE: MAJOR=253\nE: MINOR=0\n"
        "A: dm/name=other\\n\nA: dm/uuid=mpath-3another\\n\nA: dm/suspended=0\\n\nA: size=8\\n\n\n"
    )
    source.advance(Event(0, (path,), False, text, (), {}))
    found = discovery.revisit(Host(source), [path])
    assert old in found.removed
    assert "mpath_3another" in by_name(found.devices)
    copy = {name: device for name, device in before.items() if name not in found.removed}
    copy.update(by_name(found.devices))
    assert copy == surveyed(source)


def test_a_probe_that_fails_hides_no_device(source: RecordedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which one capability's probe stumbles is listed with the others, and says so."""

    def stumble(facts: DeviceFacts, _scene: Scene) -> Capability | None:
        if facts.kernel_name == "loop0":
            raise ValueError("unforeseen")
        return None

    broken = CapabilityKind(shape=Capability, probe=stumble, attributes={}, order=99)
    before = surveyed(source)
    monkeypatch.setattr(discovery_module, "kinds_of", lambda subsystem: (*kinds_of(subsystem), broken))
    monkeypatch.setattr(Capability, "TYPE", "broken", raising=False)
    after = surveyed(source)
    assert after.keys() == before.keys()
    assert [device.name for device in after.values() if device.notes != before[device.name].notes] == [
        "loop_loop0"
    ]
