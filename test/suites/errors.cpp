// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Every bad input is a clear error through every way of asking, never a hang, and the caller still
// has its handle.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/use_future.hpp>

#include <cstring>
#include <future>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include <sys/resource.h>
#include <sys/select.h>

namespace {

namespace asio = boost::asio;
namespace errc = boost::system::errc;
using moor::interest;
using test::aborted;
using test::already_open;
using test::already_registered;
using test::bad_descriptor;
using test::error_code;
using test::gone;
using test::is_open;
using test::not_registered;
using test::registered_elsewhere;

const error_code invalid_argument(asio::error::invalid_argument);

/// The error that a throwing overload throws; success if it does not.
template <class F>
error_code thrown(F f) {
    try {
        f();
    } catch (const boost::system::system_error& e) {
        BOOST_TEST(std::strlen(e.what()) != 0);
        return e.code();
    }
    return error_code();
}

/// Every way to ask for `want`, each of which must answer `expected` without running a callable.
/// Only for interests that have a direction is there a slot to poll.
void check_every_way(asio::io_context& io, moor::registration& reg, interest want,
                     const error_code& expected) {
    bool ran = false;
    auto value = [&](error_code&) {
        ran = true;
        return 1;
    };
    auto nothing = [&](error_code&) { ran = true; };
    test::called wait, io_value, io_void;
    moor::ready_event event;
    int result = 7;
    reg.async_wait(want, [&](error_code ec, moor::ready_event e) {
        wait.handler()(ec);
        event = e;
    });
    reg.async_io(want, value, [&](error_code ec, int v) {
        io_value.handler()(ec);
        result = v;
    });
    reg.async_io(want, nothing, io_void.handler());
    BOOST_TEST(wait.times + io_value.times + io_void.times == 0); // never inside the initiation
    test::run_until(io, [&] { return wait && io_value && io_void; });
    BOOST_CHECK_EQUAL(wait.ec, expected);
    BOOST_CHECK_EQUAL(io_value.ec, expected);
    BOOST_CHECK_EQUAL(io_void.ec, expected);
    BOOST_TEST(event.ready().empty());
    BOOST_TEST(result == 0);

    if (want == interest::readable || want == interest::writable) {
        const bool reads = want == interest::readable;
        test::called named;
        if (reads)
            reg.async_wait_readable(named.handler());
        else
            reg.async_wait_writable(named.handler());
        test::check_fails(io, named, expected);
        auto poll_io = [&](auto call) {
            return (reads ? reg.poll_read_io([] {}, call) : reg.poll_write_io([] {}, call)).error();
        };
        BOOST_CHECK_EQUAL(
            (reads ? reg.poll_read_ready([] {}) : reg.poll_write_ready([] {})).error(), expected);
        BOOST_CHECK_EQUAL(poll_io(value), expected);
        BOOST_CHECK_EQUAL(poll_io(nothing), expected);
    }
    BOOST_CHECK_EQUAL(reg.try_io(want, value).error(), expected);
    BOOST_CHECK_EQUAL(reg.try_io(want, nothing).error(), expected);
    BOOST_TEST(!ran);
}

/// The same through a future, which throws.
void check_future(asio::io_context& io, moor::registration& reg, const error_code& expected) {
    std::future<void> f = reg.async_wait_readable(asio::use_future);
    test::run_until(
        io, [&] { return f.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
    BOOST_CHECK_EQUAL(thrown([&] { f.get(); }), expected);
}

} // namespace

BOOST_AUTO_TEST_SUITE(errors)

// ---- the category -------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(the_category_has_a_name_and_every_error_a_message) {
    BOOST_TEST(std::string(moor::error_category().name()) == "moor");
    for (moor::error e : {moor::error::gone, moor::error::already_registered,
                          moor::error::not_registered, moor::error::already_open,
                          moor::error::registered_elsewhere, moor::error::rate_limited}) {
        error_code ec = e;
        BOOST_TEST((ec.category() == moor::error_category()));
        BOOST_TEST(ec.failed());
        BOOST_TEST(ec.message().size() > 10u);
        BOOST_TEST(ec.message() != moor::error_category().message(0));
    }
    BOOST_TEST(static_cast<int>(moor::error::gone) == 1);
    BOOST_TEST(!moor::error_category().message(4711).empty());
    BOOST_TEST((&moor::error_category() == &moor::error_category()));
}

BOOST_AUTO_TEST_CASE(the_errors_compare_equal_to_the_generic_conditions_that_fit) {
    BOOST_TEST((gone == errc::operation_canceled));
    BOOST_TEST((already_registered == errc::file_exists));
    BOOST_TEST((already_open == errc::file_exists));
    BOOST_TEST((registered_elsewhere == errc::file_exists));
    BOOST_TEST((not_registered == errc::bad_file_descriptor));
    BOOST_TEST((gone != errc::bad_file_descriptor));
    BOOST_TEST((already_registered != errc::operation_canceled));
    BOOST_TEST((not_registered != errc::file_exists));
    BOOST_TEST((error_code(moor::error::rate_limited) != errc::resource_unavailable_try_again));
    BOOST_TEST((gone != aborted)); // told apart by who asks
    // The errors that are passed on.
    BOOST_TEST((bad_descriptor == errc::bad_file_descriptor));
    BOOST_TEST((aborted == errc::operation_canceled));
    // And with the standard's error codes.
    BOOST_TEST((std::error_code(gone) == std::errc::operation_canceled));
    BOOST_TEST((std::error_code(already_registered) == std::errc::file_exists));
    BOOST_TEST((std::error_code(not_registered) == std::errc::bad_file_descriptor));
}

// ---- registering --------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_handle_that_is_not_open_cannot_be_registered, test::context_fixture) {
    for (int handle : {-1, -1000, test::closed_number()}) {
        BOOST_TEST_CONTEXT("handle " << handle) {
            moor::registration reg(io);
            error_code ec;
            reg.register_handle(handle, ec);
            BOOST_CHECK_EQUAL(ec, bad_descriptor);
            ec = error_code();
            reg.register_handle(handle, moor::trigger::edge, ec);
            BOOST_CHECK_EQUAL(ec, bad_descriptor);
            BOOST_CHECK_EQUAL(thrown([&] { reg.register_handle(handle); }), bad_descriptor);
            BOOST_CHECK_EQUAL(thrown([&] { moor::registration(io, handle); }), bad_descriptor);
            BOOST_CHECK_EQUAL(thrown([&] { moor::registration(io.get_executor(), handle); }),
                              bad_descriptor);
            reg.reset(handle, ec);
            BOOST_CHECK_EQUAL(ec, bad_descriptor);
            BOOST_CHECK_EQUAL(thrown([&] { reg.reset(handle); }), bad_descriptor);
            BOOST_TEST(!reg.is_registered());
            BOOST_TEST(reg.native_handle() == -1);
            check_every_way(io, reg, interest::readable, not_registered);
        }
    }
    BOOST_TEST(moor::use_registration_service(io).metrics().registered == 0u);
}

