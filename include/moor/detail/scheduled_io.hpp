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
//   waiters_   the waits that are parked, in the order in which they came
//   running_   io waits with a cancellation id that are not parked: in flight, or in their callable
//   wakers     one per channel, each either home or out: armed in the reactor, or fired and on its
//              way back through the scheduler
//   closed_    sticky: why nothing can be waited for any more
//
// The lock, mutex_, guards all of them but for what is said to be atomic. Orders: the service's
// lock before ours; ours before the reactor's. The reactor calls speculate() with its own lock
// held, so that may not take ours. No handler is run, moved or destroyed under the lock: waits
// leave through an item_queue that is posted or destroyed after it is released.
//
// Invariants
//   1. A wait is in waiters_, or in the scheduler, or being completed: in one of them only.
//   2. If a wait is in waiters_, every channel that its interest needs has its waker out.
//      Therefore no event can be lost: an event that finds the waker in the reactor fires it, one
//      that comes while it is on its way home is seen when it is armed again.
//   3. A waker that is out holds one reference to the state; so does whoever else points to it.
//   4. Outstanding work: one unit for each wait from start to completion, none for a waker. The
//      scheduler takes one unit back after every fired(), which the first wait that it completes
//      pays for; where there is none, arming a waker or compensate() does. The count never touches
//      zero on the way, since the scheduler would stop there.
//   5. Once closed_ is set it stays, waiters_ is empty, and the handle is not in the reactor.
//   6. An event on a stream advances its tick; clear() only drops flags whose tick is unchanged.
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_HPP
#define MOOR_DETAIL_SCHEDULED_IO_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/readiness_word.hpp>
#include <moor/detail/waiter.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

namespace moor {

/// How readiness is believed.
enum class trigger : std::uint8_t {
    /// A wait never lies and never hangs, whatever was done to the handle in between.
    level,
    /// The caller drains the handle to would-block (or calls `clear`) before it waits again.
    edge
};

namespace detail {

class scheduled_io;

/// Counts kept for each handle, and added up by the service. (The narrow ones grow slowly.)
struct wait_counts {
    std::uint64_t started = 0;
    std::uint64_t immediate = 0;
    std::uint64_t events = 0;
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

    /// Whether it is still there, and so are the executors.
    virtual bool context_exists() const noexcept = 0;

    /// A number that no other wait has.
    std::uint64_t next_id() noexcept { return ids_.fetch_add(1, std::memory_order_relaxed) + 1; }

    /// Takes back a state that nobody refers to any more.
    virtual void recycle(scheduled_io& state) noexcept = 0;

protected:
    ~scheduled_io_host() = default;

private:
    std::atomic<std::uint64_t> ids_{0};
};

class scheduled_io {
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
        always_ready_ = id.is_always_ready();
        unknown_ = all_channels;
        fresh_ = prepaid_ = doubtful_ = idle_events_ = 0;
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
            if (closed() != still_open)
                return;
            closed_.store(why, std::memory_order_release);
            drain(interest(), closed_error(), items);
            detach(ours);
        }
        host_.port.post_counted(items);
    }

    /// The execution context is shutting down: hands every wait over, to be destroyed.
    void abandon(item_queue& items) {
        std::lock_guard<state_mutex> lock(mutex_);
        closed_.store(service_closed, std::memory_order_release);
        drain(interest(), make_error_code(error::gone), items);
        // The reactor gives the wakers back in its own shutdown.
        attached_ = false;
    }

