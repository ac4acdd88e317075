//
// moor/detail/wait_canceller.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_WAIT_CANCELLER_HPP
#define MOOR_DETAIL_WAIT_CANCELLER_HPP

#include <boost/asio/cancellation_type.hpp>

#include <cstdint>
#include <utility>

namespace moor {
namespace detail {

/// What a cancellation slot holds: a shared reference to what the wait is pending on, and never the
/// public object, which may move or die.
template <class Pointer>
class wait_canceller {
public:
    wait_canceller(Pointer pending_on, std::uint64_t id) noexcept
        : pending_on_(std::move(pending_on)), id_(id) {}

    void operator()(boost::asio::cancellation_type_t type) {
        using boost::asio::cancellation_type;
        if ((type & (cancellation_type::terminal | cancellation_type::partial |
                     cancellation_type::total)) != cancellation_type::none)
            pending_on_->cancel(id_);
    }

private:
    Pointer pending_on_;
    std::uint64_t id_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAIT_CANCELLER_HPP
