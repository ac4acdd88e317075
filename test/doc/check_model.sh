#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Checks the table of test/model/README.md: each name of its first column is in the models, and each name
# of its second column in the headers. A name is text between backquotes; of `a::b()`, `a` is one, and `b(`.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# names COLUMN: those of a column of the table
names() {
    sed -n '/^## Transitions and functions/,/^## Known/p' test/model/README.md | grep '^| ' | tail -n +3 |
        cut -d '|' -f $(($1 + 1)) | grep -o "\`[^\`]*\`" | tr -d '`)' | sed 's/::/\n/g' | sort -u
}

# check COLUMN DIRECTORY: prints the names that no file of the directory has
check() {
    local name
    for name in $(names "$1"); do
        grep -qrE --exclude='*.md' "\<${name%(}$([[ $name == *'(' ]] && echo '\(' || echo '\>')" "$2" ||
            echo "test/model/README.md names $name, which is gone from $2"
    done
}

gone=$(check 1 test/model; check 2 include)
echo "${gone:-$(names 1 | wc -l) names of the models, $(names 2 | wc -l) names of the headers}"
[ -z "$gone" ] && [ "$(names 2 | wc -l)" -gt 50 ] # fewer: the table is not found
