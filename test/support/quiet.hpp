// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#ifndef MOOR_TEST_SUPPORT_QUIET_HPP
#define MOOR_TEST_SUPPORT_QUIET_HPP

#include "support/context.hpp"
#include "support/counts.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <cstddef>

namespace test {

/// What a loop does until a timer expires.
struct quiet_time {
    call_counts used;
    std::size_t handlers; // the timer's, and one more
};
inline quiet_time run_for_a_while(boost::asio::io_context& io, std::chrono::milliseconds length) {
    called timer;
    boost::asio::steady_timer timeout(io, length);
    timeout.async_wait(timer.handler());
    const call_counts before = counts();
    std::size_t handlers = 0;
    run_until(io, [&] {
        ++handlers; // the first time before any
        return bool(timer);
    });
    return {counts() - before, handlers};
}

/// Nothing happens: the loop blocks until a timer expires, and is not woken for nothing.
inline void check_is_quiet(boost::asio::io_context& io, long most_turns = 16,
                           std::size_t most_handlers = 16) {
    const quiet_time q = run_for_a_while(io, std::chrono::milliseconds(20));
    BOOST_TEST(q.used.turns() <= most_turns);
    BOOST_TEST(q.handlers <= most_handlers);
}

/// Whether the loop only blocks until a timer expires, and asks nothing else of the kernel.
inline boost::test_tools::assertion_result is_idle_for(boost::asio::io_context& io,
                                                       std::chrono::milliseconds length) {
    const auto [used, handlers] = run_for_a_while(io, length);
    // With Boost 1.81, the timer's requests on io_uring wake those who wait for handles.
    const bool is_idle =
        on_io_uring() ? handlers <= 8 && used.turns() <= 16 : handlers <= 2 && used.turns() <= 3;
    boost::test_tools::assertion_result result(is_idle &&
                                               used.poll + used.fstat + used.epoll_ctl == 0);
    result.message() << handlers - 1 << " handlers, " << used.turns() << " turns, " << used.poll
                     << " poll, " << used.fstat << " fstat, " << used.epoll_ctl << " epoll_ctl";
    return result;
}

/// Sooner or later, nothing more happens: the threads and servers of a library may be late.
inline void check_falls_quiet(boost::asio::io_context& io) {
    BOOST_TEST(wait_for([&] { return bool(is_idle_for(io, std::chrono::milliseconds(20))); }));
}

/// Then nothing happens for long enough for most timers to show.
inline void check_costs_nothing(boost::asio::io_context& io) {
    check_falls_quiet(io);
    BOOST_TEST(is_idle_for(io, std::chrono::milliseconds(350)));
}

} // namespace test

#endif
