//
// moor/adapt/zmq.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// ZeroMQ's C library in an execution context: messages are sent and received by operations with
// completion tokens. Needs libzmq 4.2 or later, and not cppzmq; link with -lzmq.
//
// The library's contract, as the adapter keeps it:
//
// - ZMQ_FD becomes readable when a command of another thread waits for the socket. Then ZMQ_EVENTS
//   says whether a message can be sent or received. The descriptor is never writable.
// - Each call of libzmq may process the commands. Then the descriptor is not readable any more,
//   although the socket has messages. A send may process the command for which a receive waits, and
//   the other way round.
// - A send processes commands at most once in about a millisecond. So the send may fail with EAGAIN
//   while the descriptor is readable.
// - ROUTER, STREAM, PUB and XPUB sockets report room, even if the queue of the message's peer is
//   full. The adapter then waits for the descriptor, and tries again every 100 ms.
// - If a peer goes away in the middle of a message, libzmq drops the parts that libzmq already has,
//   and may treat the next part as a new message. The adapter sends the whole message again, to
//   another peer.
// - zmq_close() does not block, but another thread closes the descriptor later. The adapter ends
//   the wait before.
//
// Threads: all members of a socket have to be called on its executor, which has to be a strand if
// several threads run the context. The same holds for calls of libzmq on the socket.
//
// Lifetimes: the object owns the socket, or borrows it. The object may outlive the execution
// context. The destructor and close() complete pending operations with operation_aborted. libzmq's
// context belongs to the caller: zmq_ctx_term() blocks until all sockets are closed.
//
// An example: example/worker.cpp.
//

#ifndef MOOR_ADAPT_ZMQ_HPP
#define MOOR_ADAPT_ZMQ_HPP

#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/zmq_session.hpp>
#include <moor/adapt/zmq_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>

#include <memory>
#include <type_traits>
#include <utility>

#include <zmq.h>

namespace moor {
namespace adapt {

/// A socket of ZeroMQ, by libzmq.
/**
 * The object owns a socket that `zmq_socket` has made, or borrows one, such as `handle()` of a
 * `zmq::socket_t` of cppzmq. Bind, connect and set options with libzmq's functions on
 * `native_handle()`. Do not call functions that block: those with a time limit, and those that send
 * or receive without `ZMQ_DONTWAIT`.
 *
 * @par Types
 * PAIR, PUSH and PULL, REQ and REP, DEALER and ROUTER, PUB, SUB, XPUB and XSUB, STREAM, and the
 * PAIR sockets of `zmq_socket_monitor`. Draft types of libzmq that have no `ZMQ_FD` can't be used.
 *
 * @par Order
 * Any number of operations may be pending. The operations of one direction complete in the order in
 * which they were started. Sends and receives do not wait for one another, except on REQ and REP
 * sockets. There, an operation in the wrong state waits while an operation in the other direction
 * is pending, and otherwise fails with `zeromq_error::wrong_state`.
 *
 * @par Calls of Your Own
 * libzmq's functions on the socket may consume the signal for which a pending operation waits.
 * After a call of your own, call `touch`. Without a pending operation, `touch` is not needed.
 *
 * @par Errors
 * An operation completes with @n
 * an error of libzmq, in `zeromq_category()`; @n
 * `zeromq_error::terminated` if libzmq's context is terminated or shut down; @n
 * `boost::asio::error::bad_descriptor` if there is no socket; @n
 * `operation_aborted` if the operation was cancelled, or the socket closed, released or destroyed;
 * @n or an error of the wait.
 *
 * @tparam Executor The type of the I/O executor.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A socket alone does not: without a pending
 * operation, the socket is not watched.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members, and libzmq's functions on this socket, have to be
 * called on the executor, which has to be a strand if several threads run the execution context.
 * libzmq's context may be used on any thread.
 *
 * @par Lifetimes
 * Destroying the object closes an owned socket; operations complete with `operation_aborted`. The
 * object may outlive its execution context, and may be destroyed afterwards. An operation goes on
 * when its object is moved. An object that was moved from can only be assigned to or destroyed.@n
 * `zmq_ctx_term` blocks until all sockets of libzmq's context are closed, and until their messages
 * were sent or the time `ZMQ_LINGER` is over. By default, this time has no end. So set
 * `ZMQ_LINGER`, and call `zmq_ctx_term` when the sockets are closed; or first call
 * `zmq_ctx_shutdown`, which does not block, and ends all pending operations.
 *
 * @par Example
 * @code
 * asio::awaitable<void> answer(asio::io_context& io, void* zmq_context) {
 *     moor::adapt::zeromq_socket s(
 *         io, moor::adapt::zeromq_handle(zmq_socket(zmq_context, ZMQ_REP)));
 *     zmq_bind(s.native_handle(), "tcp://127.0.0.1:5555");
 *     for (;;) {
 *         moor::adapt::zeromq_message m = co_await s.async_receive(asio::use_awaitable);
 *         std::cout << m.back().view() << '\n';
 *         co_await s.async_send("thanks", asio::use_awaitable);
 *     }
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_zeromq_socket {
    using session = detail::zeromq_session<Executor>;
    using default_token = boost::asio::default_completion_token_t<Executor>;

    // What the initiating functions do, once their tokens say so.
    struct start_send {
        template <class Handler>
        void operator()(session& s, Handler&& handler, zeromq_message m) const {
            s.start_send(std::forward<Handler>(handler), std::move(m));
        }
    };
    struct start_receive {
        template <class Handler>
        void operator()(session& s, Handler&& handler) const {
            s.start_receive(std::forward<Handler>(handler));
        }
    };
    using send_initiation = detail::initiation<session, start_send>;
    using receive_initiation = detail::initiation<session, start_receive>;

    using send_signature = void(error_code);
    using receive_signature = void(error_code, zeromq_message);

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle: libzmq's socket.
    using native_handle_type = void*;

    /// The socket's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The socket's type.
        using other = basic_zeromq_socket<OtherExecutor>;
    };

    /// Takes over a socket.
    /**
     * @param ex The I/O executor.
     * @param owned The socket.
     */
    basic_zeromq_socket(const executor_type& ex, zeromq_handle owned)
        : session_(std::make_unique<session>(ex)) {
        session_->adopt(owned.release(), true);
    }
    /// Takes over a socket.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param owned The socket.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_zeromq_socket(Context& context, zeromq_handle owned)
        : basic_zeromq_socket(executor_type(context.get_executor()), std::move(owned)) {}

