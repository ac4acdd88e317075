//
// test/bench/counts.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Does a workload a given number of times with one competitor, under a tool that counts (callgrind,
// strace): the difference between two runs of different length, divided, is exact. The program
// itself counts the calls of malloc and its relatives, and prints their number.
//

#include "ring.hpp"
#include "streams.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

extern "C" {

void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

std::uint64_t allocations = 0; // of the one thread that there is

} // namespace

// These take the place of the C library's in every library of the process.
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

namespace {

unsigned number(const char* text) { return static_cast<unsigned>(std::strtoul(text, nullptr, 10)); }

/// Null if there is no such competitor, or the competitor does not do the workload.
std::unique_ptr<bench::competitor> make(const std::string& name, const std::string& workload) {
    if (const bench::entry* e = bench::find_competitor(name))
        return e->make(bench::workload::parse(workload));
    for (const bench::stream_entry& e : bench::stream_competitors())
        if (e.name == name) {
            bench::workload w = bench::workload::parse(workload);
            return e.make(w.handles, w.active);
        }
    return nullptr;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "Usage: %s [KIND/]COMPETITOR WORKLOAD TIMES\n", argv[0]);
        return 2;
    }
    auto c = make(argv[1], argv[2]);
    if (!c) {
        std::fprintf(stderr, "%s does not do %s\n", argv[1], argv[2]);
        return 2;
    }
    c->run(number(argv[3]));
    std::printf("allocations %llu\n", static_cast<unsigned long long>(allocations));
}
