//
// moor/adapt/mosquitto.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Eclipse Mosquitto's MQTT client in an execution context: connecting, publishing, subscribing and
// receiving as operations with completion tokens. Needs libmosquitto 2.0; link with -lmosquitto.
//
// The library's contract, as the adapter keeps it:
//
// - libmosquitto has no callback that reports the descriptor and the events. Before each wait, the
//   adapter lets the library write, because a publication from a callback is only queued, and then
//   asks for the descriptor.
// - mosquitto_loop_read reads one packet, or as many packets as there are messages of the qualities
//   of service 1 and 2 on their way. The adapter calls this function until the read would block, or
//   64 packets were read. During the handshake of TLS, only this function makes progress.
// - During the handshake of TLS, mosquitto_want_write may return true although nothing can be
//   written. The adapter waits for writability only after a write that would block.
// - The connection may end within any call. libmosquitto closes the socket before any callback
//   runs. The adapter then abandons the number, which may be another file's.
// - No callback reports that a handshake of TLS has failed, and libmosquitto ignores errors of the
//   socket meanwhile. The adapter checks the socket.
// - Keep-alive: mosquitto_loop_misc is called once a second while there is a connection, unless the
//   keep-alive time is 0.
// - mosquitto_publish may write a message of the quality of service 0, and report the message as
//   published, before the function returns. The message's id is set before.
// - libmosquitto reports a connection that is lost after mosquitto_disconnect as a success. The
//   adapter checks whether DISCONNECT is still queued.
// - mosquitto_publish without a connection fails, but sends the message after the next connect. The
//   adapter does not call this function then.
// - mosquitto_new ignores SIGPIPE for the whole process, so no write raises this signal.
//
// What blocks: mosquitto_connect, which the adapter does not use, and the lookup of the host's
// name. libmosquitto needs the name for TLS, and accepts neither a connected socket nor an address
// in addition to the name. So the adapter calls mosquitto_connect_async on a thread with the name
// "moor-mosquitto". The thread ends after the lookup, and calls no handler. But libmosquitto calls
// two callbacks of the program on this thread: for the log, which every connect writes to, and for
// the password of a TLS key. The adapter starts no thread if the host is an address, such as
// "127.0.0.1", or the path of a Unix socket. Then libmosquitto would look up other names on the
// loop: that of mosquitto_socks5_set, and that of MOSQ_OPT_BIND_ADDRESS. Both have to be addresses.
//
// Threads: all members of a client have to be called, and cancellation signals emitted, on the
// client's executor, which has to be a strand if several threads run the context. The same holds
// for calls of libmosquitto with the client's handle.
//
// Lifetimes: the client owns libmosquitto's handle, or shares the handle. The client may outlive
// the execution context. The destructor and close() complete pending operations with
// operation_aborted. Callbacks that the program gives to libmosquitto run within calls of the
// adapter, and must not close or destroy the client, nor call async_connect, which would wait for
// ever for a lock of libmosquitto.
//
// An example: example/mqtt.cpp.
//

#ifndef MOOR_ADAPT_MOSQUITTO_HPP
#define MOOR_ADAPT_MOSQUITTO_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/mosquitto_session.hpp>
#include <moor/adapt/mosquitto_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <mosquitto.h>

