// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The traps in the ground that Moor stands on: a test for each row of the table in the design,
// that fails for who falls into it. The names of the rows are in the comments.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/detail/config.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700
#include <boost/asio/bind_immediate_executor.hpp>
#endif
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include <csignal>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <sys/epoll.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::aborted;
using test::bad_descriptor;
using test::both_triggers;
using test::error_code;
using test::gone;
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

// "posix::descriptor::async_wait sets O_NONBLOCK on the handle up to Boost 1.85"
BOOST_FIXTURE_TEST_CASE(waiting_does_not_make_the_handle_non_blocking, test::context_fixture) {
    int fds[2];
    BOOST_REQUIRE_EQUAL(::pipe(fds), 0);
    test::fd_pair p{test::unique_fd(fds[0]), test::unique_fd(fds[1])};
    int flags = ::fcntl(p.a, F_GETFL);
    BOOST_REQUIRE((flags & O_NONBLOCK) == 0);
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_ready(io);
    BOOST_TEST(::fcntl(p.a, F_GETFL) == flags);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    reg.deregister();
    BOOST_TEST(::fcntl(p.a, F_GETFL) == flags);
}

// "Asio's per-operation cancel keeps a pointer into the I/O object"
BOOST_FIXTURE_TEST_CASE(a_slot_works_after_a_move_and_after_the_registration_died,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    asio::cancellation_signal moved_signal;
    asio::cancellation_signal dead_signal;
    test::called moved;
    test::called dead;
    auto first = std::make_unique<moor::registration>(io, p.a.get());
    first->async_wait_readable(asio::bind_cancellation_slot(moved_signal.slot(), moved.handler()));
    test::run_ready(io);
    auto second = std::make_unique<moor::registration>(std::move(*first));
    first.reset(); // its memory is gone
    moved_signal.emit(asio::cancellation_type::total);
    test::run_until(io, [&] { return bool(moved); });
    BOOST_CHECK_EQUAL(moved.ec, aborted);

    second->async_wait_readable(asio::bind_cancellation_slot(dead_signal.slot(), dead.handler()));
    test::run_ready(io);
    second.reset();
    dead_signal.emit(asio::cancellation_type::terminal);
    test::run_until(io, [&] { return bool(dead); });
    BOOST_TEST(dead.times == 1);
    BOOST_CHECK_EQUAL(dead.ec, aborted);
    dead_signal.emit(asio::cancellation_type::terminal);
    moved_signal.emit(asio::cancellation_type::terminal);
}

BOOST_FIXTURE_TEST_CASE(a_stale_slot_does_not_hit_the_next_user_of_a_recycled_state,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    asio::cancellation_signal signal;
    test::called old;
    auto reg = std::make_unique<moor::registration>(io, p.a.get());
    reg->async_wait_readable(asio::bind_cancellation_slot(signal.slot(), old.handler()));
    test::run_ready(io);
    reg.reset();
    test::run_until(io, [&] { return bool(old); });
    moor::registration next(io, p.a.get());
    test::called pending;
    next.async_wait_readable(pending.handler());
    test::run_ready(io);
    signal.emit(asio::cancellation_type::terminal);
    test::run_ready(io);
    BOOST_TEST(pending.times == 0);
    next.cancel();
    test::run_until(io, [&] { return bool(pending); });
}

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
            test::fail_epoll_ctl(EPOLL_CTL_MOD, ENOSPC);
            asio::post(io, [&] { again{full, immediately, of_full}.start(); });
            test::run_until(io, [&] { return of_full == 0; });
            test::fail_epoll_ctl(0, 0);
            full.cancel();
            test::run_until(io, [&] { return bool(reader); });
        }
        int of_closed = 50;
        moor::use_registration_service(io).close();
        asio::post(io, [&] { again{full, immediately, of_closed}.start(); });
        test::run_until(io, [&] { return of_null == 0 && of_closed == 0; });
    }
}

// "the same handle twice in one context: EEXIST on epoll, success on select"
BOOST_FIXTURE_TEST_CASE(the_same_handle_twice_is_the_same_error_on_every_backend,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration first(io, p.a.get());
    moor::registration second(io);
    error_code ec;
    second.register_handle(p.a, ec);
    BOOST_CHECK_EQUAL(ec, error_code(moor::error::already_registered));
    BOOST_TEST((ec == boost::system::errc::file_exists));
    test::called done;
    first.async_wait_readable(done.handler());
    test::run_ready(io);
    second.register_handle(p.a, ec);
    BOOST_CHECK_EQUAL(ec, error_code(moor::error::already_registered));
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
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
    test::run_until(io, [&] { return bool(done); });
    BOOST_CHECK_EQUAL(done.ec, error_code(moor::error::registered_elsewhere));
    reg.deregister();
    // And theirs goes on.
    test::called wait;
    theirs.async_wait(asio::posix::stream_descriptor::wait_read, wait.handler());
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(wait); });
    BOOST_TEST(!wait.ec);
}

