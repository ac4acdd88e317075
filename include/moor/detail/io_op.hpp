//
// moor/detail/io_op.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Calls that may block, made when the handle is ready, and again after they would have blocked:
// what a callable returns, and the operation behind async_io.
//

#ifndef MOOR_DETAIL_IO_OP_HPP
#define MOOR_DETAIL_IO_OP_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor.hpp>
#include <moor/detail/scheduled_io.hpp>
#include <moor/detail/wait_op.hpp>
#include <moor/readiness.hpp>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/error.hpp>
#include <boost/core/no_exceptions_support.hpp>
#include <boost/system/result.hpp>

#include <optional>
#include <type_traits>
#include <utility>

namespace moor {
namespace detail {

/// What one call gave: an error, a value, and whether the handle is known to be drained.
template <class R>
struct io_outcome {
    error_code ec;
    std::optional<R> value;
    bool is_drained = false;
    bool is_short = false;

    template <class F>
    void call(F& f) {
        ec = error_code();
        value.emplace(f(ec));
    }
    boost::system::result<R> result() && {
        if (ec)
            return {boost::system::in_place_error, ec};
        return {boost::system::in_place_value, std::move(*value)};
    }
};

template <>
struct io_outcome<void> {
    error_code ec;
    bool is_drained = false;

    template <class F>
    void call(F& f) {
        ec = error_code();
        f(ec);
    }
    template <class V = void> // compiled where it is used only
    boost::system::result<V> result() && {
        if (ec)
            return ec;
        return {};
    }
};

template <class R>
struct io_outcome<drainable<R>> : io_outcome<R> {
    interest next; // after a call that would have blocked, if it says so

    template <class F>
    BOOST_FORCEINLINE void call(F& f) {
        this->ec = error_code();
        next = interest();
        auto d = f(this->ec);
        if (BOOST_UNLIKELY(d.next.has_value()) && !this->ec) {
            next = *d.next;
            this->ec = next.empty() ? boost::asio::error::invalid_argument
                                    : boost::asio::error::would_block;
            return;
        }
        this->is_drained = d.is_drained;
        if constexpr (!std::is_void<R>::value) {
            this->is_short = d.is_short;
            this->value.emplace(std::move(d.value));
        }
    }
};

/// What a call that would have blocked waits for, if it says so.
template <class R>
interest next_of(const io_outcome<R>&) noexcept {
    return interest();
}
template <class R>
interest next_of(const io_outcome<drainable<R>>& outcome) noexcept {
    return outcome.next;
}

/// A callable whose would-block says nothing of the handle.
template <class F>
struct asking_kernel {
    using asks_kernel = void;

    F f;

    decltype(auto) operator()(error_code& ec) { return f(ec); }
};

template <class F, class = void>
struct asks_kernel : std::false_type {};
template <class F>
struct asks_kernel<F, std::void_t<typename F::asks_kernel>> : std::true_type {};

template <class R>
struct io_value {
    using type = R;
};
template <class R>
struct io_value<drainable<R>> {
    using type = R;
};

/// What the callable returns, and what of it the caller receives.
template <class F>
using io_raw_result = std::decay_t<decltype(std::declval<F&>()(std::declval<error_code&>()))>;
template <class F>
using io_result = typename io_value<io_raw_result<F>>::type;

template <class R>
struct io_signature {
    using type = void(error_code, R);
};
template <>
struct io_signature<void> {
    using type = void(error_code);
};

template <class F>
using io_signature_of = typename io_signature<io_result<F>>::type;

/// The result of a call that was not made, or failed. (A result<bool> does not convert from an
/// error.)
template <class F>
struct io_failure {
    error_code ec;

