// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for c-ares does: resolve a name that needs no server.

#include <moor/adapt/c_ares.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::c_ares_resolver r(io);
    bool is_found = false;
    r.async_resolve("localhost", "80",
                    [&](moor::error_code ec, moor::adapt::c_ares_resolver::results_type found) {
                        is_found = !ec && !found.empty();
                    });
    io.run();
    return is_found ? 0 : 1;
}