BOOST_FIXTURE_TEST_CASE(a_handle_is_registered_once_in_a_context_and_the_first_keeps_working,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration first(io, p.a.get());
    moor::registration second(io);
    for (int round = 0; round != 2; ++round) {
        test::pending_reader done(io, first);
        error_code ec;
        second.register_handle(p.a, ec);
        BOOST_CHECK_EQUAL(ec, already_registered);
        BOOST_CHECK_EQUAL(thrown([&] { second.register_handle(p.a); }), already_registered);
        BOOST_CHECK_EQUAL(thrown([&] { moor::registration(io, p.a.get()); }), already_registered);
        second.reset(p.a, ec);
        BOOST_CHECK_EQUAL(ec, already_registered);
        BOOST_TEST(!second.is_registered());
        check_every_way(io, second, interest::readable, not_registered);
        test::check_pends(io, done);
        test::put(p.b, "x");
        test::check_completes(io, done);
        BOOST_TEST(test::get(p.a) == "x");
    }
    BOOST_TEST(is_open(p.a));
    first.deregister();
    second.register_handle(p.a);
}

BOOST_FIXTURE_TEST_CASE(a_registration_holds_one_handle_at_a_time, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    moor::registration reg(io, p.a.get());
    error_code ec;
    for (int handle : {p.a.get(), q.a.get(), -1}) {
        reg.register_handle(handle, ec);
        BOOST_CHECK_EQUAL(ec, already_open);
        BOOST_CHECK_EQUAL(thrown([&] { reg.register_handle(handle); }), already_open);
        BOOST_TEST(reg.native_handle() == p.a.get());
    }
    // The one that was refused is free, and the one that is held works.
    moor::registration other(io, q.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::put(p.b, "x");
    test::check_completes(io, done);
}

BOOST_FIXTURE_TEST_CASE(deregistering_nothing_does_nothing, test::context_fixture) {
    moor::registration reg(io);
    error_code ec = aborted;
    BOOST_TEST(reg.deregister(ec) == -1);
    BOOST_CHECK_EQUAL(ec, error_code());
    BOOST_TEST(reg.deregister() == -1);
    static_assert(
        noexcept(reg.deregister())&& noexcept(reg.deregister(ec))&& noexcept(reg.abandon()), "");
    reg.abandon();
    reg.cancel();
    reg.cancel(moor::direction::read);
    reg.cancel(moor::direction::write);
    reg.clear(moor::ready_event());
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
}

// ---- waiting ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(waiting_before_registering_is_an_error, test::context_fixture) {
    moor::registration reg(io);
    for (interest want : {interest::readable, interest::writable, interest::priority,
                          interest::readable | interest::error})
        check_every_way(io, reg, want, not_registered);
    check_future(io, reg, not_registered);
    error_code ec;
    reg.query(ec);
    BOOST_CHECK_EQUAL(ec, not_registered);
    BOOST_CHECK_EQUAL(thrown([&] { reg.query(); }), not_registered);
}

