// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for hiredis does: learn that there is no server.

#include <moor/adapt/hiredis.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::redis_connection c(io);
    bool has_failed = false;
    c.async_connect_unix("/there/is/no/server",
                         [&](moor::error_code ec) { has_failed = ec.failed(); });
    io.run();
    return has_failed ? 0 : 1;
}
