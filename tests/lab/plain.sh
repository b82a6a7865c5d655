#!/bin/bash
# Makes the guest a machine as it stands under a desk: no SAN, no arrays, their modules not loaded; partitions, LVM,
# an encrypted volume, swap, file systems and a USB stick. Run once, as root, after boot.
set -euo pipefail

udevadm settle --timeout=120
printf ',64M,L\n,64M,S\n,,V\n' | sfdisk -q --label gpt /dev/disk/by-id/wwn-0x500a0980000000b0
udevadm settle --timeout=120
disk=$(realpath /dev/disk/by-id/wwn-0x500a0980000000b0)
mkfs.ext4 -q -L boot "${disk}1"
mkswap -q "${disk}2"
swapon "${disk}2"
vgcreate -q plain "${disk}3"
lvcreate -q -y -L 128M -n root plain
lvcreate -q -y -L 64M -n home plain
mkfs.ext4 -q /dev/plain/root
printf %s 'a-key-that-no-recording-may-hold' >/run/key
cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 256 --key-file /run/key /dev/plain/home home
mkfs.ext4 -q /dev/mapper/home
mkdir -p /mnt/{boot,root,home}
mount "${disk}1" /mnt/boot
mount /dev/plain/root /mnt/root
mount /dev/mapper/home /mnt/home
printf ',\n' | sfdisk -q --label gpt /dev/nvme0n1
udevadm settle --timeout=120
mkfs.xfs -q -L scratch /dev/nvme0n1p1 || mkfs.ext4 -q -L scratch /dev/nvme0n1p1
mkfs.ext4 -q -F -L STICK /dev/disk/by-id/usb-QEMU_QEMU_HARDDISK_USB0-0:0
systemctl start libvirtd
udevadm settle --timeout=120
