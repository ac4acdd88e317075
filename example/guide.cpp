//
// guide.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The code of the guide in doc/*.adoc, for C++17: test/doc/check_snippets.cmake compares the pages
// with the parts between the markers. The program runs every part, and fails if a part does not do
// what its page says. The parts with coroutines are in guide20.cpp.
//

#include <moor.hpp>
#include <moor/inspect.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/deferred.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <functional>
#include <future>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// ---- helpers ------------------------------------------------------------------------------------

void expect(bool condition, const char* what) {
    if (!condition)
        throw std::logic_error(what);
}

/// Owns a descriptor.
class unique_fd {
public:
    explicit unique_fd(int fd = -1) noexcept : fd_(fd) {}
    unique_fd(unique_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    unique_fd& operator=(unique_fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~unique_fd() { close(); }

    int get() const noexcept { return fd_; }
    void close() noexcept {
        if (fd_ >= 0)
            ::close(std::exchange(fd_, -1));
    }

private:
    int fd_;
};

/// A pipe whose ends do not block.
struct pipe_ends {
    pipe_ends() {
        int ends[2];
        if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0)
            throw std::runtime_error("pipe2");
        reading = unique_fd(ends[0]);
        writing = unique_fd(ends[1]);
    }
    void write(std::string_view text) const {
        if (::write(writing.get(), text.data(), text.size()) < 0)
            throw std::runtime_error("write");
    }
    /// Writes until there is no room.
    void fill() const {
        const std::string block(4096, 'x');
        while (::write(writing.get(), block.data(), block.size()) > 0) {}
    }

    unique_fd reading, writing;
};

// ---- waiting ------------------------------------------------------------------------------------

//[wait_one
/// Waits once, and then reads.
void wait_once(moor::registration& reg, int fd, std::string& received) {
    reg.async_wait_readable([fd, &received](moor::error_code ec) {
        if (ec)
            return; // operation_aborted, for instance
        char buffer[64];
        ssize_t n = ::read(fd, buffer, sizeof(buffer));
        if (n > 0)
            received.append(buffer, static_cast<std::size_t>(n));
    });
}
//]

//[wait_several
/// Waits for data or for the end, whichever comes first.
void wait_for_data_or_end(moor::registration& reg, std::string& seen) {
    using moor::interest;
    reg.async_wait(interest::readable | interest::read_closed,
                   [&seen](moor::error_code ec, moor::ready_event event) {
                       if (ec)
                           return;
                       if (event.is_readable())
                           seen += "readable ";
                       if (event.is_read_closed())
                           seen += "closed ";
                   });
}
//]

//[try_first
/// Writes the whole text: at once as long as there is room, and the rest after a wait for room.
void send(moor::registration& reg, int fd, std::string text,
          std::function<void(moor::error_code)> done) {
    while (!text.empty()) {
        auto sent = reg.try_io(moor::interest::writable, [&](moor::error_code& ec) {
            return moor::check_errno(::write(fd, text.data(), text.size()), ec);
        });
        if (sent) {
            text.erase(0, static_cast<std::size_t>(*sent));
            continue;
        }
        if (sent.error() != asio::error::would_block)
            return done(sent.error());
        return reg.async_wait_writable([&reg, fd, text, done](moor::error_code ec) {
            if (ec)
                return done(ec);
            send(reg, fd, text, done);
        });
    }
    done(moor::error_code());
}
//]

//[io_call
/// Takes the count of an eventfd: `void(error_code, std::uint64_t)`.
template <class Token>
auto async_take_count(moor::registration& reg, int fd, Token&& token) {
    return reg.async_io(
        moor::interest::readable,
        [fd](moor::error_code& ec) {
            std::uint64_t count = 0;
            moor::check_errno(::read(fd, &count, sizeof(count)), ec);
            return moor::drained(count); // one read takes the whole count
        },
        std::forward<Token>(token));
}
//]

//[io_pipe
/// Reads from a pipe: `void(error_code, ssize_t)`.
template <class Token>
auto async_read_pipe(moor::registration& reg, int fd, char* data, std::size_t size, Token&& token) {
    return reg.async_io(
        moor::interest::readable,
        [fd, data, size](moor::error_code& ec) {
            return moor::short_transfer(moor::check_errno(::read(fd, data, size), ec), size);
        },
        std::forward<Token>(token));
}
//]

/// Stands for a TLS library, which has to send a greeting before it can receive.
class session {
public:
    enum : int { broken = -1, wants_read = -2, wants_write = -3 };

