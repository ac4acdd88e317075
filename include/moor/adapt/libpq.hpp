//
// moor/adapt/libpq.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// PostgreSQL's C library in an execution context: connecting, commands, COPY, pipelines and
// notifications as operations with completion tokens. Needs libpq 12 or later; link with -lpq.
//
// The library's contract, as the adapter keeps it:
//
// - While it connects, libpq closes and opens sockets, for each address and for each
//   attempt with or without TLS, often under the same number. The adapter compares the
//   file before each wait.
// - libpq looks up names with getaddrinfo, which blocks, also when libpq connects without
//   blocking. So Asio's resolver looks up the names first, on Asio's own thread. Where the
//   connection string has "service", the adapter does not know the names, and libpq blocks.
// - While libpq sends a command, it has to read, too: the server may wait for the client to
//   read an answer before the server reads on.
// - Notifications arrive together with results, without an event of their own. The adapter
//   asks libpq for notifications before each wait.
// - libpq reads text up to the first null character. The adapter refuses a command with
//   such a text, since libpq would cut the text off.
// - PQcancel blocks. From libpq 17 on, the adapter uses PQcancelStart. With earlier
//   versions, a thread named "moor-pq-cancel" calls PQcancel: at most one for a connection,
//   and only while a cancel request is being sent. The thread calls no handler.
//
// Threads: all members of a connection have to be called on its executor, which has to be a strand
// if several threads run the context. The same holds for calls of libpq on the PGconn.
//
// Lifetimes: the connection owns the PGconn, or borrows one. The connection may outlive the
// execution context. The destructor and close() complete pending operations with operation_aborted.
// libpq calls notice receivers (PQsetNoticeReceiver) within the adapter. They must not call members
// of the connection.
//
// An example: example/listen.cpp.
//

#ifndef MOOR_ADAPT_LIBPQ_HPP
#define MOOR_ADAPT_LIBPQ_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/pq_session.hpp>
#include <moor/adapt/libpq_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/buffer.hpp>

#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include <libpq-fe.h>

