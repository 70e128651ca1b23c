# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own level: units and timers, files and folders, room, group members, the engine."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._storage import EngineStorage
from ansible_collections.matryoshka.host.plugins.module_utils._storage_judge import CODES, judge_storage
from ansible_collections.matryoshka.host.plugins.module_utils._systemd import WantedUnit
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_compare import compare_units
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_text import template_of
from ansible_collections.matryoshka.host.plugins.module_utils._systemd_wanted import parse_wanted, resolve
from ansible_collections.matryoshka.host.plugins.module_utils._verify_daemon import (
    check_daemon,
    check_daemon_file,
    check_daemon_flags,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    ENGINE_COMPANIONS,
    SITE,
    Disk,
    Expect,
    FileView,
    Observed,
    Report,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_network import (
    check_bridge,
    check_firewall,
    check_mtu,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_runner_files import CONFIGS
from ansible_collections.matryoshka.host.plugins.module_utils._verify_storage import on_missing_volume

LOW = 0.05
UNIT_CHECKS = 6
#: What a drop-in of somebody else may set in a unit that isn't ours: it changes nothing promised.
HARMLESS = ("Unit.", "Install.", "Service.Environment")


def wanted_units(expect: Expect) -> list[WantedUnit]:
    """The promised units, checked; each owner's texts bear its marker."""
    wanted: list[WantedUnit] = []
    for owner in dict.fromkeys(str(item.get("owner") or "verify") for item in expect.units):
        items = [
            {key: value for key, value in item.items() if key != "owner"}
            for item in expect.units
            if str(item.get("owner") or "verify") == owner
        ]
        wanted += parse_wanted(owner, items, f"expect.units of {owner}")
    if expect.engine and not any(unit.name == expect.engine_unit for unit in wanted):
        wanted.append(WantedUnit(expect.engine_unit, state="started", enabled=True))
    return wanted


def check_units(report: Report, expect: Expect, seen: Observed) -> None:
    """Units as promised and as systemd has them; timers that will fire; nothing left of what was removed."""
    wanted = wanted_units(expect)
    targets = resolve(wanted)
    report.checks += UNIT_CHECKS * len(targets)
    ours = {unit.name for unit in wanted if unit.content is not None}
    for one in compare_units(wanted, seen.units):
        engine = one.unit == expect.engine_unit and expect.engine
        subject = f"engine {expect.engine_name}" if engine else f"unit {one.unit}"
        foreign = one.kind == "foreign_drop_in" and not {one.unit, template_of(one.unit)} & ours
        if foreign and _harmless(seen, one.unit, one.text):
            report.note("unit_foreign_drop_in", subject, one.text, one.remedy)
        else:
            report.check(False, f"unit_{one.kind}", subject, one.text, one.remedy)
    for name, target in targets.items():
        if name.endswith(".timer") and target.state == "started":
            _check_timer(report, seen, name)
    if expect.engine:
        for name in ENGINE_COMPANIONS[expect.engine_name]:
            state = seen.units.get(name)
            report.check(
                state is None or not state.masked,
                "unit_masked",
                f"engine {expect.engine_name}",
                f"{name}, which {expect.engine_unit} needs to start, is masked",
                f"systemctl unmask {name}; when no job runs: systemctl restart {name} {expect.engine_unit}",
            )
    templates = {unit.name for unit in wanted if unit.instances is not None}
    for name, state in sorted(seen.units.items()):
        if template_of(name) in templates and name not in targets:
            report.check(
                state.active_state in ("inactive", "failed"),
                "unit_orphan",
                f"unit {name}",
                f"{name} is {state.active_state}, but nothing in the inventory wants it any more",
                f"systemctl disable --now {name}",
            )


def _harmless(seen: Observed, name: str, text: str) -> bool:
    for path, settings in seen.units[name].foreign_drop_ins.items():
        if path in text:
            return all(one.startswith(HARMLESS) for one in settings)
    return False


def _check_timer(report: Report, seen: Observed, name: str) -> None:
    state, detail = seen.units.get(name), seen.unit_details.get(name, {})
    if state is None or state.active_state != "active":
        return
    scheduled = detail.get("NextElapseUSecRealtime", "") not in ("", "n/a", "0") or detail.get(
        "NextElapseUSecMonotonic", ""
    ) not in ("", "0", "infinity")
    report.check(
        state.sub_state == "running" or scheduled,
        "timer_unscheduled",
        f"unit {name}",
        f"{name} is active, but has no next time to fire ({state.sub_state})",
        f"systemctl restart {name}",
    )
    service = f"{name[: -len('.timer')]}.service"
    result = seen.units.get(service)
    report.check(
        result is None or not result.failed,
        "timer_service_failed",
        f"unit {name}",
        f"what it starts, {service}, failed the last time ({result.result if result else ''})",
        f"journalctl -u {service} -n 30; systemctl reset-failed {service}; systemctl start {service}",
    )


def check_engine(report: Report, expect: Expect, seen: Observed) -> None:
    """The engine answers, with its configuration, on sound storage, and its networks work."""
    if not expect.engine:
        return
    subject, unit = f"engine {expect.engine_name}", expect.engine_unit
    check_daemon_file(report, expect, seen)
    state = seen.units.get(unit)
    if state is None or state.active_state not in ("active", "reloading"):
        return
    if not report.check(
        seen.engine.error is None,
        "engine_silent",
        subject,
        f"{unit} is {state.active_state}, but the engine doesn't answer: {seen.engine.error}",
        f"journalctl -u {unit} -n 50; systemctl restart {unit}",
    ):
        return
    again = f"systemctl restart {unit} (runners and their jobs live on only with live-restore)"
    wanted = dict(expect.engine_config)
    if "data-root" in wanted:
        wanted["data-root"] = seen.data_root or wanted["data-root"]
    check_daemon(report, seen.engine, wanted, subject, again)
    check_daemon_flags(report, expect, seen)
    version = expect.engine.get("version")
    present = str(seen.engine.info.get("ServerVersion", ""))
    report.check(
        not version or _same_version(str(version), present),
        "engine_version",
        subject,
        f"the running daemon is version {present}, and {version} is promised",
        f"{SITE}; if the package is right: systemctl restart {unit}",
    )
    if seen.storage:
        check_storage(report, seen.storage, subject)
    check_bridge(report, seen.engine, seen.net, subject, again)
    check_mtu(report, seen.engine, seen.net, subject, "docker_daemon.mtu")
    check_firewall(report, seen.engine, seen.net, wanted, subject, again)


def _same_version(wanted: str, running: str) -> bool:
    """Package versions carry an epoch, a revision and a distribution's suffix that the daemon doesn't tell."""
    plain = wanted.split(":", 1)[-1]
    plain = plain.split("-", 1)[0].split("~", 1)[0]
    return fnmatchcase(running, plain) or running.split("+", 1)[0] == plain.split("+", 1)[0]


def check_storage(report: Report, storage: EngineStorage, subject: str) -> None:
    """What :func:`judge_storage` has against an engine's storage."""
    report.checks += len(CODES)
    for reason in judge_storage(storage).reasons:
        report.check(False, reason.code, subject, reason.text, reason.remedy)


def check_files(report: Report, expect: Expect, seen: Observed) -> None:
    """Installed files are as they were installed, and nobody else can replace them."""
    told = {one.subject for one in report.findings if one.code == "runner_config"}
    told = {
        posixpath.join(CONFIGS, f"{one['name']}.json")
        for one in expect.runners
        if f"runner {one['name']}" in told
    }
    for item in expect.files:
        path, view = str(item["path"]), seen.files.get(str(item["path"]))
        if view is None and on_missing_volume(report, path):
            continue
        subject = f"file {path}"
        if not report.check(
            view is not None, "file_missing", subject, f"{path} isn't there", f"{SITE}: it writes the file"
        ):
            continue
        if view is None:
            raise AssertionError("view is set by now")
        wanted = {
            key: item[key] for key in ("mode", "owner", "group") if item.get(key) is not None and key in item
        }
        different = [
            f"{key} {getattr(view, key)} instead of {want}"
            for key, want in wanted.items()
            if not _equal(key, view, want)
        ]
        report.check(
            not different,
            "file_mode",
            subject,
            f"{path} has {', '.join(different)}",
            f"chown {item.get('owner', 'root')}:{item.get('group', 'root')} {path}; chmod {item.get('mode', '0644')} {path}",
        )
        if item.get("sha256") and path not in told:
            report.check(
                view.sha256 == item["sha256"],
                "file_content",
                subject,
                f"{path} was edited by hand: it isn't what was installed",
                f"{SITE}: it writes the file anew",
            )
    paths = {str(item["path"]) for item in expect.files}
    for path, view in seen.files.items():
        if path not in paths and view is not None:
            report.check(
                view.owner == "root" and not int(view.mode, 8) & 0o022,
                "folder_mode",
                f"folder {path}",
                f"{path} belongs to {view.owner} with mode {view.mode}: others than root could replace what is in it",
                f"chown root {path}; chmod go-w {path}",
            )


def _equal(key: str, view: FileView, want: Any) -> bool:
    if key == "mode":
        return int(view.mode, 8) == int(str(want), 8)
    return bool(getattr(view, key) == str(want))


def check_room(report: Report, disks: list[Disk], expect: Expect) -> None:
    """At least 5 % of bytes and inodes are free wherever something has to be written."""
    roots = (str(expect.engine.get("data_root") or "/var/lib/docker"),)
    for disk in disks:
        for what, free, total in (
            ("bytes", disk.bytes_free, disk.bytes_total),
            ("inodes", disk.inodes_free, disk.inodes_total),
        ):
            report.check(
                not total or free >= total * LOW,
                "disk_full",
                f"disk of {disk.path}",
                f"{disk.path} has {100 * free / (total or 1):.1f} % of its {what} left ({free} of {total})",
                f"df -h {disk.path}; df -i {disk.path}; du -xh --max-depth 2 {disk.path} | sort -h | tail"
                + ("; docker system prune" if disk.path in roots else ""),
            )


def check_group(report: Report, expect: Expect, seen: Observed) -> None:
    """Who may talk to the engine is root on the host: promised members are in, others are told."""
    wanted = expect.engine.get("group_members")
    if not expect.engine or wanted is None:
        return
    present = seen.group_members or []
    missing = sorted(set(wanted) - set(present))
    report.check(
        not missing,
        "group_member",
        f"engine {expect.engine_name}",
        f"{', '.join(missing)} should be in the group docker and isn't",
        "; ".join(f"usermod --append --groups docker {name}" for name in missing),
    )
    extra = sorted(set(present) - set(wanted))
    if extra:
        report.note(
            "group_extra",
            f"engine {expect.engine_name}",
            f"{', '.join(extra)} in the group docker can become root through the engine, and docker_users doesn't name them",
            "; ".join(f"gpasswd --delete {name} docker" for name in extra),
        )


def check_image(report: Report, expect: Expect, seen: Observed) -> None:
    """The environment image that runners are made from is there and is what was built."""
    reference = expect.image.get("reference")
    if not reference or seen.image is None:
        return
    subject = f"image {reference}"
    if not report.check(bool(seen.image), "image_missing", subject, "the engine has no such image", SITE):
        return
    labels: Mapping[str, str] = (seen.image.get("Config") or {}).get("Labels") or {}
    wanted = expect.image.get("sha256")
    report.check(
        not wanted or labels.get("matryoshka.recipe") == wanted,
        "image_recipe",
        subject,
        f"its label says that it was built from recipe {labels.get('matryoshka.recipe', 'unknown')}, not from {wanted}",
        f"docker image rm --force {reference}, then {SITE}: it builds the image anew",
    )
