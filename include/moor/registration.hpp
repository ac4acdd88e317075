//
// moor/registration.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_REGISTRATION_HPP
#define MOOR_REGISTRATION_HPP

#include <moor/detail/io_op.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/wait_op.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/any_completion_handler.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution/executor.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/query.hpp>
#include <boost/system/result.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <cstdint>
#include <type_traits>
#include <utility>

namespace moor {

/// How a handle is registered.
struct registration_options {
    /// Level-triggered, or as the trigger says.
    constexpr registration_options(trigger t = trigger::level) noexcept : mode(t) {}

    /// How its readiness is believed.
    trigger mode;
};

namespace detail {

/// What a cancellation slot holds: the state, never the registration, which may move or die.
class wait_canceller {
public:
    wait_canceller(scheduled_io_ptr state, std::uint64_t id) noexcept
        : state_(std::move(state)), id_(id) {}

    void operator()(asio::cancellation_type_t type) {
        using asio::cancellation_type;
        if ((type & (cancellation_type::terminal | cancellation_type::partial |
                     cancellation_type::total)) != cancellation_type::none)
            state_->cancel(id_);
    }

private:
    scheduled_io_ptr state_;
    std::uint64_t id_;
};

template <class T, class = void>
struct is_handle_owner : std::false_type {};
template <class T>
struct is_handle_owner<T, std::void_t<decltype(std::declval<T&>().native_handle())>>
    : std::is_convertible<decltype(std::declval<T&>().native_handle()), int> {};

template <class T>
inline constexpr bool is_context_v = std::is_convertible<T&, asio::execution_context&>::value;

inline void throw_if(const error_code& ec, const char* what) {
    if (ec)
        boost::throw_exception(boost::system::system_error(ec, what));
}

} // namespace detail

template <class Executor>
class basic_descriptor;

/// A native handle, registered with the reactor of an execution context to wait for its readiness.
/**
 * The handle is borrowed: it is never closed, and its flags are never changed. The reactor is told
 * of it when a wait first has to park. Within one execution context a handle can be registered
 * once at a time.
 *
 * @tparam Executor The I/O executor's type.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe, except that the waits, `async_io`, `try_io`, the `poll_*`
 * functions, `ready`, `query`, `clear` and `cancel` may run concurrently with each other. They may
 * not run concurrently with registering, deregistering, moving, assigning or destroying.
 *
 * @par Lifetimes
 * Destroying a registration completes its waits with `asio::error::operation_aborted`. A
 * registration may outlive its execution context: it answers `moor::error::gone` then.
 *
 * @par Waits
 * All initiating functions have these in common. Whether the wait can be answered at once or not,
 * the handler is not invoked from within the initiating function, except through its associated
 * immediate executor (Boost 1.82). It is invoked through its associated executor, which defaults to
 * the I/O executor; its memory comes from its associated allocator, and is given back before it is
 * invoked. Until then both executors are kept busy. All cancellation types are supported
 * (`terminal`, `partial` and `total`): a wait has no side effects. Any number of waits may be
 * pending, also on one direction: an event completes all that it satisfies.
 *
 * @par Errors
 * A wait completes with `error::not_registered` if there is no handle, `invalid_argument` for an
 * empty interest, `bad_descriptor` if the handle was found closed, `operation_aborted` if it was
 * cancelled, deregistered or destroyed, `error::gone` after the service's `close()`,
 * `operation_not_supported` for an event that its handle can't have, or what the reactor reports.
 */
template <class Executor = boost::asio::any_io_executor>
class basic_registration {
public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = int;

    /// A waker of the poll style.
    using waker_type = boost::asio::any_completion_handler<void()>;

    /// The same on another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The registration's type.
        using other = basic_registration<OtherExecutor>;
    };

    /// Without a handle.
    explicit basic_registration(const executor_type& ex) : executor_{ex}, core_(core_of(ex)) {}

    /// Without a handle.
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    explicit basic_registration(Context& context)
        : basic_registration(executor_type(context.get_executor())) {}

    /// Registers a handle. @throws boost::system::system_error as `register_handle` does.
    basic_registration(const executor_type& ex, native_handle_type handle,
                       registration_options options = {})
        : basic_registration(ex) {
        register_handle(handle, options);
    }

