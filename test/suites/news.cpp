// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What counts as news, on each backend: a callable that met would-block is called again only for
// news, an edge-triggered wait completes only for news, and an end is permanent. Every count is
// taken over a fixed number of turns of the loop, in which a loop that spins makes hundreds.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <sys/socket.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(news)

namespace {

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

/// Runs the loop for a fixed number of turns, whether there is work or not.
void turn(asio::io_context& io) {
    auto work = asio::make_work_guard(io);
    for (int i = 0; i != 300; ++i) {
        if (io.stopped())
            io.restart();
        io.poll_one();
    }
}

/// A pair of handles, of which `a` is registered, and the pair's name.
struct kind {
    std::string name;
    test::fd_pair (*make)();
};

const kind pipe_reader{"reading end of a pipe", test::make_pipe};
const kind pipe_writer{"writing end of a pipe", [] { return test::swapped(test::make_pipe()); }};
const kind unix_socket{"unix socket", [] { return test::make_socketpair(); }};
const kind tcp_socket{"tcp socket", test::make_tcp_pair};

/// Calls `f` for each kind and each trigger, with both named in a failure.
template <class F>
void for_each(const std::vector<kind>& kinds, F f) {
    for (const kind& k : kinds)
        for (trigger t : test::both_triggers)
            BOOST_TEST_CONTEXT(k.name << ", " << test::name_of(t)) { f(k, t); }
}

/// How often a callable may be called that says would-block each time and hears no news: once when
/// the operation begins, and once more for an event that came before. Where the reactor reports
/// levels, once more for what is there when Moor begins to hear of edges only.
const int few = test::on_epoll() ? 2 : 3;

/// Says would-block until it is `willing`, whatever the handle has.
struct unwilling {
    int calls = 0;
    bool willing = false;

