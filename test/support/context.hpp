// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Running a context in a test: until something holds, with a cap; never for a time.

#ifndef MOOR_TEST_SUPPORT_CONTEXT_HPP
#define MOOR_TEST_SUPPORT_CONTEXT_HPP

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace test {

inline constexpr std::chrono::seconds cap(20);

/// The backend that this program was built for.
inline std::string backend() { return MOOR_TEST_BACKEND; }
inline bool on_epoll() { return backend() == "epoll"; }
inline bool on_select() { return backend() == "select"; }
inline bool on_io_uring() { return backend() == "io_uring"; }

/// Runs handlers until `done()`, and fails the test if that takes longer than the cap.
template <class Done>
void run_until(boost::asio::io_context& io, Done done) {
    auto deadline = std::chrono::steady_clock::now() + cap;
    while (!done()) {
        if (io.stopped())
            io.restart();
        if (io.run_one_until(deadline) == 0) {
            if (done())
                return;
            BOOST_REQUIRE_MESSAGE(std::chrono::steady_clock::now() < deadline,
                                  "the cap was reached");
            // Out of work although the condition does not hold: it never will.
            BOOST_REQUIRE_MESSAGE(!io.stopped(), "the context ran out of work");
        }
    }
}

/// Waits on this thread for what another one does, or the kernel; at most until the cap. Returns
/// whether it came. (No check of Boost.Test's, which are for one thread.)
template <class Done>
bool wait_for(Done done) {
    auto deadline = std::chrono::steady_clock::now() + cap;
    while (!done()) {
        if (std::chrono::steady_clock::now() >= deadline)
            return false;
        std::this_thread::yield();
    }
    return true;
}

/// Runs everything that is ready now, and nothing that is not: the loop has seen every event that
/// was there when this was called.
inline std::size_t run_ready(boost::asio::io_context& io) {
    std::size_t total = 0;
    for (int quiet = 0; quiet != 3;) {
        if (io.stopped())
            io.restart();
        // Work is held so that the reactor is polled even if nobody waits.
        auto work = boost::asio::make_work_guard(io);
        std::size_t n = io.poll();
        total += n;
        quiet = n == 0 ? quiet + 1 : 0;
    }
    return total;
}

/// Runs to the end, with the cap; the number of handlers.
inline std::size_t run_all(boost::asio::io_context& io) {
    if (io.stopped())
        io.restart();
    std::size_t n = io.run_for(cap);
    BOOST_REQUIRE_MESSAGE(io.stopped(), "the cap was reached with work left");
    return n;
}

/// Stops a context if the cap is reached, for tests that run it in several threads.
/**
 * They can't call run_for(): with io_uring, Asio leaves the result of one thread's timeout for
 * another one, which takes it for an operation (chriskohlhoff/asio#1284).
 */
class watchdog {
public:
    explicit watchdog(boost::asio::io_context& io, std::chrono::milliseconds limit = cap)
        : thread_([this, &io, limit] {
              std::unique_lock<std::mutex> lock(mutex_);
              if (!over_.wait_for(lock, limit, [this] { return done_; })) {
                  has_bitten_ = true;
                  io.stop();
              }
          }) {}

    ~watchdog() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            done_ = true;
        }
        over_.notify_one();
        thread_.join();
    }

    watchdog(const watchdog&) = delete;
    watchdog& operator=(const watchdog&) = delete;

    bool has_bitten() const { return has_bitten_; }

private:
    std::mutex mutex_;
    std::condition_variable over_;
    bool done_ = false;
    std::atomic<bool> has_bitten_{false};
    std::thread thread_; // last: it uses the others
};

/// A context, with one thread if it has threads of its own.
template <class Context>
std::unique_ptr<Context> make_context() {
    if constexpr (std::is_same<Context, boost::asio::thread_pool>::value)
        return std::make_unique<boost::asio::thread_pool>(1);
    else
        return std::make_unique<Context>();
}

/// A context that must have run out of work when the test is over.
struct context_fixture {
    boost::asio::io_context io;

    ~context_fixture() {
        if (io.stopped())
            io.restart();
        io.poll();
        BOOST_CHECK_MESSAGE(io.stopped(), "work is left over");
    }
};

/// A handler that must be called just once; records how.
struct called {
    int times = 0;
    boost::system::error_code ec;

    explicit operator bool() const { return times != 0; }
    auto handler() {
        return [this](boost::system::error_code e, auto&&...) {
            ++times;
            ec = e;
        };
    }
};

/// The same, with the value that the operation completed with.
template <class Value>
struct called_with : called {
    Value value{};

    auto handler() {
        return [this](boost::system::error_code e, Value v) {
            ++times;
            ec = e;
            value = std::move(v);
        };
    }
};

} // namespace test

#endif
