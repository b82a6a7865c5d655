"""Pools as views of devices: which volumes there are, how they are named, and how they are related."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree
from msgspec.structs import replace

from nodedev.capabilities.claim import Reason
from nodedev.errors import InvalidError, NodedevError
from nodedev.facts.nodes import Permissions
from nodedev.model import Device, Relation
from nodedev.pools import relations
from nodedev.pools.definition import KINDS, Definition, predefined
from nodedev.pools.document import disk_xml, pool_xml, read_pool, volume_xml
from nodedev.pools.relations import Side, related
from nodedev.pools.volumes import Volume, view
from tests.unit.pool_hosts import IQN, iscsi, san, scsi

MPATH, RAID, LOOP = predefined()
WWIDS = [f"360014050000000{number}6e6f6465646576000" for number in (1, 2)]


def names(pool: Definition, devices: dict[str, Device] | None = None) -> list[str]:
    """The names of a pool's volumes."""
    return list(view(pool, san() if devices is None else devices).volumes)


def without_maps() -> dict[str, Device]:
    """The host as it would be if multipathd had never run."""
    return {
        name: replace(device, holders=tuple(one for one in device.holders if one.kind != "path"))
        for name, device in san().items()
        if device.capability("mpath") is None
    }


def test_every_map_is_a_volume_of_the_mpath_pool() -> None:
    """Each dm-multipath map is a volume under its alias, with its WWID for a key and its paths in it."""
    volumes = view(MPATH, san()).volumes
    assert list(volumes) == [f"mpath{letter}" for letter in "abcdefgh"]
    assert volumes["mpathg"].key == WWIDS[0]
    assert volumes["mpathg"].path == "/dev/mapper/mpathg"
    assert len(volumes["mpathd"].constituents) == 4
    assert {part.kind for part in volumes["mpathd"].constituents} == {"path"}


def test_native_nvme_multipath_is_noted_where_it_has_no_name() -> None:
    """An NVMe head has no name in /dev/mapper and is a note there; by-id has one for it."""
    (note,) = view(MPATH, san()).notes
    assert "native NVMe multipath" in note.message
    by_id = view(replace(MPATH, target="/dev/disk/by-id"), san())
    assert not by_id.notes
    assert sum(name.startswith("nvme-") for name in by_id.volumes) == 1


def test_by_path_lists_each_path() -> None:
    """With target /dev/disk/by-path an iscsi pool has a volume for each path of each LUN."""
    assert names(iscsi("/dev/disk/by-path")) == [
        f"ip-127.0.0.{portal}:3260-iscsi-{IQN}-lun-{lun}" for portal in (1, 2) for lun in (0, 1)
    ]


@pytest.mark.parametrize("target", ["/dev/mapper", "/dev/mapper/", "/dev/mpath"])
def test_a_mapper_target_lists_each_lun_once(target: str) -> None:
    """With only the target path changed the same pool has the unique multipath volumes of its LUNs."""
    volumes = view(iscsi(target), san()).volumes
    assert {name: volume.key for name, volume in volumes.items()} == {"mpathg": WWIDS[0], "mpathh": WWIDS[1]}


def test_by_id_names_are_the_stable_ones() -> None:
    """With target /dev/disk/by-id the names are the LUNs' WWNs, which udev gives to their maps."""
    volumes = view(iscsi("/dev/disk/by-id"), san()).volumes
    assert list(volumes) == [f"wwn-0x{wwid[1:]}" for wwid in WWIDS]
    assert all(volume.device.startswith("mpath_") for volume in volumes.values())


def test_a_lun_without_a_map_is_a_note_of_the_pool() -> None:
    """Under a mapper target a LUN that has no map is told, not silently absent."""
    shown = view(iscsi("/dev/mapper"), without_maps())
    assert not shown.volumes
    assert len(shown.notes) == 4
    assert all("without a multipath map" in note.message for note in shown.notes)