    explicit session(int fd) : fd_(fd) {}

    /// Returns the number of bytes, or one of the constants.
    int read(char* data, std::size_t size) {
        if (!has_greeted_) {
            if (::send(fd_, "hi", 2, MSG_NOSIGNAL) < 0)
                return errno == EAGAIN ? wants_write : broken;
            has_greeted_ = true;
        }
        ssize_t n = ::recv(fd_, data, size, 0);
        return n >= 0 ? static_cast<int>(n) : errno == EAGAIN ? wants_read : broken;
    }

private:
    int fd_;
    bool has_greeted_ = false;
};

//[io_changing
/// Reads through a library that may have to write first: `void(error_code, int)`.
template <class Token>
auto async_read(moor::registration& reg, session& lib, char* data, std::size_t size,
                Token&& token) {
    return reg.async_io(
        moor::interest::readable,
        [&lib, data, size](moor::error_code& ec) -> moor::drainable<int> {
            int n = lib.read(data, size);
            switch (n) {
            case session::wants_read:
                return moor::wait_for(moor::interest::readable);
            case session::wants_write:
                return moor::wait_for(moor::interest::writable);
            case session::broken:
                ec = asio::error::connection_aborted;
                return {};
            default:
                return {n};
            }
        },
        std::forward<Token>(token));
}
//]

//[polling
/// Counts the lines which arrive, as far as they have arrived; without a handler for each read.
class line_counter {
public:
    line_counter(asio::io_context& io, int fd) : reg_(io, fd) {}

    /// Reads until the call would block. Then the waker calls this again, after the next event.
    void step() {
        for (;;) {
            char bytes[4096];
            auto n =
                reg_.poll_read_io([this] { step(); },
                                  [&](moor::error_code& ec) {
                                      return moor::check_errno(
                                          ::read(reg_.native_handle(), bytes, sizeof(bytes)), ec);
                                  });
            if (n && *n > 0) {
                lines_ += std::count(bytes, bytes + *n, '\n');
                continue;
            }
            if (n || n.error() != asio::error::would_block)
                is_over_ = true; // the end, or an error
            return;
        }
    }

