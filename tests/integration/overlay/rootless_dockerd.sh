#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Start a rootless dockerd with its data below $2 and print $1 and its storage driver. Runs as root of a user
# namespace, and does what RootlessKit would, which Debian's Docker doesn't bring along.
set -u
mount -t tmpfs tmpfs /run
mkdir -p /run/rl/bin
ln -s /bin/true /run/rl/bin/rootlesskit-docker-proxy
export XDG_RUNTIME_DIR=/run/rl HOME=/run/rl ROOTLESSKIT_STATE_DIR=/run/rl PATH="$PATH:/run/rl/bin"
echo '{}' >/run/rl/config.json
dockerd --rootless --config-file /run/rl/config.json --data-root "$2/docker" --exec-root /run/rl/exec \
  --pidfile /run/rl/pid --host unix:///run/rl/sock --bridge=none --iptables=false --ip6tables=false >/run/rl/log 2>&1 &
while ! docker --host unix:///run/rl/sock version >/dev/null 2>&1; do
  kill -0 $! || break
  sleep 0.2
done
printf '%s %s\n' "$1" "$(docker --host unix:///run/rl/sock info --format '{{.Driver}}')"
