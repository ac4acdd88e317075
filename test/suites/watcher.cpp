// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The contract of a watcher, without a foreign library: when its handler is called and when not,
// what the handler may do to its watcher, and what keeps the loop running.

// (What a command costs is counted; the checks of MOOR_CHECK_USE make calls of their own.)
#undef MOOR_CHECK_USE

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor/registration_service.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(watcher)

namespace {

namespace asio = boost::asio;
using boost::unit_test::precondition;
using moor::interest;
using moor::readiness;
using test::error_code;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

const error_code timed_out(asio::error::timed_out);
const error_code rate_limited(moor::error::rate_limited);

/// What a handler was told.
struct calls {
    struct call {
        error_code ec;
        readiness ready;
    };
    std::vector<call> all;
    std::function<void(const call&)> then; // called by the handler

    auto handler() {
        return [this](error_code ec, readiness ready) {
            all.push_back({ec, ready});
            if (then)
                then(call{ec, ready});
        };
    }
    std::size_t size() const { return all.size(); }
    explicit operator bool() const { return !all.empty(); }
    const call& last() const { return all.back(); }
};

/// A watcher of one end of a socket pair.
struct watched : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    calls c;
    std::optional<moor::watcher> w{std::in_place, io, p.a.get(), c.handler()};

    void run_until_calls(std::size_t n) {
        test::run_until(io, [&] { return c.size() >= n; });
        BOOST_TEST(c.size() == n);
    }
    void check_no_call() {
        const std::size_t before = c.size();
        test::run_ready(io);
        BOOST_TEST(c.size() == before);
    }
    /// An event for the watcher is in the scheduler's queue, and was not handled.
    void queue_event() {
        w->set_interest(interest::readable);
        check_no_call();
        test::put(p.b, "x");
        // The reactor's turn comes first, and queues the event; then this function runs.
        bool is_over = false;
        asio::post(io, [&] { is_over = true; });
        test::run_until(io, [&] { return is_over; });
    }
    void take() { test::drain(p.a); }
};

/// Ends the watch of the handle in one way or another. The first is destruction.
struct ending {
    const char* name;
    void (*end)(std::optional<moor::watcher>& w, int other);
    bool is_final;
};
const ending endings[] = {
    {"destroy", [](std::optional<moor::watcher>& w, int) { w.reset(); }, true},
    {"stop", [](std::optional<moor::watcher>& w, int) { w->stop(); }, true},
    {"detach", [](std::optional<moor::watcher>& w, int) { w->detach(); }, false},
    {"abandon", [](std::optional<moor::watcher>& w, int) { w->abandon(); }, false},
    {"reset", [](std::optional<moor::watcher>& w, int other) { w->reset(other); }, false},
    {"assign", [](std::optional<moor::watcher>& w, int) { *w = moor::watcher(w->get_executor()); },
     true},
    {"no interest", [](std::optional<moor::watcher>& w, int) { w->set_interest({}); }, false},
};

} // namespace

// ---- calls ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_handler_is_called_for_each_readiness_while_the_interest_holds,
                        watched) {
    check_no_call(); // there is no interest yet
    BOOST_TEST((w->get_interest() == interest()));
    w->set_interest(interest::readable);
    check_no_call();
    test::put(p.b, "x");
    run_until_calls(1);
    BOOST_TEST(!c.last().ec);
    BOOST_TEST((c.last().ready == interest::readable));
    run_until_calls(2); // level-triggered: nobody has read
    c.then = [&](auto&) { take(); };
    run_until_calls(3);
    check_no_call();
    test::put(p.b, "y");
    run_until_calls(4);
    w->set_interest({});
}

BOOST_FIXTURE_TEST_CASE(no_member_calls_the_handler, watched) {
    test::put(p.b, "x");
    w->set_interest(interest::readable | interest::writable);
    w->expires_after(0s);
    w->on_event(c.handler());
    w->reset(p.a.get());
    w->keeps_running(false);
    w->keeps_running(true);
    w->set_interest(interest::writable);
    BOOST_TEST(c.size() == 0u);
    test::run_until(io, [&] { return c.size() >= 2; });
    w->set_interest({});
}

BOOST_FIXTURE_TEST_CASE(one_call_has_all_that_is_ready_of_what_is_wanted, watched) {
    test::put(p.b, "x");
    w->set_interest(interest::readable | interest::writable | interest::read_closed);
    c.then = [&](auto&) { w->set_interest({}); };
    run_until_calls(1);
    BOOST_TEST((c.last().ready == (interest::readable | interest::writable)));
    p.b.close();
    w->set_interest(interest::readable | interest::writable | interest::read_closed);
    run_until_calls(2);
    BOOST_TEST(
        (c.last().ready == (interest::readable | interest::writable | interest::read_closed)));
    w->set_interest({});
}

