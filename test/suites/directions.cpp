// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Calls that say which direction the next call waits for (`wait_for`), and calls whose would-block
// says nothing of the descriptor (`ask_kernel`).

#include "support/changer.hpp"
#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/dice.hpp"
#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/sanitizers.hpp"
#include "support/vocabulary.hpp"
#include "support/waiting.hpp"

#include <moor/readiness.hpp>
#include <moor/registration.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(directions)

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::called;
using test::error_code;

/// One type for all calls but a few, so that the suite compiles quickly.
using any_call = std::function<moor::drainable<int>(error_code&)>;

constexpr interest both = interest::readable | interest::writable;

/// What poll(2) has of these now.
bool is_there(int fd, interest want) {
    ::pollfd p = {fd, static_cast<short>(test::bits_of(want, fd)), 0};
    return ::poll(&p, 1, 0) == 1;
}

const char* name_of(bool is_warm) { return is_warm ? ", waited for before" : ", fresh"; }

/// A registration, and a call that says what it waits for until it has nothing more to say.
struct scene {
    test::context_fixture context;
    asio::io_context& io = context.io;
    test::fd_pair p = test::make_socketpair();
    trigger mode;
    moor::registration reg;
    std::vector<interest> says;
    std::size_t calls = 0;
    called done;
    int value = 0;

    /// `is_warm`: both directions have been waited for, and were ready.
    explicit scene(trigger t, bool is_warm = false) : mode(t), reg(io, p.a.get(), t) {
        if (!is_warm)
            return;
        test::check_writable(io, reg);
        test::put(p.b, "x");
        test::check_readable(io, reg);
        test::drain(p.a);
        test::run_ready(io);
        reg.clear(reg.ready(both)); // otherwise news to an edge-triggered wait
    }
    ~scene() {
        reg.cancel();
        test::run_all(io);
    }

    any_call call() {
        return [this](error_code&) -> moor::drainable<int> {
            if (calls++ < says.size())
                return moor::wait_for(says[calls - 1]);
            return {static_cast<int>(calls)};
        };
    }
    void start(interest first, std::vector<interest> what) {
        says = std::move(what);
        reg.async_io(first, call(), [this](error_code ec, int n) {
            value = n;
            done.handler()(ec);
        });
    }

    void make_ready(interest d) {
        if (d.is_readable())
            test::put(p.b, "x");
        if (d.is_writable())
            BOOST_REQUIRE_NE(test::drain(p.b), 0u);
    }
    void exhaust(interest d) {
        if (d.is_readable())
            test::drain(p.a);
        if (d.is_writable())
            test::fill(p.a);
    }

    void check_waits(std::size_t after_calls) {
        test::check_pends(io, done);
        BOOST_TEST(calls == after_calls);
    }
    void check_ends(std::size_t after_calls) {
        test::check_completes(io, done);
        BOOST_TEST(calls == after_calls);
        BOOST_TEST(value == static_cast<int>(after_calls));
    }
};

/// Calls f(scene, from, to) for each trigger and each change of direction. Neither direction is
/// ready.
template <class F>
void for_each_change(F f) {
    for (trigger t : test::both_triggers)
        for (bool is_warm : {false, true})
            for (bool reads : {false, true})
                BOOST_TEST_CONTEXT(test::name_of(t) << name_of(is_warm)
                                                    << (reads ? ", then reads" : ", then writes")) {
                    scene s(t, is_warm);
                    s.exhaust(both);
                    if (reads)
                        f(s, interest(interest::writable), interest(interest::readable));
                    else
                        f(s, interest(interest::readable), interest(interest::writable));
                }
}

moor::direction direction_of(interest d) {
    return d.is_readable() ? moor::direction::read : moor::direction::write;
}

template <class Handler>
void wait_for_one(moor::registration& reg, interest d, Handler h) {
    if (d.is_readable())
        reg.async_wait_readable(std::move(h));
    else
        reg.async_wait_writable(std::move(h));
}

// ---- wait_for ----------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(the_next_call_is_made_for_the_new_direction_and_not_for_the_old_one) {
    for_each_change([](scene& s, interest from, interest to) {
        s.start(from, {to});
        s.check_waits(1);
        s.make_ready(from);
        s.check_waits(1);
        s.make_ready(to);
        s.check_ends(2);
    });
}

BOOST_AUTO_TEST_CASE(a_direction_may_change_again_and_again) {
    for_each_change([](scene& s, interest from, interest to) {
        const std::vector<interest> all = {to, from, to, to, from, from, to};
        any_call call = [&](error_code&) -> moor::drainable<int> {
            s.exhaust(both);
            if (s.calls == all.size())
                return {1};
            return moor::wait_for(all[s.calls++]);
        };
        s.reg.async_io(from, std::move(call), s.done.handler());
        for (std::size_t n = 1; n <= all.size(); ++n) {
            const interest next = all[n - 1];
            s.check_waits(n);
            s.make_ready(both - next);
            s.check_waits(n);
            s.make_ready(next);
        }
        test::check_completes(s.io, s.done);
    });
}

BOOST_AUTO_TEST_CASE(readiness_of_the_old_direction_is_not_lost) {
    for (bool is_pending : {false, true})
        for_each_change([&](scene& s, interest from, interest to) {
            s.start(from, {to});
            s.check_waits(1);
            called other;
            if (is_pending) {
                wait_for_one(s.reg, from, other.handler());
                test::check_pends(s.io, other);
            }
            s.make_ready(from);
            s.check_waits(1);
            if (!is_pending)
                wait_for_one(s.reg, from, other.handler());
            test::check_completes(s.io, other);
            s.make_ready(to);
            s.check_ends(2);
        });
}

BOOST_AUTO_TEST_CASE(readiness_that_the_call_was_made_for_is_not_lost) {
    // The call is made because the old direction is ready, and does not use it.
    for_each_change([](scene& s, interest from, interest to) {
        s.make_ready(from);
        s.start(from, {to});
        s.check_waits(1);
        called other;
        wait_for_one(s.reg, from, other.handler());
        test::check_completes(s.io, other);
        s.make_ready(to);
        s.check_ends(2);
    });
}

