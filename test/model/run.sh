#!/usr/bin/env bash
# Copyright (c) 2025 The Moor authors
# Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../support/setup.sh"

usage() {
    cat <<'EOT'
Usage: test/model/run.sh [OPTION...] [NAME...]

Explores the models of Moor on epoll, and on select and io_uring, and prints a line for each program: the
states, and the seconds. Then explores mutants, and prints the property that each violates. The last line has
the sums. Fails if a model violates a property, if a mutant violates none or another one than expected, or if
a known defect or limit is not found any more.

  NAME            explore these programs and mutants only
  --no-mutants    explore the programs only
  --trace         for each violation, print the steps that lead to it
  --backend NAME  explore the programs and mutants of epoll, select or io_uring only
  --steps DIR     write down the steps of the states, in a file for each backend, for test/conformance
  --large         explore the large programs only: minutes and gigabytes
  --list          list the programs and mutants
  --work-dir DIR  where to build (default: a temporary directory)
  --no-install    install no packages
  -h, --help      this text
EOT
}

# name|bounds: see settings.pml. The threads of the loop have handled an event before unless said otherwise.
two='LOOP_THREADS=2 FIRST_LOOP_THREAD=several'
one='LOOP_THREADS=1 FIRST_LOOP_THREAD=0'
programs=(
    "level|$one LOOP_JOBS=2 OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel"
    "level_two_threads|$two OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel"
    "level_both_directions|$one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write|want_both"
    "level_no_data|$one OUTSIDE_JOBS=4 RAISES=2 BEGINS_WITH=pollout RAISED=raise_in|raise_drain INTERESTS=(outside_jobs==3->want_both:want_read) JOBS=job_wait|job_no_data|job_cancel"
    "level_no_data_two_threads|$two OUTSIDE_JOBS=3 RAISES=2 BEGINS_WITH=pollout RAISED=raise_in|raise_drain INTERESTS=(outside_jobs==2->want_both:want_read) JOBS=job_wait|job_no_data"
    "level_no_data_in_handlers|$one LOOP_JOBS=2 OUTSIDE_JOBS=1 RAISES=2 BEGINS_WITH=pollout RAISED=raise_in|raise_drain INTERESTS=(outside_jobs==0&&loop_jobs==2->want_both:want_read) JOBS=job_wait|job_no_data"
    "level_no_data_deferred|$one DEFERS=1 TICKS=1 LOOP_JOBS=2 OUTSIDE_JOBS=4 RAISES=1 BEGINS_WITH=pollout RAISED=raise_in INTERESTS=(outside_jobs==2&&loop_jobs==2->want_both:want_read) JOBS=job_wait|job_no_data|job_cancel NEXT_JOBS=(is_loop&&loop_jobs==0->job_cancel:(!is_loop&&outside_jobs==1->job_no_data:job_wait))"
    "level_closing|$one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_end|raise_hup INTERESTS=want_read|want_closed JOBS=job_wait"
    "level_try_io|$one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_try|job_clear"
    "level_deferred|$one DEFERS=1 LOOP_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel"
    "edge|EDGE=1 $one LOOP_JOBS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write"
    "edge_two_threads|EDGE=1 $two OUTSIDE_JOBS=2 RAISES=2 JOBS=job_wait|job_cancel"
    "edge_clear|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write JOBS=job_wait|job_clear"
    "edge_try_io|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_try"
    "edge_slot|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_slot"
    "edge_slot_error|EDGE=1 $one TICKS=1 WAITS=3 OUTSIDE_JOBS=6 RAISES=2 BEGINS_WITH=pollin RAISED=(raises==1->raise_err:raise_err|raise_drain) JOBS=job_wait|job_slot NEXT_JOBS=(outside_jobs==1->job_slot:job_wait) INTERESTS=(outside_jobs==3||outside_jobs==2->want_error:want_read)"
    "edge_closing|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_hup INTERESTS=want_read|want_closed JOBS=job_wait|job_clear"
    "level_closing_beside|$one OUTSIDE_JOBS=2 RAISED=raise_in INTERESTS=want_write|want_closed"
    "level_ends|$one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_err|raise_end|raise_hup INTERESTS=want_error|want_closed JOBS=job_wait|job_clear"
    "level_ends_fifo|IS_FIFO=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_err|raise_end|raise_hup INTERESTS=want_error|want_closed JOBS=job_wait|job_clear"
    "level_ends_unasked|IS_FIFO=1 $one HAS_PRIORITY=1 WAITS=1 OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_end|raise_err INTERESTS=want_priority"
    "edge_ends|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_err|raise_end|raise_hup INTERESTS=want_error|want_closed JOBS=job_wait|job_clear"
    "edge_ends_fifo|EDGE=1 IS_FIFO=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_err|raise_end|raise_hup INTERESTS=want_error|want_closed JOBS=job_wait|job_clear"
    "level_short|$one TICKS=1 WAITS=1 LOOP_JOBS=2 OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_in|raise_hup JOBS=job_wait|job_short"
    "edge_short|EDGE=1 $one TICKS=1 WAITS=1 LOOP_JOBS=2 OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_in|raise_hup JOBS=job_wait|job_short"
    "edge_refused|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=4 RAISED=raise_in|raise_drain|raise_err JOBS=job_wait|job_try"
    "edge_refused_clear|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=4 RAISES=3 RAISED=raise_in|raise_drain JOBS=job_wait|job_try|job_clear"
    "edge_refused_both|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=4 RAISES=2 RAISED=raise_in|raise_drain INTERESTS=want_read|want_write JOBS=job_wait|job_try|job_clear"
    "edge_try_write|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISED=raise_out JOBS=job_wait|job_try NEXT_JOBS=(outside_jobs==1->job_try:job_wait) INTERESTS=(outside_jobs==2->want_read:want_write)"
    "calls|$two TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_call|job_cancel"
    "error_dropped|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=1 RAISED=raise_err INTERESTS=want_read|want_write|want_error JOBS=job_wait|job_call|job_clear"
    "call_and_error|$one TICKS=1 OUTSIDE_JOBS=2 RAISES=1 RAISED=raise_err INTERESTS=want_write|want_error JOBS=job_wait|job_call"
    "calls_beside_waits|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_call|job_try"
    "level_try_both|$one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain INTERESTS=want_both JOBS=job_call|job_try"
    "edge_try_both|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain INTERESTS=want_both JOBS=job_call|job_try"
    "calls_for_both|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain INTERESTS=want_read|want_both JOBS=job_call"
    "told_once|TOLD_ONCE=1 $one OUTSIDE_JOBS=2 RAISES=2"
    "told_once_two_threads|TOLD_ONCE=1 $two OUTSIDE_JOBS=2 RAISES=1"
    "level_latch|$one TICKS=1 OUTSIDE_JOBS=3 RAISES=3 RAISED=raise_in|raise_drain INTERESTS=want_read|want_write JOBS=job_wait|job_try"
    "service_closed|$one TICKS=1 OUTSIDE_JOBS=4 JOBS=job_wait|job_close|job_clear"
    "service_closed_two_threads|$two LOOP_JOBS=1 OUTSIDE_JOBS=2 JOBS=job_wait|job_close"
    "level_reset|$one STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_reset"
    "edge_reset|EDGE=1 $one STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_reset"
    "level_reset_two_threads|$two STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=1 JOBS=job_wait|job_reset NEXT_JOBS=(outside_jobs==1->job_reset:job_wait)"
    "told_once_shared|TOLD_ONCE=1 $one OUTSIDE_JOBS=3 RAISES=1 RAISED=raise_in INTERESTS=want_read|want_write JOBS=job_wait|job_try"
    "told_once_edge|EDGE=1 TOLD_ONCE=1 $one IDLE_LIMIT=8 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_change INTERESTS=want_read|want_error"
    "edge_reset_clear|EDGE=1 $one TICKS=1 STATES=2 OUTSIDE_JOBS=5 RAISES=2 INTERESTS=want_read|want_write JOBS=job_wait|job_reset|job_clear NEXT_JOBS=(outside_jobs==3->job_reset:(outside_jobs==1->job_clear:job_wait))"
    "calls_reset|$one TICKS=1 STATES=2 OUTSIDE_JOBS=3 RAISES=1 JOBS=job_call|job_reset"
    "abandoned_file_again|$one STATES=2 FILES=2 RENAMES=1 WAITS=1 OUTSIDE_JOBS=4 RAISES=0 JOBS=job_wait|job_reset"
    "priority_at_attach|$one HAS_PRIORITY=1 WAITS=1 OUTSIDE_JOBS=2 RAISED=raise_pri|raise_in INTERESTS=want_priority"
    "edge_priority|EDGE=1 $one HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_pri INTERESTS=want_read|want_priority"
    "priority_again|$one HAS_PRIORITY=1 OUTSIDE_JOBS=3 RAISES=3 RAISED=raise_in|raise_pri|raise_drain INTERESTS=(outside_jobs==0->want_read:want_priority)"
    "level_close_prepaid|$one HAS_PRIORITY=1 OUTSIDE_JOBS=4 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel|job_close NEXT_JOBS=(outside_jobs==2->job_cancel:(outside_jobs==0->job_close:job_wait)) INTERESTS=(outside_jobs==3->want_priority:want_read)"
    "edge_close_prepaid|EDGE=1 $one HAS_PRIORITY=1 OUTSIDE_JOBS=4 RAISED=raise_in JOBS=job_wait|job_cancel|job_close NEXT_JOBS=(outside_jobs==2->job_cancel:(outside_jobs==0->job_close:job_wait)) INTERESTS=(outside_jobs==3->want_priority:want_read)"
    "edge_priority_two_threads|EDGE=1 $two HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_pri INTERESTS=want_priority"
    "level_error|$one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_err INTERESTS=want_read|want_error JOBS=job_wait"
    "edge_error|EDGE=1 $one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_err INTERESTS=want_read|want_write|want_error"
    "told_once_error|TOLD_ONCE=1 $one IDLE_LIMIT=8 HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_change INTERESTS=want_error|want_priority"
    "level_poll|$one OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_poll|job_cancel"
    "edge_poll_try|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_poll|job_try|job_cancel"
    "level_poll_write|$one TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_out|raise_drain JOBS=job_wait|job_poll|job_poll_io NEXT_JOBS=(outside_jobs==1->job_wait:job_poll|job_poll_io) INTERESTS=(outside_jobs==1->want_read:want_write)"
    "edge_poll_write|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_out|raise_drain JOBS=job_wait|job_poll|job_poll_io NEXT_JOBS=(outside_jobs==1->job_wait:job_poll|job_poll_io) INTERESTS=(outside_jobs==1->want_read:want_write)"
    "level_all_kinds|$one TICKS=1 WAITS=3 OUTSIDE_JOBS=4 RAISES=1 JOBS=job_wait|job_poll|job_call|job_cancel NEXT_JOBS=(outside_jobs==3->job_wait:(outside_jobs==2->job_poll:(outside_jobs==1->job_call:job_cancel)))"
    "edge_all_kinds|EDGE=1 $one TICKS=1 WAITS=3 OUTSIDE_JOBS=4 RAISES=1 JOBS=job_wait|job_poll|job_call|job_cancel NEXT_JOBS=(outside_jobs==3->job_wait:(outside_jobs==2->job_poll:(outside_jobs==1->job_call:job_cancel)))"
    "level_error_cleared|$one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_err|raise_drain INTERESTS=want_error JOBS=job_wait|job_clear"
    "edge_error_taken|EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=3 RAISED=raise_err|raise_hup|raise_drain INTERESTS=want_error|want_closed JOBS=job_wait"
    "edge_poll_io|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_poll_io"
    "level_poll_io|$one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_poll_io"
    "edge_poll|EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_poll|job_wait|job_clear"
    "context_ends|$two ENDS_CONTEXT=1 OUTSIDE_JOBS=2 RAISES=1 JOBS=job_wait|job_call"
    "context_ends_deferred|$one ENDS_CONTEXT=1 DEFERS=1 LOOP_JOBS=2 OUTSIDE_JOBS=1 RAISES=1 INTERESTS=want_read|want_write JOBS=job_wait|job_cancel"
    "context_ends_reset|$one ENDS_CONTEXT=1 STATES=2 FILES=2 OUTSIDE_JOBS=3 RAISES=1 JOBS=job_wait|job_reset"
    "level_two_handles|$one FILES=2 WAITS=1 LOOP_JOBS=2 OUTSIDE_JOBS=2 RAISES=2 JOBS=job_wait|job_other"
    "level_two_handles_two_threads|$two FILES=2 WAITS=1 OUTSIDE_JOBS=4 RAISES=2 JOBS=job_wait|job_other"
    "edge_two_handles|EDGE=1 $one FILES=2 WAITS=1 LOOP_JOBS=2 OUTSIDE_JOBS=2 RAISES=2 JOBS=job_wait|job_other"
    "level_number_closed|$one TICKS=1 OUTSIDE_JOBS=3 RAISES=1 INTERESTS=want_read|want_write JOBS=job_wait|job_call|job_close_number"
    "edge_number_closed|EDGE=1 $one OUTSIDE_JOBS=3 RAISES=1 INTERESTS=want_read|want_write JOBS=job_wait|job_close_number"
    "second_change_for_a_call|TOLD_ONCE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=1 RAISES=2 JOBS=job_call"
    "change_during_a_call|TOLD_ONCE=1 $one TICKS=1 OUTSIDE_JOBS=2 JOBS=job_wait|job_call"
    "change_during_a_call_for_errors|TOLD_ONCE=1 $one TICKS=1 HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_change JOBS=job_wait|job_call NEXT_JOBS=(outside_jobs==1->job_call:job_wait) INTERESTS=(outside_jobs==1->want_error:want_priority)"
    "change_while_an_edge_waker_is_armed|TOLD_ONCE=1 $one IDLE_LIMIT=8 HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_change INTERESTS=want_read|want_error"
    "told_once_idle|TOLD_ONCE=1 $one HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_change INTERESTS=want_read|want_error"
    "priority|$one HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_pri INTERESTS=want_read|want_priority"
)

