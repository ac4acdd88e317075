//
// moor/detail/scheduled_io.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The scheduled state of one registered handle. It knows no handler types: a wait is a `waiter`.
//
// State
//   word_      cached readiness: flags, and a tick per stream of events
//   unknown_   streams of which an empty cache proves nothing: a wait looks before it parks
//   unlooked_  streams of which a wait has parked that is to be looked at later (late_looks), where
//              the state is listed while there is any
//   doubtful_  channels whose next event may be older than a wait that is parked: it is looked up
//   pipe_end_  what a transfer that is cut short proves
//   last_      with a tick: what a direction's last transfer was: all that was asked for, or a part
//              that proved nothing
//   in_vain_   how often in a row another try after `all` would have blocked, up to what is enough
//   unproved_  waits in a row that parked without such a try and that an event ended, up to the
//              most: then each transfer is tried until one would have blocked
//   has_fired_ channels whose waker has fired, and is not home yet (atomic)
//   waiters_   the waits that are parked, in the order in which they came
//   plain_     the same, while there is but one wait a direction and each is for that direction
//              only; spill() moves them to waiters_, and whoever reads waiters_ calls it first
//   turns_     directions in which a transfer of a descriptor has the turn: it waits in plain_, is
//              in the scheduler, or is being made
//   running_   io waits with a cancellation id that are not parked: in flight, or in their callable
//   wakers     one per channel, each either home or out: armed in the reactor, or fired and on its
//              way back through the scheduler
//   closed_    sticky: why nothing can be waited for any more
//
// The lock, mutex_, guards all of them but for what is said to be atomic. Orders: the service's
// lock before ours; ours before the reactor's. The reactor calls speculate() with its own lock
// held, so that may not take ours. No handler is run, moved or destroyed under the lock: waits
// leave through an item_queue that is posted to the scheduler, or destroyed after it is released.
//
// Invariants
//   1. A wait is parked (in waiters_ or in plain_), or in the scheduler, or being completed: in one
//      of them only. If one is in plain_, waiters_ is empty.
//   2. If a wait is parked, every channel that its interest needs has its waker out (but for a
//      transfer while another one has the turn, which hands it on).
//      Therefore no event can be lost: an event that finds the waker in the reactor fires it, one
//      that comes while it is on its way home is seen when it is armed again.
//   3. A waker that is out holds one reference to the state; so does whoever else points to it. The
//      reference of a waker that came home is its event_frame's, from which arm() may take it
//      again.
//   4. Outstanding work: one unit for each wait from start to completion. A waker that is armed has
//      none of its own, one that fired while it was being armed or taken out has one (prepaid_).
//      The scheduler takes one unit back after every fired(); in this order, what pays for it is
//      the prepaid unit, the first wait that it completes, a waker that is armed again,
//      compensate(). The sum of what is counted and what the scheduler is about to take back is
//      never zero before the last wait is over: there the scheduler would stop.
//   5. Once closed_ is set it stays, nothing is parked, and the handle is not in the reactor (but
//      for abandon(): then the reactor itself is going).
//   6. An event on a stream advances its tick. A call that met would-block drops only flags whose
//      tick is unchanged; clear() looks past events that need not have been news, and has the next
//      wait ask.
//   7. A level-triggered wait completes only for what was there after it began. It looks before it
//      parks, or is in unlooked_ until it was looked at. An event is believed if it was certainly
//      fetched from the kernel later (see is_later()), and otherwise looked up when it arrives.
//   8. Transfers of one direction are made one at a time, in the order in which they were started,
//      as far as one was started after the other: that is how their bytes belong together.
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_HPP
#define MOOR_DETAIL_SCHEDULED_IO_HPP

#include <moor/detail/event_frame.hpp>
#include <moor/detail/kernel.hpp>
#include <moor/detail/late_looks.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/readiness_word.hpp>
#include <moor/detail/system_calls.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include <poll.h>

namespace moor {

namespace detail {

class scheduled_io;

/// What an event on a channel means, where the reactor does not say.
constexpr interest blind(channel c) noexcept {
    return c == read_channel    ? interest::readable
           : c == write_channel ? interest::writable
                                : interest::priority;
}

/// The interest that is blind(C), known when compiling.
template <channel C>
struct only {
    constexpr operator interest() const noexcept { return blind(C); }
};

/// Counts kept for each handle, and added up by the service. (The narrow ones grow slowly.)
struct wait_counts {
    std::uint64_t started = 0;
    std::uint64_t events = 0;
    std::uint64_t immediate = 0;
    std::uint32_t cancelled = 0;
    std::uint32_t unclaimed = 0;
};

struct wait_totals {
    std::uint64_t started = 0;
    std::uint64_t immediate = 0;
    std::uint64_t events = 0;
    std::uint64_t verifications = 0;
    std::uint64_t cancelled = 0;
    std::uint64_t unclaimed = 0;

    wait_totals& add(const wait_counts& o, std::uint64_t verified) noexcept {
        started += o.started;
        immediate += o.immediate;
        events += o.events;
        verifications += verified;
        cancelled += o.cancelled;
        unclaimed += o.unclaimed;
        return *this;
    }
};

/// A picture of one handle, for people.
struct scheduled_io_info {
    int handle;
    std::string name;
    trigger mode;
    interest waited_for;
    readiness cached;
    ticks tick;
    std::size_t waiters;
    bool armed[channel_count];
    bool attached;
    bool always_ready;
};

/// Where the states live: the service's heap-stable half, which may outlive the service.
class scheduled_io_host {
public:
    explicit scheduled_io_host(asio::execution_context& context) : port(context) {}

    scheduled_io_host(const scheduled_io_host&) = delete;
    scheduled_io_host& operator=(const scheduled_io_host&) = delete;

    /// Usable until the execution context is shut down.
    reactor_port port;

    look_pacing pacing;

    /// Whether it is still there, and so are the executors.
    virtual bool context_exists() const noexcept = 0;

    /// This thread handles an event. Whether no other one ever did.
    BOOST_FORCEINLINE bool runs_here() noexcept {
        return BOOST_LIKELY(loop_thread_.load(std::memory_order_relaxed) ==
                            event_frame::thread_id()) ||
               note_thread();
    }

    /// Whether no other thread than this one has handled an event so far.
    bool runs_only_here() const noexcept {
        const void* thread = loop_thread_.load(std::memory_order_relaxed);
        return thread == event_frame::thread_id() || !thread;
    }

    /// Whether what begins to wait now may park first, and be looked at later: on the only thread
    /// that handles events, within the loop. look_later() follows.
    BOOST_FORCEINLINE bool may_look_later() noexcept {
        return loop_thread_.load(std::memory_order_relaxed) == event_frame::thread_id() &&
               (event_frame::current() || port.runs_here()) && pacing.should_wait();
    }

    /// `is_new`: the state is not listed. False: it can't be, so look at once.
    virtual bool look_later(scheduled_io& state, bool is_new) noexcept = 0;

    /// A number that no other wait has.
    std::uint64_t next_id() noexcept { return ids_.fetch_add(1, std::memory_order_relaxed) + 1; }

    /// Takes back a state that nobody refers to any more.
    virtual void recycle(scheduled_io& state) noexcept = 0;

protected:
    ~scheduled_io_host() = default;

private:
    BOOST_NOINLINE bool note_thread() noexcept {
        const void* seen = loop_thread_.load(std::memory_order_relaxed);
        if (seen == this)
            return false;
        if (!seen && loop_thread_.compare_exchange_strong(seen, event_frame::thread_id(),
                                                          std::memory_order_relaxed))
            return true;
        loop_thread_.store(this, std::memory_order_relaxed); // several: no thread's id
        return false;
    }

    std::atomic<std::uint64_t> ids_{0};
    std::atomic<const void*> loop_thread_{nullptr};
};

class BOOST_SYMBOL_VISIBLE scheduled_io {
public:
    /// Events in a row that no wait claims, after which the handle leaves the reactor until the
    /// next wait.
    static constexpr unsigned idle_limit = 8;

    explicit scheduled_io(scheduled_io_host& host) noexcept
        : host_(host), read_(this), write_(this) {}

    scheduled_io(const scheduled_io&) = delete;
    scheduled_io& operator=(const scheduled_io&) = delete;

    // ---- references ---------------------------------------------------------------------------

