# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by ./dev: the disposable host that people look at.
# Uses the functions of bootstrap.sh.

: "${root:?the checkout}" "${state:?its .dev folder}"

hosts() {
  python3 "$root/tests/dev/hosts.py" "$@"
}

inventory() {
  hosts inventory "$state/inventory.json"
  echo "$state/inventory.json"
}

# host_ssh [COMMAND...]: a shell or a command on the site's host, with our own input and output.
host_ssh() {
  local line terminal=()
  line=$(hosts ssh site) || return
  if [ -t 0 ] && [ -t 1 ]; then terminal=(-t); fi
  eval "set -- $line \"\$@\""
  "$1" "${terminal[@]}" "${@:2}"
}

shell() {
  [ $# != 0 ] || { echo 'shell of which runner? ./dev ssh sudo matryoshka status names them' >&2; return 2; }
  host_ssh "sudo matryoshka shell $(printf '%q ' "$@")"
}

# job FILE [OPTIONS]: hand FILE to the site's queue under its own name.
job() {
  local file=${1:-}
  [ -n "$file" ] || { echo 'job of which FILE? For example: ./dev job examples/jobs/build-and-run.sh' >&2; return 2; }
  [ -f "$file" ] || { echo "$file isn't a file; a job is a script or a program" >&2; return 2; }
  shift
  # shellcheck disable=SC2016 # expanded on the host
  local there='folder=$(mktemp -d) && trap "rm -rf \"$folder\"" EXIT && cat >"$folder/$0" && matryoshka job "$folder/$0" "$@"'
  there="sudo sh -c $(printf '%q ' "$there" "$(basename "$file")" "$@")"
  host_ssh "$there" <"$file"
}

# play INVENTORY PLAYBOOK [ARGUMENTS...]: with one line a task, and a record for tree.py.
play() {
  export ANSIBLE_CALLBACK_PLUGINS="$root/tests/dev/callback" ANSIBLE_STDOUT_CALLBACK=brief
  export ANSIBLE_PIPELINING=true ANSIBLE_LOG_PATH="$state/log/play.log" MATRYOSHKA_RECORD="$state/record.json"
  mkdir -p "$state/log"
  rm -f "$ANSIBLE_LOG_PATH" "$MATRYOSHKA_RECORD"
  if ! ansible-playbook -i "$1" "$root/playbooks/$2" "${@:3}"; then
    echo "The play failed. The whole log: $ANSIBLE_LOG_PATH" >&2
    return 1
  fi
}

site() {
  local code=0 begin example="$root/examples/jobs/build-and-run.sh"
  if [ "${1:-}" = -i ]; then
    [ $# -ge 2 ] || { echo 'site -i INVENTORY' >&2; return 2; }
    play "$2" site.yml "${@:3}"
    python3 "$root/tests/dev/tree.py" "$state/record.json"
    return
  fi
  begin=$SECONDS
  if [ "${1:-}" = --vm ]; then
    shift
    python3 "$root/tests/long/site_vm.py" site
  else
    hosts create site >"$state/site.json"
  fi
  echo "The host is there ($((SECONDS - begin)) s)"
  play "$(inventory)" site.yml --limit site "$@"
  echo "Handing in ${example#"$root"/}"
  begin=$SECONDS
  job "$example" </dev/null || code=$?
  host_ssh sudo matryoshka status --json </dev/null >"$state/states.json"
  python3 "$root/tests/dev/tree.py" "$state/record.json" --site --states "$state/states.json" \
    --job "The job ended with exit code $code after $((SECONDS - begin)) s, waiting included."
  return "$code"
}

# Everything of this checkout: containers, volumes, image names, sockets, .dev/.
down() {
  if command -v podman >/dev/null && [ -d "$state" ]; then
    echo 'Removing hosts, volumes and images'
    hosts remove --all
  fi
  rm -rf "$(control_folder)"
  echo 'Removing .dev/ and .ansible/'
  as_root rm -rf "$state" "$root/.ansible"
}
