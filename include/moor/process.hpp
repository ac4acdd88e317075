//
// moor/process.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_PROCESS_HPP
#define MOOR_PROCESS_HPP

#include <moor/detail/adapted_handler.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/pidfd.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>

namespace moor {

/// How a child ended: by itself, with a code, or by a signal.
/**
 * @par Example
 * @code
 * if (status.exited() && status.code() == 0)
 *     return;
 * std::cerr << "the compiler " << status << '\n'; // such as "the compiler exited with 1"
 * @endcode
 */
struct exit_status {
    /// Constructs the status of a child that exited with code 0.
    constexpr exit_status() noexcept = default;

    /// Constructs a status.
    /**
     * @param native The status word of `wait(2)`, of a child that has ended.
     */
    constexpr explicit exit_status(int native) noexcept : native_(native) {}

    /// Returns whether the child ended by itself: by `exit`, or by returning from `main`.
    bool exited() const noexcept { return WIFEXITED(native_); }

    /// Returns the exit code, from 0 to 255; -1 if a signal ended the child.
    int code() const noexcept { return exited() ? WEXITSTATUS(native_) : -1; }

    /// Returns whether a signal ended the child.
    bool signaled() const noexcept { return WIFSIGNALED(native_); }

    /// Returns the signal that ended the child; 0 if there was none.
    int signal() const noexcept { return signaled() ? WTERMSIG(native_) : 0; }

    /// Returns whether the kernel dumped core when the signal ended the child.
    bool core_dumped() const noexcept {
#if defined(WCOREDUMP)
        return signaled() && WCOREDUMP(native_);
#else
        return false;
#endif
    }

    /// Returns the status word of `wait(2)`, for `WIFEXITED` and the other macros.
    constexpr int native() const noexcept { return native_; }

    /// Compares the status words.
    friend constexpr bool operator==(const exit_status& a, const exit_status& b) noexcept {
        return a.native_ == b.native_;
    }
    /// Compares the status words.
    friend constexpr bool operator!=(const exit_status& a, const exit_status& b) noexcept {
        return !(a == b);
    }

    /// Prints `exited with 3`, or `killed by signal 9 (SIGKILL)`.
    /**
     * The name of the signal follows where the C library knows it (glibc 2.32), and `, core dumped`
     * if the kernel did so.
     */
    friend std::ostream& operator<<(std::ostream& os, const exit_status& s) {
        if (!s.signaled())
            return os << "exited with " + std::to_string(s.code());
        std::string text = "killed by signal " + std::to_string(s.signal());
#if defined(__GLIBC__) && defined(__USE_GNU)
#if __GLIBC_PREREQ(2, 32)
        if (const char* name = ::sigabbrev_np(s.signal()))
            text += " (SIG" + std::string(name) + ')';
#endif
#endif
        return os << (s.core_dumped() ? text + ", core dumped" : text);
    }

private:
    int native_ = 0;
};

namespace detail {

/// The call of a wait for a child: `would_block` until the child has ended.
struct reap_call {
    using needs_no_executor = void;

    std::shared_ptr<child> process;

