// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The files of the random programs, and what poll(2) says of them.

#ifndef MOOR_TEST_SUPPORT_PROMISE_FILES_HPP
#define MOOR_TEST_SUPPORT_PROMISE_FILES_HPP

#include "support/handles.hpp"
#include "support/kinds.hpp"
#include "support/pty.hpp"

#include <moor/readiness.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace test {
namespace promise {

using moor::interest;

enum class kind { unix_socket, tcp, pipe_reader, pipe_writer, fifo, pty, terminal, eventfd };
inline constexpr const char* kind_names[] = {"unix_socket", "tcp", "pipe_reader", "pipe_writer",
                                             "fifo",        "pty", "terminal",    "eventfd"};
inline constexpr std::pair<interest, const char*> flags[] = {
    {interest::readable, "readable"},       {interest::writable, "writable"},
    {interest::priority, "priority"},       {interest::error, "error"},
    {interest::read_closed, "read_closed"}, {interest::write_closed, "write_closed"}};
inline constexpr std::size_t flag_count = std::size(flags);
inline constexpr short asked = POLLIN | POLLOUT | POLLPRI | POLLRDHUP;

inline std::string bits(short events) {
    std::string s;
    for (auto [bit, name] : {std::pair<int, const char*>{POLLIN, "IN"},
                             {POLLOUT, "OUT"},
                             {POLLPRI, "PRI"},
                             {POLLERR, "ERR"},
                             {POLLHUP, "HUP"},
                             {POLLRDHUP, "RDHUP"},
                             {POLLNVAL, "NVAL"}})
        if (events & bit)
            s += (s.empty() ? "" : "|") + std::string(name);
    return s.empty() ? "-" : s;
}

struct file {
    kind what;
    std::string name;
    unique_fd own, peer;
    short now = 0;        ///< what poll(2) reported last
    short lately = 0;     ///< and since the loops were last at rest
    long touched = 0;     ///< when something was done that may be news
    bool wrote = false;   ///< this end has sent something
    bool differs = false; ///< a call would block although poll(2) says otherwise

    bool is_socket() const { return what == kind::unix_socket || what == kind::tcp; }
    bool is_terminal() const { return what == kind::pty || what == kind::terminal; }
    /// The kernel works on it in threads of its own, so news comes at any time.
    bool is_slow() const { return is_terminal() || (what == kind::tcp && wrote); }

    /// The bits that an interest stands for.
    short mask(interest flag) const {
        return static_cast<short>(test::poll_mask(flag, what == kind::pipe_writer));
    }
    /// Bits that are told again and again.
    short ends(interest flag) const {
        if (flag == interest::read_closed || flag == interest::write_closed)
            return mask(flag);
        return 0;
    }
};

inline std::unique_ptr<file> make_file(kind what, std::string name) {
    auto f = std::make_unique<file>();
    f->what = what;
    f->name = std::move(name);
    test::fd_pair p;
    switch (what) {
    case kind::unix_socket:
        p = test::make_socketpair();
        break;
    case kind::tcp:
        p = test::make_tcp_pair();
        break;
    case kind::pipe_reader:
        p = test::make_pipe();
        break;
    case kind::pipe_writer:
        p = test::make_pipe();
        std::swap(p.a, p.b);
        (void)::fcntl(p.a, F_SETPIPE_SZ, 4096);
        break;
    case kind::fifo:
        p = test::make_fifo();
        break;
    case kind::pty:
        p = test::make_raw_pty();
        break;
    case kind::terminal:
        p = test::make_raw_pty();
        std::swap(p.a, p.b);
        break;
    case kind::eventfd:
        p.a = unique_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        p.b = unique_fd(::fcntl(p.a, F_DUPFD_CLOEXEC, 0));
        break;
    }
    if (what == kind::unix_socket) {
        int size = 4608;
        ::setsockopt(p.a, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    f->own = std::move(p.a);
    f->peer = std::move(p.b);
    return f;
}

/// Sends without blocking and without a signal.
inline ::ssize_t put_some(int fd, kind what, std::size_t n) {
    static const std::array<char, 4096> much{};
    if (what == kind::eventfd) {
        std::uint64_t add = n;
        return ::write(fd, &add, sizeof(add));
    }
    n = std::min(n, much.size());
    if (what == kind::unix_socket || what == kind::tcp)
        return ::send(fd, much.data(), n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return ::write(fd, much.data(), n);
}

inline ::ssize_t get_some(int fd, std::size_t n) {
    std::array<char, 16384> room;
    return ::read(fd, room.data(), std::clamp<std::size_t>(n, 8, room.size()));
}

} // namespace promise
} // namespace test

#endif