BOOST_FIXTURE_TEST_CASE(a_wider_interest_still_makes_one_call, watched) {
    w->set_interest(interest::readable);
    check_no_call(); // a wait is pending
    test::put(p.b, "x");
    w->set_interest(interest::readable | interest::writable);
    c.then = [&](auto&) { w->set_interest({}); };
    run_until_calls(1);
    BOOST_TEST((c.last().ready == (interest::readable | interest::writable)));
    check_no_call();
}

BOOST_FIXTURE_TEST_CASE(an_interest_that_was_taken_back_is_not_told, watched) {
    test::fill(p.a);
    w->set_interest(interest::readable | interest::writable);
    check_no_call();
    test::drain(p.b);
    test::put(p.b, "x");
    w->set_interest(interest::readable);
    c.then = [&](auto&) { take(); };
    run_until_calls(1);
    BOOST_TEST((c.last().ready == interest::readable));
    check_no_call();
    w->set_interest(interest::readable | interest::writable); // nothing was lost
    c.then = [&](auto&) { w->set_interest({}); };
    run_until_calls(2);
    BOOST_TEST((c.last().ready == interest::writable));
}

BOOST_FIXTURE_TEST_CASE(an_event_that_was_dropped_is_told_when_the_interest_is_back, watched) {
    for (bool at_once : {false, true}) {
        queue_event();
        const std::size_t before = c.size();
        w->set_interest({});
        if (!at_once)
            check_no_call();
        w->set_interest(interest::readable);
        c.then = [&](auto&) { take(); };
        run_until_calls(before + 1);
        check_no_call();
        c.then = nullptr;
    }
    w->set_interest({});
}

BOOST_AUTO_TEST_CASE(after_its_end_the_handler_is_not_called_for_what_was_queued) {
    for (const ending& e : endings)
        for (bool is_queued : {false, true})
            BOOST_TEST_CONTEXT(e.name << (is_queued ? ", queued" : "")) {
                watched s;
                test::fd_pair other = test::make_socketpair();
                if (is_queued)
                    s.queue_event();
                else
                    s.w->set_interest(interest::readable);
                if (s.c)
                    continue; // the backend's turn handled the event at once
                e.end(s.w, other.a);
                test::put(s.p.b, "more");
                s.check_no_call();
                if (s.w && !e.is_final) {
                    s.take();
                    s.w->reset(s.p.a.get());
                    s.w->set_interest(interest::readable);
                    s.check_no_call();
                    test::put(s.p.b, "again");
                    s.run_until_calls(1);
                    s.w->set_interest({});
                }
            }
}

BOOST_FIXTURE_TEST_CASE(without_a_handler_nothing_is_watched, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::watcher w(io);
    w.reset(p.a.get());
    w.set_interest(interest::writable);
    BOOST_TEST(io.run() == 0u);
    io.restart();
    calls c;
    c.then = [&](auto&) { w.set_interest({}); };
    w.on_event(c.handler());
    test::run_all(io);
    BOOST_TEST(c.size() == 1u);
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_is_always_ready_is_told_until_the_interest_goes,
                        test::context_fixture) {
    test::unique_fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
    test::unique_fd regular(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    for (int fd : {file.get(), regular.get()}) {
        calls c;
        moor::watcher w(io, fd, c.handler());
        c.then = [&](auto&) {
            if (c.size() == 3)
                w.set_interest({});
        };
        w.set_interest(interest::readable);
        test::run_all(io);
        BOOST_TEST(c.size() == 3u);
        BOOST_TEST((c.last().ready == interest::readable));
    }
}

// ---- what the handler may do --------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(the_handler_may_end_its_own_watch) {
    for (const ending& e : endings)
        BOOST_TEST_CONTEXT(e.name) {
            watched s;
            test::fd_pair other = test::make_socketpair();
            auto alive = std::make_shared<int>(0);
            int calls = 0;
            s.w->on_event([&, alive, text = std::string(100, 'x')](error_code, readiness) {
                ++calls;
                e.end(s.w, other.a);
                BOOST_TEST(alive.use_count() == 2); // the closure is still there
                BOOST_TEST(text == std::string(100, 'x'));
            });
            s.w->set_interest(interest::readable);
            test::put(s.p.b, "x");
            test::run_until(s.io, [&] { return calls != 0; });
            s.check_no_call();
            BOOST_TEST(calls == 1);
            BOOST_TEST(alive.use_count() == (e.is_final ? 1 : 2));
            if (s.w)
                s.w->stop();
            BOOST_TEST(alive.use_count() == 1);
        }
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_replaces_itself_lives_until_it_returns, watched) {
    auto first = std::make_shared<int>(0);
    w->on_event([&, first](error_code, readiness) {
        w->on_event(c.handler());
        BOOST_TEST(first.use_count() == 2);
    });
    w->set_interest(interest::readable);
    test::put(p.b, "x");
    test::run_until(io, [&] { return first.use_count() == 1; });
    c.then = [&](auto&) { w->set_interest({}); };
    run_until_calls(1);
    auto second = std::make_shared<int>(0);
    w->on_event([second](error_code, readiness) {});
    w->on_event(c.handler());
    BOOST_TEST(second.use_count() == 1); // replaced from outside
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_throws_leaves_the_watcher_as_it_was, watched) {
    c.then = [&](auto&) { throw std::runtime_error("thrown"); };
    w->set_interest(interest::readable);
    test::put(p.b, "x");
    for (std::size_t n = 1; n != 3; ++n)
        BOOST_CHECK_THROW(test::run_until(io, [&] { return c.size() >= n; }), std::runtime_error);
    c.then = [&](auto&) { w->set_interest({}); };
    run_until_calls(3);
    w->expires_after(0s);
    c.then = [&](auto&) { throw std::runtime_error("thrown"); };
    BOOST_CHECK_THROW(test::run_until(io, [&] { return c.size() >= 4; }), std::runtime_error);
    BOOST_TEST(c.last().ec == timed_out);
}

