"""Storage pools on the SAN host: the mail's examples, libvirt beside them, its schemas, and real logins."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from .guest import Completed, Guest

pytestmark = pytest.mark.lab

IQN = "iqn.2026-11.com.example:virtimages"
HOME = "/run/nodedev-pools"
SERVICE = f"nodedev --connect unix:{HOME}/nodedev.sock"
SECRET = "a-chap-secret"
WWIDS = [f"360014050000000{number}6e6f6465646576000" for number in (1, 2)]
BY_PATH = sorted(f"ip-127.0.0.{portal}:3260-iscsi-{IQN}-lun-{lun}" for portal in (1, 2) for lun in (0, 1))
# The example of the mail; only the target path changes.
ISCSI = """<pool type="iscsi">
  <name>{name}</name>
  <source>
    <host name="{host}"/>
    <device path="{iqn}"/>{auth}
  </source>
  <target>
    <path>{target}</path>
  </target>
</pool>"""
AUTH = '<auth type="chap" username="host1"><secret usage="virtimages"/></auth>'
SCSI = """<pool type="scsi"><name>hba</name><source><adapter name="{adapter}"/></source>
<target><path>{target}</path></target></pool>"""


def define(guest: Guest, xml: str) -> Completed:
    """Defines a pool by a document."""
    return guest.run(f"{SERVICE} pool define - <<'END'\n{xml}\nEND", check=False)


def iscsi(name: str, target: str, *, host: str = "127.0.0.1", iqn: str = IQN, auth: str = AUTH) -> str:
    """The mail's example."""
    return ISCSI.format(name=name, target=target, host=host, iqn=iqn, auth=auth)


def nodedev(guest: Guest, arguments: str, *, timeout: float = 120.0) -> str:
    """What the program prints; it must end well."""
    return guest.run(f"{SERVICE} {arguments}", timeout=timeout).stdout


def refused(guest: Guest, arguments: str, *, timeout: float = 120.0) -> str:
    """How the program refuses: in one line, and one for each claim."""
    done = guest.run(f"{SERVICE} {arguments}", timeout=timeout, check=False)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


def volumes(guest: Guest, pool: str) -> dict[str, dict[str, object]]:
    """A pool's volumes by name."""
    found = json.loads(nodedev(guest, f"vol list {pool} --json"))
    return {volume["name"]: volume for volume in found.get("volumes", ())}


def sessions(guest: Guest) -> int:
    """How many iSCSI sessions there are."""
    return guest.run("iscsiadm -m session || true").stdout.count(IQN)


def in_guest(guest: Guest, script: str, *, timeout: float = 300.0) -> str:
    """What a Python script prints that has a `stub` of the service and its messages as `pb`."""
    opening = f"""
import sys
sys.path.insert(0, "/opt/nodedev")
import grpc
from nodedev.v1 import pool_service_pb2 as pb, pool_service_pb2_grpc
channel = grpc.insecure_channel("unix:{HOME}/nodedev.sock")
stub = pool_service_pb2_grpc.StoragePoolServiceStub(channel)
"""
    return guest.run(f"python3 - <<'END'\n{opening}{script}\nEND", timeout=timeout).stdout


@pytest.fixture(scope="module")
def host(nodedev_guest: Guest) -> Iterator[Guest]:
    """The guest without iSCSI sessions and records, and a service whose state is in /run."""
    guest = nodedev_guest
    guest.run("iscsiadm -m node --logout; iscsiadm -m node -o delete", check=False)
    guest.run(
        f"install -d -m 700 {HOME}/state/secrets && "
        f"(umask 077; printf %s {SECRET} >{HOME}/state/secrets/virtimages) && "
        "systemd-run --quiet --unit nodedev-pools"
        f" nodedev serve --runtime-dir {HOME} --state-dir {HOME}/state"
        f" && until {SERVICE} pool list; do sleep 0.2; done"
    )
    yield guest
    guest.run(f"{SERVICE} pool stop virtimages; systemctl stop nodedev-pools; rm -rf {HOME}", check=False)
    guest.run(
        "iscsiadm -m discovery -t st -p 127.0.0.1 >/dev/null && "
        + " && ".join(
            f"iscsiadm -m node -o update -n node.session.auth.{name} -v {value}"
            for name, value in (("authmethod", "CHAP"), ("username", "host1"), ("password", SECRET))
        )
        + " && iscsiadm -m node --login && for wwid in "
        + " ".join(WWIDS)
        + "; do until multipathd show maps json | grep -q $wwid; do sleep 0.2; done; done"
        " && udevadm settle",
        timeout=120,
    )


