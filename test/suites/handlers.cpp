// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Where, when and with whose memory a handler runs, and what is held until it does.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

BOOST_AUTO_TEST_SUITE(handlers)

namespace asio = boost::asio;
using moor::interest;
using test::error_code;

struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg{io, p.a.get()};
};

/// Starts each kind of operation that becomes ready when a byte arrives.
struct wait_op {
    template <class Registration, class Handler>
    static void start(Registration& r, Handler&& h) {
        r.async_wait_readable(std::forward<Handler>(h));
    }
};
struct event_op {
    template <class Registration, class Handler>
    static void start(Registration& r, Handler&& h) {
        r.async_wait(interest::readable | interest::read_closed, std::forward<Handler>(h));
    }
};
struct io_op {
    template <class Registration, class Handler>
    static void start(Registration& r, Handler&& h) {
        r.async_io(
            interest::readable,
            [fd = r.native_handle()](error_code& ec) {
                char c;
                ::ssize_t n = ::recv(fd, &c, 1, MSG_PEEK);
                if (n < 0)
                    ec = test::last_error();
                return n;
            },
            std::forward<Handler>(h));
    }
};
using all_operations = std::tuple<wait_op, event_op, io_op>;

// ---- never within the initiating function -----------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(not_inline_when_ready_and_started_within_a_handler, Op,
                                 all_operations, fixture) {
    test::put(p.b, "x");
    test::once h;
    asio::post(io, [&] {
        test::initiation_guard guard;
        Op::start(reg, h.handler());
        BOOST_TEST(h.times() == 0);
    });
    test::run_until(io, [&] { return bool(h); });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(not_inline_on_every_error, Op, all_operations, fixture) {
    moor::registration none(io);
    test::once unregistered, gone;
    {
        test::initiation_guard guard;
        Op::start(none, unregistered.handler());
    }
    test::run_until(io, [&] { return bool(unregistered); });
    BOOST_TEST((unregistered.ec == moor::error::not_registered));
    moor::use_registration_service(io).close();
    {
        test::initiation_guard guard;
        Op::start(reg, gone.handler());
    }
    test::run_until(io, [&] { return bool(gone); });
    BOOST_TEST((gone.ec == moor::error::gone));
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(not_inline_in_cancel_and_deregister, Op, all_operations, fixture) {
    test::once cancelled, one, deregistered, destroyed;
    asio::cancellation_signal signal;
    Op::start(reg, cancelled.handler());
    {
        test::initiation_guard guard;
        reg.cancel();
    }
    test::run_until(io, [&] { return bool(cancelled); });
    Op::start(reg, asio::bind_cancellation_slot(signal.slot(), one.handler()));
    {
        test::initiation_guard guard;
        signal.emit(asio::cancellation_type::total);
    }
    test::run_until(io, [&] { return bool(one); });
    Op::start(reg, deregistered.handler());
    {
        test::initiation_guard guard;
        reg.deregister();
    }
    test::run_until(io, [&] { return bool(deregistered); });
    reg.register_handle(p.a.get());
    Op::start(reg, destroyed.handler());
    {
        test::initiation_guard guard;
        moor::registration dies(std::move(reg));
    }
    test::run_until(io, [&] { return bool(destroyed); });
    for (test::once* h : {&cancelled, &one, &deregistered, &destroyed})
        BOOST_TEST(h->ec == asio::error::operation_aborted);
}

BOOST_FIXTURE_TEST_CASE(the_callable_of_async_io_does_not_run_in_the_initiating_function, fixture) {
    test::put(p.b, "x");
    bool inside = false, called = false;
    test::once h;
    {
        test::initiation_guard guard;
        reg.async_io(
            interest::readable,
            [&](error_code&) {
                called = true;
                inside = test::initiation_guard::active();
            },
            h.handler());
        BOOST_TEST(!called);
    }
    test::run_until(io, [&] { return bool(h); });
    BOOST_TEST(called);
    BOOST_TEST(!inside);
}

// ---- the associated executor --------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(errors_run_through_a_bound_executor, Op, all_operations, fixture) {
    test::tracker_executor ex(1, io.get_executor());
    int times = 0;
    auto handler = [&](error_code ec, auto...) {
        BOOST_TEST(bool(ec));
        BOOST_TEST(test::running_on(1));
        ++times;
    };
    Op::start(reg, asio::bind_executor(ex, handler));
    reg.cancel();
    Op::start(reg, asio::bind_executor(ex, handler));
    reg.deregister();
    Op::start(reg, asio::bind_executor(ex, handler));
    test::run_until(io, [&] { return times == 3; });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(runs_through_the_io_executor_without_a_bound_one, Op,
                                 all_operations, fixture) {
    reg.deregister();
    auto check = [&](auto r, auto is_there) {
        int times = 0;
        auto handler = [&](error_code ec, auto...) {
            BOOST_TEST(is_there());
            BOOST_TEST(bool(ec) == (times == 2));
            ++times;
        };
        Op::start(r, handler); // pending
        test::run_ready(io);
        test::put(p.b, "x");
        test::run_until(io, [&] { return times == 1; });
        Op::start(r, handler); // ready
        test::run_until(io, [&] { return times == 2; });
        r.deregister();
        Op::start(r, handler); // error
        test::run_until(io, [&] { return times == 3; });
        test::drain(p.a);
    };
    test::tracker_executor seven(7, io.get_executor()), eight(8, io.get_executor());
    check(moor::basic_registration<test::tracker_executor>(seven, p.a.get()),
          [] { return test::running_on(7); });
    check(moor::registration(asio::any_io_executor(eight), p.a.get()),
          [] { return test::running_on(8); });
    auto strand = asio::make_strand(io.get_executor());
    using on_strand = moor::basic_registration<decltype(strand)>;
    static_assert(std::is_same<typename on_strand::executor_type, decltype(strand)>::value, "");
    check(on_strand(strand, p.a.get()), [&] { return strand.running_in_this_thread(); });
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(the_handlers_executor_wins_over_the_io_executor, Op,
                                 all_operations, fixture) {
    reg.deregister();
    moor::basic_registration<test::tracker_executor> tracked(
        test::tracker_executor(7, io.get_executor()), p.a.get());
    bool done = false;
    Op::start(tracked, asio::bind_executor(test::tracker_executor(9, io.get_executor()),
                                           [&](error_code, auto...) {
                                               BOOST_TEST(test::running_on(9));
                                               BOOST_TEST(test::tracker_stack().back() == 9);
                                               done = true;
                                           }));
    test::put(p.b, "x");
    test::run_until(io, [&] { return done; });
}

BOOST_FIXTURE_TEST_CASE(the_callable_of_async_io_runs_through_the_handlers_executor, fixture) {
    test::tracker_executor ex(3, io.get_executor());
    test::called done;
    int calls = 0;
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            ++calls;
            BOOST_TEST(test::running_on(3));
            return test::reader{p.a.get()}(ec);
        },
        asio::bind_executor(ex, done.handler()));
    test::run_ready(io);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(calls >= 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_handler_on_a_foreign_context_runs_there, Op, all_operations,
                                 fixture) {
    asio::io_context other;
    int times = 0;
    auto handler = [&](error_code ec, auto...) {
        BOOST_TEST(!ec);
        BOOST_TEST(other.get_executor().running_in_this_thread());
        BOOST_TEST(!io.get_executor().running_in_this_thread());
        ++times;
    };
    Op::start(reg, asio::bind_executor(other, handler));
    test::put(p.b, "x");
    // The event comes on io; the handler must not run there.
    test::run_ready(io);
    BOOST_TEST(times == 0);
    other.run();
    BOOST_TEST(times == 1);
    // Ready at once.
    other.restart();
    Op::start(reg, asio::bind_executor(other, handler));
    test::run_ready(io);
    BOOST_TEST(times == 1);
    other.run();
    BOOST_TEST(times == 2);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_strand_serialises_the_handlers, Op, all_operations, fixture) {
    auto strand = asio::make_strand(io);
    int times = 0;
    for (int i = 0; i != 20; ++i)
        Op::start(reg, asio::bind_executor(strand, [&](error_code ec, auto...) {
                      BOOST_TEST(!ec);
                      BOOST_TEST(strand.running_in_this_thread());
                      ++times;
                  }));
    test::put(p.b, "x");
    test::run_until(io, [&] { return times == 20; });
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_thread_pool_is_the_context, Op, all_operations) {
    test::fd_pair p = test::make_socketpair();
    asio::thread_pool pool(2);
    moor::basic_registration<asio::thread_pool::executor_type> r(pool, p.a.get());
    for (bool is_ready : {false, true}) {
        std::promise<bool> done;
        Op::start(r, [&](error_code ec, auto...) {
            done.set_value(!ec && pool.get_executor().running_in_this_thread());
        });
        if (!is_ready)
            test::put(p.b, "x");
        auto result = done.get_future();
        BOOST_REQUIRE(result.wait_for(test::cap) == std::future_status::ready);
        BOOST_TEST(result.get());
    }
    pool.join();
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_handler_of_an_io_context_may_be_bound_to_a_thread_pool, Op,
                              all_operations) {
    fixture f;
    asio::thread_pool pool(1);
    std::promise<bool> done;
    Op::start(f.reg, asio::bind_executor(pool, [&](error_code ec, auto...) {
                  done.set_value(!ec && pool.get_executor().running_in_this_thread());
              }));
    test::put(f.p.b, "x");
    auto result = done.get_future();
    // For async_io this brings the callable to the pool, which may bring it back once more.
    test::run_until(f.io, [&] {
        return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready ||
               f.io.stopped() || f.io.poll() == 0;
    });
    BOOST_REQUIRE(result.wait_for(test::cap) == std::future_status::ready);
    BOOST_TEST(result.get());
    pool.join();
}

// ---- the associated allocator ------------------------------------------------------------------

template <class H>
auto with_memory(test::allocation_counts& c, H&& h) {
    return asio::bind_allocator(test::counting_allocator<>(c), std::forward<H>(h));
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(memory_comes_from_the_handlers_allocator_once, Op, all_operations,
                                 fixture) {
    test::allocation_counts memory;
    int times = 0;
    auto handler = [&](error_code, auto...) {
        BOOST_TEST(memory.live == 0);
        ++times;
    };
    Op::start(reg, with_memory(memory, handler));
    BOOST_TEST(memory.live == 1);
    test::run_ready(io);
    BOOST_TEST(memory.live == 1);
    test::put(p.b, "x");
    test::run_until(io, [&] { return times == 1; });
    BOOST_TEST(memory.total == 1);
    Op::start(reg, with_memory(memory, handler)); // ready
    BOOST_TEST(memory.live == 1);
    test::run_until(io, [&] { return times == 2; });
    BOOST_TEST(memory.total == 2);
    Op::start(reg, with_memory(memory, handler)); // ready or not: cancelled
    reg.deregister();
    test::run_until(io, [&] { return times == 3; });
    BOOST_TEST(memory.live == 0);
    Op::start(reg, with_memory(memory, handler)); // an error
    test::run_until(io, [&] { return times == 4; });
    BOOST_TEST(memory.live == 0);
    BOOST_TEST(memory.total == 4);
}

/// The second wait on a handle, started outside of a handler: Asio's cache of memory is not used.
template <class Op>
void check_that_nothing_else_allocates() {
    fixture f;
    test::once first;
    Op::start(f.reg, first.handler());
    test::run_ready(f.io);
    test::put(f.p.b, "x");
    test::run_until(f.io, [&] { return bool(first); });
    test::drain(f.p.a);
    for (bool ready : {false, true}) {
        test::allocation_counts memory;
        bool over = false;
        if (ready)
            test::put(f.p.b, "x");
        test::call_counts before = test::counts();
        Op::start(f.reg, with_memory(memory, [&](error_code, auto...) { over = true; }));
        test::call_counts used = test::counts() - before;
        BOOST_TEST(memory.total == 1);
        BOOST_TEST(used.allocations == memory.total);
        if (!ready)
            test::put(f.p.b, "x");
        test::run_until(f.io, [&] { return over; });
        test::drain(f.p.a);
    }
}

BOOST_AUTO_TEST_CASE(no_memory_comes_from_anywhere_else,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    check_that_nothing_else_allocates<wait_op>();
    check_that_nothing_else_allocates<event_op>();
    check_that_nothing_else_allocates<io_op>();
}

BOOST_FIXTURE_TEST_CASE(a_retry_of_async_io_allocates_nothing_more, fixture) {
    test::allocation_counts memory;
    int calls = 0;
    test::called done;
    reg.async_io(
        interest::readable,
        [&](error_code& ec) {
            ++calls;
            char c;
            if (::recv(p.a, &c, 1, 0) < 0)
                ec = test::last_error();
            else if (c != 'c')
                ec = asio::error::would_block; // not the one
        },
        with_memory(memory, done.handler()));
    for (const char* s : {"a", "b", "c"}) {
        test::run_ready(io);
        test::put(p.b, s);
    }
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(calls >= 3);
    BOOST_TEST(memory.total == 1);
    BOOST_TEST(memory.live == 0);
}

/// A handler with an allocator and nothing else. (What bind_allocator makes counts as having an
/// executor, too, and takes another path.)
template <class F>
struct allocating_handler {
    using allocator_type = test::counting_allocator<>;

    test::allocation_counts* memory;
    F function;

    allocator_type get_allocator() const noexcept { return allocator_type(*memory); }
    template <class... Args>
    void operator()(Args... args) {
        function(args...);
    }
};

/// Calls `f` with both kinds of handler that use `memory`.
template <class Handler, class F>
void with_each_handler(test::allocation_counts& memory, Handler handler, F f) {
    f(allocating_handler<Handler>{&memory, handler});
    f(with_memory(memory, handler));
}

/// How an operation comes to its end.
enum class ending {
    by_an_event,
    at_once,
    by_cancelling,
    by_deregistering,
    by_closing,
    unregistered
};

template <class Op, class Executor>
void check_that_memory_is_given_back_first(ending how, moor::trigger t,
                                           Executor (*executor)(asio::io_context&)) {
    test::allocation_counts memory;
    bool done = false;
    auto handler = [&](error_code, auto...) {
        BOOST_TEST(memory.live == 0);
        done = true;
    };
    with_each_handler(memory, handler, [&](auto h) {
        asio::io_context io;
        test::fd_pair p = test::make_socketpair();
        moor::basic_registration<Executor> r(executor(io));
        if (how != ending::unregistered)
            r.register_handle(p.a, t);
        if (how == ending::at_once)
            test::put(p.b, "x");
        done = false;
        Op::start(r, std::move(h));
        BOOST_TEST(memory.live == 1);
        if (how != ending::at_once && how != ending::unregistered)
            test::run_ready(io);
        if (how == ending::by_an_event)
            test::put(p.b, "x");
        else if (how == ending::by_cancelling)
            r.cancel();
        else if (how == ending::by_deregistering)
            r.deregister();
        else if (how == ending::by_closing)
            moor::use_registration_service(io).close();
        test::run_until(io, [&] { return done; });
    });
    BOOST_TEST(memory.total == 2);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(memory_is_given_back_before_a_handler_runs_however_it_came_to_it, Op,
                              all_operations) {
    for (ending how : {ending::by_an_event, ending::at_once, ending::by_cancelling,
                       ending::by_deregistering, ending::by_closing, ending::unregistered})
        for (moor::trigger t : test::both_triggers)
            BOOST_TEST_CONTEXT("ending " << static_cast<int>(how)) {
                check_that_memory_is_given_back_first<Op, asio::io_context::executor_type>(
                    how, t, [](asio::io_context& io) { return io.get_executor(); });
                check_that_memory_is_given_back_first<Op, asio::any_io_executor>(
                    how, t,
                    [](asio::io_context& io) { return asio::any_io_executor(io.get_executor()); });
                check_that_memory_is_given_back_first<Op, asio::any_io_executor>(
                    how, t, [](asio::io_context& io) {
                        return asio::any_io_executor(asio::make_strand(io));
                    });
            }
}

BOOST_FIXTURE_TEST_CASE(memory_of_a_transfer_is_given_back_before_its_handler_runs, fixture) {
    reg.deregister();
    test::allocation_counts memory;
    int done = 0;
    auto handler = [&](error_code, std::size_t) {
        BOOST_TEST(memory.live == 0);
        ++done;
    };
    auto check = [&](auto& stream, auto h) {
        stream.assign(moor::borrow(p.a.get()));
        std::array<char, 4> bytes;
        done = 0;
        auto read = [&] { stream.async_read_some(asio::buffer(bytes), h); };
        read(); // by an event
        test::run_ready(io);
        test::put(p.b, "x");
        test::run_until(io, [&] { return done == 1; });
        test::put(p.b, "x"); // at once
        read();
        test::run_until(io, [&] { return done == 2; });
        stream.async_write_some(asio::buffer("x", 1), h);
        test::run_until(io, [&] { return done == 3; });
        stream.async_read_some(asio::buffer(bytes.data(), 0), h);
        test::run_until(io, [&] { return done == 4; });
        read();
        test::run_ready(io);
        stream.cancel();
        test::run_until(io, [&] { return done == 5; });
        read();
        test::run_ready(io);
        stream.close();
        test::run_until(io, [&] { return done == 6; });
        read(); // an error
        test::run_until(io, [&] { return done == 7; });
        test::drain(p.b);
    };
    moor::basic_stream_descriptor<asio::io_context::executor_type> plain(io);
    moor::stream_descriptor erased(io);
    with_each_handler(memory, handler, [&](auto h) { check(plain, h); });
    with_each_handler(memory, handler, [&](auto h) { check(erased, h); });
    BOOST_TEST(memory.total == 28);
    BOOST_TEST(memory.live == 0);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(memory_is_given_back_before_a_handler_on_another_executor_runs, Op,
                                 all_operations, fixture) {
    // (dispatching to another executor may allocate from the same allocator in its turn)
    test::allocation_counts memory;
    asio::io_context other;
    bool done = false;
    // (Boost 1.84 does not compile the two the other way round.)
    Op::start(reg, with_memory(memory, asio::bind_executor(other, [&](error_code, auto...) {
                                   BOOST_TEST(memory.live == 0);
                                   done = true;
                               })));
    test::put(p.b, "x");
    test::run_ready(io);
    other.run();
    BOOST_TEST(done);
    BOOST_TEST(memory.live == 0);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(if_allocation_throws_nothing_has_changed, Op, all_operations,
                                 fixture) {
    test::allocation_counts memory;
    auto& service = moor::use_registration_service(io);
    memory.left = 0;
    asio::cancellation_signal signal;
    bool ran = false;
    auto owned = std::make_shared<int>(0);
    BOOST_CHECK_THROW(Op::start(reg, with_memory(memory, asio::bind_cancellation_slot(
                                                             signal.slot(),
                                                             [&ran, owned](error_code, auto...) {
                                                                 ran = true;
                                                             }))),
                      std::bad_alloc);
    BOOST_TEST(owned.use_count() == 1); // the handler is destroyed
    BOOST_TEST(memory.live == 0);
    BOOST_TEST(service.metrics().waits_started == 0u);
    BOOST_TEST(service.snapshot().at(0).waiters == 0u);
    io.poll();
    BOOST_TEST(io.stopped()); // no work was counted
    io.restart();
    signal.emit(asio::cancellation_type::total);
    test::put(p.b, "x");
    test::run_ready(io);
    BOOST_TEST(!ran);
    // And it works afterwards.
    memory.left = -1;
    Op::start(reg, with_memory(memory, [&](error_code ec, auto...) {
                  BOOST_TEST(!ec);
                  ran = true;
              }));
    test::run_until(io, [&] { return ran; });
}

// ---- outstanding work --------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_pending_wait_is_work_and_run_returns_after_it, Op,
                                 all_operations, fixture) {
    for (int round = 0; round != 2; ++round) { // with the waker armed from the first
        bool done = false;
        io.restart();
        Op::start(reg, [&](error_code, auto...) { done = true; });
        for (int i = 0; i != 5; ++i) {
            io.poll();
            BOOST_TEST(!io.stopped());
        }
        test::put(p.b, "x");
        test::run_all(io);
        BOOST_TEST(done);
        test::drain(p.a);
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(each_of_many_waits_is_work, Op, all_operations, fixture) {
    int times = 0;
    auto start_ten = [&] {
        times = 0;
        io.restart();
        for (int i = 0; i != 10; ++i)
            Op::start(reg, [&](error_code, auto...) { ++times; });
    };
    start_ten();
    io.poll();
    BOOST_TEST(!io.stopped());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(times == 10);
    start_ten();
    test::run_all(io); // ready at once, all of them
    BOOST_TEST(times == 10);
    test::drain(p.a);
    start_ten();
    io.poll();
    BOOST_TEST(!io.stopped());
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(times == 10);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(cancelled_waits_leave_no_work, Op, all_operations, fixture) {
    for (int round = 0; round != 3; ++round) {
        test::called done;
        Op::start(reg, done.handler());
        io.restart();
        io.poll();
        BOOST_TEST(!io.stopped());
        if (round == 0)
            reg.cancel();
        else if (round == 1)
            reg.deregister();
        else
            moor::use_registration_service(io).close();
        test::run_all(io);
        BOOST_TEST(done.times == 1);
        if (round == 1)
            reg.register_handle(p.a.get());
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(events_that_nobody_waits_for_leave_the_work_alone, Op,
                                 all_operations, fixture) {
    // Arm the waker, and let it fire with nobody there, often enough to leave the reactor.
    bool done = false;
    Op::start(reg, [&](error_code, auto...) { done = true; });
    test::put(p.b, "x");
    test::run_until(io, [&] { return done; });
    for (int i = 0; i != 20; ++i) {
        test::drain(p.a);
        test::put(p.b, "y");
        test::run_ready(io);
        io.restart();
        io.poll();
        BOOST_TEST(io.stopped());
    }
    test::drain(p.a);
    io.restart();
    done = false;
    Op::start(reg, [&](error_code, auto...) { done = true; });
    io.poll();
    BOOST_TEST(!io.stopped());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(work_is_held_on_the_handlers_context_until_the_end, Op,
                                 all_operations, fixture) {
    for (bool is_cancelled : {false, true}) {
        asio::io_context other;
        io.restart();
        test::called done;
        Op::start(reg, asio::bind_executor(other, done.handler()));
        io.poll();
        other.poll();
        BOOST_TEST(!io.stopped());
        BOOST_TEST(!other.stopped()); // although it has nothing to do yet
        if (is_cancelled)
            reg.cancel();
        else
            test::put(p.b, "x");
        // A callable that has to go to `other` first keeps io busy meanwhile.
        BOOST_TEST(test::wait_for([&] {
            io.poll();
            other.poll();
            return io.stopped() && other.stopped();
        }));
        BOOST_TEST(done.times == 1);
        BOOST_TEST((done.ec == (is_cancelled ? test::aborted : error_code())));
        test::drain(p.a);
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(work_is_held_until_the_handler_has_started, Op, all_operations,
                                 fixture) {
    // The handler starts the next wait: run() must not return in between.
    for (moor::trigger t : test::both_triggers)
        for (bool is_pipe : {false, true}) {
            test::fd_pair q = is_pipe ? test::make_pipe() : test::make_socketpair();
            moor::registration r(io, q.a.get(), t);
            int times = 0;
            std::function<void()> again = [&] {
                Op::start(r, [&](error_code, auto...) {
                    test::drain(q.a);
                    if (++times != 500) {
                        again();
                        test::put(q.b, "x");
                    }
                });
            };
            again();
            test::put(q.b, "x");
            BOOST_TEST(test::run_all(io) >= 500u);
            BOOST_TEST(times == 500);
        }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(run_one_counts_one_for_one_completed_wait, Op, all_operations,
                                 fixture) {
    int times = 0;
    for (int i = 0; i != 3; ++i)
        Op::start(reg, [&](error_code, auto...) { ++times; });
    test::put(p.b, "x");
    // (The reactor's turn may count as one, without a handler.)
    for (int steps = 0; times != 3 && steps != 20; ++steps) {
        const int before = times;
        BOOST_TEST(io.run_one() == 1u);
        BOOST_TEST(times - before <= 1);
    }
    BOOST_TEST(times == 3);
    io.poll();
    BOOST_TEST(io.stopped());
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(stop_and_restart_lose_nothing, Op, all_operations, fixture) {
    test::called done;
    Op::start(reg, done.handler());
    io.poll();
    io.stop();
    test::put(p.b, "x");
    io.run();
    BOOST_TEST(done.times == 0);
    io.restart();
    test::run_all(io);
    BOOST_TEST(done.times == 1);
}

// ---- exceptions --------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE_TEMPLATE(an_exception_of_a_handler_leaves_run, Op, all_operations,
                                 fixture) {
    test::allocation_counts memory;
    auto owned = std::make_shared<int>(0);
    auto thrower = [owned](error_code, auto...) { throw std::runtime_error("mine"); };
    Op::start(reg, with_memory(memory, thrower));
    test::put(p.b, "x");
    BOOST_CHECK_THROW(test::run_all(io), std::runtime_error);
    BOOST_TEST(memory.live == 0);
    Op::start(reg, with_memory(memory, thrower)); // ready at once
    BOOST_CHECK_THROW(test::run_all(io), std::runtime_error);
    BOOST_TEST(owned.use_count() == 2); // mine and the one in `thrower`
    // The registration works as before, and the work is balanced.
    test::run_all(io);
    test::drain(p.a);
    test::called done;
    Op::start(reg, done.handler());
    io.restart();
    io.poll();
    BOOST_TEST(done.times == 0);
    BOOST_TEST(!io.stopped());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(!done.ec);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(an_exception_of_one_handler_leaves_the_others_pending, Op,
                                 all_operations, fixture) {
    for (int thrower : {0, 1}) {
        int times = 0;
        for (int i = 0; i != 3; ++i)
            Op::start(reg, [&times, throws = i == thrower](error_code, auto...) {
                if (throws)
                    throw std::runtime_error("mine");
                ++times;
            });
        test::put(p.b, "x");
        BOOST_CHECK_THROW(test::run_all(io), std::runtime_error);
        test::run_all(io);
        BOOST_TEST(times == 2);
        test::drain(p.a);
    }
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_handler_may_destroy_its_registration, Op, all_operations,
                                 fixture) {
    auto owned = std::make_unique<moor::registration>(std::move(reg));
    test::called done;
    Op::start(*owned, [&](error_code ec, auto...) {
        owned.reset();
        done.handler()(ec);
    });
    test::called other;
    Op::start(*owned, other.handler());
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST(other.times == 1);
    BOOST_TEST(::fcntl(p.a.get(), F_GETFD) >= 0); // still open
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_handler_may_own_its_registration, Op, all_operations, fixture) {
    auto owned = std::make_unique<moor::registration>(std::move(reg));
    moor::registration& r = *owned;
    bool done = false;
    Op::start(r, [&done, mine = std::move(owned)](error_code ec, auto...) {
        BOOST_TEST(!ec);
        BOOST_TEST(mine->is_registered());
        done = true;
    });
    test::put(p.b, "x");
    test::run_all(io);
    BOOST_TEST(done);
    BOOST_TEST(moor::use_registration_service(io).snapshot().size() == 0u);
}

// ---- what item 10 asks of the type -------------------------------------------------------------

static_assert(std::is_nothrow_move_constructible<moor::registration>::value, "");
static_assert(std::is_nothrow_move_assignable<moor::registration>::value, "");
static_assert(std::is_nothrow_move_constructible<
                  moor::basic_registration<asio::io_context::executor_type>>::value,
              "");
static_assert(std::is_nothrow_move_assignable<
                  moor::basic_registration<asio::thread_pool::executor_type>>::value,
              "");
static_assert(std::is_nothrow_destructible<moor::registration>::value, "");
static_assert(!std::is_copy_constructible<moor::registration>::value, "");
static_assert(
    std::is_same<moor::registration::rebind_executor<asio::io_context::executor_type>::other,
                 moor::basic_registration<asio::io_context::executor_type>>::value,
    "");

// ---- immediate executors -----------------------------------------------------------------------

#if BOOST_ASIO_VERSION >= 102700

struct event_only {
    template <class Handler>
    static void start(moor::registration& r, Handler&& h) {
        r.async_wait(interest::readable, std::forward<Handler>(h));
    }
};
using waits = std::tuple<wait_op, event_only>;

BOOST_FIXTURE_TEST_CASE_TEMPLATE(an_error_completes_inline_through_its_immediate_executor, Op,
                                 waits, fixture) {
    reg.deregister();
    asio::post(io, [&] {
        error_code seen;
        Op::start(reg, asio::bind_immediate_executor(io.get_executor(),
                                                     [&](error_code ec, auto...) { seen = ec; }));
        BOOST_TEST((seen == moor::error::not_registered));
    });
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_pending_wait_does_not_use_its_immediate_executor, Op, waits,
                                 fixture) {
    test::tracker_executor immediate(1, io.get_executor());
    bool done = false;
    Op::start(reg, asio::bind_immediate_executor(immediate, [&](error_code, auto...) {
                  BOOST_TEST(!test::running_on(1));
                  done = true;
              }));
    test::run_ready(io);
    BOOST_TEST(!done);
    test::put(p.b, "x");
    test::run_until(io, [&] { return done; });
    BOOST_TEST(immediate.executed() == 0);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(the_immediate_executor_is_where_a_ready_wait_completes, Op, waits,
                                 fixture) {
    test::tracker_executor immediate(1, io.get_executor());
    test::put(p.b, "x");
    bool done = false;
    Op::start(reg, asio::bind_immediate_executor(immediate, [&](error_code, auto...) {
                  BOOST_TEST(test::running_on(1));
                  done = true;
              }));
    test::run_until(io, [&] { return done; });
    BOOST_TEST(immediate.executed() == 1);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(a_ready_wait_completes_inline_through_its_immediate_executor, Op,
                                 waits, fixture) {
    test::allocation_counts memory;
    test::put(p.b, "x");
    asio::post(io, [&] {
        bool done = false;
        auto handler = [&](error_code ec, auto...) {
            BOOST_TEST(!ec);
            BOOST_TEST(memory.live == 0);
            done = true;
        };
        Op::start(reg, asio::bind_immediate_executor(io.get_executor(), handler));
        BOOST_TEST(done); // dispatch() within the context
        done = false;
        Op::start(reg,
                  with_memory(memory, asio::bind_immediate_executor(io.get_executor(), handler)));
        BOOST_TEST(done);
    });
    test::run_all(io); // no work is held
    BOOST_TEST(memory.live == 0);
}

/// Waits in a chain, each started by the handler of the one before; the deepest nesting.
template <class Op>
struct chain {
    moor::registration& reg;
    asio::io_context& io;
    int left;
    int depth = 0;
    int deepest = 0;

    void step() {
        if (left-- == 0)
            return;
        Op::start(reg,
                  asio::bind_immediate_executor(io.get_executor(), [this](error_code, auto...) {
                      deepest = std::max(deepest, ++depth);
                      step();
                      --depth;
                  }));
    }
};

BOOST_FIXTURE_TEST_CASE_TEMPLATE(no_more_than_the_inline_budget_completes_inline, Op, waits,
                                 fixture) {
    auto& service = moor::use_registration_service(io);
    test::put(p.b, "x");
    for (unsigned budget : {0u, 1u, 5u, 128u}) {
        service.inline_budget(budget);
        chain<Op> c{reg, io, 1000};
        asio::post(io, [&] { c.step(); });
        test::run_all(io);
        BOOST_TEST(c.left == -1);
        // A posted one adds the frame it starts from.
        BOOST_TEST(c.deepest <= static_cast<int>(budget) + 1);
        BOOST_TEST(c.deepest >= static_cast<int>(budget));
    }
}

BOOST_FIXTURE_TEST_CASE(the_inline_budget_lets_others_run, fixture) {
    auto& service = moor::use_registration_service(io);
    service.inline_budget(10);
    test::put(p.b, "x");
    // A loop, not a chain: the run of inline completions must end all the same.
    int done_inline = 0, done = 0;
    asio::post(io, [&] {
        for (int i = 0; i != 100; ++i) {
            int before = done;
            reg.async_wait_readable(
                asio::bind_immediate_executor(io.get_executor(), [&](error_code) { ++done; }));
            done_inline += done != before;
        }
    });
    test::run_all(io);
    BOOST_TEST(done == 100);
    BOOST_TEST(done_inline < 100);
    BOOST_TEST(done_inline > 0);
}

BOOST_FIXTURE_TEST_CASE_TEMPLATE(an_exception_of_an_immediate_completion_leaves_run, Op, waits,
                                 fixture) {
    // An io_context's executor keeps the exception of what it runs inline for run().
    test::put(p.b, "x");
    asio::post(io, [&] {
        Op::start(reg, asio::bind_immediate_executor(io.get_executor(), [](error_code, auto...) {
                      throw std::runtime_error("mine");
                  }));
    });
    BOOST_CHECK_THROW(test::run_all(io), std::runtime_error);
    test::run_all(io);
    test::called next;
    Op::start(reg, next.handler());
    test::run_all(io);
    BOOST_TEST(!next.ec);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
