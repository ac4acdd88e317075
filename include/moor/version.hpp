//
// moor/version.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_VERSION_HPP
#define MOOR_VERSION_HPP

/// The version of Moor, for `#if`, in the scheme of `BOOST_ASIO_VERSION`.
///
/// - `MOOR_VERSION % 100` is the patch version.
/// - `MOOR_VERSION / 100 % 1000` is the minor version.
/// - `MOOR_VERSION / 100000` is the major version.
///
/// The version stands in this line only. CMake's package and the Debian package read the line.
#define MOOR_VERSION 100 // 0.1.0

#endif // MOOR_VERSION_HPP
