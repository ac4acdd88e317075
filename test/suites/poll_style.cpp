// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The polling interface, for authors of awaitables of their own: poll_*_ready, poll_*_io, ready,
// query and clear. (Suite `waits` has their everyday cases: one waker a direction, stale events.)

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"
#include "support/waiting.hpp"

#include <moor.hpp>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/strand.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

BOOST_AUTO_TEST_SUITE(poll_style)

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};

    /// A wait that completes, so that readability is known and its waker armed.
    moor::ready_event event(interest want) {
        test::called_event done;
        reg.async_wait(want, done.handler());
        test::check_completes(io, done);
        return done.value;
    }
};

/// A waker that counts.
struct waker {
    int times = 0;
    explicit operator bool() const { return times != 0; }
    auto operator()() {
        return [this] { ++times; };
    }
};

bool would_block(const boost::system::result<moor::ready_event>& r) {
    return r.has_error() && r.error() == asio::error::would_block;
}

// ---- poll_*_ready ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(poll_ready_answers_at_once_when_ready, fixture) {
    test::put(p.b, "x");
    waker w;
    auto r = reg.poll_read_ready(w());
    BOOST_REQUIRE(r.has_value());
    BOOST_TEST(r->ready() == interest::readable);
    r = reg.poll_write_ready(w());
    BOOST_REQUIRE(r.has_value());
    BOOST_TEST(r->ready() == interest::writable);
    test::run_all(io); // no waker was kept
    BOOST_TEST(w.times == 0);
}

BOOST_FIXTURE_TEST_CASE(a_waker_is_woken_by_cancel_deregister_and_the_end, fixture) {
    waker c, o, d, e;
    test::fill(p.a);
    BOOST_TEST(would_block(reg.poll_read_ready(c())));
    BOOST_TEST(would_block(reg.poll_write_ready(o())));
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(c.times == 1);
    BOOST_TEST(o.times == 1);
    c.times = o.times = 0;
    BOOST_TEST(would_block(reg.poll_read_ready(c())));
    reg.cancel(moor::direction::write);
    test::run_ready(io);
    BOOST_TEST(c.times == 0);
    reg.cancel(moor::direction::read);
    test::run_all(io);
    BOOST_TEST(c.times == 1);
    BOOST_TEST(would_block(reg.poll_read_ready(d())));
    reg.deregister();
    test::run_all(io);
    BOOST_TEST(d.times == 1);
    BOOST_TEST((reg.poll_read_ready(o()).error() == moor::error::not_registered));
    reg.register_handle(p.a.get());
    BOOST_TEST(would_block(reg.poll_read_ready(e())));
    p.b.close();
    test::run_all(io);
    BOOST_TEST(e.times == 1);
    BOOST_TEST(reg.poll_read_ready(o()).has_value()); // the end is readable
    BOOST_TEST(o.times == 0);
}

BOOST_FIXTURE_TEST_CASE(a_waker_runs_through_its_executor_with_its_allocator, fixture) {
    test::tracker_executor ex(4, io.get_executor());
    test::allocation_counts memory;
    int times = 0;
    auto r = reg.poll_read_ready(
        asio::bind_allocator(test::counting_allocator<>(memory), asio::bind_executor(ex, [&] {
                                 BOOST_TEST(test::running_on(4));
                                 BOOST_TEST(memory.live == 0);
                                 ++times;
                             })));
    BOOST_TEST(would_block(r));
    BOOST_TEST(memory.live > 0);
    test::put(p.b, "x");
    test::run_until(io, [&] { return times != 0; });
    BOOST_TEST(times == 1);
}

// ---- the waker itself ---------------------------------------------------------------------------

using any = moor::registration::waker_type;

