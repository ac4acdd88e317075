// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#ifndef MOOR_TEST_SHARED_PLUGIN_HPP
#define MOOR_TEST_SHARED_PLUGIN_HPP

#include <moor.hpp>

/// Waits with a registration that the program made; counts completions.
[[gnu::visibility("default")]] void wait_in_plugin(moor::registration& reg, moor::direction d,
                                                   int& completions);

#endif
