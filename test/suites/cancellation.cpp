// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Cancelling: all of a registration, one direction, one operation; at every moment of a wait.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/operations.hpp"
#include "support/tracker.hpp"

#include <moor.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <atomic>
#include <initializer_list>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

BOOST_AUTO_TEST_SUITE(cancellation)

namespace asio = boost::asio;
using asio::cancellation_type;
using moor::interest;
using test::error_code;

constexpr auto aborted = asio::error::operation_aborted;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};
};

template <class Handler>
auto slotted(asio::cancellation_signal& s, Handler&& h) {
    return asio::bind_cancellation_slot(s.slot(), std::forward<Handler>(h));
}

using test::event_op;
using test::io_op;
using test::wait_op;

using all_operations = std::tuple<wait_op, event_op, io_op>;

// ---- cancel() ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(cancel_ends_every_pending_operation, Op, all_operations, fixture) {
    test::fill(p.a);
    test::called a, b, w;
    Op::start(reg, a.handler());
    Op::start(reg, b.handler());
    reg.async_wait_writable(w.handler());
    test::run_ready(io);
    reg.cancel();
    test::run_all(io);
    for (test::called* c : {&a, &b, &w}) {
        BOOST_TEST(c->times == 1);
        BOOST_TEST(c->ec == aborted);
    }
    // The registration goes on.
    BOOST_TEST(reg.is_registered());
    test::called again;
    Op::start(reg, again.handler());
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(again); });
    BOOST_TEST(!again.ec);
}

