// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// C++20's coroutines.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"

#include <moor.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/multiple_exceptions.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>

BOOST_AUTO_TEST_SUITE(coro)

namespace asio = boost::asio;
using namespace asio::experimental::awaitable_operators;
using asio::awaitable;
using asio::use_awaitable;
using moor::interest;
using test::error_code;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};

    /// Runs a coroutine to its end.
    void run(awaitable<void> a) {
        bool over = false;
        std::exception_ptr error;
        asio::co_spawn(io, std::move(a), [&](std::exception_ptr e) {
            error = e;
            over = true;
        });
        test::run_until(io, [&] { return over; });
        if (error)
            std::rethrow_exception(error);
    }
};

BOOST_FIXTURE_TEST_CASE(use_awaitable_on_every_operation, fixture) {
    auto body = [&]() -> awaitable<void> {
        co_await reg.async_wait_writable(use_awaitable);
        test::put(p.b, "x");
        co_await reg.async_wait_readable(use_awaitable);
        moor::ready_event e =
            co_await reg.async_wait(interest::readable | interest::priority, use_awaitable);
        BOOST_TEST(e.ready() == interest::readable);
        std::string s =
            co_await reg.async_io(interest::readable, test::reader{p.a.get()}, use_awaitable);
        BOOST_TEST(s == "x");
        co_await reg.async_io(
            interest::writable, [](error_code&) {}, use_awaitable);
        auto owned = co_await reg.async_io(
            interest::writable, [](error_code&) { return std::make_unique<int>(3); },
            use_awaitable);
        BOOST_TEST(*owned == 3);
    };
    run(body());
}

BOOST_FIXTURE_TEST_CASE(a_suspended_coroutine_is_resumed_by_the_event, fixture) {
    int step = 0;
    bool over = false;
    auto body = [&]() -> awaitable<void> {
        for (;;) {
            std::string s =
                co_await reg.async_io(interest::readable, test::reader{p.a.get()}, use_awaitable);
            if (s.empty())
                co_return;
            ++step;
        }
    };
    asio::co_spawn(io, body(), [&](std::exception_ptr) { over = true; });
    for (int i = 0; i != 10; ++i) {
        test::run_ready(io);
        BOOST_TEST(step == i);
        test::put(p.b, "x");
    }
    test::run_ready(io);
    BOOST_TEST(step == 10);
    p.b.close();
    test::run_until(io, [&] { return over; });
}

BOOST_FIXTURE_TEST_CASE(an_error_is_thrown_into_the_coroutine, fixture) {
    auto body = [&]() -> awaitable<void> {
        try {
            co_await reg.async_wait(interest(), use_awaitable);
            BOOST_ERROR("no exception");
        } catch (const boost::system::system_error& e) {
            BOOST_TEST((e.code() == asio::error::invalid_argument));
        }
    };
    run(body());
    BOOST_CHECK_THROW(
        run(reg.async_io(
            interest::writable, [](error_code& ec) { ec = asio::error::fault; }, use_awaitable)),
        boost::system::system_error);
}

BOOST_FIXTURE_TEST_CASE(as_tuple_of_use_awaitable, fixture) {
    auto body = [&]() -> awaitable<void> {
        auto [ec] = co_await reg.async_wait_writable(asio::as_tuple(use_awaitable));
        BOOST_TEST(!ec);
        auto [ec2, e] = co_await reg.async_wait(interest::writable, asio::as_tuple(use_awaitable));
        BOOST_TEST(!ec2);
        BOOST_TEST(e.ready() == interest::writable);
        reg.deregister();
        auto [ec3, s] = co_await reg.async_io(interest::readable, test::reader{p.a.get()},
                                              asio::as_tuple(use_awaitable));
        BOOST_TEST((ec3 == moor::error::not_registered));
        BOOST_TEST(s.empty());
    };
    run(body());
}

BOOST_FIXTURE_TEST_CASE(redirect_error_of_use_awaitable, fixture) {
    auto body = [&]() -> awaitable<void> {
        error_code ec;
        reg.deregister();
        co_await reg.async_wait_readable(asio::redirect_error(use_awaitable, ec));
        BOOST_TEST((ec == moor::error::not_registered));
    };
    run(body());
}

BOOST_FIXTURE_TEST_CASE(deferred_is_awaited_directly, fixture) {
    auto body = [&]() -> awaitable<void> {
        co_await reg.async_wait_writable(asio::deferred);
        auto [ec, n] = co_await reg.async_io(
            interest::writable, [](error_code&) { return 5; }, asio::as_tuple(asio::deferred));
        BOOST_TEST(!ec);
        BOOST_TEST(n == 5);
    };
    run(body());
}

BOOST_FIXTURE_TEST_CASE(a_default_token_needs_no_argument, fixture) {
    auto body = [&]() -> awaitable<void> {
        auto r = use_awaitable.as_default_on(std::move(reg));
        co_await r.async_wait_writable();
        test::put(p.b, "x");
        co_await r.async_wait_readable();
        auto e = co_await r.async_wait(interest::readable);
        BOOST_TEST(e.ready() == interest::readable);
        std::string s = co_await r.async_io(interest::readable, test::reader{p.a.get()});
        BOOST_TEST(s == "x");
    };
    run(body());
    using tuple_token = asio::as_tuple_t<asio::use_awaitable_t<>>;
    auto body2 = [&]() -> awaitable<void> {
        using with_default = tuple_token::as_default_on_t<moor::registration>;
        with_default r(io, p.a.get());
        auto [ec] = co_await r.async_wait_writable();
        BOOST_TEST(!ec);
    };
    run(body2());
}