    child_end operator()(error_code& ec) const noexcept { return process->reap(ec); }
};

/// Passes the status.
struct say_status {
    template <class Handler>
    void operator()(Handler&& handler, const error_code& ec, const child_end& end) const {
        std::forward<Handler>(handler)(ec, exit_status(end.status));
    }
};

/// Passes the status, and the resource usage.
struct say_usage {
    template <class Handler>
    void operator()(Handler&& handler, const error_code& ec, const child_end& end) const {
        std::forward<Handler>(handler)(ec, exit_status(end.status), end.usage);
    }
};

} // namespace detail

/// A child process, started by other means, to wait for its end and to send signals to it.
/**
 * `posix_spawn`, `fork` and Boost.Process start processes; this class does not. A process object
 * holds a pidfd of a child, and waits with `waitid(2)` on this pidfd, without blocking. So no wait
 * touches another child, `SIGCHLD` or the signal's handler, and a signal never reaches another
 * process that was given the number of one that has ended.
 *
 * A wait that completes without an error has reaped the child: the kernel has then forgotten it.
 * The process object remembers the status, for all other waits, pending and later ones. A wait that
 * completes with an error has not reaped the child, and neither does the destructor, nor does the
 * destructor end the child: a child that nobody reaps stays a zombie until the program ends. Adopt
 * a child once: of two objects that adopted it, one has the status.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Requirements
 * Linux 5.4. On other systems, on older kernels, and when compiled against kernel headers without
 * pidfds, the constructors or the waits fail with `operation_not_supported`.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe, except that the waits, `kill`, `cancel`, `id` and `native_handle`
 * may run concurrently with each other.
 *
 * @par Lifetimes
 * Destroying a process object completes its pending waits with `operation_aborted`. Waits go on
 * when the object is moved. A process object may outlive its execution context: its waits fail with
 * `error::gone` then, and `kill` still works.
 *
 * @par Asynchronous Operations
 * As those of `basic_registration`. Any number of waits may be pending; the end of the child
 * completes them all. A child that was stopped or continued has not ended.
 *
 * @par Errors
 * A wait completes with @n
 * `errc::no_child_process`: at once, if the process is not a child of this process; later, if
 * another call of `wait(2)`, `waitpid(2)` or `waitid(2)` has reaped the child, or if `SIGCHLD` is
 * ignored, so that the kernel keeps no status; @n
 * `error::not_registered` if the object has no child, since it was moved from, or its constructor
 * reported an error; @n
 * `operation_aborted` if it was cancelled, or its process object was destroyed; @n
 * or an error of `basic_registration`. The status is then that of a default-constructed
 * `exit_status`.
 *
 * @par fork
 * After `fork`, the new process is not the parent of the watched child. Once the new process has
 * called `notify_fork`, its waits complete with `errc::no_child_process`, at the latest when the
 * watched child ends.
 *
 * @par Example
 * @code
 * pid_t pid;
 * char* arguments[] = {name, nullptr};
 * if (int error = ::posix_spawn(&pid, name, nullptr, nullptr, arguments, environ))
 *     throw std::system_error(error, std::generic_category(), name);
 * moor::process child(io, pid);
 * child.async_wait([](moor::error_code ec, moor::exit_status s) {
 *     if (!ec)
 *         std::cout << "the child " << s << '\n'; // such as "the child exited with 0"
 * });
 * @endcode
 * In a coroutine, with a deadline after which the child is killed:
 * @code
 * using namespace asio::experimental::awaitable_operators;
 * moor::process child(io, pid);
 * asio::steady_timer deadline(io, 10s);
 * auto first = co_await (child.async_wait(asio::use_awaitable) ||
 *                        deadline.async_wait(asio::use_awaitable));
 * if (first.index() == 1)
 *     child.kill(SIGKILL);
 * moor::exit_status s = co_await child.async_wait(asio::use_awaitable); // reaped, either way
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_process {
    template <class Say>
    class initiate_wait;
    using default_token = boost::asio::default_completion_token_t<Executor>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the pidfd.
    using native_handle_type = int;

    /// The process object's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The process object's type.
        using other = basic_process<OtherExecutor>;
    };

    /// Adopts a child.
    /**
     * The process object makes a pidfd of the child, and closes this pidfd in the end. A child that
     * has ended, and was not reaped yet, can be adopted, too.
     *
     * @param ex The I/O executor.
     * @param pid The child's process ID. Nobody may reap the child before the adoption, because the
     * kernel may then give the ID to another process.
     * @param ec Set to the error, if any. The object has no child then.
     *
     * @par Errors
     * `invalid_argument` if the ID is not positive; @n
     * `invalid_argument` or `errc::no_such_file_or_directory`, depending on the kernel, if it is
     * the ID of a thread other than the first of its process; @n `errc::no_such_process` if there
     * is no such process; @n `operation_not_supported` if the kernel has no pidfds; @n
     * `error::gone` if the service was closed, or the context is gone; @n
     * or another error of `pidfd_open(2)`. Whether the process is a child, the first wait finds
     * out.
     *
     * @par Example
     * @code
     * moor::error_code ec;
     * moor::process child(io, pid, ec);
     * if (ec == boost::asio::error::operation_not_supported)
     *     return wait_on_a_thread(pid);
     * @endcode
     */
    basic_process(const executor_type& ex, ::pid_t pid, error_code& ec) : basic_process(ex) {
        adopt(pid, ec);
    }

    /// Adopts a child.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param pid The number of the child.
     * @param ec Set to the error, if any: the errors of the other overload.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_process(Context& context, ::pid_t pid, error_code& ec)
        : basic_process(executor_type(context.get_executor()), pid, ec) {}

