# SPDX-License-Identifier: GPL-3.0-or-later
"""A neighbourhood of network namespaces, and who reaches what of it, told by real connections."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import hosts as container_hosts
from live import Site, wait_for

SCRIPT = (Path(__file__).parent / "lab.sh").read_text(encoding="utf-8")
# systemd refuses the fourth start of docker.service within a minute.
FORGET = "systemctl reset-failed docker.service docker.socket 2>/dev/null || true"
OPEN = (
    "198.51.100.7:8080",
    "[2001:db8:51::7]:8080",
    # Allowed: a whole address, one port of another, one of IPv6, one of the host's own ports.
    "192.168.77.10:9090",
    "192.168.77.11:8080",
    "[fd77::10]:9090",
    "192.168.77.1:8080",
)
CLOSED = (
    # The LAN, the metadata service, a provider's shared addresses.
    "192.168.77.12:8080",
    "192.168.77.11:9090",
    "169.254.169.254:8080",
    "100.64.7.7:8080",
    "[fd77::12]:8080",
    # The host itself, by each of its addresses.
    "192.168.77.1:9090",
    "198.51.100.1:9090",
    "172.20.0.1:9090",
    "[fd77::1]:9090",
    "[2001:db8:51::1]:9090",
)
WGET = "/bin/busybox wget -q -T 3 -O /dev/null http://$one"


class Lab:
    """The host under test and its neighbours."""

    def __init__(self, site: Site, reach: Callable[[str], Site]) -> None:
        self.site = site
        self._reach = reach

    def sh(self, script: str) -> str:
        """A script of bash on the host, with the words of ``lab.sh``."""
        done = self.site.host.run("timeout 180 /bin/bash -c %s", f"set -e\n{SCRIPT}\n{FORGET}\n{script}")
        assert done.rc == 0, f"{script}\nended with {done.rc}:\n{done.stdout}{done.stderr}"
        return str(done.stdout)

    def build(self) -> None:
        """The neighbours, from nothing."""
        self.sh("unlab; lab")
        self.inner()

    def clear(self) -> None:
        self.sh("unlab")

    def inner(self) -> None:
        """A container in the environment of runner ci, two dolls down, that stays."""
        self.site.ready("ci")
        self.site.inside(
            "ci",
            "docker inspect inner >/dev/null 2>&1 || {"
            " tar -chC / bin/busybox | docker import - busybox:local >/dev/null;"
            " docker run -d --name inner busybox:local /bin/busybox sleep 1000000 >/dev/null; }",
        )

    @property
    def environment(self) -> str:
        return str(self.site.state("ci")["environment"]["container"])

    def reached(self, who: str, urls: tuple[str, ...] = (*OPEN, *CLOSED)) -> set[str]:
        """Those of ``urls`` (address and port) that answer ``who``.

        :param who: ``environment``, ``inner`` (a container in it), ``host``, or the beginning of a command line.
        """
        prefix = {
            "environment": f"docker exec {self.environment}",
            "inner": f"docker exec {self.environment} docker exec inner",
            "host": "",
        }.get(who, who)
        script = f"for one in {' '.join(urls)}; do {{ {prefix} {WGET} >/dev/null 2>&1 && echo $one; true; }} & done; wait"
        return set(self.sh(script).split())

    def reboot(self) -> None:
        """Stop the host and start it again; its address may be another one then."""
        name = str(self.site.host.backend.host)
        container = container_hosts.container_name(name)
        found = container_hosts.describe(container)
        assert found is not None
        container_hosts.podman("stop", "-t", "30", container)
        host = container_hosts.create(name, found.image, found.user)
        folder = Path(tempfile.mkdtemp(prefix="t-"))
        inventory = folder / "inventory.json"
        variables = {**host.variables, "ansible_become": True}
        inventory.write_text(json.dumps({"all": {"hosts": {name: variables}}}), encoding="utf-8")
        self.site = self._reach(str(inventory))

    def waits_for_ready(self) -> None:
        wait_for(
            "the engine answers", 60, lambda: self.site.sh("docker version 2>&1; true"), self.site.explain
        )
        self.inner()
