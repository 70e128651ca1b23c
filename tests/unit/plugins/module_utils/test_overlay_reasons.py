# SPDX-License-Identifier: GPL-3.0-or-later
"""Why overlayfs doesn't do something: codes and texts for recorded and derived findings."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.matryoshka.host.plugins.module_utils import _overlay_reasons as why
from ansible_collections.matryoshka.host.plugins.modules import overlay_info
from overlay_recorded import FAILS, WORKS, facts, recorded


def told(
    name: str,
    changes: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    filesystem: str | None = None,
    **more: Any,
) -> list[tuple[str, str, str | None]]:
    """Reasons with the native trials, the user's findings or whole parts changed."""
    found = recorded(name)
    found["users"]["ci"]["writable"] = True
    found["native"] |= changes or {}
    found["users"]["ci"] |= user or {}
    settings = more.pop("settings", {})
    found |= more
    where = facts(name) | ({"filesystem": filesystem} if filesystem else {})
    return [(one["code"], one["text"], one["user"]) for one in why.reasons(where, found, settings)]


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs"])
def test_a_good_file_system_has_no_reasons(name: str) -> None:
    assert told(name) == []


def refused(errno: str) -> dict[str, Any]:
    return {"mount": {"works": False, "errno": errno, "error": "no"}, "two_lowers": FAILS}


@pytest.mark.parametrize(
    ("name", "changes", "filesystem", "code", "text"),
    [
        ("tmpfs", {}, None, "in_memory", "tmpfs is memory"),
        ("ext4", refused("ENODEV"), None, "no_overlay", "Linux 6.18.44 has no overlay: ENODEV (no)"),
        ("ext4", refused("EPERM"), None, "no_privilege", "overlay may not be mounted: EPERM"),
        ("ext4", refused("EINVAL"), "overlay", "overlay_on_overlay", "overlay can't be the upper layer"),
        ("ext4", refused("EINVAL"), "nfs4", "network_filesystem", "nfs4 can't be the upper layer"),
        (
            "ext4",
            refused("EINVAL"),
            "vfat",
            "upper_refused",
            "vfat can't be the upper layer of an overlay: EINVAL",
        ),
        ("ext4", {"two_lowers": FAILS}, None, "single_lower", "but not with two: EOPNOTSUPP"),
        ("ext4", {"opaque": FAILS}, None, "misbehaves", "opaque doesn't work: EOPNOTSUPP"),
        ("ext4", {"rename_dir": WORKS}, None, "no_native_diff", "redirect_dir is on by default"),
        ("ext4", {"opaque_kept": FAILS}, None, "no_native_diff", "find what changed: EOPNOTSUPP"),
        ("xfs", {"d_type": FAILS}, None, "no_d_type", "mkfs.xfs -n ftype=1"),
        ("ext4", {"d_type": FAILS}, None, "no_d_type", "tune2fs -O filetype"),
        ("ext4", {"d_type": FAILS}, "vfat", "no_d_type", "vfat doesn't tell the type of directory entries"),
        ("ext4", {"trusted_xattr": FAILS}, None, "no_trusted_xattr", "ext4 takes no trusted.* attributes"),
        ("ext4", {"user_xattr": FAILS}, None, "no_user_xattr", "ext4 takes no user.* attributes: EOPNOTSUPP"),
    ],
)
def test_as_root(name: str, changes: dict[str, Any], filesystem: str | None, code: str, text: str) -> None:
    found = told(name, changes, filesystem=filesystem)
    assert [(one[0], one[2]) for one in found] == [(code, None)]
    assert text in found[0][1]


@pytest.mark.parametrize(
    ("user", "settings", "code", "text"),
    [
        ({"writable": False}, {}, "not_writable", "ci can't write to /mnt/ext4"),
        ({"subuids": 0}, {}, "no_subids", "ci has 0 subordinate uids and 65536 gids"),
        ({"user_namespace": FAILS}, {}, "no_user_namespace", "ci can't make a user namespace: EOPNOTSUPP"),
        (
            {"user_namespace": FAILS},
            {"user.max_user_namespaces": "0"},
            "userns_sysctl",
            "user.max_user_namespaces is 0",
        ),
        (
            {"user_namespace": FAILS},
            {"kernel.unprivileged_userns_clone": "0", "user.max_user_namespaces": "900"},
            "userns_sysctl",
            "kernel.unprivileged_userns_clone is 0",
        ),
        (
            {"user_namespace": FAILS},
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "userns_apparmor",
            "kernel.apparmor_restrict_unprivileged_userns is 1",
        ),
        ({"fuse_overlayfs": FAILS}, {}, "fuse_fails", "fuse-overlayfs doesn't work for ci: EOPNOTSUPP"),
    ],
)
def test_as_a_user(user: dict[str, Any], settings: dict[str, str], code: str, text: str) -> None:
    found = told("ext4", user=user, settings=settings)
    assert [(one[0], one[2]) for one in found] == [(code, "ci")]
    assert text in found[0][1]


def test_overlay_on_overlay() -> None:
    found = told("overlay")
    assert [one[0] for one in found] == ["overlay_on_overlay", "no_idmap", "user_overlay_refused"]
    assert found[0][1].startswith("overlay can't be the upper layer of an overlay: EINVAL")
    assert "mount_setattr" in found[1][1]


def test_fuse_that_fails_as_root() -> None:
    assert [one[0] for one in told("ext4", fuse_overlayfs=FAILS)] == ["fuse_fails"]
    assert told("ext4", fuse_overlayfs=None) == []


@pytest.mark.parametrize(
    ("step", "errno", "code"),
    [
        ("scratch", "EROFS", "read_only"),
        ("scratch", "ENOSPC", "no_space"),
        ("scratch", "EDQUOT", "no_space"),
        ("scratch", "EACCES", "no_access"),
        ("scratch", "ENOENT", "no_scratch"),
        ("type", "ENOTDIR", "not_a_directory"),
        ("namespace", "EPERM", "no_privilege"),
        ("timeout", None, "hung"),
        ("trials", "ENOSPC", "no_space"),
        ("trials", None, "broke_off"),
    ],
)
def test_nothing_could_be_tried(step: str, errno: str | None, code: str) -> None:
    found = {"failed": step, "works": False, "errno": errno, "error": "so it is"}
    reasons = why.reasons(facts("ext4"), found, {})
    assert [(one["code"], one["user"]) for one in reasons] == [(code, None)]


def test_every_code_is_documented() -> None:
    entry = yaml.safe_load(overlay_info.RETURN)["paths"]["contains"]["reasons"]
    text = " ".join(entry["description"])
    assert {code for code in why.CODES if f"V({code})" in text} == set(why.CODES)


def test_a_code_that_is_not_known_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        why._reason("unknown", "text")
