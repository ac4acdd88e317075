// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Handles that their owner closes, keeps open under another number, opens again or replaces under
// the same number: what abandon(), register_handle(), renew() and the next wait make of it.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/quiet.hpp"

#include <moor.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/system/system_error.hpp>

#include <string>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;
using test::fd_pair;
using test::unique_fd;

struct file {
    const char* name;
    fd_pair (*make)();
};

const file files[] = {
    {"Unix socket", [] { return test::make_socketpair(); }},
    {"TCP socket", [] { return test::make_tcp_pair(); }},
    {"pipe", [] { return test::make_pipe(); }},
    {"named pipe", [] { return test::make_fifo(); }},
    {"terminal", [] { return test::swapped(test::make_raw_pty()); }},
};

void put_back(unique_fd& fd, int number) {
    BOOST_REQUIRE_EQUAL(::dup3(fd, number, O_CLOEXEC), number);
}

/// Data come twice, and each time they are told: before the wait begins, and during it.
template <class... What>
void check_works(test::tally& results, asio::io_context& io, moor::registration& reg, fd_pair& p,
                 const What&... what) {
    for (bool is_pending : {true, false, true}) {
        test::outcome c;
        if (!is_pending)
            test::put(p.b, "data");
        reg.async_wait_readable(c.handler());
        results.run_ready(io);
        if (is_pending) {
            results.check(c.times() == 0, what..., ": completes for nothing: ", c);
            test::put(p.b, "data");
        }
        if (!results.check(results.comes(io, [&] { return bool(c); }) && !c.ec(), what...,
                           ": hangs or fails: ", c))
            break;
        while (reg.try_io(interest::readable, test::reader{reg.native_handle()})) {}
        test::drain(reg.native_handle());
        results.run_ready(io);
    }
}

/// It has been waited for, so that the reactor knows it.
void attach(test::tally& results, asio::io_context& io, moor::registration& reg, interest want) {
    test::outcome c;
    reg.async_wait(want, c.handler());
    results.run_ready(io);
    reg.cancel();
    results.comes(io, [&] { return bool(c); });
}

/// The next file under the same number, as a library's socket(2) gets it after its close(2).
fd_pair replace(fd_pair& old, fd_pair (*make)()) {
    fd_pair next = make();
    return test::reuse_number(old.a, std::move(next));
}

} // namespace

BOOST_AUTO_TEST_SUITE(renewed)

// ---- abandoned, and kept open -----------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_file_that_was_abandoned_is_registered_again_under_the_same_number) {
    test::tally results;
    enum way { stays_open, closed_and_put_back, twice, by_another_object };
    for (const file& f : files)
        for (moor::trigger t : test::both_triggers)
            for (way w : {stays_open, closed_and_put_back, twice, by_another_object})
                for (interest known : {interest::readable, interest::writable, interest::priority,
                                       interest::readable | interest::priority}) {
                    asio::io_context io;
                    fd_pair p = f.make();
                    unique_fd kept(test::duplicate(p.a));
                    moor::registration reg(io, p.a.get(), t), other(io);
                    auto name = [&] {
                        return std::string(test::name_of(t)) + ", " + f.name + ", way " +
                               std::to_string(w);
                    };
                    for (int i = 0; i != (w == twice ? 2 : 1); ++i) {
                        attach(results, io, reg, known);
                        const int number = p.a.release();
                        if (w != stays_open)
                            ::close(number);
                        reg.abandon();
                        results.run_ready(io);
                        if (w != stays_open)
                            put_back(kept, number);
                        p.a = unique_fd(number);
                        error_code ec;
                        (w == by_another_object ? other : reg).register_handle(number, t, ec);
                        results.check(!ec, name(), ": ", ec);
                    }
                    check_works(results, io, w == by_another_object ? other : reg, p, name());
                }
}

