//
// moor/adapt/detail/has_null.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapters refuse a text with a null character where the C library would end it.
//

#ifndef MOOR_ADAPT_DETAIL_HAS_NULL_HPP
#define MOOR_ADAPT_DETAIL_HAS_NULL_HPP

#include <string_view>

namespace moor {
namespace adapt {
namespace detail {

/// Whether a text has a null character.
inline bool has_null(std::string_view text) noexcept {
    return text.find('\0') != std::string_view::npos;
}

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_HAS_NULL_HPP
