//
// moor/detail/waker.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_DETAIL_WAKER_HPP
#define MOOR_DETAIL_WAKER_HPP

#include <boost/config.hpp>

#include <atomic>
#include <cstdint>

namespace moor {
namespace detail {

/// Where the waker of one channel is, and whether the unit of outstanding work for its completion
/// is counted already.
/**
 *        begin_arming()            fire()
 *   idle ---------------> armed ------------> firing
 *     ^                     |  drop()            |
 *     +---------------------+--------------------+
 *                                  come_back()
 *
 * idle: the reactor does not have the waker. armed: the reactor has it, and fires it for an event;
 * armed_asked: as armed, but the reactor asks, while it takes the waker, whether there is an event.
 * firing: an event fired the waker, which is on its way back through the scheduler.
 *
 * Outstanding work: the reactor counts one unit when a waker is armed, and the scheduler subtracts
 * one after running the waker. An armed waker keeps no unit: `finish_arming` hands the unit to the
 * caller. A firing waker keeps one if it is prepaid.
 *
 * The owner's lock guards all of it, but for `fire` and for questions about the phase.
 */
template <template <class> class Atomic = std::atomic>
class waker_state {
public:
    bool is_idle() const noexcept { return at() == phase::idle; }
    bool is_armed() const noexcept { return at() == phase::armed || is_asked(); }
    bool is_prepaid() const noexcept { return is_prepaid_; }
    bool is_firing() const noexcept { return at() == phase::firing; }

    /// Whether the reactor, while it is given the waker, has to ask if there is an event.
    BOOST_FORCEINLINE bool is_asked() const noexcept { return at() == phase::armed_asked; }

    /// The reactor is about to be given the waker.
    BOOST_FORCEINLINE void begin_arming(bool is_asked) noexcept {
        is_prepaid_ = false;
        go(is_asked ? phase::armed_asked : phase::armed);
    }

    /// The reactor has the waker, which may have fired by now. Returns the units of outstanding
    /// work that the caller may use or give back.
    BOOST_FORCEINLINE int finish_arming() noexcept {
        is_prepaid_ = is_firing();
        return is_prepaid_ ? 0 : 1;
    }

    /// An event. (With the reactor's lock on the handle held, perhaps without the owner's.)
    BOOST_FORCEINLINE void fire() noexcept { go(phase::firing); }

    /// The waker was run by the scheduler. Returns the units of work that are owed.
    BOOST_FORCEINLINE int come_back() noexcept {
        go(phase::idle);
        return is_prepaid_ ? 0 : 1;
    }

    /// The reactor refused the waker, or gave it back without running it.
    void drop() noexcept { go(phase::idle); }

    /// Before the waker is taken out of the reactor, so that it comes back without an event.
    /// Returns the units of work that the caller has to count.
    int prepay() noexcept {
        if (is_idle() || is_prepaid_)
            return 0;
        is_prepaid_ = true;
        return 1;
    }

private:
    enum class phase : std::uint8_t { idle, armed, armed_asked, firing };

    phase at() const noexcept { return phase_.load(std::memory_order_relaxed); }
    void go(phase p) noexcept { phase_.store(p, std::memory_order_relaxed); }

    Atomic<phase> phase_{phase::idle};
    bool is_prepaid_ = false; // while the waker is not idle
};

/// Arms a waker, or drops it if the reactor throws.
template <template <class> class Atomic>
class waker_arming {
public:
    BOOST_FORCEINLINE waker_arming(waker_state<Atomic>& w, bool is_asked, bool may_throw) noexcept
        : waker_(w), is_done_(!may_throw) {
        w.begin_arming(is_asked);
    }
    BOOST_FORCEINLINE ~waker_arming() {
        if (BOOST_UNLIKELY(!is_done_))
            waker_.drop();
    }
    waker_arming(const waker_arming&) = delete;
    waker_arming& operator=(const waker_arming&) = delete;

    /// The reactor has the waker, which is not dropped any more.
    BOOST_FORCEINLINE void keep() noexcept { is_done_ = true; }

    /// The same. Returns what finish_arming() does.
    BOOST_FORCEINLINE int finish() noexcept {
        keep();
        return waker_.finish_arming();
    }

private:
    waker_state<Atomic>& waker_;
    bool is_done_;
};

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_WAKER_HPP
