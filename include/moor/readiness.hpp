//
// moor/readiness.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_READINESS_HPP
#define MOOR_READINESS_HPP

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <type_traits>
#include <utility>

namespace moor {

/// A set of events: as an *interest*, what to wait for; as a *readiness*, what was observed.
/**
 * The six flags are constants of the type, and sets are made with `|`:
 * `interest::readable | interest::priority`.
 *
 * @par Thread Safety
 * A value type: distinct objects are safe, shared objects are unsafe.
 */
class interest {
public:
    /// The empty set. Waiting for it is an error (`invalid_argument`).
    constexpr interest() noexcept = default;

    /// A read would not block: data, end-of-file, a connection to accept, or an error to collect.
    static const interest readable;
    /// A write would not block, or would fail at once.
    static const interest writable;
    /// Out-of-band data or another exceptional event: `POLLPRI`.
    static const interest priority;
    /// An error is pending on the handle: `POLLERR`.
    static const interest error;
    /// The peer will send no more, or has hung up: `POLLRDHUP`, `POLLHUP`.
    static const interest read_closed;
    /// Nothing that is written will arrive any more: `POLLHUP`, or `POLLERR` on a pipe.
    static const interest write_closed;

    /// Whether the set is empty.
    constexpr bool empty() const noexcept { return bits_ == 0; }

    /// Whether every flag of `other` is in this set.
    constexpr bool contains(interest other) const noexcept {
        return (bits_ & other.bits_) == other.bits_;
    }

    /// Whether `readable` is in the set.
    constexpr bool is_readable() const noexcept { return (bits_ & readable_bit) != 0; }
    /// Whether `writable` is in the set.
    constexpr bool is_writable() const noexcept { return (bits_ & writable_bit) != 0; }
    /// Whether `priority` is in the set.
    constexpr bool is_priority() const noexcept { return (bits_ & priority_bit) != 0; }
    /// Whether `error` is in the set.
    constexpr bool is_error() const noexcept { return (bits_ & error_bit) != 0; }
    /// Whether `read_closed` is in the set.
    constexpr bool is_read_closed() const noexcept { return (bits_ & read_closed_bit) != 0; }
    /// Whether `write_closed` is in the set.
    constexpr bool is_write_closed() const noexcept { return (bits_ & write_closed_bit) != 0; }

    /// The flags of both.
    friend constexpr interest operator|(interest a, interest b) noexcept {
        return interest(static_cast<std::uint8_t>(a.bits_ | b.bits_));
    }
    /// The flags that are in both.
    friend constexpr interest operator&(interest a, interest b) noexcept {
        return interest(static_cast<std::uint8_t>(a.bits_ & b.bits_));
    }
    /// The flags of `a` that are not in `b`.
    friend constexpr interest operator-(interest a, interest b) noexcept {
        return interest(static_cast<std::uint8_t>(a.bits_ & ~b.bits_));
    }
    /// Adds the flags of `other`.
    constexpr interest& operator|=(interest other) noexcept { return *this = *this | other; }
    /// Keeps the flags that are in `other`.
    constexpr interest& operator&=(interest other) noexcept { return *this = *this & other; }
    /// Removes the flags of `other`.
    constexpr interest& operator-=(interest other) noexcept { return *this = *this - other; }

    /// Whether the sets are the same.
    friend constexpr bool operator==(interest a, interest b) noexcept { return a.bits_ == b.bits_; }
    /// Whether the sets differ.
    friend constexpr bool operator!=(interest a, interest b) noexcept { return a.bits_ != b.bits_; }

    /// Prints the flags' names joined by `|`, or `-` for the empty set.
    friend std::ostream& operator<<(std::ostream& os, interest i) {
        static constexpr const char* names[] = {"readable", "writable",    "priority",
                                                "error",    "read_closed", "write_closed"};
        const char* separator = "";
        for (unsigned n = 0; n != 6; ++n)
            if ((static_cast<unsigned>(i.bits_) >> n) & 1u) {
                os << separator << names[n];
                separator = "|";
            }
        return i.empty() ? os << '-' : os;
    }

private:
    static constexpr std::uint8_t readable_bit = 1, writable_bit = 2, priority_bit = 4,
                                  error_bit = 8, read_closed_bit = 16, write_closed_bit = 32;

    constexpr explicit interest(std::uint8_t bits) noexcept : bits_(bits) {}

