# shellcheck shell=bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# A message bus of D-Bus, for servers.sh: a dbus-daemon with a configuration of its own, on a Unix socket. Sets
# DBUS_SESSION_BUS_ADDRESS. $MOOR_SERVERS_DIR/dbus.pid has the number of the process. Stops: term, kill.

find_dbus() {
    command -v dbus-daemon >/dev/null || fail "dbus-daemon is not installed; on Debian: apt-get install dbus-daemon"
}

# Every user may connect, own every name, and send and receive everything.
setup_dbus() {
    find_dbus
    export DBUS_SESSION_BUS_ADDRESS=unix:path=$MOOR_SERVERS_DIR/dbus
    unprivileged tee "$MOOR_SERVERS_DIR/dbus.conf" >/dev/null <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>$DBUS_SESSION_BUS_ADDRESS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
  <limit name="max_outgoing_bytes">1000000000</limit>
  <limit name="max_replies_per_connection">100000</limit>
  <limit name="max_match_rules_per_connection">10000</limit>
</busconfig>
END
    start_dbus || { cat "$MOOR_SERVERS_DIR/dbus.log" >&2; fail "dbus-daemon does not start"; }
    version_dbus >&2
}

# With --fork, dbus-daemon returns when it listens.
start_dbus() {
    find_dbus
    unprivileged dbus-daemon --config-file="$MOOR_SERVERS_DIR/dbus.conf" --fork --nopidfile --nosyslog --print-pid \
        </dev/null >"$MOOR_SERVERS_DIR/dbus.pid" 2>"$MOOR_SERVERS_DIR/dbus.log"
}

stop_dbus() {
    local pid
    pid=$(cat "$MOOR_SERVERS_DIR/dbus.pid") || return
    case ${1:-term} in
        kill | immediate) kill -KILL "$pid" ;;
        *) kill -TERM "$pid" ;;
    esac 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.02
    done
}

version_dbus() {
    find_dbus
    dbus-daemon --version | head -n 1
}
