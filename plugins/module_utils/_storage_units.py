# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd and udev are told about volumes: mount units, guards of engines, rules for disks.

Pure. Facts from systemd.mount(5), systemd.unit(5), udev(7) and the kernel's
Documentation/ABI/stable/sysfs-block.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

OWNER = "storage"
RULES = "/etc/udev/rules.d/61-matryoshka-storage.rules"
GUARD = "50-storage.conf"
"""The name of this role's drop-ins."""
FOUND_DISKS = "/run/matryoshka-disks"
"""Where a host without udev keeps links to the disks that it has found by UUID."""

_PLAIN = re.compile(r"[A-Za-z0-9:_.]")


def escape(path: str) -> str:
    r"""``path`` as systemd-escape(1) has it in unit names: ``/srv/ci-data`` is ``srv-ci\x2ddata``."""
    trimmed = path.strip("/")
    if not trimmed:
        return "-"
    done = ""
    for index, char in enumerate(trimmed):
        if char == "/":
            done += "-"
        elif _PLAIN.match(char) and not (char == "." and index == 0):
            done += char
        else:
            done += "".join(f"\\x{byte:02x}" for byte in char.encode())
    return done


def mount_unit(path: str) -> str:
    """The name of the unit that mounts ``path``."""
    return f"{escape(path)}.mount"


def plan_units(
    volumes: Sequence[Mapping[str, Any]], *, udev: bool, trim: Sequence[str]
) -> list[dict[str, Any]]:
    """Entries for ``systemd_units``: a mount unit for each volume, and guards of what keeps its data there.

    :param volumes: plans of volumes with ``uuid`` known, as :mod:`_storage_volume` completes them.
    :param udev: whether links below ``/dev/disk`` are made; without udev a small unit finds the disk.
    :param trim: paths of the volumes whose freed blocks ``fstrim.timer`` is to give back.
    """
    units = []
    for volume in volumes:
        if volume["directory"] == volume["path"]:
            continue
        if volume["kind"] != "directory":
            units.append(_returned(volume) if udev else _finder(volume))
        units.append(
            {
                "name": mount_unit(volume["path"]),
                "content": _mount_text(volume, udev),
                "state": "started",
                "enabled": True,
                # Other options of a file system are taken over by mounting it again in place.
                "on_change": "reload",
            }
        )
    guarded = sorted({unit for volume in volumes for unit in volume["units"]})
    for unit in guarded:
        paths = [volume["path"] for volume in volumes if unit in volume["units"] and _mounted(volume)]
        if paths:
            text = _guard_text(paths)
            units.append({"name": unit, "drop_ins": [{"name": GUARD, "content": text}], "on_change": "none"})
    if trim:
        drop_in = {"name": GUARD, "content": _trim_text(trim)}
        units.append({"name": "fstrim.service", "drop_ins": [drop_in], "on_change": "none"})
        units.append({"name": "fstrim.timer", "state": "started", "enabled": True, "masked": False})
    return units


def _trim_text(paths: Sequence[str]) -> str:
    """fstrim(8) as its unit calls it takes ``/etc/fstab`` alone if that names anything; volumes aren't in it."""
    calls = [f"ExecStart=-/sbin/fstrim --verbose --quiet-unsupported {path}" for path in sorted(paths)]
    return "\n".join(["[Service]", *calls, ""])


