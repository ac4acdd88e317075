// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for inotify does: learn that there is no directory.

#include <moor/adapt/inotify.hpp>

#include <boost/asio/io_context.hpp>

#include <vector>

int main() {
    boost::asio::io_context io;
    moor::adapt::inotify_tree tree(io, "/there/is/no/directory");
    bool has_failed = false;
    tree.async_read_changes(
        [&](moor::error_code ec, const std::vector<moor::adapt::inotify_change>&) {
            has_failed = ec == boost::system::errc::no_such_file_or_directory;
        });
    io.run();
    return has_failed ? 0 : 1;
}
