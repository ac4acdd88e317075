// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a callable returns: check_errno turns -1 and errno into an error, and an assertion reports a
// callable that forgot to.

// With MOOR_CHECK_USE, a report takes the place of the assertion: see misuse.cpp.
#undef MOOR_CHECK_USE

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <utility>

#include <sys/wait.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(results)

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};
    char c = 0;

    auto read() {
        return [this](error_code& ec) {
            return moor::check_errno(::recv(p.a, &c, 1, MSG_DONTWAIT), ec);
        };
    }
};

/// Whether a child process that calls `f` is ended by an assertion.
template <class F>
bool asserts(F f) {
    ::pid_t child = ::fork();
    BOOST_REQUIRE_GE(child, 0);
    if (child == 0) {
        std::signal(SIGABRT, SIG_DFL);
        ::close(STDERR_FILENO); // nobody wants to read the assertion
        f();
        ::_exit(0);
    }
    int status = 0;
    BOOST_REQUIRE_EQUAL(::waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

} // namespace

BOOST_AUTO_TEST_CASE(minus_one_becomes_errno_and_all_else_clears_the_error) {
    error_code ec = asio::error::eof;
    BOOST_TEST(moor::check_errno(7, ec) == 7);
    BOOST_CHECK_EQUAL(ec, error_code());
    ec = asio::error::eof;
    BOOST_TEST(moor::check_errno(::ssize_t(0), ec) == 0);
    BOOST_CHECK_EQUAL(ec, error_code());
    errno = ECONNRESET;
    BOOST_TEST(moor::check_errno(std::int64_t(-1), ec) == -1);
    BOOST_CHECK_EQUAL(ec, error_code(asio::error::connection_reset));
    BOOST_TEST((ec.category() == boost::system::system_category()));
    BOOST_TEST(moor::check_errno(-2, ec) == -2); // a library's own number
    BOOST_CHECK_EQUAL(ec, error_code());
    static_assert(noexcept(moor::check_errno(1, ec)), "");
}

BOOST_FIXTURE_TEST_CASE(a_call_that_is_checked_waits_and_is_made_again, fixture) {
    test::called done;
    ::ssize_t size = 0;
    reg.async_io(interest::readable, read(), [&](error_code ec, ::ssize_t n) {
        done.handler()(ec);
        size = n;
    });
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_CHECK_EQUAL(done.ec, error_code());
    BOOST_TEST(size == 1);
    BOOST_TEST((reg.try_io(interest::readable, read()).error() == test::would_block));
    int woken = 0;
    auto waker = [&] { ++woken; };
    BOOST_TEST((reg.poll_read_io(waker, read()).error() == test::would_block));
    p.b.close();
    test::run_until(io, [&] { return woken != 0; });
    auto r = reg.poll_read_io(waker, read());
    BOOST_TEST((r && *r == 0));
}

BOOST_AUTO_TEST_CASE(only_what_is_known_to_be_drained_is_said_to_be) {
    static_assert(moor::drained_if(true).is_drained && !moor::drained_if(false).is_drained, "");
    static_assert(moor::drained().is_drained && moor::drained(1).is_drained, "");
    static_assert(moor::drained_if(true, 1).is_drained && !moor::drained_if(false, 1).is_drained,
                  "");
    static_assert(moor::short_transfer(1, 2).is_short && !moor::short_transfer(2, 2).is_short, "");
    static_assert(!moor::short_transfer(0, 2).is_short && !moor::short_transfer(-1, 2).is_short,
                  "");
}

#if !defined(NDEBUG)

BOOST_AUTO_TEST_CASE(a_negative_number_without_an_error_is_reported) {
    auto with = [](auto f) {
        return asserts([&] {
            asio::io_context io;
            test::fd_pair p = test::make_socketpair();
            moor::registration reg(io, p.a.get());
            f(io, reg);
        });
    };
    auto forgets = [](error_code&) { return -1; };
    BOOST_TEST(with([&](asio::io_context&, moor::registration& reg) {
        (void)reg.try_io(interest::writable, forgets);
    }));
    BOOST_TEST(with([&](asio::io_context&, moor::registration& reg) {
        (void)reg.poll_write_io([] {}, forgets);
    }));
    BOOST_TEST(with([&](asio::io_context& io, moor::registration& reg) {
        reg.async_io(interest::writable, forgets, [](error_code, int) {});
        io.poll();
    }));
    BOOST_TEST(with([&](asio::io_context&, moor::registration& reg) {
        (void)reg.try_io(interest::writable, [](error_code&) { return moor::drained(-1.5); });
    }));
    // Not with an error, and not what has no sign.
    BOOST_TEST(!with([&](asio::io_context&, moor::registration& reg) {
        (void)reg.try_io(interest::writable, [](error_code& ec) {
            ec = asio::error::eof;
            return -1;
        });
        (void)reg.try_io(interest::writable, [](error_code&) { return false; });
        (void)reg.try_io(interest::writable, [](error_code&) { return ~0u; });
        (void)reg.try_io(interest::writable, [](error_code&) {});
    }));
}

#endif

BOOST_AUTO_TEST_SUITE_END()
