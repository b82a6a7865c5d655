"""A recording with a stream of events: what followed the snapshot is played again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodedev.errors import RecordingError
from nodedev.facts import replay
from nodedev.facts.host import Hints
from nodedev.facts.recorded import RecordedSource
from nodedev.facts.replay import EVENTS, Event, Replay
from tests.e2e.services import PLAIN

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
events = st.builds(
    Event,
    seconds=st.floats(0, 1e6).map(lambda seconds: round(seconds, 6)),
    paths=st.lists(texts, max_size=3).map(tuple),
    lost=st.booleans(),
    devices=texts,
    gone=st.lists(texts, max_size=3).map(tuple),
    texts=st.dictionaries(texts, texts, max_size=3),
)


@given(st.lists(events, max_size=5))
def test_what_is_written_is_read(stream: list[Event]) -> None:
    """Events come back as they were written, one a line."""
    assert replay.parse(b"".join(map(replay.write, stream))) == tuple(stream)


@given(st.binary(max_size=60))
def test_anything_else_is_a_value_error(data: bytes) -> None:
    """What is no stream of events raises ValueError, which tells the line, and nothing else."""
    told = ""
    try:
        replay.parse(data)
    except ValueError as error:
        told = str(error)
    assert told == "" or told.startswith("line ")


def test_events_come_in_their_order_and_once() -> None:
    """Each wait gives the next event, applied before it is told; then there are no more."""
    stream = [Event(0, (f"/devices/{n}",), n == 1, "", (), {}) for n in range(3)]
    applied: list[Event] = []
    watch = Replay(stream, applied.append, pace=0)
    for number, event in enumerate(stream):
        assert watch.wait(1) == Hints(frozenset(event.paths), event.lost)
        assert applied == stream[: number + 1]
    assert watch.wait(0) == Hints()


def test_an_event_waits_for_its_time() -> None:
    """What happened later than the wait lasts is not told yet."""
    watch = Replay([Event(1000, ("/devices/x",), False, "", (), {})], lambda _event: None)
    assert watch.wait(0) == Hints()


def test_partitions_come_and_go(tmp_path: Path) -> None:
    """A disk lists the partitions that the events have left it."""
    source = RecordedSource.open(PLAIN)
    disk = next(facts for facts in source.scan() if facts.partitions)
    gone, *kept = disk.partitions
    source.advance(Event(0, (), False, "", (f"{disk.path}/{gone}",), {}))
    after = source.read(disk.path)
    assert after is not None
    assert after.partitions == tuple(kept)
    stanza = f"P: {disk.path}/{gone}\nE: SUBSYSTEM=block\nE: DEVTYPE=partition\n\n"
    source.advance(Event(0, (), False, stanza, (), {}))
    assert (source.read(disk.path) or disk).partitions == disk.partitions


def test_a_recording_of_one_moment_is_not_watched() -> None:
    """Without events there is nothing to wait for."""
    assert RecordedSource.open(PLAIN).watch() is None


def test_a_damaged_stream_is_refused(tmp_path: Path) -> None:
    """A stream that is cut off is told with its line when the recording is opened."""
    shutil.copytree(PLAIN, tmp_path / "host")
    line = replay.write(Event(0, (), False, "", (), {}))
    (tmp_path / "host" / EVENTS).write_bytes(line + line[:10])
    with pytest.raises(RecordingError, match="line 2"):
        RecordedSource.open(tmp_path / "host")
