// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A wait has its event, its handler has not run, and its cancellation is emitted: the wait is over
// with operation_aborted, and the next wait gets the event. That is what `a || b` does to the loser
// when both become ready at the same time.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/experimental/parallel_group.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif
#if __has_include(<boost/asio/cancel_after.hpp>)
#include <boost/asio/cancel_after.hpp>
#endif

#include <array>
#include <cerrno>
#include <chrono>
#include <string>
#include <utility>

#include <sys/socket.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;

const error_code aborted = asio::error::operation_aborted;

/// Two handles, each with data to come.
struct scene {
    scene(asio::io_context& context, moor::trigger t, test::tally& r)
        : io(context), results(r), a(io, p.a.get(), t), b(io, q.a.get(), t) {
        // Where nothing was known of the handles their first waits would ask the kernel.
        warm_up(a, p);
        warm_up(b, q);
    }
    ~scene() {
        a.deregister();
        b.deregister();
        results.run_ready(io);
    }

    void warm_up(moor::registration& reg, test::fd_pair& pair) {
        test::outcome c;
        reg.async_wait_readable(c.handler());
        results.run_ready(io);
        test::put(pair.b, "x");
        results.check(results.comes(io, [&] { return bool(c); }), "the first wait");
        (void)reg.try_io(interest::readable, test::reader{pair.a});
        (void)reg.try_io(interest::readable, test::reader{pair.a});
        results.run_ready(io);
    }

    /// Both at once.
    void make_ready() {
        test::put(p.b, "data");
        test::put(q.b, "data");
    }

    template <class... What>
    void check_next_wait_completes(moor::registration& reg, const What&... what) {
        test::outcome c;
        reg.async_wait_readable(c.handler());
        results.check(results.comes(io, [&] { return bool(c); }) && !c.ec(), what...,
                      ": the next wait hangs");
        reg.cancel();
    }

    asio::io_context& io;
    test::tally& results;
    test::fd_pair p = test::make_socketpair(), q = test::make_socketpair();
    moor::registration a, b;
};

/// The ways to wait for data.
enum class kind { readable, event, several };
const kind each_kind[] = {kind::readable, kind::event, kind::several};

const char* name_of(kind k) {
    static const char* names[] = {"async_wait_readable", "async_wait(readable)",
                                  "async_wait(readable|priority)"};
    return names[static_cast<int>(k)];
}

template <class Handler>
void start(kind k, moor::registration& reg, Handler h) {
    if (k == kind::readable)
        reg.async_wait_readable(std::move(h));
    else if (k == kind::event)
        reg.async_wait(interest::readable, std::move(h));
    else
        reg.async_wait(interest::readable | interest::priority, std::move(h));
}

const asio::cancellation_type each_type[] = {asio::cancellation_type::terminal,
                                             asio::cancellation_type::partial,
                                             asio::cancellation_type::total};

} // namespace

BOOST_AUTO_TEST_SUITE(given_back)

BOOST_AUTO_TEST_CASE(a_wait_that_is_cancelled_between_its_event_and_its_handler) {
    test::tally results;
    for (kind k : each_kind)
        for (asio::cancellation_type type : each_type)
            for (moor::trigger t : test::both_triggers)
                for (int variant = 0; variant != 4; ++variant) {
                    const bool pends_too = variant % 2 != 0, is_ready_before = variant / 2 != 0;
                    asio::io_context io;
                    scene s(io, t, results);
                    if (is_ready_before)
                        s.make_ready();
                    results.run_ready(io);
                    asio::cancellation_signal signals[2];
                    test::outcome waits[2], late;
                    moor::registration* regs[] = {&s.a, &s.b};
                    // The first handler cancels the other wait, whose event is there too; and
                    // a wait may have begun meanwhile.
                    int winner = -1;
                    for (int i : {0, 1}) {
                        test::outcome c = waits[i];
                        auto handler = [&, c, i](error_code ec, auto&&...) {
                            c.handler()(ec);
                            if (winner != -1)
                                return;
                            winner = i;
                            if (pends_too)
                                regs[1 - i]->async_wait_readable(late.handler());
                            signals[1 - i].emit(type);
                        };
                        start(k, *regs[i],
                              asio::bind_cancellation_slot(signals[i].slot(), handler));
                    }
                    if (!is_ready_before) {
                        results.run_ready(io);
                        s.make_ready();
                    }
                    results.comes(io, [&] { return waits[0].times() + waits[1].times() == 2; });
                    auto name = [&] {
                        return std::string(test::name_of(t)) + ", " + name_of(k) +
                               (is_ready_before ? ", ready before" : ", pending") +
                               (pends_too ? ", another wait began" : "");
                    };
                    BOOST_REQUIRE(winner >= 0);
                    test::outcome& loser = waits[1 - winner];
                    results.check(!waits[winner].ec(), name(), ": the winner failed");
                    // A level-triggered wait takes nothing away, so that it may as well succeed.
                    results.check(loser.ec() == aborted ||
                                      (t == moor::trigger::level && !loser.ec()),
                                  name(), ": the cancelled wait ended with ", loser);
                    if (pends_too)
                        results.check(results.comes(io, [&] { return bool(late); }) && !late.ec(),
                                      name(), ": the wait that began meanwhile hangs");
                    else
                        s.check_next_wait_completes(*regs[1 - winner], name());
                }
}