    friend void intrusive_ptr_add_ref(scheduled_io* s) noexcept {
        s->references_.fetch_add(1, std::memory_order_relaxed);
    }
    friend void intrusive_ptr_release(scheduled_io* s) noexcept {
        if (s->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            s->host_.recycle(*s);
    }

    // ---- registration -------------------------------------------------------------------------

    /// Makes a new or recycled state stand for `handle`. The reactor is not told before the first
    /// wait that has to park.
    void open(int handle, const file_identity& id, trigger mode) noexcept {
        handle_ = handle;
        identity_ = id;
        trigger_ = mode;
        always_ready_ = is_always_ready(handle, id);
        identity_.tells_state = always_ready_ || tells_state(handle, id);
        unknown_ = all_channels | unattached;
        fresh_ = prepaid_ = doubtful_ = idle_events_ = 0;
        unlooked_ = 0;
        turns_[0] = turns_[1] = false;
        last_[0] = last_[1] = last_transfer::unknown;
        in_vain_[0] = in_vain_[1] = 0;
        unproved_[0] = unproved_[1] = 0;
        is_suspect_ = false;
        pipe_end_ = pipe_end::unknown;
        counts_ = wait_counts();
        verifications_.store(0, std::memory_order_relaxed);
        // The ticks go on from where they were: an event of an earlier registration clears nothing.
        word_.observe(all_interests, readiness());
        closed_.store(still_open, std::memory_order_release);
    }

    int native_handle() const noexcept { return handle_; }
    trigger mode() const noexcept { return trigger_; }
    const file_identity& identity() const noexcept { return identity_; }
    scheduled_io_host& host() const noexcept { return host_; }

    /// Completes every wait with `reason`, takes the handle out of the reactor, and answers every
    /// later wait with `reason`. If the number is not `ours` any more it is not passed to the
    /// kernel. Idempotent: the first reason stays.
    enum close_reason : std::uint8_t { still_open, deregistered, service_closed, handle_closed };

    void close(close_reason why, bool ours) {
        item_queue items;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            if (!is_open())
                return;
            end_waits(why, items);
            detach(ours);
        }
        host_.port.post_counted(items);
    }

    /// The execution context is shutting down: hands every wait over, to be destroyed.
    void abandon(item_queue& items) {
        std::lock_guard<state_mutex> lock(mutex_);
        end_waits(service_closed, items);
        // The reactor gives the wakers back in its own shutdown.
        unknown_ |= unattached;
    }

    /// This process is the child of a fork: what the kernel keeps for us must not be the parent's.
    void forked() {
        std::lock_guard<state_mutex> lock(mutex_);
        spill();
        host_.port.renew_priority(handle_, data_, priority_events(interest()));
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

    // ---- waiting ------------------------------------------------------------------------------

    /// Starts a wait. True: it is parked, and will be completed through the scheduler, perhaps
    /// already. False: `w` says how it ended, and its completion is up to the caller. May throw
    /// (out of memory in the reactor); nothing has happened then.
    bool start(waiter& w) {
        if (w.want_ == interest::readable)
            return start<read_channel>(w, w.purpose_);
        if (w.want_ == interest::writable)
            return start<write_channel>(w, w.purpose_);
        mutex_.lock();
        return start_otherwise(w, not_asked);
    }

    /// The same for a wait whose interest is blind(C). (What is known when compiling need not be
    /// asked.)
    template <channel C>
    BOOST_FORCEINLINE bool start(waiter& w, purpose why) {
        state_lock lock(mutex_);
        int seen = not_asked;
        if (BOOST_UNLIKELY(!may_park_plainly<C>(w, why) || !has_nothing<C>(why, seen))) {
            lock.release();
            return why == purpose::wait ? answer_or_start<C>(w, seen)
                                        : start_otherwise(w, seen); // unlocks
        }
        park_plainly<C>(w, why);
        ++counts_.started;
        return true;
    }

    /// A callable met would-block after `w.event()`: drop the readiness that was wrong, and wait
    /// again. As start(). Unless something newer came, the wait is parked whatever the cache says:
    /// an error or a hang-up that the callable does not see would have it called for ever.
    bool restart(waiter& w) {
        waiter* displaced = nullptr;
        bool parked = false;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            spill();
            if (w.purpose_ == purpose::io && (w.cancelled_ || w.epoch_ != epoch_of(w.want_))) {
                w.fail(boost::asio::error::operation_aborted);
                return false;
            }
            bool newer = word_.is_newer(w.event_, w.want_);
            blocked(w.event_);
            w.ec_ = error_code();
            running_frame running{*this, w};
            turn_back_frame turn{*this, w, parked};
            parked = running.parked = newer || !is_open() ? look_and_park(w, displaced, not_asked)
                                                          : park_blind(w, displaced);
        }
        if (displaced)
            host_.port.post_counted(displaced);
        return parked;
    }

    /// Whether an io wait that is not parked may run its callable. If not, it was cancelled or the
    /// state was closed, and `w` says so.
    BOOST_FORCEINLINE bool may_run(waiter& w) {
        std::uint32_t epoch =
            w.want_ == interest::readable   ? epochs_[0].load(std::memory_order_relaxed)
            : w.want_ == interest::writable ? epochs_[1].load(std::memory_order_relaxed)
                                            : epoch_of(w.want_);
        return BOOST_LIKELY(is_open() && w.epoch_ == epoch && w.id_ == 0) || may_run_otherwise(w);
    }
    BOOST_NOINLINE bool may_run_otherwise(waiter& w) {
        if (!is_open()) {
            w.fail(closed_error());
            return false;
        }
        bool cancelled = w.epoch_ != epoch_of(w.want_);
        if (w.id_ && !cancelled) {
            std::lock_guard<state_mutex> lock(mutex_);
            cancelled = w.cancelled_;
        }
        if (cancelled)
            w.fail(boost::asio::error::operation_aborted);
        return !cancelled;
    }

    /// An io wait is over.
    BOOST_FORCEINLINE void finish(waiter& w) {
        if (w.id_ == 0 && !w.has_turn_)
            return;
        waiter* next = nullptr;
        {
            state_lock lock(mutex_);
            next = direction_of(w) == read_channel ? end_run<read_channel>(w)
                                                   : end_run<write_channel>(w);
        }
        if (BOOST_UNLIKELY(next != nullptr))
            host_.port.post_counted(next);
    }

    // ---- transfers, which take turns ------------------------------------------------------------

    // Their calls are Moor's own. One that can't block is made under the lock: whoever ends the
    // registration on another thread, and may close the number then, waits for it. One that may
    // block is made with the turn and without the lock, on a number of its own.

    /// How a call ended, or why there was none.
    enum class transferred : std::uint8_t { all, part, nothing, would_block, not_made };

    /// Makes a transfer on C that has not waited, if nobody has the turn or waits for it and the
    /// handle may be ready. It needs no turn: others wait for the lock. False: it has to wait.
    /// `may_be_later`: it may wait for a late look.
    template <channel C, class Call>
    BOOST_FORCEINLINE bool transfer_at_once(const Call& call, bool may_be_later) noexcept {
        state_lock lock(mutex_);
        bool may_be_ready =
            ((unknown_ >> C) & 1u) != 0 || word_.flags().contains(blind(C)) || always_ready_;
        if (!may_be_ready || turns_[C] || plain_[C] || (unknown_ & ended) != 0 ||
            BOOST_UNLIKELY(!waiters_.empty() && is_wanted(C)) ||
            (is_likely_drained<C>() && may_be_later && waiters_.empty() && is_attached() &&
             host_.may_look_later()))
            return false;
        ready_event e = make_event(blind(C));
        bool follows = last_[C] == last_transfer::all &&
                       last_tick_[C] == readiness_word::tick_of<C == write_channel>(word_.tick());
        transferred t = call.make();
        if (BOOST_UNLIKELY(t == transferred::not_made))
            return false; // it may block, and takes its turn
        if (t == transferred::would_block) {
            if (follows && in_vain_[C] < enough_in_vain)
                note_in_vain<C>();
            blocked_on<C>(e);
            return false;
        }
        ++counts_.started;
        ++counts_.immediate;
        note_transferred<C>(t, e, false);
        return true;
    }

    /// Makes a transfer on C that has waited, and has the turn, which it hands on unless it would
    /// have blocked. `not_made`: the state was closed.
    template <channel C, class Call>
    BOOST_FORCEINLINE transferred transfer_in_turn(waiter& w, const Call& call) noexcept {
        transferred t = transferred::not_made;
        waiter* next;
        {
            state_lock lock(mutex_);
            if (BOOST_LIKELY((unknown_ & ended) == 0)) {
                t = call.make();
                if (t == transferred::would_block)
                    return t;
                if (BOOST_UNLIKELY(t == transferred::not_made)) {
                    lock.release();
                    return transfer_unlocked<C>(w, call);
                }
                note_transferred<C>(t, w.event_, true);
            }
            next = end_run<C>(w);
        }
        if (BOOST_UNLIKELY(next != nullptr))
            host_.port.post_counted(next);
        return t;
    }

