//
// poll_list.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A library gives a list for poll(2), as ALSA, libusb and many others do. A poll_set waits for the
// list again and again, and fills in the list as poll(2) does.
//

#include <moor.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <vector>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

/// The library: three descriptors, whose owner has to be told what poll(2) said of them.
class library {
public:
    library() {
        for (int& fd : fds_)
            fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    ~library() {
        for (int fd : fds_)
            ::close(fd);
    }
    std::vector<pollfd> descriptors() const {
        return {{fds_[0], POLLIN, 0}, {fds_[1], POLLIN, 0}, {fds_[2], POLLIN, 0}};
    }
    void handle(const std::vector<pollfd>& list) {
        for (const pollfd& p : list) {
            std::uint64_t n = 0;
            if ((p.revents & POLLIN) && ::read(p.fd, &n, sizeof(n)) > 0)
                sum_ += n;
        }
    }
    std::uint64_t sum() const { return sum_; }
    void ring(int which, std::uint64_t n) {
        if (::write(fds_[which], &n, sizeof(n)) < 0)
            std::abort();
    }

private:
    int fds_[3];
    std::uint64_t sum_ = 0;
};

//[poll_list
asio::awaitable<void> serve(moor::poll_set& set, library& lib) {
    for (;;) {
        std::vector<pollfd> list = lib.descriptors(); // stays until the wait is over
        std::size_t ready =
            co_await set.async_wait(list.data(), list.size(), 100ms, asio::use_awaitable);
        if (ready == 0)
            co_return; // nothing for 100 ms
        lib.handle(list);
    }
}
//]

} // namespace

int main() try {
    asio::io_context io;
    library lib;
    moor::poll_set set(io); // keeps what it registered from one wait to the next
    asio::co_spawn(io, serve(set, lib), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    io.poll(); // waits
    lib.ring(2, 40);
    while (lib.sum() == 0)
        io.run_one();
    lib.ring(0, 1);
    lib.ring(1, 1);
    io.run();
    std::cout << "the library heard of " << lib.sum() << " rings\n";
    return lib.sum() == 42 ? EXIT_SUCCESS : EXIT_FAILURE;
} catch (const std::exception& e) {
    std::cerr << "FAILED: " << e.what() << '\n';
    return EXIT_FAILURE;
}