    std::ptrdiff_t lines() const { return lines_; }
    bool is_over() const { return is_over_; }

private:
    moor::registration reg_;
    std::ptrdiff_t lines_ = 0;
    bool is_over_ = false;
};
//]

void waiting() {
    asio::io_context io;
    {
        pipe_ends p;
        moor::registration reg(io, p.reading.get());
        std::string received;
        wait_once(reg, p.reading.get(), received);
        p.write("hello");
        io.run();
        io.restart();
        expect(received == "hello", "wait_one");

        std::string seen;
        p.writing.close();
        wait_for_data_or_end(reg, seen);
        io.run();
        io.restart();
        expect(seen.find("closed") != std::string::npos, "wait_several");
    }
    {
        pipe_ends p;
        line_counter counter(io, p.reading.get());
        counter.step();
        p.write("one\ntwo\nthr");
        while (counter.lines() < 2)
            expect(io.run_one() == 1, "polling");
        expect(counter.lines() == 2 && !counter.is_over(), "polling");
        p.write("ee\n");
        p.writing.close();
        io.run();
        io.restart();
        expect(counter.lines() == 3 && counter.is_over(), "polling to the end");
    }
    {
        pipe_ends p;
        moor::registration reg(io, p.writing.get());
        int sent = 0;
        auto done = [&](moor::error_code ec) { sent += !ec; };
        send(reg, p.writing.get(), "at once", done);
        expect(sent == 1, "try_first at once");
        p.fill();
        send(reg, p.writing.get(), "later", done);
        asio::post(io, [&] {
            char buffer[4096];
            while (::read(p.reading.get(), buffer, sizeof(buffer)) > 0) {}
        });
        io.run();
        io.restart();
        expect(sent == 2, "try_first later");
        send(reg, p.writing.get(), std::string(100'000, 'x'), done); // more than the pipe holds
        std::size_t received = 0;
        std::function<void()> receive = [&] {
            char buffer[4096];
            for (ssize_t n; (n = ::read(p.reading.get(), buffer, sizeof(buffer))) > 0;)
                received += static_cast<std::size_t>(n);
            if (sent == 2)
                asio::post(io, receive);
        };
        receive();
        io.run();
        io.restart();
        receive();
        expect(sent == 3 && received == 100'005, "try_first in parts"); // with "later"
    }
    {
        unique_fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        moor::registration reg(io, fd.get());
        std::uint64_t taken = 0;
        async_take_count(reg, fd.get(), [&](moor::error_code, std::uint64_t n) { taken = n; });
        ::eventfd_write(fd.get(), 42);
        io.run();
        io.restart();
        expect(taken == 42, "io_call");
    }
    {
        pipe_ends p;
        moor::registration reg(io, p.reading.get());
        char data[64];
        ssize_t size = 0;
        async_read_pipe(reg, p.reading.get(), data, sizeof(data),
                        [&](moor::error_code, ssize_t n) { size = n; });
        p.write("hello");
        io.run();
        io.restart();
        expect(size == 5, "io_pipe");
    }
    {
        int ends[2];
        expect(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
               "socketpair");
        unique_fd mine(ends[0]), other(ends[1]);
        const std::string block(4096, 'x');
        while (::send(mine.get(), block.data(), block.size(), MSG_NOSIGNAL) > 0) {}
        session lib(mine.get());
        moor::registration reg(io, mine.get());
        char data[64];
        int size = 0;
        async_read(reg, lib, data, sizeof(data), [&](moor::error_code, int n) { size = n; });
        io.poll(); // now the session waits for room
        std::string greeting(1 << 20, '\0');
        ssize_t n;
        while ((n = ::recv(other.get(), greeting.data(), greeting.size(), 0)) > 0) {}
        ::send(other.get(), "hello", 5, MSG_NOSIGNAL);
        io.run();
        io.restart();
        expect(size == 5, "io_changing");
    }
}

// ---- triggers -----------------------------------------------------------------------------------

//[level
/// Takes one byte for each wait. A level-triggered registration reports the rest again.
void take_bytes(moor::registration& level, int fd, std::string& text) {
    level.async_wait_readable([&level, fd, &text](moor::error_code ec) {
        char byte;
        if (ec || ::read(fd, &byte, 1) != 1)
            return; // an error, or the end
        text += byte;
        take_bytes(level, fd, text);
    });
}
//]

//[edge
/// Reads until the call would block, and only then waits again.
void take_all(moor::registration& edge, int fd, std::string& text) {
    edge.async_wait_readable([&edge, fd, &text](moor::error_code ec) {
        if (ec)
            return;
        char buffer[16];
        ssize_t n;
        while ((n = ::read(fd, buffer, sizeof(buffer))) > 0)
            text.append(buffer, static_cast<std::size_t>(n));
        if (n < 0 && errno == EAGAIN) // drained
            take_all(edge, fd, text);
    });
}
//]

//[clear
/// Tells Moor that a read of the program's own would block.
bool read_some(moor::registration& reg, const moor::ready_event& event, int fd, std::string& text) {
    char buffer[64];
    ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EAGAIN) {
        reg.clear(event.only(moor::interest::readable));
        return false;
    }
    text.append(buffer, n > 0 ? static_cast<std::size_t>(n) : 0);
    return n > 0;
}
//]

void triggers() {
    asio::io_context io;
    {
        pipe_ends p;
        moor::registration level(io, p.reading.get()); // the default
        std::string text;
        take_bytes(level, p.reading.get(), text);
        p.write("level");
        p.writing.close();
        io.run();
        io.restart();
        expect(text == "level", "level");
    }
    {
        pipe_ends p;
        moor::registration edge(io, p.reading.get(), moor::trigger::edge);
        std::string text;
        take_all(edge, p.reading.get(), text);
        p.write("more than sixteen bytes");
        io.poll();
        p.write(", and then more");
        p.writing.close();
        io.run();
        io.restart();
        expect(text == "more than sixteen bytes, and then more", "edge");
    }
    {
        pipe_ends p;
        moor::registration reg(io, p.reading.get());
        std::string text;
        reg.async_wait(moor::interest::readable, [&](moor::error_code, moor::ready_event event) {
            while (read_some(reg, event, p.reading.get(), text)) {}
        });
        io.poll();
        p.write("clear");
        io.run();
        io.restart();
        expect(text == "clear", "clear");
        expect(reg.ready(moor::interest::readable).empty(), "clear: nothing is cached");
    }
}

// ---- lifetimes ----------------------------------------------------------------------------------

//[members
/// An eventfd and its registration. The registration is the last member, so it ends first.
class bell {
public:
    explicit bell(asio::io_context& io)
        : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)), reg_(io, fd_.get()) {}

    void ring() { ::eventfd_write(fd_.get(), 1); }

    template <class Token>
    auto async_wait(Token&& token) {
        return reg_.async_wait_readable(std::forward<Token>(token));
    }

private:
    unique_fd fd_;           // destroyed last: closes the descriptor
    moor::registration reg_; // destroyed first: ends the registration
};
//]

//[shared
/// A client that lives as long as an operation of its own is pending.
class client : public std::enable_shared_from_this<client> {
public:
    client(asio::io_context& io, unique_fd fd) : fd_(std::move(fd)), reg_(io, fd_.get()) {}

