//
// moor/detail/reactor_epoll.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The port to Asio's epoll reactor. See reactor.hpp for the table of what the backends do.
//

#ifndef MOOR_DETAIL_REACTOR_EPOLL_HPP
#define MOOR_DETAIL_REACTOR_EPOLL_HPP

#include <moor/detail/reactor_objects.hpp>
#include <moor/detail/reactor_op_waker.hpp>

namespace moor {
namespace detail {

/// The reactor and the scheduler of one execution context.
class reactor_port : public object_port {
public:
    static constexpr const char* name = "epoll";

    static constexpr bool latches_events = true;
    static constexpr bool arming_may_throw = false;
    static constexpr bool reports_again_beside_priority = true;
    static constexpr bool attach_arms_waker = true;

    explicit reactor_port(asio::execution_context& context) : object_port(context) {}

    template <class Read, class Write, class Edge>
    void detach(int handle, const file_identity& id, registration_data& data, number n, Read& read,
                Write& write, Edge* edge) {
        if (n != number::ours)
            abandoned_.add(handle, id);
        object_port::detach(handle, id, data, n, read, write, edge);
    }

    /// attach() failed with EEXIST: deletes the entry that a handle has left behind under this
    /// number, if one has.
    bool delete_abandoned(int handle, const file_identity& id) {
        if (!abandoned_.take(handle, id))
            return false;
        // Through an object that stands for the same file and number.
        registration_data data;
        reactor_.register_descriptor(handle, data.object); // EEXIST
        reactor_.deregister_internal_descriptor(handle, data.object);
        reactor_.cleanup_descriptor_data(data.object);
        return true;
    }

    bool may_tell_of_older(const registration_data& data, bool is_alone) {
        return object_port::may_tell_of_older(data, is_alone) || has_queued_event(data);
    }

    /// Whether an event that was fetched for a handle is still in the scheduler's queue. For a
    /// thread beside which no other one runs the scheduler; beside one that has handled no event of
    /// Moor's yet, which nobody here can know of, it is a race whose answer may be wrong.
    /**
     * epoll's events are queued in one batch, and behind them goes the scheduler's own turn at the
     * reactor: an operation that is queued has a successor.
     */
    bool has_queued_event(const registration_data& data) const noexcept {
        // A C-style cast, the only one that reaches a private base.
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#endif
        return boost::asio::detail::op_queue<scheduler_item>().is_enqueued(
            (scheduler_item*)data.object);
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
    }

private:
    abandoned_entries abandoned_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_EPOLL_HPP