# The same for levels.pml: select and io_uring, with the same bounds.
both() { levels_programs+=("select_$1|$2" "uring_$1|URING=1 $2"); }
levels_programs=()
both level "$one LOOP_JOBS=2 OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel"
both level_two_threads "$two OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel"
both level_both_directions "$one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write|want_both"
both level_closing "$one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_end|raise_hup INTERESTS=want_read|want_write|want_closed"
both level_error "$one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_pri|raise_err HAS_PRIORITY=1 INTERESTS=want_write|want_priority|want_error"
both level_poll "$one OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_poll|job_cancel"
both level_try_io "$one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_try|job_clear"
both edge "EDGE=1 $one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write"
both edge_two_threads "EDGE=1 $two OUTSIDE_JOBS=2 RAISES=2 JOBS=job_wait|job_cancel"
both edge_drained "EDGE=1 DRAINS=1 $one WAITS=1 OUTSIDE_JOBS=5 RAISES=3"
both edge_drained_or_not "EDGE=1 $one OUTSIDE_JOBS=4 RAISES=2 JOBS=job_wait|job_read"
both edge_closing "EDGE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_hup INTERESTS=want_read|want_closed JOBS=job_wait|job_clear"
both edge_closing_beside "EDGE=1 ENOUGH=1 $one OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_hup INTERESTS=want_read|want_closed"
both edge_slot "EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_slot"
both calls "$two TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_call|job_cancel"
both call_and_error "$one TICKS=1 OUTSIDE_JOBS=2 RAISES=1 RAISED=raise_err INTERESTS=want_write|want_error JOBS=job_wait|job_call"
both error_dropped "EDGE=1 $one TICKS=1 OUTSIDE_JOBS=3 RAISES=1 RAISED=raise_err INTERESTS=want_read|want_error JOBS=job_wait|job_call|job_clear"
both edge_poll_io "EDGE=1 $one TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_poll_io"
both calls_for_both "$one TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain INTERESTS=want_read|want_both JOBS=job_call"
both told_once "TOLD_ONCE=1 $one OUTSIDE_JOBS=2 RAISES=2"
both told_once_two_threads "TOLD_ONCE=1 $two OUTSIDE_JOBS=2 RAISES=2"
both told_once_edge "EDGE=1 TOLD_ONCE=1 $one OUTSIDE_JOBS=2 RAISES=2"
both told_once_error "TOLD_ONCE=1 $one HAS_PRIORITY=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_change INTERESTS=want_read|want_error|want_priority"
both told_once_calls "TOLD_ONCE=1 $one TICKS=1 OUTSIDE_JOBS=2 RAISES=2 JOBS=job_call"
both told_once_shared "TOLD_ONCE=1 $one OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_try"
both service_closed "$one TICKS=1 OUTSIDE_JOBS=4 JOBS=job_wait|job_close|job_clear"
both service_closed_two_threads "$two LOOP_JOBS=1 OUTSIDE_JOBS=2 JOBS=job_wait|job_close"
both change_during_a_call "TOLD_ONCE=1 $one TICKS=1 OUTSIDE_JOBS=2 JOBS=job_wait|job_call"
both change_beside_another "TOLD_ONCE=1 $one OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_change INTERESTS=want_read|want_error"
both reset "$one STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_reset"
both edge_reset "EDGE=1 $one STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_reset"
both reset_meanwhile "$one STATES=2 FILES=2 OUTSIDE_JOBS=3 RAISES=1 JOBS=job_wait|job_reset"
both reset_two_threads "$two STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=1 JOBS=job_wait|job_reset NEXT_JOBS=(outside_jobs==1->job_reset:job_wait)"
both context_ends "$two ENDS_CONTEXT=1 OUTSIDE_JOBS=2 RAISES=1 JOBS=job_wait|job_call"
both wait_and_call_and_error "$one TICKS=1 OUTSIDE_JOBS=2 RAISES=1 RAISED=raise_err JOBS=job_wait|job_call"
both read_after_write "EDGE=1 $one TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_call NEXT_JOBS=(outside_jobs==1->job_wait:job_call) INTERESTS=(outside_jobs==1->want_write:want_read)"
both try_io_with_an_error "ERROR_QUEUE=1 $one TICKS=1 BEGINS_WITH=pollerr OUTSIDE_JOBS=1 RAISES=0 JOBS=job_try"
both reset_after_an_event "$one STATES=2 OUTSIDE_JOBS=3 RAISES=1 JOBS=job_wait|job_cancel|job_reset NEXT_JOBS=(outside_jobs==2->job_wait:(outside_jobs==1->job_cancel:job_reset))"
both level_poll_io "$one TICKS=1 OUTSIDE_JOBS=3 RAISES=3 RAISED=raise_in|raise_drain JOBS=job_wait|job_poll_io"
both level_try_io_after_cancel "$one TICKS=1 OUTSIDE_JOBS=4 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_try|job_cancel NEXT_JOBS=(outside_jobs==2->job_cancel:(outside_jobs==1->job_try:job_wait))"
both edge_clear_after_try_io "EDGE=1 $one TICKS=1 OUTSIDE_JOBS=4 RAISES=3 RAISED=raise_in|raise_drain JOBS=job_wait|job_try|job_clear NEXT_JOBS=(outside_jobs==2->job_try:(outside_jobs==0->job_clear:job_wait))"
both edge_reset_after_cancel "EDGE=1 $one STATES=2 OUTSIDE_JOBS=4 RAISES=2 RAISED=raise_in|raise_drain JOBS=job_wait|job_cancel|job_reset NEXT_JOBS=(outside_jobs==1->job_cancel:(outside_jobs==0->job_reset:job_wait))"
both level_room_and_the_end "$one TICKS=1 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_end|raise_out INTERESTS=want_write JOBS=job_wait|job_call"
both level_wait_and_call_end "$one TICKS=1 OUTSIDE_JOBS=2 RAISES=3 RAISED=raise_hup|raise_err|raise_drain INTERESTS=want_read|want_write JOBS=job_wait|job_call NEXT_JOBS=(outside_jobs==1->job_call:job_wait)"

