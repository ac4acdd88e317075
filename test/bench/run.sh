#!/usr/bin/env bash
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Installs what the benchmark needs on a Debian 12, builds it optimised and prints the report. The
# arguments are report.py's (--help lists them). For the table of the documentation:
#   test/bench/run.sh --write doc/performance.md

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/setup.sh

moor_need_packages g++ cmake ninja-build libboost1.81-dev libbenchmark-dev valgrind strace \
    python3 python3-matplotlib libuv1-dev libevent-dev libev-dev librust-tokio-dev cargo rustc

build=${MOOR_BENCH_BUILD_DIR:-build/bench}
log=$build.log
mkdir -p "$(dirname "$build")"
if ! { cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DMOOR_BUILD_BENCH=ON \
    -DMOOR_BUILD_TESTS=OFF -DMOOR_BUILD_EXAMPLES=OFF && cmake --build "$build"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi

exec /usr/bin/python3 test/bench/report.py --programs="$build/test/bench" "$@"
