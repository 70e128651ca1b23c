# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks on a recorded healthy host: none speaks up; with one thing changed, the right one does."""

# mypy: disable-error-code="func-returns-value"
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _verify
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._verify_model import (
    EngineView,
    Environment,
    Expect,
    FileView,
    Holder,
    Observed,
    seconds,
)
from ansible_collections.matryoshka.host.plugins.module_utils._verify_tree import lines, tree
from support.verify_host import Host

RUNNER = "matryoshka-runner@ci.service"
TIMER = "matryoshka-prune-engine.timer"
STRANGER = Holder(pid=4711, name="flock", unit="somebody.service", namespace="pid:[4026531836]")


Change = Callable[[Host], Any]


def test_a_healthy_host_has_no_findings() -> None:
    report = Host().report()
    assert report.findings == []
    assert {one.code for one in report.notes} <= {"root_disk"}
    assert report.checks > 150


# (what is changed, the codes that are found, words that the texts hold)
CASES: dict[str, tuple[Change, set[str], str]] = {
    "engine masked": (
        lambda host: host.unit("docker.service", unit_file_state="masked", load_state="masked"),
        {"unit_masked"},
        "docker.service is masked",
    ),
    "engine disabled": (
        lambda host: host.unit("docker.service", unit_file_state="disabled"),
        {"unit_disabled"},
        "won't start with the host",
    ),
    "engine dead": (
        lambda host: (
            host.unit("docker.service", active_state="inactive", sub_state="dead"),
            setattr(host.seen, "engine", EngineView(error="not asked")),
        ),
        {"unit_inactive"},
        "docker.service is inactive",
    ),
    "engine failed": (
        lambda host: (
            host.unit("docker.service", active_state="failed", result="exit-code"),
            setattr(host.seen, "engine", EngineView(error="not asked")),
        ),
        {"unit_failed"},
        "docker.service has failed (exit-code)",
    ),
    "engine silent": (
        lambda host: setattr(host.seen, "engine", EngineView(error="no answer within 5 s")),
        {"engine_silent"},
        "no answer within 5 s",
    ),
    "socket masked": (
        lambda host: host.unit("docker.socket", masked_by=("/etc/systemd/system/docker.socket",)),
        {"unit_masked"},
        "docker.socket, which docker.service needs to start",
    ),
    "foreign storage driver": (
        lambda host: host.daemon_json(**{"storage-driver": "vfs"}),
        {"daemon_foreign_key"},
        "doesn't have it yet",
    ),
    "unknown key": (
        lambda host: host.daemon_json(**{"storge-driver": "x"}),
        {"daemon_foreign_key"},
        "no dockerd either",
    ),
    "harmless foreign key": (lambda host: host.daemon_json(**{"max-concurrent-downloads": 5}), set(), ""),
    "wanted key changed": (
        lambda host: host.daemon_json(bip="10.0.0.1/24"),
        {"daemon_file"},
        "has bip 10.0.0.1/24",
    ),
    "daemon.json broken": (
        lambda host: setattr(host.seen, "daemon_json", "{"),
        {"daemon_file"},
        "the engine won't start with it",
    ),
    "daemon.json has a key twice": (
        lambda host: setattr(host.seen, "daemon_json", '{"bip": "a", "bip": "b"}'),
        {"daemon_file"},
        "the key bip is there twice",
    ),
    "daemon.json gone": (
        lambda host: setattr(host.seen, "daemon_json", None),
        {"daemon_file"},
        "isn't there",
    ),
    "pools of the running daemon": (
        lambda host: host.seen.engine.info.update(DefaultAddressPools=[{"Base": "10.9.0.0/16", "Size": 24}]),
        {"daemon_setting"},
        '["10.9.0.0/16 size 24"]',
    ),
    "live-restore of the running daemon": (
        lambda host: host.seen.engine.info.update(LiveRestoreEnabled=False),
        {"daemon_setting"},
        "live-restore false",
    ),
    "flag overrules": (
        lambda host: host.seen.engine_command.append("--storage-driver=vfs"),
        {"daemon_flag"},
        "overrules storage-driver",
    ),
    "short flag overrules": (
        lambda host: host.seen.engine_command.append("-s=vfs"),
        {"daemon_flag"},
        "-s=vfs",
    ),
    "another version": (
        lambda host: host.expect["engine"].update(version="5:29.1.0-1~debian.13~trixie"),
        {"engine_version"},
        "29.1.0",
    ),
    "version pattern fits": (lambda host: host.expect["engine"].update(version="26.1.*"), set(), ""),
    "outer storage vfs": (
        lambda host: setattr(host.seen, "storage", replace(host.seen.storage, driver="vfs")),  # type: ignore[type-var]
        {"vfs"},
        "copies whole layers",
    ),
    "reload needed": (
        lambda host: host.unit(RUNNER, need_daemon_reload=True),
        {"unit_daemon_reload"},
        "systemd still uses older files",
    ),
    "unit missing": (
        lambda host: host.unit(RUNNER, load_state="not-found", active_state="inactive"),
        {"unit_missing"},
        "doesn't exist",
    ),
    "unit edited": (
        lambda host: host.unit(RUNNER, texts={host.seen.units[RUNNER].fragment_path: "[Service]\n"}),
        {"unit_content"},
        "was changed by somebody else",
    ),
    "drop-in of somebody else": (
        lambda host: host.unit(
            RUNNER,
            drop_in_paths=("/etc/systemd/system.control/x.conf",),
            texts={
                **host.seen.units[RUNNER].texts,
                "/etc/systemd/system.control/x.conf": "[Service]\nMemoryMax=1G\n",
            },
        ),
        {"unit_foreign_drop_in"},
        "Service.MemoryMax",
    ),
    "drop-in that overrides the engine's command": (
        lambda host: host.unit(
            "docker.service",
            drop_in_paths=("/etc/systemd/system/docker.service.d/x.conf",),
            texts={"/etc/systemd/system/docker.service.d/x.conf": "[Service]\nExecStart=/bin/true\n"},
        ),
        {"unit_foreign_drop_in"},
        "Service.ExecStart",
    ),
    "drop-in that harms nobody": (
        lambda host: host.unit(
            "docker.service",
            drop_in_paths=("/etc/systemd/system/docker.service.d/x.conf",),
            texts={"/etc/systemd/system/docker.service.d/x.conf": "[Service]\nEnvironment=HTTP_PROXY=x\n"},
        ),
        set(),
        "",
    ),
    "orphaned instance": (
        lambda host: host.seen.units.update(
            {
                "matryoshka-runner@old.service": replace(
                    host.seen.units[RUNNER], name="matryoshka-runner@old.service"
                )
            }
        ),
        {"unit_orphan"},
        "nothing in the inventory wants it",
    ),
    "timer never fires": (
        lambda host: (
            host.unit(TIMER, sub_state="elapsed"),
            host.seen.unit_details[TIMER].update(
                NextElapseUSecRealtime="", NextElapseUSecMonotonic="infinity"
            ),
        ),
        {"timer_unscheduled"},
        "no next time to fire",
    ),
    "timer's service failed": (
        lambda host: host.unit(TIMER.replace("timer", "service"), active_state="failed", result="exit-code"),
        {"timer_service_failed"},
        "failed the last time (exit-code)",
    ),
    "file gone": (
        lambda host: host.seen.files.update({"/usr/local/sbin/matryoshka": None}),
        {"file_missing"},
        "isn't there",
    ),
    "file edited": (
        lambda host: host.file("/usr/local/sbin/matryoshka", sha256="0" * 64),
        {"file_content"},
        "edited by hand",
    ),
    "file open": (
        lambda host: host.file("/usr/local/sbin/matryoshka", mode="0777"),
        {"file_mode"},
        "mode 0777 instead of 0755",
    ),
    "folder open": (
        lambda host: host.file("/etc/matryoshka/runners", mode="0777"),
        {"folder_mode"},
        "mode 0777",
    ),
    "folder of a user": (
        lambda host: host.file("/etc/matryoshka/runners", owner="bob"),
        {"folder_mode"},
        "belongs to bob",
    ),
    "bytes low": (lambda host: host.disk(bytes_free=49), {"disk_full"}, "4.9 % of its bytes"),
    "inodes low": (lambda host: host.disk(inodes_free=10), {"disk_full"}, "1.0 % of its inodes"),
    "no inodes at all": (lambda host: host.disk(inodes_total=0, inodes_free=0), set(), ""),
    "inner disk full": (lambda host: host.place(bytes_total=1000, bytes_free=5), {"full"}, "bytes left"),
    "member missing": (
        lambda host: host.expect["engine"].update(group_members=["ann"]),
        {"group_member"},
        "ann should be in the group docker",
    ),
    "member extra": (lambda host: setattr(host.seen, "group_members", ["eve"]), set(), ""),
    "image gone": (lambda host: setattr(host.seen, "image", {}), {"image_missing"}, "no such image"),
    "image of another recipe": (
        lambda host: (host.seen.image or {})["Config"]["Labels"].update({"matryoshka.recipe": "0123"}),
        {"image_recipe"},
        "recipe 0123",
    ),
    "environment from an older image": (
        lambda host: host.environment.inspect.update(Image="sha256:other"),
        {"environment_image"},
        "was made from",
    ),
    "environment left": (
        lambda host: host.seen.environments.append(
            Environment({"Name": "/matryoshka-old-1", "Config": {"Labels": {"matryoshka.runner": "old"}}})
        ),
        {"environment_left"},
        "runner old, which isn't in the list",
    ),
    "environment twice": (
        lambda host: host.seen.environments.append(
            Environment(
                {
                    "Name": "/matryoshka-ci-1",
                    "Config": {"Labels": {"matryoshka.runner": "ci"}},
                    "State": {"Running": True},
                }
            )
        ),
        {"environment_stray"},
        "a second environment, matryoshka-ci-1",
    ),
    "environment still being removed": (
        lambda host: host.seen.environments.append(
            Environment(
                {
                    "Name": "/matryoshka-ci-1",
                    "Config": {"Labels": {"matryoshka.runner": "ci"}},
                    "Created": "2999-01-01T00:00:00Z",
                }
            )
        ),
        set(),
        "",
    ),
    "environment gone": (
        lambda host: (
            host.seen.containers.clear(),
            host.seen.environments.clear(),
        ),
        {"environment_missing"},
        "no such container",
    ),
    "environment paused": (
        lambda host: host.environment.inspect["State"].update(Paused=True),
        {"environment_paused"},
        "nothing in it moves",
    ),
    "environment stopped": (
        lambda host: host.environment.inspect["State"].update(Running=False, Status="exited", ExitCode=137),
        {"environment_stopped"},
        "exited, exit code 137",
    ),
    "not privileged": (
        lambda host: host.environment.inspect["HostConfig"].update(Privileged=False),
        {"promise_privileged"},
        "not privileged",
    ),
    "another runtime": (
        lambda host: host.environment.inspect["HostConfig"].update(Runtime="runsc"),
        {"promise_runtime"},
        "runtime runsc, not runc",
    ),
    "the host's process namespace": (
        lambda host: host.environment.namespaces.update(pid=host.seen.namespaces["pid"]),
        {"promise_namespace"},
        "shares the host's pid namespace",
    ),
    "the host's socket": (
        lambda host: host.environment.inspect["Mounts"].append(
            {"Source": "/run/docker.sock", "Destination": "/x"}
        ),
        {"promise_socket"},
        "a job is root on the host",
    ),
    "the host's engine": (
        lambda host: host.environment.engine.info.update(ID=host.seen.engine.info["ID"]),
        {"promise_engine"},
        "the host's own engine",
    ),
    "pids limit lifted": (
        lambda host: setattr(host.environment, "limits", replace_limits(host, pids=None)),
        {"limit"},
        "pids limit of its environment is none",
    ),
    "memory limit lowered": (
        lambda host: (
            host.runner["limits"].update(memory_bytes=4 << 30),
            (host.seen.runners["ci"].config or {})["limits"].update(memory_bytes=4 << 30),
            setattr(host.environment, "limits", replace_limits(host, memory_bytes=2 << 30)),
        ),
        {"limit"},
        "is 2 GiB in the kernel and should be 4 GiB",
    ),
    "limits can't be read": (
        lambda host: setattr(host.environment, "limits", replace_limits(host, unread=("pids",))),
        {"limit_unread"},
        "no such cgroup",
    ),
    "data root elsewhere": (
        lambda host: [
            mount.update(Source="/srv/else")
            for mount in host.environment.inspect["Mounts"]
            if mount["Destination"] == "/var/lib/docker"
        ],
        {"data_root"},
        "lies in /srv/else",
    ),
    "data root unmounted inside": (
        lambda host: setattr(
            host.environment,
            "mountinfo",
            "".join(
                line
                for line in host.environment.mountinfo.splitlines(True)
                if " /var/lib/docker " not in line
            ),
        ),
        {"data_root"},
        "nothing is mounted on /var/lib/docker",
    ),
    "inner engine dead": (
        lambda host: setattr(host.environment, "engine", EngineView(error="nothing listens")),
        {"inner_engine_dead"},
        "doesn't answer: nothing listens",
    ),
    "inner vfs": (
        lambda host: setattr(host.environment, "storage", replace(host.environment.storage, driver="vfs")),  # type: ignore[type-var]
        {"vfs"},
        "runner ci, inner engine: Docker copies whole layers",
    ),
    "inner range": (
        lambda host: host.environment.engine.info.update(DefaultAddressPools=None),
        {"daemon_setting"},
        "runner ci, inner engine: the running daemon has default-address-pools []",
    ),
    "inner MTU": (
        lambda host: host.environment.net.mtu.update(eth0=1400),
        {"mtu"},
        "the way out, eth0, only 1400",
    ),
    "outer MTU": (
        lambda host: host.seen.net.mtu.update(eth0=1400),
        {"mtu"},
        "engine docker: its network bridge",
    ),
    "forwarding off": (
        lambda host: setattr(host.seen.net, "forwarding", False),
        {"ip_forward"},
        "host: net.ipv4",
    ),
    "inner forwarding off": (
        lambda host: setattr(host.environment.net, "forwarding", False),
        {"ip_forward"},
        "inside its environment",
    ),
    "bridge filter off": (
        lambda host: host.seen.sysctl.update({"net/bridge/bridge-nf-call-iptables": "0\n"}),
        {"bridge_nf"},
        "bridge-nf-call-iptables is 0",
    ),
    "namespaces off": (
        lambda host: host.seen.sysctl.update({"user/max_net_namespaces": "0\n"}),
        {"namespaces_off"},
        "no container can be made",
    ),
    "bridge address gone": (
        lambda host: host.seen.net.addresses.remove("172.20.0.1"),
        {"bridge_address"},
        "should have the address 172.20.0.1",
    ),
    "route in the outer pool": (
        lambda host: host.seen.net.routes.append(("vmbr0", "172.25.3.0/24")),
        {"route_overlap"},
        "172.25.0.0/16 overlaps the host's route to 172.25.3.0/24 on vmbr0",
    ),
    "route over the inner pool": (
        lambda host: host.seen.net.routes.append(("tun0", "172.16.0.0/12")),
        {"route_overlap"},
        "172.28.0.0/14 overlaps the host's route to 172.16.0.0/12 on tun0",
    ),
    "nameserver in the inner pool": (
        lambda host: setattr(host.seen.net, "nameservers", ["172.29.0.53"]),
        {"route_overlap"},
        "nameserver 172.29.0.53",
    ),
    "inner range meets the outer one": (
        lambda host: host.expect["engine"]["config"].update(
            {"default-address-pools": [{"base": "172.28.0.0/16", "size": 24}]}
        ),
        {"range_overlap", "daemon_file", "daemon_setting"},
        "inside and outside share addresses",
    ),
    "FORWARD flushed": (
        lambda host: host.seen.net.firewall.chains["filter"].update(FORWARD=[]),
        {"firewall_forward"},
        "somebody flushed iptables",
    ),
    "chains gone": (
        lambda host: host.seen.net.firewall.chains["filter"].pop("DOCKER-USER"),
        {"firewall_forward"},
        "Docker's chains",
    ),
    "nat flushed": (
        lambda host: host.seen.net.firewall.chains["nat"].update(POSTROUTING=[]),
        {"firewall_nat"},
        "masquerades 172.20.0.0/16",
    ),
    "dropped in front": (
        lambda host: host.seen.net.firewall.chains["filter"]["FORWARD"].insert(0, "-j DROP"),
        {"firewall_blocked"},
        "drops every forwarded packet",
    ),
    "dropped in DOCKER-USER": (
        lambda host: host.seen.net.firewall.chains["filter"]["DOCKER-USER"].insert(
            0, "-j REJECT --reject-with x"
        ),
        {"firewall_blocked"},
        "drops every forwarded packet",
    ),
    "iptables off by wish": (
        lambda host: (
            host.expect["engine"]["config"].update(iptables=False),
            host.daemon_json(iptables=False),
            host.seen.net.firewall.chains.clear(),
        ),
        set(),
        "",
    ),
    "iptables fails": (
        lambda host: setattr(host.seen.net.firewall, "error", "no such program"),
        {"firewall_unread"},
        "iptables-save fails: no such program",
    ),
    "inner rules in the other backend": (
        lambda host: (
            setattr(host.environment.net.firewall, "other", True),
            host.environment.net.firewall.chains.clear(),
        ),
        {"firewall_backend"},
        "aren't where the host's are",
    ),
    "state gone": (
        lambda host: (
            setattr(host.seen.runners["ci"], "state", None),
            setattr(host.seen.runners["ci"], "state_error", "it isn't there"),
        ),
        {"runner_state"},
        "can't be read: it isn't there",
    ),
    "state of a dead process": (
        lambda host: (
            host.state.update(pid=99),
            setattr(host.seen.runners["ci"], "pid_unit", None),
        ),
        {"runner_state_stale"},
        "process 99, which is gone",
    ),
    "state of another process": (
        lambda host: host.state.update(pid=1),
        {"runner_state_stale"},
        "but the runner is process",
    ),
    "runner failed": (
        lambda host: host.state.update(state="failed", error="no space", environment=None),
        {"runner_failed"},
        "no space",
    ),
    "runner on its way": (
        lambda host: host.state.update(state="preparing"),
        {"runner_not_ready"},
        "preparing",
    ),
    "clock set back": (
        lambda host: host.state.update(since="2999-01-01T00:00:00.000Z"),
        {"clock"},
        "from the future",
    ),
    "configuration edited": (
        lambda host: (host.seen.runners["ci"].config or {}).update(image="x"),
        {"runner_config"},
        "image is 'x' and should be",
    ),
    "configuration unread": (
        lambda host: setattr(host.seen.runners["ci"], "config_sha256", "0" * 64),
        {"runner_config_old"},
        "another configuration",
    ),
    "configuration unread in a job": (
        lambda host: (
            host.state.update(state="running"),
            setattr(host.seen.runners["ci"], "config_sha256", "0" * 64),
        ),
        set(),
        "",
    ),
    "stale lock": (
        lambda host: setattr(host.seen.runners["ci"], "lock_holders", [STRANGER]),
        {"lock_stale"},
        "somebody.service), which isn't the runner",
    ),
    "lock lost": (
        lambda host: setattr(host.seen.runners["ci"], "lock_holders", []),
        {"lock_lost"},
        "a second daemon could use the same data root",
    ),
    "queue folder gone": (
        lambda host: queue(host).folders.update(new=None),
        {"queue_folder"},
        "no job can come in",
    ),
    "queue open": (
        lambda host: queue(host).folders.update(new=folder("2777")),
        {"queue_folder"},
        "anybody could hand in jobs",
    ),
    "results open": (
        lambda host: queue(host).folders.update(done=folder("2770")),
        {"queue_folder"},
        "could change jobs and results",
    ),
    "job stuck": (
        lambda host: queue(host).entries["new"].update(slow=folder("0644", host.seen.now - 60)),
        {"job_stuck"},
        "the job slow has waited for 60 s, although runner ci is idle",
    ),
    "job for a busy runner": (
        lambda host: (
            host.state.update(state="running"),
            queue(host).entries["new"].update(slow=folder("0644", host.seen.now - 60)),
        ),
        set(),
        "",
    ),
    "job waits for pruning": (
        lambda host: (
            host.unit("matryoshka-prune@ci.service", active_state="activating"),
            queue(host).entries["new"].update(slow=folder("0644", host.seen.now - 60)),
        ),
        set(),
        "",
    ),
    "job of a runner that is gone": (
        lambda host: queue(host).entries["claimed"].update({"old/lost": folder("2750", host.seen.now)}),
        {"job_abandoned"},
        "runner old, which isn't in the list any more",
    ),
    "job that nobody runs": (
        lambda host: queue(host).entries["claimed"].update({"ci/lost": folder("2750", host.seen.now - 60)}),
        {"job_abandoned"},
        "runner ci, which doesn't run it",
    ),
    "job that runs": (
        lambda host: (
            host.state.update(state="running", job={"id": "mine"}),
            queue(host).entries["claimed"].update({"ci/mine": folder("2750", host.seen.now - 60)}),
        ),
        set(),
        "",
    ),
}


