//
// moor/detail/scheduled_io_host.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_SCHEDULED_IO_HOST_HPP
#define MOOR_DETAIL_SCHEDULED_IO_HOST_HPP

#include <moor/detail/kernel.hpp>
#include <moor/detail/reactor_base.hpp>
#include <moor/readiness.hpp>

#include <boost/config.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace moor {
namespace detail {

/// Counts kept for each handle, and added up by the service. (The narrow ones grow slowly.)
struct wait_counts {
    std::uint64_t started = 0;
    std::uint64_t events = 0;
    std::uint64_t immediate = 0;
    std::uint64_t checks = 0;
    std::uint32_t cancelled = 0;
    std::uint32_t unhandled = 0;

    wait_counts& operator+=(const wait_counts& o) noexcept {
        started += o.started;
        events += o.events;
        immediate += o.immediate;
        checks += o.checks;
        cancelled += o.cancelled;
        unhandled += o.unhandled;
        return *this;
    }
};

/// A snapshot of one handle, for users.
struct scheduled_io_info {
    int handle;
    int caller_handle; // see handle_readiness
    std::string name;
    trigger mode;
    interest waited_for;
    interest waits; // see wait_queue
    file_identity identity;
    readiness cached;
    ticks tick;
    std::size_t waiters;
    bool armed[channel_count];
    bool attached;
    bool always_ready;
    wait_counts counts;
    std::uint32_t pending_for; // ms, since a snapshot first saw the longest
    readiness untold;          // see handle_readiness; if it was asked for
};

/// What a scheduled state knows of the service that it belongs to.
template <class Policy>
class basic_scheduled_io_host {
public:
    using state_type = typename Policy::state;

    explicit basic_scheduled_io_host(asio::execution_context& context) : port(context) {}

    basic_scheduled_io_host(const basic_scheduled_io_host&) = delete;
    basic_scheduled_io_host& operator=(const basic_scheduled_io_host&) = delete;

    /// Usable until the execution context is shut down.
    typename Policy::port port;

    /// Whether the context is still there, and so are its executors.
    virtual bool context_exists() const noexcept = 0;

    /// Has the readiness check of a state's deferred operations made later. `is_listed`: it was
    /// asked for before, and is still to come. False: that is impossible, or does not pay.
    virtual bool defer(state_type& state, bool is_listed) noexcept = 0;

    /// Takes back a state that nobody refers to any more.
    virtual void recycle(state_type& state) noexcept = 0;

    /// A number that no other operation has.
    std::uint64_t next_id() noexcept { return ids_.fetch_add(1, std::memory_order_relaxed) + 1; }

    // ---- whether one thread runs the loop: what is queued can be known only then

    enum class threads { one, not_known_so_far, several };

    /// This thread handles an event. Returns which threads have done so before.
    BOOST_FORCEINLINE threads note_thread() noexcept {
        return BOOST_LIKELY(is_loop_thread()) ? threads::one : note_other_thread();
    }

    /// Whether this thread has handled an event, and no other one.
    BOOST_FORCEINLINE bool is_loop_thread() const noexcept {
        return loop_thread_.load(std::memory_order_relaxed) == this_thread();
    }

    /// Whether this thread is in the loop, and no other thread was so far.
    bool is_alone() noexcept { return is_loop_thread() && port.runs_here(); }

    /// Whether this thread has, or several have.
    BOOST_FORCEINLINE bool knows_loop() const noexcept {
        const void* thread = loop_thread_.load(std::memory_order_relaxed);
        return thread == this_thread() || thread == this;
    }

    /// Whether no other thread has.
    bool runs_only_here() const noexcept {
        const void* thread = loop_thread_.load(std::memory_order_relaxed);
        return thread == this_thread() || !thread;
    }

protected:
    ~basic_scheduled_io_host() = default;

private:
    static const void* this_thread() noexcept { return Policy::this_thread(); }

    BOOST_NOINLINE threads note_other_thread() noexcept {
        // What the first thread is about to handle may have been fetched before anybody began to
        // wait.
        const void* seen = nullptr;
        if (loop_thread_.compare_exchange_strong(seen, this_thread(), std::memory_order_relaxed))
            return threads::not_known_so_far;
        // Several: no thread's id.
        return loop_thread_.exchange(this, std::memory_order_relaxed) == this
                   ? threads::several
                   : threads::not_known_so_far;
    }

    std::atomic<std::uint64_t> ids_{0};
    typename Policy::template atomic<const void*> loop_thread_{nullptr};
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_SCHEDULED_IO_HOST_HPP