namespace moor {
namespace adapt {

/// A client of an MQTT broker, by libmosquitto.
/**
 * The client makes a `struct mosquitto`, or shares one. Set options on `native_handle()` before
 * `async_connect`: `mosquitto_username_pw_set`, `mosquitto_tls_set`, `mosquitto_will_set`, or
 * `mosquitto_int_option` with `MOSQ_OPT_PROTOCOL_VERSION` or `MOSQ_OPT_TCP_NODELAY`. Without the
 * last option, a small message may wait for 40 ms. libmosquitto's user data, and the callbacks with
 * `_v5_` in their names, belong to the client. The program may set the other callbacks, but must
 * not use the `void*` that they receive. The program must not call libmosquitto's functions that
 * connect, disconnect, run a loop or start threads.
 *
 * While the name of the broker is looked up, libmosquitto calls the callbacks for the log
 * (`mosquitto_log_callback_set`) and for the password of a TLS key on the thread of the lookup. The
 * others run on the executor. A callback must not close or destroy the client, nor call
 * `async_connect`.
 *
 * The names of a proxy (`mosquitto_socks5_set`) and of `MOSQ_OPT_BIND_ADDRESS` have to be
 * addresses. Otherwise libmosquitto may look up these names on the loop.
 *
 * @par Messages
 * Messages that arrive while no `async_receive` is pending are queued. When the queue is full
 * (`max_queued`), or there is no memory, the client drops all further messages until the program
 * has received the whole queue. Then one `async_receive` completes with
 * `mosquitto_error::messages_dropped`. The client does not stop reading instead, since the broker's
 * acknowledgements follow the messages.
 *
 * @par Connecting Again
 * When the connection ends, all pending operations complete with the reason. The program decides
 * when to call `async_connect` again. The options stay; the subscriptions stay only if
 * `is_session_present()`. libmosquitto keeps messages with the quality of service 1 or 2 until the
 * broker acknowledges them, and sends them again after the next connect. If the program publishes
 * such a message again, subscribers may receive the message twice.
 *
 * @par Cancellation
 * Cancelling `async_connect` closes the connection. For other operations, whatever the cancellation
 * type, the wait ends at once with `operation_aborted`: MQTT can't take back a request. The message
 * may still be published, and the subscription may still be made or ended.
 *
 * @par Errors
 * An operation completes with @n
 * a `mosquitto_error`, from the broker or libmosquitto; @n
 * `boost::asio::error::not_connected` if there is no connection; @n
 * `operation_aborted` if the operation was cancelled, the connection was closed or disconnected, or
 * the client was destroyed; @n
 * `already_started` if another `async_disconnect` is pending; @n
 * `no_memory`; @n
 * `error::gone` if the registration service was closed; @n
 * `host_not_found` or `host_not_found_try_again` of the lookup; @n
 * or an error of the socket, such as `connection_refused`.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A client alone does not. While the context runs,
 * an open connection is served: messages are queued, and the broker's keep-alive is satisfied.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members, and libmosquitto's functions on this handle, have to
 * be called, and cancellation signals emitted, on the executor, which has to be a strand if several
 * threads run the execution context.
 * Handlers that have another executor must not use the client there.
 *
 * @par Lifetimes
 * Destroying a client ends the connection without DISCONNECT, so that the broker publishes the
 * will; operations complete with `operation_aborted`. A client may outlive its execution context,
 * and be destroyed then. An operation goes on when its client is moved. A client that was moved
 * from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> watch(asio::io_context& io) {
 *     moor::adapt::mosquitto_client c(io);
 *     co_await c.async_connect("broker", 1883, 60, asio::use_awaitable);
 *     co_await c.async_subscribe("sensors/#", 1, asio::use_awaitable);
 *     for (;;) {
 *         moor::adapt::mqtt_message m = co_await c.async_receive(asio::use_awaitable);
 *         std::cout << m.topic << ": " << m.payload << '\n';
 *     }
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_mosquitto_client {
    using session = detail::mosquitto_session<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    // What the initiating functions do, once their tokens say so.
    struct start_connect {
        template <class Handler>
        void operator()(session& s, Handler&& handler, std::string host, int port,
                        int keep_alive) const {
            s.connect(std::forward<Handler>(handler), {std::move(host), port, keep_alive});
        }
    };
    struct start_disconnect {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.disconnect(std::forward<Handler>(handler));
        }
    };
    struct start_publish {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& topic,
                        const std::string& payload, int qos, bool retain) const {
            s.publish(std::forward<Handler>(handler), topic, payload, qos, retain);
        }
    };
    struct start_subscribe {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& pattern, int qos) const {
            s.subscribe(std::forward<Handler>(handler), pattern, qos);
        }
    };
    struct start_unsubscribe {
        template <class Handler>
        void operator()(session& s, Handler&& handler, const std::string& pattern) const {
            s.unsubscribe(std::forward<Handler>(handler), pattern);
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
    using subscribe_signature = void(error_code, int);
    using message_signature = void(error_code, mqtt_message);

    template <class Signature, class Start, class Token, class... Args>
    auto start(Token& token, Args... args) -> initiated<Signature, Token, Start, Args...> {
        return moor::detail::initiate<Signature, Token>(
            detail::initiation<session, Start>{session_.get()}, token, std::move(args)...);
    }

    static std::shared_ptr<::mosquitto> make_handle(const char* id, bool clean_session) {
        static const int result = mosquitto_lib_init(); // never undone: others may use the library
        return std::shared_ptr<::mosquitto>(
            result == MOSQ_ERR_SUCCESS ? mosquitto_new(id, clean_session, nullptr) : nullptr,
            [](::mosquitto* m) {
                if (m)
                    mosquitto_destroy(m);
            });
    }

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = ::mosquitto*;

    /// The client's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The client's type.
        using other = basic_mosquitto_client<OtherExecutor>;
    };

    /// Constructs a client with a random identifier, and a session that ends with the connection.
    /**
     * @param ex The I/O executor.
     */
    explicit basic_mosquitto_client(const executor_type& ex)
        : basic_mosquitto_client(ex, make_handle(nullptr, true)) {}
    /// Constructs a client with a random identifier, and a session that ends with the connection.
    /**
     * @param context The execution context whose executor is the I/O executor.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    explicit basic_mosquitto_client(Context& context)
        : basic_mosquitto_client(executor_type(context.get_executor())) {}

    /// Constructs a client with an identifier.
    /**
     * @param ex The I/O executor.
     * @param id The client's identifier, which no other client of the broker may have. An empty
     * one, or one with a null character, makes `async_connect` fail with
     * `mosquitto_error::invalid_argument`.
     * @param clean_session Whether the broker forgets subscriptions and messages when the
     * connection ends.
     */
    basic_mosquitto_client(const executor_type& ex, const std::string& id, bool clean_session)
        : basic_mosquitto_client(ex, !detail::has_null(id) ? make_handle(id.c_str(), clean_session)
                                                           : nullptr) {}
    /// Constructs a client with an identifier.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param id The client's identifier, as for the other overload.
     * @param clean_session As for the other overload.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_mosquitto_client(Context& context, const std::string& id, bool clean_session)
        : basic_mosquitto_client(executor_type(context.get_executor()), id, clean_session) {}

