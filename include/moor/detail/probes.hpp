//
// moor/detail/probes.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The probes of a program that is compiled with MOOR_USDT, for bpftrace, perf and SystemTap. The
// provider is `moor`, and a probe has the name of its function. The arguments are the descriptor
// and a set of flags, as the bits of poll(2). Without the macro the functions are empty.
//

#ifndef MOOR_DETAIL_PROBES_HPP
#define MOOR_DETAIL_PROBES_HPP

#include <moor/readiness.hpp>

#include <boost/config.hpp>

#if defined(MOOR_USDT)
#include <moor/detail/kernel.hpp>

#include <poll.h>
#include <sys/sdt.h>
#endif

namespace moor {
namespace detail {
namespace probes {

#if defined(MOOR_USDT)

inline int bits_of(interest i) noexcept {
    return to_poll_events(i) | (i.is_error() ? POLLERR : 0) | (i.is_write_closed() ? POLLHUP : 0);
}

/// An operation begins.
BOOST_FORCEINLINE void wait(int handle, interest want) noexcept {
    DTRACE_PROBE2(moor, wait, handle, bits_of(want));
}
/// An operation has to wait for an event.
BOOST_FORCEINLINE void pend(int handle, interest want) noexcept {
    DTRACE_PROBE2(moor, pend, handle, bits_of(want));
}
/// An operation need not wait any longer. No flags: because of an error.
BOOST_FORCEINLINE void wake(int handle, readiness ready) noexcept {
    DTRACE_PROBE2(moor, wake, handle, bits_of(ready));
}
/// Cached readiness is dropped: by the user, or because a call would have blocked.
BOOST_FORCEINLINE void clear(int handle, readiness ready) noexcept {
    DTRACE_PROBE2(moor, clear, handle, bits_of(ready));
}
/// An operation is cancelled, or the registration ends.
BOOST_FORCEINLINE void cancel(int handle, interest want) noexcept {
    DTRACE_PROBE2(moor, cancel, handle, bits_of(want));
}

#else

BOOST_FORCEINLINE void wait(int, interest) noexcept {}
BOOST_FORCEINLINE void pend(int, interest) noexcept {}
BOOST_FORCEINLINE void wake(int, readiness) noexcept {}
BOOST_FORCEINLINE void clear(int, readiness) noexcept {}
BOOST_FORCEINLINE void cancel(int, interest) noexcept {}

#endif

} // namespace probes
} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_PROBES_HPP