# These programs of epoll, too.
for name in level_ends_fifo edge_ends_fifo level_try_both edge_try_both level_latch edge_refused edge_refused_both \
    calls_beside_waits level_no_data level_all_kinds edge_all_kinds level_poll_write level_error_cleared level_number_closed; do
    for line in "${programs[@]}"; do
        [ "${line%%|*}" != "$name" ] || both "$name" "${line#*|}"
    done
done
levels_programs+=(
    "uring_number_closed|URING=1 $one OUTSIDE_JOBS=3 RAISES=1 INTERESTS=want_read|want_write JOBS=job_wait|job_close_number"
    "uring_edge_number_closed|URING=1 EDGE=1 ENOUGH=1 $one OUTSIDE_JOBS=3 RAISES=1 INTERESTS=want_read|want_closed JOBS=job_wait|job_close_number"
)
programs+=("${levels_programs[@]}")

# With --large, in place of the programs: a gigabyte and minutes each, or more.
large_programs=(
    "level_reset_two_threads_two_events|$two STATES=2 FILES=2 WAITS=1 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_reset"
    "edge_reset_clear_any_order|EDGE=1 $one TICKS=1 STATES=2 OUTSIDE_JOBS=5 RAISES=2 INTERESTS=want_read|want_write JOBS=job_wait|job_reset|job_clear"
    "edge_clear_two_threads|EDGE=1 $two TICKS=1 OUTSIDE_JOBS=3 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write JOBS=job_wait|job_clear"
    "level_closing_two_threads|$two OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_hup|raise_drain INTERESTS=want_read|want_write|want_closed"
    "edge_closing_two_threads|EDGE=1 $two OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_hup|raise_end INTERESTS=want_read|want_write|want_closed"
    "edge_reset_two_threads|EDGE=1 $two STATES=2 FILES=2 OUTSIDE_JOBS=3 RAISES=2 JOBS=job_wait|job_reset"
    "level_three_operations|$two WAITS=3 OUTSIDE_JOBS=3 LOOP_JOBS=1 RAISES=3 RAISED=raise_in|raise_out|raise_drain INTERESTS=want_read|want_write|want_both JOBS=job_wait|job_cancel"
)

