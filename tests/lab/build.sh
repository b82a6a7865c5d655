#!/bin/bash
# Builds the lab's guest and prints the folder it is in: root.img, vmlinuz, initrd.gz. As root, on Debian
# or Ubuntu; the guest is the machine's own release, from the machine's own apt sources. The folder is named
# after the hash of this script, and appears under that name only when it is whole.
set -euo pipefail
shopt -s nullglob

lab=${NODEDEV_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/nodedev-lab}
mkdir -p "$lab"
image=$lab/image-$(sha256sum "$0" | cut -c1-16)
exec 9>"$lab/build.lock"
flock 9
if [ -d "$image" ]; then echo "$image"; exit; fi

work=$(mktemp -d "$lab/build.XXXXXX")
# bind mounts first: a removal that follows them would empty the machine's own /proc
trap 'umount "$work/root/proc" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
log() { echo "build: $* [${SECONDS}s]" >&2; }
# everything a command prints is kept; its end is shown when it fails
quiet() { "$@" >>"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; log "failed: $*"; return 1; }; }
. /etc/os-release
root=$work/root
export DEBIAN_FRONTEND=noninteractive

log "tools"
# empty lists name no sources; a broken source of something else is no reason to stop
quiet apt-get update || true
missing=()
for package in qemu-system-x86 busybox-static cpio kmod debootstrap e2fsprogs zstd xz-utils; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || quiet apt-get install -y --no-install-recommends "${missing[@]}"

log "base system: $ID $VERSION_CODENAME"
sources() { apt-get indextargets --format "$1" 'Created-By: Packages' | grep -E "/ $VERSION_CODENAME(-| )"; }
uri=$(sources '$(REPO_URI) $(RELEASE) $(COMPONENT)' | awk -v release="$VERSION_CODENAME" '$2 == release {print $1; exit}')
# Debian's cloud images name a file with the mirrors, which debootstrap cannot read
case $uri in mirror+file:*) uri=${uri#mirror+file:} uri=$(head -n 1 "${uri%/}") ;; esac
quiet debootstrap --variant=minbase --include=ca-certificates "$VERSION_CODENAME" "$root" "$uri"

rm -f "$root"/etc/apt/sources.list.d/*
sources 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' >"$root/etc/apt/sources.list"
apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/99machine" || true
cp /etc/resolv.conf /etc/hosts "$root/etc/"
[ ! -d /etc/apt/mirrors ] || cp -r /etc/apt/mirrors "$root/etc/apt/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" 2>/dev/null || true
cat >"$root/etc/dpkg/dpkg.cfg.d/lab" <<'END'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
END
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"  # no daemon starts while installing
chmod +x "$root/usr/sbin/policy-rc.d"
mount -t proc proc "$root/proc"

log "packages"
wanted="systemd systemd-sysv udev dbus polkitd kmod iproute2 procps util-linux util-linux-extra less
  python3 multipath-tools kpartx mdadm lvm2 dmsetup dmeventd cryptsetup-bin dmraid open-iscsi targetcli-fb nvme-cli
  udisks2 sg3-utils lsscsi parted fdisk e2fsprogs xfsprogs jq strace umockdev
  libvirt-daemon-system libvirt-clients libvirt-daemon-driver-storage-iscsi
  libvirt-daemon-driver-storage-mpath python3-libvirt"
quiet chroot "$root" apt-get update
quiet chroot "$root" apt-get install -y --no-install-recommends $(
  chroot "$root" apt-cache policy $wanted | awk '/^[^ ]/{name=$1} /Candidate: [^(]/{sub(":$", "", name); print name}')

log "kernel"
meta=linux-image-amd64
[ "$ID" = ubuntu ] && meta=linux-image-generic
kernel=$(chroot "$root" apt-cache depends "$meta" | awk '/Depends: linux-image-[0-9]/{print $2; exit}')
release=${kernel#linux-image-}
mkdir "$work/kernel" "$root/debs"
# unpacked, not installed: the guest needs neither its initramfs-tools nor a boot loader. Ubuntu splits the modules
for package in "$kernel" "linux-modules-$release" "linux-modules-extra-$release"; do
  chroot "$root" apt-cache show "$package" >/dev/null 2>&1 || continue
  quiet chroot "$root" sh -c "cd /debs && apt-get download $package"
done
for deb in "$root"/debs/*.deb; do dpkg-deb -x "$deb" "$work/kernel"; done
modules=$(dirname "$work/kernel"/{,usr/}lib/modules/*/kernel)
rm -rf "$modules"/kernel/{sound,drivers/{gpu,media,iio,infiniband,net/wireless,net/ethernet}}
mkdir -p "$root/lib/modules"
cp -a "$modules" "$root/lib/modules/"
depmod -b "$root" "$release"
mkdir "$work/image"
cp "$work/kernel/boot/vmlinuz-$release" "$work/image/vmlinuz"

