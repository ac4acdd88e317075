// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// asio::null_buffers, by which libraries that are older than async_wait (azmq among them) wait for
// readiness. All of it is tested on Asio's own descriptor, too.

#include "support/context.hpp"
#include "support/handles.hpp"
#include "support/transferred.hpp"
#include "support/vocabulary.hpp"

#include <moor.hpp>

#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_future.hpp>

#include <tuple>
#include <type_traits>

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" // from Boost 1.90 on
#endif

BOOST_AUTO_TEST_SUITE(null_buffers)

#if !defined(BOOST_ASIO_NO_DEPRECATED)

namespace {

namespace asio = boost::asio;
using test::error_code;
using test::transferred;
using both = std::tuple<asio::posix::stream_descriptor, moor::stream_descriptor>;

template <class D>
struct fixture : test::context_fixture {
    test::fd_pair p = test::make_socketpair();
    int fd = p.a.get();
    D d{io, p.a.release()};
};

/// On io_uring, Asio's own reports the bits that poll(2) would.
template <class D>
void check_nothing(const transferred& t) {
    if (!test::on_io_uring() || std::is_same<D, moor::stream_descriptor>::value)
        BOOST_TEST(t.bytes == 0u);
}

} // namespace

BOOST_AUTO_TEST_CASE_TEMPLATE(reading_nothing_waits_until_there_is_something_to_read, D, both) {
    fixture<D> f;
    transferred read;
    f.d.async_read_some(asio::null_buffers(), read.handler());
    test::run_ready(f.io);
    BOOST_TEST(read.times == 0);
    test::put(f.p.b, "x");
    test::run_until(f.io, [&] { return bool(read); });
    BOOST_CHECK_EQUAL(read.ec, error_code());
    check_nothing<D>(read);
    error_code ec;
    BOOST_TEST(f.d.read_some(asio::null_buffers(), ec) == 0u);
    BOOST_CHECK_EQUAL(ec, error_code());
    BOOST_TEST(test::get(f.fd) == "x"); // all of it is still there
}

BOOST_AUTO_TEST_CASE_TEMPLATE(writing_nothing_waits_until_there_is_room, D, both) {
    fixture<D> f;
    test::fill(f.fd);
    transferred write;
    f.d.async_write_some(asio::null_buffers(), write.handler());
    test::run_ready(f.io);
    BOOST_TEST(write.times == 0);
    test::drain(f.p.b);
    test::run_until(f.io, [&] { return bool(write); });
    BOOST_CHECK_EQUAL(write.ec, error_code());
    check_nothing<D>(write);
    BOOST_TEST(f.d.write_some(asio::null_buffers()) == 0u);
    BOOST_TEST(test::drain(f.p.b) == 0u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_transfer_of_nothing_that_waits_is_cancelled, D, both) {
    fixture<D> f;
    transferred read;
    f.d.async_read_some(asio::null_buffers(), read.handler());
    test::run_ready(f.io);
    f.d.cancel();
    test::run_until(f.io, [&] { return bool(read); });
    BOOST_CHECK_EQUAL(read.ec, test::aborted);
    BOOST_TEST(read.bytes == 0u);
}

BOOST_AUTO_TEST_CASE_TEMPLATE(a_transfer_of_nothing_without_a_handle_is_an_error, D, both) {
    asio::io_context io;
    D d(io);
    transferred read;
    d.async_read_some(asio::null_buffers(), read.handler());
    test::run_until(io, [&] { return bool(read); });
    BOOST_CHECK_EQUAL(read.ec, test::bad_descriptor);
    error_code ec;
    BOOST_TEST(d.write_some(asio::null_buffers(), ec) == 0u);
    BOOST_CHECK_EQUAL(ec, test::bad_descriptor);
}

BOOST_AUTO_TEST_CASE(a_descriptor_that_would_block_says_so) {
    fixture<moor::stream_descriptor> f;
    f.d.non_blocking(true);
    error_code ec;
    BOOST_TEST(f.d.read_some(asio::null_buffers(), ec) == 0u);
    BOOST_CHECK_EQUAL(ec, test::would_block);
    auto future = f.d.async_write_some(asio::null_buffers(), asio::use_future);
    test::run_all(f.io);
    BOOST_TEST(future.get() == 0u);
}

#else

BOOST_AUTO_TEST_CASE(there_are_none_without_deprecated_names) {}

#endif

BOOST_AUTO_TEST_SUITE_END()
