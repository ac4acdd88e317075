//
// moor/adapt/sd_bus_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for sd-bus: owners of the library's objects, and errors.
//

#ifndef MOOR_ADAPT_SD_BUS_TYPES_HPP
#define MOOR_ADAPT_SD_BUS_TYPES_HPP

#include <moor/error.hpp>

#include <boost/asio/error.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>

#include <systemd/sd-bus.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// Releases sd-bus's objects.
/**
 * @par Example
 * @code
 * moor::adapt::sd_bus_message_handle copy(sd_bus_message_ref(m));
 * @endcode
 */
struct sd_bus_deleter {
    /// Closes a connection, without blocking: messages that were not sent are lost.
    void operator()(sd_bus* b) const noexcept { sd_bus_close_unref(b); }
    /// Releases a message.
    void operator()(sd_bus_message* m) const noexcept { sd_bus_message_unref(m); }
    /// Releases a slot, which ends its call, its match or its object.
    void operator()(sd_bus_slot* s) const noexcept { sd_bus_slot_unref(s); }
};

/// An owner of a connection of sd-bus, which closes the connection.
using sd_bus_handle = std::unique_ptr<sd_bus, sd_bus_deleter>;
/// A message: read it with `sd_bus_message_read` and the other functions of sd-bus.
/**
 * The library counts references without atomic operations. So a message may only be used and
 * destroyed where its connection may be used.
 */
using sd_bus_message_handle = std::unique_ptr<sd_bus_message, sd_bus_deleter>;
/// A slot, such as the one that `sd_bus_add_object_vtable` returns.
using sd_bus_slot_handle = std::unique_ptr<sd_bus_slot, sd_bus_deleter>;

// ---- errors -------------------------------------------------------------------------------------

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class sd_bus_category_impl final : public boost::system::error_category {
public:
    constexpr sd_bus_category_impl() noexcept : error_category(0xb3d1f06a94c8e275ull) {}

    const char* name() const noexcept override { return "sd-bus"; }

    std::string message(int value) const override {
        char buffer[160];
        return this->message(value, buffer, sizeof(buffer));
    }

    const char* message(int value, char* buffer, std::size_t size) const noexcept override {
        switch (value) { // where the text of the errno value says something else
        case EACCES:
            return "access denied";
        case EBADR:
            return "there is no such method, object, interface or property";
        case EHOSTUNREACH:
            return "there is no such service, and none to start";
        case EIO:
            return "the service reports an error, or the transfer failed";
        case ENOBUFS:
            return "a queue or limit of the bus is full";
        case ENXIO:
            return "the name has no owner";
        case EROFS:
            return "the property is read-only";
        case ETIMEDOUT:
            return "no reply";
        default:
            return boost::system::generic_category().message(value, buffer, size);
        }
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        return boost::system::error_condition(value, boost::system::generic_category());
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the errors of sd-bus; its name is "sd-bus".
/**
 * A D-Bus error has a name. A value is the `errno` value to which sd-bus maps the name (see the
 * manual page sd-bus-errors(3)), and compares equal to the `errc` of the same value. A name that
 * sd-bus does not know becomes `EIO`, unless the program maps the name (`sd_bus_error_add_map`).
 *
 * | name, without `org.freedesktop.DBus.Error.` | equals                             |
 * | ------------------------------------------- | ---------------------------------- |
 * | `NoReply`, `Timeout`, `TimedOut`            | `errc::timed_out`                  |
 * | `ServiceUnknown`                            | `errc::host_unreachable`           |
 * | `NameHasNoOwner`                            | `errc::no_such_device_or_address`  |
 * | `AccessDenied`, `AuthFailed`                | `errc::permission_denied`          |
 * | `InteractiveAuthorizationRequired`          | `errc::permission_denied`          |
 * | `InvalidArgs`, `InvalidSignature`           | `errc::invalid_argument`           |
 * | `MatchRuleInvalid`                          | `errc::invalid_argument`           |
 * | `UnknownMethod`, `UnknownObject`            | value `EBADR`                      |
 * | `UnknownInterface`, `UnknownProperty`       | value `EBADR`                      |
 */
inline const boost::system::error_category& sd_bus_category() noexcept {
    static const detail::sd_bus_category_impl instance;
    return instance;
}

/// Makes the `error_code` of the result of a function of sd-bus.
/**
 * @param result The result. A negative one is an `errno` value with the sign changed.
 * @returns No error, if the result is not negative; `asio::error::not_connected` for `-ENOTCONN`
 * and `asio::error::connection_reset` for `-ECONNRESET`, which are about the connection itself; or
 * an error code of `sd_bus_category()`.
 *
 * @par Example
 * @code
 * moor::error_code ec = moor::adapt::sd_bus_error_of(sd_bus_message_read(m.get(), "s", &text));
 * @endcode
 */
inline error_code sd_bus_error_of(int result) noexcept {
    if (result >= 0)
        return error_code();
    if (result == -ENOTCONN)
        return boost::asio::error::not_connected;
    if (result == -ECONNRESET)
        return boost::asio::error::connection_reset;
    return error_code(-result, sd_bus_category());
}

/// Makes the `error_code` of a message: no error, unless it is an error reply.
/**
 * `sd_bus_message_get_error` has the error's name and text.
 *
 * @param m The message.
 */
inline error_code sd_bus_error_of(sd_bus_message* m) noexcept {
    const int value = m ? sd_bus_message_get_errno(m) : 0;
    return value > 0 ? error_code(value, sd_bus_category()) : error_code();
}

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_SD_BUS_TYPES_HPP
