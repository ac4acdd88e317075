//
// moor/adapt/mosquitto_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for libmosquitto: messages and errors.
//

#ifndef MOOR_ADAPT_MOSQUITTO_TYPES_HPP
#define MOOR_ADAPT_MOSQUITTO_TYPES_HPP

#include <moor/error.hpp>

#include <boost/asio/error.hpp>

#include <cerrno>
#include <memory>
#include <string>
#include <type_traits>

#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <netdb.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// Frees libmosquitto's properties.
/**
 * @par Example
 * @code
 * mosquitto_property* list = nullptr;
 * mosquitto_property_add_string(&list, MQTT_PROP_CONTENT_TYPE, "text/plain");
 * moor::adapt::mosquitto_properties owner(list);
 * @endcode
 */
struct mosquitto_property_deleter {
    /// Frees a list of properties.
    void operator()(mosquitto_property* p) const noexcept { mosquitto_property_free_all(&p); }
};

/// An owned list of MQTT 5 properties, for `mosquitto_property_read_string` and similar functions.
using mosquitto_properties = std::unique_ptr<mosquitto_property, mosquitto_property_deleter>;

/// A message that was received.
/**
 * @par Example
 * @code
 * moor::adapt::mqtt_message m = co_await client.async_receive(asio::use_awaitable);
 * std::cout << m.topic << ": " << m.payload << '\n';
 * @endcode
 */
struct mqtt_message {
    /// The topic to which the message was published.
    std::string topic{};
    /// The bytes of the message.
    std::string payload{};
    /// The quality of service with which the broker has sent the message: 0, 1 or 2.
    int qos = 0;
    /// Whether the broker had kept the message for later subscribers.
    bool retain = false;
    /// The properties of MQTT 5; the null pointer if there are none.
    mosquitto_properties properties{};
};

// ---- errors -------------------------------------------------------------------------------------

/// Errors of libmosquitto, and of the broker.
/**
 * Values below 128 are those of libmosquitto (`MOSQ_ERR_...`), and values from 128 to 255 are those
 * of the protocol MQTT 5 (`MQTT_RC_...`). The adapter translates the return codes of earlier
 * protocols into the MQTT 5 codes with the same meaning. Values without an enumerator may occur,
 * too.
 *
 * | value                                     | compares equal to           |
 * | ----------------------------------------- | --------------------------- |
 * | `connection_lost`                         | `errc::connection_reset`    |
 * | `keep_alive_timeout`                      | `errc::timed_out`           |
 * | `invalid_argument`                        | `errc::invalid_argument`    |
 * | `bad_user_name_or_password`, `not_authorized` | `errc::permission_denied` |
 * | `messages_dropped`                        | `errc::no_buffer_space`     |
 * | the others                                | themselves only             |
 */
