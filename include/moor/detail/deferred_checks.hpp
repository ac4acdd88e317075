//
// moor/detail/deferred_checks.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A reactor that reports edges says nothing of data that is left unread, so that a level-triggered
// wait has to check its handle. In a busy loop an event completes most waits soon. So a
// wait begins without the check, and the waits that are still pending some iterations of the loop
// later are checked together, up to 64 handles in one poll(2).
//
// Worth: 0.91 of Asio's time with two handles and 0.79 with 50 of 100 active ones; with a check at
// the beginning of each wait, 1.01 and 1.00.
//
// A state calls defer(). deferred_checks calls take_deferred() and check_pending() of the state,
// and counts turns of the loop in its deferred_age.
//

#ifndef MOOR_DETAIL_DEFERRED_CHECKS_HPP
#define MOOR_DETAIL_DEFERRED_CHECKS_HPP

#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor_base.hpp>

#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include <poll.h>

namespace moor {
namespace detail {

/// Whether deferring pays: it costs a trip through the scheduler each iteration.
class deferral_pacing {
public:
    /// The first checks, so many, are made at once.
    explicit deferral_pacing(unsigned first = 64) noexcept : skip_(first) {}

    /// Whether the check of a handle that is not listed yet may be deferred.
    bool allows() noexcept {
        if (skip_ == 0)
            return true;
        --skip_;
        return false;
    }

    /// A listed handle's operation was over without a check.
    void note_saved() noexcept { ++saved_; }

    /// Checks were made: of so many handles, so many of which were ready; at so many others a call
    /// was made in place of a check. It pays if operations end unchecked, or are checked together;
    /// not in a loop that blocks after each event.
    void note_checked(std::size_t checked, std::size_t ready, std::size_t called) noexcept {
        if (checked + called == 0)
            return;
        bool pays = (saved_ > called || checked > 2) && ready * 4 <= checked;
        saved_ = 0;
        failures_ = pays ? 0 : failures_ + 1;
        if (failures_ == max_failures) {
            failures_ = 0;
            skip_ = skipped;
        }
    }

private:
    /// Rounds in a row that saved nothing, after which that many checks are made at once.
    static constexpr unsigned max_failures = 4;
    static constexpr unsigned skipped = 256;

    std::size_t saved_ = 0;
    unsigned failures_ = 0;
    unsigned skip_;
};

/// The deferred checks of one execution context. An intrusive_ptr can refer to `Host`, which calls
/// poll(2); the lock is taken under a state's.
template <class Host, class State, class Mutex = state_mutex>
class deferred_checks : private scheduler_item {
    using state_ptr = boost::intrusive_ptr<State>;
    using lock_type = basic_lock<Mutex>;

public:
    /// Iterations of a busy loop for which a check is deferred.
    static constexpr unsigned max_age = 4;

    explicit deferred_checks(Host& host, deferral_pacing pacing = deferral_pacing()) noexcept
        : scheduler_item(&deferred_checks::do_complete), host_(host), pacing_(pacing) {}

    deferred_checks(const deferred_checks&) = delete;
    deferred_checks& operator=(const deferred_checks&) = delete;

    /// Has the deferred operations of `state` checked later. Within the loop. `is_listed`: that was
    /// asked for before, and is still to come. False: check now.
    bool defer(State& state, bool is_listed) noexcept {
        lock_type lock(mutex_);
        if (is_listed) {
            pacing_.note_saved(); // the operation before this one is over
        } else {
            if (!pacing_.allows())
                return false;
            BOOST_TRY { states_.push_back(state_ptr(&state)); }
            BOOST_CATCH(...) { return false; }
            BOOST_CATCH_END
        }
        ++deferred_;
        // Where a run of the loop inside of this handler sees it.
        if (!std::exchange(is_queued_, true))
            host_.port.post_new(this);
        return true;
    }

private:
    static constexpr std::size_t max_batch = 64;

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        deferred_checks* self = static_cast<deferred_checks*>(item);
        boost::intrusive_ptr<Host> keep(&self->host_); // the states' references may be the last
        if (owner)
            self->run();
        else
            self->drop();
    }

    /// The execution context is going.
    void drop() noexcept {
        std::vector<state_ptr> states;
        lock_type lock(mutex_);
        states.swap(states_);
    }

    /// An iteration of the loop is over.
    void run() {
        bool is_busy;
        {
            lock_type lock(mutex_);
            running_.swap(states_);
            is_busy = std::exchange(seen_, deferred_) != deferred_;
        }
        const bool is_alone = host_.is_loop_thread();
        if (!is_busy || !are_young())
            running_.resize(check(is_busy && is_alone)); // the references may be the last
        while (!keep())
            running_.resize(check(false));
    }

    /// Lists again what is left of the states, and goes on if there are any. False: there is no
    /// room beside those that other threads have listed meanwhile.
    bool keep() {
        {
            lock_type lock(mutex_);
            if (states_.empty())
                states_.swap(running_);
            else if (states_.capacity() - states_.size() < running_.size())
                return false;
            std::move(running_.begin(), running_.end(), std::back_inserter(states_));
            running_.clear();
            is_queued_ = !states_.empty();
            if (!is_queued_)
                return true;
        }
        host_.port.post_new(this); // perhaps for another thread, if this one leaves the loop
        return true;
    }

    /// Another iteration of a busy loop is over. Whether no state has been listed for long.
    bool are_young() noexcept {
        unsigned oldest = 0;
        for (const state_ptr& s : running_)
            if (unsigned age = s->deferred_age.fetch_add(1, std::memory_order_relaxed) + 1u;
                age > oldest)
                oldest = age;
        return oldest < max_age;
    }

    /// Checks the states; returns how many are kept, in front, because an event is about to be
    /// handled for them (`may_wait`).
    std::size_t check(bool may_wait) {
        std::size_t kept = 0, checked = 0, ready_states = 0, called = 0;
        for (std::size_t i = 0; i != running_.size();) {
            ::pollfd polls[max_batch];
            State* asked[max_batch];
            ::nfds_t n = 0;
            for (; i != running_.size() && n != max_batch; ++i) {
                short events = 0;
                if (!running_[i]->take_deferred(may_wait, events, called)) {
                    std::swap(running_[kept++], running_[i]);
                } else if (events != 0) {
                    polls[n] = {running_[i]->native_handle(), events, 0};
                    asked[n++] = running_[i].get();
                }
            }
            int ready = n == 0 ? 0 : Host::poll(polls, n);
            for (::nfds_t k = 0; ready != 0 && k != n; ++k)
                if (ready < 0 || polls[k].revents != 0) {
                    asked[k]->check_pending();
                    ++ready_states;
                }
            checked += n;
        }
        lock_type lock(mutex_);
        pacing_.note_checked(checked, ready_states, called);
        return kept;
    }

    Host& host_;
    Mutex mutex_;
    deferral_pacing pacing_;
    std::vector<state_ptr> states_;
    std::vector<state_ptr> running_; // of run(), which is on one thread at a time
    bool is_queued_ = false;         // in the scheduler, or running
    std::uint32_t deferred_ = 0;
    std::uint32_t seen_ = 0;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_DEFERRED_CHECKS_HPP
