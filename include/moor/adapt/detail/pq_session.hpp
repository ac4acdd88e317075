//
// moor/adapt/detail/pq_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A connection of libpq in a loop: what is pending, and what libpq waits for.
//
//   commands_       wait for results, in the order in which the commands were sent
//   put_            waits until libpq has given all data to the kernel
//   notifications_  wait for a notification each
//   connect_        waits for the connection
//
// Invariants
//   1. libpq is asked for results only in prepare(), which the source calls before each wait: after
//      each event, and after each initiation (touch). So what came together with something else is
//      found without an event of its own.
//   2. While a cancel request is being sent, no result is taken from libpq, unless the connection
//      broke. So no other command starts, and the request can hit none but the present one.
//   3. No handler is invoked within a member: completing an operation queues its handler.
//   4. Without a pending operation there is no interest: an idle connection costs nothing.
//   5. An initiating function that throws has sent nothing, and its handler is not invoked. Where
//      memory runs out later, the connection is given up, and all operations complete (lose).
//

#ifndef MOOR_ADAPT_DETAIL_PQ_SESSION_HPP
#define MOOR_ADAPT_DETAIL_PQ_SESSION_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/pq_cancel.hpp>
#include <moor/adapt/detail/pq_command.hpp>
#include <moor/adapt/detail/pq_hosts.hpp>
#include <moor/adapt/libpq_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/source.hpp>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <chrono>
#include <cstddef>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <libpq-fe.h>

namespace moor {
namespace adapt {
namespace detail {

template <class Executor>
class pq_session {
    using ec_operation = pq_command::ec_operation;
    using result_operation = pq_command::result_operation;
    using row_operation = pq_command::row_operation;
    using notification_operation = operation<void(error_code, pq_notification)>;
    template <class T>
    using list_of = std::list<T, boost::asio::recycling_allocator<T>>;

    using command = pq_command;
    using position = typename list_of<command>::iterator;
    using clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds first_pause{50};

public:
    explicit pq_session(const Executor& ex)
        : canceller_(ex, [this](bool is_sent) { cancel_is_over(is_sent); }) {}
    pq_session(const pq_session&) = delete;
    pq_session& operator=(const pq_session&) = delete;
    ~pq_session() { close(); }

    const Executor& executor() const noexcept { return canceller_.executor(); }
    PGconn* native_handle() const noexcept { return connection_; }
    bool is_open() const noexcept { return phase_ == open; }
    const std::string& message() const noexcept { return message_; }

    /// libpq was called, and may wait for something else now.
    /**
     * The commands of a pipeline that are started in one turn of the loop are sent together.
     */
    void touch() noexcept {
        if (!source_)
            return;
        BOOST_TRY {
            if (is_pipeline())
                source_->touch();
            else
                source_->touch_now();
        }
        BOOST_CATCH(...) { lose(boost::asio::error::no_memory); }
        BOOST_CATCH_END
    }

    // ---- the connection -------------------------------------------------------------------------

    void adopt(PGconn* c, bool is_owned) {
        close();
        if (!c)
            return;
        connection_ = c;
        is_owned_ = is_owned;
        was_blocking_ = !PQisnonblocking(c);
        if (PQstatus(c) != CONNECTION_OK)
            return;
        phase_ = open;
        PQsetnonblocking(c, 1);
        watch();
    }

    /// Ends what is pending, and gives the connection away.
    PGconn* release() {
        PGconn* const c = forget();
        if (c && was_blocking_)
            PQsetnonblocking(c, 0); // does not block; fails if there is something to send
        return c;
    }

    void close() {
        if (!is_owned_)
            release();
        else if (PGconn* const c = forget())
            PQfinish(c); // in the non-blocking mode, so that it does not wait either
    }

    template <class Handler>
    void connect(Handler&& handler, const std::string& connection_string) {
        ec_operation op = connecting_operation(std::forward<Handler>(handler));
        close();
        connect_ = std::move(op);
        BOOST_TRY { look_up_and_open(connection_string); }
        BOOST_CATCH(...) { fail_to_connect(boost::asio::error::no_memory); }
        BOOST_CATCH_END
    }

    /// Goes on with a connection that PQconnectStart has begun; or begins a PQresetStart.
    template <class Handler>
    void go_on_connecting(Handler&& handler, bool is_reset) {
        ec_operation op = connecting_operation(std::forward<Handler>(handler));
        if (!connection_)
            return op.complete(boost::asio::error::not_connected);
        complete_all(boost::asio::error::operation_aborted);
        connect_ = std::move(op);
        source_.reset(); // before libpq closes the descriptor
        if (is_reset && !PQresetStart(connection_))
            return fail_to_connect(pq_error::connection_failed);
        BOOST_TRY { start_polling(is_reset); }
        BOOST_CATCH(...) { fail_to_connect(boost::asio::error::no_memory); }
        BOOST_CATCH_END
    }

