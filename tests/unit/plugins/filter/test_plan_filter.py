# SPDX-License-Identifier: GPL-3.0-or-later
"""What the planning filters refuse by the name of the option that a person set."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.matryoshka.host.plugins.filter.plan import plan_daemon

HOSTS = {"hosts": ["tcp://127.0.0.1:2376"]}


@pytest.mark.parametrize("drop_ins", [[], [{"name": "a.conf", "content": "[Service]\nNice=5\n"}]])
def test_hosts_beside_the_units_own_are_refused_before_the_unit_is_there(
    drop_ins: list[dict[str, str]],
) -> None:
    with pytest.raises(AnsibleFilterError, match=r"docker_daemon\.hosts: .* is refused; .* -H fd://"):
        plan_daemon({}, HOSTS, [], drop_ins)


def test_hosts_are_allowed_with_a_command_line_without_them() -> None:
    drop_in = {"name": "a.conf", "content": "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd\n"}
    assert plan_daemon({}, HOSTS, [], [drop_in]) == HOSTS
