// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A program and a shared library that both use Moor, compiled with hidden visibility: a wait that
// one begins on the other's registration must not see two copies of what Moor keeps for a thread.

#include "plugin.hpp"

#include <boost/asio/io_context.hpp>

#include <cstdio>

#include <fcntl.h>
#include <unistd.h>

namespace {

bool failed = false;

void check(bool ok, const char* what) {
    if (!ok) {
        std::fprintf(stderr, "FAILED: %s\n", what);
        failed = true;
    }
}

} // namespace

int main() {
    int p[2];
    check(::pipe2(p, O_NONBLOCK | O_CLOEXEC) == 0, "pipe2");
    boost::asio::io_context io;
    for (moor::trigger t : {moor::trigger::level, moor::trigger::edge}) {
        moor::registration reg(io, p[0], t);
        for (int round = 0; round != 3; ++round) {
            int here = 0, there = 0;
            char c;
            wait_in_plugin(reg, moor::direction::read, there);
            io.restart();
            io.poll();
            check(there == 0, "a wait of the library completes for nothing");
            check(::write(p[1], "x", 1) == 1, "write");
            io.restart();
            io.run();
            check(there == 1, "a wait of the library completes");
            check(::read(p[0], &c, 1) == 1, "read");

            // From within an event, where it finds what that left for it.
            reg.async_wait_readable([&](moor::error_code ec) {
                here += !ec;
                check(::read(p[0], &c, 1) == 1, "read");
                wait_in_plugin(reg, moor::direction::read, there);
            });
            check(::write(p[1], "x", 1) == 1, "write");
            while (here == 0) {
                io.restart();
                io.run_one();
            }
            io.restart();
            io.poll();
            check(there == 1, "a wait that was begun by a handler completes for nothing");
            check(::write(p[1], "x", 1) == 1, "write");
            io.restart();
            io.run();
            check(there == 2, "a wait that was begun by a handler completes");
            check(::read(p[0], &c, 1) == 1, "read");
        }
    }
    // The first wait of a direction looks for itself.
    while (::write(p[1], "x", 1) == 1)
        continue;
    for (moor::trigger t : {moor::trigger::level, moor::trigger::edge}) {
        int there = 0;
        moor::registration reg(io, p[1], t);
        wait_in_plugin(reg, moor::direction::write, there);
        io.restart();
        io.poll();
        check(there == 0, "a wait for room completes although there is none");
    }
    ::close(p[0]);
    ::close(p[1]);
    if (!failed)
        std::puts("shared: ok");
    return failed;
}
