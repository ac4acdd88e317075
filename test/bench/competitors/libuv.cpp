// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// libuv's uv_poll_t, which is level-triggered.

#include "../ring.hpp"

#include <cstdint>
#include <vector>

#include <uv.h>

namespace bench {
namespace {

struct loop {
    ::uv_loop_t loop_;

    loop() { expect(::uv_loop_init(&loop_) == 0, "uv_loop_init"); }
    ~loop() {
        ::uv_run(&loop_, UV_RUN_DEFAULT); // the closing of handles
        expect(::uv_loop_close(&loop_) == 0, "uv_loop_close");
    }
    void run() { ::uv_run(&loop_, UV_RUN_DEFAULT); }

    void start(::uv_poll_t& poll, int fd, void* data, ::uv_poll_cb callback) {
        expect(::uv_poll_init(&loop_, &poll, fd) == 0, "uv_poll_init");
        poll.data = data;
        expect(::uv_poll_start(&poll, UV_READABLE, callback) == 0, "uv_poll_start");
    }
    static void close(::uv_poll_t& poll, ::uv_close_cb callback = nullptr) {
        ::uv_close(reinterpret_cast<::uv_handle_t*>(&poll), callback);
    }
};

class ring_competitor final : public competitor, loop {
public:
    explicit ring_competitor(const workload& w) : ring_(w), watchers_(ring_.size()) {
        for (unsigned i = 0; i != ring_.size(); ++i) {
            watchers_[i].self = this;
            watchers_[i].i = i;
            start(watchers_[i].poll, ring_.handle(i), &watchers_[i], &on_ready);
        }
        if (ring_.chatter() != -1)
            start(chatter_, ring_.chatter(), nullptr,
                  [](::uv_poll_t* poll, int, int) { ::uv_poll_stop(poll); });
        ::uv_run(&loop_, UV_RUN_NOWAIT); // tells the kernel
    }
    ~ring_competitor() override {
        for (watcher& w : watchers_)
            close(w.poll);
        if (ring_.chatter() != -1)
            close(chatter_);
        loop::run(); // before the watchers go
    }

    void run(std::uint64_t round_trips) override {
        ring_.start(round_trips);
        loop::run();
        expect(ring_.done(), "the ring has stopped");
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    struct watcher {
        ::uv_poll_t poll;
        ring_competitor* self;
        unsigned i;
    };

    static void on_ready(::uv_poll_t* poll, int status, int) {
        auto* w = static_cast<watcher*>(poll->data);
        expect(status == 0, "uv_poll");
        w->self->ring_.take(w->i);
        if (w->self->ring_.pass_on(w->i))
            ::uv_stop(&w->self->loop_);
    }

    ring ring_;
    std::vector<watcher> watchers_;
    ::uv_poll_t chatter_;
};

class ready_competitor final : public competitor, loop {
public:
    ready_competitor() { pipe_.put(); }

    void run(std::uint64_t times) override {
        left_ = times;
        start(poll_, pipe_.in, this, [](::uv_poll_t* poll, int, int) {
            if (--static_cast<ready_competitor*>(poll->data)->left_ == 0)
                close(*poll);
        });
        loop::run();
    }

private:
    pipe_pair pipe_;
    ::uv_poll_t poll_;
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
        start(poll_, pipe_.in, this, &on_ready);
        if (pending_)
            pipe_.put();
    }

    static void on_ready(::uv_poll_t* poll, int status, int) {
        expect(status == 0, "uv_poll");
        static_cast<churn_competitor*>(poll->data)->pipe_.take();
        // Not to be used again before it is closed, which the loop tells at its next turn.
        close(*poll, [](::uv_handle_t* closed) {
            auto* self = static_cast<churn_competitor*>(closed->data);
            if (--self->left_ != 0)
                self->turn();
        });
    }

    pipe_pair pipe_;
    bool pending_;
    ::uv_poll_t poll_;
    std::uint64_t left_ = 0;
};

std::unique_ptr<competitor> make_libuv(const workload& w) {
    if (w.threads > 1)
        return nullptr;
    if (w.is_ring())
        return std::make_unique<ring_competitor>(w);
    if (w.what == workload::kind::ready)
        return std::make_unique<ready_competitor>();
    return std::make_unique<churn_competitor>(w.what == workload::kind::churn_pending);
}

const added libuv_competitors({{"libuv", &make_libuv}});

} // namespace
} // namespace bench