# mutant|program|the property that it violates
mutants=(
    "WOULD_BLOCK_KEPT_BY_BOTH|calls_for_both|never_lost"
    "EVENTS_NOT_CHECKED|level_two_threads|never_early"
    "EVENT_OF_SECOND_THREAD_TRUSTED|level|never_early"
    "QUEUED_EVENT_TRUSTED|level|never_early"
    "OLDER_EVENTS_TRUSTED|level_reset|never_early"
    "EVENT_OF_ANOTHER_HANDLE_TRUSTED|level_two_handles|never_early"
    "LEFT_FILE_FORGOTTEN|level_reset|never_early"
    "ONE_TICK_FOR_BOTH_DIRECTIONS|edge_clear|never_lost"
    "ERROR_IS_OLD_FOR_WRITERS|call_and_error|never_lost"
    "ERROR_IN_THE_STREAM_OF_READERS|edge_slot_error|never_lost"
    "LASTING_ERROR_DROPPED|error_dropped|never_lost"
    "LASTING_ERROR_DROPPED|uring_error_dropped|never_lost"
    "CLEAR_IGNORES_TICKS|edge_clear|never_lost"
    "CLEAR_DROPS_CLOSING|edge_closing|closing_is_sticky"
    "EVENTS_NOT_LATCHED|level_latch|never_lost"
    "LATCH_IGNORED_AT_ARM|level_latch|never_lost"
    "NO_MOD_FOR_WRITERS|level_both_directions|never_lost"
    "NOT_REARMED_AFTER_A_STALE_EVENT|level_two_threads|pending_is_armed"
    "REARMED_WITHOUT_THE_LOCK|level|armed_once"
    "NOT_ASKED_WHILE_ARMING|priority|never_lost"
    "PRIORITY_ARMED_AFTER_ADD|priority_at_attach|never_lost"
    "TICKS_START_AT_ZERO|edge_reset_clear|never_lost"
    "CHANGE_TOLD_TO_ONE_ONLY|told_once_shared|never_lost"
    "ABANDONED_ENTRY_FORGOTTEN|abandoned_file_again|entry_is_free"
    "EDGE_WAKER_ARMED_LATER|change_while_an_edge_waker_is_armed|never_lost"
    "CACHED_CHANGE_DROPPED|second_change_for_a_call|never_lost"
    "CALL_MADE_FOR_THE_CACHE_ONLY|change_during_a_call|never_lost"
    "CHANGE_BESIDE_ANOTHER_DROPPED|select_change_beside_another|never_lost"
    "REFUSED_WAKER_KEPT|level_number_closed|no_use_after_free"
    "DISPLACED_WAKER_DROPPED|level_poll|completes_once"
    "SHUTDOWN_LEAVES_THE_HANDLE_ATTACHED|context_ends|no_use_after_free"
    "CHECK_DROPS_CHANGES|told_once|never_lost"
    "DEFERRED_CHECK_DROPPED|level_deferred|never_lost"
    "NO_DATA_DESPITE_EVENTS|level_no_data_deferred|never_lost"
    "NEWS_NOT_GIVEN_BACK|edge_slot|never_lost"
    "NOT_CONSUMED|edge|news_only"
    "LATCH_NOT_FORGOTTEN|edge|news_only"
    "WORK_COUNTED_TWICE|level_both_directions|work_is_exact"
    "NOT_COMPENSATED|level_two_threads|work_while_pending"
    "UNIT_OF_FIRED_WAKER_SPENT|level_two_threads|work_while_pending"
    "REFERENCE_DROPPED_EARLY|level_reset|no_use_after_free"
    "NO_REFERENCE_OF_THE_REACTOR|level|no_use_after_free"
    "CLOSED_NOT_ASKED|service_closed|never_after_end"
    "CLEAR_WIPES_THE_SHUTDOWN|service_closed|shutdown_is_sticky"
    "CANCEL_TAKES_WHAT_IS_TAKEN|level|completes_once"
    "REFUSED_CALL_REPEATED|calls|calls_for_news_only"
    "REACTOR_LOCK_KEPT|priority|no_deadlock"
    "CLOSE_FORGETS_PENDING|level|pending_is_armed"
    "CLOSE_LEAVES_THE_HANDLE_ATTACHED|level|no_use_after_free"
    "REQUEST_TRUSTED|select_level|never_early"
    "REQUEST_TRUSTED|uring_level|never_early"
    "EVENTS_NOT_CHECKED|uring_level|never_early"
    "OLDER_EVENTS_TRUSTED|select_reset_meanwhile|never_early"
    "HANG_UP_OF_WRITER_MISSED|select_level_closing|never_lost"
    "SET_NOT_WATCHED|uring_level_closing|never_lost"
    "EVENT_OF_SET_DROPPED|select_edge|never_lost"
    "CHANGE_OF_SET_DROPPED|uring_told_once|never_lost"
    "SET_CLOSED_WHILE_ARMED|uring_edge_closing_beside|never_lost"
    "NOT_REARMED_AFTER_A_STALE_EVENT|select_level|pending_is_armed"
    "NOT_CONSUMED|select_edge_drained|news_only"
    "PREPAID_UNIT_MADE_UP_FOR|select_reset|work_is_exact"
    "PREPAID_UNIT_MADE_UP_FOR|uring_reset|work_is_exact"
    "NOT_COMPENSATED|select_level_two_threads|work_while_pending"
    "REFERENCE_DROPPED_EARLY|uring_reset|no_use_after_free"
    "NO_REFERENCE_OF_THE_REACTOR|select_level|no_use_after_free"
    "REFUSED_CALL_REPEATED|uring_calls|calls_for_news_only"
    "SHUTDOWN_KEEPS_THE_REACTORS_REFERENCE|select_context_ends|no_use_after_free"
)

