// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A second thread that runs a loop, and is held between the fetching of events and their handling.

#ifndef MOOR_TEST_SUPPORT_LOOP_THREAD_HPP
#define MOOR_TEST_SUPPORT_LOOP_THREAD_HPP

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/handles.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <atomic>
#include <functional>
#include <future>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

namespace test {

/// Whether a thread of this process sleeps in the kernel.
inline bool sleeps(::pid_t thread) {
    unique_fd fd(::open(("/proc/self/task/" + std::to_string(thread) + "/stat").c_str(),
                        O_RDONLY | O_CLOEXEC));
    std::string s = get(fd);
    std::size_t name_end = s.rfind(')');
    return name_end != std::string::npos && s.size() > name_end + 2 && s[name_end + 2] == 'S';
}

/// A thread that runs the loop, and can be held with the events that it has fetched.
class loop_thread {
public:
    explicit loop_thread(boost::asio::io_context& io) : io_(io), work_(io.get_executor()) {
        io.restart();
        std::promise<::pid_t> id;
        thread_ = std::thread([this, &id] {
            id.set_value(static_cast<::pid_t>(::syscall(SYS_gettid)));
            io_.run();
        });
        id_ = id.get_future().get();
    }
    ~loop_thread() {
        let_go();
        work_.reset();
        io_.stop();
        thread_.join();
    }

    /// Waits until the loop has nothing to do.
    bool settles() {
        int times = 0;
        return wait_for([&] { return sleeps(id_) ? ++times == 3 : (times = 0, false); });
    }

    /// Has it fetch what `make` does, and nothing handled.
    bool fetches(const std::function<void()>& make) {
        if (!settles())
            return false;
        go_on_ = std::promise<void>();
        is_held_ = false;
        before_events_are_handled([this] {
            std::future<void> go_on = go_on_.get_future();
            is_held_ = true;
            go_on.wait_for(cap);
        });
        make();
        return wait_for([&] { return is_held_.load(); });
    }

    void let_go() {
        if (is_held_.exchange(false))
            go_on_.set_value();
    }

private:
    boost::asio::io_context& io_;
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
    std::thread thread_;
    ::pid_t id_ = 0;
    std::promise<void> go_on_;
    std::atomic<bool> is_held_{false};
};

} // namespace test

#endif
