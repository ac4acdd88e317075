#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Builds the tour and runs it, with this script's standard input, and then the smaller programs. With
# --inspect, it runs the tour only, which first shows in a browser what it waits for. With the name
# of an adapter's program, it runs this program only, with the other arguments; the program's
# servers, if there are any, are started before and ended afterwards:
#
#     example/run.sh bus                    a service on D-Bus, and its client
#     example/run.sh download [URL...]      files with libcurl, at once
#     example/run.sh gio [DIRECTORY]        GIO in a program of Asio
#     example/run.sh kafka [BROKERS TOPIC]  messages of Kafka
#     example/run.sh listen [CHANNEL]       PostgreSQL's LISTEN and NOTIFY
#     example/run.sh mqtt                   an MQTT bridge
#     example/run.sh redis [CHANNEL...]     what is published in Redis
#     example/run.sh resolve [HOST...]      names by c-ares
#     example/run.sh sound [DEVICE]         a tone with ALSA
#     example/run.sh tree [DIRECTORY]       what changes in a directory
#     example/run.sh worker                 a worker with ZeroMQ
#
# On a Debian 12 it installs a compiler and Boost's headers first if they are missing. Only the
# programs write to the standard output, and the exit status is that of the first program that fails.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
. "$root/test/support/setup.sh"

usage() { sed -n '/^# Builds the tour/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
case ${1-} in
    -h | --help)
        usage
        exit
        ;;
esac

programs=(tour child two_shapes poll_list peer_gone)
built=$root/build/example
flags=()
libraries=()
servers=
through=()
# An adapter's program: adapter SERVERS FLAG... -- PACKAGE...
adapter() {
    programs=("$name")
    servers=$1
    shift
    while [ "$1" != -- ]; do
        case $1 in
            -l*) libraries+=("$1") ;;
            *) flags+=("$1") ;;
        esac
        shift
    done
    shift
    packages+=("$@")
}
packages=(g++ libboost1.81-dev)
modules=() # of pkg-config
name=${1-}
case $name in
    --inspect)
        programs=(tour)
        built+=/inspected
        flags=(-DTOUR_IS_INSPECTED)
        ;;
    bus) adapter dbus -lsystemd -- libsystemd-dev dbus-daemon ;;
    download)
        adapter nginx -lcurl -- libcurl4-openssl-dev nginx-light openssl
        if [ $# -gt 1 ]; then
            servers= # the files come from elsewhere
        else
            # shellcheck disable=SC2016 # the variables of the servers
            through=(sh -c 'cd "$MOOR_SERVERS_DIR" && exec "$0" $MOOR_SERVERS_DOWNLOADS')
        fi
        ;;
    gio)
        adapter "" -- libglib2.0-dev pkg-config
        modules=(gio-2.0 gio-unix-2.0)
        ;;
    kafka) adapter "" -lrdkafka -- librdkafka-dev ;;
    listen) adapter postgres -I/usr/include/postgresql -lpq -- libpq-dev postgresql openssl ;;
    mqtt) adapter mosquitto -lmosquitto -- libmosquitto-dev mosquitto openssl ;;
    redis) adapter redis -lhiredis -- libhiredis-dev redis-server ;;
    resolve) adapter dns -lcares -- libc-ares-dev python3 ;;
    sound) adapter "" -lasound -- libasound2-dev ;;
    tree) adapter "" -- ;;
    worker) adapter "" -lzmq -- libzmq3-dev ;;
    '') ;;
    *)
        echo "example/run.sh does not run '$name'" >&2
        usage >&2
        exit 2
        ;;
esac
[ -z "$name" ] || shift
if [ "${programs[0]}" = tour ] && [ $# -gt 0 ]; then
    echo "example/run.sh: the tour takes no argument '$1'" >&2
    exit 2
fi
moor_need_packages "${packages[@]}"
if [ "${#modules[@]}" -gt 0 ]; then
    told=$(pkg-config --cflags "${modules[@]}")
    read -ra flags <<<"$told"
    told=$(pkg-config --libs "${modules[@]}")
    read -ra libraries <<<"$told"
fi
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
    exec "$root/test/adapt/servers.sh" with $servers -- ${through[@]+"${through[@]}"} "$built/${programs[0]}" "$@"
fi
if [ "${programs[0]}" != tour ]; then
    exec "$built/${programs[0]}" "$@"
fi
"$built/tour" "$@"
for name in "${programs[@]:1}"; do
    printf '\n%s\n\n' "example/$name.cpp"
    "$built/$name" </dev/null
done
