//
// test/bench/streams.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The times of streams: of the processor, to be compared within one run only. Names:
// KIND/COMPETITOR/HANDLES/ACTIVE and bulk/COMPETITOR. A thread of the kernel delivers the bytes of
// a terminal, and its time is not counted here.
//

#include "streams.hpp"

#include <cstdint>

#include <benchmark/benchmark.h>

namespace {

using namespace bench;

void run_bench(benchmark::State& state, const stream_entry& e, unsigned handles, unsigned active) {
    const std::uint64_t batch = e.bulk ? 100 : 5'000;
    auto p = e.make(handles, active);
    p->run(batch); // every allocation is made, and the caches are warm
    for (auto _ : state)
        p->run(batch);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(batch));
}

void add(const std::string& name, const stream_entry& e, unsigned handles, unsigned active) {
    benchmark::RegisterBenchmark(name.c_str(), [&e, handles, active](benchmark::State& state) {
        run_bench(state, e, handles, active);
    });
}

} // namespace

int main(int argc, char** argv) {
    for (const stream_entry& e : stream_competitors()) {
        if (e.bulk) {
            add(e.name, e, 2, 1);
            continue;
        }
        add(e.name + "/2/1", e, 2, 1);
        add(e.name + "/100/50", e, 100, 50);
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 1;
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
}
