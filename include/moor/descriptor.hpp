//
// moor/descriptor.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DESCRIPTOR_HPP
#define MOOR_DESCRIPTOR_HPP

#include <moor/detail/adapted_handler.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/system_calls.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/detail/transfer.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/posix/descriptor_base.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace moor {

/// A native handle that another object owns. Made by `borrow`.
/**
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 *
 * @par Example
 * @code
 * moor::borrowed_handle input = moor::borrow(STDIN_FILENO);
 * moor::stream_descriptor in(io, input); // closes nothing, and leaves the flags alone
 * @endcode
 */
class borrowed_handle {
public:
    /// Constructs a name for a handle.
    /**
     * @param handle The handle.
     */
    constexpr explicit borrowed_handle(int handle) noexcept : handle_(handle) {}

    /// Returns the handle.
    constexpr int native_handle() const noexcept { return handle_; }

private:
    int handle_;
};

/// Makes a descriptor use a handle without owning it.
/**
 * The descriptor does not close the handle, and leaves the flags of the handle as they are.
 * `O_NONBLOCK` in particular is a property of the open file, which other descriptors and processes
 * may share (a terminal, with the shell): no operation sets the flag, not for a moment.
 * Asynchronous transfers do without the flag:
 *
 * | the handle is | a read | a write |
 * | --- | --- | --- |
 * | a socket | `recv` with `MSG_DONTWAIT` | `send` with `MSG_DONTWAIT` |
 * | a regular file, a directory, a block device | `read` | `write` |
 * | a terminal, if it can be opened | both on a second descriptor, which is opened through
 *   `/proc/self/fd` with `O_NONBLOCK` and is closed with this one | |
 * | a pipe, and any other file that takes `RWF_NOWAIT` | `preadv2` | `pwritev2` |
 * | else: a named pipe, inotify, the master of a pseudoterminal | `poll`, then `read` | `poll`,
 *   then `write` of as much as fits: `PIPE_BUF` bytes at a time |
 *
 * In the last case, a read blocks if somebody else takes the bytes that `poll` saw, and a write if
 * somebody else takes the room. Meanwhile no lock is held: other operations, `cancel` and `close`
 * go on. While a terminal's second descriptor is open, whoever is at the other end of a
 * pseudoterminal sees no hang-up.
 *
 * @param handle The handle. It has to stay open until the descriptor is closed or destroyed.
 *
 * @par Example
 * @code
 * moor::stream_descriptor in(io, moor::borrow(STDIN_FILENO));
 * @endcode
 */
constexpr borrowed_handle borrow(int handle) noexcept { return borrowed_handle(handle); }

/// Makes a descriptor use the handle of another object.
/**
 * @param owner Any object that has `native_handle()`, and goes on owning the handle.
 */
template <class Owner, std::enable_if_t<detail::is_handle_owner<Owner>::value, int> = 0>
borrowed_handle borrow(Owner& owner) {
    return borrowed_handle(static_cast<int>(owner.native_handle()));
}

namespace detail {

/// What a descriptor knows about its handle.
struct handle_traits {
    static constexpr unsigned borrowed = 1;           // another object closes it
    static constexpr unsigned socket = 2;             //
    static constexpr unsigned file = 4;               // never blocks for long, has no would-block
    static constexpr unsigned fifo = 8;               //
    static constexpr unsigned user_non_blocking = 16; // synchronous operations do not wait
    static constexpr unsigned file_non_blocking = 32; // O_NONBLOCK was seen or set
    static constexpr unsigned to_restore = 64;        // and an operation set it
    static constexpr unsigned terminal = 128;         //

    static unsigned of(int handle, const file_identity& id) noexcept {
        return id.is_socket()                                 ? socket
               : id.is_fifo()                                 ? fifo
               : (id.is_file() || id.type == S_IFBLK)         ? file
               : id.is_character_device() && ::isatty(handle) ? terminal
                                                              : 0;
    }
};

/// Whether Asio's own descriptor waits before it reads, on the backend in use. Then Moor does so
/// with terminals and named pipes too: a read that comes early finds an end where there is none
/// yet, or has a background job stopped.
enum class waits_first : std::uint8_t { never, if_blocking, always };
#if defined(BOOST_ASIO_HAS_IO_URING_AS_DEFAULT)
// The kernel does, if O_NONBLOCK was not set when the handle was given.
inline constexpr waits_first asio_waits_first = waits_first::if_blocking;
#elif defined(BOOST_ASIO_HAS_EPOLL) || defined(BOOST_ASIO_HAS_KQUEUE)
inline constexpr waits_first asio_waits_first = waits_first::never;
#else
inline constexpr waits_first asio_waits_first = waits_first::always;
#endif

/// A call that is never made: only the completion goes to the handler's executor.
template <class Value>
struct no_call {
    using needs_no_executor = void;

