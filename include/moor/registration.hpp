//
// moor/registration.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_REGISTRATION_HPP
#define MOOR_REGISTRATION_HPP

#include <moor/detail/any_waker.hpp>
#include <moor/detail/held_executor.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/io_op.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/detail/use_checks.hpp>
#include <moor/detail/wait_canceller.hpp>
#include <moor/detail/wait_op.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/system/result.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace moor {

/// How a handle is registered. Converts from a `trigger`.
/**
 * @par Example
 * @code
 * moor::registration reg(io, fd, moor::trigger::edge);
 * @endcode
 */
struct registration_options {
    /// Constructs options.
    /**
     * @param t Level- or edge-triggered.
     * @param duplicates Whether to register a duplicate of the handle.
     */
    constexpr registration_options(trigger t = trigger::level, bool duplicates = false) noexcept
        : mode(t), duplicate(duplicates) {}

    /// Whether waits are level- or edge-triggered.
    trigger mode;

    /// Whether Moor registers a duplicate of the handle, in place of the handle.
    /**
     * Set this option if another object already has the handle in the same execution context: a
     * socket of Boost.Asio, or another registration. (A C library that does not use the context is
     * no such object.) Moor makes the duplicate with `fcntl(F_DUPFD_CLOEXEC)`, and closes the
     * duplicate when the registration ends, also when the service is closed or the context is
     * destroyed. `native_handle` and `deregister` return the caller's descriptor; the service's
     * snapshot and the reports of mistakes show the caller's descriptor, too.
     *
     * A duplicate costs a descriptor, an `fcntl(2)` and a `close(2)` for each registration, and
     * nothing for an operation. `register_handle` fails with the errors of `fcntl(2)`, such as
     * `no_descriptors`.
     *
     * The duplicate and the handle share one open file description: the same status flags and the
     * same data. Moor does not notice when the owner closes the handle. The file stays open until
     * the registration ends, so end the registration before the owner closes the handle. Otherwise
     * the peer of a socket or a pipe sees no end of file, and `renew` does not notice that a
     * library has opened the same file again. On epoll, there is a worse effect with a socket that
     * Asio itself has opened: Asio relies on `close(2)` to remove the socket from the epoll set.
     * While the duplicate keeps the file open, the old entry remains, and its events may complete
     * waits on other handles.
     *
     * With io_uring, a request that was pending keeps the file open for another turn of the loop.
     * On select, the number of the duplicate has to be below `FD_SETSIZE`, too. Closing a duplicate
     * releases the record locks (`F_SETLK`) which the process has on the file.
     *
     * @par Example
     * A program learns, without reading, that the peer has closed the connection, or at least the
     * peer's sending side:
     * @code
     * tcp::socket socket = ...;
     * moor::registration_options options;
     * options.duplicate = true;
     * moor::registration reg(io, socket, options);
     * reg.async_wait(moor::interest::read_closed, [&](moor::error_code ec, moor::ready_event) {
     *     if (!ec)
     *         stop_work_for(socket);
     * });
     * ...
     * reg.deregister(); // before socket.close()
     * @endcode
     */
    bool duplicate;
};

template <class Executor>
class basic_descriptor;

namespace detail {
template <class Executor>
class watch_state;
} // namespace detail

