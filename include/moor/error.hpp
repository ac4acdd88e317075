//
// moor/error.hpp
//
// Distributed under the Boost Software License, Version 1.0. (See accompanying
// file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//

#ifndef MOOR_ERROR_HPP
#define MOOR_ERROR_HPP

#include <boost/system/error_category.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/error_condition.hpp>

#include <string>
#include <type_traits>

namespace moor {

/// The type of every error that Moor reports, as in Boost.Asio.
using error_code = boost::system::error_code;

/// Errors that only Moor can report.
/**
 * What the kernel or Boost.Asio reports is passed on as it is: `boost::asio::error::bad_descriptor`
 * (a closed or negative handle), `operation_aborted` (cancelled, deregistered or destroyed),
 * `invalid_argument` (an empty interest), `would_block`, `operation_not_supported` and every errno.
 *
 * | value                | compares equal to               |
 * | -------------------- | ------------------------------- |
 * | `gone`               | `errc::operation_canceled`      |
 * | `already_registered` | `errc::file_exists`             |
 * | `not_registered`     | `errc::bad_file_descriptor`     |
 */
enum class error {
    /// The service was closed, or the execution context was destroyed.
    gone = 1,
    /// The handle is registered with this execution context, or the registration already has one.
    already_registered,
    /// The registration has no handle.
    not_registered
};

namespace detail {

class error_category_impl final : public boost::system::error_category {
public:
    constexpr error_category_impl() noexcept : error_category(0xb7d1f0c46a3e9258ull) {}

    const char* name() const noexcept override { return "moor"; }

    std::string message(int value) const override { return this->message(value, nullptr, 0); }

    const char* message(int value, char*, std::size_t) const noexcept override {
        switch (static_cast<error>(value)) {
        case error::gone:
            return "the registration service was closed or its execution context is gone; "
                   "register the handle with a context that is alive";
        case error::already_registered:
            return "the handle is already registered with this execution context, or this "
                   "registration already holds one; deregister it first, or abandon() it if it was "
                   "closed";
        case error::not_registered:
            return "no handle is registered; call register_handle() before waiting";
        }
        return "unknown moor error";
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (static_cast<error>(value)) {
        case error::gone:
            return errc::make_error_condition(errc::operation_canceled);
        case error::already_registered:
            return errc::make_error_condition(errc::file_exists);
        case error::not_registered:
            return errc::make_error_condition(errc::bad_file_descriptor);
        }
        return boost::system::error_condition(value, *this);
    }
};

} // namespace detail

/// The category of `moor::error`; its name is "moor".
inline const boost::system::error_category& error_category() noexcept {
    static const detail::error_category_impl instance;
    return instance;
}

/// Makes `error` convert to `error_code`.
inline error_code make_error_code(error e) noexcept {
    return error_code(static_cast<int>(e), error_category());
}

} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<::moor::error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ERROR_HPP
