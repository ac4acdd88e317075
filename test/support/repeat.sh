#!/bin/sh
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# repeat.sh COUNT COMMAND [ARGUMENT...]: runs the command COUNT times; stops at the first failure and
# shows what that run printed.
set -eu
count=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run=1
while [ "$run" -le "$count" ]; do
    status=0
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        cat "$log"
        echo "repeat: run $run of $count ended with $status"
        exit 1
    fi
    run=$((run + 1))
done
echo "repeat: $count runs passed"
