// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// poll(2) as an operation: what it fills in, when it completes, how it ends, and what it costs.
// poll(2) itself is the oracle.

// The checks of MOOR_CHECK_USE make calls of their own.
#undef MOOR_CHECK_USE

#include "support/changer.hpp"
#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/dice.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/append.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/consign.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prepend.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif
#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <ratio>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

// In a namespace of its own: the suite is a namespace, too, and its name is the function's.
namespace poll_tests {

BOOST_AUTO_TEST_SUITE(poll)

namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using boost::unit_test::precondition;
using test::aborted;
using test::error_code;

constexpr std::chrono::seconds for_ever(-1);
constexpr std::chrono::seconds no_time(0);
constexpr short untouched = 0x5a5a;

::pollfd entry(int fd, short events = POLLIN) { return {fd, events, untouched}; }

/// A completion that must come once.
struct called_poll : test::called {
    std::size_t ready = 12345;

    auto handler() {
        return [this](error_code e, std::size_t n) {
            ++times;
            ec = e;
            ready = n;
        };
    }
};

void check_pends(asio::io_context& io, const called_poll& c) {
    test::run_ready(io);
    BOOST_TEST(c.times == 0);
}

void check_ends(asio::io_context& io, const called_poll& c, const error_code& expected) {
    test::run_until(io, [&] { return bool(c); });
    BOOST_TEST(c.times == 1);
    BOOST_CHECK_EQUAL(c.ec, expected);
}

void check_ready(asio::io_context& io, const called_poll& c, std::size_t ready) {
    check_ends(io, c, error_code());
    BOOST_TEST(c.ready == ready);
}

/// The two ways to wait, for tests of what they have in common.
struct once {
    asio::io_context& io;
    explicit once(asio::io_context& c) : io(c) {}
    template <class Duration, class Token>
    auto start(::pollfd* fds, std::size_t n, Duration d, Token&& token) {
        return moor::async_poll(io, fds, n, d, std::forward<Token>(token));
    }
};
struct in_a_set {
    moor::poll_set set;
    explicit in_a_set(asio::io_context& c) : set(c) {}
    template <class Duration, class Token>
    auto start(::pollfd* fds, std::size_t n, Duration d, Token&& token) {
        return set.async_wait(fds, n, d, std::forward<Token>(token));
    }
};

template <class F>
void on_both(asio::io_context& io, F f) {
    BOOST_TEST_CONTEXT("async_poll") {
        once o(io);
        f(o);
    }
    BOOST_TEST_CONTEXT("poll_set") {
        in_a_set s(io);
        f(s);
    }
}

/// What poll(2) says of a list, in a copy.
std::vector<::pollfd> polled(std::vector<::pollfd> list) {
    BOOST_REQUIRE_GE(::poll(list.data(), list.size(), 0), 0);
    return list;
}

std::size_t registered(asio::io_context& io) {
    return moor::use_registration_service(io).snapshot().size();
}

// ---- what is ready at once ----------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(what_is_ready_completes_at_once_and_fills_the_whole_list,
                        test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::fd_pair p = test::make_pipe(), q = test::make_pipe();
        test::put(p.b, "x");
        ::pollfd fds[] = {entry(p.a), entry(q.a), entry(q.b, POLLOUT | POLLIN)};
        called_poll done;
        way.start(fds, 3, for_ever, done.handler());
        BOOST_TEST(done.times == 0);
        check_ready(io, done, 2);
        BOOST_TEST(fds[0].revents == POLLIN);
        BOOST_TEST(fds[1].revents == 0);
        BOOST_TEST(fds[2].revents == POLLOUT);
    });
}

BOOST_FIXTURE_TEST_CASE(a_closed_number_is_pollnval_and_a_negative_one_is_ignored,
                        test::context_fixture) {
    on_both(io, [&](auto& way) {
        ::pollfd fds[] = {entry(test::closed_number()), entry(-1), entry(-7)};
        called_poll done;
        way.start(fds, 3, for_ever, done.handler());
        check_ready(io, done, 1);
        BOOST_TEST(fds[0].revents == POLLNVAL);
        BOOST_TEST(fds[1].revents == 0);
        BOOST_TEST(fds[2].revents == 0);
    });
}

BOOST_FIXTURE_TEST_CASE(a_regular_file_is_ready, test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::unique_fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
        ::pollfd fds[] = {entry(file)};
        called_poll done;
        way.start(fds, 1, for_ever, done.handler());
        check_ready(io, done, 1);
        BOOST_TEST(fds[0].revents == POLLIN);
    });
}

BOOST_FIXTURE_TEST_CASE(a_regular_file_that_is_asked_for_nothing_waits_without_a_turn_of_the_loop,
                        test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::unique_fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
        for (short events : {short(0), short(POLLPRI), short(POLLRDBAND), short(POLLWRBAND)}) {
            ::pollfd fds[] = {entry(file, events)};
            asio::cancellation_signal signal;
            called_poll pending, over;
            way.start(fds, 1, for_ever,
                      asio::bind_cancellation_slot(signal.slot(), pending.handler()));
            check_pends(io, pending);
            signal.emit(asio::cancellation_type::terminal);
            check_ends(io, pending, aborted);
            way.start(fds, 1, 1ms, over.handler());
            check_ready(io, over, 0);
        }
    });
}

BOOST_FIXTURE_TEST_CASE(ready_at_once_costs_one_poll_and_nothing_else, test::context_fixture) {
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    test::put(p.b, "x");
    moor::registration makes_the_service(io);
    on_both(io, [&](auto& way) {
        for (int i = 0; i != 3; ++i) {
            ::pollfd fds[] = {entry(q.a), entry(p.a)};
            called_poll done;
            test::call_counts before = test::counts();
            way.start(fds, 2, 5s, done.handler());
            test::call_counts c = test::counts() - before;
            BOOST_TEST(c.poll == 1);
            BOOST_TEST(c.epoll_ctl == 0);
            BOOST_TEST(c.fstat == 0);
            check_ready(io, done, 1);
        }
    });
    BOOST_TEST(registered(io) == 0);
}

// ---- the timeout --------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_timeout_of_zero_does_not_wait, test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::fd_pair p = test::make_pipe();
        ::pollfd fds[] = {entry(p.a)};
        called_poll done;
        way.start(fds, 1, no_time, done.handler());
        BOOST_TEST(registered(io) == 0);
        BOOST_TEST(test::run_all(io) == 1);
        check_ready(io, done, 0);
        BOOST_TEST(fds[0].revents == 0);
    });
}

BOOST_FIXTURE_TEST_CASE(when_the_time_is_over_nothing_is_ready_and_there_is_no_error,
                        test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::fd_pair p = test::make_pipe();
        ::pollfd fds[] = {entry(p.a)};
        called_poll done;
        const auto begin = std::chrono::steady_clock::now();
        way.start(fds, 1, 5ms, done.handler());
        check_pends(io, done);
        BOOST_TEST(fds[0].revents == untouched);
        check_ready(io, done, 0);
        BOOST_TEST(fds[0].revents == 0);
        BOOST_TEST((std::chrono::steady_clock::now() - begin >= 5ms));
    });
}

BOOST_FIXTURE_TEST_CASE(an_empty_list_is_a_timeout, test::context_fixture) {
    on_both(io, [&](auto& way) {
        called_poll done, at_once;
        const auto begin = std::chrono::steady_clock::now();
        way.start(nullptr, 0, no_time, at_once.handler());
        check_ready(io, at_once, 0);
        way.start(nullptr, 0, 5ms, done.handler());
        check_ready(io, done, 0);
        BOOST_TEST((std::chrono::steady_clock::now() - begin >= 5ms));
    });
}

BOOST_FIXTURE_TEST_CASE(an_empty_list_without_an_end_keeps_the_loop_running,
                        test::context_fixture) {
    in_a_set way(io);
    called_poll done;
    way.start(nullptr, 0, for_ever, done.handler());
    check_pends(io, done);
    io.restart();
    io.poll();
    BOOST_TEST(!io.stopped());
    way.set.cancel();
    check_ends(io, done, aborted);
}

