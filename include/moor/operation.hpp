//
// moor/operation.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_OPERATION_HPP
#define MOOR_OPERATION_HPP

#include <moor/detail/initiate.hpp>
#include <moor/detail/mutex.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/detail/wait_op.hpp>
#include <moor/error.hpp>

#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/recycling_allocator.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace moor {

namespace detail {

// ---- cancellation -------------------------------------------------------------------------------
//
// The function of `on_cancel` is shared: the operation has a reference, and so has each call of the
// function. The slot has a weak reference, so that the slot may be emitted at any time, and a
// function that completes its own operation lives until it returns. The weak reference keeps the
// function's memory allocated after the completion. So this memory does not come from the handler's
// allocator, to which all memory is given back before the handler is invoked.

class cancel_function {
public:
    cancel_function() = default;
    cancel_function(const cancel_function&) = delete;
    cancel_function& operator=(const cancel_function&) = delete;

    /// From now on no call begins.
    void forget() noexcept { is_connected_.store(false, std::memory_order_relaxed); }

    void operator()(asio::cancellation_type_t type) {
        if (is_connected_.load(std::memory_order_relaxed))
            call(type);
    }

protected:
    ~cancel_function() = default;

private:
    virtual void call(asio::cancellation_type_t type) = 0;

    std::atomic<bool> is_connected_{true};
};

template <class F>
class cancel_function_of final : public cancel_function {
public:
    explicit cancel_function_of(F&& f) : f_(std::move(f)) {}

private:
    void call(asio::cancellation_type_t type) override { f_(type); }

    F f_;
};

using cancel_function_ptr = std::shared_ptr<cancel_function>;

/// What the cancellation slot of an operation's handler holds.
class operation_canceller {
public:
    explicit operation_canceller(const cancel_function_ptr& f) noexcept : function_(f) {}

    void operator()(asio::cancellation_type_t type) {
        if (type == asio::cancellation_type::none)
            return;
        if (cancel_function_ptr f = function_.lock())
            (*f)(type); // which may replace what the slot holds, and so destroy this
    }

private:
    std::weak_ptr<cancel_function> function_;
};

// ---- what is pending ----------------------------------------------------------------------------

class operation_service;

/// An operation that is pending or queued, whatever its handler and arguments are.
class operation_base : public scheduler_item {
public:
    operation_base(const operation_base&) = delete;
    operation_base& operator=(const operation_base&) = delete;

    /// Has `owner` point to this operation, and to nothing once the context is shut down.
    void set_owner(operation_base*& owner) noexcept {
        owner_ = &owner;
        owner = this;
    }

    virtual bool has_slot() const noexcept = 0;

    void set_cancel_function(cancel_function_ptr f) {
        cancel_function_ptr earlier = std::exchange(cancel_function_, nullptr);
        if (earlier)
            earlier->forget();
        connect_slot(f);
        cancel_function_ = std::move(f);
        // `earlier` is destroyed last.
    }

    /// Queues the operation, whose arguments have been set. The handler may be invoked on another
    /// thread, and the operation destroyed, before this function returns.
    void queue() noexcept;

    /// Destroys the operation and its handler.
    void drop();

protected:
    operation_base(func_type do_complete, operation_service& service) noexcept
        : scheduler_item(do_complete), service_(service) {}
    virtual ~operation_base() = default;

private:
    friend class operation_service;

    virtual void connect_slot(const cancel_function_ptr& f) = 0;
    virtual void destroy() = 0;

    /// Nobody refers to the operation any more, once this has returned.
    void detach() noexcept;

    operation_service& service_;
    operation_base** owner_ = nullptr;
    cancel_function_ptr cancel_function_;
    operation_base* pending_next_ = nullptr; // of those that are pending in the context
    operation_base** pending_link_ = nullptr;
};

/// Knows what is pending in an execution context, and destroys that when the context shuts down.
/**
 * Unlike the registration service, it makes no reactor. An operation that is pending refers to the
 * service, so nothing refers to the service after the shutdown.
 */
class operation_service final : public asio::execution_context::service {
public:
    static inline asio::execution_context::id id;

    explicit operation_service(asio::execution_context& context)
        : asio::execution_context::service(context), port(context) {}

    /// (A service that was made during the context's shutdown is destroyed without a call of
    /// `shutdown()`.)
    ~operation_service() override { destroy_all(); }

    class scheduler_access : public scheduler_port {
    public:
        using scheduler_port::scheduler_port;
    } port;

