//
// moor/detail/wait_op.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A wait with its handler: the memory comes from the handler's associated allocator and is given
// back before the handler runs; work is held on its executors until then.
//

#ifndef MOOR_DETAIL_WAIT_OP_HPP
#define MOOR_DETAIL_WAIT_OP_HPP

#include <moor/detail/reactor.hpp>
#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/service_core.hpp>

#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/asio/system_executor.hpp>

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace moor {
namespace detail {

/// Owns the memory of an operation, and the operation in it once it is constructed.
template <class Op, class Handler>
class op_memory {
    using associated = asio::associated_allocator<Handler, asio::recycling_allocator<void>>;
    using allocator =
        typename std::allocator_traits<typename associated::type>::template rebind_alloc<Op>;

public:
    /// Allocates.
    explicit op_memory(const Handler& handler)
        : allocator_(associated::get(handler, asio::recycling_allocator<void>())),
          memory_(std::allocator_traits<allocator>::allocate(allocator_, 1)) {}

    /// Adopts an operation; its handler is still in it.
    op_memory(Op* op, const Handler& handler) noexcept
        : allocator_(associated::get(handler, asio::recycling_allocator<void>())), memory_(op),
          op_(op) {}

    op_memory(const op_memory&) = delete;
    op_memory& operator=(const op_memory&) = delete;

    BOOST_FORCEINLINE ~op_memory() { reset(); }

    template <class... Args>
    Op* construct(Args&&... args) {
        return op_ = ::new (static_cast<void*>(memory_)) Op(std::forward<Args>(args)...);
    }

    void release() noexcept {
        memory_ = nullptr;
        op_ = nullptr;
    }

    BOOST_FORCEINLINE void reset() noexcept {
        if (op_)
            std::exchange(op_, nullptr)->~Op();
        if (memory_)
            std::allocator_traits<allocator>::deallocate(allocator_,
                                                         std::exchange(memory_, nullptr), 1);
    }

private:
    allocator allocator_;
    Op* memory_ = nullptr;
    Op* op_ = nullptr;
};

/// What a handler of void(error_code) is told.
struct deliver_ec {
    error_code ec;

    deliver_ec(const error_code& e, const ready_event&) noexcept : ec(e) {}

    template <class Handler>
    void to(Handler& handler) {
        std::move(handler)(ec);
    }
};

/// void(error_code, ready_event)
struct deliver_event {
    error_code ec;
    ready_event event;

    deliver_event(const error_code& e, const ready_event& r) noexcept : ec(e), event(r) {}

    template <class Handler>
    void to(Handler& handler) {
        std::move(handler)(ec, event);
    }
};

/// void(): the wakers of the poll style
struct deliver_nothing {
    static constexpr error_code ec{};

    deliver_nothing(const error_code&, const ready_event&) noexcept {}

    template <class Handler>
    void to(Handler& handler) {
        std::move(handler)();
    }
};

/// A handler with its arguments.
template <class Handler, class Deliver>
struct wait_completion {
    Handler handler;
    Deliver arguments;

    void operator()() { arguments.to(handler); }
};

/// Runs a completion, whose operation is destroyed already, through the handler's executor.
template <class Work, class Completion>
void complete_through_executor(tracked_completion& tracked, Work& work, Completion& completion,
                               const error_code& ec) {
    tracked.begin(ec);
    if (work.is_none())
        completion();
    else
        work.complete(completion, completion.handler);
    tracked.end();
}

/// Runs a completion where no scheduler is left to post it to: on the handler's own executor if it
/// has one, otherwise at once.
template <class Completion>
void complete_without_context(Completion&& completion) {
    auto ex = asio::get_associated_executor(completion.handler, asio::system_executor());
    asio::dispatch(ex, std::forward<Completion>(completion));
}

/// Whether a handler may have a cancellation slot.
template <class Handler, class = void>
struct may_have_slot : std::true_type {};

template <class Handler>
struct may_have_slot<Handler, std::void_t<typename asio::associated_cancellation_slot<
                                  Handler>::asio_associated_cancellation_slot_is_unspecialised>>
    : std::false_type {};

template <class Deliver, class Handler, class IoExecutor>
class wait_op final : public waiter {
    using completion = wait_completion<Handler, Deliver>;

public:
    using memory = op_memory<wait_op, Handler>;

    wait_op(Handler& handler, const io_executor<IoExecutor>& ex, interest want, purpose why)
        : waiter(&wait_op::do_complete, want, why), handler_(std::move(handler)),
          work_(handler_, ex) {}

    /// Has an edge-triggered wait cancelled up to the invocation of its handler.
    void set_late_cancellation(const scheduled_io_ptr& state) noexcept {
        if constexpr (may_have_slot<Handler>::value)
            if (state->mode() == trigger::edge) {
                state_ = state;
                set_goes_on();
            }
    }

    /// Through the associated immediate executor, in place of the scheduler.
    void complete_immediately(const IoExecutor& ex) {
        finish();
        memory m(this, handler_);
        tracked_completion tracked(*this);
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        completion c{std::move(handler_), Deliver(ec(), event())};
        m.reset();
        tracked.begin(c.arguments.ec);
        inline_run frame;
        asio::dispatch(immediate_executor_of(c.handler, ex), std::move(c));
        tracked.end();
    }

    Handler& handler() noexcept { return handler_; }

private:
    struct nothing {};

    /// A wait that is not over before its handler is invoked, on whatever executor. Owns it.
    struct late_completion {
        wait_op* op;

        explicit late_completion(wait_op* o) noexcept : op(o) {}
        late_completion(late_completion&& other) noexcept : op(std::exchange(other.op, nullptr)) {}
        late_completion(const late_completion&) = delete;
        late_completion& operator=(const late_completion&) = delete;
        late_completion& operator=(late_completion&&) = delete;
        ~late_completion() {
            if (op)
                op->destroy();
        }

        void operator()() {
            wait_op* o = std::exchange(op, nullptr);
            o->finish();
            memory m(o, o->handler_);
            tracked_completion tracked(*o);
            [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(o->work_));
            completion c{std::move(o->handler_), Deliver(o->ec(), o->event())};
            m.reset();
            run(tracked, c, c);
        }
    };

    /// From now on the wait can't be cancelled.
    void finish() {
        if constexpr (may_have_slot<Handler>::value)
            if (scheduled_io_ptr state = std::move(state_))
                state->finish_wait(*this);
    }

    void destroy() {
        finish();
        memory m(this, handler_);
        [[maybe_unused]] Handler handler(std::move(handler_));
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        m.reset();
    }

    static void complete_late(void* owner, wait_op* op) {
        late_completion c(op);
        if (!owner)
            return;
        if (op->work_.is_none())
            return c();
        // A copy: the completion destroys the operation while the executor runs it.
        handler_work<Handler, IoExecutor> work(op->work_);
        work.complete(c, op->handler_);
    }

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        wait_op* op = static_cast<wait_op*>(item);
        if constexpr (may_have_slot<Handler>::value)
            if (op->state_)
                return complete_late(owner, op);
        memory m(op, op->handler_);
        tracked_completion tracked(*op);
        if (BOOST_LIKELY(op->work_.is_none())) {
            completion c{std::move(op->handler_), Deliver(op->ec(), op->event())};
            m.reset();
            if (owner)
                run(tracked, c, c);
        } else {
            handler_work<Handler, IoExecutor> work(std::move(op->work_));
            completion c{std::move(op->handler_), Deliver(op->ec(), op->event())};
            m.reset();
            auto through_executor = [&] { work.complete(c, c.handler); };
            if (owner)
                run(tracked, c, through_executor);
        }
    }

    template <class Function>
    BOOST_FORCEINLINE static void run(tracked_completion& tracked, completion& c, Function& f) {
        if constexpr (has_immediate_executor<Handler, IoExecutor>::value)
            inline_run::reset();
        tracked.begin(c.arguments.ec);
        f();
        tracked.end();
    }

    Handler handler_;
    handler_work<Handler, IoExecutor> work_;
    std::conditional_t<may_have_slot<Handler>::value, scheduled_io_ptr, nothing> state_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAIT_OP_HPP
