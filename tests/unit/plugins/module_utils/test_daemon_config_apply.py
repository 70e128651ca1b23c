# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json on a file system: what is written, kept, backed up and left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_apply import (
    Request,
    apply,
    engine_version,
)
from ansible_collections.matryoshka.host.plugins.module_utils._errors import HostError
from support import table

NO_HOST = table({})
OK = Result(0)


class Dockerd:
    """Answers for ``dockerd`` and keeps what it was asked."""

    def __init__(
        self, version: str = "Docker version 26.1.5+dfsg1, build a72d7cd", validate: Result = OK
    ) -> None:
        self.version, self.validate = version, validate
        self.calls: list[list[str]] = []
        self.seen = ""

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        self.calls.append(list(argv))
        if list(argv) == ["dockerd", "--version"]:
            return Result(0, self.version)
        if list(argv[:3]) == ["dockerd", "--validate", "--config-file"]:
            self.seen = Path(argv[3]).read_text()
            return self.validate
        return Result(127)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "docker" / "daemon.json"


def request(path: Path, config: dict[str, Any] | None = None, **more: Any) -> Request:
    return Request(str(path), config or {}, **{"unit": "", **more})


def test_new_file(path: Path) -> None:
    result = apply(request(path, {"mtu": 1400}), NO_HOST)
    assert path.read_text() == '{\n  "mtu": 1400\n}\n'
    assert path.stat().st_mode & 0o777 == 0o644
    assert result["changed"] and result["restart_required"] and "backup_file" not in result
    assert result["diff"] == [
        {
            "before_header": f"{path} (absent)",
            "after_header": str(path),
            "before": "",
            "after": '{\n  "mtu": 1400\n}\n',
        }
    ]


def test_check_mode_without_anything_there(path: Path) -> None:
    result = apply(request(path, {"mtu": 1400}, owner="nobody-here"), NO_HOST, check_mode=True)
    assert result["changed"] and not path.parent.parent.exists()


def test_nothing_wanted_writes_no_file(path: Path) -> None:
    assert not apply(request(path), NO_HOST)["changed"]
    assert not path.exists()


def test_same_meaning_in_another_form_is_left_alone_and_dockerd_is_not_asked(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"runtimes":{"crun":{"path":"/usr/bin/crun"}},\n\t"mtu" : 1400}')
    before = path.stat()
    dockerd = Dockerd()
    result = apply(request(path, {"mtu": 1400}), dockerd)
    assert not result["changed"] and result["diff"] == [] and dockerd.calls == []
    assert path.stat().st_ino == before.st_ino
    assert result["foreign_keys"] == ["runtimes"]


def test_foreign_keys_order_mode_and_backup(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"runtimes":{"sysbox-runc":{"path":"/usr/bin/sysbox-runc"}},"mtu":1500,"quux":1}')
    path.chmod(0o640)
    old = path.read_bytes()
    result = apply(request(path, {"bip": "172.20.0.1/16", "mtu": 1400}), NO_HOST)
    assert list(json.loads(path.read_text())) == ["runtimes", "mtu", "quux", "bip"]
    assert path.stat().st_mode & 0o777 == 0o640
    assert Path(result["backup_file"]).read_bytes() == old
    assert Path(result["backup_file"]).stat().st_mode & 0o777 == 0o640
    assert result["warnings"] == [f"{path}: quux is unknown and kept"]
    assert not apply(request(path, {"bip": "172.20.0.1/16", "mtu": 1400}), NO_HOST)["changed"]
    assert len(list(path.parent.iterdir())) == 2


def test_without_backup(path: Path) -> None:
    apply(request(path, {"mtu": 1400}), NO_HOST)
    assert "backup_file" not in apply(request(path, {"mtu": 1500}, backup=False), NO_HOST)
    assert [entry.name for entry in path.parent.iterdir()] == ["daemon.json"]


