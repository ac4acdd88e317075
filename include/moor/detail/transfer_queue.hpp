//
// moor/detail/transfer_queue.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_TRANSFER_QUEUE_HPP
#define MOOR_DETAIL_TRANSFER_QUEUE_HPP

#include <moor/detail/waiter.hpp>

namespace moor {
namespace detail {

/// The transfers of one direction of a descriptor, which are made one at a time, in the order in
/// which they were started: that is how their bytes belong together.
/**
 * One transfer has the turn, from when it begins until it is over; the others are in the list.
 */
class transfer_queue {
public:
    bool is_busy() const noexcept { return is_busy_; }

    /// Whether the transfer has the turn now. Otherwise it is in the list.
    bool begin(waiter& w) noexcept {
        if (!is_busy_)
            return is_busy_ = true;
        // A ring: the last one leads to the first.
        w.list_next_ = last_ ? last_->list_next_ : &w;
        if (last_)
            last_->list_next_ = &w;
        last_ = &w;
        return false;
    }

    /// The turn is over. Returns the transfer that has it now, or null.
    waiter* end() noexcept {
        if (!last_) {
            is_busy_ = false;
            return nullptr;
        }
        return take_behind(last_);
    }

    /// Takes the transfers that are meant out of the list.
    template <class Predicate>
    void take_if(Predicate is_meant, item_queue& items) {
        waiter* before = last_;
        for (waiter* end = last_; end;) {
            waiter* w = before->list_next_;
            const bool is_end = w == end;
            if (is_meant(*w))
                items.push(take_behind(before));
            else
                before = w;
            if (is_end)
                return;
        }
    }

private:
    waiter* take_behind(waiter* before) noexcept {
        waiter* w = before->list_next_;
        before->list_next_ = w->list_next_;
        if (w == last_)
            last_ = w == before ? nullptr : before;
        return w;
    }

    waiter* last_ = nullptr;
    bool is_busy_ = false;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_TRANSFER_QUEUE_HPP
