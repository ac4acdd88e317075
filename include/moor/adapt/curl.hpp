//
// moor/adapt/curl.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// libcurl in an execution context: any number of transfers on one multi handle, each an operation
// with a completion token. Needs libcurl 7.59 or later; link with -lcurl.
//
// The library's contract, as the adapter keeps it:
//
// - Any call of libcurl may report which sockets to watch, so a watch usually ends in its own
//   handler. libcurl reports a kept connection as removed, although the socket stays open and is
//   reported again later. The same number may then also be another socket. The adapter compares the
//   file each time.
// - libcurl has one timer. A time of 0 means soon, but libcurl must not be called from within the
//   timer callback.
// - libcurl must not be called from within its callbacks. If a callback starts or cancels a
//   transfer, or closes the object, the adapter does this when libcurl has returned.
// - The results of transfers are read after each call, also of transfers on other sockets.
// - libcurl's threads look up names. The end of a transfer would wait for its thread; the adapter
//   sets CURLOPT_QUICK_EXIT, so that the thread ends by itself. A libcurl that was built with a
//   blocking resolver (no CURL_VERSION_ASYNCHDNS) blocks the loop while it looks up a name.
//
// Threads: all members have to be called, and cancellation signals emitted, on the executor, which
// has to be a strand if several threads run the context. libcurl's callbacks run there, too. An
// easy handle belongs to the adapter from async_perform until the handler is invoked.
//
// Lifetimes: the object owns the CURLM. The object may outlive the execution context, and may be
// destroyed in a handler and in libcurl's callbacks. The destructor and close() complete pending
// operations with operation_aborted. The caller owns the easy handles.
//
// An example: example/download.cpp.
//

#ifndef MOOR_ADAPT_CURL_HPP
#define MOOR_ADAPT_CURL_HPP

#include <moor/adapt/curl_types.hpp>
#include <moor/adapt/detail/curl_session.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <memory>
#include <type_traits>
#include <utility>

#include <curl/curl.h>

namespace moor {
namespace adapt {

/// Transfers by libcurl, which share connections, name lookups and limits.
/**
 * The object owns a multi handle of libcurl. `async_perform` performs the transfer of an easy
 * handle, as `curl_easy_perform` does; any number may be pending. Set options of the multi handle,
 * such as `CURLMOPT_MAX_HOST_CONNECTIONS`, with `curl_multi_setopt` on `native_handle`. The
 * functions and data of sockets and of the timer belong to the adapter. Only the adapter adds and
 * removes easy handles.
 *
 * @par Callbacks Of libcurl
 * libcurl calls the functions that the easy handles have (for data, headers, progress and so on)
 * within the adapter, on the executor. These functions may start transfers, cancel transfers, and
 * close or destroy the object: the adapter does this when libcurl has returned. They must not
 * throw, must not block, and must not run the execution context. libcurl reports progress to
 * `CURLOPT_XFERINFOFUNCTION`. To resume a paused transfer, call `pause`.
 *
 * @par Cancellation
 * Each operation can be cancelled: libcurl then ends the transfer. If other transfers share the
 * connection (HTTP/2), the connection stays open. Otherwise libcurl closes the connection. libcurl
 * also has options for time limits, such as `CURLOPT_TIMEOUT_MS`.
 *
 * @par Errors
 * An operation completes with @n
 * the `CURLcode` of the transfer, see `curl_error`; @n
 * the `CURLMcode` of the multi handle: `CURLM_ADDED_ALREADY` if the easy handle's transfer is
 * pending already, `CURLM_BAD_EASY_HANDLE` for a null pointer, `CURLM_BAD_HANDLE` after `close`; @n
 * or `operation_aborted` if the operation was cancelled, or the object was closed or destroyed. @n
 * A status of HTTP such as 404 is no error, unless `CURLOPT_FAILONERROR` is set. If a socket can't
 * be watched, its transfers complete with the error of the watch, such as
 * `error::already_registered`, or with an error of libcurl, such as `CURLE_SEND_ERROR`.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. Connections which libcurl keeps for later
 * transfers do not: they are not watched.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called, and cancellation signals emitted, on
 * the executor, which has to be a strand if several threads run the execution context. Call
 * `curl_global_init` before there are several threads.
 *
 * @par Lifetimes
 * An easy handle has to exist until its handler is invoked or destroyed. The object may outlive its
 * execution context, and may be destroyed afterwards. An operation goes on when the object is
 * moved. An object that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> fetch(moor::adapt::curl_multi& m, const char* url) {
 *     moor::adapt::curl_handle easy(curl_easy_init());
 *     curl_easy_setopt(easy.get(), CURLOPT_URL, url); // the body goes to the standard output
 *     co_await m.async_perform(easy.get(), asio::use_awaitable);
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_curl_multi {
    using session = detail::curl_session<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    struct start_perform {
        template <class Handler>
        void operator()(session& s, Handler&& handler, CURL* easy) const {
            s.perform(std::forward<Handler>(handler), easy);
        }
    };
    using initiation = detail::initiation<session, start_perform>;
    template <class Token>
    using initiated = moor::detail::initiated<void(error_code), Token, initiation, CURL*>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = CURLM*;

    /// The object's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The object's type.
        using other = basic_curl_multi<OtherExecutor>;
    };

    /// Constructs an object with a multi handle of its own.
    /**
     * @param ex The I/O executor.
     * @throws std::bad_alloc If libcurl can't make a multi handle.
     */
    explicit basic_curl_multi(const executor_type& ex) : session_(std::make_shared<session>(ex)) {}
    /// Constructs an object with a multi handle of its own.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @throws std::bad_alloc If libcurl can't make a multi handle.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_curl_multi(Context& context)
        : basic_curl_multi(executor_type(context.get_executor())) {}

