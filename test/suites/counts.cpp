// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a wait costs in the steady state: system calls and allocations, counted; and the size of an
// idle registration.

// The checks of MOOR_CHECK_USE make calls of their own.
#undef MOOR_CHECK_USE

#include "support/counts.hpp"

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"

#include <moor.hpp>

#include <boost/asio/detail/config.hpp>
#include <boost/asio/version.hpp>

#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

BOOST_AUTO_TEST_SUITE(counts)

namespace asio = boost::asio;
using boost::unit_test::precondition;
using moor::interest;
using moor::trigger;
using test::call_counts;
using test::error_code;

// What Moor may keep for a handle, beyond what Asio's reactor keeps. (On io_uring a waker carries
// an io_uring_operation and the state holds Asio's per_io_object_data.)
#if defined(BOOST_ASIO_HAS_EPOLL)
static_assert(sizeof(moor::detail::scheduled_io) <= 384, "an idle registration's state");
#endif

using concrete = moor::basic_registration<asio::io_context::executor_type>;

/// One handle with a wait in a loop: each round starts a wait, writes a byte, and runs until the
/// wait is over. What the reads do is up to `after`.
template <class Registration>
struct loop {
    asio::io_context& io;
    Registration& reg;
    test::fd_pair& p;
    int rounds = 0;
    int target = 0;

    /// Waits for readability `n` times, the next wait started by the handler, as programs do.
    template <class After>
    call_counts run(int n, After after) {
        target = rounds + n;
        call_counts before = test::counts();
        wait(after);
        while (rounds != target) {
            test::put(p.b, "x");
            int now = rounds;
            while (rounds == now) {
                if (io.stopped())
                    io.restart();
                BOOST_REQUIRE(io.run_one_for(test::cap) == 1);
            }
        }
        return test::counts() - before;
    }

private:
    template <class After>
    void wait(After& after) {
        reg.async_wait_readable([this, &after](error_code ec) {
            BOOST_REQUIRE(!ec);
            after();
            if (++rounds != target)
                wait(after);
        });
    }
};

template <class Registration>
void read_exactly(Registration& reg, test::fd_pair& p) {
    char c;
    BOOST_REQUIRE_EQUAL(::read(p.a, &c, 1), 1);
    (void)reg;
}

template <class Registration>
void read_to_would_block(Registration& reg, test::fd_pair& p) {
    for (;;) {
        auto r = reg.try_io(interest::readable, [&](error_code& ec) {
            char c;
            ::ssize_t n = ::read(p.a, &c, 1);
            if (n < 0)
                ec = test::last_error();
            return n;
        });
        if (!r)
            return;
    }
}

/// The checks of the file with poll(2) that a hundred waits may need in the steady state, where the
/// reactor reports levels: the request that a wait makes is how the kernel is asked. On io_uring,
/// urgent data wakes those who wait for other data of TCP, and before Boost 1.82 a request may be
/// completed for nothing.
long checks_of_a_hundred_requests(bool is_tcp) {
    if (test::on_io_uring())
        return BOOST_ASIO_VERSION < 102700 ? 200 : is_tcp ? 100 : 1;
    return 1;
}

struct handles {
    test::fd_pair pipe = test::make_pipe();
    test::fd_pair sockets = test::make_socketpair();
    test::fd_pair tcp = test::make_tcp_pair();
    std::vector<test::fd_pair*> all{&pipe, &sockets, &tcp};
};

BOOST_AUTO_TEST_CASE(every_kind_of_new_is_counted, *precondition(test::allocations_are_counted)) {
    constexpr std::align_val_t align{128};
    long before = test::counts().allocations;
    // The functions, since a compiler may do without a new-expression.
    ::operator delete(::operator new(1));
    ::operator delete[](::operator new[](1));
    ::operator delete(::operator new(1, std::nothrow), std::nothrow);
    ::operator delete[](::operator new[](1, std::nothrow), std::nothrow);
    void* p = ::operator new(1, align);
    bool is_aligned = reinterpret_cast<std::uintptr_t>(p) % 128 == 0;
    ::operator delete(p, align);
    ::operator delete[](::operator new[](1, align), align);
    ::operator delete(::operator new(1, align, std::nothrow), align, std::nothrow);
    ::operator delete[](::operator new[](1, align, std::nothrow), align, std::nothrow);
    BOOST_TEST(test::counts().allocations - before == 8);
    BOOST_TEST(is_aligned);
}

BOOST_FIXTURE_TEST_CASE(an_edge_wait_costs_no_epoll_ctl_and_no_poll, test::context_fixture) {
    handles h;
    for (test::fd_pair* p : h.all) {
        concrete reg(io, p->a.get(), trigger::edge);
        loop<concrete> l{io, reg, *p};
        auto after = [&] { read_exactly(reg, *p); };
        l.run(10, after);
        call_counts c = l.run(100, after);
        if (test::on_epoll())
            BOOST_TEST(c.epoll_ctl == 0);
        BOOST_TEST(c.poll <= (test::on_epoll() ? 0 : checks_of_a_hundred_requests(p == &h.tcp)));
    }
}

