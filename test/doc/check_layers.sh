#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)
#
# Checks the headers against the rules of doc/design.adoc: which header may include which, who may name
# boost::asio::detail, how long a header may be, and which words are out of use.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The layers of include/moor, the lowest first. A header includes headers of lower lines only; the
# headers of a line that begins with "=" may include one another. The first pattern that fits counts.
layers=(
    'version.hpp detail/config.hpp'
    'error.hpp'
    'readiness.hpp misuse.hpp'
    'detail/throw_if.hpp detail/adapted_handler.hpp'
    'detail/mutex.hpp detail/kernel.hpp detail/readiness_word.hpp detail/waker.hpp detail/unverified_events.hpp detail/edge_set.hpp detail/edge_source.hpp'
    'detail/system_calls.hpp detail/probes.hpp'
    '= detail/reactor.hpp detail/reactor_*.hpp'
    'detail/initiate.hpp detail/transfer.hpp detail/pidfd.hpp detail/any_waker.hpp detail/drain_policy.hpp'
    'detail/waiter.hpp detail/deferred_checks.hpp detail/scheduled_io_host.hpp'
    'detail/wait_queue.hpp detail/transfer_queue.hpp detail/use_checks.hpp'
    'detail/handle_wakers.hpp'
    'detail/handle_readiness.hpp'
    'detail/handle_starts.hpp'
    'detail/handle_transfers.hpp'
    'detail/scheduled_io_policy.hpp'
    '= detail/scheduled_io.hpp detail/scheduled_io_calls.hpp'
    'detail/state_table.hpp'
    'detail/service_core.hpp detail/wait_canceller.hpp'
    'detail/held_executor.hpp detail/hideable_work.hpp detail/loop_executor.hpp detail/wait_op.hpp'
    'detail/io_op.hpp'
    'registration_service.hpp'
    'detail/poll_copy.hpp detail/poll_entry.hpp'
    'detail/poll_list.hpp'
    'detail/poll_op.hpp'
    'registration.hpp'
    'descriptor.hpp'
    'stream_descriptor.hpp'
    'detail/watch_handler.hpp'
    'detail/watch_state.hpp'
    'operation.hpp watcher.hpp'
    'source.hpp poll.hpp process.hpp'
    'inspector_options.hpp detail/json_writer.hpp detail/inspect_page.hpp'
    'detail/inspect_server.hpp'
    'adapt/detail/has_null.hpp'
    'adapt/*_types.hpp'
    '= adapt/detail/*.hpp'
    'inspect.hpp adapt/*.hpp src.hpp'
)
asio_detail='boost::asio::detail|asio/detail/|asio::detail'
asio_detail_allowed='include/moor/detail/reactor*.hpp'
most_code=500     # lines that are neither blank nor comment
most_in_detail=600 # lines of any kind
old_words="doubt(s|ed)?|believe[sd]?|vouch(es)?|suspect(s|ed)?|park(s|ed|ing)?|lend(s|ing)?|lent|unproved|in_vain|\
late[ _]looks?|glance[sd]?|unclaimed|spill(s|ed)?|blind"

failed=0
complain() {
    echo "$*"
    failed=1
}

# Sets rank to a header's line above, from 1, and family to whether the line begins with "=".
find_rank() {
    local pattern
    for rank in "${!layers[@]}"; do
        family=no
        for pattern in ${layers[rank]}; do
            [ "$pattern" != = ] || family=yes
            # shellcheck disable=SC2053 # a pattern
            [[ $1 != $pattern ]] || return 0
        done
    done
    complain "include/moor/$1 has no layer: add it to test/doc/check_layers.sh"
    return 1
}

set -f # patterns, not files
mapfile -t headers < <(find include -name '*.hpp' | sort)
for header in "${headers[@]}"; do
    # shellcheck disable=SC2053
    if [[ $header != $asio_detail_allowed ]]; then
        while IFS= read -r line; do
            complain "$header:$line: only $asio_detail_allowed may name Asio's details"
        done < <(grep -nE "$asio_detail" "$header")
    fi

    lines=$(wc -l <"$header")
    code=$(grep -cvE '^[[:space:]]*(//.*|/\*.*|\*.*)?$' "$header" || true)
    [ "$code" -le $most_code ] || complain "$header: $code lines of code; $most_code at most"
    [[ $header != */detail/* || $lines -le $most_in_detail ]] ||
        complain "$header: $lines lines; $most_in_detail at most"

    name=${header#include/moor/}
    if [ "$name" = include/moor.hpp ] || ! find_rank "$name"; then
        continue # moor.hpp is above all
    fi
    upper=$rank
    while IFS= read -r included; do
        find_rank "$included" || continue
        if [ "$rank" -gt "$upper" ] || [[ $rank -eq $upper && $family = no ]]; then
            complain "$header includes moor/$included, which is not in a lower layer"
        fi
    done < <(sed -nE 's,^ *# *include [<"]moor/(.*)[>"].*,\1,p' "$header")
done

while IFS= read -r line; do
    complain "$line: out of use"
done < <(grep -rniwoE "$old_words" --include=*.hpp --include=*.cpp --include=*.adoc --include=*.md \
    include test doc example README.md)
exit $failed
