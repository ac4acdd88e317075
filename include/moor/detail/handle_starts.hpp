//
// moor/detail/handle_starts.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_HANDLE_STARTS_HPP
#define MOOR_DETAIL_HANDLE_STARTS_HPP

#include <moor/detail/edge_source.hpp>
#include <moor/detail/handle_readiness.hpp>
#include <moor/detail/probes.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>

#include <atomic>

namespace moor {
namespace detail {

/// Whether an operation is over when it begins, or has to wait.
/**
 * The base of `State`, on top of what is known of its handle. All of it is called with `mutex_`
 * held.
 */
template <class State, class Policy>
class handle_starts : public handle_readiness<State, Policy> {
    using base = handle_readiness<State, Policy>;
    using port_type = typename Policy::port;

protected:
    using base::bit;
    using base::closing;
    using base::host_;
    using base::pollable;
    using base::state;
    using typename base::host_type;

    explicit handle_starts(host_type& host) noexcept : base(host) {}
    ~handle_starts() = default;

    /// The usual start of a wait, for one direction of an attached handle: has it wait.
    BOOST_FORCEINLINE bool waits_at_once(waiter& w) {
        if (w.purpose_ != purpose::wait || !w.is_one_way() || !this->is_attached() ||
            !(word_.flags() & closing).empty())
            return false;
        const channel c = w.direction();
        if constexpr (port_type::reports_levels) {
            if (this->is_armed(c) || !tells_state_ || !is_asked_by_request(w, c))
                return false;
            this->arm_request(c); // or throws, and nothing has happened
            if (trigger_ == trigger::level) {
                --unasked_left_;
                word_.forget(w.want_); // as if nothing was there, which is not known
                this->forget_empty(bit(c));
            }
        } else {
            if (trigger_ != trigger::edge || !this->is_armed(c) ||
                !(word_.unconsumed() & w.want_).empty())
                return false;
            host_.port.work_started();
        }
        w.channels_ = this->narrow(bit(c));
        ++counts_.started;
        queue_.push(w);
        probes::pend(this->native_handle(), w.want_);
        return true;
    }

    /// Whether the request that the wait makes is how the kernel is asked, where the reactor
    /// reports levels: the request completes at once if something is there. A turn of the reactor
    /// costs more than poll(2) then, so a level-triggered wait asks first for as long as that
    /// answers it, and otherwise once in a while.
    BOOST_FORCEINLINE bool is_asked_by_request(const waiter& w, channel c) noexcept {
        if (!port_type::reports_hang_ups_to_writers && c == write_channel)
            return false;
        if (trigger_ == trigger::edge)
            return (word_.unconsumed() & w.want_).empty() && !sources_[c].is_set() &&
                   !sources_[c].must_check();
        return unasked_left_ != 0;
    }

    /// Whether the operation need not wait: `w` says how it ended.
    BOOST_FORCEINLINE bool is_answered(waiter& w) {
        if (BOOST_UNLIKELY(always_ready_))
            return answer_always_ready(w);
        if (w.is_call())
            return may_call(w);
        if (w.purpose_ != purpose::wait)
            this->is_refused(w.purpose_) = false;
        return trigger_ == trigger::level ? is_ready(w) : is_news(w);
    }

    /// (What goes beyond readable and writable never comes.)
    BOOST_NOINLINE bool answer_always_ready(waiter& w) noexcept {
        w.event_ = this->make_event(w.want_ & pollable);
        if (w.event_.empty())
            w.fail(boost::asio::error::operation_not_supported);
        return true;
    }

    /// A level-triggered wait: asks the kernel now, unless that can be done later or is known.
    BOOST_FORCEINLINE bool is_ready(waiter& w) {
        if (w.is_one_way() && tells_state_ && (this->is_known_empty(w) || defers(w)))
            return false;
        return is_ready_now(w);
    }
    BOOST_NOINLINE bool is_ready_now(waiter& w) {
        readiness r = this->check(w.want_, w.ec_);
        if (BOOST_UNLIKELY(!tells_state_))
            state().complete_satisfied(w, r);
        if (r.empty()) {
            unasked_left_ = base::max_unasked;
            return bool(w.ec_);
        }
        w.event_ = this->make_event(r);
        return true;
    }

