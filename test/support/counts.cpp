// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#include "support/counts.hpp"

#include "support/faults.hpp"
#include "support/uring.hpp"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <new>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

std::atomic<long> polls{0}, epoll_ctls{0}, epoll_waits{0}, selects{0}, fstats{0}, allocations{0},
    live{0}, flag_changes{0};

std::atomic<int> watched{-1};
std::atomic<long> watched_reads{0}, watched_writes{0}, interruptions{0};
std::function<void()> before_transfer;
thread_local std::function<void()> behind_poll;
thread_local std::function<void()> behind_epoll_ctl;
thread_local bool is_in_hook = false; // what the hook transfers is not seen

/// Whether a number stands for the watched handle: it is the same, a duplicate, or the same
/// terminal opened again.
bool is_watched(int fd);
std::atomic<bool> holds_events{false};
std::function<void()> before_events;

/// A transfer, unless it is to fail.
template <class Real>
::ssize_t transfer(test::call c, int fd, std::atomic<long>& count, Real real) {
    if (watched != -1 && !is_in_hook && is_watched(fd)) {
        ++count;
        if (before_transfer) {
            is_in_hook = true;
            before_transfer();
            is_in_hook = false;
        }
        if (interruptions > 0 && interruptions-- > 0) {
            errno = EINTR;
            return -1;
        }
        return test::unless_it_fails(c, real);
    }
    return real();
}

} // namespace

namespace test {

void events_were_fetched() {
    if (holds_events && holds_events.exchange(false))
        std::exchange(before_events, nullptr)();
}

call_counts counts() {
    return {polls.load(),        epoll_ctls.load(), epoll_waits.load(), selects.load(),
            test::uring_calls(), fstats.load(),     allocations.load(), flag_changes.load()};
}

watched_transfers::watched_transfers(int fd) {
    watched_reads = watched_writes = interruptions = 0;
    watched = fd;
}
watched_transfers::~watched_transfers() {
    watched = -1;
    before_transfer = nullptr;
}
long watched_transfers::reads() const { return watched_reads; }
long watched_transfers::writes() const { return watched_writes; }
void watched_transfers::interrupt(long n) { interruptions = n; }
void watched_transfers::before(std::function<void()> f) { before_transfer = std::move(f); }

void after_poll_here(std::function<void()> f) { behind_poll = std::move(f); }
void after_epoll_ctl_here(std::function<void()> f) { behind_epoll_ctl = std::move(f); }

void before_events_are_handled(std::function<void()> f) {
    holds_events = false;
    before_events = std::move(f);
    holds_events = true;
}

long live_allocations() { return live; }

long open_descriptors() {
    long n = 0;
    ::DIR* d = ::opendir("/proc/self/fd");
    BOOST_REQUIRE(d);
    while (::readdir(d))
        ++n;
    ::closedir(d);
    return n;
}

} // namespace test

