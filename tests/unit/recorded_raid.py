"""A pass over a recorded host, as seen by the raid capability."""

from __future__ import annotations

from pathlib import Path

from nodedev.capabilities import raid
from nodedev.capabilities.raid import Raid
from nodedev.facts.host import DeviceFacts, Host
from nodedev.facts.recorded import RecordedSource
from nodedev.model import Scene

DATA = Path(__file__).parent.parent / "data"


class Pass:
    """One pass over a recorded host."""

    def __init__(self, recording: Path) -> None:
        self.host = Host(RecordedSource.open(recording, raid.KIND.attributes))

    def facts(self, kernel_name: str) -> DeviceFacts:
        """The block device of that kernel name."""
        found = self.host.block(kernel_name)
        assert found is not None
        return found

    def probed(self, kernel_name: str) -> tuple[Raid | None, list[str]]:
        """What the probe makes of the device, and the messages of its notes."""
        scene = Scene(self.host, lambda facts: f"device-{facts.kernel_name}")
        found = raid.probe(self.facts(kernel_name), scene)
        assert found is None or isinstance(found, Raid)
        return found, [note.message for note in scene.notes]

    def raid(self, kernel_name: str) -> Raid:
        """The device's array."""
        found, _ = self.probed(kernel_name)
        assert found is not None
        return found

    def named(self, name: str) -> Raid:
        """The dm array of that name."""
        numbers = {found.name: found.device_number for found in self.host.source.maps()}
        facts = self.host.block_number(numbers[name])
        assert facts is not None
        return self.raid(facts.kernel_name)

    def members(self, kernel_name: str) -> list[tuple[str, str]]:
        """The device's relations by kernel names."""
        return [(kind, facts.kernel_name) for kind, facts in raid.members(self.facts(kernel_name), self.host)]