BOOST_FIXTURE_TEST_CASE(a_handler_may_be_movable_only, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    int calls = 0;
    moor::watcher w(
        io, p.a.get(),
        [&calls, owned = std::make_unique<int>(7)](error_code, readiness) { calls += *owned; });
    w.on_event([&w, &calls, owned = std::make_unique<int>(8)](error_code, readiness) {
        calls += *owned;
        w.set_interest({});
    });
    w.set_interest(interest::writable);
    test::run_all(io);
    BOOST_TEST(calls == 8);
}

BOOST_FIXTURE_TEST_CASE(two_calls_never_overlap, watched) {
    int depth = 0;
    c.then = [&](auto&) {
        BOOST_TEST(depth++ == 0);
        if (c.size() == 1) {
            // While the handler runs a loop of its own, the deadline passes and more is ready.
            w->expires_after(0s);
            w->set_interest(interest::readable | interest::writable);
            auto end = clock_type::now() + 5ms;
            while (clock_type::now() < end)
                io.poll();
        } else if (!c.last().ec) {
            w->set_interest({});
        }
        --depth;
    };
    w->set_interest(interest::readable);
    test::put(p.b, "x");
    test::run_until(io, [&] { return c.size() >= 3; });
    check_no_call();
    BOOST_TEST(c.size() == 3u);
    BOOST_TEST(((c.all[1].ec == timed_out) != (c.all[2].ec == timed_out)));
}

BOOST_FIXTURE_TEST_CASE(what_a_nested_loop_noted_is_not_told_when_it_is_over, watched) {
    c.then = [&](auto&) {
        if (c.size() != 1)
            return;
        w->set_interest(interest::readable | interest::writable);
        for (int i = 0; i != 5; ++i)
            io.poll(); // the wait for both has its event
        take();
        w->set_interest({});
    };
    w->set_interest(interest::writable);
    test::put(p.b, "x");
    run_until_calls(1);
    test::run_ready(io);
    w->set_interest(interest::readable);
    w->expires_after(0s);
    run_until_calls(2);
    BOOST_TEST(c.last().ec == timed_out);
    w->set_interest({});
}

BOOST_FIXTURE_TEST_CASE(a_watcher_can_be_moved_while_it_waits, watched) {
    w->set_interest(interest::readable);
    w->expires_after(1h);
    check_no_call();
    moor::watcher moved(std::move(*w));
    w.reset();
    check_no_call();
    BOOST_TEST(moved.native_handle() == p.a.get());
    moor::watcher assigned(io);
    assigned = std::move(moved);
    test::put(p.b, "x");
    run_until_calls(1);
    assigned.set_interest({});
    assigned.expires_never();
}

// ---- errors -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_closed_number_is_an_error_once, watched) {
    test::unique_fd reader = std::move(p.a);
    w->set_interest(interest::readable);
    check_no_call();
    ::close(reader.release());
    p.b.close();
    // Where the kernel does not say so, the next wait finds out.
    if (!test::on_select()) {
        w->set_interest({});
        w->set_interest(interest::readable);
    }
    run_until_calls(1);
    BOOST_TEST(c.last().ec == test::bad_descriptor);
    BOOST_TEST(c.last().ready.empty());
    BOOST_TEST((w->get_interest() == interest()));
    test::run_all(io); // no busy loop
    w->set_interest(interest::readable);
    run_until_calls(2);
    BOOST_TEST(c.last().ec == test::bad_descriptor);
    w->abandon();
}

