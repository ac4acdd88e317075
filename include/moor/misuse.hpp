//
// moor/misuse.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_MISUSE_HPP
#define MOOR_MISUSE_HPP

#include <atomic>
#include <chrono>
#include <cstdio>

namespace moor {

/// A mistake in the use of Moor, reported if the program is compiled with `MOOR_CHECK_USE`.
/**
 * Define the macro for the whole program: `-DMOOR_CHECK_USE`. Without it nothing is checked, and
 * the checks cost nothing.
 *
 * @par Thread Safety
 * Reports come from any thread, and never while Moor holds a lock.
 *
 * @par Example
 * @code
 * void report(const moor::misuse& m) noexcept {
 *     if (m.what != moor::misuse::kind::call_blocked)
 *         std::fprintf(stderr, "%d (%s): %s\n", m.native_handle, m.name, m.message);
 * }
 * @endcode
 */
struct misuse {
    /// The kinds of mistakes.
    enum class kind {
        /// An edge-triggered wait is pending although its handle is ready.
        /**
         * No event has come for longer than the time limit, the loop has run meanwhile, and
         * `poll(2)` says that the handle is ready: the handle was not drained before the wait
         * began.
         */
        not_drained,
        /// The number was closed before its registration ended.
        number_closed,
        /// The number stands for another file than the registered one.
        number_reused,
        /// A call of `async_io`, `try_io` or the polling interface took longer than the time limit.
        call_blocked,
        /// A call returned a negative number without an error.
        error_hidden,
        /// An operation was starting while another thread changed, moved or ended the registration.
        used_while_changed,
        /// A wait began for events that never occur on this kind of file.
        impossible_interest
    };

    /// What happened.
    kind what;
    /// The number of the handle.
    int native_handle;
    /// The name of the registration; empty if it has none. Valid during the report.
    const char* name;
    /// A sentence for a programmer. Valid during the report.
    const char* message;
};

/// A function that is called for each mistake.
using misuse_handler = void (*)(const misuse&) noexcept;

namespace detail {

inline void print_misuse(const misuse& m) noexcept {
    const bool is_named = *m.name != '\0';
    std::fprintf(stderr, "moor: descriptor %d%s%s%s: %s\n", m.native_handle, is_named ? " (" : "",
                 m.name, is_named ? ")" : "", m.message);
}

inline std::atomic<misuse_handler> current_misuse_handler{&print_misuse};
inline std::atomic<std::chrono::nanoseconds> misuse_limit{std::chrono::seconds(1)};

} // namespace detail

/// Sets the function that is called for each mistake.
/**
 * The default function prints a line on the standard error stream.
 *
 * @param handler The function, which any thread may call at any time, also shortly after another
 * function was set. It must not use the registration that the report is about, which may have
 * ended. Null restores the default.
 * @returns The previous function.
 *
 * @par Example
 * @code
 * moor::set_misuse_handler([](const moor::misuse& m) noexcept {
 *     syslog(LOG_ERR, "descriptor %d: %s", m.native_handle, m.message);
 *     std::abort(); // in a test
 * });
 * @endcode
 */
inline misuse_handler set_misuse_handler(void (*handler)(const misuse&) noexcept) noexcept {
    return detail::current_misuse_handler.exchange(handler ? handler : &detail::print_misuse);
}

/// Sets the time after which Moor reports a pending wait or a call that takes too long.
/**
 * The limit applies to waits that stay pending although the handle is ready, and to the calls of
 * `async_io`, `try_io` and the polling interface.
 *
 * @param limit The time: one second if none was set, and one millisecond at least. A report comes
 * after this time, usually within a quarter more; later if the loop is busy.
 */
inline void set_misuse_time_limit(std::chrono::steady_clock::duration limit) noexcept {
    const std::chrono::nanoseconds least = std::chrono::milliseconds(1);
    detail::misuse_limit.store(limit < least ? least : limit);
}

} // namespace moor

#endif // MOOR_MISUSE_HPP
