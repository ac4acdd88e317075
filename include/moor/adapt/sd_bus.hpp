//
// moor/adapt/sd_bus.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// sd-bus, the D-Bus client of libsystemd, in an execution context: connecting, calls and signals
// as operations with completion tokens; objects are served by sd-bus's own functions. Needs
// libsystemd 241 or later; link with -lsystemd.
//
// The library's contract, as the adapter keeps it:
//
// - Before each wait, the adapter asks sd-bus for the descriptor, the events and the deadline.
//   After the program's own calls of sd-bus, touch() makes the adapter ask again: a new call may
//   have the nearest deadline, and a call that blocks may read messages for other operations, so
//   that the descriptor is not readable any more.
// - sd_bus_process handles one message. The adapter calls sd_bus_process until there is no more to
//   do, but at most 64 times before the other handlers of the loop run.
// - The deadline is a time of CLOCK_MONOTONIC, which is the clock of steady_clock.
// - While it waits for the socket of the bus (sd_bus_set_watch_bind), and when it tries the next
//   address, sd-bus replaces its descriptor. The adapter compares the file before each wait.
// - A message has one read position, although several matches and filters may receive the message.
//   The adapter rewinds the message before each handler.
// - A rule for local signals is not sent to the daemon, and gets no reply.
// - Errors close the connection: sd-bus can't go on after one.
//
// What blocks, and is not called by the adapter: sd_bus_call, sd_bus_flush, sd_bus_add_match,
// sd_bus_request_name, sd_bus_get_unique_name and others that wait for a reply.
//
// Threads: all members of a connection and of its matches have to be called on the connection's
// executor, which has to be a strand if several threads run the context. The same holds for
// sd-bus's functions on the bus and on its messages, whose counts of references are not atomic.
//
// Lifetimes: the connection has a reference to the bus, and closes an owned bus. The connection may
// outlive the execution context. Callbacks of sd-bus may close or destroy the connection.
//
// An example: example/bus.cpp.
//

#ifndef MOOR_ADAPT_SD_BUS_HPP
#define MOOR_ADAPT_SD_BUS_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/sd_bus_session.hpp>
#include <moor/adapt/sd_bus_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <systemd/sd-bus.h>

namespace moor {
namespace adapt {

template <class Executor = boost::asio::any_io_executor>
class basic_sd_bus_connection;

/// A match rule of a connection, and the messages that match it.
/**
 * `basic_sd_bus_connection::async_match` makes a match. From then on, the match keeps the messages
 * that match the rule until `async_receive` receives them: at most 1024, or as many as `set_limit`
 * allows. If more messages arrive, the match drops the newest ones. In their place, `async_receive`
 * completes once with an error equal to `errc::no_buffer_space`, and the match goes on.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Errors
 * `async_receive` completes with @n
 * an error equal to `errc::no_buffer_space`, see above; @n
 * `boost::asio::error::connection_reset` once the connection broke, after the messages that were
 * kept; @n
 * `operation_aborted` if the connection was closed, released or destroyed; @n
 * or an error of the wait.
 *
 * @par Outstanding Work
 * A pending `async_receive` keeps `run()` from returning. A match alone does not.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called on the connection's executor.
 *
 * @par Lifetimes
 * Destroying a match removes the rule, and completes pending operations with `operation_aborted`. A
 * match may outlive its connection and the execution context. A match that was moved from, or was
 * constructed by default, can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * auto names = co_await bus.async_match("type='signal',member='NameOwnerChanged'",
 *                                       asio::use_awaitable);
 * for (;;) {
 *     moor::adapt::sd_bus_message_handle m = co_await names.async_receive(asio::use_awaitable);
 *     ...
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_sd_bus_match {
    using state = detail::sd_bus_match_state<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    using signature = void(error_code, sd_bus_message_handle);

    struct start_receive {
        using executor_type = Executor;

        state* target;

        executor_type get_executor() const noexcept { return target->executor(); }
        template <class Handler>
        void operator()(Handler&& handler) const {
            target->receive(std::forward<Handler>(handler));
        }
    };
    template <class Token>
    using initiated = moor::detail::initiated<signature, Token, start_receive>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The match's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The match's type.
        using other = basic_sd_bus_match<OtherExecutor>;
    };

    /// Constructs an object without a rule, to assign to.
    basic_sd_bus_match() noexcept = default;
    /// Moves a match, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_sd_bus_match(basic_sd_bus_match&& other) noexcept : state_(std::move(other.state_)) {}
    /// Removes the present rule, as the destructor does, and moves another match.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_sd_bus_match& operator=(basic_sd_bus_match&& other) noexcept {
        if (this != &other)
            if (const std::shared_ptr<state> old = std::exchange(state_, std::move(other.state_)))
                old->leave();
        return *this;
    }
    /// Removes the rule, and completes pending operations with `operation_aborted`.
    ~basic_sd_bus_match() {
        if (state_)
            std::shared_ptr<state>(std::move(state_))->leave();
    }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return state_->executor(); }

    /// Returns the number of messages that are kept.
    std::size_t queued() const noexcept { return state_->queued(); }

    /// Sets how many messages are kept at most.
    /**
     * @param messages The number. Messages that are kept already stay.
     */
    void set_limit(std::size_t messages) noexcept { state_->set_limit(messages); }

