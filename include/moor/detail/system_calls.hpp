//
// moor/detail/system_calls.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// One read or write of a handle, and which system call makes it: one that does not block, raises no
// SIGPIPE where that can be had, and changes no flag of a file that others share. Nothing here
// knows of registrations or operations.
//
// O_NONBLOCK belongs to the open file, which other descriptors and processes may share (standard
// output, standard error and the shell have one terminal). So the flag is set on handles that the
// caller owns, and on no other. What is called instead, found out once for each handle:
//
//   the handle is                      calls                      may block
//   owned, or set by the user          read, write                no: O_NONBLOCK is set
//   a socket                           recv, send, MSG_DONTWAIT   no
//   a regular file, a block device     read, write                for the disk only
//   a terminal                         read, write of a second    no: O_NONBLOCK is set on the
//                                      descriptor: open_anew()    second open file
//   any other: a pipe, a driver        preadv2, pwritev2,         no
//                                      RWF_NOWAIT
//   where the kernel refuses that: a   poll, then read or write   yes, if somebody else reads the
//   named pipe, inotify, a terminal    of at most most()          data or takes the room between
//   that can't be opened                                          the two calls
//
// What bounds the last row: a read that follows POLLIN returns what is there. A write that follows
// POLLOUT fits a pipe if it has at most PIPE_BUF bytes (POSIX: such a write is atomic; Linux: a
// pipe with POLLOUT has a page of room). A writable terminal has room for 256 bytes on Linux (a
// pseudoterminal gives out its memory in such pieces, a driver's queue is longer), which a tab of
// eight columns divides by eight. POLLOUT of any other file promises room for one message.
//

#ifndef MOOR_DETAIL_SYSTEM_CALLS_HPP
#define MOOR_DETAIL_SYSTEM_CALLS_HPP

