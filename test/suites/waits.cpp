// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a wait answers: on every kind of handle, for every event, in both triggers; and what the
// test suites of Tokio, async-io, polling and libuv assert of theirs. (More kinds of files and of
// ends are in `kinds` and `closing`, more histories in `promise`.)

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"
#include "support/quiet.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::aborted;
using test::both_triggers;
using test::called_event;
using test::check_completes;
using test::check_pends;
using test::check_readable;
using test::check_writable;
using test::error_code;
using test::gone;
using test::would_block;

/// The same scenario for every source of readability: a wait waits, `make` wakes it, `take` makes
/// it pend again; twice. `make` may need the loop to go on for a while.
void check_source(int fd, const std::function<void()>& make, const std::function<void()>& take,
                  int rounds = 3) {
    for (trigger t : both_triggers) {
        BOOST_TEST_CONTEXT(test::name_of(t)) {
            asio::io_context io;
            moor::registration reg(io, fd, t);
            for (int i = 0; i != rounds; ++i) {
                test::pending_reader done(io, reg);
                make();
                check_completes(io, done);
                BOOST_TEST(reg.query().is_readable());
                take();
            }
            // Ready before the first wait of a registration.
            make();
            reg.reset(fd, t);
            check_readable(io, reg);
            take();
        }
    }
}

std::string temporary_directory() {
    char name[] = "/tmp/moor-wait-XXXXXX";
    BOOST_REQUIRE(::mkdtemp(name));
    return name;
}

/// Calls read until it blocks, whatever the size of a record.
void drain_records(int fd) {
    char buffer[4096];
    while (::read(fd, buffer, sizeof(buffer)) > 0) {}
}

/// Takes a message out of the socket's error queue.
void collect_error(int fd) {
    char data[64];
    char control[512];
    ::iovec iov{data, sizeof(data)};
    ::msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof(control);
    BOOST_TEST(::recvmsg(fd, &msg, MSG_ERRQUEUE) >= 0);
}

/// What the kernel says, sooner or later.
bool comes_to(int fd, int events) {
    return test::wait_for([&] { return (test::poll_bits(fd) & events) == events; });
}

} // namespace

BOOST_AUTO_TEST_SUITE(waits)

// ---- level and edge -----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_level_wait_completes_as_long_as_something_is_left,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::put(p.b, "abc");
    for (char c : {'a', 'b', 'c'}) {
        check_readable(io, reg);
        BOOST_TEST(test::get(p.a, 1) == std::string(1, c));
    }
    test::check_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(an_edge_wait_consumes_the_readiness, test::context_fixture) {
    if (!test::on_epoll())
        return; // select and io_uring have no edges: there a wait may complete again
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get(), trigger::edge);
    test::pending_reader first(io, reg);
    test::put(p.b, "ab");
    check_completes(io, first);
    BOOST_TEST(test::get(p.a, 1) == "a"); // not drained, against the contract
    test::pending_reader second(io, reg);
    test::put(p.b, "c"); // a new edge
    check_completes(io, second);
    BOOST_TEST(test::get(p.a) == "bc");
}

BOOST_FIXTURE_TEST_CASE(after_an_edge_wait_the_callables_still_run, test::context_fixture) {
    // A wait takes the edge from later waits. What the caller drains with must still see it.
    for (int how = 0; how != 3; ++how) {
        BOOST_TEST_CONTEXT("how " << how) {
            test::fd_pair p = test::make_pipe();
            moor::registration reg(io, p.a.get(), trigger::edge);
            for (int i = 0; i != 3; ++i) {
                test::pending_reader done(io, reg);
                test::put(p.b, "x");
                check_completes(io, done);
                std::string got;
                if (how == 0) {
                    auto r = reg.try_io(interest::readable, test::reader{p.a});
                    if (r)
                        got = *r;
                    BOOST_TEST(reg.try_io(interest::readable, test::reader{p.a}).error() ==
                               would_block);
                } else if (how == 1) {
                    auto r = reg.poll_read_io([] {}, test::reader{p.a});
                    if (r)
                        got = *r;
                } else {
                    bool finished = false;
                    reg.async_io(interest::readable, test::reader{p.a},
                                 [&](error_code, std::string s) {
                                     got = s;
                                     finished = true;
                                 });
                    test::run_ready(io);
                    BOOST_TEST(finished);
                    reg.cancel();
                    test::run_ready(io);
                }
                BOOST_TEST(got == "x");
                test::drain(p.a);
            }
        }
    }
}

// ---- from Tokio ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_cached_flag_stays_until_it_is_cleared, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::put(p.b, "ab");
    called_event done;
    reg.async_wait(interest::readable, done.handler());
    check_completes(io, done);
    BOOST_TEST((done.ready() == interest::readable));
    BOOST_TEST(test::get(p.a, 1) == "a");
    moor::ready_event e = reg.ready(interest::readable);
    BOOST_TEST(e.ready().is_readable());
    reg.clear(e);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
    BOOST_TEST(test::get(p.a) == "b");
    test::check_works(io, reg, p.a, p.b);
}

BOOST_FIXTURE_TEST_CASE(an_event_is_printed_as_what_it_saw, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    called_event done;
    reg.async_wait(interest::writable | interest::priority, done.handler());
    check_completes(io, done);
    std::ostringstream text;
    text << done.value << ' ' << moor::ready_event();
    BOOST_TEST(text.str() == "writable -");
}

