//
// five_minutes.cpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The first program of README.md, which test/doc/check_snippets.cmake compares with what follows.
//

#include <moor.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cstdint>
#include <iostream>

#include <sys/timerfd.h>
#include <unistd.h>

namespace asio = boost::asio;

// The same wait, in a coroutine.
asio::awaitable<void> ticks(moor::registration& reg) {
    for (int i = 1; i <= 3; ++i) {
        co_await reg.async_wait_readable(asio::use_awaitable);
        std::uint64_t expirations = 0;
        if (::read(reg.native_handle(), &expirations, sizeof(expirations)) > 0)
            std::cout << "coroutine: tick " << i << '\n';
    }
}

int main() {
    // A descriptor of your own. Here: a timer that expires every 100 ms.
    int fd = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    itimerspec every_100ms = {{0, 100'000'000}, {0, 100'000'000}};
    ::timerfd_settime(fd, 0, &every_100ms, nullptr);

    asio::io_context io;
    moor::registration reg(io, fd); // borrows fd: never closes it, never touches its flags

    // A callback. Any other completion token will do as well.
    reg.async_wait_readable([&](moor::error_code ec) {
        std::cout << "callback: " << ec.message() << '\n';
        asio::co_spawn(io, ticks(reg), asio::detached);
    });

    io.run();

    reg.deregister(); // first, and then the owner may close it
    ::close(fd);
}
