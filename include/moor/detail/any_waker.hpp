//
// moor/detail/any_waker.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The callback of the polling interface: any move-only void(). Asio's any_completion_handler is not
// used, since its move assignment recurses for ever in Boost 1.81, and since it answers with a null
// executor where there is no memory for a real one.
//
// Invariants:
// - The handler and what is known of it are one block, allocated by the handler's associated
//   allocator. The waker has one share of the block; so has each allocation that was made through
//   the waker's allocator, which is therefore valid for as long as something is allocated by it.
// - The handler is invoked at most once; the block is given back before, unless something is still
//   allocated.
// - Whatever may need memory happens before the waker is kept, and throws.
//

#ifndef MOOR_DETAIL_ANY_WAKER_HPP
#define MOOR_DETAIL_ANY_WAKER_HPP

#include <moor/detail/reactor.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_allocator.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/execution/executor.hpp>
#include <boost/asio/execution/outstanding_work.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/recycling_allocator.hpp>
#include <boost/asio/system_executor.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/throw_exception.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace moor {
namespace detail {

namespace asio = boost::asio;

/// Keeps an executor's context busy. May throw `std::bad_alloc`, unlike Asio's own, which ends the
/// program.
template <class Executor>
auto outstanding_work_of(const Executor& ex) {
    if constexpr (asio::execution::is_executor<Executor>::value)
        return asio::prefer(ex, asio::execution::outstanding_work.tracked);
    else
        return asio::executor_work_guard<Executor>(ex);
}

class any_waker_block;
using any_waker_ptr = boost::intrusive_ptr<any_waker_block>;

/// What a waker and its allocations share.
class any_waker_block {
public:
    any_waker_block(const any_waker_block&) = delete;
    any_waker_block& operator=(const any_waker_block&) = delete;

    friend void intrusive_ptr_add_ref(any_waker_block* b) noexcept {
        b->references_.fetch_add(1, std::memory_order_relaxed);
    }
    friend void intrusive_ptr_release(any_waker_block* b) noexcept {
        if (b->references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            b->destroy();
    }

    /// Keeps the handler's own executor busy until it was invoked or destroyed.
    virtual void hold_work() = 0;
    /// Invokes the handler, through its own executor if it has one.
    virtual void wake(any_waker_ptr self) = 0;

    /// Blocks of `std::max_align_t`.
    virtual std::max_align_t* allocate(std::size_t n) = 0;
    virtual void deallocate(std::max_align_t* p, std::size_t n) noexcept = 0;

protected:
    any_waker_block() = default;
    virtual ~any_waker_block() = default;

private:
    virtual void destroy() noexcept = 0;

    std::atomic<std::uint32_t> references_{0};
};

template <class Handler>
class any_waker_holder final : public any_waker_block {
    using associated = asio::associated_allocator<Handler, asio::recycling_allocator<void>>;
    template <class T>
    using traits =
        typename std::allocator_traits<typename associated::type>::template rebind_traits<T>;
    using unit_traits = traits<std::max_align_t>;
    using executor = asio::associated_executor<Handler, asio::system_executor>;

    template <class T, class = void>
    struct has_own : std::true_type {};
    template <class T>
    struct has_own<T, std::void_t<typename T::asio_associated_executor_is_unspecialised>>
        : std::false_type {};
    static constexpr bool has_own_executor = has_own<executor>::value;

public:
    template <class H>
    static any_waker_ptr make(H&& handler) {
        using self_traits = traits<any_waker_holder>;
        typename self_traits::allocator_type allocator(
            associated::get(handler, asio::recycling_allocator<void>()));
        struct memory {
            typename self_traits::allocator_type& from;
            any_waker_holder* p = self_traits::allocate(from, 1);
            ~memory() {
                if (p)
                    self_traits::deallocate(from, p, 1);
            }
        } m{allocator};
        any_waker_ptr block(::new (static_cast<void*>(m.p)) any_waker_holder(
            std::forward<H>(handler), typename unit_traits::allocator_type(allocator)));
        m.p = nullptr;
        return block;
    }

    template <class H>
    any_waker_holder(H&& handler, const typename unit_traits::allocator_type& allocator)
        : allocator_(allocator), handler_(std::forward<H>(handler)) {}

    void hold_work() override {
        if constexpr (has_own_executor)
            work_.emplace(outstanding_work_of(executor::get(handler_, asio::system_executor())));
    }

    void wake(any_waker_ptr self) override {
        Handler handler(std::move(handler_));
        [[maybe_unused]] std::optional<work> work_till_then(std::move(work_));
        self.reset(); // perhaps the last share of this
        if constexpr (has_own_executor)
            asio::dispatch(std::move(handler));
        else
            std::move(handler)();
    }

    std::max_align_t* allocate(std::size_t n) override {
        return unit_traits::allocate(allocator_, n);
    }
    void deallocate(std::max_align_t* p, std::size_t n) noexcept override {
        unit_traits::deallocate(allocator_, p, n);
    }

private:
    using work = decltype(outstanding_work_of(std::declval<const typename executor::type&>()));

    ~any_waker_holder() override = default;

    void destroy() noexcept override {
        using self_traits = traits<any_waker_holder>;
        typename self_traits::allocator_type allocator(allocator_);
        this->~any_waker_holder();
        self_traits::deallocate(allocator, this, 1);
    }

    typename unit_traits::allocator_type allocator_;
    Handler handler_;
    std::optional<work> work_;
};

/// Allocates as the handler in the waker would.
template <class T>
class any_waker_allocator {
public:
    using value_type = T;

