// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Uses the whole interface, so that Asio's and the compiler's modes can be tried on it: built with
// BOOST_ASIO_NO_DEPRECATED, BOOST_ASIO_SEPARATE_COMPILATION, BOOST_ASIO_ENABLE_HANDLER_TRACKING,
// BOOST_ASIO_DISABLE_THREADS, -fno-exceptions, -fvisibility=hidden... Exits 0 if all of it worked.

#include <moor.hpp>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

namespace asio = boost::asio;
using moor::error_code;
using moor::interest;

namespace {

int failures = 0;

void check(bool ok, const char* what, int line) {
    if (!ok) {
        std::cerr << "line " << line << ": " << what << '\n';
        ++failures;
    }
}

#define CHECK(x) check((x), #x, __LINE__)

struct owner {
    int fd;
    int native_handle() const { return fd; }
};

/// Reads one byte.
struct reader {
    int fd;
    ::ssize_t operator()(error_code& ec) const {
        char c;
        ::ssize_t n = ::read(fd, &c, 1);
        if (n < 0)
            ec = error_code(errno, asio::error::get_system_category());
        return n;
    }
};

void send(int fd) { CHECK(::write(fd, "x", 1) == 1); }

template <class Registration>
void use(asio::io_context& io, Registration& reg, int a, int b) {
    int over = 0;
    auto counted = [&](error_code ec, auto&&...) { over += !ec; };

    // Waits, pending and ready.
    reg.async_wait_readable(counted);
    reg.async_wait(interest::readable | interest::priority,
                   [&](error_code ec, moor::ready_event e) {
                       over += !ec && e.ready() == interest::readable;
                       reg.clear(e);
                   });
    reg.async_io(interest::readable, reader{a}, counted);
    io.restart();
    io.poll();
    CHECK(over == 0);
    send(b);
    io.run();
    CHECK(over == 3);
    io.restart();
    reg.async_wait_writable(counted);
    reg.async_wait_writable(asio::detached);
    reg.async_wait(interest::writable, asio::deferred)(counted);
    reg.async_io(
        interest::writable, [](error_code&) { return moor::drained_if(false, 1); }, counted);
    reg.async_io(
        interest::writable, [](error_code&) { return moor::drained(); },
        asio::bind_executor(io, counted));
    io.run();
    CHECK(over == 7);

    // Cancelled. (An edge-triggered handle is drained before the next wait.)
    io.restart();
    io.poll();
    while (reg.try_io(interest::readable, reader{a}).has_value()) {}
    int cancelled = 0;
    auto aborted = [&](error_code ec, auto&&...) {
        cancelled += ec == asio::error::operation_aborted;
    };
    io.restart();
    reg.async_wait_readable(aborted);
    reg.cancel();
    reg.async_wait(interest::read_closed, aborted);
    reg.cancel(moor::direction::read);
    io.run();
    CHECK(cancelled == 2);

    // Without waiting. (The loop has to see the event: the cache is trusted.)
    send(b);
    io.restart();
    reg.async_wait_readable(asio::detached);
    io.run();
    CHECK(reg.try_io(interest::readable, reader{a}).has_value());
    CHECK(reg.try_io(interest::writable, [](error_code&) {}).has_value());
    CHECK(reg.try_io(interest::readable,
                     [&](error_code& ec) { return moor::short_transfer(reader{a}(ec), 2); })
              .has_error());

    // The poll style.
    int woken = 0;
    CHECK(reg.poll_read_ready([&] { ++woken; }).has_error());
    CHECK(reg.poll_write_ready([&] { ++woken; }).has_value());
    CHECK(reg.poll_write_io([&] { ++woken; }, [](error_code&) { return 3; }).has_value());
    CHECK(reg.poll_read_io([&] { ++woken; }, reader{a}).has_error());
    send(b);
    io.restart();
    io.run();
    CHECK(woken == 2);
    error_code ec;
    CHECK(reg.query(ec).contains(interest::readable));
    CHECK(reg.query().contains(interest::writable));
    reg.clear(reg.ready(interest::readable).only(interest::readable));
    CHECK(reader{a}(ec) == 1);
}

template <class Registration>
void registering(Registration& reg, int a, int b) {
    error_code ec;
    CHECK(reg.is_registered());
    CHECK(reg.native_handle() == a);
    reg.register_handle(b, ec);
    CHECK(ec == moor::error::already_open);
    CHECK(reg.deregister() == a);
    CHECK(reg.deregister(ec) == -1);
    CHECK(!ec);
    reg.register_handle(a);
    reg.abandon();
    reg.register_handle(a, moor::trigger::edge);
    reg.reset(b);
    reg.reset(b, ec);
    reg.reset(a, moor::trigger::edge, ec);
    reg.reset(a, moor::registration_options(moor::trigger::level));
    CHECK(!ec);
    (void)reg.deregister(ec);
    reg.register_handle(a, ec);
    CHECK(!ec);
    (void)reg.deregister(ec);
    reg.register_handle(a, moor::registration_options(), ec);
    CHECK(!ec);
}

/// A descriptor that has a handle, and is to be without one afterwards.
template <class Descriptor>
void use(asio::io_context& io, Descriptor& d, const moor::descriptor& other, int b) {
    int over = 0;
    auto counted = [&](error_code ec) { over += !ec; };
    auto errors = [&](error_code ec) { over += ec == asio::error::operation_aborted; };
    error_code ec;
    CHECK(d.is_open());
    CHECK(d.native_handle() == d.registration().native_handle());
    CHECK(&d.lowest_layer() == &d);
    CHECK(d.get_executor() == other.get_executor());

    // Waits.
    d.async_wait(Descriptor::wait_write, counted);
    d.async_wait(Descriptor::wait_read, asio::deferred)(counted);
    d.async_wait(Descriptor::wait_error, errors);
    d.wait(Descriptor::wait_write);
    d.wait(Descriptor::wait_write, ec);
    CHECK(!ec);
    io.restart();
    io.poll();
    CHECK(over == 1);
    send(b);
    while (over != 2)
        io.run_one();
    d.cancel();
    d.cancel(ec);
    CHECK(!ec);
    io.run();
    CHECK(over == 3);

    // Modes.
    typename Descriptor::bytes_readable readable;
    d.io_control(readable);
    d.io_control(readable, ec);
    CHECK(readable.get() == 1);
    d.non_blocking(true);
    d.non_blocking(false, ec);
    d.native_non_blocking(true);
    d.native_non_blocking(false, ec);
    CHECK(!ec && !d.non_blocking() && !d.native_non_blocking());

    // The handle.
    Descriptor moved(std::move(d));
    d = std::move(moved);
    bool was_borrowed = d.is_borrowed();
    int handle = d.release();
    CHECK(d.release(ec) == -1 && !d.is_open());
    if (was_borrowed)
        d.assign(moor::borrow(handle), ec);
    else
        d.assign(handle, ec);
    CHECK(!ec);
    d.assign(handle, ec);
    CHECK(ec == asio::error::already_open);
}

template <class Stream>
void use_stream(asio::io_context& io, Stream& s, int b) {
    std::array<char, 4> got;
    const std::array<asio::mutable_buffer, 2> parts{asio::buffer(got.data(), 1),
                                                    asio::buffer(got.data() + 1, 3)};
    error_code ec;
    std::size_t bytes = 0;
    auto counted = [&](error_code e, std::size_t n) { bytes += e ? 100 : n; };
    CHECK(s.read_some(asio::buffer(got), ec) == 1 && !ec); // left by the waits
    s.async_read_some(asio::buffer(got), counted);
    io.restart();
    io.poll();
    CHECK(bytes == 0);
    send(b);
    io.run();
    CHECK(bytes == 1);
    s.async_write_some(asio::buffer("abc", 3), asio::deferred)(counted);
    s.async_write_some(parts, counted);
    s.async_read_some(asio::mutable_buffer(), counted);
    io.restart();
    io.run();
    CHECK(bytes == 8);
    CHECK(s.write_some(parts) == 4);
    CHECK(s.write_some(asio::buffer("x", 1), ec) == 1 && !ec);
    CHECK(::read(b, got.data(), 4) == 4);
    send(b);
    send(b);
    CHECK(s.read_some(parts) == 2);
    s.non_blocking(true, ec);
    CHECK(s.read_some(parts, ec) == 0 && ec == asio::error::would_block);
    s.async_read_some(asio::buffer(got), counted);
    s.close();
    s.close(ec);
    io.restart();
    io.run();
    CHECK(!ec && bytes == 108);
}

void use_descriptors(asio::io_context& io, int a, int b) {
    using concrete = moor::basic_stream_descriptor<asio::io_context::executor_type>;
    owner o{a};
    moor::descriptor other(io);
    {
        moor::stream_descriptor s(io, moor::borrow(a));
        use(io, s, other, b);
        use_stream(io, s, b);
        moor::descriptor plain(io.get_executor(), moor::borrow(o));
        use(io, plain, other, b);
        error_code ec;
        CHECK(reader{a}(ec) == 1);
    }
    {
        concrete s(io.get_executor(), ::fcntl(a, F_DUPFD_CLOEXEC, 0));
        use(io, s, other, b);
        use_stream(io, s, b);
        s.assign(::fcntl(a, F_DUPFD_CLOEXEC, 0));
        concrete::rebind_executor<asio::any_io_executor>::other any(std::move(s));
        CHECK(any.is_open() && !any.is_borrowed());
        any = moor::stream_descriptor(io);
        moor::descriptor d(io, ::fcntl(a, F_DUPFD_CLOEXEC, 0));
        CHECK(d.is_open());
    }
}

void use_watchers(asio::io_context& io, int a, int b) {
    int calls = 0;
    moor::watcher w(io, a, [&](error_code ec, moor::readiness r) {
        error_code e;
        CHECK(!ec && r.is_readable() && reader{a}(e) == 1);
        ++calls;
        w.set_interest({});
        return moor::drained();
    });
    w.name("watched");
    w.rate_limit(100, std::chrono::seconds(1));
    w.set_interest(interest::readable);
    w.keeps_running(false);
    w.keeps_running(true);
    w.expires_after(std::chrono::hours(1));
    w.expires_never();
    send(b);
    io.restart();
    io.run();
    CHECK(calls == 1 && w.get_interest() == interest());
    CHECK(!w.renew(a) && w.native_handle() == a && w.detach() == a);
    moor::watcher deadline(io, [&](error_code ec, moor::readiness) {
        CHECK(ec == asio::error::timed_out);
        ++calls;
    });
    deadline.expires_at(std::chrono::steady_clock::now());
    moor::wants wanted{a, interest::readable};
    moor::source s(
        io, [&] { return wanted; },
        [&](error_code, moor::readiness) {
            error_code e;
            CHECK(reader{a}(e) == 1);
            wanted = {};
        },
        [] {});
    send(b);
    io.restart();
    io.run();
    CHECK(calls == 2 && wanted.fd == -1);
    s.touch();
    s.stop();
    deadline.stop();
    io.restart();
    io.run();
}

void use_operations(asio::io_context& io) {
    int calls = 0;
    using operation = moor::operation<void(error_code, int)>;
    operation op =
        operation::start([&](error_code ec, int n) { calls += !ec && n == 7; }, io.get_executor());
    op.on_cancel([](asio::cancellation_type) {});
    operation other(std::move(op));
    CHECK(!op && other);
    other.complete(error_code(), 7);
    ::pid_t pid = ::fork();
    if (pid == 0)
        ::_exit(3);
    error_code ec;
    moor::process child(io, pid, ec);
    CHECK(!ec && child.id() == pid && child.native_handle() >= 0);
    child.async_wait([&](error_code e, moor::exit_status s) { calls += !e && s.code() == 3; });
    child.async_wait_usage([&](error_code e, moor::exit_status s, const ::rusage&) {
        calls += !e && s == moor::exit_status(3 << 8);
    });
    io.restart();
    io.run();
    CHECK(calls == 3);
    child.kill(SIGTERM, ec);
    CHECK(ec == boost::system::errc::no_such_process);
    child.cancel();
}

void use_lists(asio::io_context& io, int a, int b) {
    ::pollfd fds[] = {{a, POLLIN, 0}};
    int calls = 0;
    auto counted = [&](error_code ec, std::size_t ready) { calls += !ec && ready == 1; };
    moor::poll_set set(io);
    set.async_wait(fds, 1, std::chrono::hours(1), counted);
    set.cancel();
    set.forget(a);
    io.restart();
    io.run();
    CHECK(calls == 0);
    moor::basic_poll_set<asio::io_context::executor_type> concrete(io.get_executor());
    concrete.async_wait(fds, 1, std::chrono::seconds(-1), counted);
    set = std::move(concrete);
    moor::async_poll(io, fds, 1, std::chrono::seconds(10), asio::deferred)(counted);
    send(b);
    moor::async_poll(set.get_executor(), fds, 1, std::chrono::milliseconds(0), counted);
    io.restart();
    io.run();
    error_code ec;
    CHECK(calls == 3 && fds[0].revents == POLLIN && reader{a}(ec) == 1);
}

} // namespace

