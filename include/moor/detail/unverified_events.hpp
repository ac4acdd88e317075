//
// moor/detail/unverified_events.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_UNVERIFIED_EVENTS_HPP
#define MOOR_DETAIL_UNVERIFIED_EVENTS_HPP

#include <boost/config.hpp>

#include <cstdint>

namespace moor {
namespace detail {

/// Which events of a handle have to be checked, since they may be older than its attachment to the
/// reactor. (A thread that fetched an event before the attachment, and handles it late, adds one
/// more such event.) A set of channels is a bit mask.
class unverified_events {
public:
    BOOST_FORCEINLINE bool contain(unsigned channel) const noexcept {
        return (next_ & (1u << channel | always)) != 0;
    }

    /// The handle was attached. `firing`: the channels whose wakers are on their way back, for an
    /// event of an earlier attachment. `is_older`: the reactor may have another old event for any
    /// channel. `are_all`: every event may be another file's, or tell of more than is there.
    void attached(unsigned firing, bool is_older, bool are_all) noexcept {
        next_ = static_cast<std::uint8_t>(are_all ? always : is_older ? always - 1 : firing);
        second_ = static_cast<std::uint8_t>(is_older ? firing : 0);
    }

    void add(unsigned channel) noexcept {
        next_ = static_cast<std::uint8_t>(next_ | 1u << channel);
    }

    /// An event of this channel was checked, or is over.
    void remove(unsigned channel) noexcept {
        std::uint8_t& events = (second_ & 1u << channel) != 0 ? second_ : next_;
        events = static_cast<std::uint8_t>(events & ~(1u << channel));
    }

private:
    static constexpr unsigned always = 1u << 7;

    std::uint8_t next_ = 0;   // the next event of these channels
    std::uint8_t second_ = 0; // and the one after that
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_UNVERIFIED_EVENTS_HPP
