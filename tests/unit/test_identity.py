"""What file a path names: from the kernel's memory, or by a child that may sleep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodedev.errors import FactError
from nodedev.facts.identity import identify

SECONDS = 30.0


def test_a_file_in_memory_needs_no_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in use is identified with no program to ask."""
    file = tmp_path / "disk.img"
    file.write_bytes(b"\0" * 4096)
    with file.open():
        monkeypatch.setenv("PATH", str(tmp_path))
        found = identify(str(file), SECONDS)
    assert found
    assert (found.inode, found.kind, found.size_bytes) == (file.stat().st_ino, "file", 4096)


def test_a_child_tells_the_same(tmp_path: Path) -> None:
    """What the kernel has to look up, as anything below a file, is told by stat(1)."""
    (tmp_path / "file").touch()
    assert identify(str(tmp_path / "file" / "below"), SECONDS) is None


def test_a_directory_is_neither_file_nor_block_device(tmp_path: Path) -> None:
    """Its kind is other, and it has no size."""
    found = identify(str(tmp_path), SECONDS)
    assert found
    assert (found.kind, found.size_bytes) == ("other", None)


def test_a_child_that_sleeps_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline nobody waits for the child; when it is back its path is asked for again."""
    (tmp_path / "file").touch()
    (tmp_path / "stat").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "stat").chmod(0o755)
    below = str(tmp_path / "file" / "below")
    with monkeypatch.context() as patched:
        patched.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(FactError, match="no answer within"):
            identify(below, 0.1)
    while True:
        try:
            assert identify(below, SECONDS) is None
        except FactError as error:
            assert "still blocks" in str(error)  # noqa: PT017  it has been killed, and is about to end
        else:
            break


def test_without_stat_a_name_that_is_not_in_memory_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell, which is said, and not that there is no such file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FactError, match="cannot run stat"):
        identify(str(tmp_path / "file" / "below"), SECONDS)
