// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// fork() with notify_fork: registrations work in the child, and in the parent unharmed. On io_uring
// an operation that is pending over the fork is lost in the child by Asio itself: its own
// async_wait never completes there (Boost 1.81). There the child is tested with what it starts.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>

#include <sys/wait.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::aborted;
using test::error_code;

/// In the child, Boost.Test must not report: a failed check is the line it is on.
struct child_failed {
    int line;
};

#define CHILD_CHECK(condition)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            throw child_failed{__LINE__};                                                          \
    } while (false)

/// Runs handlers until `done`, in the child.
template <class Done>
void child_run_until(asio::io_context& io, Done done, int line) {
    auto deadline = std::chrono::steady_clock::now() + test::cap / 2;
    while (!done()) {
        if (io.stopped())
            io.restart();
        if (io.run_one_until(deadline) == 0 && !done())
            throw child_failed{line};
    }
}
#define CHILD_RUN_UNTIL(io, ...) child_run_until(io, __VA_ARGS__, __LINE__)

/// Forks as Asio wants it; `in_child` runs there, and then `in_parent` here.
void fork_and_check(asio::io_context& io, const std::function<void()>& in_child,
                    const std::function<void()>& in_parent) {
    io.notify_fork(asio::execution_context::fork_prepare);
    ::pid_t child = ::fork();
    if (child == 0) {
        int line = 0;
        try {
            io.notify_fork(asio::execution_context::fork_child);
            in_child();
        } catch (const child_failed& f) {
            line = f.line;
        } catch (const std::exception& e) {
            std::fprintf(stderr, "in the child: %s\n", e.what());
            line = __LINE__;
        }
        if (line != 0)
            std::fprintf(stderr, "%s(%d): failed in the child\n", __FILE__, line);
        ::_exit(line == 0 ? 0 : 1);
    }
    BOOST_REQUIRE_NE(child, -1);
    io.notify_fork(asio::execution_context::fork_parent);
    in_parent();
    int status = -1;
    BOOST_REQUIRE_EQUAL(::waitpid(child, &status, 0), child);
    BOOST_TEST(WIFEXITED(status));
    BOOST_TEST(WEXITSTATUS(status) == 0);
}

/// One round of waiting, written so that it serves in both processes.
bool hop(asio::io_context& io, moor::registration& reg, int reader, int writer) {
    test::called done;
    reg.async_wait_readable(done.handler());
    for (int i = 0; i != 3; ++i) {
        if (io.stopped())
            io.restart();
        io.poll();
    }
    if (done || ::write(writer, "x", 1) != 1)
        return false;
    auto deadline = std::chrono::steady_clock::now() + test::cap / 2;
    while (!done) {
        if (io.stopped())
            io.restart();
        if (io.run_one_until(deadline) == 0 && !done)
            return false;
    }
    char c;
    return !done.ec && ::read(reader, &c, 1) == 1;
}

} // namespace

BOOST_AUTO_TEST_SUITE(forking)

BOOST_AUTO_TEST_CASE(a_registration_works_in_the_child_and_in_the_parent) {
    for (moor::trigger t : {moor::trigger::level, moor::trigger::edge}) {
        asio::io_context io;
        // A pipe each, for a pipe that both read would give each byte to one of them only.
        test::fd_pair of_child = test::make_pipe();
        test::fd_pair of_parent = test::make_pipe();
        moor::registration child_reg(io, of_child.a.get(), t);
        moor::registration parent_reg(io, of_parent.a.get(), t);
        // Both are known to the reactor.
        BOOST_REQUIRE(hop(io, child_reg, of_child.a, of_child.b));
        BOOST_REQUIRE(hop(io, parent_reg, of_parent.a, of_parent.b));
        fork_and_check(
            io,
            [&] {
                for (int i = 0; i != 3; ++i)
                    CHILD_CHECK(hop(io, child_reg, of_child.a, of_child.b));
            },
            [&] {
                for (int i = 0; i != 3; ++i)
                    BOOST_TEST(hop(io, parent_reg, of_parent.a, of_parent.b));
            });
        if (t == moor::trigger::edge) {
            // What the child wrote and read again may be an event here, too. With an edge it is for
            // the caller to see that the handle is drained.
            test::run_ready(io);
            auto r = child_reg.try_io(interest::readable, test::reader{of_child.a});
            BOOST_TEST((r.error() == asio::error::would_block));
        }
        BOOST_TEST(hop(io, child_reg, of_child.a, of_child.b));
    }
}