/// A native handle, registered with an execution context to wait for its readiness.
/**
 * The registration never closes the handle of the caller, and never changes the flags of the
 * handle. The first operation that has to wait adds the handle to the reactor. Within one execution
 * context, only one registration at a time can have the handle itself; further registrations can
 * have duplicates (`registration_options::duplicate`).
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe, except that the waits, `async_io`, `try_io`, the `poll_*`
 * functions, `ready`, `query`, `clear` and `cancel` may run concurrently with each other. They may
 * not run concurrently with registering, deregistering, naming, moving, assigning or destroying.
 *
 * @par Lifetimes
 * Destroying a registration completes its pending operations with `operation_aborted`. A
 * registration may outlive its execution context: its operations fail with `error::gone` then. The
 * owner should deregister the handle before closing it; if the handle was closed already, call
 * `abandon()`.
 *
 * @par Asynchronous Operations
 * The following holds for all initiating functions. Whether the operation completes immediately or
 * not, the handler is not invoked from within the initiating function, except through its
 * associated immediate executor (Boost 1.82). The handler is invoked through its associated
 * executor, which defaults to the I/O executor. Memory comes from the handler's associated
 * allocator, and is given back before the handler is invoked. Outstanding work is tracked on both
 * executors until then. A pending operation keeps `run()` from returning; a registration alone does
 * not. Any number of operations may be pending, also on one direction: an event completes all waits
 * that it satisfies. An operation goes on when its registration is moved.
 *
 * @par Errors
 * An operation completes with @n
 * `error::not_registered` if the registration has no handle; @n
 * `invalid_argument` if the interest is empty; @n
 * `bad_descriptor` if the handle was found closed; @n
 * `operation_aborted` if it was cancelled, or its registration ended; @n
 * `error::gone` if the service was closed, or the execution context is gone; @n
 * `error::registered_elsewhere` if an object that is not Moor's has the handle in this context
 * (epoll and kqueue only); @n
 * `operation_not_supported` for an interest without `readable` and `writable`, if the handle is one
 * that can't be polled, such as a regular file; @n
 * or with an error of the reactor.
 *
 * @par Example
 * @code
 * moor::registration reg(io, fd);  // some library goes on owning fd
 * reg.async_wait_readable([&](moor::error_code ec) {
 *     if (!ec)
 *         library_reads(lib);
 * });
 * @endcode
 * In a coroutine, with a deadline:
 * @code
 * co_await reg.async_wait_readable(asio::cancel_after(1s, asio::use_awaitable)); // Boost 1.86
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_registration : detail::use_guard<basic_registration<Executor>, detail::checks_use> {
    template <class Deliver>
    class initiate_wait;
    class initiate_io;

    using initiate_wait_ec = initiate_wait<detail::deliver_ec>;
    using initiate_wait_event = initiate_wait<detail::deliver_event>;
    using use_guard = detail::use_guard<basic_registration, detail::checks_use>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = int;

    /// The callback of the polling interface: holds any move-only `void()`.
    /**
     * The waker honours the executor and the allocator that are associated with the callback, and
     * can be moved, assigned and swapped. Calling an empty waker does nothing.
     *
     * @par Example
     * @code
     * moor::registration::waker_type waker = asio::bind_executor(strand, [task] { task->poll(); });
     * @endcode
     */
    using waker_type = detail::any_waker;

    /// The registration's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The registration's type.
        using other = basic_registration<OtherExecutor>;
    };

    /// Constructs a registration without a handle.
    /**
     * @param ex The I/O executor.
     * @throws boost::asio::execution::bad_executor If it is an empty `any_io_executor`.
     */
    explicit basic_registration(const executor_type& ex)
        : core_(core_of(ex)), executor_(ex, *core_) {}

    /// Constructs a registration without a handle.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    explicit basic_registration(Context& context)
        : basic_registration(executor_type(context.get_executor())) {}

    /// Constructs a registration and registers a handle.
    /**
     * @param ex The I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param options Level- or edge-triggered.
     * @throws boost::system::system_error As `register_handle` does.
     */
    basic_registration(const executor_type& ex, native_handle_type handle,
                       registration_options options = {})
        : basic_registration(ex) {
        register_handle(handle, options);
    }

    /// Constructs a registration and registers a handle.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handle The handle, which stays the caller's.
     * @param options Level- or edge-triggered.
     * @throws boost::system::system_error As `register_handle` does.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_registration(Context& context, native_handle_type handle,
                       registration_options options = {})
        : basic_registration(executor_type(context.get_executor()), handle, options) {}

    /// Constructs a registration and registers the handle of another object.
    /**
     * @param ex The I/O executor.
     * @param owner Any object that has `native_handle()`, and goes on owning the handle.
     * @param options Level- or edge-triggered.
     * @throws boost::system::system_error As `register_handle` does.
     */
    template <class Owner, std::enable_if_t<detail::is_handle_owner<Owner>::value, int> = 0>
    basic_registration(const executor_type& ex, Owner& owner, registration_options options = {})
        : basic_registration(ex, static_cast<native_handle_type>(owner.native_handle()), options) {}

    /// Constructs a registration and registers the handle of another object.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param owner Any object that has `native_handle()`, and goes on owning the handle.
     * @param options Level- or edge-triggered.
     * @throws boost::system::system_error As `register_handle` does.
     */
    template <class Context, class Owner,
              std::enable_if_t<
                  detail::is_context_v<Context> && detail::is_handle_owner<Owner>::value, int> = 0>
    basic_registration(Context& context, Owner& owner, registration_options options = {})
        : basic_registration(executor_type(context.get_executor()),
                             static_cast<native_handle_type>(owner.native_handle()), options) {}

    /// Moves a registration, with its pending operations and their cancellation slots.
    /**
     * @param other The registration to move from, which holds no handle afterwards.
     */
    basic_registration(basic_registration&& other) noexcept
        : use_guard(std::move(other)), core_(other.core_), executor_(other.executor_, *core_),
          io_(std::move(other.io_)), name_(std::move(other.name_)) {}

    /// Moves a registration on another executor.
    /**
     * @param other The registration to move from, which holds no handle afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_registration(basic_registration<OtherExecutor>&& other)
        : use_guard(std::move(other)), core_(other.core_), executor_(other.executor_, *core_),
          io_(std::move(other.io_)), name_(std::move(other.name_)) {}

    /// Deregisters the present handle, as the destructor does, and moves a registration.
    /**
     * @param other The registration to move from, which holds no handle afterwards.
     */
    basic_registration& operator=(basic_registration&& other) noexcept {
        if (this != &other) {
            other.check_unused();
            end(true);
            executor_.assign(other.executor_, *other.core_);
            core_ = other.core_;
            io_ = std::move(other.io_);
            name_ = std::move(other.name_);
        }
        return *this;
    }

    /// Deregisters the present handle, and moves a registration on another executor.
    /**
     * @param other The registration to move from, which holds no handle afterwards.
     */
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

    /// Deregisters the handle, which stays open.
    /**
     * Pending operations complete with `operation_aborted`.
     */
    ~basic_registration() { end(true); }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return executor_.value(); }

    /// Returns the caller's handle, or -1. If a duplicate is registered, its number is not shown.
    native_handle_type native_handle() const noexcept { return io_ ? io_->caller_handle() : -1; }

    /// Returns whether the registration holds a handle.
    /**
     * The service may be closed, and the execution context gone: operations fail with `error::gone`
     * then.
     */
    bool is_registered() const noexcept { return static_cast<bool>(io_); }

    // ---- registering --------------------------------------------------------------------------

    /// Registers a handle.
    /**
     * After an error the registration holds no handle, and nothing has happened to the caller's.
     *
     * @param handle The handle, which stays the caller's.
     * @param options Level- or edge-triggered.
     * @param ec Set to the error, if any.
     *
     * @par Errors
     * `bad_descriptor` if the handle is negative or not open; `error::already_open` if this
     * registration holds a handle; `error::already_registered` if another registration or
     * descriptor of Moor has the handle in this context; `error::gone` if the service was closed,
     * or the context is gone. If an object of Boost.Asio has the handle, the first operation
     * that has to wait fails with `error::registered_elsewhere`.
     *
     * @par Example
     * @code
     * moor::registration reg(io);
     * moor::error_code ec;
     * reg.register_handle(PQsocket(connection), moor::trigger::level, ec);
     * @endcode
     */
    void register_handle(native_handle_type handle, registration_options options, error_code& ec) {
        this->check_unused();
        if (core_->is_closed())
            ec = error::gone;
        else if (io_)
            ec = error::already_open;
        else
            io_ = options.duplicate ? core_->open_duplicate(handle, options.mode, ec)
                                    : core_->open(handle, options.mode, ec);
        if (name_ && !ec)
            core_->set_name(*io_, *name_);
    }
    /// Registers a handle, for level-triggered waits.
    /**
     * @param handle The handle, which stays the caller's.
     * @param ec Set to the error, if any: the errors of the other overload.
     */
    void register_handle(native_handle_type handle, error_code& ec) {
        register_handle(handle, registration_options(), ec);
    }
    /// Registers a handle.
    /**
     * @param handle The handle, which stays the caller's.
     * @param options Level- or edge-triggered.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void register_handle(native_handle_type handle, registration_options options = {}) {
        error_code ec;
        register_handle(handle, options, ec);
        detail::throw_if(ec, "moor::registration::register_handle", handle);
    }

    /// Ends the registration and returns the handle, which stays open.
    /**
     * Pending operations complete with `operation_aborted`.
     *
     * @param ec Cleared: nothing can go wrong.
     * @returns The handle; -1 if none was registered.
     */
    native_handle_type deregister(error_code& ec) noexcept {
        ec = error_code();
        return deregister();
    }
    /// Ends the registration and returns the handle, which stays open.
    /**
     * Pending operations complete with `operation_aborted`.
     *
     * @returns The handle; -1 if none was registered.
     *
     * @par Example
     * @code
     * ::close(reg.deregister()); // in this order
     * @endcode
     */
    native_handle_type deregister() noexcept {
        native_handle_type handle = native_handle();
        end(true);
        return handle;
    }

    /// Ends the registration of a handle that its owner has closed already.
    /**
     * Moor does not pass the number to the kernel, since the number may belong to another file by
     * now. (A duplicate is Moor's own, and is closed.) Pending operations complete with
     * `operation_aborted`. Without a handle, nothing happens.
     */
    void abandon() noexcept { end(false); }

    /// Replaces the handle, also if its owner has closed the present one.
    /**
     * Pending operations complete with `operation_aborted`. After an error the registration holds
     * no handle.
     *
     * @param handle The new handle, which stays the caller's.
     * @param options Level- or edge-triggered, whatever the present handle's options are.
     * @param ec Set to the error, if any: the errors of `register_handle`, but for
     * `already_open`.
     */
    void reset(native_handle_type handle, registration_options options, error_code& ec) {
        take_out(true);
        register_handle(handle, options, ec);
    }
    /// Replaces the handle, for level-triggered waits.
    /**
     * @param handle The new handle, which stays the caller's.
     * @param ec Set to the error, if any: the errors of the other overload.
     */
    void reset(native_handle_type handle, error_code& ec) {
        reset(handle, registration_options(), ec);
    }
    /// Replaces the handle, also if its owner has closed the present one.
    /**
     * @param handle The new handle, which stays the caller's.
     * @param options Level- or edge-triggered.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void reset(native_handle_type handle, registration_options options = {}) {
        error_code ec;
        reset(handle, options, ec);
        detail::throw_if(ec, "moor::registration::reset", handle);
    }

    /// Replaces the handle if the library that owns it has put another file in its place.
    /**
     * Call `renew` before each wait on a library that closes and reopens its descriptor, as libpq
     * does while it connects: the kernel gives the new file the lowest free number, which is often
     * the old one. The registered file and the given one are compared by number and identity
     * (device and inode, one `fstat(2)`). If they are the same, nothing happens, and pending waits
     * stay pending. Otherwise this is `reset`. Two eventfds, or other anonymous files, under one
     * number can't be told apart, and count as the same file unless `abandon` came between.
     *
     * @param handle The descriptor that the library has now.
     * @param options How to register another one, whatever the options of the present one are.
     * @param ec The errors of `register_handle`; the registration has no handle then.
     * @returns Whether the registration was replaced: then wait again.
     *
     * @par Example
     * @code
     * reg.renew(PQsocket(connection));
     * reg.async_wait_readable(handler);
     * @endcode
     */
    bool renew(native_handle_type handle, registration_options options, error_code& ec) {
        if (io_ && io_->is_open() && native_handle() == handle &&
            detail::identify(handle, ec) == io_->identity() && !ec)
            return false;
        reset(handle, options, ec);
        return !ec;
    }
    /// Replaces the handle if another file is in its place, for level-triggered waits.
    /**
     * @param handle The descriptor that the library has now.
     * @param ec Set to the error, if any: the errors of the other overload.
     * @returns Whether the registration was replaced: then wait again.
     */
    bool renew(native_handle_type handle, error_code& ec) {
        return renew(handle, registration_options(), ec);
    }
    /// Replaces the handle if another file is in its place.
    /**
     * @param handle The descriptor that the library has now.
     * @param options How to register another one, whatever the options of the present one are.
     * @returns Whether the registration was replaced: then wait again.
     * @throws boost::system::system_error With the errors of `register_handle`.
     */
    bool renew(native_handle_type handle, registration_options options = {}) {
        error_code ec;
        bool is_new = renew(handle, options, ec);
        detail::throw_if(ec, "moor::registration::renew", handle);
        return is_new;
    }

    /// Names the registration, for `registration_service::snapshot` and `dump`.
    /**
     * The name stays with this object when its handle is replaced, and is moved with it.
     *
     * @param text The name. An empty one is none.
     *
     * @par Example
     * @code
     * reg.name("libpq, connection 3");
     * @endcode
     */
    void name(std::string text) {
        this->check_unused();
        name_ = std::make_unique<std::string>(std::move(text));
        if (io_)
            core_->set_name(*io_, *name_);
    }
    /// Returns the name; empty if there is none.
    std::string name() const { return name_ ? *name_ : std::string(); }

    /// Completes every pending operation with `operation_aborted`.
    void cancel() { cancel_waits(interest()); }

    /// Completes the pending operations on one direction with `operation_aborted`.
    /**
     * An operation that waits for both directions is among them.
     *
     * @param d The direction.
     */
    void cancel(direction d) {
        using word = detail::readiness_word;
        cancel_waits(d == direction::read ? word::read_stream | interest::priority | interest::error
                                          : word::write_stream);
    }

    // ---- waiting ------------------------------------------------------------------------------

    /// Waits until the handle is readable, at its end, or failed.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancelled wait has no effect on later ones.
     * @par Example
     * @code
     * co_await reg.async_wait_readable(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait_readable(Token&& token = default_token())
        -> detail::initiated<void(error_code), Token, initiate_wait_ec, interest> {
        return detail::initiate<void(error_code), Token>(
            initiate_wait_ec(this, "async_wait_readable"), token, interest(interest::readable));
    }

    /// Waits until the handle is writable, or writing to it would fail at once.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancelled wait has no effect on later ones.
     * @par Example
     * @code
     * reg.async_wait_writable([&](moor::error_code ec) {
     *     if (!ec)
     *         library_writes(lib);
     * });
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait_writable(Token&& token = default_token())
        -> detail::initiated<void(error_code), Token, initiate_wait_ec, interest> {
        return detail::initiate<void(error_code), Token>(
            initiate_wait_ec(this, "async_wait_writable"), token, interest(interest::writable));
    }

    /// Waits for any of several events.
    /**
     * @param want The events. The handler receives the events that came, as a `ready_event`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, ready_event) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancelled wait has no effect on later ones.
     * @par Example
     * @code
     * using moor::interest;
     * reg.async_wait(interest::readable | interest::writable,
     *     [&](moor::error_code ec, moor::ready_event e) {
     *         if (!ec)
     *             library_step(lib, e.is_readable(), e.is_writable());
     *     });
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait(interest want, Token&& token = default_token())
        -> detail::initiated<void(error_code, ready_event), Token, initiate_wait_event, interest> {
        return detail::initiate<void(error_code, ready_event), Token>(
            initiate_wait_event(this, "async_wait"), token, std::move(want));
    }

    // ---- non-blocking calls -------------------------------------------------------------------

    /// Runs a non-blocking call; after each would-block, waits for readiness and repeats the call.
    /**
     * The call reports would-block by an error equal to `errc::operation_would_block` or
     * `errc::resource_unavailable_try_again`, in any category. A call that reports
     * `errc::interrupted` is repeated at once. With any other error, and with none, the operation
     * completes.
     *
     * The call must not block: Moor may run the call before the handle is ready. Moor runs the call
     * through the handler's associated executor, never from within the initiating function and
     * never under a lock, and no more once the operation was cancelled or its registration ended.
     * If the call throws, the exception leaves `run()` as a handler's would, and the handler is
     * destroyed. Several operations may be pending on one direction; each runs its own call.
     *
     * @param want The events to wait for; any of them will do.
     * @param f The call, as `R f(error_code&)`. `R` is `void`, or a default-constructible type (its
     * value for an operation that fails before the call), or a `drainable` of one of these (see
     * `drained`, `drained_if`, `short_transfer`, and `wait_for` for calls whose direction changes).
     * A negative number without an error is an error in the program, which an assertion reports:
     * see `check_errno`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, R) // or void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancellation while the call runs takes effect if the call
     * would block; otherwise the operation has its result.
     * @par Example
     * @code
     * ssize_t n = co_await reg.async_io(moor::interest::readable,
     *     [&](moor::error_code& ec) { return moor::check_errno(::read(fd, data, size), ec); },
     *     asio::use_awaitable);
     * @endcode
     */
    template <class F, class Token = default_token>
    auto async_io(interest want, F&& f, Token&& token = default_token())
        -> detail::initiated<detail::io_signature_of<std::decay_t<F>>, Token, initiate_io, interest,
                             std::decay_t<F>> {
        using result = detail::io_result<std::decay_t<F>>;
        static_assert(std::is_void<result>::value || std::is_default_constructible<result>::value,
                      "what the callable of async_io returns is default-constructible, for an "
                      "operation that fails before it is called");
        return detail::initiate<detail::io_signature_of<std::decay_t<F>>, Token>(
            initiate_io(this), token, std::move(want), std::decay_t<F>(std::forward<F>(f)));
    }

    /// Runs a non-blocking call whose would-block says nothing about the handle.
    /**
     * This overload does what the other overload does, for libraries that report would-block
     * although the descriptor is ready (`zmq_msg_recv` fails with `EAGAIN` although `ZMQ_FD` is
     * readable). After a call that would block, Moor calls `poll(2)`. If the kernel reports an
     * event of interest, Moor makes the call again; otherwise the operation waits for the next
     * event. After 16 calls in a row, Moor posts the operation, so that other handlers can run.
     *
     * The loop stays busy for as long as the descriptor is ready and the library reports
     * would-block.
     *
     * @param want The events to wait for; any of them will do.
     * @param f The call, as for the other overload.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, R) // or void(error_code) @endcode
     * @par Per-Operation Cancellation
     * As the other overload.
     * @par Example
     * @code
     * reg.async_io(moor::interest::readable, moor::ask_kernel, [&](moor::error_code& ec) {
     *     return moor::check_errno(zmq_msg_recv(&message, socket, ZMQ_DONTWAIT), ec);
     * }, handler);
     * @endcode
     */
    template <class F, class Token = default_token>
    auto async_io(interest want, ask_kernel_t, F&& f, Token&& token = default_token())
        -> decltype(std::declval<basic_registration&>().async_io(
            want, std::declval<detail::asking_kernel<std::decay_t<F>>>(),
            std::forward<Token>(token))) {
        return async_io(want, detail::asking_kernel<std::decay_t<F>>{std::forward<F>(f)},
                        std::forward<Token>(token));
    }

    /// Runs a non-blocking call if the handle is ready; does not wait.
    /**
     * Until the first wait, the kernel says whether the handle is ready; afterwards, the reports of
     * the reactor do. After a call that would block, `try_io` makes no call until the loop
     * has run and an event has come. (Where the reactor reports events only while somebody waits,
     * as `select(2)` does, the kernel is asked again.) Outside of a loop, use `query`, or make the
     * call yourself.
     *
     * A call that would block says that the handle is drained. On epoll, a level-triggered wait
     * that follows then misses an error which lasts beside that, as the one of a socket's error
     * queue does: wait for `interest::error` as well.
     *
     * @param want The events; any of them will do.
     * @param f The call, as for `async_io`.
     * @returns The value of the call, or its error; `would_block` if the handle is not ready; or an
     * error of `async_wait`. The call is made in the first two cases only.
     *
     * @par Example
     * @code
     * auto n = reg.try_io(moor::interest::writable, [&](moor::error_code& ec) {
     *     return moor::check_errno(::write(fd, data, size), ec);
     * });
     * if (!n && n.error() == boost::asio::error::would_block)
     *     reg.async_wait_writable(handler);
     * @endcode
     */
    template <class F>
    auto try_io(interest want, F&& f) -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        using raw = detail::io_raw_result<std::decay_t<F>>;
        using failed = detail::io_failure<std::decay_t<F>>;
        error_code ec = usable(want);
        if (ec)
            return failed(ec);
        detail::scheduled_io_ptr io(io_); // `f` may end the registration
        ready_event event = io->ready_now(want, false, ec);
        if (ec)
            return failed(ec);
        if (event.ready().empty())
            return failed(boost::asio::error::would_block);
        detail::io_outcome<raw> outcome;
        if (!detail::attempt(*io, event, want, f, outcome, [&] { return io->is_open(); }))
            io->note_call_would_block(event, want, detail::next_of(outcome));
        return std::move(outcome).result();
    }

    // ---- the polling interface ----------------------------------------------------------------

    /// Asks whether the handle is readable; if not, keeps the waker.
    /**
     * For authors of awaitables of their own. Each direction has one slot for the newest
     * waker; a displaced waker is woken. A waker is woken by the next event, by
     * `cancel`, and when the registration ends: Moor posts the waker to its associated executor,
     * which defaults to the I/O executor. A kept waker counts as outstanding work.
     *
     * @param waker The callback, kept if the result is `would_block`, destroyed otherwise.
     * @returns The event; `would_block` if the waker was kept; `no_memory` if there was none to
     * keep it; or an error of `async_wait`.
     *
     * @par Example
     * @code
     * bool await_ready() {
     *     auto r = reg.poll_read_ready([this] { resume(); });
     *     return r || r.error() != boost::asio::error::would_block;
     * }
     * @endcode
     */
    boost::system::result<ready_event> poll_read_ready(waker_type waker) {
        return poll_ready(interest::readable, detail::purpose::read_slot, std::move(waker));
    }

    /// Asks whether the handle is writable; if not, keeps the waker.
    /**
     * @param waker The callback, kept if the result is `would_block`, destroyed otherwise.
     * @returns As `poll_read_ready`.
     */
    boost::system::result<ready_event> poll_write_ready(waker_type waker) {
        return poll_ready(interest::writable, detail::purpose::write_slot, std::move(waker));
    }

    /// Repeats a non-blocking call until it does not block, or the waker is kept.
    /**
     * @param waker The callback, kept if the result is `would_block`, destroyed otherwise.
     * @param f The call, as for `async_io`.
     * @returns The value of the call, or its error; or as `poll_read_ready`.
     *
     * @par Example
     * @code
     * auto n = reg.poll_read_io([this] { resume(); }, [&](moor::error_code& ec) {
     *     return moor::check_errno(::read(fd, data, size), ec);
     * });
     * @endcode
     */
    template <class F>
    auto poll_read_io(waker_type waker, F&& f)
        -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        return poll_io(interest::readable, detail::purpose::read_slot, std::move(waker), f);
    }

    /// Repeats a non-blocking call until it does not block, or the waker is kept.
    /**
     * @param waker The callback, kept if the result is `would_block`, destroyed otherwise.
     * @param f The call, as for `async_io`.
     * @returns The value of the call, or its error; or as `poll_read_ready`.
     */
    template <class F>
    auto poll_write_io(waker_type waker, F&& f)
        -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        return poll_io(interest::writable, detail::purpose::write_slot, std::move(waker), f);
    }

    /// Returns the cached readiness, without a system call.
    /**
     * Before the first operation has waited, nothing is known.
     *
     * @param want The events of interest.
     */
    ready_event ready(interest want) const noexcept {
        return io_ ? io_->peek(want) : ready_event();
    }

    /// Asks the kernel for the present readiness, with one `poll(2)`. The cache does not change.
    /**
     * An exception is a file that may tell each change to one `poll(2)` only, such as
     * `/proc/self/mountinfo`. With `trigger::edge`, or if an operation is pending or its call is
     * running, `query` then calls `poll(2)` until two answers agree or one is empty, at most five
     * times. A change is news to pending operations, to an operation whose call is running, and,
     * with `trigger::edge`, to a later wait.
     *
     * @param ec Set to the error, if any: the errors of `async_wait`.
     */
    readiness query(error_code& ec) const {
        if ((ec = usable(interest::readable)))
            return readiness();
        return io_->query(ec);
    }
    /// Asks the kernel for the present readiness, as the other overload does.
    /**
     * @throws boost::system::system_error With the errors of the other overload.
     *
     * @par Example
     * @code
     * bool closed = reg.query().is_read_closed();
     * @endcode
     */
    readiness query() const {
        error_code ec;
        readiness r = query(ec);
        detail::throw_if(ec, "moor::registration::query", native_handle());
        return r;
    }

    /// Drops an event from the cache, but nothing newer.
    /**
     * Closed sides stay known, and so does an error for as long as `poll(2)` reports the error:
     * readers and writers are told of it, too. While an error is known, `clear` calls `poll(2)`.
     *
     * @param event The event of a wait, or a part of the event: see `ready_event::only`.
     */
    void clear(const ready_event& event) noexcept {
        if (io_)
            io_->clear(event);
    }