    /// Borrows a socket, which the caller has to close.
    /**
     * @param ex The I/O executor.
     * @param borrowed The socket, which has to exist until `release`, `close` or the destruction of
     * this object.
     */
    basic_zeromq_socket(const executor_type& ex, native_handle_type borrowed)
        : session_(std::make_unique<session>(ex)) {
        session_->adopt(borrowed, false);
    }
    /// Borrows a socket, which the caller has to close.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param borrowed The socket, as for the other overload.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_zeromq_socket(Context& context, native_handle_type borrowed)
        : basic_zeromq_socket(executor_type(context.get_executor()), borrowed) {}

    /// Moves a socket, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_zeromq_socket(basic_zeromq_socket&& other) noexcept = default;
    /// Closes the present socket, as the destructor does, and moves another one.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_zeromq_socket& operator=(basic_zeromq_socket&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and closes an owned socket.
    ~basic_zeromq_socket() = default;

    /// Returns the I/O executor.
    executor_type get_executor() const noexcept { return session_->executor(); }

    /// Returns libzmq's socket, or the null pointer.
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Tells the adapter that the program has called libzmq on the socket.
    /**
     * @par Example
     * @code
     * zmq_connect(s.native_handle(), "tcp://127.0.0.1:5556");
     * s.touch(); // what a pending operation waits for may have come meanwhile
     * @endcode
     */
    void touch() { session_->touch(); }

    /// Completes pending operations with `operation_aborted`, and closes an owned socket.
    /**
     * This function does not block. libzmq's context keeps messages that were not sent yet, for the
     * time `ZMQ_LINGER`.
     */
    void close() { session_->close(); }

    /// Completes pending operations with `operation_aborted`, and gives the socket to the caller.
    /**
     * @returns The socket, which the caller has to close; or the null pointer.
     */
    native_handle_type release() { return session_->release(); }

    /// Sends a message.
    /**
     * Completes when libzmq has the message: all parts of it, or none if there is an error. As with
     * `zmq_msg_send`, the peer may not have the message yet. The operation waits while the socket
     * has no peer, or while the queue of each peer is full.
     *
     * @param m The message, whose parts are moved, not copied.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: if libzmq has not taken the message, no part of it is sent.
     * @par Errors
     * `errc::invalid_argument` if the message has no part, or, for a STREAM socket, not two; @n
     * `errc::not_supported` if the socket's type can't send; @n
     * `errc::host_unreachable` if there is no peer with the address (a ROUTER socket with
     * `ZMQ_ROUTER_MANDATORY`, or a STREAM socket), or if the peer of a REQ socket went away in the
     * middle of a message with several parts: then the REQ socket has to be closed.
     * @par Example
     * @code
     * co_await s.async_send("one part", asio::use_awaitable);
     * moor::adapt::zeromq_message reply(client, "", answer);
     * co_await router.async_send(std::move(reply), asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_send(zeromq_message m, Token&& token = default_token())
        -> moor::detail::initiated<send_signature, Token, send_initiation, zeromq_message> {
        return moor::detail::initiate<send_signature, Token>(send_initiation{session_.get()}, token,
                                                             std::move(m));
    }

    /// Receives a message, with all its parts.
    /**
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, zeromq_message) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: ends the wait; no message is lost.
     * @par Errors
     * `errc::not_supported` if the socket's type can't receive.
     * @par Example
     * @code
     * moor::adapt::zeromq_message m = co_await s.async_receive(asio::use_awaitable);
     * for (const moor::adapt::zeromq_part& part : m)
     *     std::cout << part.view() << '\n';
     * @endcode
     */
    template <class Token = default_token>
    auto async_receive(Token&& token = default_token())
        -> moor::detail::initiated<receive_signature, Token, receive_initiation> {
        return moor::detail::initiate<receive_signature, Token>(receive_initiation{session_.get()},
                                                                token);
    }

private:
    std::unique_ptr<session> session_;
};

/// A socket on any I/O executor.
using zeromq_socket = basic_zeromq_socket<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_ZMQ_HPP
