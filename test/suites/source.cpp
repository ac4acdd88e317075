// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The contract of a source: when a library is asked what it waits for, when it is let work, and
// when a wait that was prepared is called off. (The calls themselves are a watcher's.)

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor/registration_service.hpp>
#include <moor/source.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>

BOOST_AUTO_TEST_SUITE(source)

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::readiness;
using moor::wants;
using test::error_code;
using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

const error_code timed_out(asio::error::timed_out);

/// A library that has to be asked. The log has "p" for prepare, "c" for cancel; of a dispatch, "r"
/// and "w" for what is ready, "t" for the time, "a" for none of these, "e" for an error.
struct library {
    wants now{};
    std::string log;
    error_code ec;
    std::function<void()> on_prepare, on_dispatch;

    auto prepare() {
        return [this] {
            log += 'p';
            if (on_prepare)
                on_prepare();
            return now;
        };
    }
    auto dispatch() {
        return [this](error_code e, readiness r) {
            if (e)
                log += e == timed_out ? 't' : 'e';
            else if (r.empty())
                log += 'a';
            if (r.is_readable())
                log += 'r';
            if (r.is_writable())
                log += 'w';
            ec = e;
            if (on_dispatch)
                on_dispatch();
        };
    }
    auto cancel() {
        return [this] { log += 'c'; };
    }
    std::string take() { return std::exchange(log, std::string()); }
};

