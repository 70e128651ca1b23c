# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by ./dev: what this machine needs (Debian packages, a Python environment), made once.

: "${root:?the checkout}" "${state:?its .dev folder}"

packages=(
  aardvark-dns ca-certificates conmon debian-archive-keyring git gpg iproute2 iptables mmdebstrap netavark
  nftables openssh-client podman python3-venv qemu-system-x86 qemu-utils runc shellcheck uidmap
)

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# step TEXT COMMAND...: run COMMAND with its output in a log; say how long it took, or what to read.
step() {
  local text=$1 log begin code=0
  shift
  mkdir -p "$state/log"
  log="$state/log/$(printf %s "$text" | tr -cs 'a-zA-Z0-9' - | tr '[:upper:]' '[:lower:]' | sed 's/-*$//').log"
  printf '%s ...' "$text" >&2
  begin=$SECONDS
  "$@" >"$log" 2>&1 </dev/null || code=$?
  if [ "$code" = 0 ]; then
    printf ' %s s\n' $((SECONDS - begin)) >&2
  else
    printf ' failed after %s s (exit code %s)\n' $((SECONDS - begin)) "$code" >&2
    tail -n 20 "$log" | sed 's/^/    /' >&2
    printf 'The whole log: %s\n' "$log" >&2
  fi
  return "$code"
}

find_python() {
  local name
  # The distribution's own first: it is built to be fast, what people compile for themselves often isn't (a third slower).
  for name in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "No Python 3.11 or newer on PATH (Debian 12 and 13 have it as python3)." >&2
  return 1
}

install_packages() {
  local missing=() name
  if ! command -v apt-get >/dev/null; then
    for name in podman mmdebstrap ssh ssh-keygen; do
      command -v "$name" >/dev/null || missing+=("$name")
    done
    if [ ${#missing[@]} != 0 ]; then
      echo "This isn't Debian or Ubuntu: install ${missing[*]} (rootful Podman) yourself." >&2
      return 1
    fi
    return
  fi
  for name in "${packages[@]}"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  if [ ${#missing[@]} = 0 ]; then return; fi
  step "Fetching Debian's package lists" as_root apt-get update
  step "Installing ${missing[*]}" as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}"
}

make_environment() {
  local python
  python=$(find_python)
  rm -rf "$state/venv"
  step "Making a Python environment" "$python" -m venv "$state/venv"
  step "Installing Ansible, Molecule and linters into it" "$state/venv/bin/pip" install \
    --disable-pip-version-check --no-compile -r "$root/requirements.txt"
}

# once NAME FILES... -- COMMAND: run COMMAND unless it has run for these contents of FILES.
once() {
  local name=$1 files=() sum
  shift
  while [ "$1" != -- ]; do
    files+=("$1")
    shift
  done
  shift
  sum=$(cat "${files[@]}" | sha256sum)
  if [ "$(cat "$state/stamp/$name" 2>/dev/null)" = "$sum" ]; then return; fi
  "$@"
  mkdir -p "$state/stamp"
  printf '%s\n' "$sum" >"$state/stamp/$name"
}

bootstrap() {
  once packages "$root/tests/dev/bootstrap.sh" -- install_packages
  once environment "$root/requirements.txt" -- make_environment
}

# Where connections are kept open. Not in .dev/: a socket's path has at most 108 bytes.
control_folder() {
  printf '/tmp/matryoshka-%s-%s\n' "$(printf %s "$root" | sha256sum | cut -c1-8)" "$(id -u)"
}

# What the commands of the project's environment see.
environment() {
  export VIRTUAL_ENV="$state/venv" PATH="$state/venv/bin:$PATH" PYTHONNOUSERSITE=1
  export ANSIBLE_COLLECTIONS_PATH="$root/playbooks/collections" ANSIBLE_HOME="$state/ansible"
  ANSIBLE_SSH_CONTROL_PATH_DIR=$(control_folder)
  export ANSIBLE_SSH_CONTROL_PATH_DIR
  export PYTHONPYCACHEPREFIX="$state/pycache" RUFF_CACHE_DIR="$state/ruff" MYPY_CACHE_DIR="$state/mypy"
  export HYPOTHESIS_STORAGE_DIRECTORY="$state/hypothesis"
  unset PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE
}
