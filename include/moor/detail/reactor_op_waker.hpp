//
// moor/detail/reactor_op_waker.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
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

template <class Owner, channel Channel>
class basic_waker : public boost::asio::detail::reactor_op,
                    private waker_return<boost::asio::detail::reactor_op, Owner, Channel> {
public:
    explicit basic_waker(Owner* owner)
        : reactor_op(error_code(), &basic_waker::do_perform, &basic_waker::do_complete) {
        cancellation_key_ = owner;
    }

private:
    using waker_return<reactor_op, Owner, Channel>::owner_of;

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

/// What a reactor need not do whose write events tell room, and whose results are its own.
class no_room_set {
public:
    static constexpr bool read_closed_wakes_writers = false;

    template <class Data>
    static void watch_room_only(int, Data&, bool) noexcept {}
    template <class Data>
    static void acknowledge_room(Data&) noexcept {}
    template <class Data>
    static bool says_nothing(Data&, const error_code&) noexcept {
        return false;
    }
};

/// What a reactor need not do whose priority channel takes no mask.
class no_priority_set {
public:
    static constexpr bool masks_priority = false;

    template <class Data>
    static error_code watch_priority(int, Data&, short) {
        return error_code();
    }
    template <class Data>
    static void renew_priority(int, Data&, short) {}
    template <class Data>
    static void acknowledge_priority(Data&) {}
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_OP_WAKER_HPP
