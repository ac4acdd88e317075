// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What happens while nobody waits: a chatty peer wakes the loop a few times at most, and nothing
// keeps run() from returning.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <sys/wait.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::aborted;
using test::error_code;

constexpr int writes = 1000;
constexpr std::uint64_t limit = 8;

/// How often the loop was woken for nobody while the peer wrote a thousand times. Nothing is posted
/// meanwhile, so each event that the reactor takes is a wake-up of a loop that blocks.
struct chatter {
    std::uint64_t unhandled;
    std::size_t handlers;
};

chatter chat(asio::io_context& io, int peer, int reader, bool read_it = false) {
    moor::registration_service& service = moor::use_registration_service(io);
    test::run_ready(io);
    std::uint64_t before = service.metrics().events_unhandled;
    chatter c{0, 0};
    for (int i = 0; i != writes; ++i) {
        test::put(peer, "x");
        auto work = asio::make_work_guard(io);
        if (io.stopped())
            io.restart();
        c.handlers += io.poll(); // what a blocked loop would have been woken for
        if (read_it || i % 100 == 99)
            test::drain(reader);
    }
    test::drain(reader);
    c.unhandled = service.metrics().events_unhandled - before;
    return c;
}

void check_next_wait_works(asio::io_context& io, moor::registration& reg, int reader, int peer) {
    for (int i = 0; i != 3; ++i) {
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_ready(io);
        BOOST_REQUIRE(done.times == 0);
        test::put(peer, "x");
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(!done.ec);
        test::drain(reader);
    }
}

/// Edge: the readiness of the chatter is cached, as far as it was told; the caller has drained.
void drop_cache(asio::io_context& io, moor::registration& reg) {
    test::run_ready(io);
    reg.clear(reg.ready(interest::readable));
}

/// The peer of `p.a` writes, which nobody waits for: the loop is woken a few times at most, and the
/// next wait is told of what comes after it.
void check_is_left_alone(asio::io_context& io, moor::registration& reg, test::fd_pair& p,
                         bool read_it = false) {
    BOOST_TEST(chat(io, p.b, p.a, read_it).unhandled <= limit);
    drop_cache(io, reg);
    check_next_wait_works(io, reg, p.a, p.b);
}

/// A wait of `reg` completes for a byte, which is read.
void wait_once(asio::io_context& io, moor::registration& reg, test::fd_pair& p) {
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    test::drain(p.a);
}

} // namespace

BOOST_AUTO_TEST_SUITE(idle)

