//
// moor/detail/waiter.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A wait as the scheduled state sees it, and the list of them.
//

#ifndef MOOR_DETAIL_WAITER_HPP
#define MOOR_DETAIL_WAITER_HPP

#include <moor/detail/reactor.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <cstdint>

namespace moor {
namespace detail {

class scheduled_io;

/// What a wait is for, which decides how the cached readiness is used.
enum class purpose : std::uint8_t {
    wait,      ///< tell the caller: verified (level), consumed (edge)
    io,        ///< run a callable that finds out for itself: neither
    read_slot, ///< the read slot of the poll style: verified, not consumed
    write_slot ///< the write slot
};

/// One wait. Its memory and its handler belong to the derived operation.
class waiter : public scheduler_item {
public:
    interest want() const noexcept { return want_; }
    const error_code& ec() const noexcept { return ec_; }
    const ready_event& event() const noexcept { return event_; }

    void fail(const error_code& ec) noexcept {
        ec_ = ec;
        event_ = ready_event();
    }

    /// For `scheduled_io::restart`: what turned out to be wrong.
    void set_refuted(const ready_event& event) noexcept { event_ = event; }

    /// Makes the wait known to `scheduled_io::cancel(id)`. Zero: it is not.
    void set_id(std::uint64_t id) noexcept { id_ = id; }

    /// Its calls are made in turn with those of others that do so: see `scheduled_io`.
    void set_takes_turns() noexcept { takes_turns_ = true; }

protected:
    waiter(func_type do_complete, interest want, purpose why) noexcept
        : scheduler_item(do_complete), want_(want), purpose_(why) {}
    ~waiter() = default;

private:
    friend class scheduled_io;
    friend class waiter_list;

    waiter* list_next_; // while in a list
    waiter* list_prev_;
    std::uint64_t id_ = 0;
    error_code ec_;
    ready_event event_;
    interest want_;
    purpose purpose_;
    bool cancelled_ = false;
    bool takes_turns_ = false;
    bool has_turn_ = false;
    std::uint32_t epoch_; // of an io wait
};

/// An intrusive list of waits.
class waiter_list {
public:
    bool empty() const noexcept { return !front_; }
    waiter* front() const noexcept { return front_; }
    static waiter* next(waiter* w) noexcept { return w->list_next_; }

    void clear() noexcept { front_ = back_ = nullptr; }

    void push_back(waiter* w) noexcept {
        w->list_next_ = nullptr;
        w->list_prev_ = back_;
        (back_ ? back_->list_next_ : front_) = w;
        back_ = w;
    }

    /// Puts `w` in front of `next`.
    void insert(waiter* next, waiter* w) noexcept {
        w->list_next_ = next;
        w->list_prev_ = next->list_prev_;
        (w->list_prev_ ? w->list_prev_->list_next_ : front_) = w;
        next->list_prev_ = w;
    }

    void erase(waiter* w) noexcept {
        (w->list_prev_ ? w->list_prev_->list_next_ : front_) = w->list_next_;
        (w->list_next_ ? w->list_next_->list_prev_ : back_) = w->list_prev_;
    }

private:
    waiter* front_ = nullptr;
    waiter* back_ = nullptr;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAITER_HPP