    // ---- commands -------------------------------------------------------------------------------

    /// What `send` returns for a text that libpq would cut off.
    static constexpr int unsuitable_text = -2;

    /// `send()` calls libpq, and returns 1 if libpq has accepted the command.
    template <class Handler, class Send>
    void execute(Handler&& handler, Send send) {
        const bool can_be_cancelled =
            boost::asio::get_associated_cancellation_slot(handler).is_connected();
        list_of<command> c =
            command_of(command::whole, &command::result,
                       result_operation::start(std::forward<Handler>(handler), executor()));
        if (can_be_cancelled) // it has to be known when the command is the present one
            request_results();
        const error_code ec = refusal(send);
        has_unrequested_ = has_unrequested_ || !ec;
        if (can_be_cancelled)
            request_results();
        begin(c, ec);
    }

    template <class Handler>
    void get_result(Handler&& handler) {
        list_of<command> c =
            command_of(command::single, &command::result,
                       result_operation::start(std::forward<Handler>(handler), executor()));
        has_unrequested_ = true;
        begin(c, refusal());
    }

    template <class Handler>
    void get_copy(Handler&& handler) {
        list_of<command> c =
            command_of(command::row, &command::row_of_copy,
                       row_operation::start(std::forward<Handler>(handler), executor()));
        begin(c, refusal());
    }

    template <class Handler, class Send>
    void synchronize(Handler&& handler, Send send) {
        list_of<command> c =
            command_of(command::sync, &command::at_sync,
                       ec_operation::start(std::forward<Handler>(handler), executor()));
        begin(c, refusal(send));
    }

    template <class Handler>
    void put_copy(Handler&& handler, const char* data, std::size_t size) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        op.on_cancel([this](boost::asio::cancellation_type_t) {
            complete(put_, boost::asio::error::operation_aborted);
            touch();
        });
        const bool is_too_long = size > std::size_t((std::numeric_limits<int>::max)());
        error_code ec = refusal();
        if (!ec && (put_ || is_too_long))
            ec = pq_error::request_refused;
        if (!ec)
            ec = refusal([&](PGconn* c) { return PQputCopyData(c, data, static_cast<int>(size)); });
        if (ec)
            return op.complete(ec);
        put_ = std::move(op);
        touch();
    }

    template <class Handler>
    void wait_for_notification(Handler&& handler) {
        list_of<notification_operation> n;
        n.push_back(notification_operation::start(std::forward<Handler>(handler), executor()));
        const auto at = n.begin();
        at->on_cancel([this, at](boost::asio::cancellation_type_t) {
            notify(at, boost::asio::error::operation_aborted, nullptr);
            touch();
        });
        notifications_.splice(notifications_.end(), n);
        if (is_open())
            return touch();
        // A connection that broke may have left some.
        pq_notification kept(PQstatus(connection_) == CONNECTION_BAD ? PQnotifies(connection_)
                                                                     : nullptr);
        const error_code ec = kept ? error_code() : refusal();
        notify(at, ec, std::move(kept));
    }

private:
    enum phase_type { closed, looking_up, connecting, open };

    PGconn* forget() {
        source_.reset(); // first: the descriptor is another's from now on
        if (std::shared_ptr<pq_lookup<Executor>> l = lookup_.lock())
            l->cancel();
        phase_ = closed;
        PGconn* const c = std::exchange(connection_, nullptr);
        complete_all(boost::asio::error::operation_aborted);
        return c;
    }

    // ---- connecting -----------------------------------------------------------------------------

    template <class Handler>
    ec_operation connecting_operation(Handler&& handler) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        op.on_cancel([this](boost::asio::cancellation_type_t) { close(); });
        return op;
    }

    void look_up_and_open(const std::string& connection_string) {
        if (has_null(connection_string))
            return fail_to_connect(pq_error::connection_failed);
        pq_hosts hosts = hosts_to_look_up(connection_string);
        if (hosts.empty())
            return open_connection(connection_string, hosts);
        phase_ = looking_up;
        const auto lookup = std::make_shared<pq_lookup<Executor>>(
            executor(), std::move(hosts),
            [this, connection_string](error_code ec, const pq_hosts& found) {
                if (ec)
                    return fail_to_connect(ec);
                open_connection(connection_string, found);
            });
        lookup_ = lookup;
        lookup->next();
    }