BOOST_AUTO_TEST_CASE(a_waker_is_moved_assigned_and_swapped) {
    static_assert(!std::is_copy_constructible<any>::value, "");
    static_assert(std::is_nothrow_move_constructible<any>::value, "");
    static_assert(std::is_nothrow_move_assignable<any>::value, "");
    static_assert(!std::is_constructible<any, int>::value, "");
    static_assert(!std::is_constructible<any, void (*)(int)>::value, "");
    test::once first, second, dropped(test::expect::destroyed);
    any a(first.handler());
    any b = second.handler();
    a.swap(b);
    swap(a, b);
    any c;
    BOOST_TEST((c == nullptr && a != nullptr && bool(b)));
    c();
    c = std::move(a);
    BOOST_TEST((!a && bool(c)));
    c();
    c();
    BOOST_TEST((first.times() == 1 && first.destroyed()));
    any& alias = b;
    b = std::move(alias);
    BOOST_TEST(second.times() == 0);
    b();
    b = dropped.handler();
    b = nullptr;
    BOOST_TEST(dropped.destroyed());
}

BOOST_AUTO_TEST_CASE(what_a_waker_holds_may_assign_to_it_while_it_is_replaced) {
    // As a task does that holds its own waker.
    any w;
    int woken = 0;
    struct assigns {
        any* target;
        int* woken;
        assigns(any* t, int* n) : target(t), woken(n) {}
        assigns(assigns&& o) noexcept : target(std::exchange(o.target, nullptr)), woken(o.woken) {}
        ~assigns() {
            if (target)
                *target = [n = woken] { ++*n; };
        }
        void operator()() const {}
    };
    w = assigns(&w, &woken);
    w = nullptr;
    w();
    BOOST_TEST(woken == 1);
    w = assigns(&w, &woken);
    w(); // invoked and destroyed
    w();
    BOOST_TEST(woken == 2);
}

BOOST_FIXTURE_TEST_CASE(a_waker_is_kept_as_often_as_it_is_given_back, fixture) {
    int woken = 0;
    any w = [&] { ++woken; };
    any spare;
    for (int i = 1; i != 4; ++i) {
        spare = std::move(w);
        w = std::move(spare);
        BOOST_TEST(would_block(reg.poll_read_ready(std::move(w))));
        test::put(p.b, "x");
        test::run_until(io, [&] { return woken == i; });
        test::drain(p.a);
        BOOST_TEST((reg.try_io(interest::readable, test::reader{p.a}).error() ==
                    asio::error::would_block));
        w = [&] { ++woken; };
    }
}

BOOST_FIXTURE_TEST_CASE(a_kept_waker_keeps_its_own_executor_busy, fixture) {
    asio::io_context other;
    int woken = 0;
    any w = asio::bind_executor(other.get_executor(), [&] { ++woken; });
    BOOST_TEST(other.poll() == 0u);
    BOOST_TEST(other.stopped()); // not while nobody has kept it
    BOOST_TEST(would_block(reg.poll_read_ready(std::move(w))));
    other.restart();
    BOOST_TEST(other.poll() == 0u);
    BOOST_TEST(!other.stopped());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(woken == 0);
    test::run_all(other);
    BOOST_TEST(woken == 1);
}

/// Larger than what Asio's polymorphic executors hold without allocating.
using large_executor = asio::strand<asio::any_io_executor>;

template <class Registration, class Waker>
void check_without_memory(asio::io_context& io, const typename Registration::executor_type& ex,
                          Waker make) {
    bool failed = true;
    int attempts = 0;
    for (long n = 0; failed; ++n, ++attempts) {
        test::fd_pair p = test::make_socketpair();
        test::fill(p.a);
        Registration reg(ex, p.a.get());
        int woken = 0, calls = 0;
        any waker = make([&] { ++woken; });
        any other = make([&] { ++woken; });
        auto call = [&](error_code& ec) {
            ++calls;
            ec = asio::error::would_block;
        };
        std::optional<test::out_of_memory> none(n);
        auto r = reg.poll_read_ready(std::move(waker));
        auto w = reg.poll_write_io(std::move(other), call);
        none.reset();
        failed = false;
        for (const error_code& ec : {r.error(), w.error()}) {
            failed = failed || ec == asio::error::no_memory;
            BOOST_TEST((ec == asio::error::no_memory || ec == asio::error::would_block));
        }
        int kept = int(would_block(r)) + int(w.error() == asio::error::would_block);
        test::put(p.b, "x");
        reg.cancel();
        test::run_all(io); // no work is left over
        BOOST_TEST(woken == kept);
        // And it works when there is memory.
        BOOST_TEST(reg.poll_read_ready(make([] {})).has_value());
    }
    BOOST_TEST(attempts > 1);
}