BOOST_FIXTURE_TEST_CASE(waiting_after_deregistering_is_an_error, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    reg.deregister();
    check_every_way(io, reg, interest::readable, not_registered);
    check_every_way(io, reg, interest::writable, not_registered);
    check_future(io, reg, not_registered);
}

BOOST_FIXTURE_TEST_CASE(an_empty_interest_is_an_error, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    check_every_way(io, reg, interest(), invalid_argument);
    test::put(p.b, "x");
    check_every_way(io, reg, interest(), invalid_argument);
    // Still alive.
    test::check_readable(io, reg);
}

BOOST_FIXTURE_TEST_CASE(waiting_on_a_handle_that_was_closed_is_an_error, test::context_fixture) {
    auto check = [&](moor::trigger t, interest want, test::fd_pair (*make)()) {
        // Each wait on a fresh registration.
        for (interest events : {want, want | interest::error}) {
            test::fd_pair p = make();
            moor::registration reg(io, p.a.get(), t);
            p.a.close();
            test::called wait;
            reg.async_wait(events, wait.handler());
            test::check_fails(io, wait, bad_descriptor);
        }
        test::fd_pair p = make();
        moor::registration reg(io, p.a.get(), t);
        p.a.close();
        auto poll =
            want == interest::readable ? reg.poll_read_ready([] {}) : reg.poll_write_ready([] {});
        BOOST_CHECK_EQUAL(poll.error(), bad_descriptor);
        error_code ec;
        reg.query(ec);
        BOOST_CHECK_EQUAL(ec, bad_descriptor);
        BOOST_CHECK_EQUAL(thrown([&] { reg.query(); }), bad_descriptor);
        bool ran = false;
        auto try_result = reg.try_io(want, [&](error_code&) { ran = true; });
        BOOST_CHECK_EQUAL(try_result.error(), bad_descriptor);
        BOOST_TEST(!ran);
    };
    for (moor::trigger t : test::both_triggers)
        for (interest want : {interest::readable, interest::writable})
            for (auto make : {+[] { return test::make_socketpair(); }, &test::make_pipe})
                BOOST_TEST_CONTEXT((t == moor::trigger::edge ? "edge " : "level ") << want) {
                    check(t, want, make);
                }
}

BOOST_FIXTURE_TEST_CASE(async_io_on_a_handle_that_was_closed_ends_with_an_error,
                        test::context_fixture) {
    // Moor's own answer, or what the callable finds out; both say the same.
    for (moor::trigger t : test::both_triggers) {
        test::fd_pair p = test::make_pipe();
        moor::registration reg(io, p.a.get(), t);
        int number = p.a.get();
        p.a.close();
        test::called done;
        reg.async_io(interest::readable, test::reader{number}, done.handler());
        test::check_fails(io, done, bad_descriptor);
        auto r = reg.poll_read_io([] {}, test::reader{number});
        BOOST_CHECK_EQUAL(r.error(), bad_descriptor);
    }
}