BOOST_FIXTURE_TEST_CASE(any_duration_is_a_timeout, test::context_fixture) {
    using picoseconds = std::chrono::duration<long long, std::pico>;
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    on_both(io, [&](auto& way) {
        auto check_over = [&](auto timeout) {
            called_poll done;
            way.start(fds, 1, timeout, done.handler());
            check_ready(io, done, 0);
        };
        check_over(picoseconds(1)); // rounded up
        check_over(std::chrono::duration<double>(0.001));
        check_over(std::chrono::duration<unsigned, std::milli>(1));
        check_over(std::chrono::duration<double>(0));
        auto check_endless = [&](auto timeout) {
            called_poll done;
            asio::cancellation_signal signal;
            way.start(fds, 1, timeout, asio::bind_cancellation_slot(signal.slot(), done.handler()));
            check_pends(io, done);
            signal.emit(asio::cancellation_type::total);
            check_ends(io, done, aborted);
        };
        check_endless(std::chrono::hours::max());
        check_endless(std::chrono::milliseconds::max());
        check_endless(std::chrono::nanoseconds::max());
        check_endless(std::chrono::nanoseconds::min());
        check_endless(std::chrono::hours::min());
        check_endless(std::chrono::duration<double>(1e300));
        check_endless(std::chrono::duration<double>(std::numeric_limits<double>::infinity()));
        check_endless(std::chrono::hours(24 * 365 * 100));
    });
}

BOOST_FIXTURE_TEST_CASE(a_number_that_is_closed_meanwhile_is_reported_when_the_time_is_over,
                        test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::fd_pair p = test::make_pipe();
        ::pollfd fds[] = {entry(p.a)};
        called_poll done;
        way.start(fds, 1, 5ms, done.handler());
        p.a.close();
        check_ready(io, done, 1);
        BOOST_TEST(fds[0].revents == POLLNVAL);
    });
}

// ---- waiting ------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_event_completes_a_pending_operation, test::context_fixture) {
    on_both(io, [&](auto& way) {
        for (int i = 0; i != 3; ++i) {
            test::fd_pair p = test::make_pipe(), q = test::make_socketpair();
            ::pollfd fds[] = {entry(p.a), entry(q.a), entry(p.a, POLLOUT)};
            called_poll done;
            way.start(fds, 3, for_ever, done.handler());
            check_pends(io, done);
            test::put(q.b, "x");
            check_ready(io, done, 1);
            BOOST_TEST(fds[0].revents == 0);
            BOOST_TEST(fds[1].revents == POLLIN);
            BOOST_TEST(fds[2].revents == 0);
        }
    });
}

BOOST_FIXTURE_TEST_CASE(each_event_that_poll_reports_completes_an_operation,
                        test::context_fixture) {
    struct step {
        const char* name;
        short events;
        test::fd_pair (*make)();
        void (*prepare)(test::fd_pair&);
        void (*change)(test::fd_pair&);
        short expected;
    };
    auto nothing = [](test::fd_pair&) {};
    auto fill = [](test::fd_pair& p) { test::fill(p.a); };
    auto drain = [](test::fd_pair& p) { test::drain(p.b); };
    auto put = [](test::fd_pair& p) { test::put(p.b, "x"); };
    auto urgent = [](test::fd_pair& p) { (void)!::send(p.b, "u", 1, MSG_OOB); };
    auto close = [](test::fd_pair& p) { p.b.close(); };
    auto shut = [](test::fd_pair& p) { ::shutdown(p.b, SHUT_WR); };
    auto sockets = [] { return test::make_socketpair(); };
    auto writing = [] { return test::swapped(test::make_pipe()); };
    const step steps[] = {
        {"data", POLLIN, sockets, nothing, put, POLLIN},
        {"data, as POLLRDNORM", POLLRDNORM, sockets, nothing, put, POLLRDNORM},
        {"room", POLLOUT, sockets, fill, drain, POLLOUT},
        {"room, as POLLWRNORM", POLLWRNORM, sockets, fill, drain, POLLWRNORM},
        {"room, as POLLWRBAND", POLLWRBAND, sockets, fill, drain, POLLWRBAND},
        {"urgent data", POLLPRI, [] { return test::make_tcp_pair(); }, nothing, urgent, POLLPRI},
        {"half-closed", POLLRDHUP, sockets, nothing, shut, POLLRDHUP},
        {"hang-up, for reading", POLLIN, test::make_pipe, nothing, close, POLLHUP},
        {"hang-up, for nothing", 0, test::make_pipe, nothing, close, POLLHUP},
        {"hang-up, for priority", POLLPRI, test::make_pipe, nothing, close, POLLHUP},
        {"error, for writing", POLLOUT, writing, fill, close, POLLERR},
        {"error, for nothing", 0, writing, nothing, close, POLLERR},
        {"error, for priority", POLLPRI, writing, nothing, close, POLLERR},
        {"error, for half-closed", POLLRDHUP, writing, nothing, close, POLLERR},
    };
    on_both(io, [&](auto& way) {
        for (const step& s : steps)
            BOOST_TEST_CONTEXT(s.name) {
                test::fd_pair p = s.make();
                s.prepare(p);
                ::pollfd fds[] = {entry(p.a, s.events)};
                called_poll done;
                way.start(fds, 1, for_ever, done.handler());
                check_pends(io, done);
                s.change(p);
                check_ready(io, done, 1);
                BOOST_TEST((fds[0].revents & s.expected) == s.expected);
                BOOST_TEST(fds[0].revents == polled({fds[0]})[0].revents);
            }
    });
}

BOOST_FIXTURE_TEST_CASE(data_that_somebody_else_takes_completes_nothing, test::context_fixture) {
    on_both(io, [&](auto& way) {
        test::fd_pair p = test::make_pipe();
        ::pollfd fds[] = {entry(p.a)};
        called_poll done;
        way.start(fds, 1, for_ever, done.handler());
        for (int i = 0; i != 20; ++i) {
            test::put(p.b, "x");
            test::drain(p.a);
            check_pends(io, done);
        }
        test::put(p.b, "x");
        check_ready(io, done, 1);
    });
}

BOOST_FIXTURE_TEST_CASE(an_event_that_means_less_than_was_asked_for_does_not_turn_the_loop,
                        test::context_fixture) {
    // An eventfd that can be read says POLLIN, and not POLLRDNORM.
    test::unique_fd event(::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC));
    ::pollfd fds[] = {entry(event, POLLRDNORM)};
    called_poll done;
    in_a_set way(io);
    way.start(fds, 1, for_ever, done.handler());
    test::tally t;
    t.run_ready(io); // fails if the loop turns for ever
    t.check(done.times == 0, "it completes");
    BOOST_TEST(done.times == 0);
    way.set.cancel();
    check_ends(io, done, aborted);
}

BOOST_FIXTURE_TEST_CASE(unread_data_is_reported_by_each_wait_of_a_set, test::context_fixture) {
    moor::poll_set set(io);
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    for (int i = 0; i != 5; ++i) {
        called_poll done;
        set.async_wait(fds, 1, for_ever, done.handler());
        if (i == 0) {
            check_pends(io, done);
            test::put(p.b, "x");
        }
        check_ready(io, done, 1);
    }
}

BOOST_FIXTURE_TEST_CASE(what_was_taken_since_an_event_is_not_reported, test::context_fixture) {
    // An epoll set is one of the files that might tell a change once.
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    test::unique_fd inner(::epoll_create1(EPOLL_CLOEXEC));
    ::epoll_event event = {EPOLLIN, {}};
    BOOST_REQUIRE_EQUAL(::epoll_ctl(inner, EPOLL_CTL_ADD, p.a, &event), 0);
    in_a_set way(io);
    ::pollfd fds[] = {entry(q.a), entry(inner)};
    called_poll second;
    int first = 0;
    way.start(fds, 2, for_ever, [&](error_code, std::size_t) {
        ++first;
        test::drain(p.a);
        test::drain(q.a);
        way.start(fds, 2, for_ever, second.handler());
    });
    test::run_ready(io);
    test::put(q.b, "x");
    test::put(p.b, "x");
    test::run_until(io, [&] { return first != 0; });
    check_pends(io, second);
    way.set.cancel();
    check_ends(io, second, aborted);
}

BOOST_FIXTURE_TEST_CASE(a_change_of_a_file_is_not_reported_of_its_number, test::context_fixture) {
    test::changer changer;
    if (!changer.exists()) {
        BOOST_TEST_MESSAGE("not run: this user may not change mounts");
        return;
    }
    in_a_set way(io);
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    test::unique_fd mounts(::open(changer.file("mountinfo").c_str(), O_RDONLY | O_CLOEXEC));
    ::pollfd fds[] = {entry(q.a), entry(mounts, POLLPRI)};
    int first = 0;
    for (int tries = 0; tries != 5 && first == tries; ++tries) { // the first ones may be told
        way.start(fds, 2, for_ever, [&](error_code, std::size_t) { ++first; });
        test::run_ready(io);
    }
    const int before = first;
    test::put(q.b, "x");
    BOOST_REQUIRE(changer.change_mounts());
    test::run_until(io, [&] { return first != before; });
    test::run_ready(io);
    test::drain(q.a);
    BOOST_REQUIRE_EQUAL(::dup3(p.a, mounts, O_CLOEXEC), int(mounts));
    fds[1].events = POLLIN;
    called_poll second;
    way.start(fds, 2, for_ever, second.handler());
    check_pends(io, second);
    way.set.cancel();
    check_ends(io, second, aborted);
}

