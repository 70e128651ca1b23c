# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking it all away again. Comes last: after it the host is a plain one."""

from __future__ import annotations

from live import DATA, QUEUE, Site


def left(site: Site) -> dict[str, list[str]]:
    """What is there of the collection but data."""
    return {
        "units": site.lines("systemctl list-units --all --plain --no-legend 'matryoshka*' | cut -d' ' -f1"),
        "unit files": site.lines(
            "ls -d /etc/systemd/system/*matryoshka* /etc/systemd/system/*/matryoshka* 2>/dev/null; true"
        ),
        "files": site.lines(
            "ls -d /usr/local/sbin/matryoshka /usr/local/lib/matryoshka /etc/matryoshka /var/cache/matryoshka /etc/docker 2>/dev/null; true"
        ),
        "packages": site.lines(
            "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' docker.io docker-cli 2>/dev/null | grep '^installed'; true"
        ),
        "processes": site.lines(
            "pgrep -a 'dockerd|containerd' ; pgrep -af /usr/local/sbin/matryoshka | grep -v pgrep; true"
        ),
        "mounts": site.lines("grep -E 'matryoshka/runners|docker/overlay2' /proc/self/mountinfo; true"),
        "rules": site.lines(
            "{ iptables-save; ip6tables-save; ipset list -n; } 2>/dev/null | grep -i matryoshka;"
            " ls -d /etc/sysctl.d/*network* /etc/modules-load.d/*network* 2>/dev/null; true"
        ),
        "bridges": site.lines("ip -o link show type bridge"),
    }


def test_remove_takes_all_but_data(defaults: Site) -> None:
    defaults.submit("docker info > /dev/null").succeeds()
    site = defaults
    site.play({}, "remove")
    assert left(site) == {key: [] for key in left(site)}
    assert site.lines(f"ls {QUEUE}/done"), "the logs of jobs are gone"
    assert site.lines(f"ls {DATA}/ci/data/overlay2"), "the runner's cache is gone"
    assert site.lines("ls /var/lib/docker/overlay2"), "the engine's data is gone"


def test_remove_takes_data_if_asked(site: Site) -> None:
    site.play({"docker_remove_data": True, "runner_remove_caches": True}, "remove")
    assert (
        site.lines("ls -A /var/lib/docker /var/lib/matryoshka 2>/dev/null | grep -v -e '^/' -e '^$'; true")
        == []
    )