enum class mosquitto_error {
    /// libmosquitto found a violation of the protocol.
    protocol_error = MOSQ_ERR_PROTOCOL,
    /// An argument is invalid, such as a topic, a port, or a keep-alive time below 5.
    invalid_argument = MOSQ_ERR_INVAL,
    /// The connection ended, and the broker gave no reason.
    connection_lost = MOSQ_ERR_CONN_LOST,
    /// The TLS handshake failed, the TLS options are invalid, or a TLS connection was lost.
    tls_failed = MOSQ_ERR_TLS,
    /// The payload is longer than MQTT allows.
    payload_too_long = MOSQ_ERR_PAYLOAD_SIZE,
    /// A topic is not UTF-8.
    malformed_utf8 = MOSQ_ERR_MALFORMED_UTF8,
    /// The broker did not answer within the keep-alive time.
    keep_alive_timeout = MOSQ_ERR_KEEPALIVE,
    /// The broker refused, and gave no reason.
    unspecified = MQTT_RC_UNSPECIFIED,
    /// The broker does not accept the version of the protocol.
    unsupported_protocol_version = MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION,
    /// The broker does not accept the client identifier.
    client_id_not_valid = MQTT_RC_CLIENTID_NOT_VALID,
    /// The broker does not accept the user's name or password.
    bad_user_name_or_password = MQTT_RC_BAD_USERNAME_OR_PASSWORD,
    /// The broker does not allow the request.
    not_authorized = MQTT_RC_NOT_AUTHORIZED,
    /// The broker is not available.
    server_unavailable = MQTT_RC_SERVER_UNAVAILABLE,
    /// Another client has connected with the same identifier.
    session_taken_over = MQTT_RC_SESSION_TAKEN_OVER,
    /// Received messages were dropped: the queue was full, or there was no memory.
    messages_dropped = 256
};

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class mosquitto_category_impl final : public boost::system::error_category {
public:
    constexpr mosquitto_category_impl() noexcept : error_category(0xb3d94c1f6a7e0285ull) {}

    const char* name() const noexcept override { return "libmosquitto"; }

    std::string message(int value) const override { return this->message(value, nullptr, 0); }

    const char* message(int value, char*, std::size_t) const noexcept override {
        if (value == static_cast<int>(mosquitto_error::messages_dropped))
            return "received messages were dropped: the queue was full, or there was no memory";
        return value < MQTT_RC_UNSPECIFIED ? mosquitto_strerror(value)
                                           : mosquitto_reason_string(value);
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (static_cast<mosquitto_error>(value)) {
        case mosquitto_error::connection_lost:
            return errc::make_error_condition(errc::connection_reset);
        case mosquitto_error::keep_alive_timeout:
            return errc::make_error_condition(errc::timed_out);
        case mosquitto_error::invalid_argument:
            return errc::make_error_condition(errc::invalid_argument);
        case mosquitto_error::bad_user_name_or_password:
        case mosquitto_error::not_authorized:
            return errc::make_error_condition(errc::permission_denied);
        case mosquitto_error::messages_dropped:
            return errc::make_error_condition(errc::no_buffer_space);
        default:
            return boost::system::error_condition(value, *this);
        }
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the adapter's errors; its name is "libmosquitto".
/**
 * @returns The one object of the category.
 */
inline const boost::system::error_category& mosquitto_category() noexcept {
    static const detail::mosquitto_category_impl instance;
    return instance;
}

/// Makes an error code of a `mosquitto_error`.
/**
 * @param e The error.
 * @returns An error code of `mosquitto_category()`.
 */
inline error_code make_error_code(mosquitto_error e) noexcept {
    return error_code(static_cast<int>(e), mosquitto_category());
}

namespace detail {

/// The error for a result of libmosquitto, and for the errno that the function has left.
inline error_code mosquitto_error_of(int result, int error) noexcept {
    namespace asio = boost::asio;
    switch (result) {
    case MOSQ_ERR_SUCCESS:
    case MOSQ_ERR_CONN_PENDING:
        return error_code();
    case MOSQ_ERR_NOMEM:
        return asio::error::no_memory;
    case MOSQ_ERR_NO_CONN:
        return asio::error::not_connected;
    case MOSQ_ERR_ERRNO:
        if (error == 0 || error == EPROTO) // EPROTO: libmosquitto's, for an error of TLS
            return make_error_code(error == 0 ? mosquitto_error::connection_lost
                                              : mosquitto_error::tls_failed);
        return error_code(error, boost::system::system_category());
    case MOSQ_ERR_EAI:
        if (error == EAI_AGAIN)
            return asio::error::host_not_found_try_again;
        return asio::error::host_not_found;
    default:
        return error_code(result, mosquitto_category());
    }
}

/// The error for a reason code of the broker. Below 128, the codes of MQTT 5 are no errors.
inline error_code mqtt_error_of(int reason) noexcept {
    return reason < MQTT_RC_UNSPECIFIED ? error_code() : error_code(reason, mosquitto_category());
}

/// The error for the code in CONNACK. Before MQTT 5, there were five errors with numbers of their
/// own. The others below 128 are not defined, and libmosquitto ends the connection.
inline error_code connack_error_of(int reason) noexcept {
    static constexpr int newer[] = {MQTT_RC_SUCCESS,
                                    MQTT_RC_UNSUPPORTED_PROTOCOL_VERSION,
                                    MQTT_RC_CLIENTID_NOT_VALID,
                                    MQTT_RC_SERVER_UNAVAILABLE,
                                    MQTT_RC_BAD_USERNAME_OR_PASSWORD,
                                    MQTT_RC_NOT_AUTHORIZED};
    if (reason > 5 && reason < MQTT_RC_UNSPECIFIED)
        return make_error_code(mosquitto_error::protocol_error);
    return mqtt_error_of(reason >= 0 && reason <= 5 ? newer[reason] : reason);
}

} // namespace detail
} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<moor::adapt::mosquitto_error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ADAPT_MOSQUITTO_TYPES_HPP