def test_paths_that_share_a_by_id_name_are_noted() -> None:
    """Without maps two paths have the same by-id name: the first has it, the other is told."""
    shown = view(iscsi("/dev/disk/by-id"), without_maps())
    assert list(shown.volumes) == [f"wwn-0x{wwid[1:]}" for wwid in WWIDS]
    assert len(shown.notes) == 2
    assert all("has the same name" in note.message for note in shown.notes)


def test_scsi_pool_has_the_disks_of_one_host() -> None:
    """A scsi pool has the LUNs of its adapter and of no other, as paths or as maps."""
    (maps, paths) = (view(scsi(target), san()).volumes for target in ("/dev/mapper", "/dev/disk/by-path"))
    hosts = {san()[volume.device].parent for volume in paths.values()}
    assert {host.split("_")[1] for host in hosts if host} == {"0"}
    assert {volume.key for volume in maps.values()} == {volume.key for volume in paths.values()}


@pytest.mark.parametrize(
    "adapter",
    ["name='scsi_host0'", "type='scsi_host' name='host0'", "name='fc_host0'"],
)
def test_adapter_names(adapter: str) -> None:
    """A SCSI host is called as libvirt lets it be called."""
    assert names(scsi("/dev/disk/by-path", adapter)) == names(scsi("/dev/disk/by-path"))


def test_adapter_by_pci_address() -> None:
    """A SCSI host is found by the PCI function it is on."""
    path = san()["scsi_host0"].sysfs_path or ""
    domain, bus, rest = path.split("/")[4].split(":")
    slot, function = rest.split(".")
    pool = read_pool(
        "<pool type='scsi'><name>hba</name><source><adapter type='scsi_host'><parentaddr>"
        f"<address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"
        "</parentaddr></adapter></source><target><path>/dev/disk/by-path</path></target></pool>"
    )
    assert names(pool) == names(scsi("/dev/disk/by-path"))
    assert read_pool(pool_xml(pool)) == pool


def test_an_adapter_that_is_not_there_is_noted() -> None:
    """A pool whose SCSI host is not on this host is empty, and says why."""
    shown = view(scsi("/dev/mapper", "name='scsi_host77'"), san())
    assert not shown.volumes
    assert [note.message for note in shown.notes] == ["the adapter of its source is not on this host"]


def test_usable_arrays_and_bound_loops_are_volumes() -> None:
    """Arrays that can be used are volumes by UUID, their containers are not; so is each bound loop."""
    arrays = view(RAID, san()).volumes
    assert "md-uuid-6e6f6465:64657600:6c616200:00000002" in arrays
    containers = [name for name, device in san().items() if "external:ddf" in str(device.capabilities)]
    assert not {volume.device for volume in arrays.values()} & set(containers)
    loops = view(LOOP, san()).volumes
    bound = [device for device in san().values() if device.capability("loop")]
    assert len(loops) == len(bound)
    offset = next(volume for volume in loops.values() if volume.key == "/srv/offset.img@1048576")
    assert offset.constituents[0].path == "/srv/offset.img"


def test_inactive_devices_are_no_volumes() -> None:
    """A device that is only defined is in no pool."""
    devices = {name: replace(device, inactive=True) for name, device in san().items()}
    assert names(MPATH, devices) == names(LOOP, devices) == names(RAID, devices) == []


def test_without_udev_a_map_is_shown_by_its_node() -> None:
    """A map without links is still a volume, under its node's name, and says so."""
    devices = {name: replace(device, links=()) for name, device in san().items()}
    volumes = view(MPATH, devices).volumes
    assert len(volumes) == 8
    assert all(volume.path == san()[volume.device].devnode for volume in volumes.values())
    assert all(volume.notes for volume in volumes.values())


def test_without_links_a_lun_is_known_by_its_map() -> None:
    """The target of a session is told by the map where udev's by-path link is missing."""
    devices = {
        name: replace(device, links=tuple(link for link in device.links if "by-path" not in link))
        for name, device in san().items()
    }
    assert names(iscsi("/dev/mapper"), devices) == ["mpathg", "mpathh"]


