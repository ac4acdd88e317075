//
// moor/source.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_SOURCE_HPP
#define MOOR_SOURCE_HPP

#include <moor/detail/initiate.hpp>
#include <moor/detail/watch_handler.hpp>
#include <moor/detail/watch_state.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/error.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

namespace moor {

/// What a library waits for: the answer of the `prepare` of a source.
/**
 * @par Example
 * @code
 * return moor::wants{sd_bus_get_fd(bus), moor::interest::readable};
 * @endcode
 */
struct wants {
    /// The descriptor; negative if the library has none.
    /**
     * If the number is negative, the previous descriptor is taken for closed: Moor does not pass
     * the previous number to the kernel any more.
     */
    int fd = -1;
    /// What to wait for.
    interest events{};
    /// When to call `dispatch` with `asio::error::timed_out` at the latest.
    std::optional<std::chrono::steady_clock::time_point> until{};
    /// There is more to do already: `dispatch` is called without an event.
    bool again = false;
};

namespace detail {

struct no_cancel {
    void operator()() const noexcept {}
};

/// The handler of a source's watcher: dispatches, and prepares the next wait.
template <class Executor, class Prepare, class Dispatch, class Cancel>
class source_handler final : public watch_handler {
public:
    template <class P, class D, class C>
    source_handler(watch_state<Executor>& watch, P&& prepare, D&& dispatch, C&& cancel)
        : watch_(watch), prepare_(std::forward<P>(prepare)), dispatch_(std::forward<D>(dispatch)),
          cancel_(std::forward<C>(cancel)) {}

    ~source_handler() override { end_wait(); }

    bool call(const error_code& told, readiness ready) override {
        const error_code refused = std::exchange(refused_, error_code());
        const error_code& ec = refused ? refused : told;
        if (ec || !ready.empty() || is_again_)
            dispatch(ec, ready);
        if (is_usable(ec) && !watch_.is_stopped())
            prepare();
        return false;
    }

private:
    /// Whether the library is asked what to wait for next. After another error it is not.
    static bool is_usable(const error_code& ec) noexcept {
        return !ec || ec == boost::asio::error::timed_out;
    }

    void dispatch(const error_code& ec, readiness ready) {
        is_again_ = is_prepared_ = false;
        if (!is_usable(ec)) { // what prepare() has asked for holds no more
            watch_.set_interest(interest());
            watch_.expire_at(watch_state<Executor>::never);
            watch_.forget_poke();
        }
        BOOST_TRY { dispatch_(ec, ready); }
        BOOST_CATCH(...) {
            if (is_usable(ec))
                watch_.poke();
            BOOST_RETHROW
        }
        BOOST_CATCH_END
    }

    void prepare() {
        end_wait();
        const wants w = prepare_();
        if (watch_.is_stopped()) {
            cancel_();
            return;
        }
        is_prepared_ = true;
        error_code ec;
        if (w.fd < 0)
            watch_.abandon();
        else if (!w.events.empty() || w.fd != watch_.native_handle())
            watch_.renew(w.fd, registration_options(), ec); // compares the file
        watch_.set_interest(ec ? interest() : w.events);
        watch_.expire_at(w.until && !ec ? *w.until : watch_state<Executor>::never);
        is_again_ = w.again;
        refused_ = ec;
        if (is_again_ || ec)
            watch_.poke(); // for touch_now() must not dispatch
    }

    /// A wait that was prepared ends without a dispatch.
    void end_wait() {
        if (std::exchange(is_prepared_, false))
            cancel_();
    }