BOOST_AUTO_TEST_CASE(a_call_is_made_again_at_once_if_the_new_direction_is_ready) {
    // A call that has not tried the new direction, as a state machine's: it must not hang.
    for_each_change([](scene& s, interest from, interest to) {
        s.make_ready(to);
        s.start(from, {to});
        s.check_ends(2);
    });
    for_each_change([](scene& s, interest from, interest to) {
        s.make_ready(both);
        s.start(from, {to, from, to, from, to, from, to});
        s.check_ends(8);
    });
}

BOOST_AUTO_TEST_CASE(a_new_direction_that_becomes_ready_during_the_call_is_not_missed) {
    for_each_change([](scene& s, interest from, interest to) {
        s.reg.async_io(from, any_call([&](error_code&) -> moor::drainable<int> {
                           if (++s.calls == 2)
                               return {2};
                           s.make_ready(to); // after the call has tried it
                           return moor::wait_for(to);
                       }),
                       [&](error_code ec, int n) {
                           s.value = n;
                           s.done.handler()(ec);
                       });
        s.check_ends(2);
    });
}

BOOST_AUTO_TEST_CASE(a_call_may_wait_for_both_directions) {
    for_each_change([](scene& s, interest from, interest to) {
        any_call call = [&](error_code&) -> moor::drainable<int> {
            if (++s.calls == 3)
                return {3};
            s.exhaust(both);
            return moor::wait_for(both);
        };
        s.reg.async_io(from, std::move(call), s.done.handler());
        s.check_waits(1);
        s.make_ready(to);
        s.check_waits(2);
        s.make_ready(from);
        test::check_completes(s.io, s.done);
        BOOST_TEST(s.calls == 3u);
    });
    for_each_change([](scene& s, interest from, interest to) {
        s.start(both, {to, both, from});
        s.make_ready(to);
        test::run_ready(s.io);
        BOOST_TEST(s.calls == 3u); // for both: one of them is ready
        s.make_ready(from);
        s.check_ends(4);
    });
}

BOOST_AUTO_TEST_CASE(a_call_that_waits_for_nothing_fails) {
    for_each_change([](scene& s, interest from, interest) {
        s.start(from, {interest()});
        test::check_fails(s.io, s.done, asio::error::invalid_argument);
        BOOST_TEST(s.calls == 1u);
        BOOST_TEST(s.value == 0);
        s.make_ready(interest::readable);
        test::run_ready(s.io);
        s.calls = 0;
        auto r = s.reg.poll_read_io([] {}, s.call());
        BOOST_TEST((r.error() == asio::error::invalid_argument));
        s.calls = 0;
        r = s.reg.try_io(interest::readable, s.call());
        BOOST_TEST((r.error() == asio::error::invalid_argument));
        BOOST_TEST(s.calls == 1u);
        test::check_readable(s.io, s.reg);
    });
}

BOOST_AUTO_TEST_CASE(an_error_counts_more_than_what_the_call_waits_for) {
    for_each_change([](scene& s, interest from, interest to) {
        auto fails = [&](error_code& ec) -> moor::drainable<int> {
            ec = asio::error::connection_reset;
            return moor::wait_for(to);
        };
        s.reg.async_io(from, any_call(fails), s.done.handler());
        test::check_fails(s.io, s.done, asio::error::connection_reset);
    });
}

template <class R, class Call, class Check>
void check_result(Call call, Check check) {
    scene s(trigger::level);
    s.exhaust(interest::writable);
    s.reg.async_io(
        interest::readable,
        [&](error_code&) -> moor::drainable<R> {
            if (++s.calls == 1)
                return moor::wait_for(interest::writable);
            return call();
        },
        [&](error_code ec, auto... value) {
            s.done.handler()(ec);
            check(std::move(value)...);
        });
    s.check_waits(1);
    s.make_ready(interest::writable);
    test::check_completes(s.io, s.done);
    BOOST_TEST(s.calls == 2u);
}

BOOST_AUTO_TEST_CASE(the_result_is_that_of_the_last_call) {
    check_result<void>([] { return moor::drainable<void>(); }, [] {});
    using pointer = std::unique_ptr<int>;
    check_result<pointer>([] { return moor::drainable<pointer>{std::make_unique<int>(7)}; },
                          [](pointer p) {
                              BOOST_REQUIRE(p);
                              BOOST_TEST(*p == 7);
                          });
}

// ---- how it ends ------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(each_type_of_cancellation_ends_an_operation_that_has_changed_its_direction) {
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total})
        for_each_change([&](scene& s, interest from, interest to) {
            asio::cancellation_signal signal;
            s.says = {to};
            s.reg.async_io(from, s.call(),
                           asio::bind_cancellation_slot(signal.slot(), s.done.handler()));
            s.check_waits(1);
            signal.emit(type);
            test::check_fails(s.io, s.done, test::aborted);
            s.make_ready(to);
            test::run_ready(s.io);
            BOOST_TEST(s.calls == 1u);
        });
}

BOOST_AUTO_TEST_CASE(cancel_meets_the_new_direction_and_not_the_old_one) {
    for_each_change([](scene& s, interest from, interest to) {
        s.start(from, {to});
        s.check_waits(1);
        s.reg.cancel(direction_of(from));
        s.check_waits(1);
        s.reg.cancel(direction_of(to));
        test::check_fails(s.io, s.done, test::aborted);
        BOOST_TEST(s.calls == 1u);
    });
}

BOOST_AUTO_TEST_CASE(a_cancellation_during_the_call_takes_effect_if_the_call_would_block) {
    // It was for the direction that the operation waited for when the call began.
    for (bool is_ready : {false, true})
        for_each_change([&](scene& s, interest from, interest to) {
            if (is_ready)
                s.make_ready(to);
            s.reg.async_io(from, any_call([&](error_code&) -> moor::drainable<int> {
                               ++s.calls;
                               s.reg.cancel(direction_of(from));
                               return moor::wait_for(to);
                           }),
                           s.done.handler());
            test::check_fails(s.io, s.done, test::aborted);
            BOOST_TEST(s.calls == 1u);
        });
}

