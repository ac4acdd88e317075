# shellcheck shell=bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Redis, for servers.sh: one server without a password, and one with the password "key". Sets
# MOOR_SERVERS_REDIS_PORT, MOOR_SERVERS_REDIS_SOCKET and MOOR_SERVERS_REDIS_LOCKED_PORT. Stops: kill (the only one, at
# once). The process is in the file redis.pid.

find_redis() {
    command -v redis-server >/dev/null || fail "Redis is not installed; on Debian: apt-get install redis-server"
}

setup_redis() {
    find_redis
    export MOOR_SERVERS_REDIS_PORT MOOR_SERVERS_REDIS_LOCKED_PORT MOOR_SERVERS_REDIS_SOCKET=$MOOR_SERVERS_DIR/redis.sock
    # A port may be taken, or be taken until the server binds it: then other ones.
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        MOOR_SERVERS_REDIS_PORT=$(random_port)
        MOOR_SERVERS_REDIS_LOCKED_PORT=$((MOOR_SERVERS_REDIS_PORT + 1))
        if start_redis; then
            redis-server --version >&2
            return
        fi
        stop_redis
    done
    cat "$MOOR_SERVERS_DIR"/redis*.log >&2
    fail "Redis does not start after $try attempts"
}

# Starts a server: launch_redis NAME PORT OPTION...
launch_redis() {
    local name=$1 port=$2 answer _
    shift 2
    # The server must not keep the pipe to which a test driver listens. "debug sleep" is for slow servers.
    # shellcheck disable=SC2016 # for the inner shell
    unprivileged sh -c 'echo $$ >"$0.pid"; exec redis-server "$@"' "$MOOR_SERVERS_DIR/$name" --port "$port" \
        --bind 127.0.0.1 --dir "$MOOR_SERVERS_DIR" --save '' --appendonly no --enable-debug-command yes \
        --logfile "$MOOR_SERVERS_DIR/$name.log" "$@" </dev/null >/dev/null 2>&1 &
    for _ in $(seq 300); do
        answer=$(unprivileged redis-cli -h 127.0.0.1 -p "$port" info server 2>/dev/null | tr -d '\r') || true
        case $answer in
            *"process_id:$(cat "$MOOR_SERVERS_DIR/$name.pid" 2>/dev/null)"* | *NOAUTH*) return 0 ;;
        esac
        kill -0 $! 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

start_redis() {
    launch_redis redis "$MOOR_SERVERS_REDIS_PORT" --unixsocket "$MOOR_SERVERS_REDIS_SOCKET" --unixsocketperm 777 &&
        launch_redis redis-locked "$MOOR_SERVERS_REDIS_LOCKED_PORT" --requirepass key
}

stop_redis() {
    local file pid
    for file in "$MOOR_SERVERS_DIR"/redis*.pid; do
        [ -f "$file" ] || continue
        pid=$(cat "$file")
        kill -KILL "$pid" 2>/dev/null || true
        tail --pid="$pid" -f /dev/null
        rm -f "$file"
    done
}

version_redis() {
    find_redis
    redis-server --version
}