def test_claims_make_a_volume_unavailable() -> None:
    """A claimed volume is not available for use, and has the claims for reasons."""
    volumes = view(MPATH, san()).volumes
    assert volumes["mpatha"].available_for_use
    assert not volumes["mpathd"].available_for_use
    assert {reason.type for reason in volumes["mpathd"].reasons} >= {"member", "mounted"}
    paths = view(iscsi("/dev/disk/by-path"), san()).volumes.values()
    assert {reason.type for volume in paths for reason in volume.reasons} == {"path"}


def everything() -> list[Volume]:
    """The volumes of all kinds of pools together."""
    pools = (MPATH, RAID, LOOP, iscsi("/dev/disk/by-path"), iscsi("/dev/mapper", "luns"), scsi("/dev"))
    return [volume for pool in pools for volume in view(pool, san()).volumes.values()]


def test_a_map_names_its_paths_in_other_pools() -> None:
    """A map's path volumes are found in every pool, and the map itself where another pool has it."""
    volume = next(volume for volume in everything() if volume.name == "mpathg" and volume.pool == "mpath")
    found = related(volume, everything(), san())
    assert [(one.side, one.chain, one.volume.pool, one.volume.name) for one in found] == [
        (Side.SAME, (), "luns", "mpathg"),
        *((Side.MEMBER, ("path",), "virtimages", name) for name in sorted(_path_names(0), key=_by_device)),
    ]


def _path_names(lun: int) -> list[str]:
    return [f"ip-127.0.0.{portal}:3260-iscsi-{IQN}-lun-{lun}" for portal in (1, 2)]


def _by_device(name: str) -> int:
    map_ = next(volume for volume in everything() if volume.key == WWIDS[0] and volume.pool == "mpath")
    order = [part.device for part in map_.constituents]
    return order.index(next(volume.device for volume in everything() if volume.name == name))


def test_a_path_names_its_map() -> None:
    """Each path volume tells the volumes that use it."""
    volume = next(volume for volume in everything() if volume.name == _path_names(1)[0])
    found = related(volume, everything(), san())
    assert {(one.side, one.chain, one.volume.pool, one.volume.name) for one in found} == {
        (Side.HOLDER, ("path",), "mpath", "mpathh"),
        (Side.HOLDER, ("path",), "luns", "mpathh"),
    }


def test_relations_are_followed_at_any_distance() -> None:
    """An array on maps tells the maps, and behind them the paths, each with the way to it."""
    volume = next(volume for volume in everything() if volume.name.endswith(":6c616200:00000001"))
    found = related(volume, everything(), san())
    assert {(one.chain, one.volume.pool) for one in found} == {
        (("member",), "mpath"),
        (("member", "path"), "hba"),
    }


def test_a_ring_of_relations_ends() -> None:
    """Devices that hold each other, as no kernel makes them, do not keep the search going."""
    one, other = (replace(san()[name], name=name) for name in list(san())[:2])
    ring = {
        one.name: replace(one, members=(Relation("dm", other.name),)),
        other.name: replace(other, members=(Relation("dm", one.name),)),
    }
    volume = replace(everything()[0], device=one.name)
    assert related(volume, [replace(volume, name="other", device=other.name)], ring)


def test_a_key_prefers_the_volume_to_be_used() -> None:
    """By a WWID that the map and its paths share, the map is found, in each pool that has it."""
    found = relations.preferred(relations.with_key(WWIDS[0], everything()), san())
    assert [(volume.pool, volume.name) for volume in found] == [("luns", "mpathg"), ("mpath", "mpathg")]


def test_any_link_finds_its_volume() -> None:
    """A volume is found by its own path and by any node or link of its device."""
    for path in ("/dev/mapper/mpatha", "/dev/disk/by-id/dm-uuid-mpath-3500a0980000000a0"):
        found = relations.preferred(relations.with_path(path, everything(), san()), san())
        assert [volume.name for volume in found] == ["mpatha"]


def test_volume_document() -> None:
    """A volume's document names its path, key, sizes, permissions and what it is made of."""
    volume = view(MPATH, san()).volumes["mpathg"]
    root = etree.fromstring(volume_xml(volume, Permissions(0o660, 0, 6)))
    assert root.findtext("name") == "mpathg"
    assert root.findtext("key") == WWIDS[0]
    assert root.findtext("target/path") == "/dev/mapper/mpathg"
    assert root.findtext("capacity") == root.findtext("allocation") == "67108864"
    assert root.findtext("target/permissions/mode") == "0660"
    assert [part.get("path") for part in root.findall("source/device")] == [
        part.path for part in volume.constituents
    ]


