// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// moor::operation: a handler kept for an adapter. How it is completed, cancelled and dropped, and
// what becomes of it when its context goes first. The last part is an adapter of a small C library.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/handles.hpp"
#include "support/tracker.hpp"
#include "support/vocabulary.hpp"

#include <moor/operation.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/bind_allocator.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/consign.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/version.hpp>
#if BOOST_ASIO_VERSION >= 102700 // Boost 1.82
#include <boost/asio/bind_immediate_executor.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/timerfd.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(operation)

namespace {

namespace asio = boost::asio;
using asio::cancellation_type;
using test::aborted;
using test::error_code;

using sized = moor::operation<void(error_code, std::size_t)>;
using plain = moor::operation<void(error_code)>;

static_assert(std::is_nothrow_move_constructible<plain>::value, "");
static_assert(std::is_nothrow_move_assignable<plain>::value, "");
static_assert(!std::is_copy_constructible<plain>::value, "");
static_assert(!std::is_copy_assignable<plain>::value, "");
static_assert(std::is_nothrow_default_constructible<plain>::value, "");
static_assert(!std::is_convertible<plain, bool>::value, "");

/// The smallest adapter: one operation at a time, completed by whoever holds the adapter.
template <class Signature>
struct adapter {
    asio::any_io_executor ex;
    moor::operation<Signature> op;
    cancellation_type cancelled = cancellation_type::none;

    explicit adapter(asio::any_io_executor e) : ex(std::move(e)) {}

    template <class Token>
    auto async_run(Token&& token) {
        auto initiation = [this](auto handler) {
            test::initiation_guard guard;
            op = moor::operation<Signature>::start(std::move(handler), ex);
            op.on_cancel([this](cancellation_type type) { cancelled = type; });
        };
        return asio::async_initiate<Token, Signature>(std::move(initiation), token);
    }
};

struct fixture : test::context_fixture {
    plain start(test::once& o) { return plain::start(o.handler(), io.get_executor()); }
};

} // namespace

// ---- completing ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_handler_receives_the_arguments_of_complete, fixture) {
    error_code ec;
    std::size_t n = 0;
    auto op = sized::start(
        [&](error_code e, std::size_t s) {
            ec = e;
            n = s;
        },
        io.get_executor());
    BOOST_TEST(bool(op));
    op.complete(test::would_block, 42);
    BOOST_TEST(!op);
    BOOST_TEST(n == 0u);
    BOOST_TEST(test::run_all(io) == 1u);
    BOOST_TEST(ec == test::would_block);
    BOOST_TEST(n == 42u);
}

BOOST_FIXTURE_TEST_CASE(an_operation_may_have_no_arguments, fixture) {
    test::once h;
    auto op = moor::operation<void()>::start(h.handler(), io.get_executor());
    op.complete();
    test::run_all(io);
    BOOST_TEST(h.times() == 1);
}

BOOST_FIXTURE_TEST_CASE(arguments_may_be_move_only, fixture) {
    std::unique_ptr<int> received;
    auto op = moor::operation<void(error_code, std::unique_ptr<int>)>::start(
        [&](error_code, std::unique_ptr<int> p) { received = std::move(p); }, io.get_executor());
    op.complete(error_code(), std::make_unique<int>(7));
    test::run_all(io);
    BOOST_REQUIRE(received);
    BOOST_TEST(*received == 7);
}

BOOST_FIXTURE_TEST_CASE(arguments_need_not_be_default_constructible, fixture) {
    struct value {
        explicit value(int n) : number(n) {}
        int number;
    };
    int received = 0;
    auto op = moor::operation<void(value)>::start([&](value v) { received = v.number; },
                                                  io.get_executor());
    op.complete(value(7));
    test::run_all(io);
    BOOST_TEST(received == 7);
}

BOOST_FIXTURE_TEST_CASE(an_argument_passed_by_reference_is_kept_as_a_copy, fixture) {
    std::string received;
    auto op = moor::operation<void(const std::string&)>::start(
        [&](const std::string& s) { received = s; }, io.get_executor());
    {
        std::string text(100, 'x');
        op.complete(text);
        text.assign(100, 'y');
    }
    test::run_all(io);
    BOOST_TEST(received == std::string(100, 'x'));
}