def replace_limits(host: Host, **values: Any) -> Any:
    return replace(host.environment.limits, **values)


def queue(host: Host) -> Any:
    return host.seen.queues["/var/lib/matryoshka/queue"]


def folder(mode: str, changed: float = 0.0) -> FileView:
    return FileView(kind="directory", mode=mode, owner="root", group="root", changed=changed)


@pytest.mark.parametrize("case", CASES)
def test_one_thing_changed_is_named(case: str) -> None:
    change, codes, words = CASES[case]
    host = Host()
    change(host)
    findings = host.report().findings
    told = "\n".join(f"{one.subject}: {one.text}" for one in findings)
    assert {one.code for one in findings} == codes, told
    assert words in told
    assert all(one.remedy for one in findings)


def test_what_a_site_accepts_becomes_a_note() -> None:
    host = Host()
    host.expect["allow"] = ["root_disk", "mtu"]
    host.seen.net.mtu["eth0"] = 1400
    report = host.report()
    assert report.findings == []
    assert "mtu" in {one.code for one in report.notes}


def test_nothing_is_accepted_unless_it_is_said() -> None:
    host = Host()
    host.expect["allow"] = []
    host.place(on_root_disk=True)
    assert "root_disk" in {one.code for one in host.report().findings}


def test_nothing_expected_asks_for_little() -> None:
    assert _verify.check(Expect.read({}), Observed()).findings == []