def test_disk_document_has_a_path_that_stays() -> None:
    """A guest's disk is by dm-uuid for a map and by-path for a path: neither leads anywhere else."""
    volume = view(MPATH, san()).volumes["mpathg"]
    root = etree.fromstring(disk_xml(volume, "sdb"))
    source, target = root.find("source"), root.find("target")
    assert source is not None
    assert target is not None
    assert source.get("dev") == f"/dev/disk/by-id/dm-uuid-mpath-{WWIDS[0]}"
    assert (target.get("dev"), target.get("bus")) == ("sdb", "scsi")
    path = next(iter(view(iscsi("/dev"), san()).volumes.values()))
    assert "/dev/disk/by-path/" in disk_xml(path, "vda")


def test_a_read_only_loop_is_a_read_only_disk() -> None:
    """A volume that cannot be written to says so to the guest."""
    volume = next(found for found in view(LOOP, san()).volumes.values() if found.key == "/srv/read-only.img")
    assert volume.read_only
    assert etree.fromstring(disk_xml(volume, "vda")).find("readonly") is not None


@pytest.mark.parametrize("target", ["", "vda;reboot", "/dev/vda", "nvme0n1", "vd a"])
def test_a_disk_of_no_guest_is_refused(target: str) -> None:
    """A target that is no disk's name in a guest is refused, not written into XML."""
    with pytest.raises(InvalidError):
        disk_xml(view(MPATH, san()).volumes["mpatha"], target)


@pytest.mark.parametrize(
    "pool",
    [*predefined(), iscsi("/dev/disk/by-path"), iscsi("/dev/mapper"), scsi("/dev/disk/by-id")],
    ids=lambda pool: f"{pool.type}-{pool.target}",
)
def test_pool_documents_are_read_as_they_are_written(pool: Definition) -> None:
    """What a pool's document says is the pool."""
    assert read_pool(pool_xml(pool, 4096)) == pool


def test_libvirt_documents_are_read() -> None:
    """The documents of libvirt are read, with the sizes, permissions and empty sources they have."""
    pool = read_pool(
        """<pool type="iscsi">
          <name>virtimages</name>
          <uuid>3e3fce45-4f53-4fa7-bb32-11f34168b82b</uuid>
          <capacity unit='bytes'>0</capacity>
          <allocation unit='bytes'>0</allocation>
          <available unit='bytes'>0</available>
          <source>
            <host name="iscsi.example.com" port="3261"/>
            <device path="demo-target"/>
            <auth type='chap' username='myuser'>
              <secret usage='libvirtiscsi'/>
            </auth>
          </source>
          <target>
            <path>/dev/disk/by-path</path>
            <permissions>
              <mode>0755</mode>
              <owner>-1</owner>
              <group>-1</group>
            </permissions>
          </target>
        </pool>"""
    )
    assert pool.uuid == "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
    assert [str(portal) for portal in pool.portals] == ["iscsi.example.com:3261"]
    assert pool.chap
    assert (pool.chap.username, pool.chap.secret) == ("myuser", "libvirtiscsi")
    mpath = read_pool("<pool type='mpath'><name>mpath</name><source>\n</source></pool>")
    assert mpath.target == "/dev/mapper"


SOURCE = "<source><host name='h'/><device path='iqn.2026-11.com.example:x'/></source>"
TARGET = "<target><path>/dev/disk/by-path</path></target>"


