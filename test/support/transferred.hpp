// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// How a transfer went: what `called` is for waits.

#ifndef MOOR_TEST_SUPPORT_TRANSFERRED_HPP
#define MOOR_TEST_SUPPORT_TRANSFERRED_HPP

#include <boost/system/error_code.hpp>

#include <cstddef>

namespace test {

struct transferred {
    int times = 0;
    boost::system::error_code ec;
    std::size_t bytes = 0;

    explicit operator bool() const { return times != 0; }
    auto handler() {
        return [this](boost::system::error_code e, std::size_t n) {
            ++times;
            ec = e;
            bytes = n;
        };
    }
};

} // namespace test

#endif
