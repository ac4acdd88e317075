//
// moor/detail/throw_if.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// What the overloads without an error_code do with an error.
//

#ifndef MOOR_DETAIL_THROW_IF_HPP
#define MOOR_DETAIL_THROW_IF_HPP

#include <moor/detail/config.hpp>
#include <moor/error.hpp>

#include <boost/assert/source_location.hpp>
#include <boost/config.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <string>

namespace moor {
namespace detail {

/// The exception's text starts with the function and the descriptor's number, such as
/// "moor::registration::register_handle(7): "; `boost::get_throw_location` gives `where`.
[[noreturn]] void throw_error(const error_code& ec, const char* function, int handle,
                              const boost::source_location& where);

/// Throws if there is an error. `where` is the place of the call.
inline void throw_if(const error_code& ec, const char* function, int handle,
                     const boost::source_location& where = BOOST_CURRENT_LOCATION) {
    if (BOOST_UNLIKELY(ec.failed()))
        throw_error(ec, function, handle, where);
}

#if defined(MOOR_DETAIL_DEFINES)

BOOST_NOINLINE MOOR_DETAIL_DECL void throw_error(const error_code& ec, const char* function,
                                                 int handle, const boost::source_location& where) {
    std::string what(function);
    what += '(';
    what += std::to_string(handle);
    what += ')';
    boost::throw_exception(boost::system::system_error(ec, what), where);
}

#endif // MOOR_DETAIL_DEFINES

} // namespace detail
} // namespace moor

#endif // MOOR_DETAIL_THROW_IF_HPP