@pytest.mark.parametrize(
    ("given", "variable"),
    [
        ({"runner": []}, "expect.runner"),
        ({"units": {}}, "expect.units"),
        ({"units": [{"state": "started"}]}, "expect.units[0]"),
        ({"files": ["/etc/passwd"]}, "expect.files[0]"),
        ({"engine": {"name": "rkt"}}, "expect.engine.name"),
    ],
)
def test_a_wrong_expectation_is_refused_by_name(given: dict[str, Any], variable: str) -> None:
    with pytest.raises(InputError) as caught:
        Expect.read(given)
    assert caught.value.variable == variable


def test_the_tree_has_every_level() -> None:
    host = Host()
    dolls = tree(Expect.read(host.expect), host.seen)
    levels = []
    node = dolls[0]
    while True:
        levels.append((node["level"], node["storage_driver"], node["subnet"], node["mtu"]))
        if not node["children"]:
            break
        node = node["children"][0]
    assert levels == [
        ("host", None, "10.88.0.0/16", 1500),
        ("engine", "overlay2", "172.20.0.0/16", 1500),
        ("runner", "overlay2", "172.20.0.0/16", 1500),
        ("inner engine", "overlay2", "172.22.0.0/16", 1500),
    ]


def test_what_lies_beneath_and_how_far_one_gets() -> None:
    host = Host()
    host.seen.roots[1]["quota"].update(enforced=True, used=3 << 30, limit=40 << 30)
    engine = tree(Expect.read(host.expect), host.seen)[0]["children"][0]
    runner = engine["children"][0]
    inner = runner["children"][0]
    assert [(one["disk"], one["quota"], one["lan"]) for one in (engine, runner, inner)] == [
        ("virtio", None, "closed"),
        (None, None, "closed"),
        ("virtio", {"used": 3 << 30, "limit": 40 << 30}, "closed"),
    ]
    told = lines(tree(Expect.read(host.expect), host.seen), host.report())
    assert told[0].split() == ["level", "storage", "on", "disk", "quota", "subnet", "MTU", "LAN", "state"]
    assert "3.0 of 40.0 GiB" in told[4]


