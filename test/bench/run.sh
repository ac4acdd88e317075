#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Installs the packages that the benchmark needs on a Debian 12, builds the programs optimised, runs
# them and prints the report. The options are report.py's; --help lists them.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. test/support/setup.sh

case " $* " in
*" --help "* | *" -h "*) packages=(python3) ;;
*)
    packages=(g++ cmake ninja-build git libboost1.81-dev liburing-dev libbenchmark-dev valgrind strace python3)
    ;;
esac
case " $* " in
*" --help "* | *" -h "* | *" --quick "*) ;;
*) packages+=(libuv1-dev libevent-dev libev-dev librust-tokio-dev cargo rustc) ;;
esac
moor_need_packages "${packages[@]}"
exec /usr/bin/python3 test/bench/report.py "$@"
