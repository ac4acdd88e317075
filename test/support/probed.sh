#!/bin/sh
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# probed.sh PROGRAM: runs a program built with MOOR_USDT, and fails if the program does, or if a probe of
# include/moor/detail/probes.hpp is not among the notes of the program, with two arguments.
set -eu
"$1"
notes=$(readelf -n "$1")
status=0
for probe in wait pend wake clear cancel; do
    places=$(echo "$notes" | grep -A 3 'Provider: moor$' | grep -A 2 "Name: $probe\$" |
        grep -Ec 'Arguments: [^ ]+@[^ ]+ [^ ]+@[^ ]+$') || true
    echo "$probe: $places places"
    [ "$places" -gt 0 ] || status=1
done
exit $status