def plan_rules(volumes: Sequence[Mapping[str, Any]], disks: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The text of udev's rules for scheduler and read-ahead; empty if no volume asks for either.

    :param disks: for each volume's name its disks: ``name`` and ``serial``.
    """
    lines = []
    for volume in volumes:
        wanted = queue_settings(volume)
        for disk in disks.get(volume["name"], ()) if wanted else ():
            lines += [
                f'ACTION=="add|change", SUBSYSTEM=="block", ENV{{DEVTYPE}}=="disk", {match}, '
                + ", ".join(f'ATTR{{queue/{key}}}="{value}"' for key, value in wanted.items())
                for match in _matches(disk)
            ]
        if "read_ahead_kb" in wanted and volume["uuid"]:
            # What LVM or dm-crypt puts upon the disk has a read-ahead of its own.
            lines.append(
                f'ACTION=="add|change", SUBSYSTEM=="block", KERNEL=="dm-*", ENV{{ID_FS_UUID}}=="{volume["uuid"]}", '
                f'ATTR{{queue/read_ahead_kb}}="{wanted["read_ahead_kb"]}"'
            )
    return "# Managed by matryoshka.host: storage\n" + "\n".join(lines) + "\n" if lines else ""


def queue_settings(volume: Mapping[str, Any]) -> dict[str, str]:
    """What a volume asks of its disk's queue, by the name of the file in sysfs."""
    found = {"scheduler": volume["scheduler"], "read_ahead_kb": volume["read_ahead_kb"]}
    return {key: str(value) for key, value in found.items() if value is not None}


def _matches(disk: Mapping[str, Any]) -> list[str]:
    serial = disk.get("serial")
    if not serial or serial.startswith("/") or not re.match(r"^[\w.:-]+$", serial):
        return [f'KERNEL=="{disk["name"]}"']
    return [f'ENV{{{key}}}=="{serial}"' for key in ("ID_SERIAL_SHORT", "ID_SERIAL")]


def _mounted(volume: Mapping[str, Any]) -> bool:
    return bool(volume["directory"] != volume["path"])


def _finder(volume: Mapping[str, Any]) -> dict[str, Any]:
    link = f"{FOUND_DISKS}/{volume['name']}"
    return {
        "name": _finder_name(volume),
        "content": f"""\
[Unit]
Description=Find the disk of volume {volume["name"]}, as no udev does here
DefaultDependencies=no
Before={mount_unit(volume["path"])}

[Service]
Type=oneshot
RuntimeDirectory={FOUND_DISKS.removeprefix("/run/")}
RuntimeDirectoryPreserve=yes
ExecStart=/bin/sh -c 'disk=$$(blkid -c /dev/null -l -o device -t UUID={volume["uuid"]}) && exec ln -sfn "$$disk" {link}'
""",
    }


def _finder_name(volume: Mapping[str, Any]) -> str:
    return f"matryoshka-disk-{volume['name']}.service"


def _returned(volume: Mapping[str, Any]) -> dict[str, Any]:
    """A disk that was away for a moment only comes back under another name while the mount of the old one is still there.

    Nothing but EIO comes from that one; systemd takes it for what is wanted and waits for the old name.
    """
    path, disk = volume["path"], f"/dev/disk/by-uuid/{volume['uuid']}"
    device = f"{escape(disk)}.device"
    return {
        "name": f"matryoshka-returned-{volume['name']}.service",
        "enabled": True,
        "content": f"""\
[Unit]
Description=Mount volume {volume["name"]} anew if it is the one of a disk that went away
DefaultDependencies=no
After={device}

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'old=$$(findmnt -nrfo SOURCE -M {path}) || exit 0; \\
  test "$$(readlink -f "$$old")" = "$$(readlink -f {disk})" && exit 0; \\
  umount -l {path}; exec systemctl --no-block restart {path}'

[Install]
WantedBy={device}
""",
    }


def _mount_text(volume: Mapping[str, Any], udev: bool) -> str:
    unit = [f"Description=Volume {volume['name']}"]
    wanted_by = ["local-fs.target"]
    if volume["kind"] == "directory":
        what, kind = volume["directory"], "none"
        unit.append(f"RequiresMountsFor={what}")
    elif udev:
        what, kind = f"/dev/disk/by-uuid/{volume['uuid']}", volume["filesystem"]
        device = f"{escape(what)}.device"
        unit += [f"BindsTo={device}", f"After={device}"]
        # A disk that comes back is mounted again.
        wanted_by.append(device)
    else:
        what, kind = f"{FOUND_DISKS}/{volume['name']}", volume["filesystem"]
        unit += [f"Requires={_finder_name(volume)}", f"After={_finder_name(volume)}"]
    if volume["units"]:
        # What stopped because the disk was away comes back with it.
        unit.append(f"Wants={' '.join(volume['units'])}")
    return "\n".join(
        [
            "[Unit]",
            *unit,
            "",
            "[Mount]",
            f"What={what}",
            f"Where={volume['path']}",
            f"Type={kind}",
            f"Options={','.join(volume['options'])}",
            "",
            "[Install]",
            f"WantedBy={' '.join(wanted_by)}",
            "",
        ]
    )


def _guard_text(paths: Sequence[str]) -> str:
    """Never started without the mounts, and stopped when one of them goes, in whatever way."""
    mounts = " ".join(mount_unit(path) for path in sorted(paths))
    return "\n".join(
        [
            "[Unit]",
            f"RequiresMountsFor={' '.join(sorted(paths))}",
            f"BindsTo={mounts}",
            f"After={mounts}",
            "",
        ]
    )
