//
// moor/detail/scheduled_io.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The scheduled state of one registered handle. It knows no handler types: an operation is a
// `waiter`.
//
//   from the base:  handle_ --- identity_ --- attached to the reactor or not
//                   read waker      write waker      edge waker
//                        |               |                |          idle, armed or firing
//                        v               v                v
//   word_           readable        writable         priority
//                   read_closed     write_closed                     cached, with a tick a stream,
//                   error                                            and whether an edge was told
//   would_block_    read            write                            a call said so
//   queue_          pending: wait, wait, io ...      running: io ...
//   transfers_      read: has the turn, behind it    write: the same
//   closed_         still open, or why not
//
// Invariants
//   1. An operation is pending (in queue_), behind another transfer (in transfers_), in the
//      scheduler, or making its call: in one of them only. It has one unit of outstanding work from
//      start to completion.
//   2. If an operation is pending, the waker of each channel that it needs is not idle: so no event
//      is lost.
//   3. Once closed_ is set it stays, nothing is pending, and the handle is not in the reactor.
//   4. An event advances the tick of its stream. A call that would block, and clear(), drop only
//      flags whose tick is unchanged.
//   5. A level-triggered wait completes only for what was there after it began: the kernel is asked
//      when it begins, or later (deferred_checks), and again at an event that may be older than the
//      wait. What the cache has is no answer.
//   6. An edge-triggered wait completes for news: for an event that no wait was told of. Closing
//      events are states: they are told for as long as they last.
//   7. An event that the reactor reported is dropped after a check only if the file is known to
//   tell
//      a state.
//   8. A call that would have blocked is made again only for a newer event.
//
// mutex_ guards all of it but for what is atomic. The service's lock is taken before it, the
// reactor's after it. No handler is run, moved or destroyed under it.
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_HPP
#define MOOR_DETAIL_SCHEDULED_IO_HPP

