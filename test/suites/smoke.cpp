// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The smallest suite: the shortest program that waits.

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor.hpp>

BOOST_AUTO_TEST_SUITE(smoke)

BOOST_FIXTURE_TEST_CASE(a_wait_completes_when_a_byte_arrives, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a.get());
    test::called done;
    reg.async_wait_readable(done.handler());
    test::run_ready(io);
    BOOST_TEST(done.times == 0);
    test::put(p.b, "x");
    test::run_until(io, [&] { return bool(done); });
    BOOST_TEST(done.times == 1);
    BOOST_TEST(!done.ec);
    BOOST_TEST(test::get(p.a) == "x");
}

BOOST_AUTO_TEST_SUITE_END()
