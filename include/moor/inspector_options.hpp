//
// moor/inspector_options.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_INSPECTOR_OPTIONS_HPP
#define MOOR_INSPECTOR_OPTIONS_HPP

#include <boost/asio/ip/address_v4.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <chrono>

namespace moor {

/// Where an `inspector` listens, how often it takes a sample, and what it calls stuck.
/**
 * @par Example
 * @code
 * moor::inspector_options options;
 * options.endpoint.port(8080);
 * options.stuck_after = std::chrono::minutes(1);
 * moor::inspector inspector(io, options);
 * @endcode
 */
struct inspector_options {
    /// The address and the port to listen at. Port 0: any port that is free.
    boost::asio::ip::tcp::endpoint endpoint{boost::asio::ip::address_v4::loopback(), 0};
    /// Whether the inspector may listen at an address that other machines can reach.
    bool allow_remote = false;
    /// The time between two samples of the registrations.
    std::chrono::milliseconds interval{100};
    /// The page marks a registration as stuck if an operation has been pending for longer.
    std::chrono::milliseconds stuck_after{10'000};
};

} // namespace moor

#endif // MOOR_INSPECTOR_OPTIONS_HPP
