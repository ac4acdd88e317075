//
// moor/detail/transfer.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// One read or write of a descriptor, and which system call it takes: one that does not block, does
// not raise SIGPIPE where that can be had, and leaves the flags of a borrowed handle alone.
//

#ifndef MOOR_DETAIL_TRANSFER_HPP
#define MOOR_DETAIL_TRANSFER_HPP

#include <moor/detail/kernel.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/config.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

namespace moor {
namespace detail {

#if defined(MSG_NOSIGNAL)
inline constexpr int no_signal = MSG_NOSIGNAL;
#else
inline constexpr int no_signal = 0;
#endif

/// The error of the system call that just failed.
inline error_code system_error_now() noexcept {
    return error_code(errno, boost::asio::error::get_system_category());
}

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

/// Which call transfers.
enum class transfer_mode : std::uint8_t {
    /// read, write: blocks as the file's own flag says.
    plain,
    /// recv, send: the same for a socket, without SIGPIPE.
    socket,
    /// The same with MSG_DONTWAIT: does not block, whatever the flag says.
    socket_now,
    /// preadv2, pwritev2 with RWF_NOWAIT: the same for what else supports it; asked() if it does.
    now,
    /// poll, and then read; or a write with the flag set for so long. For all the rest.
    asked
};

/// What readv and its like are given: the parts of a buffer sequence that are not empty.
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
            if (++count_ == max_parts)
                break; // a transfer of some
        }
    }

    ::iovec* data() noexcept { return parts_; }
    int count() const noexcept { return count_; }
    bool is_single() const noexcept { return count_ == 1; }

    /// The number of bytes asked for.
    std::size_t size() const noexcept { return size_; }

private:
    static constexpr int max_parts = 64;

    ::iovec parts_[max_parts]; // as far as count_
    int count_ = 0;
    std::size_t size_ = 0;
};

/// The same for a type that is one buffer.
class io_single {
public:
    explicit io_single(const boost::asio::const_buffer& b) noexcept
        : part_{const_cast<void*>(b.data()), b.size()} {}

    ::iovec* data() noexcept { return &part_; }
    static constexpr int count() noexcept { return 1; }
    static constexpr bool is_single() noexcept { return true; }
    std::size_t size() const noexcept { return part_.iov_len; }

private:
    ::iovec part_;
};

/// How a buffer sequence is passed on.
template <class Buffers>
using io_parts =
    std::conditional_t<std::is_convertible<const Buffers&, boost::asio::const_buffer>::value,
                       io_single, io_vector>;

/// Whether there is nothing to transfer.
template <class Buffers>
bool is_nothing(const Buffers& buffers) noexcept {
    return boost::asio::buffer_size(buffers) == 0;
}

template <class Parts>
::msghdr message_of(Parts& parts) noexcept {
    ::msghdr m = {};
    m.msg_iov = parts.data();
    m.msg_iovlen = static_cast<decltype(m.msg_iovlen)>(parts.count());
    return m;
}

/// What a call with RWF_NOWAIT says where that is not supported.
inline bool lacks_nowait() noexcept { return errno == EOPNOTSUPP || errno == ENOSYS; }

/// A read, once. `mode` is what it was found to take.
struct read_call {
    static constexpr short event = POLLIN;

    template <class Parts>
    static ::ssize_t once(int handle, transfer_mode& mode, Parts& parts) noexcept {
        switch (mode) {
        case transfer_mode::plain:
            return plainly(handle, parts);
        case transfer_mode::socket:
            return receive(handle, parts, 0);
        case transfer_mode::socket_now:
            return receive(handle, parts, MSG_DONTWAIT);
        case transfer_mode::now: {
#if defined(RWF_NOWAIT)
            ::ssize_t n = ::preadv2(handle, parts.data(), parts.count(), -1, RWF_NOWAIT);
            if (n >= 0 || !lacks_nowait())
                return n;
#endif
            mode = transfer_mode::asked;
            break;
        }
        case transfer_mode::asked:
            break;
        }
        // Whoever shares the file may take the bytes in between; then this blocks as theirs would.
        error_code ec;
        if (poll_for(handle, event, 0, ec) == 0 && !ec) {
            errno = EAGAIN;
            return -1;
        }
        return plainly(handle, parts);
    }

    /// For transfer_mode::plain.
    template <class Parts>
    BOOST_FORCEINLINE static ::ssize_t plainly(int handle, Parts& parts) noexcept {
        return parts.is_single() ? ::read(handle, parts.data()->iov_base, parts.data()->iov_len)
                                 : ::readv(handle, parts.data(), parts.count());
    }

private:
    template <class Parts>
    static ::ssize_t receive(int handle, Parts& parts, int flags) noexcept {
        if (parts.is_single())
            return ::recv(handle, parts.data()->iov_base, parts.data()->iov_len, flags);
        ::msghdr m = message_of(parts);
        return ::recvmsg(handle, &m, flags);
    }
};

