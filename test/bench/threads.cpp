//
// test/bench/threads.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The same rings with 1, 2 and 4 threads in the loop: by the clock, so on a quiet machine only.
// Names: WORKLOAD:PEER/real_time. A process of its own, since one that has had two threads locks.
//

#include "all_peers.hpp"

#include <cstdint>
#include <string>
#include <thread>

#include <benchmark/benchmark.h>

namespace {

using namespace bench;

constexpr std::uint64_t batch = 50'000;

void run(benchmark::State& state, const peer_entry& entry, const workload& w) {
    auto peer = entry.make(w);
    peer->run(batch);
    for (auto _ : state)
        peer->run(batch);
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * batch));
}

} // namespace

int main(int argc, char** argv) {
    std::thread([] {}).join();
    for (const peer_entry& p : peers()) {
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
