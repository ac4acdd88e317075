//
// library_read.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// async_io: a library owns the descriptor and does the reading; Moor says when to call it.
// doc/quick-start.adoc shows the part between the markers.
//

#include <moor.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#include <fcntl.h>
#include <unistd.h>

namespace asio = boost::asio;

// Stands for somebody's C library. It may be as opaque as you like; all that is needed is its
// descriptor, and a call that does not block.
class library {
public:
    library() {
        if (::pipe2(ends_, O_NONBLOCK | O_CLOEXEC) != 0)
            std::abort();
    }
    library(const library&) = delete;
    library& operator=(const library&) = delete;
    ~library() {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }

    int native_handle() const { return ends_[0]; }

    long read(void* data, std::size_t size) { return ::read(ends_[0], data, size); }

    void somebody_writes(const std::string& text) {
        if (::write(ends_[1], text.data(), text.size()) < 0)
            std::perror("write");
    }

private:
    int ends_[2];
};

//[library_read
asio::awaitable<std::string> receive(moor::registration& reg, library& lib) {
    std::array<char, 1024> buffer;
    // Moor runs the lambda. If the lambda fails with EAGAIN, Moor waits and runs it again.
    long n = co_await reg.async_io(
        moor::interest::readable,
        [&](moor::error_code& ec) {
            return moor::check_errno(lib.read(buffer.data(), buffer.size()), ec);
        },
        asio::use_awaitable);
    co_return std::string(buffer.data(), static_cast<std::size_t>(n));
}
//]

int main() {
    asio::io_context io;
    library lib;
    moor::registration reg(io, lib); // anything that has native_handle()

    int received = 0;
    for (int i = 0; i != 2; ++i)
        asio::co_spawn(io, receive(reg, lib), [&](std::exception_ptr e, const std::string& text) {
            received += !e;
            std::cout << "received: " << (e ? "an exception" : text) << '\n';
        });

    asio::steady_timer later(io, std::chrono::milliseconds(50));
    later.async_wait([&](moor::error_code) {
        lib.somebody_writes("hello");
        later.expires_after(std::chrono::milliseconds(50));
        later.async_wait([&](moor::error_code) { lib.somebody_writes("world"); });
    });

    io.run();
    return received == 2 ? EXIT_SUCCESS : EXIT_FAILURE;
}
