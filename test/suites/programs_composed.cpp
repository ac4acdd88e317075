// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Whole programs of the kind that people write with posix::stream_descriptor. Each is a template
// over the stream, and runs with Asio's own and with Moor's: nothing but the alias changes. What
// they say is shown by --log_level=message, and in doc/programs.adoc.
//
// Here: parallel groups and coroutines.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/programs.hpp"
#include "support/pty.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <string>
#include <utility>
#include <vector>

BOOST_AUTO_TEST_SUITE(programs_composed)

namespace asio = boost::asio;
using test::context_fixture;
using test::eof;
using test::error_code;
using test::long_text;
using test::never;
using test::streams;
using test::terminal_streams;

// ---- waiting for one of several, or for all -----------------------------------------------------

namespace group {

namespace ex = asio::experimental;

/// The first of a key and a timeout; the other is cancelled.
template <class Stream, class Handler>
void key_or_timeout(Stream& in, asio::steady_timer& timer, char& key, Handler handler) {
    ex::make_parallel_group(in.async_read_some(asio::buffer(&key, 1), asio::deferred),
                            timer.async_wait(asio::deferred))
        .async_wait(ex::wait_for_one(), std::move(handler));
}

/// Several inputs, each with its own byte.
template <class Stream>
struct inputs {
    static constexpr std::size_t count = 3;

    explicit inputs(asio::io_context& io) {
        for (std::size_t i = 0; i != count; ++i) {
            test::fd_pair p = test::make_pipe();
            in.emplace_back(io, p.a.release());
            out.push_back(std::move(p.b));
        }
    }

    using order_type = std::vector<std::size_t>;
    using codes_type = std::vector<error_code>;
    using sizes_type = std::vector<std::size_t>;

    template <class Condition>
    void read_all(Condition condition) {
        using operation =
            decltype(in[0].async_read_some(asio::buffer(&bytes[0], 1), asio::deferred));
        std::vector<operation> operations;
        for (std::size_t i = 0; i != count; ++i)
            operations.push_back(in[i].async_read_some(asio::buffer(&bytes[i], 1), asio::deferred));
        ex::make_parallel_group(std::move(operations))
            .async_wait(condition, [this](order_type o, codes_type c, sizes_type n) {
                order = std::move(o);
                codes = std::move(c);
                sizes = std::move(n);
            });
    }
    bool over() const { return !order.empty(); }
    std::string summary() const {
        std::string s;
        for (std::size_t i = 0; i != count; ++i)
            s += (i == 0 ? "input " : "; input ") + std::to_string(i) + ": " + codes[i].message();
        return s;
    }

    std::vector<Stream> in;
    std::vector<test::unique_fd> out;
    std::array<char, count> bytes{};
    order_type order;
    codes_type codes;
    sizes_type sizes;
};

} // namespace group

