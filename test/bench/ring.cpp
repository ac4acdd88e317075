//
// test/bench/ring.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The times: of the processor, not of the clock, since nobody here ever sleeps (something is always
// ready), and others may be using the machine. Compare within one run only, and repetitions
// interleaved at random; report.py does:
//   ring --benchmark_enable_random_interleaving=true --benchmark_repetitions=25
// Names: ring/PEER/HANDLES/ACTIVE, ready/PEER, churn/PEER/ready, churn/PEER/parked. A peer with
// "@ioc" has io_context::executor_type for its executor; without, the default, any_io_executor.
//

#include "peers.hpp"

#include <cstdint>
#include <string>
#include <type_traits>

#include <benchmark/benchmark.h>

namespace {

using namespace bench;

/// Hops, waits or registrations an iteration. The items of Google Benchmark.
constexpr std::uint64_t batch = 10'000;

void count_items(benchmark::State& state) {
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * batch));
}

// ---- the ring
// -------------------------------------------------------------------------------------

void ring_bench(benchmark::State& state, const peer_entry& entry) {
    auto p =
        entry.make(static_cast<unsigned>(state.range(0)), static_cast<unsigned>(state.range(1)));
    p->run(batch); // every allocation and registration is made, and the caches are warm
    for (auto _ : state)
        p->run(batch);
    count_items(state);
}

// ---- a wait on a handle that is ready already
// -------------------------------------------------------

/// `start(handler)` starts a wait, which the handler repeats until the batch is done.
template <class Start>
struct again {
    Start start;
    std::uint64_t left;

    template <class... Ignored>
    void operator()(const error_code& ec, const Ignored&...) {
        expect(!ec, "wait");
        if (--left != 0)
            start(*this);
    }
};

template <class Start>
void ready_bench(benchmark::State& state, asio::io_context& context, Start start) {
    for (auto _ : state) {
        context.restart();
        start(again<Start>{start, batch});
        context.run();
    }
    count_items(state);
}

/// A pipe with a byte in it, which nobody reads.
struct full_pipe : pipe_pair {
    full_pipe() { expect(::write(out, "x", 1) == 1, "write"); }
};

template <class Executor>
void ready_asio(benchmark::State& state) {
    full_pipe p;
    asio::io_context context;
    asio::posix::basic_stream_descriptor<Executor> d(context.get_executor(), p.in);
    ready_bench(state, context, [&d](auto handler) {
        d.async_wait(asio::posix::descriptor_base::wait_read, std::move(handler));
    });
    d.release();
}

/// A level-triggered wait: asks the kernel each time.
template <class Executor>
void ready_moor_level(benchmark::State& state) {
    full_pipe p;
    asio::io_context context;
    moor::basic_registration<Executor> r(context.get_executor(), p.in);
    ready_bench(state, context, [&r](auto handler) { r.async_wait_readable(std::move(handler)); });
}

/// An async_io whose callable makes no call: what the cache answers by itself.
template <class Executor>
void ready_moor_cached(benchmark::State& state) {
    full_pipe p;
    asio::io_context context;
    moor::basic_registration<Executor> r(context.get_executor(), p.in);
    ready_bench(state, context, [&r](auto handler) {
        r.async_io(
            moor::interest::readable, [](error_code&) {}, std::move(handler));
    });
}

// ---- register, wait once, deregister
// ----------------------------------------------------------------

enum class arrival { before, after };

template <class Executor>
struct asio_churner {
    asio::posix::basic_stream_descriptor<Executor> d;

    explicit asio_churner(asio::io_context& context) : d(context.get_executor()) {}
    void open(int fd) { d.assign(fd); }
    void close() { d.release(); }
    template <class Handler>
    void wait(Handler handler) {
        d.async_wait(asio::posix::descriptor_base::wait_read, std::move(handler));
    }
};

template <class Executor, moor::trigger Trigger>
struct moor_churner {
    moor::basic_registration<Executor> r;

    explicit moor_churner(asio::io_context& context) : r(context.get_executor()) {}
    void open(int fd) { r.register_handle(fd, Trigger); }
    void close() { r.deregister(); }
    template <class Handler>
    void wait(Handler handler) {
        r.async_wait_readable(std::move(handler));
    }
};

/// One read and one write a turn, whether the byte comes before the wait or after it.
template <class Churner, arrival Arrival>
class churn {
public:
    void run(std::uint64_t turns) {
        left_ = turns;
        context_.restart();
        turn();
        context_.run();
        expect(left_ == 0, "the churn has stopped");
    }

private:
    struct on_ready {
        churn* self;

        void operator()(const error_code& ec) const {
            expect(!ec, "wait");
            char c;
            expect(::read(self->pipe_.in, &c, 1) == 1, "read");
            self->churner_.close();
            if (--self->left_ != 0)
                self->turn();
        }
    };

    void turn() {
        if (Arrival == arrival::before)
            expect(::write(pipe_.out, "x", 1) == 1, "write");
        churner_.open(pipe_.in);
        churner_.wait(on_ready{this});
        if (Arrival == arrival::after)
            expect(::write(pipe_.out, "x", 1) == 1, "write");
    }

    pipe_pair pipe_;
    asio::io_context context_;
    Churner churner_{context_};
    std::uint64_t left_ = 0;
};

template <class Churner, arrival Arrival>
void churn_bench(benchmark::State& state) {
    churn<Churner, Arrival> c;
    c.run(batch);
    for (auto _ : state)
        c.run(batch);
    count_items(state);
}

// ---- all of them
// ------------------------------------------------------------------------------------

void add(const std::string& name, void (*function)(benchmark::State&)) {
    benchmark::RegisterBenchmark(name.c_str(), function);
}

template <class Churner>
void add_churn(const std::string& peer) {
    add("churn/" + peer + "/ready", &churn_bench<Churner, arrival::before>);
    add("churn/" + peer + "/parked", &churn_bench<Churner, arrival::after>);
}

template <class Executor>
void add_for(const std::string& suffix) {
    add("ready/asio_wait" + suffix, &ready_asio<Executor>);
    add("ready/moor_level" + suffix, &ready_moor_level<Executor>);
    add("ready/moor_cached" + suffix, &ready_moor_cached<Executor>);
    add_churn<asio_churner<Executor>>("asio_wait" + suffix);
    add_churn<moor_churner<Executor, moor::trigger::level>>("moor_level" + suffix);
    add_churn<moor_churner<Executor, moor::trigger::edge>>("moor_edge" + suffix);
}

} // namespace

int main(int argc, char** argv) {
    for (const peer_entry& p : peers())
        benchmark::RegisterBenchmark(("ring/" + p.name).c_str(), &ring_bench, p)
            ->Args({2, 1})
            ->Args({1000, 1})
            ->Args({100, 50});
    add_for<asio::any_io_executor>("");
    add_for<asio::io_context::executor_type>("@ioc");

    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