def test_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(parents=True)
    (tmp_path / "real.json").write_text("{}")
    path.symlink_to(tmp_path / "real.json")
    apply(request(path, {"mtu": 1400}), NO_HOST)
    assert path.is_symlink() and json.loads((tmp_path / "real.json").read_text()) == {"mtu": 1400}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.mkdir(), "path: '{path}' is refused; allowed: a file; a directory is there"),
        (
            lambda path: path.symlink_to("/nowhere"),
            "path: '{path}' is refused; allowed: a file, or a link to one; it is a link to /nowhere, which is no file",
        ),
        (lambda path: path.write_bytes(b'{"a": "\xff"}'), "{path} byte 8: not UTF-8; fix the file by hand"),
        (
            lambda path: path.write_text('{"bip": "a",\n "bip": "b"}'),
            "{path}: there more than once: bip; leave one of each in the file",
        ),
        (
            lambda path: path.write_text("{\n!}"),
            "{path} line 2 column 1: Expecting property name enclosed in double quotes; fix the file by hand",
        ),
    ],
)
def test_unusable_path(prepare: Any, message: str, path: Path) -> None:
    path.parent.mkdir(parents=True)
    prepare(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(HostError) as caught:
        apply(request(path, {"mtu": 1400}), NO_HOST)
    assert str(caught.value) == message.format(path=path)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert len(list(path.parent.iterdir())) == 1


def test_wrong_value_of_another_author_can_be_removed_or_replaced(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"storage-driver": "overlay9"}')
    with pytest.raises(HostError, match=f"^{path}: storage-driver: 'overlay9' is refused"):
        apply(request(path, {"mtu": 1400}), NO_HOST)
    apply(request(path, {"mtu": 1400}, absent=["storage-driver"]), NO_HOST)
    assert json.loads(path.read_text()) == {"mtu": 1400}


def test_part_of_a_mapping_that_others_wrote_is_named_by_the_file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"runtimes": {"x": {"pth": "/x"}}}')
    with pytest.raises(HostError, match=f"^{path}: runtimes.x.pth: "):
        apply(request(path, {"runtimes": {"y": {"path": "/y"}}}), NO_HOST)


def test_dockerd_reads_the_candidate_before_the_file_is_replaced(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    refusing = Dockerd(
        validate=Result(
            1, "", "unable to configure the Docker daemon with file /tmp/x/daemon.json: no such luck\n"
        )
    )
    for check_mode in (True, False):
        with pytest.raises(HostError) as caught:
            apply(request(path, {"mtu": 1400}), refusing, check_mode)
        assert str(caught.value) == f"dockerd refuses the configuration for {path}: no such luck"
    assert refusing.seen == '{\n  "mtu": 1400\n}\n'
    assert path.read_text() == "{}" and len(list(path.parent.iterdir())) == 1
    assert not Path(refusing.calls[-1][3]).parent.exists()


@pytest.mark.parametrize(
    "dockerd",
    [Dockerd(), Dockerd(validate=Result(125, "", "unknown flag: --validate\nSee 'dockerd --help'."))],
)
def test_dockerd_that_agrees_or_can_not_validate(dockerd: Dockerd, path: Path) -> None:
    assert apply(request(path, {"mtu": 1400}), dockerd)["changed"]


def test_validation_can_be_left_out(path: Path) -> None:
    dockerd = Dockerd(validate=Result(1))
    apply(request(path, {"mtu": 1400}, validate=False), dockerd)
    assert dockerd.calls == [["dockerd", "--version"]]


def test_option_that_the_installed_release_lacks(path: Path) -> None:
    with pytest.raises(HostError) as caught:
        apply(request(path, {"firewall-backend": "nftables"}), Dockerd())
    assert str(caught.value) == (
        "config.firewall-backend: 'nftables' is refused; allowed: Docker 29.0 or newer; here is 26.1"
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build 297e128", (20, 10)),
        ("Docker version 29.1.3, build 1", (29, 1)),
        ("?", None),
    ],
)
def test_engine_version(text: str, version: tuple[int, int] | None) -> None:
    assert engine_version(text) == version