    /// Shares a handle, which the last owner destroys.
    /**
     * `async_connect` ends a connection that the handle has.
     *
     * @param ex The I/O executor.
     * @param shared The handle, with `mosquitto_destroy` as its deleter. Without a deleter, the
     * program has to destroy the handle after this client, and after the lookup of a name: when
     * `async_connect` was cancelled, the thread of the lookup may still use the handle.
     */
    basic_mosquitto_client(const executor_type& ex, std::shared_ptr<::mosquitto> shared)
        : session_(std::make_unique<session>(ex, std::move(shared))) {}
    /// Shares a handle, which the last owner destroys.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param shared The handle, as for the other overload.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_mosquitto_client(Context& context, std::shared_ptr<::mosquitto> shared)
        : basic_mosquitto_client(executor_type(context.get_executor()), std::move(shared)) {}

    /// Moves a client, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_mosquitto_client(basic_mosquitto_client&& other) noexcept = default;
    /// Closes the present client, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_mosquitto_client& operator=(basic_mosquitto_client&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and ends the connection.
    ~basic_mosquitto_client() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return session_->executor(); }

    /// Returns libmosquitto's handle; the null pointer while a name is looked up.
    /**
     * The null pointer stays if the registration service is closed during the lookup.
     * After a function that sends a packet, such as `mosquitto_publish_v5`, call `touch`.
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Tells the client that the program has called a function of libmosquitto that sends a packet.
    void touch() { session_->touch(); }

    /// Returns whether the broker has accepted the connection, and the connection has not ended.
    bool is_open() const noexcept { return session_->is_open(); }

    /// Returns whether the broker had kept the session when the broker last accepted a connection.
    /**
     * If so, the broker still has the subscriptions.
     */
    bool is_session_present() const noexcept { return session_->is_session_present(); }

    /// Limits the queue of messages that no `async_receive` was waiting for.
    /**
     * @param n The number of messages: 10,000 unless set.
     */
    void max_queued(std::size_t n) noexcept { session_->limit_queue(n); }

    /// Ends the connection at once, and pending operations with `operation_aborted`.
    /**
     * The client sends no DISCONNECT, so the broker publishes the will. libmosquitto closes the
     * descriptor when the client connects again or is destroyed.
     */
    void close() { session_->close(); }

    // ---- connecting ---------------------------------------------------------------------------

