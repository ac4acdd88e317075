#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Checks that each source file has a copyright line and a licence line at its top, and that the changelog
# and the vcpkg port know the version.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

failed=0
complain() {
    echo "$*"
    failed=1
}

# Whether the first lines of the input have a copyright and the licence. In C++ both are on one line.
has_licence() {
    local top
    top=$(head -n 10)
    grep -qE '^(//|#| \*) Copyright \(c\) 20[0-9]{2} The Moor authors(\. |$)' <<<"$top" &&
        grep -qE '(^|[#*/.] )Distributed under the Boost Software License, Version 1\.0\.( \(See LICENSE_1_0\.txt\))?$' \
            <<<"$top"
}

# The files of a build tree and of other people's packages are not ours.
mapfile -t files < <(find . -name '.?*' ! -name .ci -prune -o \
    -type d \( -name 'build*' -o -name bin -o -name target -o -name node_modules \) -prune -o \
    -type f \( -name '*.[ch]pp' -o -name '*.[ch]' -o -name '*.rs' -o -name '*.pml' -o -name '*.py' -o -name '*.sh' \
    -o -name '*.js' -o -name '*.css' -o -name '*.cmake' -o -name '*.in' -o -name '*.toml' -o -name CMakeLists.txt \
    -o -name Jamfile -o -name Doxyfile -o -path './.ci/*' \) -print | sort)
[ "${#files[@]}" -gt 200 ] || complain "only ${#files[@]} files were found"
for file in "${files[@]}"; do
    has_licence <"$file" || complain "$file: no copyright line or no licence line, as in test/main.cpp"
done

number=$(sed -nE 's/^#define MOOR_VERSION ([0-9]+) .*/\1/p' include/moor/version.hpp)
version=$((number / 100000)).$((number / 100 % 1000)).$((number % 100))
grep -q "^#define MOOR_VERSION $number // $version\$" include/moor/version.hpp ||
    complain "include/moor/version.hpp: the comment behind $number is not $version"
newest=$(sed -nE 's/^## ([0-9.]+).*/\1/p' CHANGELOG.md | head -n 1)
[ "$newest" = "$version" ] || complain "CHANGELOG.md: the newest version is $newest, and moor/version.hpp says $version"
grep -q "\"version\": \"$version\"" packaging/vcpkg/moor/vcpkg.json ||
    complain "packaging/vcpkg/moor/vcpkg.json: the version is not $version"

# The check itself.
! has_licence <<<'// Distributed under the Boost Software License, Version 1.0.' ||
    complain "the check does not miss a copyright"
! has_licence <<<'# Copyright (c) 2025 The Moor authors' || complain "the check does not miss a licence"
exit $failed
