// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for sd-bus does: learn that there is no bus.

#include <moor/adapt/sd_bus.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::sd_bus_connection c(io);
    bool has_failed = false;
    c.async_open("unix:path=/there/is/no/bus",
                 [&](moor::error_code ec) { has_failed = ec.failed(); });
    io.run();
    return has_failed ? 0 : 1;
}
