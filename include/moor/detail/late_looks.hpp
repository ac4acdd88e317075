//
// moor/detail/late_looks.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A level-triggered wait looks at its handle. Where many begin in one turn of the loop, they park
// first and are looked at together, in one poll(2). And while the loop is busy the look is put off
// for some turns, since meanwhile most of those waits are over: their event has come.
//

#ifndef MOOR_DETAIL_LATE_LOOKS_HPP
#define MOOR_DETAIL_LATE_LOOKS_HPP

#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor.hpp>

#include <boost/config.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <poll.h>

namespace moor {
namespace detail {

/// Whether it pays to look later: a look that turns out to be for one or two handles of a loop that
/// is about to block costs more than one in place, and one that finds something only came late.
class look_pacing {
public:
    /// Turns of the loop for which a look is put off at most.
    static constexpr unsigned most_turns = 4;
    /// In-place looks after which it is tried (again), at first and at last.
    static constexpr std::uint32_t first_interval = 64;
    static constexpr std::uint32_t last_interval = 4096;
    /// Looks in a row that did not pay, after which each is made in place.
    static constexpr unsigned patience = 4;
    /// So many handles pay in any case.
    static constexpr std::size_t worthwhile = 3;

    /// Asked before each look, on one thread.
    BOOST_FORCEINLINE bool should_wait() noexcept {
        if (!is_on_.load(std::memory_order_acquire)) {
            std::uint32_t left = left_.load(std::memory_order_relaxed) - 1;
            left_.store(left, std::memory_order_relaxed);
            if (left != 0)
                return false;
            is_on_.store(true, std::memory_order_relaxed);
        }
        return true;
    }

    /// A look was made at `looked` handles, after `turns` turns; `found` of them were ready. At
    /// `let_go` others a call was made in its place.
    void note(std::size_t looked, std::size_t found, unsigned turns, std::size_t let_go) noexcept {
        bool pays = looked + let_go == 0 ||
                    ((looked >= worthwhile || turns == most_turns) && found * 4 <= looked);
        failures_ = pays ? 0 : failures_ + 1;
        if (pays) {
            interval_ = first_interval;
        } else if (failures_ == patience) {
            failures_ = 0;
            left_.store(interval_, std::memory_order_relaxed);
            interval_ = interval_ < last_interval ? interval_ * 2 : last_interval;
            is_on_.store(false, std::memory_order_release); // another thread's left_ is seen
        }
    }

private:
    std::atomic<bool> is_on_{false};
    std::atomic<std::uint32_t> left_{first_interval};
    std::uint32_t interval_ = first_interval;
    unsigned failures_ = 0;
};

/// The states that are to be looked at, and the item that goes through the scheduler to do it.
/**
 * Its lock is the innermost: it is taken under a state's. `Host` is a scheduled_io_host that an
 * intrusive_ptr can refer to, and `StatePtr` refers to scheduled_io, which keeps the host alive.
 */
template <class Host, class StatePtr>
class late_looks : private scheduler_item {
public:
    explicit late_looks(Host& host) noexcept
        : scheduler_item(&late_looks::do_complete), host_(host) {}

    late_looks(const late_looks&) = delete;
    late_looks& operator=(const late_looks&) = delete;

    /// Looks at `state` soon. False: there is no memory for it.
    bool add(StatePtr state) noexcept {
        bool is_first;
        {
            state_lock lock(mutex_);
            BOOST_TRY { added_.push_back(std::move(state)); }
            BOOST_CATCH(...) { return false; }
            BOOST_CATCH_END
            is_first = !std::exchange(is_queued_, true);
        }
        // Where a run of the loop inside of this handler sees it, and other threads do.
        if (is_first)
            host_.port.post_new(this);
        return true;
    }

    /// One more wait begins that is looked at later, perhaps of a state that was added before.
    BOOST_FORCEINLINE void count() noexcept {
        waits_.store(waits_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }

private:
    static constexpr std::size_t most_at_once = 64;

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        late_looks* self = static_cast<late_looks*>(item);
        boost::intrusive_ptr<Host> keep(&self->host_); // the states' references may be the last
        if (owner)
            self->turn();
        else
            self->drop();
    }

    /// The execution context is going.
    void drop() noexcept {
        std::vector<StatePtr> states;
        state_lock lock(mutex_);
        states.swap(added_);
    }

    /// A turn of the loop is over, or nearly.
    void turn() {
        bool alone = host_.runs_only_here();
        std::uint32_t waits = waits_.load(std::memory_order_relaxed);
        if (alone && turns_ != look_pacing::most_turns && waits != seen_waits_) {
            seen_waits_ = waits; // the loop is busy
            ++turns_;
            host_.port.post_later(this);
            return;
        }
        {
            state_lock lock(mutex_);
            looking_.swap(added_);
        }
        look(alone);
        looking_.clear();
        turns_ = 0;
        bool are_more;
        {
            state_lock lock(mutex_);
            are_more = is_queued_ = !added_.empty();
        }
        if (are_more)
            host_.port.post_later(this);
    }

    void look(bool alone) {
        ::pollfd polls[most_at_once];
        std::pair<StatePtr*, std::uint64_t> asked[most_at_once];
        std::size_t looked = 0, found = 0, let_go = 0;
        for (std::size_t i = 0; i != looking_.size();) {
            ::nfds_t n = 0;
            for (; i != looking_.size() && n != most_at_once; ++i) {
                asked[n].first = &looking_[i];
                if (begin(looking_[i], polls[n], asked[n].second, let_go, alone))
                    ++n;
            }
            int ready = n == 0 ? 0 : ::poll(polls, n, 0);
            for (::nfds_t k = 0; ready != 0 && k != n; ++k)
                if (ready < 0 || polls[k].revents != 0) { // an error: each asks for itself
                    (*asked[k].first)->end_look(polls[k], asked[k].second, ready < 0);
                    ++found;
                }
            looked += n;
        }
        host_.pacing.note(looked, found, turns_, let_go);
    }

    /// Whether to look at a state now. One whose event is about to be handled stays in the list.
    bool begin(const StatePtr& state, ::pollfd& p, std::uint64_t& asked, std::size_t& let_go,
               bool alone) {
        if (alone && state->awaits_queued_event()) {
            state_lock lock(mutex_);
            BOOST_TRY {
                added_.push_back(state);
                return false;
            }
            BOOST_CATCH(...) {}
            BOOST_CATCH_END
        }
        return state->begin_look(p, asked, let_go);
    }

    Host& host_;
    state_mutex mutex_;
    std::vector<StatePtr> added_;
    bool is_queued_ = false; // in the scheduler, or in its turn
    std::atomic<std::uint32_t> waits_{0};
    // Of the turn, which is one thread's at a time.
    std::vector<StatePtr> looking_;
    std::uint32_t seen_waits_ = 0;
    unsigned turns_ = 0;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_LATE_LOOKS_HPP