    /// The rest of it for a call that may block. It is entered with the lock, which it gives up.
    template <channel C, class Call>
    BOOST_NOINLINE transferred transfer_unlocked(waiter& w, const Call& call) noexcept {
        duplicated_handle number(call.handle()); // while nobody may close the original
        mutex_.unlock();
        transferred t = call.make_unlocked(number);
        if (t == transferred::would_block)
            return t;
        waiter* next;
        {
            state_lock lock(mutex_);
            if ((unknown_ & ended) == 0)
                note_transferred<C>(t, w.event_, true);
            next = end_run<C>(w);
        }
        if (next)
            host_.port.post_counted(next);
        return t;
    }

    /// Cancels the waits whose interest meets `which`; the empty set means all.
    void cancel(interest which) {
        item_queue items;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            if (!is_open())
                return;
            if (which.empty() ||
                !(which & (readiness_word::read_stream | interest::priority)).empty())
                epochs_[0].fetch_add(1, std::memory_order_relaxed);
            if (which.empty() || !(which & readiness_word::write_stream).empty())
                epochs_[1].fetch_add(1, std::memory_order_relaxed);
            spill();
            drain(which, boost::asio::error::operation_aborted, items);
        }
        host_.port.post_counted(items);
    }

    /// Cancels one wait, if it is not over.
    void cancel(std::uint64_t id) {
        item_queue items;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            spill();
            for (waiter* w = running_.front(); w; w = waiter_list::next(w))
                if (w->id_ == id)
                    w->cancelled_ = true;
            waiter* w = waiters_.front();
            while (w && w->id_ != id)
                w = waiter_list::next(w);
            if (!w || !is_open())
                return;
            w->fail(boost::asio::error::operation_aborted);
            ++counts_.cancelled;
            unpark(w);
            items.push(w);
        }
        host_.port.post_counted(items);
    }

    std::uint64_t next_id() noexcept { return host_.next_id(); }

    // ---- the cache ----------------------------------------------------------------------------

    /// The cached readiness, without a system call.
    ready_event peek(interest want) const noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        return make_event(word_.matched(want));
    }

    /// What a call that does not wait may believe: the cache where a waker keeps it up to date,
    /// otherwise the kernel. `verify`: a positive answer is checked too (level).
    ready_event glance(interest want, bool verify, error_code& ec) {
        std::lock_guard<state_mutex> lock(mutex_);
        ec = error_code();
        if (!is_open()) {
            ec = closed_error();
            return ready_event();
        }
        readiness r = always_ready_ ? want & pollable : word_.matched(want);
        bool ask = r.empty() ? !is_armed(channels_of(want)) || doubts(want)
                             : verify && trigger_ == trigger::level;
        if (ask && !always_ready_)
            r = verify_now(r.empty() ? to_ask(want) : want, ec);
        return make_event(r);
    }

    void clear(const ready_event& e) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        if (is_open()) {
            // A level-triggered wait is exact whatever was cleared: the next one asks.
            interest asked = word_.clear_but_repeats(e);
            if (trigger_ == trigger::level)
                asked = e.ready();
            unknown_ = static_cast<std::uint8_t>(unknown_ | channels_of(asked));
        }
    }

    /// A callable that `e` allowed moved fewer bytes than it could have. `counted`: the caller
    /// holds a unit of work.
    void cut_short(const ready_event& e, bool counted) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        if (!is_open())
            return;
        if (e.ready() == readiness::readable)
            note_cut_short<read_channel>(e, counted);
        else if (e.ready() == readiness::writable)
            note_cut_short<write_channel>(e, counted);
    }

    /// A callable that `e` allowed met would-block.
    void would_block(const ready_event& e) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        if (is_open())
            blocked(e);
    }

    void add_counts(wait_totals& totals) const noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        totals.add(counts_, verifications_.load(std::memory_order_relaxed));
    }

    /// Adds them, and starts again at zero.
    void move_counts(wait_totals& totals) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        totals.add(counts_, verifications_.exchange(0, std::memory_order_relaxed));
        counts_ = wait_counts();
    }

    scheduled_io_info info() {
        std::lock_guard<state_mutex> lock(mutex_);
        spill();
        scheduled_io_info i{};
        i.handle = handle_;
        i.mode = trigger_;
        i.cached = word_.flags();
        i.tick = word_.tick();
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w)) {
            i.waited_for |= w->want_;
            ++i.waiters;
        }
        for (unsigned c = 0; c != channel_count; ++c)
            i.armed[c] = !is_home(static_cast<channel>(c));
        i.attached = is_attached();
        i.always_ready = always_ready_;
        return i;
    }

    // ---- what late_looks calls ----------------------------------------------------------------

    /// Whether an event of this handle is about to be handled, for the only thread that handles
    /// any: then there is nothing to look at yet.
    bool awaits_queued_event() noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        return unlooked_channels() != 0 && is_attached() && !is_suspect_ &&
               host_.port.has_queued_event(data_);
    }

    /// Whether anything is to be looked at, and what. `asked` is for end_look(). Transfers that
    /// wait for room are let go in its place: poll(2) answers for more of it than they need. Counts
    /// them.
    bool begin_look(::pollfd& p, std::uint64_t& asked, std::size_t& let_go) {
        item_queue items;
        bool looks;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            unsigned channels = unlooked_channels();
            unlooked_ = 0;
            if ((channels >> write_channel) & 1u)
                let_writers_go(items);
            p = {handle_, poll_rdhup, 0};
            for (channel c : {read_channel, write_channel})
                if (((channels >> c) & 1u) && (plain_[c] || is_wanted(c))) {
                    p.events = static_cast<short>(p.events | events_of(c));
                    if (unproved_[c] != most_unproved)
                        unproved_[c] = 0; // unless something is found
                }
            looks = p.events != poll_rdhup;
            if (looks)
                count_verification();
            asked = counts_.started + counts_.events;
        }
        if (!items.empty())
            ++let_go;
        host_.port.post_counted(items);
        return looks;
    }

    /// Something is there. (Or `failed`: that is not known.)
    void end_look(const ::pollfd& p, std::uint64_t asked, bool failed) {
        item_queue items;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            if (!is_open())
                return;
            spill();
            interest want;
            for (channel c : {read_channel, write_channel})
                if ((p.events & events_of(c)) != 0)
                    want |= blind(c);
            // A wait that began since then was not asked about, and an event is newer.
            bool is_old = failed || asked != counts_.started + counts_.events;
            error_code ec;
            verify_now(want, ec, is_old ? not_asked : p.revents);
            if (want.is_readable())
                note_unexpected<read_channel>();
            if (want.is_writable())
                note_unexpected<write_channel>();
            if (!ec) {
                take_satisfied(items);
            } else {
                for (channel c : {read_channel, write_channel})
                    if ((channels_of(want) >> c) & 1u)
                        take_failed(c, ec, items);
            }
        }
        host_.port.post_counted(items);
    }

    // ---- what the wakers call -----------------------------------------------------------------

    /// With the reactor's lock held, and while arming with ours too: has the waker of C anything
    /// to fire for?
    template <channel C>
    BOOST_FORCEINLINE bool speculate(error_code& ec) noexcept {
        if (BOOST_UNLIKELY(arming_))
            return speculate_while_arming(C, ec);
        has_fired_[C].store(true, std::memory_order_relaxed);
        return true; // an event
    }

    /// The waker of C came home through the scheduler. Adopts its reference.
    template <channel C>
    BOOST_FORCEINLINE void fired(const error_code& ec) {
        bool alone = host_.runs_here();
        mutex_.lock();
        delivery<C> event(*this);
        is_out_[C] = false;
        has_fired_[C].store(false, std::memory_order_relaxed);
        if (BOOST_UNLIKELY(!alone) && is_for_level_wait(C))
            doubt(C); // of a wait that began when there was but one thread
        scheduler_item* first = ec ? nullptr : take_plain<C>();
        if (BOOST_LIKELY(first != nullptr))
            mutex_.unlock();
        else
            first = distribute(C, ec); // unlocks
        if (BOOST_LIKELY(first != nullptr))
            first->complete(this, ec, 0);
        else
            event.claimed = false;
    }

    /// The reactor gave the waker back: with our lock held in detach(), or when it shut down.
    void dropped(channel c) noexcept {
        is_out_[c] = false;
        intrusive_ptr_release(this);
    }

    /// What the waker of `c` asks about.
    static constexpr short events_of(channel c) noexcept {
        return c == read_channel ? POLLIN : c == write_channel ? POLLOUT : POLLPRI;
    }

    /// For reactors that poll: where.
    const reactor_port::registration_data& data() const noexcept { return data_; }

    /// For the host: gives back what the reactor keeps, when nobody refers to the state.
    void release_data(bool reactor_alive) {
        if (has_data_)
            host_.port.release(data_, reactor_alive);
        has_data_ = false;
    }