BOOST_FIXTURE_TEST_CASE(a_level_wait_on_a_handle_closed_after_an_earlier_wait_is_an_error,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    test::called first, write;
    reg.async_wait_readable(first.handler());
    reg.async_wait_writable(write.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_until(io, [&] { return first && write; });
    p.a.close();
    test::called read_again, write_again;
    reg.async_wait_readable(read_again.handler());
    reg.async_wait_writable(write_again.handler());
    test::run_until(io, [&] { return read_again && write_again; });
    BOOST_CHECK_EQUAL(read_again.ec, bad_descriptor);
    BOOST_CHECK_EQUAL(write_again.ec, bad_descriptor);
}

BOOST_FIXTURE_TEST_CASE(a_wait_left_on_a_closed_handle_ends_when_it_is_cancelled,
                        test::context_fixture) {
    // The kernel does not say that a handle was closed; the wait must at least not be stuck.
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::pending_reader done(io, reg);
    p.a.close();
    reg.cancel();
    test::check_fails(io, done, aborted);
    error_code ec;
    int number = reg.native_handle();
    BOOST_TEST(reg.deregister(ec) == number);
    BOOST_TEST(!ec);
}

BOOST_FIXTURE_TEST_CASE(an_event_that_a_handle_can_not_have_is_an_error, test::context_fixture) {
    // A regular file never has priority data: a wait for it would never end.
    char name[] = "/tmp/moor-errors-XXXXXX";
    test::unique_fd fd(::mkstemp(name));
    ::unlink(name);
    moor::registration reg(io, fd.get());
    for (interest want :
         {interest::priority, interest::error, interest::read_closed, interest::write_closed}) {
        test::called done;
        reg.async_wait(want, done.handler());
        test::check_fails(io, done, error_code(asio::error::operation_not_supported));
    }
}

// ---- after close() ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(after_the_service_was_closed_everything_answers_gone,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    test::fd_pair q = test::make_socketpair();
    moor::registration_service& service = moor::use_registration_service(io);
    moor::registration held(io, p.a.get());
    moor::registration empty(io);
    BOOST_TEST(!service.is_closed());
    service.close();
    BOOST_TEST(service.is_closed());
    service.close(); // again
    test::put(p.b, "x");
    for (moor::registration* reg : {&held, &empty}) {
        check_every_way(io, *reg, interest::readable, gone);
        check_every_way(io, *reg, interest::writable, gone);
        check_every_way(io, *reg, interest::error | interest::readable, gone);
        check_future(io, *reg, gone);
        error_code ec;
        reg->query(ec);
        BOOST_CHECK_EQUAL(ec, gone);
        BOOST_CHECK_EQUAL(thrown([&] { reg->query(); }), gone);
    }
    error_code ec;
    empty.register_handle(q.a, ec);
    BOOST_CHECK_EQUAL(ec, gone);
    BOOST_CHECK_EQUAL(thrown([&] { empty.register_handle(q.a); }), gone);
    BOOST_CHECK_EQUAL(thrown([&] { moor::registration(io, q.a.get()); }), gone);
    BOOST_TEST(held.native_handle() == p.a.get());
    BOOST_TEST(held.deregister(ec) == p.a.get());
    BOOST_TEST(!ec);
    held.register_handle(p.a, ec);
    BOOST_CHECK_EQUAL(ec, gone);
    BOOST_TEST(is_open(p.a));
    BOOST_TEST(is_open(q.a));
    BOOST_TEST(test::get(p.a) == "x");
}

BOOST_FIXTURE_TEST_CASE(closing_the_service_completes_what_is_pending_with_gone,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    test::fill(p.a);
    moor::registration reg(io, p.a.get());
    test::called read, write;
    test::called any, io_op;
    bool read_woken = false;
    bool write_woken = false;
    bool ran_after = false;
    bool closed = false;
    reg.async_wait_readable(read.handler());
    reg.async_wait_writable(write.handler());
    reg.async_wait(interest::priority | interest::read_closed, any.handler());
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            ran_after = ran_after || closed;
            ec = asio::error::would_block;
        },
        io_op.handler());
    BOOST_TEST(reg.poll_read_ready([&] { read_woken = true; }).error() ==
               error_code(asio::error::would_block));
    BOOST_TEST(reg.poll_write_ready([&] { write_woken = true; }).error() ==
               error_code(asio::error::would_block));
    test::run_ready(io);
    moor::use_registration_service(io).close();
    closed = true;
    BOOST_TEST(read.times == 0);
    test::run_all(io);
    for (test::called* c : {&read, &write, &any, &io_op}) {
        BOOST_TEST(c->times == 1);
        BOOST_CHECK_EQUAL(c->ec, gone);
    }
    BOOST_TEST(read_woken);
    BOOST_TEST(write_woken);
    BOOST_TEST(!ran_after);
}