BOOST_FIXTURE_TEST_CASE(a_change_that_is_told_once_is_reported, test::context_fixture) {
    test::changer changer;
    if (!changer.exists()) {
        BOOST_TEST_MESSAGE("not run: this user may not change mounts");
        return;
    }
    // (When such a file is registered, Moor may report a change that is none.)
    BOOST_TEST_CONTEXT("poll_set") {
        in_a_set way(io);
        test::unique_fd mounts(::open(changer.file("mountinfo").c_str(), O_RDONLY | O_CLOEXEC));
        test::fd_pair p = test::make_pipe();
        ::pollfd fds[] = {entry(p.a), entry(mounts, POLLPRI)};
        for (int i = 0; i != 5; ++i) {
            std::optional<called_poll> done;
            for (int tries = 0; tries != 5 && (!done || *done); ++tries) {
                done.emplace();
                way.start(fds, 2, for_ever, done->handler());
                test::run_ready(io);
            }
            BOOST_TEST(done->times == 0);
            BOOST_REQUIRE(changer.change_mounts());
            check_ready(io, *done, 1);
            BOOST_TEST((fds[1].revents & POLLPRI) != 0);
        }
    }
}

// ---- how an operation ends ----------------------------------------------------------------------

constexpr asio::cancellation_type cancellations[] = {asio::cancellation_type::terminal,
                                                     asio::cancellation_type::partial,
                                                     asio::cancellation_type::total};

BOOST_FIXTURE_TEST_CASE(a_cancelled_operation_leaves_revents_alone, test::context_fixture) {
    on_both(io, [&](auto& way) {
        for (asio::cancellation_type type : cancellations) {
            test::fd_pair p = test::make_pipe();
            ::pollfd fds[] = {entry(p.a), entry(p.b, 0), entry(-1)};
            called_poll done;
            asio::cancellation_signal signal;
            way.start(fds, 3, 10s, asio::bind_cancellation_slot(signal.slot(), done.handler()));
            check_pends(io, done);
            test::put(p.b, "x"); // too late
            signal.emit(type);
            BOOST_TEST(done.times == 0);
            check_ends(io, done, aborted);
            BOOST_TEST(done.ready == 0);
            for (const ::pollfd& f : fds)
                BOOST_TEST(f.revents == untouched);
            signal.emit(type); // of an operation that is over
        }
    });
}

BOOST_FIXTURE_TEST_CASE(an_old_cancellation_does_not_end_the_next_wait, test::context_fixture) {
    in_a_set way(io);
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    asio::cancellation_signal signal;
    called_poll first, second;
    way.start(fds, 1, no_time, asio::bind_cancellation_slot(signal.slot(), first.handler()));
    check_ready(io, first, 0);
    first = called_poll();
    way.start(fds, 1, 1ms, asio::bind_cancellation_slot(signal.slot(), first.handler()));
    check_ready(io, first, 0);
    way.start(fds, 1, for_ever, second.handler());
    signal.emit(asio::cancellation_type::terminal);
    check_pends(io, second);
    test::put(p.b, "x");
    check_ready(io, second, 1);
}

BOOST_FIXTURE_TEST_CASE(cancelling_a_set_ends_its_wait_and_keeps_the_registrations,
                        test::context_fixture) {
    in_a_set way(io);
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    way.set.cancel(); // nothing
    for (int i = 0; i != 3; ++i) {
        called_poll done;
        way.start(fds, 1, for_ever, done.handler());
        check_pends(io, done);
        way.set.cancel();
        check_ends(io, done, aborted);
        BOOST_TEST(fds[0].revents == untouched);
        BOOST_TEST(registered(io) == 1);
        way.set.cancel();
    }
    called_poll done;
    way.start(fds, 1, for_ever, done.handler());
    test::put(p.b, "x");
    check_ready(io, done, 1);
}

BOOST_FIXTURE_TEST_CASE(destroying_a_set_aborts_its_wait, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    called_poll done;
    {
        moor::poll_set set(io);
        set.async_wait(fds, 1, 10s, done.handler());
        check_pends(io, done);
    }
    BOOST_TEST(registered(io) == 0);
    BOOST_TEST(done.times == 0);
    check_ends(io, done, aborted);
    BOOST_TEST(fds[0].revents == untouched);
}

BOOST_FIXTURE_TEST_CASE(a_second_wait_on_a_set_fails_while_one_is_pending, test::context_fixture) {
    moor::poll_set set(io);
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)}, others[] = {entry(p.b, POLLOUT)};
    called_poll done, second, third;
    set.async_wait(fds, 1, for_ever, done.handler());
    set.async_wait(others, 1, no_time, second.handler());
    check_ends(io, second, asio::error::already_started);
    BOOST_TEST(others[0].revents == untouched);
    check_pends(io, done);
    test::put(p.b, "x");
    check_ready(io, done, 1);
    set.async_wait(others, 1, no_time, third.handler());
    check_ready(io, third, 1);
}

BOOST_FIXTURE_TEST_CASE(a_wait_goes_on_when_its_set_is_moved, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    called_poll done, cancelled, of_other, again;
    asio::cancellation_signal signal;
    moor::basic_poll_set<asio::io_context::executor_type> first(io);
    first.async_wait(fds, 1, 10s, done.handler());
    moor::poll_set second(std::move(first)); // on another executor
    moor::poll_set third(std::move(second));
    check_pends(io, done);
    test::put(p.b, "x");
    check_ready(io, done, 1);
    BOOST_TEST(test::drain(p.a) == 1u);
    third.async_wait(fds, 1, 10s, asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    moor::poll_set fourth(io);
    ::pollfd more[] = {entry(p.a)};
    fourth.async_wait(more, 1, 10s, of_other.handler());
    check_pends(io, of_other);
    fourth = std::move(third);
    check_ends(io, of_other, aborted);
    check_pends(io, cancelled);
    signal.emit(asio::cancellation_type::total);
    check_ends(io, cancelled, aborted);
    second.async_wait(fds, 1, no_time, again.handler()); // a set that was moved from is empty
    check_ready(io, again, 0);
    second = moor::basic_poll_set<asio::io_context::executor_type>(io);
    BOOST_CHECK(second.get_executor() == asio::any_io_executor(io.get_executor()));
    static_assert(
        std::is_same<moor::poll_set::rebind_executor<asio::io_context::executor_type>::other,
                     moor::basic_poll_set<asio::io_context::executor_type>>::value,
        "");
}

BOOST_FIXTURE_TEST_CASE(a_list_that_is_too_long_is_refused, test::context_fixture) {
    ::rlimit limit{};
    BOOST_REQUIRE_EQUAL(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    on_both(io, [&](auto& way) {
        for (std::size_t n : {static_cast<std::size_t>(limit.rlim_cur) + 1,
                              (std::numeric_limits<std::size_t>::max)()}) {
            ::pollfd fds[] = {entry(-1)};
            called_poll done;
            way.start(fds, n, for_ever, done.handler());
            check_ends(io, done, asio::error::invalid_argument);
            BOOST_TEST(fds[0].revents == untouched);
        }
    });
}

BOOST_FIXTURE_TEST_CASE(a_service_that_is_closed_ends_operations, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)}, more[] = {entry(p.a)};
    called_poll done, once_done, later, later_once;
    in_a_set way(io);
    way.start(fds, 1, for_ever, done.handler());
    moor::async_poll(io, more, 1, 10s, once_done.handler());
    check_pends(io, done);
    moor::use_registration_service(io).close();
    check_ends(io, done, test::gone);
    check_ends(io, once_done, test::gone);
    BOOST_TEST(fds[0].revents == untouched);
    way.start(fds, 1, no_time, later.handler());
    check_ends(io, later, test::gone);
    moor::async_poll(io, fds, 1, no_time, later_once.handler());
    check_ends(io, later_once, test::gone);
}

BOOST_AUTO_TEST_CASE(a_service_that_is_closed_ends_operations_that_wait_for_the_time_alone) {
    test::unique_fd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    const std::vector<::pollfd> lists[] = {{}, {entry(-1), entry(-7)}, {entry(file, 0)}};
    for (const std::vector<::pollfd>& list : lists) {
        test::context_fixture of_once, of_set;
        in_a_set way(of_set.io);
        std::vector<::pollfd> fds = list, more = list;
        called_poll done, once_done;
        way.start(fds.data(), fds.size(), for_ever, done.handler());
        moor::async_poll(of_once.io, more.data(), more.size(), 10s, once_done.handler());
        for (asio::io_context* io : {&of_set.io, &of_once.io}) {
            test::run_ready(*io);
            moor::use_registration_service(*io).close();
            moor::use_registration_service(*io).close();
        }
        BOOST_TEST(done.times == 0);
        way.set.cancel(); // of a wait that is over
        check_ends(of_set.io, done, test::gone);
        check_ends(of_once.io, once_done, test::gone);
        for (const ::pollfd& f : fds)
            BOOST_TEST(f.revents == untouched);
    }
}