// "a handle closed behind our back: stale waits never complete; a late EPOLL_CTL_DEL on the reused
// number starves its new owner"
BOOST_FIXTURE_TEST_CASE(a_wait_on_a_closed_number_fails, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration fresh(io, p.a.get());
    moor::registration used(io, p.b.get());
    test::called done;
    used.async_wait_writable(done.handler());
    test::run_until(io, [&] { return bool(done); });
    p.a.close();
    p.b.close();
    test::called of_fresh;
    test::called of_used;
    fresh.async_wait_readable(of_fresh.handler());
    used.async_wait_writable(of_used.handler());
    test::run_until(io, [&] { return of_fresh && of_used; });
    BOOST_CHECK_EQUAL(of_fresh.ec, bad_descriptor);
    BOOST_CHECK_EQUAL(of_used.ec, bad_descriptor);
}

BOOST_FIXTURE_TEST_CASE(deregistering_late_does_not_take_a_reused_number_from_its_new_owner,
                        test::context_fixture) {
    for (bool moor_owns_it : {false, true}) {
        test::fd_pair p = test::make_pipe();
        int number = p.a.get();
        moor::registration stale(io, number);
        test::called left;
        stale.async_wait_readable(left.handler());
        test::run_ready(io);
        test::fd_pair q = test::reuse_number(p.a, test::make_socketpair());
        test::called done;
        if (moor_owns_it) {
            moor::registration fresh(io, number);
            fresh.async_wait_readable(done.handler());
            test::run_ready(io);
            stale.deregister();
            test::run_until(io, [&] { return bool(left); });
            test::put(q.b, "x");
            test::run_until(io, [&] { return bool(done); });
        } else {
            asio::posix::stream_descriptor fresh(io, q.a.release());
            fresh.async_wait(asio::posix::stream_descriptor::wait_read, done.handler());
            test::run_ready(io);
            stale.deregister();
            test::run_until(io, [&] { return bool(left); });
            test::put(q.b, "x");
            test::run_until(io, [&] { return bool(done); });
        }
        BOOST_TEST(!done.ec);
    }
}

