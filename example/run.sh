#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Builds the tour and runs it, with this script's standard input and arguments, and then the smaller
# programs. With --inspect, it runs the tour only, which first shows in a browser what it waits for.
# With the name of a program that needs a server, it starts one, runs this program only, with the
# other arguments, and ends the server: example/run.sh listen [CHANNEL]. Likewise those that need
# none: example/run.sh tree [DIRECTORY].
# On a Debian 12 it installs a compiler and Boost's headers first if they are missing. Only the
# programs write to the standard output, and the exit status is that of the first program that fails.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
. "$root/test/support/setup.sh"
moor_need_packages g++ libboost1.81-dev

programs=(tour child two_shapes poll_list peer_gone)
built=$root/build/example
flags=()
libraries=()
servers=
# An adapter's program: example PROGRAM SERVER LIBRARY... -- PACKAGE...
example() {
    programs=("$1")
    servers=$2
    shift 2
    while [ "$1" != -- ]; do
        libraries+=("$1")
        shift
    done
    shift
    moor_need_packages "$@"
}
case ${1-} in
    --inspect)
        programs=(tour)
        built+=/inspected
        flags=(-DTOUR_IS_INSPECTED)
        shift
        ;;
    listen)
        flags=(-I/usr/include/postgresql)
        example "$1" postgres -lpq -- libpq-dev postgresql openssl
        shift
        ;;
    resolve)
        example "$1" dns -lcares -- libc-ares-dev python3
    tree)
        example "$1" "" --
        shift
        ;;
esac
mkdir -p "$built"
building=()
for name in "${programs[@]}"; do
    program=$built/$name
    if [ ! -x "$program" ] ||
        [ -n "$(find "$root/include" "$here/$name.cpp" -newer "$program" -print -quit)" ]; then
        echo "Building $name" >&2
        "${CXX:-g++}" -std=c++20 -O2 -pthread -I"$root/include" ${flags[@]+"${flags[@]}"} \
            -o "$program" "$here/$name.cpp" ${libraries[@]+"${libraries[@]}"} </dev/null >&2 &
        building+=($!)
    fi
done
for job in ${building[@]+"${building[@]}"}; do
    wait "$job"
done

if [ -n "$servers" ]; then
    # shellcheck disable=SC2086 # several names
    exec "$root/test/adapt/servers.sh" with $servers -- "$built/${programs[0]}" "$@"
fi
if [ "${programs[0]}" != tour ]; then
    exec "$built/${programs[0]}" "$@"
fi
"$built/tour" "$@"
for name in "${programs[@]:1}"; do
    printf '\n%s\n\n' "example/$name.cpp"
    "$built/$name" </dev/null
done
