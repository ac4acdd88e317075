//
// moor/adapt/glib.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Runs a GMainContext of GLib in an execution context, so that a program with Boost.Asio can use
// GIO, GDBus or GStreamer. Needs GLib 2.72 or later; link with -lglib-2.0.
//
// The library's contract, as the adapter keeps it:
//
// - A context belongs to the thread that has acquired the context. A source that another thread
//   attaches wakes the context only if a thread has acquired the context at that time. A source
//   that the acquiring thread attaches does not wake the context at all. A context with the flag
//   G_MAIN_CONTEXT_FLAGS_OWNERLESS_POLLING is always woken. The guest makes such a context, or
//   keeps another one acquired while async_run is pending.
// - The descriptors, events and timeout change with each iteration, whoever iterates. A source may
//   close its descriptor, and the number may be another file's at the next moment. The guest
//   registers the descriptors for one wait, and none is registered while GLib runs.
// - GLib keeps the results of poll(2) in its sources, so a stale result must not be passed to GLib.
//   The guest's wait decides only when to iterate, and GLib then calls poll(2) itself.
// - A source that is always ready, such as an idle source, is dispatched once in a turn of the
//   loop.
// - A callback must not throw: an exception can't pass GLib's C code. The guest calls
//   std::terminate.
//
// Threads: all members, except touch(), have to be called, and cancellation signals emitted, on the
// executor. The adapter starts no thread. GLib starts threads for GDBus, files and resolvers, which
// run no callbacks of the context.
//
// Lifetimes: the guest has a reference of the GMainContext. The guest may outlive the execution
// context, and may be destroyed in a callback of a source.
//
// An example: example/gio.cpp.
//

#ifndef MOOR_ADAPT_GLIB_HPP
#define MOOR_ADAPT_GLIB_HPP

#include <moor/adapt/detail/glib_session.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/error.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <memory>
#include <type_traits>
#include <utility>

#include <glib.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// How long a guest keeps its `GMainContext` acquired.
enum class glib_acquire {
    /// From the first turn of `async_run` until its end, always on the same thread.
    while_running,
    /// In each turn, and not while the guest waits.
    /**
     * The context must have been made with `G_MAIN_CONTEXT_FLAGS_OWNERLESS_POLLING`: sources that
     * are attached while the guest waits do not wake other contexts.
     */
    each_turn
};

