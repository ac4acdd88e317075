//
// moor/detail/handle_wakers.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_HANDLE_WAKERS_HPP
#define MOOR_DETAIL_HANDLE_WAKERS_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/scheduled_io_host.hpp>
#include <moor/detail/unverified_events.hpp>
#include <moor/detail/waker.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/error.hpp>
#include <boost/config.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include <poll.h>

namespace moor {
namespace detail {

/// A handle as the reactor knows it: attached to it or not, with a waker for each channel.
/**
 * An event fires an armed waker. If the waker is firing already, the reactor remembers the event
 * (or still reports it, where the reactor reports levels), and fires the waker when the waker is
 * armed again. So no event is lost while a waker is not idle. Where the reactor reports edges, the
 * wakers stay armed between operations.
 *
 * Outstanding work: each pending operation has one unit, and an armed waker none. The scheduler
 * takes one unit back after each fired(). What pays for it, in this order: the unit that the waker
 * was prepaid with; the unit of the first operation that the event completes; the unit that the
 * reactor counts for a waker that is armed again; compensate(). So the count is not zero before the
 * last operation is over, where the scheduler would stop.
 *
 * The reactor owns one reference to the state while the handle is attached or a waker is not idle.
 *
 * The base of `State`, whose lock guards it, and which is told of events through
 *   waiter* take_usual<channel>()           the only operation, if the event ends it
 *   scheduler_item* on_event(channel, error, told, is_later)
 *                                           any other event, or an error: the first operation that
 *                                           is over, while the others are queued
 * is_later: every pending operation for which may_be_stale() was false at its start had started
 * before the event was fetched from the kernel.
 */
template <class State, class Policy>
class handle_wakers {
public:
    using host_type = basic_scheduled_io_host<Policy>;
    using port_type = typename Policy::port;

    /// Events in a row that no operation waits for, after which the handle leaves the reactor.
    static constexpr unsigned idle_limit = 8;

    handle_wakers(const handle_wakers&) = delete;
    handle_wakers& operator=(const handle_wakers&) = delete;

    int native_handle() const noexcept { return handle_; }
    const file_identity& identity() const noexcept { return identity_; }
    host_type& host() const noexcept { return host_; }

    // ---- what the wakers call -----------------------------------------------------------------

    /// With the reactor's lock on the handle held, and while arming with ours too: is there an
    /// event?
    template <channel C>
    BOOST_FORCEINLINE bool speculate(error_code& ec) noexcept {
        if (BOOST_UNLIKELY(wakers_[C].is_asked()) && Policy::arming() == &wakers_[C] &&
            !is_told_while_arming(C, ec))
            return false;
        wakers_[C].fire();
        return true;
    }

    /// The waker of C came back through the scheduler, for an event.
    template <channel C>
    BOOST_FORCEINLINE void fired(short told) {
        if (BOOST_UNLIKELY(!host_.is_loop_thread() || !complete_usual<C>(told)))
            fired_unusually<C>(told);
    }

    /// The same for an error.
    void failed(channel c, const error_code& ec) { fired(c, ec, 0); }

    /// The reactor gave the waker back: in detach(), with our lock held, or when it shut down.
    void dropped(channel c) noexcept {
        wakers_[c].drop();
        if (!is_attached_ && !is_held_ && are_idle())
            intrusive_ptr_release(&state());
    }

    /// What the waker of `c` asks for, where it is a request of its own.
    static constexpr short events_of(channel c) noexcept {
        return c == read_channel ? POLLIN : c == write_channel ? POLLOUT : POLLPRI;
    }

    /// What the reactor keeps for the handle.
    const typename port_type::registration_data& data() const noexcept { return data_; }

    /// For the host, when nobody refers to the state: gives back what the reactor keeps.
    void release_data(bool reactor_alive) {
        if (has_data_)
            host_.port.release(data_, reactor_alive);
        has_data_ = false;
    }

protected:
    explicit handle_wakers(host_type& host) noexcept
        : host_(host), is_attached_(false), has_data_(false), is_new_(false), is_forgetting_(false),
          is_held_(false), read_(this), write_(this) {}
    ~handle_wakers() = default;

    static constexpr unsigned bit(channel c) noexcept { return 1u << c; }
    static constexpr unsigned all_channels = (1u << channel_count) - 1;
    static constexpr std::uint8_t narrow(unsigned bits) noexcept {
        return static_cast<std::uint8_t>(bits);
    }

    void open(int handle, const file_identity& id) noexcept {
        handle_ = handle;
        identity_ = id;
        idle_events_ = 0;
    }