namespace moor {
namespace adapt {

/// A connection to a PostgreSQL server, by libpq.
/**
 * The connection owns a `PGconn`, which `async_connect` makes, or borrows one. The connection sets
 * libpq's non-blocking mode. The program may call functions of libpq on the `PGconn`
 * (`native_handle`): functions that only return something, and `PQsend...` functions, whose results
 * `async_get_result` receives. The program must not call functions that block, such as `PQexec`.
 *
 * @par One Command At A Time
 * Until a command is over, libpq refuses the next command (`pq_error::request_refused`). The
 * pipeline mode is an exception: call `PQenterPipelineMode(c.native_handle())`, and start any
 * number of commands. Their operations complete in order. `async_pipeline_sync` ends a segment of
 * the pipeline: if a command fails, the server skips the rest of the segment. The server may keep
 * the results of the commands that were started in one turn of the loop until the last of these
 * commands is over. To have a result earlier, call `PQsendFlushRequest(c.native_handle())` behind
 * the command, or give the handler a cancellation slot.
 *
 * @par Cancellation
 * A command is cancelled on the server, whatever the cancellation type. Then the operation
 * completes with `pq_sqlstate("57014")`, which equals `errc::operation_canceled`; or with the
 * command's result, if the request came too late. The connection goes on. The request cancels no
 * later command, since the operation does not complete before the server has the request. In a
 * pipeline, a cancelled command may wait behind others. The request is then sent when the others
 * are over, and may cancel a later command of the pipeline which the server executes already. If
 * the request can't be sent, the type decides: for `terminal`, the connection is closed, and
 * pending operations complete with `operation_aborted`; for other types, the command goes on.@n
 * Cancelling `async_connect`, `async_continue_connect` or `async_reset` closes the connection. A
 * wait for a notification, and a wait for data to be sent, end at once with `operation_aborted`.
 *
 * @par Errors
 * An operation completes with @n
 * the SQLSTATE that the server reported, see `pq_sqlstate`; @n
 * a `pq_error`; @n
 * `boost::asio::error::not_connected` if there is no connection; @n
 * `operation_aborted` if the connection was closed, released or destroyed; @n
 * an error of the resolver, if no name of a host was found; @n
 * or an error of the wait. @n
 * `error_message` returns the text of libpq. When the connection breaks, all pending operations
 * complete. If the server has sent a reason, the first command completes with this SQLSTATE. After
 * that, call `async_connect` or `async_reset`.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A connection alone does not: without a pending
 * operation, the connection is not watched, and the next operation notices if the connection broke.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members, and libpq's functions on this connection, have to be
 * called on the executor, which has to be a strand if several threads run the execution context.
 * Handlers that have another executor must not use the connection there.
 *
 * @par Lifetimes
 * Destroying a connection closes an owned `PGconn`; operations complete with `operation_aborted`. A
 * connection may outlive its execution context, and may be destroyed afterwards. An operation goes
 * on when its connection is moved. A connection that was moved from can only be assigned to or
 * destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> show(asio::io_context& io) {
 *     moor::adapt::pq_connection c(io);
 *     co_await c.async_connect("host=db dbname=shop", asio::use_awaitable);
 *     moor::adapt::pq_result r = co_await c.async_exec_params(
 *         "select name from products where price < $1", moor::adapt::pq_params(10),
 *         asio::use_awaitable);
 *     for (int i = 0; i != PQntuples(r.get()); ++i)
 *         std::cout << PQgetvalue(r.get(), i, 0) << '\n';
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_pq_connection {
    using session = detail::pq_session<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    // What the initiating functions do, once their tokens say so.
    struct start_connect {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& info) const {
            s.connect(std::forward<Handler>(handler), info);
        }
    };
    struct start_go_on {
        template <class Handler>
        void operator()(session& s, Handler&& handler, bool is_reset) const {
            s.go_on_connecting(std::forward<Handler>(handler), is_reset);
        }
    };
    struct start_exec {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& sql) const {
            s.execute(std::forward<Handler>(handler), [&](PGconn* c) {
                if (detail::has_null(sql))
                    return session::unsuitable_text;
#if defined(LIBPQ_HAS_PIPELINING)
                if (PQpipelineStatus(c) != PQ_PIPELINE_OFF) // which has no simple commands
                    return PQsendQueryParams(c, sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr,
                                             0);
#endif
                return PQsendQuery(c, sql.c_str());
            });
        }
    };
    struct start_exec_params {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& sql,
                        const pq_params& params) const {
            s.execute(std::forward<Handler>(handler), [&](PGconn* c) {
                if (detail::has_null(sql) || !params.is_suitable())
                    return session::unsuitable_text;
                return params.apply([&](int n, const Oid* types, const char* const* values,
                                        const int* lengths, const int* formats, int result) {
                    return PQsendQueryParams(c, sql.c_str(), n, types, values, lengths, formats,
                                             result);
                });
            });
        }
    };
    struct start_prepare {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& name,
                        const std::string& sql) const {
            s.execute(std::forward<Handler>(handler), [&](PGconn* c) {
                if (detail::has_null(name) || detail::has_null(sql))
                    return session::unsuitable_text;
                return PQsendPrepare(c, name.c_str(), sql.c_str(), 0, nullptr);
            });
        }
    };
    struct start_exec_prepared {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& name,
                        const pq_params& params) const {
            s.execute(std::forward<Handler>(handler), [&](PGconn* c) {
                if (detail::has_null(name) || !params.is_suitable())
                    return session::unsuitable_text;
                return params.apply([&](int n, const Oid*, const char* const* values,
                                        const int* lengths, const int* formats, int result) {
                    return PQsendQueryPrepared(c, name.c_str(), n, values, lengths, formats,
                                               result);
                });
            });
        }
    };
    struct start_get_result {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.get_result(std::forward<Handler>(handler));
        }
    };
    struct start_put_copy {
        template <class Handler>
        void operator()(session& s, Handler&& handler, boost::asio::const_buffer data) const {
            s.put_copy(std::forward<Handler>(handler), static_cast<const char*>(data.data()),
                       data.size());
        }
    };
    struct start_end_copy {
        template <class Handler>
        void operator()(session& s, Handler&& handler,
                        const std::optional<std::string>& reason) const {
            s.execute(std::forward<Handler>(handler), [&](PGconn* c) {
                return PQputCopyEnd(c, reason ? reason->c_str() : nullptr);
            });
        }
    };
    struct start_get_copy {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.get_copy(std::forward<Handler>(handler));
        }
    };
    struct start_notification {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.wait_for_notification(std::forward<Handler>(handler));
        }
    };
#if defined(LIBPQ_HAS_PIPELINING)
    struct start_sync {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.synchronize(std::forward<Handler>(handler), &PQpipelineSync);
        }
    };
#endif
    template <class Signature, class Token, class Start, class... Args>
    using initiated = moor::detail::initiated<Signature, Token, detail::initiation<session, Start>,
                                              std::decay_t<Args>...>;

    using ec_signature = void(error_code);
    using result_signature = void(error_code, pq_result);
    using row_signature = void(error_code, std::string);
    using notification_signature = void(error_code, pq_notification);

    template <class Signature, class Start, class Token, class... Args>
    auto start(Token& token, Args... args) -> initiated<Signature, Token, Start, Args...> {
        return moor::detail::initiate<Signature, Token>(
            detail::initiation<session, Start>{session_.get()}, token, std::move(args)...);
    }

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = PGconn*;

    /// The connection's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The connection's type.
        using other = basic_pq_connection<OtherExecutor>;
    };

    /// Constructs an object without a connection.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_pq_connection(const executor_type& ex)
        : session_(std::make_unique<session>(ex)) {}
    /// Constructs an object without a connection.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_pq_connection(Context& context)
        : basic_pq_connection(executor_type(context.get_executor())) {}

    /// Borrows a connection, which the caller has to finish.
    /**
     * If `PQconnectStart` or `PQresetStart` has begun to connect, call `async_continue_connect`.
     * The constructor sets the non-blocking mode of libpq. The previous mode is restored when the
     * borrowing ends, unless libpq then has data to send.
     *
     * @param ex The I/O executor.
     * @param borrowed The connection, which has to exist until `release`, `close` or the
     * destruction of this object.
     */
    basic_pq_connection(const executor_type& ex, PGconn* borrowed) : basic_pq_connection(ex) {
        session_->adopt(borrowed, false);
    }
    /// Borrows a connection, which the caller has to finish.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param borrowed The connection, as for the other overload.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_pq_connection(Context& context, PGconn* borrowed)
        : basic_pq_connection(executor_type(context.get_executor()), borrowed) {}

