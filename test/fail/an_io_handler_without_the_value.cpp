// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#include <moor.hpp>

void f(moor::registration& reg, moor::stream_descriptor& stream) {
    (void)reg, (void)stream;
    auto call = [](moor::error_code&) { return 1; };
    reg.async_io(moor::interest::readable, call, [](moor::error_code) {}); // <- the error
}
