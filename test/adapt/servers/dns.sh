# shellcheck shell=bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# The tests' own DNS server (dns_server.py), for servers.sh. Sets MOOR_SERVERS_DNS to 127.0.0.1:PORT.

find_dns() {
    command -v python3 >/dev/null || fail "Python 3 is not installed; on Debian: apt-get install python3"
}

setup_dns() {
    find_dns
    export MOOR_SERVERS_DNS
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        MOOR_SERVERS_DNS=127.0.0.1:$(random_port)
        if start_dns; then
            version_dns >&2
            return
        fi
    done
    cat "$MOOR_SERVERS_DIR/dns.log" >&2
    fail "the DNS server does not start after $try attempts"
}

start_dns() {
    local ready=$MOOR_SERVERS_DIR/dns.ready
    rm -f "$ready"
    # The server must not keep the pipe to which a test driver listens.
    unprivileged python3 "${MOOR_SERVERS%/*}/dns_server.py" "${MOOR_SERVERS_DNS##*:}" "$ready" </dev/null >/dev/null \
        2>>"$MOOR_SERVERS_DIR/dns.log" &
    local pid=$!
    while [ ! -s "$ready" ]; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.02
    done
}

# Stops: always at once.
stop_dns() {
    local ready=$MOOR_SERVERS_DIR/dns.ready pid
    pid=$(cat "$ready" 2>/dev/null) || return 0
    rm -f "$ready"
    kill -KILL "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.02
    done
}

version_dns() {
    echo "dns_server.py with $(python3 --version)"
}
