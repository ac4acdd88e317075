//
// moor/detail/reactor_kqueue.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The port to Asio's kqueue reactor, compiled only. See reactor.hpp for the table of what the
// backends do.
//

#ifndef MOOR_DETAIL_REACTOR_KQUEUE_HPP
#define MOOR_DETAIL_REACTOR_KQUEUE_HPP

#include <moor/detail/reactor_objects.hpp>
#include <moor/detail/reactor_op_waker.hpp>

namespace moor {
namespace detail {

/// The reactor and the scheduler of one execution context.
class reactor_port : public object_port {
public:
    static constexpr const char* name = "kqueue";

    static constexpr bool latches_events = false;
    static constexpr bool arming_may_throw = true;
    static constexpr bool reports_again_beside_priority = false;
    static constexpr bool attach_arms_waker = false;

    explicit reactor_port(asio::execution_context& context) : object_port(context) {}

    static bool has_queued_event(const registration_data&) noexcept { return false; }
    static bool delete_abandoned(int, const file_identity&) noexcept {
        return false;
    } // close(2) has
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_KQUEUE_HPP
