//
// moor/detail/handle_readiness.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_HANDLE_READINESS_HPP
#define MOOR_DETAIL_HANDLE_READINESS_HPP

#include <moor/detail/drain_policy.hpp>
#include <moor/detail/edge_source.hpp>
#include <moor/detail/handle_wakers.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/probes.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/readiness_word.hpp>
#include <moor/detail/scheduled_io_host.hpp>
#include <moor/detail/wait_queue.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>

#include <cerrno>
#include <cstdint>
#include <utility>

#include <poll.h>

namespace moor {
namespace detail {

/// What is known of a handle's readiness: the cache, and the checks that keep it true.
/**
 * The base of `State`, on top of its wakers. `mutex_` guards all of it; public functions lock it.
 */
template <class State, class Policy>
class handle_readiness : public handle_wakers<State, Policy> {
    using base = handle_wakers<State, Policy>;
    using port_type = typename Policy::port;
    using lock_type = basic_lock<typename Policy::mutex>;
    friend base;

public:
    trigger mode() const noexcept { return trigger_; }

    /// The cached readiness, without a system call.
    ready_event peek(interest want) const noexcept;

    /// What a call that does not wait may trust: the cache where a waker keeps it up to date,
    /// otherwise the kernel. `is_checked`: a positive answer is checked, too (level).
    ready_event ready_now(interest want, bool is_checked, error_code& ec);

    std::uint64_t next_id() noexcept { return host_.next_id(); }

    /// The handle as the caller knows it: ours may be a duplicate.
    bool is_duplicate() const noexcept { return this->duplicate_of_ >= 0; }
    int caller_handle() const noexcept {
        return is_duplicate() ? this->duplicate_of_ : this->native_handle();
    }

    /// Whether the number still stands for the registered file; true of a registration that ended.
    bool is_same_file(error_code& ec) const noexcept {
        lock_type lock(mutex_);
        return !state().is_open() || identify(this->native_handle(), ec) == this->identity();
    }

    /// What the kernel says. A change that it tells once is news to those that wait, and to an
    /// operation whose call is being made.
    readiness query(error_code& ec);

    void clear(const ready_event& e) noexcept;

    /// A call for `want` that `e` allowed would have blocked, or has drained the handle, as its
    /// callable says. Or it says what it waits for `next`, as in note_blocked().
    void note_call_would_block(const ready_event& e, interest want, interest next = {}) noexcept;

    /// A wait for data and more has ended with `e`, and the kernel had no data then. Unless an
    /// event has come since (of which a deferred wait may have dropped the flag), a wait for data
    /// that begins next need not ask. (Room may come without an event, to a terminal. And the owner
    /// makes no calls through the state: it would take this for a call that would have blocked,
    /// although a library may have data of its own.)
    void note_no_data(const ready_event& e) noexcept;

    void add_counts(wait_counts& totals) const noexcept {
        lock_type lock(mutex_);
        totals += counts_;
    }

    /// Adds them, and starts again at zero.
    void move_counts(wait_counts& totals) noexcept {
        lock_type lock(mutex_);
        totals += std::exchange(counts_, wait_counts());
    }

    /// `asks`: also poll(2), of what a wait is not told. (Under the lock: a handle may be closed as
    /// soon as its state is.)
    scheduled_io_info info(bool asks = false, std::uint32_t now = 0);

protected:
    using base::bit;
    using base::host_;
    using base::mutex_;
    using base::narrow;
    using base::state;
    using typename base::host_type;

    static constexpr interest pollable = interest::readable | interest::writable;
    static constexpr interest closing = readiness_word::closing;
    static constexpr interest beyond = interest::priority | closing;
    static constexpr channel closing_channel =
        port_type::has_edge_set ? edge_channel : read_channel;

    explicit handle_readiness(host_type& host) noexcept : base(host) {}
    ~handle_readiness() = default;

    void open(int handle, const file_identity& id, trigger mode, int duplicate_of = -1) noexcept {
        base::open(handle, id);
        this->duplicate_of_ = duplicate_of;
        trigger_ = mode;
        always_ready_ = Policy::is_always_ready(handle, id);
        tells_state_ = always_ready_ || Policy::tells_state(handle, id);
        would_block_ = unasked_left_ = 0;
        is_slot_refused_[0] = is_slot_refused_[1] = false;
        drains_ = drain_policy();
        for (edge_source& s : sources_)
            s = mode == trigger::edge ? edge_source() : edge_source::direct();
        counts_ = wait_counts();
        word_.restart(host_.next_id());
    }

