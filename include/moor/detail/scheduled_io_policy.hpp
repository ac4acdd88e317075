//
// moor/detail/scheduled_io_policy.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_POLICY_HPP
#define MOOR_DETAIL_SCHEDULED_IO_POLICY_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/error.hpp>

#include <atomic>

namespace moor {
namespace detail {

template <class Policy>
class basic_scheduled_io;

/// What the state stands on in a program. A test has a policy of its own.
struct reactor_policy {
    using state = basic_scheduled_io<reactor_policy>;
    using port = reactor_port;
    using mutex = state_mutex;
    template <class T>
    using atomic = std::atomic<T>;
    template <class Owner, channel C>
    using waker = basic_waker<Owner, C>;

    static int poll(int handle, short events, error_code& ec) noexcept {
        return poll_now(handle, events, ec);
    }
    static file_identity identify(int handle, error_code& ec) noexcept {
        return detail::identify(handle, ec);
    }
    static pipe_end identify_pipe_end(int handle, const file_identity& id) noexcept {
        return detail::identify_pipe_end(handle, id);
    }
    static bool is_always_ready(int handle, const file_identity& id) noexcept {
        return detail::is_always_ready(handle, id);
    }
    static bool tells_state(int handle, const file_identity& id) noexcept {
        return detail::tells_state(handle, id);
    }
    static bool wakes_for_more(int handle, const file_identity& id) noexcept {
        return port::completes_for_more &&
               (!port::tells_events || detail::wakes_for_more(handle, id));
    }
    static const void* this_thread() noexcept {
        static thread_local char id;
        return &id;
    }
    /// The waker that this thread is arming, if the reactor is to ask for it.
    static const void*& arming() noexcept {
        static thread_local const void* waker = nullptr;
        return waker;
    }
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SCHEDULED_IO_POLICY_HPP