BOOST_FIXTURE_TEST_CASE(what_can_not_be_watched_is_an_error_once, test::context_fixture) {
    test::unique_fd regular(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    calls c;
    moor::watcher w(io, regular.get(), c.handler());
    w.set_interest(interest::priority);
    test::run_all(io);
    BOOST_TEST(c.size() == 1u);
    BOOST_TEST((c.last().ec == boost::system::errc::operation_not_supported));
    BOOST_TEST((w.get_interest() == interest()));
}

BOOST_FIXTURE_TEST_CASE(a_closed_service_is_an_error_once, watched) {
    w->set_interest(interest::readable);
    check_no_call();
    moor::use_registration_service(io).close();
    run_until_calls(1);
    BOOST_TEST(c.last().ec == test::gone);
    test::run_all(io);
    error_code ec;
    w->reset(p.a.get(), ec);
    BOOST_TEST(ec == test::gone);
}

BOOST_FIXTURE_TEST_CASE(bad_input_is_an_error_at_once, watched) {
    error_code ec;
    w->reset(-1, ec);
    BOOST_TEST(ec == test::bad_descriptor);
    BOOST_TEST(w->native_handle() == -1);
    BOOST_CHECK_THROW(w->reset(test::closed_number()), boost::system::system_error);
    moor::watcher none(io, -1, c.handler(), ec);
    BOOST_TEST(ec == test::bad_descriptor);
    BOOST_CHECK_THROW(moor::watcher(io, -1, c.handler()), boost::system::system_error);
    moor::watcher edge(io, p.a.get(), c.handler(), moor::trigger::edge, ec);
    BOOST_TEST(ec == error_code(asio::error::invalid_argument));
    w->reset(p.a.get());
    moor::watcher second(io, p.a.get(), c.handler(), ec);
    BOOST_TEST(ec == test::already_registered);
    w->stop();
    w->reset(p.a.get(), ec);
    BOOST_TEST(ec == test::not_registered);
    BOOST_TEST(!w->renew(p.a.get(), ec));
    BOOST_TEST(ec == test::not_registered);
    BOOST_CHECK_THROW(w->renew(p.a.get()), boost::system::system_error);
    w->set_interest(interest::writable);
    w->expires_after(0s);
    w->on_event(c.handler());
    BOOST_TEST(test::run_ready(io) == 0u);
    BOOST_TEST(w->detach() == -1);
}

// ---- another handle -----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(interest_handler_and_deadline_stay_when_the_handle_goes, watched) {
    for (bool is_closed : {false, true}) {
        const std::size_t before = c.size();
        w->set_interest(interest::readable);
        w->expires_after(1h);
        check_no_call();
        test::fd_pair next = test::make_socketpair();
        if (is_closed) {
            p.a.close();
            w->abandon();
        } else {
            BOOST_TEST(w->detach() == p.a.get());
        }
        BOOST_TEST(w->native_handle() == -1);
        check_no_call();
        p = std::move(next);
        w->reset(p.a.get());
        test::put(p.b, "x");
        c.then = [&](auto&) { take(); };
        run_until_calls(before + 1);
        w->expires_at(clock_type::now());
        run_until_calls(before + 2);
        BOOST_TEST(c.last().ec == timed_out);
    }
    w->set_interest({});
}

BOOST_FIXTURE_TEST_CASE(renew_finds_another_file_under_the_same_number, watched) {
    w->set_interest(interest::readable);
    check_no_call();
    BOOST_TEST(!w->renew(p.a.get())); // the same
    const int number = p.a.get();
    test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
    BOOST_REQUIRE_EQUAL(q.a.get(), number);
    BOOST_TEST(w->renew(number));
    test::put(q.b, "x");
    c.then = [&](auto&) { test::drain(q.a); };
    run_until_calls(1);
    check_no_call();
    w->stop();
    p = std::move(q);
}

BOOST_FIXTURE_TEST_CASE(the_name_is_in_the_snapshot, watched) {
    w->name("library");
    auto all = moor::use_registration_service(io).snapshot();
    BOOST_REQUIRE_EQUAL(all.size(), 1u);
    BOOST_TEST(all[0].name == "library");
}

// ---- the deadline -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_end_of_a_deadline_is_told_once_and_leaves_the_interest, watched) {
    w->set_interest(interest::readable);
    w->expires_after(1ms);
    run_until_calls(1);
    BOOST_TEST(c.last().ec == timed_out);
    BOOST_TEST(c.last().ready.empty());
    BOOST_TEST((w->get_interest() == interest::readable));
    check_no_call();
    test::put(p.b, "x");
    c.then = [&](auto&) { w->set_interest({}); };
    run_until_calls(2);
    test::run_all(io);
    BOOST_TEST(c.size() == 2u);
}

BOOST_FIXTURE_TEST_CASE(a_deadline_needs_no_handle, test::context_fixture) {
    calls c;
    moor::watcher w(io, c.handler());
    w.expires_after(1ms);
    test::run_all(io);
    BOOST_TEST(c.size() == 1u);
    BOOST_TEST(c.last().ec == timed_out);
    c.then = [&](auto&) {
        if (c.size() != 4)
            w.expires_at(clock_type::now());
    };
    w.expires_at(clock_type::now() - 1h);
    test::run_all(io);
    BOOST_TEST(c.size() == 4u);
}

