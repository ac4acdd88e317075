// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for libmosquitto does: learn that there is no broker.

#include <moor/adapt/mosquitto.hpp>

#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::mosquitto_client c(io);
    bool has_failed = false;
    c.async_connect("127.0.0.1", 1, 60, [&](moor::error_code ec) {
        has_failed = ec == boost::asio::error::connection_refused;
    });
    io.run();
    return has_failed ? 0 : 1;
}
