// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
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

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
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
#include <poll.h>
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
    moor::registration reg;
    std::vector<interest> says;
    std::size_t calls = 0;
    called done;
    int value = 0;

    /// `is_warm`: both directions have been waited for, and were ready.
    explicit scene(trigger t, bool is_warm = false) : reg(io, p.a.get(), t) {
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
                BOOST_TEST_CONTEXT(test::name_of(t)
                                   << name_of(is_warm) << (reads ? ", then reads" : ", then writes")) {
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
        s.start(from, {to, from, from, to});
        s.check_waits(1);
        std::size_t calls = 1;
        for (interest next : {to, from, from, to}) {
            s.make_ready(both - next);
            s.exhaust(both - next);
            s.check_waits(calls);
            s.make_ready(next);
            if (++calls == 5)
                break;
            s.exhaust(next); // before the call: it may be spared
            test::run_ready(s.io);
            s.calls = calls;
        }
        s.calls = 4;
        s.check_ends(5);
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
        s.start(from, {both, both});
        s.check_waits(1);
        s.make_ready(to);
        test::run_ready(s.io);
        BOOST_TEST(s.calls == 2u);
        BOOST_TEST(!s.done);
        s.exhaust(to);
        s.make_ready(from);
        s.check_ends(3);
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
    check_result<pointer>(
        [] { return moor::drainable<pointer>{std::make_unique<int>(7)}; },
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

// ---- try_io and the polling interface ------------------------------------------------------------

BOOST_AUTO_TEST_CASE(try_io_drops_what_the_call_found_to_be_blocked) {
    for (trigger t : test::both_triggers)
        BOOST_TEST_CONTEXT(test::name_of(t)) {
            scene s(t, true);
            s.make_ready(interest::readable);
            called event;
            s.reg.async_wait(both, event.handler());
            test::check_completes(s.io, event);
            BOOST_TEST(s.reg.ready(both).ready() == both);
            test::fill(s.p.a);
            s.says = {interest::writable};
            auto r = s.reg.try_io(interest::readable, s.call());
            BOOST_TEST((r.error() == asio::error::would_block));
            BOOST_TEST(s.calls == 1u);
            BOOST_TEST(s.reg.ready(both).ready() == interest::readable);
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
        BOOST_TEST((s.reg.try_io(interest::readable, s.call()).error() ==
                    asio::error::would_block));
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

BOOST_AUTO_TEST_SUITE_END()