// ---- operators ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(or_takes_the_first_and_cancels_the_other, fixture) {
    auto body = [&]() -> awaitable<void> {
        auto result = co_await (reg.async_wait_readable(use_awaitable) ||
                                reg.async_wait_writable(use_awaitable));
        BOOST_TEST(result.index() == 1u);
    };
    run(body());
    BOOST_TEST(moor::use_registration_service(io).snapshot().at(0).waiters == 0u);
}

BOOST_FIXTURE_TEST_CASE(or_with_a_timer_is_a_timeout, fixture) {
    auto body = [&]() -> awaitable<void> {
        for (bool ready : {false, true}) {
            asio::steady_timer timer(io);
            timer.expires_after(ready ? std::chrono::milliseconds(1000000)
                                      : std::chrono::milliseconds(1));
            if (ready)
                test::put(p.b, "x");
            auto result = co_await (
                reg.async_io(interest::readable, test::reader{p.a.get()}, use_awaitable) ||
                timer.async_wait(use_awaitable));
            BOOST_TEST(result.index() == (ready ? 0u : 1u));
            if (ready)
                BOOST_TEST(std::get<0>(result) == "x");
        }
    };
    run(body());
}

BOOST_FIXTURE_TEST_CASE(and_waits_for_both, fixture) {
    auto body = [&]() -> awaitable<void> {
        auto [s, e] =
            co_await (reg.async_io(interest::readable, test::reader{p.a.get()}, use_awaitable) &&
                      reg.async_wait(interest::writable, use_awaitable));
        BOOST_TEST(s == "both");
        BOOST_TEST(e.ready() == interest::writable);
    };
    bool over = false;
    asio::co_spawn(io, body(), [&](std::exception_ptr e) {
        BOOST_TEST(!e);
        over = true;
    });
    test::run_ready(io);
    BOOST_TEST(!over);
    test::put(p.b, "both");
    test::run_until(io, [&] { return over; });
}

BOOST_FIXTURE_TEST_CASE(and_is_cancelled_by_the_first_error, fixture) {
    auto body = [&]() -> awaitable<void> {
        co_await (reg.async_wait_readable(use_awaitable) &&
                  reg.async_wait(interest(), use_awaitable));
    };
    // The wait that pending is cancelled, and Asio makes one exception of the two.
    BOOST_CHECK_THROW(run(body()), asio::multiple_exceptions);
    BOOST_TEST(moor::use_registration_service(io).snapshot().at(0).waiters == 0u);
}

// ---- cancellation -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(cancelling_a_coroutine_cancels_its_wait, fixture) {
    // co_spawn lets terminal through unless the coroutine says otherwise.
    asio::cancellation_signal signal;
    std::exception_ptr error;
    bool over = false;
    auto body = [&]() -> awaitable<void> { co_await reg.async_wait_readable(use_awaitable); };
    asio::co_spawn(io, body(), asio::bind_cancellation_slot(signal.slot(), [&](auto e) {
                       error = e;
                       over = true;
                   }));
    test::run_ready(io);
    signal.emit(asio::cancellation_type::terminal);
    test::run_until(io, [&] { return over; });
    BOOST_REQUIRE(error);
    BOOST_CHECK_EXCEPTION(std::rethrow_exception(error), boost::system::system_error,
                          [](auto& e) { return e.code() == asio::error::operation_aborted; });
}

BOOST_FIXTURE_TEST_CASE(partial_and_total_reach_the_wait_of_a_coroutine_that_lets_them, fixture) {
    for (auto type : {asio::cancellation_type::partial, asio::cancellation_type::total}) {
        asio::cancellation_signal signal;
        bool over = false;
        error_code seen;
        auto body = [&]() -> awaitable<void> {
            co_await asio::this_coro::reset_cancellation_state(asio::enable_total_cancellation());
            auto [ec, s] = co_await reg.async_io(interest::readable, test::reader{p.a.get()},
                                                 asio::as_tuple(use_awaitable));
            seen = ec;
        };
        asio::co_spawn(
            io, body(),
            asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr) { over = true; }));
        test::run_ready(io);
        BOOST_TEST(!over);
        signal.emit(type);
        test::run_until(io, [&] { return over; });
        BOOST_TEST(seen == asio::error::operation_aborted);
    }
}

