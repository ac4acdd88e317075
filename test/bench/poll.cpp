//
// test/bench/poll.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Times, by workload and competitor, to wait for a list of pipes and to read one byte from the pipe
// that is ready: by the clock, since one of the competitors has a thread. Names:
// WORKLOAD:COMPETITOR/real_time. Workloads:
//   ready/N      a byte is there before the wait begins
//   pending/N    a byte comes after the wait has begun; the list is always the same
//   changed/N    the same, and in each list one pipe is replaced by another
//

#include "ring.hpp"

#include <moor/poll.hpp>
#include <moor/registration.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using bench::expect;

constexpr std::chrono::seconds for_ever(-1);

enum class kind { ready, pending, changed };

struct workload {
    kind what;
    std::size_t n;
};

/// The pipes, and the loop of waits. A competitor waits for `list`, and calls done().
class rounds {
public:
    explicit rounds(const workload& w) : what_(w.what) {
        bench::need_handles(4 * w.n + 100);
        // One more than the list has, which takes the place of another.
        for (std::size_t i = 0; i != w.n + 1; ++i) {
            int p[2];
            expect(::pipe2(p, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
            readers_.push_back(p[0]);
            writers_.push_back(p[1]);
        }
        for (std::size_t i = 0; i != w.n; ++i)
            list.push_back({readers_[i], POLLIN, 0});
    }
    virtual ~rounds() {
        for (int fd : readers_)
            ::close(fd);
        for (int fd : writers_)
            ::close(fd);
    }
    rounds(const rounds&) = delete;
    rounds& operator=(const rounds&) = delete;

    void run(std::uint64_t n) {
        left_ = n;
        next();
        io.restart();
        while (left_ != 0 && io.run_one() != 0) {}
        io.restart();
        io.poll();
    }

protected:
    virtual void wait() = 0;
    /// `list[i]` was another number before.
    virtual void changed(std::size_t, int /*before*/) {}

    void done() {
        char c;
        expect(::read(list[at_].fd, &c, 1) == 1, "read");
        if (--left_ != 0)
            next();
    }

    asio::io_context io{1};
    std::vector<::pollfd> list;

private:
    void next() {
        at_ = (at_ + 7) % list.size();
        if (what_ == kind::changed) {
            const int before = std::exchange(list[at_].fd, readers_.back());
            std::swap(readers_[at_], readers_.back());
            std::swap(writers_[at_], writers_.back());
            changed(at_, before);
        }
        if (what_ == kind::ready)
            put();
        wait();
        if (what_ != kind::ready)
            put();
    }
    void put() { expect(::write(writers_[at_], "x", 1) == 1, "write"); }

    const kind what_;
    std::vector<int> readers_, writers_;
    std::size_t at_ = 0;
    std::uint64_t left_ = 0;
};

class moor_set final : public rounds {
public:
    using rounds::rounds;

private:
    void wait() override {
        set_.async_wait(list.data(), list.size(), for_ever,
                        [this](moor::error_code, std::size_t) { done(); });
    }
    moor::basic_poll_set<asio::io_context::executor_type> set_{io};
};

class moor_once final : public rounds {
public:
    using rounds::rounds;

private:
    void wait() override {
        moor::async_poll(io, list.data(), list.size(), for_ever,
                         [this](moor::error_code, std::size_t) { done(); });
    }
};

/// poll(2) in another thread, which posts the result.
class thread final : public rounds {
public:
    explicit thread(const workload& w) : rounds(w), thread_([this] { serve(); }) {}
    ~thread() override {
        request(true);
        thread_.join();
    }

private:
    void wait() override { request(false); }
    void request(bool last) {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            (last ? is_last_ : is_asked_) = true;
        }
        asked_.notify_one();
    }
    void serve() {
        for (;;) {
            {
                std::unique_lock<std::mutex> lock(mutex_);
                asked_.wait(lock, [this] { return is_asked_ || is_last_; });
                if (is_last_)
                    return;
                is_asked_ = false;
            }
            ::poll(list.data(), list.size(), -1);
            asio::post(io, [this] { done(); });
        }
    }

    asio::executor_work_guard<asio::io_context::executor_type> work_{io.get_executor()};
    std::mutex mutex_;
    std::condition_variable asked_;
    bool is_asked_ = false, is_last_ = false;
    std::thread thread_;
};

/// The list in an epoll set, which a registration waits for.
class nested final : public rounds {
public:
    explicit nested(const workload& w) : rounds(w) {
        for (const ::pollfd& p : list)
            control(EPOLL_CTL_ADD, p.fd);
        reg_.register_handle(set_);
    }
    ~nested() override {
        reg_.deregister();
        ::close(set_);
    }

private:
    void wait() override {
        reg_.async_wait_readable([this](moor::error_code) {
            ::epoll_event events[64];
            expect(::epoll_wait(set_, events, 64, 0) == 1, "epoll_wait");
            done();
        });
    }
    void changed(std::size_t i, int before) override {
        control(EPOLL_CTL_DEL, before);
        control(EPOLL_CTL_ADD, list[i].fd);
    }
    void control(int what, int fd) {
        ::epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        expect(::epoll_ctl(set_, what, fd, &event) == 0, "epoll_ctl");
    }

    const int set_ = ::epoll_create1(EPOLL_CLOEXEC);
    moor::basic_registration<asio::io_context::executor_type> reg_{io};
};

template <class Competitor>
void run(benchmark::State& state, const workload& w) {
    Competitor c(w);
    const std::uint64_t batch = w.n > 100 ? 100 : 1000;
    c.run(batch); // every allocation and registration is made, and the caches are warm
    for (auto _ : state)
        c.run(batch);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(batch));
}

} // namespace

int main(int argc, char** argv) {
#if defined(MOOR_BENCH_SELECT)
    const std::vector<std::size_t> sizes = {10, 300}; // below FD_SETSIZE
#else
    const std::vector<std::size_t> sizes = {10, 1000};
#endif
    for (auto [name, what] : {std::pair<const char*, kind>{"ready", kind::ready},
                              {"pending", kind::pending},
                              {"changed", kind::changed}})
        for (std::size_t n : sizes) {
            const std::string text = name + ("/" + std::to_string(n)) + ":";
            const workload w{what, n};
            auto add = [&](const char* competitor, void (*f)(benchmark::State&, const workload&)) {
                benchmark::RegisterBenchmark((text + competitor).c_str(), f, w)->UseRealTime();
            };
            add("moor_set", &run<moor_set>);
            add("moor_once", &run<moor_once>);
            add("thread", &run<thread>);
            add("nested", &run<nested>);
        }

    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
