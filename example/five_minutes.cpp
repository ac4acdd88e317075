//
// five_minutes.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The first program of README.md, which test/doc/check_snippets.cmake compares with what follows.
//

#include <moor.hpp>

#include <boost/asio/io_context.hpp>

#include <cstdint>
#include <iostream>

#include <sys/timerfd.h>
#include <unistd.h>

int main() {
    // A descriptor of your own; here, a timer which expires after 100 ms.
    int fd = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    itimerspec after_100ms = {{0, 0}, {0, 100'000'000}};
    ::timerfd_settime(fd, 0, &after_100ms, nullptr);

    boost::asio::io_context io;
    moor::registration reg(io, fd); // borrows fd: never closes it, never touches its flags

    reg.async_wait_readable([&](moor::error_code ec) {
        std::uint64_t expirations = 0;
        if (!ec && ::read(fd, &expirations, sizeof(expirations)) > 0)
            std::cout << "the timer expired\n";
    });

    io.run();
    reg.deregister(); // before the owner closes fd
    ::close(fd);
}
