#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. test/support/setup.sh

usage() {
    cat <<'EOT'
Usage: test/run.sh [OPTION...]            the tests that a change needs, in less than five minutes
       test/run.sh [OPTION...] SUITE...   these suites only, on epoll
       test/run.sh [OPTION...] adapters   the adapters of moor/adapt only, on each backend, with their servers
       test/run.sh --all [OPTION...]      all tests, in about an hour

Builds the tests, runs them, and ends with CTest's summary. On Debian 12, run as root, the script first
installs the packages that are missing.

Without arguments: one compiler; every suite on epoll, and the suites to which the backend matters on
select and io_uring. With --all: all compilers, C++ standards and sanitizers, the packaging, the model of
the core (test/model), and repetitions. A suite is a file of test/suites, without its .cpp.

  --backend A,B     run the named suites on these backends (epoll, select, io_uring)
  --asio DIR        use the Boost.Asio whose headers are in DIR (DIR/boost/asio.hpp)
  --all             run the tests in all configurations
  --only A,B        run the tests in these configurations only
  --list            list the configurations
  --repeat N        how often the first configuration of --all repeats each suite on epoll (default: 10
                    times, or fewer if that takes longer than 4 seconds); 0 also leaves out the long runs
  --lint            check the formatting and run clang-tidy over the headers; run no tests
  --build-dir DIR   where to build (default build)
  --no-install      install no packages
  --verbose         show the whole output of the builds
  -j N              the number of parallel jobs (default: the number of processors)
  -h, --help        this text

A suite that was named is a program afterwards, with the options of Boost.Test:
       build/clang20/test/waits.epoll --list_content
EOT
}

# name|compiler|C++|sanitizers|every suite on|the suites to which the backend matters on|packaging|flags|traced|adapters on
# Compiling takes most of the time, and g++ takes twice as long as clang++. So each compiler, standard and
# sanitizer is here once rather than in all combinations, and clang++ has the larger share. Packaging: the
# headers one by one, Asio's build modes, the CMake consumers, b2, the examples, the repetitions.
# Traced: the model of the core, with which what Moor's states do is compared (test/conformance). Where not
# every suite is built, the suites whose states are compared are.
# Without --all, the first one runs on the backends as the second one does.
configurations=(
    'clang20|clang++|20||epoll;select;io_uring||ON|-O0||select;io_uring'
    'gcc17|g++|17||epoll|select;io_uring|OFF|-O0|ON|epoll'
    'asan|clang++|20|address,undefined|epoll|select;io_uring|OFF|-O0 -DMOOR_CHECK_USE||epoll'
    'tsan|clang++|20|thread|epoll|select;io_uring|OFF|-O0||epoll'
    'gcc23|g++|23|||epoll|OFF|-O2'
)
# Built and run before all else.
plainest=(smoke waits io)
packages=(
    g++ clang libclang-rt-14-dev cmake ninja-build
    libboost1.81-dev libboost-test1.81-dev libboost-context1.81-dev libboost-coroutine1.81-dev
    libboost1.81-tools-dev liburing-dev libssl-dev systemtap-sdt-dev
    util-linux psmisc procps python3
)
# For the adapters of moor/adapt: their libraries, and the servers of test/adapt/servers.sh.
adapter_packages=(
    openssl             # certificates
    libpq-dev postgresql
    libc-ares-dev python3
    libcurl4-openssl-dev nginx-light
    libzmq3-dev
    libhiredis-dev redis-server
    librdkafka-dev
    libsystemd-dev dbus-daemon
    libglib2.0-dev pkg-config
    libasound2-dev
    libmosquitto-dev mosquitto
)

# ---------------------------------------------------------------------------------------------------

