//
// moor/detail/pidfd.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// System calls on a pidfd, and how a child ended: fetched once, and kept for all waits. Nothing
// here knows of registrations or operations.
//
// waitid(2) is called with WNOHANG, so that it does not block, and with the pidfd, so that it can
// neither take another child's status nor meet a process ID that was given again. (The kernel makes
// a pidfd readable when the process has ended, for ever after.) The calls go through syscall(2):
// older versions of glibc have no wrappers, and the wrapper of waitid(2) returns no resource usage.
//

#ifndef MOOR_DETAIL_PIDFD_HPP
#define MOOR_DETAIL_PIDFD_HPP

#include <moor/detail/mutex.hpp>
#include <moor/detail/system_calls.hpp>
#include <moor/error.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>
#include <boost/system/errc.hpp>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__linux__) && defined(SYS_pidfd_open) && defined(SYS_pidfd_send_signal)
#define MOOR_HAS_PIDFD 1
#endif

namespace moor {
namespace detail {

/// How a child ended: the status word of wait(2), and what the child used.
struct child_end {
    int status = 0;
    ::rusage usage = {};
};

/// The system calls. Each sets `ec`; where there are no pidfds, to `operation_not_supported`.
namespace pidfd_calls {

#if defined(MOOR_HAS_PIDFD)

/// The error of a call that failed just now. A kernel that does not know the call has no pidfds.
inline error_code error_now() noexcept {
    return errno == ENOSYS ? error_code(boost::asio::error::operation_not_supported)
                           : system_error_now();
}

/// Returns a pidfd that is closed by exec; or -1, and sets `ec`.
inline int open(::pid_t pid, error_code& ec) noexcept {
    int handle = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0u));
    ec = handle < 0 ? error_now() : error_code();
    return handle;
}

inline void send_signal(int handle, int signal, error_code& ec) noexcept {
    long r = ::syscall(SYS_pidfd_send_signal, handle, signal, nullptr, 0u);
    ec = r < 0 ? error_now() : error_code();
}

/// `struct rusage` as the kernel writes it: on 32-bit systems, the C library's may be wider.
struct kernel_usage {
    long user_seconds, user_microseconds, system_seconds, system_microseconds;
    long maxrss, ixrss, idrss, isrss, minflt, majflt, nswap, inblock, oublock, msgsnd, msgrcv,
        nsignals, nvcsw, nivcsw;