#include <moor/detail/drain_policy.hpp>
#include <moor/detail/edge_source.hpp>
#include <moor/detail/handle_wakers.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/readiness_word.hpp>
#include <moor/detail/scheduled_io_host.hpp>
#include <moor/detail/system_calls.hpp>
#include <moor/detail/transfer_queue.hpp>
#include <moor/detail/wait_queue.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace moor {
namespace detail {

/// What an event on a channel means, where the reactor does not say.
constexpr interest interest_of(channel c) noexcept {
    return c == read_channel    ? interest::readable
           : c == write_channel ? interest::writable
                                : interest::priority;
}

/// How a transfer's call ended, or why there was none.
enum class transferred : std::uint8_t { all, part, nothing, would_block, not_made };

template <class Policy>
class BOOST_SYMBOL_VISIBLE basic_scheduled_io
    : public handle_wakers<basic_scheduled_io<Policy>, Policy> {
    using base = handle_wakers<basic_scheduled_io, Policy>;
    using port_type = typename Policy::port;
    using lock_type = basic_lock<typename Policy::mutex>;

public:
    using host_type = typename base::host_type;

    explicit basic_scheduled_io(host_type& host) noexcept : base(host) {}

    friend void intrusive_ptr_add_ref(basic_scheduled_io* s) noexcept {
        s->references_.fetch_add(1, std::memory_order_relaxed);
    }
    friend void intrusive_ptr_release(basic_scheduled_io* s) noexcept {
        if (s->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            s->host_.recycle(*s);
    }

    // ---- registration -------------------------------------------------------------------------

    /// Makes a new or recycled state stand for `handle`. The reactor is told of it by the first
    /// operation that has to wait.
    void open(int handle, const file_identity& id, trigger mode) noexcept {
        base::open(handle, id);
        trigger_ = mode;
        always_ready_ = Policy::is_always_ready(handle, id);
        tells_state_ = always_ready_ || Policy::tells_state(handle, id);
        would_block_ = unasked_left_ = 0;
        drains_ = drain_policy();
        for (edge_source& s : sources_)
            s = mode == trigger::edge ? edge_source() : edge_source::direct();
        counts_ = wait_counts();
        // The ticks go on from where they were: an event of an earlier registration clears nothing.
        word_.observe(pollable | beyond, readiness());
        closed_.store(still_open, std::memory_order_release);
    }

    trigger mode() const noexcept { return trigger_; }
    std::uint64_t next_id() noexcept { return host_.next_id(); }

    enum close_reason : std::uint8_t { still_open, deregistered, service_closed, handle_closed };

    /// Completes every operation with `why`, now and later, and takes the handle out of the
    /// reactor. If the number is not `ours` any more, it is not passed to the kernel. The first
    /// reason stays.
    void close(close_reason why, bool ours) {
        item_queue items;
        {
            lock_type lock(mutex_);
            if (closed() != still_open)
                return;
            shut_down(why, items);
            this->detach(ours);
        }
        host_.port.post_counted(items);
    }

    /// The execution context is shutting down: hands every operation over, to be destroyed. The
    /// reactor gives the wakers back in its own shutdown.
    void abandon(item_queue& items) {
        lock_type lock(mutex_);
        shut_down(service_closed, items);
        this->abandon_reactor();
    }

    /// The number was closed, and is not another file's yet.
    void number_was_closed() {
        item_queue items;
        {
            lock_type lock(mutex_);
            if (!is_open())
                return;
            take_failed(base::all_channels, boost::asio::error::bad_descriptor, items);
            this->detach(true);
        }
        host_.port.post_counted(items);
    }

    /// This process is the child of a fork: what the kernel keeps for us must not be the parent's.
    void forked() {
        lock_type lock(mutex_);
        this->renew_edges();
    }

    close_reason closed() const noexcept {
        return static_cast<close_reason>(closed_.load(std::memory_order_acquire));
    }
    bool is_open() const noexcept { return closed() == still_open; }

    error_code closed_error() const noexcept {
        switch (closed()) {
        case still_open:
            break;
        case deregistered:
            return boost::asio::error::operation_aborted;
        case service_closed:
            return make_error_code(error::gone);
        case handle_closed:
            return boost::asio::error::bad_descriptor;
        }
        return error_code();
    }

    // ---- an operation's life: start, restart, over ----------------------------------------------

    /// Starts an operation. True: it waits, and will be completed through the scheduler, perhaps
    /// already. False: `w` says how it ended, and its completion is up to the caller. May throw
    /// (out of memory in the reactor); nothing has happened then.
    BOOST_FORCEINLINE bool start(waiter& w) {
        waiter* displaced = nullptr;
        bool waits;
        {
            lock_type lock(mutex_);
            waits = is_open(w) && !is_answered(w) && pend(w, displaced);
            ++counts_.started;
            if (!waits) {
                ++counts_.immediate;
                if (goes_on(w))
                    queue_.start_running(w);
            }
        }
        if (BOOST_UNLIKELY(displaced != nullptr))
            host_.port.post_counted(displaced);
        return waits;
    }

    /// The same for a transfer of a descriptor, which waits for its turn before all else.
    bool start_transfer(waiter& w) {
        bool waits = false;
        {
            lock_type lock(mutex_);
            if (is_open(w)) {
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

    /// A call would have blocked after `w.event()`: waits for a newer event. As start().
    bool restart(waiter& w) {
        waiter* displaced = nullptr;
        bool waits = false;
        {
            lock_type lock(mutex_);
            queue_.stop_running(w);
            running_frame frame{*this, w, waits};
            if (!may_go_on(w))
                return false;
            if (always_ready_) { // it can't block, and did
                w.fail(boost::asio::error::operation_not_supported);
                return false;
            }
            note_refused(w);
            w.ec_ = error_code();
            note_would_block(w.event_, w.want_);
            readiness newer = satisfied(w);
            if (!newer.empty()) {
                w.event_ = make_event(newer);
                return false;
            }
            waits = pend(w, displaced);
        }
        if (BOOST_UNLIKELY(displaced != nullptr))
            host_.port.post_counted(displaced);
        return waits;
    }

    /// Whether a running operation may make its call. If not, it was cancelled or the state was
    /// closed: `w` says so.
    bool may_run(waiter& w) {
        lock_type lock(mutex_);
        return may_go_on(w);
    }

    /// An operation with a call is over, if it was started at all.
    void finish(waiter& w) {
        waiter* next = nullptr;
        {
            lock_type lock(mutex_);
            next = end(w);
        }
        if (BOOST_UNLIKELY(next != nullptr))
            host_.port.post_counted(next);
    }

    /// The handler of an edge-triggered wait with a cancellation slot is about to be invoked. If
    /// the wait was cancelled after its event, it fails, and what it was told is news again, for
    /// others that wait.
    void finish_wait(waiter& w) {
        item_queue items;
        {
            lock_type lock(mutex_);
            queue_.stop_running(w);
            if (BOOST_LIKELY(!w.is_cancelled_))
                return;
            ready_event untold = w.event_;
            w.fail(boost::asio::error::operation_aborted);
            ++counts_.cancelled;
            if (!is_open())
                return;
            word_.give_back(untold);
            take_satisfied(items);
        }
        host_.port.post_counted(items);
    }

    // ---- cancellation ---------------------------------------------------------------------------

    /// Cancels the operations whose interest meets `which`; the empty set means all.
    void cancel(interest which) {
        cancel_if([which](const waiter& w) { return which.empty() || !(w.want_ & which).empty(); },
                  false);
    }

    /// Cancels one operation, if it is not over.
    void cancel(std::uint64_t id) {
        cancel_if([id](const waiter& w) { return w.id_ == id; }, true);
    }

    // ---- transfers of a descriptor, performed under the lock ------------------------------------

    // Whoever ends the registration on another thread, and may close the number then, waits for the
    // lock: so the number stands for the same file during the call. A call that may block is made
    // without the lock, on a number of its own.

    /// Makes a transfer on C that has not waited, if nobody has the turn and the handle may be
    /// ready. False: it has to wait, at least for its turn.
    template <channel C, class Call>
    BOOST_FORCEINLINE bool transfer_at_once(const Call& call) noexcept {
        lock_type lock(mutex_);
        const bool may_be_ready =
            !would_block(C) || word_.flags().contains(interest_of(C)) || always_ready_;
        if (!may_be_ready || transfers_[C].is_busy() || !is_open() ||
            (drains_.is_likely_drained(C, tick_of(C)) && may_defer()))
            return false;
        ready_event e = make_event(interest_of(C));
        transferred t = call.make();
        if (t == transferred::not_made)
            return false; // it may block, and takes its turn
        if (t == transferred::would_block) {
            note_would_block(e, interest_of(C));
            return false;
        }
        ++counts_.started;
        ++counts_.immediate;
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
            if (BOOST_LIKELY(may_go_on(w))) {
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

    // ---- the cache ----------------------------------------------------------------------------

    /// The cached readiness, without a system call.
    ready_event peek(interest want) const noexcept {
        lock_type lock(mutex_);
        return make_event(word_.matched(want));
    }

    /// What a call that does not wait may trust: the cache where a waker keeps it up to date,
    /// otherwise the kernel. `is_checked`: a positive answer is checked, too (level).
    ready_event ready_now(interest want, bool is_checked, error_code& ec) {
        lock_type lock(mutex_);
        ec = closed_error();
        if (ec)
            return ready_event();
        if (always_ready_)
            return make_event(want & pollable);
        readiness r = word_.matched(want);
        const unsigned channels = channels_of(want);
        const bool asks =
            r.empty() ? !this->is_attached() || !this->are_armed(channels) || !knows_empty(want)
                      : is_checked && trigger_ == trigger::level;
        if (asks)
            r = check(r.empty() ? to_ask(want) : want, ec);
        return make_event(r);
    }

    void clear(const ready_event& e) noexcept {
        lock_type lock(mutex_);
        if (!is_open())
            return;
        word_.clear(e);
        forget_empty(channels_of(e.ready())); // the kernel did not say so
    }

    /// A call for `want` that `e` allowed would have blocked, or has drained the handle, as its
    /// callable says.
    void note_call_would_block(const ready_event& e, interest want) noexcept {
        lock_type lock(mutex_);
        if (is_open())
            note_would_block(e, want);
    }

    /// A call that `e` allowed moved fewer bytes than it was asked for. `holds_work`: its operation
    /// has a unit of outstanding work, so that a waker can be armed without the scheduler stopping.
    void note_short_call(const ready_event& e, bool holds_work) noexcept {
        lock_type lock(mutex_);
        if (!is_open() || (e.ready() != readiness::readable && e.ready() != readiness::writable))
            return;
        channel c = e.ready() == readiness::writable ? write_channel : read_channel;
        note_transferred(c, transferred::part, e, holds_work);
    }

    void add_counts(wait_counts& totals) const noexcept {
        lock_type lock(mutex_);
        totals += counts_;
    }

    /// Adds them, and starts again at zero.
    void move_counts(wait_counts& totals) noexcept {
        lock_type lock(mutex_);
        totals += std::exchange(counts_, wait_counts());
    }

    scheduled_io_info info() {
        lock_type lock(mutex_);
        scheduled_io_info i{};
        i.handle = this->native_handle();
        i.mode = trigger_;
        i.cached = word_.flags();
        i.tick = word_.tick();
        i.waited_for = queue_.want();
        i.waiters = queue_.size();
        for (channel c : {read_channel, write_channel, edge_channel})
            i.armed[c] = this->is_armed(c);
        i.attached = this->is_attached();
        i.always_ready = always_ready_;
        return i;
    }

    // ---- what deferred_checks calls -------------------------------------------------------------

    /// Iterations of the loop since the last operation was deferred.
    std::atomic<std::uint8_t> deferred_age{0};

    /// Ends the deferral: what to ask poll(2) for, nothing if the deferred operations are over.
    /// Calls are released to be made, and counted. `may_wait`: false is returned where an event is
    /// about to be handled, which comes first.
    bool take_deferred(bool may_wait, short& events, std::size_t& released) {
        item_queue items;
        {
            lock_type lock(mutex_);
            if (may_wait && this->is_attached() && this->may_be_stale(0))
                return false;
            is_deferred_ = false;
            queue_.for_each([&](waiter& w) {
                if (!std::exchange(w.is_deferred_, false))
                    return;
                if (w.is_call()) {
                    ++released;
                    w.event_ = make_event(w.want_);
                    take(w, items);
                } else {
                    events = static_cast<short>(events | to_poll_events(w.want_));
                }
            });
            counts_.checks += events != 0;
        }
        host_.port.post_counted(items);
        return true;
    }

    /// poll(2) says that something is there, or failed.
    void check_pending() {
        item_queue items;
        {
            lock_type lock(mutex_);
            if (!is_open())
                return;
            error_code ec;
            check(queue_.want(), ec);
            if (ec)
                take_failed(base::all_channels, ec, items);
            else
                take_satisfied(items);
        }
        host_.port.post_counted(items);
    }

private:
    friend base;

    static constexpr interest pollable = interest::readable | interest::writable;
    static constexpr interest closing = readiness_word::closing;
    static constexpr interest beyond = interest::priority | closing;
    static constexpr channel closing_channel =
        port_type::has_edge_set ? edge_channel : read_channel;

    using base::bit;
    using base::host_;

    static constexpr std::uint8_t narrow(unsigned bits) noexcept {
        return static_cast<std::uint8_t>(bits);
    }

    // ---- starting -------------------------------------------------------------------------------

    bool is_open(waiter& w) noexcept {
        if (BOOST_LIKELY(is_open()))
            return true;
        w.fail(closed_error());
        return false;
    }

    bool may_go_on(waiter& w) noexcept {
        if (BOOST_UNLIKELY(w.is_cancelled_))
            w.fail(boost::asio::error::operation_aborted);
        else
            return is_open(w);
        return false;
    }

    /// Whether the operation need not wait: `w` says how it ended.
    BOOST_FORCEINLINE bool is_answered(waiter& w) {
        if (BOOST_UNLIKELY(always_ready_))
            return answer_always_ready(w);
        if (w.is_call())
            return may_call(w);
        if (w.purpose_ != purpose::wait)
            is_slot_refused_ = false;
        return trigger_ == trigger::level ? is_ready(w) : is_news(w);
    }

    /// (What goes beyond readable and writable never comes.)
    BOOST_NOINLINE bool answer_always_ready(waiter& w) noexcept {
        w.event_ = make_event(w.want_ & pollable);
        if (w.event_.empty())
            w.fail(boost::asio::error::operation_not_supported);
        return true;
    }

    /// A level-triggered wait: asks the kernel now, unless that can be done later or is known.
    BOOST_FORCEINLINE bool is_ready(waiter& w) {
        if (w.is_one_way() && tells_state_ &&
            (is_known_empty(w) || asks_by_request(w) || defers(w)))
            return false;
        return is_ready_now(w);
    }
    BOOST_NOINLINE bool is_ready_now(waiter& w) {
        readiness r = check(w.want_, w.ec_);
        if (r.empty()) {
            unasked_left_ = max_unasked;
            return bool(w.ec_);
        }
        w.event_ = make_event(r);
        note_told(w, r);
        return true;
    }

    /// An edge-triggered wait: closing events are asked for, news is in the cache.
    BOOST_FORCEINLINE bool is_news(waiter& w) {
        if (BOOST_UNLIKELY(!((w.want_ | word_.flags()) & closing).empty())) {
            check(w.want_ & closing, w.ec_);
            if (w.ec_)
                return true;
        }
        readiness r = satisfied(w);
        if (r.empty()) {
            if constexpr (port_type::has_edge_set)
                watch_draining(w);
            return false;
        }
        w.event_ = make_event(r);
        note_told(w, r);
        // What the reactor remembers already is older than this wait.
        if constexpr (port_type::latches_events)
            if (w.purpose_ == purpose::wait)
                this->forget_latched(channels_of(r & pollable));
        return true;
    }

    /// An operation with a call, which finds out for itself.
    bool may_call(waiter& w) {
        if (BOOST_UNLIKELY(defers_call(w)))
            return false;
        readiness r = word_.matched(w.want_);
        if (r.empty()) {
            const interest call = w.want_ & pollable;
            if (!knows_empty(call)) {
                r = call;
            } else if (call != w.want_) { // of which a call that would block says nothing
                r = check(w.want_ - pollable, w.ec_);
                if (w.ec_)
                    return true;
            }
        }
        w.event_ = make_event(r);
        return !r.empty();
    }

    /// Whether the request that the wait has to make is how the kernel is asked, where the reactor
    /// reports levels: the request completes at once if something is there. A turn of the reactor
    /// costs more than poll(2) then, so a wait asks first for as long as that answers it, and
    /// otherwise once in a while.
    BOOST_FORCEINLINE bool asks_by_request(waiter& w) noexcept {
        if constexpr (!port_type::completes_for_more)
            return false;
        if (unasked_left_ == 0 || !this->is_attached() || this->is_any_armed(channels_for(w)) ||
            !(word_.flags() & closing).empty())
            return false;
        --unasked_left_;
        word_.forget(w.want_); // as if nothing was there, which is not known
        forget_empty(bit(w.direction()));
        return true;
    }

    // ---- deferring ------------------------------------------------------------------------------

    bool may_defer() noexcept {
        return port_type::latches_events && this->is_attached() && host_.is_loop_thread() &&
               (word_.flags() & closing).empty() && host_.port.runs_here();
    }

    BOOST_FORCEINLINE bool defers(waiter& w) {
        if (!may_defer() || !host_.defer(*this, is_deferred_))
            return false;
        is_deferred_ = true;
        deferred_age.store(0, std::memory_order_relaxed);
        w.is_deferred_ = true;
        word_.forget(w.want_); // as if nothing was there, which is not known
        forget_empty(bit(w.direction()));
        return true;
    }

    bool defers_call(waiter& w) {
        if (!w.is_one_way())
            return false;
        channel c = w.direction();
        if (!drains_.is_likely_drained(c, tick_of(c)) || !defers(w))
            return false;
        drains_.deferred(c);
        return true;
    }

    // ---- pending --------------------------------------------------------------------------------

    /// The channels whose wakers report this, if nothing has to be news that the reactor can't
    /// tell.
    static constexpr unsigned channels_of(interest want) noexcept {
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
        if constexpr (port_type::has_edge_set) {
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

    /// False: the operation is over.
    BOOST_FORCEINLINE bool pend(waiter& w, waiter*& displaced) {
        const unsigned channels = channels_for(w);
        w.channels_ = narrow(channels);
        w.must_check_ = is_exact(w) && this->may_be_stale(channels);
        if (BOOST_LIKELY(this->is_attached() && this->are_armed(channels) &&
                         ((channels & bit(edge_channel)) == 0 || this->are_watched(edges_for(w)))))
            host_.port.work_started();
        else if (!(port_type::has_edge_set && BOOST_LIKELY(this->activate_request(channels))) &&
                 !start_waking(w))
            return false;
        // That a call would have blocked vouches for one wait: the next one may find another file.
        if (trigger_ == trigger::level)
            would_block_ = narrow(would_block_ & ~channels);
        if (BOOST_UNLIKELY(w.purpose_ >= purpose::read_slot) &&
            (displaced = queue_.take_slot(w.purpose_)))
            displaced->event_ = make_event(readiness());
        queue_.push(w);
        return true;
    }

    /// False: the operation is over.
    BOOST_NOINLINE bool start_waking(waiter& w) {
        if (!tells_state_) { // what EPOLL_CTL_ADD or MOD takes away would be lost
            readiness r = check(w.want_, w.ec_);
            if (!w.ec_ && !(r = satisfied(w)).empty()) {
                w.event_ = make_event(r);
                note_told(w, r);
                return false;
            }
        }
        if constexpr (port_type::has_edge_set)
            if (!w.ec_ && is_told_by_set(w))
                return false;
        if (!w.ec_)
            w.ec_ = this->activate(w.channels_, edges_for(w));
        if (w.ec_ == boost::system::errc::operation_not_permitted) {
            always_ready_ = true;
            w.ec_ = error_code();
            answer_always_ready(w);
        }
        return w.ec_ ? false : !always_ready_;
    }

    /// The set has more to report for this operation, and tells what is there at once: perhaps the
    /// operation need not wait.
    bool is_told_by_set(waiter& w) {
        if ((w.channels_ & bit(edge_channel)) == 0 || this->are_watched(edges_for(w)))
            return false;
        short told = 0;
        w.ec_ = this->watch_more(edges_for(w), told);
        if (told == 0)
            return false;
        word_.set(from_poll_events(told, this->identity().is_fifo()));
        readiness r = satisfied(w);
        item_queue items;
        take_satisfied(items);
        host_.port.post_counted(items);
        if (r.empty())
            return false;
        w.event_ = make_event(r);
        note_told(w, r);
        return true;
    }

    /// What the edge-triggered set has to report: few events for those that wait for few, so that
    /// others do not wake them.
    short edges_for(const waiter& w) const noexcept {
        const bool hears_directions =
            !((w.want_ & pollable).empty()) && (channels_of(w.want_) & ~unsigned(w.channels_)) != 0;
        const short few = static_cast<short>(POLLPRI | poll_rdhup);
        return hears_directions ? static_cast<short>(few | POLLIN | POLLOUT) : few;
    }

    // ---- what edges come from, on a reactor that reports levels ---------------------------------

    /// An edge-triggered wait is about to be pending: sees whether the handle was drained.
    void watch_draining(waiter& w) noexcept {
        if (!w.is_one_way() || w.purpose_ != purpose::wait || !tells_state_)
            return;
        edge_source& source = sources_[w.direction()];
        if (!source.must_check())
            return;
        this->count_check();
        error_code ec;
        source.checked(
            Policy::poll(this->native_handle(), base::events_of(w.direction()), ec) == 0 && !ec);
    }

    /// A call would have blocked. If that was so before, after an event, the reactor reports what
    /// is no news to the call. (The polling interface has a new waiter for each call.)
    void note_refused(waiter& w) noexcept {
        const bool was_refused =
            std::exchange(w.purpose_ == purpose::io ? w.is_refused_ : is_slot_refused_, true);
        w.is_refused_ = true;
        if constexpr (port_type::has_edge_set)
            if (was_refused)
                for (channel c : {read_channel, write_channel})
                    if (w.want_.contains(interest_of(c)))
                        sources_[c].refused();
    }

    // ---- the kernel's answer --------------------------------------------------------------------

    /// Asks the kernel what of `want` is there, and returns what the cache has of it then.
    readiness check(interest want, error_code& ec) noexcept {
        ask(want, ec);
        return ec ? readiness() : word_.matched(want);
    }

    /// The same, but returns what is there now.
    BOOST_NOINLINE readiness ask(interest want, error_code& ec) noexcept {
        count_check();
        const short events = tells_state_ ? static_cast<short>(to_poll_events(want) | poll_rdhup)
                                          : to_poll_events(pollable | beyond);
        int found = Policy::poll(this->native_handle(), events, ec);
        if (ec)
            return readiness();
        readiness seen = from_poll_events(found, this->identity().is_fifo());
        if (tells_state_) {
            word_.observe(want | closing, seen);
        } else { // nothing is dropped, and a change is news
            was_readable_ = seen.is_readable();
            word_.observe(interest(), seen & pollable);
            if (!(seen - pollable).empty())
                word_.set(seen - pollable);
        }
        return seen;
    }

    void count_check() noexcept { ++counts_.checks; }

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
        // A call for both directions does not say which of them would block.
        const bool is_known = !want.contains(pollable);
        for (channel c : {read_channel, write_channel}) {
            if (!e.ready().contains(interest_of(c)))
                continue;
            drains_.would_block(c);
            if (is_known && !word_.is_newer(e, interest_of(c)))
                would_block_ = narrow(would_block_ | bit(c));
        }
        word_.clear(e);
    }

    // ---- transfers ------------------------------------------------------------------------------

    /// A transfer that got the turn without waiting for it.
    bool wait_with_turn(waiter& w) {
        waiter* none = nullptr;
        turn_frame frame{*this, w};
        bool waits = !is_answered(w) && pend(w, none);
        w.has_turn_ = true;
        return waits;
    }
    struct turn_frame { // if the reactor throws
        basic_scheduled_io& state;
        waiter& w;
        ~turn_frame() {
            if (!w.has_turn_)
                state.transfers_[w.direction()].end(); // nobody can be behind it yet
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
            next->event_ = make_event(next->want_);
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
            if (is_open())
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
            note_would_block(e, interest_of(c));
        else
            drains_.transferred(c, t == transferred::part, tick);
    }

    /// Whether a call that was cut short shows that the handle is drained. The end of a pipe may
    /// come with its last data, as one event; but the write waker fires for the end as well, and
    /// before the read waker.
    BOOST_FORCEINLINE bool is_drained_by(channel c, bool holds_work) noexcept {
        using verdict = drain_policy::verdict;
        const bool was_known = drains_.is_known();
        verdict v = drains_.cut_short(c, this->native_handle(), this->identity());
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
        check(interest::writable, ec); // one so far was taken for room
        return !ec;
    }

    // ---- events ---------------------------------------------------------------------------------

    /// The usual event: it ends the only operation, which is for just that. Otherwise null.
    template <channel C>
    BOOST_FORCEINLINE waiter* take_usual(bool is_later) noexcept {
        waiter* w = queue_.only();
        if (!w || w->want_ != interest_of(C) || w->must_check_ || (!is_later && is_exact(*w)) ||
            drains_.is_hang_up(C) || !tells_state_)
            return nullptr;
        ++counts_.events;
        word_.set(interest_of(C));
        w->event_ = make_event(interest_of(C));
        if (trigger_ == trigger::edge && w->purpose_ == purpose::wait)
            word_.consume(interest_of(C));
        queue_.take(*w, goes_on(*w));
        return w;
    }

    /// Any other event, and any error. Returns the first operation that is over; the others are
    /// queued.
    scheduler_item* on_event(channel c, const error_code& ec, short told, bool is_later) {
        item_queue items;
        if (!is_open()) {
        } else if (!ec) {
            ++counts_.events;
            note_event(c, told, is_later);
            take_satisfied(items);
            counts_.unhandled += items.empty();
        } else if (ec != boost::asio::error::operation_aborted) {
            take_failed(bit(c), ec, items);
            if (drains_.is_hang_up(c)) { // which can't be waited for
                note_event(c, told, is_later);
                take_satisfied(items);
                drains_.give_up();
            }
        }
        scheduler_item* first = items.front();
        if (first) {
            items.pop();
            host_.port.post_counted(items);
        }
        return first;
    }

    /// An event came on `c`: `told`, or the reactor does not say which.
    void note_event(channel c, short told, bool is_later) noexcept {
        if (port_type::has_edge_set && c == edge_channel) {
            // The set says what is there now.
            if (told != 0)
                word_.set(from_poll_events(told, this->identity().is_fifo()));
            return;
        }
        if (BOOST_UNLIKELY(must_check_event(c, told, is_later)))
            return note_checked_event(c);
        word_.set(told == 0 ? interest_of(c) : from_poll_events(told, this->identity().is_fifo()));
    }

    /// Whether the kernel has to be asked what an event stands for.
    bool must_check_event(channel c, short told, bool is_later) const noexcept {
        // (Calls find out for themselves.)
        bool must = !tells_state_ ||                                 // its event may be a change
                    (!port_type::has_edge_set && c == edge_channel); // priority, error, hang-up
        must = must || drains_.is_hang_up(c) || (port_type::tells_events && told == 0) ||
               (port_type::read_closed_wakes_writers && c == write_channel && told == 0);
        const interest meant =
            told == 0 ? interest_of(c) : from_poll_events(told, this->identity().is_fifo());
        bool is_wanted = false;
        queue_.for_each([&](const waiter& w) {
            const bool is_for = (w.channels_ & bit(c)) != 0;
            if (!is_for && readiness_word::match(meant, w.want_).empty())
                return;
            is_wanted = is_wanted || !w.is_call();
            must = must || w.must_check_ || (is_exact(w) && (!is_later || !is_for)) ||
                   (!port_type::has_edge_set && !(w.want_ & beyond).empty());
        });
        // (What is cached for the next edge-triggered wait is believed.)
        return must || ((is_wanted || trigger_ == trigger::edge) && this->is_suspect(c));
    }

    BOOST_NOINLINE void note_checked_event(channel c) noexcept {
        const interest meant = interest_of(c);
        const interest want = (queue_.want() & beyond) | meant;
        if (tells_state_)
            word_.forget(meant | closing); // what is found is news
        const bool was_readable = was_readable_;
        error_code ec;
        readiness seen = ask(want, ec);
        queue_.for_each(
            [&](waiter& w) { w.must_check_ = w.must_check_ && this->may_be_stale(w.channels_); });
        if (ec) {
            word_.set(meant); // the operations find out
        } else if (!tells_state_) {
            // The reactor may have been told of a change that poll(2) does not tell again.
            interest change = meant;
            if (c == read_channel && seen.is_readable() && was_readable && !this->is_first_event(c))
                change |= interest::error; // data that was there before explains no event
            word_.set(change - word_.unconsumed());
        }
    }

    // ---- completing -----------------------------------------------------------------------------

    /// What an operation has to be told, from the cache.
    BOOST_FORCEINLINE readiness satisfied(const waiter& w) const noexcept {
        if (w.is_refused_ && !word_.is_newer(w.event_, w.want_))
            return readiness();
        if (trigger_ != trigger::edge || w.purpose_ != purpose::wait)
            return word_.matched(w.want_);
        return word_.news(w.want_, tells_state_);
    }

    /// A wait is told `r`.
    void note_told(const waiter& w, readiness r) noexcept {
        if (w.purpose_ == purpose::wait)
            note_told(r);
    }
    void note_told(readiness r) noexcept {
        if (trigger_ == trigger::edge)
            word_.consume(r);
        else if (BOOST_UNLIKELY(!tells_state_)) // what poll(2) tells once was kept for one wait
            word_.forget((word_.flags() & r).empty() ? r | readiness::error : r);
    }

    void take(waiter& w, item_queue& items) noexcept {
        queue_.take(w, goes_on(w));
        items.push(&w);
    }

    void take_satisfied(item_queue& items) noexcept {
        readiness told;
        queue_.for_each([&](waiter& w) {
            readiness r = satisfied(w);
            if (r.empty())
                return;
            w.event_ = make_event(r);
            if (w.purpose_ == purpose::wait)
                told |= r;
            take(w, items);
        });
        if (!told.empty())
            note_told(told);
    }

    void take_failed(unsigned channels, const error_code& ec, item_queue& items) noexcept {
        queue_.for_each([&](waiter& w) {
            if ((w.channels_ & channels) == 0)
                return;
            w.fail(ec);
            take(w, items);
        });
    }

    template <class Predicate>
    void cancel_if(Predicate is_meant, bool by_slot) {
        item_queue items;
        {
            lock_type lock(mutex_);
            if (!is_open())
                return;
            queue_.cancel_running(
                [&](const waiter& w) { return (by_slot || w.is_call()) && is_meant(w); });
            fail_if(is_meant, boost::asio::error::operation_aborted, items);
        }
        host_.port.post_counted(items);
    }

    template <class Predicate>
    void fail_if(Predicate is_meant, const error_code& ec, item_queue& items) noexcept {
        auto fails = [&](waiter& w) {
            if (!is_meant(w))
                return false;
            w.fail(ec);
            ++counts_.cancelled;
            return true;
        };
        queue_.for_each([&](waiter& w) {
            if (fails(w)) {
                queue_.take(w, w.is_call());
                items.push(&w);
            }
        });
        for (transfer_queue& q : transfers_)
            q.take_if(fails, items);
    }

    void shut_down(close_reason why, item_queue& items) noexcept {
        closed_.store(why, std::memory_order_release);
        fail_if([](const waiter&) { return true; }, closed_error(), items);
    }

    // ---- what the base asks ---------------------------------------------------------------------

    /// The channels of what is pending. (Where edges come from may have changed with the event.)
    unsigned channels_needed() const noexcept {
        unsigned channels = 0;
        queue_.for_each([&](waiter& w) {
            if constexpr (port_type::has_edge_set)
                w.channels_ = narrow(channels_for(w));
            channels |= w.channels_;
        });
        return channels;
    }
    short edges_needed() const noexcept {
        int edges = 0;
        queue_.for_each([&](const waiter& w) {
            if (w.channels_ & bit(edge_channel))
                edges |= edges_for(w);
        });
        return static_cast<short>(edges);
    }

    /// The operations that nothing would wake.
    void fail_unarmed(unsigned channels, const error_code& ec) {
        item_queue items;
        take_failed(channels, ec, items);
        host_.port.post_counted(items);
    }

    /// No operation has waited for the last events.
    void leave_reactor() {
        forget_empty(base::all_channels);
        this->detach(true);
    }

    // ---- vocabulary -----------------------------------------------------------------------------

    /// Whether a wait must not be told of the past.
    BOOST_FORCEINLINE bool is_exact(const waiter& w) const noexcept {
        return trigger_ == trigger::level && !w.is_call();
    }

    /// Whether an operation that has its event can still be cancelled.
    BOOST_FORCEINLINE bool goes_on(const waiter& w) const noexcept {
        return w.is_call() ||
               (w.id_ != 0 && trigger_ == trigger::edge && w.purpose_ == purpose::wait);
    }

    std::uint32_t tick_of(channel c) const noexcept {
        return c == write_channel ? word_.tick().write : word_.tick().read;
    }
    ready_event make_event(readiness r) const noexcept {
        return ready_event_access::make(r, word_.tick());
    }

    /// An operation with a call that does not wait again runs on.
    struct running_frame {
        basic_scheduled_io& state;
        waiter& w;
        const bool& waits;
        ~running_frame() {
            if (!waits && w.is_call())
                state.queue_.start_running(w);
        }
    };

    mutable typename Policy::mutex mutex_;
    wait_queue queue_;
    readiness_word word_;
    typename Policy::template atomic<std::uint8_t> closed_{deregistered};
    trigger trigger_ = trigger::level;
    bool always_ready_ = false;
    bool tells_state_ = true;
    bool was_readable_ = false;     // of a file that tells changes: when the kernel was asked last
    bool is_slot_refused_ = false;  // by the call before
    bool is_deferred_ = false;      // deferred_checks has it
    std::uint8_t would_block_ = 0;  // channels
    std::uint8_t unasked_left_ = 0; // level-triggered waits, until one asks poll(2) first again
    static constexpr std::uint8_t max_unasked = 127;
    edge_source sources_[2];
    drain_policy drains_;
    transfer_queue transfers_[2];
    wait_counts counts_;
    std::atomic<std::uint32_t> references_{0};

public:
    // For the host: the list of states at rest.
    basic_scheduled_io* next_free = nullptr;
};

/// What the state stands on in a program. A test has a policy of its own.
struct reactor_policy {
    using state = basic_scheduled_io<reactor_policy>;
    using port = reactor_port;
    using mutex = state_mutex;
    template <class T>
    using atomic = std::atomic<T>;
    template <class Owner, channel C>
    using waker = basic_waker<Owner, C>;

    static int poll(int handle, short events, error_code& ec) noexcept {
        return poll_now(handle, events, ec);
    }
    static file_identity identify(int handle, error_code& ec) noexcept {
        return detail::identify(handle, ec);
    }
    static bool is_always_ready(int handle, const file_identity& id) noexcept {
        return detail::is_always_ready(handle, id);
    }
    static bool tells_state(int handle, const file_identity& id) noexcept {
        return detail::tells_state(handle, id);
    }
    static bool wakes_for_more(int handle, const file_identity& id) noexcept {
        return port::completes_for_more &&
               (!port::tells_events || detail::wakes_for_more(handle, id));
    }
    static const void* this_thread() noexcept {
        static thread_local char id;
        return &id;
    }
};

using scheduled_io_host = basic_scheduled_io_host<reactor_policy>;
using scheduled_io = basic_scheduled_io<reactor_policy>;
using scheduled_io_ptr = boost::intrusive_ptr<scheduled_io>;

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SCHEDULED_IO_HPP