def test_a_quota_that_nobody_enforces_is_none() -> None:
    host = Host()
    host.seen.roots[1]["quota"].update(enforced=False, used=3 << 30, limit=40 << 30)
    engine = tree(Expect.read(host.expect), host.seen)[0]["children"][0]
    assert engine["children"][0]["children"][0]["quota"] is None


def test_the_farthest_network_of_an_environment_counts() -> None:
    host = Host()
    networks = host.environment.inspect["NetworkSettings"]["Networks"]
    host.seen.engine.networks.append({"Name": "more", "Id": "0123456789ab", "Driver": "bridge"})
    networks["more"] = {}
    host.seen.bridges["lan"]["br-0123456789ab"] = "open"
    engine = tree(Expect.read(host.expect), host.seen)[0]["children"][0]
    assert (engine["lan"], engine["children"][0]["lan"]) == ("closed", "open")
    host.seen.bridges["lan"] = {}
    engine = tree(Expect.read(host.expect), host.seen)[0]["children"][0]
    assert (engine["lan"], engine["children"][0]["lan"]) == (None, None)


def test_columns_with_nothing_in_them_are_left_out() -> None:
    host = Host()
    host.seen.roots, host.seen.bridges = [], {}
    told = lines(tree(Expect.read(host.expect), host.seen), host.report())
    assert told[0].split() == ["level", "storage", "on", "subnet", "MTU", "state"]