    /// Waits for the next message.
    /**
     * Several operations may be pending, and complete in order.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, sd_bus_message_handle) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends. No message is lost.
     * @par Shared Messages
     * Several matches may share a message, and then share its read position. Each handler finds the
     * position at the beginning.
     * @par Example
     * @code
     * auto m = co_await match.async_receive(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_receive(Token&& token = default_token()) -> initiated<Token> {
        return moor::detail::initiate<signature, Token>(start_receive{state_.get()}, token);
    }

private:
    friend state;

    explicit basic_sd_bus_match(std::shared_ptr<state> s) noexcept : state_(std::move(s)) {}

    std::shared_ptr<state> state_;
};

/// A match on any I/O executor.
using sd_bus_match = basic_sd_bus_match<>;

/// A connection to a message bus or to a peer, by sd-bus.
/**
 * The connection owns an `sd_bus`, which `async_open` makes, or borrows one. The program may call
 * all functions of sd-bus that do not block on the `sd_bus` (`native_handle`), and then calls
 * `touch`. The program must not call `sd_bus_process`, `sd_bus_wait` and `sd_bus_attach_event`.
 *
 * @par Serving Objects
 * Register objects with sd-bus's own functions, such as `sd_bus_add_object_vtable`. The connection
 * serves the objects while the execution context runs. A pending `async_run` keeps `run()` from
 * returning until the connection is over. Callbacks may start operations, and may close, move or
 * destroy the connection, but must not throw. Give each method the flag
 * `SD_BUS_VTABLE_UNPRIVILEGED`, or call `sd_bus_set_trusted` before `sd_bus_start`. Otherwise
 * sd-bus may ask the daemon for the caller's privileges, and block meanwhile.
 *
 * @par Errors
 * An operation completes with @n
 * an error of `sd_bus_category()`: the error of a reply, or of a function of sd-bus; @n
 * `boost::asio::error::not_connected` if there is no connection; @n
 * `boost::asio::error::connection_reset` if the connection broke; @n
 * `operation_aborted` if the connection was closed, released or destroyed; @n
 * or an error of the wait. @n
 * The name and the text of a D-Bus error are in the reply with which the operation completes.
 * `error_name` and `error_message` return them until the next error. When the connection breaks,
 * all pending operations complete. After that, call `async_open`.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A connection alone does not, nor does a match, an
 * object that is served, or a call that was made without the adapter: use `async_run` for these.
 * While the execution context runs, the connection is watched. A connection on which nothing
 * arrives causes no system call.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members, and sd-bus's functions on this connection and its
 * messages, have to be called on the executor, which has to be a strand if several threads run the
 * execution context. The same holds for the constructors that take a bus. Handlers that have
 * another executor must not use the messages there.
 *
 * @par Lifetimes
 * Destroying a connection closes an owned `sd_bus`, without blocking; messages that were not sent
 * are lost, unless `async_flush` has completed. Operations complete with `operation_aborted`. A
 * connection may outlive its execution context, and may be destroyed afterwards, or in a callback
 * of sd-bus. An operation goes on when its connection is moved. A connection that was moved from
 * can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> show(asio::io_context& io) {
 *     moor::adapt::sd_bus_connection bus(io);
 *     co_await bus.async_open(sd_bus_open_system, asio::use_awaitable);
 *     moor::adapt::sd_bus_message_handle reply = co_await bus.async_call(
 *         bus.new_call("org.freedesktop.hostname1", "/org/freedesktop/hostname1",
 *                      "org.freedesktop.DBus.Properties", "Get", "ss",
 *                      "org.freedesktop.hostname1", "Hostname"),
 *         asio::use_awaitable);
 *     const char* name = nullptr;
 *     sd_bus_message_read(reply.get(), "v", "s", &name);
 *     std::cout << name << '\n';
 * }
 * @endcode
 */
template <class Executor>
class basic_sd_bus_connection {
    using session = detail::sd_bus_session<Executor>;
    using condition = typename session::condition;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    using opener = std::function<int(sd_bus**)>;

