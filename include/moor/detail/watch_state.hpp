//
// moor/detail/watch_state.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What a watcher and its pending waits share. The waits are level-triggered waits of a
// registration. In most cases there is one, for the interest. If the interest becomes wider,
// another wait begins beside it. A wait that has its event is followed by another one after the
// handler has returned.
//
//   interest_     wanted now
//   asked_        what pending waits ask for: if a part of the interest is missing, another wait
//                 begins (settle)
//   ready_        what waits were told and the handler was not
//   number_       incremented to invalidate the pending waits: a completion with an older number
//                 is ignored
//   deadline_     the timer runs until the deadline or the end of a pause, whichever is earlier
//
// Invariants
//   1. The executor guards every member but units_, is_lost_ and references_. Only the context's
//      shutdown changes executor_ and is_over_. A wait comes back in the scheduler's loop, gives
//      its unit of work back there, and goes on in the executor (resume).
//   2. The handler is called from the executor's turn of a wait or of the timer, or from a posted
//      function: never from a member. While it runs, no wait of the registration begins: settle()
//      follows. (The timer's wait may begin at once.)
//   3. If several waits have their events, the last one of them that comes back calls the handler.
//   4. Each pending wait, and the timer's, counts as one unit of outstanding work. With
//      keeps_running(false), units_ hides all of them, at the latest when hide_later has run.
//

#ifndef MOOR_DETAIL_WATCH_STATE_HPP
#define MOOR_DETAIL_WATCH_STATE_HPP

#include <moor/detail/held_executor.hpp>
#include <moor/detail/hideable_work.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/detail/loop_executor.hpp>
#include <moor/detail/watch_handler.hpp>
#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace moor {
namespace detail {

template <class Executor>
class watch_state final : private shutdown_listener {
    using clock = std::chrono::steady_clock;
    using registration_type = basic_registration<loop_executor>;
    using timer_type =
        boost::asio::basic_waitable_timer<clock, boost::asio::wait_traits<clock>, loop_executor>;

public:
    using ptr = boost::intrusive_ptr<watch_state>;
    using time_point = clock::time_point;
    static constexpr time_point never = (time_point::max)();

    explicit watch_state(const Executor& ex)
        : shutdown_listener(&watch_state::context_shuts_down), context_(context_of(ex)),
          registration_(loop_executor(context_)), core_(registration_.core_), executor_(ex, *core_),
          units_(core_->port), is_over_(!executor_.is_held()) {
        if (!is_over_)
            core_->add_listener(*this);
    }
    watch_state(const watch_state&) = delete;
    watch_state& operator=(const watch_state&) = delete;

