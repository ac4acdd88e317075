// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The checks of test/support for the fuzzer: a check that fails ends the program. (Boost.Test
// ignores checks outside of its test cases.)

#ifndef MOOR_TEST_FUZZ_CHECKS_HPP
#define MOOR_TEST_FUZZ_CHECKS_HPP

#include <cstdio>
#include <cstdlib>

namespace fuzz {

[[noreturn]] inline void fail(const char* file, int line, const char* what) {
    std::fprintf(stderr, "%s:%d: the check %s fails: %m\n", file, line, what);
    std::abort();
}

} // namespace fuzz

#define MOOR_FUZZ_CHECK(what) ((what) ? void() : fuzz::fail(__FILE__, __LINE__, #what))
#define BOOST_REQUIRE(what) MOOR_FUZZ_CHECK(what)
#define BOOST_REQUIRE_EQUAL(a, b) MOOR_FUZZ_CHECK((a) == (b))
#define BOOST_REQUIRE_GE(a, b) MOOR_FUZZ_CHECK((a) >= (b))
#define BOOST_REQUIRE_MESSAGE(what, message) MOOR_FUZZ_CHECK(what)
#define BOOST_CHECK_GT(a, b) MOOR_FUZZ_CHECK((a) > (b))
#define BOOST_CHECK_MESSAGE(what, message) MOOR_FUZZ_CHECK(what)

#endif
