//
// moor.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_HPP
#define MOOR_HPP

#include <moor/error.hpp>
#include <moor/readiness.hpp>
#include <moor/registration.hpp>
#include <moor/registration_service.hpp>

#endif // MOOR_HPP
