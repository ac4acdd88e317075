// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// libevent's events: persistent, level-triggered or with EV_ET.

#include "../ring.hpp"

#include <cstdint>
#include <vector>

#include <event2/event.h>

namespace bench {
namespace {

struct loop {
    ::event_base* base_;

    loop() : base_(::event_base_new()) { expect(base_ != nullptr, "event_base_new"); }
    ~loop() { ::event_base_free(base_); }
    void run() { ::event_base_dispatch(base_); }

    ::event* start(int fd, int flags, ::event_callback_fn callback, void* data) {
        ::event* e = ::event_new(base_, fd, static_cast<short>(EV_READ | flags), callback, data);
        expect(e && ::event_add(e, nullptr) == 0, "event_add");
        return e;
    }
};

/// `Flags`: 0, or EV_ET.
template <int Flags, second_read Second>
class ring_competitor final : public competitor, loop {
public:
    explicit ring_competitor(const workload& w) : ring_(w), watchers_(ring_.size()) {
        for (unsigned i = 0; i != ring_.size(); ++i)
            watchers_[i] = {this, i,
                            start(ring_.handle(i), EV_PERSIST | Flags, &on_ready, &watchers_[i])};
        // Not persistent: it is removed when it comes.
        if (ring_.chatter() != -1) {
            chatter_ = start(
                ring_.chatter(), Flags, [](evutil_socket_t, short, void*) {}, nullptr);
            ::event_base_loop(base_, EVLOOP_NONBLOCK);
        }
    }
    ~ring_competitor() override {
        for (watcher& w : watchers_)
            ::event_free(w.event);
        if (chatter_)
            ::event_free(chatter_);
    }

    void run(std::uint64_t round_trips) override {
        ring_.start(round_trips);
        loop::run();
        expect(ring_.done(), "the ring has stopped");
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    struct watcher {
        ring_competitor* self;
        unsigned i;
        ::event* event;
    };

    static void on_ready(evutil_socket_t, short, void* data) {
        auto* w = static_cast<watcher*>(data);
        w->self->ring_.take(w->i);
        if (Second == second_read::yes)
            w->self->ring_.drain(w->i);
        if (w->self->ring_.pass_on(w->i))
            ::event_base_loopbreak(w->self->base_);
    }

    ring ring_;
    std::vector<watcher> watchers_;
    ::event* chatter_ = nullptr;
};

class ready_competitor final : public competitor, loop {
public:
    ready_competitor() { pipe_.put(); }

    void run(std::uint64_t times) override {
        left_ = times;
        ::event* e = start(
            pipe_.in, EV_PERSIST,
            [](evutil_socket_t, short, void* data) {
                auto* self = static_cast<ready_competitor*>(data);
                if (--self->left_ == 0)
                    ::event_base_loopbreak(self->base_);
            },
            this);
        loop::run();
        ::event_free(e);
    }

private:
    pipe_pair pipe_;
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
        event_ = start(pipe_.in, 0, &on_ready, this);
        if (pending_)
            pipe_.put();
    }

    static void on_ready(evutil_socket_t, short, void* data) {
        auto* self = static_cast<churn_competitor*>(data);
        self->pipe_.take();
        ::event_free(self->event_);
        if (--self->left_ != 0)
            self->turn();
    }

    pipe_pair pipe_;
    bool pending_;
    ::event* event_ = nullptr;
    std::uint64_t left_ = 0;
};

template <int Flags, second_read Second>
std::unique_ptr<competitor> make(const workload& w) {
    if (w.threads > 1)
        return nullptr;
    if (w.is_ring())
        return std::make_unique<ring_competitor<Flags, Second>>(w);
    if (Flags != 0)
        return nullptr;
    if (w.what == workload::kind::ready)
        return std::make_unique<ready_competitor>();
    return std::make_unique<churn_competitor>(w.what == workload::kind::churn_pending);
}

std::unique_ptr<competitor> make_libevent(const workload& w) { return make<0, second_read::no>(w); }
std::unique_ptr<competitor> make_libevent_et(const workload& w) {
    return make<EV_ET, second_read::no>(w);
}
std::unique_ptr<competitor> make_libevent_et_drain(const workload& w) {
    return make<EV_ET, second_read::yes>(w);
}

const added libevent_competitors({{"libevent", &make_libevent},
                                  {"libevent_et", &make_libevent_et},
                                  {"libevent_et_drain", &make_libevent_et_drain}});

} // namespace
} // namespace bench
