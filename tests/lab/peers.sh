#!/bin/bash
# peers.sh FOLDER: what the other tools say about this host at this moment, one file each. A tool that is missing or
# fails leaves its message in its file; what would wait for I/O is killed. Opens no map: every path may be down.
set -u
mkdir -p "$1"
cd "$1"

# say FILE COMMAND...
say() { local file=$1; shift; timeout -k 1 60 "$@" >"$file" 2>&1; }

say multipathd-maps.json multipathd show maps json
say multipathd-paths.txt multipathd show paths raw format '%w|%i|%d|%D|%t|%o|%T|%c|%p|%S|%s|%z|%M|%m|%N|%n|%R|%r|%a|%0|%P|%I|%L'
say multipathd-maps.txt multipathd show maps raw format '%n|%w|%d|%F|%Q|%N|%r|%t|%S|%f|%x|%h|%A|%0|%1|%2|%3|%4|%v|%p|%e'
say multipathd-config.txt multipathd show config local
say multipath-ll.txt multipathd show topology
say dmsetup-table.txt dmsetup table
say dmsetup-status.txt dmsetup status --noflush
say dmsetup-info.txt dmsetup info -c --noheadings --separator '|' \
  -o name,uuid,major,minor,attr,tables_loaded,suspended,readonly,open,segments,events,device_count,devnos_used,device_ref_count,subsystem
cp /proc/mdstat mdstat
cp /proc/self/mountinfo mountinfo
cp /proc/swaps swaps
for array in /sys/block/md*; do
  [ -d "$array/md" ] || continue
  name=${array##*/}
  say "mdadm-detail-$name.txt" mdadm --detail "/dev/$name"
  say "mdadm-export-$name.txt" mdadm --detail --export "/dev/$name"
done
say losetup.json losetup --json --list --output-all
say lsblk.json lsblk --json --bytes --output-all
say udevadm-export-db.txt udevadm info --export-db
say nvme-subsys.json nvme list-subsys -o json
iscsiadm -m session -P 3 2>&1 | grep -v -i password >iscsi-sessions.txt
say virsh-tree.txt virsh -c qemu:///system nodedev-list --tree
say libvirt-nodedev.xml python3 - <<'END'
import libvirt

print("<nodedevs>")
for device in sorted(libvirt.openReadOnly("qemu:///system").listAllDevices(), key=lambda device: device.name()):
    print(device.XMLDesc(0))
print("</nodedevs>")
END
{
  uname -srvm
  . /etc/os-release && echo "$PRETTY_NAME"
  multipath -h 2>&1 | head -n 1
  mdadm --version
  lvm version | grep -v Configuration
  losetup --version
  udevadm --version
  iscsiadm --version
  nvme version
  libvirtd --version
} >versions.txt 2>&1