int main() {
    int fds[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    {
        asio::io_context io;
        moor::registration_service& service = moor::use_registration_service(io);
        {
            moor::registration reg(io, fds[0]);
            use(io, reg, fds[0], fds[1]);
            registering(reg, fds[0], fds[1]);
            moor::registration moved(std::move(reg));
            reg = std::move(moved);
            (void)reg.get_executor();
        }
        {
            using concrete = moor::basic_registration<asio::io_context::executor_type>;
            concrete reg(io.get_executor(), fds[0], moor::trigger::edge);
            use(io, reg, fds[0], fds[1]);
            registering(reg, fds[0], fds[1]);
            concrete::rebind_executor<asio::any_io_executor>::other any(std::move(reg));
            any = moor::registration(io);
        }
        {
            auto strand = asio::make_strand(io.get_executor());
            owner o{fds[0]};
            moor::basic_registration<decltype(strand)> reg(strand, o);
            moor::registration other(io);
            registering(reg, fds[0], fds[1]);
            (void)reg.deregister();
            moor::registration by_context(io, o, moor::trigger::edge);
        }
        use_descriptors(io, fds[0], fds[1]);
        use_watchers(io, fds[0], fds[1]);
        use_operations(io);
        use_lists(io, fds[0], fds[1]);
        std::ostringstream os;
        service.dump(os);
        os << interest::readable << moor::make_error_code(moor::error::gone).message();
        CHECK(!os.str().empty());
        CHECK(service.snapshot().empty());
        CHECK(service.metrics().registered == service.metrics().deregistered);
        service.inline_budget(service.inline_budget());
        service.close();
        CHECK(service.is_closed());
    }
#if !defined(BOOST_ASIO_DISABLE_THREADS)
    {
        asio::thread_pool pool(1);
        moor::basic_registration<asio::thread_pool::executor_type> reg(pool, fds[0]);
        bool over = false;
        reg.async_wait_writable([&](error_code ec) { over = !ec; });
        pool.join();
        CHECK(over);
    }
#endif
    ::close(fds[0]);
    ::close(fds[1]);
    return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
