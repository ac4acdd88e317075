//
// moor/adapt/detail/zmq_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A socket of libzmq in a loop: what is pending, and when the descriptor may be waited for.
//
//   sends_      wait until the socket takes their message, in order
//   receives_   wait for a message each, in order
//   fd_         ZMQ_FD: becomes readable when another thread has left a command for the socket. Any
//               call of libzmq on the socket may take the command in, and the descriptor is silent
//               then, although a message can be sent or received.
//
// Invariants
//   1. Only serve() lets the source wait, and only after it has asked for ZMQ_EVENTS, for which
//      libzmq takes in all commands. Both directions are served there, since what one of them takes
//      in is what the other one waits for.
//   2. Whoever else calls libzmq while an operation is pending, touches the source.
//   3. No handler is invoked within a member: completing an operation queues its handler.
//   4. Without a pending operation there is no interest.
//

#ifndef MOOR_ADAPT_DETAIL_ZMQ_SESSION_HPP
#define MOOR_ADAPT_DETAIL_ZMQ_SESSION_HPP

#include <moor/adapt/zmq_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>
#include <moor/source.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>

#include <chrono>
#include <cstddef>
#include <list>
#include <optional>
#include <utility>

#include <zmq.h>

namespace moor {
namespace adapt {
namespace detail {

template <class Executor>
class zeromq_session {
    using send_operation = operation<void(error_code)>;
    using receive_operation = operation<void(error_code, zeromq_message)>;
    template <class T>
    using list_of = std::list<T, boost::asio::recycling_allocator<T>>;

    struct send {
        send_operation operation;
        zeromq_message message;
    };
    using send_position = typename list_of<send>::iterator;
    using receive_position = typename list_of<receive_operation>::iterator;

    static constexpr int most_at_once = 256; // messages before others have their turn
    static constexpr std::chrono::milliseconds retry_interval{100};

public:
    explicit zeromq_session(const Executor& ex) : holder_(ex) {}
    zeromq_session(const zeromq_session&) = delete;
    zeromq_session& operator=(const zeromq_session&) = delete;
    ~zeromq_session() { close(); }

    Executor executor() const noexcept { return holder_.get_executor(); }
    void* native_handle() const noexcept { return socket_; }

    void adopt(void* s, bool is_owned) {
        socket_ = s;
        is_owned_ = is_owned;
        if (s && !get(ZMQ_FD, fd_))
            get(ZMQ_TYPE, type_);
    }

    /// libzmq was called, and the descriptor may be silent now.
    void touch() {
        if (!is_waiting_ && !has_pending()) // nor is there a wait to end
            return;
        if (source_)
            return source_->touch();
        source_.emplace(
            executor(), [this] { return serve(); },
            [this](error_code ec, readiness) {
                if (ec && ec != boost::asio::error::timed_out)
                    complete_all(ec);
            });
    }

    /// Ends what is pending, and gives the socket away.
    void* release() {
        is_waiting_ = false;
        source_.reset(); // first: the descriptor may be closed at any time after zmq_close()
        fd_ = -1;
        void* const s = std::exchange(socket_, nullptr);
        complete_all(boost::asio::error::operation_aborted);
        return s;
    }

    void close() {
        const bool is_owned = is_owned_;
        if (void* const s = release(); s && is_owned)
            zmq_close(s);
    }

    template <class Handler>
    void start_send(Handler&& handler, zeromq_message m) {
        const bool is_first = sends_.empty();
        const send_position p = sends_.insert(
            sends_.end(),
            {send_operation::start(std::forward<Handler>(handler), executor()), std::move(m)});
        if (const error_code ec = invalid(p->message))
            return finish(p, ec);
        if (!is_first || !advance(p))
            p->operation.on_cancel([this, p](boost::asio::cancellation_type_t) {
                finish(p, boost::asio::error::operation_aborted);
                fail_receives();
                touch(); // the next one may be smaller, or go to another peer
            });
        touch();
    }

    template <class Handler>
    void start_receive(Handler&& handler) {
        const bool is_first = receives_.empty();
        const receive_position p = receives_.insert(
            receives_.end(), receive_operation::start(std::forward<Handler>(handler), executor()));
        if (!socket_)
            return finish(p, boost::asio::error::bad_descriptor, zeromq_message());
        if (!is_first || !advance(p))
            p->on_cancel([this, p](boost::asio::cancellation_type_t) {
                finish(p, boost::asio::error::operation_aborted, zeromq_message());
                touch();
            });
        touch();
    }

private:
    // ---- the source -----------------------------------------------------------------------------

    /// Sends and receives what is possible now. Returns what to wait for.
    wants serve() {
        wants w;
        int budget = most_at_once;
        bool is_stuck = false; // nothing was possible since the commands were taken in
        while (!sends_.empty() || !receives_.empty()) {
            int events = 0;
            error_code ec = get(ZMQ_EVENTS, events);
            if (!ec && fd_ < 0)
                ec = get(ZMQ_FD, fd_);
            if (ec) {
                complete_all(ec);
                break;
            }
            // At first, the send is tried in any case: ZMQ_EVENTS says nothing of its errors.
            const bool out =
                !sends_.empty() && (!is_stuck || (events & ZMQ_POLLOUT) != 0 || is_selective());
            const bool in = !receives_.empty() && (events & ZMQ_POLLIN) != 0;
            if (!out && !in)
                break;
            const int before = budget;
            while (out && budget > 0 && !sends_.empty() && advance(sends_.begin()))
                --budget;
            while (in && budget > 0 && !receives_.empty() && advance(receives_.begin()))
                --budget;
            w.again = budget <= 0;
            if (w.again || (is_stuck && budget == before && is_selective()))
                break;
            is_stuck = budget == before;
            budget -= is_stuck;
        }
        is_waiting_ = !sends_.empty() || !receives_.empty();
        w.fd = fd_;
        if (is_waiting_)
            w.events = interest::readable;
        if (!sends_.empty() && is_selective())
            w.until = std::chrono::steady_clock::now() + retry_interval;
        return w;
    }

