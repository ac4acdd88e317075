//
// moor/detail/reactor_objects.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the reactors with an object of Asio's for each handle (epoll, kqueue) have in common.
//

#ifndef MOOR_DETAIL_REACTOR_OBJECTS_HPP
#define MOOR_DETAIL_REACTOR_OBJECTS_HPP

#include <moor/detail/config.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/reactor_op_waker.hpp>

#include <boost/asio/detail/reactor.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/core/no_exceptions_support.hpp>

#include <atomic>
#include <mutex>
#include <unordered_map>

namespace moor {
namespace detail {

/// What was left behind by handles that have left the reactor, where Asio keeps an object for each
/// and uses it again for another handle.
class left_behind {
public:
    left_behind();
    left_behind(const left_behind&) = delete;
    left_behind& operator=(const left_behind&) = delete;
    ~left_behind();

    /// The file of a handle was not taken out of the reactor.
    /**
     * epoll keeps a file for as long as a duplicate of it is open, and goes on to report its events
     * to Asio's object, which stands for another handle then.
     */
    void note_file(const void* object) noexcept { note(object, file); }

    /// Whether any event of a handle may be another file's.
    bool has_file(const void* object) noexcept { return has(object, file); }

    /// A handle has left, and another thread may be about to handle an event that it fetched
    /// before.
    void note_event(const void* object) noexcept { note(object, event); }

    /// Whether the next events of a handle may be older than the handle.
    bool take_event(const void* object) noexcept { return has(object, event); }

private:
    enum what : unsigned { file = 1, event = 2 };

    void note(const void* object, what w) noexcept;

    /// An event is taken as well.
    bool has(const void* object, what w) noexcept;

    std::mutex mutex_;
    std::unordered_map<const void*, unsigned> objects_; // no more than Asio ever made
    unsigned of_all_ = 0;                               // there was no memory
    std::atomic<unsigned> of_any_{0};
};

/// The files that were not taken out of epoll, because their numbers were not to be passed to the
/// kernel any more.
/**
 * epoll knows an entry by file and number, and keeps it for as long as a duplicate of the file is
 * open. Adding the same file again under the same number then fails with EEXIST.
 */
class abandoned_entries {
public:
    abandoned_entries();
    abandoned_entries(const abandoned_entries&) = delete;
    abandoned_entries& operator=(const abandoned_entries&) = delete;
    ~abandoned_entries();

    void add(int handle, const file_identity& id) noexcept;

    /// Whether there is such an entry; it is forgotten.
    bool take(int handle, const file_identity& id) noexcept;

private:
    std::mutex mutex_;
    std::unordered_map<int, file_identity> entries_; // the last file of each number
};

#if defined(MOOR_DETAIL_DEFINES)

MOOR_DETAIL_DECL left_behind::left_behind() = default;
MOOR_DETAIL_DECL left_behind::~left_behind() = default;
MOOR_DETAIL_DECL abandoned_entries::abandoned_entries() = default;
MOOR_DETAIL_DECL abandoned_entries::~abandoned_entries() = default;

MOOR_DETAIL_DECL void left_behind::note(const void* object, what w) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    BOOST_TRY { objects_[object] |= w; }
    BOOST_CATCH(...) { of_all_ |= w; }
    BOOST_CATCH_END
    of_any_.fetch_or(w, std::memory_order_release);
}

MOOR_DETAIL_DECL bool left_behind::has(const void* object, what w) noexcept {
    if (!(of_any_.load(std::memory_order_acquire) & w))
        return false;
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = objects_.find(object);
    const bool is_noted = it != objects_.end() && (it->second & w);
    if (is_noted && w == event) {
        it->second &= ~unsigned(event);
        if (it->second == 0)
            objects_.erase(it);
    }
    return is_noted || (of_all_ & w);
}

MOOR_DETAIL_DECL void abandoned_entries::add(int handle, const file_identity& id) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    BOOST_TRY { entries_[handle] = id; }
    BOOST_CATCH(...) {} // adding the file again will fail, as without this
    BOOST_CATCH_END
}

MOOR_DETAIL_DECL bool abandoned_entries::take(int handle, const file_identity& id) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = entries_.find(handle);
    if (it == entries_.end() || !(it->second == id))
        return false;
    entries_.erase(it);
    return true;
}

#endif // MOOR_DETAIL_DEFINES

/// The reactor and the scheduler of one execution context.
class object_port : public scheduler_port, public no_edge_set {
protected:
    using reactor = boost::asio::detail::reactor;

public:
    static constexpr bool reports_levels = false;
    static constexpr bool tells_events = false;
    static constexpr bool completes_for_more = false;
    static constexpr bool reports_hang_ups_to_writers = true;
    static constexpr bool read_closed_wakes_writers = false;

    /// What is kept for an attached handle: Asio's object.
    struct registration_data {
        reactor::per_descriptor_data object{};
    };

    static void watch_closed_numbers(void (*)(void*), void*) noexcept {}
    static void shut_down() noexcept {}

    /// Tells the reactor of a handle. EPERM: the handle can't be polled, and is not attached.
    /**
     * With the waker of `c` queued before the handle is added, its present readiness is an event
     * that can't be missed. (Without a waker, EPERM would be hidden, and a fork would then throw in
     * the child.)
     */
    template <class Waker>
    error_code attach(int handle, registration_data& data, channel c, Waker* waker) {
        int result = 0;
        if (waker) {
            result = reactor_.register_internal_descriptor(op_type(c), handle, data.object, waker);
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
    void detach(int handle, const file_identity&, registration_data& data, number n, Read&, Write&,
                Edge*) {
        if (n != number::ours)
            left_behind_.note_file(data.object);
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
        return left_behind_.take_event(data.object) || !is_alone;
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

protected:
    explicit object_port(asio::execution_context& context)
        : scheduler_port(context), reactor_(asio::use_service<reactor>(context)) {
        reactor_.init_task();
    }
    ~object_port() = default;

    reactor& reactor_;

private:
    left_behind left_behind_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_OBJECTS_HPP
