//
// moor/adapt/detail/pq_cancel.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Asks the server to cancel what it executes for a connection. The request goes over a connection
// of its own. libpq 17 makes this connection without blocking. Earlier versions have PQcancel only,
// which blocks, and export neither the key of the request nor another way. So the request is sent
// on a thread, which lives until PQcancel returns. The thread shares nothing with the execution
// context: it closes its end of a pipe, for which a watcher waits. So the context and the canceller
// may be destroyed at any time.
//

#ifndef MOOR_ADAPT_DETAIL_PQ_CANCEL_HPP
#define MOOR_ADAPT_DETAIL_PQ_CANCEL_HPP

#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/core/no_exceptions_support.hpp>

#include <atomic>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace moor {
namespace adapt {
namespace detail {

#if !defined(LIBPQ_HAS_ASYNC_CANCEL)

/// One request, on a thread of its own with the name "moor-pq-cancel".
class pq_cancel_request {
public:
    pq_cancel_request() = default;
    pq_cancel_request(const pq_cancel_request&) = delete;
    pq_cancel_request& operator=(const pq_cancel_request&) = delete;
    ~pq_cancel_request() {
        if (fd_ >= 0)
            ::close(fd_);
    }

    /// False: the request can't be sent.
    bool start(PGconn* connection) {
        std::unique_ptr<PGcancel, free_cancel> owner(PQgetCancel(connection));
        int ends[2];
        if (!owner || ::pipe(ends) != 0)
            return false;
        fd_ = ends[0];
        ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);
        // The handlers of signals run on the program's threads.
        ::sigset_t all, before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, &before);
        bool has_begun = false;
        BOOST_TRY {
            std::thread(&pq_cancel_request::send, owner.get(), ends[1], is_sent_).detach();
            has_begun = true;
        }
        BOOST_CATCH(const std::system_error&) { ::close(ends[1]); }
        BOOST_CATCH_END
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        if (has_begun)
            owner.release(); // the thread has it
        return has_begun;
    }

    int descriptor() const noexcept { return fd_; }
    interest wanted() const noexcept { return interest::readable; }

    /// The descriptor is ready. True: the request is over.
    bool step() noexcept { return true; }

    /// Whether the server has the request, once it is over.
    bool is_sent() const noexcept { return is_sent_->load(std::memory_order_acquire); }

private:
    struct free_cancel {
        void operator()(PGcancel* c) const noexcept { PQfreeCancel(c); }
    };
    using flag_ptr = std::shared_ptr<std::atomic<bool>>;

    static void send(PGcancel* request, int fd, flag_ptr is_sent) noexcept {
#if defined(__linux__)
        ::pthread_setname_np(::pthread_self(), "moor-pq-cancel");
#endif
        char text[256];
        is_sent->store(PQcancel(request, text, sizeof(text)) == 1, std::memory_order_release);
        PQfreeCancel(request);
        ::close(fd);
    }

    int fd_ = -1;
    flag_ptr is_sent_ = std::make_shared<std::atomic<bool>>(false);
};

#else

/// One request, on a connection of libpq's for it.
class pq_cancel_request {
public:
    /// False: the request can't be sent.
    bool start(PGconn* connection) {
        request_.reset(PQcancelCreate(connection));
        return request_ && PQcancelStart(request_.get()) == 1;
    }

    int descriptor() const noexcept { return PQcancelSocket(request_.get()); }
    interest wanted() const noexcept {
        return polled_ == PGRES_POLLING_READING ? interest::readable : interest::writable;
    }

    /// The descriptor is ready. True: the request is over.
    bool step() noexcept {
        polled_ = PQcancelPoll(request_.get());
        return polled_ == PGRES_POLLING_OK || polled_ == PGRES_POLLING_FAILED;
    }

    /// Whether the server has the request, once it is over.
    bool is_sent() const noexcept { return polled_ == PGRES_POLLING_OK; }

private:
    struct finish_cancel {
        void operator()(PGcancelConn* c) const noexcept { PQcancelFinish(c); }
    };

    std::unique_ptr<PGcancelConn, finish_cancel> request_;
    PostgresPollingStatusType polled_ = PGRES_POLLING_WRITING;
};

#endif

/// Sends one request at a time, and tells when the server has the request.
template <class Executor>
class pq_canceller {
public:
    /// Each request ends with a call of `done(is_sent)`.
    pq_canceller(const Executor& ex, std::function<void(bool)> done)
        : done_(std::move(done)), watcher_(ex, [this](error_code ec, readiness) { on_event(ec); }) {
    }

    const Executor& executor() const noexcept { return watcher_.get_executor(); }

    bool is_running() const noexcept { return request_ != nullptr; }

    /// False: the request can't be sent, and `done` is not called.
    bool start(PGconn* connection) {
        request_ = std::make_unique<pq_cancel_request>();
        if (request_->start(connection) && watch())
            return true;
        stop();
        return false;
    }

    /// Forgets the request, which may go on.
    void stop() noexcept {
        watcher_.detach();
        request_.reset();
    }

private:
    bool watch() {
        error_code ec;
        watcher_.renew(request_->descriptor(), ec);
        watcher_.set_interest(request_->wanted());
        return !ec;
    }

    void on_event(const error_code& ec) {
        if (!ec && !request_->step() && watch())
            return;
        const bool is_sent = !ec && request_->is_sent();
        stop();
        done_(is_sent);
    }

    std::unique_ptr<pq_cancel_request> request_;
    std::function<void(bool)> done_;
    basic_watcher<Executor> watcher_; // ends before the descriptor is closed
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_PQ_CANCEL_HPP