    /// Moves the multi handle, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_curl_multi(basic_curl_multi&& other) noexcept = default;
    /// Closes the present multi handle, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_curl_multi& operator=(basic_curl_multi&& other) noexcept {
        if (this != &other)
            if (const auto old = std::exchange(session_, std::move(other.session_)))
                old->close();
        return *this;
    }
    /// Completes pending operations with `operation_aborted`, and closes all connections.
    ~basic_curl_multi() {
        if (session_)
            session_->close();
    }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns the multi handle, for its options; the null pointer after `close`.
    /**
     * @par Example
     * @code
     * curl_multi_setopt(m.native_handle(), CURLMOPT_MAX_HOST_CONNECTIONS, 6L);
     * @endcode
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Ends all transfers with `operation_aborted`. The kept connections stay.
    void cancel() { session_->cancel(); }

    /// Ends all transfers with `operation_aborted`, and frees the multi handle.
    /**
     * If a callback of libcurl calls this function, the adapter does this when libcurl has
     * returned.
     */
    void close() { session_->close(); }

    /// Pauses or resumes a pending transfer, as `curl_easy_pause` does.
    /**
     * Call this function in place of `curl_easy_pause`, since libcurl may call callbacks meanwhile.
     * Within libcurl's callbacks, `curl_easy_pause` may be called, too. If a callback fails
     * meanwhile, such as `CURLOPT_WRITEFUNCTION`, the transfer ends with the error.
     *
     * @param easy The easy handle.
     * @param what `CURLPAUSE_CONT`, or what to pause.
     * @returns The result of `curl_easy_pause`.
     *
     * @par Example
     * @code
     * m.pause(easy, CURLPAUSE_CONT); // the write function had returned CURL_WRITEFUNC_PAUSE
     * @endcode
     */
    CURLcode pause(CURL* easy, int what) { return session_->pause(easy, what); }

    /// Performs a transfer, as `curl_easy_perform` does.
    /**
     * Sets the option `CURLOPT_QUICK_EXIT` of the easy handle, where libcurl has it. After the
     * operation, the easy handle can be used again.
     *
     * @param easy The easy handle, which the caller owns, and which must not be changed or freed
     * before the handler is invoked or destroyed.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the transfer ends.
     * @par Example
     * @code
     * m.async_perform(easy.get(), [&](moor::error_code ec) {
     *     long status = 0;
     *     if (!ec)
     *         curl_easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
     * });
     * @endcode
     */
    template <class Token = default_token>
    auto async_perform(CURL* easy, Token&& token = default_token()) -> initiated<Token> {
        return moor::detail::initiate<void(error_code), Token>(initiation{session_.get()}, token,
                                                               easy);
    }

private:
    std::shared_ptr<session> session_; // which goes on while libcurl calls back
};

/// Transfers on any I/O executor.
using curl_multi = basic_curl_multi<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_CURL_HPP
