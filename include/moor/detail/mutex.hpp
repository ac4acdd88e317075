//
// moor/detail/mutex.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The lock of one state: four bytes, and a few instructions where nobody contends for it, which is
// nearly always. A pthread mutex takes 40 bytes and some 55 instructions to lock and unlock.
//

#ifndef MOOR_DETAIL_MUTEX_HPP
#define MOOR_DETAIL_MUTEX_HPP

#if defined(__linux__) && __has_include(<linux/futex.h>)
#define MOOR_HAS_FUTEX 1
#endif

#if defined(MOOR_HAS_FUTEX)
#include <atomic>
#include <cerrno>
#include <cstdint>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define MOOR_SINGLE_THREADED __libc_single_threaded
#else
#define MOOR_SINGLE_THREADED false
#endif
#else
#include <mutex>
#endif

#include <boost/config.hpp>

namespace moor {
namespace detail {

#if defined(MOOR_HAS_FUTEX)

/// The three-state futex lock of Drepper's "Futexes are tricky". Nothing needs to be locked while
/// the process has one thread, and none is started while a lock is held. (But threads may end then:
/// so unlocking is done in any case.)
class state_mutex {
public:
    state_mutex() = default;
    state_mutex(const state_mutex&) = delete;
    state_mutex& operator=(const state_mutex&) = delete;

    BOOST_FORCEINLINE void lock() noexcept {
        std::uint32_t expected = unlocked;
        if (!MOOR_SINGLE_THREADED &&
            !word_.compare_exchange_strong(expected, locked, std::memory_order_acquire,
                                           std::memory_order_relaxed))
            wait();
    }

    BOOST_FORCEINLINE void unlock() noexcept {
        if (MOOR_SINGLE_THREADED)
            word_.store(unlocked, std::memory_order_relaxed);
        else if (word_.exchange(unlocked, std::memory_order_release) == contended)
            wake();
    }

private:
    static constexpr std::uint32_t unlocked = 0, locked = 1, contended = 2;

    static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t), "a futex");

    [[gnu::noinline, gnu::cold]] void wait() noexcept {
        int saved = errno;
        while (word_.exchange(contended, std::memory_order_acquire) != unlocked)
            ::syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, contended, nullptr, nullptr, 0);
        errno = saved;
    }

    [[gnu::noinline, gnu::cold]] void wake() noexcept {
        int saved = errno;
        ::syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
        errno = saved;
    }

    std::atomic<std::uint32_t> word_{unlocked};
};

#else

using state_mutex = std::mutex;

#endif

/// std::lock_guard, but inline wherever it is used.
class state_lock {
public:
    BOOST_FORCEINLINE explicit state_lock(state_mutex& m) : mutex_(&m) { m.lock(); }
    BOOST_FORCEINLINE ~state_lock() {
        if (mutex_)
            mutex_->unlock();
    }
    state_lock(const state_lock&) = delete;
    state_lock& operator=(const state_lock&) = delete;

    /// Leaves it to somebody else to unlock.
    BOOST_FORCEINLINE void release() noexcept { mutex_ = nullptr; }

private:
    state_mutex* mutex_;
};

} // namespace detail
} // namespace moor

#undef MOOR_HAS_FUTEX
#undef MOOR_SINGLE_THREADED

#endif // MOOR_DETAIL_MUTEX_HPP
