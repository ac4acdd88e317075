//
// moor/detail/waiter.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_WAITER_HPP
#define MOOR_DETAIL_WAITER_HPP

#include <moor/detail/reactor_base.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <cstdint>

namespace moor {
namespace detail {

/// What an operation is for, which decides how the cached readiness is used.
enum class purpose : std::uint8_t {
    wait,      ///< tells the caller: checked (level), consumed (edge)
    io,        ///< makes a call that finds out for itself: neither
    read_slot, ///< the read slot of the polling interface: checked, not consumed
    write_slot ///< the write slot
};

/// What an event on a channel means, where the reactor does not say.
constexpr interest interest_of(channel c) noexcept {
    return c == read_channel    ? interest::readable
           : c == write_channel ? interest::writable
                                : interest::priority;
}

/// One pending operation, as the scheduled state sees it. Its memory and its handler belong to the
/// derived class.
class waiter : public scheduler_item {
public:
    interest want() const noexcept { return want_; }
    const error_code& ec() const noexcept { return ec_; }
    const ready_event& event() const noexcept { return event_; }

    void fail(const error_code& ec) noexcept {
        ec_ = ec;
        event_ = ready_event();
    }

    /// For `restart`: the event after which a call would have blocked.
    void set_refused(const ready_event& event) noexcept { event_ = event; }

    /// The owner calls poll(2) by itself: that no event comes is no mistake of the program.
    void set_asked_by_owner() noexcept { is_asked_by_owner_ = true; }

    /// Makes the operation known to a cancellation slot. Zero: it is not.
    void set_id(std::uint64_t id) noexcept { id_ = id; }

    /// The operation can still be cancelled once it has its event.
    void set_goes_on() noexcept { goes_on_ = true; }

    /// Whether the operation, which did not wait, has a unit of outstanding work.
    bool has_unit() const noexcept { return has_unit_; }

    /// The operation is a transfer: made one at a time with others of its direction.
    void set_takes_turns() noexcept { takes_turns_ = true; }
    bool takes_turns() const noexcept { return takes_turns_; }

protected:
    BOOST_FORCEINLINE waiter(func_type do_complete, interest want, purpose why) noexcept
        : scheduler_item(do_complete), want_(want), purpose_(why), goes_on_(why == purpose::io) {}
    ~waiter() = default;

private:
    template <class Policy>
    friend class basic_scheduled_io;
    template <class State, class Policy>
    friend class handle_readiness;
    template <class State, class Policy>
    friend class handle_starts;
    template <class State, class Policy>
    friend class handle_transfers;
    friend class waiter_list;
    friend class wait_queue;
    friend class transfer_queue;

    bool is_one_way() const noexcept {
        return want_ == interest::readable || want_ == interest::writable;
    }
    /// The direction of an operation that has one.
    channel direction() const noexcept {
        return want_ == interest::writable ? write_channel : read_channel;
    }
    bool is_call() const noexcept { return purpose_ == purpose::io; }

    waiter* list_next_; // while in a list
    waiter* list_previous_;
    std::uint64_t id_ = 0;
    error_code ec_;
    ready_event event_;
    std::uint32_t seen_; // see wait_queue::note_seen
    interest want_;
    purpose purpose_;
    std::uint8_t channels_ = 0; // whose wakers it needs, while it is pending
    bool goes_on_;              // it can be cancelled although it has its event
    bool must_check_ = false;   // the next event may be older than the operation
    bool is_deferred_ = false;  // the readiness check of its start is still to be made
    bool is_refused_ = false;   // a call would have blocked after event_
    bool names_next_ = false;   // that call has said what the next one waits for
    bool is_asked_by_owner_ = false;
    bool takes_turns_ = false;
    bool has_unit_ = false;   // of outstanding work, although it did not wait
    bool has_turn_ = false;   // of the transfers of its direction
    bool is_running_ = false; // in the list of those that are not pending, and not over
    bool is_cancelled_ = false;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAITER_HPP
