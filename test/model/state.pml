// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Moor's state of a handle, and its machines. All but the wakers' phases is guarded by the state's
// lock. An inline here is a part of one step unless it says which steps it has.

// ---- the service and its registrations ----------------------------------------------------------

byte registration = 0;         // the state of the only registration, or none
bool is_service_closed = false;
byte users = 0;                // threads that call the registration: it must not end then
byte loop_thread = FIRST_LOOP_THREAD; // scheduled_io_host::loop_thread_

// ---- waiter, wait_queue -------------------------------------------------------------------------

// The stages of an operation.
#define over 0    // or never begun
#define begun 1   // initiated
#define pending 2 // in the wait queue
#define taken 3   // it has its event or error, and is on its way through the scheduler

byte stage[WAITS];
byte state_of[WAITS];
byte want_of[WAITS];
byte result_of[WAITS];
byte event_of[WAITS]; // event_.ready()
bool is_call[WAITS];
bool is_slot[WAITS];      // purpose: the read slot or the write slot
bool must_check[WAITS];
bool is_deferred[WAITS];
bool is_refused[WAITS];
bool has_slot[WAITS];     // goes_on_, of an edge-triggered wait
bool is_running[WAITS];
bool is_cancelled[WAITS];
byte stamp_read[WAITS], stamp_write[WAITS], stamp_priority[WAITS], stamp_error[WAITS]; // of event_

// ---- the states ---------------------------------------------------------------------------------

bool is_alive[STATES]; // otherwise in the service's list of free states
bool is_locked[STATES];
byte references[STATES];
byte closed[STATES];
byte file_of[STATES]; // identity_

// handle_wakers
#define idle 0
#define armed 1
#define armed_asked 2
#define firing 3

#define at(s, c) (3 * (s) + (c))
byte waker[3 * STATES];       // the phases
bool is_prepaid[3 * STATES];
byte waker_result[3 * STATES]; // reactor_op::ec_
bool is_attached[STATES];
bool is_held[STATES];
bool is_forgetting[STATES];
byte unprimed[STATES];
byte latched[STATES];
byte idle_events[STATES];
byte unverified_next[STATES];   // unverified_events::next_
byte unverified_second[STATES]; // second_
#define always 128

// What the service remembers of Asio's object: left_behind.
bool has_left_file = false;
bool has_left_event = false;
byte abandoned = none; // reactor_port::abandoned_: the file, of the only number

// handle_readiness
byte flags[STATES]; // readiness_word
byte consumed[STATES];
bool reader_knows[STATES], writer_knows[STATES];
byte tick_read[STATES], tick_write[STATES], tick_priority[STATES], tick_error[STATES];
byte would_block[STATES];
bool is_listed[STATES]; // is_deferred_
byte known_closed[STATES]; // ghost: what the kernel said
bool is_shut[STATES];      // ghost: the service was closed

// The event of an earlier wait, which the program has kept for clear().
byte kept_event = 0;
byte kept_read, kept_write, kept_priority, kept_error;

// ---- questions ----------------------------------------------------------------------------------

#define is_idle(s, c) (waker[at(s, c)] == idle)
#define are_idle(s)                                                                                \
    (is_idle(s, read_channel) && is_idle(s, write_channel) && is_idle(s, edge_channel))
#define are_armed(s, channels)                                                                     \
    ((((channels) & bit(read_channel)) == 0 || !is_idle(s, read_channel)) &&                       \
     (((channels) & bit(write_channel)) == 0 || !is_idle(s, write_channel)) &&                     \
     (((channels) & bit(edge_channel)) == 0 || !is_idle(s, edge_channel)))
#define armed_channels(s)                                                                          \
    ((is_idle(s, read_channel) -> 0 : bit(read_channel)) |                                         \
     (is_idle(s, write_channel) -> 0 : bit(write_channel)) |                                       \
     (is_idle(s, edge_channel) -> 0 : bit(edge_channel)))

/// handle_readiness::channels_of()
#if LEVELS
#define closing_bit bit(edge_channel)
#else
#define closing_bit bit(read_channel)
#endif
#define channels_of(want)                                                                          \
    (((((want) & readable) != 0) -> bit(read_channel) : 0) |                                       \
     ((((want) & closing) != 0) -> closing_bit : 0) |                                              \
     ((((want) & writable) != 0) -> bit(write_channel) : 0) |                                      \
     ((((want) & priority) != 0) -> bit(edge_channel) : 0))