    /// An edge-triggered wait: closing events are asked for, news is in the cache.
    BOOST_FORCEINLINE bool is_news(waiter& w) {
        if (BOOST_UNLIKELY(!((w.want_ | word_.flags()) & closing).empty())) {
            this->check_for_one(w.want_ & closing, w.ec_);
            if (w.ec_)
                return true;
        }
        readiness r = this->satisfied(w);
        if (!r.empty() && w.purpose_ == purpose::wait)
            if (const interest i = this->to_be_told() & w.want_; BOOST_UNLIKELY(!i.empty()))
                r = other_news(w, i);
        if (r.empty()) {
            if constexpr (port_type::has_edge_set)
                watch_draining(w);
            return false;
        }
        w.event_ = this->make_event(r);
        if (w.purpose_ != purpose::wait)
            return true;
        this->note_told(r);
        // What the reactor remembers already is older than this wait.
        if constexpr (port_type::latches_events)
            w.has_unit_ = this->forget_latched(this->channels_of(r & pollable));
        return true;
    }

    /// The news of a wait, without the flags that the reactor is going to report. A closing event
    /// completes the wait without arming a waker, so the kernel is asked for the other events.
    BOOST_NOINLINE readiness other_news(const waiter& w, interest to_be_told) noexcept {
        readiness_word known = word_;
        known.forget(to_be_told);
        readiness r = known.news(w.want_, tells_state_);
        error_code ignored;
        if (r.empty() || (word_.flags() & closing).empty() || this->check(w.want_, ignored).empty())
            return r;
        return this->satisfied(w);
    }

    /// An operation with a call, which finds out for itself.
    bool may_call(waiter& w) {
        if (BOOST_UNLIKELY(defers_call(w)))
            return false;
        readiness r = word_.matched(w.want_);
        if (r.empty()) {
            const interest call = w.want_ & pollable;
            if (!this->knows_empty(call)) {
                r = call;
            } else if (call != w.want_) { // of which a call that would block says nothing
                r = this->check_for_one(w.want_ - pollable, w.ec_);
                if (w.ec_)
                    return true;
            }
        }
        w.event_ = this->make_event(r);
        return !r.empty();
    }

    // ---- deferring ------------------------------------------------------------------------------

    bool may_defer() noexcept {
        return port_type::latches_events && this->is_attached() && host_.knows_loop() &&
               (word_.flags() & closing).empty() && host_.port.runs_here();
    }

    BOOST_FORCEINLINE bool defers(waiter& w) {
        if (!may_defer() || !host_.defer(state(), is_deferred_))
            return false;
        is_deferred_ = true;
        state().deferred_age.store(0, std::memory_order_relaxed);
        w.is_deferred_ = true;
        word_.forget(w.want_); // as if nothing was there, which is not known
        this->forget_empty(bit(w.direction()));
        return true;
    }

    bool defers_call(waiter& w) {
        const channel c = w.direction();
        if (!w.is_one_way() || !drains_.is_likely_drained(c, this->tick_of(c)) || !defers(w))
            return false;
        drains_.deferred(c);
        return true;
    }

    // ---- what edges come from, on a reactor that reports levels ---------------------------------

    /// An edge-triggered wait is about to be pending: sees whether the handle was drained.
    void watch_draining(waiter& w) noexcept {
        if (!w.is_one_way() || w.purpose_ != purpose::wait || !tells_state_)
            return;
        const channel c = w.direction();
        edge_source& source = sources_[c];
        if (source.is_set() && is_set_shared(c))
            return;
        if (!source.must_check())
            return;
        ++counts_.checks;
        error_code ec;
        source.checked(Policy::poll(this->native_handle(), this->events_of(c), ec) == 0 && !ec);
        if (!source.is_set() && !is_set_shared(c))
            this->leave_edges();
    }

    /// Whether the edge channel is armed, or the set reports the other direction. (The set goes on
    /// to report both.)
    bool is_set_shared(channel c) const noexcept {
        const channel other = c == read_channel ? write_channel : read_channel;
        return this->is_armed(edge_channel) ||
               (sources_[other].is_set() && this->are_watched(this->events_of(other)));
    }

    using base::always_ready_;
    using base::counts_;
    using base::drains_;
    using base::is_deferred_;
    using base::queue_;
    using base::sources_;
    using base::tells_state_;
    using base::trigger_;
    using base::unasked_left_;
    using base::word_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HANDLE_STARTS_HPP
