// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for GLib does: dispatch one source.

#include <moor/adapt/glib.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::glib_guest guest(io, nullptr);
    bool is_over = false;
    g_idle_add(
        [](gpointer p) -> gboolean {
            static_cast<moor::adapt::glib_guest*>(p)->stop();
            return FALSE;
        },
        &guest);
    guest.async_run([&](moor::error_code ec) { is_over = !ec; });
    io.run();
    return is_over ? 0 : 1;
}
