#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Installs what the benchmarks of the adapters need on a Debian 12, builds the programs, starts their servers,
# measures, and prints the tables of doc/performance-adapters.adoc. The options are measure.py's; --help lists them.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. test/support/setup.sh

# name|servers|flags|packages
adapters=(
    'libpq|postgres|-I/usr/include/postgresql -lpq|libpq-dev postgresql openssl'
    'curl|nginx|-lcurl|libcurl4-openssl-dev nginx-light openssl'
    'zmq||-lzmq|libzmq3-dev'
)

case " $* " in *" --help "* | *" -h "*) exec python3 test/bench/adapters/measure.py "$@" ;; esac
moor_need_packages g++ libboost1.81-dev libbenchmark-dev strace python3
export CXX=${CXX:-g++}
built=build/bench-adapters
mkdir -p "$built"
servers=()
programs=()
for adapter in "${adapters[@]}"; do
    IFS='|' read -r name server flags packages <<<"$adapter"
    # shellcheck disable=SC2086
    moor_need_packages $packages
    echo "Building $name" >&2
    # shellcheck disable=SC2086
    "$CXX" -std=c++20 -O2 -DNDEBUG -DMOOR_BENCH_TIMES -pthread -Iinclude -o "$built/$name" \
        "test/bench/adapters/$name.cpp" $flags -lbenchmark
    [ -z "$server" ] || servers+=("$server")
    programs+=("$built/$name")
done
with=()
[ ${#servers[@]} -eq 0 ] || with=(test/adapt/servers.sh with "${servers[@]}" --)
"${with[@]}" python3 test/bench/adapters/measure.py "$@" "${programs[@]}"
