#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Checks the commands that the documents show: every script, option, configuration, backend, suite and
# program named in a command has to exist. Runs those that cost nothing. A command is a line that begins
# with a command, or text between backquotes. Words without a small letter are placeholders.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

help=$(./test/run.sh --help)
site_help=$(./doc/build.sh --help)
fuzz_help=$(./test/fuzz/run.sh --help)
example_help=$(./example/run.sh --help)
configurations=$(./test/run.sh --list | cut -f 1)
suites=$(echo adapters && basename -s .cpp test/suites/*.cpp)
backends=$'epoll\nselect\nio_uring'
programs=$(for suite in $suites; do printf '%s\n' "$suite".{epoll,select,io_uring}; done)

# Prints FILE: COMMAND for each command in the input.
commands() {
    awk -F '`' '
        { print $0; for (i = 2; i <= NF; i += 2) print $i }' |
        sed -E 's/^((Usage:|#|\$|[[:space:]])+)//; s/^\(?cd [^ ]+ && //; s/(  +| #|&&|;|\||`).*//' |
        grep -E '^((\./)?[a-z/]*(run|build)\.sh|b2|cmake|doxygen|(\./)?build/[^ ]*|moor_test[^ ]*)( |$)' |
        sed "s,^,$1: ," | sort -u || true
}

# one_of LIST WORD
one_of() { grep -qxF -- "$2" <<<"$1"; }
# all_of LIST WORD,WORD...
all_of() { ! tr ',' '\n' <<<"$2" | grep -qvxF -- "$1"; }