def test_the_report_is_for_people() -> None:
    host = Host()
    host.seen.net.mtu["eth0"] = 1400
    report = host.report()
    told = lines(tree(Expect.read(host.expect), host.seen), report)
    assert told[0].split() == ["level", "storage", "on", "disk", "subnet", "MTU", "LAN", "state"]
    assert any(line.startswith("1. engine docker: its network bridge has MTU 1500") for line in told)
    assert any(line.startswith("   remedy: set docker_daemon.mtu") for line in told)
    assert told[-1].endswith("checks, 1 finding")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:01:00.123456789Z", 60.0),
        ("1970-01-01T00:01:00Z", 60.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("None", 0.0),
        ("", 0.0),
    ],
)
def test_times_of_engines(text: str, expected: float) -> None:
    assert seconds(text) == expected


class Scene:
    """Observations one after another; time passes only while one waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *hosts: Host) -> None:
        self.hosts = list(hosts)
        self.time = 0.0
        self.looks = 0
        monkeypatch.setattr(_verify, "observe", self.observe)
        monkeypatch.setattr(_verify, "state_marks", lambda names: {"ci": str(min(self.looks, len(hosts)))})

    def observe(self, *_arguments: Any) -> Observed:
        self.looks += 1
        return self.hosts[min(self.looks, len(self.hosts)) - 1].seen

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def verify(self, wait: float) -> dict[str, Any]:
        def nobody(*_arguments: Any, **_named: Any) -> Any:
            raise AssertionError("nothing is asked here")

        return _verify.verify(self.hosts[0].expect, wait, nobody, nobody, lambda: self.time, self.sleep)


def changed(*names: str) -> Host:
    host = Host()
    for name in names:
        CASES[name][0](host)
    return host


def test_a_healthy_host_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, Host())
    result = scene.verify(60)
    assert (scene.looks, scene.time, result["findings"]) == (1, 0.0, [])
    assert result["runners"]["ci"]["state"] == "ready"


def test_a_runner_on_its_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    on_its_way = changed("runner on its way")
    scene = Scene(monkeypatch, on_its_way, on_its_way, Host())
    assert scene.verify(60)["findings"] == []
    assert scene.looks == 3


def test_waiting_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, changed("runner on its way"))
    assert [one["code"] for one in scene.verify(10)["findings"]] == ["runner_not_ready"]
    assert 10 <= scene.time < 12


def test_a_finding_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, changed("environment stopped"), Host())
    assert scene.verify(60)["findings"] == []
    scene = Scene(monkeypatch, changed("outer MTU"), changed("outer MTU"), changed("outer MTU"))
    assert [one["code"] for one in scene.verify(60)["findings"]] == ["mtu"]
    assert scene.time < 2


def test_without_waiting_one_look_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, changed("outer MTU"))
    assert [one["code"] for one in scene.verify(0)["findings"]] == ["mtu"]
    assert scene.looks == 1