    Value operator()(error_code&) const { return Value(); }
};

/// Buffers that stand for "wait until the handle is ready, and transfer nothing".
template <class Buffers>
struct is_null_buffers : std::false_type {};
#if !defined(BOOST_ASIO_NO_DEPRECATED)
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" // from Boost 1.90 on
#endif
template <>
struct is_null_buffers<boost::asio::null_buffers> : std::true_type {};
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#endif

} // namespace detail

/// A POSIX descriptor, in place of `boost::asio::posix::basic_descriptor`.
/**
 * The class has the interface of the original, and is built on a `basic_registration`, which
 * `registration()` returns. A descriptor owns its handle: closing, assigning or destroying the
 * descriptor closes the handle. A handle that is passed as `borrow(handle)` stays its owner's.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe, except that asynchronous operations, `cancel`, and the synchronous
 * transfers of a stream descriptor may run concurrently with each other.
 *
 * @par Lifetimes
 * Destroying a descriptor completes its pending operations with `operation_aborted`. Operations go
 * on when the descriptor is moved. A descriptor may outlive its execution context: asynchronous
 * operations fail with `error::gone` then.
 *
 * @par Asynchronous Operations
 * As those of `basic_registration`.
 *
 * @par Errors
 * Without a handle, every operation but closing fails with `bad_descriptor`. Otherwise the errors
 * are those of the registration and of the kernel. A system call that a signal interrupts is
 * repeated. As in the original, functions that have nothing else to return also return the error
 * that they set.
 *
 * @par Example
 * @code
 * moor::descriptor d(io, ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)); // closes it
 * d.async_wait(moor::descriptor::wait_read, [](moor::error_code ec) {});
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_descriptor : public boost::asio::posix::descriptor_base {
    class initiate_wait;
    using default_token = boost::asio::default_completion_token_t<Executor>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = int;

    /// This type: a descriptor has no lower layer.
    using lowest_layer_type = basic_descriptor;

    /// The type of what `registration()` returns.
    using registration_type = basic_registration<Executor>;

    /// The descriptor's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The descriptor's type.
        using other = basic_descriptor<OtherExecutor>;
    };

    /// Constructs a descriptor without a handle.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_descriptor(const executor_type& ex) : registration_(ex) {}

    /// Constructs a descriptor without a handle.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    explicit basic_descriptor(Context& context) : registration_(context) {}

    /// Constructs a descriptor that owns a handle.
    /**
     * @param ex The I/O executor.
     * @param handle The handle, which stays the caller's if an exception is thrown.
     * @throws boost::system::system_error As `assign` does.
     */
    basic_descriptor(const executor_type& ex, const native_handle_type& handle)
        : basic_descriptor(ex) {
        assign(handle);
    }

    /// Constructs a descriptor that owns a handle.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handle The handle, which stays the caller's if an exception is thrown.
     * @throws boost::system::system_error As `assign` does.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_descriptor(Context& context, const native_handle_type& handle)
        : basic_descriptor(context) {
        assign(handle);
    }

    /// Constructs a descriptor that uses a handle without owning it.
    /**
     * @param ex The I/O executor.
     * @param handle The handle: see `borrow`.
     * @throws boost::system::system_error As `assign` does.
     */
    basic_descriptor(const executor_type& ex, borrowed_handle handle) : basic_descriptor(ex) {
        assign(handle);
    }

    /// Constructs a descriptor that uses a handle without owning it.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param handle The handle: see `borrow`.
     * @throws boost::system::system_error As `assign` does.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_descriptor(Context& context, borrowed_handle handle) : basic_descriptor(context) {
        assign(handle);
    }

    /// Moves a descriptor, with its pending operations.
    /**
     * @param other The descriptor to move from, which is not open afterwards.
     */
    basic_descriptor(basic_descriptor&& other) noexcept
        : registration_(std::move(other.registration_)), handle_(std::exchange(other.handle_, -1)),
          opened_(other.opened_.exchange(not_opened, std::memory_order_relaxed)),
          traits_(other.traits_.exchange(0, std::memory_order_relaxed)) {}

    /// Moves a descriptor on another executor.
    /**
     * @param other The descriptor to move from, which is not open afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_descriptor(basic_descriptor<OtherExecutor>&& other)
        : registration_(std::move(other.registration_)), handle_(std::exchange(other.handle_, -1)),
          opened_(other.opened_.exchange(not_opened, std::memory_order_relaxed)),
          traits_(other.traits_.exchange(0, std::memory_order_relaxed)) {}

    /// Closes the present handle if owned, and moves a descriptor.
    /**
     * @param other The descriptor to move from, which is not open afterwards.
     */
    basic_descriptor& operator=(basic_descriptor&& other) noexcept {
        if (this != &other) {
            end();
            registration_ = std::move(other.registration_);
            handle_ = std::exchange(other.handle_, -1);
            opened_.store(other.opened_.exchange(not_opened, std::memory_order_relaxed),
                          std::memory_order_relaxed);
            set_traits(other.traits_.exchange(0, std::memory_order_relaxed));
        }
        return *this;
    }

    /// Closes the present handle if owned, and moves a descriptor on another executor.
    /**
     * @param other The descriptor to move from, which is not open afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_descriptor& operator=(basic_descriptor<OtherExecutor>&& other) {
        *this = basic_descriptor(std::move(other));
        return *this;
    }

    basic_descriptor(const basic_descriptor&) = delete;
    basic_descriptor& operator=(const basic_descriptor&) = delete;

    /// Closes an owned handle. Pending operations complete with `operation_aborted`.
    /**
     * Errors of `close(2)` are ignored.
     */
    ~basic_descriptor() { end(); }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return registration_.get_executor(); }

    /// Returns `*this`; a descriptor has no lower layer.
    lowest_layer_type& lowest_layer() noexcept { return *this; }
    /// Returns `*this`; a descriptor has no lower layer.
    const lowest_layer_type& lowest_layer() const noexcept { return *this; }

    /// Returns the registration of the handle: for `try_io`, `async_io`, and waits for more events.
    /**
     * Leave registering and deregistering to the descriptor.
     *
     * @par Example
     * @code
     * d.registration().async_wait(moor::interest::read_closed, handler);
     * @endcode
     */
    registration_type& registration() noexcept { return registration_; }
    /// Returns the registration of the handle, for calls that do not change the registration.
    const registration_type& registration() const noexcept { return registration_; }

    // ---- the handle ---------------------------------------------------------------------------

    /// Makes the descriptor own a handle.
    /**
     * @param handle The handle, which stays the caller's if there is an error.
     * @param ec Set to the error, if any.
     * @returns `ec`.
     *
     * @par Errors
     * `boost::asio::error::already_open` if the descriptor has a handle; `bad_descriptor`,
     * `error::already_registered` and `error::gone` as for `basic_registration::register_handle`.
     */
    error_code assign(const native_handle_type& handle, error_code& ec) {
        return take(handle, 0, ec);
    }
    /// Makes the descriptor own a handle.
    /**
     * @param handle The handle, which stays the caller's if an exception is thrown.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void assign(const native_handle_type& handle) {
        error_code ec;
        assign(handle, ec);
        detail::throw_if(ec, "moor::descriptor::assign", handle);
    }

    /// Makes the descriptor use a handle without owning it.
    /**
     * @param handle The handle: see `borrow`.
     * @param ec Set to the error, if any: the errors for an owned handle.
     * @returns `ec`.
     */
    error_code assign(borrowed_handle handle, error_code& ec) {
        return take(handle.native_handle(), detail::handle_traits::borrowed, ec);
    }
    /// Makes the descriptor use a handle without owning it.
    /**
     * @param handle The handle: see `borrow`.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void assign(borrowed_handle handle) {
        error_code ec;
        assign(handle, ec);
        detail::throw_if(ec, "moor::descriptor::assign", handle.native_handle());
    }

    /// Returns whether the descriptor has a handle.
    bool is_open() const noexcept { return handle_ != -1; }

    /// Returns whether the descriptor has a borrowed handle.
    bool is_borrowed() const noexcept { return is_open() && has(detail::handle_traits::borrowed); }

    /// Returns the handle, or -1.
    native_handle_type native_handle() const noexcept { return handle_; }

    /// Closes an owned handle. Pending operations complete with `operation_aborted`.
    /**
     * The descriptor has no handle afterwards, whatever `close(2)` reports. Without a handle,
     * nothing happens.
     *
     * @param ec Set to the error of `close(2)`, if any.
     * @returns `ec`.
     */
    error_code close(error_code& ec) {
        ec = error_code();
        if (!is_open())
            return ec;
        bool owned = !has(detail::handle_traits::borrowed);
        int handle = forget();
        // Not again if it was interrupted: the number may be somebody else's by now.
        if (owned && ::close(handle) < 0 && errno != EINTR)
            ec = detail::system_error_now();
        return ec;
    }
    /// Closes an owned handle. Pending operations complete with `operation_aborted`.
    /**
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void close() {
        error_code ec;
        int handle = handle_;
        close(ec);
        detail::throw_if(ec, "moor::descriptor::close", handle);
    }

    /// Gives the handle up without closing it.
    /**
     * Pending operations complete with `operation_aborted`.
     *
     * No operation uses the number any more. If an operation has put an owned handle into
     * non-blocking mode, `release` restores the mode; errors of restoring are ignored.
     *
     * @returns The handle, which is the caller's now; -1 if there was none.
     */
    native_handle_type release() {
        error_code ec;
        return release(ec);
    }
    /// Gives the handle up without closing it.
    /**
     * Pending operations complete with `operation_aborted`.
     *
     * @param ec Set to the error of restoring the handle's blocking mode, if any.
     * @returns The handle, which is the caller's now; -1 if there was none.
     */
    native_handle_type release(error_code& ec) {
        ec = error_code();
        if (!is_open())
            return -1;
        bool restores = has(detail::handle_traits::to_restore);
        int handle = forget();
        if (restores && detail::set_non_blocking_flag(handle, false) < 0)
            ec = detail::system_error_now();
        return handle;
    }

    /// Completes every pending operation with `operation_aborted`.
    /**
     * @param ec Set to `bad_descriptor` if the descriptor has no handle.
     * @returns `ec`.
     */
    error_code cancel(error_code& ec) {
        ec = open_error();
        if (!ec)
            registration_.cancel();
        return ec;
    }
    /// Completes every pending operation with `operation_aborted`.
    /**
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void cancel() {
        error_code ec;
        cancel(ec);
        detail::throw_if(ec, "moor::descriptor::cancel", handle_);
    }

    // ---- control ------------------------------------------------------------------------------

    /// Performs an I/O control command with `ioctl(2)`.
    /**
     * @param command The command, such as `bytes_readable`, which also receives the result. A
     * command `FIONBIO` changes the flag of a handle that is not owned, too.
     * @param ec Set to the error, if any.
     * @returns `ec`.
     *
     * @par Example
     * @code
     * moor::descriptor::bytes_readable command;
     * d.io_control(command);
     * std::size_t available = command.get();
     * @endcode
     */
    template <class IoControlCommand>
    error_code io_control(IoControlCommand& command, error_code& ec) {
        if ((ec = open_error()))
            return ec;
        if (::ioctl(handle_, static_cast<unsigned long>(command.name()),
                    static_cast<void*>(command.data())) < 0)
            ec = detail::system_error_now();
        else if (static_cast<unsigned long>(command.name()) == FIONBIO)
            note_user_mode(*static_cast<const int*>(static_cast<const void*>(command.data())) != 0);
        return ec;
    }
    /// Performs an I/O control command with `ioctl(2)`.
    /**
     * @param command The command, such as `bytes_readable`, which also receives the result.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    template <class IoControlCommand>
    void io_control(IoControlCommand& command) {
        error_code ec;
        io_control(command, ec);
        detail::throw_if(ec, "moor::descriptor::io_control", handle_);
    }

    /// Returns whether synchronous operations fail with `would_block` where they would wait.
    bool non_blocking() const noexcept { return has(detail::handle_traits::user_non_blocking); }

    /// Sets whether synchronous operations fail with `would_block` where they would wait.
    /**
     * As in the original, this sets or clears `O_NONBLOCK` on an owned handle. Other handles keep
     * the flag.
     *
     * @param mode Whether they fail.
     * @param ec Set to the error, if any.
     * @returns `ec`.
     */
    error_code non_blocking(bool mode, error_code& ec) {
        if ((ec = open_error()))
            return ec;
        if (!has(detail::handle_traits::borrowed) &&
            detail::set_non_blocking_flag(handle_, mode) < 0)
            ec = detail::system_error_now();
        else
            note_user_mode(mode);
        return ec;
    }
    /// Sets whether synchronous operations fail with `would_block` where they would wait.
    /**
     * @param mode Whether they fail.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void non_blocking(bool mode) {
        error_code ec;
        non_blocking(mode, ec);
        detail::throw_if(ec, "moor::descriptor::non_blocking", handle_);
    }

    /// Returns whether the descriptor has put its handle into non-blocking mode.
    /**
     * `native_non_blocking` does so, and so does an asynchronous transfer on an owned handle.
     */
    bool native_non_blocking() const noexcept {
        return has(detail::handle_traits::file_non_blocking);
    }

    /// Sets or clears `O_NONBLOCK` on the handle itself, owned or not.
    /**
     * @param mode Whether to set the flag.
     * @param ec Set to the error, if any.
     * @returns `ec`.
     *
     * @par Errors
     * `invalid_argument` for clearing it while `non_blocking()` is set.
     */
    error_code native_non_blocking(bool mode, error_code& ec) {
        if ((ec = open_error()))
            return ec;
        if (!mode && non_blocking())
            ec = boost::asio::error::invalid_argument;
        else if (detail::set_non_blocking_flag(handle_, mode) < 0)
            ec = detail::system_error_now();
        else
            change(detail::handle_traits::file_non_blocking | detail::handle_traits::to_restore,
                   mode ? detail::handle_traits::file_non_blocking : 0);
        return ec;
    }
    /// Sets or clears `O_NONBLOCK` on the handle itself, owned or not.
    /**
     * @param mode Whether to set the flag.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void native_non_blocking(bool mode) {
        error_code ec;
        native_non_blocking(mode, ec);
        detail::throw_if(ec, "moor::descriptor::native_non_blocking", handle_);
    }

    // ---- waiting ------------------------------------------------------------------------------

    /// Waits until the handle is ready, and blocks the thread meanwhile.
    /**
     * @param w The condition: see `async_wait`.
     * @param ec Set to the error, if any.
     * @returns `ec`.
     *
     * @par Errors
     * `would_block` if it is not ready and `non_blocking()` is set; `invalid_argument` for an
     * unknown type; `bad_descriptor`.
     */
    error_code wait(wait_type w, error_code& ec) {
        short events = 0;
        switch (w) {
        case wait_read:
            events = POLLIN;
            break;
        case wait_write:
            events = POLLOUT;
            break;
        case wait_error:
            events = POLLPRI;
            break;
        default:
            return ec = boost::asio::error::invalid_argument;
        }
        if ((ec = open_error()))
            return ec;
        int came = detail::poll_for(handle_, events, non_blocking() ? 0 : -1, ec);
        if (!ec && came == 0)
            ec = boost::asio::error::would_block;
        return ec;
    }
    /// Waits until the handle is ready, and blocks the thread meanwhile.
    /**
     * @param w The condition: see `async_wait`.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    void wait(wait_type w) {
        error_code ec;
        wait(w, ec);
        detail::throw_if(ec, "moor::descriptor::wait", handle_);
    }

    /// Waits until the handle is ready.
    /**
     * @param w `wait_read`: until the handle is readable, at its end, or failed. `wait_write`:
     * until it is writable, or writing would fail at once. `wait_error`: until it has out-of-band
     * data, an error, or is hung up.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`.
     * @par Example
     * @code
     * d.async_wait(moor::descriptor::wait_read, [&](moor::error_code ec) {
     *     if (!ec)
     *         library_reads(lib);
     * });
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait(wait_type w, Token&& token = default_token())
        -> detail::initiated<void(error_code), Token, initiate_wait, wait_type> {
        return detail::initiate<void(error_code), Token>(initiate_wait(this), token, std::move(w));
    }

protected:
    /// A synchronous transfer, for the stream descriptor.
    template <class Call, class Buffers>
    std::size_t transfer(const Buffers& buffers, error_code& ec) {
        if ((ec = open_error()))
            return 0;
        if constexpr (detail::is_null_buffers<Buffers>::value)
            return wait(Call::event == POLLIN ? wait_read : wait_write, ec), std::size_t(0);
        if (detail::is_nothing(buffers))
            return 0;
        if (!non_blocking())
            return detail::transfer_now<Call>(handle_, blocking_mode(), true, buffers, ec);
        int handle = transfer_handle();
        return detail::transfer_now<Call>(handle, non_blocking_mode(handle), false, buffers, ec);
    }

    /// Starts an asynchronous transfer, for the stream descriptor.
    template <class Call, class Handler, class Buffers>
    void start_transfer(Handler&& handler, const Buffers& buffers) {
        if constexpr (detail::is_null_buffers<Buffers>::value)
            return start_wait(
                detail::adapt_handler(std::decay_t<Handler>(std::forward<Handler>(handler)),
                                      detail::say_no_bytes()),
                Call::event == POLLIN ? wait_read : wait_write);
        if (detail::is_nothing(buffers))
            return complete<std::size_t>(std::forward<Handler>(handler), error_code());
        if (BOOST_UNLIKELY(!is_prepared()))
            if (error_code ec = prepare())
                return complete<std::size_t>(std::forward<Handler>(handler), ec);
        std::decay_t<Handler> h(std::forward<Handler>(handler));
        constexpr auto channel =
            Call::event == POLLIN ? detail::read_channel : detail::write_channel;
        int handle = transfer_handle();
        registration_.template start_transfer<channel>(
            h, detail::transfer<Call, Buffers>(handle, non_blocking_mode(handle), buffers));
    }

private:
    template <class OtherExecutor>
    friend class basic_descriptor;

    /// Starts a wait, now or later, as the token wants.
    class initiate_wait {
    public:
        using executor_type = Executor;

        explicit initiate_wait(basic_descriptor* self) noexcept : self_(self) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler>
        void operator()(Handler&& handler, wait_type w) const {
            self_->start_wait(std::forward<Handler>(handler), w);
        }

    private:
        basic_descriptor* self_;
    };

    template <class Handler>
    void start_wait(Handler&& handler, wait_type w) {
        if (w != wait_read && w != wait_write && w != wait_error)
            return complete<void>(std::forward<Handler>(handler),
                                  boost::asio::error::invalid_argument);
        if (error_code ec = registered_error())
            return complete<void>(std::forward<Handler>(handler), ec);
        if (w == wait_read)
            registration_.async_wait_readable(std::forward<Handler>(handler));
        else if (w == wait_write)
            registration_.async_wait_writable(std::forward<Handler>(handler));
        else
            registration_.async_wait(
                hung_up() | interest::error,
                detail::adapt_handler(std::decay_t<Handler>(std::forward<Handler>(handler)),
                                      detail::say_no_event()));
    }

    /// Hanging up closes both directions; a pipe has one only, and no out-of-band data.
    interest hung_up() const noexcept {
        return has(detail::handle_traits::fifo) ? interest::read_closed | interest::write_closed
                                                : interest::priority | interest::write_closed;
    }

    /// Completes with `ec` and a value-initialised Value, and not from within the initiating
    /// function. (An operation without an interest does just that.)
    template <class Value, class Handler>
    void complete(Handler&& handler, const error_code& ec) {
        registration_.async_io(
            interest(), detail::no_call<Value>(),
            detail::adapt_handler(std::decay_t<Handler>(std::forward<Handler>(handler)),
                                  detail::say_error{ec}));
    }

    error_code open_error() const noexcept {
        return is_open() ? error_code() : error_code(boost::asio::error::bad_descriptor);
    }

    error_code registered_error() const noexcept {
        return is_open() && registration_.is_registered()
                   ? error_code()
                   : error_code(boost::asio::error::bad_descriptor);
    }

    bool is_prepared() const noexcept {
        using traits = detail::handle_traits;
        return registration_.is_registered() &&
               has(traits::borrowed | traits::file_non_blocking | traits::user_non_blocking);
    }

    /// Before an asynchronous transfer: an owned handle does not block.
    error_code prepare() noexcept {
        using traits = detail::handle_traits;
        if (error_code ec = registered_error())
            return ec;
        if (is_prepared())
            return error_code();
        int flags = ::fcntl(handle_, F_GETFL);
        bool is_set = flags >= 0 && (flags & O_NONBLOCK) != 0;
        if (flags < 0 || (!is_set && detail::set_non_blocking_flag(handle_, true) < 0))
            return detail::system_error_now();
        change(0,
               is_set ? traits::file_non_blocking : traits::file_non_blocking | traits::to_restore);
        return error_code();
    }

    detail::call_mode blocking_mode() const noexcept {
        using detail::call_mode;
        return call_mode(has(detail::handle_traits::socket) ? call_mode::call::socket
                                                            : call_mode::call::plain);
    }

    /// For transfers on `transfer_handle()`.
    detail::call_mode non_blocking_mode(int handle) const noexcept {
        using detail::call_mode;
        using traits = detail::handle_traits;
        using call = call_mode::call;
        unsigned t = this->traits();
        if (t & traits::socket)
            return call_mode(call::socket_now);
        if (t & traits::file)
            return call_mode(call::plain);
        if ((t & traits::borrowed) && handle == handle_)
            return call_mode(call::now, (t & traits::fifo)       ? call_mode::file::pipe
                                        : (t & traits::terminal) ? call_mode::file::terminal
                                                                 : call_mode::file::other);
        bool waits = (t & traits::borrowed) || // it need not be as Asio's, and is not surprised
                     detail::asio_waits_first == detail::waits_first::always ||
                     (detail::asio_waits_first == detail::waits_first::if_blocking &&
                      (t & traits::to_restore));
        return call_mode(!waits                   ? call::plain
                         : (t & traits::terminal) ? call::plain_polled
                         : (t & traits::fifo)     ? call::plain_checked
                                                  : call::plain);
    }

    /// The number that transfers use: the handle's, or that of a terminal's second descriptor.
    int transfer_handle() noexcept {
        using traits = detail::handle_traits;
        constexpr unsigned both = traits::borrowed | traits::terminal;
        return BOOST_LIKELY((this->traits() & both) != both) ? handle_ : opened_handle();
    }

    /// The second descriptor of a borrowed terminal, opened at the first transfer; or the handle.
    int opened_handle() noexcept {
        int opened = opened_.load(std::memory_order_relaxed);
        if (opened == not_opened) {
            int fresh = detail::open_anew(handle_);
            if (fresh < 0)
                fresh = can_not_open;
            if (opened_.compare_exchange_strong(opened, fresh, std::memory_order_relaxed))
                opened = fresh;
            else if (fresh >= 0)
                ::close(fresh); // another thread was first
        }
        return opened >= 0 ? opened : handle_;
    }

    error_code take(int handle, unsigned traits, error_code& ec) {
        if (is_open())
            return ec = boost::asio::error::already_open;
        detail::file_identity id = detail::identify(handle, ec);
        if (ec)
            return ec;
        registration_.register_handle(handle, ec);
        if (ec)
            return ec;
        handle_ = handle;
        set_traits(traits | detail::handle_traits::of(handle, id));
        return ec;
    }

    /// Ends the registration: nothing uses the number any more, nor that of a second descriptor,
    /// which is closed.
    int forget() {
        error_code ignored;
        registration_.deregister(ignored);
        set_traits(0);
        int opened = opened_.exchange(not_opened, std::memory_order_relaxed);
        if (opened >= 0)
            ::close(opened);
        return std::exchange(handle_, -1);
    }

    void end() noexcept {
        error_code ignored;
        close(ignored);
    }

    void note_user_mode(bool non_blocking) noexcept {
        using traits = detail::handle_traits;
        if (non_blocking)
            change(0, traits::user_non_blocking);
        else if (has(traits::borrowed))
            change(traits::user_non_blocking, 0);
        else // clears O_NONBLOCK, whoever set it; the next transfer sets it again
            change(traits::user_non_blocking | traits::file_non_blocking | traits::to_restore, 0);
    }

    // Atomic, since the first transfers of each direction may start concurrently.
    unsigned traits() const noexcept { return traits_.load(std::memory_order_relaxed); }
    void set_traits(unsigned t) noexcept { traits_.store(t, std::memory_order_relaxed); }
    bool has(unsigned any) const noexcept { return (traits() & any) != 0; }
    void change(unsigned off, unsigned on) noexcept {
        traits_.fetch_and(~off, std::memory_order_relaxed);
        traits_.fetch_or(on, std::memory_order_relaxed);
    }

    static constexpr int not_opened = -1;
    static constexpr int can_not_open = -2;

    registration_type registration_;
    int handle_ = -1;
    std::atomic<int> opened_{not_opened}; // a second descriptor of a borrowed terminal
    std::atomic<unsigned> traits_{0};
};

/// A descriptor on any I/O executor.
using descriptor = basic_descriptor<>;

} // namespace moor

#endif // MOOR_DESCRIPTOR_HPP
