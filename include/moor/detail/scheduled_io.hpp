//
// moor/detail/scheduled_io.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The scheduled state of one registered handle. It knows no handler types: an operation is a
// `waiter`.
//
//   from the base:  handle_ --- identity_ --- attached to the reactor or not
//                   read waker      write waker      edge waker
//                        |               |                |          idle, armed or firing
//                        v               v                v
//   word_           readable        writable         priority        cached, with four ticks, and
//                   read_closed     write_closed     error           whether an edge was told
//   would_block_    read            write                            a call said so, or poll(2)
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
//   4. An event advances the tick of its direction, or the one of priority events or of errors. A
//      call that would block, and clear(), drop only flags whose tick is unchanged, and no error
//      that lasts.
//   5. A level-triggered wait completes only for what was there after the wait began. poll(2) is
//      called at the start or later (deferred_checks), unless a call, or for data the poll(2) of
//      an earlier wait, has found nothing and no event has come since, or a request asks; and
//      again at an event that may be older than the wait. The cache alone completes no wait.
//   6. An edge-triggered wait completes for news: for an event that no wait was told of. Closing
//      events are states: they are told for as long as they last.
//   7. A check drops an event that the reactor reported only if poll(2) is known to repeat the
//      state of the file.
//   8. A call that would have blocked is made again only for a newer event, or if poll(2) is asked
//      instead and reports what the call waits for: see note_blocked().
//
// mutex_ guards all of it but for what is atomic. The service's lock is taken before it, the
// reactor's after it. No handler is run, moved or destroyed under it.
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_HPP
#define MOOR_DETAIL_SCHEDULED_IO_HPP

#include <moor/detail/config.hpp>
#include <moor/detail/handle_transfers.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/probes.hpp>
#include <moor/detail/scheduled_io_host.hpp>
#include <moor/detail/scheduled_io_policy.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstdint>
#include <utility>

namespace moor {
namespace detail {

template <class Policy>
class BOOST_SYMBOL_VISIBLE basic_scheduled_io
    : public handle_transfers<basic_scheduled_io<Policy>, Policy> {
    using base = handle_transfers<basic_scheduled_io, Policy>;
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
    void open(int handle, const file_identity& id, trigger mode, int duplicate_of = -1) noexcept {
        base::open(handle, id, mode, duplicate_of);
        closed_.store(still_open, std::memory_order_release);
    }

    enum close_reason : std::uint8_t { still_open, deregistered, service_closed, handle_closed };

    /// Completes every operation with `why`, now and later, and takes the handle out of the
    /// reactor. If the number is not `ours` any more, it is not passed to the kernel. The first
    /// reason stays.
    void close(close_reason why, bool ours) {
        item_queue items;
        {
            lock_type lock(mutex_);
            if (!is_open())
                return;
            shut_down(why, items);
            this->detach(ours);
        }
        if (ours)
            this->close_duplicate(); // before anybody learns of the end
        host_.port.post_counted(items);
    }

    /// The execution context is shutting down: hands every operation over, to be destroyed.
    void abandon(item_queue& items) {
        lock_type lock(mutex_);
        const bool was_open = is_open(); // otherwise somebody else is closing it
        shut_down(service_closed, items);
        this->abandon_reactor();
        if (was_open)
            this->close_duplicate();
    }

    /// The number was closed, and is not another file's yet.
    void number_was_closed() {
        lock_type lock(mutex_);
        if (!is_open())
            return;
        fail_all(base::all_channels, boost::asio::error::bad_descriptor);
        this->detach(true);
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
        const close_reason why = closed();
        return why == deregistered     ? error_code(boost::asio::error::operation_aborted)
               : why == service_closed ? make_error_code(error::gone)
               : why == handle_closed  ? error_code(boost::asio::error::bad_descriptor)
                                       : error_code();
    }

    // ---- an operation's life: start, restart, over ----------------------------------------------

    /// Starts an operation. True: it waits, and will be completed through the scheduler, perhaps
    /// already. False: `w` says how it ended, and its completion is up to the caller. May throw
    /// (out of memory in the reactor); nothing has happened then.
    bool start(waiter& w);

    /// A call would have blocked after `w.event()`: waits for a newer event, or for what the call
    /// said that it waits for. `asks_kernel`: unless poll(2) reports it. As start().
    bool restart(waiter& w, interest next = interest(), bool asks_kernel = false);

    /// Whether a running operation may make its call. If not, it was cancelled or the state was
    /// closed: `w` says so.
    bool may_run(waiter& w);

    /// An operation with a call is over, if it was started at all.
    void finish(waiter& w);

    /// The handler of an edge-triggered wait with a cancellation slot is about to be invoked. If
    /// the wait was cancelled after its event, it fails, and what it was told is news again, for
    /// others that wait.
    void finish_wait(waiter& w);

    // ---- cancellation ---------------------------------------------------------------------------

    /// Cancels the operations whose interest meets `which`; the empty set means all.
    void cancel(interest which);

    /// Cancels one operation, if it is not over.
    void cancel(std::uint64_t id);

    // ---- what deferred_checks calls -------------------------------------------------------------

    /// Iterations of the loop since the last operation was deferred.
    typename Policy::template atomic<std::uint8_t> deferred_age{0};

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
                    w.event_ = this->make_event(w.want_);
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
        lock_type lock(mutex_);
        if (!is_open())
            return;
        error_code ec;
        this->check(queue_.want(), ec);
        if (ec)
            fail_all(base::all_channels, ec);
        else
            complete_satisfied();
    }

private:
    friend base;
    friend handle_wakers<basic_scheduled_io, Policy>;
    friend handle_readiness<basic_scheduled_io, Policy>;
    friend handle_starts<basic_scheduled_io, Policy>;