BOOST_FIXTURE_TEST_CASE(a_deadline_can_be_replaced, watched) {
    const auto begin = clock_type::now();
    w->expires_after(1h);
    w->expires_after(1ms); // earlier
    run_until_calls(1);
    w->expires_after(1ms);
    w->expires_after(20ms); // later
    run_until_calls(2);
    BOOST_TEST((clock_type::now() - begin >= 20ms));
    w->expires_after(0s);
    w->expires_never();
    test::run_all(io); // returns, although the timer was set
    w->expires_after(clock_type::duration::max());
    w->expires_after(clock_type::duration::min());
    run_until_calls(3);
    w->expires_after(clock_type::duration::max());
    w->expires_at(clock_type::time_point::max());
    test::run_all(io);
    BOOST_TEST(c.size() == 3u);
}

BOOST_FIXTURE_TEST_CASE(a_deadline_that_was_replaced_is_not_told_although_it_was_over, watched) {
    w->on_event([&](error_code ec, readiness) {
        c.handler()(ec, {});
        if (c.size() == 1) {
            w->expires_after(0s);
            auto end = clock_type::now() + 5ms; // it passes while the handler runs
            while (clock_type::now() < end)
                io.poll();
            w->expires_never();
        }
        w->set_interest({});
    });
    w->set_interest(interest::writable);
    test::run_all(io);
    BOOST_TEST(c.size() == 1u);
}

BOOST_FIXTURE_TEST_CASE(a_deadline_waits_for_a_handler, test::context_fixture) {
    moor::watcher w(io);
    w.expires_after(0s);
    test::run_all(io);
    calls c;
    w.on_event(c.handler());
    test::run_all(io);
    BOOST_TEST(c.size() == 1u);
    BOOST_TEST(c.last().ec == timed_out);
}

// ---- the rate limit -----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_watch_that_fires_too_often_pauses, watched) {
    w->rate_limit(3, 1h);
    w->set_interest(interest::writable); // for ever
    run_until_calls(4);
    for (std::size_t i = 0; i != 3; ++i)
        BOOST_TEST(!c.all[i].ec);
    BOOST_TEST(c.last().ec == rate_limited);
    BOOST_TEST(c.last().ready.empty());
    BOOST_TEST((w->get_interest() == interest::writable));
    check_no_call();      // it was told once
    w->rate_limit(0, 0s); // off: the pause is over
    c.then = [&](auto&) {
        if (c.size() == 30)
            w->set_interest({});
    };
    test::run_all(io);
    BOOST_TEST(c.size() == 30u);
}

BOOST_FIXTURE_TEST_CASE(a_pause_ends_with_its_interval, watched) {
    constexpr auto interval = 5ms;
    const auto begin = clock_type::now();
    w->rate_limit(1, interval);
    int pauses = 0;
    c.then = [&](const calls::call& call) {
        if (call.ec) {
            BOOST_TEST(call.ec == rate_limited);
            ++pauses;
        } else if (pauses == 3) {
            w->set_interest({});
        }
    };
    w->set_interest(interest::writable);
    test::run_all(io); // the pause keeps the loop running
    BOOST_TEST(pauses == 3);
    BOOST_TEST((clock_type::now() - begin >= 3 * interval));
}

BOOST_FIXTURE_TEST_CASE(a_pause_may_have_no_end, watched) {
    w->rate_limit(1, clock_type::duration::max());
    w->set_interest(interest::writable);
    run_until_calls(2);
    BOOST_TEST(c.last().ec == rate_limited);
    check_no_call();
    c.then = [&](auto&) { w->set_interest({}); };
    w->rate_limit(0, 0s);
    run_until_calls(3);
}

BOOST_FIXTURE_TEST_CASE(a_pause_without_interest_keeps_no_work, watched) {
    w->rate_limit(1, 1h);
    w->set_interest(interest::writable);
    run_until_calls(2);
    BOOST_TEST(c.last().ec == rate_limited);
    w->set_interest({});
    test::run_all(io);
    w->set_interest(interest::writable);
    check_no_call(); // it still pauses
    w->detach();
    test::run_all(io);
    w->expires_after(1ms); // a deadline does not pause
    run_until_calls(3);
    BOOST_TEST(c.last().ec == timed_out);
}

// ---- outstanding work ---------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_watcher_keeps_no_work, watched) {
    test::run_all(io);
    w->set_interest(interest::readable);
    check_no_call();
    BOOST_TEST(!io.stopped());
    w->set_interest({});
    test::run_all(io);
    w->set_interest(interest::readable);
    check_no_call();
    w->detach();
    test::run_all(io);
    w->expires_after(1h);
    w->expires_never();
    test::run_all(io);
    BOOST_TEST(c.size() == 0u);
}

