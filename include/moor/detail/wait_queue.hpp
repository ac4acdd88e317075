//
// moor/detail/wait_queue.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_WAIT_QUEUE_HPP
#define MOOR_DETAIL_WAIT_QUEUE_HPP

#include <moor/detail/waiter.hpp>
#include <moor/readiness.hpp>

#include <boost/config.hpp>

#include <cstddef>
#include <cstdint>

namespace moor {
namespace detail {

/// An intrusive list of operations, in the order in which they came.
class waiter_list {
public:
    bool empty() const noexcept { return !front_; }
    waiter* front() const noexcept { return front_; }

    /// The only one, or null.
    waiter* only() const noexcept { return front_ == back_ ? front_ : nullptr; }

    BOOST_FORCEINLINE void push_back(waiter& w) noexcept {
        w.list_next_ = nullptr;
        w.list_previous_ = back_;
        (back_ ? back_->list_next_ : front_) = &w;
        back_ = &w;
    }

    BOOST_FORCEINLINE void erase(waiter& w) noexcept {
        (w.list_previous_ ? w.list_previous_->list_next_ : front_) = w.list_next_;
        (w.list_next_ ? w.list_next_->list_previous_ : back_) = w.list_previous_;
    }

    /// `f` may erase the operation that it is given.
    template <class F>
    void for_each(F f) const {
        for (waiter *w = front_, *next; w; w = next) {
            next = w->list_next_;
            f(*w);
        }
    }

private:
    waiter* front_ = nullptr;
    waiter* back_ = nullptr;
};

/// The operations of one handle that are not over.
/**
 * pending: they wait for an event. running: they have their event, and may still be cancelled: a
 * call is made or about to be made, or an edge-triggered wait is on its way to its handler.
 */
class wait_queue {
public:
    bool empty() const noexcept { return pending_.empty(); }
    bool is_all_over() const noexcept { return pending_.empty() && running_.empty(); }
    waiter* only() const noexcept { return pending_.only(); }

    template <class F>
    void for_each(F f) const {
        pending_.for_each(f);
    }

    std::size_t size() const noexcept {
        std::size_t n = 0;
        for_each([&](const waiter&) { ++n; });
        return n;
    }

    /// What is waited for.
    interest want() const noexcept {
        interest i;
        for_each([&](const waiter& w) { i |= w.want_; });
        return i;
    }

    /// Marks the pending operations that no earlier call has marked with a time, which is not zero,
    /// and returns the time of the one that was marked first: so that nobody has to read a clock
    /// where an operation begins to wait.
    std::uint32_t note_seen(std::uint32_t now) noexcept {
        std::uint32_t longest = 0;
        for_each([&](waiter& w) {
            w.seen_ = w.seen_ != 0 ? w.seen_ : now;
            const std::uint32_t age = now - w.seen_;
            longest = longest < age ? age : longest;
        });
        return now - longest;
    }

    /// What waits are for that a drained handle does not have. Nothing of calls, and of owners that
    /// call poll(2), which know better; nor room, which a wait for data as well may leave unused.
    interest waits() const noexcept {
        interest i;
        for_each([&](const waiter& w) {
            if (!w.is_call() && !w.is_refused_ && !w.is_asked_by_owner_)
                i |= (w.want_ & pollable) == interest::writable ? w.want_
                                                                : w.want_ - interest::writable;
        });
        return i;
    }

    BOOST_FORCEINLINE void push(waiter& w) noexcept {
        w.seen_ = 0;
        pending_.push_back(w);
    }
    BOOST_FORCEINLINE void erase(waiter& w) noexcept { pending_.erase(w); }

    /// Takes an operation that has its event.
    BOOST_FORCEINLINE void take(waiter& w) noexcept {
        erase(w);
        if (w.goes_on_)
            start_running(w);
    }
    /// The same for the only one that is pending.
    BOOST_FORCEINLINE void take_only(waiter& w) noexcept {
        pending_ = waiter_list();
        if (w.goes_on_)
            start_running(w);
    }

    /// Takes the operation that a newer one of the polling interface displaces, or null.
    waiter* take_slot(purpose p) noexcept {
        waiter* slot = nullptr;
        for_each([&](waiter& w) { slot = w.purpose_ == p ? &w : slot; });
        if (slot)
            pending_.erase(*slot);
        return slot;
    }

    BOOST_FORCEINLINE void start_running(waiter& w) noexcept {
        running_.push_back(w);
        w.is_running_ = true;
    }
    BOOST_FORCEINLINE void stop_running(waiter& w) noexcept {
        if (w.is_running_)
            running_.erase(w);
        w.is_running_ = false;
    }

    /// Marks the running operations that are meant.
    template <class Predicate>
    void cancel_running(Predicate is_meant) noexcept {
        running_.for_each([&](waiter& w) {
            if (is_meant(w))
                w.is_cancelled_ = true;
        });
    }

private:
    static constexpr interest pollable = interest::readable | interest::writable;

    waiter_list pending_;
    waiter_list running_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAIT_QUEUE_HPP
