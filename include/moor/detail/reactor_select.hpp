//
// moor/detail/reactor_select.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The port to Asio's select reactor, and to its /dev/poll reactor, which has the same interface.
// See reactor.hpp for the table of what the backends do.
//

#ifndef MOOR_DETAIL_REACTOR_SELECT_HPP
#define MOOR_DETAIL_REACTOR_SELECT_HPP

#include <moor/detail/edge_set.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_op_waker.hpp>

#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

namespace moor {
namespace detail {

#if defined(__linux__)

/// The priority channel is an edge-triggered set of its own, made for a handle that is first waited
/// for in this way: select(2) has no channel that takes a mask, and would report for as long as
/// data is left unread, or a hang-up lasts.
struct select_data {
    boost::asio::detail::reactor::per_descriptor_data object{};
    boost::asio::detail::reactor::per_descriptor_data priority_object{};
    edge_set priority{};
};

class select_priority {
public:
    static constexpr bool masks_priority = true;

    static error_code watch_priority(int handle, select_data& data, short events) {
        return error_code(data.priority.watch(handle, events),
                          boost::asio::error::get_system_category());
    }
    static void renew_priority(int handle, select_data& data, short events) {
        if (int error = data.priority.renew(handle, events))
            boost::throw_exception(boost::system::system_error(
                error_code(error, boost::asio::error::get_system_category()), "notify_fork"));
    }
    static void acknowledge_priority(select_data& data) { data.priority.acknowledge(); }
};

#else

struct select_data {
    boost::asio::detail::reactor::per_descriptor_data object{};
};
using select_priority = no_priority_set;

#endif

/// The reactor and the scheduler of one execution context.
class reactor_port : public scheduler_port, public no_room_set, public select_priority {
    using reactor = boost::asio::detail::reactor;

public:
#if defined(BOOST_ASIO_HAS_DEV_POLL)
    static constexpr const char* name = "dev_poll";
#else
    static constexpr const char* name = "select";
#endif

    static constexpr bool latches_events = false;
    static constexpr bool arming_may_throw = true;
    static constexpr bool announces_firing = true;
    static constexpr bool reports_again_beside_priority = false;
    static constexpr bool attach_arms_reader = false;

    using registration_data = select_data;

    explicit reactor_port(asio::execution_context& context)
        : scheduler_port(context), reactor_(asio::use_service<reactor>(context)) {
        reactor_.init_task();
    }

    /// Tells the reactor of a handle.
    template <class Read>
    error_code attach(int handle, const file_identity&, registration_data& data, Read*) {
        int result = reactor_.register_descriptor(handle, data.object);
        if (result != 0)
            reactor_.cleanup_descriptor_data(data.object);
        return system_error(result);
    }

    /// The armed wakers come back by firing with operation_aborted, for which the caller counts one
    /// unit of work each.
    static constexpr bool detaches_at_once(number) noexcept { return false; }

    /// Takes a handle out of the reactor: by key, so that nobody else's operations on the same
    /// number are hit.
    template <class Read, class Write, class Priority>
    void detach(int handle, const file_identity&, registration_data& data, number, Read& read,
                Write& write, Priority* priority) {
        disarm(read_channel, read, handle, data);
        disarm(write_channel, write, handle, data);
        if (priority)
            disarm(priority_channel, *priority, handle, data);
    }

    static bool may_tell_of_others(const registration_data&) noexcept { return false; }

    /// Gives back what is kept for a handle, once every waker is idle.
    void release(registration_data& data, bool) {
#if defined(__linux__)
        data.priority.close();
#endif
        data = registration_data();
    }

    /// Puts a waker into the reactor, and counts one unit of work.
    template <class Waker>
    void arm(channel c, Waker& waker, int handle, registration_data& data) {
#if defined(__linux__)
        if (c == priority_channel)
            return reactor_.start_op(reactor::read_op, data.priority.number(), data.priority_object,
                                     &waker, false, true);
#endif
        reactor_.start_op(op_type(c), handle, data.object, &waker, false, true);
    }

    /// Takes a waker back out; it fires with operation_aborted, if it is in the reactor at all.
    template <class Waker>
    void disarm(channel c, Waker& waker, int handle, registration_data& data) {
#if defined(__linux__)
        if (c == priority_channel)
            return reactor_.cancel_ops_by_key(data.priority.number(), data.priority_object,
                                              reactor::read_op, waker.cancellation_key_);
#endif
        reactor_.cancel_ops_by_key(handle, data.object, op_type(c), waker.cancellation_key_);
    }

    static bool has_queued_event(const registration_data&) noexcept { return false; }

private:
    reactor& reactor_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_SELECT_HPP