BOOST_FIXTURE_TEST_CASE(complete_never_invokes_the_handler_itself, fixture) {
    // Not from outside the loop, and not from a handler, where a dispatch would run at once.
    test::once outside, inside;
    auto a = start(outside);
    {
        test::initiation_guard guard;
        a.complete(error_code());
    }
    BOOST_TEST(outside.times() == 0);
    auto b = start(inside);
    asio::post(io, [&] {
        test::initiation_guard guard;
        b.complete(error_code());
    });
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(an_operation_completed_before_its_start_is_over_is_posted_too, fixture) {
    // As by a library that calls back from within the call that starts the request.
    test::once h;
    adapter<void(error_code)> a(io.get_executor());
    auto initiation = [&](auto handler) {
        test::initiation_guard guard;
        a.op = plain::start(std::move(handler), a.ex);
        a.op.complete(error_code());
    };
    auto token = h.handler();
    asio::post(io, [&] {
        asio::async_initiate<test::once_handler, void(error_code)>(std::move(initiation), token);
    });
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(completing_an_empty_operation_does_nothing, fixture) {
    plain none;
    none.complete(error_code());
    none.on_cancel([](cancellation_type) {});
    BOOST_TEST(!none);
    test::once h;
    auto op = start(h);
    op.complete(test::would_block);
    op.complete(aborted);
    test::run_all(io);
    BOOST_TEST(h.ec == test::would_block);
}

BOOST_FIXTURE_TEST_CASE(a_completed_operation_can_be_started_again, fixture) {
    plain op;
    for (int i = 0; i != 3; ++i) {
        test::once h;
        op = start(h);
        op.complete(error_code());
        test::run_all(io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handler_may_start_the_next_operation_in_the_same_object, fixture) {
    plain op;
    int times = 0;
    struct again {
        asio::io_context& io;
        plain& op;
        int& times;
        void operator()(error_code) {
            if (++times == 5)
                return;
            op = plain::start(*this, io.get_executor());
            op.complete(error_code());
        }
    };
    op = plain::start(again{io, op, times}, io.get_executor());
    op.complete(error_code());
    test::run_all(io);
    BOOST_TEST(times == 5);
}

BOOST_FIXTURE_TEST_CASE(an_operation_is_completed_on_another_thread_than_it_was_started_on,
                        fixture) {
    test::once h;
    auto op = start(h);
    std::thread::id invoked_on;
    h.hook_arg = &invoked_on;
    h.hook = [](void* p) { *static_cast<std::thread::id*>(p) = std::this_thread::get_id(); };
    std::thread library([moved = std::move(op)]() mutable { moved.complete(aborted); });
    test::run_all(io); // which the pending operation keeps going
    library.join();
    BOOST_TEST(h.ec == aborted);
    BOOST_TEST((invoked_on == std::this_thread::get_id()));
}

#if BOOST_ASIO_VERSION >= 102700
BOOST_FIXTURE_TEST_CASE(the_associated_immediate_executor_is_not_used, fixture) {
    test::once h;
    asio::post(io, [&] {
        auto op = plain::start(asio::bind_immediate_executor(asio::system_executor(), h.handler()),
                               io.get_executor());
        test::initiation_guard guard;
        op.complete(error_code());
    });
    test::run_all(io);
}
#endif

BOOST_FIXTURE_TEST_CASE(an_exception_of_a_handler_leaves_run_and_nothing_is_left, fixture) {
    test::allocation_counts memory;
    auto owned = std::make_shared<int>(0);
    auto op = plain::start(
        asio::bind_allocator(test::counting_allocator<>(memory),
                             [owned](error_code) { throw std::runtime_error("the handler's"); }),
        io.get_executor());
    op.complete(error_code());
    BOOST_CHECK_THROW(io.run_for(test::cap), std::runtime_error);
    BOOST_TEST(memory.live == 0);
    BOOST_TEST(owned.use_count() == 1);
    test::run_all(io);
}

// ---- completion tokens --------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_adapter_takes_a_callback, fixture) {
    test::once h;
    adapter<void(error_code)> a(io.get_executor());
    a.async_run(h.handler());
    a.op.complete(error_code());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(an_adapter_takes_use_future, fixture) {
    adapter<void(error_code, std::unique_ptr<int>)> a(io.get_executor());
    std::future<std::unique_ptr<int>> f = a.async_run(asio::use_future);
    a.op.complete(error_code(), std::make_unique<int>(3));
    test::run_all(io);
    BOOST_TEST(*f.get() == 3);
    f = a.async_run(asio::use_future);
    a.op.complete(aborted, nullptr);
    test::run_all(io);
    BOOST_CHECK_THROW(f.get(), boost::system::system_error);
}

BOOST_FIXTURE_TEST_CASE(a_dropped_operation_breaks_the_promise_of_its_future, fixture) {
    adapter<void(error_code)> a(io.get_executor());
    std::future<void> f = a.async_run(asio::use_future);
    a.op = plain();
    BOOST_CHECK_THROW(f.get(), std::future_error);
}

BOOST_FIXTURE_TEST_CASE(a_deferred_operation_starts_when_it_is_called, fixture) {
    test::once h;
    adapter<void(error_code)> a(io.get_executor());
    auto deferred = a.async_run(asio::deferred);
    BOOST_TEST(!a.op);
    std::move(deferred)(h.handler());
    BOOST_TEST(bool(a.op));
    a.op.complete(error_code());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(an_adapter_takes_as_tuple_and_type_erased_handlers, fixture) {
    adapter<void(error_code, std::size_t)> a(io.get_executor());
    std::tuple<error_code, std::size_t> t;
    a.async_run(asio::as_tuple([&](std::tuple<error_code, std::size_t> r) { t = r; }));
    a.op.complete(aborted, 5);
    test::run_all(io);
    BOOST_TEST(std::get<0>(t) == aborted);
    BOOST_TEST(std::get<1>(t) == 5u);
    std::size_t n = 0;
    a.async_run(asio::any_completion_handler<void(error_code, std::size_t)>(
        [&](error_code, std::size_t s) { n = s; }));
    a.op.complete(error_code(), 6);
    test::run_all(io);
    BOOST_TEST(n == 6u);
}

BOOST_FIXTURE_TEST_CASE(an_lvalue_handler_is_copied, fixture) {
    test::called c;
    auto handler = c.handler();
    auto op = plain::start(handler, io.get_executor());
    const auto& same = handler;
    auto other = plain::start(same, io.get_executor());
    op.complete(error_code());
    other.complete(error_code());
    test::run_all(io);
    BOOST_TEST(c.times == 2);
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
BOOST_FIXTURE_TEST_CASE(a_coroutine_awaits_an_operation, fixture) {
    adapter<void(error_code, std::unique_ptr<int>)> a(io.get_executor());
    int sum = 0;
    bool thrown = false;
    auto body = [&]() -> asio::awaitable<void> {
        for (int i = 0; i != 3; ++i) {
            std::unique_ptr<int> p = co_await a.async_run(asio::use_awaitable);
            sum += *p;
        }
        try {
            co_await a.async_run(asio::use_awaitable);
        } catch (const boost::system::system_error& e) {
            thrown = e.code() == aborted;
        }
    };
    test::called over;
    asio::co_spawn(io, body(), [&](std::exception_ptr e) { over.times += e ? 0 : 1; });
    for (int i = 1; i != 4; ++i) {
        test::run_until(io, [&] { return bool(a.op); });
        a.op.complete(error_code(), std::make_unique<int>(i));
        BOOST_TEST(!a.op);
    }
    test::run_until(io, [&] { return bool(a.op); });
    a.op.complete(aborted, nullptr);
    test::run_all(io);
    BOOST_TEST(sum == 6);
    BOOST_TEST(thrown);
    BOOST_TEST(over.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_coroutine_is_cancelled_through_its_slot, fixture) {
    adapter<void(error_code)> a(io.get_executor());
    asio::cancellation_signal signal;
    error_code ec;
    auto body = [&]() -> asio::awaitable<void> {
        std::tie(ec) = co_await a.async_run(asio::as_tuple(asio::use_awaitable));
    };
    test::called over;
    asio::co_spawn(io, body(),
                   asio::bind_cancellation_slot(
                       signal.slot(), [&](std::exception_ptr e) { over.times += e ? 0 : 1; }));
    test::run_until(io, [&] { return bool(a.op); });
    signal.emit(cancellation_type::terminal);
    test::run_ready(io); // the coroutine's thread passes it on
    BOOST_TEST((a.cancelled == cancellation_type::terminal));
    a.op.complete(aborted);
    test::run_all(io);
    BOOST_TEST(ec == aborted);
    BOOST_TEST(over.times == 1);
}
#endif

// ---- memory -------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(one_allocation_is_made_and_given_back_before_the_handler_runs, fixture) {
    for (bool has_slot : {false, true}) {
        asio::cancellation_signal signal;
        test::allocation_counts memory;
        long live_in_handler = -1;
        auto handler = asio::bind_allocator(
            test::counting_allocator<>(memory),
            [&](error_code, std::unique_ptr<int>) { live_in_handler = memory.live; });
        using owning = moor::operation<void(error_code, std::unique_ptr<int>)>;
        owning op = has_slot ? owning::start(asio::bind_cancellation_slot(signal.slot(), handler),
                                             io.get_executor())
                             : owning::start(handler, io.get_executor());
        op.on_cancel([](cancellation_type) {});
        BOOST_TEST(memory.live == 1);
        op.complete(error_code(), std::make_unique<int>(1));
        BOOST_TEST(memory.live == 1);
        test::run_all(io);
        BOOST_TEST(live_in_handler == 0);
        BOOST_TEST(memory.total == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(memory_is_given_back_when_an_operation_is_destroyed, fixture) {
    test::allocation_counts memory;
    {
        auto op = plain::start(
            asio::bind_allocator(test::counting_allocator<>(memory), [](error_code) {}),
            io.get_executor());
        BOOST_TEST(memory.live == 1);
    }
    BOOST_TEST(memory.live == 0);
}

BOOST_FIXTURE_TEST_CASE(without_memory_start_throws_and_nothing_has_happened, fixture) {
    test::allocation_counts memory;
    memory.left = 0;
    auto owned = std::make_shared<int>(0);
    auto handler = [owned](error_code) {};
    BOOST_CHECK_THROW(
        plain::start(asio::bind_allocator(test::counting_allocator<>(memory), std::move(handler)),
                     io.get_executor()),
        std::bad_alloc);
    BOOST_TEST(memory.total == 0);
    BOOST_TEST(owned.use_count() == 1);
    BOOST_TEST(io.run() == 0u); // no work is left
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_can_not_be_moved_fails_start_and_nothing_is_kept, fixture) {
    struct immovable {
        using allocator_type = test::counting_allocator<>;
        test::allocation_counts* memory;
        explicit immovable(test::allocation_counts& m) : memory(&m) {}
        immovable(const immovable&) { throw std::runtime_error("moved"); }
        allocator_type get_allocator() const noexcept { return allocator_type(*memory); }
        void operator()(error_code) {}
    };
    test::allocation_counts memory;
    BOOST_CHECK_THROW(plain::start(immovable(memory), io.get_executor()), std::runtime_error);
    BOOST_TEST(memory.total == 1);
    BOOST_TEST(memory.live == 0);
    BOOST_TEST(io.run() == 0u);
}

BOOST_FIXTURE_TEST_CASE(an_empty_executor_fails_start, fixture) {
    // As the one of a registration whose context is gone.
    test::fd_pair p = test::make_pipe();
    auto other = std::make_unique<asio::io_context>();
    moor::registration reg(asio::any_io_executor(asio::make_strand(*other)), p.a);
    other.reset();
    test::called c;
    BOOST_CHECK_THROW(plain::start(c.handler(), reg.get_executor()), asio::execution::bad_executor);
    BOOST_TEST(c.times == 0);
}

BOOST_FIXTURE_TEST_CASE(an_argument_that_can_not_be_moved_leaves_the_operation_pending, fixture) {
    struct fragile {
        bool throws = false;
        fragile() = default;
        explicit fragile(bool t) : throws(t) {}
        fragile(const fragile& o) : throws(o.throws) {
            if (throws)
                throw std::runtime_error("moved");
        }
    };
    int times = 0;
    auto op =
        moor::operation<void(fragile)>::start([&](const fragile&) { ++times; }, io.get_executor());
    const fragile bad(true);
    BOOST_CHECK_THROW(op.complete(bad), std::runtime_error);
    BOOST_TEST(bool(op));
    op.complete(fragile());
    test::run_all(io);
    BOOST_TEST(times == 1);
}

BOOST_FIXTURE_TEST_CASE(completing_and_dropping_need_no_memory, fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    test::called first, second;
    auto completed = plain::start(first.handler(), io.get_executor());
    auto dropped = plain::start(second.handler(), io.get_executor());
    {
        test::out_of_memory none;
        completed.complete(error_code());
        dropped = plain();
        io.poll();
    }
    BOOST_TEST(first.times == 1);
    BOOST_TEST(second.times == 0);
}

BOOST_FIXTURE_TEST_CASE(without_memory_on_cancel_throws_and_the_operation_stays_pending, fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    asio::cancellation_signal signal;
    test::once h;
    auto op =
        plain::start(asio::bind_cancellation_slot(signal.slot(), h.handler()), io.get_executor());
    {
        test::out_of_memory none;
        BOOST_CHECK_THROW(op.on_cancel([](cancellation_type) {}), std::bad_alloc);
    }
    BOOST_TEST(bool(op));
    signal.emit(cancellation_type::total);
    op.complete(error_code());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(in_the_steady_state_nothing_is_allocated, fixture,
                        *boost::unit_test::precondition(test::allocations_are_counted)) {
    for (bool has_slot : {false, true}) {
        asio::cancellation_signal signal;
        sized op;
        std::size_t rounds = 0;
        std::size_t last = 0;
        test::call_counts before;
        struct again {
            asio::io_context& io;
            asio::cancellation_signal& signal;
            sized& op;
            std::size_t& rounds;
            std::size_t last;
            bool has_slot;
            test::call_counts& before;
            void operator()(error_code, std::size_t n) {
                rounds = n;
                if (n == 10)
                    before = test::counts();
                if (n == last)
                    return;
                start();
                op.complete(error_code(), n + 1);
            }
            void start() {
                if (!has_slot) {
                    op = sized::start(*this, io.get_executor());
                    return;
                }
                op = sized::start(asio::bind_cancellation_slot(signal.slot(), *this),
                                  io.get_executor());
                op.on_cancel([this](cancellation_type) { rounds = 0; });
            }
        };
        last = 110;
        // (In the loop, where Asio recycles memory.)
        asio::post(io,
                   [&] { again{io, signal, op, rounds, last, has_slot, before}(error_code(), 0); });
        test::run_all(io);
        BOOST_TEST(rounds == last);
        BOOST_TEST((test::counts() - before).allocations == 0);
    }
}

// ---- executors and work -------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_handler_runs_on_its_associated_executor, fixture) {
    test::tracker_executor ex(1, io.get_executor());
    bool on_own = false;
    auto op =
        plain::start(asio::bind_executor(ex, [&](error_code) { on_own = test::running_on(1); }),
                     io.get_executor());
    op.complete(error_code());
    test::run_all(io);
    BOOST_TEST(on_own);
}

BOOST_FIXTURE_TEST_CASE(without_an_own_executor_the_handler_runs_on_the_io_executor, fixture) {
    test::tracker_executor ex(2, io.get_executor());
    for (bool erased : {false, true}) {
        bool on_io = false;
        auto handler = [&](error_code) { on_io = test::running_on(2); };
        plain op =
            erased ? plain::start(handler, asio::any_io_executor(ex)) : plain::start(handler, ex);
        op.complete(error_code());
        test::run_all(io);
        BOOST_TEST(on_io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_strand_keeps_completed_handlers_apart, fixture) {
    asio::thread_pool pool(3);
    auto strand = asio::make_strand(pool);
    std::atomic<int> inside{0};
    std::atomic<bool> overlapped{false};
    int times = 0; // guarded by the strand
    auto handler = [&](error_code) {
        if (++inside != 1)
            overlapped = true;
        ++times;
        --inside;
    };
    std::vector<plain> ops;
    for (int i = 0; i != 100; ++i)
        ops.push_back(
            i % 2 ? plain::start(handler, strand)
                  : plain::start(asio::bind_executor(strand, handler), pool.get_executor()));
    for (plain& op : ops)
        op.complete(error_code());
    pool.join();
    BOOST_TEST(!overlapped);
    BOOST_TEST(times == 100);
}

BOOST_FIXTURE_TEST_CASE(both_contexts_run_until_the_operation_is_complete, fixture) {
    asio::io_context other;
    std::thread::id invoked_on;
    test::once h;
    h.hook_arg = &invoked_on;
    h.hook = [](void* p) { *static_cast<std::thread::id*>(p) = std::this_thread::get_id(); };
    auto op =
        plain::start(asio::bind_executor(other.get_executor(), h.handler()), io.get_executor());
    other.poll();
    io.poll();
    BOOST_TEST(!io.stopped());
    BOOST_TEST(!other.stopped());
    std::thread::id id;
    std::thread runner([&] {
        id = std::this_thread::get_id();
        other.run();
    });
    op.complete(error_code());
    test::run_all(io);
    runner.join();
    BOOST_TEST((invoked_on == id));
}

BOOST_FIXTURE_TEST_CASE(the_handlers_context_has_work_until_the_handler_has_run, fixture) {
    asio::io_context other;
    test::once h;
    auto op =
        plain::start(asio::bind_executor(other.get_executor(), h.handler()), io.get_executor());
    op.complete(error_code());
    other.poll();
    BOOST_TEST(!other.stopped()); // although the other one has not handed it over
    test::run_all(io);
    BOOST_TEST(h.times() == 0);
    test::run_all(other);
    BOOST_TEST(h.times() == 1);
}

BOOST_FIXTURE_TEST_CASE(an_operation_that_is_dropped_leaves_no_work_on_either_context, fixture) {
    asio::io_context other;
    test::once h(test::expect::destroyed);
    auto op = std::make_unique<plain>(
        plain::start(asio::bind_executor(other.get_executor(), h.handler()), io.get_executor()));
    std::thread dropper([moved = std::move(op)]() mutable { moved.reset(); });
    test::run_all(io);
    test::run_all(other);
    dropper.join();
    BOOST_TEST(h.destroyed());
}

BOOST_FIXTURE_TEST_CASE(run_does_not_return_while_an_operation_is_pending, fixture) {
    // The count never passes through zero on the way from pending to queued.
    for (int i = 0; i != 200; ++i) {
        test::once h;
        auto op = start(h);
        std::thread library([&] { op.complete(error_code()); });
        io.restart();
        io.run();
        BOOST_TEST(h.times() == 1);
        library.join();
    }
}

BOOST_AUTO_TEST_CASE(an_operation_works_on_a_thread_pool) {
    asio::thread_pool pool(2);
    std::atomic<int> times{0};
    for (int i = 0; i != 10; ++i) {
        auto op = plain::start([&](error_code) { ++times; }, pool.get_executor());
        op.complete(error_code());
    }
    pool.join();
    BOOST_TEST(times == 10);
}

BOOST_AUTO_TEST_CASE(the_system_executor_may_be_the_handlers_executor) {
    asio::io_context io;
    std::promise<std::thread::id> invoked_on;
    auto op = plain::start(
        asio::bind_executor(asio::system_executor(),
                            [&](error_code) { invoked_on.set_value(std::this_thread::get_id()); }),
        io.get_executor());
    op.complete(error_code());
    test::run_all(io);
    BOOST_TEST((invoked_on.get_future().get() != std::thread::id()));
}

// ---- cancellation -------------------------------------------------------------------------------

namespace {

struct cancellable : fixture {
    asio::cancellation_signal signal;

    plain start_with_slot(test::once& o) {
        return plain::start(asio::bind_cancellation_slot(signal.slot(), o.handler()),
                            io.get_executor());
    }
};

constexpr cancellation_type all_types[] = {cancellation_type::terminal, cancellation_type::partial,
                                           cancellation_type::total, cancellation_type::all};

} // namespace

BOOST_FIXTURE_TEST_CASE(on_cancel_receives_the_type_of_each_cancellation, cancellable) {
    test::once h;
    plain op = start_with_slot(h);
    std::vector<cancellation_type> seen;
    op.on_cancel([&](cancellation_type t) { seen.push_back(t); });
    signal.emit(cancellation_type::none);
    BOOST_TEST(seen.empty());
    for (cancellation_type t : all_types)
        signal.emit(t);
    BOOST_TEST(
        (seen == std::vector<cancellation_type>(std::begin(all_types), std::end(all_types))));
    op.complete(aborted);
    test::run_all(io);
    BOOST_TEST(h.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE(on_cancel_may_complete_the_operation, cancellable) {
    for (cancellation_type t : all_types) {
        test::once h;
        plain op = start_with_slot(h);
        auto owned = std::make_shared<int>(0);
        int after = 0;
        op.on_cancel([&, owned](cancellation_type) {
            test::initiation_guard guard;
            op.complete(aborted);
            after = *owned; // the function lives until it returns
            ++after;
            signal.emit(cancellation_type::total); // the operation is over
        });
        signal.emit(t);
        BOOST_TEST(!op);
        BOOST_TEST(after == 1);
        BOOST_TEST(owned.use_count() == 1);
        test::run_all(io);
        BOOST_TEST(h.ec == aborted);
    }
}

BOOST_FIXTURE_TEST_CASE(on_cancel_may_destroy_the_operation, cancellable) {
    test::once h(test::expect::destroyed);
    auto op = std::make_unique<plain>(start_with_slot(h));
    op->on_cancel([&](cancellation_type) { op.reset(); });
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(!op);
    BOOST_TEST(h.destroyed());
}

BOOST_FIXTURE_TEST_CASE(the_function_of_on_cancel_is_destroyed_at_completion, cancellable) {
    test::once h;
    plain op = start_with_slot(h);
    auto owned = std::make_shared<int>(0);
    op.on_cancel([owned](cancellation_type) { BOOST_ERROR("called"); });
    BOOST_TEST(owned.use_count() == 2);
    op.complete(error_code());
    BOOST_TEST(owned.use_count() == 1);
    signal.emit(cancellation_type::terminal); // queued
    test::run_all(io);
    signal.emit(cancellation_type::terminal); // over
    BOOST_TEST(!h.ec);
}

BOOST_FIXTURE_TEST_CASE(a_slot_may_be_emitted_after_the_operation_was_destroyed, cancellable) {
    test::once h(test::expect::destroyed);
    auto owned = std::make_shared<int>(0);
    {
        plain op = start_with_slot(h);
        op.on_cancel([owned](cancellation_type) { BOOST_ERROR("called"); });
    }
    BOOST_TEST(owned.use_count() == 1);
    signal.emit(cancellation_type::terminal);
}

BOOST_FIXTURE_TEST_CASE(a_slot_reaches_the_operation_after_it_was_moved, cancellable) {
    test::once h;
    plain op = start_with_slot(h);
    int times = 0;
    op.on_cancel([&](cancellation_type) { ++times; });
    plain other(std::move(op));
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(times == 1);
    other.complete(aborted);
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_slot_may_be_emitted_after_the_context_was_destroyed, cancellable) {
    test::once h(test::expect::destroyed);
    auto other = std::make_unique<asio::io_context>();
    plain op = plain::start(asio::bind_cancellation_slot(signal.slot(), h.handler()),
                            other->get_executor());
    auto owned = std::make_shared<int>(0);
    op.on_cancel([owned](cancellation_type) { BOOST_ERROR("called"); });
    other.reset();
    BOOST_TEST(owned.use_count() == 1);
    signal.emit(cancellation_type::terminal);
}

BOOST_FIXTURE_TEST_CASE(a_second_on_cancel_replaces_the_first, cancellable) {
    test::once h;
    plain op = start_with_slot(h);
    auto owned = std::make_shared<int>(0);
    op.on_cancel([owned](cancellation_type) { BOOST_ERROR("the first is called"); });
    int times = 0;
    op.on_cancel([&](cancellation_type) { ++times; });
    BOOST_TEST(owned.use_count() == 1);
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(times == 1);
    op.complete(aborted);
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(times == 1);
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(on_cancel_may_replace_itself_while_it_runs, cancellable) {
    test::once h;
    plain op = start_with_slot(h);
    std::vector<int> calls;
    auto owned = std::make_shared<int>(1);
    op.on_cancel([&, owned](cancellation_type) {
        op.on_cancel([&](cancellation_type) {
            calls.push_back(2);
            op.complete(aborted);
        });
        calls.push_back(*owned);
    });
    signal.emit(cancellation_type::partial);
    signal.emit(cancellation_type::terminal);
    BOOST_TEST((calls == std::vector<int>{1, 2}));
    BOOST_TEST(owned.use_count() == 1);
    test::run_all(io);
    BOOST_TEST(h.ec == aborted);
}

BOOST_FIXTURE_TEST_CASE(the_function_of_on_cancel_may_be_move_only, cancellable) {
    test::once h;
    plain op = start_with_slot(h);
    int seen = 0;
    op.on_cancel([&seen, p = std::make_unique<int>(9)](cancellation_type) { seen = *p; });
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(seen == 9);
    op.complete(error_code());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_handler_without_a_slot_destroys_the_function_at_once, cancellable) {
    test::once a, b;
    auto owned = std::make_shared<int>(0);
    plain none = start(a);
    none.on_cancel([owned](cancellation_type) {});
    BOOST_TEST(owned.use_count() == 1);
    plain unconnected = plain::start(
        asio::bind_cancellation_slot(asio::cancellation_slot(), b.handler()), io.get_executor());
    unconnected.on_cancel([owned](cancellation_type) {});
    BOOST_TEST(owned.use_count() == 1);
    none.complete(error_code());
    unconnected.complete(error_code());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(the_function_of_on_cancel_may_own_the_adapter, cancellable) {
    // A cycle, which each end of the operation breaks.
    for (bool completes : {true, false}) {
        test::once h(completes ? test::expect::invoked : test::expect::destroyed);
        std::weak_ptr<plain> alive;
        {
            auto op = std::make_shared<plain>(start_with_slot(h));
            alive = op;
            op->on_cancel([op](cancellation_type) {});
            if (completes) {
                plain* raw = op.get();
                op.reset();
                raw->complete(error_code()); // destroys it
            } else {
                *op = plain();
            }
        }
        BOOST_TEST(alive.expired());
        test::run_all(io);
    }
}

BOOST_FIXTURE_TEST_CASE(a_slot_that_was_given_to_another_operation_is_left_alone, cancellable) {
    test::once first, second;
    plain a = start_with_slot(first);
    a.on_cancel([](cancellation_type) { BOOST_ERROR("the first is called"); });
    plain b = start_with_slot(second);
    int times = 0;
    b.on_cancel([&](cancellation_type) { ++times; });
    a.complete(error_code());
    test::run_ready(io);
    BOOST_TEST(first.times() == 1);
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(times == 1);
    b.complete(aborted);
    test::run_all(io);
}

BOOST_AUTO_TEST_CASE(a_slot_may_be_emitted_while_another_thread_completes) {
    asio::io_context io;
    for (int i = 0; i != 200; ++i) {
        asio::cancellation_signal signal;
        test::once h;
        std::atomic<int> calls{0};
        plain op = plain::start(asio::bind_cancellation_slot(signal.slot(), h.handler()),
                                io.get_executor());
        op.on_cancel([&calls, text = std::make_unique<std::string>(50, 'x')](cancellation_type) {
            calls += text->size() == 50 ? 1 : 100;
        });
        std::atomic<bool> go{false};
        std::thread library([&] {
            while (!go)
                std::this_thread::yield();
            op.complete(error_code());
        });
        go = true;
        signal.emit(cancellation_type::terminal);
        library.join();
        BOOST_TEST(calls <= 1);
        test::run_all(io);
    }
}

// ---- moving and dropping ------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_operation_destroyed_without_completion_destroys_its_handler, fixture) {
    test::once h(test::expect::destroyed);
    {
        auto op = start(h);
        BOOST_TEST(!h.destroyed());
    }
    BOOST_TEST(h.destroyed());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_moved_operation_is_empty, fixture) {
    test::once h;
    auto op = start(h);
    plain other(std::move(op));
    BOOST_TEST(!op);
    BOOST_TEST(bool(other));
    op.complete(aborted);
    plain third;
    third = std::move(other);
    BOOST_TEST(!other);
    BOOST_TEST(bool(third));
    third.complete(error_code());
    test::run_all(io);
    BOOST_TEST(!h.ec);
}

BOOST_FIXTURE_TEST_CASE(assigning_destroys_the_handler_of_the_earlier_operation, fixture) {
    test::once earlier(test::expect::destroyed);
    test::once later;
    auto op = start(earlier);
    op = start(later);
    BOOST_TEST(earlier.destroyed());
    plain& same = op;
    op = std::move(same);
    BOOST_TEST(bool(op));
    op.complete(error_code());
    test::run_all(io);
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_owns_the_operation_may_be_replaced, fixture) {
    auto op = std::make_shared<plain>();
    std::weak_ptr<plain> alive = op;
    plain& raw = *op;
    raw = plain::start([op](error_code) {}, io.get_executor());
    op.reset();
    BOOST_TEST(!alive.expired());
    raw = plain(); // the handler was the last owner
    BOOST_TEST(alive.expired());
}

BOOST_FIXTURE_TEST_CASE(a_handler_that_owns_the_adapter_is_released_when_it_was_invoked, fixture) {
    auto a = std::make_shared<adapter<void(error_code)>>(io.get_executor());
    std::weak_ptr<adapter<void(error_code)>> alive = a;
    a->async_run([a](error_code) {});
    auto& raw = *a;
    a.reset();
    raw.op.complete(error_code());
    BOOST_TEST(!alive.expired());
    test::run_all(io);
    BOOST_TEST(alive.expired());
}

// ---- the context is destroyed first -------------------------------------------------------------

namespace {

template <class Context, class Make>
void check_outlives(const char* what, const Make& make) {
    BOOST_TEST_CONTEXT("an operation on " << what) {
        test::once pending(test::expect::destroyed);
        test::once moved(test::expect::destroyed);
        test::once bound(test::expect::destroyed);
        auto context = test::make_context<Context>();
        auto ex = std::make_unique<decltype(make(*context))>(make(*context));
        plain a = plain::start(pending.handler(), *ex);
        plain b = plain::start(moved.handler(), *ex);
        plain c(std::move(b));
        plain d = plain::start(asio::bind_executor(*ex, bound.handler()), context->get_executor());
        ex.reset(); // as far as the caller is concerned
        context.reset();
        for (test::once* h : {&pending, &moved, &bound})
            BOOST_TEST(h->destroyed());
        for (plain* op : {&a, &b, &c, &d}) {
            BOOST_TEST(!*op);
            op->on_cancel([](cancellation_type) {});
            op->complete(error_code());
        }
        a = std::move(c);
    }
}

} // namespace

BOOST_AUTO_TEST_CASE(an_operation_outlives_its_context_on_any_executor) {
    using pool = asio::thread_pool;
    using loop = asio::io_context;
    check_outlives<loop>("an io_context", [](loop& c) { return c.get_executor(); });
    check_outlives<loop>("an erased io_context",
                         [](loop& c) { return asio::any_io_executor(c.get_executor()); });
    check_outlives<loop>("a strand", [](loop& c) { return asio::make_strand(c); });
    check_outlives<loop>("an erased strand",
                         [](loop& c) { return asio::any_io_executor(asio::make_strand(c)); });
    check_outlives<loop>("a tracking executor",
                         [](loop& c) { return test::tracker_executor(1, asio::make_strand(c)); });
    check_outlives<pool>("a pool", [](pool& c) { return c.get_executor(); });
    check_outlives<pool>("a strand of a pool", [](pool& c) { return asio::make_strand(c); });
    check_outlives<pool>("an erased strand of a pool",
                         [](pool& c) { return asio::any_io_executor(asio::make_strand(c)); });
}

BOOST_AUTO_TEST_CASE(a_queued_handler_is_destroyed_with_the_context) {
    test::once own(test::expect::destroyed);
    test::once on_strand(test::expect::destroyed);
    test::allocation_counts memory;
    {
        asio::io_context io;
        auto a =
            plain::start(asio::bind_allocator(test::counting_allocator<>(memory), own.handler()),
                         io.get_executor());
        auto b = plain::start(on_strand.handler(), asio::any_io_executor(asio::make_strand(io)));
        a.complete(error_code());
        b.complete(error_code());
    }
    BOOST_TEST(own.destroyed());
    BOOST_TEST(on_strand.destroyed());
    BOOST_TEST(memory.live == 0);
}

BOOST_AUTO_TEST_CASE(a_handler_bound_to_another_context_is_destroyed_with_the_first) {
    asio::io_context other;
    test::once h(test::expect::destroyed);
    plain op;
    {
        asio::io_context io;
        op = plain::start(asio::bind_executor(asio::make_strand(other), h.handler()),
                          io.get_executor());
    }
    BOOST_TEST(!op);
    BOOST_TEST(h.destroyed());
    test::run_all(other); // no work is left on it
}

BOOST_AUTO_TEST_CASE(the_end_of_the_context_breaks_the_cycle_of_adapter_and_handler) {
    std::weak_ptr<adapter<void(error_code)>> alive;
    asio::cancellation_signal signal;
    {
        asio::io_context io;
        auto a = std::make_shared<adapter<void(error_code)>>(io.get_executor());
        alive = a;
        a->async_run(asio::bind_cancellation_slot(signal.slot(), [a](error_code) {}));
        a->op.on_cancel([a](cancellation_type) {});
    }
    BOOST_TEST(alive.expired());
    signal.emit(cancellation_type::terminal);
}

BOOST_AUTO_TEST_CASE(handlers_may_use_other_operations_while_the_context_is_destroyed) {
    // Whatever the order of destruction is: each handler's end completes one operation, drops
    // another and starts a third.
    struct ender {
        asio::io_context* io;
        std::vector<std::unique_ptr<plain>>* ops;
        std::size_t self;
        std::shared_ptr<int> owned;
        ender(asio::io_context& i, std::vector<std::unique_ptr<plain>>& o, std::size_t s,
              std::shared_ptr<int> w)
            : io(&i), ops(&o), self(s), owned(std::move(w)) {}
        ender(ender&& o) noexcept
            : io(std::exchange(o.io, nullptr)), ops(o.ops), self(o.self),
              owned(std::move(o.owned)) {}
        ender(const ender&) = delete;
        ~ender() {
            if (!io)
                return;
            const std::size_t n = ops->size();
            (*ops)[(self + 1) % n]->complete(error_code());
            (*ops)[(self + 2) % n].reset(new plain);
            plain late = plain::start([o = owned](error_code) { BOOST_ERROR("invoked"); },
                                      io->get_executor());
            BOOST_TEST(!late);
            late.complete(error_code());
        }
        void operator()(error_code) { BOOST_ERROR("invoked"); }
    };
    auto owned = std::make_shared<int>(0);
    std::vector<std::unique_ptr<plain>> ops;
    {
        asio::io_context io;
        for (std::size_t i = 0; i != 7; ++i)
            ops.push_back(std::make_unique<plain>());
        for (std::size_t i = 0; i != 7; ++i)
            *ops[i] = plain::start(ender(io, ops, i, owned), io.get_executor());
    }
    BOOST_TEST(owned.use_count() == 1);
    for (auto& op : ops)
        BOOST_TEST(!*op);
}

BOOST_AUTO_TEST_CASE(an_operation_started_by_a_queued_handlers_end_is_dropped) {
    // The context had no operation before its end began.
    struct starter {
        asio::io_context* io;
        plain* op;
        std::shared_ptr<int> owned;
        starter(asio::io_context& i, plain& o, std::shared_ptr<int> w)
            : io(&i), op(&o), owned(std::move(w)) {}
        starter(starter&& o) noexcept
            : io(std::exchange(o.io, nullptr)), op(o.op), owned(std::move(o.owned)) {}
        ~starter() {
            if (io)
                *op = plain::start([o = owned](error_code) { BOOST_ERROR("invoked"); },
                                   io->get_executor());
        }
        void operator()() { BOOST_ERROR("invoked"); }
    };
    auto owned = std::make_shared<int>(0);
    plain op;
    {
        asio::io_context io;
        asio::post(io, starter(io, op, owned));
    }
    BOOST_TEST(!op);
    BOOST_TEST(owned.use_count() == 1);
}

BOOST_AUTO_TEST_CASE(the_end_of_the_context_needs_no_memory,
                     *boost::unit_test::precondition(test::allocations_are_counted)) {
    test::called c;
    auto io = std::make_unique<asio::io_context>();
    plain op = plain::start(c.handler(), io->get_executor());
    {
        test::out_of_memory none;
        io.reset();
    }
    BOOST_TEST(!op);
    BOOST_TEST(c.times == 0);
}

BOOST_AUTO_TEST_CASE(an_operation_makes_no_reactor) {
    const long before = test::open_descriptors();
    asio::thread_pool pool(1); // which has none either, until somebody asks for one
    test::called c;
    auto op = plain::start(c.handler(), pool.get_executor());
    op.complete(error_code());
    pool.join();
    BOOST_TEST(test::open_descriptors() == before);
}

// ---- many threads -------------------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(operations_are_started_completed_and_dropped_on_several_threads) {
    asio::thread_pool pool(2);
    std::atomic<int> invoked{0};
    std::atomic<int> destroyed{0};
    struct counted {
        std::atomic<int>* invoked;
        std::atomic<int>* destroyed;
        counted(std::atomic<int>& i, std::atomic<int>& d) : invoked(&i), destroyed(&d) {}
        counted(counted&& o) noexcept
            : invoked(o.invoked), destroyed(std::exchange(o.destroyed, nullptr)) {}
        ~counted() {
            if (destroyed)
                ++*destroyed;
        }
        void operator()(error_code) { ++*invoked; }
    };
    constexpr int each = 300;
    std::vector<std::thread> threads;
    for (int t = 0; t != 3; ++t)
        threads.emplace_back([&] {
            auto strand = asio::make_strand(pool);
            for (int i = 0; i != each; ++i) {
                plain op = i % 2 ? plain::start(counted(invoked, destroyed), strand)
                                 : plain::start(counted(invoked, destroyed), pool.get_executor());
                if (i % 3)
                    op.complete(error_code());
            }
        });
    for (std::thread& t : threads)
        t.join();
    pool.join();
    BOOST_TEST(invoked == 3 * each * 2 / 3);
    BOOST_TEST(destroyed == 3 * each);
}

// ---- an adapter ---------------------------------------------------------------------------------
//
// A library in the manner of C: requests with a function and a `void*`, one descriptor that becomes
// readable when the library wants to be called, and a timer by which the requests are answered.

namespace {

extern "C" {
typedef void (*toy_callback)(void* data, int error, const char* answer);
}

struct toy_request {
    int id;
    std::string question;
    std::chrono::steady_clock::time_point due;
    toy_callback callback;
    void* data;
};

struct toy {
    test::unique_fd timer{::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    std::vector<toy_request> requests;
    int last_id = 0;
};

int toy_descriptor(toy* t) { return t->timer; }
std::size_t toy_pending(toy* t) { return t->requests.size(); }

void toy_set_timer(toy* t) {
    itimerspec spec{};
    if (!t->requests.empty()) {
        auto first = std::min_element(t->requests.begin(), t->requests.end(),
                                      [](auto& a, auto& b) { return a.due < b.due; });
        auto ns = std::chrono::nanoseconds(first->due.time_since_epoch()).count();
        spec.it_value = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    ::timerfd_settime(t->timer, TFD_TIMER_ABSTIME, &spec, nullptr);
}

/// Answers within the call if the question is empty.
int toy_ask(toy* t, const char* question, int milliseconds, toy_callback callback, void* data) {
    if (!*question) {
        callback(data, EINVAL, nullptr);
        return 0;
    }
    auto due = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    t->requests.push_back({++t->last_id, question, due, callback, data});
    toy_set_timer(t);
    return t->last_id;
}

void toy_answer(toy* t, std::vector<toy_request>::iterator i, int error) {
    toy_request r = std::move(*i);
    t->requests.erase(i);
    r.callback(r.data, error, error ? nullptr : ("re: " + r.question).c_str());
}

/// Calls back with ECANCELED.
void toy_cancel(toy* t, int id) {
    auto i =
        std::find_if(t->requests.begin(), t->requests.end(), [&](auto& r) { return r.id == id; });
    if (i != t->requests.end())
        toy_answer(t, i, ECANCELED);
    toy_set_timer(t);
}

void toy_process(toy* t) {
    std::uint64_t expirations;
    (void)!::read(t->timer, &expirations, sizeof(expirations));
    for (;;) {
        auto now = std::chrono::steady_clock::now();
        auto i = std::find_if(t->requests.begin(), t->requests.end(),
                              [&](auto& r) { return r.due <= now; });
        if (i == t->requests.end())
            break;
        toy_answer(t, i, 0);
    }
    toy_set_timer(t);
}

/// Calls back with ECANCELED for each pending request.
void toy_close(toy* t) {
    while (!t->requests.empty())
        toy_answer(t, t->requests.begin(), ECANCELED);
    delete t;
}

/// The adapter. Many questions may be pending.
class toy_client {
    using operation = moor::operation<void(error_code, std::string)>;

public:
    explicit toy_client(asio::io_context& io) : reg_(io, toy_descriptor(lib_)) {}
    ~toy_client() {
        reg_.deregister();
        toy_close(lib_);
    }
    toy_client(const toy_client&) = delete;
    toy_client& operator=(const toy_client&) = delete;

    template <class Token>
    auto async_ask(std::string question, int milliseconds, Token&& token) {
        auto initiation = [this](auto handler, std::string q, int ms) {
            auto* op = new operation(operation::start(std::move(handler), reg_.get_executor()));
            int id = toy_ask(lib_, q.c_str(), ms, &toy_client::on_answer, op);
            if (id != 0)
                op->on_cancel([this, id](cancellation_type) { toy_cancel(lib_, id); });
            wait();
        };
        return asio::async_initiate<Token, void(error_code, std::string)>(
            std::move(initiation), token, std::move(question), milliseconds);
    }

private:
    static void on_answer(void* data, int error, const char* answer) {
        std::unique_ptr<operation> op(static_cast<operation*>(data));
        op->complete(error == ECANCELED ? aborted
                                        : error_code(error, boost::system::system_category()),
                     answer ? answer : "");
    }

    void wait() {
        if (is_waiting_ || toy_pending(lib_) == 0)
            return;
        is_waiting_ = true;
        reg_.async_wait_readable([this](error_code ec) {
            if (ec)
                return; // the client is gone
            is_waiting_ = false;
            toy_process(lib_);
            wait();
        });
    }

    toy* lib_ = new toy;
    moor::basic_registration<asio::io_context::executor_type> reg_;
    bool is_waiting_ = false;
};

} // namespace

BOOST_FIXTURE_TEST_CASE(an_adapter_answers_in_the_order_of_the_library, test::context_fixture) {
    toy_client client(io);
    std::vector<std::string> answers;
    auto handler = [&](error_code ec, std::string s) { answers.push_back(ec ? "error" : s); };
    client.async_ask("late", 30, handler);
    client.async_ask("soon", 5, handler);
    client.async_ask("", 0, handler);
    BOOST_TEST(answers.empty());
    test::run_until(io, [&] { return answers.size() == 3; });
    BOOST_TEST((answers == std::vector<std::string>{"error", "re: soon", "re: late"}));
}

BOOST_FIXTURE_TEST_CASE(an_adapters_operations_are_cancelled_one_by_one, test::context_fixture) {
    toy_client client(io);
    asio::cancellation_signal signal;
    test::called cancelled, answered;
    client.async_ask("never", 1'000'000,
                     asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
    client.async_ask("soon", 1, answered.handler());
    signal.emit(cancellation_type::terminal);
    BOOST_TEST(cancelled.times == 0);
    test::run_until(io, [&] { return cancelled && answered; });
    BOOST_TEST(cancelled.ec == aborted);
    BOOST_TEST(!answered.ec);
    signal.emit(cancellation_type::terminal);
}

BOOST_FIXTURE_TEST_CASE(the_end_of_an_adapter_completes_what_is_pending, test::context_fixture) {
    test::called a, b;
    {
        toy_client client(io);
        client.async_ask("never", 1'000'000, a.handler());
        client.async_ask("never", 1'000'000, b.handler());
        test::run_ready(io);
    }
    BOOST_TEST(a.times == 0);
    test::run_all(io);
    BOOST_TEST(a.ec == aborted);
    BOOST_TEST(b.ec == aborted);
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_the_adapter_does_not_leak_when_the_context_goes) {
    std::weak_ptr<toy_client> alive;
    {
        asio::io_context io;
        auto client = std::make_shared<toy_client>(io);
        alive = client;
        client->async_ask("never", 1'000'000,
                          [client](error_code, std::string) { BOOST_ERROR("invoked"); });
        io.poll();
    }
    BOOST_TEST(alive.expired());
}

BOOST_AUTO_TEST_CASE(an_adapter_is_destroyed_after_its_context) {
    test::once h(test::expect::destroyed);
    auto io = std::make_unique<asio::io_context>();
    toy_client client(*io);
    client.async_ask("never", 1'000'000, h.handler());
    io.reset();
    BOOST_TEST(h.destroyed());
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
BOOST_FIXTURE_TEST_CASE(a_coroutine_talks_to_an_adapter, test::context_fixture) {
    toy_client client(io);
    std::string text = "x";
    auto body = [&]() -> asio::awaitable<void> {
        for (int i = 0; i != 3; ++i)
            text = co_await client.async_ask(text, 1, asio::use_awaitable);
    };
    bool over = false;
    asio::co_spawn(io, body(), [&](std::exception_ptr e) { over = !e; });
    test::run_until(io, [&] { return over; });
    BOOST_TEST(text == "re: re: re: x");
}
#endif

BOOST_AUTO_TEST_SUITE_END()
