# shellcheck shell=bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced on the host: a LAN, a cloud's metadata service and the internet, each a network namespace behind a veth pair.

# place NAME GATEWAY/PREFIX... -- ADDRESS...: the namespace NAME; the host's end has the gateways.
place() {
  local name=$1 gateway address
  shift
  ip netns add "$name"
  ip link add "to-$name" type veth peer name eth0 netns "$name"
  ip link set "to-$name" up
  ip -n "$name" link set lo up
  ip -n "$name" link set eth0 up
  while [ "$1" != -- ]; do
    gateway=$1
    ip address add "$gateway" dev "to-$name" nodad
    shift
    ip -n "$name" route add default via "${gateway%/*}"  dev eth0 onlink
  done
  shift
  for address in "$@"; do
    ip -n "$name" address add "$address" dev eth0 nodad
  done
  # Whoever is reached says so on both ports.
  for port in 8080 9090; do
    systemd-run --quiet --unit "lab-$name-$port" --collect \
      ip netns exec "$name" python3 -m http.server --bind :: --directory /sys/class/net "$port"
  done
}

lab() {
  place lan 192.168.77.1/24 fd77::1/64 -- 192.168.77.10/24 192.168.77.11/24 192.168.77.12/24 fd77::10/64 fd77::12/64
  place metadata 169.254.169.1/24 -- 169.254.169.254/24
  place provider 100.64.7.1/24 -- 100.64.7.7/24
  place internet 198.51.100.1/24 2001:db8:51::1/64 -- 198.51.100.7/24 2001:db8:51::7/64
  for port in 8080 9090; do
    systemd-run --quiet --unit "lab-host-$port" --collect python3 -m http.server --bind :: --directory /sys/class/net "$port"
  done
  local name port
  for port in 8080 9090; do
    until python3 -c "import socket; socket.create_connection(('localhost', $port))" 2>/dev/null; do sleep 0.1; done
  done
  for name in lan metadata provider internet; do
    for port in 8080 9090; do
      until ip netns exec "$name" python3 -c "import socket; socket.create_connection(('localhost', $port))" 2>/dev/null; do sleep 0.1; done
    done
  done
}

unlab() {
  systemctl stop 'lab-*.service' 2>/dev/null || true
  local name
  for name in lan metadata provider internet; do
    ip netns delete "$name" 2>/dev/null || true
    ip link delete "to-$name" 2>/dev/null || true
  done
}