    /// False: the context is shutting down, and handlers are destroyed.
    bool add(operation_base& op) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        if (is_shut_down_)
            return false;
        op.pending_next_ = first_;
        op.pending_link_ = &first_;
        if (first_)
            first_->pending_link_ = &op.pending_next_;
        first_ = &op;
        return true;
    }

    void remove(operation_base& op) noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        *op.pending_link_ = op.pending_next_;
        if (op.pending_next_)
            op.pending_next_->pending_link_ = op.pending_link_;
    }

private:
    void shutdown() override { destroy_all(); }

    void destroy_all() noexcept {
        while (operation_base* op = last_added()) {
            op->detach();
            op->destroy(); // which may complete or destroy others, or try to start one
        }
    }

    operation_base* last_added() noexcept {
        std::lock_guard<state_mutex> lock(mutex_);
        is_shut_down_ = true;
        return first_;
    }

    state_mutex mutex_; // guards the list and the flag; no user code runs under it
    operation_base* first_ = nullptr;
    bool is_shut_down_ = false;
};

inline void operation_base::detach() noexcept {
    service_.remove(*this);
    *owner_ = nullptr;
    if (cancel_function_) {
        cancel_function_->forget();
        cancel_function_.reset(); // which may own, and so destroy, the `operation` at `owner_`
    }
}

inline void operation_base::queue() noexcept {
    detach();
    service_.port.post_counted(this);
}

inline void operation_base::drop() {
    operation_service& service = service_;
    detach();
    destroy();
    // Not before: run() may return now, and the context be destroyed.
    service.port.work_finished();
}

/// The operation as `operation<void(Args...)>` sees it.
template <class... Args>
class operation_block : public operation_base {
public:
    template <class... Values>
    void set_arguments(Values&&... values) {
        arguments_.emplace(std::forward<Values>(values)...);
    }

protected:
    using operation_base::operation_base;

    std::optional<std::tuple<std::decay_t<Args>...>> arguments_; // once it is queued
};

/// A handler with its arguments.
template <class Handler, class... Args>
struct operation_completion {
    Handler handler;
    std::tuple<std::decay_t<Args>...> arguments;

    void operator()() {
        std::apply(
            [this](std::decay_t<Args>&... a) { std::move(handler)(static_cast<Args&&>(a)...); },
            arguments);
    }

    /// For handler tracking.
    error_code ec() const noexcept {
        if constexpr (sizeof...(Args) != 0)
            if constexpr (std::is_same<std::tuple_element_t<0, decltype(arguments)>,
                                       error_code>::value)
                return std::get<0>(arguments);
        return error_code();
    }
};

/// The one block of memory: the handler, the arguments, and the work on both executors.
template <class Handler, class IoExecutor, class... Args>
class operation_holder final : public operation_block<Args...> {
    using completion = operation_completion<Handler, Args...>;

public:
    using memory = op_memory<operation_holder, Handler>;

    template <class H>
    operation_holder(H&& handler, const IoExecutor& ex, operation_service& service)
        : operation_block<Args...>(&operation_holder::do_complete, service),
          handler_(std::forward<H>(handler)), work_(handler_, io_executor<IoExecutor>{ex}) {}

    bool has_slot() const noexcept override {
        if constexpr (may_have_slot<Handler>::value)
            return asio::get_associated_cancellation_slot(handler_).is_connected();
        return false;
    }

private:
    void connect_slot([[maybe_unused]] const cancel_function_ptr& f) override {
        if constexpr (may_have_slot<Handler>::value) {
            auto slot = asio::get_associated_cancellation_slot(handler_);
            slot.template emplace<operation_canceller>(f);
        }
    }

    void destroy() override {
        memory m(this, handler_);
        [[maybe_unused]] Handler handler(std::move(handler_));
        [[maybe_unused]] handler_work<Handler, IoExecutor> work(std::move(work_));
        m.reset();
    }

    static void do_complete(void* owner, scheduler_item* item, const error_code&, std::size_t) {
        auto* op = static_cast<operation_holder*>(item);
        if (!owner)
            return op->destroy();
        memory m(op, op->handler_);
        tracked_completion tracked(*op);
        handler_work<Handler, IoExecutor> work(std::move(op->work_));
        completion c{std::move(op->handler_), std::move(*op->arguments_)};
        m.reset();
        complete_through_executor(tracked, work, c, c.ec());
    }

    Handler handler_;
    handler_work<Handler, IoExecutor> work_;
};

} // namespace detail

template <class Signature>
class operation;