    // What the initiating functions do, once their tokens say so.
    struct start_open_address {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& address) const {
            s.open(std::forward<Handler>(handler),
                   opener([&](sd_bus** ret) { return session::open_address(address, ret); }));
        }
    };
    struct start_open {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const opener& open) const {
            s.open(std::forward<Handler>(handler), open);
        }
    };
    struct start_wait {
        template <class Handler>
        void operator()(session& s, Handler&& handler, condition c) const {
            s.wait(std::forward<Handler>(handler), c);
        }
    };
    struct start_call {
        template <class Handler>
        void operator()(session& s, Handler&& handler, sd_bus_message_handle m,
                        std::chrono::microseconds limit) const {
            s.send(std::forward<Handler>(handler), std::move(m), limit);
        }
    };
    struct start_match {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& rule) const {
            s.match(std::forward<Handler>(handler), rule);
        }
    };
    template <class Signature, class Token, class Start, class... Args>
    using initiated = moor::detail::initiated<Signature, Token, detail::initiation<session, Start>,
                                              std::decay_t<Args>...>;

    using ec_signature = void(error_code);
    using reply_signature = void(error_code, sd_bus_message_handle);
    using match_signature = void(error_code, basic_sd_bus_match<Executor>);

    template <class Signature, class Start, class Token, class... Args>
    auto start(Token& token, Args... args) -> initiated<Signature, Token, Start, Args...> {
        return moor::detail::initiate<Signature, Token>(
            detail::initiation<session, Start>{session_.get()}, token, std::move(args)...);
    }

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = sd_bus*;

    /// The type of a match of this connection.
    using match_type = basic_sd_bus_match<Executor>;

    /// The connection's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The connection's type.
        using other = basic_sd_bus_connection<OtherExecutor>;
    };

    /// Constructs an object without a connection.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_sd_bus_connection(const executor_type& ex)
        : session_(std::make_shared<session>(ex)) {}
    /// Constructs an object without a connection.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_sd_bus_connection(Context& context)
        : basic_sd_bus_connection(executor_type(context.get_executor())) {}

    /// Borrows a bus that was started.
    /**
     * The connection takes a reference of its own, and does not close the bus. If the bus has only
     * begun to connect, `async_wait_ready` waits until the bus is connected. Calls may be made
     * before.
     *
     * @param ex The I/O executor.
     * @param borrowed The bus, which nobody else may process until `release`, `close` or the
     * destruction of this object.
     */
    basic_sd_bus_connection(const executor_type& ex, sd_bus* borrowed)
        : basic_sd_bus_connection(ex) {
        session_->adopt(sd_bus_ref(borrowed), false);
    }
    /// Borrows a bus that was started.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param borrowed The bus, as for the other overload.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_sd_bus_connection(Context& context, sd_bus* borrowed)
        : basic_sd_bus_connection(executor_type(context.get_executor()), borrowed) {}

    /// Takes over a bus that was started.
    /**
     * @param ex The I/O executor.
     * @param owned The bus.
     */
    basic_sd_bus_connection(const executor_type& ex, sd_bus_handle owned)
        : basic_sd_bus_connection(ex) {
        session_->adopt(owned.release(), true);
    }
    /// Takes over a bus that was started.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param owned The bus.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_sd_bus_connection(Context& context, sd_bus_handle owned)
        : basic_sd_bus_connection(executor_type(context.get_executor()), std::move(owned)) {}

    /// Moves a connection, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_sd_bus_connection(basic_sd_bus_connection&& other) noexcept = default;
    /// Closes the present connection, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_sd_bus_connection& operator=(basic_sd_bus_connection&& other) noexcept {
        if (this != &other)
            if (const auto old = std::exchange(session_, std::move(other.session_)))
                old->close();
        return *this;
    }
    /// Completes pending operations with `operation_aborted`, and closes an owned bus.
    ~basic_sd_bus_connection() {
        if (session_)
            std::shared_ptr<session>(std::move(session_))->close();
    }

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns the bus, or the null pointer.
    /**
     * After calling functions of sd-bus that send or receive, call `touch`.
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Returns whether the connection is established, as far as sd-bus knows.
    bool is_open() const noexcept { return session_->is_ready(); }

    /// Returns the name in the last error reply; empty if the last failure came without a reply.
    std::string_view error_name() const noexcept {
        const sd_bus_error* e = session_->last_error();
        return e && e->name ? e->name : "";
    }
    /// Returns the text in the last error reply; empty if the last failure came without a reply.
    std::string_view error_message() const noexcept {
        const sd_bus_error* e = session_->last_error();
        return e && e->message ? e->message : "";
    }

    /// Tells the adapter that the program has called functions of sd-bus.
    /**
     * The adapter then asks sd-bus again for the descriptor, the events and the deadline. Call
     * `touch` after calling functions of sd-bus on `native_handle()`. In a callback of sd-bus,
     * `touch` is not needed, since the adapter asks after each callback.
     */
    void touch() { session_->touch(); }

    /// Completes pending operations with `operation_aborted`. Closes an owned bus without blocking.
    void close() { session_->close(); }

    /// Completes pending operations with `operation_aborted`, and gives the bus to the caller.
    /**
     * @returns The bus, with a reference that the caller has to give back; or the null pointer.
     */
    sd_bus* release() { return session_->release(); }

    // ---- connecting ---------------------------------------------------------------------------

    /// Connects to a message bus, and owns the connection then.
    /**
     * An earlier connection is closed. The operation completes when the daemon has accepted the
     * connection. Addresses with the name of a host (`tcp:host=`) make sd-bus block in
     * `getaddrinfo`: write a number.
     *
     * @param address The address, or several with `;` between, such as
     * `unix:path=/run/dbus/system_bus_socket`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the connection is closed.
     * @par Example
     * @code
     * co_await bus.async_open("unix:path=/run/dbus/system_bus_socket", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_open(std::string address, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_open_address, std::string> {
        return start<ec_signature, start_open_address, Token>(token, std::move(address));
    }

    /// Connects by a function such as `sd_bus_open_user` or `sd_bus_open_system`.
    /**
     * An earlier connection is closed. The operation completes when the daemon has accepted the
     * connection. Do not pass the functions `sd_bus_default...`, which return a connection that
     * other code may use, too.
     *
     * @param open A function `int(sd_bus**)`, which starts a bus, and returns a negative `errno`
     * value if it can't. The function is called once, and must not block.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the connection is closed.
     * @par Example
     * @code
     * co_await bus.async_open(sd_bus_open_user, asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_open(std::function<int(sd_bus**)> open, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_open, opener> {
        return start<ec_signature, start_open, Token>(token, std::move(open));
    }

    /// Waits until the connection is established.
    /**
     * For a bus that was passed to the constructor. If the connection is established already, the
     * operation completes soon.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and the connection goes on.
     * @par Example
     * @code
     * moor::adapt::sd_bus_connection peer(io, moor::adapt::sd_bus_handle(started_bus));
     * co_await peer.async_wait_ready(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_wait_ready(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_wait, condition> {
        return start<ec_signature, start_wait, Token>(token, condition::ready);
    }

    /// Waits until the connection is over.
    /**
     * The pending operation keeps `run()` from returning. Use this function in a program that
     * serves objects, or that has callbacks of sd-bus. The operation always completes with an
     * error: `connection_reset` when the connection broke.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and the connection goes on.
     * @par Example
     * @code
     * bus.async_run([](moor::error_code ec) { std::cerr << ec.message() << '\n'; });
     * @endcode
     */
    template <class Token = default_token>
    auto async_run(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_wait, condition> {
        return start<ec_signature, start_wait, Token>(token, condition::over);
    }

    /// Waits until the kernel has all messages that were sent.
    /**
     * Use this function in place of `sd_bus_flush`, which blocks, before the connection is closed.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and the connection goes on.
     * @par Example
     * @code
     * sd_bus_emit_signal(bus.native_handle(), "/", "org.example.News", "Over", "s", "good bye");
     * co_await bus.async_flush(asio::use_awaitable);
     * bus.close();
     * @endcode
     */
    template <class Token = default_token>
    auto async_flush(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_wait, condition> {
        return start<ec_signature, start_wait, Token>(token, condition::flushed);
    }

    // ---- calls --------------------------------------------------------------------------------

    /// Makes a message for `async_call`.
    /**
     * @param destination The name of the service; empty for a peer without a daemon.
     * @param path The path of the object.
     * @param interface The interface.
     * @param member The method.
     * @param types The types of the arguments, as for `sd_bus_message_append`.
     * @param args The arguments, which have to fit the types. sd-bus can't check the arguments.
     * @throws boost::system::system_error If a name or a type is not valid, if there are types but
     * no arguments, or if there is no connection.
     *
     * @par Example
     * @code
     * auto m = bus.new_call("org.freedesktop.DBus", "/org/freedesktop/DBus",
     * "org.freedesktop.DBus", "RequestName", "su", "org.example.News", 0u);
     * @endcode
     */
    template <class... Args>
    sd_bus_message_handle new_call(const std::string& destination, const std::string& path,
                                   const std::string& interface, const std::string& member,
                                   const char* types = "", Args... args) const {
        sd_bus_message* m = nullptr;
        int result = -ENOTCONN;
        if (detail::has_null(destination + path + interface + member))
            result = -EINVAL;
        else if (native_handle())
            result = sd_bus_message_new_method_call(
                native_handle(), &m, destination.empty() ? nullptr : destination.c_str(),
                path.c_str(), interface.c_str(), member.c_str());
        sd_bus_message_handle owner(m);
        if constexpr (sizeof...(Args) != 0) {
            if (result >= 0)
                result = sd_bus_message_append(m, types, args...);
        } else if (result >= 0 && types && *types != '\0') {
            result = -EINVAL;
        }
        if (result < 0)
            boost::throw_exception(
                boost::system::system_error(sd_bus_error_of(result), "sd-bus: new call"));
        return owner;
    }

    /// Calls a method, with sd-bus's own limit for the reply, which is 25 seconds by default.
    /**
     * @param message The call, as `new_call` or `sd_bus_message_new_method_call` makes it. A
     * message that asks for no reply fails with `errc::invalid_argument`: pass it to `sd_bus_send`.
     * Before the connection is established, a call with descriptors fails with `not_connected`. If
     * only a variant has the descriptors, sd-bus blocks until the connection is established.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, sd_bus_message_handle) @endcode
     * If the service reports an error, the operation completes with the error and the error reply:
     * `sd_bus_message_get_error` returns the name and the text.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends, and the reply is dropped. D-Bus has no
     * message to inform the service.
     * @par Example
     * @code
     * auto reply = co_await bus.async_call(std::move(m), asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_call(sd_bus_message_handle message, Token&& token = default_token())
        -> initiated<reply_signature, Token, start_call, sd_bus_message_handle,
                     std::chrono::microseconds> {
        return start<reply_signature, start_call, Token>(token, std::move(message),
                                                         std::chrono::microseconds(0));
    }

    /// Calls a method.
    /**
     * @param message The call, as for the other overload.
     * @param limit The time for the reply. When the time has passed, the operation completes with
     * an error equal to `errc::timed_out`. Zero: sd-bus's own limit. `microseconds::max()`: none.
     * A negative time is over at once. The time starts when the connection is established.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, sd_bus_message_handle) @endcode
     * @par Per-Operation Cancellation
     * As for the other overload.
     * @par Example
     * @code
     * auto reply = co_await bus.async_call(std::move(m), std::chrono::seconds(2),
     *                                      asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_call(sd_bus_message_handle message, std::chrono::microseconds limit,
                    Token&& token = default_token())
        -> initiated<reply_signature, Token, start_call, sd_bus_message_handle,
                     std::chrono::microseconds> {
        return start<reply_signature, start_call, Token>(token, std::move(message), limit);
    }

    // ---- signals ------------------------------------------------------------------------------

    /// Subscribes to messages, most often signals.
    /**
     * The operation completes when the daemon has the rule. The match receives each matching
     * message that is sent later.
     *
     * @param rule The rule, as for `sd_bus_add_match`.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, basic_sd_bus_match<Executor>) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the rule is removed.
     * @par Example
     * @code
     * moor::adapt::sd_bus_match match = co_await bus.async_match(
     *     "type='signal',interface='org.example.News'", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_match(std::string rule, Token&& token = default_token())
        -> initiated<match_signature, Token, start_match, std::string> {
        return start<match_signature, start_match, Token>(token, std::move(rule));
    }

private:
    std::shared_ptr<session> session_;
};

/// A connection on any I/O executor.
using sd_bus_connection = basic_sd_bus_connection<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_SD_BUS_HPP
