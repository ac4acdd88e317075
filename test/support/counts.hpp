// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What must not vary is counted: system calls by link-time wrapping (the test programs are linked
// with -Wl,--wrap=...), allocations by replacing operator new. Counts are per process.
// AddressSanitizer and ThreadSanitizer bring an operator new that must stay: allocations are not
// counted beside them.

#ifndef MOOR_TEST_SUPPORT_COUNTS_HPP
#define MOOR_TEST_SUPPORT_COUNTS_HPP

#include "support/sanitizers.hpp"

#include <boost/test/unit_test.hpp>

#include <functional>

#if MOOR_TEST_ADDRESS_SANITIZER || MOOR_TEST_THREAD_SANITIZER
#define MOOR_TEST_SANITIZED_NEW
#endif

namespace test {

struct call_counts {
    long poll = 0;
    long epoll_ctl = 0;
    long epoll_wait = 0;
    long select = 0;
    long io_uring = 0; // requests handed over, and waits for what comes of them
    long fstat = 0;
    long allocations = 0;
    long flag_changes = 0; // O_NONBLOCK set or cleared

    friend call_counts operator-(const call_counts& a, const call_counts& b) {
        return {a.poll - b.poll,
                a.epoll_ctl - b.epoll_ctl,
                a.epoll_wait - b.epoll_wait,
                a.select - b.select,
                a.io_uring - b.io_uring,
                a.fstat - b.fstat,
                a.allocations - b.allocations,
                a.flag_changes - b.flag_changes};
    }

    /// How often the loop asked the kernel for events, whatever its reactor is.
    long turns() const { return epoll_wait + select + io_uring; }
};

/// The counts so far. Take two and subtract.
call_counts counts();

/// A precondition of tests that count allocations: without it they are reported as skipped.
inline boost::test_tools::assertion_result allocations_are_counted(boost::unit_test::test_unit_id) {
#if defined(MOOR_TEST_SANITIZED_NEW)
    boost::test_tools::assertion_result no(false);
    no.message() << "operator new is the sanitizer's";
    return no;
#else
    return true;
#endif
}

/// Sees what transfers through one handle from now on: read(2), send(2) and their like, whoever
/// calls them, on the handle itself, on a duplicate, or on the same terminal opened again. One at a
/// time.
class watched_transfers {
public:
    explicit watched_transfers(int fd);
    ~watched_transfers();
    watched_transfers(const watched_transfers&) = delete;
    watched_transfers& operator=(const watched_transfers&) = delete;

    /// How many there were, the failed ones too.
    long reads() const;
    long writes() const;

    /// The next n do nothing and fail with EINTR.
    void interrupt(long n);
    /// Calls f just before each. (Set it while nothing runs.)
    void before(std::function<void()> f);
};

/// Calls f behind the next poll(2) of this thread.
void after_poll_here(std::function<void()> f);

/// Calls f behind the next epoll_ctl(2) of this thread, between a change of the set and what the
/// caller does next.
void after_epoll_ctl_here(std::function<void()> f);

/// Calls f once, on the thread whose loop is the next to be given events by the kernel, before it
/// handles them. From then on nothing is called.
void before_events_are_handled(std::function<void()> f);

/// For the wrappers: a loop was given events.
void events_were_fetched();

/// How many allocations were not given back. (Where they are counted.)
long live_allocations();

/// How many descriptors are open, and a few more, always the same number. Without operator new.
long open_descriptors();

} // namespace test

#endif
