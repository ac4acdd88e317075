#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Builds the documentation site, and checks the site in a browser that has no window. Checks the page of the inspector,
# too, with the tour of example running.
#
#     doc/build.sh [--output DIR] [--no-browser]
#
# The site goes to build/site, and screenshots of each page to build/site-screenshots. With --output they go to DIR
# and DIR-screenshots. --no-browser leaves out what needs Chromium. On Debian 12, run as root, the script installs
# missing packages; npm installs the versions that doc/site/package-lock.json names.
#
# The pages are doc/*.adoc and doc/performance.md. To add a page, write the file, and list the file in
# doc/site/nav.adoc. The reference is made from the comments of the public headers.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=test/support/setup.sh
. test/support/setup.sh

output=$PWD/build/site
browser=yes
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=$(realpath -m "${2:?--output needs a directory}") && shift ;;
        --no-browser) browser= ;;
        -h | --help) sed -n '4,/^$/s/^# \{0,1\}//p' "$0" && exit ;;
        *) echo "Unknown argument: $1 (see --help)" >&2 && exit 2 ;;
    esac
    shift
done

packages=(doxygen git graphviz mscgen python3)
command -v node >/dev/null || packages+=(nodejs) # not Debian's, if another one is there
command -v npm >/dev/null || packages+=(npm)
[ -z "$browser" ] || packages+=(chromium fonts-dejavu-core g++ libboost1.81-dev)
moor_need_packages "${packages[@]}"

if [ -n "$(ls -A "$output" 2>/dev/null)" ] && [ ! -e "$output/search-index.js" ]; then
    echo "$output has other files: choose an empty directory" >&2
    exit 2
fi

work=$PWD/build/site-work
tools=$work/tools
rm -rf "$work/source" "$output"
mkdir -p "$tools" "$work/source"

failed=()
# step NAME COMMAND...: runs a command, and goes on if the command fails.
step() {
    echo "== $1"
    "${@:2}" || failed+=("$1")
}

if ! cmp -s doc/site/package-lock.json "$tools/installed.json"; then
    echo "== Tools (npm)"
    cp doc/site/package.json doc/site/package-lock.json "$tools"
    npm ci --prefix "$tools" --no-audit --no-fund --no-update-notifier --loglevel=error
    cp doc/site/package-lock.json "$tools/installed.json"
fi

rm -rf build/reference
step "Reference (Doxygen)" doxygen doc/Doxyfile
step "Diagrams" python3 doc/site/diagrams.py doc/diagrams "$work/source/modules/ROOT/images"
step "Reference pages" python3 doc/site/reference.py build/reference/xml "$work/source/modules/ROOT/pages"
step "Pages" python3 doc/site/assemble.py "$work/source"

# Antora reads a git repository.
git init -q "$work/source"
git -C "$work/source" add -A
git -C "$work/source" -c user.name=moor -c user.email=moor@localhost -c commit.gpgsign=false commit -q -m pages
cp doc/site/playbook.yml doc/site/highlight.cjs doc/site/*.mjs "$tools"
step "Site (Antora)" "$tools/node_modules/.bin/antora" \
    --cache-dir "$work/cache" --to-dir "$output" --ui-bundle-url "$PWD/doc/site/ui" \
    "$tools/playbook.yml"

step "Pronouns" python3 doc/count_pronouns.py
step "Names" python3 test/doc/check_reference.py
if [ -n "$browser" ]; then
    python3 test/doc/check_reference.py --list >"$work/names.txt"
    step "Browser" node "$tools/check.mjs" "$output" "$output-screenshots" "$work/names.txt"
    step "Inspector" node "$tools/check_inspector.mjs" "$PWD/example/run.sh" "$output-screenshots"
fi

if [ "${#failed[@]}" -gt 0 ]; then
    printf 'Failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "The site is in ${output#"$PWD"/}: open index.html, or serve the directory."