    void start() {
        reg_.async_wait_readable([self = shared_from_this()](moor::error_code ec) {
            if (!ec)
                self->read();
        });
    }

private:
    void read() {
        char buffer[64];
        ssize_t n = ::read(fd_.get(), buffer, sizeof(buffer));
        if (n > 0 || (n < 0 && errno == EAGAIN))
            start(); // otherwise, the last owner is gone, and the client is destroyed
    }

    unique_fd fd_;
    moor::registration reg_;
};
//]

/// Stands for a library that opens another file, also under the same number.
class reopening_library {
public:
    reopening_library() : fd_(::dup(pipe_.reading.get())) {}

    int socket() const { return fd_.get(); }
    /// Afterwards, the number belongs to another file, which is readable.
    void reconnect() {
        other_.write("x");
        ::dup2(other_.reading.get(), fd_.get());
    }

private:
    pipe_ends pipe_, other_;
    unique_fd fd_;
};

//[renew
/// Waits for a library that may have closed its socket and opened another one.
template <class Handler>
void wait_for(moor::registration& reg, reopening_library& lib, Handler handler) {
    reg.renew(lib.socket()); // registers the socket again if it is another file
    reg.async_wait_readable(handler);
}
//]

//[abandon
/// The library has closed its socket before the registration ended.
void replace(moor::registration& reg, int new_socket) {
    reg.abandon(); // passes the old number to no system call
    reg.register_handle(new_socket);
}
//]

//[deregister
/// Ends the registration first, and closes the descriptor second.
void close_both(moor::registration& reg) {
    ::close(reg.deregister()); // deregister() returns the number
}
//]

void lifetimes() {
    asio::io_context io;
    {
        bell b(io);
        bool rang = false;
        b.async_wait([&](moor::error_code ec) { rang = !ec; });
        b.ring();
        io.run();
        io.restart();
        expect(rang, "members");
    }
    {
        moor::error_code result;
        auto b = std::make_unique<bell>(io);
        b->async_wait([&](moor::error_code ec) { result = ec; });
        b.reset();
        io.run();
        io.restart();
        expect(result == asio::error::operation_aborted, "members: destroyed while waiting");
    }
    {
        pipe_ends p;
        auto c = std::make_shared<client>(io, std::move(p.reading));
        std::weak_ptr<client> alive = c;
        std::exchange(c, nullptr)->start();
        p.write("hello");
        io.poll();
        expect(!alive.expired(), "shared: still alive");
        p.writing.close();
        io.restart();
        io.run();
        io.restart();
        expect(alive.expired(), "shared: gone");
    }
    {
        reopening_library lib;
        moor::registration reg(io, lib.socket());
        moor::error_code first, second = asio::error::operation_aborted;
        wait_for(reg, lib, [&](moor::error_code ec) { first = ec; });
        io.poll();
        lib.reconnect();
        wait_for(reg, lib, [&](moor::error_code ec) { second = ec; });
        io.restart();
        io.run();
        io.restart();
        expect(first == asio::error::operation_aborted && !second, "renew");
    }
    {
        pipe_ends old, fresh;
        moor::registration reg(io, old.reading.get());
        moor::error_code first, second;
        reg.async_wait_readable([&](moor::error_code ec) { first = ec; });
        old.reading.close();
        replace(reg, fresh.reading.get());
        reg.async_wait_readable([&](moor::error_code ec) { second = ec; });
        fresh.write("x");
        io.run();
        io.restart();
        expect(first == asio::error::operation_aborted && !second, "abandon");
    }
    {
        moor::registration reg(io, ::eventfd(0, EFD_CLOEXEC));
        const int fd = reg.native_handle();
        close_both(reg);
        expect(::fcntl(fd, F_GETFD) == -1 && !reg.is_registered(), "deregister");
    }
}

// ---- errors -------------------------------------------------------------------------------------

//[explain
/// Says for a log how a wait has ended.
std::string explain(const moor::error_code& ec) {
    namespace errc = boost::system::errc;
    if (!ec)
        return "the handle is ready";
    if (ec == asio::error::operation_aborted)
        return "the wait was cancelled, or its registration ended";
    if (ec == moor::error::gone)
        return "the execution context is shutting down";
    if (ec == errc::file_exists) // already_registered, already_open, registered_elsewhere
        return "the descriptor is registered twice: " + ec.message();
    if (ec == errc::bad_file_descriptor) // bad_descriptor, not_registered
        return "there is no open descriptor: " + ec.message();
    return ec.message() + " (" + ec.category().name() + ")";
}
//]

//[would_block
/// A call of a library with error codes of its own reports would-block to Moor.
long call_library(long (*call)(), moor::error_code& ec) {
    const long result = call();
    if (result == -11) // the library's own "try again"
        ec = asio::error::would_block;
    else if (result < 0)
        ec.assign(static_cast<int>(-result), boost::system::generic_category());
    return result;
}
//]

//[no_exception
/// Registers without an exception.
bool try_to_register(moor::registration& reg, int fd) {
    moor::error_code ec;
    reg.register_handle(fd, ec);
    if (ec)
        std::cerr << "descriptor " << fd << ": " << explain(ec) << '\n';
    return !ec;
}
//]

void errors() {
    asio::io_context io;
    pipe_ends p;
    moor::registration reg(io, p.reading.get()), second(io);

    moor::error_code ec;
    second.register_handle(p.reading.get(), ec);
    expect(ec == moor::error::already_registered, "already_registered");
    expect(explain(ec).find("twice") != std::string::npos, "explain: already_registered");
    reg.register_handle(p.writing.get(), ec);
    expect(ec == moor::error::already_open, "already_open");
    expect(explain(ec).find("twice") != std::string::npos, "explain: already_open");
    second.register_handle(-1, ec);
    expect(ec == asio::error::bad_descriptor, "bad_descriptor");
    expect(explain(ec).find("no open") != std::string::npos, "explain: bad_descriptor");
    std::string aborted, unregistered, empty;
    reg.async_wait_readable([&](moor::error_code e) { aborted = explain(e); });
    reg.cancel();
    second.async_wait_readable([&](moor::error_code e) { unregistered = explain(e); });
    reg.async_wait(moor::interest::none,
                   [&](moor::error_code e, moor::ready_event) { empty = explain(e); });
    io.run();
    io.restart();
    expect(aborted.find("cancelled") != std::string::npos, "explain: operation_aborted");
    expect(unregistered.find("no open") != std::string::npos, "explain: not_registered");
    expect(empty.find("Invalid argument") != std::string::npos, "explain: invalid_argument");
    expect(try_to_register(second, p.writing.get()), "no_exception");

    std::string gone;
    reg.async_wait_readable([&](moor::error_code e) { gone = explain(e); });
    moor::use_registration_service(io).close();
    io.run();
    io.restart();
    expect(gone.find("shutting down") != std::string::npos, "explain: gone");

    call_library([] { return -11l; }, ec);
    expect(ec == asio::error::would_block, "would_block");
    call_library([] { return -5l; }, ec);
    expect(ec.value() == EIO, "would_block: another error");
}

// ---- timeouts and cancellation ------------------------------------------------------------------

//[timer_cancel
/// Waits until the handle is readable, or the time is over.
template <class Handler>
void wait_at_most(moor::registration& reg, asio::steady_timer& timer,
                  std::chrono::milliseconds limit, Handler handler) {
    timer.expires_after(limit);
    timer.async_wait([&reg](moor::error_code ec) {
        if (!ec)
            reg.cancel(moor::direction::read); // cancels every pending wait for reading
    });
    reg.async_wait_readable([&timer, handler](moor::error_code ec) {
        timer.cancel();
        handler(ec); // operation_aborted after the limit
    });
}
//]

//[slot
/// Begins a wait that `stop` can cancel, without an effect on other waits.
template <class Handler>
void start(moor::registration& reg, asio::cancellation_signal& stop, Handler handler) {
    reg.async_wait_readable(asio::bind_cancellation_slot(stop.slot(), handler));
}
//]

void timeouts() {
    asio::io_context io;
    pipe_ends p;
    moor::registration reg(io, p.reading.get());
    {
        asio::steady_timer timer(io);
        moor::error_code late, in_time = asio::error::operation_aborted;
        wait_at_most(reg, timer, 20ms, [&](moor::error_code ec) { late = ec; });
        io.run();
        io.restart();
        expect(late == asio::error::operation_aborted, "timer_cancel: late");
        p.write("x");
        wait_at_most(reg, timer, 60s, [&](moor::error_code ec) { in_time = ec; });
        io.run();
        io.restart();
        expect(!in_time, "timer_cancel: in time");
    }
    {
        pipe_ends q;
        moor::registration both(io, q.reading.get());
        asio::cancellation_signal stop;
        moor::error_code first, second = asio::error::operation_aborted;
        start(both, stop, [&](moor::error_code ec) { first = ec; });
        both.async_wait_readable([&](moor::error_code ec) { second = ec; });
        stop.emit(asio::cancellation_type::terminal);
        q.write("x");
        io.run();
        io.restart();
        expect(first == asio::error::operation_aborted && !second, "slot");
    }
}

// ---- tokens -------------------------------------------------------------------------------------

//[future
/// Blocks the calling thread; another thread has to run the io_context.
void wait_on_this_thread(moor::registration& reg) {
    std::future<void> ready = reg.async_wait_readable(asio::use_future);
    ready.get(); // throws boost::system::system_error after an error
}
//]

//[deferred
/// Describes a wait now, and begins the wait later.
template <class Handler>
void describe_and_start(moor::registration& reg, Handler handler) {
    auto operation = reg.async_wait_readable(asio::deferred); // nothing happens yet
    std::move(operation)(handler);                            // now the wait begins
}
//]

//[own_function
/// An initiating function of the program's own, which takes every token.
template <class Token>
auto async_wait_for_bell(moor::registration& reg, Token&& token) {
    return reg.async_wait_readable(std::forward<Token>(token));
}
//]

void tokens() {
    asio::io_context io;
    pipe_ends p;
    p.write("x");
    moor::registration reg(io, p.reading.get());
    {
        auto guard = asio::make_work_guard(io);
        std::thread runner([&] { io.run(); });
        wait_on_this_thread(reg);
        guard.reset();
        runner.join();
        io.restart();
    }
    {
        bool ready = false;
        describe_and_start(reg, [&](moor::error_code ec) { ready = !ec; });
        io.run();
        io.restart();
        expect(ready, "deferred");
    }
    {
        auto ready = async_wait_for_bell(reg, asio::use_future);
        io.run();
        io.restart();
        ready.get();
    }
}

// ---- threads ------------------------------------------------------------------------------------

//[strand
/// Counts bells on a pool of threads. All handlers run on one strand, so no mutex is necessary.
class bell_counter {
public:
    bell_counter(asio::thread_pool& pool, int event_fd)
        : fd_(event_fd), reg_(asio::make_strand(pool), event_fd) {}

