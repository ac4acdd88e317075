//
// test/bench/competitors/hand.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The loop written by hand, on epoll.
//

#include "../ring.hpp"

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace bench {
namespace {

/// `Trigger`: 0 for level, or EPOLLET.
template <std::uint32_t Trigger, second_read Second>
class hand_written final : public competitor {
public:
    explicit hand_written(const workload& w)
        : ring_(w), threads_(w.threads), epoll_(::epoll_create1(EPOLL_CLOEXEC)),
          stop_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
        expect(epoll_ != -1 && stop_ != -1, "epoll_create1");
        for (unsigned i = 0; i != ring_.size(); ++i)
            add(ring_.handle(i), i);
        // With a level trigger, what nobody waits for can't stay.
        if (ring_.chatter() != -1 && Trigger != 0)
            add(ring_.chatter(), nobody);
        if (threads_ > 1)
            add(stop_, last);
    }
    ~hand_written() override {
        ::close(epoll_);
        ::close(stop_);
    }

    void run(std::uint64_t round_trips) override {
        ring_.start(round_trips);
        std::vector<std::thread> others;
        for (unsigned t = 1; t < threads_; ++t)
            others.emplace_back([this] { loop(); });
        loop();
        for (std::thread& t : others)
            t.join();
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    static constexpr std::uint32_t nobody = ~std::uint32_t{0};
    static constexpr std::uint32_t last = nobody - 1;

    void add(int fd, std::uint32_t i) {
        ::epoll_event e{};
        e.events = EPOLLIN | Trigger;
        e.data.u32 = i;
        expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) == 0, "epoll_ctl");
    }

    void loop() {
        while (!ring_.done()) {
            ::epoll_event events[128]; // as many as Asio asks for
            int n = ::epoll_wait(epoll_, events, 128, -1);
            for (int k = 0; k < n; ++k) {
                unsigned i = events[k].data.u32;
                if (i >= last)
                    continue;
                ring_.take(i);
                if (Second == second_read::yes)
                    ring_.drain(i);
                if (ring_.pass_on(i) && threads_ > 1)
                    expect(::eventfd_write(stop_, 1) == 0, "eventfd_write");
            }
        }
        if (threads_ > 1) // the next one
            expect(::eventfd_write(stop_, 1) == 0, "eventfd_write");
    }

    ring ring_;
    unsigned threads_;
    int epoll_;
    int stop_;
};

/// A level-triggered epoll set, a handle that stays ready.
class hand_ready final : public competitor {
public:
    hand_ready() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        ::epoll_event e{};
        e.events = EPOLLIN;
        expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, pipe_.in, &e) == 0, "epoll_ctl");
        pipe_.put();
    }
    ~hand_ready() override { ::close(epoll_); }

    void run(std::uint64_t times) override {
        for (; times != 0; --times) {
            ::epoll_event events[128];
            expect(::epoll_wait(epoll_, events, 128, -1) == 1, "epoll_wait");
        }
    }

private:
    pipe_pair pipe_;
    int epoll_;
};

/// EPOLL_CTL_ADD, epoll_wait, read, EPOLL_CTL_DEL.
class hand_churn final : public competitor {
public:
    explicit hand_churn(bool pending) : pending_(pending), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}
    ~hand_churn() override { ::close(epoll_); }

    void run(std::uint64_t times) override {
        for (; times != 0; --times) {
            if (!pending_)
                pipe_.put();
            ::epoll_event e{};
            e.events = EPOLLIN | EPOLLET;
            expect(::epoll_ctl(epoll_, EPOLL_CTL_ADD, pipe_.in, &e) == 0, "epoll_ctl");
            if (pending_)
                pipe_.put();
            ::epoll_event events[128];
            expect(::epoll_wait(epoll_, events, 128, -1) == 1, "epoll_wait");
            pipe_.take();
            expect(::epoll_ctl(epoll_, EPOLL_CTL_DEL, pipe_.in, nullptr) == 0, "epoll_ctl");
        }
    }

private:
    pipe_pair pipe_;
    bool pending_;
    int epoll_;
};

template <std::uint32_t Trigger, second_read Second>
std::unique_ptr<competitor> make_hand(const workload& w) {
    if (w.is_ring()) // with a level trigger, several threads would see the same event
        return w.threads > 1 && Trigger == 0 ? nullptr
                                             : std::make_unique<hand_written<Trigger, Second>>(w);
    if (w.what == workload::kind::ready)
        return Trigger == 0 ? std::make_unique<hand_ready>() : nullptr;
    if (Trigger == 0 || Second == second_read::yes)
        return nullptr;
    return std::make_unique<hand_churn>(w.what == workload::kind::churn_pending);
}

const added hand({{"hand", &make_hand<EPOLLET, second_read::no>},
                  {"hand_drain", &make_hand<EPOLLET, second_read::yes>},
                  {"hand_level", &make_hand<0, second_read::no>}});

} // namespace
} // namespace bench
