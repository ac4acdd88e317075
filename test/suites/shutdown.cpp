// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The two kinds of end: a context that is destroyed with operations pending (handlers are
// destroyed, and may call back meanwhile), and the service's close() (everything completes with
// `gone`).

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/operations.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/consign.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <fcntl.h>

namespace moor_test { // since ::shutdown is a function

BOOST_AUTO_TEST_SUITE(shutdown)

namespace asio = boost::asio;
using moor::interest;
using moor::trigger;
using test::error_code;

using test::event_op;
using test::io_op;
using test::wait_op;

struct slot_op {
    template <class Handler>
    static void start(moor::registration& r, Handler&& h) {
        (void)r.poll_read_ready([g = std::forward<Handler>(h)]() mutable { g(error_code()); });
    }
};
using all_operations = std::tuple<wait_op, event_op, io_op, slot_op>;
using list_operations = std::tuple<wait_op, event_op, io_op>;

// ---- a context destroyed with operations pending -----------------------------------------------

BOOST_AUTO_TEST_CASE_TEMPLATE(handlers_are_destroyed_not_invoked, Op, all_operations) {
    test::fd_pair p = test::make_socketpair();
    for (int phase = 0; phase != 4; ++phase) {
        // (The second waker of a slot displaces the first, which is woken.)
        test::once h(std::is_same<Op, slot_op>::value ? test::expect::either
                                                      : test::expect::destroyed);
        test::once second(test::expect::destroyed);
        {
            asio::io_context io;
            moor::registration reg(io, p.a.get());
            if (phase == 3)
                test::put(p.b, "x");
            if (phase == 3 && std::is_same<Op, slot_op>::value)
                test::drain(p.a); // otherwise the slot would not be taken
            Op::start(reg, h.handler());
            Op::start(reg, second.handler());
            if (phase == 1)
                io.poll(); // pending for sure
            if (phase == 2 && !std::is_same<Op, slot_op>::value)
                reg.cancel(); // queued, with its result
        }
        BOOST_TEST(h.destroyed());
        BOOST_TEST(second.destroyed());
        test::drain(p.a);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_registration_destroyed_after_its_context, Op, all_operations) {
    test::fd_pair p = test::make_socketpair();
    for (trigger mode : test::both_triggers) {
        test::once h(test::expect::destroyed);
        std::optional<asio::io_context> io(std::in_place);
        moor::registration a(*io, p.a.get(), mode);
        moor::registration b(*io, p.b.get(), mode);
        Op::start(a, h.handler());
        io->poll();
        io.reset();
        BOOST_TEST(h.destroyed());
        moor::registration moved(std::move(a));
        b = std::move(moved);
    }
    BOOST_TEST(::fcntl(p.a, F_GETFD) >= 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_context_is_destroyed_on_another_thread, Op, all_operations) {
    test::fd_pair p = test::make_socketpair();
    for (trigger mode : test::both_triggers) {
        test::once completed(std::is_same<Op, slot_op>::value ? test::expect::either
                                                              : test::expect::invoked);
        test::once pending(test::expect::destroyed);
        std::optional<asio::io_context> io(std::in_place);
        std::optional<moor::registration> reg(std::in_place, *io, p.a.get(), mode);
        Op::start(*reg, completed.handler());
        std::thread([&] { // has the state know a thread that is gone afterwards
            test::put(p.b, "x");
            io->run_for(test::cap);
        })
            .join();
        test::drain(p.a);
        Op::start(*reg, pending.handler());
        std::thread([&] { io.reset(); }).join();
        BOOST_TEST(pending.destroyed());
        std::thread([&] { reg.reset(); }).join();
    }
}

BOOST_AUTO_TEST_CASE(an_idle_registration_leaves_nothing_whether_it_ends_or_outlives_its_context,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    // Where the reactor reports levels, the wakers of an idle registration are idle, too.
    auto use = [](bool outlives) {
        test::fd_pair p = test::make_socketpair();
        std::optional<asio::io_context> io(std::in_place);
        moor::registration reg(*io, p.a.get());
        test::called done;
        reg.async_wait_readable(done.handler());
        test::put(p.b, "x");
        test::run_all(*io);
        BOOST_TEST(!done.ec);
        if (!outlives)
            reg.deregister();
        io.reset();
    };
    for (bool outlives : {false, true}) {
        use(outlives); // what a thread keeps is kept once
        const long before = test::live_allocations();
        use(outlives);
        BOOST_TEST(test::live_allocations() == before);
    }
}

BOOST_AUTO_TEST_CASE(the_end_needs_no_memory,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    test::fd_pair p = test::make_socketpair();
    for (bool closes_service : {false, true}) {
        test::called wait;
        std::optional<asio::io_context> io(std::in_place);
        moor::registration reg(*io, p.a.get());
        reg.async_wait_readable(wait.handler());
        io->poll();
        {
            test::out_of_memory none;
            if (closes_service) {
                moor::use_registration_service(*io).close();
                io->restart();
                io->poll();
            }
            io.reset();
        }
        BOOST_TEST(wait.times == (closes_service ? 1 : 0));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handler_that_owns_the_registration_leaks_nothing, Op,
                              all_operations) {
    test::fd_pair p = test::make_socketpair();
    auto owner = std::make_shared<int>(0);
    {
        asio::io_context io;
        auto reg = std::make_shared<moor::registration>(io, p.a.get());
        Op::start(*reg, [reg, owner](error_code, auto...) {});
        Op::start(*reg, [reg, owner](error_code, auto...) {});
        io.poll();
        BOOST_TEST(owner.use_count() > 1);
    }
    BOOST_TEST(owner.use_count() == 1);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handler_that_owns_the_registration_and_the_handle, Op,
                              all_operations) {
    // Its destructor closes the handle: after the registration, before, or while it is destroyed.
    for (bool handle_first : {true, false})
        for (bool is_ready : {false, true}) {
            test::fd_pair p = test::make_socketpair();
            const int number = p.a;
            auto fd = std::make_shared<test::unique_fd>(std::move(p.a));
            std::weak_ptr<test::unique_fd> handle = fd;
            std::weak_ptr<moor::registration> registration;
            int invoked = 0;
            {
                asio::io_context io;
                auto reg = std::make_shared<moor::registration>(io, fd->get());
                registration = reg;
                moor::registration& r = *reg;
                if (handle_first)
                    Op::start(r, [&invoked, a = std::move(reg),
                                  b = std::move(fd)](error_code, auto...) { ++invoked; });
                else
                    Op::start(r, [&invoked, b = std::move(fd),
                                  a = std::move(reg)](error_code, auto...) { ++invoked; });
                test::run_ready(io);
                BOOST_TEST(!registration.expired());
                BOOST_TEST(::fcntl(number, F_GETFD) != -1);
                if (is_ready) {
                    test::put(p.b, "x");
                    test::run_until(io, [&] { return invoked == 1; });
                    // Everything went with the handler, and the number is free for another file.
                    BOOST_TEST(registration.expired());
                    BOOST_TEST(::fcntl(number, F_GETFD) == -1);
                    test::run_ready(io);
                }
            }
            BOOST_TEST(invoked == (is_ready ? 1 : 0));
            BOOST_TEST(registration.expired());
            BOOST_TEST(handle.expired());
            BOOST_TEST(::fcntl(number, F_GETFD) == -1);
        }
}

/// Calls `f` when it is destroyed, unless it was moved from.
template <class F>
class on_destroy {
public:
    explicit on_destroy(F f) : f_(std::move(f)) {}
    on_destroy(on_destroy&& o) noexcept
        : f_(std::move(o.f_)), active_(std::exchange(o.active_, false)) {}
    on_destroy(const on_destroy&) = delete;
    on_destroy& operator=(const on_destroy&) = delete;
    ~on_destroy() {
        if (active_)
            f_();
    }
    template <class... A>
    void operator()(A&&...) {
        BOOST_ERROR("invoked");
    }

private:
    F f_;
    bool active_ = true;
};

/// Destroys the context while the registration still lives; `f` is called in the destructors.
template <class Op, class F>
void destroyed_before(const char* calls_what, F f) {
    test::fd_pair p = test::make_socketpair();
    int calls = 0;
    std::optional<asio::io_context> io(std::in_place);
    moor::registration reg(*io, p.a.get());
    auto handler = [&] {
        return on_destroy([&] {
            ++calls;
            f(reg);
        });
    };
    for (int i = 0; i != 3; ++i)
        reg.async_wait(interest::priority, handler());
    Op::start(reg, handler());
    io->poll();
    BOOST_TEST(calls == 0);
    BOOST_TEST_CONTEXT("a destructor that calls " << calls_what) { io.reset(); }
    BOOST_TEST(calls == 4);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handlers_destructor_calls_back, Op, list_operations) {
    destroyed_before<Op>("deregister()", [](moor::registration& r) { r.deregister(); });
    destroyed_before<Op>("cancel()", [](moor::registration& r) {
        r.cancel();
        r.cancel(moor::direction::read);
    });
    destroyed_before<Op>("what does not wait", [](moor::registration& r) {
        BOOST_TEST((r.try_io(interest::writable, [](error_code&) {}).error() == test::gone));
        BOOST_TEST(r.ready(interest::error).ready().empty());
        r.clear(moor::ready_event());
        error_code ec;
        (void)r.query(ec);
    });
    test::fd_pair other = test::make_pipe();
    destroyed_before<Op>("reset()", [&](moor::registration& r) {
        error_code ec;
        r.reset(other.a.get(), ec);
        BOOST_TEST((ec == test::gone));
    });
    // The handler of a new wait is destroyed, too, or completes: it is never leaked, nor hangs.
    auto owner = std::make_shared<int>(0);
    destroyed_before<Op>("new waits", [&](moor::registration& r) {
        r.async_wait_readable([owner](error_code) {});
        r.async_io(
            interest::readable, [](error_code&) {}, [owner](error_code) {});
        (void)r.poll_read_ready([owner] {});
    });
    BOOST_TEST(owner.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(a_wakers_destructor_calls_back) {
    destroyed_before<slot_op>("several", [](moor::registration& r) {
        r.cancel();
        (void)r.poll_read_ready([] { BOOST_ERROR("woken"); });
        r.deregister();
    });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handlers_destructor_destroys_the_registration, Op,
                              list_operations) {
    test::fd_pair p = test::make_socketpair();
    std::optional<asio::io_context> io(std::in_place);
    auto reg = std::make_unique<moor::registration>(*io, p.a.get());
    int calls = 0;
    for (int i = 0; i != 3; ++i)
        Op::start(*reg, on_destroy([&] {
            ++calls;
            reg.reset();
        }));
    io->poll();
    io.reset();
    BOOST_TEST(calls == 3);
    BOOST_TEST(!reg);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handlers_destructor_emits_a_signal, Op, list_operations) {
    test::fd_pair p = test::make_socketpair();
    asio::cancellation_signal signal;
    std::optional<asio::io_context> io(std::in_place);
    moor::registration reg(*io, p.a.get());
    test::once other(test::expect::destroyed);
    Op::start(reg, on_destroy([&] { signal.emit(asio::cancellation_type::total); }));
    Op::start(reg, asio::bind_cancellation_slot(signal.slot(), other.handler()));
    io->poll();
    io.reset();
    BOOST_TEST(other.destroyed());
}

BOOST_AUTO_TEST_CASE_TEMPLATE(memory_of_destroyed_operations_is_given_back, Op, list_operations) {
    test::fd_pair p = test::make_socketpair();
    test::allocation_counts memory;
    {
        asio::io_context io;
        moor::registration reg(io, p.a.get());
        for (int i = 0; i != 5; ++i)
            Op::start(reg, asio::bind_allocator(test::counting_allocator<>(memory),
                                                [](error_code, auto...) {}));
        BOOST_TEST(memory.live == 5);
    }
    BOOST_TEST(memory.live == 0);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handler_of_a_foreign_context_whose_io_context_dies, Op,
                              list_operations) {
    // The operation is pending in io, or has been handed to `other` already.
    for (bool handed_over : {false, true}) {
        test::fd_pair p = test::make_socketpair();
        asio::io_context other;
        test::once h(test::expect::either);
        {
            asio::io_context io;
            moor::registration reg(io, p.a.get());
            Op::start(reg, asio::bind_executor(other, h.handler()));
            if (handed_over) {
                test::put(p.b, "x");
                io.poll();
            }
        }
        test::run_all(other); // the work on it was given back
        BOOST_TEST((h.destroyed() || h.times() == 1));
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_foreign_context_dies_first, Op, list_operations) {
    test::fd_pair p = test::make_socketpair();
    asio::io_context io;
    test::once h(test::expect::destroyed);
    {
        moor::registration reg(io, p.a.get());
        {
            asio::io_context other;
            Op::start(reg, asio::bind_executor(other, h.handler()));
            test::put(p.b, "x");
            io.poll(); // handed over, and destroyed with `other`
        }
        BOOST_TEST(h.destroyed());
        test::called next;
        reg.async_wait_readable(next.handler());
        test::run_all(io);
        BOOST_TEST(!next.ec);
    }
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_thread_pool_stopped_and_destroyed_with_operations_pending, Op,
                              list_operations) {
    test::fd_pair p = test::make_socketpair();
    test::once h(test::expect::destroyed);
    {
        asio::thread_pool pool(2);
        moor::registration reg(pool, p.a.get());
        Op::start(reg, h.handler());
        pool.stop();
        pool.join();
    }
    BOOST_TEST(h.destroyed());
}

BOOST_AUTO_TEST_CASE(futures_of_a_destroyed_context_are_broken) {
    test::fd_pair p = test::make_socketpair();
    std::future<void> f;
    {
        asio::io_context io;
        moor::registration reg(io, p.a.get());
        f = reg.async_wait_readable(asio::use_future);
        io.poll();
    }
    BOOST_CHECK_THROW(f.get(), std::future_error);
}

BOOST_AUTO_TEST_CASE(many_registrations_left_over_are_harmless) {
    std::vector<test::fd_pair> pipes;
    std::vector<moor::registration> left;
    int destroyed = 0;
    {
        asio::io_context io;
        for (int i = 0; i != 50; ++i) {
            pipes.push_back(test::make_pipe());
            left.emplace_back(io, pipes.back().a.get(), i % 2 ? trigger::edge : trigger::level);
            left.back().async_wait_readable(on_destroy([&] { ++destroyed; }));
            if (i % 3 == 0)
                test::put(pipes.back().b, "x");
        }
        // Not run at all: some are queued, some are pending.
    }
    BOOST_TEST(destroyed == 50);
}

// ---- close() -----------------------------------------------------------------------------------

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};
    moor::registration_service& service = moor::use_registration_service(io);
};

BOOST_FIXTURE_TEST_CASE_TEMPLATE(close_completes_pending_operations_with_gone, Op, list_operations,
                                 fixture) {
    test::fill(p.a);
    test::once a, b, w;
    Op::start(reg, a.handler());
    test::run_ready(io);
    Op::start(reg, b.handler());
    reg.async_wait_writable(w.handler());
    BOOST_TEST(!service.is_closed());
    {
        test::initiation_guard guard;
        service.close();
    }
    BOOST_TEST(service.is_closed());
    test::run_all(io);
    for (test::once* h : {&a, &b, &w})
        BOOST_TEST((h->ec == test::gone));
}

BOOST_FIXTURE_TEST_CASE(clear_and_reset_after_close_change_nothing, fixture) {
    test::put(p.b, "x");
    moor::ready_event e;
    reg.async_wait(interest::readable, [&](error_code, moor::ready_event event) { e = event; });
    test::run_all(io);
    service.close();
    service.close(); // idempotent
    reg.clear(e);
    reg.clear(moor::ready_event());
    for (int i = 0; i != 3; ++i) {
        test::called again;
        reg.async_wait_readable(again.handler());
        test::run_all(io);
        BOOST_TEST((again.ec == test::gone));
        (void)reg.try_io(interest::readable, [](error_code& ec) { ec = asio::error::would_block; });
        reg.clear(e);
    }
    error_code ec;
    reg.reset(p.a.get(), ec);
    BOOST_TEST((ec == test::gone));
}

BOOST_FIXTURE_TEST_CASE(close_wakes_the_poll_slots, fixture) {
    test::fill(p.a);
    int r = 0, w = 0;
    (void)reg.poll_read_ready([&] { ++r; });
    (void)reg.poll_write_ready([&] { ++w; });
    test::run_ready(io);
    service.close();
    test::run_all(io);
    BOOST_TEST(r == 1);
    BOOST_TEST(w == 1);
    BOOST_TEST((reg.poll_read_ready([] {}).error() == test::gone));
}

BOOST_FIXTURE_TEST_CASE(a_handler_may_close_the_service, fixture) {
    test::called other;
    bool done = false;
    reg.async_wait_readable([&](error_code ec) {
        BOOST_TEST(!ec);
        service.close();
        done = true;
    });
    reg.async_wait(interest::priority, other.handler());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done);
    BOOST_TEST((other.ec == test::gone));
}

BOOST_FIXTURE_TEST_CASE(deregistering_after_close_gives_the_handle_back, fixture) {
    service.close();
    BOOST_TEST(reg.native_handle() == p.a.get());
    BOOST_TEST(reg.deregister() == p.a.get());
    BOOST_TEST(!reg.is_registered());
    // The handle can be used with another context.
    asio::io_context other;
    moor::registration elsewhere(other, p.a.get());
    test::called done;
    elsewhere.async_wait_writable(done.handler());
    test::run_all(other);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE(the_first_reason_for_an_end_stays, fixture) {
    // The call is being made meanwhile, and would have blocked.
    test::called done;
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            service.close();
            reg.deregister();
            ec = asio::error::would_block;
        },
        done.handler());
    test::run_all(io);
    BOOST_TEST((done.ec == test::gone));
}

BOOST_FIXTURE_TEST_CASE(signals_after_close_hit_nothing, fixture) {
    asio::cancellation_signal signal;
    test::called done;
    reg.async_wait_readable(asio::bind_cancellation_slot(signal.slot(), done.handler()));
    service.close();
    signal.emit(asio::cancellation_type::total);
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST((done.ec == test::gone));
    signal.emit(asio::cancellation_type::total);
}

BOOST_FIXTURE_TEST_CASE(closing_one_context_leaves_another_alone, fixture) {
    asio::io_context other;
    moor::registration elsewhere(other, p.a.get());
    test::called done;
    elsewhere.async_wait_readable(done.handler());
    service.close();
    test::put(p.b, "x");
    test::run_all(other);
    BOOST_TEST(!done.ec);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(close_races_operations, Op, list_operations) {
    for (int round = 0; round != 100; ++round) {
        test::fd_pair p = test::make_socketpair();
        asio::thread_pool pool(1);
        auto& service = moor::use_registration_service(pool);
        moor::registration reg(pool, p.a.get());
        std::atomic<int> started{0}, over{0}, wrong{0};
        std::thread closer([&] {
            while (started < 3) {}
            service.close();
        });
        for (int i = 0; i != 50; ++i) {
            Op::start(reg, [&](error_code ec, auto...) {
                if (ec != test::gone)
                    ++wrong; // nothing else may end it: nothing is written
                ++over;
            });
            ++started;
        }
        closer.join();
        // A retry always fails.
        std::promise<error_code> last;
        Op::start(reg, [&](error_code ec, auto...) { last.set_value(ec); });
        auto f = last.get_future();
        BOOST_REQUIRE(f.wait_for(test::cap) == std::future_status::ready);
        BOOST_REQUIRE((f.get() == test::gone));
        pool.join();
        BOOST_REQUIRE_EQUAL(over.load(), 50);
        BOOST_REQUIRE_EQUAL(wrong.load(), 0);
    }
}

BOOST_AUTO_TEST_CASE(close_races_the_poll_slots) {
    for (int round = 0; round != 100; ++round) {
        test::fd_pair p = test::make_socketpair();
        asio::thread_pool pool(1);
        auto& service = moor::use_registration_service(pool);
        moor::registration reg(pool, p.a.get());
        std::atomic<int> kept{0}, woken{0};
        std::thread closer([&] { service.close(); });
        for (int i = 0; i != 20; ++i) {
            auto r = reg.poll_read_ready([&] { ++woken; });
            BOOST_REQUIRE(r.has_error());
            if (r.error() == asio::error::would_block)
                ++kept;
            else
                BOOST_REQUIRE((r.error() == test::gone));
        }
        closer.join();
        BOOST_REQUIRE((reg.poll_read_ready([] {}).error() == test::gone));
        pool.join();
        BOOST_REQUIRE_EQUAL(woken.load(), kept.load());
    }
}

BOOST_AUTO_TEST_CASE(close_races_registering_and_deregistering) {
    for (int round = 0; round != 100; ++round) {
        test::fd_pair p = test::make_socketpair();
        test::fd_pair q = test::make_socketpair();
        asio::thread_pool pool(1);
        auto& service = moor::use_registration_service(pool);
        moor::registration bystander(pool, q.a);
        auto stayed = bystander.async_wait_readable(asio::use_future);
        std::atomic<bool> go{false};
        std::thread closer([&] {
            while (!go) {}
            service.close();
        });
        moor::registration reg(pool);
        error_code ec;
        int started = 0;
        std::atomic<int> ended{0};
        std::atomic<int> ended_otherwise{0};
        for (int i = 0; i != 100 && !ec; ++i) {
            reg.register_handle(p.a.get(), ec);
            go = true;
            if (!ec) {
                ++started;
                reg.async_wait_readable([&](error_code e) {
                    ++ended;
                    if (e != test::aborted && e != test::gone)
                        ++ended_otherwise;
                });
                reg.deregister();
            }
        }
        go = true;
        closer.join();
        BOOST_REQUIRE((!ec || ec == test::gone));
        // It has closed, whoever was first: what pended is over, and nothing begins any more.
        BOOST_TEST(service.is_closed());
        bool is_over = stayed.wait_for(test::cap) == std::future_status::ready;
        BOOST_REQUIRE(is_over);
        BOOST_CHECK_EXCEPTION(
            stayed.get(), boost::system::system_error,
            [](const boost::system::system_error& e) { return e.code() == test::gone; });
        error_code late;
        reg.register_handle(p.a.get(), late);
        BOOST_TEST((late == test::gone));
        pool.join();
        BOOST_TEST(ended == started);
        BOOST_TEST(ended_otherwise == 0);
    }
}

BOOST_AUTO_TEST_SUITE_END()

} // namespace moor_test