struct sourced : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    library lib;
    std::optional<moor::source> s{std::in_place, io, lib.prepare(), lib.dispatch()};

    void check_log(const std::string& expected) {
        test::run_ready(io);
        BOOST_TEST(lib.take() == expected);
    }
    void run_until_log(const std::string& expected) {
        test::run_until(io, [&] { return lib.log.size() >= expected.size(); });
        BOOST_TEST(lib.take() == expected);
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(the_library_is_asked_first_and_after_each_dispatch, sourced) {
    BOOST_TEST(lib.log.empty()); // not from within the constructor
    lib.now = {p.a.get(), interest::readable};
    lib.on_dispatch = [&] { test::drain(p.a); };
    check_log("p");
    test::put(p.b, "x");
    run_until_log("rp");
    check_log("");
    lib.now.events = interest::readable | interest::writable;
    test::put(p.b, "x");
    run_until_log("rp"); // what was prepared then
    lib.on_dispatch = [&] { lib.now.events = interest(); };
    run_until_log("wp");
    check_log("");
    test::run_all(io); // an idle library keeps no work
}

BOOST_FIXTURE_TEST_CASE(many_touches_ask_once, sourced) {
    check_log("p");
    for (int i = 0; i != 5; ++i)
        s->touch();
    BOOST_TEST(lib.log.empty());
    check_log("p");
    lib.now = {p.a.get(), interest::writable};
    s->touch();
    lib.on_dispatch = [&] {
        lib.now.events = interest();
        s->touch(); // in vain: it is asked after each dispatch
    };
    run_until_log("pwp");
    check_log("p");
    lib.on_prepare = [&] { // a touch while it is asked, too
        lib.on_prepare = nullptr;
        s->touch();
    };
    s->touch();
    check_log("pp");
}

BOOST_FIXTURE_TEST_CASE(the_library_is_asked_at_once_where_nothing_else_is_due, sourced) {
    s->touch_now(); // behind the first call, which is due
    BOOST_TEST(lib.log.empty());
    check_log("p");
    lib.now = {p.a.get(), interest::readable};
    s->touch_now();
    BOOST_TEST(lib.take() == "p");
    s->touch();
    s->touch_now(); // once for both
    BOOST_TEST(lib.log.empty());
    check_log("p");
    test::put(p.b, "x");
    lib.on_dispatch = [&] {
        test::drain(p.a);
        s->touch_now(); // in vain: it is asked after each dispatch
        BOOST_TEST(lib.log.back() == 'r');
    };
    run_until_log("rp");
    check_log("p");
    lib.on_prepare = [&] {
        lib.on_prepare = nullptr;
        s->touch_now();
        BOOST_TEST(lib.log == "p");
    };
    s->touch_now();
    check_log("pp");
    // More to do is dispatched by the loop.
    lib.on_dispatch = [&] { lib.now.again = false; };
    lib.now.again = true;
    s->touch_now();
    s->touch_now();
    BOOST_TEST(lib.take() == "p");
    check_log("ap");
    // The last word counts.
    lib.on_dispatch = [&] { test::drain(p.a); };
    test::put(p.b, "x");
    lib.now.events = interest();
    s->touch_now();
    check_log("p");
    lib.now.events = interest::readable;
    s->touch_now();
    check_log("prp");
    lib.on_prepare = [&] { throw std::runtime_error("thrown"); };
    BOOST_CHECK_THROW(s->touch_now(), std::runtime_error);
    lib.on_prepare = nullptr;
    lib.take();
    test::put(p.b, "x");
    run_until_log("rp"); // what was prepared before
    lib.on_prepare = [&] { s.reset(); };
    s->touch_now();
    check_log("p");
}

BOOST_FIXTURE_TEST_CASE(touch_now_leaves_an_error_of_the_descriptor_to_the_loop, sourced) {
    check_log("p");
    lib.now = {test::closed_number(), interest::readable, clock_type::now() - 1h, true};
    s->touch_now();
    BOOST_TEST(lib.take() == "p");
    s->touch_now(); // the error is due
    BOOST_TEST(lib.log.empty());
    check_log("e"); // alone: neither the time nor more to do
    BOOST_TEST(lib.ec == test::bad_descriptor);
    test::run_all(io);
    BOOST_TEST(lib.log.empty());
    lib.now = {p.a.get(), interest::writable};
    lib.on_dispatch = [&] { lib.now.events = interest(); };
    s->touch_now();
    run_until_log("pwp");
}

BOOST_AUTO_TEST_CASE(a_wait_that_ends_with_an_error_of_its_descriptor_is_called_off_by_stop) {
    asio::io_context io;
    library lib;
    moor::source s(io, lib.prepare(), lib.dispatch(), lib.cancel());
    test::run_ready(io);
    lib.now = {test::closed_number(), interest::readable};
    s.touch_now();
    s.stop(); // before the error is dispatched
    test::run_ready(io);
    BOOST_TEST(lib.take() == "pcpc");
}

BOOST_FIXTURE_TEST_CASE(the_file_is_compared_before_a_wait_only, sourced) {
    lib.now = {p.a.get(), interest::readable};
    check_log("p");
    lib.now.events = interest();
    const auto before = test::counts();
    s->touch();
    check_log("p");
    BOOST_TEST((test::counts() - before).fstat == 0);
    // Another file under the same number, while nothing is waited for.
    const int number = p.a.get();
    test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
    BOOST_REQUIRE_EQUAL(q.a.get(), number);
    p = std::move(q);
    lib.now.events = interest::readable;
    lib.on_dispatch = [&] { test::drain(p.a); };
    s->touch();
    check_log("p");
    test::put(p.b, "x");
    run_until_log("rp");
}

BOOST_FIXTURE_TEST_CASE(more_to_do_is_dispatched_behind_what_is_queued, sourced) {
    lib.now.again = true;
    int rounds = 0;
    lib.on_dispatch = [&] {
        asio::post(io, [&] { lib.log += '.'; });
        if (++rounds == 3)
            lib.now.again = false;
    };
    lib.on_prepare = [&] { asio::post(io, [&] { lib.log += ','; }); };
    run_until_log("p,ap.,ap.,ap.,");
    check_log("");
    BOOST_TEST(!lib.ec);
}

BOOST_FIXTURE_TEST_CASE(an_event_beside_more_to_do_makes_one_dispatch, sourced) {
    test::put(p.b, "x");
    lib.now = {p.a.get(), interest::readable, {}, true};
    lib.on_dispatch = [&] {
        test::drain(p.a);
        lib.now.again = false;
    };
    test::run_ready(io);
    const std::string log = lib.take();
    BOOST_TEST((log == "pap" || log == "pr" + std::string("p") || log == "prpp" || log == "papp"));
    lib.now = {};
    s->touch();
    check_log("p");
}

// Neither an event nor a touch adds a call to each turn from then on.
BOOST_FIXTURE_TEST_CASE(the_calls_of_a_turn_stay_few_while_there_is_more_to_do, sourced) {
    test::put(p.b, "x");
    lib.now = {p.a.get(), interest::readable, {}, true};
    std::size_t most = 0;
    int turns = 0;
    std::function<void()> turn = [&] {
        if (turns > 10) // since the first wait may need some
            most = std::max(most, lib.take().size());
        if (++turns % 10 == 0)
            s->touch();
        lib.take();
        if (turns != 300)
            asio::post(io, turn);
    };
    turn();
    test::run_until(io, [&] { return turns == 300; });
    BOOST_TEST(most >= 2u);
    BOOST_TEST(most <= 8u); // each "p", "a" or "r"
    s->stop();
}

BOOST_FIXTURE_TEST_CASE(the_time_is_dispatched_as_timed_out, sourced) {
    lib.now.until = clock_type::now() + 1ms;
    lib.on_dispatch = [&] { lib.now.until.reset(); };
    run_until_log("ptp");
    BOOST_TEST(lib.ec == timed_out);
    test::run_all(io);
    lib.now.until = clock_type::now() - 1h;
    s->touch();
    run_until_log("ptp");
    // The time of the last answer counts, whether it is later or earlier or none.
    lib.on_dispatch = nullptr;
    lib.now.until = clock_type::now() + 1ms;
    s->touch();
    test::run_ready(io);
    lib.now.until = clock_type::now() + 1h;
    s->touch();
    asio::steady_timer later(io, 5ms);
    bool is_later = false;
    later.async_wait([&](error_code) { is_later = true; });
    test::run_until(io, [&] { return is_later; });
    lib.now.until.reset();
    s->touch();
    test::run_all(io);
    BOOST_TEST(lib.take().find_first_not_of("pt") == std::string::npos);
}

BOOST_FIXTURE_TEST_CASE(the_descriptor_may_change_and_go, sourced) {
    lib.now = {p.a.get(), interest::readable};
    lib.on_dispatch = [&] { test::drain(p.a); };
    check_log("p");
    // Another file under the same number, as on loopback with libpq.
    const int number = p.a.get();
    test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
    BOOST_REQUIRE_EQUAL(q.a.get(), number);
    p = std::move(q);
    s->touch();
    check_log("p");
    test::put(p.b, "x");
    run_until_log("rp");
    // None.
    p.a.close();
    lib.now = {};
    s->touch();
    check_log("p");
    test::run_all(io);
    // Another number.
    p = test::make_socketpair();
    lib.now = {p.a.get(), interest::readable};
    s->touch();
    test::put(p.b, "x");
    run_until_log("prp");
    lib.now = {};
    s->touch();
    check_log("p");
}

BOOST_FIXTURE_TEST_CASE(after_an_error_the_library_is_asked_when_touched, sourced) {
    lib.now = {test::closed_number(), interest::readable, clock_type::now() + 1h, true};
    run_until_log("pe");
    BOOST_TEST(lib.ec == test::bad_descriptor);
    test::run_all(io); // neither the time nor more to do
    BOOST_TEST(lib.log.empty());
    lib.now = {p.a.get(), interest::readable, clock_type::now() + 1h};
    s->touch();
    check_log("p");
    moor::use_registration_service(io).close();
    run_until_log("e"); // the error of a wait
    BOOST_TEST(lib.ec == test::gone);
    test::run_all(io); // the time does not count any more
    BOOST_TEST(lib.log.empty());
    lib.on_dispatch = [&] {
        lib.on_dispatch = nullptr;
        s->touch(); // in the dispatch of the error
    };
    s->touch();
    run_until_log("pepe");
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE(a_prepared_wait_is_called_off_where_nothing_is_dispatched) {
    asio::io_context io;
    test::fd_pair p = test::make_socketpair();
    library lib;
    lib.now = {p.a.get(), interest::readable};
    lib.on_dispatch = [&] { test::drain(p.a); };
    {
        moor::source s(io, lib.prepare(), lib.dispatch(), lib.cancel());
        test::run_ready(io);
        BOOST_TEST(lib.take() == "p");
        s.touch();
        test::run_ready(io);
        BOOST_TEST(lib.take() == "cp");
        test::put(p.b, "x");
        test::run_until(io, [&] { return lib.log.size() >= 2; });
        BOOST_TEST(lib.take() == "rp");
        s.stop();
        BOOST_TEST(lib.take() == "c");
        s.touch();
        test::run_ready(io);
        s = moor::source(io, lib.prepare(), lib.dispatch(), lib.cancel());
        test::run_ready(io);
        BOOST_TEST(lib.take() == "p");
    }
    BOOST_TEST(lib.take() == "c");
    test::run_ready(io);
    std::optional<moor::source> s;
    s.emplace(io, lib.prepare(), lib.dispatch(), lib.cancel());
    s.reset(); // before it was asked: nothing was prepared
    test::run_ready(io);
    BOOST_TEST(lib.take().empty());
    lib.on_prepare = [&] { s.reset(); };
    s.emplace(io, lib.prepare(), lib.dispatch(), lib.cancel());
    test::run_ready(io);
    BOOST_TEST(lib.take() == "pc");
    lib.on_prepare = nullptr;
    lib.on_dispatch = [&] { s->stop(); };
    s.emplace(io, lib.prepare(), lib.dispatch(), lib.cancel());
    test::put(p.b, "x");
    test::run_until(io, [&] { return lib.log.size() >= 2; });
    test::run_ready(io);
    BOOST_TEST(lib.take() == "pr");
}

BOOST_AUTO_TEST_CASE(the_callables_may_end_their_source_and_are_there_until_they_return) {
    for (bool in_prepare : {false, true})
        for (bool is_stop : {false, true}) {
            asio::io_context io;
            auto alive = std::make_shared<int>(0);
            std::optional<moor::source> s;
            auto end = [&] {
                if (is_stop)
                    s->stop();
                else
                    s.reset();
                BOOST_TEST(alive.use_count() == 3);
            };
            int asked = 0;
            s.emplace(
                io,
                [&, alive, in_prepare] {
                    ++asked;
                    if (in_prepare)
                        end();
                    return wants{-1, {}, {}, true};
                },
                [&, alive](error_code, readiness) { end(); });
            test::run_all(io);
            BOOST_TEST(asked == 1);
            BOOST_TEST(alive.use_count() == 1);
        }
}

BOOST_FIXTURE_TEST_CASE(a_dispatch_that_throws_does_not_end_the_source, sourced) {
    lib.now = {p.a.get(), interest::readable};
    check_log("p");
    test::put(p.b, "x");
    lib.on_dispatch = [&] {
        test::drain(p.a);
        throw std::runtime_error("thrown");
    };
    BOOST_CHECK_THROW(test::run_until(io, [&] { return !lib.log.empty(); }), std::runtime_error);
    run_until_log("rp");
    lib.on_dispatch = [&] { test::drain(p.a); };
    test::put(p.b, "x");
    run_until_log("rp");
    lib.on_prepare = [&] { throw std::runtime_error("thrown"); };
    s->touch();
    BOOST_CHECK_THROW(test::run_until(io, [&] { return !lib.log.empty(); }), std::runtime_error);
    lib.on_prepare = nullptr;
    lib.take();
    test::put(p.b, "x");
    run_until_log("rp"); // what was prepared before
    s.reset();
}

BOOST_FIXTURE_TEST_CASE(a_source_has_movable_callables_and_is_movable, sourced) {
    int asked = 0, told = 0;
    moor::source first(
        io,
        [&asked, &now = lib.now, owned = std::make_unique<int>(1)] {
            asked += *owned;
            return now;
        },
        [&told, owned = std::make_unique<int>(1)](error_code, readiness) { told += *owned; },
        [owned = std::make_unique<int>(1)] {});
    first.name("toy");
    moor::source second(std::move(first));
    lib.now = {p.a.get(), interest::readable};
    s.reset();
    test::run_ready(io);
    BOOST_TEST(asked == 1);
    BOOST_TEST(moor::use_registration_service(io).snapshot().at(0).name == "toy");
    test::put(p.b, "x");
    test::run_until(io, [&] { return told != 0; });
    second.keeps_running(false);
    test::drain(p.a);
    test::run_ready(io);
    test::run_all(io); // although it waits
    BOOST_TEST((second.get_executor() == io.get_executor()));
    lib.take();
}

BOOST_AUTO_TEST_CASE(a_source_outlives_its_context) {
    test::fd_pair p = test::make_socketpair();
    library lib;
    lib.now = {p.a.get(), interest::readable, clock_type::now() + 1h};
    for (bool is_asked : {false, true}) {
        auto io = std::make_unique<asio::io_context>();
        moor::source s(*io, lib.prepare(), lib.dispatch(), lib.cancel());
        if (is_asked)
            test::run_ready(*io);
        io.reset();
        BOOST_TEST(lib.take() == (is_asked ? "pc" : ""));
        s.touch();
        s.touch_now();
        s.keeps_running(false);
        s.stop();
    }
    // And one that is owned by its own callables goes with the context.
    auto alive = std::make_shared<int>(0);
    {
        asio::io_context io;
        auto s = std::make_shared<std::optional<moor::source>>();
        s->emplace(
            io,
            [s, alive, fd = p.a.get()] {
                return wants{fd, interest::readable};
            },
            [](error_code, readiness) {});
        s.reset();
        test::run_ready(io);
        BOOST_TEST(alive.use_count() == 2);
    }
    BOOST_TEST(alive.use_count() == 1);
    BOOST_TEST(::fcntl(p.a.get(), F_GETFD) != -1);
}

BOOST_AUTO_TEST_CASE(a_source_runs_on_a_strand_of_a_thread_pool) {
    constexpr int messages = 500;
    asio::thread_pool pool(3);
    auto strand = asio::make_strand(pool);
    test::fd_pair p = test::make_socketpair();
    std::atomic<int> received{0};
    std::atomic<bool> is_outside{false};
    std::optional<moor::basic_source<decltype(strand)>> s;
    asio::post(strand, [&] {
        s.emplace(
            strand,
            [&] {
                is_outside = is_outside || !strand.running_in_this_thread();
                return wants{p.a.get(), interest::readable, clock_type::now() + 1h,
                             received % 3 == 1};
            },
            [&](error_code ec, readiness r) {
                is_outside = is_outside || ec || !strand.running_in_this_thread();
                if (r.is_readable())
                    received += static_cast<int>(test::get(p.a, 2).size());
                if (received == messages)
                    s.reset();
            });
    });
    for (int i = 0; i != messages; ++i) {
        BOOST_REQUIRE(test::wait_for([&] { return received > i - 100; })); // there is room
        test::put(p.b, "x");
        if (i % 10 == 0)
            asio::post(strand, [&] {
                if (s)
                    s->touch();
            });
    }
    BOOST_TEST(test::wait_for([&] { return received == messages; }));
    pool.join();
    BOOST_TEST(!is_outside);
}

// What the constructor posts may be called before the constructor returns.
BOOST_AUTO_TEST_CASE(a_source_may_be_made_on_another_thread_than_its_strands) {
    constexpr int sources = 2000;
    asio::thread_pool pool(2);
    auto strand = asio::make_strand(pool);
    std::atomic<int> asked{0};
    std::list<moor::basic_source<decltype(strand)>> all;
    for (int i = 0; i != sources; ++i)
        all.emplace_back(
            strand, [&] { return ++asked, wants(); }, [](error_code, readiness) {});
    BOOST_TEST(test::wait_for([&] { return asked == sources; }));
    asio::post(strand, [&] { all.clear(); });
    pool.join();
}

BOOST_AUTO_TEST_SUITE_END()
