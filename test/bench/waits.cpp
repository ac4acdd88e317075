//
// test/bench/waits.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Times, by workload and competitor: of the processor, not of the clock, since no competitor ever
// sleeps (some handle is always ready), and other processes may be using the machine. Compare
// within one run only; report.py makes such runs. Names: WORKLOAD:COMPETITOR; ring.hpp describes
// the workloads. The process has one thread: a second one would change the cost of locks.
//

#include "ring.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace bench;

/// Round trips, waits or registrations an iteration. The items of Google Benchmark.
constexpr std::uint64_t batch = 10'000;

void run(benchmark::State& state, const entry& e, const workload& w) {
    auto c = e.make(w);
    c->run(batch); // every allocation and registration is made, and the caches are warm
    for (auto _ : state)
        c->run(batch);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(batch));
}

/// select(2) is limited to 1,024 descriptors, and a ring takes two for each handle.
#if defined(MOOR_BENCH_SELECT)
const std::vector<std::string> common = {"2/1",   "100/1", "100/50",
                                         "ready", "churn", "churn_pending"};
#else
const std::vector<std::string> common = {"2/1",   "1000/1", "100/50",
                                         "ready", "churn",  "churn_pending"};
#endif

/// On epoll only, and not for the variants, whose names have an '@'.
#if defined(MOOR_BENCH_EPOLL)
const std::vector<std::string> others = {"1/1",         "100/1",    "100/100",  "1000/100",
                                         "1000/1000",   "9000/1",   "9000/100", "9000/1000",
                                         "100/50/9000", "pingpong", "chatter"};
#else
const std::vector<std::string> others = {};
#endif

} // namespace

int main(int argc, char** argv) {
    auto add = [](const entry& p, const std::string& text) {
        workload w = workload::parse(text);
        if (w.is_ring() || p.make(w))
            benchmark::RegisterBenchmark((text + ":" + p.name).c_str(), &run, p, w);
    };
    for (const entry& p : competitors()) {
        for (const std::string& text : common)
            add(p, text);
        if (p.name.find('@') == std::string::npos)
            for (const std::string& text : others)
                add(p, text);
    }

    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
