# shellcheck shell=bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# PostgreSQL, for servers.sh. Sets libpq's variables PGHOST, PGPORT, PGUSER, PGDATABASE, and
# MOOR_SERVERS_PG_SOCKET, MOOR_SERVERS_PG_CERTIFICATE. Stops: smart, fast, immediate.

# Sets $bin to where the newest server is.
find_postgres() {
    local initdb
    initdb=$(find /usr/lib/postgresql/*/bin/initdb 2>/dev/null | sort -V | tail -n 1)
    initdb=${initdb:-$(command -v initdb)} ||
        fail "PostgreSQL is not installed; on Debian: apt-get install postgresql"
    bin=$(dirname "$initdb")
}

# With TLS (a certificate for localhost) and without, on TCP and on a Unix socket. The user "moor" needs no password.
# The user "locked" has one, which is "key". The server rejects the user "plain" if there is TLS.
setup_postgres() {
    local data=$MOOR_SERVERS_DIR/postgres
    find_postgres
    unprivileged "$bin/initdb" -D "$data" -U moor -A trust --no-sync --locale=C.UTF-8 >"$MOOR_SERVERS_DIR/initdb.log" 2>&1 ||
        { cat "$MOOR_SERVERS_DIR/initdb.log" >&2; fail "initdb failed"; }
    (
        umask 077
        unprivileged openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
            -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$data/server.key" -out "$data/server.crt" \
            2>"$MOOR_SERVERS_DIR/openssl.log"
    ) || { cat "$MOOR_SERVERS_DIR/openssl.log" >&2; fail "openssl failed"; }
    cp "$data/server.crt" "$MOOR_SERVERS_DIR/postgres.crt"
    chmod 644 "$MOOR_SERVERS_DIR/postgres.crt"
    printf '%s\n' 'host all locked 127.0.0.1/32 scram-sha-256' 'hostssl all plain 127.0.0.1/32 reject' \
        'local all all trust' 'host all all 127.0.0.1/32 trust' |
        unprivileged tee "$data/pg_hba.conf" >/dev/null
    # No synchronous writes: the data are of no value.
    printf '%s\n' "listen_addresses = '127.0.0.1'" "unix_socket_directories = '$MOOR_SERVERS_DIR'" 'max_connections = 260' \
        'ssl = on' 'fsync = off' 'full_page_writes = off' 'shared_buffers = 16MB' 'log_min_messages = fatal' |
        unprivileged tee -a "$data/postgresql.conf" >/dev/null

    export PGHOST=127.0.0.1 PGUSER=moor PGDATABASE=postgres PGPORT
    export MOOR_SERVERS_PG_SOCKET=$MOOR_SERVERS_DIR MOOR_SERVERS_PG_CERTIFICATE=$MOOR_SERVERS_DIR/postgres.crt
    # The port may be taken, or be taken until the server binds it: then another one.
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        PGPORT=$(random_port)
        if start_postgres; then
            unprivileged "$bin/psql" -qc "create role locked login password 'key'; create role plain login" >/dev/null
            "$bin/postgres" --version >&2
            return
        fi
    done
    cat "$MOOR_SERVERS_DIR/postgres.log" >&2
    fail "PostgreSQL does not start after $try attempts"
}

start_postgres() {
    find_postgres
    # The server must not keep the pipe to which a test driver listens.
    unprivileged "$bin/pg_ctl" -D "$MOOR_SERVERS_DIR/postgres" -l "$MOOR_SERVERS_DIR/postgres.log" -o "-p $PGPORT" -w -t 60 \
        start </dev/null >/dev/null 2>&1
}

stop_postgres() {
    find_postgres
    unprivileged "$bin/pg_ctl" -D "$MOOR_SERVERS_DIR/postgres" -m "${1:-fast}" -w -t 60 stop </dev/null >/dev/null 2>&1
}

version_postgres() {
    find_postgres
    "$bin/postgres" --version
}
