//
// moor/adapt/detail/mosquitto_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A client of libmosquitto in a loop: the pending operations, and the source that runs the library.
//
//   connect_, disconnect_                  wait for the begin and the end of the connection
//   publishes_, subscribes_, unsubscribes_ wait for the broker's acknowledgements, by message id
//   receives_                              wait for a message each; queue_ is empty meanwhile
//   queue_                                 messages that the program has not received yet
//
// Phases: closed -> calling (a thread uses the handle, see mosquitto_call.hpp) -> connecting (TCP,
// TLS, CONNECT, CONNACK) -> open -> ending (DISCONNECT is being sent) -> closed.
//
// Invariants
//   1. There is a source from the phase connecting on. Before each wait, prepare() lets
//      libmosquitto write all queued packets, also those that callbacks have queued.
//   2. libmosquitto calls the session's callbacks within the library's functions. The callbacks
//      complete operations, which posts the handlers, and invoke no code of the program.
//   3. While a thread runs, nothing but the thread uses the handle, and no callback of the session
//      is set.
//
// libmosquitto does not report whether a call ended because a read or a write would block. errno
// does: the last read or write of such a call sets errno to EAGAIN. A callback of the program may
// set errno, too: see of(). (Not so the callback for the log, which libmosquitto may call last. If
// this callback leaves EAGAIN in errno, TLS data behind the packet waits for more data.)
//

#ifndef MOOR_ADAPT_DETAIL_MOSQUITTO_SESSION_HPP
#define MOOR_ADAPT_DETAIL_MOSQUITTO_SESSION_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/mosquitto_call.hpp>
#include <moor/adapt/mosquitto_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/source.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/throw_exception.hpp>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include <mosquitto.h>
#include <sys/socket.h>

namespace moor {
namespace adapt {
namespace detail {

/// The operations that wait for an acknowledgement, by message id.
template <class Signature>
class mosquitto_acknowledgements {
public:
    using operation_type = operation<Signature>;

    template <class... Cancelled>
    void add(int id, operation_type op, const Cancelled&... cancelled) {
        const auto at = pending_.emplace(id, std::move(op));
        at->second.on_cancel([this, at, cancelled...](boost::asio::cancellation_type_t) {
            operation_type done = std::move(at->second);
            pending_.erase(at);
            done.complete(cancelled...);
        });
    }

    /// The operation that waits for this id; an empty one if none does.
    operation_type take(int id) {
        const auto at = pending_.lower_bound(id); // the earliest, if a number came round again
        if (at == pending_.end() || at->first != id)
            return operation_type();
        operation_type op = std::move(at->second);
        pending_.erase(at);
        return op;
    }

    operation_type take_any() {
        return pending_.empty() ? operation_type() : take(pending_.begin()->first);
    }

    bool empty() const noexcept { return pending_.empty(); }

private:
    using value = std::pair<const int, operation_type>;
    std::multimap<int, operation_type, std::less<int>, boost::asio::recycling_allocator<value>>
        pending_;
};

template <class Executor>
class mosquitto_session {
    using ec_operation = operation<void(error_code)>;
    using subscribe_operation = operation<void(error_code, int)>;
    using receive_operation = operation<void(error_code, mqtt_message)>;
    using clock = std::chrono::steady_clock;

public:
    using handle_ptr = std::shared_ptr<::mosquitto>;

    mosquitto_session(const Executor& ex, handle_ptr handle)
        : handle_(std::move(handle)),
          user_data_(handle_ ? mosquitto_userdata(handle_.get()) : nullptr),
          caller_(ex, [this](error_code ec) { called(ec); }) {}
    mosquitto_session(const mosquitto_session&) = delete;
    mosquitto_session& operator=(const mosquitto_session&) = delete;
    ~mosquitto_session() {
        close();
        set_callbacks(false);
    }

    const Executor& executor() const noexcept { return caller_.executor(); }
    ::mosquitto* native_handle() const noexcept {
        return caller_.is_running() ? nullptr : handle_.get();
    }
    bool is_open() const noexcept { return phase_ == open; }
    bool is_session_present() const noexcept { return is_session_present_; }
    void limit_queue(std::size_t n) noexcept { max_queued_ = n; }

