// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Pseudoterminals: one end is the person's or the device's, the other the program's.

#ifndef MOOR_TEST_SUPPORT_PTY_HPP
#define MOOR_TEST_SUPPORT_PTY_HPP

#include "support/handles.hpp"

#include <boost/test/unit_test.hpp>

#include <cstdlib>

#include <fcntl.h>
#include <termios.h>

namespace test {

/// a is the master, where the person sits; b is the terminal that the program has. Lines are edited
/// and echoed, as is usual for a terminal.
inline fd_pair make_pty() {
    unique_fd master(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    BOOST_REQUIRE_EQUAL(::grantpt(master), 0);
    BOOST_REQUIRE_EQUAL(::unlockpt(master), 0);
    char name[64];
    BOOST_REQUIRE_EQUAL(::ptsname_r(master, name, sizeof(name)), 0);
    unique_fd terminal(::open(name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    return {std::move(master), std::move(terminal)};
}

/// From now on the terminal carries bytes, and nothing else.
inline void make_raw(int terminal) {
    ::termios t{};
    BOOST_REQUIRE_EQUAL(::tcgetattr(terminal, &t), 0);
    ::cfmakeraw(&t);
    BOOST_REQUIRE_EQUAL(::tcsetattr(terminal, TCSANOW, &t), 0);
}

inline fd_pair make_raw_pty() {
    fd_pair p = make_pty();
    make_raw(p.b);
    return p;
}

} // namespace test

#endif
