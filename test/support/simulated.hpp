// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A handle's state on a simulated kernel, reactor and scheduler, one step at a time: the test
// decides when the reactor fetches events, which thread takes an item of the scheduler, and when
// that thread runs the item.
//
// The reactor is Asio's on epoll, with a context that several threads may run. Left out: the
// reactors that report levels (and with them the edge-triggered set), concurrency hint 1, files
// that can't be polled, errors of epoll_ctl other than EEXIST and ENOENT, forks. A step runs
// without an interruption by another thread. With one thread, Asio fetches again only behind the
// events of the fetch before; fetch() leaves that order to the test.

#ifndef MOOR_TEST_SUPPORT_SIMULATED_HPP
#define MOOR_TEST_SUPPORT_SIMULATED_HPP

#include "support/simulated_kernel.hpp"
#include "support/simulated_reactor.hpp"

#include <moor/detail/deferred_checks.hpp>
#include <moor/detail/scheduled_io.hpp>

#include <boost/asio/execution_context.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <poll.h>

namespace test {
namespace simulated {

using moor::interest;

inline short no_events_told(reactor_op&) noexcept { return 0; }

template <class Owner, detail::channel C>
class waker : public reactor_op,
              private detail::waker_return<reactor_op, Owner, C, no_events_told> {
public:
    explicit waker(Owner* owner) : reactor_op(&waker::do_perform, &waker::do_complete) {
        cancellation_key_ = owner;
    }

private:
    static bool do_perform(reactor_op* op) {
        return waker::owner_of(op)->template speculate<C>(op->ec_);
    }
};

struct policy {
    using state = detail::basic_scheduled_io<policy>;
    using port = simulated::port;
    using mutex = simulated::mutex;
    template <class T>
    using atomic = simulated::atomic<T>;
    template <class Owner, detail::channel C>
    using waker = simulated::waker<Owner, C>;

    static int poll(int handle, short events, error_code& ec) noexcept {
        short found = 0;
        ec = kernel::get().poll(handle, events, found) ? error_code()
                                                       : boost::asio::error::bad_descriptor;
        return found;
    }
    static detail::file_identity identify(int handle, error_code& ec) noexcept {
        detail::file_identity id;
        ec = kernel::get().identify(handle, id) ? error_code() : boost::asio::error::bad_descriptor;
        return id;
    }
    static detail::pipe_end identify_pipe_end(int handle, const detail::file_identity&) noexcept {
        file* f = kernel::get().find(handle);
        return f ? f->end : detail::pipe_end::none;
    }
    static bool is_always_ready(int, const detail::file_identity&) noexcept { return false; }
    static bool tells_state(int handle, const detail::file_identity&) noexcept {
        file* f = kernel::get().find(handle);
        return f && f->is_sticky;
    }
    static bool wakes_for_more(int, const detail::file_identity&) noexcept { return false; }
    static const void* this_thread() noexcept { return thread::current(); }
    static const void*& arming() noexcept { return thread::current()->arming; }
};

using state = policy::state;
using state_ptr = boost::intrusive_ptr<state>;

struct context_owner {
    boost::asio::execution_context context;
};

/// The service of the states, which deletes a state that nobody refers to.
class host final : private context_owner, public detail::basic_scheduled_io_host<policy> {
public:
    host() : basic_scheduled_io_host(context) {}
    ~host() {
        deferred_.clear();
        port.abandon();
    }

    state_ptr open(const file& f, moor::trigger mode) {
        state* s = *states_.insert(new state(*this)).first;
        s->open(f.number, f.id, mode);
        return s;
    }

    /// How many states nobody refers to any more.
    int recycled = 0;
    /// Whether this state was not recycled.
    bool has(state* s) const { return states_.count(s) != 0; }

    bool context_exists() const noexcept override { return true; }

    void recycle(state& s) noexcept override {
        ++recycled;
        s.release_data(true);
        if (states_.erase(&s) == 0)
            port.note("recycled twice");
        else
            delete &s;
    }

    /// Whether readiness checks are deferred until check_deferred().
    bool defers = false;

