// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Kinds of file. Only what the kernel refuses to poll is always ready; for everything else a wait
// completes for what poll(2) reports, whatever fstat(2) says of the file.

#include "support/kinds.hpp"

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>

#include <atomic>
#include <cerrno>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <linux/netlink.h>
#include <mqueue.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace asio = boost::asio;
using moor::interest;
using test::error_code;
using test::unique_fd;

bool kernel_refuses_to_poll(int fd) {
    unique_fd set(::epoll_create1(EPOLL_CLOEXEC));
    ::epoll_event e{};
    return ::epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == -1 && errno == EPERM;
}

/// A file, and what happens to it step by step.
struct subject {
    std::vector<unique_fd> fds; ///< the first is the one that is waited for
    std::vector<std::function<void()>> steps;
};

struct kind {
    const char* name;
    subject (*make)();
};

subject open_path(const char* path, int mode) {
    subject s;
    int fd = ::open(path, mode | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        s.fds.emplace_back(fd);
    return s;
}

template <class... Fds>
subject make_subject(Fds... fds) {
    subject s;
    (s.fds.emplace_back(std::move(fds)), ...);
    return s;
}

unique_fd open_queue(int flags = O_NONBLOCK, long messages = 2) {
    static std::atomic<int> number{0};
    std::string name = "/moor-" + std::to_string(::getpid()) + "-" + std::to_string(++number);
    ::mq_attr attributes{};
    attributes.mq_maxmsg = messages;
    attributes.mq_msgsize = 16;
    int fd =
        ::mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, 0600, &attributes);
    ::mq_unlink(name.c_str());
    unique_fd owned;
    if (fd >= 0)
        owned = unique_fd(fd);
    return owned;
}

void send_message(int queue, const std::string& s) {
    BOOST_REQUIRE_EQUAL(::mq_send(queue, s.data(), s.size(), 0), 0);
}

/// For async_io and try_io. Of a queue that blocks it would take a message only if there is one.
struct receive {
    int queue;

    std::string operator()(error_code& ec) const {
        char buffer[16];
        ::timespec now{};
        ::ssize_t n = ::mq_timedreceive(queue, buffer, sizeof(buffer), nullptr, &now);
        if (n < 0) {
            ec = errno == ETIMEDOUT ? error_code(asio::error::would_block) : test::last_error();
            n = 0;
        }
        return std::string(buffer, static_cast<std::size_t>(n));
    }
};

