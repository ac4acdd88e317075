//
// moor/poll.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_POLL_HPP
#define MOOR_POLL_HPP

#include <moor/detail/held_executor.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/poll_list.hpp>
#include <moor/detail/poll_op.hpp>
#include <moor/detail/wait_op.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/execution_context.hpp>

#include <chrono>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <poll.h>

namespace moor {

namespace detail {

/// Starts an async_poll, now or later, as the token wants.
template <class Executor>
class initiate_poll {
public:
    using executor_type = Executor;

    explicit initiate_poll(const Executor& ex) : executor_(ex), context_(context_of(ex)) {}

    const executor_type& get_executor() const noexcept { return executor_; }

    template <class Handler>
    void operator()(Handler&& handler, ::pollfd* fds, std::size_t n, poll_timeout timeout) const {
        std::decay_t<Handler> h(std::forward<Handler>(handler));
        const poll_list_ptr list(new poll_list(core_access::core_of(context_), false));
        start_poll(list, io_executor<Executor>{executor_}, h, fds, n, timeout);
    }

private:
    Executor executor_;
    asio::execution_context& context_;
};

} // namespace detail

/// Waits for any of several descriptors, as `poll(2)` does, without registrations that stay.
/**
 * Use this function for a list that is waited for once, and a `poll_set` for repeated waits.
 *
 * The operation completes when `poll(2)` reports at least one descriptor of the list, or when the
 * timeout expires. Moor then sets `revents` in the whole list to what `poll(2)` reports. As with
 * `poll(2)`, a number that is not open gets `POLLNVAL`, a negative number is ignored (`revents` is
 * 0), and a number may be in the list several times. If the operation fails or is cancelled, Moor
 * does not change `revents`.
 *
 * If something is ready at once, the operation costs one call of `poll(2)`. Otherwise Moor
 * registers each number until the operation completes, which costs two calls of `fstat(2)` for each
 * number and, on epoll, two calls of `epoll_ctl(2)`. If an object of Boost.Asio or of Moor already
 * has the number in this context, Moor makes and registers a duplicate of the descriptor instead.
 * Before the handler is invoked, Moor has ended all registrations, and closed all duplicates. As
 * with `poll(2)`, the close of a descriptor does not complete the operation; the next call of
 * `poll(2)` reports `POLLNVAL`.
 *
 * @param ex The I/O executor.
 * @param fds The list. It must stay valid and unchanged until the operation is over.
 * @param n The length of the list. With 0 the operation waits for the timeout alone.
 * @param timeout How long to wait, rounded up to what the clock can tell. Zero: do not wait.
 * Negative, or longer than the clock can tell: wait for ever.
 * @param token The completion token.
 * @throws boost::asio::execution::bad_executor If `ex` is an empty `any_io_executor`.
 *
 * @par Completion Signature
 * @code void(error_code, std::size_t ready) @endcode
 * `ready` is the number of entries whose `revents` is not zero. When the timeout expires, Moor
 * calls `poll(2)` once more; `ready` is 0 if nothing is ready then.
 * @par Per-Operation Cancellation
 * `terminal`, `partial`, `total`. A cancelled operation does not change `revents`.
 * @par Asynchronous Operations
 * The section "Asynchronous Operations" of `basic_registration` applies to this operation, too.
 * @par Thread Safety
 * Any number of operations may run concurrently, also on the same descriptors, each with a list of
 * its own.
 * @par Errors
 * `operation_aborted` if the operation was cancelled; @n
 * `error::gone` if the service was closed; @n
 * `invalid_argument` if the list is longer than `RLIMIT_NOFILE`; @n
 * `no_descriptors` if a duplicate is needed, and the process may open no more descriptors; @n
 * or another error of `poll(2)` or of the reactor. The select reactor refuses numbers from
 * `FD_SETSIZE` on which are not ready at once, with Asio's `fd_set_failure`.
 *
 * @par Example
 * @code
 * std::vector<pollfd> fds(snd_pcm_poll_descriptors_count(pcm));
 * snd_pcm_poll_descriptors(pcm, fds.data(), fds.size());
 * co_await moor::async_poll(co_await asio::this_coro::executor, fds.data(), fds.size(), 1s,
 *                           asio::use_awaitable);
 * unsigned short events;
 * snd_pcm_poll_descriptors_revents(pcm, fds.data(), fds.size(), &events);
 * @endcode
 */
template <class Executor, class Rep, class Period,
          class Token = boost::asio::default_completion_token_t<Executor>,
          std::enable_if_t<!detail::is_context_v<Executor>, int> = 0>
auto async_poll(const Executor& ex, ::pollfd* fds, std::size_t n,
                std::chrono::duration<Rep, Period> timeout, Token&& token = Token())
    -> detail::initiated<void(error_code, std::size_t), Token, detail::initiate_poll<Executor>,
                         ::pollfd*, std::size_t, detail::poll_timeout> {
    return detail::initiate<void(error_code, std::size_t), Token>(
        detail::initiate_poll<Executor>(ex), token, std::move(fds), std::move(n),
        detail::poll_timeout(timeout));
}

/// Waits for any of several descriptors, as the other overload does.
/**
 * @param context The execution context whose executor is the I/O executor.
 * @param fds The list. It must stay valid and unchanged until the operation is over.
 * @param n The length of the list.
 * @param timeout How long to wait.
 * @param token The completion token.
 *
 * @par Completion Signature
 * @code void(error_code, std::size_t ready) @endcode
 */
template <class Context, class Rep, class Period,
          class Token = boost::asio::default_completion_token_t<typename Context::executor_type>,
          std::enable_if_t<detail::is_context_v<Context>, int> = 0>
auto async_poll(Context& context, ::pollfd* fds, std::size_t n,
                std::chrono::duration<Rep, Period> timeout, Token&& token = Token())
    -> detail::initiated<void(error_code, std::size_t), Token,
                         detail::initiate_poll<typename Context::executor_type>, ::pollfd*,
                         std::size_t, detail::poll_timeout> {
    return detail::initiate<void(error_code, std::size_t), Token>(
        detail::initiate_poll<typename Context::executor_type>(context.get_executor()), token,
        std::move(fds), std::move(n), detail::poll_timeout(timeout));
}

/// Waits for lists of descriptors, again and again, and keeps the registrations in between.
/**
 * A set waits for one list at a time; each wait may have another list. The rules of `async_poll`
 * for the list, for `revents` and for the timeout apply. A wait that can't complete at once
 * compares its list with the list of the previous such wait. The set registers the numbers that are
 * new, and ends the registrations of the numbers that are gone. For a number in both lists, the set
 * checks the identity of the file (device and inode, one `fstat(2)`), and registers the number
 * again if the number now belongs to another file. While the list stays the same, a wait on epoll
 * makes no other calls for the descriptors than `poll(2)` and `fstat(2)`.
 *
 * The identity can't distinguish an eventfd, a timerfd or another anonymous file from the next one,
 * and can't show that a file was closed and opened again. If you close such a file, and its number
 * may be used again, call `forget`.
 *
 * Between two waits, the set does not keep `run()` from returning.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The executor need not be a strand: waits complete correctly on a
 * context that several threads run.
 *
 * @par Lifetimes
 * Destroying a set completes a pending wait with `operation_aborted`, and ends the registrations. A
 * wait goes on when its set is moved. A set may outlive its execution context: its waits fail with
 * `error::gone` then.
 *
 * @par Example
 * @code
 * moor::poll_set set(io);
 * std::vector<pollfd> fds;
 * for (;;) {
 *     library_fill(lib, fds); // the descriptors and events that the library has now
 *     co_await set.async_wait(fds.data(), fds.size(), 1s, asio::use_awaitable);
 *     library_handle(lib, fds.data(), fds.size());
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_poll_set {
    class initiate_wait;
    using default_token = boost::asio::default_completion_token_t<Executor>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The set's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The set's type.
        using other = basic_poll_set<OtherExecutor>;
    };

    /// Constructs a set without registrations.
    /**
     * @param ex The I/O executor.
     * @throws boost::asio::execution::bad_executor If it is an empty `any_io_executor`.
     */
    explicit basic_poll_set(const executor_type& ex)
        : core_(detail::core_access::core_of(detail::context_of(ex))), executor_(ex, *core_) {}