BOOST_FIXTURE_TEST_CASE(a_watcher_may_be_told_not_to_keep_the_loop_running, watched) {
    w->keeps_running(false);
    w->set_interest(interest::readable);
    w->expires_after(1h);
    BOOST_TEST(!io.stopped()); // the loop that has not begun is not ended, either
    test::run_all(io);
    test::run_all(io);
    // Other work keeps the loop running, and the watcher works meanwhile.
    asio::steady_timer other(io, test::cap);
    bool is_over = false;
    other.async_wait([&](error_code) { is_over = true; });
    c.then = [&](auto&) {
        take();
        if (c.size() == 3)
            other.cancel();
    };
    for (std::size_t n = 1; n != 4; ++n) {
        test::put(p.b, "x");
        test::run_until(io, [&] { return c.size() >= n; });
    }
    test::run_all(io);
    BOOST_TEST(is_over);
    // And back.
    w->keeps_running(true);
    io.restart();
    BOOST_TEST(io.poll() == 0u);
    BOOST_TEST(!io.stopped());
    test::put(p.b, "x");
    c.then = [&](auto&) {
        take();
        w->keeps_running(false);
    };
    test::run_all(io);
    BOOST_TEST(c.size() == 4u);
    w->set_interest({});
    w->expires_never();
    test::run_all(io);
    w->keeps_running(true);
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE(work_is_exact_whatever_is_done_while_it_does_not_count) {
    for (const ending& e : endings)
        for (bool is_queued : {false, true})
            BOOST_TEST_CONTEXT(e.name << (is_queued ? ", queued" : "")) {
                watched s;
                test::fd_pair other = test::make_socketpair();
                s.w->keeps_running(false);
                s.w->expires_after(1h);
                if (is_queued)
                    s.queue_event();
                else
                    s.w->set_interest(interest::readable);
                test::run_all(s.io);
                e.end(s.w, other.a);
                test::run_all(s.io);
                // A loop that has other work goes on until that is over.
                bool is_over = false;
                asio::steady_timer timer(s.io, 5ms);
                timer.async_wait([&](error_code) { is_over = true; });
                test::run_all(s.io);
                BOOST_TEST(is_over);
                test::run_all(s.io);
            }
}

BOOST_AUTO_TEST_CASE(a_member_called_outside_of_the_loop_does_not_stop_the_context) {
    for (const ending& e : endings) {
        watched s;
        test::fd_pair other = test::make_socketpair();
        s.w->keeps_running(false);
        s.w->expires_after(1h);
        s.w->set_interest(interest::readable);
        s.io.run();
        s.io.restart();
        e.end(s.w, other.a);
        BOOST_TEST(!s.io.stopped(), e.name);
        bool is_called = false;
        asio::post(s.io, [&] { is_called = true; });
        s.io.run();
        BOOST_TEST(is_called, e.name);
    }
}

// ---- executors and threads ----------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_handler_runs_on_the_executor, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    auto strand = asio::make_strand(io);
    int calls = 0;
    moor::basic_watcher<decltype(strand)> w(strand, p.a.get(), [&](error_code, readiness) {
        BOOST_TEST(strand.running_in_this_thread());
        ++calls;
        w.set_interest({});
    });
    w.set_interest(interest::writable);
    w.expires_after(0s);
    test::run_all(io);
    BOOST_TEST(calls == 2);
    using concrete = moor::basic_watcher<asio::io_context::executor_type>;
    calls = 0;
    test::fd_pair q = test::make_socketpair();
    concrete plain(io, q.a.get(), [&](error_code, readiness) {
        ++calls;
        plain.set_interest({});
    });
    plain.set_interest(interest::writable);
    test::run_all(io);
    BOOST_TEST(calls == 1);
    static_assert(
        std::is_same<concrete::rebind_executor<asio::any_io_executor>::other, moor::watcher>::value,
        "");
}

// A loop that runs in the strand calls the handler from within dispatch().
BOOST_AUTO_TEST_CASE(a_handler_may_end_its_watch_and_throw_in_a_loop_within_a_strand) {
    for (bool is_time : {false, true}) {
        asio::io_context io;
        auto strand = asio::make_strand(io);
        test::fd_pair p = test::make_socketpair();
        std::optional<moor::basic_watcher<decltype(strand)>> w;
        bool is_thrown = false;
        asio::post(strand, [&] {
            w.emplace(strand, p.a.get(), [&](error_code, readiness) {
                BOOST_TEST(strand.running_in_this_thread());
                w.reset(); // only the completion refers to the state then
                throw std::runtime_error("thrown");
            });
            if (is_time)
                w->expires_after(0s);
            else
                w->set_interest(interest::writable);
            BOOST_CHECK_THROW(test::run_until(io, [&] { return !w; }), std::runtime_error);
            is_thrown = true;
        });
        test::run_until(io, [&] { return is_thrown; });
        BOOST_TEST(!w);
        test::run_all(io);
    }
}