    /// The same, but in the loop, as in a program.
    void defer_in_loop() { checks_.emplace(*this, detail::deferral_pacing(0)); }

    static int poll(::pollfd* polls, ::nfds_t n) noexcept {
        int ready = 0;
        for (::nfds_t i = 0; i != n; ++i) {
            if (!kernel::get().poll(polls[i].fd, polls[i].events, polls[i].revents))
                polls[i].revents = POLLNVAL;
            ready += polls[i].revents != 0;
        }
        return ready;
    }
    friend void intrusive_ptr_add_ref(host*) noexcept {} // the host outlives what is queued
    friend void intrusive_ptr_release(host*) noexcept {}

    bool defer(state& s, bool is_listed) noexcept override {
        if (checks_)
            return checks_->defer(s, is_listed);
        if (defers && !is_listed)
            deferred_.emplace_back(&s);
        return defers;
    }
    void check_deferred(bool may_wait = true) {
        for (state_ptr s : std::exchange(deferred_, {})) {
            short events = 0;
            std::size_t released = 0;
            error_code ec;
            if (!s->take_deferred(may_wait, events, released))
                deferred_.push_back(s);
            else if (events != 0 && (policy::poll(s->native_handle(), events, ec) != 0 || ec))
                s->check_pending();
        }
    }

private:
    std::set<state*> states_;
    std::vector<state_ptr> deferred_;
    std::optional<detail::deferred_checks<host, state, simulated::mutex>> checks_;
};

/// A wait that can be cancelled alone, a waker of the polling interface, an operation with a call,
/// or a transfer.
class operation : public detail::waiter {
public:
    /// False: the call would have blocked.
    using call_type = std::function<bool()>;
    /// What the next call waits for; nothing: it is done.
    using changing_call_type = std::function<interest()>;
    /// Under a lock or not. `not_made` under a lock: it may block.
    using transfer_type = std::function<detail::transferred(bool is_locked)>;

    operation(state_ptr s, interest want, detail::purpose why = detail::purpose::wait)
        : waiter(&operation::do_complete, want, why), state_(std::move(s)),
          is_slot_(why != detail::purpose::wait) {}
    operation(state_ptr s, interest want, call_type call)
        : waiter(&operation::do_complete, want, detail::purpose::io), state_(std::move(s)),
          call_(std::move(call)), is_slot_(false) {}
    operation(state_ptr s, interest want, changing_call_type call)
        : waiter(&operation::do_complete, want, detail::purpose::io), state_(std::move(s)),
          changing_call_(std::move(call)), is_slot_(false) {}
    operation(state_ptr s, interest want, transfer_type transfer)
        : waiter(&operation::do_complete, want, detail::purpose::io), state_(std::move(s)),
          transfer_(std::move(transfer)), is_slot_(false) {}

    void start() {
        state& s = *state_;
        set_id(cancellation_id_ = s.next_id());
        if (s.mode() == moor::trigger::edge && !is_slot_)
            set_goes_on();
        is_begun_ = true;
        port& p = s.host().port;
        if (transfer_)
            start_transfer(s);
        else if (!s.start(*this))
            has_unit() ? p.post_counted(this) : p.post_new(this);
        ++p.operations; // which has its work by now, and may be over
    }
    void cancel() {
        if (state_ptr s = state_)
            s->cancel(cancellation_id_);
    }

    std::function<void()> when_over; ///< the handler

    bool is_pending() const { return is_begun_ && !is_over_; }
    bool is_over() const { return is_over_; }
    bool is_call() const { return call_ || changing_call_ || transfer_; }
    bool has_failed_with(const error_code& e) const { return is_over_ && ec() == e; }
    bool was_told(moor::readiness r) const { return is_over_ && !ec() && event().ready() == r; }

private:
    static void do_complete(void* scheduler, detail::scheduler_item* i, const error_code&,
                            std::size_t) {
        static_cast<operation*>(i)->come_back(scheduler != nullptr);
    }