    /// Constructs a set without registrations.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<detail::is_context_v<Context>, int> = 0>
    explicit basic_poll_set(Context& context)
        : basic_poll_set(executor_type(context.get_executor())) {}

    /// Moves a set, with its registrations and its pending wait.
    /**
     * @param other The set to move from, which has no registrations afterwards.
     */
    basic_poll_set(basic_poll_set&& other) noexcept
        : core_(other.core_), executor_(other.executor_, *core_), list_(std::move(other.list_)) {}

    /// Moves a set whose executor has another type.
    /**
     * @param other The set to move from, which has no registrations afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_poll_set(basic_poll_set<OtherExecutor>&& other)
        : core_(other.core_), executor_(other.executor_, *core_), list_(std::move(other.list_)) {}

    /// Ends what this set does, as the destructor does, and moves a set.
    /**
     * @param other The set to move from, which has no registrations afterwards.
     */
    basic_poll_set& operator=(basic_poll_set&& other) noexcept {
        if (this != &other) {
            end();
            executor_.assign(other.executor_, *other.core_);
            core_ = other.core_;
            list_ = std::move(other.list_);
        }
        return *this;
    }

    /// Ends what this set does, and moves a set on another executor.
    /**
     * @param other The set to move from, which has no registrations afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_poll_set& operator=(basic_poll_set<OtherExecutor>&& other) {
        *this = basic_poll_set(std::move(other));
        return *this;
    }

    basic_poll_set(const basic_poll_set&) = delete;
    basic_poll_set& operator=(const basic_poll_set&) = delete;

    /// Ends the registrations.
    /**
     * A pending wait completes with `operation_aborted`, and leaves `revents` alone.
     */
    ~basic_poll_set() { end(); }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return executor_.value(); }

    /// Waits for any of several descriptors, as `poll(2)` does.
    /**
     * @param fds The list. It must stay valid and unchanged until the operation is over.
     * @param n The length of the list. With 0 the operation waits for the timeout alone.
     * @param timeout How long to wait, rounded up to what the clock can tell. Zero: do not wait.
     * Negative, or longer than the clock can tell: wait for ever.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, std::size_t ready) @endcode
     * `ready` is the number of entries whose `revents` is not zero. When the timeout expires, Moor
     * calls `poll(2)` once more; `ready` is 0 if nothing is ready then.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`. A cancelled wait does not change `revents`, and has no effect
     * on later waits.
     * @par Errors
     * `asio::error::already_started` if another wait of this set is pending; otherwise as
     * `async_poll`.
     * @par Example
     * @code
     * set.async_wait(fds.data(), fds.size(), 250ms, [&](moor::error_code ec, std::size_t ready) {
     *     if (!ec)
     *         library_checks(lib, fds.data(), ready); // 0: the time is over
     * });
     * @endcode
     */
    template <class Rep, class Period, class Token = default_token>
    auto async_wait(::pollfd* fds, std::size_t n, std::chrono::duration<Rep, Period> timeout,
                    Token&& token = default_token())
        -> detail::initiated<void(error_code, std::size_t), Token, initiate_wait, ::pollfd*,
                             std::size_t, detail::poll_timeout> {
        return detail::initiate<void(error_code, std::size_t), Token>(
            initiate_wait(this), token, std::move(fds), std::move(n),
            detail::poll_timeout(timeout));
    }

    /// Completes a pending wait with `operation_aborted`. The registrations stay.
    void cancel() {
        if (list_)
            list_->cancel();
    }

    /// Drops the registration of a number that was closed, or belongs to another file by now.
    /**
     * Call `forget` when an anonymous file such as an eventfd was closed, or a file that will be
     * opened again, and before another object registers that number. Moor does not pass the number
     * to the kernel. If a wait for the number is pending, the wait goes on with the file to which
     * the number belongs now.
     *
     * @param fd The number. If the set has no registration of the number, nothing happens.
     */
    void forget(int fd) {
        if (list_)
            list_->forget(fd);
    }