    friend void intrusive_ptr_add_ref(watch_state* s) noexcept {
        s->references_.fetch_add(1, std::memory_order_relaxed);
    }
    friend void intrusive_ptr_release(watch_state* s) noexcept {
        if (s->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            delete s;
    }

    const Executor& executor() const noexcept { return executor_.value(); }
    int native_handle() const noexcept { return registration_.native_handle(); }
    interest wanted() const noexcept { return interest_; }
    bool is_stopped() const noexcept { return is_stopped_; }
    void name(std::string text) { registration_.name(std::move(text)); }

    // ---- what the watcher's members do ----------------------------------------------------------

    void set_handler(std::unique_ptr<watch_handler> h) {
        if (is_stopped_ || is_over_)
            return;
        handler_.swap(h); // an old one that does not run is destroyed at the end
        is_replaced_ = true;
        if (is_timed_out_ || is_poked_)
            post_go_on();
        settle();
    }

    void set_interest(interest i) {
        if (is_stopped_)
            return;
        interest_ = i;
        settle();
    }

    void expire_at(time_point t) {
        if (is_stopped_)
            return;
        deadline_ = t;
        is_timed_out_ = false;
        if (is_lost_.load(std::memory_order_relaxed))
            settle(); // recovers
        settle_timer();
    }

    void reset(int handle, const registration_options& options, error_code& ec) {
        if (!may_register(options, ec))
            return;
        forget_waits();
        registration_.reset(handle, options, ec);
        settle();
    }

    bool renew(int handle, const registration_options& options, error_code& ec) {
        if (!may_register(options, ec))
            return false;
        if (waits_ != 0)
            show_units(); // they may be cancelled
        bool is_new = false;
        BOOST_TRY { is_new = registration_.renew(handle, options, ec); }
        BOOST_CATCH(...) {
            forget_waits();
            BOOST_RETHROW
        }
        BOOST_CATCH_END
        if (is_new || ec)
            forget_waits();
        settle();
        hide_units();
        return is_new;
    }

    int detach() noexcept {
        forget_waits();
        const int handle = registration_.deregister();
        end_pause_without_handle();
        return handle;
    }

    void abandon() noexcept {
        forget_waits();
        registration_.abandon();
        end_pause_without_handle();
    }

    void stop() noexcept {
        is_stopped_ = true;
        interest_ = interest();
        deadline_ = never;
        is_timed_out_ = is_paused_ = is_poked_ = false;
        cancel_timer();
        detach();
        drop_handler();
    }

    /// The handler is called without an event: soon, once for many pokes; or now, if it may be.
    void poke(bool may_call = false) {
        if (is_stopped_)
            return;
        may_call = may_call && !is_calling_ && !is_anything_left();
        is_poked_ = true;
        if (may_call)
            deliver();
        else if (!is_calling_)
            post_go_on();
    }

    void forget_poke() noexcept { is_poked_ = false; }

    void keep_running(bool keeps) {
        keeps_running_ = keeps;
        if (is_over_)
            return;
        units_.set_hides(!keeps);
        hide_units();
    }

    void limit_rate(std::size_t calls, clock::duration interval) {
        rate_ = call_rate(calls, interval);
        if (std::exchange(is_paused_, false)) {
            settle_timer();
            settle();
        }
    }

    /// In the loop.
    void hide_now() { units_.hide(); }

    static time_point after(clock::duration d) noexcept { return later(clock::now(), d); }

private:
    /// What came: a wait or the timer is over, or a posted function is to go on.
    struct event {
        ptr self;
        std::uint32_t number = 0;
        interest asked; // of a wait
        error_code ec{};
        ready_event ready{};
        void (watch_state::*handle)(const event&) = nullptr;

        using allocator_type = boost::asio::recycling_allocator<void>;
        allocator_type get_allocator() const noexcept { return allocator_type(); }

        void operator()() { ((*self).*handle)(*this); }
    };

    /// The handler of a wait.
    struct wait_is_over {
        ptr self;
        std::uint32_t number;
        interest asked;

        void operator()(const error_code& ec, const ready_event& ready) {
            watch_state& s = *self;
            s.units_.completed();
            s.resume({std::move(self), number, asked, ec, ready, &watch_state::note_wait});
        }
    };

    /// The handler of the timer's wait.
    struct timer_is_over {
        ptr self;
        std::uint32_t number;

        void operator()(const error_code& ec) {
            watch_state& s = *self;
            s.units_.completed();
            if (ec != boost::asio::error::operation_aborted)
                s.resume({std::move(self), number, interest(), error_code(), ready_event(),
                          &watch_state::note_time});
        }
    };

    ~watch_state() {
        if (!is_over_)
            core_->remove_listener(*this);
    }

    bool may_register(const registration_options& options, error_code& ec) const noexcept {
        if (is_stopped_)
            ec = error::not_registered;
        else if (options.mode != trigger::level)
            ec = boost::asio::error::invalid_argument;
        else
            return true;
        return false;
    }

    // ---- executors ------------------------------------------------------------------------------

    /// Goes on in the executor.
    void resume(event e) {
        if (is_over_)
            return;
        if (executor_.is_plain())
            return e();
        const ptr self = e.self; // the handler may run in dispatch(), end the watch and throw
        BOOST_TRY { boost::asio::dispatch(executor_.value(), std::move(e)); }
        BOOST_CATCH(...) {
            is_lost_.store(true, std::memory_order_relaxed);
            BOOST_RETHROW
        }
        BOOST_CATCH_END
    }

    /// Has go_on() called in another turn, once: or else each event beside a poke would add one.
    void post_go_on() {
        if (is_over_ || std::exchange(is_posted_, true)) // first: it may be called at once
            return;
        BOOST_TRY {
            boost::asio::post(executor_.value(),
                              event{ptr(this), 0, {}, {}, {}, &watch_state::go_on});
        }
        BOOST_CATCH(...) { // then the next poke posts
            is_posted_ = false;
            BOOST_RETHROW
        }
        BOOST_CATCH_END
    }

    void hide_units() {
        if (keeps_running_ || is_over_)
            return;
        if (core_->port.runs_here())
            return units_.hide();
        auto later = std::make_unique<hide_later<ptr>>(ptr(this));
        if (units_.must_post())
            core_->port.post_new(later.release());
    }

    void show_units() noexcept {
        if (!is_over_)
            units_.show();
    }

    /// A completion was lost for want of memory: begins the waits again.
    void recover() {
        if (!is_lost_.load(std::memory_order_relaxed))
            return;
        is_lost_.store(false, std::memory_order_relaxed);
        cancel_waits();
        cancel_timer();
        settle_timer();
    }

    // ---- waiting --------------------------------------------------------------------------------

    /// Begins the waits that are missing, and ends those that nobody needs.
    void settle() {
        if (is_calling_)
            return;
        recover();
        if (is_paused_)
            settle_timer();
        if (interest_.empty() || !handler_ || is_paused_)
            return cancel_waits();
        if ((interest_ - asked_.all()).empty() || !registration_.is_registered() || is_over_)
            return;
        // For all that is wanted, although older waits have a part of it: so one check of the
        // handle, and one call, has everything that is ready.
        begin([&] {
            registration_.async_wait(interest_, wait_is_over{ptr(this), number_, interest_});
        });
        asked_.add(interest_);
        ++waits_;
        hide_units();
    }

    /// Begins an operation, which may be over on another thread before this returns.
    template <class F>
    void begin(F f) {
        units_.starting();
        BOOST_TRY { f(); }
        BOOST_CATCH(...) {
            units_.not_started();
            BOOST_RETHROW
        }
        BOOST_CATCH_END
    }

    /// The pending waits are not to be heard any more.
    void forget_waits() noexcept {
        if (waits_ != 0)
            show_units(); // they are about to be cancelled
        ++number_;
        waits_ = 0;
        asked_ = asked_interests();
        ready_ = readiness();
        error_ = error_code();
    }

    void cancel_waits() {
        const bool are_pending = waits_ != 0;
        forget_waits();
        if (are_pending)
            registration_.cancel();
    }

    void note_wait(const event& e) {
        if (e.number != number_)
            return;
        --waits_;
        asked_.remove(e.asked);
        if (e.ec)
            error_ = e.ec;
        is_one_event_ = ready_.empty();
        has_no_data_ = is_one_event_ && !e.ec && e.asked.is_readable() && !e.ready.is_readable();
        ready_ |= e.ready.ready();
        last_ = e.ready;
        if (waits_ == 0 || registration_.io_->info().waiters == waits_)
            deliver();
    }

    // ---- the deadline, and the end of a pause ---------------------------------------------------

    void settle_timer() {
        const bool is_pausing = is_paused_ && !interest_.empty() && registration_.is_registered();
        const time_point next = is_pausing ? (std::min)(deadline_, pause_end_) : deadline_;
        if (next == never)
            return cancel_timer();
        if (next >= timer_end_ || is_over_) // it comes back before, and settles again
            return;
        if (!timer_)
            timer_.emplace(loop_executor(context_));
        cancel_timer();
        timer_->expires_at(next);
        begin([&] { timer_->async_wait(timer_is_over{ptr(this), timer_number_}); });
        timer_end_ = next;
        hide_units();
    }

    void cancel_timer() {
        ++timer_number_;
        timer_end_ = never;
        if (timer_)
            timer_->cancel();
    }

    void note_time(const event& e) {
        if (e.number != timer_number_)
            return;
        timer_end_ = never;
        const time_point now = clock::now();
        if (is_paused_ && now >= pause_end_) {
            is_paused_ = false;
            rate_.restart();
        }
        if (now >= deadline_) {
            deadline_ = never;
            is_timed_out_ = true;
        }
        settle_timer();
        deliver();
    }

    /// Nothing keeps the loop running then, but a deadline.
    void end_pause_without_handle() noexcept {
        if (is_paused_ && deadline_ == never)
            cancel_timer();
    }

    // ---- calling the handler --------------------------------------------------------------------

    bool is_anything_left() const noexcept {
        return handler_ && (error_ || !(ready_ & interest_).empty() || is_timed_out_ || is_poked_);
    }

    void go_on(const event&) {
        is_posted_ = false;
        deliver();
    }

    /// Makes one call at most. What is left then waits for another turn of the executor.
    void deliver() {
        if (is_calling_)
            return;
        BOOST_TRY {
            if (!handler_)
                ready_ = readiness();
            else if (error_)
                call_with_error(std::exchange(error_, error_code()));
            else if (readiness now = std::exchange(ready_, readiness()) & interest_; !now.empty())
                call_with(now);
            else if (std::exchange(is_timed_out_, false))
                call(boost::asio::error::timed_out, readiness());
            else if (std::exchange(is_poked_, false))
                call(error_code(), readiness());
        }
        BOOST_CATCH(...) {
            after_call();
            BOOST_RETHROW
        }
        BOOST_CATCH_END
        after_call();
    }

    /// The watcher goes on, whatever the handler did.
    void after_call() {
        BOOST_TRY { settle(); }
        BOOST_CATCH(...) { error_ = boost::asio::error::no_memory; }
        BOOST_CATCH_END
        if (is_anything_left())
            post_go_on();
    }

    void call_with_error(error_code ec) {
        interest_ = interest();
        cancel_waits();
        call(ec, readiness());
    }

    void call_with(readiness now) {
        if (!is_within_limit())
            return static_cast<void>(call(error::rate_limited, readiness()));
        const std::uint32_t number = number_;
        const ready_event told = last_.only(now);
        const bool is_all = is_one_event_, has_no_data = has_no_data_;
        const bool has_drained = call(error_code(), now);
        if (number != number_)
            return;
        if (has_drained && is_all)
            registration_.io_->note_call_would_block(told, now);
        if (has_no_data)
            registration_.io_->note_no_data(told);
    }

    /// The closure lives until it returns, whatever it does to its watcher.
    bool call(const error_code& ec, readiness ready) {
        struct frame {
            watch_state& state;
            std::unique_ptr<watch_handler> handler;

            explicit frame(watch_state& s) : state(s), handler(std::move(s.handler_)) {
                state.is_calling_ = true;
                state.is_replaced_ = false;
            }
            ~frame() {
                state.is_calling_ = false;
                if (!state.is_replaced_ && !state.is_stopped_ && !state.is_over_)
                    state.handler_ = std::move(handler);
            }
        } f(*this);
        return f.handler->call(ec, ready);
    }

    /// False: a pause begins.
    bool is_within_limit() {
        if (rate_.count(pause_end_))
            return true;
        is_paused_ = true;
        settle();
        return false;
    }

    void drop_handler() noexcept {
        const std::unique_ptr<watch_handler> h = std::move(handler_); // its end may call members
    }

    /// Handlers are destroyed then, so that one that owns its watcher goes, too.
    static void context_shuts_down(shutdown_listener& l) noexcept {
        const ptr self(static_cast<watch_state*>(&l));
        self->is_over_ = true;
        self->timer_.reset();
        self->drop_handler();
    }

    boost::asio::execution_context& context_;
    registration_type registration_;
    service_core_ptr core_;
    held_executor<Executor> executor_;
    hideable_work units_;
    std::unique_ptr<watch_handler> handler_;

    interest interest_;
    asked_interests asked_;
    readiness ready_;
    error_code error_;
    ready_event last_;
    std::uint32_t number_ = 0;
    std::size_t waits_ = 0;

    std::optional<timer_type> timer_;
    std::uint32_t timer_number_ = 0;
    time_point timer_end_ = never; // of the pending wait
    time_point deadline_ = never, pause_end_ = never;

    call_rate rate_;

    bool keeps_running_ = true;
    bool is_one_event_ = false; // ready_ is of last_ alone
    bool has_no_data_ = false;  // and there were none, although they were asked for
    bool is_calling_ = false;
    bool is_replaced_ = false; // the handler, while it runs
    bool is_timed_out_ = false;
    bool is_poked_ = false;
    bool is_posted_ = false; // go_on()
    bool is_paused_ = false;
    bool is_stopped_ = false;
    bool is_over_; // the context shuts down

    std::atomic<bool> is_lost_{false}; // a wait, or the timer's, for want of memory
    std::atomic<std::uint32_t> references_{0};
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WATCH_STATE_HPP
