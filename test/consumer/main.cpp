// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer does: wait for a pipe with a byte in it. Exits with 0 if the wait
// completed without an error.

#include <moor.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/system/error_code.hpp>

#include <unistd.h>

#ifdef PACKAGE_MAJOR
static_assert(MOOR_VERSION == PACKAGE_MAJOR * 100000 + PACKAGE_MINOR * 100 + PACKAGE_PATCH,
              "CMake's package has another version than the headers");
#endif

int main() {
    int ends[2];
    if (::pipe(ends) != 0 || ::write(ends[1], "x", 1) != 1)
        return 2;

    bool readable = false;
    {
        boost::asio::io_context io;
        moor::registration reg(io, ends[0]);
        reg.async_wait_readable([&](boost::system::error_code ec) { readable = !ec; });
        io.run();
    }

    ::close(ends[0]);
    ::close(ends[1]);
    return readable ? 0 : 1;
}
