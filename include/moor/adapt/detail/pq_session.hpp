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
//   2. While a cancel request is on its way, no result is taken from libpq, unless the connection
//      broke. So no other command starts, and the request can hit none but the present one.
//   3. No handler is invoked within a member: completing an operation queues its handler.
//   4. Without a pending operation there is no interest: an idle connection costs nothing.
//

#ifndef MOOR_ADAPT_DETAIL_PQ_SESSION_HPP
#define MOOR_ADAPT_DETAIL_PQ_SESSION_HPP

#include <moor/adapt/detail/pq_cancel.hpp>
#include <moor/adapt/detail/pq_hosts.hpp>
#include <moor/adapt/libpq_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/source.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/recycling_allocator.hpp>

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
    using ec_operation = operation<void(error_code)>;
    using result_operation = operation<void(error_code, pq_result)>;
    using row_operation = operation<void(error_code, std::string)>;
    using notification_operation = operation<void(error_code, pq_notification)>;
    template <class T>
    using list_of = std::list<T, boost::asio::recycling_allocator<T>>;

    /// A command that was sent, or a wait for what another call has sent.
    struct command {
        enum kind_type {
            whole,  // all results of a command; the last one, or the error, is passed on
            single, // the next result, or the null pointer behind the last one
            row,    // the next row of COPY TO
            sync    // the end of the pipeline's segment
        };

        kind_type kind = whole;
        result_operation result{};
        row_operation row_of_copy{};
        ec_operation at_sync{};
        pq_result kept{};
        bool has_all_rows = false;
        boost::asio::cancellation_type_t cancelled = boost::asio::cancellation_type::none;
        bool must_cancel = false; // ask the server to
    };
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
    void touch() {
        if (source_)
            source_->touch();
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
    void connect(Handler&& handler, std::string connection_string) {
        close();
        begin_connect(std::forward<Handler>(handler));
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

    /// Goes on with a connection that PQconnectStart has begun; or begins a PQresetStart.
    template <class Handler>
    void go_on_connecting(Handler&& handler, bool is_reset) {
        if (!connection_) {
            begin_connect(std::forward<Handler>(handler));
            return complete(connect_, boost::asio::error::not_connected);
        }
        complete_all(boost::asio::error::operation_aborted);
        begin_connect(std::forward<Handler>(handler));
        source_.reset(); // before libpq closes the descriptor
        if (is_reset && !PQresetStart(connection_))
            return fail_to_connect(pq_error::connection_failed);
        start_polling(is_reset);
    }

    // ---- commands -------------------------------------------------------------------------------

    /// `send()` calls libpq, and returns 1 if libpq has accepted the command.
    template <class Handler, class Send>
    void execute(Handler&& handler, Send send) {
        const position c = add(command::whole, &command::result,
                               result_operation::start(std::forward<Handler>(handler), executor()));
        if (const error_code ec = refusal(send)) {
            finish(c, ec, nullptr);
            return;
        }
        request_flush(); // for each: or else the results come with those of the last command
        started(c, c->result);
    }

    template <class Handler>
    void get_result(Handler&& handler) {
        const position c = add(command::single, &command::result,
                               result_operation::start(std::forward<Handler>(handler), executor()));
        if (!is_open())
            return finish(c, boost::asio::error::not_connected, nullptr);
        has_unflushed_ = true;
        started(c, c->result);
    }

    template <class Handler>
    void get_copy(Handler&& handler) {
        const position c = add(command::row, &command::row_of_copy,
                               row_operation::start(std::forward<Handler>(handler), executor()));
        if (!is_open())
            return finish(c, boost::asio::error::not_connected, nullptr);
        started(c, c->row_of_copy);
    }

    template <class Handler, class Send>
    void synchronize(Handler&& handler, Send send) {
        const position c = add(command::sync, &command::at_sync,
                               ec_operation::start(std::forward<Handler>(handler), executor()));
        if (const error_code ec = refusal(send))
            return finish(c, ec, nullptr);
        has_unflushed_ = false;
        started(c, c->at_sync);
    }

    template <class Handler>
    void put_copy(Handler&& handler, const char* data, std::size_t size) {
        ec_operation op = ec_operation::start(std::forward<Handler>(handler), executor());
        const bool is_too_long = size > std::size_t((std::numeric_limits<int>::max)());
        error_code ec =
            put_ || is_too_long ? error_code(pq_error::request_refused) : refusal([&](PGconn* c) {
                return PQputCopyData(c, data, static_cast<int>(size));
            });
        if (ec)
            return op.complete(ec);
        put_ = std::move(op);
        put_.on_cancel([this](boost::asio::cancellation_type_t) {
            complete(put_, boost::asio::error::operation_aborted);
            touch();
        });
        touch();
    }

    template <class Handler>
    void wait_for_notification(Handler&& handler) {
        const auto n = notifications_.insert(
            notifications_.end(),
            notification_operation::start(std::forward<Handler>(handler), executor()));
        if (!is_open())
            return notify(n, boost::asio::error::not_connected, nullptr);
        n->on_cancel([this, n](boost::asio::cancellation_type_t) {
            notify(n, boost::asio::error::operation_aborted, nullptr);
            touch();
        });
        touch();
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
    void begin_connect(Handler&& handler) {
        connect_ = ec_operation::start(std::forward<Handler>(handler), executor());
        connect_.on_cancel([this](boost::asio::cancellation_type_t) { close(); });
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
        complete(connect_, ec);
    }

    // ---- the source -----------------------------------------------------------------------------

    wants prepare() {
        wants w;
        int unsent = 0;
        if (phase_ == open) {
            unsent = flush();
            if (unsent == 0)
                complete(put_, error_code());
            take_results();
            take_notifications();
            if (phase_ == open && PQstatus(connection_) != CONNECTION_OK)
                lose(pq_error::connection_lost);
        }
        if (!connection_) // it was closed, since a cancel request failed
            return w;
        w.fd = PQsocket(connection_); // negative once the connection broke
        if (phase_ == connecting) {
            w.events = polled_ == PGRES_POLLING_READING ? interest::readable : interest::writable;
        } else if (put_ || !commands_.empty() || !notifications_.empty()) {
            w.events = interest::readable;
            if (unsent == 1) // then libpq wants to read, too: the server may wait for that
                w.events |= interest::writable;
            if (!commands_.empty() && commands_.front().must_cancel && !canceller_.is_running())
                w.until = next_request_;
        }
        return w;
    }

    void dispatch(const error_code& ec) {
        if (ec && ec != boost::asio::error::timed_out)
            return phase_ == connecting ? fail_to_connect(ec) : lose(ec);
        if (phase_ == connecting)
            poll();
        else if (phase_ == open && !PQconsumeInput(connection_))
            keep_message(); // prepare() passes on what libpq has, and then the loss
    }

    /// 0: everything is sent; 1: there is more to send, when the socket is writable or readable.
    int flush() {
        if (std::exchange(has_unflushed_, false))
            request_flush();
        return PQflush(connection_);
    }

    /// Otherwise the server keeps the results of a pipeline until the next synchronization.
    void request_flush() {
#if defined(LIBPQ_HAS_PIPELINING)
        if (is_pipeline())
            PQsendFlushRequest(connection_);
#endif
    }

    void take_results() {
        while (!commands_.empty()) {
            if (canceller_.is_running() && PQstatus(connection_) == CONNECTION_OK)
                return;
            const position c = commands_.begin();
            if (advance(c))
                continue;
            if (c->must_cancel && clock::now() >= next_request_ && !canceller_.start(connection_))
                cancel_is_over(false);
            return;
        }
    }

    /// Takes what libpq has for the first command. False: the command goes on.
    bool advance(position c) {
        if (c->kind == command::row && !c->has_all_rows) {
            char* bytes = nullptr;
            const int size = PQgetCopyData(connection_, &bytes, 1);
            if (size == 0)
                return false;
            if (size > 0) {
                std::string text(bytes, static_cast<std::size_t>(size));
                PQfreemem(bytes);
                finish_row(c, error_code(), std::move(text));
                return true;
            }
            c->has_all_rows = true; // the results say how the copy ended
        }
        for ([[maybe_unused]] bool was_end = false;;) {
            if (PQisBusy(connection_))
                return false;
            pq_result r(PQgetResult(connection_));
            const ExecStatusType status = PQresultStatus(r.get());
            if (c->kind == command::single) {
                const error_code ec = pq_error_of(r.get());
                finish(c, ec, std::move(r));
                return true;
            }
#if defined(LIBPQ_HAS_PIPELINING)
            was_end = was_end && !r;
            if (status == PGRES_PIPELINE_SYNC) {
                if (c->kind != command::sync)
                    continue;
                finish(c, error_code(), nullptr);
                return true;
            }
            if (c->kind == command::sync && (r || !std::exchange(was_end, true)))
                continue; // the results of commands that nobody waits for
#endif
            const bool is_copy =
                status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
            const bool is_end = !r || is_copy;
            if (r && !pq_error_of(c->kept.get()))
                c->kept = std::move(r); // the first error, or else the last result
            if (!is_end)
                continue;
            pq_result kept = std::move(c->kept);
            error_code ec = kept ? pq_error_of(kept.get()) : pq_error::request_refused;
            if (ec && pq_sqlstate_of(ec).empty() && PQstatus(connection_) != CONNECTION_OK)
                ec = pq_error::connection_lost;
            finish(c, ec, std::move(kept));
            return true;
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
    template <class Operation>
    void started(position c, Operation& op) {
        op.on_cancel([this, c](boost::asio::cancellation_type_t type) {
            c->cancelled |= type;
            c->must_cancel = true;
            if (!is_pipeline()) {
                commands_.front().cancelled |= type;
                commands_.front().must_cancel = true;
            }
            next_request_ = clock::time_point();
            pause_ = first_pause;
            touch();
        });
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

    template <class Operation>
    position add(typename command::kind_type kind, Operation command::*member, Operation op) {
        const position c = commands_.emplace(commands_.end());
        c->kind = kind;
        (*c).*member = std::move(op);
        return c;
    }

    template <class Send>
    error_code refusal(Send send) {
        if (!is_open())
            return boost::asio::error::not_connected;
        if (send(connection_) == 1)
            return error_code();
        keep_message();
        if (PQstatus(connection_) == CONNECTION_OK)
            return pq_error::request_refused;
        touch(); // so that all others are told
        return pq_error::connection_lost;
    }

    void finish(position c, error_code ec, pq_result r) {
        if (ec && connection_) {
            keep_message();
            if (r)
                message_ = PQresultErrorMessage(r.get());
        }
        command done = std::move(*c);
        commands_.erase(c);
        done.result.complete(ec, std::move(r));
        done.at_sync.complete(ec);
        // The end of a copy that went well.
        done.row_of_copy.complete(ec ? ec : error_code(boost::asio::error::eof), std::string());
    }

    void finish_row(position c, error_code ec, std::string text) {
        command done = std::move(*c);
        commands_.erase(c);
        done.row_of_copy.complete(ec, std::move(text));
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
            finish(commands_.begin(), ec, nullptr);
        while (!notifications_.empty())
            notify(notifications_.begin(), ec, nullptr);
    }

    /// The connection broke. It stays, for its message, and to be reset.
    void lose(error_code ec) {
        keep_message();
        phase_ = closed;
        complete_all(ec);
    }

    void keep_message() {
        if (connection_)
            message_ = PQerrorMessage(connection_);
    }

    PGconn* connection_ = nullptr;
    bool is_owned_ = false;
    bool was_blocking_ = true;
    bool is_reset_ = false;
    bool has_unflushed_ = false; // perhaps, what the program has sent
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
