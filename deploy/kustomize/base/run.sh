#!/bin/bash
# Runs polylance in a container of a Job: exit code 3 (done, with rows in the quarantine) is a success, and SIGTERM
# reaches the program, which then commits its work. A shell that is a container's first process does not forward it.
trap 'stopped=1; kill -TERM "$run"' TERM
polylance "$@" &
run=$!
wait "$run"
code=$?
while [ -n "$stopped" ]; do # The signal ended the wait, not the program.
    stopped=
    wait "$run"
    code=$?
done
[ "$code" -ne 3 ] || code=0
exit "$code"