    /// Adopts a child.
    /**
     * @param ex The I/O executor.
     * @param pid The number of the child.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    basic_process(const executor_type& ex, ::pid_t pid) : basic_process(ex) {
        error_code ec;
        adopt(pid, ec);
        detail::throw_if(ec, "moor::process", pid);
    }

    /// Adopts a child.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param pid The number of the child.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    basic_process(Context& context, ::pid_t pid)
        : basic_process(executor_type(context.get_executor()), pid) {}

    /// Returns a process object that uses a pidfd without owning it.
    /**
     * @param ex The I/O executor.
     * @param pidfd The pidfd, of `pidfd_open(2)`, `clone3(2)` or a library. It stays the caller's,
     * and has to stay open until the process object is destroyed. The flags do not matter.
     * @param ec Set to the error, if any. The object has no child then.
     *
     * @par Errors
     * `bad_descriptor` if the handle is not open; @n
     * `invalid_argument` if the handle is no pidfd; @n
     * `error::already_registered` if another object of Moor's has the handle in this context; @n
     * `error::gone` if the service was closed, or the context is gone; @n
     * `operation_not_supported` where there are no pidfds; @n
     * or the error of opening `/proc/thread-self/fdinfo`, which names the process.
     *
     * @par Example
     * @code
     * moor::process child = moor::process::from_pidfd(io, pidfd);
     * @endcode
     */
    static basic_process from_pidfd(const executor_type& ex, native_handle_type pidfd,
                                    error_code& ec) {
        basic_process p(ex);
        auto c = std::make_shared<detail::child>();
        c->borrow(pidfd, ec);
        p.take(std::move(c), ec);
        return p;
    }

    /// Returns a process object that uses a pidfd without owning it.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param pidfd The pidfd, which stays the caller's.
     * @param ec Set to the error, if any: the errors of the other overload.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    static basic_process from_pidfd(Context& context, native_handle_type pidfd, error_code& ec) {
        return from_pidfd(executor_type(context.get_executor()), pidfd, ec);
    }

    /// Returns a process object that uses a pidfd without owning it.
    /**
     * @param ex The I/O executor.
     * @param pidfd The pidfd, which stays the caller's.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    static basic_process from_pidfd(const executor_type& ex, native_handle_type pidfd) {
        error_code ec;
        basic_process p = from_pidfd(ex, pidfd, ec);
        detail::throw_if(ec, "moor::process::from_pidfd", pidfd);
        return p;
    }

    /// Returns a process object that uses a pidfd without owning it.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param pidfd The pidfd, which stays the caller's.
     * @throws boost::system::system_error With the errors of the other overload.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    static basic_process from_pidfd(Context& context, native_handle_type pidfd) {
        return from_pidfd(executor_type(context.get_executor()), pidfd);
    }

    /// Moves a process object, with its pending waits and their cancellation slots.
    /**
     * @param other The object to move from, which has no child afterwards.
     */
    basic_process(basic_process&& other) noexcept = default;

    /// Moves a process object on another executor.
    /**
     * @param other The object to move from, which has no child afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_process(basic_process<OtherExecutor>&& other)
        : child_(std::move(other.child_)), registration_(std::move(other.registration_)) {}

    /// Releases the present child, as the destructor does, and moves a process object.
    /**
     * @param other The object to move from, which has no child afterwards.
     */
    basic_process& operator=(basic_process&& other) noexcept {
        if (this != &other) {
            registration_ = std::move(other.registration_); // first: the pidfd is still open
            child_ = std::move(other.child_);
        }
        return *this;
    }