@pytest.fixture(scope="module")
def images(host: Guest) -> Guest:
    """The guest with the mail's first example started."""
    assert define(host, iscsi("virtimages", "/dev/disk/by-path")).returncode == 0
    nodedev(host, "pool start virtimages")
    return host


def test_login_that_is_refused_leaves_nothing(host: Guest) -> None:
    """A wrong password is one clear error, after which there is no session, no record, no active pool."""
    wrong = AUTH.replace("virtimages", "wrong")
    host.run(f"(umask 077; printf %s not-the-secret >{HOME}/state/secrets/wrong)")
    assert define(host, iscsi("refused", "/dev/mapper", auth=wrong)).returncode == 0
    assert "ISCSI_LOGIN_REFUSED" in refused(host, "pool start refused")
    assert sessions(host) == 0
    assert IQN not in host.run("iscsiadm -m node", check=False).stdout
    assert "inactive" in nodedev(host, "pool info refused")
    nodedev(host, "pool undefine refused")


def test_target_that_is_not_offered(host: Guest) -> None:
    """A target that the host does not have is told as that."""
    assert define(host, iscsi("other", "/dev/mapper", iqn="iqn.2026-11.com.example:none")).returncode == 0
    assert "ISCSI_TARGET_UNKNOWN" in refused(host, "pool start other")
    nodedev(host, "pool undefine other")


def test_unreachable_host_keeps_the_deadline(host: Guest) -> None:
    """A host that drops every packet costs no more than the caller's time."""
    # A neighbour that never answers: the kernel goes on trying, as for a host that is down.
    host.run(
        "ip link add nowhere type dummy && ip addr add 192.0.2.2/24 dev nowhere && ip link set nowhere up"
        " && ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev nowhere"
    )
    assert define(host, iscsi("far", "/dev/mapper", host="192.0.2.1")).returncode == 0
    begin = float(host.run("cut -d' ' -f1 /proc/uptime").stdout)
    assert "DEADLINE_EXCEEDED" in refused(host, "pool start far --timeout 10", timeout=60)
    assert float(host.run("cut -d' ' -f1 /proc/uptime").stdout) - begin < 30
    host.run("ip link delete nowhere")
    nodedev(host, "pool undefine far")


def test_by_path_lists_each_path(images: Guest) -> None:
    """The mail's first example: each path of each LUN is a volume."""
    assert sorted(volumes(images, "virtimages")) == BY_PATH
    assert sessions(images) == 2


def test_mapper_target_lists_the_unique_luns(images: Guest) -> None:
    """The mail's second example: with only the target path changed, each LUN is there once."""
    assert define(images, iscsi("luns", "/dev/mapper")).returncode == 0
    nodedev(images, "pool start luns")
    assert {volume["key"]: volume["path"] for volume in volumes(images, "luns").values()} == {
        WWIDS[0]: "/dev/mapper/mpathg",
        WWIDS[1]: "/dev/mapper/mpathh",
    }
    assert sessions(images) == 2
    nodedev(images, "pool stop luns")
    nodedev(images, "pool undefine luns")
    assert sessions(images) == 2


def test_maps_and_paths_name_each_other(images: Guest) -> None:
    """`vol related` on a map names its volumes in the iscsi and scsi pools, and on each of those the map."""
    adapter = images.run(
        "ls -d /sys/class/iscsi_session/session*/device/../ | head -1 | xargs realpath"
    ).stdout
    assert (
        define(images, SCSI.format(adapter=adapter.strip().rsplit("/", 1)[1], target="/dev")).returncode == 0
    )
    nodedev(images, "pool start hba")
    found = json.loads(nodedev(images, "vol related mpathg --json"))["related"]
    members = [
        (one["volume"]["pool"], one["volume"]["name"]) for one in found if one["side"] == "SIDE_MEMBER"
    ]
    assert sorted(pool for pool, _ in members) == ["hba", "virtimages", "virtimages"]
    for pool, name in members:
        back = json.loads(nodedev(images, f"vol related {shlex.quote(name)} --pool {pool} --json"))["related"]
        holders = [one["volume"]["name"] for one in back if one["side"] == "SIDE_HOLDER"]
        assert holders == ["mpathg"]
    nodedev(images, "pool stop hba")
    nodedev(images, "pool undefine hba")