BOOST_AUTO_TEST_CASE(a_wait_that_is_pending_over_a_fork_completes_in_both) {
    for (moor::trigger t : {moor::trigger::level, moor::trigger::edge}) {
        asio::io_context io;
        test::fd_pair of_child = test::make_socketpair();
        test::fd_pair of_parent = test::make_socketpair();
        test::fill(of_child.a);
        test::fill(of_parent.a);
        moor::registration child_reg(io, of_child.a.get(), t);
        moor::registration parent_reg(io, of_parent.a.get(), t);
        test::called child_read;
        test::called child_write;
        test::called parent_read;
        test::called parent_write;
        child_reg.async_wait_readable(child_read.handler());
        child_reg.async_wait_writable(child_write.handler());
        parent_reg.async_wait_readable(parent_read.handler());
        parent_reg.async_wait_writable(parent_write.handler());
        test::run_ready(io);
        fork_and_check(
            io,
            [&] {
                if (test::on_io_uring())
                    return;
                for (int i = 0; i != 3; ++i)
                    io.poll();
                CHILD_CHECK(child_read.times + child_write.times == 0);
                CHILD_CHECK(::write(of_child.b, "x", 1) == 1);
                CHILD_RUN_UNTIL(io, [&] { return bool(child_read); });
                CHILD_CHECK(!child_read.ec);
                CHILD_CHECK(child_write.times == 0);
                test::drain(of_child.b);
                CHILD_RUN_UNTIL(io, [&] { return bool(child_write); });
                CHILD_CHECK(!child_write.ec);
            },
            [&] {
                test::run_ready(io);
                BOOST_TEST(parent_read.times + parent_write.times == 0);
                test::put(of_parent.b, "x");
                test::run_until(io, [&] { return bool(parent_read); });
                BOOST_TEST(!parent_read.ec);
                BOOST_TEST(parent_write.times == 0);
                test::drain(of_parent.b);
                test::run_until(io, [&] { return bool(parent_write); });
                BOOST_TEST(!parent_write.ec);
            });
        child_reg.cancel();
        test::run_until(io, [&] { return child_read && child_write; });
    }
}

BOOST_AUTO_TEST_CASE(the_child_may_register_cancel_and_deregister) {
    asio::io_context io;
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    test::fd_pair r = test::make_pipe();
    std::optional<moor::registration> inherited(std::in_place, io, p.a.get());
    moor::registration kept(io, q.a.get());
    test::called of_inherited;
    test::called of_kept;
    inherited->async_wait_readable(of_inherited.handler());
    kept.async_wait_readable(of_kept.handler());
    test::run_ready(io);
    fork_and_check(
        io,
        [&] {
            inherited.reset();
            kept.cancel();
            CHILD_CHECK(of_inherited.times + of_kept.times == 0);
            CHILD_RUN_UNTIL(io, [&] { return of_inherited && of_kept; });
            CHILD_CHECK(of_inherited.ec == aborted);
            CHILD_CHECK(of_kept.ec == aborted);
            moor::registration fresh(io, r.a.get());
            CHILD_CHECK(hop(io, fresh, r.a, r.b));
            if (test::on_io_uring())
                return;
            CHILD_CHECK(hop(io, kept, q.a, q.b));
            moor::registration again(io, p.a.get());
            CHILD_CHECK(hop(io, again, p.a, p.b));
        },
        [] {});
    // What the child did is nothing to the parent's waits.
    test::run_ready(io);
    BOOST_TEST(of_inherited.times + of_kept.times == 0);
    test::put(p.b, "x");
    test::put(q.b, "x");
    test::run_until(io, [&] { return of_inherited && of_kept; });
    BOOST_TEST(!of_inherited.ec);
    BOOST_TEST(!of_kept.ec);
}

