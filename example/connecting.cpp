//
// connecting.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A library that connects step by step, and says before each step what it waits for, as libpq's
// PQconnectPoll does; with a deadline. doc/timeouts.adoc shows the part between the markers.
//

#include <moor.hpp>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <system_error>
#include <thread>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// Stands for somebody's C library. It owns its socket. It may make another one meanwhile: this one
// does, since its first attempt goes to a port where nobody listens.
class library {
public:
    enum class state { wants_read, wants_write, connected, failed };

    library(::in_port_t first, ::in_port_t second) : ports_{first, second} {}
    library(const library&) = delete;
    library& operator=(const library&) = delete;
    ~library() { ::close(socket_); }

    int socket() const { return socket_; }

    state start() { return dial(); }

    /// The next step; call it when the socket is as the last one wanted it.
    state poll() {
        if (is_dialled_) {
            char greeting;
            ::ssize_t n = ::recv(socket_, &greeting, 1, 0);
            return n == 1                     ? state::connected
                   : n < 0 && errno == EAGAIN ? state::wants_read
                                              : state::failed;
        }
        int error = 0;
        ::socklen_t size = sizeof(error);
        ::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error != 0)
            return dial();
        is_dialled_ = true;
        return state::wants_read;
    }

private:
    state dial() {
        if (attempts_ == 2)
            return state::failed;
        ::close(socket_);
        socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        ::sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = ports_[attempts_++];
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int r = ::connect(socket_, reinterpret_cast<::sockaddr*>(&address), sizeof(address));
        return r == 0 || errno == EINPROGRESS ? state::wants_write : dial();
    }

    ::in_port_t ports_[2];
    unsigned attempts_ = 0;
    int socket_ = -1;
    bool is_dialled_ = false;
};

//[connecting
asio::awaitable<void> connect(asio::io_context& io, library& lib, std::chrono::milliseconds limit) {
    using namespace asio::experimental::awaitable_operators;
    using state = library::state;
    asio::steady_timer deadline(io, limit);
    moor::registration reg(io);
    for (state s = lib.start(); s != state::connected; s = lib.poll()) {
        if (s == state::failed)
            throw std::runtime_error("the library can't connect");
        reg.renew(lib.socket()); // registers the socket, if the library has made a new one
        auto want = s == state::wants_read ? moor::interest::readable : moor::interest::writable;
        auto first = co_await (reg.async_wait(want, asio::use_awaitable) ||
                               deadline.async_wait(asio::use_awaitable));
        if (first.index() == 1) // the deadline; the wait was cancelled, and consumed no data
            throw std::system_error(std::make_error_code(std::errc::timed_out));
    }
}
//]

/// Listens on a port of its own, and perhaps greets who comes.
class server {
public:
    explicit server(bool listens) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        ::sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        ::socklen_t size = sizeof(address);
        auto* any = reinterpret_cast<::sockaddr*>(&address);
        if (::bind(socket_, any, size) != 0 || ::getsockname(socket_, any, &size) != 0 ||
            (listens && ::listen(socket_, 8) != 0))
            std::abort();
        port_ = address.sin_port;
    }
    server(const server&) = delete;
    server& operator=(const server&) = delete;
    ~server() { ::close(socket_); }

    ::in_port_t port() const { return port_; }

    void greet_one() const {
        int guest = ::accept(socket_, nullptr, nullptr);
        if (::send(guest, "!", 1, MSG_NOSIGNAL) != 1)
            std::abort();
        ::close(guest);
    }

private:
    int socket_;
    ::in_port_t port_ = 0;
};

/// Whether it ended as it should, and says how.
bool attempt(const char* what, const server& first, const server& second, bool succeeds) {
    asio::io_context io;
    library lib(first.port(), second.port());
    bool connected = false;
    asio::co_spawn(io, connect(io, lib, succeeds ? 5000ms : 50ms), [&](std::exception_ptr e) {
        connected = !e;
        try {
            if (e)
                std::rethrow_exception(e);
            std::cout << what << ": connected\n";
        } catch (const std::exception& failure) {
            std::cout << what << ": " << failure.what() << '\n';
        }
    });
    io.run();
    return connected == succeeds;
}

} // namespace

int main() {
    server nobody(false), silent(true), polite(true);
    std::thread greeter([&] { polite.greet_one(); });
    bool good = attempt("a server that greets, at the second try", nobody, polite, true);
    greeter.join();
    good &= attempt("a server that says nothing", nobody, silent, false);
    good &= attempt("no server", nobody, nobody, false);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