def test_mpath_pool_has_what_libvirts_has(images: Guest) -> None:
    """The mpath pool of libvirt lists the same paths with the same capacities."""
    script = """
        virsh -q pool-create-as lab-mpath mpath --target /dev/mapper >/dev/null
        for volume in $(virsh -q vol-list lab-mpath | awk '{print $1}'); do
          virsh vol-dumpxml $volume --pool lab-mpath | python3 -c '
import sys, xml.etree.ElementTree as e
r = e.parse(sys.stdin).getroot(); print(r.findtext("target/path"), r.findtext("capacity"))'
        done
        virsh -q pool-destroy lab-mpath >/dev/null
    """
    theirs = sorted(filter(None, images.run(script, timeout=300).stdout.splitlines()))
    ours = sorted(f"{one['path']} {one['capacity_bytes']}" for one in volumes(images, "mpath").values())
    assert len(ours) == 8
    assert ours == theirs


def test_documents_fit_libvirts_schemas(images: Guest) -> None:
    """Pool and volume documents of mpath, scsi and iscsi pools fit libvirt's schemas as installed."""
    assert define(images, SCSI.format(adapter="host0", target="/dev/disk/by-path")).returncode == 0
    nodedev(images, "pool start hba")
    counts = in_guest(
        images,
        """
from lxml import etree
folder = "/usr/share/libvirt/schemas"
pools, volumes = (etree.RelaxNG(etree.parse(f"{folder}/storage{kind}.rng")) for kind in ("pool", "vol"))
counts = []
for pool in ("mpath", "hba", "virtimages"):
    pools.assertValid(etree.fromstring(stub.GetPoolXml(pb.GetPoolXmlRequest(name=pool)).xml))
    listed = stub.ListVolumes(pb.ListVolumesRequest(pool=pool)).volumes
    for volume in listed:
        reference = pb.VolumeReference(pool=pool, name=volume.name)
        volumes.assertValid(etree.fromstring(stub.GetVolumeXml(pb.GetVolumeXmlRequest(volume=reference)).xml))
    counts.append(len(listed))
print(*counts)
""",
    )
    assert [int(count) for count in counts.split()] == [8, 6, 4]
    nodedev(images, "pool stop hba")
    nodedev(images, "pool undefine hba")


def test_libvirt_accepts_the_disks(images: Guest) -> None:
    """A domain with the disk with the disk document of each volume, and a claimed one needs force."""
    assert "DEVICE_BUSY" in refused(images, f"vol disk-xml {BY_PATH[0]} --pool virtimages")
    defined = in_guest(
        images,
        """
import subprocess
defined = 0
for volume in stub.ListVolumes(pb.ListVolumesRequest()).volumes:
    if volume.pool == "loop" and volume.name != "loop30":
        continue
    reference = pb.VolumeReference(pool=volume.pool, name=volume.name)
    disk = stub.GetDiskXml(pb.GetDiskXmlRequest(volume=reference, target="vdb", force=True)).xml
    with open("/run/domain.xml", "w") as file:
        file.write(
            f"<domain type='test'><name>pools{defined}</name><memory>8192</memory>"
            f"<os><type>hvm</type></os><devices>{disk}</devices></domain>"
        )
    subprocess.run(
        ["virsh", "-q", "-c", "test:///default", "define", "--validate", "/run/domain.xml"], check=True,
        stdout=subprocess.DEVNULL,
    )
    defined += 1
print(defined)
""",
    )
    expected = 1 + sum(len(volumes(images, pool)) for pool in ("mpath", "raid", "virtimages"))
    assert int(defined) == expected


def test_a_queueing_map_without_paths_is_listed(images: Guest) -> None:
    """With all paths of a queueing map down ours lists and refreshes; libvirt's hangs and is not asked."""
    disks = images.run("ls /sys/block/dm-*/dm/name | xargs grep -lx mpatha | xargs dirname").stdout.strip()
    slaves = images.run(f"ls {disks}/../slaves").stdout.split()
    down = "".join(
        f"echo offline >/sys/block/{disk}/device/state; multipathd fail path {disk}; " for disk in slaves
    )
    up = "".join(
        f"echo running >/sys/block/{disk}/device/state; multipathd reinstate path {disk}; " for disk in slaves
    )
    images.run(f"dmsetup message mpatha 0 queue_if_no_path; {down}")
    try:
        assert "mpatha" in volumes(images, "mpath")
        nodedev(images, "pool refresh mpath", timeout=20)
        nodedev(images, "vol info mpatha", timeout=20)
        nodedev(images, "vol dumpxml mpatha", timeout=20)
    finally:
        images.run(f"{up} dmsetup message mpatha 0 fail_if_no_path")