const kind each_kind[] = {
    {"message queue",
     [] {
         subject s;
         unique_fd queue = open_queue();
         if (queue < 0)
             return s;
         int fd = queue;
         s.fds.push_back(std::move(queue));
         s.steps = {[fd] { send_message(fd, "one"); }, [fd] { send_message(fd, "two"); },
                    [fd] {
                        error_code ec;
                        receive{fd}(ec);
                    }};
         return s;
     }},
    {"message queue that blocks",
     [] {
         subject s;
         unique_fd queue = open_queue(0, 1);
         if (queue < 0)
             return s;
         int fd = queue;
         s.fds.push_back(std::move(queue));
         s.steps = {[fd] { send_message(fd, "one"); }};
         return s;
     }},
    {"/proc/self/mountinfo", [] { return open_path("/proc/self/mountinfo", O_RDONLY); }},
    {"/proc/self/mounts", [] { return open_path("/proc/self/mounts", O_RDONLY); }},
    {"/proc/swaps", [] { return open_path("/proc/swaps", O_RDONLY); }},
    {"/proc/meminfo", [] { return open_path("/proc/meminfo", O_RDONLY); }},
    {"/proc/self/status", [] { return open_path("/proc/self/status", O_RDONLY); }},
    {"/proc/sys/kernel/hostname", [] { return open_path("/proc/sys/kernel/hostname", O_RDONLY); }},
    {"/proc/sys/kernel/ostype", [] { return open_path("/proc/sys/kernel/ostype", O_RDONLY); }},
    {"/proc/pressure/cpu", [] { return open_path("/proc/pressure/cpu", O_RDONLY); }},
    {"/sys/kernel/uevent_seqnum", [] { return open_path("/sys/kernel/uevent_seqnum", O_RDONLY); }},
    {"/sys/class/net/lo/mtu",
     [] {
         subject s = open_path("/sys/class/net/lo/mtu", O_RDONLY);
         if (!s.fds.empty()) // POLLPRI until the first read
             s.steps = {[fd = s.fds[0].get()] { test::get(fd); }};
         return s;
     }},
    {"directory", [] { return open_path("/tmp", O_RDONLY | O_DIRECTORY); }},
    {"directory of /proc", [] { return open_path("/proc/self/fd", O_RDONLY | O_DIRECTORY); }},
    {"regular file", [] { return open_path("/tmp", O_RDWR | O_TMPFILE); }},
    {"program", [] { return open_path("/proc/self/exe", O_RDONLY); }},
    {"memory file", [] { return make_subject(unique_fd(::memfd_create("moor", MFD_CLOEXEC))); }},
    {"/dev/null", [] { return open_path("/dev/null", O_RDWR); }},
    {"/dev/zero", [] { return open_path("/dev/zero", O_RDWR); }},
    {"/dev/full", [] { return open_path("/dev/full", O_RDWR); }},
    {"/dev/random", [] { return open_path("/dev/random", O_RDONLY); }},
    {"/dev/urandom", [] { return open_path("/dev/urandom", O_RDONLY); }},
    {"eventfd",
     [] {
         subject s = make_subject(unique_fd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)));
         auto add = [fd = s.fds[0].get()](std::uint64_t n) {
             BOOST_REQUIRE_EQUAL(::write(fd, &n, sizeof(n)), 8);
         };
         s.steps = {[add] { add(1); }, [add] { add(~std::uint64_t() - 2); }}; // now it is full
         return s;
     }},
    {"timerfd",
     [] {
         subject s =
             make_subject(unique_fd(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)));
         s.steps = {[fd = s.fds[0].get()] {
             ::itimerspec soon{};
             soon.it_value.tv_nsec = 1;
             BOOST_REQUIRE_EQUAL(::timerfd_settime(fd, 0, &soon, nullptr), 0);
             BOOST_REQUIRE(test::wait_for([&] { return test::poll_bits(fd) != 0; }));
         }};
         return s;
     }},
    {"inotify",
     [] {
         subject s = make_subject(unique_fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)));
         int watch = ::inotify_add_watch(s.fds[0], "/tmp", IN_ATTRIB | IN_ONLYDIR);
         s.steps = {[fd = s.fds[0].get(), watch] { ::inotify_rm_watch(fd, watch); }};
         return s;
     }},
    {"pidfd",
     [] {
         ::pid_t child = ::fork();
         if (child == 0) {
             ::pause();
             ::_exit(0);
         }
         subject s = make_subject(unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0))));
         s.steps = {[child] {
                        ::kill(child, SIGKILL);
                        ::siginfo_t info;
                        ::waitid(P_PID, static_cast<::id_t>(child), &info, WEXITED | WNOWAIT);
                    },
                    [child] { ::waitpid(child, nullptr, 0); }};
         return s;
     }},
    {"epoll set",
     [] {
         test::fd_pair p = test::make_pipe();
         subject s = make_subject(unique_fd(::epoll_create1(EPOLL_CLOEXEC)), std::move(p.a),
                                  std::move(p.b));
         ::epoll_event e{};
         e.events = EPOLLIN;
         ::epoll_ctl(s.fds[0], EPOLL_CTL_ADD, s.fds[1], &e);
         s.steps = {[fd = s.fds[2].get()] { test::put(fd, "x"); },
                    [fd = s.fds[1].get()] { test::drain(fd); }};
         return s;
     }},
    {"listening socket",
     [] {
         subject s = make_subject(
             unique_fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)),
             unique_fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)));
         s.steps = {[a = s.fds[0].get()] { ::listen(a, 1); },
                    [a = s.fds[0].get(), b = s.fds[1].get()] {
                        ::sockaddr_in at{};
                        ::socklen_t len = sizeof(at);
                        ::getsockname(a, reinterpret_cast<::sockaddr*>(&at), &len);
                        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                        ::connect(b, reinterpret_cast<::sockaddr*>(&at), len);
                    }};
         return s;
     }},
    {"netlink",
     [] {
         return make_subject(unique_fd(
             ::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE)));
     }},
    {"urgent data",
     [] {
         test::fd_pair p = test::make_tcp_pair();
         subject s = make_subject(std::move(p.a), std::move(p.b));
         s.steps = {[fd = s.fds[1].get()] { ::send(fd, "!", 1, MSG_OOB); },
                    [fd = s.fds[0].get()] {
                        char c;
                        (void)!::recv(fd, &c, 1, MSG_OOB);
                    }};
         return s;
     }},
    {"terminal",
     [] {
         test::fd_pair p = test::make_pty();
         subject s = make_subject(std::move(p.b), std::move(p.a));
         s.steps = {[fd = s.fds[1].get(), terminal = s.fds[0].get()] {
             test::put(fd, "line\n");
             BOOST_REQUIRE(
                 test::wait_for([&] { return (test::poll_bits(terminal) & POLLIN) != 0; }));
         }};
         return s;
     }},
};

/// What the last steps leave of a child.
void finish(subject& s, std::size_t from) {
    for (; from < s.steps.size(); ++from)
        s.steps[from]();
}

