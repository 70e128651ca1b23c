# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading storage through a made-up host: which programs are asked, and where data is found to lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.matryoshka.host.plugins.module_utils import _storage_read as reader
from ansible_collections.matryoshka.host.plugins.module_utils._command import Result
from ansible_collections.matryoshka.host.plugins.module_utils._errors import InputError
from ansible_collections.matryoshka.host.plugins.module_utils._host_files import View
from support import table

FIXTURES = Path(__file__).parents[2] / "fixtures" / "storage"
INFO = ("docker", "info", "--format", "{{json .}}")
GOOD = (FIXTURES / "docker-26.1-overlay2-on-ext4.json").read_text()
VFS = (FIXTURES / "docker-26.1-vfs-on-overlay.json").read_text()
DEAD = (FIXTURES / "docker-26.1-dead.json").read_text()
STORE = (FIXTURES / "derived-docker-29-containerd-store.json").read_text()


def inspect(*names: str) -> tuple[str, ...]:
    return (
        "docker",
        "inspect",
        "--type",
        "container",
        "--format",
        "{{.Id}} {{.Name}} {{.State.Pid}}",
        *names,
    )


def inside(container: str) -> tuple[str, ...]:
    return ("docker", "exec", container, *INFO)


@pytest.fixture
def view(tmp_path: Path) -> View:
    """A host with a container of pid 11 that has a volume, and one of pid 22 that has none."""
    for pid, name in (("self", "host"), ("11", "volume"), ("22", "overlay")):
        (tmp_path / f"proc/{pid}/root/var/lib/docker").mkdir(parents=True)
        text = (FIXTURES / f"{name}.mountinfo").read_text()
        (tmp_path / f"proc/{pid}/mountinfo").write_text(text)
    (tmp_path / "var/lib/docker").mkdir(parents=True)
    upper = next(
        option.removeprefix("upperdir=")
        for option in (FIXTURES / "overlay.mountinfo").read_text().split("\n")[0].split(" ")[-1].split(",")
        if option.startswith("upperdir=")
    )
    (tmp_path / upper.lstrip("/")).mkdir(parents=True)
    return View(str(tmp_path))


def test_the_host(view: View) -> None:
    found = reader.read_engine_storage(table({INFO: GOOD}), "docker", view=view)
    assert found.location is not None
    assert (found.driver, found.location.filesystem, found.location.source) == (
        "overlay2",
        "ext4",
        "/dev/vda",
    )
    assert found.location.exists and found.location.bytes_total
    assert not found.location.on_root_disk


def test_containers_in_the_order_asked(view: View) -> None:
    ids = f"{'a' * 64} /e1 11\n{'b' * 64} /e2 22\n{'c' * 64} /e3 0\n"
    run = table(
        {
            inspect("e2", "e1", "e3", "none"): Result(1, ids, "no such container: none"),
            inside("e1"): GOOD,
            inside("e2"): VFS,
            INFO: GOOD,
        }
    )
    found = reader.read_engine_storages(run, "docker", [None, "e2", "e1", "e3", "none"], view=view)
    assert [storage.container for storage in found] == [None, "e2", "e1", "e3", "none"]
    host, overlay, volume, stopped, absent = found
    assert host.location and host.location.filesystem == "ext4"
    assert overlay.location and (overlay.location.filesystem, overlay.location.beneath) == ("overlay", "ext4")
    assert overlay.backing_filesystem == "overlay"
    assert volume.location and volume.location.mount_point == "/var/lib/docker"
    assert (stopped.absent, stopped.error) == (None, "the container e3 is not running")
    assert (absent.absent, absent.error) == ("container", "the container none is not known to docker")


def test_a_container_by_its_id(view: View) -> None:
    short = "a" * 12
    run = table({inspect(short): f"{'a' * 64} /e1 11\n", inside(short): GOOD})
    assert reader.read_engine_storage(run, "docker", short, view=view).live


@pytest.mark.parametrize(
    ("result", "absent", "live", "error"),
    [
        (
            Result(127, "", "docker: not found in /usr/sbin:/usr/bin"),
            "program",
            False,
            "docker isn't installed",
        ),
        (Result(0, DEAD), None, False, "Cannot connect to the Docker daemon at unix"),
        (
            Result(1, DEAD.replace("ServerErrors", "X"), "warning\nCannot connect: 28"),
            None,
            False,
            "Cannot connect: 28",
        ),
        (
            Result(124, "", "no end within 15 s"),
            None,
            False,
            "docker info gave no answer (no end within 15 s)",
        ),
        (Result(1, "", "permission denied"), None, False, "permission denied"),
    ],
)
def test_an_engine_that_doesn_t_answer(
    view: View, result: Result, absent: str | None, live: bool, error: str
) -> None:
    found = reader.read_engine_storage(table({INFO: result}), "docker", view=view)
    assert (found.absent, found.live) == (absent, live)
    assert (found.error or "").startswith(error)


