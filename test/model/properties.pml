// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What must hold. A failed assertion prints the name of its property.

// Never read before they are written in the same step, so not part of the model's state.
hidden byte never_lost;           // no pending operation whose event holds, when all is quiet
hidden byte completes_once;
hidden byte never_after_end;      // nothing completes with success after its registration ended
hidden byte never_early;          // level: only for what was there at some time since the start
hidden byte news_only;            // edge: only for what no earlier wait was told of
hidden byte shutdown_is_sticky;
hidden byte closing_is_sticky;    // what the kernel said of closed sides is not forgotten
hidden byte no_use_after_free;    // the reactor's reference keeps the state alive, and is given back
hidden byte work_while_pending;   // outstanding work is not zero while an operation is under way
hidden byte work_is_exact;        // when all is quiet: one unit for each pending operation
hidden byte pending_is_armed;     // the waker of each channel that an operation needs is not idle
hidden byte armed_once;           // a waker is in one queue only
hidden byte calls_for_news_only;  // a call that would have blocked is repeated for newer events only
hidden byte no_deadlock;          // nobody waits for a lock when all is quiet
hidden byte entry_is_free;        // no entry of an earlier registration keeps a new one out

#define require(property, condition)                                                               \
    property = (condition);                                                                        \
    assert(property)