    auto callable() {
        return [this](error_code& ec) {
            ++calls;
            if (!willing)
                ec = test::would_block;
        };
    }
};

/// An `async_io` with an unwilling callable is pending. Something happens, which is news: the
/// callable is called again, at most `most` times, and the operation ends once the callable is
/// willing.
template <class Happen>
void check_hears(asio::io_context& io, unwilling& f, const test::called& done, Happen happen,
                 int most = few) {
    turn(io);
    BOOST_TEST(f.calls <= few);
    BOOST_TEST(!done);
    int before = f.calls;
    happen();
    turn(io);
    BOOST_TEST(f.calls > before, "the callable heard nothing of the news");
    BOOST_TEST(f.calls <= before + most);
    f.willing = true;
    happen();
    turn(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(!done.ec);
}

} // namespace

// ---- callables that met would-block -------------------------------------------------------------

/// An `async_io` of `want` with an unwilling callable hears of bytes of the peer, and of nothing
/// else.
void check_hears_of_bytes(const kind& k, trigger t, interest want, const char* before) {
    BOOST_TEST_CONTEXT("waiting for " << want) {
        asio::io_context io;
        test::fd_pair p = k.make();
        test::put(p.b, before);
        moor::registration r(io, p.a, t);
        unwilling f;
        test::called done;
        r.async_io(want, f.callable(), done.handler());
        check_hears(io, f, done, [&] { test::put(p.b, "more"); });
    }
}

BOOST_AUTO_TEST_CASE(a_callable_that_would_block_on_reading_is_not_called_for_room_to_write) {
    for_each({unix_socket, tcp_socket}, [](const kind& k, trigger t) {
        check_hears_of_bytes(k, t, interest::readable | interest::writable, "");
    });
}

BOOST_AUTO_TEST_CASE(a_callable_that_leaves_data_unread_is_called_again_only_for_more) {
    for_each({pipe_reader, unix_socket, tcp_socket}, [](const kind& k, trigger t) {
        for (interest want : {interest(interest::readable), interest::readable | interest::priority,
                              interest::readable | interest::read_closed})
            check_hears_of_bytes(k, t, want, "x");
    });
}

BOOST_AUTO_TEST_CASE(a_callable_that_leaves_room_unused_is_called_again_only_for_more) {
    for_each({pipe_writer, unix_socket, tcp_socket}, [](const kind& k, trigger t) {
        asio::io_context io;
        test::fd_pair p = k.make();
        moor::registration r(io, p.a, t);
        unwilling f;
        test::called done;
        r.async_io(interest::writable, f.callable(), done.handler());
        check_hears(
            io, f, done,
            [&] {
                // The handle has no room for a while.
                test::fill(p.a);
                turn(io);
                for (int i = 0; i != 100; ++i) { // TCP takes its time
                    test::drain(p.b);
                    turn(io);
                }
            },
            100); // more room may come in pieces
    });
}

BOOST_AUTO_TEST_CASE(a_callable_that_would_block_hears_of_an_end) {
    for_each({pipe_reader, pipe_writer, unix_socket, tcp_socket}, [](const kind& k, trigger t) {
        asio::io_context io;
        test::fd_pair p = k.make();
        interest want = k.name == pipe_writer.name ? interest(interest::writable)
                                                   : interest(interest::readable);
        if (want.is_readable())
            test::put(p.b, "x"); // it is ready, and stays so
        moor::registration r(io, p.a, t);
        unwilling f;
        test::called done;
        r.async_io(want, f.callable(), done.handler());
        turn(io);
        BOOST_TEST(f.calls <= few);
        BOOST_TEST(!done);
        f.willing = true;
        p.b.close();
        turn(io);
        BOOST_TEST(done.times == 1);
    });
}

BOOST_AUTO_TEST_CASE(a_callable_that_leaves_data_unread_beside_a_wait_for_something_else) {
    // Arming a waker beside another one may make the reactor report again what is no news.
    for_each({unix_socket, tcp_socket}, [](const kind& k, trigger t) {
        for (interest other : {interest(interest::priority), interest(interest::error),
                               interest(interest::read_closed), interest(interest::write_closed),
                               interest::priority | interest::read_closed}) {
            for (bool other_first : {true, false}) {
                BOOST_TEST_CONTEXT("beside a wait for "
                                   << other
                                   << (other_first ? " that began first" : " that began later")) {
                    asio::io_context io;
                    test::fd_pair p = k.make();
                    test::put(p.b, "x");
                    moor::registration r(io, p.a, t);
                    unwilling f;
                    test::called done, beside;
                    if (other_first)
                        r.async_wait(other, beside.handler());
                    r.async_io(interest::readable, f.callable(), done.handler());
                    if (!other_first)
                        r.async_wait(other, beside.handler());
                    check_hears(io, f, done, [&] { test::put(p.b, "more"); });
                    BOOST_TEST(beside.times == 0);
                    r.cancel();
                    turn(io);
                    BOOST_TEST(beside.times == 1);
                }
            }
        }
    });
}

BOOST_AUTO_TEST_CASE(two_callables_that_leave_data_unread_do_not_call_each_other) {
    for_each({pipe_reader, unix_socket}, [](const kind& k, trigger t) {
        asio::io_context io;
        test::fd_pair p = k.make();
        test::put(p.b, "x");
        moor::registration r(io, p.a, t);
        unwilling f, g;
        test::called f_done, g_done;
        r.async_io(interest::readable, f.callable(), f_done.handler());
        r.async_io(interest::readable, g.callable(), g_done.handler());
        turn(io);
        BOOST_TEST(f.calls <= few);
        BOOST_TEST(g.calls <= few);
        f.willing = g.willing = true;
        test::put(p.b, "more");
        turn(io);
        BOOST_TEST(f_done.times == 1);
        BOOST_TEST(g_done.times == 1);
    });
}

BOOST_AUTO_TEST_CASE(a_waker_whose_callable_would_block_is_woken_only_for_news) {
    for_each({pipe_reader, unix_socket, tcp_socket}, [](const kind& k, trigger t) {
        asio::io_context io;
        test::fd_pair p = k.make();
        test::put(p.b, "x");
        moor::registration r(io, p.a, t);
        unwilling f;
        int wakes = 0;
        bool over = false;
        std::function<void()> poll = [&] {
            auto result = r.poll_read_io(
                [&] {
                    ++wakes;
                    poll();
                },
                f.callable());
            over = !result.has_error();
        };
        poll();
        turn(io);
        BOOST_TEST(wakes <= few);
        BOOST_TEST(f.calls <= few);
        BOOST_TEST(!over);
        f.willing = true;
        test::put(p.b, "more");
        turn(io);
        BOOST_TEST(over);
    });
}

// ---- edge-triggered waits -----------------------------------------------------------------------

namespace {

/// Waits again and again, and counts.
class waiter {
public:
    waiter(moor::registration& r, interest want) : registration_(r), want_(want) { wait(); }

