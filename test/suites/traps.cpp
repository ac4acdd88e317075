// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Traps in Asio, the kernel and Tokio that no other suite covers: each case fails for who falls
// into the trap that its comment names.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/detail/config.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/bind_immediate_executor.hpp>
#endif
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::both_triggers;
using test::error_code;
using test::would_block;

/// A callable that writes, and never raises SIGPIPE.
struct sender {
    int fd;
    std::size_t n;

    std::size_t operator()(error_code& ec) {
        static const std::string data(1 << 16, 'x');
        ::ssize_t r = ::send(fd, data.data(), n, MSG_NOSIGNAL);
        if (r < 0)
            ec = test::last_error();
        return r < 0 ? 0 : static_cast<std::size_t>(r);
    }
};

} // namespace

BOOST_AUTO_TEST_SUITE(traps)

// "start_op calls on_immediate with the descriptor mutex held when the descriptor is shut down, not
// pollable, or MOD fails: an inline handler that waits again deadlocks"
BOOST_AUTO_TEST_CASE(a_handler_that_waits_again_does_not_deadlock_when_the_wait_fails) {
    struct again {
        moor::registration& reg;
        bool immediately;
        int& left;
        void operator()(error_code) {
            if (--left > 0)
                start();
        }
        void start() {
#if BOOST_ASIO_VERSION >= 102700
            if (immediately)
                return reg.async_wait_writable(
                    asio::bind_immediate_executor(reg.get_executor(), *this));
#endif
            reg.async_wait_writable(*this);
        }
    };
    for (bool immediately : {false, true}) {
        test::context_fixture context;
        asio::io_context& io = context.io;
        test::unique_fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        moor::registration not_pollable(io, null.get());
        moor::registration full(io, p.a.get());
        int of_null = 50;
        asio::post(io, [&] { again{not_pollable, immediately, of_null}.start(); });
        int of_full = 50;
        if (test::on_epoll()) {
            test::called reader; // registers with epoll, so that only MOD can fail
            full.async_wait_readable(reader.handler());
            test::run_ready(io);
            {
                test::fault failing(test::call::epoll_mod, ENOSPC);
                asio::post(io, [&] { again{full, immediately, of_full}.start(); });
                test::run_until(io, [&] { return of_full == 0; });
            }
            full.cancel();
            test::run_until(io, [&] { return bool(reader); });
        }
        int of_closed = 50;
        moor::use_registration_service(io).close();
        asio::post(io, [&] { again{full, immediately, of_closed}.start(); });
        test::run_until(io, [&] { return of_null == 0 && of_closed == 0; });
    }
}

BOOST_FIXTURE_TEST_CASE(a_handle_that_asio_has_in_this_context_is_an_error_of_the_wait_on_epoll,
                        test::context_fixture) {
    if (!test::on_epoll())
        return; // the others can share a handle with Asio's own descriptor
    test::fd_pair p = test::make_pipe();
    int fd = p.a.get();
    asio::posix::stream_descriptor theirs(io, p.a.release());
    moor::registration reg(io, fd);
    test::called done;
    reg.async_wait_readable(done.handler());
    test::check_fails(io, done, error_code(moor::error::registered_elsewhere));
    reg.deregister();
    // And theirs goes on.
    test::called wait;
    theirs.async_wait(asio::posix::stream_descriptor::wait_read, wait.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::check_completes(io, wait);
}

// "Asio's cached 'not ready' hangs a write after the peer closed its end (4 of 8 writes complete,
// then nothing)"
BOOST_FIXTURE_TEST_CASE(writes_after_the_peer_closed_its_end_all_complete, test::context_fixture) {
    test::on_unix_and_tcp([&](trigger t, test::fd_pair p, bool) {
        moor::registration reg(io, p.a.get(), t);
        int completed = 0;
        error_code last;
        std::function<void()> next = [&] {
            reg.async_io(interest::writable, sender{p.a, 1 << 16}, [&](error_code ec, std::size_t) {
                ++completed;
                last = ec;
                if (completed == 4)
                    p.b.close();
                if (completed != 12)
                    next();
            });
        };
        next();
        // The peer reads until it closes, so that the first four get through.
        while (completed < 4) {
            test::run_ready(io);
            if (completed < 4)
                test::drain(p.b);
        }
        test::run_until(io, [&] { return completed == 12; });
        BOOST_TEST((last == asio::error::broken_pipe || last == asio::error::connection_reset));
    });
}

BOOST_FIXTURE_TEST_CASE(a_writer_that_is_blocked_when_the_peer_closes_fails,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        test::called done;
        test::fill(p.a);
        reg.async_io(interest::writable, sender{p.a, 1}, done.handler());
        test::check_pends(io, done);
        p.b.close();
        test::check_fails(io, done, error_code(asio::error::broken_pipe));
    }
}

BOOST_FIXTURE_TEST_CASE(a_short_read_of_a_datagram_socket_waits_without_asking,
                        test::context_fixture) {
    if (!test::on_epoll())
        return; // counts what only the latch of epoll makes possible
    test::fd_pair p = test::make_socketpair(SOCK_DGRAM);
    moor::registration reg(io, p.a.get());
    auto read = [&](error_code& ec) {
        return moor::short_transfer(test::reader{p.a, 100}(ec).size(), 100);
    };
    auto hop = [&] {
        test::called done;
        reg.async_io(interest::readable, read, done.handler());
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(done); });
        return !done.ec;
    };
    BOOST_REQUIRE(hop());
    test::call_counts before = test::counts();
    for (int i = 0; i != 10; ++i)
        BOOST_REQUIRE(hop());
    test::call_counts used = test::counts() - before;
    BOOST_TEST(used.poll == 0);
    BOOST_TEST(used.epoll_ctl == 0);
}

