// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The ghosts that know whether the properties hold, and the checks. Nothing of Moor or Asio reads a
// ghost.

bool was_due[WAITS]; // level: the event was there at some time since the operation began
byte untold = 0;     // edge, told once: what has come since a wait was told
#if EDGE && LEVELS
byte news = 0;       // of what has happened that no wait was told of
#elif EDGE
byte news = 0;       // of what the kernel has reported an event that no wait was told of
byte in_flight[3];   // events of a channel that were fetched, and not handled
byte remembered = 0; // the channels whose latch stands for an event: not as it begins
byte unfounded = 0;  // the channels whose waker fires for the latch as it begins
#endif
#if TOLD_ONCE
byte untold_of[WAITS];      // what has come since an operation was begun, or has made its call
#endif
byte registrations = 1;     // so far
byte generation[STATES];    // the registration that a state stands for
byte generation_of[WAITS];  // the registration that an operation was begun on
bool begun_after_close[WAITS];

/// The operations that begin, or are pending, see what is there: on the number, and on the file that
/// was registered, which a duplicate may keep in the epoll set.
inline note_level() {
    for (i : 0 .. WAITS - 1) {
        if
        :: stage[i] != over ->
            h = events[file_of[state_of[i]]] | (number == no_file -> 0 : events[number % FILES]);
            was_due[i] = was_due[i] || is_due(want_of[i], h)
        :: else
        fi
    };
    skip
}

/// What an event tells: an error or a hang-up is told to readers and writers.
#define what_tells(e)                                                                              \
    (from_poll_events(e) | ((((e) & (pollhup | pollerr)) != 0) -> pollable : 0) |                  \
     ((((e) & pollrdhup) != 0) -> readable : 0))

inline note_raised(f, e) {
    note_level();
    if
    :: number == f ->
        skip;
#if EDGE && LEVELS
        news = news | from_poll_events(e);
#endif
#if EDGE || TOLD_ONCE
        untold = untold | what_tells(e);
#endif
#if TOLD_ONCE
        for (i : 0 .. WAITS - 1) {
            untold_of[i] = untold_of[i] | (stage[i] == over -> 0 : from_poll_events(e))
        }
#endif
    :: else
    fi
}

/// The kernel reports an event, which has one more wait told: epoll_wait(2) returns it, or poll(2)
/// finds what was not cached.
inline note_fetched(e) {
#if EDGE && !LEVELS
    for (i : 0 .. 2) {
        if
        :: ((e) & (bit(i) | pollerr | pollhup)) != 0 -> in_flight[i]++; news = news | bit(i)
        :: else
        fi
    };
    skip
#else
    skip
#endif
}
inline note_found(r) {
#if EDGE && !LEVELS
    news = news | ((r) & 7)
#else
    skip
#endif
}

/// EPOLL_CTL_ADD and MOD may take away a change that is told once: a documented loss.
inline forget_untold(e) {
    h = what_tells(e);
    untold = untold & ~h;
    for (i : 0 .. WAITS - 1) {
        untold_of[i] = untold_of[i] & ~h
    };
    skip
}

/// The kernel takes changes away that the entry is not for: one for which nobody has waited so far is
/// not missed by a wait that begins later. (`untold_of` has what comes while a wait begins.)
inline forget_unwatched(e) {
    untold = untold & ~from_poll_events(e)
}

/// An edge-triggered wait has asked for closing events. It begins now: what was told to the waits
/// before it is not for this one.
inline note_begun(w) {
    untold_of[w] = untold_of[w] & from_poll_events(events[number % FILES])
}

/// A call is made on a file that tells once, and finds what has come so far.
inline note_call(want) {
#if TOLD_ONCE
    untold = untold & ~(want)
#else
    skip
#endif
}

/// A registration begins with what is there.
inline note_registered() {
#if EDGE
    untold = 0;
    if
    :: number != no_file ->
        untold = (from_poll_events(events[number]) & 7) |
                 (((events[number] & pollhup) != 0) -> pollable : 0)
    :: else
    fi
#else
    skip
#endif
}

/// Under the state's lock: an operation will complete with success.
inline note_success(s, w) {
    require(never_after_end, closed[s] == still_open && generation_of[w] == generation[s]);
#if !EDGE && !TOLD_ONCE
    require(never_early, is_call[w] || was_due[w]);
#endif
    was_due[w] = false
}