/// Runs a `GMainContext` of GLib in an execution context of Boost.Asio.
/**
 * While `async_run` is pending, the sources of the `GMainContext` are dispatched in the loop that
 * runs the executor, in the order of `g_main_context_iteration`: which the guest calls, without
 * blocking, whenever something that the context waits for is ready. Meanwhile the context is the
 * thread-default context. Then the guest waits for the context's descriptors and its time, by
 * `async_poll`. A guest that waits makes no system call.
 *
 * One iteration is done in a turn, and then the loop runs its other handlers; so a source that is
 * always ready does not keep the loop from them.
 *
 * @par Which Context
 * `glib_guest(io)` makes a context of its own, and `glib_guest(io, nullptr)` runs the default
 * context. `g_idle_add`, `g_timeout_add` and `g_unix_signal_add` use the default context. GIO's
 * functions use the thread-default context of the caller, which is the guest's within callbacks and
 * within `call`, and otherwise the default context, unless the program has set another one.@n
 * The default context, and other contexts without the flag, have a restriction of GLib: a source
 * that the acquiring thread attaches does not wake them. So in handlers of Asio, that is, outside
 * of the callbacks of sources, use GLib within `call`, or call `touch` afterwards.
 *
 * @par Descriptors
 * In a callback, and within `call`, a program may close the descriptor of a source, and open
 * another file or an object of Asio with the same number at once. In another handler, the guest's
 * wait may still have the number registered.
 *
 * @par Nested Loops
 * `g_main_loop_run`, and functions that wait, such as `g_dbus_connection_call_sync`, may be called
 * within a callback or in a handler. They block the thread of the loop for as long as they run.
 * Where a handler calls `g_main_context_iteration` for the guest's context, do so within `call`.
 *
 * @par Exceptions
 * A callback must not throw: an exception that reaches GLib ends the program (`std::terminate`).
 *
 * @par Errors
 * `async_run` completes with @n
 * no error after `stop`; @n
 * `operation_aborted` if the operation was cancelled, or if the guest was destroyed; @n
 * `errc::device_or_resource_busy` if another thread has acquired the context, or if a guest with
 * `glib_acquire::while_running` gets its turn on another thread; @n
 * `asio::error::already_started` if another `async_run` is pending; @n
 * `asio::error::no_memory`; @n
 * or an error of `async_poll`.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * A pending `async_run` keeps `run()` from returning, until it is stopped or cancelled. A guest
 * alone does not, nor do the sources of its context.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe, but for `touch`. The members have to be called, and cancellation
 * signals emitted, on the executor, which has to be a strand if several threads run the execution
 * context. Then the guest needs a context of its own, or one with `glib_acquire::each_turn`. With
 * `glib_acquire::while_running`, one thread has to run the executor. Other threads may attach and
 * destroy sources.
 *
 * @par Lifetimes
 * Destroying a guest ends `async_run` with `operation_aborted`, and drops the reference of the
 * context, which exists as long as anybody has a reference. A guest may be destroyed in a callback
 * of a source. It may outlive its execution context, and with `glib_acquire::while_running` keeps
 * the `GMainContext` acquired then until `stop` or the destructor. An operation goes on when its
 * guest is moved. A guest that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::io_context io;
 * moor::adapt::glib_guest guest(io, nullptr); // the default context
 * guest.async_run([](moor::error_code) {});
 * g_timeout_add_seconds(1, on_tick, &guest); // calls stop() at the end
 * io.run();
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_glib_guest {
    using session = detail::glib_session<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    // What async_run does, once its token says so.
    struct start_run {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.run(std::forward<Handler>(handler));
        }
    };
    using initiation = detail::initiation<session, start_run>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = GMainContext*;

    /// The guest's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The guest's type.
        using other = basic_glib_guest<OtherExecutor>;
    };

    /// Constructs a guest with a `GMainContext` of its own.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_glib_guest(const executor_type& ex)
        : session_(std::make_shared<session>(ex,
                                             detail::glib_context_ptr(g_main_context_new_with_flags(
                                                 G_MAIN_CONTEXT_FLAGS_OWNERLESS_POLLING)),
                                             false)) {}
    /// Constructs a guest with a `GMainContext` of its own.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_glib_guest(Context& context)
        : basic_glib_guest(executor_type(context.get_executor())) {}

    /// Constructs a guest of which others have the `GMainContext`, too.
    /**
     * @param ex The I/O executor.
     * @param shared The context, of which the guest keeps a reference. The null pointer means the
     * default context.
     * @param how When to acquire the context.
     */
    basic_glib_guest(const executor_type& ex, GMainContext* shared,
                     glib_acquire how = glib_acquire::while_running)
        : session_(std::make_shared<session>(ex,
                                             detail::glib_context_ptr(g_main_context_ref(
                                                 shared ? shared : g_main_context_default())),
                                             how == glib_acquire::while_running)) {}
    /// Constructs a guest of which others have the `GMainContext`, too.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param shared The context, as for the other overload.
     * @param how When to acquire the context.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_glib_guest(Context& context, GMainContext* shared,
                     glib_acquire how = glib_acquire::while_running)
        : basic_glib_guest(executor_type(context.get_executor()), shared, how) {}

    /// Moves a guest, with its pending operation.
    /**
     * @param other The guest to move from, which can be assigned to or destroyed afterwards.
     */
    basic_glib_guest(basic_glib_guest&& other) noexcept = default;
    /// Ends what this guest does, as the destructor does, and moves a guest.
    /**
     * @param other The guest to move from, which can be assigned to or destroyed afterwards.
     */
    basic_glib_guest& operator=(basic_glib_guest&& other) noexcept {
        basic_glib_guest old(std::move(other));
        session_.swap(old.session_);
        return *this;
    }
    /// Ends `async_run` with `operation_aborted`, and drops the reference of the `GMainContext`.
    ~basic_glib_guest() {
        if (const std::shared_ptr<session> s = std::move(session_))
            s->end(boost::asio::error::operation_aborted);
    }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns the `GMainContext`, for `g_source_attach` and its like.
    native_handle_type native_handle() const noexcept { return session_->context(); }

    /// Returns whether `async_run` is pending.
    bool is_running() const noexcept { return session_->is_running(); }

    /// Runs the `GMainContext` until `stop`.
    /**
     * One at a time. After it was stopped or cancelled, the guest can be run again: the sources
     * stay, and what became ready meanwhile is dispatched then.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * No error after `stop`; otherwise see the class.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: no source is dispatched any more, but for those of a turn
     * that is going on.
     * @par Example
     * @code
     * using namespace asio::experimental::awaitable_operators;
     * co_await (guest.async_run(asio::use_awaitable) || serve(io)); // until serve() returns
     * @endcode
     */
    template <class Token = default_token>
    auto async_run(Token&& token = default_token())
        -> moor::detail::initiated<void(error_code), Token, initiation> {
        return moor::detail::initiate<void(error_code), Token>(initiation{session_.get()}, token);
    }

    /// Completes `async_run` without an error.
    /**
     * May be called in a callback of a source. No further turn begins.
     */
    void stop() { session_->end(error_code()); }

    /// Says that a source was attached or changed outside of the callbacks of sources.
    /**
     * Needed for contexts with `glib_acquire::while_running`, see the class; does no harm
     * otherwise. The same as `g_main_context_wakeup`; may be called on any thread, and while
     * `async_run` is not pending.
     */
    void touch() { g_main_context_wakeup(session_->context()); }

    /// Calls a function with the guest's `GMainContext` as the thread-default context.
    /**
     * GIO's asynchronous functions call back in the context that is the thread-default context when
     * they are called. Use `call` also for everything else that a handler does with the context:
     * attach sources, close their descriptors, iterate. The guest's wait ends before the call, and
     * a turn of the guest follows.
     *
     * @param f The function, which is called at once. It may throw, and may destroy the guest.
     * @returns What the function returns.
     * @throws boost::system::system_error With `errc::device_or_resource_busy` if another thread
     * has acquired the context.
     *
     * @par Example
     * @code
     * guest.call([&] { g_bus_get(G_BUS_TYPE_SESSION, nullptr, on_bus, &state); });
     * @endcode
     */
    template <class F>
    auto call(F&& f) -> std::invoke_result_t<F> {
        const thread_default scope(session_);
        return std::forward<F>(f)();
    }

private:
    class thread_default {
    public:
        explicit thread_default(const std::shared_ptr<session>& s) : session_(s) {
            if (!g_main_context_acquire(s->context()))
                boost::throw_exception(boost::system::system_error(
                    detail::glib_is_busy(), "moor::adapt::glib_guest::call"));
            s->end_wait();
            g_main_context_push_thread_default(s->context());
        }
        thread_default(const thread_default&) = delete;
        thread_default& operator=(const thread_default&) = delete;
        ~thread_default() {
            g_main_context_pop_thread_default(session_->context());
            g_main_context_release(session_->context());
        }

    private:
        const std::shared_ptr<session> session_; // which the function may drop
    };

    std::shared_ptr<session> session_;
};

/// A guest on any I/O executor.
using glib_guest = basic_glib_guest<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_GLIB_HPP