BOOST_AUTO_TEST_CASE(a_strand_of_a_thread_pool_makes_one_call_at_a_time) {
    constexpr int count = 16, rounds = 200;
    struct one {
        test::fd_pair p = test::make_socketpair();
        asio::strand<asio::any_io_executor> strand;
        std::optional<moor::watcher> w;
        std::atomic<int> running{0};
        std::atomic<int> received{0};
    };
    for (bool keeps : {true, false}) {
        asio::thread_pool pool(4);
        std::vector<std::unique_ptr<one>> all;
        std::atomic<int> left{count};
        std::atomic<bool> overlaps{false};
        for (int i = 0; i != count; ++i) {
            all.push_back(std::unique_ptr<one>(new one{
                test::make_socketpair(), asio::make_strand(pool.get_executor()), {}, {0}, 0}));
            one& o = *all.back();
            asio::post(o.strand, [&] {
                o.w.emplace(o.strand, o.p.a.get(), [&](error_code ec, readiness) {
                    overlaps = overlaps || o.running++ != 0 || ec.failed();
                    o.received += static_cast<int>(test::get(o.p.a, 3).size());
                    // Now and then, something else is done to it.
                    if (o.received % 5 == 0)
                        o.w->set_interest(interest::readable | interest::priority);
                    if (o.received % 7 == 0) {
                        o.w->set_interest({});
                        asio::post(o.strand, [&] {
                            if (o.w)
                                o.w->set_interest(interest::readable);
                        });
                    }
                    if (o.received % 11 == 0)
                        o.w->expires_after(1h);
                    --o.running;
                    if (o.received == rounds) {
                        o.w.reset();
                        --left;
                    }
                });
                o.w->keeps_running(keeps);
                o.w->set_interest(interest::readable);
            });
        }
        for (int i = 0; i != rounds; ++i)
            for (auto& o : all) {
                BOOST_REQUIRE(test::wait_for([&] { return o->received > i - 100; })); // room
                test::put(o->p.b, "x");
            }
        BOOST_TEST(test::wait_for([&] { return left == 0; }));
        pool.join();
        BOOST_TEST(!overlaps);
    }
}

BOOST_AUTO_TEST_CASE(waits_that_are_over_before_they_are_counted_leave_no_work) {
    for (int round = 0; round != 20; ++round) {
        struct one {
            test::fd_pair p = test::make_socketpair();
            std::optional<moor::watcher> w;
            int left = 100;
        };
        asio::thread_pool pool(4);
        std::vector<std::unique_ptr<one>> all;
        for (int i = 0; i != 4; ++i) {
            all.push_back(std::make_unique<one>());
            one& o = *all.back();
            auto strand = asio::make_strand(pool);
            asio::post(strand, [&o, strand] {
                o.w.emplace(strand, o.p.a.get(), [&o](error_code, readiness) {
                    if (--o.left == 0)
                        o.w.reset();
                });
                o.w->set_interest(interest::writable); // each wait is over at once
            });
        }
        pool.join(); // returns
    }
}

// ---- the execution context ends -----------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_watcher_outlives_its_context) {
    for (bool is_strand : {false, true})
        for (bool is_waiting : {false, true}) {
            auto io = std::make_unique<asio::io_context>();
            test::fd_pair p = test::make_socketpair();
            calls c;
            auto alive = std::make_shared<int>(0);
            moor::watcher w = is_strand
                                  ? moor::watcher(asio::any_io_executor(asio::make_strand(*io)))
                                  : moor::watcher(*io);
            w.on_event([&, alive](error_code ec, readiness r) { c.handler()(ec, r); });
            w.reset(p.a.get());
            if (is_waiting) {
                w.set_interest(interest::readable);
                w.expires_after(1h);
                test::run_ready(*io);
            }
            io.reset();
            BOOST_TEST(alive.use_count() == 1); // the handler is gone
            w.set_interest(interest::writable);
            w.expires_after(0s);
            w.expires_never();
            w.keeps_running(false);
            w.keeps_running(true);
            w.rate_limit(1, 1s);
            w.on_event(c.handler());
            error_code ec;
            w.reset(p.a.get(), ec);
            BOOST_TEST(ec == test::gone);
            w.renew(p.a.get(), ec);
            BOOST_TEST(ec == test::gone);
            moor::watcher moved(std::move(w));
            moved.detach();
            moved.stop();
            BOOST_TEST(c.size() == 0u);
        }
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_its_watcher_goes_with_the_context) {
    for (bool is_waiting : {false, true}) {
        auto alive = std::make_shared<int>(0);
        test::fd_pair p = test::make_socketpair();
        {
            asio::io_context io;
            auto w = std::make_shared<moor::watcher>(io);
            w->on_event([w, alive](error_code, readiness) {});
            w->reset(p.a.get());
            if (is_waiting) {
                w->set_interest(interest::readable);
                w->expires_after(1h);
                test::run_ready(io);
            }
            w.reset();
            BOOST_TEST(alive.use_count() == 2);
        }
        BOOST_TEST(alive.use_count() == 1);
        BOOST_TEST(::fcntl(p.a.get(), F_GETFD) != -1);
    }
}

// ---- cost ---------------------------------------------------------------------------------------

namespace {

/// A library that answers one command at a time: it wants to write, then to read.
struct commands {
    asio::io_context& io;
    bool posts;  // the next command is begun by another handler
    bool drains; // the watcher is told that the descriptor is drained
    test::fd_pair p = test::make_socketpair();
    moor::watcher w{io};
    int done = 0, target = 0;