    // ---- what wakes an operation ----------------------------------------------------------------

    /// The channels that report this, if nothing has to be news that the reactor can't tell.
    BOOST_FORCEINLINE static constexpr unsigned channels_of(interest want) noexcept {
        unsigned bits = 0;
        if (want.is_readable())
            bits |= bit(read_channel);
        if (want.is_writable())
            bits |= bit(write_channel);
        if (want.is_priority())
            bits |= bit(edge_channel);
        if (!(want & closing).empty())
            bits |= bit(closing_channel);
        return bits;
    }

    /// The channels whose wakers an operation needs.
    BOOST_FORCEINLINE unsigned channels_for(const waiter& w) const noexcept {
        unsigned channels = channels_of(w.want_);
        if (!port_type::has_edge_set && BOOST_UNLIKELY(!tells_state_) && w.want_.is_error())
            // Most changes are an error and a priority event, beside data that is always there.
            channels = channels_of(w.want_ - interest::error) | bit(edge_channel);
        if constexpr (port_type::has_edge_set) {
            if (BOOST_UNLIKELY(!tells_state_)) // a request of its own would take changes away
                return bit(edge_channel);
            const bool hears_edges = trigger_ == trigger::edge || w.is_call() || w.is_refused_;
            for (channel c : {read_channel, write_channel})
                if ((channels & bit(c)) && hears_edges && sources_[c].is_set())
                    channels = (channels & ~bit(c)) | bit(edge_channel);
            if ((channels & bit(write_channel)) != 0) {
                if (port_type::read_closed_wakes_writers &&
                    word_.flags().contains(readiness::read_closed))
                    channels = (channels & ~bit(write_channel)) | bit(edge_channel);
                if (!port_type::reports_hang_ups_to_writers)
                    channels |= bit(edge_channel);
            }
        }
        return channels;
    }

    /// What to arm with the handle: later, what is there could be told twice, or be taken away.
    unsigned channels_to_attach() const noexcept {
        return !port_type::attach_arms_waker ? 0 : bit(tells_state_ ? read_channel : edge_channel);
    }

    /// Attaching the handle again tells of states, but not of changes.
    bool may_leave_reactor() const noexcept { return tells_state_; }

    /// What the edge-triggered set has to report for an operation. A direction that the reactor
    /// reports to the operation is left out: its events would be reported twice. (Adding events
    /// later makes the set report again what is there, and may take a change away.)
    short edges_for(const waiter& w) const noexcept {
        const bool wants_both = !tells_state_ && !(w.want_ & pollable).empty();
        int edges = POLLPRI | poll_rdhup;
        for (channel c : {read_channel, write_channel})
            if (wants_both || (w.want_.contains(interest_of(c)) && (w.channels_ & bit(c)) == 0))
                edges |= base::events_of(c);
        return static_cast<short>(edges);
    }

    /// Whether the last call of a slot would have blocked.
    bool& is_refused(purpose slot) noexcept {
        return is_slot_refused_[slot == purpose::write_slot];
    }

    /// A call would have blocked. If that was so before, after an event, the reactor reports what
    /// is no news to the call. (The polling interface has a new waiter for each call.)
    void note_refused(waiter& w) noexcept {
        const bool was_refused =
            std::exchange(w.purpose_ == purpose::io ? w.is_refused_ : is_refused(w.purpose_), true);
        w.is_refused_ = true;
        if constexpr (port_type::has_edge_set)
            if (was_refused)
                for (channel c : {read_channel, write_channel})
                    if (w.want_.contains(interest_of(c)))
                        sources_[c].refused();
    }

    /// A call would have blocked after `w.event_`: returns what the next call need not wait for.
    /// The kernel is asked if the call says that it waits for something else `next`, which it may
    /// not have tried, and where a call says nothing of the handle.
    readiness note_blocked(waiter& w, interest next, bool asks_kernel) {
        w.is_deferred_ = false;
        w.ec_ = error_code();
        w.names_next_ = !next.empty();
        if (w.names_next_ && next != w.want_) {
            w.want_ = next;
            asks_kernel = true;
        }
        if (!asks_kernel) {
            note_refused(w);
            note_would_block(w.event_, w.want_);
            const readiness newer = satisfied(w);
            if (newer.empty() || !w.names_next_) // the call may have used up what came meanwhile
                return newer;
        }
        return check_again(w);
    }