    /// libmosquitto was called, and may have queued a packet.
    void touch() {
        if (source_ && has_connection() && mosquitto_want_write(handle_.get()))
            source_->touch();
    }

    // ---- the connection -------------------------------------------------------------------------

    template <class Handler>
    void connect(Handler&& handler, mosquitto_target to) {
        close();
        connect_ = ec_operation::start(std::forward<Handler>(handler), executor());
        if (!handle_ || has_null(to.host))
            return complete(connect_, mosquitto_error::invalid_argument);
        if (caller_.error())
            return complete(connect_, caller_.error());
        connect_.on_cancel([this](boost::asio::cancellation_type_t) { close(); });
        target_ = std::move(to);
        phase_ = calling;
        must_call_ = caller_.is_running(); // then once the earlier call is over
        if (!must_call_)
            begin_to_connect();
    }

    template <class Handler>
    void disconnect(Handler&& handler) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        if (phase_ == closed || phase_ == ending)
            return op.complete(phase_ == ending ? boost::asio::error::already_started
                                                : boost::asio::error::not_connected);
        if (phase_ != open) {
            close();
            return op.complete(error_code());
        }
        phase_ = ending;
        disconnect_ = std::move(op);
        disconnect_.on_cancel([this](boost::asio::cancellation_type_t) {
            complete(disconnect_, boost::asio::error::operation_aborted);
        });
        errno = 0;
        const int result = mosquitto_disconnect(handle_.get()); // may end the connection at once
        if (result != MOSQ_ERR_SUCCESS)
            end(mosquitto_error_of(result, errno));
        touch();
    }

    void close() { end(boost::asio::error::operation_aborted); }

    // ---- messages -------------------------------------------------------------------------------

    template <class Handler>
    void publish(Handler&& handler, const std::string& topic, const std::string& payload, int qos,
                 bool retain) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        if (phase_ != open) // or else libmosquitto would fail, and send the message later
            return op.complete(boost::asio::error::not_connected);
        if (payload.size() > std::size_t((std::numeric_limits<int>::max)()))
            return op.complete(mosquitto_error::payload_too_long);
        if (has_null(topic))
            return op.complete(mosquitto_error::invalid_argument);
        int id = 0;
        early_result early{id};
        early_result* const outer = std::exchange(early_, &early);
        errno = 0;
        const int result =
            mosquitto_publish(handle_.get(), &id, topic.c_str(), static_cast<int>(payload.size()),
                              payload.data(), qos, retain);
        const int error = errno;
        early_ = outer;
        touch();
        if (result != MOSQ_ERR_SUCCESS)
            return op.complete(mosquitto_error_of(result, error));
        if (early.is_there)
            return op.complete(early.ec);
        publishes_.add(id, std::move(op), aborted());
    }

    template <class Handler>
    void subscribe(Handler&& handler, const std::string& pattern, int qos) {
        subscribe_operation op =
            subscribe_operation::start(std::forward<Handler>(handler), executor());
        int id = 0;
        if (const error_code ec = request(pattern, [&](const char* p) {
                return mosquitto_subscribe(handle_.get(), &id, p, qos);
            }))
            return op.complete(ec, 0);
        subscribes_.add(id, std::move(op), aborted(), 0);
    }

    template <class Handler>
    void unsubscribe(Handler&& handler, const std::string& pattern) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        int id = 0;
        if (const error_code ec = request(pattern, [&](const char* p) {
                return mosquitto_unsubscribe(handle_.get(), &id, p);
            }))
            return op.complete(ec);
        unsubscribes_.add(id, std::move(op), aborted());
    }

    template <class Handler>
    void receive(Handler&& handler) {
        receive_operation op = receive_operation::start(std::forward<Handler>(handler), executor());
        if (!queue_.empty()) {
            op.complete(error_code(), std::move(queue_.front()));
            return queue_.pop_front();
        }
        if (std::exchange(has_dropped_, false))
            return op.complete(mosquitto_error::messages_dropped, mqtt_message());
        if (phase_ == closed)
            return op.complete(boost::asio::error::not_connected, mqtt_message());
        const auto at = receives_.insert(receives_.end(), std::move(op));
        at->on_cancel([this, at](boost::asio::cancellation_type_t) {
            receive_operation done = std::move(*at);
            receives_.erase(at);
            done.complete(aborted(), mqtt_message());
        });
    }

private:
    enum phase_type { closed, calling, connecting, open, ending };

