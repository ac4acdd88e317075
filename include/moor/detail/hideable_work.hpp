//
// moor/detail/hideable_work.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_HIDEABLE_WORK_HPP
#define MOOR_DETAIL_HIDEABLE_WORK_HPP

#include <moor/detail/reactor.hpp>

#include <boost/assert.hpp>

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

namespace moor {
namespace detail {

/// The outstanding work of pending operations, which can be hidden from the scheduler: then the
/// loop may end before they do.
/**
 * The scheduler counts one unit for each operation. Hiding gives the units back to the scheduler.
 * This is done only within `run()`: outside, the count could reach zero, and the scheduler would
 * stop before `run()` begins. For the same reason, every unit is shown before an operation is
 * cancelled. The next completion within `run()` hides the remaining units again.
 */
class hideable_work {
public:
    explicit hideable_work(reactor_port& port) noexcept : port_(port) {}

    /// An operation is about to begin.
    void starting() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        ++pending_;
    }

    /// The operation was not started.
    void not_started() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        --pending_;
    }

    /// In the loop, which takes one unit back afterwards.
    void completed() {
        std::lock_guard<std::mutex> lock(mutex_);
        BOOST_ASSERT(pending_ > 0);
        --pending_;
        settle();
    }

    /// Sets whether the work is hidden, from the loop's next turn on.
    void set_hides(bool hides) {
        std::lock_guard<std::mutex> lock(mutex_);
        hides_ = hides;
        if (!hides)
            show_all();
    }

    void show() {
        std::lock_guard<std::mutex> lock(mutex_);
        show_all();
    }

    /// In the loop.
    void hide() {
        std::lock_guard<std::mutex> lock(mutex_);
        is_posted_ = false;
        settle();
    }

    /// Outside of the loop: true if the caller is to have hide() called there.
    bool must_post() noexcept {
        std::lock_guard<std::mutex> lock(mutex_);
        return hides_ && hidden_ < pending_ && !std::exchange(is_posted_, true);
    }

private:
    void settle() {
        const int target = hides_ ? pending_ : 0;
        for (; hidden_ > target; --hidden_)
            port_.work_started();
        for (; hidden_ < target; ++hidden_)
            port_.work_finished();
    }
    void show_all() {
        for (; hidden_ > 0; --hidden_)
            port_.work_started();
    }

    reactor_port& port_;
    std::mutex mutex_;
    int pending_ = 0;
    int hidden_ = 0;
    bool hides_ = false;
    bool is_posted_ = false;
};

/// Has the owner hide its work in the loop's next turn.
template <class OwnerPtr>
class hide_later final : public scheduler_item {
public:
    explicit hide_later(OwnerPtr owner)
        : scheduler_item(&hide_later::do_complete), owner_(std::move(owner)) {}

private:
    static void do_complete(void* scheduler, scheduler_item* item, const error_code&, std::size_t) {
        const std::unique_ptr<hide_later> self(static_cast<hide_later*>(item));
        if (scheduler)
            self->owner_->hide_now();
    }

    OwnerPtr owner_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HIDEABLE_WORK_HPP
