#!/usr/bin/env bash
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Builds the tour and runs it, with this script's standard input and arguments. On a Debian 12 it
# installs a compiler and Boost's headers first if they are missing. Only the tour writes to the
# standard output, and the exit status is the tour's.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
. "$root/test/support/setup.sh"
moor_need_packages g++ libboost1.81-dev

program=$root/build/example/tour
mkdir -p "$(dirname "$program")"
if [ ! -x "$program" ] ||
    [ -n "$(find "$root/include" "$here/tour.cpp" -newer "$program" -print -quit)" ]; then
    echo "Building the tour" >&2
    "${CXX:-g++}" -std=c++20 -O2 -pthread -I"$root/include" -o "$program" "$here/tour.cpp" </dev/null >&2
fi
exec "$program" "$@"