private:
    friend use_guard;
    template <class OtherExecutor>
    friend class basic_registration;
    template <class OtherExecutor>
    friend class basic_descriptor;
    template <class OtherExecutor>
    friend class detail::watch_state;

    /// Starts a wait, now or later, as the token wants.
    template <class Deliver>
    class initiate_wait {
    public:
        using executor_type = Executor;

        initiate_wait(basic_registration* self, const char* name) noexcept
            : self_(self), name_(name) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler>
        void operator()(Handler&& handler, interest want) const {
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

    template <class Deliver, class Handler>
    void start_wait(Handler& handler, interest want, const char* name) {
        if (BOOST_UNLIKELY(!core_->context_exists()))
            return detail::complete_without_context(detail::wait_completion<Handler, Deliver>{
                std::move(handler), Deliver(make_error_code(error::gone), ready_event())});
        if (BOOST_UNLIKELY(!executor_.is_held()))
            return; // the context is shutting down, and destroys handlers
        using op_type = detail::wait_op<Deliver, Handler, Executor>;
        typename op_type::memory memory(handler);
        op_type* op = memory.construct(handler, executor_.get(), want, detail::purpose::wait);
        bool waits = start(*op, want, name);
        memory.release();
        if (BOOST_LIKELY(waits))
            return;
        if constexpr (detail::has_immediate_executor<Handler, Executor>::value) {
            if (!op->has_unit() &&
                detail::inline_run::allow(core_->inline_budget.load(std::memory_order_relaxed)))
                return op->complete_immediately(executor_.get().value);
        }
        if (BOOST_UNLIKELY(op->has_unit()))
            core_->port.post_counted(op);
        else
            core_->port.post_new(op);
    }

    template <class Handler, class F>
    void start_io(Handler& handler, interest want, F&& f) {
        if (!core_->context_exists())
            return detail::complete_io_without_context<F>(handler);
        if (BOOST_UNLIKELY(!executor_.is_held()))
            return; // as above
        using op_type = detail::io_op<F, Handler, Executor>;
        typename op_type::memory memory(handler);
        op_type* op = memory.construct(handler, executor_.get(), want, io_, std::forward<F>(f));
        bool waits = start(*op, want, "async_io");
        memory.release();
        if (!waits)
            core_->port.post_new(op);
    }

    /// For a descriptor, whose transfers take turns: makes the call at once if it can.
    template <detail::channel C, class Handler, class F>
    void start_transfer(Handler& handler, F&& f) {
        constexpr interest want = detail::interest_of(C);
        if (BOOST_UNLIKELY(!io_ || !core_->context_exists() || !executor_.is_held()))
            return start_io(handler, want, std::forward<F>(f));
        using op_type = detail::io_op<F, Handler, Executor>;
        typename op_type::memory memory(handler); // before there is something to lose
        op_type* op = memory.construct(handler, executor_.get(), want, nullptr, std::forward<F>(f));
        if (op->template try_now<C>(*io_)) {
            detail::track_creation(core_->port.context(), *op, io_.get(), native_handle(),
                                   "async_io");
            memory.release();
            if constexpr (detail::has_immediate_executor<Handler, Executor>::value) {
                if (detail::inline_run::allow(core_->inline_budget.load(std::memory_order_relaxed)))
                    return op->complete_immediately(executor_.get().value);
            }
            return core_->port.post_new(op);
        }
        op->set_state(io_);
        op->set_takes_turns();
        bool waits = start(*op, want, "async_io");
        memory.release();
        if (!waits)
            core_->port.post_new(op);
    }

    /// True: the operation waits. False: it says how it ended.
    template <class Op>
    BOOST_FORCEINLINE bool start(Op& op, interest want, const char* name) {
        typename use_guard::frame in_use(*this);
        detail::track_creation(core_->port.context(), op, io_.get(), native_handle(), name);
        if (BOOST_UNLIKELY(!io_ || want.empty())) {
            op.fail(usable(want));
            return false;
        }
        auto slot = boost::asio::get_associated_cancellation_slot(op.handler());
        if (slot.is_connected()) {
            std::uint64_t id = io_->next_id();
            slot.template emplace<detail::wait_canceller<detail::scheduled_io_ptr>>(io_, id);
            op.set_id(id);
            op.set_late_cancellation(io_);
        }
        detail::check_wait(*core_, *io_, want);
        in_use.end(); // the handler may run on another thread soon, and end this registration
        return op.takes_turns() ? io_->start_transfer(op) : io_->start(op);
    }

    boost::system::result<ready_event> poll_ready(interest want, detail::purpose why,
                                                  waker_type&& waker) {
        error_code ec = usable(want);
        if (ec)
            return ec;
        ready_event event = io_->ready_now(want, true, ec);
        if (ec)
            return ec;
        if (!event.ready().empty())
            return event;
        return keep(want, why, waker, nullptr, interest());
    }

    template <class F>
    auto poll_io(interest want, detail::purpose why, waker_type&& waker, F& f)
        -> boost::system::result<detail::io_result<std::decay_t<F>>> {
        using failed = detail::io_failure<std::decay_t<F>>;
        error_code ec = usable(want);
        if (ec)
            return failed(ec);
        detail::scheduled_io_ptr io(io_);
        ready_event event = io->ready_now(want, false, ec);
        if (ec)
            return failed(ec);
        const ready_event* refused = nullptr;
        interest next;
        for (;;) {
            if (refused || event.ready().empty()) {
                boost::system::result<ready_event> r = keep(want, why, waker, refused, next);
                if (!r)
                    return failed(r.error());
                event = *r;
                want = next.empty() ? want : next;
            }
            detail::io_outcome<detail::io_raw_result<std::decay_t<F>>> outcome;
            if (detail::attempt(*io, event, want, f, outcome, [&] { return io->is_open(); }))
                return std::move(outcome).result();
            refused = &event;
            next = detail::next_of(outcome);
            if ((ec = usable(want))) // `f` may end the registration
                return failed(ec);
            if (io != io_) // or begin another
                return failed(boost::asio::error::operation_aborted);
        }
    }

    /// Keeps a waker: would_block. Or gives it back, with what came meanwhile.
    boost::system::result<ready_event> keep(interest want, detail::purpose why, waker_type& waker,
                                            const ready_event* refused, interest next) {
        boost::system::result<ready_event> r = error_code(boost::asio::error::no_memory);
        BOOST_TRY { r = try_to_keep(want, why, waker, refused, next); }
        BOOST_CATCH(...) {}
        BOOST_CATCH_END
        return r;
    }

    boost::system::result<ready_event> try_to_keep(interest want, detail::purpose why,
                                                   waker_type& waker, const ready_event* refused,
                                                   interest next) {
        if (!executor_.is_held())
            return make_error_code(error::gone);
        detail::check_wait(*core_, *io_, want);
        using kept_type = detail::kept_waker<Executor>;
        using op_type = detail::wait_op<detail::deliver_nothing, kept_type, detail::no_executor>;
        kept_type kept(waker, executor_.get().value);
        typename op_type::memory memory(kept);
        op_type* op = memory.construct(kept, detail::io_executor<detail::no_executor>{}, want, why);
        if (refused)
            op->set_refused(*refused);
        if (refused ? io_->restart(*op, next) : io_->start(*op)) {
            memory.release();
            return error_code(boost::asio::error::would_block);
        }
        waker.swap(op->handler().waker());
        if (op->ec())
            return op->ec();
        return op->event();
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
        if (ours && io_)
            detail::check_number(*core_, *io_, "deregister it first, or call abandon() afterwards");
        take_out(ours);
    }

    void take_out(bool ours) noexcept {
        this->check_unused();
        if (detail::scheduled_io_ptr io = std::move(io_))
            core_->end(*io, ours);
    }

    static detail::service_core_ptr core_of(const executor_type& ex) {
        return use_registration_service(detail::context_of(ex)).core_;
    }

    detail::service_core_ptr core_;
    detail::held_executor<Executor> executor_; // refers to the core
    detail::scheduled_io_ptr io_;
    std::unique_ptr<std::string> name_;
};

/// A registration on any I/O executor.
using registration = basic_registration<>;

} // namespace moor

#endif // MOOR_REGISTRATION_HPP
