//
// moor/detail/reactor_io_uring.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The port to Asio's io_uring service: a waker is a poll request. See reactor.hpp for the table of
// what the backends do.
//

#ifndef MOOR_DETAIL_REACTOR_IO_URING_HPP
#define MOOR_DETAIL_REACTOR_IO_URING_HPP

#include <moor/detail/edge_set.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_base.hpp>

#include <boost/asio/detail/io_uring_operation.hpp>
#include <boost/asio/detail/io_uring_service.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <poll.h>

namespace moor {
namespace detail {

/// Whether a completed request is known to be its own waker's: before Boost 1.82 Asio gives the
/// result of a cancellation to other operations (chriskohlhoff/asio, pull request 1215).
inline constexpr bool has_own_results = BOOST_ASIO_VERSION >= 102700;

/// The mask that completed the request.
inline short events_told(boost::asio::detail::io_uring_operation& base) noexcept {
    return has_own_results ? static_cast<short>(std::exchange(base.bytes_transferred_, 0))
                           : short(0);
}

template <class Owner, channel Channel>
class basic_waker
    : public boost::asio::detail::io_uring_operation,
      private waker_return<boost::asio::detail::io_uring_operation, Owner, Channel, events_told> {
public:
    explicit basic_waker(Owner* owner)
        : io_uring_operation(error_code(), &basic_waker::do_prepare, &basic_waker::do_perform,
                             &basic_waker::do_complete) {
        cancellation_key_ = owner;
    }

private:
    using waker_return<io_uring_operation, Owner, Channel, events_told>::owner_of;

    static void do_prepare(io_uring_operation* base, ::io_uring_sqe* sqe) {
        Owner* owner = owner_of(base);
        if (Channel == edge_channel)
            ::io_uring_prep_poll_add(sqe, owner->data().set.number(), POLLIN);
        else
            ::io_uring_prep_poll_add(sqe, owner->native_handle(),
                                     static_cast<unsigned>(Owner::events_of(Channel)));
    }

    static bool do_perform(io_uring_operation*, bool after_completion) { return after_completion; }
};

/// The service and the scheduler of one execution context.
class reactor_port : public scheduler_port {
    using service = boost::asio::detail::io_uring_service;

public:
    static constexpr const char* name = "io_uring";

    static constexpr bool reports_levels = true;
    static constexpr bool latches_events = false;
    static constexpr bool arming_may_throw = true;
    static constexpr bool tells_events = has_own_results;
    static constexpr bool completes_for_more = true;
    static constexpr bool has_edge_set = true;
    static constexpr bool reports_hang_ups_to_writers = true;
    static constexpr bool reports_again_beside_priority = false;
    static constexpr bool attach_arms_waker = false;

    /// What is kept for an attached handle.
    struct registration_data {
        service::per_io_object_data object = nullptr;
        edge_set set{};
        unsigned refusals = 0; // of poll requests, in a row
    };

    explicit reactor_port(asio::execution_context& context)
        : scheduler_port(context), service_(asio::use_service<service>(context)) {
        service_.init_task();
    }

    static void watch_closed_numbers(void (*)(void*), void*) noexcept {}
    static void shut_down() noexcept {}

    /// Makes Asio's object for a handle.
    template <class Waker>
    error_code attach(int, registration_data& data, channel, Waker*) {
        service_.register_io_object(data.object);
        return error_code();
    }

    /// The armed wakers come back by firing with operation_aborted, for which the caller counts one
    /// unit of work each.
    static constexpr bool detaches_at_once(number) noexcept { return false; }

    /// Takes a handle out of the reactor.
    template <class Read, class Write, class Edge>
    void detach(int handle, const file_identity&, registration_data& data, number, Read& read,
                Write& write, Edge* edge) {
        disarm(read_channel, read, handle, data);
        disarm(write_channel, write, handle, data);
        if (edge)
            disarm(edge_channel, *edge, handle, data);
    }

    static bool delete_abandoned(int, const file_identity&) noexcept { return false; }
    static bool may_tell_of_others(const registration_data&) noexcept { return false; }
    static void note_older_event(const registration_data&) noexcept {}
    static bool may_tell_of_older(const registration_data&, bool) noexcept { return false; }

    /// Gives back what is kept for a handle, once every waker is idle. The service may have been
    /// shut down, and has forgotten everything then.
    void release(registration_data& data, bool service_alive) {
        if (service_alive) {
            service_.deregister_io_object(data.object);
            service_.cleanup_io_object(data.object);
        }
        data.set.close();
        data = registration_data();
    }

    /// Whether a poll request completes at once for POLLRDHUP, whatever it asked for: a writer on a
    /// socket whose peer only has nothing more to say would be woken again and again. (The kernel
    /// lets that flag through beside POLLERR and POLLHUP: IO_POLL_UNMASK in its io_uring/poll.c.)
    static constexpr bool read_closed_wakes_writers = true;

    static error_code watch_edges(int handle, registration_data& data, short events) noexcept {
        return system_error(data.set.watch(handle, events));
    }
    static bool watches_edges(const registration_data& data, short events) noexcept {
        return data.set.watches(events);
    }
    static short take_edges(registration_data& data) noexcept { return data.set.take(); }
    static void leave_edges(registration_data& data) noexcept { data.set.close(); }
    static void renew_edges(int handle, registration_data& data) {
        if (int error = data.set.renew(handle))
            boost::throw_exception(boost::system::system_error(system_error(error), "notify_fork"));
    }

    /// Submits a waker's request, and counts one unit of work.
    template <class Waker>
    void arm(channel c, Waker& waker, int, registration_data& data) {
        service_.start_op(static_cast<int>(c), data.object, &waker, false);
    }

    /// Cancels a waker's request; the waker fires with operation_aborted, if it is armed at all.
    template <class Waker>
    void disarm(channel c, Waker& waker, int, registration_data& data) {
        service_.cancel_ops_by_key(data.object, static_cast<int>(c), waker.cancellation_key_);
    }

    /// Whether what a waker was given says nothing of its handle, so that it is to be armed again:
    /// the result of a cancellation that was not its own, which Asio's io_uring service gives
    /// before Boost 1.82 (chriskohlhoff/asio, pull request 1215); or EINVAL, which the kernel
    /// (6.18) answers to some poll requests on a terminal that it takes when they are made again.
    static bool says_nothing(registration_data& data, const error_code& ec) noexcept {
        bool is_refused = ec == boost::system::errc::invalid_argument;
        if (is_refused && ++data.refusals != most_refusals)
            return true;
        data.refusals = 0;
        return ec == boost::system::errc::no_such_file_or_directory;
    }

    static bool has_queued_event(const registration_data&) noexcept { return false; }

private:
    static constexpr unsigned most_refusals = 8;

    service& service_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_IO_URING_HPP