    /// Connects, and completes when the broker has accepted or refused the connection.
    /**
     * An earlier connection is closed.
     *
     * @param host A name, an address, or the path of a Unix socket, if the port is 0. If a name has
     * several addresses, libmosquitto tries the next one only if the kernel refuses the first at
     * once.
     * @param port The port: usually 1883, or 8883 with TLS.
     * @param keep_alive The seconds without a packet after which the client asks whether the
     * broker is alive; at least 5, or 0 for never. The broker has to accept the connection within
     * this time.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the connection is closed. A lookup goes on, and the next
     * `async_connect` waits for the end of the lookup.
     * @par Example
     * @code
     * mosquitto_tls_set(c.native_handle(), "ca.crt", nullptr, nullptr, nullptr, nullptr);
     * co_await c.async_connect("broker.example.org", 8883, 60, asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_connect(std::string host, int port, int keep_alive, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_connect, std::string, int, int> {
        return start<ec_signature, start_connect, Token>(token, std::move(host), port, keep_alive);
    }

    /// Sends DISCONNECT, so that the broker does not publish the will, and ends the connection.
    /**
     * libmosquitto sends earlier packets first. Other pending operations complete with
     * `operation_aborted` when the connection ends. While a connection is being established, the
     * operation closes the connection.
     *
     * If the connection is lost before DISCONNECT was sent, this and other operations complete with
     * `mosquitto_error::connection_lost` or an error of the socket. (They may also do so after
     * DISCONNECT was sent, if another packet, such as an acknowledgement, was queued later.)
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends; call `close` to end the connection at once.
     * @par Example
     * @code
     * co_await c.async_disconnect(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_disconnect(Token&& token = default_token())
        -> initiated<ec_signature, Token, start_disconnect> {
        return start<ec_signature, start_disconnect, Token>(token);
    }

    // ---- messages -----------------------------------------------------------------------------

    /// Publishes a message, and completes when the broker has the message.
    /**
     * Up to 65,535 operations may be pending, which is the number of MQTT's message ids.
     * libmosquitto keeps at most 20 messages of the qualities of service 1 and 2 in flight
     * (`MOSQ_OPT_SEND_MAXIMUM`); the others wait.
     *
     * @param topic The topic, without wildcards.
     * @param payload The bytes of the message.
     * @param qos The quality of service. 0: the operation completes when the kernel has the
     * message; 1 and 2: when the broker has acknowledged the message.
     * @param retain Whether the broker keeps the message for later subscribers.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and the message may still be published.
     * @par Example
     * @code
     * co_await c.async_publish("lamps/7", "on", 1, true, asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_publish(std::string topic, std::string payload, int qos, bool retain,
                       Token&& token = default_token())
        -> initiated<ec_signature, Token, start_publish, std::string, std::string, int, bool> {
        return start<ec_signature, start_publish, Token>(token, std::move(topic),
                                                         std::move(payload), qos, retain);
    }

    /// Subscribes to topics, and completes when the broker has accepted or refused the request.
    /**
     * @param pattern The topic, or a pattern with wildcards: "+" for a level, "#" for the rest.
     * @param qos The highest quality of service to receive messages with.
     * @param token The completion token. The second argument of the handler is the quality of
     * service that the broker grants.
     *
     * @par Completion Signature
     * @code void(error_code, int) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and the subscription may still be made.
     * @par Example
     * @code
     * int qos = co_await c.async_subscribe("lamps/+", 1, asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_subscribe(std::string pattern, int qos, Token&& token = default_token())
        -> initiated<subscribe_signature, Token, start_subscribe, std::string, int> {
        return start<subscribe_signature, start_subscribe, Token>(token, std::move(pattern), qos);
    }

    /// Ends a subscription, and completes when the broker has acknowledged the request.
    /**
     * @param pattern The pattern of the subscription.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and the subscription may still be ended.
     * @par Example
     * @code
     * co_await c.async_unsubscribe("lamps/+", asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_unsubscribe(std::string pattern, Token&& token = default_token())
        -> initiated<ec_signature, Token, start_unsubscribe, std::string> {
        return start<ec_signature, start_unsubscribe, Token>(token, std::move(pattern));
    }

    /// Waits for a message.
    /**
     * Several operations may be pending, and receive one message each, in order. Without a
     * connection, operations receive the queued messages first, and then complete with
     * `not_connected`.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, mqtt_message) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the wait ends, and no message is lost.
     * @par Example
     * @code
     * c.async_receive([](moor::error_code ec, moor::adapt::mqtt_message m) { ... });
     * @endcode
     */
    template <class Token = default_token>
    auto async_receive(Token&& token = default_token())
        -> initiated<message_signature, Token, start_receive> {
        return start<message_signature, start_receive, Token>(token);
    }

private:
    std::unique_ptr<session> session_;
};

/// A client of an MQTT broker, on any I/O executor.
using mosquitto_client = basic_mosquitto_client<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_MOSQUITTO_HPP
