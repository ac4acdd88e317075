//
// test/bench/waiting_memory.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The memory that a handle with a pending wait takes from malloc with each competitor, of 9,000:
// the reactor's, the user's object, and the operation. Prints lines of "COMPETITOR BYTES".
//

#include "ring.hpp"

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
    for (const bench::entry& p : bench::competitors()) {
        if (p.name.find('@') != std::string::npos)
            continue;
        before = in_use();
        auto c = p.make(w);
        std::printf("%s %.1f\n", p.name.c_str(), (in_use() - before - ring) / handles);
    }
}
