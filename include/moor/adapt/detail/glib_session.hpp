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
//   1. While GLib runs, in a turn or in call(), nothing is registered for the context's
//      descriptors: each wait is an async_poll of its own. So a source may close a descriptor, and
//      anybody may reuse the number.
//   2. While something is waited for, GLib keeps no state for it: a turn begins anew, with
//      g_main_context_iteration. So call() may iterate the context, and add or remove sources.
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

    template <class Handler>
    void run(Handler&& handler) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        if (operation_)
            return op.complete(boost::asio::error::already_started);
        op.on_cancel([this](boost::asio::cancellation_type_t) {
            end(boost::asio::error::operation_aborted);
        });
        operation_ = std::move(op);
        if (!operation_) // the execution context is shutting down
            return;
        ++number_;
        guarded([this] { post_turn(); });
    }

    /// Ends the operation and the wait.
    void end(error_code ec) {
        ec_operation ended = std::move(operation_);
        end_wait();
        release();
        ended.complete(ec);
    }

    /// Ends the registrations at once. A turn follows if the operation is pending.
    void end_wait() { cancel_wait_.emit(boost::asio::cancellation_type::terminal); }

private:
    void turn() {
        if (is_acquired_ ? !g_main_context_is_owner(context()) // acquired on another thread
                         : !g_main_context_acquire(context())) // which another thread has
            return end(glib_is_busy());
        is_acquired_ = true;
        const std::uint64_t number = number_;
        int priority = 0;
        const bool is_ready = iterate(priority);
        if (!is_running() || number_ != number) // a source has ended it, and perhaps started anew
            return;
        guarded([&] {
            const int timeout = is_ready ? 0 : query(priority);
            if (!is_kept_)
                release();
            if (timeout == 0)
                post_turn();
            else
                wait(timeout);
        });
    }

    /// Dispatches what is ready. Returns whether there is more; otherwise `priority` is for
    /// query().
    /**
     * An exception can't leave a callback through GLib, whose state would be lost: it ends here.
     */
    bool iterate(int& priority) noexcept {
        g_main_context_push_thread_default(context());
        g_main_context_iteration(context(), FALSE);
        const bool is_ready = is_running() && g_main_context_prepare(context(), &priority);
        g_main_context_pop_thread_default(context());
        return is_ready;
    }

    /// Asks for the descriptors. Returns how many milliseconds to wait; if negative, for ever.
    int query(int priority) {
        int timeout = 0;
        for (int n = -1; n != static_cast<int>(polls_.size());) {
            if (n >= 0)
                polls_.resize(static_cast<std::size_t>(n));
            n = g_main_context_query(context(), priority, &timeout, polls_.data(),
                                     static_cast<int>(polls_.size()));
        }
        return timeout;
    }

    void release() {
        if (std::exchange(is_acquired_, false))
            g_main_context_release(context());
    }

    /// Calls `f`. Without memory, the operation is over.
    template <class F>
    void guarded(F f) {
        bool has_failed = false;
        BOOST_TRY { f(); }
        BOOST_CATCH(const std::bad_alloc&) { has_failed = true; }
        BOOST_CATCH_END
        if (has_failed)
            end(boost::asio::error::no_memory);
    }

    void post_turn() {
        boost::asio::post(executor(), next_turn{this->shared_from_this(), number_});
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
            if (ec && ec != boost::asio::error::operation_aborted) // by end_wait()
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
