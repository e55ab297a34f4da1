#!/bin/sh
# Suspends a task's machine (its memory is kept, no signal is sent) once everything owed is durable.
#   deploy/fly/suspend.sh APP MACHINE
set -eu
app=${1:?name the app}
machine=${2:?name the machine}
fly ssh console --app "$app" --machine "$machine" --command \
    'curl --fail-with-body --silent --show-error --max-time 60 --unix-socket /run/whim/whim.sock -X POST http://localhost/v1/quiesce'
fly machine suspend "$machine" --app "$app"