/// A handler whose operation has begun, and does not wait yet, when its slot is connected.
struct interfering_handler {
    struct slot {
        const std::function<void()>* interfere;
        bool is_connected() const noexcept { return true; }
        template <class Canceller, class... Args>
        void emplace(Args&&...) {
            (*interfere)();
        }
    };
    using cancellation_slot_type = slot;

    const std::function<void()>* interfere;
    called_poll* done;

    slot get_cancellation_slot() const noexcept { return {interfere}; }
    void operator()(error_code ec, std::size_t n) const { done->handler()(ec, n); }
};

BOOST_AUTO_TEST_CASE(an_operation_that_is_ended_while_it_begins_completes) {
    test::fd_pair p = test::make_pipe();
    for (std::size_t n : {std::size_t(0), std::size_t(1)}) {
        test::context_fixture f;
        in_a_set way(f.io);
        ::pollfd fds[] = {entry(p.a)};
        std::function<void()> interfere = [&] { way.set.cancel(); };
        called_poll cancelled, closed;
        way.start(fds, n, 10s, interfering_handler{&interfere, &cancelled});
        check_ends(f.io, cancelled, aborted);
        interfere = [&] { moor::use_registration_service(f.io).close(); };
        way.start(fds, n, 10s, interfering_handler{&interfere, &closed});
        BOOST_TEST(closed.times == 0);
        check_ends(f.io, closed, test::gone);
        BOOST_TEST(fds[0].revents == untouched);
    }
}

BOOST_FIXTURE_TEST_CASE(an_operation_that_can_not_begin_leaves_no_work, test::context_fixture) {
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    in_a_set way(io);
    ::pollfd fds[] = {entry(p.a), entry(q.a)};
    called_poll first, second;
    way.start(fds, 2, for_ever, first.handler());
    check_pends(io, first);
    test::put(q.b, "x");
    BOOST_TEST(test::wait_for([&] { return io.run_one() != 0 && first; }));
    test::drain(q.a);
    // The waits of the first operation are about to be ended.
    std::function<void()> interfere = [&] {
        test::run_ready(io);
        throw std::bad_alloc();
    };
    BOOST_CHECK_THROW(way.start(fds, 2, for_ever, interfering_handler{&interfere, &second}),
                      std::bad_alloc);
    test::run_all(io);
    BOOST_TEST(second.times == 0);
}

BOOST_AUTO_TEST_CASE(a_service_may_be_closed_while_other_threads_begin_operations) {
    test::fd_pair p = test::make_pipe();
    for (int round = 0; round != 20; ++round) {
        asio::thread_pool pool(2);
        // (Of two threads that are the first to use timers, each makes Asio's service of timers,
        // and one is destroyed under the lock of the services: an order of locks that
        // ThreadSanitizer reports.)
        asio::steady_timer first(pool);
        std::vector<::pollfd> fds(8, entry(p.a));
        std::atomic<int> begun{0}, gone{0};
        for (std::size_t i = 0; i != fds.size(); ++i)
            asio::post(pool, [&, i] {
                ++begun;
                moor::async_poll(pool, &fds[i], i % 2, 20s,
                                 [&](error_code ec, std::size_t) { gone += ec == test::gone; });
            });
        test::wait_for([&] { return begun > round % 8; });
        moor::use_registration_service(pool).close();
        pool.join();
        BOOST_TEST(gone.load() == 8);
    }
}

BOOST_FIXTURE_TEST_CASE(a_service_that_is_closed_between_two_waits_ends_the_set_well,
                        test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    called_poll done;
    in_a_set way(io);
    way.start(fds, 1, for_ever, done.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); }); // its other waits are still pending
    moor::use_registration_service(io).close();
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE(handlers_are_destroyed_with_their_context) {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)}, more[] = {entry(p.a)}, others[] = {entry(p.a)};
    test::once in_set(test::expect::destroyed), alone(test::expect::destroyed),
        empty(test::expect::destroyed), ready(test::expect::destroyed),
        owned(test::expect::destroyed);
    const long before = test::open_descriptors();
    {
        auto io = std::make_unique<asio::io_context>();
        moor::poll_set set(*io), with_ready(*io);
        set.async_wait(fds, 1, 10s, in_set.handler());
        moor::async_poll(*io, more, 1, 10s, alone.handler()); // on a duplicate
        moor::async_poll(*io, nullptr, 0, 10s, empty.handler());
        auto last = std::make_shared<moor::poll_set>(*io);
        last->async_wait(
            others, 1, for_ever,
            [last, h = owned.handler()](error_code ec, std::size_t) mutable { h(ec); });
        last.reset();
        test::run_ready(*io);
        with_ready.async_wait(nullptr, 0, no_time, ready.handler()); // queued
        called_poll late;
        io.reset();
        set.async_wait(fds, 1, 10s, late.handler());
        BOOST_TEST(late.times == 1);
        BOOST_CHECK_EQUAL(late.ec, test::gone);
        set.cancel();
        set.forget(p.a);
        moor::poll_set moved(std::move(set));
    }
    BOOST_TEST(test::open_descriptors() == before);
    BOOST_TEST(fds[0].revents == untouched);
    BOOST_TEST(more[0].revents == untouched);
}

BOOST_AUTO_TEST_CASE(an_operation_that_begins_while_its_context_is_destroyed_is_destroyed) {
    ::pollfd fds[] = {entry(-1)};
    test::once first(test::expect::destroyed), once_more(test::expect::destroyed),
        set_once_more(test::expect::destroyed);
    auto io = std::make_unique<asio::io_context>();
    moor::poll_set set(*io);
    std::shared_ptr<void> begins(nullptr, [&, context = io.get()](void*) {
        moor::async_poll(*context, fds, 1, 10s, once_more.handler());
        set.async_wait(fds, 1, 10s, set_once_more.handler());
    });
    moor::async_poll(*io, fds, 1, 10s,
                     [begins, h = first.handler()](error_code ec, std::size_t) mutable { h(ec); });
    begins.reset();
    test::run_ready(*io);
    io.reset();
}

template <class Set, class Make>
void check_outlives(Make make) {
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)}, more[] = {entry(q.a)};
    auto pool = std::make_unique<asio::thread_pool>(1);
    Set set(make(*pool)), pending(make(*pool)), unused(make(*pool));
    std::promise<error_code> promise;
    auto over = promise.get_future();
    set.async_wait(fds, 1, 10ms, [&](error_code ec, std::size_t) { promise.set_value(ec); });
    BOOST_TEST(!over.get());
    test::once handler(test::expect::destroyed);
    pending.async_wait(more, 1, 10s, handler.handler());
    pool->stop();
    pool.reset();
    BOOST_TEST(handler.destroyed());
    for (Set* s : {&set, &pending, &unused}) {
        error_code ec;
        s->async_wait(fds, 1, 10s, [&](error_code e, std::size_t) { ec = e; });
        BOOST_CHECK_EQUAL(ec, test::gone);
        Set moved(std::move(*s));
        moved.cancel();
    }
}

BOOST_AUTO_TEST_CASE(sets_outlive_their_context_on_any_executor) {
    using strand = asio::strand<asio::thread_pool::executor_type>;
    check_outlives<moor::poll_set>([](asio::thread_pool& p) { return p.get_executor(); });
    check_outlives<moor::poll_set>(
        [](asio::thread_pool& p) { return asio::make_strand(p.get_executor()); });
    check_outlives<moor::basic_poll_set<strand>>(
        [](asio::thread_pool& p) { return asio::make_strand(p.get_executor()); });
}