    /// Takes over a connection.
    /**
     * @param ex The I/O executor.
     * @param owned The connection.
     */
    basic_pq_connection(const executor_type& ex, pq_handle owned) : basic_pq_connection(ex) {
        session_->adopt(owned.release(), true);
    }
    /// Takes over a connection.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param owned The connection.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_pq_connection(Context& context, pq_handle owned)
        : basic_pq_connection(executor_type(context.get_executor()), std::move(owned)) {}

    /// Moves a connection, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_pq_connection(basic_pq_connection&& other) noexcept = default;
    /// Closes the present connection, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_pq_connection& operator=(basic_pq_connection&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and finishes an owned connection.
    ~basic_pq_connection() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns libpq's connection, or the null pointer.
    /**
     * After a `PQsend...` function, call `async_get_result`.
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Returns whether the connection is established, as far as libpq knows.
    bool is_open() const noexcept { return session_->is_open(); }

    /// Returns the text that libpq had for the last error.
    const std::string& error_message() const noexcept { return session_->message(); }

    /// Completes pending operations with `operation_aborted`, and finishes an owned connection.
    void close() { session_->close(); }

    /// Completes pending operations with `operation_aborted`, and returns the connection.
    /**
     * A cancel request that is being sent goes on, and may cancel a later command.
     *
     * @returns The connection, which the caller has to finish; or the null pointer.
     */
    PGconn* release() { return session_->release(); }

    // ---- connecting ---------------------------------------------------------------------------