// ---- the kernel refuses -------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_handle_that_epoll_refuses_is_an_error_of_the_wait,
                        test::context_fixture) {
    if (!test::on_epoll())
        return; // the others have no epoll_ctl to fail
    for (int error : {ENOSPC, ENOMEM}) {
        error_code expected(error, asio::error::get_system_category());
        test::fd_pair p = test::make_pipe();
        moor::registration reg(io, p.a.get());
        {
            test::fault failing(test::call::epoll_add, error);
            check_future(io, reg, expected);
            test::called io_op, any;
            reg.async_wait(interest::readable | interest::priority, any.handler());
            reg.async_io(interest::readable, test::reader{p.a}, io_op.handler());
            test::run_until(io, [&] { return any && io_op; });
            BOOST_CHECK_EQUAL(any.ec, expected);
            BOOST_CHECK_EQUAL(io_op.ec, expected);
            bool woken = false;
            BOOST_CHECK_EQUAL(reg.poll_read_ready([&] { woken = true; }).error(), expected);
            BOOST_CHECK_EQUAL(reg.poll_read_io([&] { woken = true; }, test::reader{p.a}).error(),
                              expected);
            test::run_ready(io);
            BOOST_TEST(!woken);
        }
        // Nothing is broken by it.
        test::check_works(io, reg, p.a, p.b);
    }
}

BOOST_FIXTURE_TEST_CASE(an_epollout_that_is_added_late_and_refused_reaches_the_writer,
                        test::context_fixture) {
    if (!test::on_epoll())
        return;
    for (int error : {ENOSPC, ENOMEM}) {
        error_code expected(error, asio::error::get_system_category());
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        moor::registration reg(io, p.a.get());
        test::pending_reader reader(io, reg);
        bool woken = false;
        {
            test::fault failing(test::call::epoll_mod, error);
            test::called writer;
            reg.async_wait_writable(writer.handler());
            test::check_fails(io, writer, expected);
            test::called both;
            reg.async_wait(interest::readable | interest::writable, both.handler());
            test::check_fails(io, both, expected);
            test::called io_op;
            reg.async_io(
                interest::writable, [](error_code& ec) { ec = asio::error::would_block; },
                io_op.handler());
            test::check_fails(io, io_op, expected);
            // A waker that was kept is woken, to ask again.
            auto r = reg.poll_write_ready([&] { woken = true; });
            BOOST_TEST(r.has_error());
            if (r.error() == error_code(asio::error::would_block))
                test::run_until(io, [&] { return woken; });
            else
                BOOST_CHECK_EQUAL(r.error(), expected);
        }
        BOOST_TEST(reader.times == 0); // the reader has nothing to do with it
        test::pending_writer writer(io, reg);
        test::drain(p.b);
        test::check_completes(io, writer);
        test::put(p.b, "x");
        test::check_completes(io, reader);
    }
}

BOOST_FIXTURE_TEST_CASE(a_check_of_an_event_that_fails_is_an_error_of_the_wait,
                        test::context_fixture) {
    const error_code no_memory(asio::error::no_memory);
    for (moor::trigger t : test::both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        test::called closed, again;
        reg.async_wait(interest::read_closed, closed.handler());
        test::check_pends(io, closed);
        {
            test::fault failing(test::call::poll, ENOMEM);
            p.b.close();
            test::run_until(io, [&] { return bool(closed); });
            BOOST_TEST(closed.times == 1);
            BOOST_CHECK_EQUAL(closed.ec, failing.happened() != 0 ? no_memory : error_code());
            BOOST_TEST((failing.happened() != 0 || !test::on_epoll()));
        }
        reg.async_wait(interest::read_closed, again.handler());
        test::check_completes(io, again);
    }
}

BOOST_AUTO_TEST_CASE(a_wait_that_runs_out_of_memory_has_not_begun,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    bool threw = true;
    int attempts = 0;
    for (long n = 0; threw; ++n, ++attempts) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        asio::io_context io;
        moor::registration reg(io, p.a.get());
        test::called failed, done;
        threw = false;
        try {
            test::out_of_memory none(n);
            reg.async_wait(interest::readable | interest::writable | interest::priority,
                           failed.handler());
        } catch (const std::bad_alloc&) {
            threw = true;
        }
        if (!threw)
            reg.cancel();
        test::run_all(io); // no work is left over
        BOOST_TEST(failed.times == (threw ? 0 : 1));
        reg.async_wait(interest::readable | interest::writable, done.handler());
        test::check_pends(io, done);
        test::put(p.b, "x");
        test::check_completes(io, done);
        test::run_all(io);
    }
    BOOST_TEST(attempts > 1);
}

