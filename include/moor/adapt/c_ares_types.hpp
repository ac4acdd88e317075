//
// moor/adapt/c_ares_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for c-ares: errors, options, answers.
//

#ifndef MOOR_ADAPT_C_ARES_TYPES_HPP
#define MOOR_ADAPT_C_ARES_TYPES_HPP

#include <moor/error.hpp>

#include <boost/asio/error.hpp>

#include <chrono>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

#include <ares.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// An answer of a DNS server, as received: for `ares_parse_srv_reply` and similar functions.
/**
 * @par Example
 * @code
 * ares_srv_reply* services = nullptr;
 * int status = ares_parse_srv_reply(answer.data(), static_cast<int>(answer.size()), &services);
 * @endcode
 */
using c_ares_answer = std::vector<unsigned char>;

// ---- errors -------------------------------------------------------------------------------------

/// Errors of c-ares: the status codes for which Boost.Asio has no error.
/**
 * A value is the status of c-ares, so statuses without a name here are possible, too. Statuses for
 * which Boost.Asio has an error are not of this category: see `c_ares_error_code`.
 *
 * | value                | compares equal to                         |
 * | -------------------- | ----------------------------------------- |
 * | `timeout`            | `errc::timed_out`                         |
 * | `no_server`          | `errc::connection_refused`                |
 * | `server_failed`      | `errc::resource_unavailable_try_again`    |
 * | `refused`            | `errc::permission_denied`                 |
 * | `bad_name`           | `errc::invalid_argument`                  |
 * | `bad_answer`         | `errc::bad_message`                       |
 * | the others           | themselves only                           |
 */
enum class c_ares_error {
    /// No server has answered any try.
    timeout = ARES_ETIMEOUT,
    /// No server could be reached.
    no_server = ARES_ECONNREFUSED,
    /// The server reported a failure (SERVFAIL).
    server_failed = ARES_ESERVFAIL,
    /// The server refused the query (REFUSED).
    refused = ARES_EREFUSED,
    /// The server does not implement the operation (NOTIMP).
    not_implemented = ARES_ENOTIMP,
    /// The server says that the query is malformed (FORMERR).
    bad_query = ARES_EFORMERR,
    /// The name is not a domain name.
    bad_name = ARES_EBADNAME,
    /// The answer is malformed.
    bad_answer = ARES_EBADRESP,
    /// A string is malformed, such as the list of servers.
    bad_string = ARES_EBADSTR,
    /// A file of the configuration can't be read.
    bad_file = ARES_EFILE
};

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class c_ares_category_impl final : public boost::system::error_category {
public:
    constexpr c_ares_category_impl() noexcept : error_category(0x5d21f6b07e94c38aull) {}

    const char* name() const noexcept override { return "c-ares"; }

    std::string message(int value) const override { return this->message(value, nullptr, 0); }

    const char* message(int value, char*, std::size_t) const noexcept override {
        return ares_strerror(value);
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (value) {
        case ARES_ETIMEOUT:
            return errc::make_error_condition(errc::timed_out);
        case ARES_ECONNREFUSED:
            return errc::make_error_condition(errc::connection_refused);
        case ARES_ESERVFAIL:
            return errc::make_error_condition(errc::resource_unavailable_try_again);
        case ARES_EREFUSED:
            return errc::make_error_condition(errc::permission_denied);
        case ARES_EBADNAME:
            return errc::make_error_condition(errc::invalid_argument);
        case ARES_EBADRESP:
            return errc::make_error_condition(errc::bad_message);
        }
        return boost::system::error_condition(value, *this);
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the adapter's errors; its name is "c-ares".
inline const boost::system::error_category& c_ares_category() noexcept {
    static const detail::c_ares_category_impl instance;
    return instance;
}

/// Makes an `error_code` of a `c_ares_error`; this is how `c_ares_error` converts to `error_code`.
/**
 * @param e The error.
 * @returns An error code of `c_ares_category()`.
 */
inline error_code make_error_code(c_ares_error e) noexcept {
    return error_code(static_cast<int>(e), c_ares_category());
}

/// Makes an `error_code` of a status of c-ares.
/**
 * `ARES_ENOTFOUND` becomes `boost::asio::error::host_not_found`; `ARES_ENODATA` becomes
 * `boost::asio::error::no_data`; `ARES_ENOMEM` becomes `boost::asio::error::no_memory`;
 * `ARES_ECANCELLED` and `ARES_EDESTRUCTION` become `boost::asio::error::operation_aborted`. All
 * others become errors of `c_ares_category()`.
 *
 * @param status What a function of c-ares has returned, or passed to a callback.
 * @returns The error; no error for `ARES_SUCCESS`.
 *
 * @par Example
 * @code
 * ares_mx_reply* hosts = nullptr;
 * if (int status = ares_parse_mx_reply(a.data(), static_cast<int>(a.size()), &hosts))
 *     throw boost::system::system_error(moor::adapt::c_ares_error_code(status));
 * @endcode
 */
inline error_code c_ares_error_code(int status) noexcept {
    switch (status) {
    case ARES_SUCCESS:
        return error_code();
    case ARES_ENOTFOUND:
        return boost::asio::error::host_not_found;
    case ARES_ENODATA:
        return boost::asio::error::no_data;
    case ARES_ENOMEM:
        return boost::asio::error::no_memory;
    case ARES_ECANCELLED:
    case ARES_EDESTRUCTION:
        return boost::asio::error::operation_aborted;
    }
    return error_code(status, c_ares_category());
}

// ---- options ------------------------------------------------------------------------------------

/// The options of a resolver: servers, timeout, limits.
/**
 * An option that is not set has the value of `/etc/resolv.conf`, or the default of c-ares.
 *
 * @par Example
 * @code
 * moor::adapt::c_ares_options options;
 * options.servers = "192.0.2.53,[2001:db8::53]:5353";
 * options.timeout = std::chrono::milliseconds(500);
 * moor::adapt::c_ares_resolver resolver(io, options);
 * @endcode
 */
struct c_ares_options {
    /// The servers, separated by commas: addresses, each with a port or without.
    std::string servers{};
    /// How long to wait for the first answer of a server; 0 or less: the default of c-ares.
    /**
     * Later tries wait longer. The longest timeout of c-ares is 24 days.
     */
    std::chrono::milliseconds timeout{0};
    /// How often each server is asked; 0 or less: the default of c-ares.
    int tries = 0;
    /// How many operations are in flight at the same time; the others wait for their turn.
    /**
     * Queries and answers have to fit in the receive buffer of one socket, which by default takes
     * about 160 small datagrams in Linux. An operation for both kinds of addresses has two.
     */
    std::size_t max_in_flight = 50;
    /// All other options of `ares_init_options`, such as `flags`.
    /**
     * The objects to which the pointers lead are used in the resolver's constructor only.
     */
    ares_options native{};
    /// Which members of `native` are set: `ARES_OPT_FLAGS` and so on.
    /**
     * `ARES_OPT_SOCK_STATE_CB` belongs to the adapter. `ARES_OPT_EVENT_THREAD`, which newer
     * versions of c-ares have, must not be set.
     */
    int native_mask = 0;
};

} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<::moor::adapt::c_ares_error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ADAPT_C_ARES_TYPES_HPP
