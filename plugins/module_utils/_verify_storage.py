# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes of role storage: mounted where engines keep their data, with their options and quotas.

Compared by :mod:`_storage_volume`, as the role's own tasks do. Here the differences become findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils import _storage_volume
from ansible_collections.matryoshka.host.plugins.module_utils._command import Runner
from ansible_collections.matryoshka.host.plugins.module_utils._storage_units import OWNER
from ansible_collections.matryoshka.host.plugins.module_utils._verify_firewall import asked
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    SITE,
    Expect,
    Observed,
    Report,
)

SUBJECT = "storage"
#: Steps that a mounted volume may lack: code, what is seen, the way back; {path} and {unit} are the volume's.
_LACKING: dict[str, tuple[str, str, str]] = {
    "remount": (
        "volume_options",
        "{path} is mounted without options that were planned ({options})",
        "mount -o remount,{options} {path}; systemctl cat '{unit}' has them for the next boot",
    ),
    "queue": (
        "volume_queue",
        "the disk of {path} has another scheduler or read-ahead than planned",
        "udevadm trigger --subsystem-match=block --action=change",
    ),
    "mount_point": (
        "volume_mount_point",
        "the mount point beneath {path} isn't protected: without the volume an engine could write there",
        SITE,
    ),
}
#: What may grow, or be taken away after a migration, when the play runs next.
_LATER = ("grow", "grow_partition", "lvm", "migrated")


def observe_volumes(expect: Expect, run: Runner) -> dict[str, Any]:
    """What module ``storage_volume_info`` finds lacking, or ``error``; empty if nothing was promised."""
    return asked(
        expect.storage, _storage_volume.ARGUMENTS, lambda params: _storage_volume.answer(params, run)
    )


def with_volume_units(expect: Expect, volumes: Mapping[str, Any]) -> Expect:
    """``expect`` with the units that mount the volumes: their texts are known when the host has been looked at."""
    units = [{**one, "owner": OWNER} for one in volumes.get("units") or []]
    return replace(expect, units=[*expect.units, *units]) if units else expect


def check_volumes(report: Report, expect: Expect, seen: Observed) -> None:
    """Each volume is mounted at its place, with its options; quotas are as planned."""
    found = seen.volumes
    if not expect.storage:
        return
    if not report.check(
        "error" not in found,
        "storage_unread",
        SUBJECT,
        f"the volumes can't be compared with the plan: {found.get('error')}",
        SITE,
    ):
        return
    for volume in found["volumes"]:
        subject = f"volume {volume['path']}"
        if volume["unit"] is None:
            _check_directory(report, volume, subject)
        elif _check_mounted(report, seen, volume, subject):
            _check_steps(report, expect, volume, subject)
    report.check(
        "rules" not in found["pending"],
        "storage_rules",
        SUBJECT,
        f"{found['config']['files'][0]['path'] if found['config']['files'] else 'a file of rules'} isn't as planned, "
        "so that disks have other schedulers after a boot",
        SITE,
    )
    told = any(one.code.startswith("unit_") for one in report.findings)
    report.check(
        "units" not in found["pending"] or told,
        "storage_units",
        SUBJECT,
        "units that mount volumes, or keep engines from starting without them, aren't as planned",
        SITE,
    )
    _check_quotas(report, found)


def on_missing_volume(report: Report, path: str) -> bool:
    """Whether ``path`` should be on a volume that :func:`check_volumes` didn't find in its place."""
    return any(
        one.code in ("volume_unmounted", "volume_mount")
        and f"volume {path}/".startswith(f"{one.subject.rstrip('/')}/")
        for one in report.findings
    )


def _check_directory(report: Report, volume: Mapping[str, Any], subject: str) -> None:
    report.check(
        not volume["steps"] and not volume["refusals"],
        "volume_missing",
        subject,
        "; ".join(volume["refusals"]) or f"the directory {volume['directory']} isn't there",
        SITE,
    )


def _check_mounted(report: Report, seen: Observed, volume: Mapping[str, Any], subject: str) -> bool:
    path, unit = volume["path"], volume["unit"]
    if volume["mounted"]:
        for refusal in volume["refusals"]:
            report.check(
                False,
                "volume_mount",
                subject,
                refusal,
                f"findmnt {path}; when nothing uses it: umount {path}; systemctl restart '{unit}'",
            )
        report.checks += 1
        return not volume["refusals"]
    running = [name for name in volume["units"] if name in seen.units and seen.units[name].up]
    what = f"UUID {volume['uuid']}" if volume["uuid"] else volume["directory"]
    text = f"nothing is mounted at {path}, where {what} should be"
    text += f"; {' and '.join(running)} runs all the same and writes beneath" if running else ""
    text += "".join(f"; {one}" for one in volume["refusals"])
    stop = f"systemctl stop {' '.join(_with_socket(running))}; " if running else ""
    look = f"look at what was written to {path} and move it away; " if running else ""
    return report.check(
        False,
        "volume_unmounted",
        subject,
        text,
        f"{stop}{look}systemctl start '{unit}'; journalctl -u '{unit}' says why not",
    )


def _with_socket(units: list[str]) -> list[str]:
    """Units to stop; Docker's socket would start it again."""
    return ["docker.socket", *units] if "docker.service" in units else units


def _check_steps(report: Report, expect: Expect, volume: Mapping[str, Any], subject: str) -> None:
    planned: Mapping[str, Any] = next(
        (one for one in expect.storage["volumes"] if one.get("name") == volume["name"]), {}
    )
    words = {
        "path": volume["path"],
        "unit": volume["unit"],
        "options": ",".join(planned.get("options") or []),
    }
    for step, (code, text, remedy) in _LACKING.items():
        report.check(step not in volume["steps"], code, subject, text.format(**words), remedy.format(**words))
    later = [step for step in volume["steps"] if step in _LATER]
    if later:
        report.note("volume_later", subject, f"to be done by the play: {', '.join(later)}", SITE)


def _check_quotas(report: Report, found: Mapping[str, Any]) -> None:
    quotas, missing = found.get("quotas") or [], found["missing_directories"]
    for quota in quotas:
        report.check(
            not quota["changed"],
            "quota",
            f"quota of {quota['path']}",
            f"it isn't what was planned: now at most {_limit(quota)}",
            SITE,
        )
    report.check(
        "quotas" not in found["pending"] or any(one["changed"] for one in quotas) or _undecided(found),
        "quota",
        SUBJECT,
        "quotas aren't as planned: "
        + ("; ".join(f"{one} isn't there" for one in missing) or "there are some that nobody planned"),
        SITE,
    )


def _undecided(found: Mapping[str, Any]) -> bool:
    """Whether quotas couldn't be looked at, because a volume isn't as it should be yet."""
    return "quotas" not in found and not found["missing_directories"]


def _limit(quota: Mapping[str, Any]) -> str:
    parts = [
        f"{quota[key]} {name}" for key, name in (("size", "bytes"), ("inodes", "inodes")) if quota.get(key)
    ]
    return " and ".join(parts) or "no limit at all"