    /// Registers a handle. @throws boost::system::system_error as `register_handle` does.
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_registration(Context& context, native_handle_type handle,
                       registration_options options = {})
        : basic_registration(executor_type(context.get_executor()), handle, options) {}

    /// Registers the handle of any object that has `native_handle()`, which keeps owning it.
    template <class Owner, std::enable_if_t<detail::is_handle_owner<Owner>::value, int> = 0>
    basic_registration(const executor_type& ex, Owner& owner, registration_options options = {})
        : basic_registration(ex, static_cast<native_handle_type>(owner.native_handle()), options) {}

    /// Registers the handle of any object that has `native_handle()`, which keeps owning it.
    template <class Context, class Owner,
              std::enable_if_t<
                  detail::is_context_v<Context> && detail::is_handle_owner<Owner>::value, int> = 0>
    basic_registration(Context& context, Owner& owner, registration_options options = {})
        : basic_registration(executor_type(context.get_executor()),
                             static_cast<native_handle_type>(owner.native_handle()), options) {}

    /// Moves the registration with its pending waits and their cancellation slots; `other` has no
    /// handle afterwards.
    basic_registration(basic_registration&& other) noexcept
        : executor_(other.executor_), core_(other.core_), io_(std::move(other.io_)) {}

    /// Moves from a registration on another executor.
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_registration(basic_registration<OtherExecutor>&& other)
        : executor_{Executor(other.executor_.value)}, core_(other.core_),
          io_(std::move(other.io_)) {}

    /// Deregisters its own handle, as the destructor does, and moves.
    basic_registration& operator=(basic_registration&& other) noexcept {
        if (this != &other) {
            end(true);
            executor_ = other.executor_;
            core_ = other.core_;
            io_ = std::move(other.io_);
        }
        return *this;
    }

    /// Deregisters its own handle, as the destructor does, and moves.
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_registration& operator=(basic_registration<OtherExecutor>&& other) {
        *this = basic_registration(std::move(other));
        return *this;
    }

    basic_registration(const basic_registration&) = delete;
    basic_registration& operator=(const basic_registration&) = delete;

    /// Deregisters. Pending waits complete with `operation_aborted`; the handle stays open.
    ~basic_registration() { end(true); }

    /// The I/O executor.
    const executor_type& get_executor() const noexcept { return executor_.value; }

    /// The registered handle, or -1.
    native_handle_type native_handle() const noexcept { return io_ ? io_->native_handle() : -1; }

    /// Whether there is a registered handle. (That says nothing of the service or the context,
    /// which may be gone: then waits end with `error::gone`.)
    bool is_registered() const noexcept { return static_cast<bool>(io_); }

    // ---- registering --------------------------------------------------------------------------

    /// Registers a handle. On an error the registration has none, and the caller still has it.
    /**
     * @par Errors
     * `bad_descriptor` if the handle is negative or not open; `error::already_registered` if it is
     * registered with this context, or this registration has a handle; `error::gone` if the
     * service was closed or the context is gone.
     */
    void register_handle(native_handle_type handle, registration_options options, error_code& ec) {
        if (core_->is_closed())
            ec = error::gone;
        else if (io_)
            ec = error::already_registered;
        else
            io_ = core_->open(handle, options.mode, ec);
    }
    /// @copydoc register_handle
    void register_handle(native_handle_type handle, error_code& ec) {
        register_handle(handle, registration_options(), ec);
    }
    /// Registers a handle. @throws boost::system::system_error with the errors above.
    void register_handle(native_handle_type handle, registration_options options = {}) {
        error_code ec;
        register_handle(handle, options, ec);
        detail::throw_if(ec, "register_handle");
    }

    /// Ends the registration and returns the handle. Pending waits complete with
    /// `operation_aborted`. `error::not_registered`, and -1, if there was none.
    native_handle_type deregister(error_code& ec) {
        if (!io_) {
            ec = error::not_registered;
            return -1;
        }
        ec = error_code();
        native_handle_type handle = io_->native_handle();
        end(true);
        return handle;
    }
    /// @copydoc deregister
    native_handle_type deregister() {
        error_code ec;
        native_handle_type handle = deregister(ec);
        detail::throw_if(ec, "deregister");
        return handle;
    }

