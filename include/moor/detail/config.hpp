//
// moor/detail/config.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// With MOOR_SEPARATE_COMPILATION, functions that need not be seen are declared in the headers, and
// defined where a program includes moor/src.hpp.
//

#ifndef MOOR_DETAIL_CONFIG_HPP
#define MOOR_DETAIL_CONFIG_HPP

#include <boost/config.hpp>

#if defined(MOOR_SEPARATE_COMPILATION)
#define MOOR_DETAIL_DECL
#define MOOR_DETAIL_HOT
#if defined(MOOR_SOURCE)
#define MOOR_DETAIL_DEFINES
#endif
#else
/// Before a definition outside of a class.
#define MOOR_DETAIL_DECL inline
/// The same, for a function on the way of each wait.
#define MOOR_DETAIL_HOT BOOST_FORCEINLINE
/// The headers contain all definitions.
#define MOOR_DETAIL_DEFINES
#endif

#endif // MOOR_DETAIL_CONFIG_HPP