/// Under the state's lock, once for all waits that are told: they are told `r`.
/**
 * So the events of `r` are over, but for those that are handled later: fetched, on their way as a
 * waker, or latched. What a wait is told when it begins is all that was latched before.
 */
inline note_told_of(s, r, at_start) {
#if EDGE && LEVELS && DRAINS
    require(news_only, ((r) & 7 & ~news) == 0 || (flags[s] & closing) != 0);
    news = news & ~(r)
#elif EDGE && !LEVELS && !TOLD_ONCE
    require(news_only, ((r) & 7 & ~news) == 0 || (flags[s] & closing) != 0 ||
                           (number != no_file &&
                            (events[number] & (pollerr | pollhup | pollrdhup)) != 0));
    for (i : 0 .. 2) {
        if
        :: ((r) & bit(i)) != 0 && in_flight[i] == 0 &&
               !(waker[at(s, i)] == firing && (latched[s] & bit(i)) == 0) &&
               !((remembered & bit(i)) != 0 &&
                 (waker[at(s, i)] == firing || (waker[at(s, i)] == idle && !(at_start)))) ->
            news = news & ~bit(i)
        :: else
        fi
    };
    skip
#else
    skip
#endif
}

/// A handler is invoked with success: it drains the handle, so that it has seen all so far.
inline note_handled(w) {
#if TOLD_ONCE
#if RAISED & raise_change
    untold = 0 // which comes as several events
#else
    untold = untold & ~want_of[w]
#endif
#elif EDGE
    untold = untold & ~event_of[w]
#else
    skip
#endif
    ;
#if DRAINS
    if
    :: number != no_file -> events[number] = events[number] & ~(event_of[w] & pollable)
    :: else
    fi
#endif
}

/// What a wait was told is given back.
inline note_given_back(r) {
#if EDGE
    news = news | (r)
#else
    skip
#endif
}

/// Whenever a state's lock is released.
inline check_invariants(s) {
    h = 0;
    for (i : 0 .. WAITS - 1) {
        if
        :: stage[i] == pending && state_of[i] == s -> h = h | needs(i)
        :: else
        fi
    }
    require(pending_is_armed,
            h == 0 || (is_attached[s] && closed[s] == still_open && are_armed(s, h)));
#if TICKS
    require(closing_is_sticky, (flags[s] & known_closed[s]) == known_closed[s]);
#endif
    publish(s, h)
}

/// A call for both directions may be for what the other one has, and a call for an error may not see
/// it: they need not be made again.
#define has_refused_what_is(w)                                                                     \
    (is_call[w] && is_refused[w] && (want_of[w] == pollable || want_of[w] == error))

/// Whether the event of a pending operation holds.
#if TOLD_ONCE
#define is_lost(w) (((untold | untold_of[w]) & want_of[w]) != 0)
#elif EDGE
#define is_lost(w)                                                                                 \
    (!has_refused_what_is(w) &&                                                                       \
     ((is_call[w] && is_due(want_of[w], events[number])) ||                                        \
      (want_of[w] & closing & from_poll_events(events[number])) != 0 ||                            \
      ((untold & want_of[w] & 7) != 0 && is_due(want_of[w] & untold & 7, events[number]))))
#else
#define is_lost(w) (is_due(want_of[w], events[number]) && !has_refused_what_is(w))
#endif

/// When nothing can happen any more but for new events and calls.
inline check_quiet() {
    h = 0;
    for (i : 0 .. STATES - 1) {
        require(no_deadlock, !is_locked[i] && !is_reactor_locked)
    }
    for (i : 0 .. WAITS - 1) {
        if
        :: stage[i] == pending ->
            h++;
            // A number that was closed, or stands for another file now, is a documented limit.
            require(never_lost, number == no_file || file_of[state_of[i]] != number ||
                                    !is_lost(i))
        :: else -> require(completes_once, stage[i] == over) // not taken, and then forgotten
        fi
    }
    require(work_is_exact, work == h)
}

/// The registration has ended, and all is quiet.
inline check_end() {
    for (i : 0 .. WAITS - 1) {
        require(never_lost, stage[i] == over)
    }
    for (i : 0 .. STATES - 1) {
        require(no_use_after_free, !is_alive[i] && references[i] == 0)
    }
    require(work_is_exact, work == 0);
    require(armed_once, is_reactor_empty)
}
