"""SIGKILL at any moment: what the service had told is so, and what it had not is whole or not there.

NODEDEV_KILLS says how many times, NODEDEV_SEED which moments and which changes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from nodedev.capabilities.loop import Loop
from nodedev.client import Client
from nodedev.documents import read_device
from nodedev.errors import NodedevError, UnavailableError
from nodedev.v1 import device_service_pb2 as pb
from tests.e2e.living import REAL, Live, document, living, loops_of, started

pytestmark = REAL

KILLS = int(os.environ.get("NODEDEV_KILLS", "10"))
SEED = os.environ.get("NODEDEV_SEED", "1")
FILES = 4
LIFE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class State:
    """What there is of a file: a definition, which may be started with the service, and a device."""

    defined: bool = False
    autostart: bool = False
    bound: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A call, when it makes sense, and what it leaves; `between` is where it may be cut off."""

    call: Callable[[Client, str, str], object]
    wanted: Callable[[State], bool]
    after: Callable[[State], State]
    between: Callable[[State], State] = lambda state: state


CHANGES = {
    "create": Change(
        lambda client, _, xml: client.create_device(xml),
        lambda state: not state.bound,
        lambda state: replace(state, bound=True),
    ),
    "destroy": Change(
        lambda client, _, xml: client.destroy_device(client.create_device(xml).device.name),
        lambda state: state.bound,
        lambda state: replace(state, bound=False),
    ),
    "define": Change(
        lambda client, name, xml: client.define_device(
            xml.replace("<capability", f"<name>{name}</name><capability")
        ),
        lambda _: True,
        lambda state: replace(state, defined=True),
    ),
    "undefine": Change(
        lambda client, name, _: client.undefine_device(name),
        lambda state: state.defined,
        lambda state: replace(state, defined=False, autostart=False),
        # The link goes first: a definition that is to go is not started again.
        lambda state: replace(state, autostart=False),
    ),
    "autostart": Change(
        lambda client, name, _: client.set_device_autostart(name, autostart=True),
        lambda state: state.defined,
        lambda state: replace(state, autostart=True),
    ),
    "no autostart": Change(
        lambda client, name, _: client.set_device_autostart(name, autostart=False),
        lambda state: state.autostart,
        lambda state: replace(state, autostart=False),
    ),
    "start": Change(
        lambda client, name, _: client.start_device(name),
        lambda state: state.defined and not state.bound,
        lambda state: replace(state, bound=True),
    ),
}


class File:
    """One file, and in which states it may be by what its client was told."""

    def __init__(self, live: Live, number: int) -> None:
        self.name = f"kept{number}"
        self.path = live.file(f"kill{number}.img")
        self.scanned = number % 2 == 1
        self.xml = document(self.path, "<partition_scan>yes</partition_scan>" if self.scanned else "")
        self.told = {State()}
        self.calls: list[str] = []
        self.failures: list[NodedevError] = []

    def change(self, address: str, chooser: Random) -> None:
        """Changes one thing after the other until the service is gone."""
        (state,) = self.told
        self.calls, self.failures = [], []
        with Client(address, call_seconds=10) as client:
            while True:
                word = chooser.choice([name for name, change in CHANGES.items() if change.wanted(state)])
                change = CHANGES[word]
                self.calls.append(word)
                self.told = {state, change.between(state), change.after(state)}
                try:
                    change.call(client, self.name, self.xml)
                except UnavailableError:
                    return
                except NodedevError as error:
                    self.failures.append(error)
                    return
                state = change.after(state)
                self.told = {state}

    def found(self, live: Live) -> State:
        """What there is of it in the kernel and in the state folder."""
        kept = live.folder / "state" / "devices"
        return State(
            defined=(kept / f"{self.name}.xml").exists(),
            autostart=(kept / "autostart" / f"{self.name}.xml").is_symlink(),
            bound=str(self.path) in loops_of(live.folder).values(),
        )


def require_whole(live: Live, files: list[File]) -> None:
    """What the dead service left: at most one device of each file, finished, and no half a definition."""
    left = loops_of(live.folder)
    assert len(set(left.values())) == len(left)
    scanned = {str(file.path): file.scanned for file in files}
    for node, path in left.items():
        loop = Path(f"/sys/block/{Path(node).name}/loop")
        flags = {name: (loop / name).read_text().strip() for name in ("autoclear", "partscan")}
        assert flags == {"autoclear": "0", "partscan": str(int(scanned[path]))}
    paths = {file.name: str(file.path) for file in files}
    for kept in (live.folder / "state" / "devices").glob("[!.]*.xml"):
        (loop_,) = read_device(kept.read_bytes()).capabilities
        assert isinstance(loop_, Loop)
        assert loop_.backing
        assert loop_.backing.path == paths[kept.stem]


def require_true_list(live: Live, client: Client, files: list[File]) -> None:
    """What is listed of the files, active and inactive, is what there is; nothing is noted."""
    notes = [note.message for note in client.server_info().notes]
    assert not [note for note in notes if str(live.folder) in note]
    wanted = pb.DeviceFilter(capabilities=["loop"], presence=pb.PRESENCE_ALL)
    listed, persistent = {}, {}
    for device in client.list_devices(wanted).devices:
        (path,) = (found.loop.backing.path for found in device.capabilities if found.HasField("loop"))
        if path.startswith(f"{live.folder}/"):
            if not device.inactive:
                listed[device.devnode] = path
            persistent[path] = (device.persistent, device.autostart, not device.inactive)
    assert listed == loops_of(live.folder)
    found = {str(file.path): file.found(live) for file in files}
    assert persistent == {
        path: (state.defined, state.autostart, state.bound)
        for path, state in found.items()
        if state.defined or state.bound
    }


@contextmanager
def noted(about: str) -> Iterator[None]:
    """Adds to what fails how to have it again."""
    try:
        yield
    except Exception as error:
        error.add_note(about)
        raise


def test_a_killed_service_leaves_nothing_half_done() -> None:
    """After SIGKILL each device and definition is as was told, and what was under way is done or undone."""
    with living() as live:
        files = [File(live, number) for number in range(FILES)]
        for turn in range(KILLS):
            chooser = Random(f"{SEED} {turn}")
            threads = [
                threading.Thread(target=file.change, args=(live.address, Random(chooser.random())))
                for file in files
            ]
            for thread in threads:
                thread.start()
            threading.Event().wait(chooser.uniform(0, LIFE_SECONDS))
            live.kill()
            for thread in threads:
                thread.join()
            with noted(f"NODEDEV_SEED={SEED}, kill {turn}: {[file.calls for file in files]}"):
                require_whole(live, files)
                for file in files:
                    assert not file.failures
                    assert file.found(live) in file.told
                live.start()
                with Client(live.address) as client:
                    for file in files:
                        if file.found(live).autostart:
                            started(client, file.name)
                    require_true_list(live, client, files)
            for file in files:
                file.told = {file.found(live)}