    explicit any_waker_allocator(any_waker_block* block) noexcept : block_(block) {}
    template <class U>
    any_waker_allocator(const any_waker_allocator<U>& other) noexcept : block_(other.block_) {}

    T* allocate(std::size_t n) {
        static_assert(alignof(T) <= alignof(std::max_align_t), "not supported");
        if (!block_)
            return asio::recycling_allocator<T>().allocate(n);
        void* p = block_->allocate(units(n));
        intrusive_ptr_add_ref(block_);
        return static_cast<T*>(p);
    }
    void deallocate(T* p, std::size_t n) noexcept {
        if (!block_)
            return asio::recycling_allocator<T>().deallocate(p, n);
        block_->deallocate(static_cast<std::max_align_t*>(static_cast<void*>(p)), units(n));
        intrusive_ptr_release(block_);
    }

    template <class U>
    friend bool operator==(const any_waker_allocator& a, const any_waker_allocator<U>& b) noexcept {
        return a.block_ == b.block_;
    }
    template <class U>
    friend bool operator!=(const any_waker_allocator& a, const any_waker_allocator<U>& b) noexcept {
        return a.block_ != b.block_;
    }

private:
    template <class U>
    friend class any_waker_allocator;

    static std::size_t units(std::size_t n) {
        if (n > (std::numeric_limits<std::size_t>::max)() / 2 / sizeof(T))
            throw_bad_alloc();
        return (n * sizeof(T) + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t);
    }
    [[noreturn]] static void throw_bad_alloc() { boost::throw_exception(std::bad_alloc()); }

    any_waker_block* block_;
};

/// Any `void()`. Calling an empty one does nothing.
class any_waker {
public:
    /// The allocator that is associated with what it holds.
    using allocator_type = any_waker_allocator<void>;

    any_waker() = default;
    any_waker(std::nullptr_t) noexcept {}

    template <class Handler,
              std::enable_if_t<!std::is_same<std::decay_t<Handler>, any_waker>::value &&
                                   std::is_invocable<std::decay_t<Handler>>::value,
                               int> = 0>
    any_waker(Handler&& handler)
        : block_(any_waker_holder<std::decay_t<Handler>>::make(std::forward<Handler>(handler))) {}

    any_waker(any_waker&&) = default;
    any_waker(const any_waker&) = delete;

    /// What it held may assign to it, call it or swap it while being destroyed.
    any_waker& operator=(any_waker&& other) noexcept {
        any_waker taken(std::move(other));
        taken.swap(*this);
        return *this;
    }
    any_waker& operator=(const any_waker&) = delete;

    void swap(any_waker& other) noexcept { block_.swap(other.block_); }
    friend void swap(any_waker& a, any_waker& b) noexcept { a.swap(b); }

    explicit operator bool() const noexcept { return static_cast<bool>(block_); }
    friend bool operator==(const any_waker& w, std::nullptr_t) noexcept { return !w; }
    friend bool operator!=(const any_waker& w, std::nullptr_t) noexcept { return bool(w); }

    allocator_type get_allocator() const noexcept { return allocator_type(block_.get()); }

    /// Before it is kept: its own executor is kept busy from now on. May throw.
    void hold_work() {
        if (block_)
            block_->hold_work();
    }

    /// Invokes what it holds, through its associated executor; empty afterwards.
    void operator()() {
        if (any_waker_ptr block = std::move(block_)) {
            any_waker_block& b = *block;
            b.wake(std::move(block));
        }
    }

private:
    any_waker_ptr block_;
};

/// A waker with the I/O executor that it defaults to, whose context it keeps busy.
template <class Executor>
class kept_waker {
public:
    using allocator_type = any_waker::allocator_type;

    /// Takes the waker only if nothing throws.
    kept_waker(any_waker& waker, const Executor& ex) {
        waker.hold_work();
        if (!is_io_context(ex))
            bound_.emplace(ex);
        waker_.swap(waker);
    }

    allocator_type get_allocator() const noexcept { return waker_.get_allocator(); }

    any_waker& waker() noexcept { return waker_; }

    void operator()() {
        std::optional<bound> b(std::move(bound_));
        if (b)
            asio::dispatch(b->executor, std::move(waker_));
        else
            waker_();
    }

private:
    struct bound {
        explicit bound(const Executor& ex) : executor(ex), work(outstanding_work_of(ex)) {}
        Executor executor;
        decltype(outstanding_work_of(std::declval<const Executor&>())) work;
    };

    /// The scheduler of an io_context runs operations, and counts them as work, by itself.
    static bool is_io_context(const Executor& ex) noexcept {
        if constexpr (std::is_same<Executor, asio::io_context::executor_type>::value)
            return true;
        else if constexpr (std::is_same<Executor, asio::any_io_executor>::value)
            return ex.template target<asio::io_context::executor_type>() != nullptr;
        else
            return false;
    }

    any_waker waker_;
    std::optional<bound> bound_;
};

/// A kept waker sees to its executors itself: its operation has none.
using no_executor = asio::system_executor;

template <class Executor>
class handler_work<kept_waker<Executor>, no_executor, false> {
public:
    handler_work(kept_waker<Executor>&, const io_executor<no_executor>&) noexcept {}

    static constexpr bool is_none() noexcept { return true; }

    template <class Function>
    void complete(Function& function, kept_waker<Executor>&) {
        std::move(function)();
    }
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_ANY_WAKER_HPP
