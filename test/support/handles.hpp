// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Real descriptors for the tests: owned, non-blocking where that matters, and checked.

#ifndef MOOR_TEST_SUPPORT_HANDLES_HPP
#define MOOR_TEST_SUPPORT_HANDLES_HPP

#include <boost/asio/error.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace test {

using boost::system::error_code;

inline error_code last_error() {
    return error_code(errno, boost::asio::error::get_system_category());
}

/// The result of a system call; throws if the call has failed. Not a check of Boost.Test, which
/// only one thread may make at a time: the handlers of some tests open descriptors on several.
template <class T>
T called_well(T result, const char* what) {
    if (result < 0)
        throw boost::system::system_error(last_error(), what);
    return result;
}

/// Owns a descriptor.
class unique_fd {
public:
    unique_fd() = default;
    explicit unique_fd(int fd) : fd_(called_well(fd, "opening a descriptor")) {}
    unique_fd(unique_fd&& o) noexcept : fd_(std::exchange(o.fd_, -1)) {}
    unique_fd& operator=(unique_fd&& o) noexcept {
        std::swap(fd_, o.fd_);
        return *this;
    }
    ~unique_fd() { close(); }

    int get() const { return fd_; }
    operator int() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    void close() {
        if (fd_ >= 0)
            ::close(std::exchange(fd_, -1));
    }

private:
    int fd_ = -1;
};

/// Two ends: a reads what b writes (and, but for a pipe, the other way round).
struct fd_pair {
    unique_fd a;
    unique_fd b;
};

/// A second handle for the same file, for a descriptor to own: what programs do with STDIN_FILENO.
inline int duplicate(int fd) {
    return called_well(::fcntl(fd, F_DUPFD_CLOEXEC, 0), "F_DUPFD_CLOEXEC");
}

inline bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

inline void set_nonblocking(int fd) {
    called_well(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), "fcntl");
}

inline fd_pair make_pipe() {
    int p[2];
    called_well(::pipe2(p, O_NONBLOCK | O_CLOEXEC), "pipe2");
    return {unique_fd(p[0]), unique_fd(p[1])};
}

inline fd_pair make_socketpair(int type = SOCK_STREAM) {
    int p[2];
    called_well(::socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, p), "socketpair");
    return {unique_fd(p[0]), unique_fd(p[1])};
}

/// A named pipe.
inline fd_pair make_fifo() {
    char name[] = "/tmp/moor-fifo-XXXXXX";
    called_well(::mkdtemp(name) ? 0 : -1, "mkdtemp");
    std::string path = std::string(name) + "/fifo";
    called_well(::mkfifo(path.c_str(), 0600), "mkfifo");
    fd_pair p;
    p.a = unique_fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    p.b = unique_fd(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
    ::unlink(path.c_str());
    ::rmdir(name);
    return p;
}

/// A number that is not open, and so large that nothing here will open it by chance.
inline int closed_number() {
    unique_fd fd(::eventfd(0, EFD_CLOEXEC));
    return unique_fd(::fcntl(fd, F_DUPFD_CLOEXEC, 900)).get();
}

/// Closes a handle, and gives its number to the reading end of another pair, as a reuse by chance
/// would.
inline fd_pair reuse_number(unique_fd& closed, fd_pair taken) {
    int number = closed.release();
    called_well(::dup3(taken.a, number, O_CLOEXEC), "dup3");
    taken.a = unique_fd(number);
    return taken;
}

/// A connected TCP pair on loopback; a is the accepted end.
inline fd_pair make_tcp_pair() {
    unique_fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ::sockaddr_in addr{};
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    called_well(::bind(listener, reinterpret_cast<::sockaddr*>(&addr), sizeof(addr)), "bind");
    called_well(::listen(listener, 1), "listen");
    ::socklen_t len = sizeof(addr);
    called_well(::getsockname(listener, reinterpret_cast<::sockaddr*>(&addr), &len), "getsockname");
    unique_fd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    called_well(::connect(client, reinterpret_cast<::sockaddr*>(&addr), len), "connect");
    unique_fd server(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    set_nonblocking(client);
    set_nonblocking(server);
    return {std::move(server), std::move(client)};
}

/// Writes all of it.
inline void put(int fd, const std::string& s) {
    if (called_well(::write(fd, s.data(), s.size()), "write") != static_cast<::ssize_t>(s.size()))
        throw std::runtime_error("no room to write");
}

/// Reads what is there, up to n bytes; "" at would-block and at the end.
inline std::string get(int fd, std::size_t n = 65536) {
    std::string s(n, '\0');
    ::ssize_t r = ::read(fd, &s[0], n);
    s.resize(r > 0 ? static_cast<std::size_t>(r) : 0);
    return s;
}

/// Reads to would-block or the end; the number of bytes.
inline std::size_t drain(int fd) {
    char buffer[16384]; // not cleared, as a string would be: some tests drain very often
    std::size_t total = 0;
    for (;;) {
        ::ssize_t n = ::read(fd, buffer, sizeof(buffer));
        if (n <= 0)
            return total;
        total += static_cast<std::size_t>(n);
    }
}

/// Writes to would-block; the number of bytes.
inline std::size_t fill(int fd) {
    static const std::string chunk(4096, 'x');
    std::size_t total = 0;
    for (;;) {
        ::ssize_t n = ::send(fd, chunk.data(), chunk.size(), MSG_NOSIGNAL);
        if (n < 0 && errno == ENOTSOCK)
            n = ::write(fd, chunk.data(), chunk.size());
        if (n <= 0) {
            // A pipe or a socket takes less when little room is left.
            n = ::write(fd, chunk.data(), 1);
            if (n <= 0)
                return total;
        }
        total += static_cast<std::size_t>(n);
    }
}

/// Ends the connection of a datagram socket. What its peer has sent and it has not received is
/// dropped, which is an error of the peer's.
inline bool disconnect(int fd) {
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    return ::connect(fd, &nobody, sizeof(nobody)) == 0;
}

/// The pending error of a socket, which has none then.
inline int take_error(int fd) {
    int error = 0;
    socklen_t size = sizeof(error);
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

/// A callable for try_io and async_io: reads up to n bytes into a string.
struct reader {
    int fd;
    std::size_t n = 4096;

    std::string operator()(error_code& ec) {
        std::string s(n, '\0');
        ::ssize_t r = ::read(fd, &s[0], n);
        if (r < 0)
            ec = last_error();
        s.resize(r > 0 ? static_cast<std::size_t>(r) : 0);
        return s;
    }
};

} // namespace test

#endif
