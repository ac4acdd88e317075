# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
# shellcheck shell=bash
#
# Sourced by the scripts which need packages.

# Installs those of the given packages of Debian 12 that are missing. Needs root only if there are any; says
# what to install if it is not. Prints nothing when there is nothing to do, and nothing on the
# standard output in any case. On another system, says what is needed, and goes on.
moor_need_packages() {
    # shellcheck source=/dev/null
    if [ "$(. /etc/os-release 2>/dev/null && echo "${ID-} ${VERSION_ID-}")" != "debian 12" ]; then
        echo "This is not Debian 12: the script installs nothing. Needed are the equivalents of: $*" >&2
        return 0
    fi

    local package missing=()
    for package in "$@"; do
        if [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "Missing packages; as root: apt-get install ${missing[*]}" >&2
        return 1
    fi

    echo "Installing ${missing[*]}" >&2
    local log apt
    log=$(mktemp)
    apt=(apt-get -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    if ! { "${apt[@]}" update &&
        "${apt[@]}" install --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        echo "The installation failed" >&2
        return 1
    fi
    rm -f "$log"
}
export DEBIAN_FRONTEND=noninteractive

# progress all|PATTERN COMMAND...: runs a command, and shows all of its output, or every five seconds the last
# line that fits the pattern. Repeats the last line if the command is silent. $log gets the whole output.
progress() {
    local show=$1 line status=0 shown=$SECONDS last=...
    shift
    "$@" 2>&1 | while [ "$status" -ne 1 ]; do # 1: the end of the output; over 128: no line for 5 s
        status=0
        IFS= read -r -t 5 line || status=$?
        if [ "$status" -eq 0 ]; then
            printf '%s\n' "$line" >>"$log"
            if [ "$show" = all ]; then
                printf '%s\n' "$line"
                last=$line shown=$SECONDS
            elif [[ $line =~ $show ]]; then
                last=${line/Building CXX object *CMakeFiles\//}
            fi
        fi
        if [ $((SECONDS - shown)) -ge 5 ]; then
            printf '%6d s  %s\n' "$SECONDS" "$last"
            shown=$SECONDS
        fi
    done
}
