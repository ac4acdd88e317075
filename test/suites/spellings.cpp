// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A callable may spell "would block" and "interrupted" in any category: of Boost, of the standard
// library, or its own.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <cerrno>
#include <string>
#include <system_error>

BOOST_AUTO_TEST_SUITE(spellings)

namespace {

namespace asio = boost::asio;
namespace errc = boost::system::errc;
using moor::interest;
using test::error_code;

/// A library with numbers of its own.
class library_category : public boost::system::error_category {
public:
    enum value { again = 77, signalled = 78, broken = EAGAIN };

    const char* name() const noexcept override { return "library"; }
    std::string message(int) const override { return "library"; }
    boost::system::error_condition default_error_condition(int v) const noexcept override {
        return v == again       ? make_error_condition(errc::operation_would_block)
               : v == signalled ? make_error_condition(errc::interrupted)
                                : boost::system::error_condition(v, *this);
    }
    virtual ~library_category() = default;
};
const library_category library;

/// The same, which knows what its numbers are equivalent to, and has no conditions.
class equivalent_category : public std::error_category {
public:
    const char* name() const noexcept override { return "equivalent"; }
    std::string message(int) const override { return "equivalent"; }
    bool equivalent(int v, const std::error_condition& c) const noexcept override {
        return v == 5 && c == std::errc::operation_would_block;
    }
};
const equivalent_category equivalent;

struct spelling {
    const char* name;
    error_code ec;
};

const spelling would_block_spellings[] = {
    {"asio::error::would_block", asio::error::would_block},
    {"asio::error::try_again", asio::error::try_again},
    {"system", error_code(EAGAIN, boost::system::system_category())},
    {"generic", error_code(EWOULDBLOCK, boost::system::generic_category())},
    {"errc::operation_would_block", make_error_code(errc::operation_would_block)},
    {"errc::resource_unavailable_try_again", make_error_code(errc::resource_unavailable_try_again)},
    {"std::system", std::error_code(EAGAIN, std::system_category())},
    {"std::generic", std::error_code(EWOULDBLOCK, std::generic_category())},
    {"std::errc", std::make_error_code(std::errc::operation_would_block)},
    {"std::errc, try again", std::make_error_code(std::errc::resource_unavailable_try_again)},
    {"a category of its own", error_code(library_category::again, library)},
    {"an equivalent category", std::error_code(5, equivalent)},
};

const spelling interrupted_spellings[] = {
    {"asio::error::interrupted", asio::error::interrupted},
    {"generic", make_error_code(errc::interrupted)},
    {"std::errc", std::make_error_code(std::errc::interrupted)},
    {"a category of its own", error_code(library_category::signalled, library)},
};

const spelling other_errors[] = {
    {"its own EAGAIN", error_code(library_category::broken, library)},
    {"eof", asio::error::eof},
    {"in progress", asio::error::in_progress},
    {"not equivalent", std::error_code(6, equivalent)},
};

/// Says `ec` when there is nothing to read, and so many times besides.
struct reader {
    int fd;
    error_code ec;
    int extra = 0;
    int* calls;

    int operator()(error_code& e) {
        ++*calls;
        char c = 0;
        if (extra-- > 0 || ::recv(fd, &c, 1, MSG_DONTWAIT) != 1) {
            e = ec;
            return 0;
        }
        return c;
    }
};

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};
    int calls = 0;
};

} // namespace

BOOST_FIXTURE_TEST_CASE(would_block_is_recognised_in_every_spelling, fixture) {
    for (const spelling& s : would_block_spellings)
        BOOST_TEST_CONTEXT(s.name) {
            // An operation goes on.
            test::called done;
            int got = 0;
            reg.async_io(interest::readable, reader{p.a, s.ec, 0, &calls},
                         [&](error_code ec, int c) {
                             done.handler()(ec);
                             got = c;
                         });
            test::check_pends(io, done);
            test::put(p.b, "x");
            test::check_completes(io, done);
            BOOST_TEST(got == 'x');

            // try_io drops the readiness, and gives the error as it was said.
            test::put(p.b, "x");
            test::check_readable(io, reg); // so that readability is cached
            BOOST_TEST(test::get(p.a) == "x");
            auto r = reg.try_io(interest::readable, reader{p.a, s.ec, 0, &calls});
            BOOST_CHECK_EQUAL(r.error(), s.ec);
            BOOST_TEST(!reg.ready(interest::readable).ready().is_readable());

            // A waker is kept.
            int woken = 0;
            r = reg.poll_read_io([&] { ++woken; }, reader{p.a, s.ec, 0, &calls});
            BOOST_CHECK_EQUAL(r.error(), test::would_block);
            test::put(p.b, "x");
            test::run_until(io, [&] { return woken != 0; });
            BOOST_TEST(test::get(p.a) == "x");
        }
}

BOOST_FIXTURE_TEST_CASE(other_errors_end_an_operation_after_one_call, fixture) {
    for (const spelling& s : other_errors)
        BOOST_TEST_CONTEXT(s.name) {
            calls = 0;
            test::called done;
            reg.async_io(interest::readable, reader{p.a, s.ec, 0, &calls}, done.handler());
            test::put(p.b, "x"); // the first call may be made before the handle is ready, or not
            reader r{p.a, s.ec, 1, &calls};
            test::run_until(io, [&] { return bool(done); });
            auto tried = reg.try_io(interest::writable, r);
            BOOST_TEST((!tried && tried.error() == s.ec));
            BOOST_TEST(calls == 2);
            test::drain(p.a);
        }
}

BOOST_FIXTURE_TEST_CASE(a_call_that_was_interrupted_is_made_again, fixture) {
    for (const spelling& s : interrupted_spellings)
        BOOST_TEST_CONTEXT(s.name) {
            test::put(p.b, "abc");
            test::called done;
            reg.async_io(interest::readable, reader{p.a, s.ec, 3, &calls}, done.handler());
            test::check_fails(io, done, error_code());
            auto r = reg.try_io(interest::readable, reader{p.a, s.ec, 3, &calls});
            BOOST_TEST((r && *r == 'b'));
            r = reg.poll_read_io([] {}, reader{p.a, s.ec, 3, &calls});
            BOOST_TEST((r && *r == 'c'));
        }
}

BOOST_FIXTURE_TEST_CASE(a_call_that_is_interrupted_for_ever_ends_with_its_operation, fixture) {
    auto interrupted = [&](error_code& ec) {
        ec = make_error_code(errc::interrupted);
        if (++calls == 5)
            reg.cancel();
        if (calls == 10)
            reg.deregister();
    };
    test::called done;
    reg.async_io(interest::writable, interrupted, done.handler());
    test::check_fails(io, done, test::aborted);
    BOOST_TEST(calls == 5);
    BOOST_TEST(reg.try_io(interest::writable, interrupted).has_error());
    BOOST_TEST(calls == 10);
}

BOOST_AUTO_TEST_SUITE_END()