def test_volumes_follow_the_inventory(images: Guest) -> None:
    """A map that is flushed and made again shows in WatchPools, without a refresh."""
    shown = in_guest(
        images,
        """
import subprocess
seen = []
for response in stub.WatchPools(pb.WatchPoolsRequest(pools=["mpath"])):
    if response.snapshot_complete:
        subprocess.run(["multipath", "-f", "mpathf"], check=True)
    for change in response.volumes:
        if change.volume.name == "mpathf" and seen[-1:] != [change.type]:
            seen.append(change.type)
            if change.type == pb.VolumeChange.TYPE_REMOVED:
                subprocess.run(["multipath", "3500a0980000000a5"], check=True)
    if 3 in seen and 1 in seen[seen.index(3):]:
        break
print("seen", *seen)
""",
    )
    assert re.search(r"seen 1(?: 2)* 3(?: 2)* 1", shown), shown


def test_a_new_lun_shows_by_itself(images: Guest) -> None:
    """A LUN that the target gives out shows in WatchPools once the host has seen it, by each of its paths."""
    luns = f"/iscsi/{IQN}/tpg1/luns"
    shown = in_guest(
        images,
        f"""
import subprocess
def run(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
added = set()
for response in stub.WatchPools(pb.WatchPoolsRequest(pools=["virtimages"])):
    if response.snapshot_complete:
        run("targetcli", "/backstores/fileio", "create", "added", "/srv/added.img", "32M")
        run("targetcli", "{luns}", "create", "/backstores/fileio/added")
        run("iscsiadm", "-m", "session", "--rescan")
    else:
        added |= {{change.volume.name for change in response.volumes if change.type == 1}}
    if len(added) == 2:
        break
print("added", *sorted(added))
""",
    )
    try:
        assert re.fullmatch(
            rf"added ip-127\.0\.0\.1:3260-iscsi-{IQN}-lun-(\d+) ip-127\.0\.0\.2:3260-iscsi-{IQN}-lun-\1",
            shown.strip(),
        )
        assert {*shown.split()[1:]} < {*volumes(images, "virtimages")}
    finally:
        lun = shown.strip().rpartition("-")[2]
        images.run(
            f"for node in $(readlink -f /dev/disk/by-path/*{IQN}-lun-{lun}); do"
            " disk=/sys/block/${node##*/}; for uuid in $disk/holders/dm-*/dm/uuid; do"
            " multipath -f $(sed s/^mpath-// $uuid); done;"
            " echo 1 >$disk/device/delete; done; rm /srv/added.img;"
            f" targetcli {luns} delete lun{lun}; targetcli /backstores/fileio delete added",
            check=False,
        )


def test_stop_refuses_while_a_lun_is_in_use(images: Guest) -> None:
    """A mounted LUN keeps its pool from logging out; the refusal names the mount."""
    images.run("mkfs.ext4 -q /dev/mapper/mpathg && mkdir -p /mnt/lun && mount /dev/mapper/mpathg /mnt/lun")
    try:
        images.run(f"until {SERVICE} vol info mpathg | grep -q /mnt/lun; do sleep 0.2; done")
        told = refused(images, "pool stop virtimages")
        assert "DEVICE_BUSY" in told
        assert "/mnt/lun" in told
        assert sessions(images) == 2
    finally:
        images.run("umount /mnt/lun && wipefs -qa /dev/mapper/mpathg")
        images.run(f"while {SERVICE} vol info mpathg | grep -q /mnt/lun; do sleep 0.2; done")


def test_the_password_is_nowhere(images: Guest) -> None:
    """The password is in no document, no message and no log of the service."""
    shown = [nodedev(images, f"pool {verb} virtimages") for verb in ("dumpxml", "info")]
    shown.append(nodedev(images, "pool list --all --json"))
    shown.append(images.run("journalctl -u nodedev-pools --no-pager").stdout)
    shown.append(images.run(f"cat {HOME}/state/pools/*.xml {HOME}/state/pools/active/*").stdout)
    assert all(SECRET not in text for text in shown)


def test_stop_logs_out_of_what_it_logged_in(images: Guest) -> None:
    """Stop takes back the sessions and records of start, and leaves a session that was there before."""
    nodedev(images, "pool stop virtimages")
    assert sessions(images) == 0
    assert IQN not in images.run("iscsiadm -m node", check=False).stdout
    assert not json.loads(nodedev(images, "pool info virtimages --json")).get("active")
    nodedev(images, "pool start virtimages")
    assert sorted(volumes(images, "virtimages")) == BY_PATH
