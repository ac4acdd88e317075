// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Asio's epoll_reactor, Boost 1.81: the object of a handle.

// The pool gives the object that was freed last. So one registration after the other has this one,
// and another handle has it in between: of the schedules with two handles, those count in which the
// object goes to and fro.
bool is_object_free = true;
bool is_object_locked = false;
byte object_owner = 0;         // the state whose wakers are in its queues
byte object_queues = 0;        // op_queue_: the channels whose waker is in it
byte object_try = 0;           // try_speculative_: the latch
bool object_out = false;       // registered_events_ & EPOLLOUT
bool is_object_queued = false; // in the scheduler's queue
byte object_events = 0;        // then: task_result_
bool is_object_others = false; // another handle has it, whose file is the second one

/// perform_io(), up to the end of its lock region: fires what waits for `found`.
/**
 * reactor_op::perform() is speculate() of the waker; no thread that is here arms a waker.
 */
inline perform_io(found, s, first, others) {
    first = none;
    others = 0;
    s = object_owner;
    for (i : 0 .. 2) {
        h = 2 - i; // exceptional events first
        if
        :: (found & (bit(h) | pollerr | pollhup)) != 0 ->
#if EDGE
            in_flight[h]--;
            remembered = remembered | bit(h);
#endif
#ifdef MUTANT_EVENTS_NOT_LATCHED
            skip;
#else
            object_try = object_try | bit(h);
#endif
            if
            :: (object_queues & bit(h)) != 0 ->
                require(no_use_after_free, is_alive[s]);
                waker[at(s, h)] = firing;
                object_queues = object_queues & ~bit(h);
                object_try = object_try & ~bit(h); // done_and_exhausted
#if EDGE
                remembered = remembered & ~bit(h);
#endif
                if
                :: first == none -> first = h
                :: else -> others = others | bit(h)
                fi
            :: else
            fi
        :: else
        fi
    };
    skip
}

/// post_deferred_completions(): their work was counted.
inline post_wakers(s, channels) {
    for (i : 0 .. 2) {
        h = 2 - i;
        if
        :: ((channels) & bit(h)) != 0 -> push_item(waker_item(s, h))
        :: else
        fi
    };
    skip
}

/// cancel_ops_by_key() and deregister_descriptor(): the wakers come back with operation_aborted.
inline abort_wakers(s, channels) {
    for (i : 0 .. 2) {
        if
        :: (object_queues & (channels) & bit(i)) != 0 ->
            waker_result[at(s, i)] = aborted;
            push_item(waker_item(s, i))
        :: else
        fi
    }
    object_queues = object_queues & ~(channels)
}

/// deregister_internal_descriptor(): the wakers are dropped.
inline drop_wakers(s) {
    for (i : 0 .. 2) {
        if
        :: (object_queues & bit(i)) != 0 -> waker[at(s, i)] = idle // dropped()
        :: else
        fi
    }
    object_queues = 0
}

/// The end of start_op(), if the waker did not fire.
inline queue_waker(s, c, result) {
    result = ok;
    if
#ifndef MUTANT_NO_MOD_FOR_WRITERS
    :: c == write_channel && !object_out -> epoll_mod(true, result); object_out = (result == ok)
#endif
    :: c == read_channel && (object_queues & bit(edge_channel)) != 0 ->
        epoll_mod(object_out, result);
        result = ok // which start_op() does not check
    :: else
    fi;
    if
    :: result != ok -> waker_result[at(s, c)] = result; post_new(waker_item(s, c))
    :: else ->
        object_queues = object_queues | bit(c);
        work_started()
    fi
}

#define is_reactor_locked is_object_locked
#define is_reactor_empty (object_queues == 0)

/// shutdown()
inline shut_down_reactor(c) {
    for (c : 0 .. 2) {
        if
        :: (object_queues & bit(c)) != 0 -> dropped(object_owner, c)
        :: else
        fi
    }
    object_queues = 0
}