    /// Called once, before any other member.
    std::future<std::uint64_t> start(std::uint64_t limit) {
        limit_ = limit;
        wait();
        return done_.get_future();
    }

private:
    void wait() {
        async_take_count(reg_, fd_, [this](moor::error_code ec, std::uint64_t n) {
            count_ += n; // on the strand
            if (!ec && count_ < limit_)
                return wait();
            done_.set_value(count_);
        });
    }

    int fd_;
    moor::registration reg_; // the strand is the I/O executor, and the default for handlers
    std::uint64_t count_ = 0, limit_ = 0;
    std::promise<std::uint64_t> done_;
};
//]

//[other_executor
/// Waits in one context, and runs the handler in another one.
template <class Handler>
void wait_elsewhere(moor::registration& reg, asio::io_context& other, Handler handler) {
    reg.async_wait_readable(asio::bind_executor(other, handler));
}
//]

void threads() {
    {
        unique_fd fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        asio::thread_pool pool(3);
        bell_counter counter(pool, fd.get());
        std::future<std::uint64_t> count = counter.start(100);
        for (int i = 0; i != 100; ++i)
            ::eventfd_write(fd.get(), 1);
        expect(count.get() == 100, "strand");
        pool.join();
    }
    {
        asio::io_context io, other;
        pipe_ends p;
        p.write("x");
        moor::registration reg(io, p.reading.get());
        auto guard = asio::make_work_guard(other);
        std::thread::id ran;
        std::thread runner([&] { other.run(); });
        const std::thread::id runner_id = runner.get_id();
        wait_elsewhere(reg, other, [&](moor::error_code) { ran = std::this_thread::get_id(); });
        io.run();
        guard.reset();
        runner.join();
        expect(ran == runner_id, "other_executor");
    }
}

// ---- watchers -----------------------------------------------------------------------------------

//[watch
/// Counts the bytes that arrive, and gives up after a time of silence.
class byte_counter {
public:
    byte_counter(asio::io_context& io, int fd, std::chrono::milliseconds silence)
        : fd_(fd), silence_(silence),
          watcher_(io, fd, [this](moor::error_code ec, moor::readiness) { on_event(ec); }) {
        watcher_.set_interest(moor::interest::readable);
        watcher_.expires_after(silence_);
    }