BOOST_FIXTURE_TEST_CASE(a_coroutine_that_was_cancelled_may_wait_again, fixture) {
    asio::cancellation_signal signal;
    bool over = false;
    std::string got;
    auto body = [&]() -> awaitable<void> {
        auto [ec] = co_await reg.async_wait_readable(asio::as_tuple(use_awaitable));
        BOOST_TEST(ec == asio::error::operation_aborted);
        co_await asio::this_coro::reset_cancellation_state();
        co_await asio::this_coro::throw_if_cancelled(false);
        got = co_await reg.async_io(interest::readable, test::reader{p.a.get()}, use_awaitable);
    };
    asio::co_spawn(io, body(),
                   asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e) {
                       BOOST_TEST(!e);
                       over = true;
                   }));
    test::run_ready(io);
    signal.emit(asio::cancellation_type::terminal);
    test::run_ready(io);
    BOOST_TEST(!over);
    test::put(p.b, "again");
    test::run_until(io, [&] { return over; });
    BOOST_TEST(got == "again");
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_coroutine_owns_its_registration, fixture) {
    auto body = [](moor::registration r, int fd) -> awaitable<std::string> {
        co_return co_await r.async_io(interest::readable, test::reader{fd}, use_awaitable);
    };
    auto f = asio::co_spawn(io, body(std::move(reg), p.a), asio::use_future);
    test::run_ready(io);
    test::put(p.b, "mine");
    test::run_all(io);
    BOOST_TEST(f.get() == "mine");
    BOOST_TEST(moor::use_registration_service(io).snapshot().empty());
}

BOOST_AUTO_TEST_CASE(a_context_destroyed_with_coroutines_suspended) {
    test::fd_pair p = test::make_socketpair();
    auto owned = std::make_shared<int>(0);
    {
        asio::io_context io;
        auto body = [](asio::io_context& context, int fd, std::shared_ptr<int>) -> awaitable<void> {
            moor::registration r(context, fd); // destroyed with the frame
            co_await r.async_wait_readable(use_awaitable);
        };
        auto body2 = [](asio::io_context& context, int fd,
                        std::shared_ptr<int>) -> awaitable<void> {
            moor::registration r(context, fd);
            co_await (r.async_io(interest::readable, test::reader{fd}, use_awaitable) ||
                      r.async_wait(interest::priority, use_awaitable));
        };
        asio::co_spawn(io, body(io, p.a, owned), asio::detached);
        asio::co_spawn(io, body2(io, p.b, owned), asio::detached);
        io.poll();
        BOOST_TEST(owned.use_count() == 3);
    }
    BOOST_TEST(owned.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(close_ends_every_coroutine, fixture) {
    int over = 0;
    auto body = [&]() -> awaitable<void> {
        for (;;)
            co_await reg.async_wait_readable(use_awaitable);
    };
    for (int i = 0; i != 5; ++i)
        asio::co_spawn(io, body(), [&](std::exception_ptr e) {
            BOOST_CHECK_EXCEPTION(std::rethrow_exception(e), boost::system::system_error,
                                  [](auto& x) { return x.code() == moor::error::gone; });
            ++over;
        });
    test::run_ready(io);
    moor::use_registration_service(io).close();
    test::run_all(io);
    BOOST_TEST(over == 5);
}

BOOST_FIXTURE_TEST_CASE(a_coroutine_resumes_on_its_own_executor, fixture) {
    auto strand = asio::make_strand(io);
    bool over = false;
    auto body = [&]() -> awaitable<void> {
        for (int i = 0; i != 3; ++i) {
            BOOST_TEST(strand.running_in_this_thread());
            co_await reg.async_wait_writable(use_awaitable);
            BOOST_TEST(strand.running_in_this_thread());
            co_await reg.async_io(
                interest::writable,
                [&](error_code&) { BOOST_TEST(strand.running_in_this_thread()); }, use_awaitable);
        }
    };
    asio::co_spawn(strand, body(), [&](std::exception_ptr) { over = true; });
    test::run_until(io, [&] { return over; });
}

BOOST_AUTO_TEST_CASE(coroutines_on_a_thread_pool) {
    asio::thread_pool pool(2);
    test::fd_pair p = test::make_socketpair();
    moor::registration reader(pool, p.a.get()), writer(pool, p.b.get());
    auto consume = [&]() -> awaitable<std::size_t> {
        std::size_t total = 0;
        for (;;) {
            std::string s = co_await reader.async_io(interest::readable, test::reader{p.a.get()},
                                                     use_awaitable);
            if (s.empty())
                co_return total;
            total += s.size();
        }
    };
    auto produce = [&](std::size_t n) -> awaitable<void> {
        std::string chunk(1000, 'x');
        while (n != 0) {
            auto sent = co_await writer.async_io(
                interest::writable,
                [&](error_code& ec) {
                    ::ssize_t r =
                        ::send(p.b, chunk.data(), std::min(n, chunk.size()), MSG_NOSIGNAL);
                    if (r < 0)
                        ec = test::last_error();
                    return r;
                },
                use_awaitable);
            n -= static_cast<std::size_t>(sent);
        }
        ::shutdown(p.b, SHUT_WR);
    };
    auto total = asio::co_spawn(pool, consume(), asio::use_future);
    asio::co_spawn(pool, produce(1000000), asio::detached);
    BOOST_REQUIRE(total.wait_for(test::cap) == std::future_status::ready);
    BOOST_TEST(total.get() == 1000000u);
    pool.join();
}

BOOST_AUTO_TEST_SUITE_END()