    ::rusage get() const noexcept {
        ::rusage u = {};
        assign(u.ru_utime, user_seconds, user_microseconds);
        assign(u.ru_stime, system_seconds, system_microseconds);
        u.ru_maxrss = maxrss;
        u.ru_ixrss = ixrss;
        u.ru_idrss = idrss;
        u.ru_isrss = isrss;
        u.ru_minflt = minflt;
        u.ru_majflt = majflt;
        u.ru_nswap = nswap;
        u.ru_inblock = inblock;
        u.ru_oublock = oublock;
        u.ru_msgsnd = msgsnd;
        u.ru_msgrcv = msgrcv;
        u.ru_nsignals = nsignals;
        u.ru_nvcsw = nvcsw;
        u.ru_nivcsw = nivcsw;
        return u;
    }

private:
    static void assign(::timeval& t, long seconds, long microseconds) noexcept {
        t.tv_sec = seconds;
        t.tv_usec = microseconds;
    }
};

/// Reaps a child, without waiting for its end. `would_block`: it has not ended.
inline child_end reap(int handle, error_code& ec) noexcept {
    constexpr int by_pidfd = 3;     // P_PIDFD
    constexpr int core_flag = 0x80; // WCOREFLAG
    ::siginfo_t info = {};
    kernel_usage usage = {};
    // __WALL: also a child that was made by clone(2) with another signal than SIGCHLD.
    constexpr int options = WEXITED | WNOHANG | __WALL;
    long r = uninterrupted(
        [&] { return ::syscall(SYS_waitid, by_pidfd, handle, &info, options, &usage); });
    child_end end;
    if (r < 0) {
        // Linux 5.3 makes pidfds, and does not know P_PIDFD.
        ec =
            errno == EINVAL ? error_code(boost::asio::error::operation_not_supported) : error_now();
    } else if (info.si_signo == 0) {
        ec = boost::asio::error::would_block;
    } else {
        ec = error_code();
        end.status = info.si_code == CLD_EXITED   ? (info.si_status & 0xff) << 8
                     : info.si_code == CLD_DUMPED ? info.si_status | core_flag
                                                  : info.si_status;
        end.usage = usage.get();
    }
    return end;
}

/// The process that a pidfd stands for, which the kernel names in /proc; -1 if it has ended and was
/// reaped, 0 if it has no number here.
inline ::pid_t process_of(int handle, error_code& ec) noexcept {
    char text[1024];
    std::snprintf(text, sizeof(text), "/proc/thread-self/fdinfo/%d", handle);
    int info = uninterrupted([&] { return ::open(text, O_RDONLY | O_CLOEXEC); });
    if (info < 0) {
        ec = system_error_now();
        return -1;
    }
    ::ssize_t n = uninterrupted([&] { return ::read(info, text, sizeof(text) - 1); });
    ec = n < 0 ? system_error_now() : error_code();
    ::close(info);
    if (ec)
        return -1;
    text[n] = '\0';
    const char* line = std::strstr(text, "\nPid:");
    if (!line) {
        ec = boost::asio::error::invalid_argument; // not a pidfd
        return -1;
    }
    return static_cast<::pid_t>(std::strtol(line + 5, nullptr, 10));
}

#else

inline int open(::pid_t, error_code& ec) noexcept {
    ec = boost::asio::error::operation_not_supported;
    return -1;
}
inline void send_signal(int, int, error_code& ec) noexcept {
    ec = boost::asio::error::operation_not_supported;
}
inline child_end reap(int, error_code& ec) noexcept {
    ec = boost::asio::error::operation_not_supported;
    return child_end();
}
inline ::pid_t process_of(int, error_code& ec) noexcept {
    ec = boost::asio::error::operation_not_supported;
    return -1;
}

#endif

} // namespace pidfd_calls

/// A child, its pidfd, and how it ended. A process object and its operations share the child: the
/// pidfd stays open, and the end known, for as long as one of them needs it.
class child {
public:
    child() = default;
    child(const child&) = delete;
    child& operator=(const child&) = delete;
    ~child() {
        if (owns_handle_)
            ::close(handle_);
    }

    /// Once: makes a pidfd.
    void open(::pid_t pid, error_code& ec) noexcept {
        if (pid <= 0) {
            ec = boost::asio::error::invalid_argument;
            return;
        }
        handle_ = pidfd_calls::open(pid, ec);
        owns_handle_ = handle_ >= 0;
        pid_ = pid;
    }

    /// Once: uses somebody else's pidfd.
    void borrow(int handle, error_code& ec) noexcept {
        if (::fcntl(handle, F_GETFD) < 0) {
            ec = system_error_now();
            return;
        }
        pid_ = pidfd_calls::process_of(handle, ec);
        handle_ = handle;
    }

    ::pid_t pid() const noexcept { return pid_; }
    int native_handle() const noexcept { return handle_; }

    /// How the child ended, fetched now if it was not before; or an error: `would_block` if the
    /// child has not ended.
    child_end reap(error_code& ec) noexcept {
        state_lock lock(mutex_);
        if (!end_) {
            child_end end = pidfd_calls::reap(handle_, ec);
            if (ec)
                return end;
            end_ = end;
        }
        ec = error_code();
        return *end_;
    }

private:
    ::pid_t pid_ = -1;
    int handle_ = -1;
    bool owns_handle_ = false;
    state_mutex mutex_;
    std::optional<child_end> end_;
};

} // namespace detail
} // namespace moor

#undef MOOR_HAS_PIDFD

#endif // MOOR_DETAIL_PIDFD_HPP
