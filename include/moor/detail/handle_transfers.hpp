//
// moor/detail/handle_transfers.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_HANDLE_TRANSFERS_HPP
#define MOOR_DETAIL_HANDLE_TRANSFERS_HPP

#include <moor/detail/drain_policy.hpp>
#include <moor/detail/handle_starts.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/probes.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/transfer_queue.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/config.hpp>

#include <cstdint>
#include <utility>

namespace moor {
namespace detail {

/// How a transfer's call ended, or why there was none.
enum class transferred : std::uint8_t { all, part, nothing, would_block, not_made };

/// The transfers of a descriptor, which are performed under the handle's lock.
/**
 * Whoever ends the registration on another thread, and may close the number then, waits for the
 * lock: so the number stands for the same file during the call. A call that may block is made
 * without the lock, on a number of its own. The base of `State`.
 */
template <class State, class Policy>
class handle_transfers : public handle_starts<State, Policy> {
    using base = handle_starts<State, Policy>;
    using port_type = typename Policy::port;
    using lock_type = basic_lock<typename Policy::mutex>;

public:
    /// The same for a transfer of a descriptor, which waits for its turn before all else.
    bool start_transfer(waiter& w);

    /// Makes a transfer on C that has not waited, if nobody has the turn and the handle may be
    /// ready. False: it has to wait, at least for its turn.
    template <channel C, class Call>
    BOOST_FORCEINLINE bool transfer_at_once(const Call& call) noexcept {
        lock_type lock(mutex_);
        const bool may_be_ready =
            !this->would_block(C) || word_.flags().contains(interest_of(C)) || always_ready_;
        if (!may_be_ready || transfers_[C].is_busy() || !state().is_open() ||
            (drains_.is_likely_drained(C, this->tick_of(C)) && this->may_defer()))
            return false;
        ready_event e = this->make_event(interest_of(C));
        transferred t = call.make();
        if (t == transferred::not_made)
            return false; // it may block, and takes its turn
        if (t == transferred::would_block) {
            this->note_would_block(e, interest_of(C));
            return false;
        }
        ++counts_.started;
        ++counts_.immediate;
        probes::wait(this->native_handle(), interest_of(C));
        note_transferred(C, t, e, false);
        return true;
    }

    /// Makes a transfer on C that has the turn, and hands the turn on unless the call would have
    /// blocked. `not_made`: it was cancelled, or the state was closed.
    template <channel C, class Call>
    BOOST_FORCEINLINE transferred transfer_in_turn(waiter& w, const Call& call) noexcept {
        transferred t = transferred::not_made;
        waiter* next = nullptr;
        bool may_block = false;
        {
            lock_type lock(mutex_);
            if (BOOST_LIKELY(state().may_go_on(w))) {
                t = call.make();
                if (t == transferred::would_block)
                    return t;
                may_block = t == transferred::not_made;
                if (!may_block)
                    note_transferred(C, t, w.event_, true);
            }
            if (BOOST_LIKELY(!may_block))
                next = end(w);
            else
                call.prepare_unlocked(); // while nobody may close the number
        }
        if (BOOST_UNLIKELY(may_block))
            return transfer_unlocked<C>(w, call);
        if (BOOST_UNLIKELY(next != nullptr))
            host_.port.post_counted(next);
        return t;
    }

    /// A call that `e` allowed moved fewer bytes than it was asked for. `holds_work`: its operation
    /// has a unit of outstanding work, so that a waker can be armed without the scheduler stopping.
    void note_short_call(const ready_event& e, bool holds_work) noexcept;

protected:
    using base::always_ready_;
    using base::bit;
    using base::closing;
    using base::counts_;
    using base::drains_;
    using base::host_;
    using base::mutex_;
    using base::queue_;
    using base::state;
    using base::word_;
    using typename base::host_type;

    explicit handle_transfers(host_type& host) noexcept : base(host) {}
    ~handle_transfers() = default;

    /// A transfer that got the turn without waiting for it.
    bool wait_with_turn(waiter& w) {
        waiter* none = nullptr;
        turn_frame frame{*this, w};
        bool waits = !this->is_answered(w) && state().pend(w, none);
        w.has_turn_ = true;
        return waits;
    }
    struct turn_frame { // if the reactor throws
        handle_transfers& self;
        waiter& w;
        ~turn_frame() {
            if (!w.has_turn_)
                self.transfers_[w.direction()].end(); // nobody can be behind it yet
        }
    };

    /// A running operation is over. Returns the transfer that has the turn now, if any: it goes and
    /// sees.
    BOOST_FORCEINLINE waiter* end(waiter& w) noexcept {
        queue_.stop_running(w);
        if (!std::exchange(w.has_turn_, false))
            return nullptr;
        waiter* next = transfers_[w.direction()].end();
        if (BOOST_UNLIKELY(next != nullptr)) {
            next->has_turn_ = true;
            next->event_ = this->make_event(next->want_);
            queue_.start_running(*next);
        }
        return next;
    }

    template <channel C, class Call>
    BOOST_NOINLINE transferred transfer_unlocked(waiter& w, const Call& call) noexcept {
        transferred t = call.make_unlocked();
        if (t == transferred::would_block)
            return t;
        waiter* next;
        {
            lock_type lock(mutex_);
            if (state().is_open())
                note_transferred(C, t, w.event_, true);
            next = end(w);
        }
        if (next)
            host_.port.post_counted(next);
        return t;
    }

    /// A transfer that `e` allowed was made.
    BOOST_FORCEINLINE void note_transferred(channel c, transferred t, const ready_event& e,
                                            bool holds_work) noexcept {
        const ticks& stamp = ready_event_access::stamp(e);
        const std::uint32_t tick = c == write_channel ? stamp.write : stamp.read;
        if (t == transferred::part && this->is_attached() && is_drained_by(c, holds_work))
            this->note_would_block(e, interest_of(c));
        else
            drains_.transferred(c, t == transferred::part, tick);
    }

    /// Whether a call that was cut short shows that the handle is drained. The end of a pipe may
    /// come with its last data, as one event; but the write waker fires for the end as well, and
    /// before the read waker.
    BOOST_FORCEINLINE bool is_drained_by(channel c, bool holds_work) noexcept {
        using verdict = drain_policy::verdict;
        const bool was_known = drains_.is_known();
        verdict v = drains_.cut_short(c, this->native_handle(), this->identity(),
                                      &Policy::identify_pipe_end);
        if (v != verdict::drained_or_end)
            return v == verdict::drained;
        return (!port_type::latches_events ||
                (was_known && BOOST_LIKELY(this->is_armed(write_channel))) ||
                starts_watching_hang_up(holds_work)) &&
               (word_.flags() & closing).empty();
    }
    BOOST_NOINLINE bool starts_watching_hang_up(bool holds_work) noexcept {
        if (!this->is_armed(write_channel)) {
            if (!holds_work)
                return false;
            this->watch(write_channel);
        }
        error_code ec;
        this->check(interest::writable, ec); // one so far was taken for room
        return !ec;
    }

    transfer_queue transfers_[2];
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HANDLE_TRANSFERS_HPP