    explicit io_failure(const error_code& e) noexcept : ec(e) {}
    operator boost::system::result<io_result<F>>() const noexcept {
        return {boost::system::in_place_error, ec};
    }
};

/// Whether a callable is one of Moor's own, which may run on any executor.
template <class F, class = void>
struct needs_no_executor : std::false_type {};
template <class F>
struct needs_no_executor<F, std::void_t<typename F::needs_no_executor>> : std::true_type {};

/// Whether it is a transfer: `scheduled_io` makes it, so that the number stays what it is
/// meanwhile. (Other callables see to that themselves.)
template <class F, class = void>
struct is_transfer : std::false_type {};
template <class F>
struct is_transfer<F, std::void_t<decltype(F::transfer_event)>> : std::true_type {};

/// Makes a transfer's call, and says what `scheduled_io` is to know.
template <class F>
class transfer_maker {
public:
    transfer_maker(F& f, typename F::parts_type& parts, io_outcome<io_raw_result<F>>& o) noexcept
        : transfer_(f), parts_(parts), outcome_(o) {}

    /// Under a lock, so `not_made` if the call may block.
    BOOST_FORCEINLINE transferred make() const noexcept {
        if (BOOST_UNLIKELY(transfer_.may_block()))
            return transferred::not_made;
        transferred t = make_on(transfer_.handle());
        return BOOST_UNLIKELY(t == transferred::would_block) && transfer_.may_block()
                   ? transferred::not_made
                   : t;
    }

    /// After `not_made`, still under the lock.
    void prepare_unlocked() const noexcept { own_handle_.duplicate(transfer_.handle()); }

    /// After that, under no lock.
    transferred make_unlocked() const noexcept {
        if (own_handle_.get() >= 0)
            return make_on(own_handle_.get());
        outcome_.ec = own_handle_.ec();
        return transferred::nothing;
    }

private:
    BOOST_FORCEINLINE transferred make_on(int handle) const noexcept {
        auto call = [&](error_code& ec) { return transfer_.call(handle, parts_, ec); };
        outcome_.call(call);
        if (outcome_.ec)
            return is_would_block(outcome_.ec) ? transferred::would_block : transferred::nothing;
        return outcome_.is_short ? transferred::part : transferred::all;
    }

    F& transfer_;
    typename F::parts_type& parts_;
    io_outcome<io_raw_result<F>>& outcome_;
    mutable duplicated_handle own_handle_;
};

/// Whether a callable returned -1 or the like without an error, as a call does that failed.
template <class R>
bool hides_an_error([[maybe_unused]] const io_outcome<R>& outcome) noexcept {
    if constexpr (std::is_signed<typename io_value<R>::type>::value)
        return !outcome.ec && *outcome.value < typename io_value<R>::type();
    else
        return false;
}

/// Makes the call that `event` allowed, and tells the state what the call showed. True: the
/// operation is over. False: the call would have blocked, and the state does not know yet. A call
/// that a signal interrupted is made again, if `may_repeat()`. `holds_work`: for an operation.
template <class F, class MayRepeat>
bool attempt(scheduled_io& state, const ready_event& event, interest want, F& f,
             io_outcome<io_raw_result<F>>& outcome, const MayRepeat& may_repeat,
             bool holds_work = false) {
    static_assert(!is_transfer<F>::value, "the state makes it");
    [[maybe_unused]] const call_watch<service_core, checks_use> watch(state);
    for (;;) {
        outcome.call(f);
        if (BOOST_LIKELY(outcome.ec.value() == 0))
            break;
        if (is_would_block(outcome.ec))
            return false;
        if (!is_interrupted(outcome.ec) || !may_repeat())
            return true;
    }
    check_result<service_core>(state, hides_an_error(outcome));
    if (outcome.is_drained)
        state.note_call_would_block(event, want);
    else if constexpr (!std::is_void<io_result<F>>::value)
        if (outcome.is_short)
            state.note_short_call(event, holds_work);
    return true;
}

/// A handler with its arguments.
template <class Handler, class R>
struct io_completion {
    Handler handler;
    error_code ec;
    std::optional<R> value;

    // An error comes with a value-initialised R, as Asio's own operations do.
    void operator()() { std::move(handler)(ec, value ? std::move(*value) : R()); }
};

template <class Handler>
struct io_completion<Handler, void> {
    Handler handler;
    error_code ec;

