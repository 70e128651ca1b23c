#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# A job that builds an image in its environment's own Docker and runs it. It needs no registry:
# the base image is a tar of the environment's static busybox.
set -eu
cd "$(mktemp -d)"

tar --create --dereference --directory=/ bin/busybox | docker import - busybox:local >/dev/null

cat >Dockerfile <<'DOCKERFILE'
FROM busybox:local
RUN ["/bin/busybox", "mkdir", "/site"]
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox date >/site/built"]
CMD ["/bin/busybox", "sh", "-c", "echo \"built $(/bin/busybox cat /site/built), run on $(/bin/busybox hostname)\""]
DOCKERFILE

docker build --quiet --tag example . >/dev/null
docker run --rm example
docker info --format 'Docker {{.ServerVersion}}, {{.Driver}}, in {{.Name}}'
