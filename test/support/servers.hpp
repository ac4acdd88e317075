// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The servers of test/adapt/servers.sh, for the adapters' tests. Any thread may ask: so these
// functions throw, and make no checks of Boost.Test, which only one thread may make at a time.

#ifndef MOOR_TEST_SUPPORT_SERVERS_HPP
#define MOOR_TEST_SUPPORT_SERVERS_HPP

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace test {

/// A variable that servers.sh sets.
inline std::string variable(const char* name) {
    const char* value = std::getenv(name);
    if (!value)
        throw std::runtime_error(std::string(name) +
                                 " is not set: run this by test/adapt/servers.sh");
    return value;
}

/// Calls servers.sh, such as "stop redis".
inline void control_server(const std::string& command) {
    const std::string line = variable("MOOR_SERVERS") + ' ' + command;
    if (std::system(line.c_str()) != 0)
        throw std::runtime_error(line + " has failed");
}

} // namespace test

#endif // MOOR_TEST_SUPPORT_SERVERS_HPP
