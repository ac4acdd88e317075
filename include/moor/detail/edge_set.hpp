//
// moor/detail/edge_set.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// An edge-triggered epoll set that holds one handle. Its number is readable while the set has an
// event to tell: select(2) and poll requests, which report what is there again and again, wait on
// it instead of the handle where they must be woken for news only.
//

#ifndef MOOR_DETAIL_EDGE_SET_HPP
#define MOOR_DETAIL_EDGE_SET_HPP

#if defined(__linux__)

#include <cerrno>
#include <utility>

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

    /// Has the set, which is made if need be, report these events of `poll(2)` for the handle, and
    /// what of them is there already. Returns an errno.
    int watch(int handle, short events) noexcept {
        bool is_new = number_ < 0;
        if (is_new && (number_ = ::epoll_create1(EPOLL_CLOEXEC)) < 0)
            return errno;
        ::epoll_event event{};
        // poll's flags have epoll's values.
        event.events = static_cast<unsigned short>(events) | static_cast<unsigned>(EPOLLET);
        if (::epoll_ctl(number_, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, handle, &event) == 0)
            return 0;
        int error = errno;
        if (is_new)
            close();
        return error;
    }

    /// In the child of a fork, where the set is the parent's: puts a new one under the same number,
    /// which Asio knows. Returns an errno.
    int renew(int handle, short events) noexcept {
        if (number_ < 0)
            return 0;
        int number = std::exchange(number_, -1);
        int error = watch(handle, events);
        if (error == 0 && ::dup3(number_, number, O_CLOEXEC) < 0)
            error = errno;
        close();
        number_ = number;
        return error;
    }

    /// Takes the event, so that the set tells the next one.
    void acknowledge() noexcept {
        ::epoll_event event;
        ::epoll_wait(number_, &event, 1, 0);
    }

    void close() noexcept {
        if (number_ >= 0)
            ::close(number_);
        number_ = -1;
    }

private:
    int number_ = -1;
};

} // namespace detail
} // namespace moor

#endif // __linux__

#endif // MOOR_DETAIL_EDGE_SET_HPP
