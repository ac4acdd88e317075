#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# tokio/build.sh OUT: makes OUT/libmoor_tokio.a with Debian's compiler and Debian's crates, and
# without the network.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?where to}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# The lock file and the configuration are of this build, so the sources are copied.
mkdir -p "$out/crate/.cargo"
cp -r "$here/Cargo.toml" "$here/src" "$out/crate"
cat >"$out/crate/.cargo/config" <<'CONFIG'
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "/usr/share/cargo/registry"
CONFIG
cd "$out/crate"
env -u RUSTFLAGS PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc CARGO_TARGET_DIR="$out/target" \
    CARGO_HOME="$out/home" /usr/bin/cargo build --quiet --offline --release
cp "$out/target/release/libmoor_tokio.a" "$out"
