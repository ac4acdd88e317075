//
// guide20.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The code of the guide in doc/*.adoc that needs coroutines: see guide.cpp. The program runs every
// part, and fails if a part does not do what its page says.
//

#include <moor.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/version.hpp>
#include <boost/system/system_error.hpp>

#if BOOST_ASIO_VERSION >= 103200
#include <boost/asio/cancel_after.hpp>
#endif

#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace asio = boost::asio;
using asio::awaitable;
using asio::use_awaitable;
using namespace std::chrono_literals;

namespace {

void expect(bool condition, const char* what) {
    if (!condition)
        throw std::logic_error(what);
}

/// Runs a coroutine to its end.
void run(asio::io_context& io, awaitable<void> a) {
    asio::co_spawn(io, std::move(a), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    io.run();
    io.restart();
}

/// An eventfd that does not block.
class event_fd {
public:
    event_fd() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    event_fd(const event_fd&) = delete;
    event_fd& operator=(const event_fd&) = delete;
    ~event_fd() { ::close(fd_); }

    int native_handle() const { return fd_; }
    void ring() const { ::eventfd_write(fd_, 1); }

private:
    int fd_;
};

// ---- quick start --------------------------------------------------------------------------------

//[quick
/// Reads the count of an eventfd, in a coroutine.
awaitable<std::uint64_t> next_count(moor::registration& reg) {
    std::uint64_t count = 0;
    co_await reg.async_wait_readable(use_awaitable);
    if (::read(reg.native_handle(), &count, sizeof(count)) < 0)
        throw std::runtime_error("read");
    co_return count;
}
//]

// ---- tokens -------------------------------------------------------------------------------------

//[as_tuple
/// Waits, and receives an error as a value instead of an exception.
awaitable<bool> is_ready(moor::registration& reg) {
    auto [ec] = co_await reg.async_wait_readable(asio::as_tuple(use_awaitable));
    co_return !ec;
}
//]

//[default_token
/// A registration whose waits are awaitable without a token.
using registration = asio::use_awaitable_t<>::as_default_on_t<moor::registration>;

awaitable<void> wait_twice(registration& reg) {
    co_await reg.async_wait_readable();
    moor::ready_event event = co_await reg.async_wait(moor::interest::readable);
    std::cout << "ready for: " << event << '\n';
}
//]

// ---- timeouts -----------------------------------------------------------------------------------

//[or_timer
/// Returns whether the handle became readable before the time was over.
awaitable<bool> wait_at_most(moor::registration& reg, std::chrono::milliseconds limit) {
    using namespace asio::experimental::awaitable_operators;
    asio::steady_timer timer(reg.get_executor(), limit);
    auto first =
        co_await (reg.async_wait_readable(use_awaitable) || timer.async_wait(use_awaitable));
    co_return first.index() == 0;
}
//]

//[either
/// Returns the number of the registration that is ready first.
awaitable<std::size_t> first_of(moor::registration& a, moor::registration& b) {
    using namespace asio::experimental::awaitable_operators;
    auto first =
        co_await (a.async_wait_readable(use_awaitable) || b.async_wait_readable(use_awaitable));
    co_return first.index();
}
//]

#if BOOST_ASIO_VERSION >= 103200
//[cancel_after
/// Returns whether the handle became readable before the time was over. Needs Boost 1.86.
awaitable<bool> wait_briefly(moor::registration& reg, std::chrono::milliseconds limit) {
    auto [ec] =
        co_await reg.async_wait_readable(asio::cancel_after(limit, asio::as_tuple(use_awaitable)));
    co_return !ec; // operation_aborted after the limit
}
//]
#endif

// ---- lists --------------------------------------------------------------------------------------

//[poll_once
/// Returns the descriptor that is ready for reading first; -1 if none is within the time.
awaitable<int> first_readable(int a, int b, std::chrono::milliseconds limit) {
    pollfd fds[] = {{a, POLLIN, 0}, {b, POLLIN, 0}}; // stays valid until the operation is over
    auto executor = co_await asio::this_coro::executor;
    std::size_t ready = co_await moor::async_poll(executor, fds, 2, limit, use_awaitable);
    if (ready == 0)
        co_return -1;
    co_return fds[0].revents != 0 ? a : b;
}
//]

// ---- processes ----------------------------------------------------------------------------------

//[terminate
/// Ends a child politely; after a time, forcibly. Returns how the child ended.
awaitable<moor::exit_status> terminate(moor::process& child, std::chrono::milliseconds patience) {
    using namespace asio::experimental::awaitable_operators;
    moor::error_code ended; // set if somebody has reaped the child already
    child.kill(SIGTERM, ended);
    asio::steady_timer timer(child.get_executor(), patience);
    auto first = co_await (child.async_wait(use_awaitable) || timer.async_wait(use_awaitable));
    if (first.index() == 0)
        co_return std::get<0>(first);
    child.kill(SIGKILL, ended);
    co_return co_await child.async_wait(use_awaitable);
}
//]

::pid_t start_sleep() {
    ::pid_t pid = -1;
    std::string words[] = {"sleep", "1000"};
    char* arguments[] = {words[0].data(), words[1].data(), nullptr};
    expect(::posix_spawnp(&pid, "sleep", nullptr, nullptr, arguments, environ) == 0, "spawn");
    return pid;
}

// ---- all of them --------------------------------------------------------------------------------

awaitable<void> all(asio::io_context& io) {
    event_fd fd, silent;
    moor::registration reg(io, fd), quiet(io, silent);

    fd.ring();
    expect(co_await next_count(reg) == 1, "quick");

    fd.ring();
    expect(co_await is_ready(reg), "as_tuple");
    moor::registration none(io);
    expect(!co_await is_ready(none), "as_tuple: an error");

    expect(co_await wait_at_most(reg, 60s), "or_timer: in time");
    expect(!co_await wait_at_most(quiet, 10ms), "or_timer: late");
    expect(co_await first_of(quiet, reg) == 1, "either");
#if BOOST_ASIO_VERSION >= 103200
    expect(co_await wait_briefly(reg, 60s), "cancel_after: in time");
    expect(!co_await wait_briefly(quiet, 10ms), "cancel_after: late");
#endif

    const int fds[] = {fd.native_handle(), silent.native_handle()};
    expect(co_await first_readable(fds[1], fds[0], 60s) == fds[0], "poll_once");
    expect(co_await first_readable(fds[1], fds[1], 10ms) == -1, "poll_once: late");

    event_fd other;
    other.ring();
    registration with_default(io, other);
    co_await wait_twice(with_default);

    moor::process child(io, start_sleep());
    moor::exit_status status = co_await terminate(child, 60s);
    expect(status.signal() == SIGTERM, "terminate");
}

} // namespace

int main() try {
    asio::io_context io;
    run(io, all(io));
    std::cout << "every part of the guide does what its page says\n";
    return EXIT_SUCCESS;
} catch (const std::exception& e) {
    std::cerr << "FAILED: " << e.what() << '\n';
    return EXIT_FAILURE;
}