    std::size_t count() const { return count_; }

private:
    void on_event(moor::error_code ec) {
        char buffer[64];
        ssize_t n = ec ? 0 : ::read(fd_, buffer, sizeof(buffer));
        if (n <= 0) // timed_out, another error, or the end of the pipe
            return watcher_.stop();
        count_ += static_cast<std::size_t>(n);
        watcher_.expires_after(silence_); // replaces the previous deadline
    }

    int fd_;
    std::chrono::milliseconds silence_;
    std::size_t count_ = 0;
    moor::watcher watcher_;
};
//]

//[limited
/// A watcher that survives a handler which leaves the descriptor ready.
moor::watcher watch_slowly(asio::io_context& io, int fd, std::function<void()> f) {
    moor::watcher w(io, fd, [f](moor::error_code ec, moor::readiness) {
        if (ec == moor::error::rate_limited)
            return; // a pause begins, and ends by itself
        f();
    });
    w.rate_limit(3, 20ms); // three calls in 20 ms
    w.set_interest(moor::interest::readable);
    return w;
}
//]

void watchers() {
    asio::io_context io;
    {
        pipe_ends p;
        byte_counter counter(io, p.reading.get(), 50ms);
        p.write("hello");
        io.run();
        io.restart();
        expect(counter.count() == 5, "watch");
    }
    {
        pipe_ends p;
        p.write("x"); // never read
        int calls = 0;
        moor::watcher w = watch_slowly(io, p.reading.get(), [&] {
            if (++calls == 5)
                io.stop();
        });
        const auto before = std::chrono::steady_clock::now();
        io.run();
        io.restart();
        expect(std::chrono::steady_clock::now() - before >= 15ms, "limited");
    }
}

// ---- processes ----------------------------------------------------------------------------------

::pid_t start_program(const char* name) {
    ::pid_t pid = -1;
    std::string copy = name;
    char* arguments[] = {copy.data(), nullptr};
    expect(::posix_spawnp(&pid, name, nullptr, nullptr, arguments, environ) == 0, name);
    return pid;
}

//[process
/// Waits for the end of a child, and says how the child ended.
void report_end(moor::process& child, std::ostream& log) {
    child.async_wait([&log](moor::error_code ec, moor::exit_status status) {
        if (ec)
            log << "nobody knows: " << ec.message();
        else
            log << "the child " << status; // such as "the child exited with 0"
    });
}
//]

void processes() {
    asio::io_context io;
    moor::process child(io, start_program("false"));
    std::ostringstream log;
    report_end(child, log);
    io.run();
    expect(log.str() == "the child exited with 1", "process");
}

// ---- what is registered -------------------------------------------------------------------------

//[dump
/// Prints what is registered, and what is waited for.
void print_registrations(asio::io_context& io, std::ostream& os) {
    moor::use_registration_service(io).dump(os);
}
//]

//[metrics
/// The number of operations that are pending now.
std::size_t pending(asio::io_context& io) {
    std::size_t sum = 0;
    for (const moor::registration_info& r : moor::use_registration_service(io).snapshot())
        sum += r.waiters;
    return sum;
}
//]

//[stuck
/// Prints each registration whose oldest operation has been pending for longer than a limit.
void print_stuck(asio::io_context& io, std::chrono::milliseconds limit, std::ostream& os) {
    for (const moor::registration_info& r : moor::use_registration_service(io).snapshot())
        if (r.pending_for > limit)
            os << r.name << " (" << r.path << ") has waited for " << r.waited_for << " for "
               << r.pending_for.count() << " ms\n";
}
//]

//[inspector
/// Runs the loop; meanwhile, a browser can show the registrations.
void run_inspected(asio::io_context& io) {
    moor::inspector_options options;
    options.stuck_after = std::chrono::minutes(1);
    moor::inspector inspector(io, options);
    std::cerr << "registrations: " << inspector.url() << '\n';
    io.run();
}
//]

void inspection() {
    asio::io_context io;
    pipe_ends p;
    moor::registration reg(io, p.reading.get());
    reg.name("a pipe");
    reg.async_wait_readable([](moor::error_code) {});
    std::ostringstream text;
    print_registrations(io, text);
    expect(text.str().find("a pipe") != std::string::npos, "dump");
    expect(pending(io) == 1, "metrics");
    std::ostringstream stuck;
    for (const auto start = std::chrono::steady_clock::now(); stuck.str().empty();) {
        expect(std::chrono::steady_clock::now() - start < 30s, "stuck");
        print_stuck(io, 0ms, stuck);
    }
    expect(stuck.str().find(") has waited for readable for") != std::string::npos, "stuck");
    p.write("x");
    run_inspected(io);
    expect(pending(io) == 0, "inspector");
}

} // namespace

int main() try {
    waiting();
    triggers();
    lifetimes();
    errors();
    timeouts();
    tokens();
    threads();
    watchers();
    processes();
    inspection();
    std::cout << "every part of the guide does what its page says\n";
    return EXIT_SUCCESS;
} catch (const std::exception& e) {
    std::cerr << "FAILED: " << e.what() << '\n';
    return EXIT_FAILURE;
}
