//
// senders.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Waits as senders, with the token use_sender of NVIDIA's stdexec. The build and the tests leave
// the program out, because Debian 12 has no package of stdexec. To compile the program by hand:
//
//     g++ -std=c++20 -I include -isystem STDEXEC/include senders.cpp -pthread
//
// where stdexec was configured for Boost.Asio (STDEXEC_ASIO_USES_BOOST).
//

#include <moor.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <thread>
#include <tuple>

#include <sys/eventfd.h>
#include <unistd.h>

#include <exec/asio/use_sender.hpp>
#include <exec/when_any.hpp>
#include <stdexec/execution.hpp>

namespace asio = boost::asio;

namespace {

//[senders
/// Waits on this thread for the first of two handles. The losing wait is cancelled.
void wait_for_either(moor::registration& a, moor::registration& b) {
    stdexec::sync_wait(exec::when_any(a.async_wait_readable(exec::asio::use_sender),
                                      b.async_wait_readable(exec::asio::use_sender)));
}

/// Takes the count of an eventfd. An error is an exception of sync_wait.
std::uint64_t take_count(moor::registration& reg, int fd) {
    auto taken = stdexec::sync_wait(reg.async_io(
        moor::interest::readable,
        [fd](moor::error_code& ec) {
            std::uint64_t count = 0;
            moor::check_errno(::read(fd, &count, sizeof(count)), ec);
            return moor::drained(count);
        },
        exec::asio::use_sender));
    return std::get<0>(*taken);
}
//]

} // namespace

int main() {
    asio::io_context io;
    const int fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    const int silent = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    auto guard = asio::make_work_guard(io);
    std::thread runner([&] { io.run(); });
    bool good = false, failed = false;
    {
        moor::registration reg(io, fd), quiet(io, silent), none(io);
        ::eventfd_write(fd, 42);
        wait_for_either(quiet, reg);
        good = take_count(reg, fd) == 42;
        try {
            stdexec::sync_wait(none.async_wait_readable(exec::asio::use_sender));
        } catch (const std::exception& e) {
            failed = true;
            std::cout << "an error is an exception: " << e.what() << '\n';
        }
    }
    guard.reset();
    runner.join();
    ::close(fd);
    ::close(silent);
    return good && failed ? EXIT_SUCCESS : EXIT_FAILURE;
}
