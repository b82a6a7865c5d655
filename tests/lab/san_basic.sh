#!/bin/bash
# Makes the guest a SAN host that has one of everything nodedev models. Run once, as root, after boot; ends when
# all of it is seen. Disks are named by WWN and loops by number, since disk letters differ from boot to boot.
set -euo pipefail

log() { echo "### $* [$(cut -d' ' -f1 /proc/uptime)]"; }

# an emulated guest on a busy machine is ten times slower than on an idle one
DEADLINE_SECONDS=300

# wait_for WHAT COMMAND...: until the command succeeds
wait_for() {
  local end=$((SECONDS + DEADLINE_SECONDS)) what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then log "never seen: $what"; dmesg | tail -n 20; exit 1; fi
    sleep 0.2
  done
}

# map_has WWID PATHS: multipathd and the kernel both see that many working paths
map_has() {
  multipathd show maps json | jq -e --arg wwid "$1" --argjson paths "$2" '
    [.maps[] | select(.uuid == $wwid) | .path_groups[].paths[] | select(.chk_st == "ready" and .dm_st == "active")]
    | length == $paths'
}

# bind NUMBER FILE [OPTION...]: a loop device with that number
bind() { local number=$1 file=$2; shift 2; losetup "$@" "/dev/loop$number" "$file"; }

# disks FIRST LAST SIZE: loop devices to build on
disks() {
  local number
  for number in $(seq "$1" "$2"); do truncate -s "$3" "/srv/disk$number.img"; bind "$number" "/srv/disk$number.img"; done
}

# create NAME OPTION...: an MD array
create() {
  local name=$1
  shift
  # mdadm gives udev a few seconds to make the link, and then fails with the array running
  mdadm --create "/dev/md/$name" --run "$@" || log "mdadm says $?"
  wait_for "/dev/md/$name" test -b "/dev/md/$name"
}

# array NAME LAST-DIGIT OPTION...: one whose UUID is the same on every boot
array() {
  local name=$1 digit=$2
  shift 2
  create "$name" --homehost=nodedev-lab --uuid=6e6f6465:64657600:6c616200:0000000"$digit" "$@"
}

synced() { ! grep -qE 'resync|recovery|PENDING|DELAYED' /proc/mdstat; }
lvm_synced() { lvs --noheadings -o copy_percent vg0/mir vg0/oldmir | awk '$1 != "100.00" {exit 1}'; }

log "modules"
# multipath and array modules load on demand; these are asked for by name only
modprobe -a dm-multipath dm-service-time scsi_dh_alua dm-raid dm-mirror dm-crypt raid1 raid10 raid456 iscsi_tcp \
  target_core_mod target_core_file iscsi_target_mod loop
modprobe zram num_devices=1
ip link set lo up
echo 200000 >/proc/sys/dev/raid/speed_limit_min
# commands that scan disks must not wait for the suspended device
mkdir -p /etc/lvm /srv
printf 'devices {\n  ignore_suspended_devices = 1\n}\n' >/etc/lvm/lvmlocal.conf

log "multipath"
mkdir -p /etc/multipath
iscsi_wwid=36001405000000016e6f6465646576000
iscsi_wwid1=36001405000000026e6f6465646576000
for number in 0 1 2 3 4 5; do
  echo "mpath$(echo abcdef | cut -c$((number + 1))) 3500a0980000000a$number"
done >/etc/multipath/bindings
printf 'mpathg %s\nmpathh %s\n' $iscsi_wwid $iscsi_wwid1 >>/etc/multipath/bindings
# each blacklist entry on a line of its own: otherwise the rest of the file is ignored
cat >/etc/multipath.conf <<'END'
defaults {
  user_friendly_names yes
  find_multipaths no
  polling_interval 5
}
blacklist {
  devnode "^(loop|vda|md|zram|nvme|fd|sr|dm-)"
}
END
systemctl start multipathd
for number in 0 1 2 5; do wait_for "LUN$number" map_has 3500a0980000000a$number 2; done
for number in 3 4; do wait_for "LUN$number" map_has 3500a0980000000a$number 4; done

log "partitions on a map (LUN1), a file system nobody mounts (LUN2)"
printf ',32M\n,\n' | sfdisk -q --no-reread --label gpt /dev/mapper/mpathb
kpartx -a -p -part /dev/mapper/mpathb
wait_for "partitions of mpathb" test -b /dev/mapper/mpathb-part2
mkfs.ext4 -q -L unused /dev/mapper/mpathc

log "LVM on MD on two maps on eight paths (LUN3, LUN4)"
array san 1 --level=1 --raid-devices=2 /dev/mapper/mpathd /dev/mapper/mpathe
vgcreate -q vg1 /dev/md/san
lvcreate -q -y -L 128M -n data vg1
mkfs.ext4 -q /dev/vg1/data
mkdir -p /mnt/data
mount /dev/vg1/data /mnt/data

