// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Tools that tell where a handler runs, with whose memory, and how often: an executor with an
// identity, a guard that marks the initiating function, an allocator that counts, and a handler
// that wants to be invoked exactly once.

#ifndef MOOR_TEST_SUPPORT_TRACKER_HPP
#define MOOR_TEST_SUPPORT_TRACKER_HPP

#include <moor/readiness.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/query.hpp>
#include <boost/asio/require.hpp>
#include <boost/system/error_code.hpp>
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace test {

// ---- where: an executor with an identity ----------------------------------------------------

/// The ids of the tracker executors whose functions run on this thread, the innermost last.
inline std::vector<int>& tracker_stack() {
    thread_local std::vector<int> stack;
    return stack;
}

/// Whether this thread runs a function of the executor with this id, at any depth.
inline bool running_on(int id) {
    const std::vector<int>& s = tracker_stack();
    return std::find(s.begin(), s.end(), id) != s.end();
}

class tracker_frame {
public:
    explicit tracker_frame(int id) { tracker_stack().push_back(id); }
    ~tracker_frame() { tracker_stack().pop_back(); }
    tracker_frame(const tracker_frame&) = delete;
    tracker_frame& operator=(const tracker_frame&) = delete;
};

/// What a tracker executor counts; shared by its copies.
struct tracker_counts {
    std::atomic<int> executed{0};
};

/// Forwards to another executor, and marks what it runs with an id.
class tracker_executor {
public:
    tracker_executor(int id, boost::asio::any_io_executor inner)
        : id_(id), inner_(std::move(inner)), counts_(std::make_shared<tracker_counts>()) {}

    int id() const noexcept { return id_; }
    int executed() const noexcept { return counts_->executed; }

    template <class Property, class = std::enable_if_t<boost::asio::can_query<
                                  const boost::asio::any_io_executor&, Property>::value>>
    decltype(auto) query(const Property& p) const {
        return boost::asio::query(inner_, p);
    }
    template <class Property, class = std::enable_if_t<boost::asio::can_require<
                                  const boost::asio::any_io_executor&, Property>::value>>
    tracker_executor require(const Property& p) const {
        return tracker_executor(*this, boost::asio::require(inner_, p));
    }
    template <class Property,
              class = std::enable_if_t<
                  boost::asio::can_prefer<const boost::asio::any_io_executor&, Property>::value>,
              class = void>
    tracker_executor prefer(const Property& p) const {
        return tracker_executor(*this, boost::asio::prefer(inner_, p));
    }
    template <class F>
    void execute(F&& f) const {
        ++counts_->executed;
        inner_.execute([id = id_, g = std::decay_t<F>(std::forward<F>(f))]() mutable {
            tracker_frame frame(id);
            std::move(g)();
        });
    }

    friend bool operator==(const tracker_executor& a, const tracker_executor& b) noexcept {
        return a.id_ == b.id_ && a.inner_ == b.inner_;
    }
    friend bool operator!=(const tracker_executor& a, const tracker_executor& b) noexcept {
        return !(a == b);
    }

private:
    tracker_executor(const tracker_executor& other, boost::asio::any_io_executor inner)
        : id_(other.id_), inner_(std::move(inner)), counts_(other.counts_) {}

    int id_;
    boost::asio::any_io_executor inner_;
    std::shared_ptr<tracker_counts> counts_;
};

// ---- when: not within the initiating function -------------------------------------------------

inline int& initiation_depth() {
    thread_local int depth = 0;
    return depth;
}

/// Marks the initiating function on this thread.
class initiation_guard {
public:
    initiation_guard() { ++initiation_depth(); }
    ~initiation_guard() { --initiation_depth(); }
    initiation_guard(const initiation_guard&) = delete;
    initiation_guard& operator=(const initiation_guard&) = delete;

    static bool active() { return initiation_depth() != 0; }
};

// ---- whose memory: an allocator that counts -----------------------------------------------------

struct allocation_counts {
    std::atomic<long> live{0};
    std::atomic<long> total{0};
    /// How many more may succeed; negative: all.
    std::atomic<long> left{-1};
};

template <class T = void>
class counting_allocator {
public:
    using value_type = T;

    explicit counting_allocator(allocation_counts& c) noexcept : counts_(&c) {}
    template <class U>
    counting_allocator(const counting_allocator<U>& o) noexcept : counts_(o.counts_) {}

    T* allocate(std::size_t n) {
        if (counts_->left == 0)
            throw std::bad_alloc();
        if (counts_->left > 0)
            --counts_->left;
        T* p = std::allocator<T>().allocate(n);
        ++counts_->live;
        ++counts_->total;
        return p;
    }
    void deallocate(T* p, std::size_t n) noexcept {
        --counts_->live;
        std::allocator<T>().deallocate(p, n);
    }

    template <class U>
    friend bool operator==(const counting_allocator& a, const counting_allocator<U>& b) noexcept {
        return a.counts_ == b.counts_;
    }
    template <class U>
    friend bool operator!=(const counting_allocator& a, const counting_allocator<U>& b) noexcept {
        return a.counts_ != b.counts_;
    }

private:
    template <class U>
    friend class counting_allocator;

    allocation_counts* counts_;
};

// ---- how often: a handler that is invoked exactly once ------------------------------------------

/// What a `once` expects of its handler.
enum class expect { invoked, destroyed, either };

class once_handler;

/// Watches one handler: it must be invoked once, outside the initiating function;
/// or be destroyed without being invoked; and nothing of it may be left over.
class once {
public:
    explicit once(expect e = expect::invoked) : expect_(e) {}
    once(const once&) = delete;
    once& operator=(const once&) = delete;

    ~once() {
        BOOST_CHECK_EQUAL(alive_.load(), 0);
        BOOST_CHECK_LE(times_.load(), 1);
        if (expect_ == expect::invoked)
            BOOST_CHECK_MESSAGE(times_ == 1, "the handler was never invoked");
        if (expect_ == expect::destroyed)
            BOOST_CHECK_MESSAGE(made_ && times_ == 0, "the handler was invoked");
        BOOST_CHECK_MESSAGE(!inside_, "the handler was invoked within the initiating function");
    }

    explicit operator bool() const { return times_ != 0; }
    int times() const { return times_; }
    bool destroyed() const { return made_ && alive_ == 0; }

    once_handler handler();

    /// How it was invoked.
    boost::system::error_code ec;
    moor::ready_event event;
    /// Called when it is invoked.
    void (*hook)(void*) = nullptr;
    void* hook_arg = nullptr;

private:
    friend class once_handler;

    expect expect_;
    std::atomic<int> times_{0};
    std::atomic<int> alive_{0};
    std::atomic<bool> made_{false};
    std::atomic<bool> inside_{false};
};

/// Move-only. (May be invoked as an lvalue, since some binders of Boost 1.81 do.)
class once_handler {
public:
    explicit once_handler(once& o) : once_(&o) {
        ++once_->alive_;
        once_->made_ = true;
    }
    once_handler(once_handler&& other) noexcept : once_(std::exchange(other.once_, nullptr)) {}
    once_handler(const once_handler&) = delete;
    once_handler& operator=(const once_handler&) = delete;
    once_handler& operator=(once_handler&&) = delete;
    ~once_handler() {
        if (once_)
            --once_->alive_;
    }

    void operator()() { invoke(boost::system::error_code(), moor::ready_event()); }
    void operator()(boost::system::error_code ec) { invoke(ec, moor::ready_event()); }
    void operator()(boost::system::error_code ec, moor::ready_event e) { invoke(ec, e); }
    template <class R, class = std::enable_if_t<!std::is_same<R, moor::ready_event>::value>>
    void operator()(boost::system::error_code ec, R) {
        invoke(ec, moor::ready_event());
    }

private:
    void invoke(boost::system::error_code ec, moor::ready_event e) {
        BOOST_REQUIRE(once_);
        once& o = *once_;
        if (initiation_guard::active())
            o.inside_ = true;
        o.ec = ec;
        o.event = e;
        ++o.times_;
        if (o.hook)
            o.hook(o.hook_arg);
    }

    once* once_;
};

inline once_handler once::handler() { return once_handler(*this); }

} // namespace test

#endif