BOOST_FIXTURE_TEST_CASE(polling_without_memory_is_an_error, test::context_fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    large_executor ex(io.get_executor());
    auto plain = [](auto f) { return any(asio::bind_allocator(std::allocator<void>(), f)); };
    auto bound = [&](auto f) {
        return any(asio::bind_allocator(std::allocator<void>(),
                                        asio::bind_executor(asio::any_io_executor(ex), f)));
    };
    check_without_memory<moor::registration>(io, io.get_executor(), plain);
    check_without_memory<moor::registration>(io, io.get_executor(), bound);
    check_without_memory<moor::registration>(io, ex, plain);
    check_without_memory<moor::basic_registration<large_executor>>(io, ex, plain);
    check_without_memory<moor::basic_registration<large_executor>>(io, ex, bound);
}

BOOST_FIXTURE_TEST_CASE(a_waker_that_is_not_kept_is_destroyed, fixture) {
    test::put(p.b, "x");
    test::once h(test::expect::destroyed);
    BOOST_TEST(reg.poll_read_ready(h.handler()).has_value());
    BOOST_TEST(h.destroyed());
}

BOOST_FIXTURE_TEST_CASE(a_waker_may_poll_again, fixture) {
    int times = 0;
    std::function<void()> poll = [&] {
        while (reg.poll_read_ready([&] {
                      ++times;
                      poll();
                  })
                   .has_value())
            if (test::drain(p.a) == 0)
                break;
    };
    poll();
    for (int i = 1; i != 10; ++i) {
        test::put(p.b, "x");
        test::run_until(io, [&] { return times >= i; });
        test::run_ready(io);
    }
    BOOST_TEST(times == 9);
    reg.deregister();
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(poll_errors_do_not_keep_the_waker, fixture) {
    moor::registration none(io);
    test::once a(test::expect::destroyed), b(test::expect::destroyed), c(test::expect::destroyed),
        d(test::expect::destroyed);
    BOOST_TEST((none.poll_read_ready(a.handler()).error() == moor::error::not_registered));
    BOOST_TEST((none.poll_write_io(b.handler(), [](error_code&) {}).error() ==
                moor::error::not_registered));
    moor::use_registration_service(io).close();
    BOOST_TEST((reg.poll_write_ready(c.handler()).error() == moor::error::gone));
    BOOST_TEST((reg.poll_read_io(d.handler(), [](error_code&) {}).error() == moor::error::gone));
    for (test::once* h : {&a, &b, &c, &d})
        BOOST_TEST(h->destroyed());
}

BOOST_FIXTURE_TEST_CASE(a_moved_registration_keeps_its_wakers, fixture) {
    waker w;
    BOOST_TEST(would_block(reg.poll_read_ready(w())));
    moor::registration moved(std::move(reg));
    test::run_ready(io);
    BOOST_TEST(w.times == 0);
    waker other;
    BOOST_TEST(would_block(moved.poll_read_ready(other())));
    test::run_ready(io);
    BOOST_TEST(w.times == 1); // displaced: the slot moved along
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(other.times == 1);
}

// ---- poll_*_io ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(poll_write_io_writes_or_keeps_the_waker, fixture) {
    waker w;
    std::size_t total = 0;
    auto write = [&](error_code& ec) {
        char buffer[1024] = {};
        ::ssize_t n = ::send(p.a, buffer, sizeof(buffer), MSG_NOSIGNAL);
        if (n < 0)
            ec = test::last_error();
        return n;
    };
    for (;;) {
        auto r = reg.poll_write_io(w(), write);
        if (r.has_error()) {
            BOOST_TEST((r.error() == asio::error::would_block));
            break;
        }
        total += static_cast<std::size_t>(*r);
    }
    BOOST_TEST(w.times == 0);
    BOOST_TEST(test::drain(p.b) == total);
    test::run_until(io, [&] { return bool(w); });
    BOOST_TEST(reg.poll_write_io(w(), write).has_value());
}

