//
// moor/detail/wait_canceller.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_WAIT_CANCELLER_HPP
#define MOOR_DETAIL_WAIT_CANCELLER_HPP

#include <moor/detail/scheduled_io.hpp>

#include <boost/asio/cancellation_type.hpp>

#include <cstdint>
#include <utility>

namespace moor {
namespace detail {

/// What a cancellation slot holds: the state, never the registration, which may move or die.
class wait_canceller {
public:
    wait_canceller(scheduled_io_ptr state, std::uint64_t id) noexcept
        : state_(std::move(state)), id_(id) {}

    void operator()(asio::cancellation_type_t type) {
        using asio::cancellation_type;
        if ((type & (cancellation_type::terminal | cancellation_type::partial |
                     cancellation_type::total)) != cancellation_type::none)
            state_->cancel(id_);
    }

private:
    scheduled_io_ptr state_;
    std::uint64_t id_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAIT_CANCELLER_HPP
