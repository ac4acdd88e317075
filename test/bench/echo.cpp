//
// test/bench/echo.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// An echo server in one thread, and its clients in another: each client sends a request, waits for
// the whole answer, and sends the next request. The clients are the same for all servers, a loop
// written by hand on epoll. Prints requests a second, the median and the 99th percentile of the
// latency in microseconds, and the processor time of the server in nanoseconds a request.
//

#include "echo.hpp"

#include "ring.hpp"
#include "sockets.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

namespace {

using namespace bench;
using clock_type = std::chrono::steady_clock;

double microseconds(clock_type::duration d) {
    return std::chrono::duration<double, std::micro>(d).count();
}

class clients {
public:
    clients(std::vector<int> connections, std::size_t bytes)
        : request_(bytes, 'x'), answer_(bytes), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        expect(epoll_ != -1, "epoll_create1");
        for (int fd : connections) {
            ::epoll_event e{};
            e.events = EPOLLIN | EPOLLOUT | EPOLLET;
            e.data.u32 = static_cast<std::uint32_t>(clients_.size());
            expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) == 0, "epoll_ctl");
            clients_.push_back({fd, bytes, bytes, {}});
        }
    }
    ~clients() {
        ::close(epoll_);
        for (const client& c : clients_)
            ::close(c.fd);
    }
    clients(const clients&) = delete;
    clients& operator=(const clients&) = delete;

    /// Makes so many requests. Returns the seconds.
    double run(std::uint64_t requests) {
        latencies_.clear();
        latencies_.reserve(requests);
        unsent_ = requests;
        auto begin = clock_type::now();
        for (client& c : clients_)
            if (unsent_ != 0)
                next(c);
        while (latencies_.size() != requests) {
            ::epoll_event events[128];
            int n = ::epoll_wait(epoll_, events, 128, -1);
            for (int k = 0; k < n; ++k)
                go_on(clients_[events[k].data.u32]);
        }
        return microseconds(clock_type::now() - begin) / 1e6;
    }

    double percentile(double q) {
        std::sort(latencies_.begin(), latencies_.end());
        return latencies_[static_cast<std::size_t>(q * static_cast<double>(latencies_.size() - 1))];
    }

private:
    struct client {
        int fd;
        std::size_t sent;
        std::size_t received;
        clock_type::time_point begin;
    };

    void next(client& c) {
        --unsent_;
        c.sent = c.received = 0;
        c.begin = clock_type::now();
        go_on(c);
    }

    /// Writes and reads until both would block, or no request is left to make.
    void go_on(client& c) {
        for (;;) {
            while (c.sent != request_.size()) {
                auto n = ::write(c.fd, request_.data() + c.sent, request_.size() - c.sent);
                if (n == -1 && errno == EAGAIN)
                    break;
                expect(n > 0, "write to the server");
                c.sent += static_cast<std::size_t>(n);
            }
            while (c.received != request_.size()) {
                auto n = ::read(c.fd, answer_.data(), request_.size() - c.received);
                if (n == -1 && errno == EAGAIN)
                    return;
                expect(n > 0, "read from the server");
                c.received += static_cast<std::size_t>(n);
            }
            if (c.begin == clock_type::time_point())
                return;
            latencies_.push_back(microseconds(clock_type::now() - c.begin));
            c.begin = {};
            if (unsent_ == 0)
                return;
            --unsent_;
            c.sent = c.received = 0;
            c.begin = clock_type::now();
        }
    }

    std::vector<char> request_;
    std::vector<char> answer_;
    int epoll_;
    std::vector<client> clients_;
    std::vector<double> latencies_;
    std::uint64_t unsent_ = 0;
};

/// The processor time of the calling thread, in nanoseconds.
double thread_time() {
    ::timespec t;
    expect(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0, "clock_gettime");
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 6) {
        std::fprintf(stderr, "Usage: %s unix|tcp CONNECTIONS BYTES SERVER REQUESTS\n", argv[0]);
        return 2;
    }
    auto kind = std::string(argv[1]) == "tcp" ? connection_kind::tcp : connection_kind::unix_socket;
    std::size_t connections = std::strtoul(argv[2], nullptr, 10);
    std::size_t bytes = std::strtoul(argv[3], nullptr, 10);
    std::uint64_t requests = std::strtoull(argv[5], nullptr, 10);

    need_handles(2 * connections);
    std::vector<int> ours, theirs;
    for (std::size_t i = 0; i != connections; ++i) {
        int fd[2];
        if (kind == connection_kind::tcp)
            make_tcp_pair(fd);
        else
            make_unix_pair(fd);
        theirs.push_back(fd[0]);
        ours.push_back(fd[1]);
    }

    for (const echo_entry& e : echo_servers()) {
        if (e.name != argv[4])
            continue;
        double used = 0;
        std::thread server([&] {
            auto s = e.make(kind, theirs);
            double before = thread_time();
            s->run();
            used = thread_time() - before;
        });
        std::uint64_t warm_up = requests / 10 + connections;
        double seconds, median, late;
        {
            clients c(ours, bytes);
            c.run(warm_up);
            seconds = c.run(requests);
            median = c.percentile(0.5);
            late = c.percentile(0.99);
        }
        server.join();
        if (!e.owns)
            for (int fd : theirs)
                ::close(fd);
        std::printf("%.0f %.2f %.2f %.0f\n", static_cast<double>(requests) / seconds, median, late,
                    used / static_cast<double>(requests + warm_up));
        return 0;
    }
    std::fprintf(stderr, "There is no server named %s\n", argv[4]);
    return 2;
}
