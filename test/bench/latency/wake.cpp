//
// test/bench/latency/wake.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// From a write in one thread to the handler in another, which sleeps in its loop: everybody in
// turns, ROUNDS times TIMES. Prints lines of "peer p50 p99 p99.9", in nanoseconds.
//

#include "../all_peers.hpp"

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

    struct competitor {
        std::string name;
        std::unique_ptr<bench::peer> peer;
        std::vector<double> latencies;
    };
    std::vector<competitor> all;
    for (const bench::peer_entry& p : bench::peers())
        if (p.name.find('@') == std::string::npos)
            all.push_back({p.name, p.make(bench::workload::parse("wake")), {}});
    for (competitor& c : all) {
        c.peer->run(times);
        c.peer->latencies(); // the first ones are not counted
    }
    for (unsigned long r = 0; r != rounds; ++r)
        for (competitor& c : all) {
            c.peer->run(times);
            for (double l : c.peer->latencies())
                c.latencies.push_back(l);
        }
    for (competitor& c : all) {
        std::sort(c.latencies.begin(), c.latencies.end());
        auto at = [&](double q) {
            return c.latencies[static_cast<std::size_t>(
                q * static_cast<double>(c.latencies.size() - 1))];
        };
        std::printf("%s %.0f %.0f %.0f\n", c.name.c_str(), at(0.5), at(0.99), at(0.999));
    }
}
