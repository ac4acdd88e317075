// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#include "plugin.hpp"

void wait_in_plugin(moor::registration& reg, moor::direction d, int& completions) {
    auto count = [&completions](moor::error_code ec) { completions += !ec; };
    if (d == moor::direction::read)
        reg.async_wait_readable(count);
    else
        reg.async_wait_writable(count);
}