BOOST_AUTO_TEST_CASE(an_asio_object_keeps_the_number_that_was_abandoned_before) {
    if (test::on_select())
        return; // where several objects can have one number
    for (moor::trigger t : test::both_triggers)
        for (bool is_kept : {false, true}) {
            test::tally results;
            asio::io_context io;
            fd_pair p = test::make_socketpair();
            moor::registration reg(io, p.a.get(), t);
            attach(results, io, reg, interest::readable);
            unique_fd kept;
            if (is_kept)
                kept = unique_fd(test::duplicate(p.a));
            fd_pair q = replace(p, [] { return test::make_socketpair(); });
            reg.abandon();
            asio::posix::stream_descriptor theirs(io, q.a.release());
            char byte;
            test::called read;
            test::outcome wait;
            theirs.async_read_some(asio::buffer(&byte, 1), read.handler());
            results.run_ready(io);
            moor::registration other(io, theirs.native_handle(), t);
            other.async_wait(interest::readable, wait.handler());
            results.run_ready(io);
            if (test::on_epoll())
                results.check(wait.times() == 1 && wait.ec() == moor::error::registered_elsewhere,
                              "not refused: ", wait);
            test::put(q.b, "x");
            results.check(results.comes(io, [&] { return bool(read); }) && !read.ec,
                          test::name_of(t), ": their read hangs");
            other.deregister();
            results.run_ready(io);
        }
}

BOOST_AUTO_TEST_CASE(the_events_of_an_abandoned_file_reach_nobody) {
    test::tally results;
    for (const file& f : files)
        for (moor::trigger t : test::both_triggers)
            for (bool same_number : {false, true}) {
                asio::io_context io;
                fd_pair p = f.make(), q = f.make();
                unique_fd kept(test::duplicate(p.a));
                moor::registration reg(io, p.a.get(), t);
                attach(results, io, reg, interest::readable | interest::priority);
                if (same_number)
                    q = test::reuse_number(p.a, std::move(q));
                else
                    p.a.close();
                reg.abandon();
                moor::registration next(io, q.a.get(), t);
                test::outcome c, d;
                next.async_wait_readable(c.handler());
                results.run_ready(io);
                test::put(p.b, "for the file that was abandoned");
                results.run_ready(io);
                p.b.close();
                results.run_ready(io);
                results.check(c.times() == 0, test::name_of(t), ", ", f.name,
                              ": the event of another file: ", c);
                next.cancel();
                results.run_ready(io);
                check_works(results, io, next, q, test::name_of(t), ", ", f.name);
                test::check_is_quiet(io);
            }
}

BOOST_AUTO_TEST_CASE(a_handle_that_somebody_else_has_registered_stays_theirs) {
    if (!test::on_epoll()) {
        BOOST_TEST_MESSAGE("not run: this reactor lets anybody register anything");
        return;
    }
    test::tally results;
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        fd_pair p = test::make_socketpair();
        asio::posix::stream_descriptor theirs(io, p.a.release());
        moor::registration reg(io, theirs.native_handle(), t);
        test::outcome c, d;
        reg.async_wait_readable(c.handler());
        results.check(results.comes(io, [&] { return bool(c); }) &&
                          c.ec() == moor::error::registered_elsewhere,
                      test::name_of(t), ": ", c);
        reg.abandon();
        theirs.async_wait(asio::posix::stream_descriptor::wait_read, d.handler());
        test::put(p.b, "x");
        results.check(results.comes(io, [&] { return bool(d); }) && !d.ec(), "their wait hangs");
    }
}

// ---- replaced under the same number -----------------------------------------------------------

BOOST_AUTO_TEST_CASE(renew_registers_another_file_under_the_same_number) {
    test::tally results;
    for (const file& f : files)
        for (const file& g : files)
            for (moor::trigger t : test::both_triggers)
                for (bool is_kept : {false, true}) {
                    asio::io_context io;
                    fd_pair p = f.make();
                    moor::registration reg(io, p.a.get(), t);
                    attach(results, io, reg, interest::readable);
                    unique_fd kept;
                    if (is_kept)
                        kept = unique_fd(test::duplicate(p.a));
                    fd_pair q = replace(p, g.make);
                    auto name = [&] {
                        return std::string(test::name_of(t)) + ", " + f.name + " to " + g.name;
                    };
                    results.check(reg.renew(q.a.get(), t), name(), ": not renewed");
                    results.check(reg.native_handle() == q.a.get(), name(), ": another handle");
                    check_works(results, io, reg, q, name());
                    results.check(!reg.renew(q.a.get(), t), name(), ": renewed again");
                }
}