extern "C" {

int __real_poll(::pollfd*, ::nfds_t, int);
int __wrap_poll(::pollfd* fds, ::nfds_t n, int timeout);
int __wrap_poll(::pollfd* fds, ::nfds_t n, int timeout) {
    ++polls;
    int r = test::unless_it_fails(test::call::poll, [&] { return __real_poll(fds, n, timeout); });
    if (behind_poll)
        std::exchange(behind_poll, nullptr)();
    return r;
}

int __real_epoll_ctl(int, int, int, ::epoll_event*);
int __wrap_epoll_ctl(int ep, int op, int fd, ::epoll_event* ev);
int __wrap_epoll_ctl(int ep, int op, int fd, ::epoll_event* ev) {
    ++epoll_ctls;
    auto real = [&] { return __real_epoll_ctl(ep, op, fd, ev); };
    const bool wakes_asio = ev && (ev->events | EPOLLET) == (EPOLLIN | EPOLLERR | EPOLLET);
    int r = op == EPOLL_CTL_DEL || wakes_asio
                ? real()
                : test::unless_it_fails(
                      op == EPOLL_CTL_ADD ? test::call::epoll_add : test::call::epoll_mod, real);
    if (behind_epoll_ctl)
        std::exchange(behind_epoll_ctl, nullptr)();
    return r;
}

int __real_epoll_wait(int, ::epoll_event*, int, int);
int __wrap_epoll_wait(int ep, ::epoll_event* ev, int n, int timeout);
int __wrap_epoll_wait(int ep, ::epoll_event* ev, int n, int timeout) {
    ++epoll_waits;
    int r = test::unless_it_fails(test::call::epoll_wait,
                                  [&] { return __real_epoll_wait(ep, ev, n, timeout); });
    if (r > 0)
        test::events_were_fetched();
    return r;
}

int __real_select(int, ::fd_set*, ::fd_set*, ::fd_set*, ::timeval*);
int __wrap_select(int n, ::fd_set* r, ::fd_set* w, ::fd_set* e, ::timeval* t);
int __wrap_select(int n, ::fd_set* r, ::fd_set* w, ::fd_set* e, ::timeval* t) {
    ++selects;
    int fetched =
        test::unless_it_fails(test::call::select, [&] { return __real_select(n, r, w, e, t); });
    if (fetched > 0)
        test::events_were_fetched();
    return fetched;
}

int __real_fstat(int, struct ::stat*);
int __wrap_fstat(int fd, struct ::stat* st);
int __wrap_fstat(int fd, struct ::stat* st) {
    ++fstats;
    return test::unless_it_fails(test::call::fstat, [&] { return __real_fstat(fd, st); });
}

} // extern "C"

namespace {

bool is_watched(int fd) {
    int w = watched;
    if (fd == w)
        return true;
#if defined(SYS_kcmp)
    constexpr int compare_files = 0; // KCMP_FILE
    ::pid_t self = ::getpid();
    if (::syscall(SYS_kcmp, self, self, compare_files, fd, w) == 0)
        return true;
#endif
    struct ::stat a, b;
    return __real_fstat(fd, &a) == 0 && __real_fstat(w, &b) == 0 && S_ISCHR(a.st_mode) &&
           a.st_rdev == b.st_rdev && a.st_ino == b.st_ino && a.st_dev == b.st_dev &&
           major(a.st_rdev) >= 136 && major(a.st_rdev) < 144; // terminals of pseudoterminals
}

} // namespace