@pytest.mark.parametrize(
    ("error", "absent"),
    [
        (
            'OCI runtime exec failed: exec failed: exec: "docker": executable file not found in $PATH: unknown',
            "program",
        ),
        ("Error: crun: executable file `docker` not found in $PATH: No such file or directory", "program"),
        ("OCI runtime exec failed: stat /sys/fs/cgroup/x: no such file or directory: unknown", None),
    ],
)
def test_a_container_without_the_program(view: View, error: str, absent: str | None) -> None:
    run = table({inspect("e1"): "a /e1 11\n", inside("e1"): Result(127, "", error)})
    found = reader.read_engine_storage(run, "docker", "e1", view=view)
    assert found.absent == absent
    assert not found.live


def test_a_dead_daemon_s_data_is_still_looked_at(view: View) -> None:
    etc = Path(view.path("/etc/docker"))
    etc.mkdir(parents=True)
    (etc / "daemon.json").write_text('{"data-root": "/var/lib/matryoshka/d"}')
    found = reader.read_engine_storage(table({INFO: DEAD}), "docker", view=view)
    assert found.location and found.location.path == "/var/lib/matryoshka/d"
    assert not found.location.exists


def test_the_configuration_inside_a_container_is_the_one_inside(view: View) -> None:
    etc = Path(view.path("/proc/11/root/etc/docker"))
    etc.mkdir(parents=True)
    (etc / "daemon.json").write_text('{"storage-driver": "fuse-overlayfs"}')
    run = table({inspect("e1"): "a /e1 11\n", inside("e1"): GOOD})
    assert reader.read_engine_storage(run, "docker", "e1", view=view).configured_driver == "fuse-overlayfs"


def test_containerd_s_own_root(view: View) -> None:
    Path(view.path("/var/lib/matryoshka")).mkdir()
    etc = Path(view.path("/etc/containerd"))
    etc.mkdir(parents=True)
    (etc / "config.toml").write_text('root = "/var/lib/matryoshka/ctd"\n')
    found = reader.read_engine_storage(table({INFO: STORE}), "docker", view=view)
    assert [(one.role, one.path) for one in found.locations] == [
        ("data_root", "/var/lib/docker"),
        ("containerd", "/var/lib/matryoshka/ctd"),
    ]
    assert found.location is found.locations[1]
    assert found.backing_filesystem == "ext4"


def test_podman(view: View) -> None:
    text = (FIXTURES / "podman-4.3-on-ext4.json").read_text()
    conf = Path(view.path("/usr/share/containers"))
    conf.mkdir(parents=True)
    (conf / "storage.conf").write_text('[storage]\ndriver = "vfs"\n')
    found = reader.read_engine_storage(
        table({("podman", "info", "--format", "json"): text}), "podman", view=view
    )
    assert (found.driver, found.configured_driver) == ("overlay", "vfs")
    assert found.configuration_file == "/usr/share/containers/storage.conf"


def test_podman_that_fails(view: View) -> None:
    run = table({("podman", "info", "--format", "json"): Result(125, "", "Error: database is locked")})
    found = reader.read_engine_storage(run, "podman", view=view)
    assert (found.live, found.error) == (False, "Error: database is locked")


def test_a_user_s_engine_inside_a_container(view: View) -> None:
    etc = Path(view.path("/proc/11/root/etc"))
    etc.mkdir(parents=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\nci:x:1000:1000::/home/ci:/bin/sh\n")
    asked: list[Sequence[str]] = []

    def run(
        argv: Sequence[str], *, stdin: str | None = None, check: bool = True, timeout: float = 60.0
    ) -> Result:
        asked.append(list(argv))
        return Result(0, "a /e1 11\n" if argv[1] == "inspect" else GOOD)

    found = reader.read_engine_storage(run, "rootless_docker", "e1", user="ci", view=view)
    assert found.live and found.user == "ci"
    assert asked[1][:6] == ["docker", "exec", "--user", "ci", "e1", "docker"]
    assert asked[1][6:8] == ["--host", "unix:///run/user/1000/docker.sock"]
    with pytest.raises(InputError, match="user: 'nobody2' is refused; allowed: a user inside the container"):
        reader.read_engine_storage(run, "rootless_docker", "e1", user="nobody2", view=view)


@pytest.mark.parametrize(
    ("engine", "user", "message"),
    [
        ("dockre", None, "engine: 'dockre' is refused; allowed: one of docker, rootless_docker, podman"),
        ("rootless_docker", None, "user: None is refused"),
        ("rootless_docker", "nosuchuser", "user: 'nosuchuser' is refused; allowed: a user of this host"),
    ],
)
def test_bad_input(view: View, engine: str, user: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reader.read_engine_storage(table({}), engine, user=user, view=view)