// "kernel >= 5.3 can miss a wake-up after EPOLL_CTL_MOD re-arming: we do not re-arm"
BOOST_FIXTURE_TEST_CASE(waiting_again_and_again_does_not_touch_the_epoll_set,
                        test::context_fixture) {
    if (!test::on_epoll())
        return;
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        auto hop = [&] {
            test::called read;
            reg.async_wait_readable(read.handler());
            test::put(p.b, "x");
            test::check_completes(io, read);
            test::drain(p.a);
            if (t == trigger::level) {
                test::check_writable(io, reg);
            }
            test::fill(p.a);
            if (t == trigger::level)
                reg.clear(reg.ready(interest::writable));
            test::called drained;
            reg.async_wait_writable(drained.handler());
            test::drain(p.b);
            test::check_completes(io, drained);
        };
        if (t == trigger::edge) {
            // The writability that was consumed comes again only after the handle was full.
            test::fill(p.a);
            test::pending_writer drained(io, reg);
            test::drain(p.b);
            test::check_completes(io, drained);
        }
        hop();
        test::call_counts before = test::counts();
        for (int i = 0; i != 20; ++i)
            hop();
        BOOST_TEST((test::counts() - before).epoll_ctl == 0);
    }
}

// "reactor services are destroyed newest first: call use_service<reactor> in the service's
// constructor" and "~io_context below Boost 1.82 does not call shutdown() itself"
BOOST_AUTO_TEST_CASE(a_context_dies_with_waits_pending_whichever_service_was_first) {
    for (int order = 0; order != 3; ++order) {
        test::fd_pair p = test::make_pipe();
        test::fd_pair q = test::make_pipe();
        auto alive = std::make_shared<int>(0);
        std::weak_ptr<int> watch = alive;
        std::optional<moor::registration> outliving;
        {
            asio::io_context io;
            if (order == 0)
                moor::use_registration_service(io);
            std::optional<asio::posix::stream_descriptor> theirs;
            if (order != 2)
                theirs.emplace(io, q.a.release()); // the reactor, before or after our service
            moor::registration reg(io, p.a.get());
            outliving.emplace(io, p.b.get());
            test::fill(p.b);
            reg.async_wait_readable([alive](error_code) {});
            reg.async_wait(interest::priority, [alive](error_code, moor::ready_event) {});
            outliving->async_wait_writable([alive](error_code) {});
            reg.async_io(interest::readable, test::reader{p.a},
                         [alive](error_code, const std::string&) {});
            alive.reset();
            if (order != 0)
                test::run_ready(io);
            BOOST_TEST(!watch.expired());
        }
        BOOST_TEST(watch.expired());
    }
}

// "Tokio: wakers replaced or dropped under the lock deadlock"
namespace {

/// A waker, or a handler, that calls back into its registration wherever it is destroyed.
struct meddler {
    moor::registration* reg;
    int* destroyed;

    meddler(moor::registration& r, int& d) : reg(&r), destroyed(&d) {}
    meddler(meddler&& o) noexcept : reg(std::exchange(o.reg, nullptr)), destroyed(o.destroyed) {}
    meddler(const meddler&) = delete;
    meddler& operator=(const meddler&) = delete;
    meddler& operator=(meddler&&) = delete;
    ~meddler() {
        if (!reg)
            return;
        ++*destroyed;
        reg->ready(interest::readable);
        reg->clear(moor::ready_event());
        reg->cancel(moor::direction::write);
        error_code ec;
        reg->query(ec);
        reg->try_io(interest::readable, [](error_code&) {});
    }

    template <class... Args>
    void operator()(Args&&...) {
        reg->ready(interest::readable);
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(wakers_may_call_back_when_they_are_displaced_or_destroyed,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    int destroyed = 0;
    moor::registration reg(io, p.a.get());
    for (int i = 0; i != 5; ++i)
        BOOST_TEST(reg.poll_read_ready(meddler(reg, destroyed)).error() == would_block);
    test::run_ready(io);
    BOOST_TEST(destroyed == 4);
    reg.cancel();
    test::run_ready(io);
    BOOST_TEST(destroyed == 5);
    // One that is not kept.
    test::put(p.b, "x");
    BOOST_TEST(reg.poll_read_ready(meddler(reg, destroyed)).has_value());
    BOOST_TEST(destroyed == 6);
}

BOOST_AUTO_TEST_CASE(handlers_may_call_back_when_their_context_destroys_them) {
    test::fd_pair p = test::make_pipe();
    int destroyed = 0;
    auto io = std::make_unique<asio::io_context>();
    moor::registration reg(*io, p.a.get());
    reg.async_wait_readable(meddler(reg, destroyed));
    reg.async_wait(interest::priority, meddler(reg, destroyed));
    reg.async_io(interest::readable, test::reader{p.a}, meddler(reg, destroyed));
    BOOST_TEST(reg.poll_read_ready(meddler(reg, destroyed)).error() == would_block);
    test::run_ready(*io);
    io.reset();
    BOOST_TEST(destroyed == 4);
}

BOOST_AUTO_TEST_SUITE_END()
