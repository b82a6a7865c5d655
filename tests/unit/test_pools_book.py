"""What is kept of pools: definitions as files, activity until the next boot, and secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodedev.errors import AlreadyExistsError, NodedevError, OutOfRangeError
from nodedev.pools import secrets
from nodedev.pools.book import LOG_LIMIT, Book
from nodedev.pools.definition import predefined
from nodedev.pools.document import pool_xml, read_pool
from nodedev.pools.store import Activity, Session, Store
from tests.unit.pool_hosts import iscsi, scsi

MPATH = predefined()[0]
ACTIVITY = Activity(active=True, sessions=(Session(3, "127.0.0.1:3260,1"),), records=("127.0.0.1:3260,1",))


def revisions(start: int = 1) -> Callable[[], int]:
    """What an inventory gives for each change."""
    return count(start).__next__


def opened(folder: Path, boot: str = "this") -> Book:
    """The book of a folder."""
    return Book(Store(folder, boot), revisions())


def refusal(call: Callable[[], object]) -> str:
    """The reason of a refusal."""
    with pytest.raises(NodedevError) as caught:
        call()
    return caught.value.reason


def test_predefined_pools_are_active(tmp_path: Path) -> None:
    """A host has a mpath, a raid and a loop pool, active, without any file."""
    book = opened(tmp_path / "absent")
    assert {name: pool.active for name, pool in book.pools.items()} == dict.fromkeys(
        ("loop", "mpath", "raid"), True
    )
    assert not (tmp_path / "absent").exists()


def test_definitions_outlast_the_service(tmp_path: Path) -> None:
    """A definition and its autostart are there again after a restart; nothing else is."""
    book = opened(tmp_path)
    book.define(scsi("/dev/mapper"))
    book.set_autostart("hba", wanted=True)
    again = opened(tmp_path).pools["hba"]
    assert again.definition == book.get("hba").definition
    assert (again.active, again.autostart, again.persistent) == (False, True, True)
    opened(tmp_path).undefine("hba")
    assert "hba" not in opened(tmp_path).pools
    assert not list((tmp_path / "autostart").iterdir())


def test_files_are_for_the_owner(tmp_path: Path) -> None:
    """Nobody else reads the files, and no temporary one is left."""
    opened(tmp_path / "pools").define(scsi("/dev/mapper"))
    (path,) = (tmp_path / "pools").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_same_definition_again_changes_nothing(tmp_path: Path) -> None:
    """Defining a pool as it is makes no revision; another target does."""
    book = opened(tmp_path)
    pool = book.define(scsi("/dev/mapper"))
    assert book.at(1) == book.pools
    assert book.define(pool.definition) == pool
    assert book.at(1) == book.pools
    assert book.define(replace(pool.definition, target="/dev")).definition.target == "/dev"
    assert book.at(1)["hba"].definition.target == "/dev/mapper"


def test_there_is_one_mpath_pool(tmp_path: Path) -> None:
    """A second mpath pool is refused with the name of the first; the first may be defined anew."""
    book = opened(tmp_path)
    with pytest.raises(AlreadyExistsError, match="'mpath' is it"):
        book.define(replace(MPATH, name="other", uuid="3e3fce45-4f53-4fa7-bb32-11f34168b82b"))
    book.define(replace(MPATH, target="/dev/disk/by-id"))
    assert opened(tmp_path).get("mpath").definition.target == "/dev/disk/by-id"
    book.undefine("mpath")
    assert book.get("mpath").definition == MPATH
    assert refusal(lambda: book.undefine("mpath")) == "POOL_PREDEFINED"


def test_names_and_uuids_are_one_pools(tmp_path: Path) -> None:
    """Another type, another UUID under the name, or the UUID under another name is refused."""
    book = opened(tmp_path)
    pool = book.define(scsi("/dev/mapper")).definition
    others = (
        iscsi("/dev/mapper", name="hba"),
        scsi("/dev/mapper"),
        replace(pool, name="other"),
    )
    for other in others:
        assert refusal(partial(book.define, other)) == "POOL_EXISTS"
    assert book.get(pool.uuid).name == "hba"


def test_broken_files_are_told_and_left_alone(tmp_path: Path) -> None:
    """A file that is no pool, or another one than its name says, is a note, and stays as it is."""
    contents = {
        "cut.xml": "<pool type='scsi'><na",
        "other.xml": pool_xml(scsi("/dev/mapper")),
        "second.xml": pool_xml(replace(MPATH, name="second", uuid="3e3fce45-4f53-4fa7-bb32-11f34168b82b")),
        "bytes.xml": "\udcff",
    }
    for name, text in contents.items():
        (tmp_path / name).write_text(text, errors="surrogateescape")
    book = opened(tmp_path)
    assert sorted(book.pools) == ["loop", "mpath", "raid"]
    told = " ".join(note.message for note in book.problems)
    assert all(name.removesuffix(".xml") in told for name in contents)
    assert refusal(lambda: book.define(scsi("/dev/mapper", name="cut"))) == "POOL_FILE_BROKEN"
    for name, text in contents.items():
        assert (tmp_path / name).read_text(errors="surrogateescape") == text


def test_a_file_without_uuid_keeps_its_pools_uuid(tmp_path: Path) -> None:
    """A definition written by hand has the same UUID after each start."""
    (tmp_path / "hand.xml").write_text(
        "<pool type='scsi'><name>hand</name><source><adapter name='host0'/></source>"
        "<target><path>/dev/mapper</path></target></pool>"
    )
    assert opened(tmp_path).get("hand") == opened(tmp_path).get("hand")


def test_activity_lasts_until_the_next_boot(tmp_path: Path) -> None:
    """What a pool logged in to is known after a restart of the service, not of the host."""
    book = opened(tmp_path)
    book.define(iscsi("/dev/mapper"))
    book.set_activity("virtimages", ACTIVITY)
    again = opened(tmp_path).get("virtimages")
    assert (again.active, again.sessions, again.records) == (True, ACTIVITY.sessions, ACTIVITY.records)
    assert not opened(tmp_path, boot="another").get("virtimages").active


def test_a_damaged_activity_is_none(tmp_path: Path) -> None:
    """A file that cannot be understood counts as no activity, as after a boot."""
    book = opened(tmp_path)
    book.define(iscsi("/dev/mapper"))
    book.set_activity("virtimages", ACTIVITY)
    path = tmp_path / "active" / "virtimages"
    path.write_text(path.read_text().replace("session 3", "session three"))
    assert not opened(tmp_path).get("virtimages").active


def test_a_stopped_predefined_pool_stays_stopped(tmp_path: Path) -> None:
    """A predefined pool can be stopped, also for the next start of the service in this boot."""
    opened(tmp_path).set_activity("loop", Activity(active=False))
    assert not opened(tmp_path).get("loop").active
    assert opened(tmp_path, boot="another").get("loop").active


def test_an_active_pool_keeps_its_definition(tmp_path: Path) -> None:
    """While it is logged in, a pool's source cannot change and it cannot be undefined; its target can."""
    book = opened(tmp_path)
    pool = book.define(iscsi("/dev/mapper")).definition
    book.set_activity("virtimages", ACTIVITY)
    elsewhere = replace(pool, iqn="iqn.2026-11.com.example:other")
    assert refusal(lambda: book.define(elsewhere)) == "POOL_ACTIVE"
    assert refusal(lambda: book.undefine("virtimages")) == "POOL_ACTIVE"
    assert book.define(replace(pool, target="/dev/disk/by-path")).sessions == ACTIVITY.sessions


