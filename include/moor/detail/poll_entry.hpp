//
// moor/detail/poll_entry.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_POLL_ENTRY_HPP
#define MOOR_DETAIL_POLL_ENTRY_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/service_core.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include <poll.h>

namespace moor {
namespace detail {

class poll_list;
void intrusive_ptr_add_ref(poll_list* l) noexcept;
void intrusive_ptr_release(poll_list* l) noexcept;
using poll_list_ptr = boost::intrusive_ptr<poll_list>;

/// One number of the list, with its registration.
class poll_entry {
public:
    /// The wait of an entry. Its memory is part of the entry.
    class wait final : public waiter {
    public:
        wait(poll_entry& e, interest want) noexcept
            : waiter(&wait::do_complete, want, purpose::wait), entry_(e) {
            set_asked_by_owner();
        }

    private:
        static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t);

        poll_entry& entry_;
    };

    explicit poll_entry(int fd) noexcept : number(fd) {}
    poll_entry(const poll_entry&) = delete;
    poll_entry& operator=(const poll_entry&) = delete;

    // ---- the registration -----------------------------------------------------------------------

    error_code open(service_core& core) {
        error_code ec;
        keep(core.open(number, mode(), ec));
        return ec == error::already_registered ? open_duplicate(core) : ec;
    }

    /// Where another object has the number.
    error_code open_duplicate(service_core& core) {
        error_code ec;
        keep(core.open_duplicate(number, mode(), ec));
        return ec;
    }

    bool has_duplicate() const noexcept { return io && io->is_duplicate(); }

    /// Ends the registration. `ours`: the number may be passed to the kernel.
    void end(service_core& core, bool ours) noexcept {
        if (const scheduled_io_ptr state = std::move(io))
            core.end(*state, ours);
    }

    /// Whether the number still stands for the file that is registered. Precondition: one is.
    bool is_same_file() const noexcept {
        error_code ec;
        return identify(number, ec) == io->identity() && !ec;
    }

    // ---- the wait -------------------------------------------------------------------------------

    /// What completes for whatever poll(2) reports.
    interest want() const noexcept {
        interest i;
        if (events & (POLLIN | POLLRDNORM))
            i |= interest::readable;
        if (events & (POLLOUT | POLLWRNORM | POLLWRBAND))
            i |= interest::writable;
        if (events & POLLPRI)
            i |= interest::priority;
        if (events & poll_rdhup)
            i |= interest::read_closed;
        if (!i.is_readable() && !i.is_writable()) // which are told of errors and hang-ups
            i |= interest::error | interest::write_closed;
        return i;
    }

    /// What `told` is in a place of the list that asks for `asked`.
    short told_events(short asked) const noexcept {
        const int bits = to_poll_events(told) | (told.is_error() ? POLLERR : 0);
        return static_cast<short>(bits & (asked | POLLERR));
    }

    /// Where the reactor reports levels, an edge-triggered handle needs another descriptor, so
    /// waits check. But an eventfd that can be read says POLLIN, and never POLLRDNORM: a wait that
    /// checks would complete again and again.
    trigger mode() const noexcept {
        return reactor_port::reports_levels && is_exact() ? trigger::level : trigger::edge;
    }
    bool is_exact() const noexcept {
        return ((events & POLLIN) || !(events & POLLRDNORM)) &&
               ((events & POLLOUT) || !(events & (POLLWRNORM | POLLWRBAND)));
    }

    const int number;
    short events = 0;         ///< of all places in the list that have the number
    bool is_constant = false; ///< a file that can't be polled: poll(2) always says the same
    bool tells_state = true;
    bool is_dropped = false; ///< deleted when its wait has come back
    std::uint64_t pass = 0;
    scheduled_io_ptr io;
    readiness told;            ///< a change that poll(2) may not tell again
    std::optional<wait> waits; ///< pending, or on its way back through the scheduler
    poll_list_ptr owner;       ///< for as long

private:
    void keep(scheduled_io_ptr state) noexcept {
        io = std::move(state);
        if (io)
            tells_state = detail::tells_state(number, io->identity());
    }
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_POLL_ENTRY_HPP