/// All steps before the n-th are past, that one comes before the wait or during it.
void check_one(test::tally& results, const kind& k, std::size_t n, bool is_pending, moor::trigger t,
               interest want) {
    subject s = k.make();
    int fd = s.fds[0];
    asio::io_context io;
    for (std::size_t i = 0; i != n; ++i)
        s.steps[i]();
    const bool is_refused = kernel_refuses_to_poll(fd);
    const int mask = test::bits_of(want, fd), before = is_pending ? test::poll_bits(fd) : 0;
    moor::registration reg(io, fd, t);
    test::outcome c;
    auto wait = [&] { reg.async_wait(want, c.handler()); };
    if (is_pending) {
        wait();
        results.run_ready(io);
        results.check(c.times() == 0 || is_refused || (before & mask) != 0, k.name, ", step ", n,
                      ", ", test::name_of(t), ", ", want, " does not pend: ", c);
    }
    if (n != s.steps.size())
        s.steps[n]();
    const int after = test::poll_bits(fd);
    if (!is_pending)
        wait();
    const bool must = is_refused || ((before | after) & mask) != 0;
    if (must)
        results.comes(io, [&] { return c.times() != 0; });
    else
        results.run_ready(io);
    error_code expected;
    if (is_refused && !want.is_readable() && !want.is_writable())
        expected = asio::error::operation_not_supported;
    results.check(c.times() == (must ? 1 : 0) && (!must || c.ec() == expected), k.name, ", step ",
                  n, is_pending ? ", pending, " : ", ", test::name_of(t), ", ", want,
                  must ? " hangs or fails: " : " is not there: ", c);
    reg.deregister();
    results.run_ready(io);
    finish(s, n + 1);
}

bool has_queues() {
    if (open_queue() >= 0)
        return true;
    BOOST_TEST_MESSAGE("not run: no message queues here");
    return false;
}

} // namespace

BOOST_AUTO_TEST_SUITE(kinds)

BOOST_AUTO_TEST_CASE(a_wait_completes_for_what_poll_reports_on_each_kind_of_file) {
    test::tally results;
    for (const kind& k : each_kind) {
        subject example = k.make();
        if (example.fds.empty()) {
            BOOST_TEST_MESSAGE("not run: no " << k.name << " here");
            continue;
        }
        finish(example, 0);
        for (moor::trigger t : test::both_triggers)
            for (interest want : test::each_interest())
                for (bool is_pending : {false, true})
                    for (std::size_t n = 0; n <= example.steps.size(); ++n)
                        check_one(results, k, n, is_pending, t, want);
    }
}

BOOST_AUTO_TEST_CASE(a_message_queue_is_waited_for_as_often_as_it_is_used) {
    if (!has_queues())
        return;
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (int flags : {O_NONBLOCK, 0}) {
            asio::io_context io;
            unique_fd queue = open_queue(flags);
            moor::registration reg(io, queue.get(), t);
            for (int round = 0; round != 5; ++round) {
                test::outcome read, written;
                error_code ec;
                reg.async_wait_readable(read.handler());
                results.run_ready(io);
                // A handler that receives here would block the loop. (An event of one direction
                // may tell an edge-triggered wait of the other direction again.)
                results.check(read.times() == 0 || t == moor::trigger::edge, "readable, and empty");
                send_message(queue, "a");
                send_message(queue, "b");
                results.check(results.comes(io, [&] { return bool(read); }) && !read.ec(),
                              "not readable with a message");
                (void)reg.try_io(interest::writable, [](error_code& e) {
                    e = asio::error::would_block; // two is all that it holds
                });
                reg.async_wait_writable(written.handler());
                results.run_ready(io);
                results.check(written.times() == 0, "writable, and full");
                while (!ec)
                    receive{queue}(ec);
                results.check(results.comes(io, [&] { return bool(written); }) && !written.ec(),
                              "not writable with room");
            }
            reg.deregister();
            results.run_ready(io);
        }
}

BOOST_AUTO_TEST_CASE(operations_on_a_message_queue_pend_until_a_message_comes) {
    if (!has_queues())
        return;
    test::tally results;
    for (moor::trigger t : test::both_triggers)
        for (int flags : {O_NONBLOCK, 0}) {
            asio::io_context io;
            unique_fd queue = open_queue(flags);
            moor::registration reg(io, queue.get(), t);
            for (int round = 0; round != 5; ++round) {
                std::string text;
                test::outcome c;
                results.check(reg.try_io(interest::readable, receive{queue}).error() ==
                                  asio::error::would_block,
                              "try_io of an empty queue");
                reg.async_io(interest::readable, receive{queue},
                             [&, h = c.handler()](error_code ec, std::string s) {
                                 text = std::move(s);
                                 h(ec);
                             });
                results.run_ready(io);
                results.check(c.times() == 0, "completes on an empty queue: ", c);
                send_message(queue, "message");
                results.check(results.comes(io, [&] { return bool(c); }) && !c.ec() &&
                                  text == "message",
                              "does not complete with a message: ", c);
            }
            reg.cancel();
            results.run_ready(io);
        }
}

BOOST_AUTO_TEST_CASE(a_stream_on_a_message_queue_waits_for_messages) {
    if (!has_queues())
        return;
    test::tally results;
    for (int flags : {O_NONBLOCK, 0}) {
        asio::io_context io;
        unique_fd queue = open_queue(flags);
        moor::stream_descriptor stream(io, moor::borrow(queue.get()));
        test::outcome c;
        stream.async_wait(moor::stream_descriptor::wait_read, c.handler());
        results.run_ready(io);
        results.check(c.times() == 0, "a wait on an empty queue");
        send_message(queue, "message");
        results.check(results.comes(io, [&] { return bool(c); }) && !c.ec(), "a wait hangs");
    }
}

BOOST_AUTO_TEST_SUITE_END()