@pytest.mark.parametrize(
    ("xml", "reason", "words"),
    [
        ("<pool type='mpath'><name>m</name>", "XML_INVALID", "line 1"),
        ("<!DOCTYPE pool [<!ENTITY a 'b'>]><pool type='mpath'><name>&a;</name></pool>", "XML_INVALID", "DOC"),
        ("<volume/>", "XML_INVALID", "<pool>"),
        ("<pool type='mpath'/>", "XML_INVALID", "<name> is missing"),
        ("<pool type='mpath'><name>m</name><colour/></pool>", "XML_INVALID", "<colour>"),
        ("<pool type='zfs'><name>m</name></pool>", "POOL_TYPE_UNKNOWN", "mpath, raid, loop, scsi, iscsi"),
        ("<pool type='mpath'><name>a/b</name></pool>", "POOL_NAME_INVALID", "slash"),
        ("<pool type='mpath'><name>a\nb</name></pool>", "POOL_NAME_INVALID", "newline"),
        ("<pool type='mpath'><name>..</name></pool>", "POOL_NAME_INVALID", "dot"),
        ("<pool type='mpath'><name></name></pool>", "POOL_NAME_INVALID", "empty"),
        (f"<pool type='iscsi'><name>m</name>{TARGET}</pool>", "POOL_SOURCE_INVALID", "<host"),
        (
            f"<pool type='iscsi'><name>m</name><source><host name='h'/></source>{TARGET}</pool>",
            "POOL_SOURCE_INVALID",
            "<device",
        ),
        (f"<pool type='scsi'><name>m</name>{TARGET}</pool>", "POOL_SOURCE_INVALID", "<adapter"),
        (f"<pool type='scsi'><name>m</name>{SOURCE}{TARGET}</pool>", "POOL_SOURCE_INVALID", "no such source"),
        (f"<pool type='iscsi'><name>m</name>{SOURCE}</pool>", "POOL_TARGET_INVALID", "/dev/disk/by-path"),
        (
            f"<pool type='iscsi'><name>m</name>{SOURCE}<target><path>/etc</path></target></pool>",
            "POOL_TARGET_INVALID",
            "/dev/mapper",
        ),
        (
            "<pool type='mpath'><name>m</name><target><path>/dev/disk/by-path</path></target></pool>",
            "POOL_TARGET_INVALID",
            "/dev/mapper, /dev/mpath",
        ),
        (
            "<pool type='iscsi'><name>m</name><source><host name='-o'/><device path='x'/></source></pool>",
            "POOL_SOURCE_INVALID",
            "host name",
        ),
        (
            f"<pool type='iscsi'><name>m</name>{SOURCE.replace(':x', ':../x')}</pool>",
            "POOL_SOURCE_INVALID",
            "iSCSI target",
        ),
    ],
)
def test_bad_documents_are_one_clear_error(xml: str, reason: str, words: str) -> None:
    """What is wrong with a pool's document is one error, with a stable reason and words that help."""
    with pytest.raises(NodedevError) as caught:
        read_pool(xml)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert caught.value.violations


@given(st.text(max_size=30))
def test_any_name_is_kept_or_refused(name: str) -> None:
    """A pool's name comes back as it was given, or is refused: nothing in between."""
    pool = replace(MPATH, name=name)
    try:
        again = read_pool(pool_xml(pool))
    except InvalidError:
        return
    # XML has no place for control characters; what is written in their place is no secret either.
    assert again.name == name or not name.isprintable()


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    """Whatever bytes come for a pool's document, the answer is a refusal of ours."""
    with pytest.raises(InvalidError):
        read_pool(data)


@given(st.data())
def test_each_device_is_a_volume_or_told(data: st.DataObject) -> None:
    """Whatever devices go missing, each LUN left is shown itself, by its map, or in a note."""
    kept = data.draw(st.sets(st.sampled_from(sorted(san()))))
    devices = {name: device for name, device in san().items() if name in kept}
    for target in KINDS["iscsi"].targets:
        shown = view(iscsi(target), devices)
        told = " ".join(note.message for note in shown.notes)
        used = {volume.device for volume in shown.volumes.values()}
        for name, device in devices.items():
            if any(IQN in link for link in device.links):
                above = {holder.device for holder in device.holders}
                assert name in used or above & used or name in told


def test_reasons_are_the_claims() -> None:
    """A volume's reasons are its device's claims as they stand."""
    volume = view(MPATH, san()).volumes["mpathc"]
    assert volume.reasons == (Reason("signature", what="ext4"),)
