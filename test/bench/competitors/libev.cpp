// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// libev's ev_io, which is level-triggered.

#include "../ring.hpp"

#include <cstdint>
#include <vector>

#include <ev.h>

namespace bench {
namespace {

struct loop {
    struct ::ev_loop* loop_;

    loop() : loop_(::ev_loop_new(EVBACKEND_EPOLL)) { expect(loop_ != nullptr, "ev_loop_new"); }
    ~loop() { ::ev_loop_destroy(loop_); }
    void run() { ::ev_run(loop_, 0); }

    void start(::ev_io& io, int fd, void* data,
               void (*callback)(struct ::ev_loop*, ::ev_io*, int)) {
        ev_io_init(&io, callback, fd, EV_READ);
        io.data = data;
        ::ev_io_start(loop_, &io);
    }
};

class ring_competitor final : public competitor, loop {
public:
    explicit ring_competitor(const workload& w) : ring_(w), watchers_(ring_.size()) {
        for (unsigned i = 0; i != ring_.size(); ++i) {
            watchers_[i].self = this;
            watchers_[i].i = i;
            start(watchers_[i].io, ring_.handle(i), &watchers_[i], &on_ready);
        }
        if (ring_.chatter() != -1) {
            start(chatter_, ring_.chatter(), nullptr,
                  [](struct ::ev_loop* l, ::ev_io* io, int) { ::ev_io_stop(l, io); });
        }
        ::ev_run(loop_, EVRUN_NOWAIT); // tells the kernel
    }
    ~ring_competitor() override {
        for (watcher& w : watchers_)
            ::ev_io_stop(loop_, &w.io);
    }

    void run(std::uint64_t round_trips) override {
        ring_.start(round_trips);
        loop::run();
        expect(ring_.done(), "the ring has stopped");
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    struct watcher {
        ::ev_io io;
        ring_competitor* self;
        unsigned i;
    };

    static void on_ready(struct ::ev_loop* l, ::ev_io* io, int) {
        auto* w = static_cast<watcher*>(io->data);
        w->self->ring_.take(w->i);
        if (w->self->ring_.pass_on(w->i))
            ::ev_break(l, EVBREAK_ALL);
    }

    ring ring_;
    std::vector<watcher> watchers_;
    ::ev_io chatter_;
};

class ready_competitor final : public competitor, loop {
public:
    ready_competitor() { pipe_.put(); }

    void run(std::uint64_t times) override {
        left_ = times;
        start(io_, pipe_.in, this, [](struct ::ev_loop* l, ::ev_io* io, int) {
            if (--static_cast<ready_competitor*>(io->data)->left_ == 0)
                ::ev_io_stop(l, io);
        });
        loop::run();
    }

private:
    pipe_pair pipe_;
    ::ev_io io_;
    std::uint64_t left_ = 0;
};

class churn_competitor final : public competitor, loop {
public:
    explicit churn_competitor(bool pending) : pending_(pending) {}

    void run(std::uint64_t times) override {
        left_ = times;
        turn();
        loop::run();
        expect(left_ == 0, "the churn has stopped");
    }

private:
    void turn() {
        if (!pending_)
            pipe_.put();
        start(io_, pipe_.in, this, &on_ready);
        if (pending_)
            pipe_.put();
    }

    static void on_ready(struct ::ev_loop* l, ::ev_io* io, int) {
        auto* self = static_cast<churn_competitor*>(io->data);
        self->pipe_.take();
        ::ev_io_stop(l, io);
        if (--self->left_ != 0)
            self->turn();
    }

    pipe_pair pipe_;
    bool pending_;
    ::ev_io io_;
    std::uint64_t left_ = 0;
};

std::unique_ptr<competitor> make_libev(const workload& w) {
    if (w.threads > 1)
        return nullptr;
    if (w.is_ring())
        return std::make_unique<ring_competitor>(w);
    if (w.what == workload::kind::ready)
        return std::make_unique<ready_competitor>();
    return std::make_unique<churn_competitor>(w.what == workload::kind::churn_pending);
}

const added libev_competitors({{"libev", &make_libev}});

} // namespace
} // namespace bench