extern "C" {

// Both are variadic, and have at most one argument more, which fits a pointer.
int __real_ioctl(int fd, unsigned long request, void* argument);
int __wrap_ioctl(int fd, unsigned long request, void* argument);
int __wrap_ioctl(int fd, unsigned long request, void* argument) {
    if (request == FIONBIO)
        ++flag_changes;
    return test::unless_it_fails(test::call::ioctl,
                                 [&] { return __real_ioctl(fd, request, argument); });
}

int __real_fcntl(int fd, int command, void* argument);
int __wrap_fcntl(int fd, int command, void* argument);
int __wrap_fcntl(int fd, int command, void* argument) {
    if (command == F_SETFL)
        ++flag_changes;
    return test::unless_it_fails(command == F_DUPFD_CLOEXEC ? test::call::fcntl_dup
                                                            : test::call::fcntl,
                                 [&] { return __real_fcntl(fd, command, argument); });
}

::ssize_t __real_read(int fd, void* p, std::size_t n);
::ssize_t __wrap_read(int fd, void* p, std::size_t n);
::ssize_t __wrap_read(int fd, void* p, std::size_t n) {
    return transfer(test::call::read, fd, watched_reads, [&] { return __real_read(fd, p, n); });
}

::ssize_t __real_readv(int fd, const ::iovec* v, int n);
::ssize_t __wrap_readv(int fd, const ::iovec* v, int n);
::ssize_t __wrap_readv(int fd, const ::iovec* v, int n) {
    return transfer(test::call::readv, fd, watched_reads, [&] { return __real_readv(fd, v, n); });
}

::ssize_t __real_preadv2(int fd, const ::iovec* v, int n, ::off_t at, int flags);
::ssize_t __wrap_preadv2(int fd, const ::iovec* v, int n, ::off_t at, int flags);
::ssize_t __wrap_preadv2(int fd, const ::iovec* v, int n, ::off_t at, int flags) {
    return transfer(test::call::preadv2, fd, watched_reads,
                    [&] { return __real_preadv2(fd, v, n, at, flags); });
}

::ssize_t __real_recv(int fd, void* p, std::size_t n, int flags);
::ssize_t __wrap_recv(int fd, void* p, std::size_t n, int flags);
::ssize_t __wrap_recv(int fd, void* p, std::size_t n, int flags) {
    return transfer(test::call::recv, fd, watched_reads,
                    [&] { return __real_recv(fd, p, n, flags); });
}

::ssize_t __real_recvmsg(int fd, ::msghdr* m, int flags);
::ssize_t __wrap_recvmsg(int fd, ::msghdr* m, int flags);
::ssize_t __wrap_recvmsg(int fd, ::msghdr* m, int flags) {
    return transfer(test::call::recvmsg, fd, watched_reads,
                    [&] { return __real_recvmsg(fd, m, flags); });
}

::ssize_t __real_write(int fd, const void* p, std::size_t n);
::ssize_t __wrap_write(int fd, const void* p, std::size_t n);
::ssize_t __wrap_write(int fd, const void* p, std::size_t n) {
    return transfer(test::call::write, fd, watched_writes, [&] { return __real_write(fd, p, n); });
}

::ssize_t __real_writev(int fd, const ::iovec* v, int n);
::ssize_t __wrap_writev(int fd, const ::iovec* v, int n);
::ssize_t __wrap_writev(int fd, const ::iovec* v, int n) {
    return transfer(test::call::writev, fd, watched_writes,
                    [&] { return __real_writev(fd, v, n); });
}

::ssize_t __real_pwritev2(int fd, const ::iovec* v, int n, ::off_t at, int flags);
::ssize_t __wrap_pwritev2(int fd, const ::iovec* v, int n, ::off_t at, int flags);
::ssize_t __wrap_pwritev2(int fd, const ::iovec* v, int n, ::off_t at, int flags) {
    return transfer(test::call::pwritev2, fd, watched_writes,
                    [&] { return __real_pwritev2(fd, v, n, at, flags); });
}

::ssize_t __real_send(int fd, const void* p, std::size_t n, int flags);
::ssize_t __wrap_send(int fd, const void* p, std::size_t n, int flags);
::ssize_t __wrap_send(int fd, const void* p, std::size_t n, int flags) {
    return transfer(test::call::send, fd, watched_writes,
                    [&] { return __real_send(fd, p, n, flags); });
}

::ssize_t __real_sendmsg(int fd, const ::msghdr* m, int flags);
::ssize_t __wrap_sendmsg(int fd, const ::msghdr* m, int flags);
::ssize_t __wrap_sendmsg(int fd, const ::msghdr* m, int flags) {
    return transfer(test::call::sendmsg, fd, watched_writes,
                    [&] { return __real_sendmsg(fd, m, flags); });
}

} // extern "C"

// All of them, since the library's nothrow and aligned forms need not come down to the plain one.
#if !defined(MOOR_TEST_SANITIZED_NEW)

namespace {

bool is_out_of_memory() noexcept {
    ++allocations;
    return test::failure_of(test::call::allocation) != 0;
}

void* counted(void* p) noexcept {
    live += p != nullptr;
    return p;
}

void release(void* p) noexcept {
    live -= p != nullptr;
    std::free(p);
}

void* allocate(std::size_t n) noexcept {
    if (is_out_of_memory())
        return nullptr;
    return counted(std::malloc(n ? n : 1));
}

void* allocate(std::size_t n, std::align_val_t align) noexcept {
    if (is_out_of_memory())
        return nullptr;
    auto a = static_cast<std::size_t>(align);
    return counted(std::aligned_alloc(a, n ? (n + a - 1) / a * a : a));
}

void* or_throw(void* p) {
    if (!p)
        throw std::bad_alloc();
    return p;
}

} // namespace

void* operator new(std::size_t n) { return or_throw(allocate(n)); }
void* operator new[](std::size_t n) { return or_throw(allocate(n)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n); }
void* operator new(std::size_t n, std::align_val_t a) { return or_throw(allocate(n, a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return or_throw(allocate(n, a)); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
    return allocate(n, a);
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
    return allocate(n, a);
}

void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { release(p); }

#endif