    std::uint8_t bits_ = 0;
};

inline constexpr interest interest::readable{interest::readable_bit};
inline constexpr interest interest::writable{interest::writable_bit};
inline constexpr interest interest::priority{interest::priority_bit};
inline constexpr interest interest::error{interest::error_bit};
inline constexpr interest interest::read_closed{interest::read_closed_bit};
inline constexpr interest interest::write_closed{interest::write_closed_bit};

/// What was observed of a handle: the same flags as `interest`.
using readiness = interest;

/// The two directions in which a handle becomes ready.
enum class direction {
    /// Readability; also priority, error and closing events.
    read = 0,
    /// Writability.
    write = 1
};

namespace detail {

/// A counter per stream of events, bumped by each of them. 32 bits wide, so that a stale
/// `clear` can't meet the same count again by chance (Tokio's is 8 bits and can).
struct ticks {
    std::uint32_t read = 0;
    std::uint32_t write = 0;
    std::uint32_t priority = 0;
};

class ready_event_access;

} // namespace detail

/// What a wait observed, and when: `clear()` drops just that, and nothing that came since.
/**
 * @par Thread Safety
 * A value type: distinct objects are safe, shared objects are unsafe.
 */
class ready_event {
public:
    /// An event that observed nothing.
    constexpr ready_event() noexcept = default;

    /// What was observed, of what was asked for.
    constexpr readiness ready() const noexcept { return ready_; }

    /// The same event narrowed to `i`, for clearing a part of it.
    constexpr ready_event only(interest i) const noexcept {
        ready_event e(*this);
        e.ready_ = ready_ & i;
        return e;
    }

private:
    friend class detail::ready_event_access;

    readiness ready_;
    detail::ticks stamp_;
};

namespace detail {

class ready_event_access {
public:
    static ready_event make(readiness r, const ticks& t) noexcept {
        ready_event e;
        e.ready_ = r;
        e.stamp_ = t;
        return e;
    }
    static const ticks& stamp(const ready_event& e) noexcept { return e.stamp_; }
};

} // namespace detail

/// What a callable of `try_io`, `async_io` or `poll_*_io` returns to say that it succeeded *and*
/// drained the handle, so that the next wait parks without asking the kernel again.
/**
 * Make one with `moor::drained(value)`, or `moor::drained_if(condition, value)`. The caller of the
 * operation receives the plain `R`.
 *
 * Declaring a handle drained that is not makes the next wait hang: on a stream, a read that
 * returned less than it asked for is *not* proof, since the end of the stream may have arrived
 * with the data, and a datagram that is shorter than its buffer says nothing about the next one.
 * Use `short_transfer` for those cases.
 */
template <class R>
struct drainable {
    /// What the caller receives.
    R value;
    /// The caller knows: nothing is left.
    bool is_drained = false;
    /// Fewer bytes were transferred than asked for: Moor decides whether that proves anything.
    bool is_short = false;
};

/// The same for a callable that has no value to return.
template <>
struct drainable<void> {
    /// The caller knows: nothing is left.
    bool is_drained = false;
};

/// Says that the operation succeeded and drained the handle.
constexpr drainable<void> drained() noexcept { return {true}; }

/// Says that the operation succeeded and drained the handle.
template <class R>
constexpr drainable<std::decay_t<R>> drained(R&& value) {
    return {std::forward<R>(value), true, false};
}

/// Says that the operation succeeded, and whether it is known to have drained the handle.
template <class R>
constexpr drainable<std::decay_t<R>> drained_if(bool condition, R&& value) {
    return {std::forward<R>(value), condition, false};
}

/// Says that one `read(2)`, `write(2)`, `readv(2)` or `writev(2)` of the handle moved `transferred`
/// of `requested` bytes, which Moor takes for "drained" where it proves that: on pipes, unless they
/// keep packets apart (`O_DIRECT`). The end of the pipe is not lost when it comes with the data.
/// Elsewhere the next wait asks as usual: a read may end early at a datagram, a line of a terminal,
/// or a stream socket's urgent mark. Nothing transferred is the end of the file, and proves
/// nothing.
/**
 * Not for `splice(2)` and its like, which end early for reasons of the other side. And not for the
 * reading end of a pipe on whose writing end alone `O_DIRECT` was set after it was made (by
 * `fcntl(2)`, or by the kernel for autofs): the reader can't see that.
 */
template <class R>
constexpr drainable<R> short_transfer(R transferred, std::size_t requested) {
    return {transferred, false,
            transferred != R() && static_cast<std::size_t>(transferred) < requested};
}

} // namespace moor

#endif // MOOR_READINESS_HPP
