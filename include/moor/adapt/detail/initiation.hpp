//
// moor/adapt/detail/initiation.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the initiating functions of an adapter do, once their token says so.
//

#ifndef MOOR_ADAPT_DETAIL_INITIATION_HPP
#define MOOR_ADAPT_DETAIL_INITIATION_HPP

#include <type_traits>
#include <utility>

namespace moor {
namespace adapt {
namespace detail {

/// Calls a Start with the adapter's session, the handler and the arguments.
template <class Session, class Start>
struct initiation {
    using executor_type = std::decay_t<decltype(std::declval<const Session&>().executor())>;

    Session* session;

    executor_type get_executor() const noexcept { return session->executor(); }
    template <class Handler, class... Args>
    void operator()(Handler&& handler, Args&&... args) const {
        Start()(*session, std::forward<Handler>(handler), std::forward<Args>(args)...);
    }
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_INITIATION_HPP