#if LEVELS // see levels_wakers.pml
#elif TOLD_ONCE // most changes are an error and a priority event
#define channels_for(want)                                                                         \
    (channels_of((want) & ~error) | ((((want) & error) != 0) -> bit(edge_channel) : 0))
#else
#define channels_for(want) channels_of(want)
#endif
#if !LEVELS
#define needs(w) channels_for(want_of[w]) // channels_
#endif

/// Whether the next event of these channels may be older than an operation that begins now.
#ifdef MUTANT_EVENT_OF_SECOND_THREAD_TRUSTED
#define runs_only_here(me) true
#else
#define runs_only_here(me) (loop_thread == (me) || loop_thread == nobody)
#endif
#ifdef MUTANT_QUEUED_EVENT_TRUSTED
#define has_queued_event false
#else
#define has_queued_event is_object_queued
#endif
#if !LEVELS
#define may_be_stale(s, channels, me)                                                              \
    (is_attached[s] &&                                                                             \
     (!runs_only_here(me) || has_queued_event ||                                                   \
      (((channels) & bit(read_channel)) != 0 && waker[at(s, read_channel)] == firing) ||           \
      (((channels) & bit(write_channel)) != 0 && waker[at(s, write_channel)] == firing) ||         \
      (((channels) & bit(edge_channel)) != 0 && waker[at(s, edge_channel)] == firing)))
#endif

#define is_one_way(want) ((want) == readable || (want) == writable)
#define direction_of(want) ((want) == writable -> write_channel : read_channel)
#define unconsumed(s) (flags[s] & ~consumed[s])
#define knows_empty(s, want)                                                                       \
    ((channels_of((want) & pollable) & ~would_block[s]) == 0 && ((want) & beyond) == 0)
#define is_known_empty(s, want)                                                                    \
    ((would_block[s] & bit(direction_of(want))) != 0 &&                                            \
     (flags[s] & ((want) | closing)) == 0)
#define is_plain(w) (!is_call[w] && !is_slot[w]) // purpose::wait
#define is_exact(w) (!EDGE && !is_call[w])
#define is_pending_in(s, w) (stage[w] == pending && state_of[w] == (s))

/// The interests of all that is pending, into h_wanted.
inline want_of_queue(s) {
    h_wanted = 0;
    for (i : 0 .. WAITS - 1) {
        if
        :: is_pending_in(s, i) -> h_wanted = h_wanted | want_of[i]
        :: else
        fi
    };
    skip
}

/// The only pending operation, or none.
inline only_pending(s, w) {
    w = none;
    for (i : 0 .. WAITS - 1) {
        if
        :: is_pending_in(s, i) -> w = (w == none -> i : none - 1)
        :: else
        fi
    }
    if
    :: w == none - 1 -> w = none
    :: else
    fi
}

// ---- readiness_word -----------------------------------------------------------------------------

inline advance(s, r) {
#if TICKS
    if
    :: ((r) & read_stream) != 0 -> tick_read[s]++
    :: else
    fi;
    if
    :: ((r) & write_stream) != 0 -> tick_write[s]++
    :: else
    fi;
    if
    :: ((r) & priority) != 0 -> tick_priority[s]++
    :: else
    fi;
    if
    :: ((r) & error) != 0 -> tick_error[s]++
    :: else
    fi
#else
    skip
#endif
}

/// restart(): each registration begins at a tick of its own, far from the others.
inline restart_ticks(s) {
#if TICKS && !defined(MUTANT_TICKS_START_AT_ZERO)
    assert(registrations < 8); // otherwise the numbers are not far enough from each other
    tick_read[s] = 32 * generation[s];
    tick_write[s] = 32 * generation[s];
    tick_priority[s] = 32 * generation[s];
    tick_error[s] = 32 * generation[s]
#else
    skip // (The mutant's ticks go on.)
#endif
}

inline note_news(s, r) {
    consumed[s] = consumed[s] & ~(r);
    if
    :: ((r) & error) != 0 -> reader_knows[s] = false; writer_knows[s] = false
    :: else
    fi;
    advance(s, r)
}

inline word_set(s, r) {
    flags[s] = flags[s] | (r);
    note_news(s, r)
}

inline word_forget(s, asked) {
    flags[s] = flags[s] & ~(asked)
}

inline word_observe(s, asked, seen) {
    h_r = (seen) & ~flags[s]; // what was cached already is no news
    note_found(h_r);
    flags[s] = (flags[s] & ~(asked)) | (seen);
#if TICKS
    known_closed[s] = known_closed[s] | ((seen) & sticky);
#endif
    note_news(s, h_r)
}

