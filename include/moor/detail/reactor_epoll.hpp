//
// moor/detail/reactor_epoll.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
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
class reactor_port : public scheduler_port, public no_edge_set {
    using reactor = boost::asio::detail::reactor;

public:
    static constexpr const char* name = "epoll";

    static constexpr bool reports_levels = false;
    static constexpr bool latches_events = true;
    static constexpr bool arming_may_throw = false;
    static constexpr bool tells_events = false;
    static constexpr bool completes_for_more = false;
    static constexpr bool reports_hang_ups_to_writers = true;
    static constexpr bool read_closed_wakes_writers = false;
    static constexpr bool reports_again_beside_priority = true;
    static constexpr bool attach_arms_reader = latches_events;

    /// What is kept for an attached handle: Asio's object.
    struct registration_data {
        reactor::per_descriptor_data object{};
    };

    explicit reactor_port(asio::execution_context& context)
        : scheduler_port(context), reactor_(asio::use_service<reactor>(context)) {
        reactor_.init_task();
    }

    static void watch_closed_numbers(void (*)(void*), void*) noexcept {}
    static void shut_down() noexcept {}

    /// Tells the reactor of a handle. EPERM: the handle can't be polled, and is not attached.
    template <class Read>
    error_code attach(int handle, const file_identity& id, registration_data& data,
                      [[maybe_unused]] Read* read) {
        if (BOOST_UNLIKELY(abandoned_.take(handle, id)))
            delete_entry(handle);
        int result = 0;
        if (attach_arms_reader && read) {
            // register_descriptor() would hide EPERM, and a fork would then throw in the child.
            // With the waker queued before the handle is added, its present readiness is an event
            // that can't be missed.
            result =
                reactor_.register_internal_descriptor(reactor::read_op, handle, data.object, read);
            if (result != 0)
                reactor_.deregister_internal_descriptor(-1, data.object); // drops the waker
        } else {
            result = reactor_.register_descriptor(handle, data.object);
        }
        if (result != 0)
            reactor_.cleanup_descriptor_data(data.object);
        return system_error(result);
    }

    /// Whether detach() drops the armed wakers before it returns. Otherwise they come back by
    /// firing with operation_aborted, for which the caller counts one unit of work each.
    static constexpr bool detaches_at_once(number n) noexcept { return n != number::foreign; }

    /// Takes a handle out of the reactor.
    template <class Read, class Write, class Edge>
    void detach(int handle, const file_identity& id, registration_data& data, number n, Read&,
                Write&, Edge*) {
        if (n != number::ours) {
            left_behind_.note_file(data.object);
            abandoned_.add(handle, id);
        }
        if (n != number::foreign)
            reactor_.deregister_internal_descriptor(handle, data.object);
        else
            reactor_.deregister_descriptor(handle, data.object, true);
        reactor_.cleanup_descriptor_data(data.object);
    }

    /// Whether any event of an attached handle may be another file's.
    bool may_tell_of_others(const registration_data& data) {
        return left_behind_.has_file(data.object);
    }

    /// A handle is about to be detached while another thread may have fetched an event for it.
    void note_older_event(const registration_data& data) noexcept {
        left_behind_.note_event(data.object);
    }
    /// Whether the next events of a handle that was just attached may be older than that.
    /// `is_alone`: no other thread can be about to handle one.
    bool may_tell_of_older(const registration_data& data, bool is_alone) {
        return left_behind_.take_event(data.object) || !is_alone || has_queued_event(data);
    }

    static constexpr bool says_nothing(registration_data&, const error_code&) noexcept {
        return false;
    }

    /// Gives back what is kept for a handle, once every waker is idle.
    void release(registration_data& data, bool) { data = registration_data(); }

    /// Puts a waker into the reactor, and counts one unit of work.
    template <class Waker>
    void arm(channel c, Waker& waker, int handle, registration_data& data) {
        reactor_.start_op(op_type(c), handle, data.object, &waker, false, true);
    }

    /// Takes a waker back out; it fires with operation_aborted, if it is in the reactor at all.
    template <class Waker>
    void disarm(channel c, Waker& waker, int handle, registration_data& data) {
        reactor_.cancel_ops_by_key(handle, data.object, op_type(c), waker.cancellation_key_);
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
    /// Deletes an entry of epoll's that no object of Asio's stands for any more: through an object
    /// that stands for the same file and number.
    void delete_entry(int handle) {
        registration_data data;
        reactor_.register_descriptor(handle, data.object); // EEXIST
        reactor_.deregister_internal_descriptor(handle, data.object);
        reactor_.cleanup_descriptor_data(data.object);
    }

    reactor& reactor_;
    left_behind left_behind_;
    abandoned_entries abandoned_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_EPOLL_HPP
