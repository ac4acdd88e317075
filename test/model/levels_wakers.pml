// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The wakers where the reactor reports levels: an armed waker is a request. Where edges come from.

#ifndef DIRECT_INTERVAL
#define DIRECT_INTERVAL 2 // 127 in the headers
#endif
#ifndef SET_INTERVAL
#define SET_INTERVAL 1 // 31
#endif
#ifndef ENOUGH
#define ENOUGH 2 // 4
#endif
#ifndef MAX_UNASKED
#define MAX_UNASKED 2 // 127
#endif

byte channels_needed[WAITS];    // channels_
byte unasked_left[STATES];
bool source_is_set[2 * STATES]; // edge_source
byte source_left[2 * STATES];
byte source_streak[2 * STATES];

#define source(s, c) (2 * (s) + (c))

inline open_sources(s) {
    unasked_left[s] = 0;
    for (i : 2 * (s) .. 2 * (s) + 1) {
        source_is_set[i] = (EDGE != 0);
        source_left[i] = 0;
        source_streak[i] = 0
    };
#if JOBS & job_poll_io
    slot_refused[s] = 0
#else
    skip
#endif
}

/// use_set()
inline use_set(k) {
    source_is_set[k] = true;
    source_streak[k] = 0;
    source_left[k] = SET_INTERVAL
}

/// checked()
inline source_checked(k, is_drained) {
    if
    :: !(is_drained) -> use_set(k)
    :: else ->
        if
        :: source_is_set[k] -> source_streak[k]++
        :: else
        fi;
        if
        :: source_is_set[k] && source_streak[k] != ENOUGH -> source_left[k] = 0
        :: else ->
            source_is_set[k] = false;
            source_streak[k] = 0;
            source_left[k] = DIRECT_INTERVAL
        fi
    fi
}

/// note_refused(): a call that would block was made although there was no news. (A direction has the
/// bit of its interest.)
#if JOBS & job_poll_io
byte slot_refused[STATES]; // is_slot_refused_
#define was_refused(s, w) (is_slot[w] -> (slot_refused[s] & want_of[w]) != 0 : is_refused[w])
#else
#define was_refused(s, w) is_refused[w]
#endif
inline note_refused(s, w) {
    h_must = was_refused(s, w);
#if JOBS & job_poll_io
    slot_refused[s] = slot_refused[s] | (is_slot[w] -> want_of[w] : 0);
#endif
    for (i : 0 .. 1) {
        if
        :: h_must && (want_of[w] & bit(i)) != 0 ->
            use_set(source(s, i))
        :: else
        fi
    };
    skip
}

#ifdef MUTANT_SET_CLOSED_WHILE_ARMED
#define may_leave_edges(s) true
#else
#define may_leave_edges(s) is_idle(s, edge_channel)
#endif
/// is_set_shared()
#define event_of_direction(c) ((c) == read_channel -> pollin : pollout)
#define is_set_shared(s, c)                                                                        \
    (!may_leave_edges(s) ||                                                                        \
     (source_is_set[source(s, 1 - (c))] && are_watched(s, event_of_direction(1 - (c)))))

#define are_any_armed(s, channels) (((channels) & armed_channels(s)) != 0)
#ifdef MUTANT_REQUEST_TRUSTED
#define may_be_stale(s, channels, me) false
#else
#define may_be_stale(s, channels, me) are_any_armed(s, channels)
#endif

#define hears_edges(w) (EDGE || is_call[w] || is_refused[w])
#define hears_of_set(s, w, c)                                                                      \
    ((channels_of(want_of[w]) & bit(c)) != 0 && hears_edges(w) && source_is_set[source(s, c)])

/// channels_for()
#if TOLD_ONCE
#define channels_for(s, w) bit(edge_channel)
#elif URING
#define writes_by_set(s, w)                                                                        \
    ((channels_of(want_of[w]) & bit(write_channel)) != 0 && !hears_of_set(s, w, write_channel) &&  \
     (flags[s] & read_closed) != 0)
