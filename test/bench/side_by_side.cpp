//
// test/bench/side_by_side.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Times, by workload and peer: of the processor, not of the clock, since nobody here ever sleeps
// (something is always ready), and others may be using the machine. Compare within one run only,
// and repetitions interleaved at random; report.py does:
//   side_by_side --benchmark_enable_random_interleaving=true --benchmark_repetitions=25
// Names: WORKLOAD:PEER; ring.hpp and all_peers.hpp say what these are. There is no second thread in
// this process: that would change what locks cost.
//

#include "all_peers.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace {

using namespace bench;

/// Hops, waits or registrations an iteration. The items of Google Benchmark.
constexpr std::uint64_t batch = 10'000;

void run(benchmark::State& state, const peer_entry& entry, const workload& w) {
    auto peer = entry.make(w);
    peer->run(batch); // every allocation and registration is made, and the caches are warm
    for (auto _ : state)
        peer->run(batch);
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * batch));
}

/// What the variants, whose names have an '@', do as well.
const std::vector<std::string> everybodys = {"2/1",   "1000/1", "100/50",
                                             "ready", "churn",  "churn_parked"};
const std::vector<std::string> others = {"1/1",         "100/1",    "100/100",  "1000/100",
                                         "1000/1000",   "9000/1",   "9000/100", "9000/1000",
                                         "100/50/9000", "pingpong", "chatter"};

} // namespace

int main(int argc, char** argv) {
    auto add = [](const peer_entry& p, const std::string& text) {
        workload w = workload::parse(text);
        if (w.is_ring() || p.make(w))
            benchmark::RegisterBenchmark((text + ":" + p.name).c_str(), &run, p, w);
    };
    for (const peer_entry& p : peers()) {
        for (const std::string& text : everybodys)
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