all=no
asio=
backends=
build_dir=build
install=yes
jobs=$(nproc)
lint=no
only=${configurations[0]%%|*}
repeat=10
repeat_seconds=4
suites=
verbose=no
while [ $# -gt 0 ]; do
    case $1 in
        --all) all=yes only= ;;
        --asio) asio=${2:?--asio needs a directory}; shift ;;
        --backend) backends=${2:?--backend needs names}; shift ;;
        --only) all=yes only=${2:?--only needs names}; shift ;;
        --list) printf '%s\n' "${configurations[@]}" | tr '|' '\t'; exit ;;
        --repeat) repeat=${2:?--repeat needs a number} repeat_seconds=86400; shift ;;
        --build-dir) build_dir=${2:?--build-dir needs a directory}; shift ;;
        --no-install) install=no ;;
        --lint) lint=yes ;;
        --verbose) verbose=yes ;;
        -j) jobs=${2:?-j needs a number}; shift ;;
        -j[0-9]*) jobs=${1#-j} ;;
        -h | --help) usage; exit ;;
        -*) usage >&2; echo "test/run.sh: there is no option $1" >&2; exit 2 ;;
        *) suites+=${suites:+ }$1 ;;
    esac
    shift
done

failed() {
    echo >&2
    echo "test/run.sh: FAILED: $*" >&2
    exit 1
}

# build [TARGET...]: builds them, or everything, in $tree
build() {
    if ! progress "$([ "$verbose" = yes ] && echo all || echo '^\[[1-9]')" \
        cmake --build "$tree" -j "$jobs" ${1:+--target "$@"}; then
        [ "$verbose" = yes ] || sed -n '/^FAILED/,$p' "$log"
        failed "building $name"
    fi
}

# run_tests DIRECTORY [CTEST OPTION...]
run_tests() {
    progress all ctest --test-dir "$1" -j "$jobs" --output-on-failure --no-tests=error \
        --no-label-summary "${@:2}"
}

if [ "$lint" = yes ]; then
    [ "$install" = no ] ||
        moor_need_packages g++ clang-format clang-tidy pkgconf libboost1.81-dev liburing-dev "${adapter_packages[@]}"
    mapfile -t sources < <(find include test example -name '*.hpp' -o -name '*.cpp' | sort)
    clang-format --dry-run -Werror "${sources[@]}" || failed "clang-format"
    # Each backend's header where it is in use. (There is no kqueue here. src.hpp is a source file.)
    mapfile -t headers < <(find include -name '*.hpp' ! -name 'reactor_kqueue.hpp' ! -name src.hpp | sort)
    libraries=$(pkg-config --cflags libpq glib-2.0 | sed 's/-I/-isystem /g')
    export libraries
    printf '%s\0' "${headers[@]}" | xargs -0 -n 1 -P "$jobs" sh -c '
        case $0 in
            *_select.hpp) backend=-DBOOST_ASIO_DISABLE_EPOLL ;;
            *_io_uring.hpp) backend="-DBOOST_ASIO_DISABLE_EPOLL -DBOOST_ASIO_HAS_IO_URING" ;;
        esac
        clang-tidy --quiet "$0" -- -x c++ -std=c++20 -Iinclude $libraries $backend' || failed "clang-tidy"
    echo "No complaints"
    exit
fi