    void open_connection(const std::string& connection_string, const pq_hosts& hosts) {
        const std::string names = join(hosts, &pq_host::name);
        const std::string addresses = join(hosts, &pq_host::address);
        const std::string ports = join(hosts, &pq_host::port);
        const char* const keywords[] = {"dbname", "host", "hostaddr", "port", nullptr};
        const char* const values[] = {connection_string.c_str(), names.c_str(), addresses.c_str(),
                                      ports.c_str(), nullptr};
        connection_ = PQconnectStartParams(keywords, values, 1);
        is_owned_ = was_blocking_ = true;
        if (!connection_)
            return fail_to_connect(boost::asio::error::no_memory);
        start_polling(false);
    }

    void start_polling(bool is_reset) {
        if (PQstatus(connection_) == CONNECTION_BAD)
            return fail_to_connect(pq_error::connection_failed);
        phase_ = connecting;
        is_reset_ = is_reset;
        polled_ = PGRES_POLLING_WRITING; // as libpq wants it before the first step
        watch();
    }

    void watch() {
        source_.emplace(
            executor(), [this] { return prepare(); },
            [this](error_code ec, readiness) { dispatch(ec); });
    }

    /// Each step may close the descriptor, and open another one under the same number.
    void poll() {
        polled_ = is_reset_ ? PQresetPoll(connection_) : PQconnectPoll(connection_);
        if (polled_ == PGRES_POLLING_FAILED)
            return fail_to_connect(pq_error::connection_failed);
        if (polled_ != PGRES_POLLING_OK)
            return;
        phase_ = open;
        PQsetnonblocking(connection_, 1);
        complete(connect_, error_code());
    }

    /// The connection object stays, so that its message can be read, and it can be reset.
    void fail_to_connect(error_code ec) {
        phase_ = closed;
        keep_message();
        char text[128];
        if (!connection_) // libpq was not called
            keep_text(ec.message(text, sizeof(text)));
        complete(connect_, ec);
    }

    // ---- the source -----------------------------------------------------------------------------

    wants prepare() {
        wants w;
        bool is_unsent = false;
        BOOST_TRY { is_unsent = phase_ == open && work(); }
        BOOST_CATCH(...) { lose(boost::asio::error::no_memory); }
        BOOST_CATCH_END
        if (!connection_) // it was closed, since a cancel request failed
            return w;
        w.fd = PQsocket(connection_); // negative once the connection broke
        if (phase_ == connecting) {
            w.events = polled_ == PGRES_POLLING_READING ? interest::readable : interest::writable;
        } else if (put_ || !commands_.empty() || !notifications_.empty()) {
            w.events = interest::readable;
            if (is_unsent) // then libpq wants to read, too: the server may wait for that
                w.events |= interest::writable;
            if (!commands_.empty() && commands_.front().must_cancel && !canceller_.is_running())
                w.until = next_request_;
        }
        return w;
    }

    /// Completes what is over. Returns whether there is more to send, when the socket is writable
    /// or readable.
    bool work() {
        const int unsent = flush();
        if (unsent == 0 && put_) // or it was dropped: only reading tells that the server is gone
            PQconsumeInput(connection_);
        take_results();
        take_notifications();
        if (phase_ != open)
            return false;
        if (unsent < 0 || PQstatus(connection_) != CONNECTION_OK)
            lose(pq_error::connection_lost);
        else if (unsent == 0)
            complete(put_, error_code());
        return unsent == 1;
    }

    void dispatch(const error_code& ec) {
        if (ec && ec != boost::asio::error::timed_out)
            return phase_ == connecting ? fail_to_connect(ec) : lose(ec);
        if (phase_ == connecting)
            poll();
        else if (phase_ == open && !PQconsumeInput(connection_))
            keep_message(); // prepare() passes on what libpq has, and then the loss
    }

    int flush() {
        request_results();
        return PQflush(connection_);
    }

    /// Otherwise the server keeps the results of a pipeline until the next synchronization. For
    /// each request it makes a system call, so there is one for the commands of a turn of the loop.
    void request_results() {
        [[maybe_unused]] const bool is_due = std::exchange(has_unrequested_, false);
#if defined(LIBPQ_HAS_PIPELINING)
        if (is_due && is_pipeline())
            PQsendFlushRequest(connection_);
#endif
    }

    void take_results() {
        while (!commands_.empty()) {
            if (canceller_.is_running() && PQstatus(connection_) == CONNECTION_OK)
                return;
            const position c = commands_.begin();
            if (c->take(connection_)) {
                finish(c);
                continue;
            }
            if (c->must_cancel && clock::now() >= next_request_ && !canceller_.start(connection_))
                cancel_is_over(false);
            return;
        }
    }

    void take_notifications() {
        while (!notifications_.empty()) {
            pq_notification n(PQnotifies(connection_));
            if (!n)
                return;
            notify(notifications_.begin(), error_code(), std::move(n));
        }
    }

    // ---- cancellation ---------------------------------------------------------------------------

