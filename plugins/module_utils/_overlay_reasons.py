# Copyright: The matryoshka.host authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why overlayfs doesn't do something at a path: codes and sentences for what the trials found. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.matryoshka.host.plugins.module_utils._mounts import MEMORY, NETWORK, UNION
from ansible_collections.matryoshka.host.plugins.module_utils._overlay_drivers import Trial, said

Reason = dict[str, Any]
"""``code``, ``text``, and ``user`` (None for root)."""

CODES: dict[str, str] = {
    "not_a_directory": "what exists there isn't a directory",
    "read_only": "the file system is read-only",
    "no_space": "the file system or a quota is full",
    "no_access": "this process may not write there",
    "no_scratch": "a directory can't be made there for another reason",
    "no_privilege": "this process may not make namespaces or mounts",
    "hung": "the file system gave no answer in time",
    "broke_off": "the trials ended early",
    "overlay_on_overlay": "the file system is itself made of layers",
    "network_filesystem": "the file system is on a network",
    "no_overlay": "the kernel has no overlayfs",
    "upper_refused": "the kernel doesn't take the file system as upper layer",
    "single_lower": "the kernel takes one lower layer only",
    "misbehaves": "overlay mounts but doesn't do what it should",
    "no_d_type": "the file system doesn't tell the type of directory entries",
    "no_trusted_xattr": "the file system keeps no attributes for root",
    "no_user_xattr": "the file system keeps no attributes for users",
    "no_native_diff": "engines compute differences by comparing files",
    "in_memory": "the file system is gone after a reboot",
    "no_idmap": "the file system can't be mounted with mapped ids",
    "fuse_fails": "fuse-overlayfs is installed but doesn't work",
    "no_user_namespace": "the user can't make a user namespace",
    "userns_sysctl": "a kernel setting forbids users' namespaces",
    "userns_apparmor": "AppArmor takes users' namespaces their rights",
    "no_subids": "the user has no subordinate ids",
    "user_overlay_refused": "overlay can't be mounted in the user's namespace",
    "not_writable": "the user can't write to the directory",
}
"""Every code with its meaning; the module's documentation lists them."""

SYSCTLS = {
    "user.max_user_namespaces": "0",
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
}
"""Kernel settings that keep users from namespaces, and the value with which they do."""

_SCRATCH = {
    "EROFS": "read_only",
    "ENOSPC": "no_space",
    "EDQUOT": "no_space",
    "EACCES": "no_access",
    "EPERM": "no_access",
}


def failure(facts: Mapping[str, Any], found: Mapping[str, Any]) -> Reason | None:
    """Why nothing could be tried; None if it could."""
    step = found.get("failed")
    if step is None:
        return None
    where = facts["probed_in"]
    if step == "type":
        return _reason("not_a_directory", f"{where} exists and isn't a directory")
    if step == "scratch":
        code = _SCRATCH.get(found["errno"], "no_scratch")
        return _reason(code, f"no directory can be made in {where}: {said(found)}")
    if step == "namespace":
        return _reason("no_privilege", f"a mount namespace can't be made: {said(found)}; this needs root")
    if step == "timeout":
        return _reason("hung", f"{facts['filesystem']} on {facts['mount_point']}: {said(found)}")
    code = _SCRATCH.get(found["errno"], "broke_off")
    return _reason(code, f"the trials in {where} ended early: {said(found)}")


def _reason(code: str, text: str, user: str | None = None) -> Reason:
    if code not in CODES:
        raise KeyError(code)
    return {"code": code, "text": text, "user": user}


def reasons(
    facts: Mapping[str, Any], found: Mapping[str, Any], settings: Mapping[str, str | None]
) -> list[Reason]:
    """All that isn't as an engine would want it at a path.

    :param facts: the path's own: ``path``, ``probed_in``, ``filesystem``, ``mount_point``, ``kernel``.
    :param found: what the probe told.
    :param settings: values of :data:`SYSCTLS` on the host; None where there is no such setting.
    """
    failed = failure(facts, found)
    if failed:
        return [failed]
    listed = list(_native(facts, found["native"]))
    filesystem = facts["filesystem"]
    if filesystem in MEMORY:
        listed.append(_reason("in_memory", f"{filesystem} is memory: its data is gone after a reboot"))
    if not found["idmapped"]["mount"]["works"]:
        why = said(found["idmapped"]["mount"])
        listed.append(_reason("no_idmap", f"{filesystem} can't be mounted with mapped ids: {why}"))
    fuse = found.get("fuse_overlayfs")
    if fuse and not fuse["works"]:
        listed.append(_reason("fuse_fails", f"fuse-overlayfs is installed but doesn't work: {said(fuse)}"))
    for name, user in found["users"].items():
        listed += _user(facts, name, user, settings)
    return listed


