// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The kinds of operation, for test case templates: each is over when a byte can be read.

#ifndef MOOR_TEST_SUPPORT_OPERATIONS_HPP
#define MOOR_TEST_SUPPORT_OPERATIONS_HPP

#include "support/handles.hpp"

#include <moor/readiness.hpp>
#include <moor/registration.hpp>

#include <utility>

#include <sys/socket.h>

namespace test {

struct wait_op {
    template <class Handler>
    static void start(moor::registration& r, Handler&& h) {
        r.async_wait_readable(std::forward<Handler>(h));
    }
};
struct event_op {
    template <class Handler>
    static void start(moor::registration& r, Handler&& h) {
        r.async_wait(moor::interest::readable | moor::interest::priority, std::forward<Handler>(h));
    }
};
struct io_op {
    template <class Handler>
    static void start(moor::registration& r, Handler&& h) {
        r.async_io(
            moor::interest::readable,
            [fd = r.native_handle()](error_code& ec) {
                char c;
                if (::recv(fd, &c, 1, MSG_PEEK) < 0)
                    ec = last_error();
            },
            std::forward<Handler>(h));
    }
};

} // namespace test

#endif