    close_reason closed() const noexcept {
        return static_cast<close_reason>(closed_.load(std::memory_order_acquire));
    }

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
        waiter* displaced = nullptr;
        bool parked;
        {
            state_lock lock(mutex_);
            ++counts_.started;
            parked = start_plain(w) || start_otherwise(w, displaced);
        }
        if (BOOST_UNLIKELY(displaced != nullptr))
            host_.port.post_counted(displaced);
        return parked;
    }

    /// A callable met would-block after `w.event()`: drop the readiness that was wrong, and wait
    /// again. As start(). Unless something newer came, the wait is parked whatever the cache says:
    /// an error or a hang-up that the callable does not see would have it called for ever.
    bool restart(waiter& w) {
        waiter* displaced = nullptr;
        bool parked;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            if (w.purpose_ == purpose::io && (w.cancelled_ || w.epoch_ != epoch_of(w.want_))) {
                w.fail(boost::asio::error::operation_aborted);
                return false;
            }
            bool newer = word_.is_newer(w.event_, w.want_);
            blocked(w.event_);
            w.ec_ = error_code();
            running_frame running{*this, w};
            parked = running.parked = newer || closed() != still_open ? start_locked(w, displaced)
                                                                      : park_blind(w, displaced);
        }
        if (displaced)
            host_.port.post_counted(displaced);
        return parked;
    }

    /// Whether an io wait that is not parked may run its callable. If not, it was cancelled or the
    /// state was closed, and `w` says so.
    bool may_run(waiter& w) {
        if (closed() != still_open) {
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
    void finish(waiter& w) {
        if (w.id_ == 0)
            return;
        std::lock_guard<state_mutex> lock(mutex_);
        running_.erase(&w);
        w.id_ = 0;
    }

    /// Cancels the waits whose interest meets `which`; the empty set means all.
    void cancel(interest which) {
        item_queue items;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            if (closed() != still_open)
                return;
            if (which.empty() ||
                !(which & (readiness_word::read_stream | interest::priority)).empty())
                epochs_[0].fetch_add(1, std::memory_order_relaxed);
            if (which.empty() || !(which & readiness_word::write_stream).empty())
                epochs_[1].fetch_add(1, std::memory_order_relaxed);
            drain(which, boost::asio::error::operation_aborted, items);
        }
        host_.port.post_counted(items);
    }

    /// Cancels one wait, if it is not over.
    void cancel(std::uint64_t id) {
        item_queue items;
        {
            std::lock_guard<state_mutex> lock(mutex_);
            for (waiter* w = running_.front(); w; w = waiter_list::next(w))
                if (w->id_ == id)
                    w->cancelled_ = true;
            waiter* w = waiters_.front();
            while (w && w->id_ != id)
                w = waiter_list::next(w);
            if (!w || closed() != still_open)
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
        if (closed() != still_open) {
            ec = closed_error();
            return ready_event();
        }
        readiness r = always_ready_ ? want & pollable : word_.matched(want);
        bool ask = r.empty() ? !is_armed(channels_of(want)) || doubts(want)
                             : verify && trigger_ == trigger::level;
        if (ask && !always_ready_)
            r = verify_now(want, ec);
        return make_event(r);
    }

    void clear(const ready_event& e) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        if (closed() == still_open) {
            unsigned repeated = channels_of(word_.clear_but_repeats(e));
            unknown_ = static_cast<std::uint8_t>(unknown_ | repeated);
        }
    }

    /// A callable that `e` allowed met would-block.
    void would_block(const ready_event& e) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        if (closed() == still_open)
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

    scheduled_io_info info() const {
        std::lock_guard<state_mutex> lock(mutex_);
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
        i.attached = attached_;
        i.always_ready = always_ready_;
        return i;
    }

    // ---- what the wakers call -----------------------------------------------------------------

    /// With the reactor's lock held, and while arming with ours too: has the waker of `c` anything
    /// to fire for?
    bool speculate(channel c, error_code& ec) noexcept {
        bool fire = must_fire(c, ec);
        if (fire)
            phase_[c].store(phase::fired, std::memory_order_relaxed);
        return fire;
    }

    bool must_fire(channel c, error_code& ec) noexcept {
        phase p = phase_[c].load(std::memory_order_relaxed);
        doubt d = suspect_.load(std::memory_order_relaxed);
        if (p == phase::armed && d == doubt::never)
            return true; // an event
        // Arming, and the reactor says that there may have been an event. (The event itself can
        // still see this phase if it comes at once on another thread. Then it is verified without
        // need, which does no harm.)
        if (p == phase::arming && reactor_port::latches_events && trigger_ == trigger::edge)
            return true;
        count_verification();
        if (poll_now(handle_, events_of(c), ec) == 0 && !ec)
            return false;
        if (p == phase::armed && d == doubt::once)
            suspect_.store(doubt::never, std::memory_order_relaxed);
        return true;
    }

    /// The waker of C came home through the scheduler. Adopts its reference.
    template <channel C>
    void fired(const error_code& ec) {
        event_frame<C> frame(*this);
        mutex_.lock();
        phase_[C].store(phase::home, std::memory_order_relaxed);
        scheduler_item* first = ec ? nullptr : take_only_waiter<C>();
        if (BOOST_LIKELY(first != nullptr))
            mutex_.unlock();
        else
            first = distribute(C, ec); // unlocks
        if (first) {
            frame.claimed = true;
            first->complete(this, error_code(), 0);
        }
    }

    /// The reactor gave the waker back: with our lock held in detach(), or when it shut down.
    void dropped(channel c) noexcept {
        phase_[c].store(phase::home, std::memory_order_relaxed);
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

    // For the host: the list of states at rest.
    scheduled_io* next_free = nullptr;

private:
    using registration_data = reactor_port::registration_data;

    /// Whether an event that the reactor reports may be another file's.
    enum class doubt : std::uint8_t { never, once, always };

    /// Where a waker is. Atomic, since the reactor's threads move it from armed to fired.
    enum class phase : std::uint8_t {
        home,         ///< with us
        arming_fresh, ///< being armed, for the first time since the handle was attached
        arming,       ///< being armed
        armed,        ///< in the reactor
        fired         ///< on its way home through the scheduler
    };

    static constexpr int not_asked = -1;
    static constexpr std::uint8_t all_channels = (1u << channel_count) - 1;
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

    bool is_home(channel c) const noexcept {
        return phase_[c].load(std::memory_order_relaxed) == phase::home;
    }

    bool is_armed(unsigned channels) const noexcept {
        for (unsigned c = 0; c != channel_count; ++c)
            if ((channels >> c) & 1u && is_home(static_cast<channel>(c)))
                return false;
        return attached_;
    }

    /// Whether it takes a look to know that nothing is there.
    bool doubts(interest want) const noexcept { return (unknown_ & channels_of(want)) != 0; }

    ready_event make_event(readiness r) const noexcept {
        return ready_event_access::make(r, word_.tick());
    }

    void count_verification() noexcept {
        verifications_.store(verifications_.load(std::memory_order_relaxed) + 1,
                             std::memory_order_relaxed);
    }

    /// Asks the kernel, and believes it.
    readiness verify_now(interest want, error_code& ec, int events = not_asked) noexcept {
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
            unknown_ = static_cast<std::uint8_t>(unknown_ & ~channels_of(want));
        return word_.matched(want);
    }

    /// Decides whether a wait can be answered at once.
    readiness look(const waiter& w, error_code& ec, int seen) noexcept {
        interest want = w.want_;
        if (always_ready_ && !(want & pollable).empty())
            return want & pollable;
        readiness flags = visible_to(w);
        readiness cached = flags & want;
        if (!cached.empty()) {
            // An io wait's callable finds out for itself, at the price of the poll(2).
            if (w.purpose_ == purpose::io || trigger_ == trigger::edge)
                return cached;
        } else if (readiness_word::match(flags, want).empty()) {
            if (!doubts(want))
                return readiness();
            if (w.purpose_ == purpose::io && doubts(want & pollable))
                return want & pollable;
        }
        return verify_now(want, ec, seen);
    }

    readiness visible_to(const waiter& w) const noexcept {
        return w.purpose_ == purpose::wait ? word_.unconsumed() : word_.flags();
    }

    BOOST_FORCEINLINE bool start_plain(waiter& w) {
        if (closed() != still_open)
            return false;
        if (w.purpose_ != purpose::wait)
            w.epoch_ = epoch_of(w.want_);
        return park_plain<read_channel>(w) || park_plain<write_channel>(w);
    }

    bool start_locked(waiter& w, waiter*& displaced) {
        if (closed() != still_open) {
            w.fail(closed_error());
            return false;
        }
        int seen = not_asked;
        if (verify_plain<read_channel>(w, seen) || verify_plain<write_channel>(w, seen))
            return true;
        if (w.purpose_ != purpose::wait)
            w.epoch_ = epoch_of(w.want_);
        return look_and_park(w, displaced, seen);
    }

    BOOST_NOINLINE bool start_otherwise(waiter& w, waiter*& displaced) {
        if (start_locked(w, displaced))
            return true;
        ++counts_.immediate;
        if (w.id_ && w.purpose_ == purpose::io)
            running_.push_back(&w);
        return false;
    }

    /// The usual wait: readable or writable, no slot; the cache says no, of its own knowledge; the
    /// waker is home.
    template <channel C>
    BOOST_FORCEINLINE bool park_plain(waiter& w) {
        if (!may_park_plainly<C>(w) ||
            !(visible_to(w) & (blind(C) | readiness_word::closing)).empty() ||
            (unknown_ & (1u << C)))
            return false;
        park_plainly<C>(w);
        return true;
    }

    /// The usual level-triggered wait: the cache may say yes, the kernel says no. Otherwise `seen`
    /// is what it says.
    template <channel C>
    BOOST_FORCEINLINE bool verify_plain(waiter& w, int& seen) {
        if (!may_park_plainly<C>(w) || w.purpose_ != purpose::wait || trigger_ != trigger::level ||
            !(word_.flags() & readiness_word::closing).empty())
            return false;
        ::pollfd p = {handle_, static_cast<short>(events_of(C) | poll_rdhup), 0};
        int n = ::poll(&p, 1, 0);
        if (n < 0)
            return false;
        count_verification();
        if (n > 0) {
            seen = p.revents;
            return false;
        }
        word_.forget(blind(C));
        park_plainly<C>(w);
        return true;
    }

    template <channel C>
    bool may_park_plainly(const waiter& w) const noexcept {
        return w.want_ == blind(C) && w.purpose_ < purpose::read_slot && attached_ && is_home(C);
    }

    template <channel C>
    BOOST_FORCEINLINE void park_plainly(waiter& w) {
        if (arm<C>() == 0) // its unit of work is the wait's
            host_.port.work_started();
        waiters_.push_back(&w);
        used_up(1u << C);
        doubt_queued_events(w, 1u << C);
    }

    /// A handler that drains a level-triggered handle and waits again may do so while an event for
    /// it, fetched before that, is queued behind the handler. Not if it runs for the last event of
    /// that channel; otherwise what comes has to be verified.
    void doubt_queued_events(const waiter& w, unsigned channels) noexcept {
        if (trigger_ != trigger::level || w.purpose_ == purpose::io || !host_.port.runs_here())
            return;
        for (unsigned c = 0; c != channel_count; ++c)
            if (((channels >> c) & 1u) && current_ != &phase_[c])
                doubtful_ = static_cast<std::uint8_t>(doubtful_ | (1u << c));
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
        if (trigger_ == trigger::edge && w.purpose_ == purpose::wait)
            word_.consume(r);
        return false;
    }

    error_code park(waiter& w, waiter*& displaced) {
        if (error_code ec = ensure_armed(w.want_))
            return ec;
        used_up(channels_of(w.want_));
        doubt_queued_events(w, channels_of(w.want_));
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
    error_code ensure_armed(interest want) {
        unsigned channels = channels_of(want);
        if (((channels >> priority_channel) & 1u) && !priority_)
            priority_ = std::make_unique<basic_waker<scheduled_io, priority_channel>>(this);
        error_code ec;
        if (!attached_)
            ec = attach();
        if (!ec && (channels >> priority_channel) & 1u)
            ec = watch_priority(want);
        if (ec == boost::system::errc::operation_not_permitted) {
            // It can't be polled: what goes beyond readable and writable would never come.
            always_ready_ = true;
            ec = boost::asio::error::operation_not_supported;
        }
        if (!ec)
            arm_for(want);
        return ec;
    }

    void arm_for(interest want) {
        unsigned channels = channels_of(want);
        int counted = 0;
        if ((channels >> read_channel) & 1u)
            counted += arm_or_doubt<read_channel>();
        if ((channels >> write_channel) & 1u)
            counted += arm_or_doubt<write_channel>();
        if ((channels >> priority_channel) & 1u)
            counted += arm_or_doubt<priority_channel>();
        if (counted == 0)
            host_.port.work_started();
        for (; counted > 1; --counted)
            host_.port.work_finished();
    }

    /// A waker that has fired already did so for something that a new wait may not find any more.
    template <channel C>
    int arm_or_doubt() {
        phase p = phase_[C].load(std::memory_order_relaxed);
        if (p == phase::home)
            return arm<C>();
        if (p == phase::fired || !reactor_port::announces_firing)
            doubtful_ = static_cast<std::uint8_t>(doubtful_ | (1u << C));
        return 0;
    }

    /// Has the priority channel report what the parked waits and a new one want, if it takes a
    /// mask. What is there already is reported, too.
    error_code watch_priority(interest want) {
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            want |= w->want_;
        return host_.port.watch_priority(handle_, data_, to_poll_events(want & beyond));
    }

    error_code attach() {
        error_code ec;
        if (reactor_port::attach_arms_reader && is_home(read_channel)) {
            out_frame out(*this, read_channel, phase::armed);
            ec = host_.port.attach(handle_, data_, &read_);
            out.done = true; // if there was an error, it was dropped
        } else {
            // The read waker may still be on its way home from an earlier event.
            ec = host_.port.attach(handle_, data_, static_cast<decltype(&read_)>(nullptr));
        }
        if (ec == boost::system::errc::file_exists) {
            ec = make_error_code(error::already_registered);
        } else if (!ec) {
            attached_ = has_data_ = true;
            fresh_ = all_channels;
            // Asio may have an event in its queue for whoever had this object before.
            suspect_.store(host_.port.is_suspect(data_) ? doubt::always
                           : reactor_port::latches_events && trigger_ == trigger::level
                               ? doubt::once
                               : doubt::never,
                           std::memory_order_relaxed);
        }
        return ec;
    }

    /// Takes the handle out of the reactor. The wakers that were armed come home now, or through
    /// the scheduler, which is paid for it in advance.
    void detach(bool ours) {
        if (!attached_)
            return;
        attached_ = false;
        unknown_ = all_channels;
        reactor_port::number n = reactor_port::number::foreign;
        if (ours) {
            error_code ec;
            if (identify(handle_, ec) == identity_)
                n = reactor_port::number::ours;
            else if (ec)
                n = reactor_port::number::closed;
        }
        if (!reactor_port::detaches_at_once(n))
            for (channel c : {read_channel, write_channel, priority_channel})
                prepay(c);
        host_.port.detach(handle_, data_, n, read_, write_, priority_.get());
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
        constexpr unsigned bit = 1u << C;
        phase arming = phase::arming;
        if (fresh_ & bit) {
            fresh_ = static_cast<std::uint8_t>(fresh_ & ~bit);
            arming = phase::arming_fresh;
        }
        if constexpr (reactor_port::arming_may_throw) {
            out_frame out(*this, C, arming);
            host_.port.arm(C, waker<C>(), handle_, data_);
            out.done = true;
        } else {
            intrusive_ptr_add_ref(this);
            phase_[C].store(arming, std::memory_order_relaxed);
            host_.port.arm(C, waker<C>(), handle_, data_);
        }
        // (An event on another thread can come in between here. It may be taken for one that was
        // not announced, which does no harm.)
        if (phase_[C].load(std::memory_order_relaxed) == arming) {
            phase_[C].store(phase::armed, std::memory_order_relaxed);
            return 1;
        }
        prepaid_ = static_cast<std::uint8_t>(prepaid_ | bit);
        return 0;
    }

    /// Marks a waker as out, and takes that back if handing it over throws.
    struct out_frame {
        scheduled_io& state;
        channel c;
        bool done = false;

        out_frame(scheduled_io& s, channel n, phase p) noexcept : state(s), c(n) {
            intrusive_ptr_add_ref(&s);
            s.phase_[n].store(p, std::memory_order_relaxed);
        }
        ~out_frame() {
            if (!done)
                state.dropped(c);
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

    /// A callable met would-block after `e`: that much is known now.
    void blocked(const ready_event& e) noexcept {
        if (!word_.is_newer(e, e.ready()))
            unknown_ = static_cast<std::uint8_t>(unknown_ & ~channels_of(e.ready()));
        word_.clear(e);
    }

    std::uint32_t epoch_of(interest want) const noexcept {
        std::uint32_t e = 0;
        if (!(want & (readiness_word::read_stream | interest::priority)).empty())
            e += epochs_[0].load(std::memory_order_relaxed);
        if (!(want & readiness_word::write_stream).empty())
            e += epochs_[1].load(std::memory_order_relaxed);
        return e;
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

    /// The usual event: there is one plain wait, which it satisfies. Then nothing needs to be armed
    /// (the wait had one waker out, this one), and the unit of work of the wait is the one that the
    /// scheduler takes back.
    template <channel C>
    waiter* take_only_waiter() noexcept {
        waiter* w = waiters_.front();
        if (C == priority_channel || !reactor_port::announces_firing || !w ||
            waiter_list::next(w) || w->want_ != blind(C) || w->purpose_ >= purpose::read_slot ||
            (w->purpose_ == purpose::io && w->id_ != 0) || (prepaid_ | doubtful_) != 0)
            return nullptr;
        ++counts_.events;
        word_.set(blind(C));
        w->event_ = make_event(blind(C));
        if (trigger_ == trigger::edge && w->purpose_ == purpose::wait)
            word_.consume(blind(C));
        waiters_.clear();
        idle_events_ = 0;
        return w;
    }

    /// Any other event, and any error. Unlocks, and queues all waits that are over but the first.
    BOOST_NOINLINE scheduler_item* distribute(channel c, const error_code& ec) {
        item_queue items;
        std::unique_lock<state_mutex> lock(mutex_, std::adopt_lock);
        int balance = -1; // what the scheduler will take back
        if (prepaid_ & (1u << c)) {
            prepaid_ = static_cast<std::uint8_t>(prepaid_ & ~(1u << c));
            ++balance;
        }
        if (closed() != still_open) {
            if (balance < 0)
                host_.port.compensate();
            lock.unlock();
            return nullptr;
        }
        if (!ec) {
            ++counts_.events;
            if (c == priority_channel)
                host_.port.acknowledge_priority(data_);
            note(c);
            take_satisfied(items);
        } else if (ec != boost::asio::error::operation_aborted) {
            take_failed(c, ec, items);
        }
        if (!items.empty()) {
            ++balance; // the unit of the first of them
            idle_events_ = 0;
        }
        settle(c, balance, !ec && items.empty());
        lock.unlock();
        scheduler_item* first = items.front();
        if (first) {
            items.pop();
            host_.port.post_counted(items);
        }
        return first;
    }

    /// What an event on a channel means, where the reactor does not say.
    static constexpr interest blind(channel c) noexcept {
        return c == read_channel    ? interest::readable
               : c == write_channel ? interest::writable
                                    : interest::priority;
    }

    bool is_wanted(channel c) const noexcept {
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            if ((channels_of(w->want_) >> c) & 1u)
                return true;
        return false;
    }

    /// An event came in on `c`; the reactor does not say which.
    void note(channel c) noexcept {
        if (word_.flags().contains(blind(c)) && !is_wanted(c)) {
            word_.repeat(blind(c));
            return;
        }
        unsigned bit = 1u << c;
        bool doubtful = (doubtful_ & bit) != 0;
        doubtful_ = static_cast<std::uint8_t>(doubtful_ & ~bit);
        if (beyond_waiters_ != 0 || c == priority_channel || doubtful ||
            !reactor_port::announces_firing) {
            interest want = blind(c);
            for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
                want |= w->want_;
            error_code ec;
            verify_now(want, ec);
            if (!ec)
                return;
        }
        word_.set(blind(c));
    }

    void take_satisfied(item_queue& items) noexcept {
        readiness consumed;
        for (waiter *w = waiters_.front(), *next; w; w = next) {
            next = waiter_list::next(w);
            readiness r = readiness_word::match(visible_to(*w), w->want_);
            if (r.empty())
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

    void take_failed(channel c, const error_code& ec, item_queue& items) noexcept {
        for (waiter *w = waiters_.front(), *next; w; w = next) {
            next = waiter_list::next(w);
            if (((channels_of(w->want_) >> c) & 1u) == 0)
                continue;
            // epoll does not know a number that was closed behind our back.
            w->fail(ec == boost::system::errc::no_such_file_or_directory
                        ? error_code(boost::asio::error::bad_descriptor)
                        : ec);
            unpark(w);
            items.push(w);
        }
    }

    /// After an event on `c`: arms what the waits that are left need, or what counts the events
    /// that nobody waits for; and balances the work.
    void settle(channel c, int balance, bool unclaimed) {
        unsigned need = 0;
        for (waiter* w = waiters_.front(); w; w = waiter_list::next(w))
            need |= channels_of(w->want_);
        if (unclaimed) {
            ++counts_.unclaimed;
            if (waiters_.empty() && reactor_port::latches_events && attached_) {
                if (++idle_events_ < idle_limit)
                    need = 1u << c;
                else
                    detach(true);
            }
        }
        if (need != 0 && attached_) {
            if (((need >> read_channel) & 1u) && is_home(read_channel))
                balance += arm<read_channel>();
            if (((need >> write_channel) & 1u) && is_home(write_channel))
                balance += arm<write_channel>();
            if (((need >> priority_channel) & 1u) && is_home(priority_channel))
                balance += arm<priority_channel>();
        }
        if (balance < 0)
            host_.port.compensate();
        for (; balance > 0; --balance)
            host_.port.work_finished();
    }

    /// After the first wait that an event completed has run: nobody waits again, so keep the
    /// wakers armed that count what comes now. (The unit of work of that wait is still there.)
    BOOST_NOINLINE void rest(channel c) {
        std::lock_guard<state_mutex> lock(mutex_);
        if (closed() != still_open || !attached_ || !waiters_.empty())
            return;
        int counted = 0;
        if (is_home(read_channel))
            counted += arm<read_channel>();
        if (c == write_channel && is_home(write_channel))
            counted += arm<write_channel>();
        if (c == priority_channel && is_home(priority_channel))
            counted += arm<priority_channel>();
        for (; counted > 0; --counted)
            host_.port.work_finished();
    }

    template <channel C>
    struct event_frame {
        scheduled_io& state;
        const void* outer;
        bool claimed = false;

        explicit event_frame(scheduled_io& s) noexcept : state(s), outer(current_) {
            current_ = &s.phase_[C];
        }
        ~event_frame() {
            current_ = outer;
            if (reactor_port::latches_events && claimed && state.is_home(C))
                state.rest(C);
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

    /// Which event this thread is handling: the address of its channel's phase.
    static inline thread_local const void* current_ = nullptr;

    scheduled_io_host& host_;
    std::atomic<std::uint32_t> references_{0};
    int handle_ = -1;
    registration_data data_{};
    waiter_list waiters_;
    readiness_word word_;
    trigger trigger_ = trigger::level;
    std::atomic<std::uint8_t> closed_{deregistered};
    std::atomic<phase> phase_[channel_count] = {phase::home, phase::home, phase::home};
    std::uint8_t unknown_ = all_channels;
    std::uint8_t fresh_ = 0;
    std::uint8_t prepaid_ = 0;
    std::uint8_t doubtful_ = 0;
    std::uint8_t idle_events_ = 0;
    bool attached_ = false;
    std::atomic<doubt> suspect_{doubt::never};
    bool has_data_ = false;
    bool always_ready_ = false;
    std::uint32_t beyond_waiters_ = 0;
    std::atomic<std::uint32_t> epochs_[2] = {{0}, {0}};
    mutable state_mutex mutex_;
    basic_waker<scheduled_io, read_channel> read_;
    basic_waker<scheduled_io, write_channel> write_;
    std::unique_ptr<basic_waker<scheduled_io, priority_channel>> priority_; // few need it
    wait_counts counts_;
    std::atomic<std::uint64_t> verifications_{0};
    file_identity identity_;
    waiter* slots_[2] = {nullptr, nullptr};
    waiter_list running_;
};

using scheduled_io_ptr = boost::intrusive_ptr<scheduled_io>;

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SCHEDULED_IO_HPP