def test_a_recorded_hosts_pools_are_all_active(tmp_path: Path) -> None:
    """Where nothing can be started, each defined pool shows its volumes."""
    opened(tmp_path).define(iscsi("/dev/mapper"))
    book = Book(Store(tmp_path, "this"), revisions(), everything_active=True)
    assert book.get("virtimages").active


def test_pools_are_known_as_they_were() -> None:
    """The book tells the pools of any revision that it still remembers, and says when it does not."""
    book = Book(None, revisions())
    book.define(scsi("/dev/mapper"))
    for number in range(LOG_LIMIT):
        book.set_activity("hba", Activity(active=number % 2 == 0))
    assert book.at(LOG_LIMIT)["hba"].active is not book.pools["hba"].active
    assert "hba" in book.at(1)
    with pytest.raises(OutOfRangeError):
        book.at(0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Without rights on the folder there is one clear error and no half-defined pool."""
    tmp_path.chmod(0o500)
    book = opened(tmp_path / "pools")
    assert refusal(lambda: book.define(scsi("/dev/mapper"))) == "STATE_UNWRITABLE"
    assert "hba" not in book.pools


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    """A state folder that is none is one clear error, and the pool is not half defined."""
    (tmp_path / "pools").write_text("")
    book = opened(tmp_path / "pools")
    assert book.problems
    assert refusal(lambda: book.define(scsi("/dev/mapper"))) == "STATE_UNWRITABLE"
    assert "hba" not in book.pools


def test_a_secret_is_read_from_its_owners_file(tmp_path: Path) -> None:
    """A password is one line of a file that only its owner may read."""
    path = tmp_path / "virtimages"
    path.write_text("a-chap-secret\n")
    path.chmod(0o600)
    assert secrets.read(tmp_path, "virtimages") == "a-chap-secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_secret_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """Rights of the group or of others make a secret unusable, and the refusal does not tell it."""
    path = tmp_path / "virtimages"
    path.write_text("a-chap-secret")
    path.chmod(mode)
    with pytest.raises(NodedevError, match="chmod 600") as caught:
        secrets.read(tmp_path, "virtimages")
    assert caught.value.reason == "SECRET_INVALID"
    assert "a-chap-secret" not in caught.value.message


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"nul\0", b"x" * 300])
def test_a_secret_that_is_no_line_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that does not hold one line, as a record of open-iscsi must, is refused."""
    path = tmp_path / "virtimages"
    path.write_bytes(content)
    path.chmod(0o600)
    assert refusal(lambda: secrets.read(tmp_path, "virtimages")) == "SECRET_INVALID"


def test_a_link_or_pipe_is_no_secret(tmp_path: Path) -> None:
    """A symbolic link is not followed, and a FIFO is not waited for."""
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "absent"):
        assert refusal(partial(secrets.read, tmp_path, name)) == "SECRET_INVALID"


def test_uuid_of_the_name_is_kept() -> None:
    """A document without a UUID gets that of the pool it defines anew."""
    text = pool_xml(scsi("/dev/mapper")).replace("<uuid>", "<!--").replace("</uuid>", "-->")
    known = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
    assert read_pool(text, lambda name: known if name == "hba" else None).uuid == known