    void operator()() { std::move(handler)(ec); }
};

template <class R, class Handler, class Outcome>
io_completion<Handler, R> make_io_completion(Handler& handler, Outcome& outcome) {
    if constexpr (std::is_void<R>::value)
        return {std::move(handler), outcome.ec};
    else
        return {std::move(handler), outcome.ec, std::move(outcome.value)};
}

/// The operation's execution context is gone.
template <class F, class Handler>
void complete_io_without_context(Handler& handler) {
    io_outcome<io_raw_result<F>> outcome;
    outcome.ec = error::gone;
    complete_without_context(make_io_completion<io_result<F>>(handler, outcome));
}

template <class F, class Handler, class IoExecutor>
class io_op final : public waiter {
    using outcome_type = io_outcome<io_raw_result<F>>;
    using value_type = io_result<F>;
    using completion = io_completion<Handler, value_type>;

public:
    using memory = op_memory<io_op, Handler>;

    io_op(Handler& handler, const io_executor<IoExecutor>& ex, interest want,
          scheduled_io_ptr state, F&& f)
        : waiter(&io_op::do_complete, want, purpose::io), state_(std::move(state)),
          callable_(std::move(f)), handler_(std::move(handler)), work_(handler_, ex) {}

    Handler& handler() noexcept { return handler_; }

    /// Makes a transfer before the operation has a state to wait in. True: it is over.
    template <channel C>
    BOOST_FORCEINLINE bool try_now(scheduled_io& state) {
        outcome_type outcome;
        auto parts = callable_.parts();
        transfer_maker<F> call(callable_, parts, outcome);
        if (!state.template transfer_at_once<C>(call))
            return false;
        if (outcome.ec)
            fail(outcome.ec);
        else
            made_ = std::move(outcome.value);
        return true;
    }
    void set_state(scheduled_io_ptr state) noexcept { state_ = std::move(state); }

    /// (An operation with a call is cancelled up to the call anyway.)
    void set_late_cancellation(const scheduled_io_ptr&) noexcept {}

    /// Through the associated immediate executor, in place of the scheduler.
    void complete_immediately(const IoExecutor& ex) {
        memory m(this, handler_);
        tracked_completion tracked(*this);
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        completion c{std::move(handler_), ec(), std::move(made_)};
        m.reset();
        tracked.begin(c.ec);
        inline_run frame;
        asio::dispatch(immediate_executor_of(c.handler, ex), std::move(c));
        tracked.end();
    }

private:
    static constexpr int max_calls = 16; // in one turn, of a callable that asks the kernel
    static constexpr bool may_leave = has_own_executor<Handler, IoExecutor>::value;

    /// One turn, run on the handler's executor unless the call is Moor's own. The turn owns the
    /// operation, until the operation waits again or is over. A turn that may have to wait for
    /// another executor keeps the I/O context busy: the operation's own unit of work is taken back
    /// when do_complete() returns.
    struct turn {
        turn(io_op* op, bool leaves) : op_(op) {
            if (leaves && op->state_) {
                busy_ = op->state_;
                busy_->host().port.work_started();
            }
        }
        turn(turn&& other) noexcept
            : op_(std::exchange(other.op_, nullptr)), busy_(std::move(other.busy_)) {}
        turn(const turn&) = delete;
        turn& operator=(const turn&) = delete;
        turn& operator=(turn&&) = delete;
        ~turn() {
            if (op_)
                op_->destroy();
            if (may_leave && busy_ && busy_->host().context_exists())
                busy_->host().port.work_finished();
        }

        void operator()() { make<false>(); }

        /// The same for a call of Moor's own, which needs no executor: only the completion does.
        void make_here() { make<true>(); }

    private:
        template <bool ThroughExecutor>
        void make() {
            outcome_type outcome;
            bool is_over = op_->make_call(outcome);
            io_op* op = std::exchange(op_, nullptr);
            if (is_over)
                op->template over<ThroughExecutor>(std::move(outcome));
        }