    /// Ends the registration of a handle that its owner has closed: the number, which may belong
    /// to somebody else by now, is not passed to the kernel. Pending waits complete with
    /// `operation_aborted`. Nothing happens if there is no handle.
    void abandon() { end(false); }

    /// Replaces the handle: the library that owns it has made a new one, and may have closed the
    /// old one. Pending waits complete with `operation_aborted`. On an error the registration has
    /// no handle.
    void reset(native_handle_type handle, registration_options options, error_code& ec) {
        end(true);
        register_handle(handle, options, ec);
    }
    /// @copydoc reset
    void reset(native_handle_type handle, error_code& ec) {
        reset(handle, registration_options(), ec);
    }
    /// Replaces the handle. @throws boost::system::system_error as `register_handle` does.
    void reset(native_handle_type handle, registration_options options = {}) {
        error_code ec;
        reset(handle, options, ec);
        detail::throw_if(ec, "reset");
    }

    /// Completes every pending wait with `operation_aborted`.
    void cancel() { cancel_waits(interest()); }

    /// Completes the pending waits on one direction with `operation_aborted`; one that waits for
    /// both directions is among them.
    void cancel(direction d) {
        cancel_waits(d == direction::read ? detail::readiness_word::read_stream | interest::priority
                                          : detail::readiness_word::write_stream);
    }

    // ---- waiting ------------------------------------------------------------------------------

    /// Waits until the handle is readable, at its end, or failed.
    /**
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     */
    template <class Token = boost::asio::default_completion_token_t<executor_type>>
    auto
    async_wait_readable(Token&& token = boost::asio::default_completion_token_t<executor_type>()) {
        return boost::asio::async_initiate<Token, void(error_code)>(
            initiate_wait<detail::deliver_ec>(this, "async_wait_readable"), token,
            detail::only<detail::read_channel>());
    }

    /// Waits until the handle is writable, or writing to it would fail at once.
    /**
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     */
    template <class Token = boost::asio::default_completion_token_t<executor_type>>
    auto
    async_wait_writable(Token&& token = boost::asio::default_completion_token_t<executor_type>()) {
        return boost::asio::async_initiate<Token, void(error_code)>(
            initiate_wait<detail::deliver_ec>(this, "async_wait_writable"), token,
            detail::only<detail::write_channel>());
    }

    /// Waits for any of several events.
    /**
     * The `ready_event` says which of them came, and can be given to `clear`.
     *
     * @par Completion Signature
     * @code void(error_code, ready_event) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     */
    template <class Token = boost::asio::default_completion_token_t<executor_type>>
    auto async_wait(interest want,
                    Token&& token = boost::asio::default_completion_token_t<executor_type>()) {
        return boost::asio::async_initiate<Token, void(error_code, ready_event)>(
            initiate_wait<detail::deliver_event>(this, "async_wait"), token, want);
    }

    // ---- calls that may block -----------------------------------------------------------------

    /// Calls `f`, which says whether the handle was ready, and again once it is after every
    /// would-block.
    /**
     * `f` is called as `R f(error_code&)`. If it sets `would_block` or `try_again`, the readiness
     * that it was called for is dropped and the operation waits again; with anything else it is
     * over, and completes with the error code and the value. `R` may be `void`, or a
     * `drainable<T>` (see `drained`, `drained_if`, `short_transfer`), of which the handler receives
     * the `T`; it is default-constructible, for an operation that fails before it has called `f`.
     *
     * `f` must not block: the first call comes without a verification, so the handle should be in
     * non-blocking mode, or `f` use a call that does not block. It is called through the handler's
     * associated executor, never from within the initiating
     * function and never under a lock, and no longer once the operation was cancelled or the
     * handle deregistered. If it throws, the exception leaves `run()` as a handler's would, and the
     * handler is destroyed. Several operations may be pending on one direction; each calls its own
     * `f`.
     *
     * @par Completion Signature
     * @code void(error_code, R) // or void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancellation while `f` runs takes effect if `f` would
     * block; otherwise the operation has its result.
     */
    template <class F, class Token = boost::asio::default_completion_token_t<executor_type>>
    auto async_io(interest want, F&& f,
                  Token&& token = boost::asio::default_completion_token_t<executor_type>()) {
        static_assert(std::is_invocable<std::decay_t<F>&, error_code&>::value,
                      "the callable of async_io is called as R f(boost::system::error_code&)");
        using result = detail::io_result<std::decay_t<F>>;
        static_assert(std::is_void<result>::value || std::is_default_constructible<result>::value,
                      "what the callable of async_io returns is default-constructible, for an "
                      "operation that fails before it is called");
        using signature = typename detail::io_signature<result>::type;
        return boost::asio::async_initiate<Token, signature>(initiate_io(this), token, want,
                                                             std::decay_t<F>(std::forward<F>(f)));
    }

