//
// moor/adapt/hiredis.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Redis' C library in an execution context. `attach` runs an asynchronous context of hiredis, with
// hiredis' own functions and callbacks. `redis_connection` has operations with completion tokens.
// Needs hiredis 0.14 or later; link with -lhiredis.
//
// The library's contract, as the adapter keeps it:
//
// - hiredis calls addRead and addWrite again and again, and never withdraws the interest in
//   reading.
// - redisAsyncHandleRead, ...Write and ...Timeout may free the context. hiredis calls the hook
//   cleanup before hiredis closes the descriptor. When the function returns, the context does not
//   exist any more.
// - redisAsyncConnect blocks in getaddrinfo for the name of a host. redis_connection first looks up
//   names with Asio's resolver, which uses Asio's own thread. attach can't do so.
// - hiredis frees a reply when its callback returns. redis_connection copies the reply.
// - The callbacks of pending commands are called without a reply when the context is freed: before
//   cleanup, and from 1.0 on after it, too.
// - hiredis does not match all replies with commands. redis_connection refuses commands that would
//   lose a reply, call a wrong callback, or end the program: see the class.
// - If the server sends a reply for which no command waits, hiredis ends the program.
//   redis_connection refuses the reply, and ends the connection with protocol_error. attach can't
//   refuse the reply.
// - hiredis writes without MSG_NOSIGNAL. The adapter makes hiredis read first, so that the read
//   finds an end of the connection. A server that ends between the read and the write still causes
//   SIGPIPE. Ignore this signal: std::signal(SIGPIPE, SIG_IGN). The adapter does not change the
//   program's signals.
//
// Threads: all calls have to be made, and cancellation signals emitted, on the executor, which has
// to be a strand if several threads run the context.
//
// Lifetimes: a redis_connection owns its context of hiredis. With attach, the context belongs to
// the program. Both may outlive the execution context.
//
// An example: example/redis.cpp.
//

#ifndef MOOR_ADAPT_HIREDIS_HPP
#define MOOR_ADAPT_HIREDIS_HPP

#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/redis_events.hpp>
#include <moor/adapt/detail/redis_session.hpp>
#include <moor/adapt/hiredis_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/throw_if.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