inline word_consume(s, r) {
#ifndef MUTANT_NOT_CONSUMED
    consumed[s] = consumed[s] | ((r) & flags[s]);
#endif
    reader_knows[s] = reader_knows[s] || ((r) & readable) != 0;
    writer_knows[s] = writer_knows[s] || ((r) & writable) != 0
}

/// news(), into h_r.
inline word_news(s, want) {
    h_r = unconsumed(s) & (want);
    if
    :: (flags[s] & closing) != 0 ->
#if !TOLD_ONCE
        h_r = h_r | (flags[s] & (want) & closing);
#endif
        if
        :: ((want) & readable) != 0 &&
               ((flags[s] & read_closed) != 0 || ((flags[s] & error) != 0 && !reader_knows[s])) ->
            h_r = h_r | readable
        :: else
        fi;
        if
        :: ((want) & writable) != 0 &&
               ((flags[s] & write_closed) != 0 || ((flags[s] & error) != 0 && !writer_knows[s])) ->
            h_r = h_r | writable
        :: else
        fi
    :: else
    fi
}

/// What has had no event since these ticks.
#define all_flags (read_stream | write_stream | priority | error)
#ifdef MUTANT_CLEAR_IGNORES_TICKS
#define unchanged(s, r, w, p, e) all_flags
#elif defined(MUTANT_ONE_TICK_FOR_BOTH_DIRECTIONS)
#define unchanged(s, r, w, p, e) ((r) == tick_read[s] -> all_flags : 0)
#elif defined(MUTANT_ERROR_IN_THE_STREAM_OF_READERS)
#define unchanged(s, r, w, p, e)                                                                   \
    (((r) == tick_read[s] && (e) == tick_error[s] -> read_stream | error : 0) |                    \
     ((w) == tick_write[s] -> write_stream : 0) | ((p) == tick_priority[s] -> priority : 0))
#else
#define unchanged(s, r, w, p, e)                                                                   \
    (((r) == tick_read[s] -> read_stream : 0) | ((w) == tick_write[s] -> write_stream : 0) |       \
     ((p) == tick_priority[s] -> priority : 0) | ((e) == tick_error[s] -> error : 0))
#endif

/// The interest of those that hear of an event for `want`: readers and writers learn of an error.
#ifdef MUTANT_ERROR_IS_OLD_FOR_WRITERS
#define hears(want) ((want) | (((want) & read_stream) != 0 -> error : 0))
#else
#define hears(want) ((want) == priority -> priority : (want) | error)
#endif
#define is_newer(s, w, want)                                                                       \
    ((hears(want) &                                                                                \
      ~unchanged(s, stamp_read[w], stamp_write[w], stamp_priority[w], stamp_error[w])) != 0)

/// clear(): drops `ready`, but nothing newer than the ticks, and no closed side.
inline word_clear(s, ready, of_r, of_w, of_p, of_e) {
#ifdef MUTANT_CLEAR_DROPS_CLOSING
    flags[s] = flags[s] & ~(((ready) | closing) & unchanged(s, of_r, of_w, of_p, of_e))
#else
    flags[s] = flags[s] & ~((ready) & unchanged(s, of_r, of_w, of_p, of_e) & ~sticky)
#endif
}

inline word_give_back(s, w) {
    h_same = unchanged(s, stamp_read[w], stamp_write[w], stamp_priority[w], stamp_error[w]);
    consumed[s] = consumed[s] & ~(event_of[w] & h_same);
    if
    :: (h_same & error) != 0 -> // otherwise they know of a newer one, or are to be told
        reader_knows[s] = reader_knows[s] && (event_of[w] & readable) == 0;
        writer_knows[s] = writer_knows[s] && (event_of[w] & writable) == 0
    :: else
    fi
}

// ---- unverified_events --------------------------------------------------------------------------

#define is_unverified(s, c) ((unverified_next[s] & (bit(c) | always)) != 0)

inline verified(s, c) {
    if
    :: (unverified_second[s] & bit(c)) != 0 ->
        unverified_second[s] = unverified_second[s] & ~bit(c)
    :: else -> unverified_next[s] = unverified_next[s] & ~bit(c)
    fi
}

// ---- handle_readiness ---------------------------------------------------------------------------

/// make_event(), for an operation.
inline make_event(s, w, r) {
    event_of[w] = r;
#if TICKS
    stamp_read[w] = tick_read[s];
    stamp_write[w] = tick_write[s];
    stamp_priority[w] = tick_priority[s];
    stamp_error[w] = tick_error[s];
#endif
}

