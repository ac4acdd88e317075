//
// test/bench/adapters/bench.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the benchmarks of the adapters share. A program is for one adapter, and measures workloads,
// each in several ways: Moor's adapter, and the library's own blocking use. Names are WORKLOAD:WAY.
//
//     PROGRAM --benchmark_...       times, with Google Benchmark; by the clock, since a way sleeps
//                                   until the server answers
//     PROGRAM WAY WORKLOAD TIMES    so many operations, under a tool that counts system calls
//     PROGRAM TIMES                 each way does so many operations: shows that the program works
//
// Without MOOR_BENCH_TIMES, Google Benchmark is not needed, and there are no times.
//

#ifndef MOOR_BENCH_ADAPTERS_BENCH_HPP
#define MOOR_BENCH_ADAPTERS_BENCH_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if defined(MOOR_BENCH_TIMES)
#include <benchmark/benchmark.h>
#endif

namespace bench {

/// Does so many operations, and throws if a result is wrong.
using work = std::function<void(std::uint64_t)>;

struct entry {
    std::string workload, way;
    std::function<work()> make; ///< Connects, and so on.
    std::uint64_t batch;        ///< Operations an iteration; TIMES is a multiple.
};

inline void check(bool is_right, const char* what) {
    if (!is_right)
        throw std::runtime_error(what);
}

inline int run_once(const std::vector<entry>& entries, int argc, char** argv) {
    const std::uint64_t times = std::strtoull(argv[argc - 1], nullptr, 10);
    bool is_found = false;
    for (const entry& e : entries)
        if (argc == 2 || (e.way == argv[1] && e.workload == argv[2])) {
            is_found = true;
            const work w = e.make();
            for (std::uint64_t n = 0; n < times; n += e.batch)
                w(e.batch);
        }
    if (!is_found)
        std::fprintf(stderr, "There is no such way or workload\n");
    return is_found ? EXIT_SUCCESS : EXIT_FAILURE;
}

inline int main_of(const std::vector<entry>& entries, int argc, char** argv) {
    try {
        if (argc > 1 && argv[1][0] != '-')
            return run_once(entries, argc, argv);
#if defined(MOOR_BENCH_TIMES)
        for (const entry& e : entries)
            benchmark::RegisterBenchmark((e.workload + ":" + e.way).c_str(), [e](benchmark::State&
                                                                                     state) {
                const work w = e.make();
                w(e.batch); // the caches are warm
                for (auto _ : state)
                    w(e.batch);
                state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(e.batch));
            })->UseRealTime();
        benchmark::Initialize(&argc, argv);
        if (benchmark::ReportUnrecognizedArguments(argc, argv))
            return EXIT_FAILURE;
        benchmark::RunSpecifiedBenchmarks();
        benchmark::Shutdown();
        return EXIT_SUCCESS;
#else
        std::fprintf(stderr, "Usage: %s [WAY WORKLOAD] TIMES\n", argv[0]);
        return EXIT_FAILURE;
#endif
    } catch (const std::exception& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return EXIT_FAILURE;
    }
}

} // namespace bench

#endif