SHOW = (
    "systemctl",
    "show",
    "-p",
    "LoadState,NeedDaemonReload,ExecStart,Environment,EnvironmentFiles",
    "d.service",
)


def shown(arguments: str) -> Any:
    start = f"ExecStart={{ path=/d ; argv[]=/d {arguments} ; ignore_errors=no ; pid=1 }}\n"
    return table({SHOW: start + "LoadState=loaded\nNeedDaemonReload=no\n"})


def test_option_on_the_command_line_too(path: Path) -> None:
    with pytest.raises(HostError) as caught:
        apply(request(path, {"hosts": ["unix:///run/docker.sock"]}, unit="d.service"), shown("-H fd://"))
    assert str(caught.value) == (
        "config.hosts: ['unix:///run/docker.sock'] is refused; allowed: only in one place, "
        "but d.service starts dockerd with --host=fd://"
    )
    assert not path.exists()


def test_unit_that_reads_another_file(path: Path) -> None:
    with pytest.raises(HostError) as caught:
        apply(request(path, {"mtu": 1400}, unit="d.service"), shown("--config-file=/etc/other.json"))
    assert str(caught.value) == (
        f"path: '{path}' is refused; allowed: /etc/other.json, the file that d.service starts dockerd with"
    )


def test_certificates_have_to_be_there(path: Path, tmp_path: Path) -> None:
    for name in ("ca", "cert"):
        (tmp_path / name).write_text("x")
    config = {"tlsverify": True, **{f"tls{name}": str(tmp_path / name) for name in ("cacert", "cert", "key")}}
    config["tlscacert"] = str(tmp_path / "ca")
    assert apply(request(path, config), NO_HOST, check_mode=True)["changed"]
    with pytest.raises(HostError) as caught:
        apply(request(path, config), NO_HOST)
    assert str(caught.value) == f"config.tlskey: '{tmp_path}/key' is refused; allowed: a file that is there"
    (tmp_path / "key").write_text("x")
    assert apply(request(path, config), NO_HOST)["changed"]


def test_secrets_stay_out_of_the_result_and_the_file_is_private(path: Path) -> None:
    config = {"proxies": {"http-proxy": "http://me:s3cret@proxy:3128"}}
    result = apply(request(path, config), NO_HOST)
    assert "s3cret" not in repr(result)
    assert "s3cret" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    again = apply(request(path, config), NO_HOST)
    assert again["changed"] and not again["restart_required"] and path.stat().st_mode & 0o777 == 0o600
    assert not apply(request(path, config), NO_HOST)["changed"]


def test_mode_alone(path: Path) -> None:
    apply(request(path, {"mtu": 1400}), NO_HOST)
    inode = path.stat().st_ino
    result = apply(request(path, {"mtu": 1400}, mode="0600"), NO_HOST)
    assert result["changed"] and result["changed_keys"] == [] and path.stat().st_ino == inode
    assert result["diff"][0]["after"].startswith("mode 0600 ")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "0888"}, "mode: '0888' is refused; allowed: octal permission bits as text, such as '0644'"),
        ({"owner": "nobody-here"}, "owner: 'nobody-here' is refused; allowed: a user on this host, or a uid"),
        (
            {"group": "nobody-here"},
            "group: 'nobody-here' is refused; allowed: a group on this host, or a gid",
        ),
    ],
)
def test_refused_attributes(more: dict[str, str], message: str, path: Path) -> None:
    with pytest.raises(HostError) as caught:
        apply(request(path, {"mtu": 1400}, **more), NO_HOST)
    assert str(caught.value) == message and not path.exists()


def test_relative_path() -> None:
    with pytest.raises(HostError) as caught:
        apply(Request("daemon.json", {}, unit=""), NO_HOST)
    assert str(caught.value) == "path: 'daemon.json' is refused; allowed: an absolute path of a file"


def test_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("{}")

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(HostError, match="can't be written: No space left on device"):
        apply(request(path, {"mtu": 1400}, backup=False, validate=False), NO_HOST)
    assert path.read_text() == "{}" and len(list(path.parent.iterdir())) == 1
