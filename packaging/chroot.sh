#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Makes the Debian package, installs the package in a clean Debian, and builds and runs a consumer there: with
# CMake, with pkg-config, and with the compiler alone. Run as root, on Debian 12. The script installs what is
# missing on the machine (debootstrap, cmake), and removes the clean Debian at the end.
#
#     packaging/chroot.sh [SUITE [MIRROR]]    SUITE: bookworm by default; MIRROR: debootstrap's default

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. test/support/setup.sh

suite=${1:-bookworm}
mirror=${2:-}
if [ "$(id -u)" -ne 0 ]; then
    echo "packaging/chroot.sh: only root can make a chroot" >&2
    exit 1
fi
moor_need_packages debootstrap cmake ninja-build g++ libboost1.81-dev

work=$(mktemp -d)
root=$work/root
clean_up() {
    local status=$?
    if mountpoint -q "$root/proc"; then
        umount "$root/proc"
    fi
    # Nothing of the machine is mounted any more.
    rm -rf --one-file-system "$work"
    [ "$status" -eq 0 ] || echo "packaging/chroot.sh: FAILED" >&2
}
trap clean_up EXIT

# quiet COMMAND...: shows the output if the command fails
quiet() {
    "$@" >"$work/log" 2>&1 </dev/null || { cat "$work/log"; return 1; }
}
inside() {
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"
}

echo "== The package"
quiet cmake -S . -B "$work/build" -G Ninja -DMOOR_BUILD_TESTS=OFF -DMOOR_BUILD_EXAMPLES=OFF
quiet cpack --config "$work/build/CPackConfig.cmake" -B "$work/package"
packages=("$work"/package/*.deb)
dpkg-deb --field "${packages[0]}" Package Version Architecture Depends
dpkg-deb --contents "${packages[0]}" | awk '!/\/$/ { print $6 }' | grep -v '/include/moor/'

echo "== A clean Debian ($suite)"
quiet debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"}
mount -t proc proc "$root/proc"
cp "${packages[0]}" "$root/srv/"
cp -r test/consumer "$root/srv/consumer"
package=/srv/$(basename "${packages[0]}")

echo "== The package in the clean Debian"
quiet inside apt-get -q -y update
quiet inside apt-get -q -y install --no-install-recommends "$package" g++ cmake make pkg-config
inside dpkg-query -W libmoor-dev g++ cmake "libboost*1.81-dev:*" | grep "[0-9]$"

echo "== The consumer, with CMake"
quiet inside cmake -S /srv/consumer/installed -B /srv/build
quiet inside cmake --build /srv/build
inside sh -c 'cd /srv/build && ctest --no-tests=error'

echo "== The consumer, with pkg-config"
# shellcheck disable=SC2016 # expanded inside
inside sh -c 'g++ -std=c++17 /srv/consumer/main.cpp $(pkg-config --cflags --libs moor) -o /srv/with_pkg_config'
inside /srv/with_pkg_config
echo "It waited for a pipe."

echo "== The consumer, with the compiler alone"
inside g++ -std=c++17 /srv/consumer/main.cpp -pthread -o /srv/alone
inside /srv/alone
echo "It waited for a pipe."

echo "== Removed again"
quiet inside apt-get -q -y purge libmoor-dev
if inside find /usr -name 'moor*' -o -name 'libmoor*' | grep .; then
    echo "These files are left over" >&2
    exit 1
fi
echo "Everything passed"
