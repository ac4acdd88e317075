// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Asio's scheduler, Boost 1.81, of a context that several threads may run.

chan queue = [10] of { byte };
short work = 0;            // outstanding_work_
byte underway = 0;         // ghost: operations that have to keep the loop running

inline push_item(item) {
    assert(nfull(queue)); // otherwise the bound of the queue is too small
    queue!item
}

inline work_started() { work++ }
inline work_finished() {
    work--;
    require(work_while_pending, work > 0 || (work == 0 && underway == 0))
}

/// work_started(), then the push: at zero in between, the scheduler would only stop sooner.
inline post_new(item) {
    work_started();
    push_item(item)
}
/// do_dispatch() and work_finished().
inline post_counted(item) { push_item(item) }