    bool is_attached() const noexcept { return is_attached_; }
    bool is_armed(channel c) const noexcept { return !wakers_[c].is_idle(); }

    /// Whether an event of each of these channels would be noticed.
    BOOST_FORCEINLINE bool are_armed(unsigned channels) const noexcept {
        return (!(channels & bit(read_channel)) || !wakers_[read_channel].is_idle()) &&
               (!(channels & bit(write_channel)) || !wakers_[write_channel].is_idle()) &&
               (!(channels & bit(edge_channel)) || !wakers_[edge_channel].is_idle());
    }
    /// Whether the waker of `c` was armed since attach(). The first time reports what is there.
    bool was_armed(channel c) const noexcept { return is_attached_ && !(unprimed_ & bit(c)); }
    /// Whether an edge of these events would be noticed.
    bool are_watched(short edges) const noexcept { return host_.port.watches_edges(data_, edges); }
    /// Whether an event of any of these channels would be noticed.
    BOOST_FORCEINLINE bool is_any_armed(unsigned channels) const noexcept {
        return (channels & armed_channels()) != 0;
    }

    /// Whether the next event of a channel has to be checked: it may be another file's, or tell of
    /// more than is there.
    bool must_check(channel c) const noexcept { return unverified_.contain(c); }

    /// Whether the next event of these channels may have been fetched from the kernel before now.
    /**
     * With epoll, Asio fetches events in batches, and a handler may run while events are queued: as
     * the reactor's event, or already as the waker that it fired. The other reactors are asked for
     * armed wakers only, and queue nothing else.
     */
    BOOST_FORCEINLINE bool may_be_stale(unsigned channels) const noexcept {
        if constexpr (!port_type::latches_events)
            return is_any_armed(channels);
        if (!is_attached_)
            return false; // see unverified_
        if (!host_.runs_only_here() || host_.port.has_queued_event(data_))
            return true;
        return ((channels & bit(read_channel)) && wakers_[read_channel].is_firing()) ||
               ((channels & bit(write_channel)) && wakers_[write_channel].is_firing()) ||
               ((channels & bit(edge_channel)) && wakers_[edge_channel].is_firing());
    }

    /// Attaches the handle, if need be, and arms the wakers of these channels. `edges`: the events
    /// of poll(2) for the edge channel. Counts one unit of work, unless there is an error.
    BOOST_NOINLINE error_code activate(unsigned channels, short edges) {
        error_code ec;
        const bool was_attached = is_attached_, needs_edges = (channels & bit(edge_channel)) != 0;
        channels |= was_attached ? 0 : state().channels_to_attach();
        if (channels & bit(edge_channel))
            need_edge_waker();
        if (!was_attached)
            ec = attach(needs_edges ? edge_channel : read_channel);
        if (!ec && needs_edges)
            ec = watch_edges(edges);
        if (ec)
            return ec;
        is_new_ = !was_attached;
        int units = arm_all(channels) - 1;
        is_new_ = false;
        if (units < 0)
            host_.port.work_started();
        else
            settle(units);
        return ec;
    }

    /// Has the edge-triggered set report more events, and takes what is there of them.
    BOOST_NOINLINE error_code watch_more(short edges, short& told) {
        error_code ec;
        if (!is_attached_)
            ec = attach(read_channel);
        if (!ec)
            ec = watch_edges(edges);
        told = ec ? short(0) : host_.port.take_edges(data_);
        return ec;
    }

    /// Closes the edge-triggered set, which costs time at each change of the file, if nothing waits
    /// for it. A new one tells of what is there then.
    void leave_edges() noexcept {
        if (wakers_[edge_channel].is_idle())
            host_.port.leave_edges(data_);
    }

    /// The usual case of activate() where a waker is a request: for one direction of an attached
    /// handle.
    BOOST_FORCEINLINE bool activate_request(unsigned channels) {
        const bool reads = channels == bit(read_channel);
        if (!is_attached_ || is_any_armed(channels) || (!reads && channels != bit(write_channel)))
            return false;
        arm_request(reads ? read_channel : write_channel);
        return true;
    }

    BOOST_FORCEINLINE void arm_request(channel c) {
        const int units = c == read_channel ? arm<read_channel>() : arm<write_channel>();
        if (BOOST_UNLIKELY(units == 0))
            host_.port.work_started();
    }

    /// Arms a waker that no operation waits for.
    void watch(channel c) { settle(arm_all(bit(c))); }

