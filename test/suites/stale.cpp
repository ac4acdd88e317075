// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Events that were fetched from the kernel before a wait began. A level-triggered wait must not be
// told of them: what they announced may have been read in the meantime.

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <atomic>
#include <future>
#include <thread>

namespace {

namespace asio = boost::asio;
using test::error_code;

/// Puts a handle and its waker to rest in the reactor, so that nothing is told of it for the first
/// time below.
void warm_up(asio::io_context& io, moor::registration& reg, test::fd_pair& p) {
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_REQUIRE_EQUAL(test::drain(p.a), 1u);
    test::run_ready(io);
}

/// The wait is pending for as long as nothing new comes, and only so long.
void check_is_not_told_of_the_past(asio::io_context& io, test::called& late, test::fd_pair& p) {
    test::run_ready(io);
    BOOST_TEST(late.times == 0);
    test::put(p.b, "new");
    test::run_until(io, [&] { return bool(late); });
    BOOST_TEST(!late.ec);
    BOOST_TEST(test::get(p.a) == "new");
}

struct two_handles : test::context_fixture {
    test::fd_pair p = test::make_socketpair(), q = test::make_socketpair();
    moor::registration a{io, p.a.get()}, b{io, q.a.get()};

    two_handles() {
        warm_up(io, a, p);
        warm_up(io, b, q);
    }
};

} // namespace

BOOST_AUTO_TEST_SUITE(stale)

BOOST_FIXTURE_TEST_CASE(a_handler_drains_a_handle_whose_event_is_queued_behind_it, two_handles) {
    test::called first, late;
    a.async_wait_readable([&](error_code ec) {
        first.ec = ec;
        ++first.times;
        BOOST_TEST(test::get(q.a) == "old");
        b.async_wait_readable(late.handler());
    });
    test::put(p.b, "x");   // one batch: first this event,
    test::put(q.b, "old"); // then that one
    check_is_not_told_of_the_past(io, late, q);
    BOOST_TEST(first.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_read_handler_that_was_queued_while_its_handle_had_another_event,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    warm_up(io, reg, p);
    test::fill(p.a);
    test::called written, read, late;
    // Both become ready in one event: the reactor runs the first completion at once, and queues the
    // other. Before that is run, it fetches one more event of the same handle.
    reg.async_wait_writable([&](error_code ec) {
        written.ec = ec;
        ++written.times;
        if (read.times == 0) // elsewhere than on epoll it may have been first
            test::put(p.b, "second");
    });
    reg.async_wait_readable([&](error_code ec) {
        read.ec = ec;
        ++read.times;
        test::drain(p.a);
        reg.async_wait_readable(late.handler());
    });
    test::run_ready(io);
    BOOST_REQUIRE_EQUAL(written.times + read.times, 0);
    test::drain(p.b);
    test::put(p.b, "first");
    check_is_not_told_of_the_past(io, late, p);
    BOOST_TEST(written.times == 1);
    BOOST_TEST(read.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_wait_begins_on_another_thread_while_its_event_is_queued, two_handles) {
    test::called late;
    a.async_wait_readable([&](error_code) {
        std::thread other([&] {
            test::drain(q.a);
            b.async_wait_readable(late.handler());
        });
        other.join();
    });
    test::put(p.b, "x");
    test::put(q.b, "old");
    check_is_not_told_of_the_past(io, late, q);
}

BOOST_FIXTURE_TEST_CASE(another_thread_has_fetched_an_event_while_the_handler_of_the_last_one_runs,
                        two_handles) {
    test::called late;
    bool b_ran = false;
    std::atomic<bool> a_ran{false};
    std::promise<void> is_busy, go_on, both_fetched, b_waits;
    asio::post(io, [&] {
        is_busy.set_value();
        go_on.get_future().wait();
    });
    io.restart();
    std::thread other([&] {
        io.run_one(); // the function above
        while (!a_ran)
            io.run_one_for(test::cap);
    });
    is_busy.get_future().wait();

    a.async_wait_readable([&](error_code) {
        both_fetched.set_value();
        b_waits.get_future().wait();
        a_ran = true;
    });
    b.async_wait_readable([&](error_code) {
        // The other thread fetches two events, and runs the handler of the first one.
        test::put(p.b, "x");
        test::put(q.b, "old");
        go_on.set_value();
        both_fetched.get_future().wait();
        test::drain(q.a);
        b.async_wait_readable(late.handler());
        b_waits.set_value();
        b_ran = true;
    });
    test::put(q.b, "x");
    test::run_until(io, [&] { return b_ran; });
    other.join();
    check_is_not_told_of_the_past(io, late, q);
}

BOOST_FIXTURE_TEST_CASE(the_loop_was_left_with_an_event_queued, two_handles) {
    // run_one(), stop() and an exception leave the loop in the middle of a batch.
    for (int how = 0; how != 3; ++how) {
        test::called first, late;
        a.async_wait_readable([&](error_code ec) {
            first.ec = ec;
            ++first.times;
            if (how == 1)
                io.stop();
            else if (how == 2)
                throw how;
        });
        test::put(p.b, "x");
        test::put(q.b, "old");
        io.restart();
        if (how == 0) {
            while (first.times == 0)
                io.run_one_for(test::cap);
        } else {
            try {
                io.run_for(test::cap);
            } catch (int) {}
        }
        BOOST_REQUIRE_EQUAL(first.times, 1);
        BOOST_TEST(test::get(q.a) == "old");
        test::drain(p.a);
        b.async_wait_readable(late.handler());
        check_is_not_told_of_the_past(io, late, q);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handler_runs_the_loop_itself, two_handles) {
    // The inner run fetches an event of the very handle whose event is being handled, and leaves it
    // in the queue.
    test::called outer, inner, late;
    a.async_wait_readable([&](error_code ec) {
        outer.ec = ec;
        ++outer.times;
        test::drain(p.a);
        b.async_wait_readable(inner.handler());
        test::put(q.b, "x");
        test::put(p.b, "old");
        while (inner.times == 0)
            io.run_one_for(test::cap);
        BOOST_TEST(test::get(p.a) == "old");
        a.async_wait_readable(late.handler());
    });
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(outer) && bool(inner); });
    check_is_not_told_of_the_past(io, late, p);
}

BOOST_FIXTURE_TEST_CASE(a_handler_runs_the_loop_itself_for_something_else, two_handles) {
    test::called outer, late;
    bool posted = false;
    a.async_wait_readable([&](error_code ec) {
        outer.ec = ec;
        ++outer.times;
        test::drain(p.a);
        test::put(p.b, "old");
        // Nothing of Moor's is handled by the inner run.
        asio::post(io, [&] { posted = true; });
        io.poll_one();
        asio::post(io, [] {});
        io.poll_one();
        BOOST_TEST(test::get(p.a) == "old");
        a.async_wait_readable(late.handler());
    });
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(outer); });
    BOOST_TEST(posted);
    check_is_not_told_of_the_past(io, late, p);
}

BOOST_AUTO_TEST_SUITE_END()