    /// Calls `f` once, if the handle is ready; does not wait.
    /**
     * `f` is called as for `async_io`. The result is its value, its error, or `would_block` if the
     * handle is not ready, in which case `f` was not called. A would-block from `f` drops the
     * readiness that it was called for. With several events in `want`, any of them will do.
     *
     * Ready is what the kernel says, until a wait was made; then it is what the loop has delivered:
     * after a would-block `f` is not called before the loop has run, and an event has come. (Where
     * no events are delivered unless somebody waits, as with `select(2)`, it is the kernel's answer
     * again.) Outside of a loop, use `query`, or make the call.
     */
    template <class F>
    auto try_io(interest want, F&& f) -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        using raw = detail::io_raw_result<std::decay_t<F>>;
        error_code ec = usable(want);
        if (ec)
            return ec;
        detail::scheduled_io_ptr io(io_); // `f` may end the registration
        ready_event event = io->glance(want, false, ec);
        if (ec)
            return ec;
        if (event.ready().empty())
            return error_code(boost::asio::error::would_block);
        detail::io_outcome<raw> outcome;
        if (!detail::attempt(*io, event, f, outcome))
            io->would_block(event);
        return std::move(outcome).result();
    }

    // ---- the poll style -----------------------------------------------------------------------

    /// Asks whether the handle is readable; if not, keeps the waker.
    /**
     * For those who write awaitables of their own. There is one slot a direction: the newest
     * waker is kept, and one that it displaces is woken. A waker is woken by the next event, by
     * cancelling, and when the registration ends; it is posted to its associated executor, which
     * defaults to the I/O executor. A kept waker counts as outstanding work.
     *
     * @returns The event, `would_block` if the waker was kept, or an error. Nothing but
     * `would_block` keeps the waker.
     */
    boost::system::result<ready_event> poll_read_ready(waker_type waker) {
        return poll_ready(interest::readable, detail::purpose::read_slot, std::move(waker));
    }

    /// Asks whether the handle is writable; if not, keeps the waker. As `poll_read_ready`.
    boost::system::result<ready_event> poll_write_ready(waker_type waker) {
        return poll_ready(interest::writable, detail::purpose::write_slot, std::move(waker));
    }

    /// Calls `f` (as `async_io` does) until it does not block, or keeps the waker.
    template <class F>
    auto poll_read_io(waker_type waker, F&& f)
        -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        return poll_io(interest::readable, detail::purpose::read_slot, std::move(waker), f);
    }

    /// Calls `f` (as `async_io` does) until it does not block, or keeps the waker.
    template <class F>
    auto poll_write_io(waker_type waker, F&& f)
        -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        return poll_io(interest::writable, detail::purpose::write_slot, std::move(waker), f);
    }

    /// The cached readiness, without a system call. Nothing is known of a handle that was never
    /// waited for.
    ready_event ready(interest want) const noexcept {
        return io_ ? io_->peek(want) : ready_event();
    }

    /// What the kernel says now, with one `poll(2)`. The cache is left alone.
    readiness query(error_code& ec) const {
        if ((ec = usable(interest::readable)))
            return readiness();
        if (io_->closed() != detail::scheduled_io::still_open) {
            ec = io_->closed_error();
            return readiness();
        }
        int events =
            detail::poll_now(io_->native_handle(),
                             detail::to_poll_events(interest::readable | interest::writable |
                                                    interest::priority | interest::read_closed),
                             ec);
        return ec ? readiness() : detail::from_poll_events(events, io_->identity().is_fifo());
    }
    /// @copydoc query @throws boost::system::system_error
    readiness query() const {
        error_code ec;
        readiness r = query(ec);
        detail::throw_if(ec, "query");
        return r;
    }

    /// Drops what `event` observed, except what came since, and that a side is closed.
    void clear(const ready_event& event) noexcept {
        if (io_)
            io_->clear(event);
    }