// ---- a set keeps its registrations --------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_unchanged_list_costs_one_fstat_a_number_and_no_epoll_ctl,
                        test::context_fixture) {
    constexpr int n = 20;
    std::vector<test::fd_pair> pipes;
    std::vector<::pollfd> fds;
    for (int i = 0; i != n; ++i) {
        pipes.push_back(test::make_pipe());
        fds.push_back(entry(pipes.back().a));
    }
    moor::poll_set set(io);
    int rounds = 0, target = 0;
    std::function<void(error_code, std::size_t)> handler = [&](error_code ec, std::size_t ready) {
        BOOST_REQUIRE(!ec);
        BOOST_TEST(ready == 1u);
        BOOST_TEST(test::drain(pipes[static_cast<std::size_t>(rounds % n)].a) == 1u);
        if (++rounds != target)
            set.async_wait(fds.data(), fds.size(), for_ever,
                           [&](error_code e, std::size_t r) { handler(e, r); });
    };
    auto run = [&](int more) {
        target = rounds + more;
        const test::call_counts before = test::counts();
        set.async_wait(fds.data(), fds.size(), for_ever,
                       [&](error_code e, std::size_t r) { handler(e, r); });
        while (rounds != target) {
            test::put(pipes[static_cast<std::size_t>(rounds % n)].b, "x");
            const int now = rounds;
            test::run_until(io, [&] { return rounds != now; });
        }
        return test::counts() - before;
    };
    run(2 * n);
    const test::call_counts c = run(100);
    BOOST_TEST(c.epoll_ctl == 0);
    BOOST_TEST(c.fstat == 100 * n);
    if (test::on_epoll())
        BOOST_TEST(c.poll == 200); // at the start, and after the event
#if !defined(MOOR_TEST_SANITIZED_NEW)
    BOOST_TEST(c.allocations == 0);
#endif
    BOOST_TEST(registered(io) == static_cast<std::size_t>(n));
    test::run_all(io); // the set does not keep the loop running
}

BOOST_FIXTURE_TEST_CASE(a_set_without_a_wait_does_not_keep_the_loop_running,
                        test::context_fixture) {
    moor::poll_set set(io);
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    ::pollfd fds[] = {entry(p.a), entry(q.a)};
    called_poll done;
    set.async_wait(fds, 2, for_ever, done.handler());
    asio::post(io, [&] { test::put(p.b, "x"); });
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(registered(io) == 2);
    // And it still works.
    BOOST_TEST(test::drain(p.a) == 1u);
    called_poll again;
    set.async_wait(fds, 2, for_ever, again.handler());
    asio::post(io, [&] { test::put(q.b, "x"); });
    test::run_all(io);
    BOOST_TEST(again.times == 1);
}

BOOST_FIXTURE_TEST_CASE(what_came_between_two_waits_and_was_drained_completes_nothing,
                        test::context_fixture) {
    moor::poll_set set(io);
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    ::pollfd fds[] = {entry(p.a), entry(q.a)};
    for (int i = 0; i != 12; ++i) {
        called_poll done;
        set.async_wait(fds, 2, for_ever, done.handler());
        check_pends(io, done);
        test::put(p.b, "x");
        check_ready(io, done, 1);
        test::drain(p.a);
        for (int k = 0; k != i; ++k) { // the reactor hears of these, and nobody waits
            test::put(q.b, "y");
            test::run_ready(io);
        }
        test::drain(q.a);
    }
}

BOOST_FIXTURE_TEST_CASE(a_list_may_change_from_wait_to_wait, test::context_fixture) {
    moor::poll_set set(io);
    test::fd_pair p = test::make_socketpair(), q = test::make_socketpair();
    test::fill(p.a);
    auto wait = [&](std::vector<::pollfd> fds, std::function<void()> change,
                    std::vector<short> expected, std::size_t kept) {
        called_poll done;
        set.async_wait(fds.data(), fds.size(), for_ever, done.handler());
        check_pends(io, done);
        BOOST_TEST(registered(io) == kept);
        change();
        check_ends(io, done, error_code());
        for (std::size_t i = 0; i != fds.size(); ++i)
            BOOST_TEST(fds[i].revents == expected[i]);
    };
    wait(
        {entry(p.a)}, [&] { test::put(p.b, "x"); }, {POLLIN}, 1);
    test::drain(p.a);
    wait(
        {entry(p.a), entry(q.a)}, [&] { test::put(q.b, "x"); }, {0, POLLIN}, 2);
    wait(
        {entry(p.a, POLLOUT)}, [&] { test::drain(p.b); }, {POLLOUT}, 1);
    test::fill(p.a);
    wait(
        {entry(p.a, POLLIN | POLLOUT)}, [&] { test::put(p.b, "x"); }, {POLLIN}, 1);
    wait(
        {entry(q.b), entry(p.a, POLLOUT)}, [&] { test::drain(p.b); }, {0, POLLOUT}, 2);
    test::fill(p.a);
    test::drain(p.a);
    test::drain(q.a);
    wait(
        {entry(p.a, 0), entry(q.a)}, [&] { test::put(q.b, "x"); }, {0, POLLIN}, 2);
    test::drain(q.a);
    wait(
        {entry(p.a), entry(q.a)}, [&] { ::shutdown(p.b, SHUT_WR); }, {POLLIN, 0}, 2);
    p.a.close();
    test::put(q.b, "x");
}

BOOST_FIXTURE_TEST_CASE(another_file_under_the_same_number_is_registered_anew,
                        test::context_fixture) {
    moor::poll_set set(io);
    test::fd_pair p = test::make_pipe(), q = test::make_pipe();
    for (int i = 0; i != 3; ++i) {
        ::pollfd fds[] = {entry(p.a), entry(q.a)};
        called_poll done;
        set.async_wait(fds, 2, for_ever, done.handler());
        check_pends(io, done);
        test::put(p.b, "x");
        check_ready(io, done, 1);
        if (i != 2)
            p = test::reuse_number(p.a, test::make_pipe());
    }
}

BOOST_FIXTURE_TEST_CASE(a_set_has_to_be_told_of_another_eventfd_under_the_same_number,
                        test::context_fixture) {
    moor::poll_set set(io);
    auto make = [] { return ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); };
    test::unique_fd event(make());
    const int number = event;
    auto replace = [&] {
        const int other = make();
        BOOST_REQUIRE_EQUAL(::dup3(other, number, O_CLOEXEC), number);
        ::close(other);
    };
    ::pollfd fds[] = {entry(number)};
    called_poll first, second;
    set.async_wait(fds, 1, for_ever, first.handler());
    check_pends(io, first);
    ::eventfd_write(number, 1);
    check_ready(io, first, 1);
    replace();
    set.forget(number);
    set.forget(-1);
    set.forget(number + 5000);
    BOOST_TEST(registered(io) == 0);
    set.async_wait(fds, 1, for_ever, second.handler());
    check_pends(io, second);
    BOOST_TEST(registered(io) == 1);
    replace(); // while a wait is pending
    set.forget(number);
    check_pends(io, second);
    ::eventfd_write(number, 1);
    check_ready(io, second, 1);
}

// ---- descriptors that are registered elsewhere --------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_descriptor_that_moor_has_already_is_served_through_a_duplicate,
                        test::context_fixture) {
    moor::registration makes_the_service(io);
    const long before = test::open_descriptors();
    {
        test::fd_pair p = test::make_socketpair();
        moor::registration reg(io, p.a.get());
        test::called readable;
        reg.async_wait_readable(readable.handler());
        const long open = test::open_descriptors();
        on_both(io, [&](auto& way) {
            ::pollfd fds[] = {entry(p.a), entry(p.a, POLLOUT)};
            for (int i = 0; i != 3; ++i) {
                test::fill(p.a);
                called_poll done;
                way.start(fds, 2, for_ever, done.handler());
                check_pends(io, done);
                BOOST_TEST(test::open_descriptors() >= open + 1);
                test::drain(p.b);
                check_ready(io, done, 1);
                BOOST_TEST(fds[1].revents == POLLOUT);
            }
        });
        BOOST_TEST(test::open_descriptors() == open);
        BOOST_TEST(readable.times == 0);
        test::put(p.b, "x");
        test::run_until(io, [&] { return bool(readable); }); // the first one still works
        BOOST_TEST(!readable.ec);
    }
    BOOST_TEST(test::open_descriptors() == before);
}

BOOST_FIXTURE_TEST_CASE(a_descriptor_of_asio_is_served_through_a_duplicate, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    asio::posix::stream_descriptor asios(io, p.a.release());
    const int number = asios.native_handle();
    test::called readable;
    asios.async_wait(asio::posix::stream_descriptor::wait_read, readable.handler());
    test::run_ready(io);
    const long open = test::open_descriptors();
    on_both(io, [&](auto& way) {
        ::pollfd fds[] = {entry(number, POLLRDHUP)};
        called_poll done;
        asio::cancellation_signal signal;
        way.start(fds, 1, for_ever, asio::bind_cancellation_slot(signal.slot(), done.handler()));
        check_pends(io, done);
        BOOST_TEST(test::open_descriptors() >= open + (test::on_epoll() ? 1 : 0));
        signal.emit(asio::cancellation_type::terminal);
        check_ends(io, done, aborted);
    });
    called_poll done;
    {
        in_a_set way(io);
        ::pollfd fds[] = {entry(number, POLLRDHUP)};
        way.start(fds, 1, for_ever, done.handler());
        ::shutdown(p.b, SHUT_WR);
        check_ready(io, done, 1);
    }
    test::run_ready(io);
    BOOST_TEST(test::open_descriptors() == open);
    BOOST_TEST(readable.times == 1); // the end of the file
}