BOOST_AUTO_TEST_CASE(the_end_of_the_registration_ends_an_operation_that_has_changed_its_direction) {
    for_each_change([](scene& s, interest from, interest to) {
        s.start(from, {to});
        s.check_waits(1);
        s.reg.deregister();
        test::check_fails(s.io, s.done, test::aborted);
        BOOST_TEST(s.calls == 1u);
    });
    for_each_change([](scene& s, interest from, interest to) {
        s.start(from, {to});
        s.check_waits(1);
        moor::use_registration_service(s.io).close();
        test::check_fails(s.io, s.done, test::gone);
        BOOST_TEST(s.calls == 1u);
    });
}

BOOST_AUTO_TEST_CASE(a_context_that_is_destroyed_destroys_the_operation) {
    for (trigger t : test::both_triggers)
        for (bool asks : {false, true}) {
            test::fd_pair p = test::make_socketpair();
            test::fill(p.a);
            auto owned = std::make_shared<int>(0);
            called done;
            {
                asio::io_context io;
                moor::registration reg(io, p.a.get(), t);
                any_call call = [owned](error_code& ec) -> moor::drainable<int> {
                    ec = error_code();
                    ++*owned;
                    return moor::wait_for(interest::writable);
                };
                if (asks)
                    reg.async_io(interest::readable, moor::ask_kernel, std::move(call),
                                 done.handler());
                else
                    reg.async_io(interest::readable, std::move(call), done.handler());
                test::run_ready(io);
                BOOST_TEST(*owned == 1);
                BOOST_TEST(owned.use_count() == 2);
            }
            BOOST_TEST(owned.use_count() == 1);
            BOOST_TEST(done.times == 0);
        }
}

BOOST_AUTO_TEST_CASE(two_operations_may_cross_their_directions) {
    for_each_change([](scene& s, interest from, interest to) {
        int others = 0;
        called other;
        s.start(from, {to});
        s.reg.async_io(to, any_call([&](error_code&) -> moor::drainable<int> {
                           if (++others == 1)
                               return moor::wait_for(from);
                           return {others};
                       }),
                       other.handler());
        s.check_waits(1);
        BOOST_TEST(others == 1);
        s.make_ready(from);
        test::check_completes(s.io, other);
        BOOST_TEST(others == 2);
        s.check_waits(1);
        s.make_ready(to);
        s.check_ends(2);
    });
}

// ---- try_io and the polling interface -----------------------------------------------------------

BOOST_AUTO_TEST_CASE(try_io_drops_what_the_call_found_to_be_blocked) {
    for (trigger t : test::both_triggers)
        BOOST_TEST_CONTEXT(test::name_of(t)) {
            scene s(t, true);
            s.make_ready(interest::readable);
            test::check_readable(s.io, s.reg);
            test::run_ready(s.io); // the same event may have told of room
            BOOST_TEST(s.reg.ready(interest::readable).is_readable());
            test::fill(s.p.a);
            s.says = {interest::writable};
            auto r = s.reg.try_io(interest::readable, s.call());
            BOOST_TEST((r.error() == asio::error::would_block));
            BOOST_TEST(s.calls == 1u);
            BOOST_TEST(s.reg.ready(both).ready() == interest::readable);
            if (t == trigger::edge)
                continue; // what the reactor has remembered of room may be told once
            called done;
            s.reg.async_wait_writable(done.handler());
            test::check_pends(s.io, done);
            s.make_ready(interest::writable);
            test::check_completes(s.io, done);
        }
}

BOOST_AUTO_TEST_CASE(a_wait_after_try_io_completes_if_the_call_has_not_tried_what_it_waits_for) {
    for (bool is_warm : {false, true}) {
        scene s(trigger::level, is_warm);
        s.make_ready(interest::readable);
        s.says = {interest::writable};
        BOOST_TEST(
            (s.reg.try_io(interest::readable, s.call()).error() == asio::error::would_block));
        test::check_writable(s.io, s.reg);
    }
}

BOOST_AUTO_TEST_CASE(a_kept_waker_waits_for_what_the_call_waits_for) {
    for_each_change([](scene& s, interest from, interest to) {
        int wakes = 0;
        s.says = {to};
        auto poll = [&] {
            return from.is_readable() ? s.reg.poll_read_io([&] { ++wakes; }, s.call())
                                      : s.reg.poll_write_io([&] { ++wakes; }, s.call());
        };
        // Without news, the call need not be made.
        if (poll().error() == asio::error::would_block && s.calls == 0) {
            s.make_ready(from);
            test::run_until(s.io, [&] { return wakes == 1; });
            BOOST_TEST((poll().error() == asio::error::would_block));
            s.exhaust(from);
        }
        wakes = 0;
        BOOST_TEST(s.calls == 1u);
        s.make_ready(from);
        test::run_ready(s.io);
        BOOST_TEST(wakes == 0);
        s.reg.cancel(direction_of(from));
        test::run_ready(s.io);
        BOOST_TEST(wakes == 0);
        s.make_ready(to);
        test::run_until(s.io, [&] { return wakes == 1; });
        BOOST_TEST(s.calls == 1u);
        auto r = poll();
        BOOST_REQUIRE(r.has_value());
        BOOST_TEST(*r == 2);
    });
}

BOOST_AUTO_TEST_CASE(the_polling_interface_calls_again_if_the_new_direction_is_ready) {
    for_each_change([](scene& s, interest, interest) {
        s.make_ready(both);
        test::run_ready(s.io);
        s.says = {interest::writable, interest::readable, interest::writable};
        auto r = s.reg.poll_read_io([] {}, s.call());
        BOOST_REQUIRE(r.has_value());
        BOOST_TEST(*r == 4);
    });
}

