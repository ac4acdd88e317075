// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The smallest suite: the shortest programs, one for each kind of object.

#include "support/context.hpp"
#include "support/handles.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <utility>

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

BOOST_FIXTURE_TEST_CASE(a_call_is_made_again_until_it_does_not_block, test::context_fixture) {
    test::fd_pair p = test::make_socketpair();
    moor::registration reg(io, p.a, moor::trigger::edge);
    std::string got;
    reg.async_io(moor::interest::readable, test::reader{p.a},
                 [&](boost::system::error_code ec, std::string s) {
                     BOOST_TEST(!ec);
                     got = std::move(s);
                 });
    test::run_ready(io);
    test::put(p.b, "hello");
    test::run_until(io, [&] { return !got.empty(); });
    BOOST_TEST(got == "hello");
}

BOOST_FIXTURE_TEST_CASE(a_borrowed_handle_is_read_and_stays_open, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    std::array<char, 8> bytes{};
    std::size_t size = 0;
    {
        moor::stream_descriptor in(io, moor::borrow(p.a.get()));
        in.async_read_some(boost::asio::buffer(bytes),
                           [&](boost::system::error_code ec, std::size_t n) {
                               BOOST_TEST(!ec);
                               size = n;
                           });
        test::put(p.b, "hello");
        test::run_until(io, [&] { return size != 0; });
    }
    BOOST_TEST(std::string(bytes.data(), size) == "hello");
    test::put(p.b, "x");
    BOOST_TEST(test::get(p.a) == "x");
}

BOOST_FIXTURE_TEST_CASE(a_wait_that_is_cancelled_is_over, test::context_fixture) {
    test::fd_pair p = test::make_pipe();
    moor::registration reg(io, p.a);
    test::called done;
    reg.async_wait_readable(done.handler());
    reg.cancel();
    test::run_all(io);
    BOOST_TEST(done.times == 1);
    BOOST_TEST((done.ec == boost::asio::error::operation_aborted));
}

BOOST_AUTO_TEST_SUITE_END()