    /// Releases the present child, and moves a process object on another executor.
    /**
     * @param other The object to move from, which has no child afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_process& operator=(basic_process<OtherExecutor>&& other) {
        *this = basic_process(std::move(other));
        return *this;
    }

    basic_process(const basic_process&) = delete;
    basic_process& operator=(const basic_process&) = delete;

    /// Releases the child, which is neither killed nor reaped.
    /**
     * Pending waits complete with `operation_aborted`. The pidfd is closed if the object made it.
     */
    ~basic_process() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return registration_.get_executor(); }

    /// Returns the process ID; -1 if the object has no process.
    /**
     * After the child was reaped, the ID may belong to another process. An object that was made of
     * a pidfd returns -1 if the process had been reaped already, and 0 if the process has no ID in
     * the present PID namespace.
     */
    ::pid_t id() const noexcept { return child_ ? child_->pid() : -1; }

    /// Returns the pidfd; -1 if the object has none.
    native_handle_type native_handle() const noexcept {
        return child_ ? child_->native_handle() : -1;
    }

    /// Sends a signal to the process, and never to another that has the same number by now.
    /**
     * The process need not be a child.
     *
     * @param signal The signal; 0 sends nothing, and reports the errors.
     * @param ec Set to the error, if any.
     *
     * @par Errors
     * `errc::no_such_process` if the process was reaped (a process that has ended, and was not
     * reaped, takes signals without an effect, as with `kill(2)`); @n
     * `error::not_registered` if the object has no child; @n
     * `invalid_argument` if there is no such signal; `errc::operation_not_permitted`.
     */
    void kill(int signal, error_code& ec) noexcept {
        if (child_)
            detail::pidfd_calls::send_signal(child_->native_handle(), signal, ec);
        else
            ec = error::not_registered;
    }

    /// Sends a signal to the process, and never to another that has the same number by now.
    /**
     * After a deadline, prefer the other overload where a wait may have reaped the child already.
     *
     * @param signal The signal.
     * @throws boost::system::system_error With the errors of the other overload.
     *
     * @par Example
     * @code
     * child.kill(SIGTERM);
     * @endcode
     */
    void kill(int signal) {
        error_code ec;
        kill(signal, ec);
        detail::throw_if(ec, "moor::process::kill", static_cast<int>(id()));
    }

    /// Completes every pending wait with `operation_aborted`. The child goes on.
    void cancel() { registration_.cancel(); }

    /// Waits until the child has ended, and reaps the child.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, exit_status) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancelled wait has no effect: a later one has the status.
     * @par Example
     * @code
     * moor::exit_status s = co_await child.async_wait(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait(Token&& token = default_token())
        -> detail::initiated<void(error_code, exit_status), Token,
                             initiate_wait<detail::say_status>> {
        return detail::initiate<void(error_code, exit_status), Token>(
            initiate_wait<detail::say_status>(this), token);
    }

    /// Waits until the child has ended, and passes its resource usage, too.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, exit_status, rusage) @endcode
     * The `rusage` is the sum for the child and for those of its own children that it has reaped.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancelled wait has no effect: a later one has the status.
     * @par Example
     * @code
     * child.async_wait_usage([](moor::error_code ec, moor::exit_status s, rusage used) {
     *     if (!ec)
     *         std::cout << s << ", " << used.ru_utime.tv_sec << " s\n";
     * });
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait_usage(Token&& token = default_token())
        -> detail::initiated<void(error_code, exit_status, ::rusage), Token,
                             initiate_wait<detail::say_usage>> {
        return detail::initiate<void(error_code, exit_status, ::rusage), Token>(
            initiate_wait<detail::say_usage>(this), token);
    }

private:
    template <class OtherExecutor>
    friend class basic_process;

    /// Starts a wait, now or later, as the token wants.
    template <class Say>
    class initiate_wait {
    public:
        using executor_type = Executor;

        explicit initiate_wait(basic_process* self) noexcept : self_(self) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler>
        void operator()(Handler&& handler) const {
            self_->template start_wait<Say>(std::forward<Handler>(handler));
        }

    private:
        basic_process* self_;
    };

    explicit basic_process(const executor_type& ex) : registration_(ex) {}

    void adopt(::pid_t pid, error_code& ec) {
        auto c = std::make_shared<detail::child>();
        c->open(pid, ec);
        take(std::move(c), ec);
    }

    void take(std::shared_ptr<detail::child> c, error_code& ec) {
        if (!ec)
            registration_.register_handle(c->native_handle(), ec);
        if (!ec)
            child_ = std::move(c);
    }

    /// (`async_io` calls `waitid(2)` at once, unless an earlier call would have blocked. So a wait
    /// for a process that is not a child completes although the pidfd never becomes readable.)
    template <class Say, class Handler>
    void start_wait(Handler&& handler) {
        registration_.async_io(
            interest::readable, detail::reap_call{child_},
            detail::adapt_handler(std::decay_t<Handler>(std::forward<Handler>(handler)), Say()));
    }

    std::shared_ptr<detail::child> child_; // outlives the registration of its pidfd
    basic_registration<Executor> registration_;
};

/// A child process on any I/O executor.
using process = basic_process<>;

} // namespace moor

#endif // MOOR_PROCESS_HPP