    BOOST_NOINLINE readiness check_again(waiter& w) {
        w.is_refused_ = !tells_state_; // a change stays in the cache, and is to be told once
        if (tells_state_)
            return check(w.want_, w.ec_);
        ++counts_.checks;
        readiness r = readiness_word::match(check_changes(true, w.ec_), w.want_);
        r |= satisfied(w);
        state().complete_satisfied(); // others are told, too
        return w.ec_ ? readiness() : r;
    }

    // ---- the kernel's answer --------------------------------------------------------------------

    /// Asks the kernel what of `want` is there, and returns what the cache has of it then.
    BOOST_NOINLINE readiness check(interest want, error_code& ec) noexcept {
        ++counts_.checks;
        if (BOOST_UNLIKELY(!tells_state_)) {
            check_changes(true, ec);
        } else {
            const readiness found = ask(to_poll_events(want) | poll_rdhup, ec);
            if (!ec)
                word_.observe(want | closing, found);
        }
        if (ec)
            return readiness();
        return word_.matched(want);
    }

    /// The same for one operation, whatever the others wait for: a change that is told once is told
    /// to them, too.
    BOOST_FORCEINLINE readiness check_for_one(interest want, error_code& ec) {
        readiness r = check(want, ec);
        if (BOOST_UNLIKELY(!tells_state_))
            state().complete_satisfied();
        return r;
    }

    /// Asks a file that may tell a change once, until two answers agree or one is empty: what one
    /// answer has and the next lacks is news. If `caches`, the states that are there are cached.
    /// Returns the first answer.
    readiness check_changes(bool caches, error_code& ec) noexcept {
        const int events = to_poll_events(pollable | beyond);
        const readiness first = ask(events, ec);
        readiness seen = first;
        for (int left = 4; left != 0 && !ec && !seen.empty(); --left) {
            const readiness next = ask(events, ec);
            if (caches)
                word_.observe(interest(), next);
            word_.set(seen - next);
            if (std::exchange(seen, next) == next)
                return first;
        }
        if (!caches) // it may be a change
            word_.set(seen);
        return first;
    }

    readiness ask(int events, error_code& ec) const noexcept {
        return said(Policy::poll(this->native_handle(), static_cast<short>(events), ec));
    }

    /// What edge-triggered waits pend for although poll(2) reports it. Of a file that tells each
    /// change once, it is not asked.
    readiness untold(interest waits) const noexcept {
        error_code ec;
        if (!state().is_open() || trigger_ != trigger::edge || !tells_state_ || waits.empty() ||
            !(Policy::identify(this->native_handle(), ec) == this->identity()))
            return readiness();
        const readiness r = ask(to_poll_events(waits), ec) & waits;
        return ec ? readiness() : r;
    }

    /// What poll(2), or an event in its terms, says of this file.
    readiness said(int events) const noexcept {
        return from_poll_events(events, this->identity().is_fifo());
    }

    /// The reactor asks, while the waker of `c` is armed: is there anything to fire it for? (What
    /// there is for a writer, EPOLL_CTL_MOD is about to report. But it may take a change away.)
    bool is_due(channel c, error_code& ec) noexcept {
        const bool is_to_be_told = port_type::latches_events && c == write_channel;
        if (tells_state_ && is_to_be_told)
            return false;
        const ready_event before = make_event(readiness());
        counts_.checks += tells_state_; // check() counts itself
        const readiness r = tells_state_ ? ask(base::events_of(c), ec) : check(interest_of(c), ec);
        return ec || (!is_to_be_told && !r.empty()) || word_.is_newer(before, pollable | beyond);
    }

    /// What has to be asked of the kernel if the cache has nothing of `want`. (An edge-triggered
    /// wait must not be told again of data because closing events are asked for, too.)
    interest to_ask(interest want) const noexcept {
        return trigger_ == trigger::edge && knows_empty(want & pollable) ? want - pollable : want;
    }

    // ---- what is known to be empty --------------------------------------------------------------

