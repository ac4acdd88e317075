// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// With CONFORMS: what a thread that takes a state's lock next may see of the state, in views of a few
// bits, and every step from one view to the next, for relation.h. test/conformance/trace.cpp has the
// same of the headers; the bits are explained there.

#if CONFORMS
c_decl {
    \#include "relation.h"
}

byte view_of_channel[3 * STATES];
byte view_of_cache[2 * STATES];
byte view_of_operations[2 * STATES];
byte view_of_ends[STATES];
hidden int h_c;
hidden int h_view;
hidden int h_old;
hidden int h_kind;

#define triggers_of_views ((EDGE -> 4 : 0) + (TOLD_ONCE -> 8 : 0))

/// A step to h_view, if the view is another one now.
inline publish_view(view, kind) {
    if
    :: view != h_view ->
        h_kind = kind + triggers_of_views;
        h_old = view;
        if
        :: (h_old & 1) != 0 && (h_view & 1) == 0 -> h_old = 0 // registered again
        :: else
        fi;
        c_code {
            note_step(h_kind, h_old, h_view);
        };
        view = h_view
    :: else
    fi
}

inline publish_channel(s, needed) {
    h_view = (closed[s] == still_open -> 0 : 1) + (is_attached[s] -> 2 : 0);
    if
    :: waker[at(s, h_c)] == firing -> h_view = h_view + 8
    :: waker[at(s, h_c)] == armed || waker[at(s, h_c)] == armed_asked -> h_view = h_view + 4
    :: else
    fi;
    h_view = h_view + ((!is_idle(s, h_c) && is_prepaid[at(s, h_c)]) -> 16 : 0) +
             (((needed) & bit(h_c)) != 0 -> 32 : 0) +
             ((is_attached[s] && (latched[s] & bit(h_c)) != 0) -> 64 : 0) +
             ((is_attached[s] && (unprimed[s] & bit(h_c)) != 0) -> 128 : 0);
    publish_view(view_of_channel[at(s, h_c)], 0)
}

inline publish_direction(s) {
    h_view = 1;
    if
    :: closed[s] == still_open ->
        h_view = (is_attached[s] -> 2 : 0) + ((flags[s] & bit(h_c)) != 0 -> 4 : 0) +
                 ((flags[s] & consumed[s] & bit(h_c)) != 0 -> 8 : 0) +
                 ((would_block[s] & bit(h_c)) != 0 -> 16 : 0)
    :: else
    fi;
    publish_view(view_of_cache[2 * (s) + h_c], 1);
    h_view = 1;
    if
    :: closed[s] == still_open ->
        h_view = (is_attached[s] -> 2 : 0) + (is_idle(s, h_c) -> 0 : 4) +
                 ((unconsumed(s) & bit(h_c)) != 0 -> 8 : 0)
    :: else
    fi;
    for (i : 0 .. WAITS - 1) {
        if
        :: is_pending_in(s, i) && (want_of[i] & bit(h_c)) != 0 ->
            h_view = h_view | (is_call[i] -> 64 : (is_slot[i] -> 128 : 32))
        :: else
        fi
    }
    publish_view(view_of_operations[2 * (s) + h_c], 2)
}

inline publish_ends(s) {
    h_view = 1;
    if
    :: closed[s] == still_open ->
        h_view = (is_attached[s] -> 2 : 0) + ((flags[s] & read_closed) != 0 -> 4 : 0) +
                 ((flags[s] & write_closed) != 0 -> 8 : 0) + ((flags[s] & error) != 0 -> 16 : 0)
    :: else
    fi;
    publish_view(view_of_ends[s], 3)
}

/// Whenever the lock of `s` is released. `needed`: the channels of all that is pending.
inline publish(s, needed) {
    for (h_c : 0 .. 2) {
        publish_channel(s, needed);
        if
        :: h_c != edge_channel -> publish_direction(s)
        :: else
        fi
    }
    publish_ends(s)
}
#else
#define publish(s, needed) skip
#endif
