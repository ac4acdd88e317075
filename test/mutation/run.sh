#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
# shellcheck source=test/support/setup.sh
. test/support/setup.sh

case " $* " in
*" --no-install "* | *" -h "* | *" --help "*) ;;
*) moor_need_packages g++ python3 libboost1.81-dev libboost-test1.81-dev libboost-context1.81-dev \
    libboost-coroutine1.81-dev libssl-dev ;;
esac
exec python3 test/mutation/run.py "$@"
