// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Tokio's AsyncFd. The reads and writes are made here, called from Rust.

#include "../ring.hpp"
#include "tokio/competitor.h"

#include <cstdint>
#include <vector>

namespace bench {
namespace {

class tokio_competitor : public competitor {
public:
    ~tokio_competitor() override { ::moor_tokio_free(rust_); }

protected:
    void open(const moor_tokio_spec& spec) {
        rust_ = ::moor_tokio_new(&spec);
        expect(rust_ != nullptr, "moor_tokio_new");
    }

    ::moor_tokio_competitor* rust_ = nullptr;
};

class ring_competitor final : public tokio_competitor {
public:
    ring_competitor(const workload& w, second_read second) : ring_(w) {
        std::vector<int> fds;
        for (unsigned i = 0; i != ring_.size(); ++i)
            fds.push_back(ring_.handle(i));
        moor_tokio_spec spec{};
        spec.kind = moor_tokio_ring;
        spec.handles = fds.data();
        spec.count = fds.size();
        spec.chatter = ring_.chatter();
        spec.threads = w.threads;
        spec.drains = second == second_read::yes;
        spec.context = &ring_;
        spec.take = [](void* r, std::uint32_t i, std::int32_t again) -> std::int32_t {
            if (!again)
                return static_cast<ring*>(r)->try_take(i);
            static_cast<ring*>(r)->drain(i);
            return false;
        };
        spec.pass_on = [](void* r, std::uint32_t i) -> std::int32_t {
            return static_cast<ring*>(r)->pass_on(i);
        };
        open(spec);
    }

    void run(std::uint64_t round_trips) override {
        ring_.start(round_trips);
        ::moor_tokio_run(rust_, round_trips);
        expect(ring_.done(), "the ring has stopped");
    }

    std::vector<double> latencies() override { return ring_.latencies(); }

private:
    ring ring_;
};

class one_handle final : public tokio_competitor {
public:
    explicit one_handle(workload::kind what) {
        moor_tokio_spec spec{};
        spec.kind = what == workload::kind::ready   ? moor_tokio_ready
                    : what == workload::kind::churn ? moor_tokio_churn
                                                    : moor_tokio_churn_pending;
        spec.handles = &pipe_.in;
        spec.count = 1;
        spec.chatter = -1;
        spec.threads = 1;
        spec.context = &pipe_;
        spec.take = [](void* p, std::uint32_t, std::int32_t) -> std::int32_t {
            static_cast<pipe_pair*>(p)->take();
            return 1;
        };
        spec.put = [](void* p) { static_cast<pipe_pair*>(p)->put(); };
        if (what == workload::kind::ready)
            pipe_.put();
        open(spec);
    }

    void run(std::uint64_t times) override { ::moor_tokio_run(rust_, times); }

private:
    pipe_pair pipe_;
};

std::unique_ptr<competitor> make_tokio(const workload& w) {
    if (w.is_ring())
        return std::make_unique<ring_competitor>(w, second_read::no);
    return std::make_unique<one_handle>(w.what);
}

std::unique_ptr<competitor> make_tokio_drain(const workload& w) {
    return w.is_ring() ? std::make_unique<ring_competitor>(w, second_read::yes) : nullptr;
}

const added tokio_competitors({{"tokio", &make_tokio}, {"tokio_drain", &make_tokio_drain}});

} // namespace
} // namespace bench
