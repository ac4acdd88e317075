//
// moor/detail/readiness_word.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_READINESS_WORD_HPP
#define MOOR_DETAIL_READINESS_WORD_HPP

#include <moor/readiness.hpp>

#include <boost/config.hpp>

#include <cstdint>

namespace moor {
namespace detail {

/// The cached readiness of a handle: a value, without lock or kernel.
class readiness_word {
public:
    /// What is cached.
    readiness flags() const noexcept { return flags_; }

    /// What of it no edge-triggered wait was told yet. Calls that transfer data see all of it:
    /// it is they that drain the handle after such a wait.
    readiness unconsumed() const noexcept { return flags_ - consumed_; }

    const ticks& tick() const noexcept { return ticks_; }

    /// Something happened.
    BOOST_FORCEINLINE void set(readiness r) noexcept {
        flags_ |= r;
        consumed_ -= r;
        advance(r);
    }

    /// An event that nobody waits for, of what is cached already: the kernel repeats what is unread
    /// with every event of the other direction, so that it need not be news.
    void repeat(readiness r) noexcept {
        ticks settled = settled_;
        set(r);
        settled_ = settled;
    }

    /// The kernel was asked, and said no.
    void forget(interest asked) noexcept {
        flags_ -= asked;
        consumed_ -= asked;
    }

    /// The kernel was asked for `asked`, and said `seen`.
    void observe(interest asked, readiness seen) noexcept {
        advance(seen - flags_); // what was cached already is no news
        flags_ = (flags_ - asked) | seen;
        consumed_ -= asked;
    }

    /// What of `want` is satisfied. An error or a hang-up satisfies a reader or a writer, who must
    /// learn of it; it is reported as such only to those who asked.
    readiness matched(interest want) const noexcept { return match(flags_, want); }

    static readiness match(readiness flags, interest want) noexcept {
        readiness exact = flags & want;
        if (!exact.empty() || (flags & closing).empty())
            return exact;
        readiness r;
        if (want.is_readable() && !(flags & (readiness::error | readiness::read_closed)).empty())
            r |= readiness::readable;
        if (want.is_writable() && !(flags & (readiness::error | readiness::write_closed)).empty())
            r |= readiness::writable;
        return r;
    }

    /// An edge-triggered wait was told `r`. That a side is closed stays visible.
    BOOST_FORCEINLINE void consume(readiness r) noexcept {
        consumed_ |= (r | readiness::error) - sticky;
    }

    /// Drops what `e` observed, unless something newer came in the same stream.
    void clear(const ready_event& e) noexcept {
        drop(e.ready() & unchanged(ready_event_access::stamp(e), ticks_));
    }

    /// The same for an event that observed just that the handle is readable, or writable. True:
    /// nothing newer came.
    template <bool Write>
    BOOST_FORCEINLINE bool clear_only(const ready_event& e) noexcept {
        const ticks& stamp = ready_event_access::stamp(e);
        if (Write ? stamp.write != ticks_.write : stamp.read != ticks_.read)
            return false;
        flags_ -= Write ? interest::writable : interest::readable;
        return true;
    }

    /// The same for a caller who says that it dealt with `e`, which what was only repeated since
    /// does not contradict. Returns those streams, where the kernel knows better.
    interest clear_but_repeats(const ready_event& e) noexcept {
        const ticks& stamp = ready_event_access::stamp(e);
        interest current;
        if (is_at_least(stamp.read, settled_.read))
            current |= read_stream;
        if (is_at_least(stamp.write, settled_.write))
            current |= write_stream;
        if (is_at_least(stamp.priority, settled_.priority))
            current |= interest::priority;
        drop(e.ready() & current);
        return e.ready() & (current - unchanged(stamp, ticks_));
    }

    /// Whether anything came in the streams of `want` since `e` was observed.
    bool is_newer(const ready_event& e, interest want) const noexcept {
        const ticks& stamp = ready_event_access::stamp(e);
        return (!(want & read_stream).empty() && stamp.read != ticks_.read) ||
               (!(want & write_stream).empty() && stamp.write != ticks_.write) ||
               (want.is_priority() && stamp.priority != ticks_.priority);
    }

    static constexpr interest read_stream =
        interest::readable | interest::error | interest::read_closed;
    static constexpr interest write_stream = interest::writable | interest::write_closed;
    static constexpr interest sticky = interest::read_closed | interest::write_closed;
    static constexpr interest closing = sticky | interest::error;

private:
    BOOST_FORCEINLINE void advance(readiness r) noexcept {
        if (!(r & read_stream).empty())
            settled_.read = ++ticks_.read;
        if (!(r & write_stream).empty())
            settled_.write = ++ticks_.write;
        if (r.is_priority())
            settled_.priority = ++ticks_.priority;
    }

    static interest unchanged(const ticks& a, const ticks& b) noexcept {
        interest i;
        if (a.read == b.read)
            i |= read_stream;
        if (a.write == b.write)
            i |= write_stream;
        if (a.priority == b.priority)
            i |= interest::priority;
        return i;
    }

    static bool is_at_least(std::uint32_t a, std::uint32_t b) noexcept {
        return static_cast<std::int32_t>(a - b) >= 0;
    }

    void drop(readiness r) noexcept { flags_ -= r - sticky; }

    readiness flags_;
    readiness consumed_;
    ticks ticks_;
    ticks settled_; // where they stood at the last event that was news for sure
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_READINESS_WORD_HPP
