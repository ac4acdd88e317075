// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#include "support/faults.hpp"

#include <boost/test/unit_test.hpp>

#include <atomic>
#include <cstddef>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using test::call;

constexpr std::size_t kinds = static_cast<std::size_t>(call::count);

std::atomic<long> made[kinds];
std::atomic<call> failing{call::count};
std::atomic<int> failing_error{0};
std::atomic<long> first_failure{0}, last_failure{0}, made_since{0}, failures{0};
thread_local int own_depth = 0;

} // namespace

namespace test {

const char* name_of(call c) {
    static const char* const names[kinds] = {"operator new",
                                             "poll",
                                             "fstat",
                                             "fstatfs",
                                             "readlink",
                                             "isatty",
                                             "getsockopt",
                                             "fcntl",
                                             "fcntl(F_DUPFD_CLOEXEC)",
                                             "ioctl",
                                             "open",
                                             "dup3",
                                             "close",
                                             "epoll_create1",
                                             "epoll_ctl(ADD)",
                                             "epoll_ctl(MOD)",
                                             "epoll_wait",
                                             "select",
                                             "eventfd",
                                             "timerfd_create",
                                             "read",
                                             "readv",
                                             "preadv2",
                                             "recv",
                                             "recvmsg",
                                             "write",
                                             "writev",
                                             "pwritev2",
                                             "send",
                                             "sendmsg",
                                             "futex",
                                             "pidfd_open",
                                             "pidfd_send_signal",
                                             "waitid",
                                             "waitid without WNOHANG",
                                             "getdents64",
                                             "io_uring_queue_init",
                                             "io_uring_submit",
                                             "io_uring_wait_cqe",
                                             "a poll request"};
    return names[static_cast<std::size_t>(c)];
}

long calls_of(call c) { return made[static_cast<std::size_t>(c)]; }

fault::fault(call c, int error, long n, long times) {
    BOOST_REQUIRE(failing == call::count);
    failing_error = error;
    made_since = failures = 0;
    first_failure = n;
    last_failure = times == always ? always : n + times - 1;
    failing = c;
}
fault::~fault() { failing = call::count; }
long fault::happened() const { return failures; }

own_calls::own_calls() { ++own_depth; }
own_calls::~own_calls() { --own_depth; }

int failure_of(call c) noexcept {
    if (own_depth != 0)
        return 0;
    made[static_cast<std::size_t>(c)].fetch_add(1, std::memory_order_relaxed);
    if (failing != c)
        return 0;
    long n = ++made_since;
    if (n < first_failure || n > last_failure)
        return 0;
    ++failures;
    return failing_error;
}

} // namespace test

using test::unless_it_fails;

extern "C" {

int __real_fstatfs(int fd, struct ::statfs* fs);
int __wrap_fstatfs(int fd, struct ::statfs* fs);
int __wrap_fstatfs(int fd, struct ::statfs* fs) {
    return unless_it_fails(call::fstatfs, [&] { return __real_fstatfs(fd, fs); });
}

::ssize_t __real_readlink(const char* path, char* text, std::size_t n);
::ssize_t __wrap_readlink(const char* path, char* text, std::size_t n);
::ssize_t __wrap_readlink(const char* path, char* text, std::size_t n) {
    return unless_it_fails(call::readlink, [&] { return __real_readlink(path, text, n); });
}

int __real_isatty(int fd);
int __wrap_isatty(int fd);
int __wrap_isatty(int fd) {
    if (int error = test::failure_of(call::isatty)) {
        errno = error;
        return 0;
    }
    return __real_isatty(fd);
}

int __real_getsockopt(int fd, int level, int name, void* value, ::socklen_t* n);
int __wrap_getsockopt(int fd, int level, int name, void* value, ::socklen_t* n);
int __wrap_getsockopt(int fd, int level, int name, void* value, ::socklen_t* n) {
    return unless_it_fails(call::getsockopt,
                           [&] { return __real_getsockopt(fd, level, name, value, n); });
}

// Variadic; a mode fits the argument.
int __real_open(const char* path, int flags, unsigned long mode);
int __wrap_open(const char* path, int flags, unsigned long mode);
int __wrap_open(const char* path, int flags, unsigned long mode) {
    return unless_it_fails(call::open, [&] { return __real_open(path, flags, mode); });
}

int __real_dup3(int from, int to, int flags);
int __wrap_dup3(int from, int to, int flags);
int __wrap_dup3(int from, int to, int flags) {
    return unless_it_fails(call::dup3, [&] { return __real_dup3(from, to, flags); });
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
    int r = __real_close(fd);
    return unless_it_fails(call::close, [&] { return r; });
}

int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags) {
    return unless_it_fails(call::epoll_create1, [&] { return __real_epoll_create1(flags); });
}

int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags) {
    return unless_it_fails(call::eventfd, [&] { return __real_eventfd(count, flags); });
}

int __real_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags);
int __wrap_timerfd_create(int clock, int flags) {
    return unless_it_fails(call::timerfd_create,
                           [&] { return __real_timerfd_create(clock, flags); });
}

// Variadic, with at most six arguments.
long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
    auto real = [&] { return __real_syscall(number, a, b, c, d, e, f); };
    switch (number) {
    case SYS_futex:
        return unless_it_fails(call::futex, real);
#if defined(SYS_pidfd_open) && defined(SYS_pidfd_send_signal)
    case SYS_pidfd_open:
        return unless_it_fails(call::pidfd_open, real);
    case SYS_pidfd_send_signal:
        return unless_it_fails(call::pidfd_send_signal, real);
#endif
    case SYS_waitid:
        return unless_it_fails((d & WNOHANG) != 0 ? call::waitid : call::waitid_blocking, real);
    case SYS_getdents64:
        return unless_it_fails(call::getdents64, real);
    default:
        return real();
    }
}

} // extern "C"
