# shellcheck shell=bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Eclipse Mosquitto, an MQTT broker, for servers.sh. Sets MOOR_SERVERS_MQTT_PORT and MOOR_SERVERS_MQTT_TLS_PORT on
# 127.0.0.1, MOOR_SERVERS_MQTT_SOCKET, MOOR_SERVERS_MQTT_CERTIFICATE (for localhost), and MOOR_SERVERS_MQTT_PID, a file
# with the number of the process. Stops: normal, immediate.

# Sets $broker to the program. It is where a user who is not root may not look.
find_mosquitto() {
    broker=$(PATH=$PATH:/usr/local/sbin:/usr/sbin command -v mosquitto) ||
        fail "mosquitto is not installed; on Debian: apt-get install mosquitto"
}

# Who has no name may do everything. The user "moor" has the password "key", and may use "public/#" only.
setup_mosquitto() {
    local dir=$MOOR_SERVERS_DIR/mosquitto
    find_mosquitto
    unprivileged mkdir "$dir"
    (
        umask 077
        unprivileged openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
            -addext subjectAltName=DNS:localhost -keyout "$dir/server.key" -out "$dir/server.crt" \
            2>"$MOOR_SERVERS_DIR/openssl.log"
    ) || { cat "$MOOR_SERVERS_DIR/openssl.log" >&2; fail "openssl failed"; }
    cp "$dir/server.crt" "$MOOR_SERVERS_DIR/mosquitto.crt"
    chmod 644 "$MOOR_SERVERS_DIR/mosquitto.crt"
    unprivileged mosquitto_passwd -c -b "$dir/passwords" moor key 2>"$MOOR_SERVERS_DIR/mosquitto.log" ||
        { cat "$MOOR_SERVERS_DIR/mosquitto.log" >&2; fail "mosquitto_passwd failed"; }
    printf '%s\n' 'topic readwrite #' 'user moor' 'topic readwrite public/#' | unprivileged tee "$dir/acl" >/dev/null

    export MOOR_SERVERS_MQTT_PORT MOOR_SERVERS_MQTT_TLS_PORT MOOR_SERVERS_MQTT_SOCKET=$dir/socket
    export MOOR_SERVERS_MQTT_CERTIFICATE=$MOOR_SERVERS_DIR/mosquitto.crt MOOR_SERVERS_MQTT_PID=$dir/pid
    # The ports may be taken, or be taken until the broker binds them: then others.
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        MOOR_SERVERS_MQTT_PORT=$(random_port)
        MOOR_SERVERS_MQTT_TLS_PORT=$(random_port)
        if start_mosquitto; then
            version_mosquitto >&2
            return
        fi
    done
    cat "$dir/log" >&2
    fail "mosquitto does not start after $try attempts"
}

start_mosquitto() {
    local dir=$MOOR_SERVERS_DIR/mosquitto
    find_mosquitto
    # A client may send many messages before it reads: nothing is dropped for it.
    printf '%s\n' 'persistence false' 'allow_anonymous true' "password_file $dir/passwords" "acl_file $dir/acl" \
        'max_queued_messages 0' 'set_tcp_nodelay true' "pid_file $dir/pid" \
        "listener $MOOR_SERVERS_MQTT_PORT 127.0.0.1" "listener 0 $dir/socket" \
        "listener $MOOR_SERVERS_MQTT_TLS_PORT 127.0.0.1" "certfile $dir/server.crt" "keyfile $dir/server.key" |
        unprivileged tee "$dir/conf" >/dev/null
    : >"$dir/log"
    # The broker must not keep the pipe to which a test driver listens.
    unprivileged "$broker" -c "$dir/conf" </dev/null >>"$dir/log" 2>&1 &
    local pid=$!
    until grep -q 'mosquitto version .* running' "$dir/log"; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.05
    done
}

stop_mosquitto() {
    local pid signal=TERM
    pid=$(cat "$MOOR_SERVERS_DIR/mosquitto/pid" 2>/dev/null) || return 0
    [ "${1:-normal}" = normal ] || signal=KILL
    kill -s "$signal" "$pid" 2>/dev/null || return 0
    kill -s CONT "$pid" 2>/dev/null || true
    timeout 20 tail --pid="$pid" -s 0.05 -f /dev/null
    rm -f "$MOOR_SERVERS_DIR/mosquitto/pid"
}

version_mosquitto() {
    find_mosquitto
    { "$broker" -h || true; } | grep '^mosquitto version' # whose exit status says that it did not start
}
