// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The epoll set of the context, with edge-triggered entries.

// The epoll set. All entries tell the same object of Asio's, the only one: see the README.
bool in_set[FILES];
bool set_out[FILES];   // the entry is for EPOLLOUT, too
bool set_ready[FILES]; // the entry is in the list of those that epoll_wait(2) reports

#define mask_of(f) (pollin | pollpri | pollerr | pollhup | (set_out[f] -> pollout : 0))
#if FILES > 1
#define is_any_ready (set_ready[0] || set_ready[1])
#else
#define is_any_ready set_ready[0]
#endif

/// EPOLL_CTL_ADD and MOD report what is there.
inline poll_entry(f) {
#if TOLD_ONCE
    // A change that is told here is not there any more when epoll_wait(2) asks: a documented loss.
    if
    :: events[f] != 0 ->
        set_ready[f] = set_ready[f] || (events[f] & mask_of(f)) != 0;
        forget_untold(events[f]);
        events[f] = 0
    :: else
    fi
#else
    if
    :: (events[f] & mask_of(f)) != 0 -> set_ready[f] = true
    :: else
    fi
#endif
}

inline epoll_add(result) {
    if
    :: number == no_file -> result = bad_descriptor
    :: else ->
        if
        :: in_set[number] -> result = registered_elsewhere
        :: else ->
            in_set[number] = true;
            set_out[number] = false;
            set_ready[number] = false;
            poll_entry(number)
        fi
    fi
}

inline epoll_mod(out, result) {
    if
    :: number == no_file -> result = bad_descriptor
    :: number != no_file && !in_set[number] -> result = bad_descriptor // ENOENT: see name_error()
    :: number != no_file && in_set[number] -> set_out[number] = out; poll_entry(number)
    fi
}

inline epoll_del() {
    if
    :: number != no_file ->
        in_set[number] = false;
        set_out[number] = false;
        set_ready[number] = false
    :: else
    fi
}

inline epoll_wait_entry(f, found) {
    if
    :: set_ready[f] ->
        set_ready[f] = false;
#if TOLD_ONCE
        forget_unwatched(events[f] & ~mask_of(f));
#endif
        poll_file(f, mask_of(f), h);
        h = h & mask_of(f);
        found = found | h
    :: else
    fi
}
inline epoll_wait(found) {
    found = 0;
    epoll_wait_entry(0, found);
#if FILES > 1
    epoll_wait_entry(1, found);
#endif
}

inline wake_sets(f, e) {
    if
    :: in_set[f] && ((e) & mask_of(f)) != 0 -> set_ready[f] = true
    :: else
    fi
}

inline close_file(f) {
    in_set[f] = false;
    set_out[f] = false;
    set_ready[f] = false
}