BOOST_FIXTURE_TEST_CASE(two_sets_and_an_operation_may_have_the_same_descriptor,
                        test::context_fixture) {
    moor::poll_set a(io), b(io);
    test::fd_pair p = test::make_pipe();
    const long open = test::open_descriptors();
    ::pollfd fds[] = {entry(p.a)}, more[] = {entry(p.a)}, others[] = {entry(p.a)};
    called_poll first, second, third;
    a.async_wait(fds, 1, for_ever, first.handler());
    b.async_wait(more, 1, for_ever, second.handler());
    moor::async_poll(io, others, 1, for_ever, third.handler());
    check_pends(io, first);
    test::put(p.b, "x");
    check_ready(io, first, 1);
    check_ready(io, second, 1);
    check_ready(io, third, 1);
    a = moor::poll_set(io);
    b = moor::poll_set(io);
    BOOST_TEST(test::open_descriptors() <= open + 1); // perhaps of the reactor
}

BOOST_FIXTURE_TEST_CASE(a_set_without_an_operation_keeps_no_file_open, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    asio::posix::stream_descriptor theirs(io, p.a.release());
    const int number = theirs.native_handle();
    test::called wait;
    theirs.async_wait(asio::posix::stream_descriptor::wait_error,
                      wait.handler()); // is in the reactor
    test::run_ready(io);
    in_a_set way(io);
    ::pollfd fds[] = {entry(number)};
    called_poll done;
    way.start(fds, 1, for_ever, done.handler());
    check_pends(io, done);
    test::put(p.b, "x");
    check_ready(io, done, 1);
    theirs.close();
    test::run_ready(io);
    BOOST_TEST((polled({entry(p.b)})[0].revents & POLLHUP) != 0);
}

BOOST_FIXTURE_TEST_CASE(without_room_for_a_duplicate_the_operation_fails, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    ::rlimit limit{};
    BOOST_REQUIRE_EQUAL(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    on_both(io, [&](auto& way) {
        ::pollfd fds[] = {entry(p.a)};
        called_poll done, later;
        ::rlimit none = limit;
        none.rlim_cur = 3;
        BOOST_REQUIRE_EQUAL(::setrlimit(RLIMIT_NOFILE, &none), 0);
        way.start(fds, 1, for_ever, done.handler());
        BOOST_REQUIRE_EQUAL(::setrlimit(RLIMIT_NOFILE, &limit), 0);
        check_ends(io, done, error_code(EMFILE, asio::error::get_system_category()));
        BOOST_TEST(fds[0].revents == untouched);
        way.start(fds, 1, 1ms, later.handler());
        check_ready(io, later, 0);
    });
}

// (A function: of a lambda without data, GCC says that Boost copies it uninitialized.)
boost::test_tools::assertion_result select_is_the_backend(boost::unit_test::test_unit_id) {
    return test::on_select();
}

BOOST_FIXTURE_TEST_CASE(select_refuses_large_numbers, test::context_fixture,
                        *precondition(select_is_the_backend)) {
    test::fd_pair p = test::make_pipe();
    test::unique_fd large(::fcntl(p.a, F_DUPFD_CLOEXEC, FD_SETSIZE));
    on_both(io, [&](auto& way) {
        ::pollfd fds[] = {entry(large)};
        called_poll done;
        way.start(fds, 1, for_ever, done.handler());
        check_ends(io, done, asio::error::fd_set_failure);
        BOOST_TEST(fds[0].revents == untouched);
    });
}

// ---- tokens -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(handlers_keep_their_executor_and_allocator, test::context_fixture) {
    on_both(io, [&](auto& way) {
        for (auto timeout : {std::chrono::milliseconds(0), std::chrono::milliseconds(1)}) {
            test::fd_pair p = test::make_pipe();
            ::pollfd fds[] = {entry(p.a)};
            test::tracker_executor ex(7, io.get_executor());
            test::allocation_counts counts;
            bool is_called = false;
            way.start(fds, 1, timeout,
                      asio::bind_allocator(
                          test::counting_allocator<>(counts),
                          asio::bind_executor(ex, [&](error_code ec, std::size_t n) {
                              BOOST_TEST(!ec);
                              BOOST_TEST(n == 0u);
                              BOOST_TEST(test::running_on(7));
                              BOOST_TEST(counts.live == 0); // before the handler is invoked
                              is_called = true;
                          })));
            BOOST_TEST(!is_called);
            BOOST_TEST(counts.live == 1);
            test::run_until(io, [&] { return is_called; });
            BOOST_TEST(counts.live == 0);
        }
    });
}

/// A pipe, and an operation for its reading end with any token.
struct token_fixture : test::context_fixture {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[1] = {entry(p.a)};

    template <class Token>
    auto start(Token&& token) {
        return moor::async_poll(io, fds, 1, 10s, std::forward<Token>(token));
    }

    auto success(int& times) {
        return [&times](error_code ec, std::size_t ready) {
            ++times;
            BOOST_TEST(!ec);
            BOOST_TEST(ready == 1u);
        };
    }

    /// Calls `start` for an operation that pends, and for one that is ready at once.
    template <class Start>
    void pending_and_ready(Start start) {
        for (bool is_ready : {false, true}) {
            if (is_ready)
                test::put(p.b, "x");
            int times = 0;
            start(times);
            BOOST_TEST(times == 0);
            if (!is_ready) {
                test::run_ready(io);
                BOOST_TEST(times == 0);
                test::put(p.b, "x");
            }
            test::run_until(io, [&] { return times != 0; });
            test::run_ready(io);
            BOOST_TEST(times == 1);
            test::drain(p.a);
        }
    }
};

BOOST_FIXTURE_TEST_CASE(a_set_takes_completion_tokens, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.b, POLLOUT)};
    auto set = asio::deferred.as_default_on(moor::poll_set(io));
    std::future<std::size_t> f = set.async_wait(fds, 1, for_ever, asio::use_future);
    test::run_all(io);
    BOOST_TEST(f.get() == 1u);
    auto later = set.async_wait(fds, 1, for_ever);
    fds[0].revents = 0;
    test::run_all(io);
    BOOST_TEST(fds[0].revents == 0);
    called_poll done;
    std::move(later)(done.handler());
    check_ready(io, done, 1);
    test::once unique;
    set.async_wait(fds, 1, no_time, unique.handler());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_handler_is_a_token, token_fixture) {
    pending_and_ready([&](int& times) {
        auto handler = success(times);
        start(handler); // copied
    });
    pending_and_ready([&](int& times) {
        start([&times, moved = std::make_unique<int>(0)](error_code, std::size_t) { ++times; });
    });
    pending_and_ready([&](int& times) {
        asio::any_completion_handler<void(error_code, std::size_t)> handler = success(times);
        start(std::move(handler));
    });
    start(asio::detached);
    test::put(p.b, "x");
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_future_is_a_token, token_fixture) {
    error_code ec;
    std::future<std::size_t> ready = start(asio::use_future),
                             none = start(asio::redirect_error(asio::use_future, ec));
    asio::cancellation_signal signal;
    auto failed = start(asio::bind_cancellation_slot(signal.slot(), asio::use_future));
    test::run_ready(io);
    signal.emit(asio::cancellation_type::total);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(ready.get() == 1u);
    BOOST_TEST(none.get() == 1u);
    BOOST_TEST(!ec);
    BOOST_CHECK_EXCEPTION(failed.get(), boost::system::system_error,
                          [](auto& e) { return e.code() == aborted; });
}

BOOST_FIXTURE_TEST_CASE(a_deferred_operation_starts_when_it_is_invoked, token_fixture) {
    { [[maybe_unused]] auto dropped = start(asio::deferred); }
    test::run_all(io);
    BOOST_TEST(fds[0].revents == untouched);
    pending_and_ready([&](int& times) { start(asio::deferred)(success(times)); });
    using executor = asio::deferred_t::executor_with_default<asio::io_context::executor_type>;
    pending_and_ready([&](int& times) {
        moor::async_poll(executor(io.get_executor()), fds, 1, 10s)(success(times));
    });
}

BOOST_FIXTURE_TEST_CASE(adapted_handlers_are_tokens, token_fixture) {
    pending_and_ready(
        [&](int& times) { start(asio::as_tuple([&](auto t) { std::apply(success(times), t); })); });
    pending_and_ready([&](int& times) {
        start(asio::append(asio::prepend(
                               [&](int before, error_code ec, std::size_t n, int behind) {
                                   BOOST_TEST(before == 3);
                                   BOOST_TEST(behind == 4);
                                   success(times)(ec, n);
                               },
                               3),
                           4));
    });
    pending_and_ready([&](int& times) {
        auto object = std::make_shared<int>(1);
        std::weak_ptr<int> watch = object;
        start(asio::consign(success(times), std::move(object)));
        BOOST_TEST(!watch.expired());
    });
}

