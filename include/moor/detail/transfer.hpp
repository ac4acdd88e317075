//
// moor/detail/transfer.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A transfer of a descriptor, asynchronous or synchronous: the buffers, the handle, and how its
// calls are made.
//

#ifndef MOOR_DETAIL_TRANSFER_HPP
#define MOOR_DETAIL_TRANSFER_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/system_calls.hpp>
#include <moor/readiness.hpp>

#include <boost/config.hpp>

#include <cstddef>

#include <poll.h>
#include <sys/types.h>

namespace moor {
namespace detail {

/// The callable of an asynchronous transfer. It knows nothing of the descriptor, which may move.
template <class Call, class Buffers>
class transfer {
public:
    transfer(int handle, call_mode mode, const Buffers& buffers)
        : buffers_(buffers), handle_(handle), mode_(mode) {}

    using needs_no_executor = void;

    /// What it waits for.
    static constexpr short transfer_event = Call::event;

    using parts_type = io_parts<Buffers>;

    /// What call() needs of the buffers, which are the user's: so nobody is to hold a lock here.
    parts_type parts() const { return parts_type(buffers_); }

    int handle() const noexcept { return handle_; }

    /// Whether the next call may block, so that no lock is to be held. A call that did not know so
    /// yet is not made: it ends with would_block.
    bool may_block() const noexcept { return mode_.may_block(); }

    /// Makes the call on this number of the file.
    BOOST_FORCEINLINE drainable<std::size_t> call(int handle, const parts_type& parts,
                                                  error_code& ec) noexcept {
        ::ssize_t n = uninterrupted([&] {
            return BOOST_LIKELY(mode_.is_plain())
                       ? Call::plainly(handle, parts.data(), parts.count())
                       : Call::once(handle, mode_, parts.data(), parts.count());
        });
        return short_transfer(outcome_of<Call>(n, ec), mode_.most(parts.size(), Call::writes));
    }

    /// For its type: `scheduled_io` makes the call.
    drainable<std::size_t> operator()(error_code& ec) {
        parts_type p = parts();
        return call(handle_, p, ec);
    }

private:
    Buffers buffers_;
    int handle_;
    call_mode mode_;
};

/// A synchronous transfer. `waits`: where the handle would block, it waits and tries again.
template <class Call, class Buffers>
std::size_t transfer_now(int handle, call_mode mode, bool waits, const Buffers& buffers,
                         error_code& ec) {
    io_parts<Buffers> parts(buffers);
    for (;;) {
        bool knew = mode.may_block();
        ::ssize_t n =
            uninterrupted([&] { return Call::once(handle, mode, parts.data(), parts.count()); });
        if (n < 0 && mode.may_block() && !knew)
            continue; // it was not made
        std::size_t size = outcome_of<Call>(n, ec);
        if (!waits || n >= 0 || !is_would_block(ec))
            return size;
        poll_for(handle, Call::event, -1, ec);
        if (ec)
            return 0;
    }
}

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_TRANSFER_HPP
