//
// test/bench/memory/peers.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a handle that is waited for takes from malloc with each peer, of 9,000: everything, with
// the object that its user keeps, and the operation that waits. Prints lines of "peer bytes".
//

#include "../all_peers.hpp"

#include <cstdio>
#include <memory>

#include <malloc.h>

namespace {

double in_use() {
    struct ::mallinfo2 m = ::mallinfo2();
    return static_cast<double>(m.uordblks) + static_cast<double>(m.hblkhd);
}

} // namespace

int main() {
    constexpr unsigned handles = 9'000;
    bench::workload w;
    w.idle = handles - w.handles;
    double before = in_use();
    auto alone = std::make_unique<bench::ring>(w);
    double ring = in_use() - before;
    alone.reset();
    for (const bench::peer_entry& p : bench::peers()) {
        if (p.name.find('@') != std::string::npos)
            continue;
        before = in_use();
        auto peer = p.make(w);
        std::printf("%s %.1f\n", p.name.c_str(), (in_use() - before - ring) / handles);
    }
}
