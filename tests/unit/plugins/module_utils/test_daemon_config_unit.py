# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line that dockerd is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _daemon_config_unit as unit
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._daemon_config_values import dotted
from hypothesis import given
from hypothesis import strategies as st
from support import table

SHOW = (
    "systemctl",
    "show",
    "-p",
    "LoadState,NeedDaemonReload,ExecStart,Environment,EnvironmentFiles",
    "docker.service",
)
#: Recorded from Debian 13's docker.service.
LOADED = """\
ExecStart={ path=/usr/sbin/dockerd ; argv[]=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock \
$DOCKER_OPTS ; ignore_errors=no ; start_time=[Sun 2026-11-22 08:39:57 UTC] ; stop_time=[n/a] ; pid=102 ; \
code=(null) ; status=0/0 }
Environment=
EnvironmentFiles=/etc/default/docker (ignore_errors=yes)
LoadState=loaded
NeedDaemonReload=no
"""
MISSING = "LoadState=not-found\nNeedDaemonReload=no\n"


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        (["-H", "fd://"], {"host": ["fd://"]}),
        (["-Hfd://", "--host=unix:///x"], {"host": ["fd://", "unix:///x"]}),
        (["-D", "--icc=false", "--mtu", "1400"], {"debug": ["true"], "icc": ["false"], "mtu": ["1400"]}),
        (["-DH", "fd://"], {"debug": ["true"], "host": ["fd://"]}),
        (
            ["-s=overlay2", "--live-restore", "extra"],
            {"storage-driver": ["overlay2"], "live-restore": ["true"]},
        ),
        (["--label", "a=b", "--label=c=d"], {"label": ["a=b", "c=d"]}),
        (["--", "x"], {}),
    ],
)
def test_flags(argv: list[str], flags: dict[str, list[str]]) -> None:
    assert unit.parse_flags(argv) == flags


@given(st.lists(st.text(max_size=6), max_size=6))
def test_any_words_are_parsed(argv: list[str]) -> None:
    assert all(name for name in unit.parse_flags(argv) if name)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_running_unit_with_its_environment_file(tmp_path: Path) -> None:
    write(tmp_path, {"etc/default/docker": '# options\nDOCKER_OPTS="--dns 10.0.0.1 \\\n  --icc=false"\n'})
    line = unit.read_command_line("docker.service", table({SHOW: LOADED}), tmp_path)
    assert line.flags == {
        "host": ["fd://"],
        "containerd": ["/run/containerd/containerd.sock"],
        "dns": ["10.0.0.1"],
        "icc": ["false"],
    }


MAIN = "[Unit]\nExecStart=/not/this --bip=1\n[Service]\nEnvironment=MTU=1400 'OPTS=--icc=false --ipv6'\nExecStart=/usr/sbin/dockerd -H fd:// $OPTS --mtu=${MTU}\n"


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        ({}, {}),
        ({"usr/lib/systemd/system/docker.service": MAIN}, {"host": ["fd://"], "icc": ["false"], "ipv6": ["true"], "mtu": ["1400"]}),
        (
            {
                "usr/lib/systemd/system/docker.service": MAIN,
                "etc/systemd/system/docker.service.d/50-x.conf": "[Service]\nExecStart=\nExecStart=-/usr/sbin/dockerd \\\n  --bip 10.0.0.1/24\n",
            },
            {"bip": ["10.0.0.1/24"]},
        ),
        (
            {
                "usr/lib/systemd/system/docker.service": MAIN,
                "usr/lib/systemd/system/docker.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/x --bip=1.1.1.1/8\n",
                "etc/systemd/system/docker.service.d/a.conf": "[Service]\nEnvironment=MTU=9000\n",
            },
            {"host": ["fd://"], "icc": ["false"], "ipv6": ["true"], "mtu": ["9000"]},
        ),
        (
            {
                "usr/lib/systemd/system/docker.service": MAIN,
                "etc/systemd/system/docker.service": "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/x $MORE\n",
                "etc/default/docker": "MORE='--debug'",
            },
            {"debug": ["true"]},
        ),
        ({"etc/systemd/system/docker.service.d/a.conf": "[Service]\nExecStart=/x --debug\n"}, {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "answer", [Result(127), Result(1, "", "not been booted with systemd"), Result(0, MISSING)]
)
def test_unit_files_where_systemd_has_no_answer(
    answer: Result, files: dict[str, str], flags: dict[str, list[str]], tmp_path: Path
) -> None:
    write(tmp_path, files)
    assert unit.read_command_line("docker.service", table({SHOW: answer}), tmp_path).flags == flags


def test_files_that_systemd_has_not_read_yet_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "usr/lib/systemd/system/docker.service": MAIN,
            "etc/systemd/system/docker.service.d/a.conf": "[Service]\nExecStart=\nExecStart=/x --debug\n",
        },
    )
    stale = LOADED.replace("NeedDaemonReload=no", "NeedDaemonReload=yes")
    assert unit.read_command_line("docker.service", table({SHOW: stale}), tmp_path).flags == {
        "debug": ["true"]
    }


@pytest.mark.parametrize(
    ("config", "flags", "clash"),
    [
        ({"hosts": ["fd://"]}, {"host": ["fd://"]}, "hosts"),
        ({"labels": ["a=b"]}, {"label": ["a=c"]}, "labels"),
        ({"default-address-pools": []}, {"default-address-pool": ["x"]}, "default-address-pools"),
        ({"proxies": {"no-proxy": "x"}}, {"no-proxy": ["x"]}, "proxies.no-proxy"),
        ({"containerd": "/x"}, {"containerd": ["/x"]}, "containerd"),
        ({"runtimes": {}}, {"add-runtime": ["crun=/usr/bin/crun"]}, None),
        ({"dns": ["1.1.1.1"]}, {"host": ["fd://"]}, None),
        ({"quux": 1}, {"quux": ["1"]}, None),
    ],
)
def test_clash(config: dict[str, Any], flags: dict[str, list[str]], clash: str | None) -> None:
    found = list(unit.clashes(config, unit.CommandLine("docker.service", flags)))
    assert [dotted(problem.path) for problem in found] == ([clash] if clash else [])
    for problem in found:
        (flag, (value,)) = next(iter(flags.items()))
        assert (
            problem.allowed == f"only in one place, but docker.service starts dockerd with --{flag}={value}"
        )
