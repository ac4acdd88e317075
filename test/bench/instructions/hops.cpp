//
// test/bench/instructions/hops.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Makes a given number of hops of one peer, under a tool that counts what the program does
// (callgrind, strace): the difference between two numbers of hops, divided, is exact.
//

#include "../peers.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
    if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
        for (const bench::peer_entry& p : bench::peers())
            std::puts(p.name.c_str());
        return 0;
    }
    if (argc != 5) {
        std::fprintf(stderr, "Usage: %s PEER HANDLES ACTIVE HOPS | --list\n", argv[0]);
        return 2;
    }
    unsigned handles = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
    unsigned active = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
    std::uint64_t hops = std::strtoull(argv[4], nullptr, 10);
    for (const bench::peer_entry& p : bench::peers())
        if (p.name == argv[1]) {
            p.make(handles, active)->run(hops);
            return 0;
        }
    std::fprintf(stderr, "There is no peer named %s\n", argv[1]);
    return 2;
}