BOOST_FIXTURE_TEST_CASE(edge_waits_keep_no_descriptor_while_they_find_the_handle_drained,
                        test::context_fixture) {
    handles h;
    for (test::fd_pair* p : h.all) {
        concrete reg(io, p->a.get(), trigger::edge);
        loop<concrete> l{io, reg, *p};
        const long before = test::open_descriptors();
        l.run(10, [&] { read_exactly(reg, *p); });
        BOOST_TEST(test::open_descriptors() == before);
    }
}

BOOST_FIXTURE_TEST_CASE(a_level_wait_after_would_block_costs_no_epoll_ctl_and_no_poll,
                        test::context_fixture) {
    handles h;
    for (test::fd_pair* p : h.all) {
        concrete reg(io, p->a.get());
        loop<concrete> l{io, reg, *p};
        auto after = [&] { read_to_would_block(reg, *p); };
        l.run(10, after);
        call_counts c = l.run(100, after);
        BOOST_TEST(c.epoll_ctl == 0);
        if (test::on_epoll())
            BOOST_TEST(c.poll == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(a_level_wait_costs_at_most_one_poll, test::context_fixture) {
    handles h;
    for (test::fd_pair* p : h.all) {
        concrete reg(io, p->a.get());
        loop<concrete> l{io, reg, *p};
        auto after = [&] { read_exactly(reg, *p); };
        l.run(10, after);
        call_counts c = l.run(100, after);
        BOOST_TEST(c.epoll_ctl == 0);
        BOOST_TEST(c.poll <= (test::on_epoll() ? 100 : checks_of_a_hundred_requests(p == &h.tcp)));
    }
}

BOOST_FIXTURE_TEST_CASE(a_ready_level_wait_costs_one_poll_and_an_edge_one_none_more,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::put(p.b, "x");
    concrete reg(io, p.a.get());
    for (int i = 0; i != 10; ++i) {
        test::called done;
        call_counts before = test::counts();
        reg.async_wait_readable(done.handler());
        call_counts c = test::counts() - before;
        BOOST_TEST(c.poll == 1);
        BOOST_TEST(c.epoll_ctl == 0);
        BOOST_TEST(c.fstat == 0);
        test::run_all(io);
    }
}

BOOST_FIXTURE_TEST_CASE(registering_costs_nothing_but_a_look_at_the_handle, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    concrete warm(io, p.b.get());
    call_counts before = test::counts();
    concrete reg(io, p.a.get());
    call_counts c = test::counts() - before;
    BOOST_TEST(c.epoll_ctl == 0); // the reactor is told at the first wait that waits
    BOOST_TEST(c.poll == 0);
    BOOST_TEST(c.fstat == 1);
}

BOOST_FIXTURE_TEST_CASE(registering_again_allocates_nothing, test::context_fixture,
                        *precondition(test::allocations_are_counted)) {
    test::fd_pair p = test::make_pipe();
    {
        concrete reg(io, p.a.get());
        test::called done;
        reg.async_wait_readable(done.handler());
        reg.cancel();
        test::run_all(io);
    }
    test::run_ready(io); // select's wakers come home through the scheduler
    call_counts before = test::counts();
    for (int i = 0; i != 100; ++i)
        concrete reg(io, p.a.get());
    BOOST_TEST((test::counts() - before).allocations == 0);
}

BOOST_FIXTURE_TEST_CASE(a_wait_allocates_nothing, test::context_fixture,
                        *precondition(test::allocations_are_counted)) {
    for (trigger mode : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_pipe();
        concrete reg(io, p.a.get(), mode);
        loop<concrete> l{io, reg, p};
        auto after = [&] { read_to_would_block(reg, p); };
        l.run(100, after);
        call_counts c = l.run(100, after);
        BOOST_TEST(c.allocations == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(a_wait_on_a_type_erased_executor_allocates_nothing, test::context_fixture,
                        *precondition(test::allocations_are_counted)) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    loop<moor::registration> l{io, reg, p};
    auto after = [&] { read_to_would_block(reg, p); };
    l.run(100, after);
    BOOST_TEST(l.run(100, after).allocations == 0);
}

template <class Registration>
call_counts hundred_async_ios(asio::io_context& io, Registration& reg, test::fd_pair& p) {
    int rounds = 0;
    call_counts before;
    while (rounds != 110) {
        if (rounds == 10)
            before = test::counts();
        bool done = false;
        reg.async_io(
            interest::readable,
            [&](error_code& ec) {
                char c;
                ::ssize_t n = ::read(p.a, &c, 1);
                if (n < 0)
                    ec = test::last_error();
                return n;
            },
            [&](error_code ec, ::ssize_t n) {
                BOOST_REQUIRE(!ec);
                BOOST_REQUIRE_EQUAL(n, 1);
                done = true;
            });
        if (rounds % 2)
            test::put(p.b, "x"); // there before the loop runs
        if (io.stopped())
            io.restart();
        io.poll();
        if (!done)
            test::put(p.b, "x");
        while (!done)
            BOOST_REQUIRE(io.run_one_for(test::cap) == 1);
        ++rounds;
    }
    return test::counts() - before;
}

BOOST_FIXTURE_TEST_CASE(async_io_allocates_nothing, test::context_fixture,
                        *precondition(test::allocations_are_counted)) {
    for (trigger mode : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_pipe();
        concrete reg(io, p.a.get(), mode);
        BOOST_TEST(hundred_async_ios(io, reg, p).allocations == 0);
        test::fd_pair q = test::make_pipe();
        moor::registration any(io, q.a.get(), mode);
        BOOST_TEST(hundred_async_ios(io, any, q).allocations == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(async_io_costs_no_epoll_ctl, test::context_fixture) {
    for (trigger mode : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_pipe();
        concrete reg(io, p.a.get(), mode);
        BOOST_TEST(hundred_async_ios(io, reg, p).epoll_ctl == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(a_wait_looks_at_no_handle_and_asks_for_no_file, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    concrete reg(io, p.a.get());
    loop<concrete> l{io, reg, p};
    auto after = [&] { read_to_would_block(reg, p); };
    l.run(10, after);
    BOOST_TEST(l.run(50, after).fstat == 0);
}

BOOST_FIXTURE_TEST_CASE(a_registration_that_waits_once_looks_once, test::context_fixture) {
    for (trigger t : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_pipe();
        concrete reg(io);
        auto turn = [&] {
            reg.register_handle(p.a, t);
            test::called done;
            reg.async_wait_readable(done.handler());
            test::put(p.b, "x");
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST(!done.ec);
            read_exactly(reg, p);
            reg.deregister();
        };
        turn();
        call_counts before = test::counts();
        for (int i = 0; i != 10; ++i)
            turn();
        call_counts c = test::counts() - before;
        BOOST_TEST(c.fstat == 20); // whose number is it, at both ends
        if (test::on_epoll()) {
            // Outside of the loop, where another thread may be about to handle an event of an
            // earlier handle, the first event is checked.
            BOOST_TEST(c.poll == (t == trigger::level ? 20 : 10));
            BOOST_TEST(c.epoll_ctl == 20);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(the_reactor_waits_about_once_an_event, test::context_fixture) {
    if (!test::on_epoll())
        return; // the others have their own loops
    test::fd_pair p = test::make_pipe();
    concrete reg(io, p.a.get(), trigger::edge);
    loop<concrete> l{io, reg, p};
    auto after = [&] { read_exactly(reg, p); };
    l.run(10, after);
    call_counts c = l.run(100, after);
    BOOST_TEST(c.epoll_wait <= 101);
}

BOOST_FIXTURE_TEST_CASE(many_waits_on_one_handle_cost_no_epoll_ctl_and_at_most_one_poll_each,
                        test::context_fixture) {
    for (trigger mode : {trigger::level, trigger::edge}) {
        test::fd_pair p = test::make_pipe();
        concrete reg(io, p.a.get(), mode);
        loop<concrete> l{io, reg, p};
        auto after = [&] { read_to_would_block(reg, p); };
        l.run(2, after);
        int times = 0;
        call_counts before = test::counts();
        for (int i = 0; i != 100; ++i)
            reg.async_wait_readable([&](error_code) { ++times; });
        test::put(p.b, "x");
        test::run_until(io, [&] { return times == 100; });
        call_counts c = test::counts() - before;
        BOOST_TEST(c.epoll_ctl == 0);
        BOOST_TEST(c.poll <= 100);
        if (test::on_epoll() && mode == trigger::edge)
            BOOST_TEST(c.poll == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(two_directions_at_once_cost_no_more, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    concrete reg(io, p.a.get(), trigger::edge);
    auto round = [&] {
        bool r = false, w = false;
        test::fill(p.a);
        reg.async_wait_readable([&](error_code) { r = true; });
        reg.async_wait_writable([&](error_code) { w = true; });
        test::put(p.b, "x");
        test::drain(p.b);
        // What an edge wait was told of need not be true any more when it was started while
        // both directions were still ready: that is the contract of edge.
        test::run_until(io, [&] { return r && w; });
        test::drain(p.a);
    };
    for (int i = 0; i != 5; ++i)
        round();
    call_counts before = test::counts();
    for (int i = 0; i != 20; ++i)
        round();
    call_counts c = test::counts() - before;
    if (test::on_epoll()) {
        BOOST_TEST(c.epoll_ctl == 0);
        BOOST_TEST(c.poll == 0);
    }
}

BOOST_FIXTURE_TEST_CASE(a_thousand_writes_to_a_handle_nobody_waits_on_wake_the_loop_eight_times,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    concrete reg(io, p.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    test::drain(p.a);
    auto before = moor::use_registration_service(io).metrics();
    for (int i = 0; i != 1000; ++i) {
        test::put(p.b, "x");
        io.restart();
        auto work = asio::make_work_guard(io);
        io.poll();
        test::drain(p.a);
    }
    auto after = moor::use_registration_service(io).metrics();
    BOOST_TEST(after.events_unhandled - before.events_unhandled <= 8u);
    // And the next wait is told.
    test::called next;
    reg.async_wait_readable(next.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(next); });
}

BOOST_AUTO_TEST_SUITE_END()
