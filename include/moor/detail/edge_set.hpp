//
// moor/detail/edge_set.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// An edge-triggered epoll set that holds one handle. Its number is readable while the set has an
// event to tell. select(2) and poll requests report what is there again and again: they wait for
// the set instead of the handle where they must report news only.
//

#ifndef MOOR_DETAIL_EDGE_SET_HPP
#define MOOR_DETAIL_EDGE_SET_HPP

#if defined(__linux__)

#include <cerrno>

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

namespace moor {
namespace detail {

/// A value: who holds the last copy calls close().
class edge_set {
public:
    /// The number of the set, or -1.
    int number() const noexcept { return number_; }

    /// Has the set, which is made if need be, report these events of `poll(2)` for the handle from
    /// now on, besides those that it reports already. What is there of them is an event at once; if
    /// the set gets more to report, so is what is there of the others. Returns an errno.
    int watch(int handle, short events) noexcept {
        short all = static_cast<short>(events_ | events);
        if (number_ >= 0 && all == events_)
            return 0;
        bool is_new = number_ < 0;
        if (is_new && ::fcntl(handle, F_GETFD) < 0)
            return errno; // and the set is not to get that number
        if (is_new && (number_ = ::epoll_create1(EPOLL_CLOEXEC)) < 0)
            return errno;
        ::epoll_event event{};
        // poll's flags have epoll's values.
        event.events = static_cast<unsigned short>(all) | static_cast<unsigned>(EPOLLET);
        if (::epoll_ctl(number_, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, handle, &event) == 0) {
            events_ = all;
            return 0;
        }
        int error = errno;
        if (is_new)
            close();
        return error;
    }

    /// In the child of a fork, where the set is the parent's: puts a new one under the same number,
    /// which Asio knows. Returns an errno.
    int renew(int handle) noexcept {
        if (number_ < 0)
            return 0;
        edge_set fresh;
        int error = fresh.watch(handle, events_);
        if (error == 0 && ::dup3(fresh.number_, number_, O_CLOEXEC) < 0)
            error = errno;
        fresh.close();
        return error;
    }

    /// Whether the set reports these events.
    bool watches(short events) const noexcept { return (events & ~events_) == 0; }

    /// Takes the event, so that the set tells the next one. Returns what is there of what the set
    /// reports, or 0 if there is no event.
    short take() noexcept {
        if (number_ < 0)
            return 0;
        ::epoll_event event;
        return ::epoll_wait(number_, &event, 1, 0) == 1 ? static_cast<short>(event.events)
                                                        : short(0);
    }

    void close() noexcept {
        if (number_ >= 0)
            ::close(number_);
        *this = edge_set();
    }

private:
    int number_ = -1;
    short events_ = 0;
};

} // namespace detail
} // namespace moor

#endif // __linux__

#endif // MOOR_DETAIL_EDGE_SET_HPP
