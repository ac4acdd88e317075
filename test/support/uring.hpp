// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)

#ifndef MOOR_TEST_SUPPORT_URING_HPP
#define MOOR_TEST_SUPPORT_URING_HPP

namespace test {

/// How often requests were handed to the kernel, or their completions waited for.
long uring_calls();

} // namespace test

#endif