/// A pending asynchronous operation: keeps a completion handler for a callback that comes later.
/**
 * For authors of adapters. A C library takes a function and a `void*`, and calls the function when
 * the library is done. The adapter's initiating function keeps the handler in an `operation`, and
 * the library's callback completes the operation. With `async_initiate`, completion tokens work. (A
 * token that needs the I/O executor, such as `cancel_after` without a timer, needs an initiation
 * object with `executor_type` and `get_executor()`, in place of the lambda in the example.)
 *
 * The handler, the arguments and the work are kept in one block of memory from the handler's
 * associated allocator, which defaults to Asio's recycling allocator. An operation is empty, or
 * pending. It becomes pending in `start`, and empty when it is completed, moved from, or when the
 * execution context of its I/O executor is destroyed.
 *
 * @tparam Signature The completion signature, such as `void(error_code, std::size_t)`. The
 * arguments are values, which may be move-only, or references to constants, which are copied.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.@n
 * An operation may be completed, moved or destroyed on any thread, not only where it was started,
 * but not while the context of its I/O executor is being destroyed. `on_cancel` connects the
 * handler's cancellation slot, so it is called where the slot may be used: on the handler's
 * executor, or before the initiating function returns. Asio wants a cancellation signal to be
 * emitted on the handler's executor. The emission may be concurrent with `complete`: then
 * the function of `on_cancel` is called or not, and a call may still be running when `complete`
 * returns. If the library calls back on a thread of its own, the function should ask the library
 * to cancel, and leave it to the callback to complete the operation.
 *
 * @par Lifetimes
 * If an operation is destroyed while it is pending, its handler is destroyed without being invoked.
 * An operation may outlive the execution context of its I/O executor. When the context is
 * destroyed, the handler is destroyed without being invoked, and the operation is empty, wherever
 * the adapter keeps the operation: so a handler that owns the adapter does not leak. After that, a
 * late callback of the library may call `complete`, which does nothing. The context of a handler's
 * own executor must outlive the pending operation, as with Asio's own operations.
 *
 * @par Work and executors
 * A completed operation is queued in the context of the I/O executor, whose thread passes the
 * handler to the handler's associated executor, which defaults to the I/O executor. So this context
 * has to run, also if the handler belongs to another one. Work is tracked on the I/O executor until
 * the handler was passed on, and on the handler's executor until the handler was invoked or
 * destroyed. The associated immediate executor is not used: `complete` always posts.
 *
 * @par Example
 * The initiating function of an adapter:
 * @code
 * using query_operation = moor::operation<void(moor::error_code, result)>;
 *
 * template <class Token>
 * auto client::async_query(std::string text, Token&& token) {
 *     auto initiation = [this](auto handler, std::string t) {
 *         assert(!query_); // one query at a time: the assignment would destroy a pending handler
 *         query_ = query_operation::start(std::move(handler), get_executor());
 *         query_.on_cancel([this](asio::cancellation_type) { lib_cancel(lib_); });
 *         lib_query(lib_, t.c_str(), &client::on_result, this);
 *     };
 *     return asio::async_initiate<Token, void(moor::error_code, result)>(
 *         std::move(initiation), token, std::move(text));
 * }
 *
 * void client::on_result(void* self, int status, lib_result* r) { // called by the library
 *     static_cast<client*>(self)->query_.complete(to_error_code(status), result(r));
 * }
 * @endcode
 */
template <class... Args>
class operation<void(Args...)> {
    static_assert(
        std::conjunction<std::disjunction<std::negation<std::is_lvalue_reference<Args>>,
                                          std::is_const<std::remove_reference_t<Args>>>...>::value,
        "the arguments are kept until the handler is invoked: no references to variables");

public:
    /// Constructs an empty operation.
    operation() noexcept = default;

    /// Begins an operation: takes the handler, and tracks work on both executors.
    /**
     * An exception means that nothing has happened: no memory is kept, and no work is tracked. If
     * the execution context is being destroyed, the handler is destroyed, and the operation is
     * empty.
     *
     * @param handler The completion handler.
     * @param ex The I/O executor, whose execution context exists.
     * @returns The pending operation.
     * @throws std::bad_alloc If the memory is not to be had; `execution::bad_executor` if `ex` is
     * an empty `any_io_executor`, as a registration returns once its context is gone; or what the
     * handler's associated allocator, or moving the handler, throws.
     *
     * @par Example
     * @code
     * using wait_operation = moor::operation<void(moor::error_code)>;
     * wait_operation op = wait_operation::start(std::move(handler), io.get_executor());
     * @endcode
     */
    template <class Handler, class Executor>
    static operation start(Handler&& handler, const Executor& ex) {
        using holder = detail::operation_holder<std::decay_t<Handler>, Executor, Args...>;
        auto& context = detail::context_of(ex);
        auto& service = boost::asio::use_service<detail::operation_service>(context);
        typename holder::memory memory(handler);
        holder* op = memory.construct(std::forward<Handler>(handler), ex, service);
        operation started;
        if (service.add(*op)) {
            detail::track_creation(context, *op, op, -1, "operation");
            service.port.work_started();
            memory.release();
            started.adopt(op);
        }
        return started;
    }