log "initramfs"
ramfs=$work/ramfs
mkdir -p "$ramfs"/{bin,proc,sys,dev,mnt,modules}
cp /bin/busybox "$ramfs/bin/"
number=100
for module in virtio_pci virtio_blk crc32c ext4; do
  # prints "insmod FILE" for each dependency in order, and nothing to load for what is built in
  modprobe -d "$root" -S "$release" --show-depends "$module" 2>>"$work/log" || true
done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
  name=$(basename "$file")
  case $file in
    *.ko) cat "$file" ;;
    *.ko.xz) xz -dc "$file" ;;
    *.ko.zst) zstd -dcq "$file" ;;
  esac >"$ramfs/modules/$((number++))-${name%%.*}.ko"
done
cat >"$ramfs/init" <<'END'
#!/bin/busybox sh
alias b=/bin/busybox
b mount -t proc proc /proc; b mount -t sysfs sys /sys; b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do b insmod "$module"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 300 ]; do b sleep 0.1; tries=$((tries + 1)); done
b mount -t ext4 /dev/vda /mnt && b mount --move /dev /mnt/dev && exec /bin/busybox switch_root /mnt /sbin/init
END
chmod +x "$ramfs/init"
(cd "$ramfs" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/image/initrd.gz"

log "settings"
echo nodedev-lab >"$root/etc/hostname"
printf '127.0.0.1 localhost nodedev-lab\n' >"$root/etc/hosts"
echo 'lab /lab 9p trans=virtio,version=9p2000.L,msize=262144,nofail 0 0' >"$root/etc/fstab"
printf '9p\n9pnet_virtio\nvirtio_console\n' >"$root/etc/modules-load.d/lab.conf"
mkdir -p "$root/lab"
# the agent comes with the share, so that a change to it needs no new image
cat >"$root/etc/systemd/system/lab-agent.service" <<'END'
[Unit]
Description=Command channel of the lab
RequiresMountsFor=/lab
After=basic.target
[Service]
ExecStart=/usr/bin/python3 /lab/agent.py
Restart=always
KillMode=process
OOMScoreAdjust=-900
END
chroot "$root" systemctl add-wants multi-user.target lab-agent.service 2>>"$work/log"
chroot "$root" systemctl set-default multi-user.target 2>>"$work/log"
# the scenarios start what they need
for unit in multipathd.service multipathd.socket iscsid.service iscsid.socket open-iscsi.service \
  libvirtd.service libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirt-guests.service \
  virtlogd.service virtlockd.service virtlogd.socket virtlockd.socket udisks2.service lvm2-monitor.service \
  rtslib-fb-targetctl.service apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer \
  e2scrub_reap.service dpkg-db-backup.timer mdcheck_start.timer mdcheck_continue.timer mdmonitor-oneshot.timer; do
  chroot "$root" systemctl disable "$unit" >>"$work/log" 2>&1 || true
done

log "image"
umount "$root/proc"
rm -rf "$root"/debs "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/sbin/policy-rc.d \
  "$root"/usr/share/{doc,man,info,locale}/*
truncate -s 4G "$work/image/root.img"
quiet mke2fs -q -F -t ext4 -d "$root" "$work/image/root.img"
rm -rf "$lab"/image-*
mv "$work/image" "$image"
log "done"
echo "$image"
