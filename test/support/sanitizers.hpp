// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Which sanitizers the program is built with, as GCC and as Clang say it.

#ifndef MOOR_TEST_SUPPORT_SANITIZERS_HPP
#define MOOR_TEST_SUPPORT_SANITIZERS_HPP

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MOOR_TEST_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define MOOR_TEST_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MOOR_TEST_ADDRESS_SANITIZER 1
#endif
#if defined(__SANITIZE_THREAD__)
#define MOOR_TEST_THREAD_SANITIZER 1
#endif

#if !defined(MOOR_TEST_ADDRESS_SANITIZER)
#define MOOR_TEST_ADDRESS_SANITIZER 0
#endif
#if !defined(MOOR_TEST_THREAD_SANITIZER)
#define MOOR_TEST_THREAD_SANITIZER 0
#endif

#endif
