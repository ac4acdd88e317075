// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The polling interface, for authors of awaitables of their own: poll_*_ready, poll_*_io, ready,
// query and clear.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"

#include <moor.hpp>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

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
        moor::ready_event seen;
        bool done = false;
        reg.async_wait(want, [&](error_code ec, moor::ready_event e) {
            BOOST_TEST(!ec);
            seen = e;
            done = true;
        });
        test::run_until(io, [&] { return done; });
        return seen;
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

// ---- poll_*_ready
// ------------------------------------------------------------------------------------

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

BOOST_FIXTURE_TEST_CASE(poll_ready_keeps_the_waker_until_the_event, fixture) {
    test::fill(p.a);
    waker r, w;
    BOOST_TEST(would_block(reg.poll_read_ready(r())));
    BOOST_TEST(would_block(reg.poll_write_ready(w())));
    test::run_ready(io);
    BOOST_TEST(r.times == 0);
    BOOST_TEST(w.times == 0);
    io.restart();
    io.poll();
    BOOST_TEST(!io.stopped()); // kept wakers are work
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(r); });
    test::run_ready(io);
    BOOST_TEST(r.times == 1);
    BOOST_TEST(w.times == 0); // a read event leaves the write waker in place
    test::drain(p.b);
    test::run_until(io, [&] { return bool(w); });
    BOOST_TEST(w.times == 1);
    BOOST_TEST(reg.poll_read_ready(r()).has_value());
    BOOST_TEST(reg.poll_write_ready(w()).has_value());
}

BOOST_FIXTURE_TEST_CASE(the_newest_waker_is_kept_and_the_displaced_one_is_woken, fixture) {
    std::vector<waker> wakers(5);
    for (std::size_t i = 0; i != wakers.size(); ++i) {
        BOOST_TEST(would_block(reg.poll_read_ready(wakers[i]())));
        test::run_ready(io);
        for (std::size_t j = 0; j != wakers.size(); ++j)
            BOOST_TEST(wakers[j].times == (j < i ? 1 : 0));
    }
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(wakers.back()); });
    test::run_ready(io);
    for (waker& w : wakers)
        BOOST_TEST(w.times == 1);
}

BOOST_FIXTURE_TEST_CASE(the_slots_of_the_directions_do_not_displace_each_other, fixture) {
    test::fill(p.a);
    waker r, w;
    BOOST_TEST(would_block(reg.poll_read_ready(r())));
    BOOST_TEST(would_block(reg.poll_write_ready(w())));
    test::run_ready(io);
    BOOST_TEST(r.times == 0);
    BOOST_TEST(w.times == 0);
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(r.times == 1);
    BOOST_TEST(w.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_waker_is_not_run_inside_the_poll_that_displaces_it, fixture) {
    test::once first, second;
    BOOST_TEST(would_block(reg.poll_read_ready(first.handler())));
    {
        test::initiation_guard guard;
        BOOST_TEST(would_block(reg.poll_read_ready(second.handler())));
    }
    {
        test::initiation_guard guard;
        reg.cancel();
    }
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_list_waiter_coexists_with_a_slot, fixture) {
    waker w;
    test::called list, io_done;
    reg.async_wait_readable(list.handler());
    BOOST_TEST(would_block(reg.poll_read_ready(w())));
    reg.async_io(
        interest::readable, [](error_code&) {}, io_done.handler());
    test::run_ready(io);
    BOOST_TEST(list.times == 0);
    BOOST_TEST(w.times == 0);
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(list.times == 1);
    BOOST_TEST(w.times == 1);
    BOOST_TEST(io_done.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_waker_is_woken_by_cancel_deregister_and_the_end, fixture) {
    waker c, o, d, e;
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
        asio::bind_executor(ex, asio::bind_allocator(test::counting_allocator<>(memory), [&] {
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
        test::fail_allocations_after(n);
        auto r = reg.poll_read_ready(std::move(waker));
        auto w = reg.poll_write_io(std::move(other), call);
        test::fail_allocations_after(-1);
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
    auto plain = [](auto f) { return any(asio::bind_allocator(std::allocator<void>(), f)); };
    check_without_memory<moor::registration>(io, io.get_executor(), plain);
}

BOOST_FIXTURE_TEST_CASE(polling_with_a_large_executor_and_no_memory_is_an_error,
                        test::context_fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    large_executor ex(io.get_executor());
    auto plain = [](auto f) { return any(asio::bind_allocator(std::allocator<void>(), f)); };
    auto bound = [&](auto f) {
        return any(asio::bind_executor(asio::any_io_executor(ex),
                                       asio::bind_allocator(std::allocator<void>(), f)));
    };
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

// ---- poll_*_io
// ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(poll_read_io_reads_or_keeps_the_waker, fixture) {
    waker w;
    int calls = 0;
    auto read = [&](error_code& ec) {
        ++calls;
        return test::reader{p.a.get()}(ec);
    };
    auto r = reg.poll_read_io(w(), read);
    BOOST_TEST((r.error() == asio::error::would_block));
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(w); });
    r = reg.poll_read_io(w(), read);
    BOOST_REQUIRE(r.has_value());
    BOOST_TEST(*r == "x");
    BOOST_TEST(w.times == 1);
    // The cache still says ready: the call finds out, and the waker is kept.
    int before = calls;
    r = reg.poll_read_io(w(), read);
    BOOST_TEST((r.error() == asio::error::would_block));
    BOOST_TEST(calls == before + 1);
    test::put(p.b, "y");
    test::run_until(io, [&] { return w.times == 2; });
    BOOST_TEST(reg.poll_read_io(w(), read).value() == "y");
}

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
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

// ---- ready, query
// -------------------------------------------------------------------------------------

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

BOOST_FIXTURE_TEST_CASE(query_asks_the_kernel_once_and_leaves_the_cache_alone, fixture) {
    test::call_counts before = test::counts();
    BOOST_TEST(reg.query() == interest::writable); // a fresh socketpair
    BOOST_TEST((test::counts() - before).poll == 1);
    test::put(p.b, "x");
    BOOST_TEST(reg.query() == (interest::readable | interest::writable));
    test::fill(p.a);
    BOOST_TEST(reg.query() == interest::readable);
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready().empty());
    ::shutdown(p.b, SHUT_WR);
    BOOST_TEST(reg.query().contains(interest::read_closed));
    BOOST_TEST(!reg.query().contains(interest::write_closed));
    p.b.close();
    BOOST_TEST(reg.query().contains(interest::read_closed | interest::write_closed));
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

// ---- clear
// --------------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(clear_makes_the_next_wait_park_and_new_data_wakes_it, fixture) {
    test::put(p.b, "x");
    moor::ready_event e = event(interest::readable);
    BOOST_TEST(test::get(p.a) == "x");
    BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable); // still cached
    reg.clear(e);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    test::put(p.b, "y");
    test::run_until(io, [&] { return bool(done); });
}

BOOST_FIXTURE_TEST_CASE(clear_of_readable_leaves_writable, fixture) {
    test::put(p.b, "x");
    moor::ready_event both = event(interest::readable | interest::writable);
    BOOST_TEST(both.ready() == (interest::readable | interest::writable));
    reg.clear(both.only(interest::readable));
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready() == interest::writable);
    reg.clear(both);
    BOOST_TEST(reg.ready(interest::readable | interest::writable).ready().empty());
}