private:
    using registration_data = reactor_port::registration_data;

    static constexpr int not_asked = -1;
    static constexpr std::uint8_t all_channels = (1u << channel_count) - 1;
    // Bits of unknown_, so that the usual wait has one thing to ask.
    static constexpr std::uint8_t unattached = 1u << 6;
    static constexpr std::uint8_t ended = 1u << 7;

    enum class last_transfer : std::uint8_t { unknown, all, part };
    static constexpr std::uint8_t enough_in_vain = 2;
    static constexpr std::uint8_t most_unproved = 16;

    static constexpr interest pollable = interest::readable | interest::writable;
    static constexpr interest beyond =
        interest::priority | interest::error | interest::read_closed | interest::write_closed;
    static constexpr interest all_interests = pollable | beyond;

    static constexpr channel closing_channel =
        reactor_port::masks_priority ? priority_channel : read_channel;

    /// The channels whose wakers a wait needs.
    static constexpr unsigned channels_of(interest want) noexcept {
        unsigned bits = 0;
        if (want.is_readable())
            bits |= 1u << read_channel;
        if (want.is_writable())
            bits |= 1u << write_channel;
        if (want.is_priority())
            bits |= 1u << priority_channel;
        if (!(want & readiness_word::closing).empty())
            bits |= 1u << closing_channel;
        return bits;
    }

    bool is_home(channel c) const noexcept { return !is_out_[c]; }

    bool is_armed(unsigned channels) const noexcept {
        for (unsigned c = 0; c != channel_count; ++c)
            if ((channels >> c) & 1u && is_home(static_cast<channel>(c)))
                return false;
        return is_attached();
    }

    bool is_attached() const noexcept { return (unknown_ & unattached) == 0; }

    /// Whether it takes a check to know that nothing is there. Closing does always: a call that
    /// would block says nothing of it, and the reactor's events do not tell it from data.
    bool doubts(interest want) const noexcept {
        return (unknown_ & channels_of(want)) != 0 || !(want & readiness_word::closing).empty();
    }

    /// The same where poll(2) tells a change once: what it tells besides is kept for the next wait.
    BOOST_NOINLINE readiness ask_for_changes(interest want, error_code& ec) noexcept {
        count_verification();
        int events = poll_now(handle_, to_poll_events(all_interests), ec);
        if (ec)
            return readiness();
        readiness seen = from_poll_events(events, identity_.is_fifo());
        word_.observe((want & pollable) | ((word_.flags() | seen) & pollable), seen & pollable);
        readiness changes = seen - pollable;
        if (!changes.empty())
            word_.set(changes);
        if (trigger_ == trigger::edge)
            return readiness_word::match(word_.unconsumed(), want);
        readiness r = word_.matched(want);
        if ((r & seen & pollable).empty()) // what was kept is told now
            word_.forget(interest::error);
        word_.forget(r - pollable);
        return r;
    }

    /// What of it has to be asked of the kernel. (An edge-triggered wait must not be told again of
    /// data that it was told of, because closing is asked for, too.)
    interest to_ask(interest want) const noexcept {
        return trigger_ == trigger::edge && (unknown_ & channels_of(want)) == 0
                   ? want & readiness_word::closing
                   : want;
    }

    ready_event make_event(readiness r) const noexcept {
        return ready_event_access::make(r, word_.tick());
    }

    void count_verification() noexcept {
        verifications_.store(verifications_.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
    }

    /// Asks the kernel, and believes it.
    readiness verify_now(interest want, error_code& ec, int events = not_asked) noexcept {
        if (!identity_.tells_state)
            return ask_for_changes(want, ec);
        if (events == not_asked) {
            count_verification();
            events = poll_now(handle_, static_cast<short>(to_poll_events(want) | poll_rdhup), ec);
        } else if (events & POLLNVAL) {
            ec = boost::asio::error::bad_descriptor;
        }
        if (ec)
            return readiness();
        word_.observe(want | readiness_word::closing,
                      from_poll_events(events, identity_.is_fifo()));
        if (trigger_ == trigger::edge)
            unknown_ = static_cast<std::uint8_t>(
                unknown_ & ~channels_of(want & (pollable | interest::priority)));
        return word_.matched(want);
    }

    /// Decides whether a wait can be answered at once.
    readiness look(const waiter& w, error_code& ec, int seen) noexcept {
        interest want = w.want_;
        if (w.takes_turns_ && !w.has_turn_ && must_queue(w))
            return readiness();
        if (always_ready_ && !(want & pollable).empty())
            return want & pollable;
        readiness flags = visible_to(w.purpose_);
        readiness cached = flags & want;
        if (!cached.empty()) {
            // An io wait's callable finds out for itself, at the price of the poll(2).
            if (w.purpose_ == purpose::io || trigger_ == trigger::edge)
                return cached;
            if (!identity_.tells_state && !(cached - pollable).empty()) {
                word_.forget(cached - pollable); // the kernel will not tell of that change again
                return cached;
            }
        } else if (readiness_word::match(flags, want).empty()) {
            if (!doubts(want))
                return readiness();
            if (w.purpose_ == purpose::io && doubts(want & pollable))
                return want & pollable;
            return verify_now(to_ask(want), ec, seen);
        }
        return verify_now(want, ec, seen);
    }

    readiness visible_to(purpose why) const noexcept {
        return why == purpose::wait ? word_.unconsumed() : word_.flags();
    }

    /// Any wait. `seen`: what poll(2) said of it a moment ago, or not_asked. Unlocks.
    BOOST_NOINLINE bool start_otherwise(waiter& w, int seen) {
        std::unique_lock<state_mutex> lock(mutex_, std::adopt_lock);
        spill();
        waiter* displaced = nullptr;
        bool parked = look_and_park(w, displaced, seen);
        ++counts_.started;
        if (!parked) {
            ++counts_.immediate;
            if (w.id_ && w.purpose_ == purpose::io)
                running_.push_back(&w);
        }
        lock.unlock();
        if (displaced)
            host_.port.post_counted(displaced);
        return parked;
    }

    // ---- the usual wait: readable or writable, nobody else waits, the waker is at home ----------

    template <channel C>
    BOOST_FORCEINLINE bool may_park_plainly(const waiter& w, purpose why) const noexcept {
        if ((unknown_ & (unattached | ended)) != 0 || !waiters_.empty() || !identity_.tells_state)
            return false;
        if (why != purpose::io)
            return why == purpose::wait && is_home(C);
        return (is_home(C) || !plain_[C]) && w.id_ == 0 && !(w.takes_turns_ && turns_[C]);
    }

    /// Whether there is certainly nothing for it: the cache says so, of its own knowledge; or, for
    /// a level-triggered wait, the kernel does, and `seen` is what it says.
    template <channel C>
    BOOST_FORCEINLINE bool has_nothing(purpose why, int& seen) noexcept {
        if (((unknown_ >> C) & 1u) == 0 &&
            (visible_to(why) & (blind(C) | readiness_word::closing)).empty())
            return true;
        if (why == purpose::io)
            return is_likely_drained<C>() && looks_later<C>() && ++unproved_[C] != 0;
        return trigger_ == trigger::level && why == purpose::wait &&
               (word_.flags() & readiness_word::closing).empty() &&
               (looks_later<C>() || ask_for_nothing<C>(seen));
    }

    template <channel C>
    BOOST_FORCEINLINE bool looks_later() noexcept {
        if constexpr (reactor_port::latches_events) {
            if (!host_.may_look_later() || !host_.look_later(*this, unlooked_ == 0))
                return false;
            unlooked_ = static_cast<std::uint8_t>(unlooked_ | (1u << C));
            // As if nothing was there, which is doubted.
            word_.forget(blind(C));
            unknown_ = static_cast<std::uint8_t>(unknown_ | (1u << C));
            return true;
        } else {
            return false;
        }
    }

    /// No event has come since the last transfer, and that was a read that was cut short, which
    /// proves nothing, or one after which another try used to be in vain. There may be more, or the
    /// end, but most often there is nothing.
    template <channel C>
    BOOST_FORCEINLINE bool is_likely_drained() const noexcept {
        return reactor_port::latches_events && unproved_[C] != most_unproved &&
               last_tick_[C] == readiness_word::tick_of<C == write_channel>(word_.tick()) &&
               (last_[C] == last_transfer::part ||
                (last_[C] == last_transfer::all && in_vain_[C] >= enough_in_vain)) &&
               (word_.flags() & readiness_word::closing).empty();
    }

    void let_writers_go(item_queue& items) noexcept {
        waiter*& plain = plain_[write_channel];
        if (plain && plain->purpose_ == purpose::io) {
            plain->event_ = make_event(interest::writable);
            items.push(std::exchange(plain, nullptr));
            return;
        }
        for (waiter *w = waiters_.front(), *next; w; w = next) {
            next = waiter_list::next(w);
            if (w->purpose_ == purpose::io && w->want_ == interest::writable && take_turn(*w)) {
                w->event_ = make_event(interest::writable);
                unpark(w);
                items.push(w);
            }
        }
    }

    /// Where a wait is parked that is to be looked at.
    unsigned unlooked_channels() noexcept {
        unsigned channels = 0;
        for (channel c : {read_channel, write_channel})
            if (((unlooked_ >> c) & 1u) && (plain_[c] || is_wanted(c)))
                channels |= 1u << c;
        return channels;
    }

    /// start_otherwise(), but for the usual level-triggered wait that ends at once: the kernel says
    /// that the handle is ready, and no more than that.
    template <channel C>
    BOOST_NOINLINE bool answer_or_start(waiter& w, int seen) {
        if (trigger_ == trigger::level && !always_ready_ && identity_.tells_state &&
            (unknown_ & ended) == 0 && (word_.flags() & readiness_word::closing).empty()) {
            bool is_known = ((unknown_ >> C) & 1u) == 0 && !word_.flags().contains(blind(C));
            if (seen == not_asked && !is_known && ask_for_nothing<C>(seen))
                seen = 0;
            if (BOOST_LIKELY(seen == events_of(C))) {
                word_.observe(blind(C), blind(C));
                w.event_ = make_event(blind(C));
                ++counts_.started;
                ++counts_.immediate;
                mutex_.unlock();
                return false;
            }
        }
        return start_otherwise(w, seen); // unlocks
    }

    template <channel C>
    BOOST_NOINLINE bool ask_for_nothing(int& seen) noexcept {
        ::pollfd p = {handle_, static_cast<short>(events_of(C) | poll_rdhup), 0};
        int n = ::poll(&p, 1, 0);
        if (BOOST_UNLIKELY(n < 0))
            return false;
        count_verification();
        if (n != 0) {
            seen = p.revents;
            return false;
        }
        word_.forget(blind(C));
        return true;
    }

    template <channel C>
    BOOST_FORCEINLINE void park_plainly(waiter& w, purpose why) {
        if (why != purpose::wait)
            w.epoch_ = epoch_of(blind(C));
        doubt_unless_later(C, why);
        if ((why == purpose::io && !is_home(C)) || arm<C>() == 0) // its unit of work is the wait's
            host_.port.work_started();
        if (why != purpose::wait && w.takes_turns_)
            turns_[C] = w.has_turn_ = true; // while it is plain
        plain_[C] = &w;
        used_up(1u << C);
    }

    /// The usual event: there is one plain wait, which it satisfies. Then nothing needs to be armed
    /// (the wait had one waker out, this one), and the unit of work of the wait is the one that the
    /// scheduler takes back.
    template <channel C>
    BOOST_FORCEINLINE waiter* take_plain() noexcept {
        if constexpr (C == priority_channel) {
            return nullptr;
        } else {
            waiter* w = plain_[C];
            if (!w || (((prepaid_ | doubtful_) >> C) & 1u))
                return nullptr;
            plain_[C] = nullptr;
            idle_events_ = 0;
            ++counts_.events;
            word_.set(blind(C));
            w->event_ = make_event(blind(C));
            if (trigger_ == trigger::edge && w->purpose_ == purpose::wait)
                word_.consume(blind(C));
            return w;
        }
    }

    /// Everybody else finds the plain waits in the list.
    void spill() noexcept {
        for (waiter*& w : plain_)
            if (w) {
                if (w->has_turn_)
                    turns_[direction_of(*w)] = w->has_turn_ = false;
                waiters_.push_back(std::exchange(w, nullptr));
            }
    }

    // ---- turns --------------------------------------------------------------------------------

    static channel direction_of(const waiter& w) noexcept {
        return w.want_ == interest::writable ? write_channel : read_channel;
    }

    /// Whether another transfer is ahead: what is there is for that one.
    bool must_queue(const waiter& w) const noexcept {
        return turns_[direction_of(w)] || first_transfer(w.want_);
    }

    waiter* first_transfer(interest want) const noexcept {
        waiter* w = waiters_.front();
        while (w && !(w->takes_turns_ && w->want_ == want))
            w = waiter_list::next(w);
        return w;
    }

    /// Whether a wait that is satisfied may go, and takes the turn if it has to.
    BOOST_FORCEINLINE bool take_turn(waiter& w) noexcept {
        if (!w.takes_turns_)
            return true;
        bool& taken = turns_[direction_of(w)];
        if (taken)
            return false;
        taken = w.has_turn_ = true;
        return true;
    }

    /// Gives back the turn of a transfer that is to wait again (has_turn_ says then that it is the
    /// first), unless it does not.
    struct turn_back_frame {
        scheduled_io& state;
        waiter& w;
        const bool& parked;
        bool had_turn = w.has_turn_;

        turn_back_frame(scheduled_io& s, waiter& wait, const bool& is_parked)
            : state(s), w(wait), parked(is_parked) {
            if (had_turn)
                state.turns_[direction_of(w)] = false;
        }
        ~turn_back_frame() {
            if (had_turn)
                state.turns_[direction_of(w)] = w.has_turn_ = !parked;
        }
    };

    /// An io wait is over. Returns what has the turn now.
    template <channel C>
    BOOST_FORCEINLINE waiter* end_run(waiter& w) noexcept {
        if (w.id_ != 0)
            running_.erase(&w);
        w.id_ = 0;
        return std::exchange(w.has_turn_, false) ? end_turn(C) : nullptr;
    }

    /// The turn is over. Returns the transfer that has it now: it goes and sees.
    BOOST_FORCEINLINE waiter* end_turn(channel c) noexcept {
        turns_[c] = false;
        return waiters_.empty() && !plain_[c] ? nullptr : pass_turn(c);
    }

    BOOST_NOINLINE waiter* pass_turn(channel c) noexcept {
        spill();
        waiter* w = first_transfer(blind(c));
        if (!w)
            return nullptr;
        w->event_ = make_event(w->want_);
        take_turn(*w);
        unpark(w);
        return w;
    }

    // ---- whether an event may be older than a wait ----------------------------------------------

    /// Whether the next event on `c` will certainly be fetched from the kernel after now. With
    /// epoll, Asio fetches events in batches, and a handler may run while events that were fetched
    /// earlier are still in the queue: as the reactor's event, or already as the waker that it
    /// fired. select(2) is only asked about wakers that are armed, and its events are never queued.
    bool is_later(channel c) const noexcept {
        if constexpr (!reactor_port::latches_events)
            return is_home(c);
        return host_.runs_only_here() && !has_fired_[c].load(std::memory_order_relaxed) &&
               !host_.port.has_queued_event(data_);
    }

    /// The next event on `c` is looked up.
    void doubt(channel c) noexcept { doubtful_ = static_cast<std::uint8_t>(doubtful_ | (1u << c)); }

    bool is_for_level_wait(channel c) noexcept {
        if (trigger_ != trigger::level)
            return false;
        if (c != priority_channel && plain_[c])
            return plain_[c]->purpose_ != purpose::io;
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            if (w->purpose_ != purpose::io && (channels_of(w->want_) >> c) & 1u)
                return true;
        return false;
    }

    /// A callable of an io wait finds out for itself, and an edge-triggered wait may be told twice.
    BOOST_FORCEINLINE void doubt_unless_later(channel c, purpose why) noexcept {
        if (trigger_ == trigger::level && why != purpose::io && !is_later(c))
            doubt(c);
    }

    /// That a callable met would-block allows one wait to park without a look: by the next, if it
    /// was not an event that ended this one, the handle may have been closed.
    void used_up(unsigned channels) noexcept {
        if (trigger_ == trigger::level)
            unknown_ = static_cast<std::uint8_t>(unknown_ | channels);
    }

    bool park_blind(waiter& w, waiter*& displaced) {
        w.epoch_ = epoch_of(w.want_);
        if (always_ready_)
            w.ec_ = boost::asio::error::operation_not_supported; // it can't block, and did
        else
            w.ec_ = park(w, displaced);
        return !w.ec_;
    }

    bool look_and_park(waiter& w, waiter*& displaced, int seen) {
        if (!is_open()) {
            w.fail(closed_error());
            return false;
        }
        if (w.purpose_ != purpose::wait)
            w.epoch_ = epoch_of(w.want_);
        readiness r = look(w, w.ec_, seen);
        if (r.empty() && !w.ec_) {
            w.ec_ = park(w, displaced);
            if (!w.ec_)
                return true;
            if (always_ready_ && !(w.want_ & pollable).empty()) { // found out just now
                r = w.want_ & pollable;
                w.ec_ = error_code();
            }
        }
        w.event_ = make_event(r);
        if (w.ec_)
            return false;
        take_turn(w);
        if (trigger_ == trigger::edge && w.purpose_ == purpose::wait)
            word_.consume(r);
        return false;
    }

    bool is_plain(const waiter& w) const noexcept {
        return w.purpose_ == purpose::wait && waiters_.empty() &&
               (w.want_ == interest::readable || w.want_ == interest::writable);
    }

    error_code park(waiter& w, waiter*& displaced) {
        if (w.takes_turns_ && !w.has_turn_ && turns_[direction_of(w)])
            host_.port.work_started(); // whoever has the turn hands it on
        else if (error_code ec = ensure_armed(w))
            return ec;
        used_up(channels_of(w.want_));
        if (!(w.want_ & beyond).empty())
            ++beyond_waiters_;
        if (w.purpose_ >= purpose::read_slot) {
            waiter*& slot = slots_[w.purpose_ == purpose::write_slot];
            if (waiter* old = slot) {
                old->event_ = make_event(readiness());
                unpark(old);
                displaced = old;
            }
            slot = &w;
        }
        waiter* next = w.has_turn_ ? first_transfer(w.want_) : nullptr;
        if (BOOST_UNLIKELY(next != nullptr)) // it is still the first
            waiters_.insert(next, &w);
        else if (is_plain(w))
            plain_[direction_of(w)] = &w;
        else
            waiters_.push_back(&w);
        return error_code();
    }

    void unpark(waiter* w) noexcept {
        waiters_.erase(w);
        if (!(w->want_ & beyond).empty())
            --beyond_waiters_;
        if (w->purpose_ >= purpose::read_slot)
            slots_[w->purpose_ == purpose::write_slot] = nullptr;
        if (w->purpose_ == purpose::io && w->id_)
            running_.push_back(w);
    }

    /// Puts every waker that a wait needs into the reactor, and counts its unit of work.
    error_code ensure_armed(const waiter& w) {
        unsigned channels = channels_of(w.want_);
        if (((channels >> priority_channel) & 1u) && !priority_)
            priority_ = std::make_unique<basic_waker<scheduled_io, priority_channel>>(this);
        error_code ec;
        if (!is_attached())
            ec = attach();
        if (!ec && (channels >> priority_channel) & 1u)
            ec = watch_priority(w.want_);
        if (ec) {
            if (ec == boost::system::errc::operation_not_permitted) {
                // It can't be polled: what goes beyond readable and writable would never come.
                always_ready_ = true;
                ec = boost::asio::error::operation_not_supported;
            }
            return ec;
        }
        for (channel c : {read_channel, write_channel, priority_channel})
            if ((channels >> c) & 1u)
                doubt_unless_later(c, w.purpose_);
        int units = arm_home(channels) - 1; // the wait's
        if (units < 0)
            host_.port.work_started();
        release_units(units);
        return ec;
    }

    /// Arms those of some channels' wakers that are at home; returns the units of work that are at
    /// the caller's disposal. If one can't be armed, those that were are on their way home again.
    int arm_home(unsigned channels) {
        armed_frame armed{*this};
        if (((channels >> read_channel) & 1u) && is_home(read_channel))
            armed.add(read_channel, arm<read_channel>());
        if (((channels >> write_channel) & 1u) && is_home(write_channel))
            armed.add(write_channel, arm<write_channel>());
        if (((channels >> priority_channel) & 1u) && is_home(priority_channel))
            armed.add(priority_channel, arm<priority_channel>());
        return armed.release();
    }

    struct armed_frame {
        scheduled_io& state;
        unsigned channels = 0;
        int units = 0;

        void add(channel c, int unit) noexcept {
            channels |= 1u << c;
            units += unit;
        }
        int release() noexcept {
            channels = 0;
            return units;
        }
        ~armed_frame() {
            for (channel c : {read_channel, write_channel, priority_channel})
                if ((channels >> c) & 1u)
                    state.send_home(c);
        }
    };

    /// Takes a waker out of the reactor that was armed just now, and whose unit of work was not
    /// given away: it pays for the way home.
    void send_home(channel c) {
        prepaid_ = static_cast<std::uint8_t>(prepaid_ | (1u << c));
        if (c == read_channel)
            host_.port.disarm(c, read_, handle_, data_);
        else if (c == write_channel)
            host_.port.disarm(c, write_, handle_, data_);
        else
            host_.port.disarm(c, *priority_, handle_, data_);
    }

    void release_units(int units) {
        for (; units > 0; --units)
            host_.port.work_finished();
    }

    /// Has the priority channel report what the parked waits and a new one want, if it takes a
    /// mask. What is there already is reported, too.
    error_code watch_priority(interest want) {
        error_code ec = host_.port.watch_priority(handle_, data_, priority_events(want));
        if (ec)
            blame_the_number(ec);
        return ec;
    }

    /// epoll does not know a number that was closed behind our back: say what that is.
    static void blame_the_number(error_code& ec) noexcept {
        if (ec == boost::system::errc::no_such_file_or_directory)
            ec = boost::asio::error::bad_descriptor;
    }

    short priority_events(interest want) const noexcept {
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            want |= w->want_;
        return to_poll_events(want & beyond);
    }

    error_code attach() {
        error_code ec;
        if (reactor_port::attach_arms_reader && is_home(read_channel)) {
            out_frame out(*this, read_channel, true);
            ec = host_.port.attach(handle_, identity_, data_, &read_);
            out.done = true; // if there was an error, it was dropped
        } else {
            // The read waker may still be on its way home from an earlier event.
            ec = host_.port.attach(handle_, identity_, data_,
                                   static_cast<decltype(&read_)>(nullptr));
        }
        if (ec)
            return ec == boost::system::errc::file_exists
                       ? make_error_code(error::registered_elsewhere)
                       : ec;
        has_data_ = true;
        unknown_ = static_cast<std::uint8_t>(unknown_ & ~unattached);
        fresh_ = all_channels;
        idle_events_ = 0;
        // Asio may have an event in its queue for whoever had this object before.
        is_suspect_ = !reactor_port::announces_firing || host_.port.may_tell_of_others(data_);
        if (is_suspect_ || host_.port.has_queued_event(data_) || !host_.runs_only_here())
            doubtful_ = all_channels;
        return ec;
    }

    /// Takes the handle out of the reactor. The wakers that were armed come home now, or through
    /// the scheduler, which is paid for it in advance.
    void detach(bool ours) {
        if (!is_attached())
            return;
        unknown_ = static_cast<std::uint8_t>(unknown_ | all_channels | unattached);
        number n = number::foreign;
        if (ours) {
            error_code ec;
            if (identify(handle_, ec) == identity_)
                n = number::ours;
            else if (ec)
                n = number::closed;
        }
        if (!reactor_port::detaches_at_once(n))
            for (channel c : {read_channel, write_channel, priority_channel})
                prepay(c);
        host_.port.detach(handle_, identity_, data_, n, read_, write_, priority_.get());
    }

    void prepay(channel c) {
        unsigned bit = 1u << c;
        if (!is_home(c) && !(prepaid_ & bit)) {
            host_.port.work_started();
            prepaid_ = static_cast<std::uint8_t>(prepaid_ | bit);
        }
    }

    /// Puts a waker into the reactor. Returns the units of work that were counted for it and that
    /// are at the caller's disposal: one, or none if it fired at once, which it needs for its way
    /// home then.
    template <channel C>
    BOOST_FORCEINLINE int arm() {
        out_frame out(*this, C);
        if constexpr (C == write_channel && reactor_port::read_closed_wakes_writers)
            host_.port.watch_room_only(handle_, data_,
                                       word_.flags().contains(readiness::read_closed));
        arming_ = true;
        host_.port.arm(C, waker<C>(), handle_, data_);
        out.done = true;
        if (BOOST_LIKELY(std::exchange(arming_, false)))
            return 1;
        prepaid_ = static_cast<std::uint8_t>(prepaid_ | (1u << C));
        return 0;
    }

    /// The reactor asks while a waker is being armed: it says that there was an event since the
    /// waker last fired, or that it can't tell.
    BOOST_NOINLINE bool speculate_while_arming(channel c, error_code& ec) noexcept {
        unsigned bit = 1u << c;
        bool is_first = (fresh_ & bit) != 0; // since the handle was attached
        fresh_ = static_cast<std::uint8_t>(fresh_ & ~bit);
        if (is_first || !reactor_port::latches_events || trigger_ == trigger::level) {
            count_verification();
            if (poll_now(handle_, events_of(c), ec) == 0 && !ec)
                return false;
        }
        arming_ = false;
        has_fired_[c].store(true, std::memory_order_relaxed);
        return true;
    }

    /// Marks a waker as out, with a reference to the state, and takes that back if handing it over
    /// throws.
    struct out_frame {
        scheduled_io& state;
        channel c;
        bool done;

        BOOST_FORCEINLINE out_frame(scheduled_io& s, channel n,
                                    bool may_throw = reactor_port::arming_may_throw) noexcept
            : state(s), c(n), done(!may_throw) {
            event_frame* frame = event_frame::current();
            if (!frame || !frame->take_reference(&s.is_out_[n]))
                intrusive_ptr_add_ref(&s);
            s.is_out_[n] = true;
        }
        BOOST_FORCEINLINE ~out_frame() {
            if (!done) {
                arming_ = false;
                state.dropped(c);
            }
        }
    };

    template <channel C>
    auto& waker() noexcept {
        if constexpr (C == read_channel)
            return read_;
        else if constexpr (C == write_channel)
            return write_;
        else
            return *priority_;
    }

    /// blocked() where `e` is for C alone.
    template <channel C>
    BOOST_FORCEINLINE void blocked_on(const ready_event& e) noexcept {
        unproved_[C] = 0;
        if (word_.clear_only<C == write_channel>(e))
            unknown_ = static_cast<std::uint8_t>(unknown_ & ~(1u << C));
    }

    /// A callable met would-block after `e`: that much is known now.
    void blocked(const ready_event& e) noexcept {
        if (BOOST_LIKELY(e.ready() == readiness::readable))
            return blocked_on<read_channel>(e);
        if (BOOST_LIKELY(e.ready() == readiness::writable))
            return blocked_on<write_channel>(e);
        if (!word_.is_newer(e, e.ready()))
            unknown_ = static_cast<std::uint8_t>(unknown_ & ~channels_of(e.ready()));
        word_.clear(e);
    }

    /// A transfer that `e` allowed, which is for C alone, was made.
    template <channel C>
    BOOST_FORCEINLINE void note_transferred(transferred t, const ready_event& e,
                                            bool counted) noexcept {
        if (t == transferred::all)
            note_last<C>(last_transfer::all, e);
        else if (t == transferred::part)
            note_cut_short<C>(e, counted);
        else
            last_[C] = last_transfer::unknown;
    }

    template <channel C>
    BOOST_FORCEINLINE void note_last(last_transfer last, const ready_event& e) noexcept {
        std::uint32_t tick =
            readiness_word::tick_of<C == write_channel>(ready_event_access::stamp(e));
        if (last_[C] != last_transfer::unknown && last_tick_[C] == tick)
            note_unexpected<C>(); // no event told of this one
        last_[C] = last;
        last_tick_[C] = tick;
    }

    /// A transfer on C that would have been expected to be in vain was not: so each is tried until
    /// one is.
    template <channel C>
    BOOST_FORCEINLINE void note_unexpected() noexcept {
        unproved_[C] = most_unproved;
        in_vain_[C] = 0;
    }

    template <channel C>
    BOOST_NOINLINE void note_in_vain() noexcept {
        if (pipe_end_ == pipe_end::unknown)
            find_pipe_end();
        if (C == write_channel || pipe_end_ != pipe_end::coarse)
            ++in_vain_[C];
    }

    /// A transfer that `e` allowed, which is for C alone, was cut short.
    template <channel C>
    BOOST_FORCEINLINE void note_cut_short(const ready_event& e, bool counted) noexcept {
        if (is_attached()) {
            if (BOOST_UNLIKELY(pipe_end_ == pipe_end::unknown))
                find_pipe_end();
            if (shows_drained<C>(counted))
                blocked_on<C>(e);
            else if (C == read_channel && pipe_end_ != pipe_end::coarse)
                return note_last<C>(last_transfer::part, e);
        }
        last_[C] = last_transfer::unknown;
    }

    BOOST_NOINLINE void find_pipe_end() noexcept {
        pipe_end_ = identify_pipe_end(handle_, identity_);
        if (pipe_end_ == pipe_end::reading) {
            doubt(write_channel);
            // A hang-up so far was taken for "writable".
            error_code ec;
            verify_now(interest::writable, ec);
        }
    }

    /// Whether a transfer that was cut short proves that the handle is drained, and no hang-up can
    /// be missed for it. A write that is cut short was made while there was a reader; that this one
    /// goes is an event to come. But a reader's data and hang-up may have been one event.
    template <channel C>
    BOOST_FORCEINLINE bool shows_drained(bool counted) noexcept {
        if (C == write_channel)
            return pipe_end_ == pipe_end::writing || pipe_end_ == pipe_end::both;
        return pipe_end_ == pipe_end::both ||
               (pipe_end_ == pipe_end::reading &&
                (word_.flags() & readiness_word::closing).empty() && watches_hang_up(counted));
    }

    /// The reading end of a pipe is never writable: its write waker fires for a hang-up only, and
    /// before the read waker. Where arming looks at the handle none is missed anyway.
    BOOST_FORCEINLINE bool watches_hang_up(bool may_arm) noexcept {
        return !reactor_port::latches_events || BOOST_LIKELY(!is_home(write_channel)) ||
               (may_arm && start_watching_hang_up());
    }
    BOOST_NOINLINE bool start_watching_hang_up() noexcept {
        release_units(arm<write_channel>());
        return true;
    }

    bool is_hang_up(channel c) const noexcept {
        return c == write_channel && pipe_end_ == pipe_end::reading;
    }

    std::uint32_t epoch_of(interest want) const noexcept {
        std::uint32_t e = 0;
        if (!(want & (readiness_word::read_stream | interest::priority)).empty())
            e += epochs_[0].load(std::memory_order_relaxed);
        if (!(want & readiness_word::write_stream).empty())
            e += epochs_[1].load(std::memory_order_relaxed);
        return e;
    }

    void end_waits(close_reason why, item_queue& items) noexcept {
        closed_.store(why, std::memory_order_release);
        unknown_ = static_cast<std::uint8_t>(unknown_ | ended);
        spill();
        drain(interest(), closed_error(), items);
    }

    /// Takes out the waits whose interest meets `which` (empty: all of them).
    void drain(interest which, const error_code& ec, item_queue& items) noexcept {
        for (waiter *w = waiters_.front(), *next; w; w = next) {
            next = waiter_list::next(w);
            if (!which.empty() && (w->want_ & which).empty())
                continue;
            w->fail(ec);
            ++counts_.cancelled;
            unpark(w);
            items.push(w);
        }
    }

    /// Any other event, and any error. Unlocks, and queues all waits that are over but the first.
    BOOST_NOINLINE scheduler_item* distribute(channel c, error_code ec) {
        item_queue items;
        std::unique_lock<state_mutex> lock(mutex_, std::adopt_lock);
        if (reactor_port::says_nothing(data_, ec))
            ec = error_code(); // an event, which is looked up
        spill();
        int balance = -1; // what the scheduler will take back
        if (prepaid_ & (1u << c)) {
            prepaid_ = static_cast<std::uint8_t>(prepaid_ & ~(1u << c));
            ++balance;
        }
        if (!is_open()) {
            if (balance < 0)
                host_.port.compensate();
            return nullptr;
        }
        if (!ec) {
            ++counts_.events;
            if (c == priority_channel)
                host_.port.acknowledge_priority(data_);
            else if (c == write_channel)
                host_.port.acknowledge_room(data_);
            note(c);
            take_satisfied(items);
        } else if (ec != boost::asio::error::operation_aborted) {
            take_failed(c, ec, items);
            if (is_hang_up(c)) { // it can't be watched for
                note(c);
                take_satisfied(items);
                pipe_end_ = pipe_end::none;
            }
        }
        if (!items.empty()) {
            ++balance; // the unit of the first of them
            idle_events_ = 0;
        }
        settle(c, balance, !ec && items.empty());
        scheduler_item* first = items.front();
        if (first) {
            items.pop();
            host_.port.post_counted(items);
        }
        return first;
    }

    bool is_wanted(channel c) const noexcept {
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            if ((channels_of(w->want_) >> c) & 1u)
                return true;
        return false;
    }

    /// What an event on `c` may stand for.
    static constexpr interest meant_by(channel c) noexcept { return blind(c) | interest::error; }

    /// An event came in on `c`; the reactor does not say which.
    void note(channel c) noexcept {
        if (BOOST_UNLIKELY(!identity_.tells_state) && !is_wanted(c)) {
            // Kept for the next wait, since poll(2) will not tell of it. (The first event need not
            // be a change.)
            word_.set(word_.flags().contains(blind(c)) ? meant_by(c) : blind(c));
            return;
        }
        if (word_.flags().contains(blind(c)) && !is_wanted(c)) {
            word_.repeat(blind(c));
            return;
        }
        unsigned bit = 1u << c;
        bool doubtful = (doubtful_ & bit) != 0;
        if (!is_suspect_ && !is_hang_up(c) && is_attached() &&
            (trigger_ == trigger::edge || is_later(c)))
            doubtful_ = static_cast<std::uint8_t>(doubtful_ & ~bit);
        if (beyond_waiters_ != 0 || c == priority_channel || doubtful) {
            interest want = blind(c);
            for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
                want |= w->want_;
            // It came with an event, so what is seen is news, also if the cache has it.
            if (identity_.tells_state)
                word_.forget(blind(c));
            error_code ec;
            verify_now(want, ec);
            if (BOOST_UNLIKELY(!identity_.tells_state) && !ec) {
                // The reactor was told of a change that poll(2) does not tell again.
                interest meant = want & meant_by(c);
                readiness told = visible_to(purpose::wait) & meant;
                if (told.empty())
                    word_.set(meant);
                else if ((told - pollable).empty())
                    word_.set(meant - pollable);
            }
            if (!ec)
                return;
        }
        word_.set(blind(c));
    }

    void take_satisfied(item_queue& items) noexcept {
        readiness consumed;
        for (waiter *w = waiters_.front(), *next; w; w = next) {
            next = waiter_list::next(w);
            readiness r = readiness_word::match(visible_to(w->purpose_), w->want_);
            if (r.empty() || !take_turn(*w))
                continue;
            w->event_ = make_event(r);
            if (w->purpose_ == purpose::wait)
                consumed |= r;
            unpark(w);
            items.push(w);
        }
        if (trigger_ == trigger::edge && !consumed.empty())
            word_.consume(consumed);
    }

    void take_failed(channel c, error_code ec, item_queue& items) noexcept {
        blame_the_number(ec);
        for (waiter *w = waiters_.front(), *next; w; w = next) {
            next = waiter_list::next(w);
            if (((channels_of(w->want_) >> c) & 1u) == 0)
                continue;
            w->fail(ec);
            unpark(w);
            items.push(w);
        }
    }

    /// After an event on `c`: arms what the waits that are left need, or what counts the events
    /// that nobody waits for; and balances the work.
    void settle(channel c, int balance, bool unclaimed) {
        unsigned need = 0;
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            if (!(w->takes_turns_ && turns_[direction_of(*w)]))
                need |= channels_of(w->want_);
        if (unclaimed) {
            ++counts_.unclaimed;
            if (waiters_.empty() && reactor_port::latches_events && is_attached()) {
                if (++idle_events_ < idle_limit)
                    need = 1u << c;
                else
                    detach(true);
            }
        }
        if (is_attached()) {
            if (unclaimed && (need & (1u << read_channel)))
                make_way_for_reader();
            BOOST_TRY { balance += arm_home(need); }
            BOOST_CATCH(...) { fail_unarmed(need); }
            BOOST_CATCH_END
        }
        if (balance < 0)
            host_.port.compensate();
        release_units(balance);
    }

    /// What nobody reads must not be reported again and again while a wait for priority is parked:
    /// its waker comes home, and is armed again behind the reader.
    void make_way_for_reader() {
        if constexpr (reactor_port::reports_again_beside_priority)
            if (is_home(read_channel) && !is_home(priority_channel)) {
                prepay(priority_channel);
                host_.port.disarm(priority_channel, *priority_, handle_, data_);
            }
    }

    /// Out of memory: the waits that nothing would wake.
    void fail_unarmed(unsigned need) {
        item_queue items;
        for (channel c : {read_channel, write_channel, priority_channel})
            if (((need >> c) & 1u) && is_home(c))
                take_failed(c, boost::asio::error::no_memory, items);
        host_.port.post_counted(items);
    }

    /// After the first wait that an event completed has run: nobody waits again, so keep the
    /// wakers armed that count what comes now. (The unit of work of that wait is still there.)
    template <channel C>
    BOOST_NOINLINE void rest() {
        state_lock lock(mutex_);
        if ((unknown_ & (unattached | ended)) != 0 || !waiters_.empty() || plain_[read_channel] ||
            plain_[write_channel])
            return;
        if constexpr (C == read_channel) {
            if (is_home(C) && arm<C>() != 0)
                host_.port.work_finished();
        } else {
            release_units(arm_home((1u << read_channel) | (1u << C)));
        }
    }

    /// An event on C, while it is handled. It owns the reference of the waker that came home, until
    /// that is armed again from within.
    template <channel C>
    struct delivery : event_frame {
        scheduled_io& state;
        bool claimed = true;

        explicit delivery(scheduled_io& s) noexcept : event_frame(&s.is_out_[C]), state(s) {}
        ~delivery() {
            if (BOOST_LIKELY(!has_reference()))
                return;
            if (reactor_port::latches_events && claimed)
                state.template rest<C>();
            if (take_reference(&state.is_out_[C]))
                intrusive_ptr_release(&state);
        }
    };

    /// An io wait with an id is in running_ whenever it is not in waiters_.
    struct running_frame {
        scheduled_io& state;
        waiter& w;
        bool parked = false;

        running_frame(scheduled_io& s, waiter& wait) : state(s), w(wait) {
            if (w.id_)
                state.running_.erase(&w);
        }
        ~running_frame() {
            if (w.id_ && !parked)
                state.running_.push_back(&w);
        }
    };

    /// This thread is arming a waker, which has not fired.
    static inline thread_local bool arming_ = false;

    // What an event and the next wait touch comes first, up to the read waker: three lines of the
    // cache.
    alignas(64) registration_data data_{};
    scheduled_io_host& host_;
    waiter_list waiters_;
    waiter* plain_[2] = {nullptr, nullptr}; // by channel
    trigger trigger_ = trigger::level;
    std::atomic<std::uint8_t> closed_{deregistered};
    bool is_out_[channel_count] = {false, false, false};
    std::atomic<bool> has_fired_[channel_count] = {{false}, {false}, {false}}; // and is still out
    std::uint8_t unknown_ = all_channels | unattached;
    std::uint8_t prepaid_ = 0;
    std::uint8_t doubtful_ = 0;
    std::uint8_t idle_events_ = 0;
    std::uint8_t unlooked_ = 0;
    bool is_suspect_ = false;
    bool has_data_ = false;
    bool always_ready_ = false;
    mutable state_mutex mutex_;
    readiness_word word_;
    basic_waker<scheduled_io, read_channel> read_;
    wait_counts counts_;
    basic_waker<scheduled_io, write_channel> write_;
    std::unique_ptr<basic_waker<scheduled_io, priority_channel>> priority_; // few need it
    std::atomic<std::uint32_t> references_{0};
    int handle_ = -1;
    std::uint8_t fresh_ = 0;
    pipe_end pipe_end_ = pipe_end::unknown; // once a transfer was cut short
    std::uint8_t in_vain_[2] = {0, 0};
    std::uint8_t unproved_[2] = {0, 0};
    bool turns_[2] = {false, false}; // by a transfer that is being made
    last_transfer last_[2] = {last_transfer::unknown, last_transfer::unknown};
    std::uint32_t last_tick_[2] = {0, 0}; // what that was allowed by
    std::uint32_t beyond_waiters_ = 0;
    std::atomic<std::uint32_t> epochs_[2] = {{0}, {0}};
    std::atomic<std::uint64_t> verifications_{0};
    file_identity identity_;
    waiter* slots_[2] = {nullptr, nullptr};
    waiter_list running_;

public:
    // For the host: the list of states at rest.
    scheduled_io* next_free = nullptr;
};

using scheduled_io_ptr = boost::intrusive_ptr<scheduled_io>;

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SCHEDULED_IO_HPP