# What the headers do, and should not: name|bounds|the property. See README.md.
known=(
    "change_before_a_first_writer|TOLD_ONCE=1 $one IDLE_LIMIT=8 WAITS=1 OUTSIDE_JOBS=1 RAISES=1 RAISED=raise_change INTERESTS=want_write|never_lost"
    "change_that_only_writers_are_told_of|TOLD_ONCE=1 $one IDLE_LIMIT=8 OUTSIDE_JOBS=2 RAISES=2 RAISED=raise_in|raise_out INTERESTS=want_read|want_write|never_lost"
    "call_on_a_reused_number|$one TICKS=1 STATES=2 FILES=2 OUTSIDE_JOBS=3 RAISES=0 JOBS=job_call|job_reset|entry_is_free"
    "two_files_abandoned|$one STATES=2 FILES=2 RENAMES=1 WAITS=1 OUTSIDE_JOBS=5 RAISES=0 JOBS=job_wait|job_reset|entry_is_free"
    "two_changes_during_a_check|EDGE=1 TOLD_ONCE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=3|never_lost"
    "select_change_for_writers_beside_another|TOLD_ONCE=1 $one OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_in|raise_change INTERESTS=want_write|never_lost"
    "uring_change_for_writers_beside_another|URING=1 TOLD_ONCE=1 $one OUTSIDE_JOBS=1 RAISES=2 RAISED=raise_in|raise_change INTERESTS=want_write|never_lost"
    "uring_two_changes_during_a_check|URING=1 EDGE=1 TOLD_ONCE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=2 RAISES=3|never_lost"
    "error_queue|ERROR_QUEUE=1 $one TICKS=1 WAITS=1 OUTSIDE_JOBS=3 RAISES=3 RAISED=raise_in|raise_err|raise_drain JOBS=job_wait|job_try|never_lost"
    "thread_that_nobody_knew|LOOP_THREADS=2 LOOP_JOBS=2 RAISES=3 RAISED=raise_in|raise_drain|never_early"
)

