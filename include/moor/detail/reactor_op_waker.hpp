//
// moor/detail/reactor_op_waker.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The waker of the reactors that wait for handles (epoll, kqueue, /dev/poll, select), and what
// their ports have in common.
//

#ifndef MOOR_DETAIL_REACTOR_OP_WAKER_HPP
#define MOOR_DETAIL_REACTOR_OP_WAKER_HPP

#include <moor/detail/reactor_base.hpp>

#include <boost/asio/detail/reactor.hpp>
#include <boost/asio/detail/reactor_op.hpp>

namespace moor {
namespace detail {

/// These reactors do not say what events there were.
inline short events_told(boost::asio::detail::reactor_op&) noexcept { return 0; }

template <class Owner, channel Channel>
class basic_waker
    : public boost::asio::detail::reactor_op,
      private waker_return<boost::asio::detail::reactor_op, Owner, Channel, events_told> {
public:
    explicit basic_waker(Owner* owner)
        : reactor_op(error_code(), &basic_waker::do_perform, &basic_waker::do_complete) {
        cancellation_key_ = owner;
    }

private:
    using waker_return<reactor_op, Owner, Channel, events_told>::owner_of;

    static status do_perform(reactor_op* base) {
        // "Exhausted" makes Asio forget that there was an event: its try_speculative_ flag is then
        // the latch that remembers the next one until the waker is armed again.
        return owner_of(base)->template speculate<Channel>(base->ec_) ? done_and_exhausted
                                                                      : not_done;
    }
};

/// The queue of the reactor for a channel's operations.
constexpr int op_type(channel c) noexcept {
    using boost::asio::detail::reactor;
    return c == read_channel    ? static_cast<int>(reactor::read_op)
           : c == write_channel ? static_cast<int>(reactor::write_op)
                                : static_cast<int>(reactor::except_op);
}

/// What a port has no need of if the reactor reports edges.
class no_edge_set {
public:
    static constexpr bool has_edge_set = false;

    template <class Data>
    static error_code watch_edges(int, Data&, short) noexcept {
        return error_code();
    }
    template <class Data>
    static bool watches_edges(const Data&, short) noexcept {
        return true;
    }
    template <class Data>
    static short take_edges(Data&) noexcept {
        return 0;
    }
    template <class Data>
    static void leave_edges(Data&) noexcept {}
    template <class Data>
    static void renew_edges(int, Data&) noexcept {}
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_OP_WAKER_HPP
