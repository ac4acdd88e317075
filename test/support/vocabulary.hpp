// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What most tests name: the errors that they expect, and the triggers that they try.

#ifndef MOOR_TEST_SUPPORT_VOCABULARY_HPP
#define MOOR_TEST_SUPPORT_VOCABULARY_HPP

#include <moor/error.hpp>
#include <moor/registration.hpp>

#include <boost/asio/error.hpp>
#include <boost/system/error_code.hpp>

namespace test {

using boost::system::error_code;

inline const error_code aborted(boost::asio::error::operation_aborted);
inline const error_code bad_descriptor(boost::asio::error::bad_descriptor);
inline const error_code would_block(boost::asio::error::would_block);
inline const error_code gone(moor::error::gone);
inline const error_code already_registered(moor::error::already_registered);
inline const error_code not_registered(moor::error::not_registered);
inline const error_code already_open(moor::error::already_open);
inline const error_code registered_elsewhere(moor::error::registered_elsewhere);

inline constexpr moor::trigger both_triggers[] = {moor::trigger::level, moor::trigger::edge};

} // namespace test

#endif