    watch_state<Executor>& watch_; // the owner of this
    Prepare prepare_;
    Dispatch dispatch_;
    Cancel cancel_;
    bool is_prepared_ = false;
    bool is_again_ = false;
    error_code refused_; // what the descriptor was refused with, until it is dispatched
};

} // namespace detail

/// Runs a C library that has to be asked what it waits for.
/**
 * Libraries such as libpq, ZeroMQ, mosquitto, sd-bus, libssh2 and Wayland say after each call which
 * descriptor, events and time they wait for. A source asks, waits, and lets the library work:
 *
 * - `wants prepare()` says what to wait for. It is called soon after the construction, after each
 *   dispatch, after `touch`, and by `touch_now`.
 * - `void dispatch(error_code, readiness)` lets the library work. The arguments are those of a
 *   watcher's handler; both are empty where `wants::again` asked for the call. Such a call comes
 *   behind what is in the scheduler's queue.
 * - `void cancel()`, which is optional, is called where a prepared wait ends without a dispatch,
 *   before the next `prepare` or at the end (as Wayland wants `wl_display_cancel_read`). It must
 * not throw.
 *
 * The callables may be movable only. They are called on the executor, one at a time, and never from
 * within a member function, with two exceptions: `touch_now` calls `cancel` and `prepare`; `stop`,
 * an assignment, the destructor and the execution context's shutdown call `cancel`. The callables
 * may stop or destroy their source.
 *
 * The library may close its descriptor and open another one, also under the same number: each wait
 * compares the file (see `basic_registration::renew`).
 *
 * @par Errors
 * An error of the wait, or of a descriptor that can't be registered, is dispatched once. Then there
 * is no further `prepare` until `touch` is called. If a callable throws, the exception leaves
 * `run()`. After an exception from `dispatch`, `prepare` is called again; after one from `prepare`,
 * the source goes on to wait for what the last `prepare` returned.
 *
 * @par Outstanding Work
 * A source with an interest or a time keeps `run()` from returning, unless `keeps_running(false)`
 * was called.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called on the executor, which has to be a
 * strand if several threads run the execution context. A source may be constructed anywhere; then
 * `prepare` may run before the constructor returns.
 *
 * @par Lifetimes
 * The source owns no descriptor, and closes none. It may outlive the execution context, which
 * destroys the callables when it shuts down. A source that was moved from can only be assigned to
 * or destroyed.
 *
 * @par Example
 * `example/wrapping.cpp` has the whole of it.
 * @code
 * bool has_more = false;
 * moor::source bus_source(
 *     io,
 *     [bus, &has_more] {
 *         moor::wants w{sd_bus_get_fd(bus)};
 *         const int events = std::max(sd_bus_get_events(bus), 0);
 *         if (events & POLLIN)
 *             w.events |= moor::interest::readable;
 *         if (events & POLLOUT)
 *             w.events |= moor::interest::writable;
 *         std::uint64_t usec = 0; // of CLOCK_MONOTONIC, as steady_clock
 *         if (sd_bus_get_timeout(bus, &usec) >= 0 && usec != UINT64_MAX)
 *             w.until.emplace(std::chrono::microseconds(usec));
 *         w.again = has_more;
 *         return w;
 *     },
 *     [bus, &has_more](moor::error_code ec, moor::readiness) {
 *         if (ec && ec != boost::asio::error::timed_out)
 *             return report(ec); // and no wait until touch()
 *         has_more = sd_bus_process(bus, nullptr) > 0;
 *     });
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_source {
    using watch = detail::watch_state<Executor>;
    using watch_ptr = typename watch::ptr;

    template <class Prepare>
    static constexpr bool is_prepare = std::is_invocable_r<wants, std::decay_t<Prepare>&>::value;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The source's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The source's type.
        using other = basic_source<OtherExecutor>;
    };

    /// Constructs a source, which calls `prepare` soon.
    /**
     * @param ex The I/O executor.
     * @param prepare Says what the library waits for.
     * @param dispatch Lets the library work.
     * @param cancel Called where a prepared wait ends without a dispatch.
     */
    template <class Prepare, class Dispatch, class Cancel = detail::no_cancel,
              std::enable_if_t<is_prepare<Prepare>, int> = 0>
    basic_source(const executor_type& ex, Prepare&& prepare, Dispatch&& dispatch,
                 Cancel&& cancel = Cancel())
        : watch_(new watch(ex)) {
        using handler = detail::source_handler<Executor, std::decay_t<Prepare>,
                                               std::decay_t<Dispatch>, std::decay_t<Cancel>>;
        watch_->set_handler(std::make_unique<handler>(*watch_, std::forward<Prepare>(prepare),
                                                      std::forward<Dispatch>(dispatch),
                                                      std::forward<Cancel>(cancel)));
        watch_->poke();
    }

    /// Constructs a source, which calls `prepare` soon.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param prepare Says what the library waits for.
     * @param dispatch Lets the library work.
     * @param cancel Called where a prepared wait ends without a dispatch.
     */
    template <class Context, class Prepare, class Dispatch, class Cancel = detail::no_cancel,
              std::enable_if_t<detail::is_context_v<Context> && is_prepare<Prepare>, int> = 0>
    basic_source(Context& context, Prepare&& prepare, Dispatch&& dispatch,
                 Cancel&& cancel = Cancel())
        : basic_source(executor_type(context.get_executor()), std::forward<Prepare>(prepare),
                       std::forward<Dispatch>(dispatch), std::forward<Cancel>(cancel)) {}

    /// Moves a source, which goes on.
    /**
     * @param other The source to move from, which can be assigned to or destroyed afterwards.
     */
    basic_source(basic_source&& other) noexcept : watch_(std::move(other.watch_)) {}

    /// Stops, and moves a source.
    /**
     * @param other The source to move from, which can be assigned to or destroyed afterwards.
     */
    basic_source& operator=(basic_source&& other) noexcept {
        if (this != &other) {
            const watch_ptr old = std::exchange(watch_, std::move(other.watch_));
            if (old)
                old->stop();
        }
        return *this;
    }

    basic_source(const basic_source&) = delete;
    basic_source& operator=(const basic_source&) = delete;

    /// Stops.
    ~basic_source() {
        if (watch_)
            watch_ptr(std::move(watch_))->stop();
    }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return watch_->executor(); }

    /// Says that the library was called, so that it may wait for something else now.
    /**
     * `prepare` is called soon, once for many touches. To be called after each call of the library
     * that is not made by `dispatch`.
     */
    void touch() { watch_ptr(watch_)->poke(); }

    /// Says the same, and calls `prepare` from within this function, where this is possible.
    /**
     * Saves a turn of the loop: for adapters, whose `prepare` calls no code of the user. `prepare`
     * is called soon, as after `touch`, if one of the callables is running, or if a call of
     * `dispatch` or `prepare` is due.
     *
     * @throws What `prepare` throws; then the source goes on to wait for what the last `prepare`
     * returned.
     */
    void touch_now() { watch_ptr(watch_)->poke(true); }

    /// Stops for good, and destroys the callables, or has them destroyed when they return.
    void stop() noexcept { watch_ptr(watch_)->stop(); }

    /// Sets whether the source counts as outstanding work while it waits.
    /**
     * @param keeps Whether `run()` waits for the source. By default, it does.
     */
    void keeps_running(bool keeps) { watch_->keep_running(keeps); }

    /// Names the registration of the source, for `registration_service::snapshot` and `dump`.
    /**
     * @param text The name. An empty one is none.
     */
    void name(std::string text) { watch_->name(std::move(text)); }

private:
    watch_ptr watch_;
};

/// A source on any I/O executor.
using source = basic_source<>;

} // namespace moor

#endif // MOOR_SOURCE_HPP
