# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's plan: bad input is refused by name, before any host is reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[4]

PLAY = """\
- hosts: all
  gather_facts: false
  vars:
    __preflight_answer:
      os:
        codename: "{{ codename }}"
      packages: {}
      asked:
        packages: [mmdebstrap]
    __preflight_host: "{{ __preflight_answer }}"
    __preflight_ask: {}
  tasks:
    - ansible.builtin.import_role:
        name: matryoshka.host.runner_image
        tasks_from: plan
    - ansible.builtin.debug:
        msg: "answer={{ [__runner_image_ask, __runner_image_expect] | to_json }}"
      vars:
        role_path: ROLES/verify
"""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "base": ({"runner_image_base": "debian:13"}, "runner_image_base: 'debian:13' is refused; allowed: "),
    "suite": (
        {"runner_image_suite": "buster"},
        "runner_image_suite: 'buster' is refused; allowed: bookworm, trixie",
    ),
    "host": ({"codename": "sid"}, "runner_image_suite: 'sid' is refused; allowed: bookworm, trixie"),
    "mirror": ({"runner_image_mirror": "mirror.example"}, "runner_image_mirror: 'mirror.example' is refused"),
    "pockets": (
        {"runner_image_pockets": ["proposed"]},
        "runner_image_pockets: 'proposed' is refused; allowed: updates, security",
    ),
    "packages": ({"runner_image_packages_extra": ["a b"]}, "runner_image_packages: 'a b' is refused"),
    "pin": (
        {"runner_image_preferences": [{"package": "a", "pin": "b\nc", "priority": 1}]},
        "runner_image_preferences: ",
    ),
}


def play(tmp_path: Path, hosts: dict[str, dict[str, Any]]) -> str:
    """The output of a play over ``hosts``, none of which can be reached."""
    unreachable = {
        "ansible_host": "192.0.2.1",
        "ansible_ssh_common_args": "-o ConnectTimeout=1",
        "codename": "trixie",
    }
    inventory = {"all": {"hosts": {name: {**unreachable, **values} for name, values in hosts.items()}}}
    (tmp_path / "inventory.json").write_text(json.dumps(inventory))
    (tmp_path / "play.yml").write_text(PLAY.replace("ROLES", str(ROOT / "roles")))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.json", "play.yml"],
        cwd=tmp_path,
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "playbooks" / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout + done.stderr
    assert "unreachable=1" not in output, output
    return output


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> str:
    hosts = {name: values for name, (values, _) in REFUSED.items()}
    return play(tmp_path_factory.mktemp("refused"), hosts)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refusals: str, name: str) -> None:
    fatal = next(line for line in refusals.splitlines() if line.startswith(f"fatal: [{name}]"))
    assert REFUSED[name][1] in fatal
    assert "UNREACHABLE" not in fatal


def answers(output: str) -> list[Any]:
    return [
        json.loads(json.loads("{" + line.strip() + "}")["msg"].split("=", 1)[1])
        for line in output.splitlines()
        if '"msg": "answer=' in line
    ]


def test_what_the_host_is_asked_and_what_verify_is_told(tmp_path: Path) -> None:
    output = play(tmp_path, {name: {"codename": name} for name in ("bookworm", "trixie")})
    found = answers(output)
    assert len(found) == 2, output
    for ask, expect in found:
        assert {"mmdebstrap", "debian-archive-keyring"} <= set(ask["packages"])
        assert expect["image"]["reference"] == "matryoshka/environment-dind:" + expect["image"]["sha256"][:12]
    assert found[0][1] != found[1][1]