    /// As basic_registration does.
    void start_transfer(state& s) {
        is_made_ = want() == interest::readable
                       ? s.transfer_at_once<detail::read_channel>(transfer_call{transfer_})
                       : s.transfer_at_once<detail::write_channel>(transfer_call{transfer_});
        if (!is_made_)
            set_takes_turns();
        if (is_made_ || !s.start_transfer(*this))
            s.host().port.post_new(this);
    }
    struct transfer_call {
        const transfer_type& transfer;

        detail::transferred make() const { return transfer(true); }
        void prepare_unlocked() const {}
        detail::transferred make_unlocked() const { return transfer(false); }
    };

    /// False: it would have blocked.
    bool make_call(state& s) {
        if (call_)
            return !s.may_run(*this) || call_();
        if (changing_call_)
            return !s.may_run(*this) || (next_ = changing_call_()).empty();
        const transfer_call call{transfer_};
        return (want() == interest::readable
                    ? s.transfer_in_turn<detail::read_channel>(*this, call)
                    : s.transfer_in_turn<detail::write_channel>(*this, call)) !=
               detail::transferred::would_block;
    }

    void come_back(bool runs) {
        state_ptr s = state_;
        if (is_call() && !is_made_) {
            if (runs && !ec() && !make_call(*s)) {
                if (s->restart(*this, next_))
                    return;
                if (!ec())
                    return s->host().port.post_new(this); // something newer has come
            }
            s->finish(*this);
        } else if (s->mode() == moor::trigger::edge && !is_slot_ && !is_call()) {
            s->finish_wait(*this);
        }
        state_.reset();
        if (std::exchange(is_over_, true))
            s->host().port.note("an operation is over twice");
        --s->host().port.operations;
        if (runs && when_over)
            when_over();
    }

    state_ptr state_;
    call_type call_;
    changing_call_type changing_call_;
    interest next_;
    transfer_type transfer_;
    bool is_slot_;
    bool is_made_ = false; // before it could wait
    std::uint64_t cancellation_id_ = 0;
    bool is_begun_ = false;
    bool is_over_ = false;
};

/// One handle, registered, with its operations. At the end, all has to be given back.
struct handle {
    explicit handle(moor::trigger mode, short events = 0, bool tells_state = true)
        : on(3, events, tells_state), state(host.open(on, mode)) {}
    ~handle() {
        std::string wrong = end();
        BOOST_TEST(wrong == "");
    }

    template <class... Call>
    operation& make_operation(interest want, Call... call) {
        return operations.emplace_back(state, want, call...);
    }
    bool is_attached() const { return state->info().attached; }

    void fetch_and_run_one() {
        BOOST_TEST(host.port.fetch());
        host.port.run_one();
    }
    /// An event comes, and another thread handles the reactor's item at once.
    void raise_and_handle(thread& other, short events) {
        on_thread current(other);
        on.raise(events);
        BOOST_TEST(host.port.fetch());
        host.port.run(host.port.take_newest());
    }
    /// Until nothing is left to do.
    void run() {
        for (int steps = 0; host.port.queued() != 0 || host.port.fetch(); ++steps) {
            BOOST_REQUIRE(steps < 100);
            if (host.port.queued() != 0)
                host.port.run_one();
        }
    }

    /// The registration ends. The number is passed to the kernel if it is `ours`.
    void deregister(bool ours) {
        if (state)
            state->close(policy::state::deregistered, ours);
        state.reset();
    }
    /// What is wrong when all is over.
    std::string end() {
        if (state && host.recycled >= opened)
            return "recycled while a registration refers to the state";
        deregister(true);
        run();
        if (std::any_of(operations.begin(), operations.end(),
                        [](const operation& op) { return op.is_pending(); }))
            return "an operation is pending";
        operations.clear();
        return host.port.defect()        ? host.port.defect()
               : host.port.work() != 0   ? "there is outstanding work"
               : host.recycled != opened ? "a reference is left"
                                         : "";
    }

    file on;
    simulated::host host;
    int opened = 1;
    state_ptr state;
    std::deque<operation> operations;
};

} // namespace simulated
} // namespace test

#endif