def _native(facts: Mapping[str, Any], native: Mapping[str, Trial]) -> Iterator[Reason]:
    mount = native["mount"]
    if not mount["works"]:
        yield _refused(facts, mount)
    elif not native["two_lowers"]["works"]:
        why = said(native["two_lowers"])
        yield _reason("single_lower", f"overlay mounts with one lower layer, but not with two: {why}")
    else:
        for name in ("copy_up", "whiteout", "opaque"):
            if not native[name]["works"]:
                yield _reason("misbehaves", f"{name} doesn't work: {said(native[name])}")
        if not native_diff(native):
            yield _reason("no_native_diff", _diff(native))
    if not native["d_type"]["works"]:
        yield _reason("no_d_type", _d_type(facts["filesystem"]))
    for kind in ("trusted", "user"):
        trial = native[f"{kind}_xattr"]
        if not trial["works"]:
            text = f"{facts['filesystem']} takes no {kind}.* attributes: {said(trial)}"
            yield _reason(f"no_{kind}_xattr", text)


def _refused(facts: Mapping[str, Any], mount: Trial) -> Reason:
    filesystem, why = facts["filesystem"], said(mount)
    if mount["errno"] == "ENODEV":
        return _reason("no_overlay", f"Linux {facts['kernel']} has no overlay: {why}")
    if mount["errno"] in ("EPERM", "EACCES"):
        return _reason("no_privilege", f"overlay may not be mounted: {why}")
    if filesystem in UNION:
        return _reason("overlay_on_overlay", f"{filesystem} can't be the upper layer of an overlay: {why}")
    if filesystem in NETWORK:
        return _reason("network_filesystem", f"{filesystem} can't be the upper layer of an overlay: {why}")
    return _reason("upper_refused", f"{filesystem} can't be the upper layer of an overlay: {why}")


def _d_type(filesystem: str | None) -> str:
    remedy = {
        "xfs": ": it was made with ftype=0; only a new one (mkfs.xfs -n ftype=1) has it",
        "ext4": ": tune2fs -O filetype and e2fsck give it",
        "ext3": ": tune2fs -O filetype and e2fsck give it",
    }.get(filesystem or "", "")
    return f"{filesystem} doesn't tell the type of directory entries{remedy}"


def native_diff(trials: Mapping[str, Trial]) -> bool:
    """Whether engines may take a layer's difference from its upper directory, by the check they share."""
    return bool(trials["opaque_kept"]["works"] and not trials["rename_dir"]["works"])


def _diff(native: Mapping[str, Trial]) -> str:
    if not native["opaque_kept"]["works"]:
        return f"engines compare files to find what changed: {said(native['opaque_kept'])}"
    return "engines compare files to find what changed: redirect_dir is on by default (overlay.redirect_dir)"


def _user(
    facts: Mapping[str, Any], name: str, user: Mapping[str, Any], settings: Mapping[str, str | None]
) -> Iterator[Reason]:
    if not user.get("writable", True):
        yield _reason("not_writable", f"{name} can't write to {facts['probed_in']}", name)
    if not user["subuids"] or not user["subgids"]:
        text = f"{name} has {user['subuids']} subordinate uids and {user['subgids']} gids: give 65536 of each"
        yield _reason("no_subids", text, name)
    entered = user["user_namespace"]
    if not entered["works"]:
        yield _no_namespace(name, entered, settings)
        return
    mount = user["userxattr"]["two_lowers"]
    if not mount["works"]:
        text = f"overlay with userxattr can't be mounted in the namespace of {name}: {said(mount)}"
        yield _reason("user_overlay_refused", text, name)
    fuse = user.get("fuse_overlayfs")
    if fuse and not fuse["works"]:
        yield _reason("fuse_fails", f"fuse-overlayfs doesn't work for {name}: {said(fuse)}", name)


def _no_namespace(name: str, entered: Trial, settings: Mapping[str, str | None]) -> Reason:
    text = f"{name} can't make a user namespace: {said(entered)}"
    for setting, value in SYSCTLS.items():
        if settings.get(setting) == value:
            code = "userns_apparmor" if "apparmor" in setting else "userns_sysctl"
            return _reason(code, f"{text}; {setting} is {value}", name)
    return _reason("no_user_namespace", text, name)