/// A write, once. `mode` is what it was found to take.
struct write_call {
    static constexpr short event = POLLOUT;

    template <class Parts>
    static ::ssize_t once(int handle, transfer_mode& mode, Parts& parts) noexcept {
        switch (mode) {
        case transfer_mode::plain:
            return plainly(handle, parts);
        case transfer_mode::socket:
            return send(handle, parts, no_signal);
        case transfer_mode::socket_now:
            return send(handle, parts, no_signal | MSG_DONTWAIT);
        case transfer_mode::now: {
#if defined(RWF_NOWAIT)
            ::ssize_t n = ::pwritev2(handle, parts.data(), parts.count(), -1, RWF_NOWAIT);
            if (n >= 0 || !lacks_nowait())
                return n;
#endif
            mode = transfer_mode::asked;
            break;
        }
        case transfer_mode::asked:
            break;
        }
        return ask_and_write(handle, parts);
    }

    /// For transfer_mode::plain.
    template <class Parts>
    BOOST_FORCEINLINE static ::ssize_t plainly(int handle, Parts& parts) noexcept {
        return parts.is_single() ? ::write(handle, parts.data()->iov_base, parts.data()->iov_len)
                                 : ::writev(handle, parts.data(), parts.count());
    }

private:
    template <class Parts>
    static ::ssize_t send(int handle, Parts& parts, int flags) noexcept {
        if (parts.is_single())
            return ::send(handle, parts.data()->iov_base, parts.data()->iov_len, flags);
        ::msghdr m = message_of(parts);
        return ::sendmsg(handle, &m, flags);
    }

    /// That there is room does not mean that there is enough: a write that blocks would go on until
    /// all of it was written.
    template <class Parts>
    static ::ssize_t ask_and_write(int handle, Parts& parts) noexcept {
        error_code ec;
        if (poll_for(handle, event, 0, ec) == 0 && !ec) {
            errno = EAGAIN;
            return -1;
        }
        int flags = ::fcntl(handle, F_GETFL);
        if (flags < 0)
            return -1;
        if (flags & O_NONBLOCK)
            return plainly(handle, parts);
        if (set_non_blocking_flag(handle, true) < 0)
            return -1;
        ::ssize_t n = plainly(handle, parts);
        int error = errno;
        set_non_blocking_flag(handle, false);
        errno = error;
        return n;
    }
};

/// What a read or a write gave; the number of bytes. A read that gives nothing is at the end.
template <class Call>
std::size_t outcome_of(::ssize_t n, error_code& ec) noexcept {
    if (n < 0)
        ec = system_error_now();
    else if (n == 0 && std::is_same<Call, read_call>::value)
        ec = boost::asio::error::eof;
    else
        ec = error_code();
    return n > 0 ? static_cast<std::size_t>(n) : 0;
}

/// The callable of an asynchronous transfer. It knows nothing of the descriptor, which may move.
template <class Call, class Buffers>
class transfer {
public:
    transfer(int handle, transfer_mode mode, const Buffers& buffers)
        : buffers_(buffers), handle_(handle), mode_(mode) {}

    using needs_no_executor = void;

    /// What it waits for.
    static constexpr short transfer_event = Call::event;

    using parts_type = io_parts<Buffers>;

    /// What call() needs of the buffers, which are the user's: so nobody is to hold a lock here.
    parts_type parts() const { return parts_type(buffers_); }

    BOOST_FORCEINLINE drainable<std::size_t> call(parts_type& parts, error_code& ec) noexcept {
        ::ssize_t n = uninterrupted([&] {
            return BOOST_LIKELY(mode_ == transfer_mode::plain) ? Call::plainly(handle_, parts)
                                                               : Call::once(handle_, mode_, parts);
        });
        return short_transfer(outcome_of<Call>(n, ec), parts.size());
    }

    drainable<std::size_t> operator()(error_code& ec) {
        parts_type p = parts();
        return call(p, ec);
    }

private:
    Buffers buffers_;
    int handle_;
    transfer_mode mode_;
};

/// A synchronous transfer. `waits`: where the handle would block, it waits and tries again.
template <class Call, class Buffers>
std::size_t transfer_now(int handle, transfer_mode mode, bool waits, const Buffers& buffers,
                         error_code& ec) {
    io_parts<Buffers> parts(buffers);
    for (;;) {
        ::ssize_t n = uninterrupted([&] { return Call::once(handle, mode, parts); });
        std::size_t size = outcome_of<Call>(n, ec);
        if (!waits || n >= 0 || !is_would_block(ec))
            return size;
        poll_for(handle, Call::event, -1, ec);
        if (ec)
            return 0;
    }
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_TRANSFER_HPP
