//
// moor/watcher.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_WATCHER_HPP
#define MOOR_WATCHER_HPP

#include <moor/detail/initiate.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/detail/watch_state.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_io_executor.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace moor {

/// Calls a handler whenever a descriptor is ready: for C libraries that say what to wait for.
/**
 * Libraries such as libcurl, hiredis and c-ares call back with a descriptor and the events to wait
 * for, and expect a call when one of these events occurs. A watcher keeps the descriptor, the
 * interest, a deadline and the handler until they are replaced or removed.
 *
 * @par The Handler
 * `void(error_code, readiness)`, or the same returning `drainable<void>`; it may be movable only.
 * The watcher's I/O executor runs the handler. While an event of the interest is ready, the handler
 * is called again and again (level-triggered), each time with all the wanted events that are ready.
 * It is never called from within a member function, and two calls never overlap. After `stop`,
 * `detach`, `abandon`, `reset` or destruction there is no further call for the old descriptor, not
 * even for an event that was queued before. The handler may stop, reset, replace or destroy its own
 * watcher: the closure lives until the call returns. An exception leaves `run()`; the watcher goes
 * on. A handler that has drained the descriptor can return `moor::drained()`, which saves the next
 * check. The executor and the allocator that are associated with the handler are not used.
 *
 * @par One-Time Changes
 * Some files, such as `/proc/self/mountinfo`, report each change to a single `poll(2)`. The handler
 * misses such a change if it is reported while the interest is being removed, or while the rate
 * limit suppresses the call.
 *
 * @par Errors
 * The handler is told of an error once, with an empty readiness. The interest is empty then:
 * nothing is watched until `set_interest`. The errors are those of
 * `basic_registration::async_wait`, and `no_memory`. The end of a deadline is reported as
 * `asio::error::timed_out`, and `rate_limited` says that a pause begins; both leave the interest as
 * it is.
 *
 * @par Outstanding Work
 * The watcher counts as outstanding work while a deadline is set, and while it has a handler, a
 * descriptor and an interest that is not empty. After `keeps_running(false)` it does not.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called on the executor, which has to be a
 * strand if several threads run the execution context. (Before the loop runs, any thread will do.)
 *
 * @par Lifetimes
 * The watcher owns no descriptor, and closes none. It may outlive the execution context: then it
 * calls nothing any more, and `reset` fails with `error::gone`. When the context shuts down, it
 * destroys the handler: a handler that owns its watcher is not leaked. A watcher that was moved
 * from can only be assigned to or destroyed.@n
 * When the library closes or replaces the descriptor, tell the watcher (`detach`, `abandon`,
 * `reset` or `renew`). The kernel says nothing of a closed descriptor, so the watcher may not
 * notice.
 *
 * @par Example
 * @code
 * // In libcurl's CURLMOPT_SOCKETFUNCTION; watchers is a std::map<int, moor::watcher>.
 * if (what == CURL_POLL_REMOVE) {
 *     watchers.erase(socket);
 *     return 0;
 * }
 * moor::watcher& w = watchers.try_emplace(socket, io).first->second;
 * w.on_event([this, socket](moor::error_code ec, moor::readiness r) { act(socket, ec, r); });
 * w.renew(socket);
 * moor::interest want;
 * if (what & CURL_POLL_IN)
 *     want |= moor::interest::readable;
 * if (what & CURL_POLL_OUT)
 *     want |= moor::interest::writable;
 * w.set_interest(want);
 * return 0;
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_watcher {
    template <class F>
    static constexpr bool is_handler =
        std::is_invocable<std::decay_t<F>&, error_code, readiness>::value;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = int;

    /// The watcher's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The watcher's type.
        using other = basic_watcher<OtherExecutor>;
    };

    /// Constructs a watcher without a handle and without a handler.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_watcher(const executor_type& ex)
        : state_(new detail::watch_state<Executor>(ex)) {}

    /// Constructs a watcher without a handle and without a handler.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    explicit basic_watcher(Context& context)
        : basic_watcher(executor_type(context.get_executor())) {}

    /// Constructs a watcher without a handle, such as one for a deadline.
    /**
     * @param ex The I/O executor.
     * @param handler The handler.
     */
    template <class Handler, std::enable_if_t<is_handler<Handler>, int> = 0>
    basic_watcher(const executor_type& ex, Handler&& handler) : basic_watcher(ex) {
        on_event(std::forward<Handler>(handler));
    }

    /// Constructs a watcher without a handle, such as one for a deadline.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handler The handler.
     */
    template <class Context, class Handler,
              std::enable_if_t<detail::is_context_v<Context> && is_handler<Handler>, int> = 0>
    basic_watcher(Context& context, Handler&& handler)
        : basic_watcher(executor_type(context.get_executor()), std::forward<Handler>(handler)) {}

    /// Constructs a watcher of a handle. The interest is empty until `set_interest` is called.
    /**
     * @param ex The I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param handler The handler.
     * @param options How to register the handle: for level-triggered waits.
     * @param ec Set to the error, if any, as `reset` does; the watcher then has no handle.
     */
    template <class Handler, std::enable_if_t<is_handler<Handler>, int> = 0>
    basic_watcher(const executor_type& ex, native_handle_type handle, Handler&& handler,
                  registration_options options, error_code& ec)
        : basic_watcher(ex, std::forward<Handler>(handler)) {
        options_ = options;
        reset(handle, ec);
    }
    /// Constructs a watcher of a handle, as the overload with options does.
    /**
     * @param ex The I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param handler The handler.
     * @param ec Set to the error, if any, as `reset` does; the watcher then has no handle.
     */
    template <class Handler, std::enable_if_t<is_handler<Handler>, int> = 0>
    basic_watcher(const executor_type& ex, native_handle_type handle, Handler&& handler,
                  error_code& ec)
        : basic_watcher(ex, handle, std::forward<Handler>(handler), registration_options(), ec) {}
    /// Constructs a watcher of a handle. The interest is empty until `set_interest` is called.
    /**
     * @param ex The I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param handler The handler.
     * @param options How to register the handle: for level-triggered waits.
     * @throws boost::system::system_error With the errors of `reset`.
     */
    template <class Handler, std::enable_if_t<is_handler<Handler>, int> = 0>
    basic_watcher(const executor_type& ex, native_handle_type handle, Handler&& handler,
                  registration_options options = {})
        : basic_watcher(ex, std::forward<Handler>(handler)) {
        options_ = options;
        reset(handle);
    }

    /// Constructs a watcher of a handle. The interest is empty until `set_interest` is called.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param handler The handler.
     * @param options How to register the handle: for level-triggered waits.
     * @param ec Set to the error, if any, as `reset` does; the watcher then has no handle.
     */
    template <class Context, class Handler,
              std::enable_if_t<detail::is_context_v<Context> && is_handler<Handler>, int> = 0>
    basic_watcher(Context& context, native_handle_type handle, Handler&& handler,
                  registration_options options, error_code& ec)
        : basic_watcher(executor_type(context.get_executor()), handle,
                        std::forward<Handler>(handler), options, ec) {}
    /// Constructs a watcher of a handle, as the overload with options does.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param handler The handler.
     * @param ec Set to the error, if any, as `reset` does; the watcher then has no handle.
     */
    template <class Context, class Handler,
              std::enable_if_t<detail::is_context_v<Context> && is_handler<Handler>, int> = 0>
    basic_watcher(Context& context, native_handle_type handle, Handler&& handler, error_code& ec)
        : basic_watcher(executor_type(context.get_executor()), handle,
                        std::forward<Handler>(handler), registration_options(), ec) {}
    /// Constructs a watcher of a handle. The interest is empty until `set_interest` is called.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param handler The handler.
     * @param options How to register the handle: for level-triggered waits.
     * @throws boost::system::system_error With the errors of `reset`.
     */
    template <class Context, class Handler,
              std::enable_if_t<detail::is_context_v<Context> && is_handler<Handler>, int> = 0>
    basic_watcher(Context& context, native_handle_type handle, Handler&& handler,
                  registration_options options = {})
        : basic_watcher(executor_type(context.get_executor()), handle,
                        std::forward<Handler>(handler), options) {}

    /// Moves a watcher: what it watches goes on.
    /**
     * @param other The watcher to move from, which can be assigned to or destroyed afterwards.
     */
    basic_watcher(basic_watcher&& other) noexcept
        : state_(std::move(other.state_)), options_(other.options_) {}

    /// Stops, and moves a watcher.
    /**
     * @param other The watcher to move from, which can be assigned to or destroyed afterwards.
     */
    basic_watcher& operator=(basic_watcher&& other) noexcept {
        if (this != &other) {
            // The end of the old handler may destroy this watcher's owner.
            const state_ptr old = std::exchange(state_, std::move(other.state_));
            options_ = other.options_;
            if (old)
                old->stop();
        }
        return *this;
    }

    basic_watcher(const basic_watcher&) = delete;
    basic_watcher& operator=(const basic_watcher&) = delete;

    /// Stops. The handle stays open.
    ~basic_watcher() {
        if (state_)
            state_ptr(std::move(state_))->stop();
    }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return state_->executor(); }

    /// Returns the watched handle, or -1.
    native_handle_type native_handle() const noexcept { return state_->native_handle(); }

    /// Replaces the handler.
    /**
     * Without a handler, nothing is watched. A handler that replaces itself lives until it returns.
     *
     * @param handler The handler.
     */
    template <class Handler, std::enable_if_t<is_handler<Handler>, int> = 0>
    void on_event(Handler&& handler) {
        using handler_type = detail::any_watch_handler<std::decay_t<Handler>>;
        state()->set_handler(std::make_unique<handler_type>(std::forward<Handler>(handler)));
    }

    /// Sets what to watch for.
    /**
     * Removing an interest and setting it again loses no readiness (but for one-time changes, see
     * above). `read_closed`, `write_closed` and `error` stay ready: remove them from the interest
     * once the handler was called for them.
     *
     * @param want The events. With an empty interest the watcher is idle.
     */
    void set_interest(interest want) { state()->set_interest(want); }

    /// Returns what is watched for.
    interest get_interest() const noexcept { return state_->wanted(); }

    /// Sets the deadline: once it is over, the handler is told `asio::error::timed_out`, once.
    /**
     * @param d The time until then. A time of zero or less is over at once; the handler is not
     * called from within this function.
     */
    void expires_after(std::chrono::steady_clock::duration d) {
        expires_at(detail::watch_state<Executor>::after(d));
    }
    /// Sets the deadline: once it is over, the handler is told `asio::error::timed_out`, once.
    /**
     * @param t The time. Another deadline is replaced.
     */
    void expires_at(std::chrono::steady_clock::time_point t) { state()->expire_at(t); }
    /// Removes the deadline.
    void expires_never() { expires_at(detail::watch_state<Executor>::never); }

    /// Replaces the handle. The interest, the handler and the deadline stay.
    /**
     * @param handle The new handle, which stays the caller's.
     * @param ec Set to the error, if any: those of `basic_registration::reset`;
     * `error::not_registered` after `stop`; `invalid_argument` if the options ask for
     * edge-triggered waits. The watcher then has no handle.
     */
    void reset(native_handle_type handle, error_code& ec) { state()->reset(handle, options_, ec); }
    /// Replaces the handle. The interest, the handler and the deadline stay.
    /**
     * @param handle The new handle, which stays the caller's.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void reset(native_handle_type handle) {
        error_code ec;
        reset(handle, ec);
        detail::throw_if(ec, "moor::watcher::reset", handle);
    }

    /// Replaces the handle if the library that owns it has put another file in its place.
    /**
     * See `basic_registration::renew`. If the number stands for the same file, nothing happens.
     *
     * @param handle The descriptor that the library has now.
     * @param ec Set to the error, if any, as by `reset`.
     * @returns Whether the handle was replaced.
     */
    bool renew(native_handle_type handle, error_code& ec) {
        return state()->renew(handle, options_, ec);
    }
    /// Replaces the handle if the library that owns it has put another file in its place.
    /**
     * @param handle The descriptor that the library has now.
     * @returns Whether the handle was replaced.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    bool renew(native_handle_type handle) {
        error_code ec;
        bool is_new = renew(handle, ec);
        detail::throw_if(ec, "moor::watcher::renew", handle);
        return is_new;
    }

    /// Ends the watch of a handle which its owner is about to close.
    /**
     * The interest, the handler and the deadline stay: after `reset`, the watcher goes on.
     *
     * @returns The handle; -1 if there is none.
     */
    native_handle_type detach() noexcept { return state()->detach(); }

    /// Ends the watch of a handle which its owner has closed already.
    /**
     * As `detach`, but the number is not passed to the kernel any more.
     */
    void abandon() noexcept { state()->abandon(); }

    /// Stops for good: ends the watch and the deadline, and destroys the handler.
    /**
     * A handler that runs is destroyed when it returns. Afterwards, `reset` and `renew` fail with
     * `error::not_registered`.
     */
    void stop() noexcept { state()->stop(); }

    /// Sets whether the watcher counts as outstanding work while it waits.
    /**
     * For a connection that idles: it is watched, but `run()` may return. (While such a watcher is
     * all that is left, `registration_service::close` stops the loop: call `restart()` after it.)
     *
     * @param keeps Whether `run()` waits for the watcher. By default, it does.
     */
    void keeps_running(bool keeps) { state()->keep_running(keeps); }

    /// Limits how often the handler is called for readiness.
    /**
     * Protects against a library that is told of an event and does not take it in: the handler is
     * called at most so many times in an interval. Then it is called with `error::rate_limited`
     * once, and the watch pauses until the interval is over.
     *
     * @param calls The number of calls. 0: no limit, which is the default.
     * @param interval The interval, which begins with a call.
     */
    void rate_limit(std::size_t calls, std::chrono::steady_clock::duration interval) {
        state()->limit_rate(calls, interval);
    }

    /// Names the watcher's registration, for `registration_service::snapshot` and `dump`.
    /**
     * @param text The name. An empty one is none.
     */
    void name(std::string text) { state()->name(std::move(text)); }

private:
    using state_ptr = typename detail::watch_state<Executor>::ptr;

    /// What a member does may end in the destruction of this watcher.
    state_ptr state() const noexcept { return state_; }

    state_ptr state_;
    registration_options options_;
};

/// A watcher on any I/O executor.
using watcher = basic_watcher<>;

} // namespace moor

#endif // MOOR_WATCHER_HPP
