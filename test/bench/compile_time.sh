#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Measures what it costs to compile a minimal program: one wait, with Asio's descriptor and with Moor's
# registration, at -O2. Prints the processor time of each (user; the least and the median of interleaved runs)
# and the ratios to Asio's, without and with separate compilation of both libraries.
#
#     test/bench/compile_time.sh [RUNS [COMPILER...]]    5 runs, with clang++ and g++, by default

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

runs=${1:-5}
shift $(($# > 0 ? 1 : 0))
compilers=("$@")
[ $# -gt 0 ] || compilers=(clang++ g++)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/asio.cpp" <<'EOT'
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

int main() {
    boost::asio::io_context io;
    boost::asio::posix::stream_descriptor d(io, 0);
    d.async_wait(d.wait_read, [](boost::system::error_code) {});
    io.run();
}
EOT
cat >"$work/moor.cpp" <<'EOT'
#include <moor/registration.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::registration reg(io, 0);
    reg.async_wait_readable([](boost::system::error_code) {});
    io.run();
}
EOT

TIMEFORMAT=%U
for compiler in "${compilers[@]}"; do
    for mode in '' \
        '-DBOOST_ASIO_SEPARATE_COMPILATION -DMOOR_SEPARATE_COMPILATION'; do
        what=${mode:+separate compilation}
        rm -f "$work"/*.times
        for ((i = 0; i < runs; ++i)); do
            for name in asio moor; do
                # shellcheck disable=SC2086 # several options
                { time "$compiler" -std=c++20 -O2 $mode -Iinclude -c "$work/$name.cpp" -o "$work/$name.o"; } \
                    2>>"$work/$name.times"
            done
        done
        sort -n "$work/asio.times" >"$work/a"
        sort -n "$work/moor.times" >"$work/m"
        paste "$work/a" "$work/m" | awk -v what="$compiler, ${what:-headers only}" '
            { a[NR] = $1; m[NR] = $2 }
            END {
                h = int((NR + 1) / 2)
                printf "%s: Asio %.2f s, Moor %.2f s, ratio %.2f (the least of %d runs); %.2f s, %.2f s, %.2f (the median)\n",
                    what, a[1], m[1], m[1] / a[1], NR, a[h], m[h], m[h] / a[h]
            }'
    done
done
