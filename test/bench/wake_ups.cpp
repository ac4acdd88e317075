//
// test/bench/wake_ups.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The time from a write in one thread to the handler in another thread, which sleeps in its loop:
// the competitors in turns, ROUNDS times TIMES. Prints lines of "COMPETITOR p50 p99 p99.9", in
// nanoseconds.
//

#include "ring.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "Usage: %s ROUNDS TIMES\n", argv[0]);
        return 2;
    }
    unsigned long rounds = std::strtoul(argv[1], nullptr, 10);
    unsigned long times = std::strtoul(argv[2], nullptr, 10);

    struct measured {
        std::string name;
        std::unique_ptr<bench::competitor> competitor;
        std::vector<double> latencies;
    };
    std::vector<measured> all;
    for (const bench::entry& p : bench::competitors())
        if (p.name.find('@') == std::string::npos)
            all.push_back({p.name, p.make(bench::workload::parse("wake")), {}});
    for (measured& c : all) {
        c.competitor->run(times);
        c.competitor->latencies(); // the first ones are not counted
    }
    for (unsigned long r = 0; r != rounds; ++r)
        for (measured& c : all) {
            c.competitor->run(times);
            for (double l : c.competitor->latencies())
                c.latencies.push_back(l);
        }
    for (measured& c : all) {
        std::sort(c.latencies.begin(), c.latencies.end());
        auto at = [&](double q) {
            return c.latencies[static_cast<std::size_t>(
                q * static_cast<double>(c.latencies.size() - 1))];
        };
        std::printf("%s %.0f %.0f %.0f\n", c.name.c_str(), at(0.5), at(0.99), at(0.999));
    }
}