    /// What libmosquitto reports within mosquitto_publish, for the id that the function has set.
    struct early_result {
        const int& id;
        bool is_there = false;
        error_code ec{};
    };

    bool has_connection() const noexcept { return phase_ >= connecting; }

    static error_code aborted() { return boost::asio::error::operation_aborted; }

    // ---- connecting -----------------------------------------------------------------------------

    void begin_to_connect() {
        must_call_ = false;
        refusal_ = error_code();
        set_callbacks(false);
        const bool is_name = target_.is_name();
        const error_code ec =
            is_name ? caller_.start(handle_, target_) : caller_.connect(handle_, target_);
        if (ec)
            end(ec);
        else if (!is_name)
            watch();
    }

    /// The thread has ended, or the wait for the thread has failed.
    void called(error_code ec) {
        if (caller_.is_running())
            return end(ec);
        if (must_call_)
            return begin_to_connect();
        if (phase_ != calling) // the operation was cancelled
            return hang_up();
        if (ec)
            return end(ec);
        watch();
    }

    void watch() {
        phase_ = connecting;
        is_tcp_pending_ = true;
        keep_alive_ = target_.keep_alive;
        next_work_ = clock::now() + pause;
        set_callbacks(true);
        if (source_)
            return source_->touch();
        source_.emplace(
            executor(), [this] { return prepare(); },
            [this](error_code ec, readiness ready) { dispatch(ec, ready); });
        source_->keeps_running(false); // the operations do
    }

    /// Ends the connection for the broker. libmosquitto has no function that closes the descriptor:
    /// the library does so when it connects again, and when the handle is destroyed. When the
    /// library has found the end itself, the descriptor is closed, and the number may be another
    /// file's: then the source abandons the number after its next prepare().
    void hang_up() {
        const int fd = native_handle() ? mosquitto_socket(handle_.get()) : -1;
        if (fd >= 0) {
            source_.reset();
            ::shutdown(fd, SHUT_RDWR);
        } else if (source_) {
            source_->touch_now();
        }
    }

    void end(error_code ec) {
        if (std::exchange(phase_, closed) >= connecting)
            hang_up();
        must_call_ = false;
        if (refusal_)
            ec = std::exchange(refusal_, error_code());
        complete(connect_, ec);
        complete(disconnect_, ec);
        while (ec_operation op = publishes_.take_any())
            op.complete(ec);
        while (subscribe_operation op = subscribes_.take_any())
            op.complete(ec, 0);
        while (ec_operation op = unsubscribes_.take_any())
            op.complete(ec);
        while (!receives_.empty())
            complete_receive(ec, mqtt_message());
    }

    // ---- the source -----------------------------------------------------------------------------

    wants prepare() {
        wants w;
        if (!has_connection())
            return w;
        bool is_blocked = is_tcp_pending_;
        if (!is_tcp_pending_ && mosquitto_want_write(handle_.get())) {
            do { // each call writes all queued packets
                errno = 0;
            } while (check(mosquitto_loop_write(handle_.get(), 1)) && errno == EINTR);
            // (During the handshake of TLS, the call writes nothing, and no write would block.)
            is_blocked = errno == EAGAIN || errno == EWOULDBLOCK;
        }
        if (!has_connection())
            return w;
        w.fd = mosquitto_socket(handle_.get());
        w.events = is_tcp_pending_ ? interest() : interest::readable;
        if (phase_ == connecting)
            w.events |= interest::read_closed;
        if (is_blocked)
            w.events |= interest::writable;
        if (keep_alive_ != 0)
            w.until = next_work_;
        return w;
    }

