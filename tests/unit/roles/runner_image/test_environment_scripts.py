# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of the environment image, against false trees, false programs and a false engine."""

from __future__ import annotations

import os
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[4] / "roles" / "runner_image" / "files"
START = FILES / "environment-start"
READY = FILES / "environment-ready"
SHELLS = [shell for shell in (["dash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(shell[0])]


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def step(
    shell: list[str], name: str, environment: dict[str, str], timeout: float = 20
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*shell, str(START), "--step", name],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Cgroup:
    """A false cgroup directory; what is written to ``init/cgroup.procs`` is gathered as the kernel would."""

    def __init__(self, root: Path, controllers: str = "cpu io memory pids", nested: bool = True) -> None:
        self.root = root
        self.moved: list[str] = []
        (root / "init").mkdir(parents=True)
        (root / "cgroup.controllers").write_text(controllers + "\n" if controllers else "")
        (root / "cgroup.procs").write_text("1\n7\n8\n")
        if nested:
            (root / "cgroup.events").write_text("populated 1\n")
        os.mkfifo(root / "init" / "cgroup.procs")
        self._end = os.open(root / "init" / "cgroup.procs", os.O_RDWR)
        threading.Thread(target=self._gather, daemon=True).start()

    def _gather(self) -> None:
        while text := os.read(self._end, 4096).decode():
            self.moved += text.split()

    def busy(self) -> None:
        """Make ``cgroup.subtree_control`` refuse to be written."""
        (self.root / "cgroup.subtree_control").mkdir()

    def free(self, newcomer: str) -> None:
        """Let it be written, once one more process has come."""
        (self.root / "cgroup.procs").write_text(f"{newcomer}\n")
        time.sleep(0.2)
        (self.root / "cgroup.subtree_control").rmdir()

    @property
    def handed_on(self) -> str:
        return (self.root / "cgroup.subtree_control").read_text()


def delegate(shell: list[str], cgroup: Cgroup) -> subprocess.CompletedProcess[str]:
    return step(shell, "delegate_cgroups", {"MATRYOSHKA_CGROUP": str(cgroup.root)})


def test_cgroup_v2_is_handed_on(shell: list[str], tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path)
    done = delegate(shell, cgroup)
    assert (done.returncode, done.stderr) == (0, "")
    assert cgroup.handed_on == "+cpu +io +memory +pids\n"
    time.sleep(0.1)
    assert cgroup.moved == ["1", "7", "8"]


def test_a_process_that_comes_in_between_is_moved_too(shell: list[str], tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path)
    cgroup.busy()
    threading.Timer(0.2, cgroup.free, ["4711"]).start()
    done = delegate(shell, cgroup)
    assert (done.returncode, done.stderr) == (0, "")
    assert cgroup.handed_on == "+cpu +io +memory +pids\n"
    time.sleep(0.1)
    assert "4711" in cgroup.moved


def test_controllers_that_stay_refused_are_named(shell: list[str], tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path, "cpu memory")
    cgroup.busy()
    done = delegate(shell, cgroup)
    assert done.returncode == 70
    assert "(cpu memory) can't be handed on" in done.stderr
    assert "refuses +cpu +memory" in done.stderr


def test_the_root_of_the_hierarchy_keeps_its_processes(shell: list[str], tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path, nested=False)
    assert delegate(shell, cgroup).returncode == 0
    assert cgroup.handed_on == "+cpu +io +memory +pids\n"
    assert cgroup.moved == []


def test_no_controllers_no_work(shell: list[str], tmp_path: Path) -> None:
    cgroup = Cgroup(tmp_path, "")
    assert delegate(shell, cgroup).returncode == 0
    assert not (tmp_path / "cgroup.subtree_control").exists()


def test_cgroup_v1_is_left_alone(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    done = step(shell, "delegate_cgroups", {"MATRYOSHKA_CGROUP": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_stale_files_go_and_others_stay(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "docker" / "containerd").mkdir(parents=True)
    stale = ["docker.pid", "docker-ssd.pid", "docker.sock", "docker/containerd/containerd.pid"]
    kept = ["sshd.pid", "docker/containerd/config"]
    for name in stale + kept:
        (tmp_path / name).touch()
    assert step(shell, "remove_stale", {"MATRYOSHKA_RUN": str(tmp_path)}).returncode == 0
    assert [name for name in stale if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).exists()] == []


MOUNTINFO = """\
868 231 0:134 / / rw,relatime shared:444 - overlay overlay rw
900 868 0:50 / {point} rw,nosuid - {kind} none rw
"""


@pytest.mark.parametrize(("point", "mounts"), [("/tmp", False), ("/tmp/x", True)])
def test_tmp_is_mounted_once(shell: list[str], tmp_path: Path, point: str, mounts: bool) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO.format(point=point, kind="tmpfs"))
    program(tmp_path / "bin", "mount", f'echo "$@" > {tmp_path}/mounted')
    environment = {
        "MATRYOSHKA_MOUNTS": str(tmp_path / "mountinfo"),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }
    assert step(shell, "mount_tmp", environment).returncode == 0
    assert (tmp_path / "mounted").exists() is mounts


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("mount_tmp", 70, "no tmpfs on /tmp"),
        ("share_mounts", 70, "can't be made shared"),
        ("mount_securityfs", 0, "warning: no securityfs"),
    ],
)
def test_a_mount_that_fails(shell: list[str], tmp_path: Path, name: str, code: int, message: str) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTINFO.format(point="/elsewhere", kind="tmpfs"))
    program(tmp_path / "bin", "mount", "exit 32")
    environment = {
        "MATRYOSHKA_MOUNTS": str(tmp_path / "mountinfo"),
        "MATRYOSHKA_SECURITY": str(tmp_path),
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }
    done = step(shell, name, environment)
    assert done.returncode == code
    assert message in done.stderr


@pytest.fixture
def alternatives(tmp_path: Path) -> Path:
    """Both backends of iptables, nft chosen, with a record of what is chosen."""
    folder = tmp_path / "alternatives"
    folder.mkdir()
    for tool in ("iptables", "ip6tables"):
        for backend in ("nft", "legacy"):
            program(tmp_path / "bin", f"{tool}-{backend}", "exit 0")
        (folder / tool).symlink_to(tmp_path / "bin" / f"{tool}-nft")
    program(
        tmp_path / "bin", "update-alternatives", f'ln -sf "$4" "{folder}/$3"; echo "$3" >> {tmp_path}/changed'
    )
    program(
        tmp_path / "bin",
        "iptables",
        f'[ ! -e {tmp_path}/broken ] || {{ echo "Table does not exist" >&2; exit 3; }}',
    )
    return folder


def choose(shell: list[str], tmp_path: Path, backend: str | None) -> subprocess.CompletedProcess[str]:
    environment = {
        "MATRYOSHKA_ALTERNATIVES": str(tmp_path / "alternatives"),
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        **({} if backend is None else {"MATRYOSHKA_IPTABLES": backend}),
    }
    return step(shell, "choose_iptables", environment)


@pytest.mark.parametrize(
    ("backend", "chosen", "changed"),
    [("legacy", "legacy", ["iptables", "ip6tables"]), ("nft", "nft", []), (None, "nft", []), ("", "nft", [])],
)
def test_the_backend_is_the_hosts(
    shell: list[str], tmp_path: Path, alternatives: Path, backend: str | None, chosen: str, changed: list[str]
) -> None:
    done = choose(shell, tmp_path, backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert {os.readlink(alternatives / tool).rsplit("-", 1)[1] for tool in ("iptables", "ip6tables")} == {
        chosen
    }
    record = tmp_path / "changed"
    assert (record.read_text().split() if record.exists() else []) == changed


def test_an_unknown_backend_is_refused(shell: list[str], tmp_path: Path, alternatives: Path) -> None:
    done = choose(shell, tmp_path, "ipfw")
    assert done.returncode == 64
    assert "MATRYOSHKA_IPTABLES: 'ipfw' is refused; allowed: nft, legacy" in done.stderr


def test_a_backend_that_the_image_lacks_is_refused(
    shell: list[str], tmp_path: Path, alternatives: Path
) -> None:
    (tmp_path / "bin" / "ip6tables-legacy").unlink()
    environment_has_it = shutil.which("ip6tables-legacy", path="/usr/bin:/bin")
    if environment_has_it:
        pytest.skip("this machine has ip6tables-legacy in /usr/bin")
    done = choose(shell, tmp_path, "legacy")
    assert done.returncode == 64
    assert "this image has no ip6tables-legacy" in done.stderr


def test_a_backend_that_the_kernel_lacks_is_refused(
    shell: list[str], tmp_path: Path, alternatives: Path
) -> None:
    (tmp_path / "broken").touch()
    done = choose(shell, tmp_path, "nft")
    assert done.returncode == 70
    assert "iptables-nft doesn't work in this kernel: Table does not exist" in done.stderr


def engine(shell: list[str], tmp_path: Path, body: str) -> subprocess.Popen[str]:
    program(tmp_path / "bin", "dockerd", body)
    process = subprocess.Popen(
        [*shell, str(START), "--step", "run_engine"],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up docker\n"
    return process


def test_a_signal_ends_the_engine_and_then_the_environment(shell: list[str], tmp_path: Path) -> None:
    process = engine(shell, tmp_path, 'trap "exit 0" TERM; echo up $container; while :; do sleep 0.02; done')
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0


@pytest.mark.parametrize("code", [0, 1, 137])
def test_the_engines_exit_code_is_the_environments(shell: list[str], tmp_path: Path, code: int) -> None:
    last = "kill -9 $$" if code == 137 else f"exit {code}"
    assert engine(shell, tmp_path, f"echo up $container; {last}").wait(10) == code


class Answer(BaseHTTPRequestHandler):
    body = b"OK"

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/_ping" else 404)
        self.end_headers()
        self.wfile.write(self.body)

    def address_string(self) -> str:
        return "engine"

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    if not shutil.which("curl"):
        pytest.skip("curl isn't installed")
    yield tmp_path / "docker.sock"


def serve(path: Path) -> socketserver.UnixStreamServer:
    server = socketserver.UnixStreamServer(str(path), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ready(shell: list[str], path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*shell, str(READY), *arguments],
        env={"PATH": os.environ["PATH"], "MATRYOSHKA_SOCKET": str(path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_engine_that_answers_is_ready(shell: list[str], socket_path: Path) -> None:
    server = serve(socket_path)
    assert ready(shell, socket_path).returncode == 0
    server.shutdown()


@pytest.mark.parametrize("state", ["nothing", "a file", "a socket that nobody listens on"])
def test_an_engine_that_does_not_answer_is_not_ready(shell: list[str], socket_path: Path, state: str) -> None:
    if state == "a file":
        socket_path.touch()
    elif state != "nothing":
        serve(socket_path).server_close()
    done = ready(shell, socket_path)
    assert done.returncode == 1
    assert f"no answer on {socket_path}" in done.stderr


def test_waiting_ends_when_the_engine_answers(shell: list[str], socket_path: Path) -> None:
    threading.Timer(0.5, serve, [socket_path]).start()
    started = time.monotonic()
    assert ready(shell, socket_path, "--wait", "20").returncode == 0
    assert 0.4 < time.monotonic() - started < 10


def test_waiting_ends_in_time(shell: list[str], socket_path: Path) -> None:
    done = ready(shell, socket_path, "--wait", "1")
    assert done.returncode == 1
    assert "within 1 s" in done.stderr


@pytest.mark.parametrize("arguments", [["--wait"], ["--wait", "soon"], ["--wait", "1.5"], ["--what"]])
def test_wrong_arguments(shell: list[str], tmp_path: Path, arguments: list[str]) -> None:
    done = ready(shell, tmp_path / "x", *arguments)
    assert done.returncode == 64
    assert done.stderr


@pytest.mark.parametrize(
    ("wanted", "version", "written", "says"),
    [
        ("", "Docker version 26.1.5, build a", None, ""),
        ("sys_resource", "Docker version 26.1.5+dfsg1, build a72d7cd", "sys_resource\n", ""),
        ("sys_resource", "Docker version 20.10.24+dfsg1, build 297e128", None, "quota isn't held"),
    ],
)
def test_an_engine_does_without_what_its_quota_doesn_t_hold(
    shell: list[str], tmp_path: Path, wanted: str, version: str, written: str | None, says: str
) -> None:
    program(tmp_path / "bin", "dockerd", f"echo '{version}'")
    environment = {
        "MATRYOSHKA_BOUND": wanted,
        "MATRYOSHKA_RUN": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    done = step(shell, "bound_engine", environment)
    assert done.returncode == 0 and says in done.stderr
    marker = tmp_path / "matryoshka-bound"
    assert (marker.read_text() if marker.exists() else None) == written


def test_what_is_no_capability_is_refused(shell: list[str], tmp_path: Path) -> None:
    done = step(shell, "bound_engine", {"MATRYOSHKA_BOUND": "all -x", "MATRYOSHKA_RUN": str(tmp_path)})
    assert done.returncode == 64 and "MATRYOSHKA_BOUND" in done.stderr and "all -x" in done.stderr


@pytest.mark.parametrize(("score", "between"), [("500", "0"), ("0", "0"), ("-5", "-5")])
def test_the_oom_scores_floor_falls_before_the_capability_goes(
    shell: list[str], tmp_path: Path, score: str, between: str
) -> None:
    file = tmp_path / "oom_score_adj"
    file.write_text(f"{score}\n")
    (tmp_path / "matryoshka-bound").write_text("sys_resource\n")
    program(tmp_path / "bin", "setpriv", f'cat {file}; echo "$1 $2 $3 $4"; shift 4; exec "$@"')
    program(tmp_path / "bin", "dockerd", f'cat {file}; echo "$# $1"')
    environment = {
        "MATRYOSHKA_OOM_SCORE": str(file),
        "MATRYOSHKA_RUN": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [*shell, str(START), "--step", "run_engine", "--host=unix:///a b"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    taken = "--bounding-set -sys_resource --inh-caps -sys_resource"
    assert done.stdout.splitlines() == [between, taken, score, "1 --host=unix:///a b"]


def test_an_oom_score_that_can_t_be_lowered_is_named(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "oom_score_adj").mkdir()
    program(tmp_path / "bin", "cat", "echo 500")
    program(tmp_path / "bin", "setpriv", "true")
    (tmp_path / "matryoshka-bound").write_text("sys_resource\n")
    environment = {
        "MATRYOSHKA_OOM_SCORE": str(tmp_path / "oom_score_adj"),
        "MATRYOSHKA_RUN": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
    }
    done = step(shell, "run_engine", environment)
    assert "OOM score 500 can't be lowered" in done.stderr
