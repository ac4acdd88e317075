//
// moor/adapt/detail/glib_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A GMainContext in a loop. One turn: the context iterates once without blocking; then the context
// is asked what it waits for; then the next turn is posted, or waits for that.
//
// Invariants
//   1. While GLib runs, nothing is registered for the context's descriptors: each wait is an
//      async_poll of its own. So a source may close a descriptor, and anybody may reuse the number.
//   2. While something is waited for, GLib keeps no state for it: a turn begins anew, with
//      g_main_context_iteration. So in between, others may iterate the context on this thread, and
//      add or remove sources.
//   3. A turn or a wait is queued just once while the operation is pending, but for those of
//      earlier runs, which do nothing.
//

#ifndef MOOR_ADAPT_DETAIL_GLIB_SESSION_HPP
#define MOOR_ADAPT_DETAIL_GLIB_SESSION_HPP

#include <moor/detail/held_executor.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/poll_op.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/poll.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/system/errc.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include <glib.h>
#include <poll.h>

namespace moor {
namespace adapt {
namespace detail {

struct glib_unref {
    void operator()(GMainContext* c) const noexcept { g_main_context_unref(c); }
};
using glib_context_ptr = std::unique_ptr<GMainContext, glib_unref>;

inline error_code glib_is_busy() noexcept {
    return make_error_code(boost::system::errc::device_or_resource_busy);
}

template <class Executor>
class glib_session : public std::enable_shared_from_this<glib_session<Executor>> {
    using ec_operation = operation<void(error_code)>;

public:
    glib_session(const Executor& ex, glib_context_ptr context, bool is_kept)
        : core_(moor::detail::core_access::core_of(moor::detail::context_of(ex))),
          executor_(ex, *core_), context_(std::move(context)), is_kept_(is_kept) {}
    glib_session(const glib_session&) = delete;
    glib_session& operator=(const glib_session&) = delete;

    const Executor& executor() const noexcept { return executor_.value(); }
    GMainContext* context() const noexcept { return context_.get(); }
    bool is_running() const noexcept { return bool(operation_); }
    bool is_kept() const noexcept { return is_kept_; }

    template <class Handler>
    void run(Handler&& handler) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        if (operation_)
            return op.complete(boost::asio::error::already_started);
        operation_ = std::move(op);
        if (!operation_) // the execution context is shutting down
            return;
        operation_.on_cancel([this](boost::asio::cancellation_type_t) {
            end(boost::asio::error::operation_aborted);
        });
        ++number_;
        continue_after(0);
    }

    /// Ends the operation and the wait.
    void end(error_code ec) {
        ec_operation ended = std::move(operation_);
        cancel_wait_.emit(boost::asio::cancellation_type::terminal);
        if (std::exchange(is_acquired_, false))
            g_main_context_release(context());
        ended.complete(ec);
    }

private:
    void turn() {
        if (is_acquired_ ? !g_main_context_is_owner(context()) // acquired on another thread
                         : !g_main_context_acquire(context())) // which another thread has
            return end(glib_is_busy());
        is_acquired_ = true;
        const std::uint64_t number = number_;
        const int timeout = iterate();
        if (!is_running() || number_ != number) // a source has ended it, and perhaps started anew
            return;
        if (!is_kept_ && std::exchange(is_acquired_, false))
            g_main_context_release(context());
        continue_after(timeout);
    }

    /// Dispatches what is ready, and says how many milliseconds to wait; if negative, for ever.
    /**
     * An exception can't leave a callback through GLib, whose state would be lost: it ends here.
     */
    int iterate() noexcept {
        int priority = 0, timeout = 0;
        g_main_context_push_thread_default(context());
        g_main_context_iteration(context(), FALSE);
        if (is_running() && !g_main_context_prepare(context(), &priority))
            for (int n = -1; n != static_cast<int>(polls_.size());) {
                if (n >= 0)
                    polls_.resize(static_cast<std::size_t>(n));
                n = g_main_context_query(context(), priority, &timeout, polls_.data(),
                                         static_cast<int>(polls_.size()));
            }
        g_main_context_pop_thread_default(context());
        return timeout;
    }

    void continue_after(int timeout) {
        bool has_failed = false;
        BOOST_TRY {
            if (timeout == 0)
                boost::asio::post(executor(), next_turn{this->shared_from_this(), number_});
            else
                wait(timeout);
        }
        BOOST_CATCH(const std::bad_alloc&) { has_failed = true; }
        BOOST_CATCH_END
        if (has_failed)
            end(boost::asio::error::no_memory);
    }

    void wait(int timeout) {
        fds_.clear();
        for (const GPollFD& p : polls_)
            fds_.push_back({static_cast<int>(p.fd), static_cast<short>(p.events), 0});
        async_poll(executor(), fds_.data(), fds_.size(), std::chrono::milliseconds(timeout),
                   boost::asio::bind_cancellation_slot(
                       cancel_wait_.slot(), next_turn{this->shared_from_this(), number_}));
    }

    struct next_turn {
        std::shared_ptr<glib_session> session;
        std::uint64_t number;

        void operator()(error_code ec = error_code(), std::size_t = 0) const {
            if (!session->is_running() || session->number_ != number)
                return;
            if (ec)
                return session->end(ec);
            session->turn();
        }
    };

    moor::detail::service_core_ptr core_;
    moor::detail::held_executor<Executor> executor_; // refers to the core
    glib_context_ptr context_;
    const bool is_kept_; // from the first turn to the last; or else in each turn
    bool is_acquired_ = false;
    ec_operation operation_;
    std::uint64_t number_ = 0; // of the operation
    boost::asio::cancellation_signal cancel_wait_;
    std::vector<GPollFD> polls_;
    std::vector<::pollfd> fds_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_GLIB_SESSION_HPP