#include <moor/detail/kernel.hpp>
#include <moor/error.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/config.hpp>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace moor {
namespace detail {

/// (<algorithm> costs more to compile than this header.)
constexpr std::size_t least_of(std::size_t a, std::size_t b) noexcept { return b < a ? b : a; }

#if defined(MSG_NOSIGNAL)
inline constexpr int no_signal = MSG_NOSIGNAL;
#else
inline constexpr int no_signal = 0;
#endif

#if defined(PIPE_BUF)
inline constexpr std::size_t pipe_atom = PIPE_BUF;
#else
inline constexpr std::size_t pipe_atom = 512; // _POSIX_PIPE_BUF
#endif

/// Calls `f` until no signal interrupts it.
template <class F>
auto uninterrupted(F f) noexcept {
    auto r = f();
    while (r < 0 && errno == EINTR)
        r = f();
    return r;
}

/// Waits for some of `events`, at most `timeout` milliseconds (-1: for ever). Returns revents, 0
/// for none.
inline int poll_for(int handle, short events, int timeout, error_code& ec) noexcept {
    ::pollfd p = {handle, events, 0};
    int n = uninterrupted([&] { return ::poll(&p, 1, timeout); });
    ec = n < 0                    ? system_error_now()
         : (p.revents & POLLNVAL) ? error_code(boost::asio::error::bad_descriptor)
                                  : error_code();
    return n < 0 ? 0 : p.revents;
}

/// Sets or clears O_NONBLOCK, and no other flag. -1 and errno on an error.
inline int set_non_blocking_flag(int handle, bool on) noexcept {
    int value = on ? 1 : 0;
    int r = ::ioctl(handle, FIONBIO, &value);
    if (r < 0 && errno == ENOTTY) { // a driver's own ioctl, outside Linux
        int flags = ::fcntl(handle, F_GETFL);
        r = flags < 0 ? flags
                      : ::fcntl(handle, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
    }
    return r;
}

// ---- terminals ----------------------------------------------------------------------------------

/// Opens the terminal behind `handle` once more, with O_NONBLOCK: another open file, whose flags
/// nobody shares. Returns its number, or -1 if there is no such terminal or it can't be opened.
/**
 * The other end of a pseudoterminal sees a hang-up only once the second descriptor is closed, too.
 */
inline int open_anew([[maybe_unused]] int handle) noexcept {
#if defined(__linux__) && defined(TIOCGDEV) && defined(TIOCGPTN)
    unsigned device = 0;
    unsigned again = 0;
    int number = 0;
    // Opening the master of a pseudoterminal makes another pseudoterminal.
    if (::ioctl(handle, TIOCGDEV, &device) < 0 || ::ioctl(handle, TIOCGPTN, &number) == 0)
        return -1;
    int flags = ::fcntl(handle, F_GETFL);
    if (flags < 0)
        return -1;
    char name[32];
    std::snprintf(name, sizeof(name), "/proc/self/fd/%d", handle);
    int opened = uninterrupted(
        [&] { return ::open(name, (flags & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC); });
    // /dev/tty and /dev/tty0 stand for different terminals at different times.
    if (opened >= 0 && (::ioctl(opened, TIOCGDEV, &again) < 0 || again != device)) {
        ::close(opened);
        return -1;
    }
    return opened;
#else
    return -1;
#endif
}

// ---- buffers ------------------------------------------------------------------------------------

/// What readv and its like are given: the parts of a buffer sequence that are not empty, up to
/// `MaxParts`. Iterating the sequence is the user's code, so nobody is to hold a lock here.
template <std::size_t MaxParts>
class io_vector {
public:
    template <class Buffers>
    explicit io_vector(const Buffers& buffers) noexcept {
        auto end = boost::asio::buffer_sequence_end(buffers);
        for (auto it = boost::asio::buffer_sequence_begin(buffers); it != end; ++it) {
            boost::asio::const_buffer buffer(*it);
            if (buffer.size() == 0)
                continue;
            parts_[count_].iov_base = const_cast<void*>(buffer.data());
            parts_[count_].iov_len = buffer.size();
            size_ += buffer.size();
            if (++count_ == MaxParts)
                break; // a transfer of some
        }
    }

    const ::iovec* data() const noexcept { return parts_; }
    int count() const noexcept { return static_cast<int>(count_); }

    /// The number of bytes asked for.
    std::size_t size() const noexcept { return size_; }

private:
    ::iovec parts_[MaxParts]; // as far as count_
    std::size_t count_ = 0;
    std::size_t size_ = 0;
};

/// The same for a type that is one buffer.
class io_single {
public:
    explicit io_single(const boost::asio::const_buffer& b) noexcept
        : part_{const_cast<void*>(b.data()), b.size()} {}

    const ::iovec* data() const noexcept { return &part_; }
    static constexpr int count() noexcept { return 1; }
    std::size_t size() const noexcept { return part_.iov_len; }

private:
    ::iovec part_;
};

/// How a buffer sequence is passed on.
template <class Buffers, std::size_t MaxParts = 64>
using io_parts =
    std::conditional_t<std::is_convertible<const Buffers&, boost::asio::const_buffer>::value,
                       io_single, io_vector<MaxParts>>;

/// Whether there is nothing to transfer.
template <class Buffers>
bool is_nothing(const Buffers& buffers) noexcept {
    return boost::asio::buffer_size(buffers) == 0;
}

// ---- which call ---------------------------------------------------------------------------------

/// How transfers of one handle are made: found out once, and kept beside the handle.
class call_mode {
public:
    /// Which system call.
    enum class call : std::uint8_t {
        plain,         ///< read, write: blocks as the file's own flag says
        plain_polled,  ///< the same on a file with O_NONBLOCK, whose reads poll first
        plain_checked, ///< the same, where poll(2) is asked whether a read of 0 is the end
        socket,        ///< recv, send: blocks as the socket's own flag says; no SIGPIPE
        socket_now,    ///< the same with MSG_DONTWAIT: does not block
        now,           ///< preadv2, pwritev2 with RWF_NOWAIT: does not block
        polled         ///< poll, then a bounded read or write: may block
    };
    /// What is known of the file.
    enum class file : std::uint8_t { other, pipe, terminal };

    constexpr explicit call_mode(call c, file f = file::other) noexcept : call_(c), file_(f) {}

    constexpr call how() const noexcept { return call_; }
    constexpr bool is_plain() const noexcept { return call_ == call::plain; }

    /// Whether the next call may block although it is not asked to: no lock is to be held then, and
    /// the number is to stand for the same file until it returns (see `duplicated_handle`).
    constexpr bool may_block() const noexcept { return call_ == call::polled; }

    /// How much of `size` bytes one call transfers at most. A call that transferred less met the
    /// end of the data or of the room.
    constexpr std::size_t most(std::size_t size, bool writes) const noexcept {
        return writes && call_ == call::polled ? least_of(size, rounds * piece()) : size;
    }

    /// How much of one write fits where there is room at all.
    constexpr std::size_t piece() const noexcept {
        return file_ == file::pipe       ? pipe_atom
               : file_ == file::terminal ? std::size_t(32)
                                         : std::size_t(-1) / rounds;
    }

    /// The kernel has no RWF_NOWAIT for this file.
    constexpr void refuse_now() noexcept { call_ = call::polled; }

private:
    static constexpr std::size_t rounds = 16;

    call call_;
    file file_;
};

/// What a call with RWF_NOWAIT says where that is not supported.
inline bool lacks_nowait() noexcept { return errno == EOPNOTSUPP || errno == ENOSYS; }

namespace system_calls {

inline ::msghdr message_of(const ::iovec* parts, int count) noexcept {
    ::msghdr m = {};
    m.msg_iov = const_cast<::iovec*>(parts);
    m.msg_iovlen = static_cast<decltype(m.msg_iovlen)>(count);
    return m;
}

BOOST_FORCEINLINE ::ssize_t read(int handle, const ::iovec* parts, int count) noexcept {
    return count == 1 ? ::read(handle, parts->iov_base, parts->iov_len)
                      : ::readv(handle, parts, count);
}

BOOST_FORCEINLINE ::ssize_t write(int handle, const ::iovec* parts, int count) noexcept {
    return count == 1 ? ::write(handle, parts->iov_base, parts->iov_len)
                      : ::writev(handle, parts, count);
}

inline ::ssize_t receive(int handle, const ::iovec* parts, int count, int flags) noexcept {
    if (count == 1)
        return ::recv(handle, parts->iov_base, parts->iov_len, flags);
    ::msghdr m = message_of(parts, count);
    return ::recvmsg(handle, &m, flags);
}

inline ::ssize_t send(int handle, const ::iovec* parts, int count, int flags) noexcept {
    if (count == 1)
        return ::send(handle, parts->iov_base, parts->iov_len, flags);
    ::msghdr m = message_of(parts, count);
    return ::sendmsg(handle, &m, flags);
}

/// Whether poll(2) says that a call would block now; errno is EAGAIN then. (An error is for the
/// call itself to report.)
inline bool would_block_now(int handle, short event) noexcept {
    error_code ec;
    bool would = poll_for(handle, event, 0, ec) == 0 && !ec;
    if (would)
        errno = EAGAIN;
    return would;
}

/// Where a write goes on in a vector of parts.
class cursor {
public:
    cursor(const ::iovec* parts, int count) noexcept : part_(parts), left_(count) {}

    bool is_at_end() const noexcept { return left_ == 0; }

    /// Writes whole parts of `most` bytes together, or a piece of one.
    ::ssize_t write(int handle, std::size_t most) noexcept {
        int whole = 0;
        std::size_t size = 0;
        while (offset_ == 0 && whole != left_ && part_[whole].iov_len <= most - size)
            size += part_[whole++].iov_len;
        ::ssize_t n = whole != 0
                          ? system_calls::write(handle, part_, whole)
                          : ::write(handle, static_cast<const char*>(part_->iov_base) + offset_,
                                    least_of(most, part_->iov_len - offset_));
        if (n > 0)
            advance(static_cast<std::size_t>(n));
        return n;
    }

private:
    void advance(std::size_t n) noexcept {
        while (left_ != 0 && n >= part_->iov_len - offset_) {
            n -= part_->iov_len - offset_;
            offset_ = 0;
            ++part_;
            --left_;
        }
        offset_ += n;
    }

    const ::iovec* part_;
    int left_;
    std::size_t offset_ = 0;
};

/// Writes piece by piece, as long as there is room for the next one.
inline ::ssize_t write_polled(int handle, const call_mode& mode, const ::iovec* parts,
                              int count) noexcept {
    cursor at(parts, count);
    std::size_t size = 0;
    for (int i = 0; i != count; ++i)
        size += parts[i].iov_len;
    const std::size_t most = mode.most(size, true);
    std::size_t written = 0;
    do {
        if (would_block_now(handle, POLLOUT))
            break;
        std::size_t asked = least_of(mode.piece(), most - written);
        ::ssize_t n = at.write(handle, asked);
        if (n <= 0) {
            if (written == 0)
                return n;
            break;
        }
        written += static_cast<std::size_t>(n);
    } while (written < most);
    return written == 0 ? -1 : static_cast<::ssize_t>(written);
}

/// Reads only what poll(2) knows of: a terminal with VMIN = 0 and without input gives 0 at once,
/// and a read of a background job's terminal stops the job.
inline ::ssize_t read_polled(int handle, const ::iovec* parts, int count) noexcept {
    return would_block_now(handle, POLLIN) ? -1 : read(handle, parts, count);
}

/// Reads, and tells an end from a named pipe that has had no writer yet: both give 0.
inline ::ssize_t read_checked(int handle, const ::iovec* parts, int count) noexcept {
    for (;;) {
        ::ssize_t n = read(handle, parts, count);
        if (n != 0)
            return n;
        error_code ec;
        int events = poll_for(handle, POLLIN, 0, ec);
        if (events == 0 && !ec) {
            errno = EAGAIN;
            return -1;
        }
        if ((events & POLLIN) == 0)
            return 0;
        // Bytes have come in between.
    }
}

} // namespace system_calls

/// A read, once: -1 and errno, EAGAIN if it would block.
/**
 * Where `mode` turns out to be one that may block, and was not known to be, nothing is read, errno
 * is EAGAIN, and `mode.may_block()`: the caller releases its locks, and calls again.
 */
struct read_call {
    static constexpr short event = POLLIN;
    static constexpr bool writes = false;

    static ::ssize_t once(int handle, call_mode& mode, const ::iovec* parts, int count) noexcept {
        using namespace system_calls;
        switch (mode.how()) {
        case call_mode::call::plain:
            break;
        case call_mode::call::socket:
            return receive(handle, parts, count, 0);
        case call_mode::call::socket_now:
            return receive(handle, parts, count, MSG_DONTWAIT);
        case call_mode::call::now: {
#if defined(RWF_NOWAIT)
            ::ssize_t n = ::preadv2(handle, parts, count, -1, RWF_NOWAIT);
            if (n >= 0 || !lacks_nowait())
                return n;
#endif
            mode.refuse_now();
            errno = EAGAIN;
            return -1;
        }
        case call_mode::call::plain_polled:
        case call_mode::call::polled:
            return read_polled(handle, parts, count);
        case call_mode::call::plain_checked:
            return read_checked(handle, parts, count);
        }
        return read(handle, parts, count);
    }

    /// For `mode.is_plain()`.
    BOOST_FORCEINLINE static ::ssize_t plainly(int handle, const ::iovec* parts,
                                               int count) noexcept {
        return system_calls::read(handle, parts, count);
    }
};

/// A write, once; as `read_call`.
struct write_call {
    static constexpr short event = POLLOUT;
    static constexpr bool writes = true;

    static ::ssize_t once(int handle, call_mode& mode, const ::iovec* parts, int count) noexcept {
        using namespace system_calls;
        switch (mode.how()) {
        case call_mode::call::plain:
        case call_mode::call::plain_polled:
        case call_mode::call::plain_checked:
            break;
        case call_mode::call::socket:
            return send(handle, parts, count, no_signal);
        case call_mode::call::socket_now:
            return send(handle, parts, count, no_signal | MSG_DONTWAIT);
        case call_mode::call::now: {
#if defined(RWF_NOWAIT)
            ::ssize_t n = ::pwritev2(handle, parts, count, -1, RWF_NOWAIT);
            if (n >= 0 || !lacks_nowait())
                return n;
#endif
            mode.refuse_now();
            errno = EAGAIN;
            return -1;
        }
        case call_mode::call::polled:
            return write_polled(handle, mode, parts, count);
        }
        return write(handle, parts, count);
    }

    /// For `mode.is_plain()`.
    BOOST_FORCEINLINE static ::ssize_t plainly(int handle, const ::iovec* parts,
                                               int count) noexcept {
        return system_calls::write(handle, parts, count);
    }
};

/// What a read or a write gave; the number of bytes. A read that gives nothing is at the end.
template <class Call>
std::size_t outcome_of(::ssize_t n, error_code& ec) noexcept {
    if (n < 0)
        ec = system_error_now();
    else if (n == 0 && !Call::writes)
        ec = boost::asio::error::eof;
    else
        ec = error_code();
    return n > 0 ? static_cast<std::size_t>(n) : 0;
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SYSTEM_CALLS_HPP