// ---- ask_kernel ---------------------------------------------------------------------------------

/// A call that refuses a number of times, whatever the descriptor has.
struct refusing {
    std::size_t refusals;
    std::size_t calls = 0;
    std::function<void()> during = [] {};

    any_call call() {
        return [this](error_code& ec) -> moor::drainable<int> {
            ++calls;
            during();
            if (calls > refusals)
                return {static_cast<int>(calls)};
            ec = asio::error::try_again;
            return {};
        };
    }
};

BOOST_AUTO_TEST_CASE(a_refused_call_is_made_again_while_the_kernel_reports_the_descriptor) {
    for (trigger t : test::both_triggers)
        for (bool is_warm : {false, true})
            for (interest want : {interest(interest::readable), interest(interest::writable), both})
                BOOST_TEST_CONTEXT(test::name_of(t) << name_of(is_warm) << ", " << want) {
                    scene s(t, is_warm);
                    s.make_ready(want & interest::readable);
                    refusing r{40};
                    const test::call_counts before = test::counts();
                    s.reg.async_io(want, moor::ask_kernel, r.call(), s.done.handler());
                    test::check_completes(s.io, s.done);
                    BOOST_TEST(r.calls == 41u);
                    BOOST_TEST((test::counts() - before).poll == 40);
                }
}

BOOST_AUTO_TEST_CASE(a_refused_call_waits_while_the_kernel_reports_nothing) {
    for_each_change([](scene& s, interest from, interest to) {
        refusing r{2};
        s.reg.async_io(to, moor::ask_kernel, r.call(), s.done.handler());
        const test::call_counts before = test::counts();
        test::check_pends(s.io, s.done);
        s.make_ready(from); // no event of interest
        test::check_pends(s.io, s.done);
        BOOST_TEST(r.calls == 1u);
        s.make_ready(to);
        test::check_completes(s.io, s.done);
        BOOST_TEST(r.calls == 3u);
        BOOST_TEST((test::counts() - before).poll <= 5); // the first waits ask, too
    });
}

BOOST_AUTO_TEST_CASE(an_event_during_the_refused_call_is_not_missed) {
    for_each_change([](scene& s, interest, interest to) {
        refusing r{1};
        r.during = [&] {
            if (r.calls == 1)
                s.make_ready(to);
        };
        s.reg.async_io(to, moor::ask_kernel, r.call(), s.done.handler());
        test::check_completes(s.io, s.done);
        BOOST_TEST(r.calls == 2u);
    });
}

BOOST_AUTO_TEST_CASE(a_refused_call_may_wait_for_the_other_direction) {
    for_each_change([](scene& s, interest from, interest to) {
        s.make_ready(from);
        s.says = {to, to};
        s.reg.async_io(from, moor::ask_kernel, s.call(), s.done.handler());
        test::check_pends(s.io, s.done);
        BOOST_TEST(s.calls == 1u);
        s.make_ready(to);
        test::check_completes(s.io, s.done); // the kernel reports it, although the call refuses
        BOOST_TEST(s.calls == 3u);
    });
}

BOOST_AUTO_TEST_CASE(a_library_that_refuses_leaves_a_turn_to_others) {
    for (trigger t : test::both_triggers) {
        scene s(t);
        s.make_ready(interest::readable);
        refusing r{1000000};
        s.reg.async_io(interest::readable, moor::ask_kernel, r.call(), s.done.handler());
        bool has_run = false;
        r.during = [&] {
            if (r.calls == 1)
                asio::post(s.io, [&] {
                    has_run = true;
                    r.refusals = r.calls + 2;
                });
        };
        test::check_completes(s.io, s.done);
        BOOST_TEST(has_run);
        BOOST_TEST(r.calls == 16u + 3u);
    }
}

BOOST_AUTO_TEST_CASE(an_operation_can_be_cancelled_while_its_library_refuses) {
    enum class by { direction, slot, itself, deregistration };
    for (trigger t : test::both_triggers)
        for (by how : {by::direction, by::slot, by::itself, by::deregistration}) {
            scene s(t);
            s.make_ready(interest::readable);
            refusing r{1000000};
            asio::cancellation_signal signal;
            s.reg.async_io(interest::readable, moor::ask_kernel, r.call(),
                           asio::bind_cancellation_slot(signal.slot(), s.done.handler()));
            auto end = [&] {
                if (how == by::slot)
                    signal.emit(asio::cancellation_type::partial);
                else if (how == by::deregistration)
                    s.reg.deregister();
                else
                    s.reg.cancel(moor::direction::read);
            };
            r.during = [&] {
                if (r.calls == 5 && how == by::itself)
                    end();
                else if (r.calls == 5)
                    asio::post(s.io, end);
            };
            test::check_fails(s.io, s.done, test::aborted);
            BOOST_TEST(r.calls == (how == by::itself ? 5u : 16u));
        }
}

BOOST_AUTO_TEST_CASE(a_number_that_is_closed_during_a_refused_call_is_reported) {
    for_each_change([](scene& s, interest from, interest to) {
        refusing r{1000000};
        for (bool asks : {true, false}) {
            test::fd_pair q = test::make_socketpair();
            test::put(q.b, "x");
            s.reg = moor::registration(s.io, q.a.get(), s.mode);
            auto close = [&] { q.a.close(); };
            s.done = called();
            if (asks) {
                r.during = [&] {
                    if (r.calls == 5)
                        close();
                };
                s.reg.async_io(from, moor::ask_kernel, r.call(), s.done.handler());
            } else {
                s.reg.async_io(from, any_call([&](error_code&) -> moor::drainable<int> {
                                   close();
                                   return moor::wait_for(to);
                               }),
                               s.done.handler());
            }
            test::check_fails(s.io, s.done, test::bad_descriptor);
            s.reg.abandon();
        }
        BOOST_TEST(r.calls == 5u);
    });
}