    bool would_block(channel c) const noexcept { return (would_block_ & bit(c)) != 0; }
    /// Whether a level-triggered wait for one direction would find nothing.
    BOOST_FORCEINLINE bool is_known_empty(const waiter& w) const noexcept {
        return would_block(w.direction()) && (word_.flags() & (w.want_ | closing)).empty();
    }

    /// Whether an empty cache proves to a call that there is nothing.
    bool knows_empty(interest want) const noexcept {
        return (channels_of(want & pollable) & ~unsigned(would_block_)) == 0 &&
               (want & beyond).empty();
    }
    void forget_empty(unsigned channels) noexcept {
        would_block_ = narrow(would_block_ & ~channels);
    }

    void note_would_block(const ready_event& e, interest want) noexcept {
        // A call for both directions, or for an error, too, does not say which of them there is
        // nothing of. And of a file that tells each change once, it does not tell the next change.
        const bool is_known = tells_state_ && !want.contains(pollable) && !want.is_error();
        for (channel c : {read_channel, write_channel}) {
            if (!e.ready().contains(interest_of(c)))
                continue;
            drains_.would_block(c);
            if (!is_known)
                forget_empty(bit(c));
            else if (!word_.is_newer(e, interest_of(c)))
                would_block_ = narrow(would_block_ | bit(c));
        }
        if (tells_state_) // otherwise poll(2)'s next answer would be news
            drop(e);
    }

    /// Drops what `e` observed. But who waits for an error does not speak for readers and writers,
    /// who learn of it, too: an error stays for as long as it lasts.
    void drop(const ready_event& e) noexcept {
        probes::clear(this->native_handle(), e.ready());
        const bool is_to_ask = word_.flags().is_error() && tells_state_;
        word_.clear(
            BOOST_UNLIKELY(is_to_ask) && keeps_error() ? e.only(pollable | interest::priority) : e);
    }
    BOOST_NOINLINE bool keeps_error() noexcept {
        ++counts_.checks;
        error_code ec;
        if (ask(POLLERR, ec).is_error() || ec)
            return true;
        word_.forget(interest::error);
        return false;
    }

    // ---- what an event stands for ---------------------------------------------------------------

    /// An event came on `c`: `told`, or the reactor does not say which. An error: nor does poll(2).
    error_code note_event(channel c, short told, bool is_later) noexcept {
        if (port_type::has_edge_set && c == edge_channel) {
            // The set says what is there now. A change may have been told to the reactor: it is
            // assumed, but for an error that nobody wants, of which a reader would be told, too.
            readiness r = said(told);
            if (!tells_state_ && (r & (interest::priority | interest::error)).empty())
                r |= interest::priority |
                     (told == 0 ? pollable | interest::error : queue_.want() & interest::error);
            word_.set(r);
            return error_code();
        }
        if (BOOST_UNLIKELY(must_check_event(c, told, is_later)))
            return note_checked_event(c);
        word_.set(told == 0 ? interest_of(c) : said(told));
        return error_code();
    }

    /// Whether the kernel has to be asked what an event stands for.
    bool must_check_event(channel c, short told, bool is_later) const noexcept {
        // (Calls find out for themselves.)
        bool must = !tells_state_ ||                                 // its event may be a change
                    (!port_type::has_edge_set && c == edge_channel); // priority, error, hang-up
        must = must || drains_.is_hang_up(c) || (port_type::tells_events && told == 0) ||
               (port_type::read_closed_wakes_writers && c == write_channel && told == 0);
        const interest meant = told == 0 ? interest_of(c) : said(told);
        bool is_wanted = false;
        queue_.for_each([&](const waiter& w) {
            const bool is_for = (w.channels_ & bit(c)) != 0;
            if (!is_for && readiness_word::match(meant, w.want_).empty())
                return;
            is_wanted = is_wanted || !w.is_call();
            must = must || w.must_check_ || (is_exact(w) && (!is_later || !is_for)) ||
                   (!port_type::has_edge_set && !(w.want_ & beyond).empty());
        });
        // (What is cached for the next edge-triggered wait is trusted.)
        return must || ((is_wanted || trigger_ == trigger::edge) && this->must_check(c));
    }

