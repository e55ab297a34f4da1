#!/bin/sh
# Ends a task's container: saves everything while it still works, then lets it end in order.
#   deploy/docker/stop.sh CONTAINER [GRACE]     GRACE: its WHIM_GRACE_S, default 8
set -eu
container=${1:?name the container}
grace=${2:-8}
docker exec --user root "$container" whim backup now ||
    echo "not everything was saved before the end; the final save follows" >&2
docker stop --time "$((grace + 2))" "$container"