private:
    template <class OtherExecutor>
    friend class basic_poll_set;

    /// Starts a wait, now or later, as the token wants.
    class initiate_wait {
    public:
        using executor_type = Executor;

        explicit initiate_wait(basic_poll_set* self) noexcept : self_(self) {}

        const executor_type& get_executor() const noexcept { return self_->get_executor(); }

        template <class Handler>
        void operator()(Handler&& handler, ::pollfd* fds, std::size_t n,
                        detail::poll_timeout timeout) const {
            std::decay_t<Handler> h(std::forward<Handler>(handler));
            self_->start_wait(h, fds, n, timeout);
        }

    private:
        basic_poll_set* self_;
    };

    template <class Handler>
    void start_wait(Handler& handler, ::pollfd* fds, std::size_t n,
                    const detail::poll_timeout& timeout) {
        if (!core_->context_exists())
            return detail::complete_without_context(
                detail::wait_completion<Handler, detail::deliver_ready>{
                    std::move(handler), {make_error_code(error::gone), 0}});
        if (!executor_.is_held())
            return; // the context is shutting down, and destroys handlers
        if (!list_)
            list_.reset(new detail::poll_list(core_, true));
        detail::start_poll(detail::poll_list_ptr(list_), executor_.get(), handler, fds, n, timeout);
    }

    void end() noexcept {
        if (const detail::poll_list_ptr list = std::move(list_))
            list->close();
    }

    detail::service_core_ptr core_;
    detail::held_executor<Executor> executor_; // refers to the core
    detail::poll_list_ptr list_;
};

/// A set on any I/O executor.
using poll_set = basic_poll_set<>;

} // namespace moor

#endif // MOOR_POLL_HPP