BOOST_AUTO_TEST_CASE(renew_with_another_number) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (bool same_file : {false, true}) {
            asio::io_context io;
            fd_pair p = test::make_socketpair(), q = test::make_socketpair();
            moor::registration reg(io, p.a.get(), t);
            attach(results, io, reg, interest::readable);
            if (same_file) {
                unique_fd number(test::duplicate(p.a));
                q = std::move(p);
                q.a = std::move(number);
            }
            results.check(reg.renew(q.a.get(), t), "not renewed");
            results.check(reg.native_handle() == q.a.get(), "another handle");
            check_works(results, io, reg, q, test::name_of(t));
        }
}

BOOST_AUTO_TEST_CASE(renew_leaves_the_same_file_alone) {
    for (const file& f : files)
        for (moor::trigger t : test::both_triggers) {
            test::tally results;
            asio::io_context io;
            fd_pair p = f.make();
            moor::registration reg(io, p.a.get(), t);
            test::outcome c;
            reg.async_wait_readable(c.handler());
            results.run_ready(io);
            test::call_counts before = test::counts();
            for (int i = 0; i != 10; ++i)
                results.check(!reg.renew(p.a.get(), t), f.name, ": renewed");
            test::call_counts used = test::counts() - before;
            BOOST_TEST(used.epoll_ctl == 0);
            BOOST_TEST(used.fstat <= 10);
            results.run_ready(io);
            results.check(c.times() == 0, f.name, ": the wait ended: ", c);
            test::put(p.b, "x");
            results.check(results.comes(io, [&] { return bool(c); }) && !c.ec(), f.name,
                          ": the wait hangs");
        }
}

BOOST_AUTO_TEST_CASE(renew_aborts_the_waits_for_the_file_before) {
    test::tally results;
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        test::outcome a, b;
        reg.async_wait_readable(a.handler());
        reg.async_io(interest::readable, test::reader{p.a}, b.handler());
        results.run_ready(io);
        fd_pair q = replace(p, files[0].make);
        results.check(reg.renew(q.a.get(), t), "not renewed");
        results.check(results.comes(io, [&] { return a && b; }), "a wait hangs");
        results.check(a.ec() == asio::error::operation_aborted, "ended with ", a);
        results.check(b.ec() == asio::error::operation_aborted, "ended with ", b);
        check_works(results, io, reg, q, test::name_of(t));
    }
}

BOOST_AUTO_TEST_CASE(renew_in_each_step_of_a_connect_that_tries_several_addresses) {
    // As a library does it: a socket for each address, each with the lowest free number.
    test::tally results;
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        unique_fd refusing(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        unique_fd listening(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        ::sockaddr_in at[3]{};
        for (int i : {0, 1, 2}) {
            ::socklen_t len = sizeof(at[i]);
            int fd = i == 2 ? listening : refusing;
            if (i != 1) {
                at[i].sin_family = AF_INET;
                at[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                BOOST_REQUIRE_EQUAL(::bind(fd, reinterpret_cast<::sockaddr*>(&at[i]), len), 0);
            }
            BOOST_REQUIRE_EQUAL(::getsockname(fd, reinterpret_cast<::sockaddr*>(&at[i]), &len), 0);
        }
        BOOST_REQUIRE_EQUAL(::listen(listening, 1), 0);
        moor::registration reg(io);
        unique_fd s;
        int number = -1, error = -1;
        for (::sockaddr_in& address : at) {
            s.close();
            s = unique_fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
            BOOST_REQUIRE(number == -1 || number == s.get());
            number = s;
            (void)::connect(s, reinterpret_cast<::sockaddr*>(&address), sizeof(address));
            results.check(reg.renew(s.get(), t), "not renewed");
            test::outcome c;
            reg.async_wait_writable(c.handler());
            if (!results.check(results.comes(io, [&] { return bool(c); }) && !c.ec(),
                               test::name_of(t), ": hangs or fails: ", c))
                break;
            results.check(!reg.renew(s.get(), t), "renewed again");
            ::socklen_t len = sizeof(error);
            ::getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len);
            results.check(error == (&address == &at[2] ? 0 : ECONNREFUSED), "errno ", error);
        }
        fd_pair p{std::move(s), unique_fd(::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC))};
        check_works(results, io, reg, p, "connected");
    }
}

