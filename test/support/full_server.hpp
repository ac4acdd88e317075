// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#ifndef MOOR_TEST_SUPPORT_FULL_SERVER_HPP
#define MOOR_TEST_SUPPORT_FULL_SERVER_HPP

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <cstdint>

namespace test {

/// A server whose queue is full, so that connecting to the server lasts for a long time.
class full_server {
    using tcp = boost::asio::ip::tcp;

public:
    full_server() {
        acceptor_.listen(0); // Linux then has room for one
        client_.connect(acceptor_.local_endpoint());
    }

    std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

private:
    boost::asio::io_context io_;
    tcp::acceptor acceptor_{io_, {boost::asio::ip::address_v4::loopback(), 0}};
    tcp::socket client_{io_};
};

} // namespace test

#endif // MOOR_TEST_SUPPORT_FULL_SERVER_HPP