# ---------------------------------------------------------------------------------------------------

install=yes
large=no
backend=
steps=
with_mutants=yes
trace=no
work=
names=()
while [ $# -gt 0 ]; do
    case $1 in
        --no-mutants) with_mutants=no ;;
        --trace) trace=yes ;;
        --large) large=yes with_mutants=no programs=("${large_programs[@]}") known=() ;;
        --list)
            printf '%s\n' "${programs[@]}" "${known[@]}" "${mutants[@]}" | cut -d '|' -f 1
            exit ;;
        --backend)
            backend=${2:?--backend needs a name}; shift
            [[ $backend =~ ^(epoll|select|io_uring)$ ]] || { usage >&2; exit 2; }
            ;;
        --steps) steps=${2:?--steps needs a directory}; shift ;;
        --work-dir) work=${2:?--work-dir needs a directory}; shift ;;
        --no-install) install=no ;;
        -h | --help) usage; exit ;;
        -*) usage >&2; exit 2 ;;
        *) names+=("$1") ;;
    esac
    shift
done
if [ "$install" = yes ]; then
    moor_need_packages spin tcc gcc
fi
# tcc takes a hundredth of gcc's time, and the search a little longer.
compiler=(tcc -DMEMLIM=1800)
if [ "$large" = yes ]; then
    compiler=(gcc -O2 -DCOLLAPSE -DMEMLIM=30000)
