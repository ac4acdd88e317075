#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Runs a command with servers of its own for the adapters' tests and examples:
#
#     servers.sh with postgres -- COMMAND...    starts the servers, runs the command, ends the servers
#
# While the command runs, it may end and start a server:
#
#     "$MOOR_SERVERS" stop postgres [HOW]
#     "$MOOR_SERVERS" start postgres
#
# "servers.sh versions" prints the versions of all servers. Several servers may be named. Each is a file in
# servers/, which says what it has and the values of HOW.
#
# The servers run as an unprivileged user, on 127.0.0.1 and on Unix sockets, in a temporary directory, with
# ports that are free. The command finds them by the variables that the server's file sets. Exit status: the command's; 2 if a server can't be started.

set -euo pipefail

fail() {
    echo "servers.sh: $*" >&2
    exit 2
}

# Runs a command as an unprivileged user, in the directory of the servers.
unprivileged() (
    cd "$MOOR_SERVERS_DIR"
    if [ "$(id -u)" -eq 0 ]; then
        exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$MOOR_SERVERS_DIR" "$@"
    fi
    exec "$@"
)

# Each server is a file: find_NAME, setup_NAME, start_NAME, stop_NAME [HOW], and version_NAME.
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
for file in "$here"/servers/*.sh; do
    # shellcheck source=/dev/null
    . "$file"
done

# Fails if there is no such server.
check_server() {
    declare -F "setup_$1" >/dev/null ||
        fail "there is no server '$1'; there are: $(cd "$here/servers" && echo *.sh | sed 's/\.sh//g')"
}

# A port of 127.0.0.1 that is probably free.
random_port() { echo $((20000 + RANDOM % 10000)); }

# -----------------------------------------------------------------------------------------------------

usage() {
    sed -n '/^# Runs a command with/,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

end() {
    [ -d "$MOOR_SERVERS_DIR" ] || return 0
    for server in $MOOR_SERVERS_NAMES; do
        "stop_$server" immediate || true
    done
    rm -rf "$MOOR_SERVERS_DIR"
}

case ${1-} in
    versions)
        for file in "$here"/servers/*.sh; do
            "version_$(basename "$file" .sh)"
        done
        ;;
    start)
        check_server "${2-}"
        "start_$2"
        ;;
    stop)
        check_server "${2-}"
        "stop_$2" "${3-}"
        ;;
    end-after) # a process
        tail --pid="$2" -f /dev/null
        end
        ;;
    with)
        shift
        names=()
        while [ $# -gt 0 ] && [ "$1" != -- ]; do
            check_server "$1"
            names+=("$1")
            shift
        done
        [ $# -gt 1 ] && [ "${#names[@]}" -gt 0 ] || usage
        shift
        MOOR_SERVERS=$(realpath "${BASH_SOURCE[0]}")
        MOOR_SERVERS_NAMES=${names[*]}
        MOOR_SERVERS_DIR=$(mktemp -d "${TMPDIR:-/tmp}/moor-servers.XXXXXX")
        export MOOR_SERVERS MOOR_SERVERS_NAMES MOOR_SERVERS_DIR
        trap end EXIT
        trap 'exit 130' INT TERM HUP
        # A test driver may kill this script, which then ends nothing.
        setsid "$MOOR_SERVERS" end-after $$ </dev/null >/dev/null 2>&1 &
        [ "$(id -u)" -ne 0 ] || chown 65534:65534 "$MOOR_SERVERS_DIR"
        chmod 755 "$MOOR_SERVERS_DIR"
        for server in "${names[@]}"; do
            "setup_$server"
        done
        "$@"
        ;;
    *) usage ;;
esac