namespace moor {
namespace adapt {

/// Runs an asynchronous context of hiredis in an execution context.
/**
 * All of hiredis' own functions and callbacks work as with hiredis' adapters for other event
 * loops: commands, subscriptions, `redisAsyncDisconnect`, `redisAsyncFree`, also from within
 * callbacks, and from 1.0 on time limits and pushes. The callbacks run on the executor, and may be
 * set before or after this call.
 *
 * The watch ends with the context, which hiredis frees when the connection ends. Until then, the
 * watch keeps `run()` from returning, since hiredis always reads the connection.
 *
 * @param ex The I/O executor. It has to be a strand if several threads run the execution context.
 * @param context The context, which belongs to the caller.
 * @param ec Set to the error, if any: `invalid_argument` if `context` is null, has an error (read
 * `context->errstr`), or has an event loop already; an error of `basic_watcher::reset`.
 *
 * @par Errors
 * If the descriptor can't be watched any more, the adapter frees the context. hiredis then calls
 * the callbacks without a reply, and `context->errstr` has the reason.
 *
 * @par Example
 * @code
 * redisAsyncContext* c = redisAsyncConnect("127.0.0.1", 6379); // no name, for which this blocks
 * moor::adapt::attach(io, c);
 * redisAsyncCommand(c, on_reply, nullptr, "GET %s", "key");
 * @endcode
 */
template <class Executor, std::enable_if_t<!moor::detail::is_context_v<Executor>, int> = 0>
void attach(const Executor& ex, redisAsyncContext* context, error_code& ec) {
    detail::redis_events<Executor>::attach(ex, context, ec);
}
/// Runs an asynchronous context of hiredis in an execution context.
/**
 * @param ex The I/O executor.
 * @param context The context, which belongs to the caller.
 * @throws boost::system::system_error With the errors of the other overload.
 */
template <class Executor, std::enable_if_t<!moor::detail::is_context_v<Executor>, int> = 0>
void attach(const Executor& ex, redisAsyncContext* context) {
    error_code ec;
    attach(ex, context, ec);
    moor::detail::throw_if(ec, "moor::adapt::attach", context ? context->c.fd : -1);
}
/// Runs an asynchronous context of hiredis in an execution context.
/**
 * @param io The execution context.
 * @param context The context, which belongs to the caller.
 * @param ec Set to the error, if any, as by the first overload.
 */
template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
void attach(Context& io, redisAsyncContext* context, error_code& ec) {
    attach(io.get_executor(), context, ec);
}
/// Runs an asynchronous context of hiredis in an execution context.
/**
 * @param io The execution context.
 * @param context The context, which belongs to the caller.
 * @throws boost::system::system_error With the errors of the first overload.
 */
template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
void attach(Context& io, redisAsyncContext* context) {
    attach(io.get_executor(), context);
}

/// A connection to a Redis server, by hiredis.
/**
 * Any number of commands may be pending: hiredis sends them at once, and the server replies in
 * order.
 *
 * @par Subscriptions
 * `SUBSCRIBE`, `PSUBSCRIBE`, `UNSUBSCRIBE` and `PUNSUBSCRIBE` are commands like others. Such a
 * command completes with the last confirmation, when the server has confirmed all channels.
 * `async_receive` waits for the messages. From the first `SUBSCRIBE` on, and until the server has
 * confirmed the end of the last subscription, other commands complete with
 * `redis_error::subscribed`: use another connection for these commands. If the server rejects a
 * subscription, hiredis ends the connection, and `error_message` returns the text of the server.@n
 * With hiredis 1.0 or later, and after the command `HELLO 3`, `async_receive` also receives the
 * other pushes of the server, such as invalidations of `CLIENT TRACKING`.
 *
 * @par Commands That Are Refused
 * `MONITOR`, `SSUBSCRIBE`, `SUNSUBSCRIBE`, `SYNC`, `PSYNC` and `CLIENT REPLY` complete with
 * `redis_error::unsupported_command`: hiredis would not match the replies with the commands.
 *
 * @par Cancellation
 * Redis can't cancel a command. A cancelled operation completes with `operation_aborted` at once.
 * The server executes the command nevertheless, the adapter drops the reply, and the connection
 * goes on. After a command that waits on the server, such as `BLPOP`, the replies of later commands
 * come when this wait is over. To end the wait, close the connection, or send `CLIENT UNBLOCK` on
 * another connection. Cancelling `async_connect` closes the connection. A wait for a message ends,
 * and no message is lost.
 *
 * @par Errors
 * An operation completes with @n
 * `redis_error::reply_error` if the reply is an error, whose text is in the reply; @n
 * another `redis_error`, or an error of the system, such as `connection_refused`; @n
 * `boost::asio::error::invalid_argument` for a command without a name or with a carriage return in
 * the name, a subscription without a channel, a host or path with a null character, or a path of
 * more than 106 bytes; @n
 * `boost::asio::error::not_connected` if there is no connection; @n
 * `operation_aborted` if the connection was closed or destroyed; @n
 * or an error of the resolver. @n
 * When the connection ends, all pending operations complete with the same error; messages which
 * arrived earlier can still be received. The object can connect again. The server forgets
 * subscriptions, the database and the user, so set these again.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A connection alone does not. While the loop runs
 * for another reason, the connection is watched: when the server closes an idle connection,
 * `is_open` becomes false.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members, and hiredis' functions on this connection, have to be
 * called, and cancellation signals emitted, on the executor, which has to be a strand if several
 * threads run the execution context.
 *
 * @par Lifetimes
 * Destroying a connection closes it; operations complete with `operation_aborted`. A connection may
 * outlive its execution context, and may be destroyed afterwards. Operations go on when their
 * connection is moved. A connection that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> show(asio::io_context& io) {
 *     moor::adapt::redis_connection c(io);
 *     co_await c.async_connect("localhost", 6379, asio::use_awaitable);
 *     co_await c.async_command("SET", "answer", 42, asio::use_awaitable);
 *     moor::adapt::redis_reply r = co_await c.async_command("GET", "answer", asio::use_awaitable);
 *     std::cout << r.text << '\n';
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_redis_connection {
    using session = detail::redis_session<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    // What the initiating functions do, once their tokens say so.
    struct start_connect {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& host,
                        std::uint16_t port) const {
            s.connect(std::forward<Handler>(handler), host, port);
        }
    };
    struct start_connect_unix {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& path) const {
            s.connect_unix(std::forward<Handler>(handler), path);
        }
    };
    struct start_connect_context {
        template <class Handler>
        void operator()(session& s, Handler&& handler, redis_handle context) const {
            s.connect_context(std::forward<Handler>(handler), std::move(context));
        }
    };
    struct start_command {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const redis_command& command) const {
            s.command(std::forward<Handler>(handler), command);
        }
    };
    struct start_receive {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.receive(std::forward<Handler>(handler));
        }
    };
    template <class Signature, class Token, class Start, class... Args>
    using initiated = moor::detail::initiated<Signature, Token, detail::initiation<session, Start>,
                                              std::decay_t<Args>...>;

    using ec_signature = void(error_code);
    using reply_signature = void(error_code, redis_reply);

    template <class Signature, class Start, class Token, class... Args>
    auto start(Token& token, Args... args) -> initiated<Signature, Token, Start, Args...> {
        return moor::detail::initiate<Signature, Token>(
            detail::initiation<session, Start>{session_.get()}, token, std::move(args)...);
    }

    template <class Values, std::size_t... I>
    auto start_of_values(Values values, std::index_sequence<I...>) {
        return async_command(redis_command(std::get<I>(values)...),
                             std::get<sizeof...(I)>(std::move(values)));
    }

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = redisAsyncContext*;

    /// The connection's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The connection's type.
        using other = basic_redis_connection<OtherExecutor>;
    };

    /// Constructs an object without a connection.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_redis_connection(const executor_type& ex)
        : session_(std::make_unique<session>(ex)) {}
    /// Constructs an object without a connection.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_redis_connection(Context& context)
        : basic_redis_connection(executor_type(context.get_executor())) {}

    /// Moves a connection, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_redis_connection(basic_redis_connection&& other) noexcept = default;
    /// Closes the present connection, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_redis_connection& operator=(basic_redis_connection&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and closes the connection.
    ~basic_redis_connection() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns hiredis' context, or the null pointer if there is no connection.
    /**
     * hiredis frees the context when the connection ends. The context may be used for commands with
     * callbacks of hiredis, but not for subscriptions. The members `data` and `ev`, and the
     * callbacks for the connection and for pushes, belong to the adapter.
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Returns whether the connection is established, as far as hiredis knows.
    bool is_open() const noexcept { return session_->is_open(); }

    /// Returns the text of the last error since `async_connect`; empty if hiredis had none.
    const std::string& error_message() const noexcept { return session_->text_of_error(); }

    /// Completes pending operations with `operation_aborted`, and closes the connection.
    void close() { session_->close(); }

    // ---- connecting ---------------------------------------------------------------------------

    /// Connects by TCP.
    /**
     * An earlier connection is closed. The addresses of a name are tried one after the other.
     *
     * @param host The name or the address of the host.
     * @param port The port.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the connection is closed.
     * @par Example
     * @code
     * co_await c.async_connect("localhost", 6379, asio::use_awaitable);
     * co_await c.async_command("AUTH", password, asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_connect(std::string host, std::uint16_t port, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_connect, std::string, std::uint16_t> {
        return start<ec_signature, start_connect, Token>(token, std::move(host), port);
    }

    /// Takes over a context that hiredis connects, and waits until the context is connected.
    /**
     * For connections which the other functions do not offer: `redisAsyncConnectBind`, and with
     * hiredis 1.0 or later TLS and time limits. (TLS was not tested.) The context must have no
     * callbacks and no event loop yet. An earlier connection is closed.
     *
     * @param context The context.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * As for the other overload.
     * @par Example
     * @code
     * moor::adapt::redis_handle h(redisAsyncConnectBind("192.0.2.7", 6379, "192.0.2.1"));
     * co_await c.async_connect(std::move(h), asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_connect(redis_handle context, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_connect_context, redis_handle> {
        return start<ec_signature, start_connect_context, Token>(token, std::move(context));
    }

    /// Connects by a Unix socket.
    /**
     * An earlier connection is closed.
     *
     * @param path The path of the socket.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * As `async_connect`.
     * @par Example
     * @code
     * co_await c.async_connect_unix("/run/redis/redis.sock", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_connect_unix(std::string path, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_connect_unix, std::string> {
        return start<ec_signature, start_connect_unix, Token>(token, std::move(path));
    }

    // ---- commands -----------------------------------------------------------------------------

    /// Sends a command, and waits for its reply.
    /**
     * @param command The command; a `std::vector<std::string>` will do.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, redis_reply) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends, and the adapter drops the reply. See the
     * class.
     * @par Example
     * @code
     * std::vector<std::string> words{"MGET", "one", "two"};
     * moor::adapt::redis_reply r = co_await c.async_command(words, asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_command(redis_command command, Token&& token = default_token())
        -> initiated<reply_signature, Token, start_command, redis_command> {
        return start<reply_signature, start_command, Token>(token, std::move(command));
    }

    /// Sends a command of these values, and waits for its reply.
    /**
     * @param name The name of the command.
     * @param rest The arguments, which are strings and numbers, and behind them the completion
     * token. The token can be left out if the executor has a default one.
     *
     * @par Completion Signature
     * @code void(error_code, redis_reply) @endcode
     * @par Per-Operation Cancellation
     * As for the other overload.
     * @par Example
     * @code
     * c.async_command("INCRBY", "visits", 7, [](moor::error_code ec, redis_reply r) {
     *     if (ec == moor::adapt::redis_error::reply_error)
     *         std::cerr << r.text << '\n';
     * });
     * @endcode
     */
    template <class Name, class... Rest, std::enable_if_t<is_redis_argument<Name>, int> = 0>
    auto async_command(const Name& name, Rest&&... rest) {
        if constexpr ((is_redis_argument<Rest> && ...))
            return async_command(redis_command(name, rest...), default_token());
        else
            return start_of_values(std::forward_as_tuple(name, std::forward<Rest>(rest)...),
                                   std::index_sequence_for<Rest...>());
    }

    /// Waits for the next message of a subscription, or another push of the server.
    /**
     * A message is an array, or with RESP3 a push, of "message", the channel and the text; or of
     * "pmessage", the pattern, the channel and the text. Several waits may be pending. The
     * connection keeps messages which arrive while no wait is pending. When the connection has 1000
     * messages, the adapter stops reading until some are received, unless commands are pending.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, redis_reply) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and no message is lost.
     * @par Example
     * @code
     * co_await c.async_command("SUBSCRIBE", "news", asio::use_awaitable);
     * for (;;) {
     *     moor::adapt::redis_reply m = co_await c.async_receive(asio::use_awaitable);
     *     std::cout << m.elements.at(2).text << '\n';
     * }
     * @endcode
     */
    template <class Token = default_token>
    auto async_receive(Token&& token = default_token())
        -> initiated<reply_signature, Token, start_receive> {
        return start<reply_signature, start_receive, Token>(token);
    }

private:
    std::unique_ptr<session> session_;
};

/// A connection on any I/O executor.
using redis_connection = basic_redis_connection<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_HIREDIS_HPP