BOOST_AUTO_TEST_CASE(a_wait_that_is_cancelled_while_its_completion_is_on_its_way) {
    // Ready at once; or its handler waits its turn on another executor.
    test::tally results;
    for (kind k : each_kind)
        for (moor::trigger t : test::both_triggers)
            for (bool is_elsewhere : {false, true})
                for (bool is_pending : {false, true}) {
                    if (is_pending && !is_elsewhere)
                        continue; // the event and the handler are one turn
                    asio::io_context io, other;
                    scene s(io, t, results);
                    asio::cancellation_signal signal;
                    test::outcome c;
                    auto begin = [&] {
                        asio::any_io_executor ex = io.get_executor();
                        if (is_elsewhere)
                            ex = other.get_executor();
                        start(k, s.a,
                              asio::bind_cancellation_slot(signal.slot(),
                                                           asio::bind_executor(ex, c.handler())));
                    };
                    if (is_pending)
                        begin();
                    results.run_ready(io);
                    s.make_ready();
                    results.run_ready(io);
                    if (!is_pending)
                        begin();
                    if (is_elsewhere)
                        results.run_ready(io);
                    signal.emit(asio::cancellation_type::total);
                    results.run_ready(io);
                    results.run_ready(other);
                    auto name = [&] {
                        return std::string(test::name_of(t)) + ", " + name_of(k) +
                               (is_elsewhere ? ", on another executor" : "") +
                               (is_pending ? ", pending" : ", ready");
                    };
                    results.check(c.times() == 1 &&
                                      (c.ec() == aborted || (t == moor::trigger::level && !c.ec())),
                                  name(), ": ended with ", c);
                    s.check_next_wait_completes(s.a, name());
                }
}

BOOST_AUTO_TEST_CASE(a_handler_that_waits_its_turn_on_a_strand) {
    test::tally results;
    asio::io_context io;
    scene s(io, moor::trigger::edge, results);
    auto strand = asio::make_strand(io);
    asio::cancellation_signal signal;
    test::outcome a, b;
    // Both handlers are for the strand: the second is queued there when the first emits.
    s.b.async_wait_readable(
        asio::bind_cancellation_slot(signal.slot(), asio::bind_executor(strand, b.handler())));
    s.a.async_wait_readable(asio::bind_executor(strand, [&, h = a.handler()](error_code ec) {
        if (!b)
            signal.emit(asio::cancellation_type::terminal);
        h(ec);
    }));
    results.run_ready(io);
    asio::post(strand, [&] { s.make_ready(); });
    results.check(results.comes(io, [&] { return a && b; }), "the waits hang");
    if (b.ec())
        s.check_next_wait_completes(s.b, "on a strand");
}

BOOST_AUTO_TEST_CASE(a_wait_that_one_event_completes_behind_another) {
    // Two waits on one handle: the handler of the first cancels the second, and nobody else takes
    // the event: what was given back is for the next.
    test::tally results;
    for (interest want : {interest::readable, interest::readable | interest::priority}) {
        asio::io_context io;
        scene s(io, moor::trigger::edge, results);
        asio::cancellation_signal signals[2];
        test::outcome waits[2];
        for (int i : {0, 1})
            s.a.async_wait(want, asio::bind_cancellation_slot(
                                     signals[i].slot(), [&, i](error_code ec, auto&&...) {
                                         if (!waits[1 - i])
                                             signals[1 - i].emit(asio::cancellation_type::total);
                                         waits[i].handler()(ec);
                                     }));
        results.run_ready(io);
        s.make_ready();
        results.check(results.comes(io, [&] { return waits[0] && waits[1]; }), "hangs");
        results.check((waits[0].ec() == aborted) != (waits[1].ec() == aborted), "ended with ",
                      waits[0], " and ", waits[1]);
    }
}

