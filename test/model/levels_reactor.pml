// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The edge-triggered sets, and Asio's reactors that report levels: select_reactor, which asks for
// what is queued, and io_uring_service, where a queued operation is a request of its own.

// What is queued in the reactor: of each waker, one operation or request.
#define out 0
#define queued 1    // select: in op_queue_; io_uring: not submitted
#define submitted 2 // io_uring
#define completed 3 // the kernel has a result
#define fetched 4   // the scheduler has it, as an io_queue

byte request[3 * STATES];
byte request_result[3 * STATES]; // poll(2)'s bits; none: cancelled
byte request_file[3 * STATES];
bool is_submit_queued = false;   // pending_submit_sqes_op_

// ---- edge_set: an epoll set for each state, with one entry ---------------------------------------

byte set_mask[STATES];  // events_, with EPOLLERR and EPOLLHUP; zero: there is no set
bool set_ready[STATES]; // the entry is in the list of those that epoll_wait(2) reports
byte set_file[STATES];  // what the entry stands for
byte set_made[STATES];  // how many sets there were: a request for an earlier one does not come back

inline poll_set_entry(s) {
    h_r = events[set_file[s]] & set_mask[s];
    set_ready[s] = set_ready[s] || h_r != 0;
#if TOLD_ONCE
    if
    :: events[set_file[s]] != 0 -> // a documented loss
        forget_untold(events[set_file[s]]);
        events[set_file[s]] = 0
    :: else
    fi
#endif
}

/// watch(): EPOLL_CTL_ADD or MOD, if there is more to report.
inline watch_set(s, edges, result) {
    if
    :: (set_mask[s] & (edges)) == (edges) && set_mask[s] != 0 -> skip
    :: else ->
        if
        :: number == no_file -> result = bad_descriptor
        :: else ->
            set_file[s] = number;
            set_made[s] = set_made[s] + (set_mask[s] == 0 -> 1 : 0);
            set_mask[s] = set_mask[s] | (edges) | pollerr | pollhup;
            poll_set_entry(s)
        fi
    fi
}

/// take(): epoll_wait(2).
inline take_set(s, told) {
    told = 0;
    if
    :: set_ready[s] ->
        set_ready[s] = false;
        told = events[set_file[s]] & set_mask[s];
#if TOLD_ONCE
        forget_unwatched(events[set_file[s]] & ~set_mask[s]);
        events[set_file[s]] = 0
#endif
    :: else
    fi
}

/// Whether the set's number is readable: the kernel asks the file.
#define is_of_set(s) (request_file[at(s, edge_channel)] == set_made[s])
#if TOLD_ONCE
#define asks_of_set(s) (set_ready[s] && is_of_set(s))
#else
#define asks_of_set(s)                                                                             \
    (set_ready[s] && (events[set_file[s]] & set_mask[s]) != 0 && is_of_set(s))
#endif
/// Afterwards.
inline set_was_asked(s, is_readable) {
    is_readable = set_ready[s] && (events[set_file[s]] & set_mask[s]) != 0;
#if TOLD_ONCE
    if
    :: set_ready[s] ->
        forget_unwatched(events[set_file[s]] & ~set_mask[s]);
        events[set_file[s]] = 0
    :: else
    fi;
#endif
    set_ready[s] = is_readable
}

inline wake_sets(f, e) {
    for (i : 0 .. STATES - 1) {
        if
        :: set_file[i] == f && ((e) & set_mask[i]) != 0 -> set_ready[i] = true
        :: else
        fi
    };
    skip
}
inline close_file(f) {
    for (i : 0 .. STATES - 1) {
        if
        :: set_file[i] == f -> set_ready[i] = false; set_mask[i] = 0
        :: else
        fi
    };
    skip
}

// ---- select_reactor, io_uring_service -----------------------------------------------------------

#if !URING
byte selected = 0;               // the descriptor sets of select(2)
#endif

#define is_reactor_locked false
#define is_object_others false
#define is_any_request(state)                                                                      \
    (request[state] != out || request[state + 1] != out || request[state + 2] != out)
#if STATES > 1
#define is_reactor_empty (!is_any_request(0) && !is_any_request(3))
#else
#define is_reactor_empty (!is_any_request(0))
#endif

/// start_op()
inline start_request(s, c) {
    require(armed_once, request[at(s, c)] == out);
    request[at(s, c)] = queued;
    request_result[at(s, c)] = 0;
    request_file[at(s, c)] = (c == edge_channel -> set_made[s] : number);
    work_started();
#if URING
    if
    :: !is_submit_queued -> is_submit_queued = true; post_new(submit_item)
    :: else
    fi
#endif
}

