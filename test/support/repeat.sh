#!/bin/sh
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# repeat.sh COUNT SECONDS COMMAND [ARGUMENT...]: runs the command COUNT times, or fewer times if that takes longer
# than SECONDS, but not once only. Stops at the first failure and shows what that run printed.
set -eu
count=$1
end=$(($(date +%s) + $2))
shift 2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run=1
while [ "$run" -le "$count" ]; do
    if [ "$run" -gt 2 ] && [ "$(date +%s)" -ge "$end" ]; then
        break
    fi
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        cat "$log"
        echo "repeat: run $run ended with $status"
        exit 1
    fi
    run=$((run + 1))
done
echo "repeat: $((run - 1)) runs passed"