    /// Moves an operation, which stays pending.
    /**
     * @param other The operation to move from, which is empty afterwards.
     */
    operation(operation&& other) noexcept { swap(other); }

    /// Destroys the handler of the present operation, if one is pending, and moves another one.
    /**
     * @param other The operation to move from, which is empty afterwards.
     */
    operation& operator=(operation&& other) noexcept {
        operation taken(std::move(other));
        swap(taken); // `taken` has the earlier one, whose handler may own this object
        return *this;
    }

    operation(const operation&) = delete;
    operation& operator=(const operation&) = delete;

    /// Destroys the handler, if the operation is pending.
    ~operation() {
        if (block_)
            block_->drop();
    }

    /// Returns whether the operation is pending: started, and not completed.
    explicit operator bool() const noexcept { return block_ != nullptr; }

    /// Completes the operation: the handler is going to be invoked with these arguments.
    /**
     * The handler is never invoked from within this function, but through its associated executor,
     * from within the run of a loop. The memory is given back before the handler is invoked. The
     * operation is empty afterwards. `complete` releases the function of `on_cancel`; if that
     * function owns this operation, the operation is destroyed before `complete` returns.
     * Completing an empty operation does nothing, since the end of the execution context may have
     * made the operation empty. No memory is needed, so `complete` throws only what copying or
     * moving an argument throws; then the operation is still pending.
     *
     * @param args The arguments for the handler.
     *
     * @par Example
     * @code
     * extern "C" void on_done(void* p, int error, size_t n) {
     *     std::unique_ptr<read_operation> op(static_cast<read_operation*>(p));
     *     op->complete(moor::error_code(error, boost::system::system_category()), n);
     * }
     * @endcode
     */
    void complete(Args... args) {
        if (!block_)
            return;
        static_cast<block_type*>(block_)->set_arguments(std::forward<Args>(args)...);
        block_->queue(); // may destroy this object
    }

    /// Sets the function to call when the operation is to be cancelled.
    /**
     * The function is called when the handler's cancellation slot is emitted while the operation is
     * pending. It replaces an earlier one. The function decides what becomes of the operation: it
     * may complete the operation, ask the library to cancel, or do nothing if it does not support
     * the type of cancellation. It may be called several times, and may destroy the operation, or
     * call `on_cancel`. It is destroyed when the operation is no longer pending and no call of
     * it is running; later emissions do nothing. A handler without a slot, or an empty operation,
     * destroys the function at once.
     *
     * The function lives in Asio's recycled memory, and not in the handler's associated allocator.
     *
     * @param f The function, as `void f(cancellation_type)`. May be move-only.
     * @throws std::bad_alloc If the memory is not to be had; then the operation stays pending, and
     * may have lost the earlier function. Or what moving the function throws.
     *
     * @par Per-Operation Cancellation
     * The function is called for every type but `none`, and receives the type that was emitted.
     *
     * @par Example
     * @code
     * read_.on_cancel([this](asio::cancellation_type) {
     *     lib_cancel(lib_, request_); // does not call back
     *     read_.complete(asio::error::operation_aborted, 0);
     * });
     * @endcode
     */
    template <class F>
    void on_cancel(F f) {
        if (!block_ || !block_->has_slot())
            return;
        using function = detail::cancel_function_of<F>;
        block_->set_cancel_function(std::allocate_shared<function>(
            boost::asio::recycling_allocator<function>(), std::move(f)));
    }

private:
    using block_type = detail::operation_block<Args...>;

    void adopt(detail::operation_base* op) noexcept { op->set_owner(block_); }

    void swap(operation& other) noexcept {
        detail::operation_base* mine = block_;
        block_ = nullptr;
        if (other.block_)
            other.block_->set_owner(block_);
        other.block_ = nullptr;
        if (mine)
            mine->set_owner(other.block_);
    }

    detail::operation_base* block_ = nullptr; // a block_type
};

} // namespace moor

#endif // MOOR_OPERATION_HPP