/// check(): one poll(2), under the lock.
inline check(s, want, found, result) {
    poll_now(to_poll_events(want) | pollrdhup, found, result);
    if
    :: result == ok ->
        h = from_poll_events(found); // (Spin wants short arguments)
        word_observe(s, (want) | closing, h)
    :: else
    fi
}

/// check_changes(), for a file that may tell a change once: a step for each poll(2), until two
/// answers are equal. `changed`: whether a tick has advanced. (Four answers are more than there are
/// events here.)
inline check_changes(s, found, result, changed) {
    d_step {
        changed = false;
        poll_now(to_poll_events(pollable | beyond), found, result)
    }
    do
    :: result == ok && found != 0 ->
        d_step {
            poll_now(to_poll_events(pollable | beyond), h, result);
            h_told = from_poll_events(h);
            word_observe(s, 0, h_told);
            changed = changed || h_r != 0;
            h_r = from_poll_events(found) & ~h_told;
            if
            :: h_r != 0 -> word_set(s, h_r); changed = true
            :: else
            fi;
            found = (h == found -> 0 : h)
        };
        skip
    :: else -> break
    od;
    found = 0
}

/// news_for(): a change is noted as a priority event if no wait is for an error.
#if TOLD_ONCE
#define news_for(w) (want_of[w] | ((want_of[w] & error) != 0 -> priority : 0))
#else
#define news_for(w) want_of[w]
#endif

/// satisfied(), into h_r.
inline satisfied(s, w) {
    if
    :: is_refused[w] && !is_newer(s, w, news_for(w)) -> h_r = 0
#if TOLD_ONCE && !defined(MUTANT_CALL_MADE_FOR_THE_CACHE_ONLY)
    :: is_refused[w] && is_newer(s, w, news_for(w)) && is_call[w] -> h_r = want_of[w]
    :: else ->
#else
    :: else ->
#endif
        if
        :: EDGE && is_plain(w) -> word_news(s, want_of[w])
        :: else -> h_r = match(flags[s], want_of[w])
        fi
    fi
}

/// note_told().
inline note_told(s, r, at_start) {
    note_told_of(s, r, at_start);
#if EDGE
    word_consume(s, r)
#elif TOLD_ONCE
    h = ((flags[s] & (r)) == 0 -> ((r) | error) : (r));
    word_forget(s, h)
#endif
}

/// drop(): an error that lasts stays, for readers and writers.
inline drop(s, ready, of_r, of_w, of_p, of_e) {
#if TOLD_ONCE || defined(MUTANT_LASTING_ERROR_DROPPED)
    word_clear(s, ready, of_r, of_w, of_p, of_e)
#else
    if
    :: (flags[s] & error) != 0 && (number == no_file || (events[number] & pollerr) != 0) ->
        word_clear(s, (ready) & ~error, of_r, of_w, of_p, of_e)
    :: else ->
        word_clear(s, ready, of_r, of_w, of_p, of_e);
        word_forget(s, error)
    fi
#endif
}

inline note_would_block_channel(s, c, ready, is_known, of_channel) {
    if
#ifndef MUTANT_WOULD_BLOCK_KEPT_BY_BOTH
    :: ((ready) & interest_of(c)) != 0 && !(is_known) -> would_block[s] = would_block[s] & ~bit(c)
#endif
    :: ((ready) & interest_of(c)) != 0 && (is_known) && (hears(of_channel) & ~h_same) == 0 ->
        would_block[s] = would_block[s] | bit(c)
    :: else
    fi
}
/// A call for both directions, or for an error, too, does not say which of them there is nothing of;
/// nor does it say anything of a file that tells a change once.
#define is_said(want) (!TOLD_ONCE && (want) != pollable && ((want) & error) == 0)

/// note_would_block(): a call for `want` that an event allowed would have blocked.
inline note_would_block(s, ready, of_r, of_w, of_p, of_e, want) {
    h_same = unchanged(s, of_r, of_w, of_p, of_e);
    note_would_block_channel(s, read_channel, ready, is_said(want), readable);
    note_would_block_channel(s, write_channel, ready, is_said(want), writable);
#if !TOLD_ONCE
    drop(s, ready, of_r, of_w, of_p, of_e)
#endif
}

// ---- wait_queue, scheduled_io -------------------------------------------------------------------

/// The operation has its event or error.
inline take(w, items) {
    stage[w] = taken;
    is_running[w] = is_call[w] || has_slot[w];
    items = items | bit(w)
}

