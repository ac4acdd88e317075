// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The files of the random programs, and what poll(2) says of them.

#ifndef MOOR_TEST_SUPPORT_PROMISE_FILES_HPP
#define MOOR_TEST_SUPPORT_PROMISE_FILES_HPP

#include "support/changer.hpp"
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
#include <mqueue.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace test {
namespace promise {

using moor::interest;

enum class kind {
    unix_socket,
    tcp,
    pipe_reader,
    pipe_writer,
    fifo,
    pty,
    terminal,
    eventfd,
    timerfd,
    queue, ///< of POSIX messages
    mounts ///< /proc/self/mountinfo, which tells each change once
};
inline constexpr const char* kind_names[] = {"unix_socket", "tcp",   "pipe_reader", "pipe_writer",
                                             "fifo",        "pty",   "terminal",    "eventfd",
                                             "timerfd",     "queue", "mounts"};

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
    unique_fd oracle;     ///< another open file that poll(2) is asked about instead
    short now = 0;        ///< what poll(2) reported last
    short lately = 0;     ///< and since the loops were last at rest
    long touched = 0;     ///< when something was done that may be news
    bool wrote = false;   ///< this end has sent something
    bool differs = false; ///< a call would block although poll(2) says otherwise

    bool is_socket() const { return what == kind::unix_socket || what == kind::tcp; }
    bool is_terminal() const { return what == kind::pty || what == kind::terminal; }
    /// What is told once is no state, and poll(2) has to leave it to the reactor.
    bool tells_once() const { return what == kind::mounts; }
    bool tells_once(interest flag) const {
        return tells_once() && (flag == interest::priority || flag == interest::error);
    }
    /// Two files of such a kind can't be told apart.
    bool has_no_identity() const {
        return what == kind::eventfd || what == kind::timerfd || what == kind::mounts;
    }
    /// A read or a write moves all that there is, or a fixed size.
    bool is_counter() const { return what == kind::eventfd || what == kind::timerfd; }
    /// The kernel works on it in threads of its own, so news comes at any time.
    bool is_slow() const { return is_terminal() || (what == kind::tcp && wrote); }

    /// The bits that an interest stands for.
    short mask(interest flag) const {
        int bits = test::poll_mask(flag, what == kind::pipe_writer);
        if (tells_once() && flag != interest::error)
            bits &= ~POLLERR; // readers and writers need not be told of a change
        return static_cast<short>(bits);
    }
    /// Bits that are told again and again.
    short ends(interest flag) const {
        if (flag == interest::read_closed || flag == interest::write_closed)
            return mask(flag);
        return 0;
    }
};

/// The process that changes the mounts.
inline changer& mounts() {
    static changer c;
    return c;
}

/// Nobody else can open it.
inline unique_fd make_queue() {
    static int n = 0;
    std::string name = "/moor-" + std::to_string(::getpid()) + "-" + std::to_string(++n);
    ::mq_attr size{};
    size.mq_maxmsg = 4;
    size.mq_msgsize = 64;
    int fd =
        ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK | O_CLOEXEC, 0600, &size);
    ::mq_unlink(name.c_str());
    return fd < 0 ? unique_fd() : unique_fd(fd);
}

/// Whether the system has it, and lets this user have it.
inline bool is_available(kind what) {
    static const bool has_queues = make_queue() >= 0;
    return what == kind::queue ? has_queues : what == kind::mounts ? mounts().exists() : true;
}

inline std::unique_ptr<file> make_file(kind what, std::string name) {
    auto f = std::make_unique<file>();
    if (!is_available(what))
        what = kind::eventfd; // so that the other choices of a program mean the same
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
    case kind::timerfd:
        p.a = unique_fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
        p.b = unique_fd(::fcntl(p.a, F_DUPFD_CLOEXEC, 0));
        break;
    case kind::queue:
        p.a = make_queue();
        p.b = unique_fd(::fcntl(p.a, F_DUPFD_CLOEXEC, 0));
        break;
    case kind::mounts:
        for (unique_fd* fd : {&p.a, &f->oracle})
            *fd = unique_fd(
                ::open(mounts().file("mountinfo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
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
    if (what == kind::queue) {
        n = std::min<std::size_t>(n, 64);
        return ::mq_send(fd, much.data(), n, 0) == 0 ? static_cast<::ssize_t>(n) : -1;
    }
    n = std::min(n, much.size());
    if (what == kind::unix_socket || what == kind::tcp)
        return ::send(fd, much.data(), n, MSG_NOSIGNAL | MSG_DONTWAIT);
    return ::write(fd, much.data(), n);
}

inline ::ssize_t get_some(int fd, kind what, std::size_t n) {
    std::array<char, 16384> room;
    if (what == kind::queue)
        return ::mq_receive(fd, room.data(), room.size(), nullptr);
    return ::read(fd, room.data(), std::clamp<std::size_t>(n, 8, room.size()));
}

/// Reads to would-block or the end; whether there was anything.
inline bool drain(int fd, kind what) {
    bool any = false;
    while (get_some(fd, what, 16384) > 0)
        any = true;
    return any;
}

/// The other end sends, or does what makes the file readable; whether it did.
inline bool send_from_peer(file& f, std::size_t n) {
    if (f.what == kind::mounts)
        return mounts().change_mounts();
    if (f.peer.get() == -1 || f.what == kind::pipe_writer)
        return false;
    if (f.what != kind::timerfd)
        return put_some(f.peer, f.what, n) > 0;
    ::itimerspec past{};
    past.it_value.tv_nsec = 1;
    ::pollfd expired{f.peer, POLLIN, 0}; // by an interrupt, at once
    return ::timerfd_settime(f.peer, TFD_TIMER_ABSTIME, &past, nullptr) == 0 &&
           ::poll(&expired, 1, 20000) == 1;
}

} // namespace promise
} // namespace test

#endif