BOOST_FIXTURE_TEST_CASE(an_abandoned_number_is_left_to_its_new_owner, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    int number = p.a.get();
    moor::registration reg(io, number);
    test::called left;
    reg.async_wait_readable(left.handler());
    test::run_ready(io);
    test::fd_pair q = test::reuse_number(p.a, test::make_pipe());
    asio::posix::stream_descriptor fresh(io, q.a.release());
    test::called done;
    fresh.async_wait(asio::posix::stream_descriptor::wait_read, done.handler());
    reg.abandon();
    test::run_until(io, [&] { return bool(left); });
    test::put(q.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

// "io_uring's descriptor wait with an invalid type never calls the handler"
BOOST_FIXTURE_TEST_CASE(an_interest_that_means_nothing_completes_with_an_error,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait(interest(), done.handler());
    test::run_until(io, [&] { return bool(done); });
    BOOST_CHECK_EQUAL(done.ec, error_code(asio::error::invalid_argument));
    BOOST_TEST(test::run_all(io) == 0u);
}

// "Asio's cached 'not ready' hangs a write after the peer closed its end (4 of 8 writes complete,
// then nothing)"
BOOST_FIXTURE_TEST_CASE(writes_after_the_peer_closed_its_end_all_complete, test::context_fixture) {
    for (trigger t : both_triggers) {
        for (bool tcp : {false, true}) {
            BOOST_TEST_CONTEXT((t == trigger::edge ? "edge " : "level ")
                               << (tcp ? "tcp" : "unix")) {
                test::fd_pair p = tcp ? test::make_tcp_pair() : test::make_socketpair();
                moor::registration reg(io, p.a.get(), t);
                int completed = 0;
                error_code last;
                std::function<void()> next = [&] {
                    reg.async_io(interest::writable, sender{p.a, 1 << 16},
                                 [&](error_code ec, std::size_t) {
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
                BOOST_TEST(
                    (last == asio::error::broken_pipe || last == asio::error::connection_reset));
            }
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_writer_that_is_blocked_when_the_peer_closes_fails,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        test::called done;
        test::fill(p.a);
        reg.async_io(interest::writable, sender{p.a, 1}, done.handler());
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        p.b.close();
        test::run_until(io, [&] { return bool(done); });
        BOOST_CHECK_EQUAL(done.ec, error_code(asio::error::broken_pipe));
    }
}

// "a short read or write taken for 'drained' while the hang-up came with the same edge"
BOOST_FIXTURE_TEST_CASE(a_short_read_with_the_end_behind_it_does_not_hang, test::context_fixture) {
    for (trigger t : both_triggers) {
        // Pipe, unix socket, unix socket that shuts down, TCP with FIN, TCP with reset.
        for (int kind = 0; kind != 5; ++kind) {
            BOOST_TEST_CONTEXT((t == trigger::edge ? "edge " : "level ") << "kind " << kind) {
                test::fd_pair p = kind == 0   ? test::make_pipe()
                                  : kind >= 3 ? test::make_tcp_pair()
                                              : test::make_socketpair();
                moor::registration reg(io, p.a.get(), t);
                std::vector<std::size_t> reads;
                error_code last;
                bool ended = false;
                std::function<void()> next = [&] {
                    reg.async_io(
                        interest::readable,
                        [&](error_code& ec) {
                            return moor::short_transfer(test::reader{p.a, 100}(ec).size(), 100);
                        },
                        [&](error_code ec, std::size_t n) {
                            reads.push_back(n);
                            last = ec;
                            ended = ec || n == 0;
                            if (!ended)
                                next();
                        });
                };
                next();
                test::run_ready(io);
                BOOST_TEST(reads.empty());
                test::put(p.b, "last words");
                if (kind == 2) {
                    ::shutdown(p.b, SHUT_WR);
                } else if (kind == 4) {
                    ::linger hard = {1, 0};
                    ::setsockopt(p.b, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
                    p.b.close();
                } else {
                    p.b.close();
                }
                test::run_until(io, [&] { return ended; });
                if (kind != 4) {
                    BOOST_REQUIRE(reads.size() == 2u);
                    BOOST_TEST(reads[0] == 10u);
                    BOOST_TEST(reads[1] == 0u);
                    BOOST_TEST(!last);
                }
            }
        }
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
            test::run_until(io, [&] { return bool(read); });
            test::drain(p.a);
            test::called write;
            reg.async_wait_writable(write.handler());
            test::run_until(io, [&] { return bool(write); });
            test::fill(p.a);
            test::called drained;
            reg.clear(reg.ready(interest::writable));
            reg.async_wait_writable(drained.handler());
            test::drain(p.b);
            test::run_until(io, [&] { return bool(drained); });
            return !read.ec && !write.ec && !drained.ec;
        };
        if (t == trigger::edge) {
            // The writability that was consumed comes again only after the handle was full.
            test::fill(p.a);
            test::called drained;
            reg.async_wait_writable(drained.handler());
            test::run_ready(io);
            test::drain(p.b);
            test::run_until(io, [&] { return bool(drained); });
            auto read_hop = [&] {
                test::called read;
                reg.async_wait_readable(read.handler());
                test::put(p.b, "x");
                test::run_until(io, [&] { return bool(read); });
                test::drain(p.a);
                test::fill(p.a);
                test::called write;
                reg.async_wait_writable(write.handler());
                test::drain(p.b);
                test::run_until(io, [&] { return bool(write); });
                return !read.ec && !write.ec;
            };
            BOOST_REQUIRE(read_hop());
            test::call_counts before = test::counts();
            for (int i = 0; i != 20; ++i)
                BOOST_REQUIRE(read_hop());
            BOOST_TEST((test::counts() - before).epoll_ctl == 0);
            continue;
        }
        BOOST_REQUIRE(hop());
        test::call_counts before = test::counts();
        for (int i = 0; i != 20; ++i)
            BOOST_REQUIRE(hop());
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

// "Tokio: clearing after shutdown wiped its shutdown bit and every later wait hung"
BOOST_FIXTURE_TEST_CASE(clearing_does_not_wipe_the_shutdown, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    test::put(p.b, "x");
    moor::ready_event event;
    bool called = false;
    reg.async_wait(interest::readable | interest::writable, [&](error_code, moor::ready_event e) {
        event = e;
        called = true;
    });
    test::run_until(io, [&] { return called; });
    moor::use_registration_service(io).close();
    reg.clear(event);
    reg.clear(reg.ready(interest::readable | interest::writable));
    for (int i = 0; i != 2; ++i) {
        test::called done;
        reg.async_wait_readable(done.handler());
        test::run_until(io, [&] { return bool(done); });
        BOOST_CHECK_EQUAL(done.ec, gone);
    }
}

// "Tokio: an 8-bit tick, shared by both directions: stale clears hit, and a write event starves a
// read clear"
BOOST_FIXTURE_TEST_CASE(ticks_are_wide_and_belong_to_a_direction, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    moor::registration_service& service = moor::use_registration_service(io);
    test::put(p.b, "x");
    auto stale = reg.poll_read_ready([] {});
    BOOST_REQUIRE(stale.has_value());
    // Just as many newer read events as an 8-bit, or a 16-bit, counter needs to come round. (What
    // the kernel says after a clear is news.)
    auto news = [&] {
        reg.clear(reg.ready(interest::readable));
        return reg.poll_read_ready([] {}).has_value();
    };
    for (unsigned turn : {256u, 65536u}) {
        stale = reg.poll_read_ready([] {});
        std::uint32_t at = service.snapshot().at(0).read_tick;
        for (unsigned i = 0; i != turn; ++i)
            BOOST_REQUIRE(news());
        BOOST_REQUIRE(service.snapshot().at(0).read_tick - at == turn);
        reg.clear(*stale);
        BOOST_TEST(reg.ready(interest::readable).ready().is_readable());
    }
    // Write events in between do not make a clear of read miss.
    stale = reg.poll_read_ready([] {});
    std::uint32_t writes = service.snapshot().at(0).write_tick;
    for (int i = 0; i != 3; ++i) {
        reg.clear(reg.ready(interest::writable));
        BOOST_REQUIRE(reg.poll_write_ready([] {}).has_value());
    }
    BOOST_TEST(service.snapshot().at(0).write_tick - writes == 3u);
    reg.clear(*stale);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
    BOOST_TEST(reg.ready(interest::writable).ready().is_writable());
}

// "Tokio: EPOLLERR alone wakes no reader"
BOOST_FIXTURE_TEST_CASE(an_error_alone_wakes_a_reader_and_a_writer, test::context_fixture) {
    for (trigger t : both_triggers) {
        // The write end of a pipe whose reader goes: POLLERR and nothing else to read.
        test::fd_pair p = test::make_pipe();
        test::fill(p.b);
        moor::registration reg(io, p.b.get(), t);
        test::called read;
        test::called write;
        reg.async_wait_readable(read.handler());
        reg.async_wait_writable(write.handler());
        test::run_ready(io);
        BOOST_TEST(read.times + write.times == 0);
        p.a.close();
        test::run_until(io, [&] { return read && write; });
        BOOST_TEST(!read.ec);
        BOOST_TEST(!write.ec);
    }
}

// "Tokio: ... a combined interest in try_io never runs the closure"
BOOST_FIXTURE_TEST_CASE(a_combined_interest_in_try_io_runs_the_callable, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    int calls = 0;
    for (interest want :
         {interest::readable | interest::writable, interest::writable | interest::error,
          interest::writable | interest::priority | interest::read_closed}) {
        BOOST_TEST(reg.try_io(want, [&](error_code&) { ++calls; }).has_value());
    }
    BOOST_TEST(calls == 3);
}

// "Tokio: ... an interest that was not registered hangs silently"
BOOST_FIXTURE_TEST_CASE(every_interest_can_be_waited_for_without_being_announced,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    test::called read;
    reg.async_wait_readable(read.handler());
    test::run_ready(io);
    // Only a reader was there so far.
    test::called closed;
    test::called write_closed;
    test::called writable;
    reg.async_wait(interest::read_closed, closed.handler());
    reg.async_wait(interest::write_closed, write_closed.handler());
    reg.async_wait_writable(writable.handler());
    test::run_until(io, [&] { return bool(writable); });
    p.b.close();
    test::run_until(io, [&] { return read && closed && write_closed; });
    BOOST_TEST(!closed.ec);
    BOOST_TEST(!write_closed.ec);
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

// "as_tuple(use_future) does not compile on Boost 1.81": in the token matrix.

BOOST_AUTO_TEST_SUITE_END()
