//
// moor/detail/reactor_select.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The port to Asio's select reactor, and to its /dev/poll reactor, which has the same interface.
// See reactor.hpp for the table of what the backends do.
//

#ifndef MOOR_DETAIL_REACTOR_SELECT_HPP
#define MOOR_DETAIL_REACTOR_SELECT_HPP

#include <moor/detail/edge_set.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_op_waker.hpp>

#include <boost/asio/detail/chrono_time_traits.hpp>
#include <boost/asio/detail/timer_queue.hpp>
#include <boost/asio/wait_traits.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>

namespace moor {
namespace detail {

using steady_time_traits =
    boost::asio::detail::chrono_time_traits<std::chrono::steady_clock,
                                            asio::wait_traits<std::chrono::steady_clock>>;
#if BOOST_ASIO_VERSION >= 103600 // Boost 1.89
struct closed_number_watch_base
    : boost::asio::detail::timer_queue<steady_time_traits,
                                       asio::execution_context::allocator<void>> {
    explicit closed_number_watch_base(asio::execution_context& context)
        : timer_queue(asio::execution_context::allocator<void>(context), 0) {}
};
#else
struct closed_number_watch_base : boost::asio::detail::timer_queue<steady_time_traits> {
    explicit closed_number_watch_base(asio::execution_context&) {}
};
#endif

#if defined(__linux__)

/// select(2) has no channel for news, nor one for closing events: the set tells of both.
struct select_data {
    boost::asio::detail::reactor::per_descriptor_data object{};
    boost::asio::detail::reactor::per_descriptor_data set_object{};
    edge_set set{};
};

class select_edges {
public:
    static constexpr bool has_edge_set = true;

    static error_code watch_edges(int handle, select_data& data, short events) noexcept {
        return error_code(data.set.watch(handle, events),
                          boost::asio::error::get_system_category());
    }
    static bool watches_edges(const select_data& data, short events) noexcept {
        return data.set.watches(events);
    }
    static short take_edges(select_data& data) noexcept { return data.set.take(); }
    static void leave_edges(select_data& data) noexcept { data.set.close(); }
    static void renew_edges(int handle, select_data& data) {
        if (int error = data.set.renew(handle))
            boost::throw_exception(boost::system::system_error(
                error_code(error, boost::asio::error::get_system_category()), "notify_fork"));
    }
};

#else

struct select_data {
    boost::asio::detail::reactor::per_descriptor_data object{};
};
using select_edges = no_edge_set;

#endif

/// Notices that select(2) has failed with EBADF, and has somebody see to it.
/**
 * A number that was closed while the reactor waits for it makes select(2) fail at once, for all
 * other numbers as well, and Asio calls it again and again. Asio asks its queues of timers for
 * timers that are due right after each call, so this is a queue of timers, with none in it.
 */
class closed_number_watch final : public closed_number_watch_base {
public:
    using callback = void (*)(void*);

    closed_number_watch(scheduler_port& scheduler, boost::asio::detail::reactor& reactor)
        : closed_number_watch_base(scheduler.context()), item_(*this), scheduler_(scheduler),
          reactor_(reactor) {}

    void start(callback on_failure, void* argument) {
        item_.on_failure = on_failure;
        item_.argument = argument;
        reactor_.add_timer_queue(*this);
    }
    /// While the reactor still exists.
    void stop() { reactor_.remove_timer_queue(*this); }

    void get_ready_timers(item_queue& items) override {
        if (errno != EBADF)
            return;
        errno = 0;
        if (item_.is_queued.exchange(true, std::memory_order_relaxed))
            return;
        scheduler_.work_started(); // as for any item of the reactor's
        items.push(&item_);
    }

private:
    struct item final : scheduler_item {
        explicit item(closed_number_watch&) noexcept : scheduler_item(&item::do_complete) {}

        static void do_complete(void* owner, scheduler_item* base, const error_code&, std::size_t) {
            item* self = static_cast<item*>(base);
            self->is_queued.store(false, std::memory_order_relaxed);
            if (!owner)
                return;
            self->on_failure(self->argument);
            errno = 0; // closed numbers have set it, and select(2) keeps it if it succeeds
        }