BOOST_AUTO_TEST_CASE(a_regular_file_is_always_ready) {
    for (trigger t : test::both_triggers) {
        asio::io_context io;
        std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), &std::fclose);
        BOOST_REQUIRE(file);
        moor::registration reg(io, ::fileno(file.get()), t);
        refusing r{40};
        called asked, trusted;
        reg.async_io(interest::readable, moor::ask_kernel, r.call(), asked.handler());
        test::check_completes(io, asked);
        BOOST_TEST(r.calls == 41u);
        // A would-block of its own, whatever the direction, is a mistake.
        reg.async_io(interest::readable, any_call([](error_code&) -> moor::drainable<int> {
                         return moor::wait_for(interest::writable);
                     }),
                     trusted.handler());
        test::check_fails(io, trusted, asio::error::operation_not_supported);
    }
}

BOOST_AUTO_TEST_CASE(a_change_that_is_told_once_makes_a_refused_call_once) {
    test::changer c;
    if (!c.exists()) {
        BOOST_TEST_MESSAGE("no mounts of our own");
        return;
    }
    for (trigger t : test::both_triggers)
        for (int how : {0, 1, 2, 3}) {
            const bool is_shared = how % 2 != 0, is_in_set = how / 2 != 0;
            BOOST_TEST_CONTEXT(test::name_of(t) << (is_shared ? ", beside a wait" : "")
                                                << (is_in_set ? ", in an epoll set" : "")) {
                test::context_fixture context;
                asio::io_context& io = context.io;
                test::unique_fd file(
                    ::open(c.file("mountinfo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
                test::unique_fd set(::epoll_create1(EPOLL_CLOEXEC));
                ::epoll_event e{};
                e.events = EPOLLPRI;
                BOOST_REQUIRE_EQUAL(::epoll_ctl(set, EPOLL_CTL_ADD, file, &e), 0);
                const interest want = is_in_set ? interest::readable : interest::priority;
                moor::registration reg(io, is_in_set ? set.get() : file.get(), t);
                refusing r{1000000};
                called done, wait, told;
                reg.async_io(want, moor::ask_kernel, r.call(), done.handler());
                test::check_pends(io, done);
                const std::size_t at_start = r.calls; // the file tells what it never told
                BOOST_TEST(at_start <= 2u);
                if (is_shared) {
                    reg.async_wait(want, wait.handler());
                    test::check_pends(io, wait);
                }
                BOOST_REQUIRE(c.change_mounts());
                test::run_until(io, [&] { return r.calls != at_start; });
                test::check_pends(io, done);
                BOOST_TEST(r.calls <= at_start + 2); // the reactor tells it, and poll(2) may
                if (is_shared)
                    test::check_completes(io, wait);
                // The readiness check behind the call finds a change that a wait waits for, too.
                r.refusals = r.calls + 1;
                r.during = [&] {
                    if (r.calls != r.refusals)
                        return;
                    if (is_shared)
                        reg.async_wait(want, told.handler());
                    BOOST_REQUIRE(c.change_mounts());
                };
                BOOST_REQUIRE(c.change_mounts());
                test::check_completes(io, done);
                if (is_shared)
                    test::check_completes(io, told);
            }
        }
}

// ---- counts -------------------------------------------------------------------------------------

/// What a number of events cost, each of which leads to one call. The call exhausts its direction
/// and waits for the other one, or it refuses.
test::call_counts cost_of(trigger t, int events, bool asks) {
    scene s(t, true);
    s.exhaust(both);
    bool is_over = false;
    interest next = interest::readable;
    any_call call = [&](error_code& ec) -> moor::drainable<int> {
        ++s.calls;
        if (is_over)
            return {1};
        s.exhaust(next);
        if (asks) {
            ec = asio::error::would_block;
            return {};
        }
        next = both - next;
        return moor::wait_for(next);
    };
    if (asks)
        s.reg.async_io(next, moor::ask_kernel, std::move(call), s.done.handler());
    else
        s.reg.async_io(next, std::move(call), s.done.handler());
    s.check_waits(1);
    auto turns = [&](int n) {
        for (std::size_t so_far = s.calls; n != 0; --n) {
            s.make_ready(next);
            ++so_far;
            test::run_until(s.io, [&] { return s.calls == so_far; });
        }
    };
    turns(300); // past what select and io_uring find out on the way
    const test::call_counts before = test::counts();
    turns(events);
    const test::call_counts spent = test::counts() - before;
    is_over = true;
    s.make_ready(next);
    test::check_completes(s.io, s.done);
    return spent;
}

BOOST_AUTO_TEST_CASE(a_would_block_costs_one_poll) {
    for (trigger t : test::both_triggers)
        for (bool asks : {false, true})
            BOOST_TEST_CONTEXT(test::name_of(t) << (asks ? ", asks" : ", changes")) {
                // Beside an armed edge waker, an event for a writer may be of another kind. On
                // io_uring, Asio tells which since Boost 1.82.
                const bool knows_event =
                    test::on_epoll() || (test::on_io_uring() && BOOST_ASIO_VERSION >= 102700);
                const bool checks_room = !knows_event && t == trigger::level && !asks;
                BOOST_TEST(cost_of(t, 1000, asks).poll == (checks_room ? 1500 : 1000));
            }
}

BOOST_AUTO_TEST_CASE(a_would_block_allocates_nothing,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    for (trigger t : test::both_triggers)
        for (bool asks : {false, true})
            BOOST_TEST_CONTEXT(test::name_of(t) << (asks ? ", asks" : ", changes")) {
                BOOST_TEST(cost_of(t, 1000, asks).allocations == 0);
            }
}

// ---- random programs ----------------------------------------------------------------------------

/// Several operations of each form on one registration, whose calls try a direction and wait for
/// what blocked, or wait for what they have not tried. poll(2) is the oracle: when nothing is left
/// to run, no operation waits for what is there.
class program {
public:
    program(std::uint64_t seed, trigger t, bool is_alone)
        : dice_(seed), reg_(io_, p_.a.get(), t), is_level_(t == trigger::level),
          is_alone_(is_alone) {}
    ~program() {
        reg_.cancel();
        test::run_all(io_);
    }

    void run() {
        for (int step = 0; step != 60; ++step) {
            switch (dice_.below(8)) {
            case 0:
                test::put(p_.b, "x");
                break;
            case 1:
                test::drain(p_.b);
                break;
            case 2:
                test::drain(p_.a);
                break;
            case 3:
                test::fill(p_.a);
                break;
            case 4:
                reg_.cancel(dice_.one_in(2) ? moor::direction::read : moor::direction::write);
                break;
            case 5:
                if (!is_alone_)
                    wait();
                break;
            default:
                start();
            }
            if (dice_.one_in(2))
                settle();
        }
    }

    long calls = 0;        // after a would-block
    long without_news = 0; // of calls that say what they wait for

private:
    struct operation {
        interest waits_for;
        bool is_trusted = false; // its call has said that it found nothing, and had not tried
        bool is_over = false;
        bool has_blocked = false;
    };

    interest one() { return dice_.one_in(2) ? interest::readable : interest::writable; }

    void start() {
        if (is_alone_ && !operations_.empty() && !operations_.back()->is_over)
            return;
        operations_.push_back(std::make_unique<operation>());
        operation& o = *operations_.back();
        o.waits_for = dice_.one_in(4) ? both : one();
        const bool asks = dice_.one_in(3);
        any_call call = [this, &o, asks](error_code& ec) { return make_call(o, asks, ec); };
        auto over = [&o](error_code, int) { o.is_over = true; };
        if (asks)
            reg_.async_io(o.waits_for, moor::ask_kernel, std::move(call), std::move(over));
        else
            reg_.async_io(o.waits_for, std::move(call), std::move(over));
    }

    moor::drainable<int> make_call(operation& o, bool asks, error_code& ec) {
        if (o.has_blocked) {
            ++calls;
            without_news += !asks && !is_there(p_.a, o.waits_for);
        }
        if (asks && dice_.one_in(4)) { // refuses, whatever is there
            o.has_blocked = true;
            ec = asio::error::would_block;
            return {};
        }
        for (int left = 3;; --left) {
            const interest d = one();
            if (!asks && d != o.waits_for && dice_.one_in(4)) // has not tried it
                return block(o, d);
            char c = 'x';
            const ::ssize_t n = d.is_readable() ? ::recv(p_.a, &c, 1, MSG_DONTWAIT)
                                                : ::send(p_.a, &c, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0)
                return block(o, d);
            if (left == 0)
                return {1};
        }
    }

    moor::drainable<int> block(operation& o, interest d) {
        o.has_blocked = true;
        o.waits_for = d;
        return moor::wait_for(d);
    }

    void wait() {
        if (!is_level_)
            return;
        operations_.push_back(std::make_unique<operation>());
        operation& o = *operations_.back();
        o.waits_for = one();
        wait_for_one(reg_, o.waits_for, [&o](error_code) { o.is_over = true; });
    }

    void settle() {
        test::run_ready(io_);
        for (const auto& o : operations_)
            if (!o->is_over && is_there(p_.a, o->waits_for)) {
                BOOST_ERROR("an operation waits for what is there: " << o->waits_for);
                o->is_over = true;
            }
        while (!operations_.empty() && operations_.front()->is_over)
            operations_.erase(operations_.begin());
    }

    asio::io_context io_;
    test::fd_pair p_ = test::make_socketpair();
    test::dice dice_;
    moor::registration reg_;
    bool is_level_;
    bool is_alone_;
    std::vector<std::unique_ptr<operation>> operations_;
};

BOOST_AUTO_TEST_CASE(no_operation_waits_for_what_is_there) {
    const std::uint64_t first = test::from_environment("MOOR_TEST_SEED", 1);
    const std::uint64_t n = test::from_environment("MOOR_TEST_PROGRAMS", 100);
    for (trigger t : test::both_triggers)
        for (bool is_alone : {false, true}) {
            long calls = 0, without_news = 0;
            for (std::uint64_t seed = first; seed != first + n; ++seed)
                BOOST_TEST_CONTEXT(test::name_of(t)
                                   << (is_alone ? ", alone" : "") << ", MOOR_TEST_SEED=" << seed) {
                    program p(seed, t, is_alone);
                    p.run();
                    calls += p.calls;
                    without_news += p.without_news;
                }
            BOOST_TEST(calls > 10);
            // Otherwise one operation uses up what another one waits for. And io_uring tells of
            // what was there for a moment.
            if (is_alone && !test::on_io_uring())
                BOOST_TEST(without_news == 0);
        }
}

// ---- threads ------------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(no_operation_of_several_threads_is_forgotten) {
    // Each request is a byte, and each answer is larger than the buffers. A lost event would leave
    // the requests without their answer.
    constexpr std::size_t answer = 32768;
    const int requests = MOOR_TEST_THREAD_SANITIZER || MOOR_TEST_ADDRESS_SANITIZER ? 30 : 100;
    struct worker {
        std::size_t left = 0;
        interest next = interest::readable;
    };
    for (trigger t : test::both_triggers)
        for (bool asks : {false, true}) {
            asio::io_context io;
            test::fd_pair p = test::make_socketpair();
            const int size = 4096;
            ::setsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
            moor::registration reg(io, p.a.get(), t);
            worker workers[3];
            std::atomic<bool> is_over{false};
            std::atomic<int> failures{0};

            std::function<void(worker&)> start = [&](worker& w) {
                any_call call = [&](error_code&) -> moor::drainable<int> {
                    char c;
                    if (w.left == 0) {
                        if (::recv(p.a, &c, 1, 0) != 1)
                            return moor::wait_for(w.next = interest::readable);
                        w.left = answer;
                    }
                    static const std::string bytes(answer, 'x');
                    while (w.left != 0) {
                        const ::ssize_t n = ::send(p.a, bytes.data(), w.left, MSG_NOSIGNAL);
                        if (n < 0)
                            return moor::wait_for(w.next = interest::writable);
                        w.left -= static_cast<std::size_t>(n);
                    }
                    w.next = interest::readable;
                    return {1};
                };
                auto over = [&](error_code ec, int) {
                    failures += ec && ec != test::aborted;
                    if (!is_over)
                        start(w); // goes on with its answer if it was cancelled
                };
                if (asks)
                    reg.async_io(w.next, moor::ask_kernel, std::move(call), over);
                else
                    reg.async_io(w.next, std::move(call), over);
            };
            for (worker& w : workers)
                start(w);
            bool is_answered = true;
            {
                test::watchdog dog(io);
                std::thread loops[2];
                for (std::thread& l : loops)
                    l = std::thread([&] { io.run(); });
                for (int i = 0; i != requests && is_answered; ++i) {
                    test::put(p.b, "??");
                    std::size_t left = 2 * answer;
                    is_answered = test::wait_for([&] {
                        if (left % 3 == 0)
                            reg.cancel(left % 2 == 0 ? moor::direction::read
                                                     : moor::direction::write);
                        return (left -= test::drain(p.b)) == 0;
                    });
                }
                is_over = true;
                test::wait_for([&] {
                    reg.cancel();
                    return io.stopped();
                });
                for (std::thread& l : loops)
                    l.join();
            }
            BOOST_TEST(is_answered);
            BOOST_TEST(failures == 0);
        }
}

// ---- OpenSSL ------------------------------------------------------------------------------------

struct free_ssl {
    void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
    void operator()(X509* p) const { X509_free(p); }
    void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
    void operator()(SSL* p) const { SSL_free(p); }
};
template <class T>
using ssl_ptr = std::unique_ptr<T, free_ssl>;

/// A server's identity that it has signed itself, for one version of TLS.
ssl_ptr<SSL_CTX> make_tls(int version) {
    ssl_ptr<EVP_PKEY> key(EVP_EC_gen("P-256"));
    ssl_ptr<X509> x(X509_new());
    ssl_ptr<SSL_CTX> c(SSL_CTX_new(TLS_method()));
    BOOST_REQUIRE((key && x && c));
    X509_gmtime_adj(X509_getm_notBefore(x.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x.get()), 3600);
    X509_set_pubkey(x.get(), key.get());
    BOOST_REQUIRE(X509_sign(x.get(), key.get(), EVP_sha256()) > 0);
    BOOST_REQUIRE_EQUAL(SSL_CTX_use_certificate(c.get(), x.get()), 1);
    BOOST_REQUIRE_EQUAL(SSL_CTX_use_PrivateKey(c.get(), key.get()), 1);
    BOOST_REQUIRE_EQUAL(SSL_CTX_set_min_proto_version(c.get(), version), 1);
    BOOST_REQUIRE_EQUAL(SSL_CTX_set_max_proto_version(c.get(), version), 1);
    SSL_CTX_set_options(c.get(), SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
    return c;
}

/// What the calls of the operations on one SSL object did.
struct tls_counts {
    long calls = 0;
    long blocked = 0;
    long changed = 0;      // a reader waited for room, or a writer for data
    long with_news = 0;    // poll(2) reported what the call waited for
    long without_news = 0; // it did not, and no other operation has made a call meanwhile
    long overtaken = 0;    // it did not, and another operation has
};

/// One end of a connection.
class tls_end {
public:
    tls_end(asio::io_context& io, SSL_CTX* c, int fd, trigger t, bool is_server)
        : reg(io, fd, t), ssl(SSL_new(c)) {
        BOOST_REQUIRE(ssl);
        BOOST_REQUIRE_EQUAL(SSL_set_fd(ssl.get(), fd), 1);
        SSL_set_mode(ssl.get(), SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        if (is_server)
            SSL_set_accept_state(ssl.get());
        else
            SSL_set_connect_state(ssl.get());
    }

    /// Starts an operation on the SSL object. The handler gets the result of the call.
    template <class Call>
    void start(interest first, Call call, std::function<void(int)> handler) {
        auto last = std::make_shared<interest>();
        any_call f = [this, first, call, last, seen = 0L](error_code& ec) mutable {
            return make(first, *last, seen, call, ec);
        };
        reg.async_io(first, std::move(f), [handler = std::move(handler)](error_code ec, int n) {
            if (ec == test::aborted)
                return; // the test has failed
            BOOST_REQUIRE_MESSAGE(!ec, ec.message());
            handler(n);
        });
    }

    void shake_hands(std::function<void(int)> then) {
        start(
            interest::readable, [s = ssl.get()] { return SSL_do_handshake(s); }, std::move(then));
    }

    /// Sends `n` bytes, and renews the keys once in a while.
    void send(std::size_t n, std::size_t until_renewal, int (*renew)(SSL*)) {
        to_send_ = n;
        until_renewal_ = until_renewal;
        renew_ = renew;
        send();
    }

    void receive(std::size_t left) {
        is_received_ = left == 0;
        if (is_received_)
            return;
        start(
            interest::readable,
            [this] { return SSL_read(ssl.get(), into.data(), static_cast<int>(into.size())); },
            [this, left](int n) {
                for (int i = 0; i < n; i += 1024)
                    is_right = is_right && into[static_cast<std::size_t>(i)] == 'x';
                received_ += static_cast<std::size_t>(n);
                if (peer->is_renewing_ && received_ > peer->renewed_) {
                    peer->is_renewing_ = false;
                    go_on();
                }
                receive(left - static_cast<std::size_t>(n));
            });
    }
    bool is_over() const { return to_send_ == 0 && is_received_; }

    moor::registration reg;
    ssl_ptr<SSL> ssl;
    tls_counts counts;
    bool is_right = true;
    tls_end* peer = nullptr;
    int renewals = 0;

private:
    /// OpenSSL 3.0 cannot answer a renewal while a call to SSL_write is unfinished. So the peer's
    /// writer pauses until the renewal has been read.
    void send() {
        is_writing_ = false;
        if (to_send_ == 0 || peer->is_renewing_)
            return peer->go_on();
        if (!is_renewing_ && renewed_ + until_renewal_ <= sent_) {
            is_renewing_ = is_due_ = true;
            if (peer->is_writing_)
                return;
        }
        go_on();
    }
    void go_on() {
        if (is_writing_ || to_send_ == 0)
            return;
        is_writing_ = true;
        if (is_due_) {
            is_due_ = false;
            renewed_ = sent_;
            ++renewals;
            BOOST_REQUIRE_EQUAL(renew_(ssl.get()), 1);
        }
        const int n = static_cast<int>(std::min(to_send_, buffer.size()));
        start(
            interest::writable, [this, n] { return SSL_write(ssl.get(), buffer.data(), n); },
            [this](int written) {
                sent_ += static_cast<std::size_t>(written);
                to_send_ -= static_cast<std::size_t>(written);
                send();
            });
    }

    template <class Call>
    moor::drainable<int> make(interest first, interest& last, long& seen, Call& call,
                              error_code& ec) {
        if (!last.empty()) {
            // A reader that renews keys uses up the room that a writer waits for; and a writer that
            // waits for data may find that the reader has taken them. Nobody else reads.
            const bool is_overtaken =
                seen != counts.calls && (last.is_writable() || counts.changed != 0);
            ++(is_there(reg.native_handle(), last) ? counts.with_news
               : is_overtaken                      ? counts.overtaken
                                                   : counts.without_news);
        }
        seen = ++counts.calls;
        ERR_clear_error();
        const int n = call();
        switch (SSL_get_error(ssl.get(), n)) {
        case SSL_ERROR_NONE:
            return {n};
        case SSL_ERROR_WANT_READ:
            last = interest::readable;
            break;
        case SSL_ERROR_WANT_WRITE:
            last = interest::writable;
            break;
        default:
            ERR_print_errors_fp(stderr);
            ec = asio::error::connection_aborted;
            return {};
        }
        ++counts.blocked;
        counts.changed += last != first;
        return moor::wait_for(last);
    }

    std::vector<char> buffer = std::vector<char>(16384, 'x');
    std::vector<char> into = std::vector<char>(16384);
    std::size_t to_send_ = 0, sent_ = 0, received_ = 0, renewed_ = 0, until_renewal_ = 0;
    int (*renew_)(SSL*) = nullptr;
    bool is_writing_ = false, is_due_ = false, is_renewing_ = false, is_received_ = true;
};

/// Two ends that have shaken hands.
struct tls_connection {
    test::context_fixture context;
    asio::io_context& io = context.io;
    test::fd_pair p = test::make_socketpair();
    ssl_ptr<SSL_CTX> tls;
    std::optional<tls_end> client, server;

    tls_connection(int version, trigger t, int buffer_size) : tls(make_tls(version)) {
        for (int fd : {p.a.get(), p.b.get()})
            if (buffer_size != 0)
                BOOST_REQUIRE_EQUAL(
                    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_size, sizeof(buffer_size)), 0);
        client.emplace(io, tls.get(), p.a.get(), t, false);
        server.emplace(io, tls.get(), p.b.get(), t, true);
        client->peer = &*server;
        server->peer = &*client;
        int hands = 0;
        client->shake_hands([&](int n) { hands += n; });
        server->shake_hands([&](int n) { hands += n; });
        test::run_until(io, [&] { return hands == 2; });
    }

    void check(const char* what) {
        for (tls_end* e : {&*client, &*server}) {
            const tls_counts& c = e->counts;
            BOOST_TEST_MESSAGE(what << (e == &*client ? ", client: " : ", server: ") << c.calls
                                    << " calls, " << c.blocked << " blocked, " << c.changed
                                    << " changed, " << e->renewals << " renewals, " << c.with_news
                                    << " with news, " << c.without_news << " without, "
                                    << c.overtaken << " overtaken");
            BOOST_TEST(e->is_right);
            BOOST_TEST(c.without_news == 0);
        }
    }
};

constexpr std::size_t megabyte = 1000000;
/// For each direction. (Asio before Boost 1.82 mistakes the results of io_uring after 16,384
/// requests.)
std::size_t tls_bytes() {
    const bool is_slow = MOOR_TEST_ADDRESS_SANITIZER || MOOR_TEST_THREAD_SANITIZER;
    return (is_slow || test::on_io_uring() ? 5 : 50) * megabyte;
}

BOOST_AUTO_TEST_CASE(tls_1_3_is_read_and_written_at_once_while_its_keys_are_renewed) {
    auto renew = [](SSL* s) { return SSL_key_update(s, SSL_KEY_UPDATE_REQUESTED); };
    for (trigger t : test::both_triggers)
        BOOST_TEST_CONTEXT(test::name_of(t)) {
            tls_connection c(TLS1_3_VERSION, t, 4096);
            for (tls_end* e : {&*c.client, &*c.server}) {
                e->receive(tls_bytes());
                e->send(tls_bytes(), 2 * megabyte, renew);
            }
            test::run_until(c.io, [&] { return c.client->is_over() && c.server->is_over(); });
            c.check(test::name_of(t));
            BOOST_TEST(c.client->counts.with_news > 100);
            BOOST_TEST(c.server->counts.with_news > 100);
            BOOST_TEST(c.client->renewals + c.server->renewals > 3);
        }
}

BOOST_AUTO_TEST_CASE(tls_1_2_is_written_while_it_is_negotiated_anew) {
    for (trigger t : test::both_triggers)
        BOOST_TEST_CONTEXT(test::name_of(t)) {
            tls_connection c(TLS1_2_VERSION, t, 4096);
            c.server->receive(5 * megabyte);
            c.client->send(5 * megabyte, megabyte / 4, &SSL_renegotiate);
            test::run_until(c.io, [&] { return c.client->is_over() && c.server->is_over(); });
            c.check(test::name_of(t));
            BOOST_TEST(c.client->counts.changed > 10);
        }
}

BOOST_AUTO_TEST_SUITE_END()