    /// Without a pipeline, all that wait for results wait for those of one command. A command that
    /// waits behind others in a pipeline is cancelled when it is the first.
    void cancel(position c, boost::asio::cancellation_type_t type) {
        for (command* each : {&*c, is_pipeline() ? &*c : &commands_.front()}) {
            each->cancelled |= type;
            each->must_cancel = true;
        }
        next_request_ = clock::time_point();
        pause_ = first_pause;
        touch();
    }

    bool is_pipeline() const noexcept {
#if defined(LIBPQ_HAS_PIPELINING)
        return PQpipelineStatus(connection_) != PQ_PIPELINE_OFF;
#else
        return false;
#endif
    }

    /// The server has the request, or it can't be told.
    /**
     * A request that overtakes its command has no effect. So the request is repeated for as long as
     * the command goes on.
     */
    void cancel_is_over(bool is_sent) {
        using boost::asio::cancellation_type;
        if (commands_.empty())
            return;
        command& c = commands_.front();
        if (is_sent) {
            next_request_ = clock::now() + pause_;
            pause_ *= 2;
        } else if ((c.cancelled & cancellation_type::terminal) != cancellation_type::none) {
            return close();
        } else {
            c.must_cancel = false;
        }
        touch();
    }

    // ---- completing -----------------------------------------------------------------------------

    /// A command that can be cancelled once it is in commands_.
    template <class Operation>
    list_of<command> command_of(typename command::kind_type kind, Operation command::*member,
                                Operation op) {
        list_of<command> one;
        const position c = one.emplace(one.end());
        c->kind = kind;
        (*c).*member = std::move(op);
        ((*c).*member).on_cancel([this, c](boost::asio::cancellation_type_t type) {
            cancel(c, type);
        });
        return one;
    }

    /// Has a command wait; or completes it with an error.
    void begin(list_of<command>& one, error_code ec) {
        const position c = one.begin();
        commands_.splice(commands_.end(), one);
        if (ec)
            return fail(c, ec);
        touch();
    }

    error_code refusal() const noexcept {
        return is_open() ? error_code() : boost::asio::error::not_connected;
    }

    template <class Send>
    error_code refusal(Send send) {
        if (!is_open())
            return refusal();
        const int sent = send(connection_);
        if (sent == 1)
            return error_code();
        keep_message();
        if (sent == unsuitable_text)
            keep_text("a text contains a null character, or is too long");
        if (PQstatus(connection_) == CONNECTION_OK)
            return pq_error::request_refused;
        touch(); // so that all others are told
        return pq_error::connection_lost;
    }

    void finish(position c) {
        if (c->ec && c->kept)
            keep_text(PQresultErrorMessage(c->kept.get()));
        else if (c->ec)
            keep_message();
        command done = std::move(*c);
        commands_.erase(c);
        done.complete();
    }

    void fail(position c, error_code ec) {
        c->ec = ec;
        c->kept.reset();
        finish(c);
    }

    void notify(typename list_of<notification_operation>::iterator at, error_code ec,
                pq_notification n) {
        notification_operation done = std::move(*at);
        notifications_.erase(at);
        done.complete(ec, std::move(n));
    }

    static void complete(ec_operation& op, error_code ec) {
        ec_operation done = std::move(op);
        done.complete(ec);
    }

    void complete_all(error_code ec) {
        canceller_.stop();
        complete(connect_, ec);
        complete(put_, ec);
        while (!commands_.empty())
            fail(commands_.begin(), ec);
        while (!notifications_.empty())
            notify(notifications_.begin(), ec, nullptr);
    }

    /// The connection broke. It stays, for its message, and to be reset.
    void lose(error_code ec) {
        keep_message();
        phase_ = closed;
        complete_all(ec);
    }

    void keep_message() noexcept {
        if (connection_)
            keep_text(PQerrorMessage(connection_));
    }

    /// A command of a pipeline that was skipped has no text: the one of its cause stays.
    void keep_text(const char* text) noexcept {
        if (!*text)
            return;
        BOOST_TRY { message_ = text; }
        BOOST_CATCH(...) { message_.clear(); }
        BOOST_CATCH_END
    }

    PGconn* connection_ = nullptr;
    bool is_owned_ = false;
    bool was_blocking_ = true;
    bool is_reset_ = false;
    bool has_unrequested_ = false; // results of commands, also of those that the program has sent
    phase_type phase_ = closed;
    PostgresPollingStatusType polled_ = PGRES_POLLING_WRITING;
    std::string message_;

    std::weak_ptr<pq_lookup<Executor>> lookup_;
    ec_operation connect_, put_;
    list_of<command> commands_;
    list_of<notification_operation> notifications_;
    clock::time_point next_request_; // to cancel the first command
    clock::duration pause_{};
    std::optional<basic_source<Executor>> source_; // while there is a descriptor
    pq_canceller<Executor> canceller_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_PQ_SESSION_HPP