    void dispatch(const error_code& ec, readiness ready) {
        if (!has_connection()) // the event is of an earlier connection
            return;
        if (ec && ec != boost::asio::error::timed_out)
            return end(ec);
        if (phase_ == connecting && !ready.empty()) {
            // libmosquitto ignores errors of the socket during the handshake of TLS.
            int error = 0;
            ::socklen_t size = sizeof(error);
            ::getsockopt(mosquitto_socket(handle_.get()), SOL_SOCKET, SO_ERROR, &error, &size);
            if (error != 0)
                return end(error_code(error, boost::system::system_category()));
        }
        if (clock::now() >= next_work_) {
            next_work_ = clock::now() + pause;
            if (!check(mosquitto_loop_misc(handle_.get())))
                return;
        }
        if (ready.empty())
            return;
        const bool was_tcp_pending = std::exchange(is_tcp_pending_, false);
        // (Only loop_read goes on with the handshake of TLS, whatever the socket is ready for.)
        n_called_ = 0;
        for (unsigned i = 0; i != max_reads && n_called_ < max_reads;
             ++i) { // a packet or more each
            errno = 0;
            if (!check(mosquitto_loop_read(handle_.get(), 1)))
                return;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                break;
        }
        // libmosquitto does not notice the end during the handshake of TLS, and may have taken the
        // socket's error in mosquitto_connect_async already.
        if (phase_ == connecting && ready.is_read_closed())
            end(was_tcp_pending ? error_code(boost::asio::error::connection_refused)
                                : error_code(mosquitto_error::connection_lost));
    }

    /// False: the connection has ended.
    bool check(int result) {
        const int error = errno;
        // A handshake of TLS that fails closes the socket without a callback.
        if (has_connection() && mosquitto_socket(handle_.get()) < 0)
            end(mosquitto_error_of(result == MOSQ_ERR_SUCCESS ? MOSQ_ERR_CONN_LOST : result,
                                   error));
        errno = error;
        return has_connection();
    }

    // ---- libmosquitto's callbacks ---------------------------------------------------------------

    /// Sets the callbacks that know reason codes, so that the program may set the others.
    void set_callbacks(bool are_set) {
        ::mosquitto* const m = native_handle();
        if (!m)
            return;
        mosquitto_user_data_set(m, are_set ? this : user_data_);
        mosquitto_connect_v5_callback_set(m, are_set ? &on_connect : nullptr);
        mosquitto_disconnect_v5_callback_set(m, are_set ? &on_disconnect : nullptr);
        mosquitto_publish_v5_callback_set(m, are_set ? &on_publish : nullptr);
        mosquitto_subscribe_v5_callback_set(m, are_set ? &on_subscribe : nullptr);
        mosquitto_unsubscribe_v5_callback_set(m, are_set ? &on_unsubscribe : nullptr);
        mosquitto_message_v5_callback_set(m, are_set ? &on_message : nullptr);
    }

    /// The program's callback comes first. If this callback publishes, libmosquitto also writes to
    /// a socket pair of its own, which may be full. The errno of this write says nothing of the
    /// connection.
    static mosquitto_session& of(void* self) noexcept {
        errno = 0;
        auto& s = *static_cast<mosquitto_session*>(self);
        ++s.n_called_;
        return s;
    }

    static void on_connect(::mosquitto*, void* self, int reason, int flags,
                           const mosquitto_property* properties) {
        auto& s = of(self);
        s.refusal_ = connack_error_of(reason);
        if (s.refusal_ || s.phase_ != connecting)
            return;                // on_disconnect comes
        std::uint16_t seconds = 0; // of the broker, which may differ
        if (mosquitto_property_read_int16(properties, MQTT_PROP_SERVER_KEEP_ALIVE, &seconds, false))
            s.keep_alive_ = seconds;
        s.is_session_present_ = (flags & 1) != 0;
        s.phase_ = open;
        complete(s.connect_, error_code());
    }

    static void on_disconnect(::mosquitto* m, void* self, int result, const mosquitto_property*) {
        const int error = errno;
        auto& s = *static_cast<mosquitto_session*>(self);
        if (s.phase_ == closed)
            return;
        if (result != MOSQ_ERR_SUCCESS)
            return s.end(mosquitto_error_of(result, error));
        // Either the broker has sent DISCONNECT; or the connection was lost before the client's
        // DISCONNECT was written, which libmosquitto reports as a success.
        if (s.phase_ != ending || mosquitto_want_write(m))
            return s.end(mosquitto_error::connection_lost);
        complete(s.disconnect_, error_code());
        s.close();
    }

    static void on_publish(::mosquitto*, void* self, int id, int reason,
                           const mosquitto_property*) {
        auto& s = of(self);
        if (!s.early_ || s.early_->id != id)
            return s.publishes_.take(id).complete(mqtt_error_of(reason));
        s.early_->is_there = true;
        s.early_->ec = mqtt_error_of(reason);
    }