log "iSCSI"
mkdir -p /etc/iscsi /etc/target/pr /etc/target/alua /var/target
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
echo "InitiatorName=iqn.2026-11.com.example:host1" >/etc/iscsi/initiatorname.iscsi
# LIO makes the WWID from the first 25 hexadecimal digits of the unit serial
targetcli <<'END'
/backstores/fileio create disk0 /srv/iscsi0.img 64M wwn=00000001-6e6f-6465-6465-760000000000
/backstores/fileio create disk1 /srv/iscsi1.img 64M wwn=00000002-6e6f-6465-6465-760000000000
/iscsi create iqn.2026-11.com.example:virtimages
/iscsi/iqn.2026-11.com.example:virtimages/tpg1/luns create /backstores/fileio/disk0
/iscsi/iqn.2026-11.com.example:virtimages/tpg1/luns create /backstores/fileio/disk1
/iscsi/iqn.2026-11.com.example:virtimages/tpg1 set attribute generate_node_acls=1 demo_mode_write_protect=0 authentication=1 cache_dynamic_acls=1
/iscsi/iqn.2026-11.com.example:virtimages/tpg1 set auth userid=host1 password=a-chap-secret
/iscsi/iqn.2026-11.com.example:virtimages/tpg1/portals delete 0.0.0.0 3260
/iscsi/iqn.2026-11.com.example:virtimages/tpg1/portals create 127.0.0.1 3260
/iscsi/iqn.2026-11.com.example:virtimages/tpg1/portals create 127.0.0.2 3260
exit
END
systemctl start iscsid
iscsiadm -m discovery -t st -p 127.0.0.1
# the kernel shows the secret of each session in sysfs: no recording may hold it
for setting in authmethod=CHAP username=host1 password=a-chap-secret; do
  iscsiadm -m node -o update -n "node.session.auth.${setting%%=*}" -v "${setting#*=}"
done
iscsiadm -m node --login
wait_for "iSCSI disk0" map_has $iscsi_wwid 2
wait_for "iSCSI disk1" map_has $iscsi_wwid1 2

log "MD arrays"
disks 0 24 64M
array mirror 2 --level=1 --raid-devices=2 --metadata=1.2 /dev/loop0 /dev/loop1
array r5 3 --level=5 --raid-devices=3 --spare-devices=1 /dev/loop2 /dev/loop3 /dev/loop4 /dev/loop5
array broken 4 --level=1 --raid-devices=2 /dev/loop6 /dev/loop7
array stripe 5 --level=0 --raid-devices=2 /dev/loop8 /dev/loop9
array ten 6 --level=10 --raid-devices=4 /dev/loop10 /dev/loop11 /dev/loop12 /dev/loop13
create ddf --metadata=ddf --raid-devices=2 /dev/loop14 /dev/loop15
create volume --level=1 --raid-devices=2 /dev/md/ddf
wait_for "arrays in sync" synced
mdadm /dev/md/broken --fail /dev/loop7

log "LVM raid1, mirror and linear"
vgcreate -q vg0 /dev/loop16 /dev/loop17
lvcreate -q -y --type raid1 -m1 -L 20M -n mir vg0
lvcreate -q -y --type mirror -m1 --mirrorlog core -L 12M -n oldmir vg0
lvcreate -q -y -L 8M -n with-hyphen vg0

log "dm devices"
sectors=$(blockdev --getsz /dev/loop18)
dmsetup create isw_bcdefghij_Volume0 --uuid DMRAID-isw_bcdefghij_Volume0 \
  --table "0 $sectors mirror core 2 1024 nosync 2 /dev/loop18 0 /dev/loop19 0 1 handle_errors"
printf %s 'a-key-that-no-recording-may-hold' >/run/key
cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 --key-file /run/key /dev/loop20 secret
dmsetup create "odd name" --table "0 65536 linear /dev/loop21 0"
dmsetup create a.b --table "0 65536 linear /dev/loop21 65536"
dmsetup create empty --notable
dmsetup create paused --uuid LAB-paused --table "0 65536 linear /dev/loop22 0"
udevadm settle --timeout=$DEADLINE_SECONDS
dmsetup suspend --noflush paused

log "loops"
echo 32M >/sys/block/zram0/disksize
truncate -s 32M /srv/{offset,read-only,deleted,parted,sector4k,mounted,direct}.img "/srv/live (deleted)"
bind 25 /srv/offset.img --offset 1048576 --sizelimit 8388608
bind 26 /srv/read-only.img --read-only
bind 27 /srv/deleted.img
rm /srv/deleted.img
printf ',8M\n,\n' | sfdisk -q --label dos /srv/parted.img
bind 28 /srv/parted.img --partscan
bind 29 "/srv/live (deleted)"
bind 30 /srv/sector4k.img --sector-size 4096
bind 31 /srv/direct.img --direct-io=on
mkfs.ext4 -q /srv/mounted.img
mkdir -p /mnt/loop
mount -o loop,ro /srv/mounted.img /mnt/loop
wait_for "partitions of loop28" test -b /dev/loop28p2
mkswap -q /dev/loop28p2
swapon /dev/loop28p2

log "peers"
systemctl start libvirtd
wait_for "libvirt" virsh -q -c qemu:///system nodedev-list

log "seen"
wait_for "arrays in sync" synced
wait_for "LVM in sync" lvm_synced
for link in wwn-0x500a0980000000a{0..5} dm-uuid-mpath-{3500a0980000000a{0..5},$iscsi_wwid,$iscsi_wwid1} \
  md-uuid-6e6f6465:64657600:6c616200:0000000{1..6} dm-name-mpathb-part1 dm-name-secret; do
  wait_for "/dev/disk/by-id/$link" test -b "/dev/disk/by-id/$link"
done
udevadm settle --timeout=$DEADLINE_SECONDS
log "done"