#define channels_for(s, w)                                                                         \
    ((channels_of(want_of[w]) & ~(hears_of_set(s, w, read_channel) -> bit(read_channel) : 0) &     \
      ~(hears_of_set(s, w, write_channel) || writes_by_set(s, w) -> bit(write_channel) : 0)) |     \
     (hears_of_set(s, w, read_channel) || hears_of_set(s, w, write_channel) ||                     \
              writes_by_set(s, w) ->                                                               \
          bit(edge_channel) :                                                                      \
          0))
#else
#ifdef MUTANT_HANG_UP_OF_WRITER_MISSED
#define writes_beside_set(s, w) false
#else
#define writes_beside_set(s, w)                                                                    \
    ((channels_of(want_of[w]) & bit(write_channel)) != 0 && !hears_of_set(s, w, write_channel))
#endif
#define channels_for(s, w)                                                                         \
    ((channels_of(want_of[w]) & ~(hears_of_set(s, w, read_channel) -> bit(read_channel) : 0) &     \
      ~(hears_of_set(s, w, write_channel) -> bit(write_channel) : 0)) |                            \
     (hears_of_set(s, w, read_channel) || hears_of_set(s, w, write_channel) ||                     \
              writes_beside_set(s, w) ->                                                           \
          bit(edge_channel) :                                                                      \
          0))
#endif

/// edges_for()
#define edges_of(w, c, event)                                                                      \
    ((channels_of(want_of[w]) & bit(c)) != 0 && (needs(w) & bit(c)) == 0 -> (event) : 0)
#if TOLD_ONCE
#define edges_for(w)                                                                               \
    (pollpri | pollrdhup | ((want_of[w] & pollable) != 0 -> pollin | pollout : 0))
#else
#define edges_for(w)                                                                               \
    (pollpri | pollrdhup | edges_of(w, read_channel, pollin) |                                     \
     edges_of(w, write_channel, pollout))
#endif
#define are_watched(s, edges) (set_mask[s] != 0 && (set_mask[s] & (edges)) == (edges))

/// arm_all(). Two steps a waker: start_op() and finish_arming(). Sets `units`, and uses `ac`.
inline arm_all(s, mask, units) {
    d_step {
        units = 0;
        ac = 0;
        find_idle(s, mask, ac)
    }
    do
    :: ac < 3 ->
        d_step {
            require(no_use_after_free, is_alive[s]);
            is_prepaid[at(s, ac)] = false;
            waker[at(s, ac)] = armed;
            start_request(s, ac)
        }
        d_step {
            is_prepaid[at(s, ac)] = (waker[at(s, ac)] == firing);
            units = units + (is_prepaid[at(s, ac)] -> 0 : 1);
            ac++;
            find_idle(s, mask, ac)
        }
    :: ac == 3 -> break
    od;
    ac = 0 // (Spin lets no loop end at a d_step)
}

/// attach(): the reactor is not told.
inline attach(s, is_alone) {
    was_firing = armed_channels(s);
#ifndef MUTANT_NO_REFERENCE_OF_THE_REACTOR
    if
    :: was_firing == 0 -> references[s]++
    :: else
    fi;
#endif
    is_attached[s] = true;
    idle_events[s] = 0;
    // unverified_events::attached(), and may_tell_of_older()
#if URING || defined(MUTANT_OLDER_EVENTS_TRUSTED)
    h = 0;
#else
    h = (is_alone -> 0 : 1);
#endif
    unverified_next[s] = (h != 0 -> always - 1 : was_firing);
    unverified_second[s] = (h != 0 -> was_firing : 0);
    was_firing = 0
}

/// detach(): the armed wakers are cancelled, and come back later.
inline detach(s, ours, is_alone) {
    if
    :: is_attached[s] ->
        d_step {
            prepay(s, read_channel);
            prepay(s, write_channel);
            prepay(s, edge_channel);
            cancel_request(s, read_channel);
            cancel_request(s, write_channel);
            cancel_request(s, edge_channel);
            is_attached[s] = false;
            if
#ifdef MUTANT_REFERENCE_DROPPED_EARLY
            :: !is_held[s] -> release(s)
#else
            :: !is_held[s] && are_idle(s) -> release(s)
#endif
            :: else
            fi
        }
    :: else
    fi
}
