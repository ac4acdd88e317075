//
// cobalt.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Waits in a coroutine of Boost.Cobalt, with the token use_op. The build and the tests leave the
// program out, because Debian 12 has no Boost.Cobalt (Boost 1.84). To compile the program by hand:
//
//     g++ -std=c++20 -I include cobalt.cpp -lboost_cobalt -pthread
//

#include <moor.hpp>

#include <boost/asio/steady_timer.hpp>
#include <boost/cobalt/main.hpp>
#include <boost/cobalt/op.hpp>
#include <boost/cobalt/promise.hpp>
#include <boost/cobalt/race.hpp>
#include <boost/cobalt/this_coro.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>

#include <sys/eventfd.h>
#include <unistd.h>

namespace asio = boost::asio;
namespace cobalt = boost::cobalt;

namespace {

//[cobalt
/// Returns whether the handle became readable before the time was over.
cobalt::promise<bool> wait_at_most(moor::registration& reg, std::chrono::milliseconds limit) {
    asio::steady_timer timer(co_await cobalt::this_coro::executor, limit);
    auto first = co_await cobalt::race(reg.async_wait_readable(cobalt::use_op),
                                       timer.async_wait(cobalt::use_op));
    co_return first == 0;
}
//]

cobalt::promise<bool> fails(moor::registration& none) {
    try {
        co_await none.async_wait_readable(cobalt::use_op);
    } catch (const std::exception& e) {
        std::cout << "an error is an exception: " << e.what() << '\n';
        co_return true;
    }
    co_return false;
}

} // namespace

cobalt::main co_main(int, char**) {
    auto executor = co_await cobalt::this_coro::executor;
    const int fd = ::eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    const int silent = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bool good = false;
    {
        moor::registration reg(executor, fd), quiet(executor, silent), none(executor);
        const bool in_time = co_await wait_at_most(reg, std::chrono::minutes(1));
        const bool late = !co_await wait_at_most(quiet, std::chrono::milliseconds(20));
        const std::uint64_t count = co_await reg.async_io(
            moor::interest::readable,
            [fd](moor::error_code& ec) {
                std::uint64_t n = 0;
                moor::check_errno(::read(fd, &n, sizeof(n)), ec);
                return moor::drained(n);
            },
            cobalt::use_op);
        good = in_time && late && count == 1 && co_await fails(none);
    }
    ::close(fd);
    ::close(silent);
    co_return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
