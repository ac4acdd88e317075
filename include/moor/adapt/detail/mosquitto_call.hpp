//
// moor/adapt/detail/mosquitto_call.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Begins a connection of libmosquitto. The library needs the host's name for TLS, accepts neither a
// socket nor an address in addition to the name, and blocks while it looks up the name. So a thread
// calls mosquitto_connect_async, and ends when this function returns. The function does not wait
// for the connection. The thread shares the handle with the session. At its end, the thread writes
// to a pipe, and a watcher waits at the other end. So the context and the session may be destroyed
// at any time. With an address, the function is called without a thread.
//

#ifndef MOOR_ADAPT_DETAIL_MOSQUITTO_CALL_HPP
#define MOOR_ADAPT_DETAIL_MOSQUITTO_CALL_HPP

#include <moor/adapt/mosquitto_types.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <mosquitto.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

namespace moor {
namespace adapt {
namespace detail {

/// The broker, and the keep-alive time in seconds.
struct mosquitto_target {
    std::string host;
    int port = 0;
    int keep_alive = 0;

    /// A name needs a lookup; with the port 0, the host is the path of a Unix socket.
    bool is_name() const {
        error_code ec;
        boost::asio::ip::make_address(host, ec);
        return port != 0 && ec;
    }
};

/// Begins to connect, and reports when the handle may be used again.
template <class Executor>
class mosquitto_caller {
public:
    using handle_ptr = std::shared_ptr<::mosquitto>;

    /// The caller calls `done` on the executor when a thread has ended; or when the wait for the
    /// thread has failed: then is_running() stays true, and error() is the reason.
    mosquitto_caller(const Executor& ex, std::function<void(error_code)> done)
        : done_(std::move(done)), watcher_(ex, [this](error_code ec, readiness) { finish(ec); }) {
        watcher_.keeps_running(false); // the operation does
    }
    mosquitto_caller(const mosquitto_caller&) = delete;
    mosquitto_caller& operator=(const mosquitto_caller&) = delete;
    ~mosquitto_caller() { end_wait(); }

    const Executor& executor() const noexcept { return watcher_.get_executor(); }

    /// While a thread has the handle.
    bool is_running() const noexcept { return fd_ >= 0; }

    /// Why nobody will learn that the thread has ended.
    const error_code& error() const noexcept { return error_; }

    /// Begins to connect to an address.
    static error_code connect(const handle_ptr& handle, const mosquitto_target& to) {
        errno = 0;
        const int result =
            mosquitto_connect_async(handle.get(), to.host.c_str(), to.port, to.keep_alive);
        return mosquitto_error_of(result, errno);
    }

    /// Begins to connect to a name, on a thread. With an error, `done` is not called.
    error_code start(const handle_ptr& handle, const mosquitto_target& to) {
        error_code ec;
        int other_end = -1;
        BOOST_TRY {
            result_ = std::make_shared<shared_result>();
            ec = open_pipe(other_end);
            if (!ec)
                watcher_.renew(fd_, ec);
            if (!ec) {
                watcher_.set_interest(interest::readable);
                start_thread(handle, to, other_end);
            }
        }
        BOOST_CATCH(...) { ec = boost::asio::error::try_again; } // no memory, or too many threads
        BOOST_CATCH_END
        if (ec) {
            end_wait();
            if (other_end >= 0)
                ::close(other_end);
        }
        return ec;
    }

private:
    struct shared_result {
        error_code ec;
        std::atomic<bool> is_set{false};
    };
    using result_ptr = std::shared_ptr<shared_result>;

    /// No program that another thread starts may inherit the thread's end of the pipe.
    error_code open_pipe(int& other_end) noexcept {
        int ends[2];
#if defined(__APPLE__)
        if (::pipe(ends) != 0)
            return error_code(errno, boost::system::system_category());
        ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
        ::fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#else
        if (::pipe2(ends, O_CLOEXEC) != 0)
            return error_code(errno, boost::system::system_category());
#endif
        fd_ = ends[0];
        other_end = ends[1];
        return error_code();
    }

    void start_thread(const handle_ptr& handle, const mosquitto_target& to, int fd) {
        // The thread blocks all signals, so that their handlers run on the program's threads.
        ::sigset_t all, before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, &before);
        BOOST_TRY { std::thread(&mosquitto_caller::run, handle, to, fd, result_).detach(); }
        BOOST_CATCH(...) {
            ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
            BOOST_RETHROW
        }
        BOOST_CATCH_END
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    static void run(handle_ptr handle, mosquitto_target to, int fd, result_ptr result) noexcept {
#if defined(__linux__)
        ::pthread_setname_np(::pthread_self(), "moor-mosquitto");
#endif
        result->ec = connect(handle, to);
        result->is_set.store(true, std::memory_order_release);
        handle.reset(); // perhaps the last owner
        // Not only the end of the pipe: a forked process may have the pipe, too.
        const char byte = 0;
        static_cast<void>(!::write(fd, &byte, 1));
        ::close(fd);
    }

    void finish(const error_code& ec) {
        if (result_->is_set.load(std::memory_order_acquire)) {
            end_wait();
            return done_(result_->ec);
        }
        if (!ec)
            return;
        watcher_.set_interest(interest()); // the wait has failed, and the thread has the handle
        error_ = ec;
        done_(ec);
    }

    void end_wait() noexcept {
        watcher_.detach();
        if (fd_ >= 0)
            ::close(std::exchange(fd_, -1));
    }

    int fd_ = -1; // while a thread has the other end of the pipe
    result_ptr result_;
    error_code error_; // of the wait for the thread
    std::function<void(error_code)> done_;
    basic_watcher<Executor> watcher_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_MOSQUITTO_CALL_HPP
