//
// test/bench/streams.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_BENCH_STREAMS_HPP
#define MOOR_BENCH_STREAMS_HPP

#include "ring.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace bench {

struct stream_entry {
    std::string name; ///< KIND/COMPETITOR
    std::function<std::unique_ptr<competitor>(unsigned handles, unsigned active)> make;
    bool bulk = false;
};

const std::vector<stream_entry>& stream_competitors();

} // namespace bench

#endif // MOOR_BENCH_STREAMS_HPP