/// `told`: what a wait that has not pended is told at the same time.
inline take_satisfied(s, items, told) {
    h_told = (told);
    for (i : 0 .. WAITS - 1) {
        if
        :: is_pending_in(s, i) ->
            satisfied(s, i);
            if
            :: h_r != 0 ->
                make_event(s, i, h_r);
                note_success(s, i);
                h_told = h_told | (is_plain(i) -> h_r : 0);
                take(i, items)
            :: else
            fi
        :: else
        fi
    }
    if
    :: h_told != 0 -> note_told(s, h_told, false)
    :: else
    fi
}

inline take_failed(s, channels, result, items) {
    for (i : 0 .. WAITS - 1) {
        if
        :: is_pending_in(s, i) && (needs(i) & (channels)) != 0 ->
            result_of[i] = result;
            event_of[i] = 0;
            take(i, items)
        :: else
        fi
    };
    skip
}

/// fail_if(), of one operation.
inline fail_pending(w, result, items) {
    result_of[w] = result;
    event_of[w] = 0;
    stage[w] = taken;
    is_running[w] = is_call[w];
    items = items | bit(w)
}

inline shut_down(s, why, items) {
    closed[s] = why;
    is_shut[s] = (why == service_closed);
#ifndef MUTANT_CLOSE_FORGETS_PENDING
    h = (closed[s] == service_closed -> gone : aborted);
    for (i : 0 .. WAITS - 1) {
        if
        :: is_pending_in(s, i) ->
            fail_pending(i, h, items)
        :: else
        fi
    };
    skip
#endif
}

/// Posts operations that were taken; their work was counted.
inline post_operations(items) {
    for (i : 0 .. WAITS - 1) {
        if
        :: ((items) & bit(i)) != 0 -> post_counted(operation_item(i))
        :: else
        fi
    };
    skip
}

inline unlock(s) {
    check_invariants(s);
    is_locked[s] = false
}

/// complete_satisfied(), after a check for one operation, which is told `told`: a change that is told
/// once is told to all.
inline tell_others(s, items, told) {
#ifndef MUTANT_CHANGE_TOLD_TO_ONE_ONLY
    items = 0;
    take_satisfied(s, items, told);
    post_operations(items);
    items = 0
#else
    if
    :: (told) != 0 -> note_told(s, told, false)
    :: else
    fi
#endif
}

/// intrusive_ptr_release(): the last one recycles the state.
inline release(s) {
    require(no_use_after_free, is_alive[s] && references[s] > 0);
    references[s]--;
    if
    :: references[s] == 0 ->
        is_alive[s] = false;
#if LEVELS
        set_mask[s] = 0; // release_data()
        set_ready[s] = false;
#endif
        require(no_use_after_free, are_idle(s) && !is_attached[s])
    :: else
    fi
}

/// service_core::open() and scheduled_io::open(), of the number, in a state that is free.
inline open_registration() {
    if
    :: !is_alive[0] -> registration = 0
    :: else -> registration = STATES - 1
    fi;
    assert(!is_alive[registration]);
    registrations++;
    generation[registration] = registrations;
    is_alive[registration] = true;
    references[registration] = 1;
    closed[registration] = still_open;
    file_of[registration] = number;
    idle_events[registration] = 0;
    would_block[registration] = 0;
    flags[registration] = 0;
    restart_ticks(registration);
    known_closed[registration] = 0;
    is_shut[registration] = false;
#if LEVELS
    open_sources(registration);
#endif
    note_registered()
}

// ---- handle_wakers ------------------------------------------------------------------------------

inline come_back(s, c, owed) {
    waker[at(s, c)] = idle;
#ifdef MUTANT_PREPAID_UNIT_MADE_UP_FOR
    owed = 1
#else
    owed = (is_prepaid[at(s, c)] -> 0 : 1)
#endif
}

inline prepay(s, c) {
    if
    :: !is_idle(s, c) && !is_prepaid[at(s, c)] -> is_prepaid[at(s, c)] = true; work_started()
    :: else
    fi
}

/// settle(): a balance below zero is made up by compensating_work_started().
inline settle(balance, private_work) {
    if
    :: balance < 0 ->
#ifndef MUTANT_NOT_COMPENSATED
        private_work++;
#endif
        balance = 0
    :: else
    fi;
    do
    :: balance > 0 -> work_finished(); balance--
    :: else -> break
    od;
    skip
}

/// The next idle waker of `mask`, from channel ac on.
inline find_idle(s, mask, ac) {
    do
    :: ac < 3 && (((mask) & bit(ac)) == 0 || !is_idle(s, ac)) -> ac++
    :: else -> break
    od;
    skip
}