for name in ${only//,/ }; do
    printf '%s\n' "${configurations[@]}" | grep -q "^$name|" ||
        failed "there is no configuration $name (see --list)"
done
adapters=no
for suite in $suites; do
    if [ "$suite" = adapters ]; then
        adapters=yes
        continue
    fi
    [ -f "test/suites/$suite.cpp" ] ||
        failed "there is no suite $suite; there are: adapters $(cd test/suites && echo *.cpp | sed "s,\.cpp,,g")"
done
for backend in ${backends//,/ }; do
    [[ $backend =~ ^(epoll|select|io_uring)$ ]] ||
        failed "there is no backend $backend; there are: epoll select io_uring"
done
if [ -n "$asio" ]; then
    asio=$(realpath "$asio")
    asio_version=$(sed -n 's,^#define BOOST_ASIO_VERSION .*// *,,p' "$asio/boost/asio/version.hpp") ||
        failed "there is no boost/asio/version.hpp in $asio"
fi
if [ "$all" = yes ]; then
    packages+=(spin tcc pkg-config libsystemd-dev dbus)
fi
if [ "$all" = yes ] || [ "$adapters" = yes ]; then
    packages+=("${adapter_packages[@]}")
fi
[ "$install" = no ] || moor_need_packages "${packages[@]}" || failed "installing packages"

mkdir -p "$build_dir"
build_dir=$(cd "$build_dir" && pwd)
trees=()
for configuration in "${configurations[@]}"; do
    IFS='|' read -r name compiler standard sanitize every partly packaging flags traced adapters_on <<<"$configuration"
    if [ -n "$only" ] && [[ ",$only," != *",$name,"* ]]; then
        continue
    fi
    if [ -n "$backends$suites" ]; then
        every=${backends:-$([ "$suites" = adapters ] && echo "epoll;select;io_uring" || echo epoll)} partly=
    elif [ "$all" = no ]; then
        every=epoll partly='select;io_uring'
    fi
    every=${every//,/;}
    if [ "$all" = no ] || [ -n "$suites$asio" ]; then
        packaging=OFF
    fi
    with_adapters=OFF
    if [ "$adapters" = yes ]; then
        with_adapters=ON
    elif [ "$all" = yes ] && [ -z "$suites$asio" ]; then
        with_adapters=${adapters_on:-OFF}
    fi
    if [ "$with_adapters" != OFF ] && [ "${#trees[@]}" -eq 0 ]; then
        test/adapt/servers.sh versions
    fi
    if [ -n "$asio" ]; then
        name+=-asio-$asio_version
        traced=OFF # the model stands for the Asio of Boost 1.81
    fi
    tree=$build_dir/$name
    log=$tree.log
    started=$SECONDS
    echo "$name: $compiler, C++$standard${sanitize:+, $sanitize}, ${suites:-every suite} on ${every:-none}" \
        "${partly:+and where the backend matters on $partly}"
    cmake -S . -B "$tree" -G Ninja \
        -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_STANDARD="$standard" -DCMAKE_CXX_FLAGS="$flags" \
        -DMOOR_SANITIZE="$sanitize" -DMOOR_TEST_PREFIX="$name." -DMOOR_TEST_ASIO="$asio" \
        -DMOOR_TEST_SUITES="${suites// /;}" \
        -DMOOR_TEST_BACKENDS="$every" -DMOOR_TEST_BACKENDS_PARTLY="$partly" \
        -DMOOR_TEST_TRACED="${traced:-OFF}" -DMOOR_TEST_ADAPTERS="$with_adapters" \
        -DMOOR_TEST_PACKAGING="$packaging" -DMOOR_BUILD_EXAMPLES="$packaging" \
        -DMOOR_TEST_REPEAT="$([ "$packaging" = ON ] && echo "$repeat" || echo 0)" \
        -DMOOR_TEST_REPEAT_SECONDS="$repeat_seconds" \
        >"$log" 2>&1 || { cat "$log"; failed "configuring $name"; }

    # First what breaks most often: a failure is known before the long rest.
    if [ "${#trees[@]}" -eq 0 ] && [ -z "$suites" ]; then
        backend=${every:-$partly}
        backend=${backend%%;*}
        build "${plainest[@]/%/.$backend}"
        run_tests "$tree" -R "^$name\.($(IFS='|' && echo "${plainest[*]}"))\.$backend$" ||
            failed "the first suites of $name"
    fi
    build
    echo "$name: built in $((SECONDS - started)) s"
    trees+=("$name")
done

# One ctest over all the trees.
printf 'subdirs("%s")\n' "${trees[@]}" >"$build_dir/CTestTestfile.cmake"
log=$build_dir/ctest.log
: >"$log"
run_tests "$build_dir"
