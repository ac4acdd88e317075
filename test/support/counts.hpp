// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What must not vary is counted: system calls by link-time wrapping (the test programs are linked
// with -Wl,--wrap=...), allocations by replacing operator new. Counts are per process.

#ifndef MOOR_TEST_SUPPORT_COUNTS_HPP
#define MOOR_TEST_SUPPORT_COUNTS_HPP

namespace test {

struct call_counts {
    long poll = 0;
    long epoll_ctl = 0;
    long epoll_wait = 0;
    long select = 0;
    long fstat = 0;
    long allocations = 0;

    friend call_counts operator-(const call_counts& a, const call_counts& b) {
        return {a.poll - b.poll,     a.epoll_ctl - b.epoll_ctl, a.epoll_wait - b.epoll_wait,
                a.select - b.select, a.fstat - b.fstat,         a.allocations - b.allocations};
    }
};

/// The counts so far. Take two and subtract.
call_counts counts();

/// Makes epoll_ctl fail with this errno for this operation (EPOLL_CTL_ADD, ...). Zero: no more.
void fail_epoll_ctl(int operation, int error);

} // namespace test

#endif
