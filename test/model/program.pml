// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The program of a run, and the parts of an operation's life that the lock region of one step has.

byte loop_jobs = LOOP_JOBS;
byte outside_jobs = OUTSIDE_JOBS;
byte raises = RAISES;

// deferred_checks
byte deferred_list = 0;      // states_, as bits
bool is_check_queued = false;
bool is_busy = false;        // something was deferred since the last turn

/// to_be_told(): what of the cache the reactor is about to tell, too. (An interest has the bit of its channel.)
#if LEVELS
#define is_about_to_tell(s, c, event)                                                              \
    ((c) == edge_channel || source_is_set[source(s, (c) & 1)]) && !are_watched(s, event)
#define untold_by_set(s)                                                                           \
    ((is_about_to_tell(s, read_channel, pollin) -> readable : 0) |                                 \
     (is_about_to_tell(s, write_channel, pollout) -> writable : 0) |                               \
     (is_about_to_tell(s, edge_channel, pollpri) -> priority : 0))
#else
#define untold_by_set(s) unprimed[s]
#endif
#define to_be_told(s)                                                                              \
    ((EDGE && !TOLD_ONCE) -> (is_attached[s] -> untold_by_set(s) : all_channels) : 0)

inline forget_to_be_told(s) {
    h = flags[s] & to_be_told(s);
    word_forget(s, h);
    would_block[s] = would_block[s] & ~channels_of(h)
}

/// other_news(): the news but for that, into h_r. Where there is an end, the kernel is asked for the rest.
inline other_news(s, w, found, result) {
    h_told = flags[s];
    h = to_be_told(s);
    word_forget(s, h);
    word_news(s, want_of[w]);
    flags[s] = h_told;
    if
    :: h_r != 0 && (flags[s] & closing) != 0 ->
        check(s, want_of[w], found, result);
        found = 0;
        result = ok;
        satisfied(s, w)
    :: else
    fi
}

/// may_call(): what a call that begins is for, into `r`; none: it has to wait.
inline may_call(s, w, r, found, result) {
    r = match(flags[s], want_of[w]);
    if
    :: r == 0 && !knows_empty(s, want_of[w] & pollable) -> r = want_of[w] & pollable
#if !TOLD_ONCE // no call is for those alone
    :: r == 0 && knows_empty(s, want_of[w] & pollable) && (want_of[w] & ~pollable) != 0 ->
        check(s, want_of[w] & ~pollable, found, result);
        found = 0;
        r = match(flags[s], want_of[w] & ~pollable)
#endif
    :: else
    fi;
    make_event(s, w, r)
}

bool is_ending = false; // the program is over, and its registration ends
#if ENDS_CONTEXT
bool is_stopped_loop = false; // no thread takes another item
byte loops_out = 0;

/// The reactor or the scheduler gives a waker back without running it: dropped().
inline dropped(s, c) {
    require(no_use_after_free, is_alive[s]);
    waker[at(s, c)] = idle;
    if
    :: !is_attached[s] && !is_held[s] && are_idle(s) -> release(s)
    :: else
    fi
}

/// Their handlers are not invoked.
inline destroy_operations(items) {
    for (i : 0 .. WAITS - 1) {
        if
        :: ((items) & bit(i)) != 0 ->
            require(completes_once, stage[i] == taken);
            stage[i] = over;
            if
            :: is_call[i] -> release(state_of[i])
            :: else
            fi
        :: else
        fi
    };
    skip
}
#endif

#define is_alone(me) (is_loop && loop_thread == (me))
#define has_room_for_operation                                                                     \
    (stage[0] == over || (WAITS > 1 && stage[1 % WAITS] == over) ||                                \
     (WAITS > 2 && stage[2 % WAITS] == over))

/// The interest of an operation is the program's choice.
inline choose_interest() {
    if
    :: (INTERESTS & want_read) != 0 -> want = readable
    :: (INTERESTS & want_write) != 0 -> want = writable
    :: (INTERESTS & want_both) != 0 -> want = readable | writable
    :: (INTERESTS & want_priority) != 0 && HAS_PRIORITY -> want = priority
    :: (INTERESTS & want_closed) != 0 -> want = read_closed
    :: (INTERESTS & want_read_or_closed) != 0 -> want = readable | read_closed
    :: (INTERESTS & want_error) != 0 -> want = error
    fi
}

/// A new operation: the first free one.
inline begin_operation(w, calls, polls) {
    d_step {
        s = registration;
        users++;
        w = (stage[0] == over -> 0 : ((WAITS > 1 && stage[1 % WAITS] == over) -> 1 : 2));
        stage[w] = begun;
        state_of[w] = s;
        generation_of[w] = generation[s];
        begun_after_close[w] = is_shut[s];
        want_of[w] = want;
        result_of[w] = ok;
        event_of[w] = 0;
        is_call[w] = calls;
        is_slot[w] = polls;
        must_check[w] = false;
        is_deferred[w] = false;
        is_refused[w] = false;
        is_running[w] = false;
        is_cancelled[w] = false;
        has_slot[w] = EDGE && !(calls) && !(polls) && (JOBS & job_slot) != 0;
        was_due[w] = false;
        note_level();
        if
        :: calls -> references[s]++ // state_ of the operation
        :: else
        fi;
        has_unit = false;
        is_restart = false;
        want = 0
    }
}

/// What is left of an operation is no part of the state any more.
inline forget_operation(w) {
    stage[w] = over;
    state_of[w] = 0;
    generation_of[w] = 0;
    begun_after_close[w] = false;
    want_of[w] = 0;
    result_of[w] = 0;
    event_of[w] = 0;
    is_call[w] = false;
    is_slot[w] = false;
    must_check[w] = false;
    is_refused[w] = false;
    is_running[w] = false;
    is_cancelled[w] = false;
    has_slot[w] = false;
    was_due[w] = false;
#if TOLD_ONCE
    untold_of[w] = 0;
#endif
    stamp_read[w] = 0;
    stamp_write[w] = 0;
    stamp_priority[w] = 0;
    stamp_error[w] = 0
}

/// The operation is pending now: the end of pend(). One in a slot displaces the one before, which is
/// woken. (It is posted when the lock is free; nobody can tell.)
inline push(s, w) {
#if JOBS & job_poll
    for (i : 0 .. WAITS - 1) {
        if
#ifndef MUTANT_DISPLACED_WAKER_DROPPED
        :: is_slot[w] && is_pending_in(s, i) && is_slot[i] && want_of[i] == want_of[w] ->
            event_of[i] = 0;
            stage[i] = taken;
            post_counted(operation_item(i))
#else
        :: is_slot[w] && is_pending_in(s, i) && is_slot[i] && want_of[i] == want_of[w] ->
            stage[i] = begun // forgotten
#endif
        :: else
        fi
    }
#endif
#if !EDGE
    would_block[s] = would_block[s] & ~needs(w);
#endif
    stage[w] = pending;
    underway = underway + (is_restart -> 0 : 1)
}