BOOST_FIXTURE_TEST_CASE(a_stackful_coroutine_waits, token_fixture) {
    pending_and_ready([&](int& times) {
        asio::spawn(
            io,
            [&](asio::yield_context yield) {
                error_code ec = asio::error::fault;
                BOOST_TEST(start(yield[ec]) == 1u);
                BOOST_TEST(!ec);
                ++times;
            },
            asio::detached);
    });
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
BOOST_FIXTURE_TEST_CASE(a_coroutine_waits, token_fixture) {
    using namespace asio::experimental::awaitable_operators;
    using asio::use_awaitable;
    moor::poll_set set(io);
    bool is_last = false;
    auto body = [&]() -> asio::awaitable<void> {
        const std::size_t none = co_await set.async_wait(fds, 1, 1ms, use_awaitable);
        BOOST_TEST(none == 0u);
        const auto first =
            co_await (start(use_awaitable) || set.async_wait(fds, 0, 1ms, use_awaitable));
        BOOST_TEST(first.index() == 1u); // and the other is cancelled
        asio::post(io, [&] { test::put(p.b, "x"); });
        const std::size_t ready = co_await start(use_awaitable);
        BOOST_TEST(ready == 1u);
        const auto [ec, n] =
            co_await set.async_wait(fds, 1, for_ever, asio::as_tuple(use_awaitable));
        BOOST_TEST(!ec);
        BOOST_TEST(n == 1u);
        const std::size_t direct = co_await set.async_wait(fds, 1, for_ever, asio::deferred);
        BOOST_TEST(direct == 1u);
        test::drain(p.a);
        is_last = true;
        co_await set.async_wait(fds, 1, for_ever, use_awaitable); // until the signal
    };
    asio::cancellation_signal signal;
    std::exception_ptr error;
    asio::co_spawn(
        io, body(),
        asio::bind_cancellation_slot(signal.slot(), [&](std::exception_ptr e) { error = e; }));
    test::run_until(io, [&] { return is_last; });
    test::run_ready(io);
    BOOST_TEST(!error);
    signal.emit(asio::cancellation_type::terminal);
    test::run_all(io);
    BOOST_REQUIRE(error);
    BOOST_CHECK_EXCEPTION(std::rethrow_exception(error), boost::system::system_error,
                          [](auto& e) { return e.code() == aborted; });
}
#endif

#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82; before, what is ready at once is posted, too
BOOST_FIXTURE_TEST_CASE(what_is_ready_at_once_completes_through_its_immediate_executor,
                        token_fixture) {
    on_both(io, [&](auto& way) {
        test::tracker_executor ex(1, io.get_executor());
        test::allocation_counts memory;
        int times = 0;
        auto begin = [&](auto timeout) {
            way.start(fds, 1, timeout,
                      asio::bind_allocator(
                          test::counting_allocator<>(memory),
                          asio::bind_immediate_executor(ex, [&](error_code ec, std::size_t) {
                              BOOST_TEST(!ec);
                              BOOST_TEST(memory.live == 0);
                              BOOST_TEST(test::running_on(1) == (times == 0));
                              ++times;
                          })));
        };
        asio::post(io, [&] {
            begin(no_time);
            BOOST_TEST(times == 1); // dispatched
            begin(1ms);
            BOOST_TEST(times == 1);
        });
        test::run_all(io);
        BOOST_TEST(times == 2);
        BOOST_TEST(ex.executed() == 1);
    });
}

BOOST_FIXTURE_TEST_CASE(only_so_many_operations_in_a_row_complete_inline, token_fixture) {
    moor::use_registration_service(io).inline_budget(3);
    moor::poll_set set(io);
    int left = 20, depth = 0, deepest = 0;
    std::function<void()> begin = [&] {
        set.async_wait(
            fds, 1, no_time,
            asio::bind_immediate_executor(io.get_executor(), [&](error_code, std::size_t) {
                deepest = std::max(deepest, ++depth);
                if (--left != 0)
                    begin();
                --depth;
            }));
    };
    asio::post(io, begin);
    test::run_all(io);
    BOOST_TEST(left == 0);
    BOOST_TEST(deepest <= 4);
    BOOST_TEST(deepest >= 3);
}
#endif

BOOST_AUTO_TEST_CASE(an_empty_executor_is_an_error_at_once) {
    const asio::any_io_executor none;
    BOOST_CHECK_THROW(moor::poll_set{none}, asio::execution::bad_executor);
    called_poll never;
    BOOST_CHECK_THROW(moor::async_poll(none, nullptr, 0, no_time, never.handler()),
                      asio::execution::bad_executor);
    BOOST_CHECK_THROW((void)moor::async_poll(none, nullptr, 0, no_time, asio::deferred),
                      asio::execution::bad_executor);
    BOOST_TEST(never.times == 0);
}

BOOST_AUTO_TEST_CASE(an_operation_that_finds_no_memory_throws_and_leaves_the_set_usable) {
    asio::io_context io;
    in_a_set way(io);
    test::fd_pair p = test::make_pipe();
    ::pollfd fds[] = {entry(p.a)};
    test::allocation_counts counts;
    counts.left = 0;
    called_poll failed, done;
    BOOST_CHECK_THROW(
        way.start(fds, 1, for_ever,
                  asio::bind_allocator(test::counting_allocator<>(counts), failed.handler())),
        std::bad_alloc);
    way.start(fds, 1, 1ms, done.handler());
    check_ready(io, done, 0);
    BOOST_TEST(failed.times == 0);
}

// ---- several threads ----------------------------------------------------------------------------

/// A set that waits for pipes on one side; each byte is read after it was reported.
struct consumer {
    moor::poll_set set;
    std::vector<test::fd_pair> pipes;
    std::vector<::pollfd> fds;
    std::atomic<int> bytes{0};
    int target;
    std::promise<void> over;
    bool has_failed = false;

    consumer(asio::any_io_executor ex, std::size_t n, int t) : set(ex), target(t) {
        for (std::size_t i = 0; i != n; ++i) {
            pipes.push_back(test::make_pipe());
            fds.push_back(entry(pipes.back().a));
        }
    }
    void wait() {
        set.async_wait(fds.data(), fds.size(), 20s, [this](error_code ec, std::size_t ready) {
            std::size_t found = 0;
            int taken = 0;
            for (const ::pollfd& f : fds)
                if (f.revents != 0) {
                    ++found;
                    taken += static_cast<int>(test::drain(f.fd));
                }
            has_failed = has_failed || ec || found == 0 || found != ready;
            bytes += taken;
            if (bytes == target || has_failed)
                over.set_value();
            else
                wait();
        });
    }
};

BOOST_AUTO_TEST_CASE(sets_lose_nothing_on_a_context_with_several_threads) {
    constexpr int bytes = 700;
    constexpr std::size_t each = 5;
    asio::thread_pool pool(3);
    std::vector<std::unique_ptr<consumer>> consumers;
    for (int i = 0; i != 3; ++i)
        consumers.push_back(std::make_unique<consumer>(
            i == 0 ? asio::any_io_executor(asio::make_strand(pool.get_executor()))
                   : asio::any_io_executor(pool.get_executor()),
            each, bytes));
    for (auto& c : consumers)
        c->wait();
    std::vector<std::thread> writers;
    for (auto& c : consumers)
        writers.emplace_back([&c] {
            for (int i = 0; i != bytes; ++i) {
                while (::write(c->pipes[static_cast<std::size_t>(i) % each].b, "x", 1) != 1)
                    std::this_thread::yield();
                if (i % 7 == 0)
                    test::wait_for([&] { return c->bytes >= i - 3; });
            }
        });
    for (auto& c : consumers) {
        BOOST_TEST((c->over.get_future().wait_for(test::cap) == std::future_status::ready));
        BOOST_TEST(!c->has_failed);
        BOOST_TEST(c->bytes.load() == bytes);
    }
    for (std::thread& t : writers)
        t.join();
    pool.join();
}

BOOST_AUTO_TEST_CASE(operations_may_be_cancelled_while_other_threads_complete_them) {
    asio::thread_pool pool(2);
    test::fd_pair p = test::make_socketpair(), q = test::make_pipe();
    int completed = 0, cancelled = 0;
    for (int i = 0; i != 100; ++i) {
        ::pollfd fds[] = {entry(p.a), entry(q.a)};
        asio::cancellation_signal signal;
        std::promise<error_code> promise;
        auto over = promise.get_future();
        moor::async_poll(
            pool, fds, 2, std::chrono::microseconds(i % 3 == 0 ? 200 : 10000000),
            asio::bind_cancellation_slot(
                signal.slot(), [&](error_code ec, std::size_t) { promise.set_value(ec); }));
        std::thread writer([&] { test::wait_for([&] { return ::write(p.b, "x", 1) == 1; }); });
        if (i % 2 == 0)
            signal.emit(asio::cancellation_type::terminal);
        const error_code ec = over.get();
        writer.join();
        test::drain(p.a);
        ++(ec ? cancelled : completed);
        if (ec != aborted && ec)
            BOOST_CHECK_EQUAL(ec, error_code());
        if (ec)
            BOOST_TEST(fds[0].revents == untouched);
    }
    BOOST_TEST(completed >= 50);
    pool.join();
    (void)cancelled;
}

// ---- at random ----------------------------------------------------------------------------------

/// Files of all kinds, and what can happen to them.
class files {
public:
    explicit files(test::dice& d) : dice_(d) {
        for (int i = 0; i != 10; ++i)
            make();
    }

    /// A list with numbers of these, closed and negative ones, and some several times.
    std::vector<::pollfd> list() {
        std::vector<::pollfd> fds;
        for (std::uint32_t n = dice_.below(12); n != 0; --n) {
            const std::uint32_t kind = dice_.below(40);
            const int fd = kind == 0                      ? -1 - static_cast<int>(dice_.below(3))
                           : kind == 1 && !pairs_.empty() ? closed_
                                                          : number();
            fds.push_back(entry(fd, events()));
        }
        return fds;
    }

    void change() {
        test::fd_pair& p = pairs_[dice_.below(pairs_.size())];
        const int fd = dice_.one_in(4) ? p.a.get() : p.b.get();
        std::uint64_t one = 1;
        switch (dice_.below(8)) {
        case 0:
        case 1:
            (void)!::write(fd, &one, 8);
            break;
        case 2:
            test::drain(p.a);
            test::drain(p.b);
            break;
        case 3:
            (void)!::send(p.b, "u", 1, MSG_OOB | MSG_NOSIGNAL);
            break;
        case 4:
            (void)!::send(fd, "d", 1, MSG_NOSIGNAL);
            break;
        case 5:
            if (dice_.one_in(3))
                ::shutdown(fd, SHUT_WR);
            break;
        case 6:
            if (p.b >= 0 && !is_bottomless(p.b))
                fill(fd);
            break;
        case 7:
            if (dice_.one_in(4))
                p.b.close();
            break;
        }
    }

private:
    static bool is_bottomless(int fd) {
        struct ::stat st {};
        return ::fstat(fd, &st) != 0 || S_ISREG(st.st_mode) || S_ISCHR(st.st_mode) ||
               (!S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode));
    }
    static void fill(int fd) {
        static const std::string chunk(65536, 'x'); // too large for a datagram
        for (int i = 0; i != 200; ++i)
            if (::send(fd, chunk.data(), chunk.size(), MSG_NOSIGNAL) <= 0 &&
                (errno != ENOTSOCK || ::write(fd, chunk.data(), chunk.size()) <= 0))
                return;
    }

    void make() {
        switch (dice_.below(9)) {
        case 0:
            pairs_.push_back(test::make_pipe());
            break;
        case 1:
            pairs_.push_back(test::small(test::make_socketpair()));
            break;
        case 2:
            pairs_.push_back(test::make_tcp_pair());
            break;
        case 3:
            pairs_.push_back(test::make_raw_pty());
            break;
        case 4: {
            test::fd_pair p;
            p.a = test::unique_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
            pairs_.push_back(std::move(p));
            break;
        }
        case 5: {
            test::fd_pair p;
            p.a = test::unique_fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
            pairs_.push_back(std::move(p));
            break;
        }
        case 6: {
            test::fd_pair p;
            p.a = test::unique_fd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
            pairs_.push_back(std::move(p));
            break;
        }
        case 7:
            pairs_.push_back(test::make_udp_pair());
            break;
        case 8:
            pairs_.push_back(test::swapped(test::make_pipe()));
            break;
        }
    }

public:
    /// Closes files, and most likely gives their numbers to others. Between two operations only:
    /// poll(2) does not notice, either, that a number is closed while it waits.
    void replace() {
        const std::size_t i = dice_.below(pairs_.size());
        if (on_replace)
            on_replace(pairs_[i]);
        std::swap(pairs_[i], pairs_.back());
        pairs_.pop_back();
        make();
    }

private:
    int number() {
        const test::fd_pair& p = pairs_[dice_.below(pairs_.size())];
        return p.b >= 0 && dice_.one_in(2) ? p.b.get() : p.a.get();
    }
    short events() {
        static constexpr short some[] = {
            POLLIN,     POLLOUT,          POLLIN | POLLOUT,   POLLPRI,   0, POLLRDHUP,
            POLLRDNORM, POLLIN | POLLPRI, POLLIN | POLLRDHUP, POLLWRNORM};
        return some[dice_.below(sizeof(some) / sizeof(some[0]))];
    }

    test::dice& dice_;
    std::vector<test::fd_pair> pairs_;
    int closed_ = test::closed_number();

public:
    std::function<void(const test::fd_pair&)> on_replace;
};