BOOST_AUTO_TEST_CASE_TEMPLATE(a_key_before_the_timeout, Stream, terminal_streams) {
    context_fixture context;
    test::fd_pair tty = test::make_raw_pty();
    Stream in(context.io, tty.b.release());
    asio::steady_timer timer(context.io, never);
    bool over = false;
    char key = 0;
    group::key_or_timeout(
        in, timer, key,
        [&](std::array<std::size_t, 2> order, error_code read, std::size_t n, error_code waited) {
            BOOST_TEST(order[0] == 0u);
            BOOST_TEST(!read);
            BOOST_TEST(n == 1u);
            BOOST_TEST((waited == test::aborted));
            over = true;
        });
    test::run_ready(context.io);
    BOOST_TEST(!over);
    test::put(tty.a, "k");
    test::run_all(context.io);
    BOOST_TEST(over);
    BOOST_TEST(key == 'k');
    BOOST_TEST_MESSAGE("the key came first: " << std::string(1, key));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_timeout_before_the_key_which_is_not_lost, Stream,
                              terminal_streams) {
    context_fixture context;
    test::fd_pair tty = test::make_raw_pty();
    Stream in(context.io, tty.b.release());
    asio::steady_timer timer(context.io, std::chrono::milliseconds(1));
    int over = 0;
    char key = 0;
    group::key_or_timeout(
        in, timer, key,
        [&](std::array<std::size_t, 2> order, error_code read, std::size_t n, error_code waited) {
            BOOST_TEST(order[0] == 1u);
            BOOST_TEST((read == test::aborted));
            BOOST_TEST(n == 0u);
            BOOST_TEST(!waited);
            ++over;
        });
    test::run_all(context.io);
    BOOST_TEST(over == 1);
    BOOST_TEST_MESSAGE("the timeout came first");
    // The read that was cancelled takes nothing: the next one gets it.
    test::put(tty.a, "l");
    timer.expires_after(never);
    group::key_or_timeout(
        in, timer, key,
        [&](std::array<std::size_t, 2>, error_code, std::size_t, error_code) { ++over; });
    test::run_all(context.io);
    BOOST_TEST(over == 2);
    BOOST_TEST(key == 'l');
    BOOST_TEST_MESSAGE("and then the key: " << std::string(1, key));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_byte_of_every_input, Stream, streams) {
    context_fixture context;
    group::inputs<Stream> g(context.io);
    g.read_all(group::ex::wait_for_all());
    // In another order than they were asked for; each is taken before the next one comes.
    const std::vector<std::size_t> order = {2, 0, 1};
    test::run_ready(context.io);
    for (std::size_t i : order) {
        BOOST_TEST(!g.over());
        test::put(g.out[i], std::string(1, static_cast<char>('a' + i)));
        test::run_ready(context.io);
    }
    test::run_all(context.io);
    BOOST_REQUIRE(g.over());
    BOOST_TEST(std::string(g.bytes.data(), g.bytes.size()) == "abc");
    for (std::size_t i = 0; i != g.count; ++i) {
        BOOST_TEST(!g.codes[i]);
        BOOST_TEST(g.sizes[i] == 1u);
    }
    BOOST_TEST(g.order == order, boost::test_tools::per_element());
    BOOST_TEST_MESSAGE("all inputs: " << std::string(g.bytes.data(), g.bytes.size()));
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_first_input_that_fails_ends_the_others, Stream, streams) {
    context_fixture context;
    group::inputs<Stream> g(context.io);
    g.read_all(group::ex::wait_for_one_error());
    test::put(g.out[0], "a"); // a success does not end it
    test::run_until(context.io, [&] { return g.bytes[0] == 'a'; });
    test::run_ready(context.io);
    BOOST_TEST(!g.over());
    g.out[1].close();
    test::run_all(context.io);
    BOOST_REQUIRE(g.over());
    BOOST_TEST(!g.codes[0]);
    BOOST_TEST((g.codes[1] == eof));
    BOOST_TEST((g.codes[2] == test::aborted));
    BOOST_TEST(g.bytes[0] == 'a');
    BOOST_TEST_MESSAGE(g.summary());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(the_first_input_that_succeeds_ends_the_others, Stream, streams) {
    context_fixture context;
    group::inputs<Stream> g(context.io);
    g.read_all(group::ex::wait_for_one_success());
    g.out[1].close(); // a failure does not end it
    test::run_ready(context.io);
    BOOST_TEST(!g.over());
    test::put(g.out[2], "c");
    test::run_all(context.io);
    BOOST_REQUIRE(g.over());
    BOOST_TEST((g.codes[0] == test::aborted));
    BOOST_TEST((g.codes[1] == eof));
    BOOST_TEST(!g.codes[2]);
    BOOST_TEST(g.bytes[2] == 'c');
    BOOST_TEST_MESSAGE(g.summary());
}

// ---- coroutines ---------------------------------------------------------------------------------

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace coroutines {

using asio::awaitable;
using asio::use_awaitable;

/// Sends back what comes, to the end.
template <class Stream>
awaitable<void> echo(Stream in, Stream out) {
    std::array<char, 1024> data;
    for (;;) {
        error_code ec;
        std::size_t n = co_await in.async_read_some(asio::buffer(data),
                                                    asio::redirect_error(use_awaitable, ec));
        if (ec == eof)
            co_return;
        if (ec)
            throw boost::system::system_error(ec);
        co_await asio::async_write(out, asio::buffer(data, n), use_awaitable);
    }
}

template <class Stream>
awaitable<void> speak(Stream out, std::string text) {
    co_await asio::async_write(out, asio::buffer(text), use_awaitable);
}

template <class Stream>
awaitable<void> hear(Stream in, std::string& text) {
    error_code ec;
    co_await asio::async_read(in, asio::dynamic_buffer(text),
                              asio::redirect_error(use_awaitable, ec));
    BOOST_TEST((ec == eof));
}

} // namespace coroutines

BOOST_AUTO_TEST_CASE_TEMPLATE(many_echoes_at_once_in_coroutines, Stream, streams) {
    context_fixture context;
    constexpr std::size_t count = 8;
    std::vector<std::string> heard(count);
    std::size_t over = 0;
    auto start = [&](coroutines::awaitable<void> a) {
        asio::co_spawn(context.io, std::move(a), [&](std::exception_ptr e) {
            BOOST_TEST(!e);
            ++over;
        });
    };
    const std::string text = long_text(100'000);
    for (std::size_t i = 0; i != count; ++i) {
        test::fd_pair there = test::make_pipe();
        test::fd_pair back = test::make_pipe();
        auto stream = [&](test::unique_fd& fd) { return Stream(context.io, fd.release()); };
        start(coroutines::echo(stream(there.a), stream(back.b)));
        start(coroutines::speak(stream(there.b), std::to_string(i) + text));
        start(coroutines::hear(stream(back.a), heard[i]));
    }
    test::run_all(context.io);
    BOOST_TEST(over == 3 * count);
    for (std::size_t i = 0; i != count; ++i)
        BOOST_TEST((heard[i] == std::to_string(i) + text));
    BOOST_TEST_MESSAGE(over << " coroutines are over, " << count << " echoes of " << heard[0].size()
                            << " bytes");
}

#endif

BOOST_AUTO_TEST_SUITE_END()