BOOST_FIXTURE_TEST_CASE(poll_io_reports_the_callables_error_and_exception, fixture) {
    test::put(p.b, "x");
    waker w;
    auto r = reg.poll_read_io(w(), [](error_code& ec) { ec = asio::error::message_size; });
    BOOST_TEST((r.error() == asio::error::message_size));
    BOOST_CHECK_THROW((void)reg.poll_read_io(w(), [](error_code&) { throw 5; }), int);
    BOOST_TEST(
        reg.poll_read_io(w(), [](error_code&) { return std::make_unique<int>(1); }).has_value());
    BOOST_TEST(w.times == 0);
}

BOOST_FIXTURE_TEST_CASE(poll_io_survives_a_callable_that_ends_the_registration, fixture) {
    test::put(p.b, "x");
    waker w;
    auto r = reg.poll_read_io(w(), [&](error_code& ec) {
        reg.deregister();
        ec = asio::error::would_block;
    });
    BOOST_TEST((r.error() == moor::error::not_registered));
    BOOST_TEST(w.times == 0);
}

BOOST_FIXTURE_TEST_CASE(poll_io_does_not_mix_up_the_registrations_of_one_object, fixture) {
    test::put(p.b, "x");
    test::fd_pair q = test::make_pipe();
    waker w;
    int calls = 0;
    auto r = reg.poll_read_io(w(), [&](error_code& ec) {
        ++calls;
        reg.reset(q.a.get());
        ec = asio::error::would_block;
    });
    BOOST_TEST(r.error() == asio::error::operation_aborted);
    BOOST_TEST(calls == 1);
    BOOST_TEST(w.times == 0);
    test::called done; // the new one is as if nothing had happened
    reg.async_wait_readable(done.handler());
    test::put(q.b, "y");
    test::check_completes(io, done);
}

// ---- ready, query ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(ready_tells_the_cache_without_a_system_call, fixture) {
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready().empty()); // unknown
    test::put(p.b, "x");
    BOOST_TEST(event(interest::readable).ready() == interest::readable);
    test::call_counts before = test::counts();
    BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
    BOOST_TEST(reg.ready(interest::writable).ready().empty());
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready() == interest::readable);
    test::drain(p.a);
    BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable); // until cleared
    test::call_counts spent = test::counts() - before;
    BOOST_TEST(spent.poll == 0);
    BOOST_TEST(spent.epoll_ctl == 0);
    reg.deregister();
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
}

BOOST_FIXTURE_TEST_CASE(query_reports_its_errors, fixture) {
    error_code ec;
    moor::registration none(io);
    BOOST_TEST(none.query(ec).empty());
    BOOST_TEST((ec == moor::error::not_registered));
    BOOST_CHECK_THROW((void)none.query(), boost::system::system_error);
    {
        test::fd_pair q = test::make_pipe();
        moor::registration r(io, q.a.get());
        q.a.close();
        (void)r.query(ec);
        BOOST_TEST((ec == asio::error::bad_descriptor));
        r.abandon();
    }
    moor::use_registration_service(io).close();
    BOOST_TEST(reg.query(ec).empty());
    BOOST_TEST((ec == moor::error::gone));
}