    static void on_subscribe(::mosquitto*, void* self, int id, int count, const int* granted,
                             const mosquitto_property*) {
        const int qos = count > 0 ? granted[0] : 0;
        subscribe_operation op = of(self).subscribes_.take(id);
        const error_code ec = mqtt_error_of(qos);
        op.complete(ec, ec ? 0 : qos);
    }

    static void on_unsubscribe(::mosquitto*, void* self, int id, const mosquitto_property*) {
        of(self).unsubscribes_.take(id).complete(error_code());
    }

    static void on_message(::mosquitto*, void* self, const mosquitto_message* m,
                           const mosquitto_property* properties) {
        auto& s = of(self);
        if (s.has_dropped_ || (s.receives_.empty() && s.queue_.size() >= s.max_queued_)) {
            s.has_dropped_ = true; // until reported, so that the gap is where the program is told
            return;
        }
        // An exception must not pass through libmosquitto, which holds a lock here.
        BOOST_TRY {
            if (s.receives_.empty())
                s.queue_.push_back(copy_of(*m, properties));
            else
                s.complete_receive(error_code(), copy_of(*m, properties));
        }
        BOOST_CATCH(const std::bad_alloc&) {
            if (s.receives_.empty())
                s.has_dropped_ = true;
            else
                s.complete_receive(mosquitto_error::messages_dropped, mqtt_message());
        }
        BOOST_CATCH_END
    }

    static mqtt_message copy_of(const mosquitto_message& m, const mosquitto_property* properties) {
        mqtt_message copy;
        copy.topic = m.topic;
        if (m.payloadlen > 0)
            copy.payload.assign(static_cast<const char*>(m.payload),
                                static_cast<std::size_t>(m.payloadlen));
        copy.qos = m.qos;
        copy.retain = m.retain;
        mosquitto_property* list = nullptr;
        if (properties && mosquitto_property_copy_all(&list, properties) != MOSQ_ERR_SUCCESS)
            boost::throw_exception(std::bad_alloc());
        copy.properties.reset(list);
        return copy;
    }

    // ---- completing -----------------------------------------------------------------------------

    template <class Send>
    error_code request(const std::string& pattern, Send send) {
        if (phase_ != open)
            return boost::asio::error::not_connected;
        if (has_null(pattern))
            return mosquitto_error::invalid_argument;
        errno = 0;
        const int result = send(pattern.c_str());
        const int error = errno;
        touch();
        return mosquitto_error_of(result, error);
    }

    static void complete(ec_operation& op, const error_code& ec) {
        ec_operation done = std::move(op);
        done.complete(ec);
    }

    void complete_receive(const error_code& ec, mqtt_message m) {
        receive_operation done = std::move(receives_.front());
        receives_.pop_front();
        done.complete(ec, std::move(m));
    }

    static constexpr std::chrono::seconds pause{1}; // between calls of mosquitto_loop_misc
    // Before other work of the loop. (One call reads as many packets as there are messages of QoS 1
    // and 2 on their way, but no more than the kernel has.)
    static constexpr unsigned max_reads = 64;

    handle_ptr handle_;
    void* const user_data_; // of the program, while no callback is set
    phase_type phase_ = closed;
    mosquitto_target target_;
    bool must_call_ = false;      // once the thread is over
    bool is_tcp_pending_ = false; // connect(2) goes on
    bool is_session_present_ = false;
    int keep_alive_ = 0;
    clock::time_point next_work_; // of mosquitto_loop_misc
    error_code refusal_;          // the error in CONNACK
    unsigned n_called_ = 0;       // callbacks in this turn

    ec_operation connect_, disconnect_;
    mosquitto_acknowledgements<void(error_code)> publishes_, unsubscribes_;
    mosquitto_acknowledgements<void(error_code, int)> subscribes_;
    early_result* early_ = nullptr; // within mosquitto_publish

    std::list<receive_operation, boost::asio::recycling_allocator<receive_operation>> receives_;
    std::deque<mqtt_message> queue_;
    std::size_t max_queued_ = 10000;
    bool has_dropped_ = false;

    std::optional<basic_source<Executor>> source_;
    mosquitto_caller<Executor> caller_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_MOSQUITTO_SESSION_HPP