std::string text_of(const std::vector<::pollfd>& fds) {
    std::string s;
    for (const ::pollfd& f : fds)
        s += " " + std::to_string(f.fd) + ":" + std::to_string(f.events) + "->" +
             std::to_string(f.revents);
    return s;
}

/// Whether poll(2) reports anything of a list, and the operation the same.
template <class Way>
void play(asio::io_context& io, Way& way, std::uint64_t seed, test::tally& t) {
    test::dice dice(seed);
    files all(dice);
    if constexpr (std::is_same<Way, in_a_set>::value)
        all.on_replace = [&](const test::fd_pair& p) {
            for (int fd : {p.a.get(), p.b.get()})
                way.set.forget(fd); // there may be anonymous files among them
        };
    for (int round = 0; round != 40; ++round) {
        for (std::uint32_t n = dice.below(3); n != 0; --n)
            all.replace();
        std::vector<::pollfd> fds = all.list();
        const std::vector<::pollfd> before = fds;
        const std::vector<::pollfd> at_start = polled(before);
        called_poll done;
        asio::cancellation_signal signal;
        way.start(fds.data(), fds.size(), for_ever,
                  asio::bind_cancellation_slot(signal.slot(), done.handler()));
        // (An operation that is over may still be queued.)
        auto is_decided = [&] { return text_of(fds) != text_of(before); };
        for (std::uint32_t n = dice.below(4); n != 0; --n) {
            if (dice.one_in(3))
                t.run_ready(io);
            if (is_decided())
                break;
            all.change();
        }
        const bool is_over_already = is_decided();
        std::vector<::pollfd> now = polled(before);
        // poll(2) does not notice, either, that a number is closed while it waits.
        bool is_ready = false, is_reported = false;
        for (std::size_t i = 0; i != now.size(); ++i) {
            is_reported = is_reported || now[i].revents != 0;
            is_ready = is_ready || (now[i].revents != 0 && (now[i].revents != POLLNVAL ||
                                                            at_start[i].revents == POLLNVAL));
        }
        if (is_ready || is_over_already) {
            const bool came = t.comes(io, [&] { return done.times != 0; });
            t.check(came, "hangs, seed ", seed, ", round ", round, ":", text_of(now));
            if (came && !is_over_already) {
                now = polled(before);
                t.check(text_of(fds) == text_of(now), "differs, seed ", seed, ", round ", round,
                        ": is", text_of(fds), ", should be", text_of(now));
                const auto ready = static_cast<std::size_t>(std::count_if(
                    now.begin(), now.end(), [](const ::pollfd& f) { return f.revents != 0; }));
                t.check(!done.ec && done.ready == ready, "counts wrong, seed ", seed);
            }
        } else {
            t.run_ready(io);
            t.check(done.times == 0 || is_reported, "completes for nothing, seed ", seed,
                    ", round ", round, ":", text_of(fds));
        }
        if (done.times == 0) {
            signal.emit(asio::cancellation_type::terminal);
            t.comes(io, [&] { return done.times != 0; });
            t.check(done.ec == aborted && text_of(fds) == text_of(before), "touched, seed ", seed);
        }
        t.check(done.times == 1, "called ", done.times, " times, seed ", seed);
        if (t.failed() > 20)
            return;
    }
}

BOOST_AUTO_TEST_CASE(random_lists_report_what_poll_reports) {
    ::signal(SIGPIPE, SIG_IGN);
    test::tally t;
    const std::uint64_t first = test::from_environment("MOOR_TEST_SEED", 1);
    const std::uint64_t runs = test::from_environment("MOOR_TEST_RUNS", 40);
    for (std::uint64_t seed = first; seed != first + runs; ++seed) {
        asio::io_context io;
        on_both(io, [&](auto& way) { play(io, way, seed, t); });
    }
}

} // namespace

BOOST_AUTO_TEST_SUITE_END()

} // namespace poll_tests