// ---- clear -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(clear_of_nothing_or_of_another_registrations_event_is_harmless, fixture) {
    reg.clear(moor::ready_event());
    test::put(p.b, "x");
    moor::ready_event e = event(interest::readable);
    reg.clear(moor::ready_event());
    BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
    reg.deregister();
    reg.clear(e);
    reg.register_handle(p.a.get()); // probably the same state: its ticks go on
    moor::ready_event newer = event(interest::readable);
    reg.clear(e);
    BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
    reg.clear(newer);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
}

BOOST_FIXTURE_TEST_CASE(clear_does_not_wipe_that_a_side_is_closed, fixture) {
    p.b.close();
    moor::ready_event e = event(interest::read_closed);
    BOOST_TEST(e.ready() == interest::read_closed);
    reg.clear(e);
    BOOST_TEST(reg.ready(interest::read_closed).ready() == interest::read_closed);
    test::check_readable(io, reg);
}

// ---- an awaitable of one's own -----------------------------------------------------------------

/// What a library with tasks of its own would write: a task is polled, and is polled again when the
/// waker that it left says so. This one echoes until the end of the stream.
class echo {
public:
    explicit echo(moor::registration& r) : reg_(r) {}

    void poll() {
        ++polls;
        over = step();
    }
    std::size_t echoed = 0;
    int polls = 0;
    bool over = false;

private:
    moor::registration::waker_type waker() {
        return [this] { poll(); };
    }

    /// True: over. False: a waker was left with the direction that blocks.
    bool step() {
        int fd = reg_.native_handle();
        for (;;) {
            if (pending_.empty()) {
                auto r = reg_.poll_read_io(waker(), test::reader{fd});
                if (!r)
                    return r.error() != asio::error::would_block;
                if (r->empty())
                    return true;
                pending_ = *r;
            } else {
                auto w = reg_.poll_write_io(waker(), [&](error_code& ec) {
                    ::ssize_t n = ::send(fd, pending_.data(), pending_.size(), MSG_NOSIGNAL);
                    if (n < 0)
                        ec = test::last_error();
                    return n;
                });
                if (!w)
                    return w.error() != asio::error::would_block;
                pending_.erase(0, static_cast<std::size_t>(*w));
                echoed += static_cast<std::size_t>(*w);
            }
        }
    }

    moor::registration& reg_;
    std::string pending_;
};

BOOST_FIXTURE_TEST_CASE(a_hand_written_awaitable_echoes, fixture) {
    echo e(reg);
    e.poll();
    BOOST_TEST(!e.over);
    std::size_t sent = 0, received = 0;
    while (sent < 1000000) {
        sent += test::fill(p.b);
        for (std::size_t quiet = 0; received != sent && quiet != 1000000; ++quiet) {
            test::run_ready(io);
            received += test::drain(p.b);
        }
        BOOST_REQUIRE_EQUAL(received, sent);
    }
    ::shutdown(p.b, SHUT_WR);
    test::run_until(io, [&] { return e.over; });
    BOOST_TEST(e.echoed == sent);
    BOOST_TEST(e.polls > 2);
}

// A direction whose calls are refused again and again is reported by an edge-triggered set on
// select and io_uring. The other direction is not concerned.
BOOST_FIXTURE_TEST_CASE(a_refused_call_says_nothing_of_the_other_direction, fixture) {
    waker r, w;
    const auto refuse = [](error_code& ec) { ec = asio::error::would_block; };
    test::put(p.b, "x");
    BOOST_TEST((reg.poll_read_io(r(), refuse).error() == asio::error::would_block));
    BOOST_TEST((reg.poll_write_io(w(), refuse).error() == asio::error::would_block));
    BOOST_TEST(moor::use_registration_service(io).snapshot().at(0).write_armed);
    reg.deregister();
    test::run_all(io);
}

BOOST_AUTO_TEST_SUITE_END()