# Prints what is wrong with a command, one line a mistake.
check() {
    local words program word option='' directory
    read -ra words <<<"$1"
    program=${words[0]#./}
    for word in "${words[@]:1}"; do
        if [[ $word != -* && ! $word =~ [a-z] || $word == *[\<\[]* ]]; then
            option=''
            continue # a placeholder
        fi
        word=${word//[\'\"]/}
        case $program:$option:$word in
            test/run.sh:--only:*) all_of "$configurations" "$word" || echo "configuration $word" ;;
            test/run.sh:--backend:*) all_of "$backends" "$word" || echo "backend $word" ;;
            test/run.sh::-*)
                grep -qE -- "(^|[ ,])$word([ ,]|$)" <<<"$help" || echo "option $word"
                # The help names the argument of an option that has one.
                option=$(grep -oE -- "^ +$word [A-Z]" <<<"$help" | grep -oE -- '-[^ ]+' || true)
                continue ;;
            test/run.sh::* | b2::[!-]*)
                [[ $word == *=* ]] || one_of "$suites" "$word" || echo "suite $word" ;;
            test/fuzz/run.sh:--backend:*) all_of "$backends" "$word" || echo "backend $word" ;;
            test/fuzz/run.sh::-*)
                grep -qE -- "(^|[ ,])$word([ ,]|$)" <<<"$fuzz_help" || echo "option $word"
                option=$word
                continue ;;
            doc/build.sh::-*)
                grep -qE -- "(^|[ ,[])$word([] ,]|$)" <<<"$site_help" || echo "option $word"
                option=$word
                continue ;;
            example/run.sh::--help) ;;
            example/run.sh::-*) grep -qE -- "(^|[ ,])$word([ ,]|$)" <<<"$example_help" || echo "option $word" ;;
            example/run.sh::*)
                grep -q "example/run.sh $word " <<<"$example_help" || echo "program $word"
                option=$word
                continue ;; # the program's arguments
            test/bench/run.sh::--help | test/bench/run.sh::-h) ;; # the option parser has them
            test/bench/run.sh::--*) grep -qrF -- "\"${word%%=*}\"" test/bench || echo "option $word" ;;
            *::-DMOOR_*)
                word=${word#-D}
                grep -qrw "${word%%=*}" --include=CMakeLists.txt . || echo "variable ${word%%=*}" ;;
            cmake:--target:*.*)
                one_of "$programs" "$word" || echo "target $word" ;;
            cmake::--target) option=$word; continue ;;
            doxygen::*) [ -f "$word" ] || echo "file $word" ;;
            *::--run_test=*)
                word=${word#*=}
                word=${word%%/*}
                compgen -G "test/suites/$word.cpp" >/dev/null || echo "suite $word" ;;
        esac
        option=''
    done
    case $program in
        *run.sh | *build.sh) [ -x "$program" ] || echo "script $program" ;;
        build/*/test/*.*)
            directory=${program#build/}
            one_of "$configurations" "${directory%%/*}" || echo "configuration ${directory%%/*}"
            program=${program##*/} ;&
        build/test/*.*)
            program=${program##*/}
            one_of "$programs" "$program" || echo "program $program" ;;
        moor_test* | build/*) echo "program $program" ;;
    esac
}

failed=0
complain() {
    echo "$*"
    failed=1
}

shown=$(
    for file in README.md CONTRIBUTING.md packaging/README.md doc/*.adoc doc/*.md test/Jamfile test/CMakeLists.txt test/bench/run.sh; do
        commands "$file" <"$file"
    done
    commands "test/run.sh --help" <<<"$help"
    commands "test/fuzz/run.sh --help" <<<"$fuzz_help"
)
echo "$shown"
for program in README.md test/Jamfile "test/run.sh --help"; do
    grep -q "^$program: " <<<"$shown" || complain "$program shows no command: the check does not find them"
done
while IFS= read -r line; do
    mistakes=$(check "${line#*: }")
    [ -z "$mistakes" ] || complain "$line: there is no ${mistakes//$'\n'/, no }"
done <<<"$shown"

# The check itself: each of these has a mistake.
for wrong in './test/run.sh nosuch' 'test/run.sh --nosuch' 'test/run.sh --only nosuch' \
    'test/run.sh waits --backend nosuch' 'nosuch/run.sh' 'doc/build.sh --nosuch' 'test/fuzz/run.sh --nosuch' \
    'test/fuzz/run.sh --backend nosuch' 'b2 cxxstd=20 nosuch' \
    './example/run.sh --nosuch' 'build/clang20/test/nosuch.epoll' 'build/nosuch/test/waits.epoll' 'build/test/waits.nosuch' \
    'build/clang20/test/waits.epoll --run_test=nosuch' 'cmake -S . -B build -DMOOR_NOSUCH=ON'; do
    found=$(commands text <<<"See \`$wrong\`.")
    if [ -z "$found" ] || [ -z "$(check "${found#*: }")" ]; then
        complain "the check does not see: $wrong"
    fi
done

# The help of example/run.sh has the examples which the script takes.
while IFS= read -r name; do
    grep -qE "^    $name\)" example/run.sh || complain "example/run.sh takes no $name"
    [ -f "example/$name.cpp" ] || complain "there is no example/$name.cpp"
done < <(sed -nE 's/^ +example\/run.sh ([a-z]+).*/\1/p' <<<"$example_help")
while IFS= read -r name; do
    grep -q "example/run.sh $name " <<<"$example_help" || complain "the help of example/run.sh has no $name"
done < <(sed -nE 's/^    ([a-z]+)\)( adapter.*)?$/\1/p' example/run.sh)
for wrong in nosuch --nosuch; do
    said=$(./example/run.sh "$wrong" 2>&1) && complain "example/run.sh takes $wrong"
    [[ $said == *"'$wrong'"* ]] || complain "example/run.sh $wrong says: $said"
done

# b2 knows its targets.
if command -v b2 >/dev/null; then
    while IFS= read -r line; do
        read -ra words <<<"${line#*: b2 }"
        (cd test && b2 -n "${words[@]}" >/dev/null) || complain "$line: b2 refuses"
    done < <(grep ': b2 ' <<<"$shown" | sort -u -t : -k 2)
fi
exit $failed