        callback on_failure = nullptr;
        void* argument = nullptr;
        std::atomic<bool> is_queued{false};
    };

    item item_;
    scheduler_port& scheduler_;
    boost::asio::detail::reactor& reactor_;
};

/// The reactor and the scheduler of one execution context.
class reactor_port : public scheduler_port, public select_edges {
    using reactor = boost::asio::detail::reactor;

public:
#if defined(BOOST_ASIO_HAS_DEV_POLL)
    static constexpr const char* name = "dev_poll";
#else
    static constexpr const char* name = "select";
#endif

    static constexpr bool reports_levels = true;
    static constexpr bool latches_events = false;
    static constexpr bool arming_may_throw = true;
    static constexpr bool tells_events = false;
    static constexpr bool completes_for_more = false;
    static constexpr bool reports_hang_ups_to_writers = false;
    static constexpr bool read_closed_wakes_writers = false;
    static constexpr bool reports_again_beside_priority = false;
    static constexpr bool attach_arms_waker = false;

    using registration_data = select_data;

    explicit reactor_port(asio::execution_context& context)
        : scheduler_port(context), reactor_(asio::use_service<reactor>(context)),
          closed_numbers_(*this, reactor_) {
        reactor_.init_task();
    }

    /// Has a function called when a number that the reactor waits for may be closed.
    void watch_closed_numbers(void (*on_failure)(void*), void* argument) {
        closed_numbers_.start(on_failure, argument);
    }
    /// The reactor is going.
    void shut_down() { closed_numbers_.stop(); }

    /// Tells the reactor of a handle.
    template <class Waker>
    error_code attach(int handle, registration_data& data, channel, Waker*) {
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
    template <class Read, class Write, class Edge>
    void detach(int handle, const file_identity&, registration_data& data, number, Read& read,
                Write& write, Edge* edge) {
        disarm(read_channel, read, handle, data);
        disarm(write_channel, write, handle, data);
        if (edge)
            disarm(edge_channel, *edge, handle, data);
        leave_edges(data); // the set would not report the next file with this number
    }

    static bool delete_abandoned(int, const file_identity&) noexcept { return false; }
    static bool may_tell_of_others(const registration_data&) noexcept { return false; }
    static void note_older_event(const registration_data&) noexcept {}
    /// Another thread may have called select(2) for an earlier handle with this number.
    static bool may_tell_of_older(const registration_data&, bool is_alone) noexcept {
        return !is_alone;
    }

    static constexpr bool says_nothing(registration_data&, const error_code&) noexcept {
        return false;
    }

    /// Gives back what is kept for a handle, once every waker is idle.
    void release(registration_data& data, bool) {
        leave_edges(data);
        data = registration_data();
    }

    /// Puts a waker into the reactor, and counts one unit of work.
    template <class Waker>
    void arm(channel c, Waker& waker, int handle, registration_data& data) {
#if defined(__linux__)
        if (c == edge_channel)
            return reactor_.start_op(reactor::read_op, data.set.number(), data.set_object, &waker,
                                     false, true);
#endif
        reactor_.start_op(op_type(c), handle, data.object, &waker, false, true);
    }

    /// Takes a waker back out; it fires with operation_aborted, if it is in the reactor at all.
    template <class Waker>
    void disarm(channel c, Waker& waker, int handle, registration_data& data) {
#if defined(__linux__)
        if (c == edge_channel)
            return reactor_.cancel_ops_by_key(data.set.number(), data.set_object, reactor::read_op,
                                              waker.cancellation_key_);
#endif
        reactor_.cancel_ops_by_key(handle, data.object, op_type(c), waker.cancellation_key_);
    }

    static bool has_queued_event(const registration_data&) noexcept { return false; }

private:
    reactor& reactor_;
    closed_number_watch closed_numbers_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_SELECT_HPP