    commands(asio::io_context& context, bool from_other, bool is_drained)
        : io(context), posts(from_other), drains(is_drained) {
        w.on_event([this](error_code ec, readiness r) {
            BOOST_REQUIRE(!ec);
            return moor::drained_if(on_event(r) && drains);
        });
        w.reset(p.a.get());
        w.set_interest(interest::readable);
    }

    bool on_event(readiness r) {
        char byte = '?';
        if (r.is_writable()) {
            BOOST_REQUIRE_EQUAL(::write(p.a, &byte, 1), 1);
            w.set_interest(interest::readable);
            BOOST_REQUIRE_EQUAL(::read(p.b, &byte, 1), 1); // the other end answers
            BOOST_REQUIRE_EQUAL(::write(p.b, &byte, 1), 1);
            return false;
        }
        BOOST_REQUIRE_EQUAL(::read(p.a, &byte, 1), 1);
        if (++done == target)
            io.stop();
        else if (posts)
            asio::post(io, [this] { begin(); });
        else
            begin();
        return true;
    }
    void begin() { w.set_interest(interest::readable | interest::writable); }

    test::call_counts run(int n) {
        target = done + n;
        io.restart();
        test::call_counts before = test::counts();
        begin();
        io.run();
        BOOST_REQUIRE_EQUAL(done, target);
        return test::counts() - before;
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(a_command_costs_two_turns_and_a_check, test::context_fixture) {
    for (bool posts : {false, true})
        for (bool drains : {false, true}) {
            commands c(io, posts, drains);
            c.run(100);
            test::call_counts n = c.run(1000);
            BOOST_TEST_MESSAGE("a thousand commands, " << (posts ? "posted" : "from the handler")
                                                       << (drains ? ", drained: " : ": ") << n.poll
                                                       << " poll, " << n.turns() << " turns, "
                                                       << n.epoll_ctl << " epoll_ctl, "
                                                       << n.allocations << " allocations");
            BOOST_TEST(n.fstat <= 2); // the handle may have left the reactor once
            if (test::on_epoll()) {
                BOOST_TEST(n.poll <= (drains || !posts ? 1010 : 2100));
                BOOST_TEST(n.turns() <= (posts ? 3010 : 2010));
                BOOST_TEST(n.epoll_ctl <= 4);
            }
        }
}

BOOST_FIXTURE_TEST_CASE(data_are_found_after_a_late_call_for_room_and_a_wait_that_was_cancelled,
                        watched) {
    // The first checks are not deferred.
    test::fd_pair q = test::make_socketpair();
    constexpr int checks = 67;
    int n = 0;
    moor::watcher busy(io);
    busy.on_event([&](error_code, readiness) {
        if (++n == checks)
            busy.set_interest(interest());
    });
    busy.reset(q.a.get());
    busy.set_interest(interest::readable);
    test::run_ready(io);
    test::put(q.b, "x");
    test::run_until(io, [&] { return n == checks; });

    w->set_interest(interest::readable); // enters the reactor
    test::run_ready(io);
    w->set_interest(interest());

    // In one turn of the loop: two waits end with room, data come, a wait for data is deferred, and
    // the deadline has the handler called before the second wait's end does. The handler cancels.
    test::fd_pair other = test::make_socketpair();
    moor::registration reg(io, other.a.get());
    reg.async_wait(interest::readable, [&](error_code, moor::ready_event) {
        w->set_interest(interest::readable);
        w->set_interest(interest::readable | interest::writable);
    });
    test::run_ready(io);
    readiness told;
    c.then = [&](const calls::call& call) {
        told = call.ready;
        if (call.ec != timed_out)
            w->set_interest(interest());
    };
    asio::post(io, [&] {
        asio::post(io, [&] { w->set_interest(interest::writable | interest::priority); });
        w->set_interest(interest::readable | interest::writable);
        test::put(p.b, "data");
        test::put(other.b, "x");
        w->expires_after(0s);
    });
    test::run_ready(io);
    told = readiness();
    w->set_interest(interest::readable);
    test::run_until(io, [&] { return told == interest::readable; });
}

BOOST_FIXTURE_TEST_CASE(a_call_needs_no_memory, test::context_fixture,
                        *precondition(test::allocations_are_counted)) {
    for (bool posts : {false, true}) {
        commands c(io, posts, false);
        c.run(100);
        BOOST_TEST(c.run(1000).allocations == 0);
    }
    auto strand = asio::make_strand(io);
    test::fd_pair p = test::make_socketpair();
    int left = 100;
    moor::watcher w(strand, p.a.get(), [&](error_code, readiness) {
        w.expires_after(1h);
        w.expires_after(std::chrono::minutes(left));
        if (--left == 0)
            io.stop();
    });
    w.set_interest(interest::writable);
    io.restart();
    io.run();
    left = 1000;
    io.restart();
    test::call_counts before = test::counts();
    io.run();
    BOOST_TEST((test::counts() - before).allocations == 0);
}

BOOST_AUTO_TEST_SUITE_END()