    /// When the execution context is gone, there are empty operations only.
    bool has_pending() const noexcept {
        return (!sends_.empty() && sends_.front().operation) ||
               (!receives_.empty() && receives_.front());
    }

    /// Whether ZMQ_EVENTS may say that there is room, and there is none for this message: it goes
    /// to a certain peer, or to several. So a send is the last call before the wait, although it
    /// may take in a command. Within a millisecond after another send it does not; after a longer
    /// pause between the two, the retry finds what came.
    bool is_selective() const noexcept {
        return type_ == ZMQ_ROUTER || type_ == ZMQ_STREAM || type_ == ZMQ_PUB || type_ == ZMQ_XPUB;
    }

    /// False: the message can't be sent now.
    bool advance(send_position p) {
        const error_code ec = send_all(p->message);
        if (must_wait(ec, !receives_.empty()))
            return false;
        finish(p, ec);
        if (ec)
            fail_receives();
        return true;
    }

    /// False: there is no message now.
    bool advance(receive_position p) {
        zeromq_message m;
        const error_code ec = receive_all(m);
        if (must_wait(ec, !sends_.empty()))
            return false;
        finish(p, ec, std::move(m));
        return true;
    }

    /// After a send that was not made: without a pending send, no receive leaves the wrong state.
    void fail_receives() {
        while (sends_.empty() && !receives_.empty() && advance(receives_.begin())) {}
    }

    /// In the wrong state, the operation waits if one in the other direction may change that.
    static bool must_wait(const error_code& ec, bool has_others) noexcept {
        return ec.value() == EAGAIN || (ec == zeromq_error::wrong_state && has_others);
    }

    // ---- libzmq ---------------------------------------------------------------------------------

    static error_code last_error() noexcept { return error_code(zmq_errno(), zeromq_category()); }

    /// Calls libzmq until no signal interrupts it.
    template <class F>
    static error_code call(F f) {
        while (f() < 0)
            if (const error_code ec = last_error(); ec.value() != EINTR)
                return ec;
        return error_code();
    }

    error_code get(int option, int& value) const {
        return call([&] {
            std::size_t size = sizeof(value);
            return zmq_getsockopt(socket_, option, &value, &size);
        });
    }

    error_code send_part(zeromq_part& p, int flags) {
        return call([&] { return zmq_msg_send(p.native_handle(), socket_, ZMQ_DONTWAIT | flags); });
    }

    error_code invalid(const zeromq_message& m) const {
        if (!socket_)
            return boost::asio::error::bad_descriptor;
        // With another number, a stream socket would take the next address for data.
        if (m.empty() || (type_ == ZMQ_STREAM && m.size() != 2))
            return error_code(EINVAL, zeromq_category());
        return error_code();
    }

    /// Sends all parts or none.
    error_code send_all(zeromq_message& m) {
        const std::size_t last = m.size() - 1;
        if (last == 0)
            return send_part(m[0], 0);
        for (std::size_t i = 0; i <= last; ++i) {
            zeromq_part p = m[i].share(); // since the message may have to be sent again
            const error_code ec = send_part(p, i == last ? 0 : ZMQ_SNDMORE);
            if (ec)
                return i == 0 ? ec : give_up(ec, i == last);
        }
        return error_code();
    }

    /// The peer went away in the middle of a message, and libzmq has dropped the parts that it had.
    error_code give_up(const error_code& ec, bool is_last) {
        if (ec.value() != EAGAIN)
            return ec;
        if (type_ == ZMQ_REQ) // whose state libzmq can't set back
            return error_code(EHOSTUNREACH, zeromq_category());
        zeromq_part end;
        if (!is_last && (type_ == ZMQ_PUSH || type_ == ZMQ_DEALER))
            send_part(end, 0); // libzmq drops all parts up to the last one
        return ec;
    }

    /// libzmq has either all parts of a message or none.
    error_code receive_all(zeromq_message& m) {
        do {
            zeromq_part p;
            if (const error_code ec =
                    call([&] { return zmq_msg_recv(p.native_handle(), socket_, ZMQ_DONTWAIT); }))
                return ec;
            m.add(std::move(p));
        } while (zmq_msg_more(m.back().native_handle()));
        return error_code();
    }

    // ---- completing -----------------------------------------------------------------------------

    void finish(send_position p, const error_code& ec) {
        send_operation done = std::move(p->operation);
        sends_.erase(p);
        done.complete(ec);
    }

    void finish(receive_position p, const error_code& ec, zeromq_message m) {
        receive_operation done = std::move(*p);
        receives_.erase(p);
        done.complete(ec, ec ? zeromq_message() : std::move(m));
    }

    void complete_all(const error_code& ec) {
        while (!sends_.empty())
            finish(sends_.begin(), ec);
        while (!receives_.empty())
            finish(receives_.begin(), ec, zeromq_message());
    }

    basic_registration<Executor> holder_; // of the executor, also when the context is gone
    void* socket_ = nullptr;
    bool is_owned_ = false;
    int fd_ = -1;
    int type_ = -1;
    list_of<send> sends_;
    list_of<receive_operation> receives_;
    bool is_waiting_ = false;                      // the source has an interest
    std::optional<basic_source<Executor>> source_; // once an operation had to wait
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_ZMQ_SESSION_HPP