BOOST_FIXTURE_TEST_CASE(a_handle_that_was_never_waited_for_wakes_nobody, test::context_fixture) {
    for (moor::trigger t : test::both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        test::call_counts before = test::counts();
        chatter c = chat(io, p.b, p.a);
        test::call_counts used = test::counts() - before;
        BOOST_TEST(c.unhandled == 0u);
        BOOST_TEST(c.handlers == 0u);
        BOOST_TEST(used.epoll_ctl == 0); // the reactor has not even heard of it
        BOOST_TEST(used.poll == 0);
        check_next_wait_works(io, reg, p.a, p.b);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_was_waited_for_once_wakes_the_loop_a_few_times,
                        test::context_fixture) {
    for (bool read_it : {false, true})
        for (moor::trigger t : test::both_triggers) {
            test::fd_pair p = test::make_socketpair();
            moor::registration reg(io, p.a.get(), t);
            wait_once(io, reg, p);
            check_is_left_alone(io, reg, p, read_it);
            // And so after every wait.
            BOOST_TEST(chat(io, p.b, p.a, read_it).unhandled <= limit);
        }
}

BOOST_FIXTURE_TEST_CASE(a_wait_that_was_cancelled_wakes_the_loop_a_few_times,
                        test::context_fixture) {
    for (moor::trigger t : test::both_triggers) {
        for (int how = 0; how != 3; ++how) {
            test::fd_pair p = test::make_socketpair();
            moor::registration reg(io, p.a.get(), t);
            test::called done;
            asio::cancellation_signal signal;
            reg.async_wait_readable(asio::bind_cancellation_slot(signal.slot(), done.handler()));
            test::run_ready(io);
            if (how == 0)
                reg.cancel();
            else if (how == 1)
                reg.cancel(moor::direction::read);
            else
                signal.emit(asio::cancellation_type::total);
            test::run_until(io, [&] { return bool(done); });
            BOOST_CHECK_EQUAL(done.ec, aborted);
            check_is_left_alone(io, reg, p);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_only_a_writer_waited_for_wakes_the_loop_a_few_times,
                        test::context_fixture) {
    for (moor::trigger t : test::both_triggers) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        moor::registration reg(io, p.a.get(), t);
        test::called done;
        reg.async_wait_writable(done.handler());
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        test::drain(p.b);
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(!done.ec);
        check_is_left_alone(io, reg, p);
    }
}

BOOST_FIXTURE_TEST_CASE(events_that_a_pending_writer_does_not_want_do_not_stop_it,
                        test::context_fixture) {
    // The reader's chatter goes on while a writer waits.
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    wait_once(io, reg, p);
    test::fill(p.a);
    test::called write;
    reg.async_wait_writable(write.handler());
    chatter c = chat(io, p.b, p.a);
    BOOST_TEST(c.unhandled <= limit);
    BOOST_TEST(write.times == 0);
    test::drain(p.b);
    test::run_until(io, [&] { return bool(write); });
    BOOST_TEST(!write.ec);
}

BOOST_FIXTURE_TEST_CASE(a_loop_that_blocks_is_left_alone, test::context_fixture) {
    // The same with the loop really blocked in its reactor: another process writes, and only its
    // end is waited for. Every return from the kernel's wait is counted.
    test::fd_pair p = test::make_socketpair();
    test::fd_pair end = test::make_pipe();
    moor::registration reg(io, p.a.get());
    moor::registration the_end(io, end.a.get());
    wait_once(io, reg, p);
    test::called ended;
    the_end.async_wait_readable(ended.handler());
    test::run_ready(io);
    ::pid_t child = ::fork();
    BOOST_REQUIRE_NE(child, -1);
    if (child == 0) {
        char c = 'x';
        for (int i = 0; i != 200; ++i)
            if (::send(p.b, &c, 1, MSG_NOSIGNAL) != 1 || ::sched_yield() != 0)
                ::_exit(1);
        if (::write(end.b, &c, 1) != 1)
            ::_exit(2);
        ::_exit(0);
    }
    test::call_counts before = test::counts();
    test::run_until(io, [&] { return bool(ended); });
    test::call_counts used = test::counts() - before;
    BOOST_TEST(!ended.ec);
    // A few for the chatter, and some for the end and for run_until's own calls.
    BOOST_TEST(used.turns() <= static_cast<long>(limit) * 2 + 4);
    int status = -1;
    BOOST_REQUIRE_EQUAL(::waitpid(child, &status, 0), child);
    BOOST_TEST(status == 0);
    test::drain(p.a);
    check_next_wait_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(an_idle_handle_leaves_the_reactor_and_comes_back, test::context_fixture) {
    if (!test::on_epoll())
        return; // elsewhere an idle handle is never in the reactor
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    moor::registration_service& service = moor::use_registration_service(io);
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_ready(io);
    BOOST_TEST(service.snapshot().at(0).attached);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    test::drain(p.a);
    test::call_counts before = test::counts();
    chat(io, p.b, p.a);
    test::call_counts used = test::counts() - before;
    BOOST_TEST(used.epoll_ctl == 1);
    BOOST_TEST(!service.snapshot().at(0).attached);
    // What came meanwhile and is still there is seen by the next wait.
    test::put(p.b, "x");
    test::called again;
    reg.async_wait_readable(again.handler());
    test::run_until(io, [&] { return bool(again); });
    BOOST_TEST(!again.ec);
    test::drain(p.a);
    test::called pending;
    reg.async_wait_readable(pending.handler());
    test::run_ready(io);
    BOOST_TEST(pending.times == 0);
    BOOST_TEST(service.snapshot().at(0).attached);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(pending); });
}

// ---- outstanding work ---------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_registration_alone_does_not_keep_run_alive) {
    for (bool is_pipe : {false, true}) {
        test::fd_pair p = is_pipe ? test::make_pipe() : test::make_socketpair();
        asio::io_context io;
        moor::registration reg(io, p.a.get());
        BOOST_TEST(test::run_all(io) == 0u);
        BOOST_TEST(io.stopped());
        // Nor does one that has waited, and whose waker is armed now.
        test::called done;
        reg.async_wait_readable(done.handler());
        io.restart();
        io.poll();
        BOOST_TEST(!io.stopped());
        test::put(p.b, "x");
        test::run_all(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(test::run_all(io) == 0u);
        test::put(p.b, "y"); // and an event is on its way
        BOOST_TEST(test::run_all(io) == 0u);
    }
}

BOOST_AUTO_TEST_CASE(a_pending_waker_of_the_poll_style_keeps_run_alive) {
    test::fd_pair p = test::make_pipe();
    asio::io_context io;
    moor::registration reg(io, p.a.get());
    bool woken = false;
    BOOST_TEST(reg.poll_read_ready([&] { woken = true; }).has_error());
    io.poll();
    BOOST_TEST(!io.stopped());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(woken);
    BOOST_TEST(io.stopped());
}

BOOST_AUTO_TEST_CASE(run_returns_when_the_last_wait_is_over_however_it_ends) {
    for (moor::trigger t : test::both_triggers) {
        for (int how = 0; how != 6; ++how) {
            BOOST_TEST_CONTEXT("how " << how) {
                test::fd_pair p = test::make_socketpair();
                asio::io_context io;
                std::optional<moor::registration> reg(std::in_place, io, p.a.get(), t);
                test::fill(p.a);
                test::called read;
                test::called write;
                reg->async_wait_readable(read.handler());
                reg->async_wait_writable(write.handler());
                test::run_ready(io);
                switch (how) {
                case 0:
                    reg->cancel();
                    break;
                case 1:
                    reg.reset();
                    break;
                case 2:
                    reg->deregister();
                    break;
                case 3:
                    moor::use_registration_service(io).close();
                    break;
                case 4:
                    test::put(p.b, "x");
                    test::drain(p.b);
                    break;
                case 5:
                    p.b.close();
                    break;
                }
                test::run_all(io);
                BOOST_TEST(read.times == 1);
                BOOST_TEST(write.times == 1);
                BOOST_TEST(test::run_all(io) == 0u);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(run_counts_each_wait_as_one_handler) {
    for (moor::trigger t : test::both_triggers) {
        test::fd_pair p = test::make_socketpair();
        asio::io_context io;
        moor::registration reg(io, p.a.get(), t);
        auto ignore = [](error_code, auto&&...) {};

        // At once.
        reg.async_wait_writable(ignore);
        BOOST_TEST((test::run_all(io) == 1u || test::on_io_uring()));

        // Pending. On a reactor, the event and the first handler are one; the others are posted.
        reg.async_wait_readable(ignore);
        reg.async_wait_readable(ignore);
        reg.async_wait(interest::readable | interest::error, ignore);
        // (Asio's io_uring submits its queue in a handler of its own, which may be counted here.)
        std::size_t pending = io.poll();
        BOOST_TEST((test::on_io_uring() || pending == 0u));
        test::put(p.b, "x");
        std::size_t completed = test::run_all(io);
        BOOST_TEST(completed >= 3u);
        // (An armed writer is told of the room again.)
        BOOST_TEST((test::on_io_uring() || t == moor::trigger::edge || completed == 3u));
        test::drain(p.a);

        // Cancelled.
        reg.clear(reg.ready(interest::readable));
        reg.async_wait_readable(ignore);
        reg.async_wait_readable(ignore);
        test::run_ready(io);
        reg.cancel();
        std::size_t n = test::run_all(io);
        // io_uring and select bring a waker home in a turn of its own when it is disarmed.
        BOOST_TEST(n >= 2u);
        BOOST_TEST((!test::on_epoll() || n == 2u));
        BOOST_TEST(test::run_all(io) == 0u);
    }
}

BOOST_FIXTURE_TEST_CASE(events_that_nobody_claims_count_only_in_a_row, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    moor::registration_service& service = moor::use_registration_service(io);
    for (int i = 0; i != 40; ++i) {
        test::called done;
        reg.async_wait_readable([&](error_code) {
            done.handler()(error_code());
            test::drain(p.a);
            reg.async_wait_readable([](error_code) {}); // goes on
        });
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(done); });
        reg.cancel();
        test::run_all(io);
        test::put(p.b, "y"); // for nobody
        test::run_ready(io);
        test::drain(p.a);
        BOOST_TEST(service.snapshot().at(0).attached);
    }
}

BOOST_AUTO_TEST_SUITE_END()
