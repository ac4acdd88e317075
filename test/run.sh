#!/usr/bin/env bash
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. test/support/setup.sh

usage() {
    cat <<'EOF'
Usage: test/run.sh [OPTION...]

Builds Moor's tests in all configurations, then runs them under one ctest, whose summary is the last thing
printed. Installs what is missing on a Debian 12. Stops at the first configuration that does not build.

  --quick           the first configuration only
  --only A,B        these configurations only
  --list            list the configurations and exit
  --repeat N        how often each epoll suite is repeated in the first configuration (default 10)
                    (0: nor is a GiB moved through each kind of handle)
  --build-dir DIR   where the build trees go (default build)
  --no-install      never call apt-get
  --lint            instead: check the formatting and run clang-tidy over the headers
  --verbose         show what the builds print
  -j N              parallel jobs (default: as many as there are processors)
  -h, --help        this text

One suite by hand afterwards: build/gcc20/test/moor_test_epoll --run_test=wait
EOF
}

# name|compiler|C++|sanitizers|backends|packaging|flags, the quickest first. Packaging: the headers one
# by one, Asio's build modes, the CMake consumers, b2. Compiling is most of the time: each compiler,
# standard and sanitizer is there once rather than all their combinations.
configurations=(
    'gcc20|g++|20||epoll;select;io_uring|ON|-O0'
    'clang17|clang++|17||epoll;select;io_uring|OFF|-O0'
    'asan|clang++|20|address,undefined|epoll;select;io_uring|OFF|-O0'
    'tsan|g++|20|thread|epoll;select;io_uring|OFF|-O0'
    'gcc23|g++|23||epoll|OFF|-O2'
)
packages=(
    g++ clang libclang-rt-14-dev cmake ninja-build
    libboost1.81-dev libboost-test1.81-dev libboost-context1.81-dev libboost-coroutine1.81-dev
    libboost1.81-tools-dev liburing-dev libssl-dev
    util-linux psmisc procps
)

# ---------------------------------------------------------------------------------------------------

build_dir=build
install=yes
jobs=$(nproc)
lint=no
only=
repeat=10
verbose=no
while [ $# -gt 0 ]; do
    case $1 in
        --quick) only=${configurations[0]%%|*} ;;
        --only) only=${2:?--only needs names}; shift ;;
        --list) printf '%s\n' "${configurations[@]}" | tr '|' '\t'; exit ;;
        --repeat) repeat=${2:?--repeat needs a number}; shift ;;
        --build-dir) build_dir=${2:?--build-dir needs a directory}; shift ;;
        --no-install) install=no ;;
        --lint) lint=yes ;;
        --verbose) verbose=yes ;;
        -j) jobs=${2:?-j needs a number}; shift ;;
        -h | --help) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done

failed() {
    echo >&2
    echo "test/run.sh: FAILED: $*" >&2
    exit 1
}

# Runs a command with its output in a file, shown if it fails.
logged() {
    local log=$1
    shift
    if [ "$verbose" = yes ]; then
        "$@" 2>&1 | tee -a "$log"
    elif ! "$@" >>"$log" 2>&1; then
        cat "$log"
        return 1
    fi
}

if [ "$lint" = yes ]; then
    [ "$install" = no ] || moor_need_packages g++ clang-format clang-tidy libboost1.81-dev
    mapfile -t sources < <(find include test example -name '*.hpp' -o -name '*.cpp' | sort)
    clang-format --dry-run -Werror "${sources[@]}" || failed "clang-format"
    mapfile -t headers < <(find include -name '*.hpp' | sort)
    printf '%s\0' "${headers[@]}" | xargs -0 -n 1 -P "$jobs" \
        sh -c 'clang-tidy --quiet "$0" -- -x c++ -std=c++20 -Iinclude' || failed "clang-tidy"
    echo "No complaints"
    exit
fi

for name in ${only//,/ }; do
    printf '%s\n' "${configurations[@]}" | grep -q "^$name|" ||
        failed "there is no configuration $name (see --list)"
done
[ "$install" = no ] || moor_need_packages "${packages[@]}" || failed "installing packages"

mkdir -p "$build_dir"
build_dir=$(cd "$build_dir" && pwd)
trees=()
for configuration in "${configurations[@]}"; do
    IFS='|' read -r name compiler standard sanitize backends packaging flags <<<"$configuration"
    if [ -n "$only" ] && [[ ",$only," != *",$name,"* ]]; then
        continue
    fi
    tree=$build_dir/$name
    log=$tree.log
    started=$SECONDS
    printf '%-8s %s, C++%s, %s%s: ' \
        "$name" "$compiler" "$standard" "${backends//;/ }" "${sanitize:+, $sanitize}"
    : >"$log"
    logged "$log" cmake -S . -B "$tree" -G Ninja \
        -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_STANDARD="$standard" \
        -DCMAKE_CXX_FLAGS="$flags" \
        -DMOOR_SANITIZE="$sanitize" -DMOOR_TEST_BACKENDS="$backends" \
        -DMOOR_TEST_PREFIX="$name." -DMOOR_TEST_PACKAGING="$packaging" \
        -DMOOR_TEST_REPEAT="$([ "$packaging" = ON ] && echo "$repeat" || echo 0)" \
        -DMOOR_BUILD_EXAMPLES="$packaging" \
        || failed "configuring $name"
    logged "$log" cmake --build "$tree" -j "$jobs" || failed "building $name"
    echo "built in $((SECONDS - started)) s"
    trees+=("$name")

    # A failure of the plainest suites is better known now than after all the builds.
    if [ "${#trees[@]}" -eq 1 ]; then
        logged "$log.epoll" ctest --test-dir "$tree" -L '^epoll$' -j "$jobs" --output-on-failure \
            || failed "the epoll suites of $name"
        rm -f "$log.epoll"
    fi
done

# One ctest over all the trees.
printf 'subdirs("%s")\n' "${trees[@]}" >"$build_dir/CTestTestfile.cmake"
ctest --test-dir "$build_dir" -j "$jobs" --output-on-failure --no-label-summary
