#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/setup.sh

usage() {
    cat <<'EOT'
Usage: test/fuzz/run.sh [OPTION...]

Builds the fuzzer for each backend, and runs one after the other, from the inputs in test/fuzz/corpus. An
input is a random program of test/support/promise_program.hpp. Prints executions, coverage (cov: edges, ft:
features) and new inputs. An input that fails is kept; the command that runs the input again is printed.

  --seconds N       how long each fuzzer runs (default 120)
  --backend A,B     run on these backends only (epoll, select, io_uring)
  --merge           add new inputs that reach new edges to test/fuzz/corpus, few of them
  --build-dir DIR   where to build, and to keep new inputs (default build/fuzz)
  --programs DIR    use the fuzzers in DIR; build nothing
  --no-install      install no packages
  -h, --help        this text
EOT
}

backends=epoll,select,io_uring
build_dir=build/fuzz
install=yes
merge=no
programs=
seconds=120
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=${2:?--seconds needs a number}; shift ;;
        --backend) backends=${2:?--backend needs names}; shift ;;
        --merge) merge=yes ;;
        --build-dir) build_dir=${2:?--build-dir needs a directory}; shift ;;
        --programs) programs=${2:?--programs needs a directory}; shift ;;
        --no-install) install=no ;;
        -h | --help) usage; exit ;;
        *) usage >&2; echo "test/fuzz/run.sh: there is no option $1" >&2; exit 2 ;;
    esac
    shift
done

failed() {
    echo "test/fuzz/run.sh: FAILED: $*" >&2
    exit 1
}

for backend in ${backends//,/ }; do
    [[ $backend =~ ^(epoll|select|io_uring)$ ]] ||
        failed "there is no backend $backend; there are: epoll select io_uring"
done
[ "$install" = no ] || moor_need_packages clang libclang-rt-14-dev cmake ninja-build libboost1.81-dev \
    libboost-test1.81-dev libboost-context1.81-dev libboost-coroutine1.81-dev liburing-dev libssl-dev \
    util-linux || failed "installing packages"

if [ -z "$programs" ]; then
    programs=$build_dir/test/fuzz
    mkdir -p "$build_dir"
    log=$build_dir/build.log
    cmake -S . -B "$build_dir" -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DMOOR_TEST_PACKAGING=ON \
        >"$log" 2>&1 || { cat "$log"; failed "configuring"; }
    for backend in ${backends//,/ }; do
        echo "Building the fuzzer for $backend"
        progress '^\[[1-9]' cmake --build "$build_dir" --target "fuzz.$backend" ||
            { cat "$log"; failed "building the fuzzer for $backend"; }
    done
else
    build_dir=$programs
fi

# The sanitizers of Clang 14 fail on kernels that randomise more than 28 bits of an address.
launcher=()
! setarch -R true 2>/dev/null || launcher=(setarch -R)

# The number that follows a word in the last line of the log which has both.
number_after() { grep -oE "$1 *[0-9]+" "$log" | tail -n 1 | grep -oE '[0-9]+$' || echo 0; }

for backend in ${backends//,/ }; do
    fuzzer=$programs/fuzz.$backend
    new=$build_dir/new/$backend
    log=$build_dir/$backend.log
    rm -rf "$new"
    mkdir -p "$new"
    : >"$log"
    echo "$backend: $seconds s, from $(find test/fuzz/corpus -type f | wc -l) inputs"
    # Long inputs from the beginning on: a program needs some steps until anything can go wrong.
    progress '^#' "${launcher[@]}" "$fuzzer" "$new" test/fuzz/corpus -max_total_time="$seconds" \
        -max_len=1000 -len_control=0 -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$build_dir/$backend-" || {
        grep -vE '^#|NEW_FUNC' "$log" | tail -n 200
        input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        [ -z "$input" ] || echo "To run this input again: ${launcher[*]} $fuzzer $input"
        failed "$backend, after $(number_after stat::number_of_executed_units:) executions"
    }
    echo "$backend: $(number_after stat::number_of_executed_units:) executions," \
        "cov $(number_after cov:), ft $(number_after ft:)," \
        "$(find "$new" -type f | wc -l) new inputs in $new"
done

if [ "$merge" = yes ]; then
    for backend in ${backends//,/ }; do
        "${launcher[@]}" "$programs/fuzz.$backend" -set_cover_merge=1 -use_counters=0 -timeout=60 \
            test/fuzz/corpus "$build_dir"/new/* 2>&1 | grep -E '^MERGE-OUTER' || failed "merging"
    done
    echo "test/fuzz/corpus: $(find test/fuzz/corpus -type f | wc -l) inputs," \
        "$(cat test/fuzz/corpus/* | wc -c) bytes"
fi
