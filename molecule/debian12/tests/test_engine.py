# SPDX-License-Identifier: GPL-3.0-or-later
"""What Debian 12's Docker carries."""

from __future__ import annotations

import json

from testinfra.host import Host


def info(host: Host) -> dict[str, object]:
    return json.loads(host.check_output("docker info --format '{{json .}}'"))


def test_engine_is_debians(host: Host) -> None:
    assert host.package("docker.io").is_installed
    assert str(info(host)["ServerVersion"]).startswith("20.10.")


def test_engine_stores_on_a_real_file_system(host: Host) -> None:
    found = info(host)
    assert found["Driver"] == "overlay2"
    assert ["Backing Filesystem", "overlayfs"] not in found["DriverStatus"]


def test_engine_uses_its_own_subnet(host: Host) -> None:
    bridge = json.loads(host.check_output("docker network inspect bridge"))[0]
    assert bridge["IPAM"]["Config"][0]["Subnet"] == "172.20.0.0/16"
    assert host.check_output("docker network create --label test=1 pool").strip()
    try:
        pool = json.loads(host.check_output("docker network inspect pool"))[0]
        assert pool["IPAM"]["Config"][0]["Subnet"].startswith("172.25.")
    finally:
        host.check_output("docker network rm pool")


def test_an_image_is_built_and_run(host: Host) -> None:
    """With an image of a few files of the host itself: there is no registry."""
    files = "/lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6 /usr/bin/echo"
    host.check_output(f"tar --create --dereference {files} 2>/dev/null | docker import - said:1")
    try:
        dockerfile = 'FROM said:1\\nCMD ["/usr/bin/echo", "from inside"]'
        host.check_output(f"printf '{dockerfile}' | docker build --quiet --tag said:2 -")
        assert host.check_output("docker run --rm said:2") == "from inside"
    finally:
        host.run("docker rmi -f said:2 said:1")


def test_configuration_was_there_before_the_first_start(host: Host) -> None:
    """No bridge with Docker's own default subnet was ever made."""
    assert "172.17." not in host.check_output("ip -4 -brief address")
    assert "172.17." not in host.check_output("iptables-save 2>/dev/null || true")


def test_engine_survives_a_restart(host: Host) -> None:
    host.check_output("systemctl restart docker.service")
    assert info(host)["Driver"] == "overlay2"
    assert host.check_output("systemctl is-system-running") == "running"
