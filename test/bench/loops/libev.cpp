// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// libev's ev_io, which is level-triggered.

#include "loops.hpp"

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

class ring_peer final : public peer, loop {
public:
    explicit ring_peer(const workload& w) : ring_(w), watchers_(ring_.size()) {
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
    ~ring_peer() override {
        for (watcher& w : watchers_)
            ::ev_io_stop(loop_, &w.io);
    }

    void run(std::uint64_t hops) override {
        ring_.start(hops);
        loop::run();
        expect(ring_.done(), "the ring has stopped");
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    struct watcher {
        ::ev_io io;
        ring_peer* self;
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

class ready_peer final : public peer, loop {
public:
    ready_peer() { pipe_.put(); }

    void run(std::uint64_t times) override {
        left_ = times;
        start(io_, pipe_.in, this, [](struct ::ev_loop* l, ::ev_io* io, int) {
            if (--static_cast<ready_peer*>(io->data)->left_ == 0)
                ::ev_io_stop(l, io);
        });
        loop::run();
    }

private:
    pipe_pair pipe_;
    ::ev_io io_;
    std::uint64_t left_ = 0;
};

class churn_peer final : public peer, loop {
public:
    explicit churn_peer(bool parked) : parked_(parked) {}

    void run(std::uint64_t times) override {
        left_ = times;
        turn();
        loop::run();
        expect(left_ == 0, "the churn has stopped");
    }

private:
    void turn() {
        if (!parked_)
            pipe_.put();
        start(io_, pipe_.in, this, &on_ready);
        if (parked_)
            pipe_.put();
    }

    static void on_ready(struct ::ev_loop* l, ::ev_io* io, int) {
        auto* self = static_cast<churn_peer*>(io->data);
        self->pipe_.take();
        ::ev_io_stop(l, io);
        if (--self->left_ != 0)
            self->turn();
    }

    pipe_pair pipe_;
    bool parked_;
    ::ev_io io_;
    std::uint64_t left_ = 0;
};

} // namespace

std::unique_ptr<peer> make_libev(const workload& w) {
    if (w.threads > 1)
        return nullptr;
    if (w.is_ring())
        return std::make_unique<ring_peer>(w);
    if (w.what == workload::kind::ready)
        return std::make_unique<ready_peer>();
    return std::make_unique<churn_peer>(w.what == workload::kind::churn_parked);
}

} // namespace bench
