//
// test/bench/instructions/stream_hops.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Makes a given number of hops of one peer of streams.cpp, as hops.cpp does of the ring's, and
// prints how often memory was asked for.
//

#include "../stream_peers.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

namespace {

std::uint64_t allocations = 0; // one thread only

// Not inline: the compiler would find that malloc's memory is given to delete.
[[gnu::noinline]] void* take(std::size_t n, std::size_t alignment) {
    ++allocations;
    if (void* p = std::aligned_alloc(alignment, (n + alignment - 1) / alignment * alignment))
        return p;
    throw std::bad_alloc();
}
[[gnu::noinline]] void give_back(void* p) noexcept { std::free(p); }

} // namespace

void* operator new(std::size_t n) { return take(n, alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) { return take(n, std::size_t(a)); }
void operator delete(void* p) noexcept { give_back(p); }
void operator delete(void* p, std::size_t) noexcept { give_back(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_back(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_back(p); }

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fprintf(stderr, "Usage: %s KIND/PEER HANDLES ACTIVE HOPS\n", argv[0]);
        return 2;
    }
    auto number = [](const char* s) { return static_cast<unsigned>(std::strtoul(s, nullptr, 10)); };
    for (const bench::stream_entry& e : bench::stream_peers())
        if (e.name == argv[1]) {
            e.make(number(argv[2]), number(argv[3]))->run(number(argv[4]));
            std::printf("allocations %llu\n", static_cast<unsigned long long>(allocations));
            return 0;
        }
    std::fprintf(stderr, "There is no peer named %s\n", argv[1]);
    return 2;
}