BOOST_AUTO_TEST_CASE(what_the_child_waits_for_does_not_change_what_the_parent_is_told) {
    asio::io_context io;
    test::fd_pair p = test::make_socketpair();
    test::fd_pair told = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called closing;
    reg.async_wait(interest::read_closed, closing.handler());
    test::run_ready(io);
    fork_and_check(
        io,
        [&] {
            reg.cancel();
            CHILD_RUN_UNTIL(io, [&] { return bool(closing); });
            test::called urgent;
            reg.async_wait(interest::priority, urgent.handler());
            io.restart();
            io.poll();
            CHILD_CHECK(!urgent);
            CHILD_CHECK(::write(told.b, "x", 1) == 1);
            if (test::on_io_uring()) // the fork is not through with what was pending
                return;
            // The child is still told of what it asked for itself.
            test::called again;
            reg.async_wait(interest::read_closed, again.handler());
            CHILD_RUN_UNTIL(io, [&] { return bool(again); });
            CHILD_CHECK(!again.ec);
        },
        [&] {
            moor::registration tell(io, told.a.get());
            test::called done;
            tell.async_wait_readable(done.handler());
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST(closing.times == 0);
            BOOST_REQUIRE_EQUAL(::shutdown(p.b, SHUT_WR), 0);
            test::run_until(io, [&] { return bool(closing); });
            BOOST_TEST(!closing.ec);
        });
}

BOOST_AUTO_TEST_CASE(handles_that_are_not_pollable_do_not_disturb_a_fork) {
    // Asio re-registers what it knows with epoll in the child, and throws if the kernel refuses.
    asio::io_context io;
    test::unique_fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    char name[] = "/tmp/moor-forking-XXXXXX";
    test::unique_fd file(::mkstemp(name));
    ::unlink(name);
    test::fd_pair p = test::make_pipe();
    moor::registration on_null(io, null.get());
    moor::registration on_file(io, file.get());
    moor::registration on_pipe(io, p.a.get());
    auto ready = [&](moor::registration& reg) {
        test::called read;
        test::called write;
        reg.async_wait(interest::readable | interest::writable, read.handler());
        reg.async_wait_writable(write.handler());
        for (int i = 0; i != 1000 && !(read && write); ++i) {
            if (io.stopped())
                io.restart();
            io.run_one_for(test::cap / 20);
        }
        return read && write && !read.ec && !write.ec;
    };
    BOOST_REQUIRE(ready(on_null));
    BOOST_REQUIRE(ready(on_file));
    BOOST_REQUIRE(hop(io, on_pipe, p.a, p.b));
    fork_and_check(
        io,
        [&] {
            CHILD_CHECK(ready(on_null));
            CHILD_CHECK(ready(on_file));
            CHILD_CHECK(hop(io, on_pipe, p.a, p.b));
        },
        [] {});
    BOOST_TEST(ready(on_null));
    BOOST_TEST(hop(io, on_pipe, p.a, p.b));
}

BOOST_AUTO_TEST_CASE(a_handle_that_left_the_reactor_survives_a_fork) {
    // Never waited for, and gone idle: neither is in the reactor at the fork.
    asio::io_context io;
    test::fd_pair p = test::make_pipe();
    test::fd_pair q = test::make_pipe();
    moor::registration never(io, p.a.get());
    moor::registration idle(io, q.a.get());
    BOOST_REQUIRE(hop(io, idle, q.a, q.b));
    for (int i = 0; i != 50; ++i) {
        test::put(q.b, "x");
        test::run_ready(io);
    }
    test::drain(q.a);
    fork_and_check(
        io,
        [&] {
            CHILD_CHECK(hop(io, never, p.a, p.b));
            CHILD_CHECK(hop(io, idle, q.a, q.b));
        },
        [] {});
    BOOST_TEST(hop(io, never, p.a, p.b));
    BOOST_TEST(hop(io, idle, q.a, q.b));
}

BOOST_AUTO_TEST_SUITE_END()
