//
// test/bench/instructions/hops.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Does a workload so many times with one peer, under a tool that counts what the program does
// (callgrind, strace): the difference between two numbers of times, divided, is exact. It counts
// the calls of malloc and its like by itself, and prints them.
//

#include "../all_peers.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {

void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

std::uint64_t allocations = 0; // of the one thread that there is

} // namespace

// The library's own take the place of these in every library of the process.
extern "C" {

void* malloc(std::size_t n) {
    ++allocations;
    return __libc_malloc(n);
}
void* calloc(std::size_t n, std::size_t size) {
    ++allocations;
    return __libc_calloc(n, size);
}
void* realloc(void* p, std::size_t n) {
    ++allocations;
    return __libc_realloc(p, n);
}
void* memalign(std::size_t alignment, std::size_t n) {
    ++allocations;
    return __libc_memalign(alignment, n);
}
void* aligned_alloc(std::size_t alignment, std::size_t n) {
    ++allocations;
    return __libc_memalign(alignment, n);
}
int posix_memalign(void** p, std::size_t alignment, std::size_t n) {
    ++allocations;
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}
}

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        for (const bench::peer_entry& p : bench::peers())
            std::puts(p.name.c_str());
        return 0;
    }
    if (argc != 4) {
        std::fprintf(stderr, "Usage: %s PEER WORKLOAD TIMES | --list\n", argv[0]);
        return 2;
    }
    const bench::peer_entry* entry = bench::find_peer(argv[1]);
    auto peer = entry ? entry->make(bench::workload::parse(argv[2])) : nullptr;
    if (!peer) {
        std::fprintf(stderr, "%s does not do %s\n", argv[1], argv[2]);
        return 2;
    }
    peer->run(std::strtoull(argv[3], nullptr, 10));
    std::printf("allocations %llu\n", static_cast<unsigned long long>(allocations));
}
