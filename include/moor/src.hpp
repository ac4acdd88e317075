//
// moor/src.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// For separate compilation, which shortens the compilation of each other file: compile the whole
// program with -DMOOR_SEPARATE_COMPILATION, and include this file in one source file of the
// program, which includes no other header of Moor. (Asio has the same: compile with
// -DBOOST_ASIO_SEPARATE_COMPILATION, and include <boost/asio/impl/src.hpp> in a source file.)
//

#ifndef MOOR_SRC_HPP
#define MOOR_SRC_HPP

#if !defined(MOOR_SEPARATE_COMPILATION)
#error "Define MOOR_SEPARATE_COMPILATION for the whole program, or do not include moor/src.hpp"
#endif
#if defined(MOOR_DETAIL_CONFIG_HPP)
#error "Include moor/src.hpp before other headers of Moor, in a source file of its own"
#endif
#define MOOR_SOURCE

#include <moor/registration.hpp>

namespace moor {
namespace detail {

template ready_event handle_readiness<scheduled_io, reactor_policy>::peek(interest) const noexcept;
template ready_event handle_readiness<scheduled_io, reactor_policy>::ready_now(interest, bool,
                                                                               error_code&);
template readiness handle_readiness<scheduled_io, reactor_policy>::query(error_code&);
template void handle_readiness<scheduled_io, reactor_policy>::clear(const ready_event&) noexcept;
template void
handle_readiness<scheduled_io, reactor_policy>::note_call_would_block(const ready_event&, interest,
                                                                      interest) noexcept;
template void
handle_readiness<scheduled_io, reactor_policy>::note_no_data(const ready_event&) noexcept;
template scheduled_io_info handle_readiness<scheduled_io, reactor_policy>::info(bool,
                                                                                std::uint32_t);

template bool handle_transfers<scheduled_io, reactor_policy>::start_transfer(waiter&);
template void handle_transfers<scheduled_io, reactor_policy>::note_short_call(const ready_event&,
                                                                              bool) noexcept;

template bool basic_scheduled_io<reactor_policy>::start(waiter&);
template bool basic_scheduled_io<reactor_policy>::restart(waiter&, interest, bool);
template bool basic_scheduled_io<reactor_policy>::may_run(waiter&);
template void basic_scheduled_io<reactor_policy>::finish(waiter&);
template void basic_scheduled_io<reactor_policy>::finish_wait(waiter&);
template void basic_scheduled_io<reactor_policy>::cancel(interest);
template void basic_scheduled_io<reactor_policy>::cancel(std::uint64_t);

} // namespace detail
} // namespace moor

#endif // MOOR_SRC_HPP