    BOOST_NOINLINE error_code note_checked_event(channel c) noexcept {
        const interest meant = interest_of(c);
        if (tells_state_)
            word_.forget(meant | closing); // what is found is news
        error_code ec;
        check((queue_.want() & beyond) | meant, ec);
        queue_.for_each(
            [&](waiter& w) { w.must_check_ = w.must_check_ && this->may_be_stale(w.channels_); });
        interest change = meant;
        if (!tells_state_ && c == edge_channel && // which an error fires, too
            (queue_.want() & (interest::priority | interest::error)) != interest::priority)
            change |= interest::error;
        // Calls find out. And poll(2) does not tell a change again that the reactor was told of.
        if (ec || !tells_state_)
            word_.set(change);
        return ec;
    }

    // ---- what an operation is told --------------------------------------------------------------

    /// What an operation has to be told, from the cache.
    BOOST_FORCEINLINE readiness satisfied(const waiter& w) const noexcept {
        if (w.is_refused_ && !word_.is_newer(w.event_, news_for(w)))
            return readiness();
        if (w.is_refused_ && !tells_state_ && w.is_call())
            return w.want_; // what came may have been told to a wait, once
        if (trigger_ != trigger::edge || w.purpose_ != purpose::wait)
            return word_.matched(w.want_);
        return word_.news(w.want_, tells_state_);
    }

    /// What is news to a call that would have blocked. (A change is noted as a priority event if
    /// no wait is for an error.)
    interest news_for(const waiter& w) const noexcept {
        return BOOST_UNLIKELY(!tells_state_) && w.want_.is_error() ? w.want_ | interest::priority
                                                                   : w.want_;
    }

    /// A wait is told `r`.
    void note_told(readiness r) noexcept {
        if (trigger_ == trigger::edge)
            word_.consume(r);
        else if (BOOST_UNLIKELY(!tells_state_)) // what poll(2) tells once was kept for one wait
            word_.forget((word_.flags() & r).empty() ? r | readiness::error : r);
    }

    /// The cached flags that the reactor is going to report to edge-triggered waits, too: when a
    /// waker is first armed, or the set is first asked for them. (Closing events need neither.)
    BOOST_FORCEINLINE interest to_be_told() const noexcept {
        interest i;
        if (trigger_ == trigger::edge && tells_state_)
            for (channel c : {read_channel, write_channel, edge_channel})
                if (is_about_to_tell(c))
                    i |= interest_of(c);
        return i;
    }
    BOOST_FORCEINLINE bool is_about_to_tell(channel c) const noexcept {
        if constexpr (port_type::has_edge_set)
            return !this->is_attached() || ((c == edge_channel || sources_[c].is_set()) &&
                                            !this->are_watched(base::events_of(c)));
        return !this->was_armed(c);
    }
    void forget_to_be_told() noexcept {
        const interest known = word_.flags() & to_be_told();
        word_.forget(known);
        forget_empty(channels_of(known)); // the kernel did not say so
    }

    // ---- vocabulary -----------------------------------------------------------------------------

    /// Whether an operation must not be told of the past: a wait, or a call that is not to be made
    /// without news.
    BOOST_FORCEINLINE bool is_exact(const waiter& w) const noexcept {
        return w.names_next_ || (trigger_ == trigger::level && !w.is_call());
    }
    std::uint32_t tick_of(channel c) const noexcept {
        return c == write_channel ? word_.tick().write : word_.tick().read;
    }
    ready_event make_event(readiness r) const noexcept {
        return ready_event_access::make(r, word_.tick());
    }

    /// Closes the duplicate, once the reactor has let go of it, unless somebody else has.
    void close_duplicate() const noexcept {
        if (!is_duplicate())
            return;
        const int error = errno;
        error_code ec;
        if (identify(this->native_handle(), ec) == this->identity() && !ec)
            ::close(this->native_handle());
        errno = error;
    }

    wait_queue queue_;
    readiness_word word_;
    trigger trigger_ = trigger::level;
    bool always_ready_ = false;
    bool tells_state_ = true;
    bool is_slot_refused_[2] = {};  // by the call before
    bool is_deferred_ = false;      // deferred_checks has it
    std::uint8_t would_block_ = 0;  // channels of which there is nothing, as a call or poll(2) said
    std::uint8_t unasked_left_ = 0; // level-triggered waits, until one asks poll(2) first again
    static constexpr std::uint8_t max_unasked = 127;
    edge_source sources_[2];
    drain_policy drains_;
    wait_counts counts_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HANDLE_READINESS_HPP
