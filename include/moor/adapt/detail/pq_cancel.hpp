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
        for (int fd : {fd_, other_end_})
            if (fd >= 0)
                ::close(fd);
    }

    /// False: the request can't be sent.
    bool open(PGconn* connection) {
        request_.reset(PQgetCancel(connection));
        return request_ && open_pipe();
    }

    /// Sends the request. False: it can't be sent.
    bool start() {
        // The handlers of signals run on the program's threads.
        ::sigset_t all, before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, &before);
        BOOST_TRY {
            std::thread(&pq_cancel_request::send, request_.get(), other_end_, is_sent_).detach();
            request_.release(); // the thread has both
            other_end_ = -1;
        }
        BOOST_CATCH(...) {}
        BOOST_CATCH_END
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return !request_;
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

    /// No child process that another thread starts may inherit the thread's end.
    bool open_pipe() noexcept {
        int ends[2];
#if defined(__APPLE__)
        if (::pipe(ends) != 0)
            return false;
        ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#else
        if (::pipe2(ends, O_CLOEXEC) != 0)
            return false;
#endif
        fd_ = ends[0];
        other_end_ = ends[1];
        return true;
    }

    static void send(PGcancel* request, int fd, flag_ptr is_sent) noexcept {
#if defined(__linux__)
        ::pthread_setname_np(::pthread_self(), "moor-pq-cancel");
#endif
        char text[256];
        is_sent->store(PQcancel(request, text, sizeof(text)) == 1, std::memory_order_release);
        PQfreeCancel(request);
        ::close(fd);
    }

    std::unique_ptr<PGcancel, free_cancel> request_;
    int fd_ = -1;
    int other_end_ = -1;
    flag_ptr is_sent_ = std::make_shared<std::atomic<bool>>(false);
};

#else

/// One request, on a connection of libpq's for it.
class pq_cancel_request {
public:
    /// False: the request can't be sent.
    bool open(PGconn* connection) {
        request_.reset(PQcancelCreate(connection));
        return request_ && PQcancelStart(request_.get()) == 1;
    }

    bool start() noexcept { return true; }

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
    bool start(PGconn* connection) noexcept {
        bool has_begun = false;
        BOOST_TRY {
            request_ = std::make_unique<pq_cancel_request>();
            has_begun = request_->open(connection) && watch() && request_->start();
        }
        BOOST_CATCH(...) {}
        BOOST_CATCH_END
        if (!has_begun)
            stop();
        return has_begun;
    }

    /// Forgets the request, which may go on.
    void stop() noexcept {
        watcher_.detach();
        request_.reset();
    }

private:
    bool watch() noexcept {
        error_code ec;
        BOOST_TRY {
            watcher_.renew(request_->descriptor(), ec);
            watcher_.set_interest(request_->wanted());
        }
        BOOST_CATCH(...) { return false; }
        BOOST_CATCH_END
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