    using base::always_ready_;
    using base::bit;
    using base::counts_;
    using base::drains_;
    using base::host_;
    using base::is_deferred_;
    using base::mutex_;
    using base::queue_;
    using base::tells_state_;
    using base::transfers_;
    using base::trigger_;
    using base::unasked_left_;
    using base::word_;
    using base::would_block_;

    // ---- starting -------------------------------------------------------------------------------

    BOOST_FORCEINLINE bool is_open(waiter& w) noexcept {
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

    // ---- pending --------------------------------------------------------------------------------

    /// False: the operation is over.
    BOOST_FORCEINLINE bool pend(waiter& w, waiter*& displaced) {
        const unsigned channels = this->channels_for(w);
        w.channels_ = base::narrow(channels);
        w.must_check_ = this->is_exact(w) && this->may_be_stale(channels);
        if (BOOST_LIKELY(
                this->is_attached() && this->are_armed(channels) &&
                ((channels & bit(edge_channel)) == 0 || this->are_watched(this->edges_for(w)))))
            host_.port.work_started();
        else if (!(port_type::has_edge_set && BOOST_LIKELY(this->activate_request(channels))) &&
                 !start_waking(w))
            return false;
        // That a call would have blocked holds for one wait: the next one may find another file.
        if (trigger_ == trigger::level)
            would_block_ = base::narrow(would_block_ & ~channels);
        if (BOOST_UNLIKELY(w.purpose_ >= purpose::read_slot) &&
            (displaced = queue_.take_slot(w.purpose_)))
            displaced->event_ = this->make_event(readiness());
        queue_.push(w);
        probes::pend(this->native_handle(), w.want_);
        return true;
    }

    /// False: the operation is over.
    BOOST_NOINLINE bool start_waking(waiter& w) {
        this->forget_to_be_told();
        if (!tells_state_) { // what EPOLL_CTL_ADD or MOD takes away would be lost
            readiness r = this->check(w.want_, w.ec_);
            if (!w.ec_)
                r = this->satisfied(w);
            complete_satisfied(w, r);
            if (!r.empty()) {
                w.event_ = this->make_event(r);
                return false;
            }
        }
        if constexpr (port_type::has_edge_set)
            if (!w.ec_ && is_told_by_set(w))
                return false;
        if (!w.ec_)
            w.ec_ = this->activate(w.channels_, this->edges_for(w));
        if (w.ec_ == boost::system::errc::operation_not_permitted) {
            always_ready_ = true;
            w.ec_ = error_code();
            this->answer_always_ready(w);
        }
        return w.ec_ ? false : !always_ready_;
    }

    /// The set has more to report for this operation, and tells what is there at once: perhaps the
    /// operation need not wait.
    bool is_told_by_set(waiter& w) {
        if ((w.channels_ & bit(edge_channel)) == 0 || this->are_watched(this->edges_for(w)))
            return false;
        short told = 0;
        w.ec_ = this->watch_more(this->edges_for(w), told);
        if (told == 0)
            return false;
        word_.set(this->said(told));
        readiness r = this->satisfied(w);
        complete_satisfied(w, r);
        if (r.empty())
            return false;
        w.event_ = this->make_event(r);
        return true;
    }

    // ---- events ---------------------------------------------------------------------------------

    /// The usual event: it ends the only operation, which is for just that. Otherwise null.
    template <channel C>
    BOOST_FORCEINLINE waiter* take_usual() noexcept {
        waiter* w = queue_.only();
        if (!w || w->want_ != interest_of(C) || w->must_check_ || drains_.is_hang_up(C) ||
            !tells_state_)
            return nullptr;
        ++counts_.events;
        word_.set(interest_of(C));
        w->event_ = this->make_event(interest_of(C));
        if (trigger_ == trigger::edge && w->purpose_ == purpose::wait)
            word_.consume(interest_of(C));
        queue_.take_only(*w);
        probes::wake(this->native_handle(), interest_of(C));
        return w;
    }

    /// Any other event, and any error. Returns the first operation that is over; the others are
    /// queued.
    scheduler_item* on_event(channel c, const error_code& ec, short told, bool is_later) {
        item_queue items;
        if (!is_open()) {
        } else if (!ec) {
            ++counts_.events;
            if (error_code failed = this->note_event(c, told, is_later))
                take_failed(bit(c), failed, items, false);
            take_satisfied(items);
            counts_.unhandled += items.empty();
        } else if (ec != boost::asio::error::operation_aborted) {
            take_failed(bit(c), ec, items);
            unasked_left_ = 0;           // the next wait asks poll(2), which may answer
            if (drains_.is_hang_up(c)) { // which can't be waited for
                (void)this->note_event(c, told, is_later);
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

    // ---- completing -----------------------------------------------------------------------------

    void take(waiter& w, item_queue& items) noexcept {
        queue_.take(w);
        probes::wake(this->native_handle(), w.event_.ready());
        items.push(&w);
    }

    /// `told`: what a wait that has not pended is told at the same time.
    void take_satisfied(item_queue& items, readiness told = readiness()) noexcept {
        queue_.for_each([&](waiter& w) {
            readiness r = this->satisfied(w);
            if (r.empty())
                return;
            w.event_ = this->make_event(r);
            if (w.purpose_ == purpose::wait)
                told |= r;
            take(w, items);
        });
        if (!told.empty())
            this->note_told(told);
    }

    void complete_satisfied(readiness told = readiness()) {
        item_queue items;
        take_satisfied(items, told);
        host_.port.post_counted(items);
    }

    /// The same, and `w`, which has not pended, ends with `r`.
    void complete_satisfied(const waiter& w, readiness r) {
        complete_satisfied(w.purpose_ == purpose::wait ? r : readiness());
    }

    void take_failed(unsigned channels, const error_code& ec, item_queue& items,
                     bool has_calls = true) noexcept {
        queue_.for_each([&](waiter& w) {
            if ((w.channels_ & channels) == 0 || (w.is_call() && !has_calls))
                return;
            w.fail(ec);
            take(w, items);
        });
    }

    void fail_all(unsigned channels, const error_code& ec) {
        item_queue items;
        take_failed(channels, ec, items);
        host_.port.post_counted(items);
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
            probes::cancel(this->native_handle(), w.want_);
            return true;
        };
        queue_.for_each([&](waiter& w) {
            if (fails(w)) {
                queue_.erase(w);
                if (w.is_call())
                    queue_.start_running(w);
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
                w.channels_ = base::narrow(this->channels_for(w));
            channels |= w.channels_;
        });
        return channels;
    }
    short edges_needed() const noexcept {
        int edges = 0;
        queue_.for_each([&](const waiter& w) {
            if (w.channels_ & bit(edge_channel))
                edges |= this->edges_for(w);
        });
        return static_cast<short>(edges);
    }

    /// No operation has waited for the last events.
    void leave_reactor() {
        this->forget_empty(base::all_channels);
        this->detach(true);
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

    typename Policy::template atomic<std::uint8_t> closed_{deregistered};
    typename Policy::template atomic<std::uint32_t> references_{0};

public:
    basic_scheduled_io* next_free = nullptr; // for the host: the list of states at rest
};

using scheduled_io_host = basic_scheduled_io_host<reactor_policy>;
using scheduled_io = basic_scheduled_io<reactor_policy>;
using scheduled_io_ptr = boost::intrusive_ptr<scheduled_io>;

} // namespace detail
} // namespace moor

#if defined(MOOR_DETAIL_DEFINES)
#include <moor/detail/scheduled_io_calls.hpp>
#endif

#endif // MOOR_DETAIL_SCHEDULED_IO_HPP