BOOST_FIXTURE_TEST_CASE(filling_a_socket_clears_writable_and_draining_it_wakes_the_writer,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get(), t);
        for (int i = 0; i != 3; ++i) {
            bool blocked = false;
            while (!blocked) {
                auto r = reg.try_io(interest::writable, [&](error_code& ec) {
                    if (::write(p.a, "x", 1) != 1)
                        ec = test::last_error();
                });
                blocked = r.has_error();
                if (blocked)
                    BOOST_CHECK_EQUAL(r.error(), would_block);
                if (!blocked && i == 0)
                    test::fill(p.a); // quicker
            }
            BOOST_TEST(reg.ready(interest::writable).ready().empty());
            test::pending_writer write(io, reg);
            test::drain(p.b);
            check_completes(io, write);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(try_io_keeps_readiness_on_success_and_drops_it_on_would_block,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_pipe();
        moor::registration reg(io, p.a.get(), t);
        int calls = 0;
        auto read_one = [&](error_code& ec) {
            ++calls;
            char c = 0;
            if (::read(p.a, &c, 1) != 1)
                ec = test::last_error();
            return c;
        };
        // Pending, so that the cache is kept up to date by the waker.
        test::called pending;
        reg.async_wait(interest::priority | interest::readable, pending.handler());
        BOOST_TEST(reg.try_io(interest::readable, read_one).error() == would_block);
        BOOST_TEST(calls == 0); // not called when it is not ready
        test::put(p.b, "ab");
        check_completes(io, pending);

        auto r = reg.try_io(interest::readable, read_one);
        if (t == trigger::level || r.has_value()) {
            BOOST_REQUIRE(r.has_value());
            BOOST_TEST(*r == 'a');
            BOOST_TEST(reg.ready(interest::readable).ready().is_readable());
            BOOST_TEST(*reg.try_io(interest::readable, read_one) == 'b');
            BOOST_TEST(calls == 2);
            BOOST_TEST(reg.try_io(interest::readable, read_one).error() == would_block);
            BOOST_TEST(calls == 3);
            BOOST_TEST(reg.ready(interest::readable).ready().empty());
            // Pending again: not called again before there is a new event.
            test::pending_reader again(io, reg);
            BOOST_TEST(reg.try_io(interest::readable, read_one).error() == would_block);
            BOOST_TEST(calls == 3);
            test::put(p.b, "c");
            check_completes(io, again);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(try_io_with_a_combined_interest_runs_when_either_is_ready,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    int calls = 0;
    auto count = [&](error_code&) { ++calls; };
    // Writable only.
    BOOST_TEST(reg.try_io(interest::readable | interest::writable, count).has_value());
    BOOST_TEST(calls == 1);
    // Readable only.
    test::fill(p.a);
    reg.clear(reg.ready(interest::writable));
    test::put(p.b, "x");
    BOOST_TEST(reg.try_io(interest::readable | interest::writable, count).has_value());
    BOOST_TEST(calls == 2);
    // What else is asked for does not matter.
    test::drain(p.b);
    for (interest want : {interest::writable | interest::error,
                          interest::writable | interest::priority | interest::read_closed})
        BOOST_TEST(reg.try_io(want, count).has_value());
    BOOST_TEST(calls == 4);
    // Neither.
    test::fill(p.a);
    test::drain(p.a);
    reg.clear(reg.ready(interest::readable | interest::writable));
    BOOST_TEST(reg.try_io(interest::readable | interest::writable, count).error() == would_block);
    BOOST_TEST(calls == 4);
}

BOOST_FIXTURE_TEST_CASE(ten_and_a_hundred_waits_complete_on_one_byte, test::context_fixture) {
    for (trigger t : both_triggers) {
        for (int count : {10, 100}) {
            test::fd_pair p = test::make_pipe();
            moor::registration reg(io, p.a.get(), t);
            int completed = 0;
            int errors = 0;
            for (int i = 0; i != count; ++i)
                reg.async_wait_readable([&](error_code ec) {
                    ++completed;
                    errors += ec.failed();
                });
            test::run_ready(io);
            BOOST_TEST(completed == 0);
            test::put(p.b, "x");
            test::run_until(io, [&] { return completed == count; });
            BOOST_TEST(errors == 0);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_poll_slot_keeps_the_newest_waker_and_wakes_the_displaced_one,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    test::fill(p.a);
    moor::registration reg(io, p.a.get());
    int woken[4] = {0, 0, 0, 0};
    test::called listed, io_done;
    reg.async_wait_readable(listed.handler()); // coexist
    reg.async_io(interest::readable, test::reader{p.a}, io_done.handler());
    BOOST_TEST(reg.poll_write_ready([&] { ++woken[3]; }).error() == would_block);
    BOOST_TEST(reg.poll_read_ready([&] { ++woken[0]; }).error() == would_block);
    test::run_ready(io);
    BOOST_TEST(woken[0] == 0);
    BOOST_TEST(reg.poll_read_ready([&] { ++woken[1]; }).error() == would_block);
    BOOST_TEST(woken[0] == 0); // not from within the call
    test::run_until(io, [&] { return woken[0] != 0; });
    BOOST_TEST(reg.poll_read_ready([&] { ++woken[2]; }).error() == would_block);
    test::run_until(io, [&] { return woken[1] != 0; });
    BOOST_TEST(listed.times + io_done.times == 0);

    test::put(p.b, "x");
    test::run_until(io, [&] { return woken[2] != 0 && listed && io_done; });
    BOOST_TEST(woken[0] == 1);
    BOOST_TEST(woken[1] == 1);
    BOOST_TEST(woken[2] == 1);
    BOOST_TEST(woken[3] == 0); // a read event leaves the write waker in place
    test::put(p.b, "y");       // the operation has read the byte
    auto ready = reg.poll_read_ready([] { BOOST_ERROR("a waker that was not kept is not woken"); });
    BOOST_REQUIRE(ready.has_value());
    BOOST_TEST((ready->ready() == interest::readable));
    test::drain(p.b);
    test::run_until(io, [&] { return woken[3] != 0; });
    BOOST_TEST(woken[3] == 1);
    BOOST_TEST(reg.poll_write_ready([] {}).has_value());
}

BOOST_FIXTURE_TEST_CASE(a_poll_io_calls_until_it_blocks_and_keeps_the_waker,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    int woken = 0;
    int calls = 0;
    auto wake = [&] { ++woken; };
    auto read = [&](error_code& ec) {
        ++calls;
        return test::reader{p.a}(ec);
    };
    BOOST_TEST(reg.poll_read_io(wake, read).error() == would_block);
    test::run_ready(io);
    BOOST_TEST(woken == 0);
    test::put(p.b, "hello");
    test::run_until(io, [&] { return woken != 0; });
    BOOST_TEST(reg.poll_read_io(wake, read).value() == "hello");
    // The cache still says ready: the call finds out, and the waker is kept.
    int before = calls;
    BOOST_TEST(reg.poll_read_io(wake, read).error() == would_block);
    BOOST_TEST(calls == before + 1);
    test::run_ready(io);
    BOOST_TEST(woken == 1);
    test::put(p.b, "again");
    test::run_until(io, [&] { return woken == 2; });
    BOOST_TEST(reg.poll_read_io(wake, read).value() == "again");

    moor::registration writer(io, p.b.get());
    auto w = writer.poll_write_io(wake, [&](error_code& ec) {
        ::ssize_t n = ::write(p.b, "y", 1);
        if (n < 0)
            ec = test::last_error();
        return n;
    });
    BOOST_REQUIRE(w.has_value());
    BOOST_TEST(*w == 1);
}

BOOST_FIXTURE_TEST_CASE(clearing_after_the_shutdown_changes_nothing, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    test::put(p.b, "x");
    called_event done;
    reg.async_wait(interest::readable | interest::writable, done.handler());
    check_completes(io, done);
    moor::use_registration_service(io).close();
    reg.clear(done.value);
    reg.clear(reg.ready(interest::readable | interest::writable | interest::error |
                        interest::read_closed | interest::write_closed | interest::priority));
    for (int i = 0; i != 2; ++i) {
        test::called after;
        reg.async_wait_readable(after.handler());
        test::check_fails(io, after, gone);
    }
}

BOOST_FIXTURE_TEST_CASE(clearing_one_flag_of_two_leaves_the_other, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    test::put(p.b, "x");
    called_event done;
    reg.async_wait(interest::readable | interest::writable, done.handler());
    check_completes(io, done);
    BOOST_TEST((done.ready() == (interest::readable | interest::writable)));
    reg.clear(done.value.only(interest::readable));
    moor::ready_event left = reg.ready(interest::readable | interest::writable);
    BOOST_TEST((left.ready() == interest::writable));
    reg.clear(done.value);
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready().empty());
}

BOOST_FIXTURE_TEST_CASE(a_timestamp_and_a_refused_port_are_exactly_error_events,
                        test::context_fixture) {
    // Both are told of in the socket's error queue. Only with a refused port has the socket an
    // error, too, which wakes a reader, who would wait for ever.
    for (trigger t : both_triggers)
        for (bool is_refused : {false, true}) {
            test::fd_pair p = test::make_udp_pair();
            int on = 1;
            unsigned stamps = SOF_TIMESTAMPING_TX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
            if (is_refused) {
                p.b.close(); // nobody listens there now
                BOOST_REQUIRE_EQUAL(::setsockopt(p.a, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)), 0);
            } else {
                BOOST_REQUIRE_EQUAL(
                    ::setsockopt(p.a, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof(stamps)), 0);
            }
            moor::registration reg(io, p.a.get(), t);
            called_event error, again;
            test::called reader;
            reg.async_wait(is_refused ? interest(interest::error)
                                      : interest::error | interest::priority |
                                            interest::read_closed | interest::write_closed,
                           error.handler());
            if (is_refused)
                reg.async_wait_readable(reader.handler());
            check_pends(io, error);
            BOOST_TEST(reader.times == 0);
            BOOST_REQUIRE_EQUAL(::send(p.a, "x", 1, 0), 1);
            check_completes(io, error);
            BOOST_TEST((error.ready() == interest::error));
            if (is_refused) {
                check_completes(io, reader);
                BOOST_TEST(reg.query().is_error());
            } else {
                int code = -1;
                ::socklen_t len = sizeof(code);
                BOOST_REQUIRE_EQUAL(::getsockopt(p.a, SOL_SOCKET, SO_ERROR, &code, &len), 0);
                BOOST_TEST(code == 0);
            }
            // Collected, it is over: the error does not stick.
            collect_error(p.a);
            if (is_refused)
                test::get(p.a); // the pending socket error
            reg.clear(is_refused ? reg.ready(interest::error | interest::readable) : error.value);
            reg.async_wait(interest::error, again.handler());
            check_pends(io, again);
            BOOST_REQUIRE_EQUAL(::send(p.a, "y", 1, 0), 1);
            check_completes(io, again);
            BOOST_TEST((again.ready() == interest::error));
        }
}

BOOST_FIXTURE_TEST_CASE(a_peer_that_shuts_down_writing_reports_read_closed, test::context_fixture) {
    test::on_unix_and_tcp([&](trigger t, test::fd_pair p, bool is_tcp) {
        moor::registration reg(io, p.a.get(), t);
        called_event closed, write_closed;
        test::called readable, writable;
        reg.async_wait_readable(readable.handler());
        check_pends(io, readable);
        // Nobody has said before that these would be waited for, too.
        reg.async_wait(interest::read_closed, closed.handler());
        reg.async_wait(interest::write_closed, write_closed.handler());
        reg.async_wait_writable(writable.handler());
        BOOST_TEST(writable.times == 0);
        check_completes(io, writable);
        check_pends(io, closed);
        BOOST_TEST(readable.times == 0);
        BOOST_REQUIRE_EQUAL(::shutdown(p.b, SHUT_WR), 0);
        check_completes(io, closed);
        check_completes(io, readable);
        BOOST_TEST((closed.ready() == interest::read_closed));
        check_pends(io, write_closed); // we may still write
        // It stays so.
        called_event again;
        reg.clear(closed.value);
        reg.async_wait(interest::read_closed, again.handler());
        check_completes(io, again);
        p.b.close();
        if (!is_tcp) {
            check_completes(io, write_closed);
            BOOST_TEST((write_closed.ready() == interest::write_closed));
        } else {
            reg.cancel();
            test::run_until(io, [&] { return bool(write_closed); });
        }
    });
}

BOOST_FIXTURE_TEST_CASE(data_and_the_end_that_arrive_together_are_both_seen,
                        test::context_fixture) {
    // A reader that takes the data only, and waits again, is told of the end: an operation that was
    // pending, or one that begins when a wait has completed.
    auto check = [&](const test::ending& end, trigger t, bool waits_first) {
        test::fd_pair p = end.make();
        moor::registration reg(io, p.a.get(), t);
        std::vector<std::string> reads;
        bool over = false;
        std::function<void()> next = [&] {
            reg.async_io(
                interest::readable,
                [&](error_code& ec) {
                    std::string s = test::reader{p.a, 64}(ec);
                    std::size_t n = s.size();
                    if (!ec)
                        reads.push_back(std::move(s));
                    return moor::short_transfer(n, 64);
                },
                [&](error_code ec, std::size_t n) {
                    BOOST_TEST((!ec || end.close == &test::reset_peer));
                    over = ec || n == 0;
                    if (!over)
                        next();
                });
        };
        called_event done;
        if (waits_first)
            reg.async_wait(interest::readable | interest::read_closed, done.handler());
        else
            next();
        check_pends(io, done);
        BOOST_TEST(reads.empty());
        test::put(p.b, "last");
        end.close(p);
        if (waits_first) {
            check_completes(io, done);
            BOOST_TEST(done.ready().is_readable());
            next();
        }
        test::run_until(io, [&] { return over; });
        if (end.close != &test::reset_peer)
            BOOST_TEST((reads == std::vector<std::string>{"last", ""}));
    };
    using test::ending;
    const ending endings[] = {
        {"pipe", &test::make_pipe, &test::close_peer},
        {"Unix", [] { return test::make_socketpair(); }, &test::close_peer},
        {"Unix, shut down", [] { return test::make_socketpair(); }, &test::shut_peer},
        {"TCP", &test::make_tcp_pair, &test::close_peer},
        {"TCP, reset", &test::make_tcp_pair, &test::reset_peer}};
    for (const ending& end : endings)
        for (trigger t : both_triggers)
            for (bool waits_first : {false, true}) {
                BOOST_TEST_CONTEXT(end.name << ", " << test::name_of(t) << ", " << waits_first) {
                    check(end, t, waits_first);
                }
            }
}

BOOST_FIXTURE_TEST_CASE(a_stale_event_does_not_clear_newer_readiness, test::context_fixture) {
    // Also when so many came in between that a narrow counter would have come round.
    struct {
        unsigned newer;
        bool by_waits;
    } rows[] = {{1, true}, {256, true}, {1, false}, {256, false}, {65536, false}};
    for (const auto& row : rows) {
        const auto newer = row.newer;
        const bool by_waits = row.by_waits;
        BOOST_TEST_CONTEXT(newer << (by_waits ? " waits" : " polls")) {
            test::fd_pair p = test::make_socketpair();
            moor::registration reg(io, p.a.get());
            auto tick = [&] {
                return moor::use_registration_service(io).snapshot().at(0).read_tick;
            };
            auto next_event = [&] {
                called_event done;
                test::put(p.b, "x");
                if (by_waits) {
                    reg.async_wait(interest::readable, done.handler());
                    check_completes(io, done);
                    return done.value;
                }
                return reg.poll_read_ready([] {}).value(); // the kernel says so after a clear
            };
            const moor::ready_event stale = next_event();
            const std::uint32_t at = tick();
            moor::ready_event newest = stale;
            for (unsigned i = 0; i != newer; ++i) {
                test::drain(p.a);
                reg.clear(newest);
                newest = next_event();
            }
            BOOST_TEST((by_waits ? tick() - at >= newer : tick() - at == newer));
            reg.clear(stale);
            BOOST_TEST(reg.ready(interest::readable).ready().is_readable());
            reg.clear(newest);
            BOOST_TEST(reg.ready(interest::readable).ready().empty());
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_write_event_between_a_read_event_and_its_clear_does_no_harm,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    auto event = [&](interest want) {
        called_event done;
        reg.async_wait(want, done.handler());
        check_completes(io, done);
        BOOST_TEST((done.ready() == want));
        return done.value;
    };
    auto tick = [&] { return moor::use_registration_service(io).snapshot().at(0).write_tick; };
    test::put(p.b, "x");
    moor::ready_event read = event(interest::readable);
    test::drain(p.a); // or else, on epoll, an event of one direction repeats what is unread
    event(interest::writable);
    test::fill(p.a);
    reg.clear(reg.ready(interest::writable));
    test::pending_writer write(io, reg);
    test::drain(p.b);
    check_completes(io, write);
    std::uint32_t writes = tick();
    for (int i = 0; i != 3; ++i) {
        reg.clear(reg.ready(interest::writable));
        BOOST_REQUIRE(reg.poll_write_ready([] {}).has_value());
    }
    BOOST_TEST(tick() - writes == 3u);
    reg.clear(read);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
    BOOST_TEST(reg.ready(interest::writable).ready().is_writable());
}

BOOST_FIXTURE_TEST_CASE(query_asks_the_kernel_and_leaves_the_cache_alone, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    BOOST_TEST((reg.query() == interest::writable));
    test::put(p.b, "x");
    test::call_counts before = test::counts();
    interest r = reg.query();
    test::call_counts used = test::counts() - before;
    BOOST_TEST(used.poll == 1);
    BOOST_TEST((r == (interest::readable | interest::writable)));
    test::fill(p.a);
    BOOST_TEST((reg.query() == interest::readable));
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready().empty());
    ::shutdown(p.b, SHUT_WR);
    BOOST_TEST(reg.query().is_read_closed());
    BOOST_TEST(!reg.query().is_write_closed());
    p.b.close();
    BOOST_TEST(reg.query().contains(interest::read_closed | interest::write_closed));
}

// ---- from async-io and polling ------------------------------------------------------------------

/// A socket that is full, with a writer and a reader that are both blocked.
struct blocked_both_ways {
    test::fd_pair p;
    moor::registration reg;
    std::optional<error_code> write_result;
    std::optional<error_code> read_result;
    std::string text = "nothing";

    blocked_both_ways(asio::io_context& io, test::fd_pair sockets, trigger t)
        : p(std::move(sockets)), reg(io, p.a.get(), t) {
        test::fill(p.a);
        reg.async_io(
            interest::writable,
            [this](error_code& ec) {
                if (::send(p.a, "x", 1, MSG_NOSIGNAL) < 0)
                    ec = test::last_error();
            },
            [this](error_code ec) { write_result = ec; });
        reg.async_io(interest::readable, test::reader{p.a}, [this](error_code ec, std::string s) {
            read_result = ec;
            text = s;
        });
        test::run_ready(io);
        BOOST_TEST((!write_result && !read_result));
    }
};

BOOST_FIXTURE_TEST_CASE(a_hang_up_wakes_both_directions, test::context_fixture) {
    test::on_unix_and_tcp([&](trigger t, test::fd_pair p, bool is_tcp) {
        blocked_both_ways b(io, std::move(p), t);
        test::called read, write;
        b.reg.async_wait_readable(read.handler());
        b.reg.async_wait_writable(write.handler());
        test::run_ready(io);
        b.p.b.close();
        test::run_until(io, [&] { return b.write_result && b.read_result && read && write; });
        BOOST_TEST(!read.ec);
        BOOST_TEST(!write.ec);
        BOOST_TEST(b.text.empty());
        // What the peer has not read is answered with a reset, which one of the two
        // collects. (A Unix socket's writer is told otherwise.)
        bool read_reset = *b.read_result == asio::error::connection_reset;
        bool write_reset = *b.write_result == asio::error::connection_reset;
        BOOST_TEST((read_reset || !*b.read_result));
        BOOST_TEST((write_reset || *b.write_result == asio::error::broken_pipe));
        BOOST_TEST((is_tcp ? read_reset != write_reset : !write_reset));
    });
}

BOOST_FIXTURE_TEST_CASE(a_peers_shutdown_ends_the_reader_and_leaves_the_writer,
                        test::context_fixture) {
    test::on_unix_and_tcp([&](trigger t, test::fd_pair p, bool) {
        blocked_both_ways b(io, std::move(p), t);
        BOOST_REQUIRE_EQUAL(::shutdown(b.p.b, SHUT_WR), 0);
        test::run_until(io, [&] { return b.read_result.has_value(); });
        BOOST_TEST(!*b.read_result);
        BOOST_TEST(b.text.empty()); // the end
        test::check_is_quiet(io);
        BOOST_TEST(!b.write_result);
        called_event urgent;
        b.reg.async_wait(interest::priority, urgent.handler());
        test::check_is_quiet(io);
        BOOST_TEST((!b.write_result && !urgent));
        b.reg.cancel(moor::direction::read);
        test::check_fails(io, urgent, test::aborted);
        test::drain(b.p.b);
        test::run_until(io, [&] { return b.write_result.has_value(); });
        BOOST_TEST(!*b.write_result);
    });
}

// Where the kernel wakes a writer for a half-closed socket, too, Moor has it wait otherwise. What
// several waits on such a socket are told must not depend on that.

BOOST_FIXTURE_TEST_CASE(urgent_data_ends_a_wait_of_a_blocked_writer_for_either,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_tcp_pair();
        test::fill(p.a);
        BOOST_REQUIRE_EQUAL(::shutdown(p.a, SHUT_RD), 0);
        moor::registration reg(io, p.a.get(), t);
        called_event done;
        reg.async_wait(interest::writable | interest::priority, done.handler());
        check_pends(io, done);
        BOOST_REQUIRE_EQUAL(::send(p.b, "!", 1, MSG_OOB), 1);
        check_completes(io, done);
        BOOST_TEST((done.ready() == interest::priority));
    }
}

BOOST_FIXTURE_TEST_CASE(a_writer_is_told_of_room_beside_urgent_data_and_the_end,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_tcp_pair();
        moor::registration reg(io, p.a.get(), t);
        test::called write;
        called_event urgent;
        reg.async_wait_readable([&](error_code) {
            test::fill(p.a);
            reg.async_wait_writable(write.handler());
            test::drain(p.b);
            BOOST_TEST(comes_to(p.a, POLLOUT));
        });
        reg.async_wait(interest::priority, urgent.handler());
        check_pends(io, urgent);
        BOOST_REQUIRE_EQUAL(::send(p.b, "!", 1, MSG_OOB), 1);
        BOOST_REQUIRE_EQUAL(::shutdown(p.b, SHUT_WR), 0);
        BOOST_TEST(comes_to(p.a, POLLPRI | POLLRDHUP));
        check_completes(io, urgent);
        check_completes(io, write);
    }
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_writer_takes_no_event_from_the_next, test::context_fixture) {
    for (bool tcp : {false, true}) {
        test::fd_pair p = tcp ? test::make_tcp_pair() : test::make_socketpair();
        test::fill(p.a);
        BOOST_REQUIRE_EQUAL(::shutdown(p.b, SHUT_WR), 0);
        BOOST_TEST(comes_to(p.a, POLLRDHUP));
        moor::registration reg(io, p.a.get(), trigger::edge);
        auto fill = [&] {
            test::fill(p.a);
            auto r = reg.try_io(interest::writable, [&](error_code& ec) {
                if (::send(p.a, "x", 1, MSG_NOSIGNAL) < 0)
                    ec = test::last_error();
            });
            BOOST_TEST(r.has_error());
        };
        fill();
        called_event beside;
        test::called first, second, third;
        reg.async_wait(interest::priority | interest::write_closed, beside.handler());
        reg.async_wait_writable([&](error_code ec) {
            first.handler()(ec);
            fill();
            reg.async_wait_writable(second.handler());
            reg.cancel(moor::direction::write); // `beside` waits for both, and ends with it
            reg.async_wait(interest::priority, beside.handler());
            test::drain(p.b);
            BOOST_TEST(comes_to(p.a, POLLOUT));
        });
        check_pends(io, first);
        test::drain(p.b);
        check_completes(io, first);
        test::run_ready(io);
        BOOST_CHECK_EQUAL(second.ec, test::aborted);
        reg.async_wait_writable(third.handler());
        check_completes(io, third);
        reg.cancel();
        test::run_ready(io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_writer_takes_no_hang_up_from_another_wait,
                        test::context_fixture) {
    test::fd_pair p = test::make_tcp_pair();
    test::fd_pair q = test::make_socketpair();
    test::fill(p.a);
    BOOST_REQUIRE_EQUAL(::shutdown(p.b, SHUT_WR), 0);
    BOOST_TEST(comes_to(p.a, POLLRDHUP));
    moor::registration reg(io, p.a.get());
    moor::registration other(io, q.a.get());
    test::pending_writer cancelled(io, reg);
    reg.cancel();
    test::run_ready(io);
    BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
    test::called again;
    called_event closed;
    other.async_wait_readable([&](error_code) {
        reg.async_wait_writable(again.handler());
        reg.async_wait(interest::write_closed, closed.handler());
        ::linger reset = {1, 0};
        ::setsockopt(p.b, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        p.b.close();
        BOOST_TEST(comes_to(p.a, POLLHUP));
    });
    test::run_ready(io);
    test::put(q.b, "x");
    test::drain(p.b);
    BOOST_TEST(comes_to(p.a, POLLOUT));
    check_completes(io, closed);
    check_completes(io, again);
    BOOST_TEST((closed.ready() == interest::write_closed));
}

BOOST_FIXTURE_TEST_CASE(both_directions_pending_one_fires_and_the_other_stays_armed,
                        test::context_fixture) {
    test::on_unix_and_tcp([&](trigger t, test::fd_pair p, bool) {
        test::fill(p.a);
        moor::registration reg(io, p.a.get(), t);
        test::called read, write;
        reg.async_wait_readable(read.handler());
        reg.async_wait_writable(write.handler());
        check_pends(io, read);
        test::put(p.b, "x");
        check_completes(io, read);
        check_pends(io, write);
        while (!write) {
            test::drain(p.b);
            test::run_ready(io);
        }
        check_completes(io, write);

        test::drain(p.a);
        // The kernel repeated with each write event that there is something to read: a
        // later edge, which Moor could not see us drain.
        reg.clear(reg.ready(interest::readable));
        // TCP: what the kernel holds moves on by itself; filled until it stays full.
        while (test::fill(p.a) + test::drain(p.a) != 0) {}
        test::called read2, write2;
        reg.async_wait_writable(write2.handler());
        reg.async_wait_readable(read2.handler());
        check_pends(io, read2);
        while (!write2) {
            test::drain(p.b);
            test::run_ready(io);
        }
        check_completes(io, write2);
        check_pends(io, read2);
        test::put(p.b, "y");
        check_completes(io, read2);
    });
}

// ---- cancelling ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(cancel_ends_every_wait_and_the_registration_goes_on,
                        test::context_fixture) {
    for (trigger t : both_triggers) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        moor::registration reg(io, p.a.get(), t);
        test::called read, write;
        test::called priority, io_op;
        bool woken = false;
        reg.async_wait_readable(read.handler());
        reg.async_wait_writable(write.handler());
        reg.async_wait(interest::priority, priority.handler());
        reg.async_io(interest::readable, test::reader{p.a}, io_op.handler());
        BOOST_TEST(reg.poll_read_ready([&] { woken = true; }).error() == would_block);
        test::run_ready(io);
        reg.cancel();
        BOOST_TEST(read.times == 0); // not from within the call
        BOOST_TEST(!woken);
        test::run_all(io);
        for (test::called* c : {&read, &write, &priority, &io_op}) {
            BOOST_TEST(c->times == 1);
            BOOST_CHECK_EQUAL(c->ec, aborted);
        }
        BOOST_TEST(woken);
        test::check_works(io, reg, p.a, p.b);
    }
}

BOOST_FIXTURE_TEST_CASE(cancel_of_a_direction_leaves_the_other, test::context_fixture) {
    for (moor::direction d : {moor::direction::read, moor::direction::write}) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        moor::registration reg(io, p.a.get());
        test::called read, write;
        test::called both, priority;
        reg.async_wait_readable(read.handler());
        reg.async_wait_writable(write.handler());
        reg.async_wait(interest::readable | interest::writable, both.handler());
        reg.async_wait(interest::priority, priority.handler());
        test::run_ready(io);
        bool reading = d == moor::direction::read;
        reg.cancel(d);
        test::called& hit = reading ? read : write;
        test::called& left = reading ? write : read;
        test::run_until(io, [&] { return hit && both; });
        BOOST_CHECK_EQUAL(hit.ec, aborted);
        BOOST_CHECK_EQUAL(both.ec, aborted); // waits for both directions
        check_pends(io, left);
        BOOST_TEST(priority.times == (reading ? 1 : 0)); // delivered on the read stream
        if (reading)
            test::drain(p.b);
        else
            test::put(p.b, "x");
        check_completes(io, left);
        reg.cancel();
        test::check_fails(io, priority, aborted);
    }
}

BOOST_FIXTURE_TEST_CASE(a_wait_that_is_on_its_way_is_not_cancelled_any_more,
                        test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait_writable(done.handler()); // answered at once, and posted
    reg.cancel();
    check_completes(io, done);
}

// ---- every kind of handle -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(an_eventfd_is_waited_for) {
    test::unique_fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    check_source(
        fd,
        [&] {
            std::uint64_t n = 1;
            BOOST_REQUIRE_EQUAL(::write(fd, &n, 8), 8);
        },
        [&] { drain_records(fd); });
}

BOOST_AUTO_TEST_CASE(an_eventfd_that_is_full_is_waited_for_to_be_written) {
    for (trigger t : both_triggers) {
        asio::io_context io;
        test::unique_fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        std::uint64_t full = ~std::uint64_t(0) - 1;
        BOOST_REQUIRE_EQUAL(::write(fd, &full, 8), 8);
        moor::registration reg(io, fd.get(), t);
        test::pending_writer write(io, reg);
        drain_records(fd);
        check_completes(io, write);
    }
}

BOOST_AUTO_TEST_CASE(a_timerfd_is_waited_for) {
    test::unique_fd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    check_source(
        fd,
        [&] {
            ::itimerspec in_a_moment{};
            in_a_moment.it_value.tv_nsec = 1000000;
            BOOST_REQUIRE_EQUAL(::timerfd_settime(fd, 0, &in_a_moment, nullptr), 0);
        },
        [&] { drain_records(fd); });
}

BOOST_AUTO_TEST_CASE(a_signalfd_is_waited_for) {
    ::sigset_t mask;
    ::sigset_t old;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    BOOST_REQUIRE_EQUAL(::pthread_sigmask(SIG_BLOCK, &mask, &old), 0);
    test::unique_fd fd(::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
    // A signal to this thread: another might have it unblocked.
    check_source(
        fd, [&] { BOOST_REQUIRE_EQUAL(::pthread_kill(::pthread_self(), SIGUSR2), 0); },
        [&] { drain_records(fd); });
    ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

BOOST_AUTO_TEST_CASE(an_inotify_watch_is_waited_for) {
    std::string dir = temporary_directory();
    test::unique_fd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    BOOST_REQUIRE_GE(::inotify_add_watch(fd, dir.c_str(), IN_CREATE | IN_DELETE), 0);
    std::string name = dir + "/file";
    check_source(
        fd,
        [&] {
            test::unique_fd file(::open(name.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
            ::unlink(name.c_str());
        },
        [&] { drain_records(fd); });
    ::rmdir(dir.c_str());
}

BOOST_AUTO_TEST_CASE(a_pseudo_terminal_is_waited_for) {
    test::fd_pair terminal = test::make_raw_pty();
    test::unique_fd &master = terminal.a, &slave = terminal.b;
    check_source(
        slave, [&] { test::put(master, "typed"); }, [&] { test::drain(slave); });
    check_source(
        master, [&] { test::put(slave, "shown"); }, [&] { test::drain(master); });

    // The terminal hangs up.
    asio::io_context io;
    moor::registration reg(io, slave.get());
    test::pending_reader read(io, reg);
    master.close();
    check_completes(io, read);
}

BOOST_AUTO_TEST_CASE(a_wait_finds_the_room_of_a_terminal_of_which_no_event_tells) {
    for (bool is_master : {true, false})
        BOOST_TEST_CONTEXT((is_master ? "master" : "terminal")) {
            test::fd_pair p = test::make_raw_pty();
            if (!is_master)
                p = test::swapped(std::move(p));
            asio::io_context io;
            moor::registration reg(io, p.a.get());
            constexpr interest both = interest::readable | interest::writable;
            // The kernel moves bytes from one buffer to the next, and so makes room for a while.
            const auto has_begun = [&](called_event& wait, interest want) {
                test::fill(p.a);
                reg.async_wait(want, wait.handler());
                test::run_ready(io);
                return !wait.value.is_writable();
            };
            called_event pending;
            while (!has_begun(pending, both))
                pending = called_event();
            test::put(p.b, "some");
            test::run_until(io, [&] { return bool(pending); });
            called_event found;
            while (!has_begun(found, both))
                found = called_event();
            BOOST_CHECK(found.ready() == interest::readable);

            BOOST_REQUIRE_EQUAL(::tcflush(p.a, TCOFLUSH), 0);
            check_writable(io, reg);
        }
}

BOOST_AUTO_TEST_CASE(pipes_and_sockets_are_waited_for) {
    test::fd_pair pairs[] = {test::make_pipe(), test::make_socketpair(), test::make_tcp_pair(),
                             test::make_socketpair(SOCK_DGRAM),
                             test::make_socketpair(SOCK_SEQPACKET)};
    for (test::fd_pair& p : pairs)
        check_source(
            p.a, [&] { test::put(p.b, "x"); }, [&] { test::drain(p.a); });
}

BOOST_AUTO_TEST_CASE(a_named_pipe_is_waited_for) {
    std::string dir = temporary_directory();
    std::string name = dir + "/fifo";
    BOOST_REQUIRE_EQUAL(::mkfifo(name.c_str(), 0600), 0);
    test::unique_fd reader(::open(name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    {
        test::unique_fd writer(::open(name.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
        check_source(
            reader, [&] { test::put(writer, "x"); }, [&] { test::drain(reader); });
    }
    // Opened without a writer, it waits for one.
    for (trigger t : both_triggers) {
        test::unique_fd fresh(::open(name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        asio::io_context io;
        moor::registration reg(io, fresh.get(), t);
        test::pending_reader done(io, reg);
        test::unique_fd writer(::open(name.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
        check_pends(io, done);
        test::put(writer, "x");
        check_completes(io, done);
        test::drain(fresh);
    }
    ::unlink(name.c_str());
    ::rmdir(dir.c_str());
}

BOOST_AUTO_TEST_CASE(a_listening_socket_is_readable_when_there_is_somebody_to_accept) {
    for (trigger t : both_triggers) {
        asio::io_context io;
        test::unique_fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        ::sockaddr_in addr{};
        addr.sin_family = AF_INET;
        addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::socklen_t len = sizeof(addr);
        BOOST_REQUIRE_EQUAL(::bind(listener, reinterpret_cast<::sockaddr*>(&addr), len), 0);
        BOOST_REQUIRE_EQUAL(::listen(listener, 4), 0);
        BOOST_REQUIRE_EQUAL(::getsockname(listener, reinterpret_cast<::sockaddr*>(&addr), &len), 0);
        moor::registration reg(io, listener.get(), t);
        test::pending_reader done(io, reg);
        test::unique_fd client(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        int result = ::connect(client, reinterpret_cast<::sockaddr*>(&addr), len);
        BOOST_REQUIRE((result == 0 || errno == EINPROGRESS));
        // And connecting ends with writability.
        moor::registration connecting(io, client.get(), t);
        check_writable(io, connecting);
        check_completes(io, done);
        test::unique_fd accepted(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    }
}

BOOST_AUTO_TEST_CASE(a_nested_epoll_set_is_waited_for) {
    test::unique_fd set(::epoll_create1(EPOLL_CLOEXEC));
    test::fd_pair p = test::make_pipe();
    ::epoll_event ev{};
    ev.events = EPOLLIN;
    BOOST_REQUIRE_EQUAL(::epoll_ctl(set, EPOLL_CTL_ADD, p.a, &ev), 0);
    check_source(
        set, [&] { test::put(p.b, "x"); },
        [&] {
            test::drain(p.a);
            ::epoll_wait(set, &ev, 1, 0);
        });
}

BOOST_AUTO_TEST_CASE(a_netlink_socket_is_waited_for) {
    test::unique_fd fd(
        ::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE));
    check_source(
        fd,
        [&] {
            struct {
                ::nlmsghdr header;
                ::rtgenmsg body;
            } request{};
            request.header.nlmsg_len = sizeof(request);
            request.header.nlmsg_type = RTM_GETLINK;
            request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
            request.body.rtgen_family = AF_UNSPEC;
            BOOST_REQUIRE_EQUAL(::send(fd, &request, sizeof(request), 0),
                                static_cast<::ssize_t>(sizeof(request)));
        },
        [&] { drain_records(fd); });
}

BOOST_AUTO_TEST_CASE(handles_that_are_not_pollable_are_always_ready) {
    std::string dir = temporary_directory();
    std::string name = dir + "/file";
    struct kind {
        const char* what;
        int fd;
    } kinds[] = {
        {"a regular file", ::open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600)},
        {"a directory", ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)},
        {"/dev/null", ::open("/dev/null", O_RDWR | O_CLOEXEC)},
        {"/dev/zero", ::open("/dev/zero", O_RDWR | O_CLOEXEC)},
    };
    for (kind& k : kinds) {
        test::unique_fd fd(k.fd);
        for (trigger t : both_triggers) {
            BOOST_TEST_CONTEXT(k.what << (t == trigger::edge ? " edge" : " level")) {
                asio::io_context io;
                moor::registration reg(io, fd.get(), t);
                for (int i = 0; i != 3; ++i) {
                    test::called read, write;
                    called_event both;
                    reg.async_wait_readable(read.handler());
                    reg.async_wait_writable(write.handler());
                    reg.async_wait(interest::readable | interest::writable, both.handler());
                    BOOST_TEST(read.times == 0);
                    check_completes(io, read);
                    check_completes(io, write);
                    check_completes(io, both);
                    // (An edge-triggered combined wait is told of what it was not told before;
                    // where the reactor accepts these handles, the directions come one by one.)
                    if (t == trigger::level || test::on_epoll())
                        BOOST_TEST((both.ready() == (interest::readable | interest::writable)));
                    BOOST_TEST(!both.ready().empty());
                    BOOST_TEST(reg.try_io(interest::readable, [](error_code&) {}).has_value());
                    BOOST_TEST(reg.poll_read_ready([] {}).has_value());
                    BOOST_TEST(reg.poll_write_ready([] {}).has_value());
                    BOOST_TEST(reg.query().contains(interest::readable | interest::writable));
                    reg.clear(both.value);
                }
                bool finished = false;
                reg.async_io(
                    interest::writable, [](error_code&) { return 1; },
                    [&](error_code ec, int n) { finished = !ec && n == 1; });
                test::run_until(io, [&] { return finished; });
                reg.cancel();
                BOOST_TEST(reg.deregister() == fd.get());
                test::run_ready(io);
            }
        }
    }
    ::unlink(name.c_str());
    ::rmdir(dir.c_str());
}

BOOST_FIXTURE_TEST_CASE(a_wait_for_priority_sleeps_beside_what_nobody_reads,
                        test::context_fixture) {
    for (trigger t : both_triggers)
        for (bool closes : {false, true}) {
            BOOST_TEST_CONTEXT((t == trigger::level ? "level, " : "edge, ")
                               << (closes ? "the peer closes" : "out-of-band data")) {
                test::fd_pair p = test::make_tcp_pair();
                moor::registration reg(io, p.a.get(), t);
                test::called done;
                reg.async_wait(interest::priority | interest::read_closed, done.handler());
                check_pends(io, done);
                for (int i = 0; i != 3; ++i) {
                    test::put(p.b, "x");
                    test::run_ready(io); // does not end if this is reported again and again
                    BOOST_TEST(done.times == 0);
                }
                if (closes)
                    ::shutdown(p.b, SHUT_WR);
                else
                    BOOST_REQUIRE_EQUAL(::send(p.b, "!", 1, MSG_OOB), 1);
                check_completes(io, done);
            }
        }
}

// ---- from libuv ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_udp_socket_with_a_pending_error_does_not_spin, test::context_fixture) {
    std::vector<std::pair<trigger, interest>> combinations;
    for (trigger t : both_triggers)
        for (interest other : {interest(), interest::priority, interest::write_closed})
            combinations.emplace_back(t, other);
    for (auto [t, other] : combinations) {
        test::fd_pair p = test::make_udp_pair();
        test::unique_fd& fd = p.a;
        p.b.close(); // nobody listens there now
        moor::registration reg(io, fd.get(), t);
        test::pending_reader pending(io, reg);
        called_event beside; // whose waker is in the reactor meanwhile, or not
        if (!other.empty())
            reg.async_wait(other, beside.handler());
        BOOST_REQUIRE_EQUAL(::send(fd, "x", 1, 0), 1);
        check_completes(io, pending); // ECONNREFUSED: and nobody receives it
        test::check_is_quiet(io);
        BOOST_TEST(!beside);
        reg.cancel();
        test::run_ready(io);
    }
}

BOOST_AUTO_TEST_SUITE_END()
