//
// moor/detail/poll_op.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// An operation on a poll_list with its handler and its deadline: the memory comes from the
// handler's associated allocator and is given back before the handler runs; work is held on its
// executors until then. A timer may not outlive its execution context, so the timer is part of the
// operation, which the list destroys when the context shuts down.
//

#ifndef MOOR_DETAIL_POLL_OP_HPP
#define MOOR_DETAIL_POLL_OP_HPP

#include <moor/detail/poll_list.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/service_core.hpp>
#include <moor/detail/wait_canceller.hpp>
#include <moor/detail/wait_op.hpp>
#include <moor/error.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/wait_traits.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include <poll.h>

namespace moor {
namespace detail {

/// Gives the parts of a poll_set what the service shares with its registrations.
struct core_access {
    static service_core_ptr core_of(asio::execution_context& context) {
        return use_registration_service(context).core_;
    }
};

/// How long an operation may wait, in the terms of the timer.
class poll_timeout {
    using clock = std::chrono::steady_clock;

public:
    /// Rounds up. Negative durations, and those that the clock has no time for, have no end.
    template <class Rep, class Period>
    explicit poll_timeout(std::chrono::duration<Rep, Period> timeout)
        : is_zero_(timeout == timeout.zero()) {
        using seconds = std::chrono::duration<long double>;
        const seconds most = std::chrono::duration_cast<seconds>(clock::duration::max()) / 2;
        if (timeout > timeout.zero() && std::chrono::duration_cast<seconds>(timeout) < most)
            length_ = std::chrono::ceil<clock::duration>(timeout);
    }

    bool is_zero() const noexcept { return is_zero_; }
    bool has_end() const noexcept { return length_ != clock::duration::zero(); }

    /// Counted from now. Precondition: has_end().
    clock::time_point end() const noexcept {
        const clock::time_point now = clock::now();
        return length_ < clock::time_point::max() - now ? now + length_ : clock::time_point::max();
    }

private:
    bool is_zero_;
    clock::duration length_ = clock::duration::zero(); // zero: no end
};

/// void(error_code, std::size_t)
struct deliver_ready {
    error_code ec;
    std::size_t ready;

    template <class Handler>
    void to(Handler& handler) {
        std::move(handler)(ec, ready);
    }
};

template <class Handler, class IoExecutor>
class poll_handler_op final : public poll_op {
    using clock = std::chrono::steady_clock;
    using timer = asio::basic_waitable_timer<clock, asio::wait_traits<clock>, IoExecutor>;
    using completion = wait_completion<Handler, deliver_ready>;

public:
    using memory = op_memory<poll_handler_op, Handler>;

    poll_handler_op(Handler& handler, const io_executor<IoExecutor>& ex)
        : poll_op(&poll_handler_op::do_complete), handler_(std::move(handler)),
          work_(handler_, ex) {}

    Handler& handler() noexcept { return handler_; }

    /// Holds the list from now on.
    void start_waiting(const IoExecutor& ex, const poll_list_ptr& list, std::uint64_t number,
                       const poll_timeout& timeout) {
        list_ = list;
        if (timeout.has_end()) {
            timer_.emplace(ex, timeout.end());
            timer_->async_wait([list, number](const error_code& cancelled) {
                if (!cancelled)
                    list->expire(number);
            });
        }
        auto slot = asio::get_associated_cancellation_slot(handler_);
        if (slot.is_connected())
            slot.template emplace<wait_canceller<poll_list_ptr>>(list, number);
    }

    void stop_timer() noexcept override { timer_.reset(); }

    /// Through the associated immediate executor, in place of the scheduler.
    void complete_immediately(const IoExecutor& ex) {
        memory m(this, handler_);
        tracked_completion tracked(*this);
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        completion c{std::move(handler_), deliver_ready{ec, ready}};
        m.reset();
        tracked.begin(c.arguments.ec);
        inline_run frame;
        asio::dispatch(immediate_executor_of(c.handler, ex), std::move(c));
        tracked.end();
    }

private:
    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        poll_handler_op* op = static_cast<poll_handler_op*>(item);
        memory m(op, op->handler_);
        tracked_completion tracked(*op);
        handler_work<Handler, IoExecutor> work(std::move(op->work_));
        completion c{std::move(op->handler_), deliver_ready{op->ec, op->ready}};
        m.reset();
        if (!owner)
            return;
        if constexpr (has_immediate_executor<Handler, IoExecutor>::value)
            inline_run::reset();
        complete_through_executor(tracked, work, c, c.arguments.ec);
    }

    Handler handler_;
    handler_work<Handler, IoExecutor> work_;
    std::optional<timer> timer_;
    poll_list_ptr list_;
};

/// Starts an operation on a list.
template <class Handler, class IoExecutor>
void start_poll(const poll_list_ptr& list, const io_executor<IoExecutor>& ex, Handler& handler,
                ::pollfd* fds, std::size_t n, const poll_timeout& timeout) {
    using op_type = poll_handler_op<Handler, IoExecutor>;
    service_core& core = list->core();
    typename op_type::memory memory(handler);
    op_type* op = memory.construct(handler, ex);
    track_creation(core.port.context(), *op, list.get(), -1, "async_poll");
    if (const std::uint64_t number = list->begin(*op, fds, n, !timeout.is_zero())) {
        struct frame {
            const poll_list_ptr& list;
            bool is_done = false;
            ~frame() {
                if (!is_done)
                    list->withdraw();
            }
        } f{list};
        op->start_waiting(ex.value, list, number, timeout);
        f.is_done = true;
        memory.release();
        return list->wait();
    }
    memory.release();
    if constexpr (has_immediate_executor<Handler, IoExecutor>::value) {
        if (inline_run::allow(core.inline_budget.load(std::memory_order_relaxed)))
            return op->complete_immediately(ex.value);
    }
    core.port.post_new(op);
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_POLL_OP_HPP