BOOST_FIXTURE_TEST_CASE(a_stale_event_clears_nothing_newer, fixture) {
    test::put(p.b, "x");
    moor::ready_event stale = event(interest::readable);
    test::drain(p.a);
    reg.clear(stale);
    for (unsigned newer : {1u, 256u}) {
        for (unsigned i = 0; i != newer; ++i) {
            test::put(p.b, "y");
            moor::ready_event e = event(interest::readable);
            test::drain(p.a);
            if (i + 1 != newer)
                reg.clear(e);
        }
        reg.clear(stale);
        BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
        reg.clear(reg.ready(interest::readable));
    }
}

BOOST_FIXTURE_TEST_CASE(a_stale_event_clears_nothing_after_65536_newer_ones, fixture) {
    test::put(p.b, "x");
    moor::ready_event stale = event(interest::readable), newest = stale;
    for (unsigned i = 0; i != 65536; ++i) {
        // Gone, and there again.
        test::drain(p.a);
        reg.clear(newest);
        test::put(p.b, "y");
        auto r = reg.poll_read_ready([] {});
        if (r)
            newest = *r;
        else
            newest = event(interest::readable); // pending: a real event
    }
    reg.clear(stale);
    BOOST_TEST(reg.ready(interest::readable).ready() == interest::readable);
    BOOST_TEST(moor::use_registration_service(io).snapshot().at(0).read_tick >= 65536u);
    reg.clear(newest);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
}

BOOST_FIXTURE_TEST_CASE(a_write_event_between_a_read_event_and_its_clear_does_not_matter, fixture) {
    test::put(p.b, "x");
    moor::ready_event e = event(interest::readable);
    test::drain(p.a);
    BOOST_TEST(event(interest::writable).ready() == interest::writable);
    test::fill(p.a);
    test::drain(p.b);
    BOOST_TEST(event(interest::writable).ready() == interest::writable);
    reg.clear(e);
    BOOST_TEST(reg.ready(interest::readable).ready().empty());
    BOOST_TEST(reg.ready(interest::writable).ready() == interest::writable);
}

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
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(!done.ec);
}

// ---- an awaitable of one's own
// ------------------------------------------------------------------------

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

BOOST_AUTO_TEST_SUITE_END()
