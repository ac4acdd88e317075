//
// moor/detail/edge_source.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_EDGE_SOURCE_HPP
#define MOOR_DETAIL_EDGE_SOURCE_HPP

#include <cstdint>

namespace moor {
namespace detail {

/// Where one direction of a handle hears of news, on a reactor that reports levels.
/**
 * From an edge-triggered set that holds the handle, which tells what is news, but costs one more
 * system call for each event. Or from the reactor, while whoever waits is seen to drain the handle
 * before the next wait: then all that the reactor reports is news. Once in a while the handle is
 * checked when a wait begins, to see whether that is still so.
 */
class edge_source {
public:
    bool is_set() const noexcept { return is_set_; }

    /// A wait begins. Whether to check if the handle is drained.
    bool must_check() noexcept {
        if (left_ == 0)
            return true;
        --left_;
        return false;
    }

    /// What the check showed.
    void checked(bool is_drained) noexcept {
        if (!is_drained) {
            use_set();
        } else if (is_set_ && ++streak_ != enough) {
            left_ = 0;
        } else {
            is_set_ = false;
            left_ = direct_interval;
        }
    }

    /// A call that would block was made again although there was no news.
    void refused() noexcept { use_set(); }

    /// What a wait that reports levels begins with; the other constructor is for edges.
    static edge_source direct() noexcept {
        edge_source s;
        s.is_set_ = false;
        return s;
    }

private:
    void use_set() noexcept {
        is_set_ = true;
        streak_ = 0;
        left_ = set_interval;
    }

    static constexpr std::uint8_t enough = 4;            // checks in a row
    static constexpr std::uint8_t direct_interval = 127; // waits from check to check
    static constexpr std::uint8_t set_interval = 31;

    std::uint8_t left_ = 0;
    std::uint8_t streak_ = 0;
    bool is_set_ = true;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_EDGE_SOURCE_HPP