BOOST_AUTO_TEST_CASE(the_loser_of_a_parallel_group) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (int variant = 0; variant != 4; ++variant) {
            const bool reversed = variant % 2 != 0, is_ready_before = variant / 2 != 0;
            asio::io_context io;
            scene s(io, t, results);
            if (is_ready_before)
                s.make_ready();
            results.run_ready(io);
            moor::registration& first = reversed ? s.b : s.a;
            moor::registration& second = reversed ? s.a : s.b;
            std::array<std::size_t, 2> order{};
            std::array<error_code, 2> ecs{};
            bool is_over = false;
            asio::experimental::make_parallel_group(first.async_wait_readable(asio::deferred),
                                                    second.async_wait_readable(asio::deferred))
                .async_wait(asio::experimental::wait_for_one(),
                            [&](std::array<std::size_t, 2> o, error_code x, error_code y) {
                                order = o;
                                ecs = {x, y};
                                is_over = true;
                            });
            if (!is_ready_before) {
                results.run_ready(io);
                s.make_ready();
            }
            results.check(results.comes(io, [&] { return is_over; }), "the group hangs");
            results.check(!ecs[order[0]], "the winner failed: ", ecs[order[0]]);
            results.check(ecs[order[1]] == aborted || (t == moor::trigger::level && !ecs[order[1]]),
                          test::name_of(t), ": the loser ended with ", ecs[order[1]]);
            s.check_next_wait_completes(order[1] == 0 ? first : second, test::name_of(t));
        }
}

BOOST_AUTO_TEST_CASE(a_wait_that_loses_against_a_timer) {
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (bool timer_is_first : {false, true}) {
            asio::io_context io;
            scene s(io, t, results);
            asio::steady_timer timer(io, std::chrono::steady_clock::time_point::min());
            error_code of_wait;
            bool is_over = false;
            auto done = [&](error_code ec) {
                of_wait = ec;
                is_over = true;
            };
            s.make_ready();
            results.run_ready(io);
            using asio::experimental::make_parallel_group;
            using asio::experimental::wait_for_one;
            if (timer_is_first)
                make_parallel_group(timer.async_wait(asio::deferred),
                                    s.a.async_wait_readable(asio::deferred))
                    .async_wait(wait_for_one(), [&](auto, error_code, error_code ec) { done(ec); });
            else
                make_parallel_group(s.a.async_wait_readable(asio::deferred),
                                    timer.async_wait(asio::deferred))
                    .async_wait(wait_for_one(), [&](auto, error_code ec, error_code) { done(ec); });
            results.check(results.comes(io, [&] { return is_over; }), "the group hangs");
            if (of_wait)
                s.check_next_wait_completes(s.a, test::name_of(t), ", timer");
        }
}

BOOST_AUTO_TEST_CASE(what_was_drained_meanwhile_is_not_given_back) {
    test::tally results;
    asio::io_context io;
    scene s(io, moor::trigger::edge, results);
    asio::cancellation_signal signal;
    test::outcome c, late;
    test::put(s.p.b, "data");
    results.run_ready(io);
    s.a.async_wait_readable(asio::bind_cancellation_slot(signal.slot(), c.handler()));
    test::drain(s.p.a);
    while (s.a.try_io(interest::readable, test::reader{s.p.a})) {}
    signal.emit(asio::cancellation_type::total);
    results.run_ready(io);
    results.check(c.times() == 1, "the wait hangs");
    s.a.async_wait_readable(late.handler());
    test::put(s.p.b, "more");
    results.check(results.comes(io, [&] { return bool(late); }) && !late.ec(), "the next hangs");
}

BOOST_AUTO_TEST_CASE(an_operation_that_is_cancelled_between_its_event_and_its_call) {
    test::tally results;
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        scene s(io, t, results);
        asio::cancellation_signal signals[2];
        test::outcome done[2];
        std::string text[2];
        moor::registration* regs[] = {&s.a, &s.b};
        for (int i : {0, 1})
            regs[i]->async_io(interest::readable, test::reader{regs[i]->native_handle()},
                              asio::bind_cancellation_slot(
                                  signals[i].slot(), [&, i](error_code ec, std::string x) {
                                      text[i] = std::move(x);
                                      done[i].handler()(ec);
                                      signals[1 - i].emit(asio::cancellation_type::terminal);
                                  }));
        results.run_ready(io);
        s.make_ready();
        results.check(results.comes(io, [&] { return done[0] && done[1]; }), "hangs");
        for (int i : {0, 1}) {
            results.check(done[i].ec() ? done[i].ec() == aborted && text[i].empty()
                                       : text[i] == "data",
                          "ended with ", done[i], " and ", text[i]);
            if (done[i].ec())
                s.check_next_wait_completes(*regs[i], test::name_of(t), ", async_io");
        }
    }
}

