#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Turns the tree of a host image ($1) into the root of a whole machine, which $2 may log in to.
set -eu
tree=$1 public_key=$2

# What only a container can't have.
for unit in console-getty.service dev-hugepages.mount getty.target sys-kernel-config.mount sys-kernel-debug.mount \
  sys-kernel-tracing.mount systemd-modules-load.service systemd-remount-fs.service; do
  rm -f "$tree/etc/systemd/system/$unit"
done

echo 'LABEL=root / ext4 errors=remount-ro 0 1' >"$tree/etc/fstab"
mkdir -p "$tree/var/log/journal" "$tree/etc/initramfs-tools/conf.d"
install -m 0644 "$public_key" "$tree/etc/ssh/authorized_keys"

# QEMU's user network.
cat >"$tree/etc/systemd/network/10-uplink.network" <<'CONF'
[Match]
Name=en*

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
CONF
echo 'nameserver 10.0.2.3' >"$tree/etc/resolv.conf"
chroot "$tree" systemctl --quiet enable systemd-networkd.service

# A clock that is set a day ahead would start these; under emulation they take minutes.
chroot "$tree" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer

# Only the drivers that this machine boots with: emulated processors unpack slowly.
echo 'MODULES=list' >"$tree/etc/initramfs-tools/conf.d/machine"
printf '%s\n' virtio_pci virtio_blk ext4 >>"$tree/etc/initramfs-tools/modules"
chroot "$tree" update-initramfs -u -k all >&2