    /// What the reactor has remembered of these channels, while their wakers were idle, is no news
    /// any more. (Arming a waker is how the reactor is asked.)
    /**
     * Returns whether the caller has a unit of outstanding work now, which is to be given back only
     * once its operation is queued: there may be no other, and the scheduler would stop.
     */
    bool forget_latched(unsigned channels) {
        // (What was never armed has nothing remembered.)
        const unsigned idle = channels & ~armed_channels() & ~unsigned(unprimed_);
        if (idle == 0 || !is_attached_)
            return false;
        is_forgetting_ = true;
        const int units = arm_all(idle);
        is_forgetting_ = false;
        if (units == 0) // a waker has fired, which has a unit of its own
            return false;
        settle(units - 1);
        return true;
    }

    /// Takes the handle out of the reactor. The wakers that were armed come back now, or through
    /// the scheduler, for which they are prepaid. If the number is not `ours` any more, it is not
    /// passed to the kernel.
    void detach(bool ours) {
        if (!is_attached_)
            return;
        number n = number::foreign;
        if (ours) {
            error_code ec;
            if (Policy::identify(handle_, ec) == identity_)
                n = number::ours;
            else if (ec)
                n = number::closed;
        }
        if (!port_type::detaches_at_once(n))
            for (channel c : {read_channel, write_channel, edge_channel})
                prepay(c);
        if (!host_.is_alone())
            host_.port.note_older_event(data_);
        const bool was_held = is_held_;
        is_held_ = true;
        host_.port.detach(handle_, identity_, data_, n, read_, write_, edge_.get());
        is_attached_ = false;
        is_held_ = was_held;
        if (!is_held_ && are_idle())
            intrusive_ptr_release(&state()); // not the last: the caller has one
    }

    /// The reactor is going, and gives the wakers back by itself.
    void abandon_reactor() noexcept {
        if (is_attached_ && are_idle())
            intrusive_ptr_release(&state()); // as above
        is_attached_ = false;
    }

    void renew_edges() { host_.port.renew_edges(handle_, data_); }

    State& state() noexcept { return static_cast<State&>(*this); }
    const State& state() const noexcept { return static_cast<const State&>(*this); }

    host_type& host_;
    mutable typename Policy::mutex mutex_; // guards all of the state
    int duplicate_of_ = -1;                // the caller's handle, if ours is a duplicate of it

private:
    template <channel C>
    using waker_type = typename Policy::template waker<handle_wakers, C>;

    unsigned armed_channels() const noexcept {
        return (wakers_[read_channel].is_idle() ? 0 : bit(read_channel)) |
               (wakers_[write_channel].is_idle() ? 0 : bit(write_channel)) |
               (wakers_[edge_channel].is_idle() ? 0 : bit(edge_channel));
    }
    bool are_idle() const noexcept { return armed_channels() == 0; }

    /// Whether an event may be one that take_usual() is for.
    template <channel C>
    BOOST_FORCEINLINE bool is_usual(short told) const noexcept {
        if constexpr (C == edge_channel)
            return false;
        return is_attached_ && !wakers_[C].is_prepaid() && !unverified_.contain(C) &&
               wakers_[edge_channel].is_idle() &&
               (!port_type::tells_events || told == events_of(C));
    }

    template <channel C>
    BOOST_FORCEINLINE bool complete_usual(short told) {
        scheduler_item* first;
        {
            basic_lock lock(mutex_);
            first = is_usual<C>(told) ? state().template take_usual<C>() : nullptr;
            if (BOOST_UNLIKELY(!first))
                return false;
            wakers_[C].come_back();
            idle_events_ = 0;
            if constexpr (port_type::latches_events)
                if (BOOST_LIKELY(arm_at_once<C>(false) != 0)) // the scheduler takes the operation's
                    host_.port.work_finished();
        }
        first->complete(this, error_code(), 0);
        return true;
    }
    /// Beside other threads, an event may be older than a level-triggered wait.
    template <channel C>
    BOOST_NOINLINE void fired_unusually(short told) {
        if (host_.is_loop_thread() || !host_.knows_loop() || state().mode() != trigger::edge ||
            !complete_usual<C>(told))
            fired(C, error_code(), told);
    }

    /// Any event or error that is not a usual one.
    void fired(channel c, const error_code& ec, short told) {
        const auto threads = host_.note_thread();
        scheduler_item* first;
        boost::intrusive_ptr<State> last;
        {
            basic_lock lock(mutex_);
            // What this thread fetched before anybody knew of it may be of an earlier handle.
            if (threads == host_type::threads::not_known_so_far)
                unverified_.add(c);
            const int owed = wakers_[c].come_back();
            is_held_ = true;
            first = handle(c, ec, told, owed, threads == host_type::threads::one);
            is_held_ = false;
            if (!is_attached_ && are_idle())
                last.reset(&state(), false); // the reactor's reference
        }
        if (first)
            first->complete(this, error_code(), 0);
    }