BOOST_FIXTURE_TEST_CASE(cancel_of_nothing_does_nothing, fixture) {
    reg.cancel();
    reg.cancel(moor::direction::read);
    moor::registration none(io);
    none.cancel();
    none.cancel(moor::direction::write);
    test::called done;
    reg.async_wait_readable(done.handler()); // begun after the cancel
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(cancel_of_one_direction_leaves_the_other, Op, all_operations,
                                 fixture) {
    test::fill(p.a);
    test::called r, w;
    Op::start(reg, r.handler());
    reg.async_wait_writable(w.handler());
    test::run_ready(io);
    reg.cancel(moor::direction::write);
    test::run_ready(io);
    BOOST_TEST(r.times == 0);
    BOOST_TEST(w.ec == aborted);
    test::called w2;
    reg.async_wait_writable(w2.handler());
    reg.cancel(moor::direction::read);
    test::run_ready(io);
    BOOST_TEST(r.times == 1);
    BOOST_TEST(r.ec == aborted);
    BOOST_TEST(w2.times == 0);
    test::drain(p.b);
    test::run_all(io);
    BOOST_TEST(!w2.ec);
}

BOOST_FIXTURE_TEST_CASE(cancel_of_one_direction_hits_a_wait_for_both, fixture) {
    test::fill(p.a);
    for (moor::direction d : {moor::direction::read, moor::direction::write}) {
        test::called both;
        reg.async_wait(interest::readable | interest::writable, both.handler());
        test::run_ready(io);
        BOOST_TEST(both.times == 0);
        reg.cancel(d);
        test::run_all(io);
        BOOST_TEST(both.ec == aborted);
    }
}

BOOST_FIXTURE_TEST_CASE(cancel_of_reading_hits_priority_and_closing_waits, fixture) {
    test::called pri, closed;
    reg.async_wait(interest::priority, pri.handler());
    reg.async_wait(interest::read_closed, closed.handler());
    test::run_ready(io);
    reg.cancel(moor::direction::write);
    test::run_ready(io);
    BOOST_TEST(pri.times == 0);
    BOOST_TEST(closed.times == 0);
    reg.cancel(moor::direction::read);
    test::run_all(io);
    BOOST_TEST(pri.ec == aborted);
    BOOST_TEST(closed.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(cancel_does_not_take_back_a_completed_operation, Op,
                                 all_operations, fixture) {
    test::put(p.b, "x");
    test::called primed;
    Op::start(reg, primed.handler());
    test::run_all(io);
    test::called done;
    reg.async_wait_readable(done.handler()); // ready: it is posted with success
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(!done.ec);
}

// ---- one operation -----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_signal_hits_its_own_operation_only, Op, all_operations,
                                 fixture) {
    asio::cancellation_signal signals[3];
    test::called calls[4]; // the last has no slot
    for (int i = 0; i != 3; ++i)
        Op::start(reg, slotted(signals[i], calls[i].handler()));
    Op::start(reg, calls[3].handler());
    test::run_ready(io);
    signals[1].emit(cancellation_type::total);
    test::run_ready(io);
    for (int i = 0; i != 4; ++i)
        BOOST_TEST(calls[i].times == (i == 1 ? 1 : 0));
    BOOST_TEST(calls[1].ec == aborted);
    test::put(p.b, "x");
    test::run_all(io);
    for (int i = 0; i != 4; ++i) {
        BOOST_TEST(calls[i].times == 1);
        BOOST_TEST(bool(calls[i].ec) == (i == 1));
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(an_emit_before_the_start_or_of_no_type_does_nothing, Op,
                                 all_operations, fixture) {
    asio::cancellation_signal signal;
    signal.emit(cancellation_type::total);
    test::called done;
    Op::start(reg, slotted(signal, done.handler()));
    test::run_ready(io);
    signal.emit(cancellation_type::none);
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_after_completion_before_the_handler_ran, Op, all_operations,
                                 fixture) {
    asio::cancellation_signal signals[4];
    test::called calls[4];
    for (int i = 0; i != 4; ++i)
        Op::start(reg, slotted(signals[i], calls[i].handler()));
    test::run_ready(io);
    test::put(p.b, "x");
    // The first completes; the others are already on their way.
    test::run_until(io, [&] {
        for (auto& c : calls)
            if (c)
                return true;
        return false;
    });
    for (auto& s : signals)
        s.emit(cancellation_type::total);
    test::run_all(io);
    int cancelled = 0;
    for (auto& c : calls) {
        BOOST_TEST(c.times == 1);
        BOOST_TEST((!c.ec || c.ec == aborted));
        cancelled += c.ec ? 1 : 0;
    }
    // A level-triggered wait is over with its event. An operation is over with its call, which is
    // made when its completion is run.
    BOOST_TEST(cancelled == (std::is_same<Op, io_op>::value ? 3 : 0));
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_after_the_handler_ran_hits_nothing, Op, all_operations,
                                 fixture) {
    asio::cancellation_signal signal;
    test::called done;
    Op::start(reg, slotted(signal, done.handler()));
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    test::drain(p.a);
    test::called next;
    Op::start(reg, next.handler()); // probably in the same memory
    test::run_ready(io);
    signal.emit(cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(next.times == 0);
    BOOST_TEST(done.times == 1);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!next.ec);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_slot_is_used_again_and_again, Op, all_operations, fixture) {
    asio::cancellation_signal signal;
    for (int i = 0; i != 20; ++i) {
        test::called done;
        Op::start(reg, slotted(signal, done.handler()));
        test::run_ready(io);
        BOOST_TEST(done.times == 0);
        if (i % 2) {
            signal.emit(cancellation_type::partial);
        } else {
            test::put(p.b, "x");
        }
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST((done.ec == aborted) == (i % 2 == 1));
        test::drain(p.a);
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_slot_is_used_again_from_within_the_handler, Op, all_operations,
                                 fixture) {
    asio::cancellation_signal signal;
    test::called second;
    Op::start(reg, slotted(signal, [&](error_code ec, auto...) {
                  BOOST_TEST(ec == aborted);
                  Op::start(reg, slotted(signal, second.handler()));
              }));
    test::run_ready(io);
    signal.emit(cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(second.times == 0);
    signal.emit(cancellation_type::total);
    test::run_all(io);
    BOOST_TEST(second.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_twice_completes_once, Op, all_operations, fixture) {
    asio::cancellation_signal signal;
    test::called done;
    Op::start(reg, slotted(signal, done.handler()));
    test::run_ready(io);
    signal.emit(cancellation_type::total);
    signal.emit(cancellation_type::terminal);
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(done.times == 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_from_inside_the_operations_own_handler, Op, all_operations,
                                 fixture) {
    asio::cancellation_signal signal;
    int times = 0;
    Op::start(reg, slotted(signal, [&](error_code ec, auto...) {
                  ++times;
                  BOOST_TEST(!ec);
                  signal.emit(cancellation_type::total);
              }));
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(times == 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_for_another_operation_from_inside_a_handler, Op,
                                 all_operations, fixture) {
    asio::cancellation_signal signal;
    test::called other;
    reg.async_wait(interest::priority, slotted(signal, other.handler()));
    Op::start(reg, [&](error_code, auto...) { signal.emit(cancellation_type::total); });
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(other.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_moved_registration_keeps_its_slots, Op, all_operations,
                                 fixture) {
    asio::cancellation_signal a, b;
    test::called first, second;
    Op::start(reg, slotted(a, first.handler()));
    Op::start(reg, slotted(b, second.handler()));
    test::run_ready(io);
    moor::registration moved(std::move(reg));
    BOOST_TEST(!reg.is_registered());
    a.emit(cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(first.ec == aborted);
    BOOST_TEST(second.times == 0);
    moor::registration assigned(io);
    assigned = std::move(moved);
    b.emit(cancellation_type::total);
    test::run_all(io);
    BOOST_TEST(second.ec == aborted);
    BOOST_TEST(assigned.native_handle() == p.a.get());
}

BOOST_FIXTURE_TEST_CASE(a_converted_registration_keeps_its_slots, fixture) {
    reg.deregister();
    moor::basic_registration<asio::io_context::executor_type> concrete(io, p.a.get());
    asio::cancellation_signal signal;
    test::called cancelled, completed;
    concrete.async_wait_readable(slotted(signal, cancelled.handler()));
    concrete.async_wait_readable(completed.handler());
    moor::registration any(std::move(concrete));
    signal.emit(cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(cancelled.ec == aborted);
    BOOST_TEST(completed.times == 0);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!completed.ec);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_after_the_registration_died, Op, all_operations, fixture) {
    asio::cancellation_signal signal;
    test::called done;
    {
        moor::registration dies(std::move(reg));
        Op::start(dies, slotted(signal, done.handler()));
        test::run_ready(io);
    }
    signal.emit(cancellation_type::total); // its handler has not run yet
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(done.ec == aborted);
    signal.emit(cancellation_type::total); // and after it has
    BOOST_TEST(done.times == 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(emit_after_deregistering_does_not_reach_the_next_registration, Op,
                                 all_operations, fixture) {
    asio::cancellation_signal signal;
    test::called first, second;
    Op::start(reg, slotted(signal, first.handler()));
    test::run_ready(io);
    reg.deregister();
    reg.register_handle(p.a.get()); // probably the same state, recycled, and the same ids
    Op::start(reg, second.handler());
    signal.emit(cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(first.ec == aborted);
    BOOST_TEST(second.times == 0);
    signal.emit(cancellation_type::total);
    test::run_ready(io);
    BOOST_TEST(second.times == 0);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!second.ec);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(emit_after_the_context_died, Op, all_operations) {
    test::fd_pair p = test::make_socketpair();
    asio::cancellation_signal signal;
    test::once h(test::expect::destroyed);
    {
        asio::io_context io;
        moor::registration reg(io, p.a.get());
        Op::start(reg, slotted(signal, h.handler()));
        test::run_ready(io);
    }
    signal.emit(cancellation_type::total);
    BOOST_TEST(h.destroyed());
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_cancelled_wait_leaves_the_waker_to_the_next, Op, all_operations,
                                 fixture) {
    for (int i = 0; i != 100; ++i) {
        asio::cancellation_signal signal;
        test::called done;
        Op::start(reg, slotted(signal, done.handler()));
        signal.emit(cancellation_type::total); // before a callable is called
        test::run_all(io);
        BOOST_REQUIRE(done.times == 1);
        BOOST_REQUIRE(done.ec == aborted);
    }
    test::called done;
    Op::start(reg, done.handler());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!done.ec);
}

// ---- while the callable of async_io runs -------------------------------------------------------

/// A callable that does something the first time, then would block; later it counts.
template <class During>
struct blocking {
    During during;
    int* calls;
    void operator()(error_code& ec) {
        if (++*calls == 1)
            during();
        ec = asio::error::would_block;
    }
};
template <class During>
blocking(During, int*) -> blocking<During>;

/// An operation whose callable ends it in some way, and then would block.
struct ended_within : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    std::unique_ptr<moor::registration> reg = std::make_unique<moor::registration>(io, p.a.get());
    asio::cancellation_signal signal;
    int calls = 0;
    test::called done;

    void check(void (*end)(ended_within&), error_code expected) {
        reg->async_io(interest::readable, blocking{[&] { end(*this); }, &calls},
                      slotted(signal, done.handler()));
        test::put(p.b, "x");
        test::run_all(io);
        BOOST_TEST(done.times == 1);
        BOOST_TEST(done.ec == expected);
        BOOST_TEST(calls == 1);
    }
};

BOOST_AUTO_TEST_CASE(what_ends_an_operation_while_its_callable_runs_is_not_lost) {
    struct way {
        const char* name;
        void (*end)(ended_within&);
        error_code expected = aborted;
    };
    for (const way& w : std::initializer_list<way>{
             {"signal", [](ended_within& o) { o.signal.emit(cancellation_type::total); }},
             {"cancel()", [](ended_within& o) { o.reg->cancel(); }},
             {"cancel(read)", [](ended_within& o) { o.reg->cancel(moor::direction::read); }},
             {"deregister()", [](ended_within& o) { o.reg->deregister(); }},
             // Registered anew at once: that is another registration.
             {"reset()", [](ended_within& o) { o.reg->reset(o.p.a.get()); }},
             {"destruction", [](ended_within& o) { o.reg.reset(); }},
             {"close()", [](ended_within& o) { moor::use_registration_service(o.io).close(); },
              moor::error::gone}})
        BOOST_TEST_CONTEXT(w.name) { ended_within().check(w.end, w.expected); }
}

BOOST_FIXTURE_TEST_CASE(cancel_of_the_other_direction_while_the_callable_runs_does_nothing,
                        fixture) {
    int calls = 0;
    test::called done;
    reg.async_io(interest::readable, blocking{[&] { reg.cancel(moor::direction::write); }, &calls},
                 done.handler());
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(done.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE(moving_while_the_callable_runs_changes_nothing, fixture) {
    auto owned = std::make_unique<moor::registration>(std::move(reg));
    std::unique_ptr<moor::registration> moved;
    int calls = 0;
    test::called done;
    owned->async_io(
        interest::readable,
        [&](error_code& ec) {
            if (++calls == 1) {
                moved = std::make_unique<moor::registration>(std::move(*owned));
                owned.reset();
            }
            return test::reader{p.a.get()}(ec);
        },
        done.handler());
    test::run_ready(io);
    BOOST_TEST(calls >= 1);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(a_result_beats_a_cancel_that_came_while_the_callable_ran, fixture) {
    asio::cancellation_signal signal;
    error_code seen = aborted;
    std::string got;
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            std::string s = test::reader{p.a.get()}(ec);
            if (!ec) {
                signal.emit(cancellation_type::total);
                reg.cancel();
            }
            return s;
        },
        slotted(signal, [&](error_code ec, std::string s) {
            seen = ec;
            got = s;
        }));
    test::put(p.b, "data");
    test::run_all(io);
    BOOST_TEST(!seen);
    BOOST_TEST(got == "data");
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_operation_does_not_call_its_callable_any_more, fixture) {
    int calls = 0;
    asio::cancellation_signal signal;
    test::called one, all, both;
    auto callable = [&](error_code&) { ++calls; };
    test::put(p.b, "x");
    reg.async_io(interest::readable, callable, slotted(signal, one.handler()));
    reg.async_io(interest::readable, callable, all.handler());
    signal.emit(cancellation_type::total);
    reg.cancel();
    reg.async_io(interest::readable, callable, both.handler());
    reg.deregister();
    test::run_all(io);
    BOOST_TEST(one.ec == aborted);
    BOOST_TEST(all.ec == aborted);
    BOOST_TEST(both.ec == aborted);
    BOOST_TEST(calls == 0);
}

BOOST_FIXTURE_TEST_CASE(a_woken_operation_that_is_cancelled_before_its_turn_is_not_called,
                        fixture) {
    // Two are woken by one event; the first one's handler cancels the second, which is queued.
    asio::cancellation_signal signal;
    int calls = 0;
    test::called first, second;
    reg.async_wait_readable([&](error_code ec) {
        first.handler()(ec);
        signal.emit(cancellation_type::total);
    });
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            ++calls;
            ec = asio::error::would_block;
        },
        slotted(signal, second.handler()));
    test::run_ready(io);
    int before = calls;
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(first.times == 1);
    BOOST_TEST(second.ec == aborted);
    BOOST_TEST(calls == before);
}

BOOST_FIXTURE_TEST_CASE(a_cancel_finds_an_operation_whose_callable_waits_on_another_executor,
                        fixture) {
    asio::io_context other;
    asio::cancellation_signal signal;
    int calls = 0;
    test::called done;
    reg.async_io(
        interest::readable, [&](error_code&) { ++calls; },
        slotted(signal, asio::bind_executor(other, done.handler())));
    test::put(p.b, "x");
    io.poll(); // the callable is queued in `other` now
    signal.emit(cancellation_type::total);
    test::run_all(other);
    BOOST_TEST(done.ec == aborted);
    BOOST_TEST(calls == 0);
}

// ---- racing ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(cancel_races_completion, Op, all_operations) {
    test::fd_pair p = test::make_socketpair();
    asio::thread_pool pool(1);
    moor::registration reg(pool, p.a.get());
    int rounds = 2000, completed = 0, cancelled = 0;
    for (int i = 0; i != rounds; ++i) {
        std::atomic<int> times{0};
        error_code seen;
        Op::start(reg, [&](error_code ec, auto...) {
            seen = ec;
            times.fetch_add(1, std::memory_order_release);
        });
        test::put(p.b, "x");
        reg.cancel();
        BOOST_REQUIRE(test::wait_for([&] { return times.load(std::memory_order_acquire) != 0; }));
        BOOST_REQUIRE_EQUAL(times.load(), 1);
        BOOST_REQUIRE((!seen || seen == aborted));
        ++(seen ? cancelled : completed);
        test::drain(p.a);
    }
    BOOST_TEST(completed + cancelled == rounds);
    pool.join();
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_signal_races_completion, Op, all_operations) {
    // Asio's slots are not thread-safe: emitting and completing share an executor, the event does
    // not. The strand is that executor; a second thread writes.
    test::fd_pair p = test::make_socketpair();
    asio::thread_pool pool(2);
    auto strand = asio::make_strand(pool.get_executor());
    moor::registration reg(pool, p.a.get());
    for (int i = 0; i != 1000; ++i) {
        asio::cancellation_signal signal;
        std::atomic<int> over{0};
        error_code seen;
        asio::post(strand, [&] {
            Op::start(reg, asio::bind_executor(strand, slotted(signal, [&](error_code ec, auto...) {
                                                   seen = ec;
                                                   ++over;
                                               })));
            asio::post(strand, [&] {
                signal.emit(cancellation_type::total);
                ++over;
            });
        });
        test::put(p.b, "x");
        BOOST_REQUIRE(test::wait_for([&] { return over == 2; }));
        BOOST_REQUIRE((!seen || seen == aborted));
        test::drain(p.a);
    }
    pool.join();
}

BOOST_AUTO_TEST_CASE(cancel_races_the_callable) {
    test::fd_pair p = test::make_socketpair();
    asio::thread_pool pool(1);
    moor::registration reg(pool, p.a.get());
    for (int i = 0; i != 1000; ++i) {
        std::atomic<bool> inside{false};
        std::atomic<int> over{0};
        error_code seen;
        reg.async_io(
            interest::readable,
            [&](error_code& ec) {
                inside = true;
                ec = asio::error::would_block;
            },
            [&](error_code ec) {
                seen = ec;
                ++over;
            });
        test::put(p.b, "x");
        BOOST_REQUIRE(test::wait_for([&] { return inside.load(); }));
        reg.cancel(); // in the callable, after it, or pending already: never lost
        BOOST_REQUIRE(test::wait_for([&] { return over != 0; }));
        BOOST_REQUIRE(seen == aborted);
        test::drain(p.a);
    }
    pool.join();
}

BOOST_AUTO_TEST_SUITE_END()