private:
    template <class OtherExecutor>
    friend class basic_registration;
    template <class OtherExecutor>
    friend class basic_descriptor;

    /// Starts a wait when its token says so.
    template <class Deliver>
    class initiate_wait {
    public:
        using executor_type = Executor;

        initiate_wait(basic_registration* self, const char* name) noexcept
            : self_(self), name_(name) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler, class Interest>
        void operator()(Handler&& handler, Interest want) const {
            std::decay_t<Handler> h(std::forward<Handler>(handler));
            self_->template start_wait<Deliver>(h, want, name_);
        }

    private:
        basic_registration* self_;
        const char* name_;
    };

    class initiate_io {
    public:
        using executor_type = Executor;

        explicit initiate_io(basic_registration* self) noexcept : self_(self) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler, class F>
        void operator()(Handler&& handler, interest want, F&& f) const {
            std::decay_t<Handler> h(std::forward<Handler>(handler));
            self_->start_io(h, want, std::decay_t<F>(std::forward<F>(f)));
        }

    private:
        basic_registration* self_;
    };

    template <class Deliver, class Handler, class Interest>
    void start_wait(Handler& handler, Interest want, const char* name) {
        if (BOOST_UNLIKELY(!core_->context_exists()))
            return detail::complete_without_context(detail::wait_completion<Handler, Deliver>{
                std::move(handler), Deliver(make_error_code(error::gone), ready_event())});
        using op_type = detail::wait_op<Deliver, Handler, Executor>;
        typename op_type::memory memory(handler);
        op_type* op = memory.construct(handler, executor_, want, detail::purpose::wait);
        bool parked = start(*op, want, name);
        memory.release();
        if (BOOST_LIKELY(parked))
            return;
        if constexpr (detail::has_immediate_executor<Handler, Executor>::value) {
            if (detail::inline_run::allow(core_->inline_budget.load(std::memory_order_relaxed)))
                return op->complete_immediately(executor_.value);
        }
        core_->port.post_new(op);
    }

    template <class Handler, class F>
    void start_io(Handler& handler, interest want, F&& f) {
        if (!core_->context_exists())
            return complete_io_without_context<F>(handler);
        using op_type = detail::io_op<F, Handler, Executor>;
        typename op_type::memory memory(handler);
        op_type* op = memory.construct(handler, executor_, want, io_, std::forward<F>(f));
        bool parked = start(*op, want, "async_io");
        memory.release();
        if (!parked)
            core_->port.post_new(op);
    }

    /// For a descriptor, whose transfers take turns: makes the call at once if it can.
    template <detail::channel C, class Handler, class F>
    void start_transfer(Handler& handler, F&& f) {
        constexpr detail::only<C> want;
        if (BOOST_UNLIKELY(!io_ || !core_->context_exists()))
            return start_io(handler, want, std::forward<F>(f));
        using op_type = detail::io_op<F, Handler, Executor>;
        typename op_type::memory memory(handler); // before there is something to lose
        op_type* op = memory.construct(handler, executor_, want, nullptr, std::forward<F>(f));
        if (op->template try_now<C>(*io_)) {
            detail::track_creation(core_->port.context(), *op, io_.get(), native_handle(),
                                   "async_io");
            memory.release();
            if constexpr (detail::has_immediate_executor<Handler, Executor>::value) {
                if (detail::inline_run::allow(core_->inline_budget.load(std::memory_order_relaxed)))
                    return op->complete_immediately(executor_.value);
            }
            return core_->port.post_new(op);
        }
        op->set_state(io_);
        op->set_takes_turns();
        bool parked = start(*op, want, "async_io");
        memory.release();
        if (!parked)
            core_->port.post_new(op);
    }

    template <class F, class Handler>
    static void complete_io_without_context(Handler& handler) {
        detail::io_outcome<detail::io_raw_result<F>> outcome;
        outcome.ec = error::gone;
        detail::complete_without_context(
            detail::make_io_completion<detail::io_result<F>>(handler, outcome));
    }

    /// True: parked. False: the operation says how it ended.
    template <class Op, class Interest>
    BOOST_FORCEINLINE bool start(Op& op, Interest want, const char* name) {
        detail::track_creation(core_->port.context(), op, io_.get(), native_handle(), name);
        if (BOOST_UNLIKELY(!io_ || interest(want).empty())) {
            op.fail(usable(want));
            return false;
        }
        auto slot = boost::asio::get_associated_cancellation_slot(op.handler());
        if (slot.is_connected()) {
            std::uint64_t id = io_->next_id();
            slot.template emplace<detail::wait_canceller>(io_, id);
            op.set_id(id);
        }
        return start_in_state(op, want);
    }

    bool start_in_state(detail::waiter& w, interest) { return io_->start(w); }
    template <class Op, detail::channel C>
    BOOST_FORCEINLINE bool start_in_state(Op& op, detail::only<C>) {
        return io_->template start<C>(op, Op::usual_purpose);
    }

    boost::system::result<ready_event> poll_ready(interest want, detail::purpose why,
                                                  waker_type&& waker) {
        error_code ec = usable(want);
        if (ec)
            return ec;
        ready_event event = io_->glance(want, true, ec);
        if (ec)
            return ec;
        if (!event.ready().empty())
            return event;
        return keep(want, why, waker);
    }

    template <class F>
    auto poll_io(interest want, detail::purpose why, waker_type&& waker, F& f)
        -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        using raw = detail::io_raw_result<std::decay_t<F>>;
        error_code ec = usable(want);
        if (ec)
            return ec;
        detail::scheduled_io_ptr io(io_);
        ready_event event = io->glance(want, false, ec);
        if (ec)
            return ec;
        bool refuted = false;
        for (;;) {
            if (refuted || event.ready().empty()) {
                boost::system::result<ready_event> r =
                    keep(want, why, waker, refuted ? &event : nullptr);
                if (!r)
                    return r.error();
                event = *r;
            }
            detail::io_outcome<raw> outcome;
            if (detail::attempt(*io, event, f, outcome))
                return std::move(outcome).result();
            refuted = true;
            if ((ec = usable(want))) // `f` may end the registration
                return ec;
            if (io != io_) // or begin another
                return error_code(boost::asio::error::operation_aborted);
        }
    }

    /// Parks a waker: would_block; or hands it back, with what came meanwhile.
    boost::system::result<ready_event> keep(interest want, detail::purpose why, waker_type& waker,
                                            const ready_event* refuted = nullptr) {
        using op_type = detail::wait_op<detail::deliver_nothing, waker_type, Executor>;
        typename op_type::memory memory(waker);
        op_type* op = memory.construct(waker, executor_, want, why);
        if (refuted)
            op->set_refuted(*refuted);
        if (refuted ? io_->restart(*op) : io_->start(*op)) {
            memory.release();
            return error_code(boost::asio::error::would_block);
        }
        waker.swap(op->handler()); // Boost 1.81's move assignment recurses for ever
        error_code ec = op->ec();
        ready_event event = op->event();
        memory.reset();
        if (ec)
            return ec;
        return event;
    }

    error_code usable(interest want) const noexcept {
        if (!io_)
            return core_->is_closed() ? error::gone : error::not_registered;
        if (want.empty())
            return boost::asio::error::invalid_argument;
        return error_code();
    }

    void cancel_waits(interest which) {
        if (!io_)
            return;
        detail::track_operation(core_->port.context(), io_.get(), native_handle(), "cancel");
        io_->cancel(which);
    }

    void end(bool ours) noexcept {
        if (detail::scheduled_io_ptr io = std::move(io_))
            core_->end(*io, ours);
    }

    static detail::service_core_ptr core_of(const executor_type& ex) {
        if constexpr (boost::asio::execution::is_executor<executor_type>::value)
            return use_registration_service(boost::asio::query(ex, boost::asio::execution::context))
                .core_;
        else
            return use_registration_service(ex.context()).core_;
    }

    detail::io_executor<Executor> executor_;
    detail::service_core_ptr core_;
    detail::scheduled_io_ptr io_;
};

/// A registration on any executor.
using registration = basic_registration<>;

} // namespace moor

#endif // MOOR_REGISTRATION_HPP