    /// Connects, and owns the connection then.
    /**
     * An earlier connection is closed. libpq's parameter `connect_timeout` has no effect: cancel
     * the operation with a timer.
     *
     * @param connection_string The parameters or the URI, as for `PQconnectdb`; may have several
     * hosts.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the connection is closed.
     * @par Example
     * @code
     * co_await c.async_connect("postgresql://db1,db2/shop?target_session_attrs=read-write",
     *                          asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_connect(std::string connection_string, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_connect, std::string> {
        return start<ec_signature, start_connect, Token>(token, std::move(connection_string));
    }

    /// Goes on with a connection that `PQconnectStart` or `PQresetStart` has begun.
    /**
     * The connection is the one that was passed to the constructor.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * As `async_connect`.
     * @par Example
     * @code
     * moor::adapt::pq_connection c(io, moor::adapt::pq_handle(PQconnectStart("dbname=shop")));
     * co_await c.async_continue_connect(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_continue_connect(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_go_on, bool> {
        return start<ec_signature, start_go_on, Token>(token, false);
    }

    /// Closes the connection to the server, and connects again with the same parameters.
    /**
     * The `PGconn` stays the same object. Pending operations complete with `operation_aborted`.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * As `async_connect`.
     * @par Example
     * @code
     * if (!c.is_open())
     *     co_await c.async_reset(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_reset(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_go_on, bool> {
        return start<ec_signature, start_go_on, Token>(token, true);
    }

    // ---- commands -----------------------------------------------------------------------------

    /// Executes SQL, and completes with the last result, as `PQexec` returns it.
    /**
     * If the server has sent a result with an error, the operation completes with the error and
     * this result, which has the details. If the SQL is a `COPY` command, the operation completes
     * when data can be transferred.
     *
     * @param sql One or several commands; in pipeline mode just one.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the command is cancelled on the server, and the connection
     * goes on. See the class.
     * @par Example
     * @code
     * c.async_exec("listen news", [](moor::error_code ec, moor::adapt::pq_result) { ... });
     * @endcode
     */
    template <class Token = default_token>
    auto async_exec(std::string sql, Token&& token = default_token())
        -> initiated<result_signature, Token, start_exec, std::string> {
        return start<result_signature, start_exec, Token>(token, std::move(sql));
    }

    /// Executes one command with parameters.
    /**
     * @param sql The command, in which `$1` is the first parameter.
     * @param params The parameters, and the format of the result.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`.
     * @par Example
     * @code
     * c.async_exec_params("delete from t where n = $1", moor::adapt::pq_params(7), handler);
     * @endcode
     */
    template <class Token = default_token>
    auto async_exec_params(std::string sql, pq_params params, Token&& token = default_token())
        -> initiated<result_signature, Token, start_exec_params, std::string, pq_params> {
        return start<result_signature, start_exec_params, Token>(token, std::move(sql),
                                                                 std::move(params));
    }

