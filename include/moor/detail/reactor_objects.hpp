//
// moor/detail/reactor_objects.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the reactors with an object of Asio's for each handle (epoll, kqueue) have in common.
//

#ifndef MOOR_DETAIL_REACTOR_OBJECTS_HPP
#define MOOR_DETAIL_REACTOR_OBJECTS_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_op_waker.hpp>

#include <boost/core/no_exceptions_support.hpp>

#include <atomic>
#include <map>
#include <mutex>
#include <set>

namespace moor {
namespace detail {

/// Some of Asio's objects for handles, which Asio uses again for other handles.
class object_set {
public:
    void add(const void* object) noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        BOOST_TRY { objects_.insert(object); }
        BOOST_CATCH(...) {
            are_all_ = true; // out of memory
        }
        BOOST_CATCH_END
        are_any_.store(true, std::memory_order_release);
    }

    bool contains(const void* object) noexcept {
        if (!are_any_.load(std::memory_order_acquire))
            return false;
        std::lock_guard<std::mutex> lock(mutex_);
        return are_all_ || objects_.count(object) != 0;
    }

    /// The same, and takes it out.
    bool take(const void* object) noexcept {
        if (!are_any_.load(std::memory_order_acquire))
            return false;
        std::lock_guard<std::mutex> lock(mutex_);
        return objects_.erase(object) != 0 || are_all_;
    }

private:
    std::mutex mutex_;
    std::set<const void*> objects_; // bounded by the number of objects that Asio ever made
    bool are_all_ = false;
    std::atomic<bool> are_any_{false};
};

/// What was left behind by handles that have left the reactor, where Asio keeps an object for each.
class left_behind {
public:
    /// The file of a handle was not taken out of the reactor.
    /**
     * epoll keeps a file for as long as a duplicate of it is open, and goes on to report its events
     * to Asio's object, which stands for another handle then.
     */
    void note_file(const void* object) noexcept { with_file_.add(object); }

    /// Whether any event of a handle may be another file's.
    bool has_file(const void* object) noexcept { return with_file_.contains(object); }

    /// A handle has left, and another thread may be about to handle an event that it fetched
    /// before.
    void note_event(const void* object) noexcept { with_event_.add(object); }

    /// Whether the next events of a handle may be older than the handle.
    bool take_event(const void* object) noexcept { return with_event_.take(object); }

private:
    object_set with_file_;
    object_set with_event_;
};

/// The files that were not taken out of the reactor, because their numbers were not to be passed to
/// the kernel any more.
/**
 * epoll knows an entry by file and number, and keeps it for as long as a duplicate of the file is
 * open. Adding the same file again under the same number then fails with EEXIST.
 */
class abandoned_entries {
public:
    void add(int handle, const file_identity& id) noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        BOOST_TRY { entries_[handle] = id; }
        BOOST_CATCH(...) {} // adding the file again will fail, as without this
        BOOST_CATCH_END
        are_any_.store(true, std::memory_order_release);
    }

    /// Whether there is such an entry; it is forgotten.
    bool take(int handle, const file_identity& id) noexcept {
        if (!are_any_.load(std::memory_order_acquire))
            return false;
        std::lock_guard<std::mutex> lock(mutex_);
        auto it = entries_.find(handle);
        if (it == entries_.end() || !(it->second == id))
            return false;
        entries_.erase(it);
        return true;
    }

private:
    std::mutex mutex_;
    std::map<int, file_identity> entries_; // the last file of each number
    std::atomic<bool> are_any_{false};
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_REACTOR_OBJECTS_HPP
