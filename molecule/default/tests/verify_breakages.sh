# shellcheck shell=bash disable=SC2034
# Words of the table in verify_breakages.yml; runs on the host, as root, in bash.
set -eu
unit=matryoshka-runner@ci.service
config=/etc/matryoshka/runners/ci.json
state=/run/matryoshka/runners/ci.json
folder=${folder:-/var/lib/matryoshka/runners/ci}
queue=/var/lib/matryoshka/queue
library=/usr/local/lib/matryoshka/matryoshka_runner
kept=/run/verify-breakages

field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["environment"][sys.argv[2]])' "$state" "$1"; }
container() { field container; }
pid() { docker inspect --format '{{.State.Pid}}' "$(container)"; }
parent() { docker inspect --format '{{.HostConfig.CgroupParent}}' "$(container)"; }
image() { docker inspect --format '{{.Config.Image}}' "$(container)"; }
# The runner heals what it can; to be looked at, some breakages need it to hold still.
freeze() { systemctl kill --kill-whom=main --signal=STOP "$unit"; }
thaw() { systemctl kill --kill-whom=main --signal=CONT "$unit"; }
inside() { nsenter --target "$(pid)" --net -- "$@"; }
# The process of the inner dockerd.
inner() { pgrep --exact dockerd --ns "$(pid)" --nslist pid; }
# systemd refuses the fourth start of docker.service within a minute.
restart_engine() { systemctl reset-failed docker.service docker.socket; systemctl restart docker.service; }
keep() { mkdir -p "$kept"; cp --archive --no-clobber "$1" "$kept/$(basename "$1")"; }
back() { mv "$kept/$(basename "$1")" "$1"; }
daemon_json() { keep /etc/docker/daemon.json && python3 - "$1" <<'PYTHON'
import json, sys
path = "/etc/docker/daemon.json"
config = json.load(open(path))
config.update(json.loads(sys.argv[1]))
with open(path, "w") as file:
    json.dump(config, file, indent=2)
PYTHON
}
drop_in() { mkdir -p "/etc/systemd/system/$1.d" && printf '%b\n' "$2" > "/etc/systemd/system/$1.d/zz-somebody.conf"; }
# Put another container in the place of the environment: same name and labels, what docker create is told differs.
# With the first word "bare" nothing is mounted on the data root.
imitate() {
  local how=$1 name identity image root parent
  shift
  name=$(container) identity=$(field id) image=$(image) root=$(field data_root) parent=$(parent)
  freeze
  docker rm --force "$name" > /dev/null
  [ "$how" = bare ] || set -- --volume "$root:/var/lib/docker" "$@"
  [ "$how" = unprivileged ] || set -- --privileged "$@"
  docker run --detach --name "$name" --label matryoshka.runner=ci --label "matryoshka.environment=$identity" \
    --cgroup-parent "$parent" --cgroupns private --tmpfs /run:exec,mode=755 \
    --volume "${inner_json:-/run/matryoshka/environments/ci/daemon.json}:/etc/docker/daemon.json:ro" "$@" "${other_image:-$image}" > /dev/null
  [ "$how" = unprivileged ] || until docker exec "$name" environment-ready 2> /dev/null; do sleep 0.1; done
}
# A container that does nothing, from the image of environments.
idle() { docker run --detach --name "$1" "${@:2}" --entrypoint sleep "$(image)" infinity > /dev/null; }
# Until the dockerd in a container has the files of its data root open; it can't get the lock.
waits() {
  until docker exec "$1" sh -c 'ls -l /proc/[0-9]*/fd 2> /dev/null | grep -q "/var/lib/docker/.*[.]db"'; do sleep 0.1; done
}
gone() { docker rm --force --volumes "$@" > /dev/null; }
anew() { gone "$(container)" 2> /dev/null || true; systemctl kill --kill-whom=main --signal=CONT "$unit" || true; systemctl reset-failed "$unit" || true; systemctl restart "$unit"; }
# Hold a lock on a file until told to let go; the process belongs to no unit of ours.
hold() { systemd-run --quiet --unit=somebody --service-type=exec flock --exclusive "$1" sleep infinity; sleep 0.3; }
let_go() { systemctl stop somebody.service; }
settled() {
  local end=$((SECONDS + 60))
  until [ "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["state"])' "$state" 2> /dev/null)" = ready ] &&
    [ "$(systemctl show --property MainPID --value "$unit")" = "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "$state")" ]; do
    [ $SECONDS -lt $end ] || { systemctl status "$unit" >&2; exit 1; }
    sleep 0.1
  done
}
