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

/// Nothing happens: the loop blocks until a timer expires, and is not woken for nothing.
inline void check_is_quiet(boost::asio::io_context& io, long most_turns = 16,
                           std::size_t most_handlers = 16,
                           std::chrono::milliseconds length = std::chrono::milliseconds(20)) {
    called timer;
    boost::asio::steady_timer timeout(io, length);
    timeout.async_wait(timer.handler());
    call_counts before = counts();
    std::size_t handlers = 0;
    run_until(io, [&] {
        ++handlers;
        return bool(timer);
    });
    call_counts used = counts() - before;
    BOOST_TEST(used.turns() <= most_turns);
    BOOST_TEST(handlers <= most_handlers);
}

/// Nothing happens, long enough for timers to show, and nothing is asked of the kernel.
inline void check_costs_nothing(boost::asio::io_context& io) {
    const call_counts before = counts();
    check_is_quiet(io, on_io_uring() ? 8 : 4, 4, std::chrono::milliseconds(300));
    const call_counts used = counts() - before;
    BOOST_TEST(used.poll == 0);
    BOOST_TEST(used.fstat == 0);
    BOOST_TEST(used.epoll_ctl <= 1); // of Asio's timer
}

} // namespace test

#endif
