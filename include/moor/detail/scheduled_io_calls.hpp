//
// moor/detail/scheduled_io_calls.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The functions of a state, and of its bases, which operations and registrations call.
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_CALLS_HPP
#define MOOR_DETAIL_SCHEDULED_IO_CALLS_HPP

#include <moor/detail/config.hpp>
#include <moor/detail/probes.hpp>
#include <moor/detail/scheduled_io.hpp>

namespace moor {
namespace detail {

template <class State, class Policy>
MOOR_DETAIL_DECL ready_event handle_readiness<State, Policy>::peek(interest want) const noexcept {
    lock_type lock(mutex_);
    return make_event(word_.matched(want));
}

template <class State, class Policy>
MOOR_DETAIL_DECL ready_event handle_readiness<State, Policy>::ready_now(interest want,
                                                                        bool is_checked,
                                                                        error_code& ec) {
    lock_type lock(mutex_);
    ec = state().closed_error();
    if (ec)
        return ready_event();
    if (always_ready_)
        return make_event(want & pollable);
    readiness r = word_.matched(want);
    const bool asks = r.empty() ? !this->is_attached() || !knows_empty(want) ||
                                      !this->are_armed(channels_of(want))
                                : is_checked && trigger_ == trigger::level;
    if (asks)
        r = check_for_one(r.empty() ? to_ask(want) : want, ec);
    return make_event(r);
}

template <class State, class Policy>
MOOR_DETAIL_DECL readiness handle_readiness<State, Policy>::query(error_code& ec) {
    lock_type lock(mutex_);
    ec = state().closed_error();
    if (ec)
        return readiness();
    if (tells_state_ || (trigger_ == trigger::level && queue_.is_all_over()))
        return ask(to_poll_events(pollable | beyond), ec);
    const readiness r = check_changes(false, ec);
    state().complete_satisfied();
    return ec ? readiness() : r;
}

template <class State, class Policy>
MOOR_DETAIL_DECL void handle_readiness<State, Policy>::clear(const ready_event& e) noexcept {
    lock_type lock(mutex_);
    if (!state().is_open())
        return;
    drop(e);
    forget_empty(channels_of(e.ready())); // the kernel did not say so
}

template <class State, class Policy>
MOOR_DETAIL_DECL void
handle_readiness<State, Policy>::note_call_would_block(const ready_event& e, interest want,
                                                       interest next) noexcept {
    lock_type lock(mutex_);
    if (!state().is_open())
        return;
    if (next.empty() || next == want)
        return note_would_block(e, want);
    error_code ignored;
    check_for_one(next, ignored);
}

template <class State, class Policy>
MOOR_DETAIL_DECL void handle_readiness<State, Policy>::note_no_data(const ready_event& e) noexcept {
    lock_type lock(mutex_);
    if (!word_.is_newer(e, interest::readable))
        would_block_ = narrow(would_block_ | bit(read_channel));
}

template <class State, class Policy>
MOOR_DETAIL_DECL scheduled_io_info handle_readiness<State, Policy>::info(bool asks,
                                                                         std::uint32_t now) {
    lock_type lock(mutex_);
    scheduled_io_info i{};
    i.handle = this->native_handle();
    i.caller_handle = caller_handle();
    i.mode = trigger_;
    i.cached = word_.flags();
    i.tick = word_.tick();
    i.waited_for = queue_.want();
    i.waits = queue_.waits();
    i.identity = this->identity();
    i.waiters = queue_.size();
    for (channel c : {read_channel, write_channel, edge_channel})
        i.armed[c] = this->is_armed(c);
    i.attached = this->is_attached();
    i.always_ready = always_ready_;
    i.counts = counts_;
    if (now != 0)
        i.pending_for = now - queue_.note_seen(now);
    if (asks)
        i.untold = untold(i.waits);
    return i;
}

template <class State, class Policy>
MOOR_DETAIL_DECL bool handle_transfers<State, Policy>::start_transfer(waiter& w) {
    bool waits = false;
    {
        lock_type lock(mutex_);
        probes::wait(this->native_handle(), w.want_);
        if (state().is_open(w)) {
            waits = !transfers_[w.direction()].begin(w);
            if (waits)
                host_.port.work_started();
            else
                waits = wait_with_turn(w);
        }
        ++counts_.started;
        if (!waits) {
            ++counts_.immediate;
            queue_.start_running(w);
        }
    }
    return waits;
}

template <class State, class Policy>
MOOR_DETAIL_DECL void handle_transfers<State, Policy>::note_short_call(const ready_event& e,
                                                                       bool holds_work) noexcept {
    lock_type lock(mutex_);
    if (!state().is_open() ||
        (e.ready() != readiness::readable && e.ready() != readiness::writable))
        return;
    channel c = e.ready() == readiness::writable ? write_channel : read_channel;
    note_transferred(c, transferred::part, e, holds_work);
}

template <class Policy>
MOOR_DETAIL_HOT bool basic_scheduled_io<Policy>::start(waiter& w) {
    waiter* displaced = nullptr;
    bool waits;
    {
        lock_type lock(mutex_);
        probes::wait(this->native_handle(), w.want_);
        if (this->waits_at_once(w))
            return true;
        waits = is_open(w) && !this->is_answered(w) && pend(w, displaced);
        ++counts_.started;
        if (!waits) {
            ++counts_.immediate;
            if (w.goes_on_)
                queue_.start_running(w);
        }
    }
    if (BOOST_UNLIKELY(displaced != nullptr))
        host_.port.post_counted(displaced);
    return waits;
}

template <class Policy>
MOOR_DETAIL_DECL bool basic_scheduled_io<Policy>::restart(waiter& w, interest next,
                                                          bool asks_kernel) {
    waiter* displaced = nullptr;
    bool waits = false;
    {
        lock_type lock(mutex_);
        queue_.stop_running(w);
        running_frame frame{*this, w, waits};
        if (!may_go_on(w))
            return false;
        readiness newer;
        if (!always_ready_ || asks_kernel)
            newer = this->note_blocked(w, next, asks_kernel);
        if (!newer.empty()) {
            w.event_ = this->make_event(newer);
            return false;
        }
        if (always_ready_ && !w.ec_) // it can't block, and did
            w.fail(boost::asio::error::operation_not_supported);
        waits = !w.ec_ && pend(w, displaced);
    }
    if (BOOST_UNLIKELY(displaced != nullptr))
        host_.port.post_counted(displaced);
    return waits;
}

template <class Policy>
MOOR_DETAIL_DECL bool basic_scheduled_io<Policy>::may_run(waiter& w) {
    lock_type lock(mutex_);
    return may_go_on(w);
}

template <class Policy>
MOOR_DETAIL_DECL void basic_scheduled_io<Policy>::finish(waiter& w) {
    waiter* next = nullptr;
    {
        lock_type lock(mutex_);
        next = this->end(w);
    }
    if (BOOST_UNLIKELY(next != nullptr))
        host_.port.post_counted(next);
}

template <class Policy>
MOOR_DETAIL_DECL void basic_scheduled_io<Policy>::finish_wait(waiter& w) {
    lock_type lock(mutex_);
    queue_.stop_running(w);
    if (BOOST_LIKELY(!w.is_cancelled_))
        return;
    ready_event untold = w.event_;
    w.fail(boost::asio::error::operation_aborted);
    ++counts_.cancelled;
    probes::cancel(this->native_handle(), w.want_);
    if (!is_open())
        return;
    word_.give_back(untold);
    complete_satisfied();
}

template <class Policy>
MOOR_DETAIL_DECL void basic_scheduled_io<Policy>::cancel(interest which) {
    cancel_if([which](const waiter& w) { return which.empty() || !(w.want_ & which).empty(); },
              false);
}

template <class Policy>
MOOR_DETAIL_DECL void basic_scheduled_io<Policy>::cancel(std::uint64_t id) {
    cancel_if([id](const waiter& w) { return w.id_ == id; }, true);
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SCHEDULED_IO_CALLS_HPP
