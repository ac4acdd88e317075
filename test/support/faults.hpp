// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Calls that are made to fail, by link-time wrapping: the n-th call of a kind from now on, as often
// as wanted.

#ifndef MOOR_TEST_SUPPORT_FAULTS_HPP
#define MOOR_TEST_SUPPORT_FAULTS_HPP

#include <cerrno>
#include <limits>

namespace test {

/// What can be made to fail. A wrapper for each is in counts.cpp, faults.cpp or uring.cpp.
enum class call : unsigned {
    allocation, // of operator new, where allocations are counted
    poll,
    fstat,
    fstatfs,
    readlink,
    isatty,
    getsockopt,
    fcntl,     // but for F_DUPFD_CLOEXEC
    fcntl_dup, // F_DUPFD_CLOEXEC
    ioctl,
    open,
    dup3,
    close, // closes, and reports the error
    epoll_create1,
    epoll_add, // EPOLL_CTL_ADD, but for the files that wake Asio's reactor
    epoll_mod, // EPOLL_CTL_MOD, with the same exception
    epoll_wait,
    select,
    eventfd,
    timerfd_create,
    read, // this and the next nine: of the handle of watched_transfers
    readv,
    preadv2,
    recv,
    recvmsg,
    write,
    writev,
    pwritev2,
    send,
    sendmsg,
    futex,
    pidfd_open,
    pidfd_send_signal,
    waitid,          // by syscall(2), with WNOHANG
    waitid_blocking, // the same without
    getdents64,      // by syscall(2)
    uring_queue_init,
    uring_submit,
    uring_get_cqe,
    uring_poll, // not a call, but the result of a request: EINVAL or EBADF
    count
};

/// The name of the function.
const char* name_of(call c);

/// How often this was called since the start of the program, whoever called it, but for own_calls.
long calls_of(call c);

/// Makes a call fail while this lives: from the n-th call on, from 1, so many times. One at a time.
class fault {
public:
    static constexpr long always = std::numeric_limits<long>::max();

    fault(call c, int error, long n = 1, long times = always);
    ~fault();
    fault(const fault&) = delete;
    fault& operator=(const fault&) = delete;

    /// How often the call has failed.
    long happened() const;
};

/// No memory while this lives, after n more allocations.
struct out_of_memory : fault {
    explicit out_of_memory(long n = 0) : fault(call::allocation, ENOMEM, n + 1) {}
};

/// What this thread calls while this lives is the test's own: it does not fail.
class own_calls {
public:
    own_calls();
    ~own_calls();
    own_calls(const own_calls&) = delete;
    own_calls& operator=(const own_calls&) = delete;
};

/// For the wrappers: the error with which this call has to fail, or 0.
int failure_of(call c) noexcept;

/// For the wrappers: makes the call, unless it has to fail.
template <class Real>
auto unless_it_fails(call c, Real real) -> decltype(real()) {
    if (int error = failure_of(c)) {
        errno = error;
        return -1;
    }
    return real();
}

} // namespace test

#endif
