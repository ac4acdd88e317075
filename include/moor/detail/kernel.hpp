//
// moor/detail/kernel.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What Moor asks the kernel itself: poll(2) for the truth about a handle, fstat(2) for which file
// a number stands for, and fcntl(2) for which end of a pipe. Nothing here changes a handle.
//

#ifndef MOOR_DETAIL_KERNEL_HPP
#define MOOR_DETAIL_KERNEL_HPP

#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>
#include <boost/system/errc.hpp>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <type_traits>

#if defined(__linux__)
#include <sys/epoll.h>
#include <sys/vfs.h>
#endif

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace moor {
namespace detail {

#if defined(POLLRDHUP)
inline constexpr short poll_rdhup = POLLRDHUP;
#else
inline constexpr short poll_rdhup = 0;
#endif

/// Whether an error means a condition, whatever its category. Not inline: errors are rare.
BOOST_NOINLINE inline bool is_condition(const error_code& ec,
                                        boost::system::errc::errc_t condition) noexcept {
    return ec == condition;
}

/// epoll does not know a number that was closed behind Moor's back: says what that is.
inline error_code name_error(error_code ec) noexcept {
    return ec == boost::system::errc::no_such_file_or_directory
               ? error_code(boost::asio::error::bad_descriptor)
               : ec;
}

/// Whether a call says that there was nothing to do yet, in the category of whatever library: the
/// conditions are compared. The usual spellings are recognised without a virtual call.
inline bool is_would_block(const error_code& ec) noexcept {
    if (BOOST_LIKELY(ec.value() == 0))
        return false;
    if (ec == boost::asio::error::would_block || ec == boost::asio::error::try_again)
        return true;
    return is_condition(ec, boost::system::errc::operation_would_block) ||
           is_condition(ec, boost::system::errc::resource_unavailable_try_again);
}

/// Whether a call says that a signal interrupted it: it is made again.
inline bool is_interrupted(const error_code& ec) noexcept {
    return BOOST_UNLIKELY(ec.value() != 0) && is_condition(ec, boost::system::errc::interrupted);
}

/// Which file a number stands for, so that a reused number can be told from the one registered.
struct file_identity {
    std::uint64_t inode = 0;
    std::uint32_t device = 0; // Linux's numbers fit
    std::uint16_t type = 0;

    friend bool operator==(const file_identity& a, const file_identity& b) noexcept {
        return a.inode == b.inode && a.device == b.device && a.type == b.type;
    }

    bool is_fifo() const noexcept { return type == S_IFIFO; }
    bool is_socket() const noexcept { return type == S_IFSOCK; }
    bool is_character_device() const noexcept { return type == S_IFCHR; }

    /// Whether fstat(2) says "regular file" or "directory". Most of these can't be polled, but
    /// message queues and some files of /proc and /sys can: see is_always_ready().
    bool is_file() const noexcept { return type == S_IFREG || type == S_IFDIR; }
};

/// A conversion that is none on some platforms.
template <class To, class From>
constexpr To narrowed(From n) noexcept {
    if constexpr (std::is_same<To, From>::value)
        return n;
    else
        return static_cast<To>(n);
}

/// bad_descriptor if the number is not open.
inline file_identity identify(int handle, error_code& ec) noexcept {
    file_identity id;
    struct ::stat st;
    if (::fstat(handle, &st) == 0) {
        ec = error_code();
        id.device = narrowed<std::uint32_t>(st.st_dev);
        id.inode = narrowed<std::uint64_t>(st.st_ino);
        id.type = static_cast<std::uint16_t>(st.st_mode & S_IFMT);
    } else {
        ec = error_code(errno, boost::asio::error::get_system_category());
    }
    return id;
}

/// Whether a number is not open.
inline bool is_closed_number(int handle) noexcept {
    return ::fcntl(handle, F_GETFD) < 0 && errno == EBADF;
}

/// What a short transfer on a handle can prove, and poll(2) say of it.
enum class pipe_end : std::uint8_t {
    unknown, ///< nobody has asked yet
    none,    ///< nothing: no pipe, or one that keeps packets apart
    reading, ///< a read that is not filled has emptied it, unless its writers have gone
    writing, ///< a write that is cut short has filled it
    both     ///< both, and there is always a writer: itself
};

/// Only a pipe gives and takes as much as there is. Other files have boundaries at which a read
/// ends early, although there is more: a datagram, a line of a terminal, a stream socket's urgent
/// mark or a descriptor that was passed.
inline pipe_end identify_pipe_end(int handle, const file_identity& id) noexcept {
    int flags = id.is_fifo() ? ::fcntl(handle, F_GETFL) : -1;
    if (flags < 0)
        return pipe_end::none;
#if defined(O_DIRECT)
    if (flags & O_DIRECT)
        return pipe_end::none;
#endif
    int mode = flags & O_ACCMODE;
    return mode == O_RDONLY   ? pipe_end::reading
           : mode == O_WRONLY ? pipe_end::writing
                              : pipe_end::both;
}

/// What to put into pollfd::events. Errors and hang-ups are always reported.
inline short to_poll_events(interest i) noexcept {
    int events = 0;
    if (i.is_readable())
        events |= POLLIN;
    if (i.is_writable())
        events |= POLLOUT;
    if (i.is_priority())
        events |= POLLPRI;
    if (i.is_read_closed())
        events |= poll_rdhup;
    return static_cast<short>(events);
}

/// What pollfd::revents says. A hang-up closes both directions, on each kind of file. On a pipe
/// POLLERR says that the readers have gone.
inline readiness from_poll_events(int events, bool is_fifo) noexcept {
    readiness r;
    if (events & POLLIN)
        r |= readiness::readable;
    if (events & POLLOUT)
        r |= readiness::writable;
    if (events & POLLPRI)
        r |= readiness::priority;
    if (events & poll_rdhup)
        r |= readiness::read_closed;
    if (events & POLLHUP)
        r |= readiness::read_closed | readiness::write_closed;
    if (events & POLLERR)
        r |= is_fifo ? readiness::error | readiness::write_closed : readiness::error;
    return r;
}

/// Asks without blocking; returns revents. A number that is not open is bad_descriptor.
inline int poll_now(int handle, short events, error_code& ec) noexcept {
    ::pollfd p = {handle, events, 0};
    int n;
    do
        n = ::poll(&p, 1, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        ec = error_code(errno, boost::asio::error::get_system_category());
    else if (p.revents & POLLNVAL)
        ec = boost::asio::error::bad_descriptor;
    else
        ec = error_code();
    return n < 0 ? 0 : p.revents;
}

/// Whether the kernel refuses to poll a handle, as it does with most regular files and with
/// directories: poll(2) calls them ready at all times. Asked of epoll, since poll(2) does not tell
/// "always ready" from "ready now".
inline bool is_always_ready(int handle, const file_identity& id) noexcept {
    if (!id.is_file())
        return false;
#if defined(__linux__)
    int set = ::epoll_create1(EPOLL_CLOEXEC);
    if (set >= 0) {
        ::epoll_event event{};
        bool is_refused = ::epoll_ctl(set, EPOLL_CTL_ADD, handle, &event) != 0 && errno == EPERM;
        ::close(set);
        return is_refused;
    }
#endif
    return (void)handle, true;
}

#if defined(__linux__)
/// What /proc says that a handle is, cut off where the buffer ends. False: nothing.
template <std::size_t N>
bool read_path(int handle, char (&found)[N]) noexcept {
    char path[32];
    std::snprintf(path, sizeof(path), "/proc/self/fd/%d", handle);
    ::ssize_t n = ::readlink(path, found, N - 1);
    if (n < 0)
        return false;
    found[n] = '\0';
    return true;
}

/// Whether a handle is an anonymous inode of this name.
inline bool is_anonymous(int handle, const char* name) noexcept {
    char found[32];
    return read_path(handle, found) && std::strcmp(found, name) == 0;
}
#endif

/// What the kernel calls the file; empty where it says nothing.
inline std::string path_of([[maybe_unused]] int handle) {
#if defined(__linux__)
    char found[PATH_MAX];
    if (read_path(handle, found))
        return found;
#endif
    return std::string();
}

/// Whether a poll request wakes those who wait for more than poll(2) then finds: the kernel
/// completes it with the wake-up's key, and not with the state of the file. Seen with urgent data
/// of TCP, terminals with VMIN, and epoll sets.
inline bool wakes_for_more(int handle, const file_identity& id) noexcept {
    if (id.is_fifo())
        return false;
    if (id.is_socket()) {
#if defined(SO_DOMAIN)
        int domain = 0;
        ::socklen_t size = sizeof(domain);
        return ::getsockopt(handle, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
               domain != AF_UNIX;
#else
        return true;
#endif
    }
    if (id.is_character_device())
        return ::isatty(handle) != 0 || errno == EIO; // hung up
#if defined(__linux__)
    return is_anonymous(handle, "anon_inode:[eventpoll]");
#else
    return true;
#endif
}

/// Whether poll(2) tells the file's state, again and again. Other files, such as
/// /proc/self/mountinfo or a pressure trigger, tell each change to one poll only.
inline bool tells_state(int handle, const file_identity& id) noexcept {
    if (id.is_socket() || id.is_fifo())
        return true;
    if (id.is_character_device())
        return ::isatty(handle) != 0 || errno == EIO; // hung up
#if defined(__linux__)
    if (id.is_file()) {
        struct ::statfs fs;
        return ::fstatfs(handle, &fs) == 0 && fs.f_type == 0x19800202; // a message queue
    }
    char path[32];
    char name[32];
    std::snprintf(path, sizeof(path), "/proc/self/fd/%d", handle);
    ::ssize_t n = ::readlink(path, name, sizeof(name) - 1);
    if (n < 0)
        return false;
    name[n] = '\0';
    for (const char* known : {"anon_inode:[eventfd]", "anon_inode:[timerfd]",
                              "anon_inode:[signalfd]", "anon_inode:inotify", "anon_inode:[pidfd]"})
        if (std::strcmp(name, known) == 0)
            return true;
    return std::strncmp(name, "pidfd:", 6) == 0;
#else
    return !id.is_file();
#endif
}

/// The error of the system call that just failed.
inline error_code system_error_now() noexcept {
    return error_code(errno, boost::asio::error::get_system_category());
}

/// A second number for the same open file, for a call that may block: whoever owns the first number
/// may close it meanwhile, and somebody else get it.
/**
 * (Closing any number of a file releases the record locks that the process has on it. Calls that
 * may block are made on pipes and devices.)
 */
class duplicated_handle {
public:
    duplicated_handle() = default;
    ~duplicated_handle() {
        if (handle_ >= 0) {
            int error = errno;
            ::close(handle_);
            errno = error;
        }
    }
    duplicated_handle(const duplicated_handle&) = delete;
    duplicated_handle& operator=(const duplicated_handle&) = delete;

    /// Once. Never a number of the standard streams, for which others may write.
    void duplicate(int handle) noexcept {
        handle_ = ::fcntl(handle, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        if (handle_ < 0) // EINVAL: the process may not open so many
            ec_ = errno == EINVAL ? boost::asio::error::no_descriptors : system_error_now();
    }

    /// -1: there was none to be had, and ec() says why.
    int get() const noexcept { return handle_; }
    /// From now on somebody else closes it.
    void release() noexcept { handle_ = -1; }
    const error_code& ec() const noexcept { return ec_; }

private:
    int handle_ = -1;
    error_code ec_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_KERNEL_HPP