    int completions() const { return completions_; }
    const error_code& ec() const { return ec_; }

private:
    void wait() {
        auto on_event = [this](error_code ec, auto&&...) {
            ++completions_;
            ec_ = ec;
            if (!ec)
                wait();
        };
        // The short forms are functions of their own.
        if (want_ == interest::readable)
            registration_.async_wait_readable(on_event);
        else if (want_ == interest::writable)
            registration_.async_wait_writable(on_event);
        else
            registration_.async_wait(want_, on_event);
    }

    moor::registration& registration_;
    interest want_;
    int completions_ = 0;
    error_code ec_;
};

/// When data comes, or an end, as seen from the handle that waits.
enum class moment { before_the_registration, before_the_wait, during_the_wait };

constexpr moment moments[] = {moment::before_the_registration, moment::before_the_wait,
                              moment::during_the_wait};

const char* name_of(moment m) {
    return m == moment::before_the_registration ? "before the registration"
           : m == moment::before_the_wait       ? "before the wait"
                                                : "during the wait";
}

/// Registers, waits for `want` with `trigger::edge`, and has something happen at that moment.
struct edge_program {
    asio::io_context io;
    test::fd_pair p;
    std::unique_ptr<moor::registration> registration;
    std::unique_ptr<waiter> waits;