    /// Prepares a statement.
    /**
     * @param name The name for `async_exec_prepared`; may be empty.
     * @param sql The command.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`.
     * @par Example
     * @code
     * co_await c.async_prepare("by_name", "select * from t where name = $1", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_prepare(std::string name, std::string sql, Token&& token = default_token())
        -> initiated<result_signature, Token, start_prepare, std::string, std::string> {
        return start<result_signature, start_prepare, Token>(token, std::move(name),
                                                             std::move(sql));
    }

    /// Executes a prepared statement.
    /**
     * @param name The name that `async_prepare` was given.
     * @param params The parameters, and the format of the result.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`.
     * @par Example
     * @code
     * co_await c.async_exec_prepared("by_name", moor::adapt::pq_params("seven"),
     *                                asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_exec_prepared(std::string name, pq_params params, Token&& token = default_token())
        -> initiated<result_signature, Token, start_exec_prepared, std::string, pq_params> {
        return start<result_signature, start_exec_prepared, Token>(token, std::move(name),
                                                                   std::move(params));
    }

    /// Receives the next result, as `PQgetResult` does, after any `PQsend...` function.
    /**
     * Call this function until the result is null, which means that the command is over. Several
     * operations may be pending. The function also receives the rows of the single-row mode, and in
     * pipeline mode the results for `PQpipelineSync`.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`. Receive the results of the cancelled command up to the null result.
     * @par Example
     * @code
     * PQsendQuery(c.native_handle(), "select * from events");
     * PQsetSingleRowMode(c.native_handle());
     * while (moor::adapt::pq_result row = co_await c.async_get_result(asio::use_awaitable))
     *     show(row.get()); // one row, and none at the end
     * @endcode
     */
    template <class Token = default_token>
    auto async_get_result(Token&& token = default_token())
        -> initiated<result_signature, Token, start_get_result> {
        return start<result_signature, start_get_result, Token>(token);
    }

#if defined(LIBPQ_HAS_PIPELINING)
    /// Ends a segment of the pipeline, and completes when the server has executed all of it.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`: cancels the command that the server executes when this operation is next in
     * order.
     * @par Example
     * @code
     * PQenterPipelineMode(c.native_handle());
     * for (int i = 0; i != 100; ++i)
     *     c.async_exec_params("insert into t values ($1)", moor::adapt::pq_params(i), on_result);
     * c.async_pipeline_sync(on_sync); // one transaction
     * @endcode
     */
    template <class Token = default_token>
    auto async_pipeline_sync(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_sync> {
        return start<ec_signature, start_sync, Token>(token);
    }
#endif

    // ---- COPY ---------------------------------------------------------------------------------

    /// Sends data for `COPY FROM STDIN`.
    /**
     * Completes when the kernel has all of the data. Only one such operation may be pending.
     *
     * @param data The data, which stays the caller's until the operation completes. It need not
     * end at the end of a row.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: ends the wait. libpq keeps the data, and sends it with the
     * next operation. `async_fail_copy` makes the server drop the data.
     * @par Example
     * @code
     * co_await c.async_put_copy(asio::buffer(rows), asio::use_awaitable); // std::string rows
     * @endcode
     */
    template <class Token = default_token>
    auto async_put_copy(boost::asio::const_buffer data, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_put_copy, boost::asio::const_buffer> {
        return start<ec_signature, start_put_copy, Token>(token, data);
    }

    /// Ends `COPY FROM STDIN`, and completes with the result of the command.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`.
     * @par Example
     * @code
     * co_await c.async_exec("copy t from stdin", asio::use_awaitable);
     * co_await c.async_put_copy(asio::buffer(rows), asio::use_awaitable);
     * co_await c.async_end_copy(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_end_copy(Token&& token = default_token())
        -> initiated<result_signature, Token, start_end_copy, std::optional<std::string>> {
        return start<result_signature, start_end_copy, Token>(token, std::optional<std::string>());
    }

    /// Makes `COPY FROM STDIN` fail: the server inserts nothing.
    /**
     * @param reason The text of the error with which the operation completes.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_result) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`.
     * @par Example
     * @code
     * co_await c.async_fail_copy("the file is not complete", asio::as_tuple(asio::use_awaitable));
     * @endcode
     */
    template <class Token = default_token>
    auto async_fail_copy(std::string reason, Token&& token = default_token())
        -> initiated<result_signature, Token, start_end_copy, std::optional<std::string>> {
        return start<result_signature, start_end_copy, Token>(
            token, std::optional<std::string>(std::move(reason)));
    }

    /// Receives a row of `COPY TO STDOUT`.
    /**
     * After the last row, the operation completes with `boost::asio::error::eof` if the command
     * went well, and with the command's error otherwise. Then the command is over.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, std::string) @endcode
     * @par Per-Operation Cancellation
     * As `async_exec`: the remaining rows have to be received, or dropped, up to the error.
     * @par Example
     * @code
     * co_await c.async_exec("copy t to stdout", asio::use_awaitable);
     * for (;;) {
     *     auto [ec, row] = co_await c.async_get_copy(asio::as_tuple(asio::use_awaitable));
     *     if (ec)
     *         break; // asio::error::eof: all rows
     *     std::cout << row;
     * }
     * @endcode
     */
    template <class Token = default_token>
    auto async_get_copy(Token&& token = default_token())
        -> initiated<row_signature, Token, start_get_copy> {
        return start<row_signature, start_get_copy, Token>(token);
    }

    // ---- notifications ------------------------------------------------------------------------

    /// Receives a notification of a channel to which the connection listens.
    /**
     * libpq keeps notifications which arrive while no wait is pending. Several waits may be
     * pending.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, pq_notification) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: ends the wait; no notification is lost.
     * @par Example
     * @code
     * co_await c.async_exec("listen news", asio::use_awaitable);
     * for (;;) {
     *     moor::adapt::pq_notification n = co_await c.async_notification(asio::use_awaitable);
     *     std::cout << n->relname << ": " << n->extra << '\n';
     * }
     * @endcode
     */
    template <class Token = default_token>
    auto async_notification(Token&& token = default_token())
        -> initiated<notification_signature, Token, start_notification> {
        return start<notification_signature, start_notification, Token>(token);
    }

private:
    std::unique_ptr<session> session_;
};

/// A connection on any I/O executor.
using pq_connection = basic_pq_connection<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_LIBPQ_HPP
