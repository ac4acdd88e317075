//
// test/bench/threads.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A ring with 1, 2 and 4 threads in the loop: by the clock, so on a quiet machine only. Names:
// WORKLOAD:COMPETITOR/real_time. A process of its own, since locks cost more in a process that has
// had a second thread.
//

#include "ring.hpp"

#include <cstdint>
#include <string>
#include <thread>

#include <benchmark/benchmark.h>

namespace {

using namespace bench;

constexpr std::uint64_t batch = 20'000;

void run(benchmark::State& state, const entry& e, const workload& w) {
    auto c = e.make(w);
    c->run(batch);
    for (auto _ : state)
        c->run(batch);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(batch));
}

} // namespace

int main(int argc, char** argv) {
    std::thread([] {}).join();
    for (const entry& p : competitors()) {
        if (p.name.find('@') != std::string::npos)
            continue;
        for (const char* text : {"100/50", "100/50*2", "100/50*4"}) {
            workload w = workload::parse(text);
            if (p.make(workload::parse("100/50*2")))
                benchmark::RegisterBenchmark((std::string(text) + ":" + p.name).c_str(), &run, p, w)
                    ->UseRealTime();
        }
    }

    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
