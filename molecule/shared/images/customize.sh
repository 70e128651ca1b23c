#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Turns a fresh Debian tree ($1) into a host that boots in a container and is reached over SSH.
set -eu
tree=$1

chroot "$tree" useradd --create-home --shell /bin/bash admin
echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' >"$tree/etc/sudoers.d/admin"
chmod 0440 "$tree/etc/sudoers.d/admin"

# Every host makes its own keys, as an installed machine does.
rm -f "$tree"/etc/ssh/ssh_host_*
cat >"$tree/etc/systemd/system/ssh-host-key.service" <<'UNIT'
[Unit]
Description=Make this host's SSH key
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
UNIT
cat >"$tree/etc/ssh/sshd_config.d/10-test-host.conf" <<'CONF'
PermitRootLogin prohibit-password
PasswordAuthentication no
AuthorizedKeysFile /etc/ssh/authorized_keys .ssh/authorized_keys
HostKey /etc/ssh/ssh_host_ed25519_key
UseDNS no
MaxStartups 50:30:100
CONF

# What udev does on a machine.
echo 'z /dev/fuse 0666' >"$tree/etc/tmpfiles.d/fuse.conf"

# What can't work in a container, whatever its kernel.
ln -sf /dev/null "$tree/etc/systemd/system/console-getty.service"
ln -sf /dev/null "$tree/etc/systemd/system/dev-hugepages.mount"
ln -sf /dev/null "$tree/etc/systemd/system/getty.target"
ln -sf /dev/null "$tree/etc/systemd/system/systemd-modules-load.service"
ln -sf /dev/null "$tree/etc/systemd/system/systemd-remount-fs.service"
ln -sf /dev/null "$tree/etc/systemd/system/sys-kernel-config.mount"
ln -sf /dev/null "$tree/etc/systemd/system/sys-kernel-debug.mount"
ln -sf /dev/null "$tree/etc/systemd/system/sys-kernel-tracing.mount"

chroot "$tree" systemctl --quiet enable ssh.service ssh-host-key.service
chroot "$tree" systemctl --quiet disable ssh.socket 2>/dev/null || true
chroot "$tree" systemctl --quiet set-default multi-user.target
: >"$tree/etc/machine-id"
echo 'host' >"$tree/etc/hostname"
rm -f "$tree/usr/sbin/policy-rc.d" "$tree/etc/resolv.conf"