    /// Whether there is something to fire for, as the reactor asks while a waker is being armed.
    BOOST_NOINLINE bool is_told_while_arming(channel c, error_code& ec) noexcept {
        const bool is_first = (unprimed_ & bit(c)) != 0; // since the handle was attached
        if (!is_first && port_type::latches_events) {    // there was an event since the waker fired
            if (is_forgetting_)
                latched_ = narrow(latched_ | bit(c));
            return true;
        }
        return state().is_due(c, ec);
    }

    void need_edge_waker() {
        if (!edge_)
            edge_ = std::make_unique<waker_type<edge_channel>>(this);
    }
    error_code watch_edges(short edges) {
        need_edge_waker();
        return name_error(host_.port.watch_edges(handle_, data_, edges));
    }

    scheduler_item* handle(channel c, error_code ec, short told, int owed, bool alone) {
        int balance = -owed;
        const bool is_old = (latched_ & bit(c)) != 0;
        latched_ = narrow(latched_ & ~bit(c));
        if (BOOST_UNLIKELY(is_old && !ec)) {
            balance += is_attached_ ? keep_armed(c, false, true) : 0;
            settle(balance);
            return nullptr;
        }
        if (host_.port.says_nothing(data_, ec))
            ec = error_code();
        if constexpr (port_type::has_edge_set)
            if (!ec && c == edge_channel)
                told = host_.port.take_edges(data_);
        // What was latched while the waker was firing may be of any time.
        scheduler_item* first = state().on_event(c, name_error(ec), told, alone && owed != 0);
        unverified_.remove(c);
        if (ec && ec != boost::asio::error::operation_aborted && c == write_channel)
            unprimed_ = narrow(unprimed_ | bit(c)); // perhaps EPOLL_CTL_MOD has failed
        balance += first != nullptr;                // its unit
        if (is_attached_)
            balance += keep_armed(c, !ec && first, !ec && !first);
        settle(balance);
        return first;
    }

    /// After the waker of `c` came back: arms what the pending operations need. Where the reactor
    /// reports events whether anybody waits or not, the waker stays armed to count them, and an
    /// idle handle leaves the reactor. Returns the units of work that are to spare.
    int keep_armed(channel c, bool is_handled, bool is_unhandled) {
        unsigned need = state().channels_needed();
        if constexpr (port_type::latches_events) {
            if (is_handled) {
                idle_events_ = 0;
                need |= bit(c);
            } else if (is_unhandled && need == 0) {
                if (++idle_events_ == idle_limit && state().may_leave_reactor()) {
                    state().leave_reactor();
                    return 0;
                }
                need |= bit(c);
            }
        }
        int units = 0;
        error_code ec;
        BOOST_TRY {
            if constexpr (port_type::has_edge_set)
                if (need & bit(edge_channel))
                    ec = watch_edges(state().edges_needed());
            if (!ec)
                units = arm_all(need);
        }
        BOOST_CATCH(...) { ec = boost::asio::error::no_memory; }
        BOOST_CATCH_END
        if (ec)
            state().fail_all(need & ~armed_channels(), ec);
        return units;
    }

    void settle(int balance) {
        if (balance < 0)
            host_.port.compensate();
        for (; balance > 0; --balance)
            host_.port.work_finished();
    }

    /// Arms those of some channels' wakers that are idle. Returns the units of work to spare.
    int arm_all(unsigned channels) {
        units_frame units{*this};
        if ((channels & bit(read_channel)) && wakers_[read_channel].is_idle())
            units.count += arm_reader();
        if ((channels & bit(write_channel)) && wakers_[write_channel].is_idle())
            units.count += arm<write_channel>();
        if ((channels & bit(edge_channel)) && wakers_[edge_channel].is_idle())
            units.count += arm<edge_channel>();
        return std::exchange(units.count, 0);
    }

    /// Gives back what was counted, if arming another waker throws.
    struct units_frame {
        handle_wakers& self;
        int count = 0;
        ~units_frame() { self.settle(count); }
    };

    /// Beside a waker for priority events, epoll reports what is unread when a reader is armed. If
    /// it may have done so before, that waker comes back first, and is armed again after the
    /// reader.
    int arm_reader() {
        if constexpr (port_type::reports_again_beside_priority)
            if (wakers_[edge_channel].is_armed() && !is_new_) {
                prepay(edge_channel);
                host_.port.disarm(edge_channel, *edge_, handle_, data_);
            }
        return arm<read_channel>();
    }