BOOST_AUTO_TEST_CASE(renew_without_a_registration_registers) {
    test::tally results;
    asio::io_context io;
    fd_pair p = test::make_socketpair();
    moor::registration reg(io);
    static_assert(std::is_same<decltype(reg.renew(0)), bool>::value, "");
    error_code ec = asio::error::eof;
    results.check(reg.renew(p.a.get(), ec) && !ec, "not registered");
    results.check(!reg.renew(p.a.get()), "registered twice");
    check_works(results, io, reg, p, "level");
    // Anonymous files have one identity: their owner says that one of them went.
    unique_fd one(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    results.check(reg.renew(one.get(), moor::trigger::edge, ec) && !ec, "not renewed");
    attach(results, io, reg, interest::readable);
    const int number = one.release();
    ::close(number);
    reg.abandon();
    unique_fd two(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    BOOST_REQUIRE_EQUAL(two.get(), number);
    results.check(reg.renew(two.get(), moor::trigger::edge), "not registered after abandon()");
    test::outcome c;
    reg.async_wait_readable(c.handler());
    results.run_ready(io);
    ::eventfd_write(two, 1);
    results.check(results.comes(io, [&] { return bool(c); }) && !c.ec(), "hangs");
}

BOOST_AUTO_TEST_CASE(renew_says_why_it_could_not) {
    test::tally results;
    for (bool has_handle : {false, true})
        for (bool is_negative : {false, true}) {
            asio::io_context io;
            fd_pair p = test::make_socketpair();
            moor::registration reg(io);
            if (has_handle)
                reg.register_handle(p.a.get());
            test::outcome c;
            if (has_handle)
                reg.async_wait_readable(c.handler());
            results.run_ready(io);
            const int bad = is_negative ? -1 : test::closed_number();
            error_code ec;
            reg.renew(bad, ec);
            results.check(ec == asio::error::bad_descriptor, "ec is ", ec);
            results.check(!reg.is_registered(), "it has a handle");
            if (has_handle)
                results.check(results.comes(io, [&] { return bool(c); }) &&
                                  c.ec() == asio::error::operation_aborted,
                              "the wait ended with ", c);
            BOOST_CHECK_THROW(reg.renew(bad), boost::system::system_error);
        }
    asio::io_context io;
    fd_pair p = test::make_socketpair();
    moor::registration reg(io);
    moor::use_registration_service(io).close();
    error_code ec;
    reg.renew(p.a.get(), ec);
    results.check(ec == moor::error::gone, "ec is ", ec);
}

BOOST_AUTO_TEST_CASE(a_level_wait_finds_out_that_its_file_was_replaced) {
    // Without renew(): the number is open, and the reactor has forgotten its file.
    test::tally results;
    for (const file& f : files)
        for (const file& g : files)
            for (bool is_ready : {false, true}) {
                asio::io_context io;
                fd_pair p = f.make();
                moor::registration reg(io, p.a.get());
                attach(results, io, reg, interest::readable);
                fd_pair q = replace(p, g.make);
                test::outcome c;
                if (is_ready)
                    test::put(q.b, "data");
                reg.async_wait_readable(c.handler());
                results.run_ready(io);
                if (!is_ready)
                    test::put(q.b, "data");
                results.check(results.comes(io, [&] { return bool(c); }), f.name, " to ", g.name,
                              is_ready ? ", ready" : ", pending", ": hangs");
            }
}

BOOST_AUTO_TEST_SUITE_END()