/// cancel_ops_by_key(): a queued operation comes back with operation_aborted; a request does when the
/// kernel has cancelled it, unless it has completed before.
inline cancel_request(s, c) {
#if URING
    if
    :: request[at(s, c)] != out ->
        if
        :: request[at(s, c)] == queued || request[at(s, c)] == submitted ->
            request[at(s, c)] = submitted;
            request_result[at(s, c)] = none
        :: else
        fi
    :: else
    fi
#else
    if
    :: request[at(s, c)] == queued ->
        request[at(s, c)] = out;
        waker_result[at(s, c)] = aborted;
        push_item(waker_item(s, c))
    :: else
    fi
#endif
}

#if URING
/// What a request for the channel completes for: the kernel adds POLLRDHUP.
#define request_mask(c)                                                                            \
    (((c) == read_channel -> pollin : pollout) | pollerr | pollhup | pollrdhup)
#define is_of_no_file(s, c) ((c) != edge_channel && request_file[at(s, c)] == no_file)
#define is_request_due(s, c)                                                                       \
    (request[at(s, c)] == submitted &&                                                             \
     (request_result[at(s, c)] == none || is_of_no_file(s, c) ||                         \
      ((c) == edge_channel -> asks_of_set(s) :                                                     \
                              (events[request_file[at(s, c)] % FILES] & request_mask(c)) != 0)))
#define is_any_completed(state)                                                                    \
    (request[state] == completed || request[state + 1] == completed ||                             \
     request[state + 2] == completed)
#if STATES > 1
#define is_any_ready (is_any_completed(0) || is_any_completed(3))
#else
#define is_any_ready is_any_completed(0)
#endif

inline complete_request(s, c) {
    if
    :: request_result[at(s, c)] == none -> request[at(s, c)] = completed // cancelled
    :: request_result[at(s, c)] != none && is_of_no_file(s, c) -> // EBADF
        request_result[at(s, c)] = failed;
        request[at(s, c)] = completed
    :: request_result[at(s, c)] != none && c == edge_channel ->
        set_was_asked(s, request_result[at(s, c)]);
        request[at(s, c)] = (request_result[at(s, c)] != 0 -> completed : submitted)
    :: else ->
        request_result[at(s, c)] = events[request_file[at(s, c)] % FILES] & request_mask(c);
        request[at(s, c)] = completed
    fi
}
#else
// The bits of a descriptor set: the number for reading and for writing, and a set for each state.
#define select_read 1
#define select_write 2
#define select_set(s) (4 << (s))
#if STATES > 1
#define queued_bits                                                                                \
    ((request[0] == queued || request[3] == queued -> select_read : 0) |                           \
     (request[1] == queued || request[4] == queued -> select_write : 0) |                          \
     (request[2] == queued -> select_set(0) : 0) | (request[5] == queued -> select_set(1) : 0))
#define asked_sets                                                                                 \
    ((asks_of_set(0) -> select_set(0) : 0) | (asks_of_set(1) -> select_set(1) : 0))
#else
#define queued_bits                                                                                \
    ((request[0] == queued -> select_read : 0) | (request[1] == queued -> select_write : 0) |      \
     (request[2] == queued -> select_set(0) : 0))
#define asked_sets (asks_of_set(0) -> select_set(0) : 0)
#endif
#define number_events (number == no_file -> 0 : events[number % FILES])
#define ready_bits                                                                                 \
    (((number_events & (pollin | pollerr | pollhup)) != 0 -> select_read : 0) |                    \
     ((number_events & (pollout | pollerr)) != 0 -> select_write : 0) | asked_sets)

/// select(2) has returned: its answer.
inline answer_select(asked, found) {
    found = (asked) & ready_bits;
    for (i : 0 .. STATES - 1) {
        if
        :: ((asked) & select_set(i)) != 0 && is_of_set(i) ->
            set_was_asked(i, h);
            found = (found & ~select_set(i)) | (h != 0 -> select_set(i) : 0)
        :: else
        fi
    };
    skip
}

/// perform_operations(): fires what is queued now.
inline perform_queued(found) {
    for (i : 0 .. 3 * STATES - 1) {
        h = 2 - (i % 3);
        h_r = i - (i % 3) + h;
        h_told = (h == write_channel -> select_write : select_read);
        h_told = (h == edge_channel -> select_set(i / 3) : h_told);
        if
        :: (found & h_told) != 0 && request[h_r] == queued ->
            request[h_r] = out;
            waker[h_r] = firing;
            push_item(waker_item(0, 0) + h_r)
        :: else
        fi
    };
    skip
}
#endif

/// shutdown()
inline shut_down_reactor(c) {
    for (c : 0 .. 3 * STATES - 1) {
        if
        :: request[c] != out -> request[c] = out; dropped(c / 3, c % 3)
        :: else
        fi
    };
    skip
}