    /// Puts an idle waker into the reactor. Returns the units of work to spare.
    template <channel C>
    BOOST_FORCEINLINE int arm() {
        // (Reactors with an edge-triggered set do not ask.)
        if (!port_type::has_edge_set &&
            (!port_type::latches_events || is_forgetting_ || (unprimed_ & bit(C)) != 0))
            return arm_asked<C>();
        return arm_at_once<C>(false);
    }
    template <channel C>
    BOOST_FORCEINLINE int arm_at_once(bool is_asked) {
        waker_arming arming(wakers_[C], is_asked, port_type::arming_may_throw);
        host_.port.arm(C, waker<C>(), handle_, data_);
        return arming.finish();
    }
    /// The reactor asks, in speculate(), whether there is something to fire for.
    template <channel C>
    BOOST_NOINLINE int arm_asked() {
        struct asked_frame {
            handle_wakers& self;
            ~asked_frame() {
                Policy::arming() = nullptr;
                self.unprimed_ = narrow(self.unprimed_ & ~bit(C));
            }
        } asked{*this};
        Policy::arming() = &wakers_[C];
        return arm_at_once<C>(true);
    }

    template <channel C>
    auto& waker() noexcept {
        if constexpr (C == read_channel)
            return read_;
        else if constexpr (C == write_channel)
            return write_;
        else
            return *edge_;
    }

    void prepay(channel c) {
        if (wakers_[c].prepay() != 0)
            host_.port.work_started();
    }

    /// If the reactor can, it has the waker of `first` before it has the handle.
    error_code attach(channel first) {
        // Wakers that still fire for an earlier attachment have the reactor's reference.
        unsigned firing = armed_channels();
        const attaching_frame frame{*this, firing != 0};
        is_held_ = true;
        bool arms = port_type::attach_arms_waker && wakers_[first].is_idle();
        error_code ec = attach(first, arms);
        if (ec == boost::system::errc::file_exists &&
            host_.port.delete_abandoned(handle_, identity_)) {
            firing = armed_channels();
            arms = arms && wakers_[first].is_idle(); // an event of an earlier handle may fire it
            ec = attach(first, arms);
        }
        if (ec)
            return ec == boost::system::errc::file_exists
                       ? make_error_code(error::registered_elsewhere)
                       : ec;
        has_data_ = is_attached_ = true;
        unprimed_ = all_channels & ~(arms ? bit(first) : 0);
        idle_events_ = 0;
        latched_ = 0;
        const bool are_all =
            Policy::wakes_for_more(handle_, identity_) || host_.port.may_tell_of_others(data_);
        unverified_.attached(
            firing, are_all || host_.port.may_tell_of_older(data_, host_.is_alone()), are_all);
        return ec;
    }
    struct attaching_frame {
        handle_wakers& self;
        bool has_reference;
        ~attaching_frame() {
            self.is_held_ = false;
            if (!has_reference && (self.is_attached_ || !self.are_idle()))
                intrusive_ptr_add_ref(&self.state());
        }
    };

    error_code attach(channel first, bool arms) {
        if (!arms)
            return host_.port.attach(handle_, data_, first, static_cast<decltype(&read_)>(nullptr));
        waker_arming arming(wakers_[first], false, true);
        error_code ec = first == edge_channel
                            ? host_.port.attach(handle_, data_, first, edge_.get())
                            : host_.port.attach(handle_, data_, first, &read_);
        arming.keep(); // on an error the reactor has dropped the waker, or fired it before
        return ec;
    }

    typename port_type::registration_data data_{};
    int handle_ = -1;
    waker_state<Policy::template atomic> wakers_[channel_count];
    std::uint8_t unprimed_ = 0; // channels whose waker was not armed since attach()
    unverified_events unverified_;
    std::uint8_t latched_ = 0; // channels whose waker is firing for an event that is no news
    std::uint8_t idle_events_ = 0;
    bool is_attached_ : 1;
    bool has_data_ : 1;
    bool is_new_ : 1;        // the handle was attached just now
    bool is_forgetting_ : 1; // an event that the reactor remembers is no news
    bool is_held_ : 1;       // whoever runs releases the reactor's reference
    waker_type<read_channel> read_;
    waker_type<write_channel> write_;
    std::unique_ptr<waker_type<edge_channel>> edge_; // few need it
    file_identity identity_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_HANDLE_WAKERS_HPP
