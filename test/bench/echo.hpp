//
// test/bench/echo.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// An echo server: it writes back to each of its connections the bytes that it reads from there.
//

#ifndef MOOR_BENCH_ECHO_HPP
#define MOOR_BENCH_ECHO_HPP

#include <cstddef>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace bench {

class echo_server {
public:
    virtual ~echo_server() = default;

    /// Serves the connections until the clients have closed all of them.
    virtual void run() = 0;
};

/// The most that a server reads at once.
constexpr std::size_t echo_buffer = 16384;

enum class connection_kind { unix_socket, tcp };

struct echo_entry {
    std::string name;
    bool owns; ///< whether the server closes the connections
    std::unique_ptr<echo_server> (*make)(connection_kind kind, const std::vector<int>& connections);
};

/// The servers that are linked into this program. Each source file of servers adds its own.
inline std::vector<echo_entry>& echo_servers() {
    static std::vector<echo_entry> all;
    return all;
}

struct added_servers {
    explicit added_servers(std::vector<echo_entry> v) {
        std::move(v.begin(), v.end(), std::back_inserter(echo_servers()));
    }
};

} // namespace bench

#endif // MOOR_BENCH_ECHO_HPP