        io_op* op_;
        scheduled_io_ptr busy_;
    };

    bool may_run() { return state_->may_run(*this); }

    /// False: it would have blocked.
    BOOST_FORCEINLINE bool attempt_here(outcome_type& outcome) {
        if constexpr (is_transfer<F>::value) {
            constexpr channel c = F::transfer_event == POLLIN ? read_channel : write_channel;
            auto parts = callable_.parts();
            transferred t = state_->template transfer_in_turn<c>(
                *this, transfer_maker<F>(callable_, parts, outcome));
            if (BOOST_UNLIKELY(t == transferred::not_made))
                outcome.ec = ec();
            return t != transferred::would_block;
        } else {
            auto may_repeat = [&] {
                bool may = may_run();
                if (!may)
                    outcome.ec = ec();
                return may;
            };
            return attempt(*state_, event(), want(), callable_, outcome, may_repeat, true);
        }
    }

    /// False: the call would have blocked, and the operation is not ours any more: it waits again,
    /// or is queued.
    BOOST_FORCEINLINE bool make_call(outcome_type& outcome) {
        if (take_made(outcome)) {
            if constexpr (has_immediate_executor<Handler, IoExecutor>::value)
                inline_run::reset();
        } else if (ec() || (!is_transfer<F>::value && !may_run())) {
            outcome.ec = ec();
        } else {
            for (int left = asks_kernel<F>::value ? max_calls : 1; !attempt_here(outcome);) {
                bool waits = false;
                BOOST_TRY {
                    waits = state_->restart(*this, next_of(outcome), asks_kernel<F>::value);
                }
                BOOST_CATCH(...) { fail(boost::asio::error::no_memory); } // as an event's waits do
                BOOST_CATCH_END
                if (waits)
                    return false;
                if (ec()) {
                    outcome.ec = ec();
                    break;
                }
                if (--left == 0) {
                    // Something newer has come meanwhile. Give others their turn, then try again.
                    state_->host().port.post_new(this);
                    return false;
                }
            }
        }
        return true;
    }

    bool take_made([[maybe_unused]] outcome_type& outcome) noexcept {
        if constexpr (std::is_void<value_type>::value) {
            return false;
        } else {
            if (!made_)
                return false;
            outcome.value = std::move(made_);
            return true;
        }
    }

    void finish() {
        if (state_) // none: it failed at the start
            state_->finish(*this);
    }

    void destroy() {
        // The callable or the handler's executor threw, or the context is going.
        finish();
        memory m(this, handler_);
        [[maybe_unused]] Handler handler(std::move(handler_));
        [[maybe_unused]] F callable(std::move(callable_));
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        [[maybe_unused]] scheduled_io_ptr state(std::move(state_));
        m.reset();
    }

    /// `ThroughExecutor`: this thread is not the handler's executor's.
    template <bool ThroughExecutor>
    void over(outcome_type outcome) {
        finish();
        memory m(this, handler_);
        tracked_completion tracked(*this);
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        completion c = make_io_completion<value_type>(handler_, outcome);
        m.reset();
        tracked.begin(c.ec);
        if (!ThroughExecutor || BOOST_LIKELY(work.is_none()))
            c();
        else
            work.complete(c, c.handler);
        tracked.end();
    }

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        io_op* op = static_cast<io_op*>(item);
        if (!owner)
            return op->destroy();
        if constexpr (needs_no_executor<F>::value)
            return turn(op, false).make_here();
        turn t(op, may_leave);
        if (BOOST_LIKELY(op->work_.is_none()))
            return t();
        // A copy, since the turn may destroy the operation while the executor runs it.
        handler_work<Handler, IoExecutor> work(op->work_);
        work.complete(t, op->handler_);
    }

    struct nothing {};

    scheduled_io_ptr state_;
    F callable_;
    std::conditional_t<std::is_void<value_type>::value, nothing, std::optional<value_type>> made_;
    Handler handler_;
    handler_work<Handler, IoExecutor> work_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_IO_OP_HPP