BOOST_AUTO_TEST_CASE(a_wait_that_runs_out_of_memory_leaves_the_cache_as_it_was,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    bool threw = true;
    int attempts = 0;
    for (long n = 0; threw; ++n, ++attempts) {
        test::fd_pair p = test::make_socketpair();
        test::fd_pair q = test::make_socketpair();
        asio::io_context io;
        moor::registration reg(io, p.a.get());
        moor::registration other(io, q.a.get());
        test::called first, second, others;
        reg.async_wait_readable(first.handler()); // finds nothing
        test::run_ready(io);
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(first); });
        BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
        other.async_wait_readable(others.handler()); // takes what the reactor has to spare
        threw = false;
        try {
            test::out_of_memory none(n);
            reg.async_wait_readable(second.handler());
        } catch (const std::bad_alloc&) {
            threw = true;
        }
        if (threw)
            BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
        else
            test::run_until(io, [&] { return bool(second); });
        BOOST_TEST(second.times == (threw ? 0 : 1));
        other.cancel();
        test::run_all(io);
    }
    BOOST_TEST(attempts > (test::on_select() ? 1 : 0));
}

BOOST_FIXTURE_TEST_CASE(a_number_that_is_too_large_for_select_is_an_error_of_the_wait,
                        test::context_fixture) {
    ::rlimit limit{};
    BOOST_REQUIRE_EQUAL(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    int number = FD_SETSIZE + 5;
    if (limit.rlim_cur <= static_cast<::rlim_t>(number)) {
        limit.rlim_cur = limit.rlim_max;
        if (limit.rlim_max <= static_cast<::rlim_t>(number) ||
            ::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            BOOST_TEST_MESSAGE("not run: not enough descriptors allowed");
            return;
        }
    }
    test::fd_pair p = test::make_socketpair();
    test::unique_fd large(::fcntl(p.a, F_DUPFD_CLOEXEC, number));
    test::fill(large);
    moor::registration reg(io, large.get());
    test::called read, write;
    reg.async_wait_readable(read.handler());
    reg.async_wait_writable(write.handler());
    if (!test::on_select()) {
        // The others have no such limit.
        test::run_ready(io);
        BOOST_TEST(read.times + write.times == 0);
        test::put(p.b, "x");
        test::drain(p.b);
        test::check_completes(io, read);
        test::check_completes(io, write);
        return;
    }
    test::run_until(io, [&] { return read && write; });
    BOOST_CHECK_EQUAL(read.ec, error_code(asio::error::fd_set_failure));
    BOOST_CHECK_EQUAL(write.ec, error_code(asio::error::fd_set_failure));
    // One that is known to be ready needs no select.
    test::put(p.b, "x");
    for (bool is_new : {false, true}) {
        if (is_new)
            reg.reset(large);
        test::check_readable(io, reg);
    }
    BOOST_TEST(is_open(large));
}

BOOST_FIXTURE_TEST_CASE(a_poll_request_that_is_refused_now_and_then_is_made_again,
                        test::context_fixture) {
    if (!test::on_io_uring())
        return; // nobody else makes any
    for (moor::trigger t : test::both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        for (int round = 0; round != 3; ++round) {
            test::fault refused(test::call::uring_poll, EINVAL, 1, 5);
            test::called wait;
            std::optional<error_code> io_error;
            std::string got;
            reg.async_wait_readable(wait.handler());
            reg.async_io(moor::interest::readable, test::reader{p.a},
                         [&](error_code ec, std::string s) {
                             io_error = ec;
                             got = s;
                         });
            test::run_until(io, [&] { return refused.happened() == 5; });
            test::run_ready(io);
            BOOST_TEST(!wait);
            BOOST_TEST(!io_error);
            test::put(p.b, "x");
            test::run_until(io, [&] { return wait && io_error; });
            BOOST_TEST(!wait.ec);
            BOOST_TEST(!*io_error);
            BOOST_TEST(got == "x");
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_poll_request_that_is_always_refused_is_an_error_of_the_wait,
                        test::context_fixture) {
    if (!test::on_io_uring())
        return;
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    for (int round = 0; round != 2; ++round) {
        {
            test::fault refused(test::call::uring_poll, EINVAL);
            test::called wait;
            reg.async_wait_readable(wait.handler());
            test::check_fails(io, wait, error_code(asio::error::invalid_argument));
            BOOST_TEST(refused.happened() <= 10);
        }
        test::check_works(io, reg, p.a, p.b);
    }
}

BOOST_AUTO_TEST_SUITE_END()