    template <class Happen>
    edge_program(const kind& k, interest want, moment m, Happen happen) : p(k.make()) {
        if (m == moment::before_the_registration)
            happen(p);
        registration = std::make_unique<moor::registration>(io, p.a, trigger::edge);
        if (m == moment::before_the_wait)
            happen(p);
        waits = std::make_unique<waiter>(*registration, want);
        if (m == moment::during_the_wait) {
            turn(io);
            happen(p);
        }
        turn(io);
    }
    ~edge_program() {
        registration.reset();
        turn(io);
    }
};

const std::vector<interest> readers{interest(interest::readable),
                                    interest::readable | interest::priority,
                                    interest::readable | interest::read_closed};

template <class F>
void for_each_moment(const std::vector<kind>& kinds, const std::vector<interest>& wanted, F f) {
    for (const kind& k : kinds)
        for (interest want : wanted)
            for (moment m : moments)
                BOOST_TEST_CONTEXT(k.name << ", waiting for " << want << ", " << name_of(m)) {
                    f(k, want, m);
                }
}

} // namespace

BOOST_AUTO_TEST_CASE(data_that_is_left_unread_is_one_event) {
    for_each_moment({pipe_reader, unix_socket, tcp_socket}, readers,
                    [](const kind& k, interest want, moment m) {
                        edge_program e(k, want, m, [](auto& p) { test::put(p.b, "x"); });
                        BOOST_TEST(e.waits->completions() == 1);
                        test::put(e.p.b, "more"); // on top of what is unread
                        turn(e.io);
                        BOOST_TEST(e.waits->completions() == 2);
                        turn(e.io);
                        BOOST_TEST(e.waits->completions() == 2);
                        test::drain(e.p.a);
                        turn(e.io);
                        BOOST_TEST(e.waits->completions() == 2);
                        test::put(e.p.b, "again");
                        turn(e.io);
                        BOOST_TEST(e.waits->completions() == 3);
                    });
}

BOOST_AUTO_TEST_CASE(room_that_is_left_unused_is_one_event) {
    for (const kind& k : {pipe_writer, unix_socket, tcp_socket})
        BOOST_TEST_CONTEXT(k.name) {
            edge_program e(k, interest::writable, moment::before_the_wait, [](auto&) {});
            BOOST_TEST(e.waits->completions() == 1);
            test::fill(e.p.a);
            turn(e.io);
            BOOST_TEST(e.waits->completions() == 1);
            for (int i = 0; i != 100; ++i) { // TCP takes its time
                test::drain(e.p.b);
                turn(e.io);
            }
            BOOST_TEST(e.waits->completions() >= 2);
        }
}

BOOST_AUTO_TEST_CASE(data_beside_room_is_told_with_it) {
    for (const kind& k : {unix_socket, tcp_socket})
        for (moment m : moments)
            BOOST_TEST_CONTEXT(k.name << ", " << name_of(m)) {
                edge_program e(k, interest::readable | interest::writable, m,
                               [](auto& p) { test::put(p.b, "x"); });
                // epoll tells of both with each event, and Asio passes them on one by one.
                BOOST_TEST(e.waits->completions() >= 1);
                BOOST_TEST(e.waits->completions() <= 3);
                int before = e.waits->completions();
                test::put(e.p.b, "more");
                turn(e.io);
                BOOST_TEST(e.waits->completions() > before);
                BOOST_TEST(e.waits->completions() <= before + 2);
            }
}

BOOST_AUTO_TEST_CASE(news_that_comes_while_nobody_waits_is_one_event) {
    for (const kind& k : {pipe_reader, unix_socket, tcp_socket})
        for (bool is_cancelled : {false, true}) // it takes no news with it
            BOOST_TEST_CONTEXT(k.name << (is_cancelled ? ", a wait is cancelled" : "")) {
                asio::io_context io;
                test::fd_pair p = k.make();
                moor::registration r(io, p.a, trigger::edge);
                if (!is_cancelled)
                    test::put(p.b, "x");
                test::called first, second, third;
                r.async_wait_readable(first.handler());
                turn(io);
                if (is_cancelled) {
                    r.cancel();
                    turn(io);
                }
                BOOST_TEST(first.times == 1);
                BOOST_TEST((first.ec == (is_cancelled ? test::aborted : error_code())));
                test::put(p.b, "more");
                turn(io);
                r.async_wait_readable(second.handler());
                turn(io);
                BOOST_TEST(second.times == 1);
                r.async_wait_readable(third.handler());
                turn(io);
                BOOST_TEST(third.times == 0);
                r.cancel();
                turn(io);
            }
}

/// While the handle is not in the reactor, a wait has it attached, and is told by the reactor: what
/// is known already would be told twice.
BOOST_AUTO_TEST_CASE(what_is_known_before_the_handle_is_attached_is_one_event) {
    const interest readable = interest::readable, writable = interest::writable;
    for (const kind& k : {pipe_reader, unix_socket, tcp_socket})
        for (interest want : {readable, readable | interest::priority})
            for (bool is_idle : {false, test::on_epoll()}) // elsewhere it stays attached
                BOOST_TEST_CONTEXT(k.name << ", " << want
                                          << (is_idle ? ", after many events that nobody waits for"
                                                      : ", after a call")) {
                    asio::io_context io;
                    test::fd_pair p = k.make();
                    moor::registration r(io, p.a, trigger::edge);
                    if (is_idle) {
                        r.async_wait(want | writable, [](error_code, auto) {});
                        turn(io);
                        r.cancel();
                        for (int i = 0; i != 20; ++i) {
                            test::put(p.b, "x");
                            turn(io);
                        }
                        BOOST_TEST(!moor::use_registration_service(io).snapshot().at(0).attached);
                    } else {
                        test::put(p.b, "x");
                        (void)r.try_io(want, [](error_code&) {});
                        BOOST_TEST(r.ready(readable).ready() == readable);
                    }
                    waiter w(r, want);
                    turn(io);
                    BOOST_TEST(w.completions() == 1);
                    r.deregister();
                    turn(io);
                }
}

/// The same for each direction: the first operation that waits for it has the reactor tell.
BOOST_AUTO_TEST_CASE(what_is_known_before_a_direction_is_waited_for_is_one_event) {
    enum class first { wait, call, waker };
    const interest readable = interest::readable, writable = interest::writable;
    for (const kind& k : {unix_socket, tcp_socket})
        for (interest want : {readable, writable})
            for (bool is_known_first : {false, true})
                for (first f : {first::wait, first::call, first::waker})
                    BOOST_TEST_CONTEXT(
                        k.name << ", " << want << ", beside "
                               << (f == first::wait   ? "a wait"
                                   : f == first::call ? "a call"
                                                      : "a waker")
                               << (is_known_first ? " that begins later" : " that began before")) {
                        asio::io_context io;
                        test::fd_pair p = k.make();
                        if (want == readable) {
                            test::fill(p.a);
                            test::put(p.b, "x");
                        }
                        moor::registration r(io, p.a, trigger::edge);
                        auto know = [&] { (void)r.try_io(want, [](error_code&) {}); };
                        if (is_known_first)
                            know();
                        const interest other = want == readable ? writable : readable;
                        if (f == first::wait)
                            r.async_wait(other, [](error_code, auto) {});
                        else if (f == first::call)
                            r.async_io(
                                other, [](error_code& ec) { ec = test::would_block; },
                                [](error_code) {});
                        else if (want == readable)
                            (void)r.poll_write_ready([] {});
                        else
                            (void)r.poll_read_ready([] {});
                        turn(io);
                        if (!is_known_first)
                            know();
                        waiter w(r, want);
                        turn(io);
                        BOOST_TEST(w.completions() == 1);
                        r.deregister();
                        turn(io);
                    }
}

/// What several waits are told, one after the other.
moor::readiness told_in_turn(asio::io_context& io, moor::registration& r, interest want) {
    moor::readiness all;
    for (int i = 0; i != 3; ++i) {
        r.async_wait(want, [&](error_code, moor::ready_event e) { all |= e.ready(); });
        turn(io);
    }
    return all;
}

/// An end completes each wait for it at once, and such a wait is told of what else is known.
BOOST_AUTO_TEST_CASE(an_end_hides_nothing_that_is_known_before_the_handle_is_attached) {
    for (const kind& k : {unix_socket, tcp_socket})
        for (interest want : {interest::writable, interest::priority}) {
            if (want == interest::priority && k.name != tcp_socket.name)
                continue;
            BOOST_TEST_CONTEXT(k.name << ", " << want) {
                asio::io_context io;
                test::fd_pair p = k.make();
                moor::registration r(io, p.a, trigger::edge);
                if (want == interest::priority)
                    BOOST_REQUIRE_EQUAL(::send(p.b, "u", 1, MSG_OOB), 1);
                (void)r.try_io(want, [](error_code&) {});
                test::shut_peer(p);
                want |= interest::read_closed;
                BOOST_TEST(told_in_turn(io, r, want) == want);
                r.deregister();
                turn(io);
            }
        }
}

/// Such a wait arms no waker, so that nothing but the kernel tells of the rest.
BOOST_AUTO_TEST_CASE(an_end_hides_nothing_that_comes_later) {
    asio::io_context io;
    test::fd_pair p = test::make_socketpair();
    moor::registration r(io, p.a, trigger::edge);
    const interest want = interest::writable | interest::read_closed;
    test::shut_peer(p);
    for (int i = 0; i != 3; ++i) {
        test::fill(p.a);
        BOOST_TEST(told_in_turn(io, r, want) == interest::read_closed);
        test::drain(p.b);
        BOOST_TEST(told_in_turn(io, r, want) == want);
    }
    r.deregister();
    turn(io);
}

/// What is news of one channel is told, and what the first arming of another one tells is not.
BOOST_AUTO_TEST_CASE(urgent_data_that_is_known_beside_data_is_one_event) {
    asio::io_context io;
    test::fd_pair p = test::make_tcp_pair();
    moor::registration r(io, p.a, trigger::edge);
    r.async_wait_readable([](error_code) {});
    turn(io);
    r.cancel();
    turn(io);
    BOOST_REQUIRE_EQUAL(::send(p.b, "xu", 2, MSG_OOB), 2);
    turn(io);
    (void)r.try_io(interest::priority, [](error_code&) {});
    int urgent = 0;
    for (int i = 0; i != 3; ++i) {
        r.async_wait(
            interest::readable | interest::priority,
            [&](error_code ec, moor::ready_event e) { urgent += !ec && e.ready().is_priority(); });
        turn(io);
    }
    BOOST_TEST(urgent == 1);
    r.deregister();
    turn(io);
}

/// Where the reactor reports levels, an edge-triggered set reports what is waited for besides. What
/// it has been asked for once, it goes on to report.
BOOST_AUTO_TEST_CASE(what_is_told_beside_a_wait_for_something_else_is_one_event) {
    for (const kind& k : {unix_socket, tcp_socket})
        for (interest want : {interest::readable, interest::writable})
            for (interest other :
                 {interest(interest::priority), interest(interest::error),
                  interest(interest::read_closed), interest(interest::write_closed),
                  interest::priority | interest::read_closed})
                for (bool other_first : {true, false}) {
                    if (want == interest::writable && k.name == tcp_socket.name)
                        continue; // which gets room in pieces
                    BOOST_TEST_CONTEXT(
                        k.name << ", " << want << " beside " << other
                               << (other_first ? " that began first" : " that began later")) {
                        asio::io_context io;
                        test::fd_pair p = k.make();
                        moor::registration r(io, p.a, trigger::edge);
                        auto use = [&] {
                            if (want == interest::readable)
                                test::drain(p.a);
                            else
                                test::fill(p.a);
                        };
                        use();
                        if (other_first)
                            r.async_wait(other, [](error_code, auto) {});
                        for (int i = 0; i != 16; ++i) {
                            BOOST_TEST_INFO_SCOPE("round " << i);
                            test::called wait;
                            r.async_wait(want, wait.handler());
                            turn(io);
                            BOOST_TEST(wait.times == 0);
                            if (want == interest::readable)
                                test::put(p.b, "x");
                            else
                                test::drain(p.b);
                            turn(io);
                            BOOST_TEST(wait.times == 1);
                            use();
                            if (!other_first && i == 8)
                                r.async_wait(other, [](error_code, auto) {});
                        }
                        r.deregister();
                        turn(io);
                    }
                }
}

/// On select and io_uring, a direction that has left the set leaves the set to the other one.
BOOST_AUTO_TEST_CASE(unread_data_beside_many_waits_for_room_is_one_event) {
    asio::io_context io;
    test::fd_pair p = test::make_socketpair();
    moor::registration r(io, p.a, trigger::edge);
    int told = 0;
    auto wait_for_data = [&] { r.async_wait_readable([&](error_code ec) { told += !ec; }); };
    auto use_room = [&](int times) {
        for (int i = 0; i != times; ++i) {
            test::fill(p.a);
            test::called room;
            r.async_wait_writable(room.handler());
            io.poll();
            test::drain(p.b);
            turn(io);
            BOOST_TEST(room.times == 1);
        }
    };
    use_room(10);
    test::put(p.b, "x");
    wait_for_data();
    turn(io);
    BOOST_TEST(told == 1); // and left unread
    wait_for_data();
    turn(io);
    BOOST_TEST(told == 1);
    test::put(p.b, "y");
    turn(io);
    BOOST_TEST(told == 2);
    use_room(130);
    wait_for_data();
    turn(io);
    BOOST_TEST((told == 2 || test::on_epoll())); // where new room repeats unread data
    r.deregister();
    turn(io);
}

BOOST_AUTO_TEST_CASE(urgent_data_is_one_event) {
    for (moment m : moments)
        BOOST_TEST_CONTEXT(name_of(m)) {
            edge_program e(tcp_socket, interest::priority, m,
                           [](auto& p) { BOOST_REQUIRE_EQUAL(::send(p.b, "u", 1, MSG_OOB), 1); });
            BOOST_TEST(e.waits->completions() == 1);
            turn(e.io);
            BOOST_TEST(e.waits->completions() == 1);
            BOOST_REQUIRE_EQUAL(::send(e.p.b, "v", 1, MSG_OOB), 1);
            turn(e.io);
            BOOST_TEST(e.waits->completions() == 2);
        }
}

// ---- ends ---------------------------------------------------------------------------------------

namespace {

/// What ends a handle, and the interests that it ends for good.
struct ending {
    kind handle;
    std::string name;
    void (*happen)(test::fd_pair&);
    std::vector<interest> wanted;
};

const std::vector<ending>& endings() {
    const interest readable = interest::readable, writable = interest::writable,
                   read_closed = interest::read_closed, write_closed = interest::write_closed,
                   error = interest::error;
    static const std::vector<ending> all{
        {pipe_reader,
         "the writers go",
         test::close_peer,
         {readable, read_closed, readable | read_closed}},
        {pipe_writer,
         "the readers go",
         test::close_peer,
         {writable, error, write_closed, writable | error}},
        {unix_socket,
         "the other end closes",
         test::close_peer,
         {readable, writable, read_closed, write_closed, readable | writable}},
        {unix_socket,
         "the other end writes no more",
         test::shut_peer,
         {readable, read_closed, interest::priority | read_closed}},
        {tcp_socket, "the other end writes no more", test::shut_peer, {readable, read_closed}},
        {tcp_socket,
         "both directions are shut down",
         test::shut_both,
         {readable, writable, read_closed, write_closed}}};
    return all;
}

} // namespace

BOOST_AUTO_TEST_CASE(each_wait_for_an_end_completes) {
    for (const ending& e : endings())
        for (interest want : e.wanted)
            for (moment m : moments)
                for (trigger t : test::both_triggers)
                    BOOST_TEST_CONTEXT(e.handle.name << ", " << e.name << " " << name_of(m)
                                                     << ", waiting for " << want << ", "
                                                     << test::name_of(t)) {
                        asio::io_context io;
                        test::fd_pair p = e.handle.make();
                        if (m == moment::before_the_registration)
                            e.happen(p);
                        moor::registration r(io, p.a, t);
                        if (m == moment::before_the_wait)
                            e.happen(p);
                        for (int i = 0; i != 5; ++i) {
                            test::called wait;
                            r.async_wait(want, wait.handler());
                            turn(io);
                            if (i == 0 && m == moment::during_the_wait) {
                                e.happen(p);
                                turn(io);
                            }
                            // (An edge-triggered reader or writer is told once for sure.)
                            const bool must =
                                i == 0 || t == trigger::level ||
                                (want & (interest::readable | interest::writable)).empty();
                            BOOST_TEST((wait.times == 1 || !must),
                                       "wait " << i << " did not complete");
                            BOOST_TEST((!wait || !wait.ec));
                            if (!wait) {
                                r.cancel();
                                turn(io);
                                break;
                            }
                        }
                    }
}

BOOST_AUTO_TEST_CASE(each_wait_for_an_end_completes_after_unread_data_was_told_of) {
    for (const kind& k : {pipe_reader, unix_socket, tcp_socket})
        for (trigger t : test::both_triggers)
            for (interest want : {interest(interest::readable), interest(interest::read_closed)})
                BOOST_TEST_CONTEXT(k.name << ", waiting for " << want << ", " << test::name_of(t)) {
                    asio::io_context io;
                    test::fd_pair p = k.make();
                    test::put(p.b, "x");
                    moor::registration r(io, p.a, t);
                    test::called data;
                    r.async_wait_readable(data.handler());
                    turn(io);
                    BOOST_TEST(data.times == 1);
                    p.b.close();
                    turn(io);
                    for (int i = 0; i != 5; ++i) {
                        test::called wait;
                        r.async_wait(want, wait.handler());
                        turn(io);
                        const bool must =
                            i == 0 || t == trigger::level || want == interest::read_closed;
                        BOOST_TEST((wait.times == 1 || !must), "wait " << i << " did not complete");
                        r.cancel();
                        turn(io);
                    }
                }
}

BOOST_AUTO_TEST_SUITE_END()