BOOST_AUTO_TEST_CASE(cancel_takes_nothing_from_a_wait_that_has_its_event) {
    test::tally results;
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        scene s(io, t, results);
        test::outcome c;
        s.make_ready();
        results.run_ready(io);
        s.a.async_wait_readable(c.handler());
        s.a.cancel();
        results.check(results.comes(io, [&] { return bool(c); }), test::name_of(t), ": hangs");
        // Only epoll told of the event before there was a wait.
        results.check(!c.ec() || !test::on_epoll(), test::name_of(t), ": ", c);
        if (c.ec())
            s.check_next_wait_completes(s.a, test::name_of(t), ", cancel()");
    }
}

BOOST_AUTO_TEST_CASE(an_error_that_comes_and_goes_meanwhile_takes_nothing) {
    test::tally results;
    for (interest want : {interest::readable, interest::writable}) {
        asio::io_context io;
        test::fd_pair p = test::make_socketpair(SOCK_DGRAM);
        moor::registration reg(io, p.a.get(), moor::trigger::edge);
        test::outcome first, taken, beside[2], next;
        reg.async_wait(want, first.handler());
        if (want == interest::readable) {
            test::put(p.b, "x");
            results.check(results.comes(io, [&] { return bool(first); }), "the first wait");
            test::drain(p.a);
            test::put(p.b, "x");
        } else {
            results.check(results.comes(io, [&] { return bool(first); }), "the first wait");
            test::put(p.a, "x");
            test::drain(p.b);
        }
        test::put(p.a, "x"); // is dropped: an error
        results.check(test::disconnect(p.b.get()), "disconnect");
        results.run_ready(io); // the event is cached, as what was waited for
        asio::cancellation_signal signal;
        reg.async_wait(want, asio::bind_cancellation_slot(signal.slot(), taken.handler()));
        reg.async_wait(interest::error, beside[0].handler());
        const int error = test::take_error(p.a.get());
        results.check(error == ECONNRESET, "SO_ERROR: ", error);
        reg.async_wait(interest::error, beside[1].handler());
        signal.emit(asio::cancellation_type::terminal);
        results.check(results.comes(io, [&] { return bool(taken); }), want, ": hangs");
        results.check(taken.ec() == aborted, want, ": ", taken);
        reg.async_wait(want, next.handler());
        results.check(results.comes(io, [&] { return bool(next); }) && !next.ec(), want,
                      ": the next wait hangs");
        reg.deregister();
        results.run_ready(io);
    }
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

BOOST_AUTO_TEST_CASE(the_loser_of_two_waits_of_a_coroutine) {
    using namespace asio::experimental::awaitable_operators;
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (bool reversed : {false, true})
            for (int variant = 0; variant != 4; ++variant) {
                const bool in_strand = variant % 2 != 0, is_ready_before = variant / 2 != 0;
                asio::io_context io;
                scene s(io, t, results);
                if (is_ready_before)
                    s.make_ready();
                results.run_ready(io);
                moor::registration& first = reversed ? s.b : s.a;
                moor::registration& second = reversed ? s.a : s.b;
                int winner = -1;
                auto wait_for_both = [&]() -> asio::awaitable<void> {
                    auto r = co_await (first.async_wait_readable(asio::use_awaitable) ||
                                       second.async_wait_readable(asio::use_awaitable));
                    winner = static_cast<int>(r.index());
                };
                if (in_strand)
                    asio::co_spawn(asio::make_strand(io), wait_for_both, asio::detached);
                else
                    asio::co_spawn(io, wait_for_both, asio::detached);
                if (!is_ready_before) {
                    results.run_ready(io);
                    s.make_ready();
                }
                results.check(results.comes(io, [&] { return winner != -1; }), "hangs");
                s.check_next_wait_completes(winner == 0 ? second : first, test::name_of(t),
                                            in_strand ? ", in a strand" : "");
            }
}

#endif

#if __has_include(<boost/asio/cancel_after.hpp>)

BOOST_AUTO_TEST_CASE(a_wait_that_cancel_after_ends) {
    test::tally results;
    for (moor::trigger t : test::both_triggers) {
        asio::io_context io;
        scene s(io, t, results);
        test::outcome c;
        s.make_ready();
        results.run_ready(io);
        s.a.async_wait_readable(asio::cancel_after(std::chrono::seconds(0), c.handler()));
        results.check(results.comes(io, [&] { return bool(c); }), "hangs");
        if (c.ec())
            s.check_next_wait_completes(s.a, test::name_of(t), ", cancel_after");
    }
}

#endif

BOOST_AUTO_TEST_SUITE_END()