fi
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"

if [ -n "$steps" ]; then
    mkdir -p "$steps"
    for name in epoll select io_uring; do
        [ -n "$backend" ] && [ "$backend" != $name ] || rm -f "$steps/$name"
    done
fi

# backend_of PROGRAM
backend_of() {
    case $1 in
        select_*) echo select ;;
        uring_*) echo io_uring ;;
        *) echo epoll ;;
    esac
}

# is_chosen NAME PROGRAM
is_chosen() {
    { [ -z "$backend" ] || [ "$(backend_of "$2")" = "$backend" ]; } &&
        { [ "${#names[@]}" -eq 0 ] || [[ " ${names[*]} " == *" $1 "* ]]; }
}

# model_of BOUNDS MODEL: prints the model with these bounds.
model_of() {
    local bound value
    for bound in $1; do
        value=
        if [[ $bound == *=* ]]; then
            value="(${bound#*=})"
        fi
        printf '#define %s %s\n' "${bound%%=*}" "$value"
    done
    printf '#include "%s"\n' "$here/$2.pml"
}

# model_for NAME: prints the model of a program.
model_for() {
    [ "$(backend_of "$1")" = epoll ] && echo epoll || echo levels
}

# explore NAME BOUNDS MODEL: sets violated, states, seconds.
total_states=0 explored=0
explore() {
    local directory=$work/${1//, /-} output
    mkdir -p "$directory"
    model_of "$2" "$3" >"$directory/model.pml"
    printf '%-50s ' "$1"
    output=$(
        cd "$directory"
        rm -f ./*.trail
        spin -a model.pml >spin.log 2>&1 || { cat spin.log >&2; exit 1; }
        "${compiler[@]}" -w -I"$here" -o pan pan.c -DSAFETY -DNOFAIR -DVECTORSZ=512
        ./pan -m400000 -w22 | tee pan.log
    )
    violated=$(sed -n 's/^pan:[0-9]*: \(assertion violated \)\?\(.*\) (at depth.*/\2/p' <<<"$output")
    states=$(sed -n 's/^ *\([0-9]*\) states, stored$/\1/p' <<<"$output")
    seconds=$(sed -n 's/^pan: elapsed time \([0-9.e+]*\) seconds$/\1/p' <<<"$output")
    if grep -qE 'max search depth too small|out of memory|reached -DMEMLIM' <<<"$output"; then
        violated=${violated:-the search is not complete}
    fi
    total_states=$((total_states + states))
    explored=$((explored + 1))
    printf '%9s states %8s s  ' "$states" "$seconds"
    if [ "$trace" = yes ] && [ -n "$violated" ]; then
        echo
        (cd "$directory" && spin -p -g -t model.pml)
    fi
}

failed=0

# report EXPECTED: ends the line, and counts the result as one of its kind in count.
declare -A count=([programs]=0 [known]=0 [mutants]=0)
report() {
    if [ "${violated:-nothing}" = "$1" ]; then
        echo "${violated:+violates $violated, as expected}"
        count[$kind]=$((count[$kind] + 1))
    else
        echo "FAILED: violates ${violated:-nothing}, expected: $1"
        failed=$((failed + 1))
    fi
}

echo "Programs:"
kind=programs
for line in "${programs[@]}"; do
    name=${line%%|*}
    if is_chosen "$name" "$name"; then
        explore "$name" "${line#*|} ${steps:+CONFORMS=1}" "$(model_for "$name")"
        report nothing
        [ -z "$steps" ] || cat "$work/$name/relation" >>"$steps/$(backend_of "$name")"
    fi
done

echo "Known defects and limits:"
kind=known
for line in "${known[@]}"; do
    name=${line%%|*}
    if is_chosen "$name" "$name"; then
        bounds=${line#*|}
        explore "$name" "${bounds%|*}" "$(model_for "$name")"
        report "${line##*|}"
    fi
done

if [ "$with_mutants" = yes ]; then
    echo "Mutants:"
    kind=mutants
    for line in "${mutants[@]}"; do
        IFS='|' read -r name program property <<<"$line"
        if is_chosen "$name" "$program"; then
            for other in "${programs[@]}"; do
                if [ "${other%%|*}" = "$program" ]; then
                    explore "$name, $program" "${other#*|} MUTANT_$name" "$(model_for "$program")"
                fi
            done
            report "$property"
        fi
    done
fi

if [ "$explored" -eq 0 ]; then
    echo "There is no program or mutant of this name: ${names[*]}" >&2
    exit 2
fi
times >"$work/times" # of this shell, and of what it has run
seconds=$(awk -F '[ ms]' '{ sum += 60 * ($1 + $4) + $2 + $5 } END { printf "%.0f", sum }' "$work/times")
echo "${count[programs]} programs hold, ${count[mutants]} mutants killed, ${count[known]} known defects and" \
    "limits found, $failed results not as expected: $total_states states, $seconds s of processor time"
[ "$failed" -eq 0 ]
