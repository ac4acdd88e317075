//
// moor/adapt/libpq_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for libpq: owners of libpq's objects, parameters, errors.
//

#ifndef MOOR_ADAPT_LIBPQ_TYPES_HPP
#define MOOR_ADAPT_LIBPQ_TYPES_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/error.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <locale>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <libpq-fe.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// Frees libpq's objects.
/**
 * @par Example
 * @code
 * moor::adapt::pq_handle c(PQconnectStart("dbname=shop"));
 * @endcode
 */
struct pq_deleter {
    /// Closes and frees a connection.
    void operator()(PGconn* c) const noexcept { PQfinish(c); }
    /// Frees a result.
    void operator()(PGresult* r) const noexcept { PQclear(r); }
    /// Frees a notification.
    void operator()(PGnotify* n) const noexcept { PQfreemem(n); }
    /// Frees text, such as the text which `PQescapeIdentifier` returns.
    void operator()(char* text) const noexcept { PQfreemem(text); }
};

/// An owner of a connection of libpq.
using pq_handle = std::unique_ptr<PGconn, pq_deleter>;
/// A result of a command: see libpq's `PQntuples`, `PQgetvalue`, `PQcmdTuples`.
using pq_result = std::unique_ptr<PGresult, pq_deleter>;
/// A notification: `relname` is the channel, `extra` the payload, `be_pid` the sender.
using pq_notification = std::unique_ptr<PGnotify, pq_deleter>;

// ---- errors -------------------------------------------------------------------------------------

/// Errors of libpq that have no SQLSTATE.
/**
 * The text of libpq is returned by `basic_pq_connection::error_message`, and by
 * `PQresultErrorMessage` of the result.
 *
 * | value               | compares equal to           |
 * | ------------------- | --------------------------- |
 * | `connection_lost`   | `errc::connection_reset`    |
 * | `request_refused`   | `errc::invalid_argument`    |
 * | `pipeline_aborted`  | `errc::operation_canceled`  |
 * | the others          | themselves only             |
 */
enum class pq_error {
    /// The connection was not established: no server, no permission, an invalid parameter.
    connection_failed = 1,
    /// The connection broke, and the server did not say why.
    connection_lost,
    /// libpq did not accept the request: another command is in progress, or an argument is invalid.
    request_refused,
    /// An earlier command of the pipeline failed, so the server skipped this command.
    pipeline_aborted,
    /// The command failed, and the server did not say why.
    command_failed
};

namespace detail {

/// An SQLSTATE as a number: five digits in base 36, which is more than any `pq_error`.
constexpr int sqlstate_value(std::string_view code) noexcept {
    constexpr int invalid = static_cast<int>(pq_error::command_failed);
    if (code.size() != 5)
        return invalid;
    int value = 0;
    for (char c : code) {
        const bool is_digit = c >= '0' && c <= '9';
        if (!is_digit && (c < 'A' || c > 'Z'))
            return invalid;
        value = value * 36 + (is_digit ? c - '0' : c - 'A' + 10);
    }
    return value;
}

inline constexpr int first_sqlstate = 36; // "00010": all errors are above

inline const char* sqlstate_class(std::string_view code) noexcept {
    struct row {
        std::string_view begin;
        const char* text;
    };
    static constexpr row rows[] = {
        {"57014", "the query was cancelled"},
        {"57P", "the server is ending the connection, or does not accept one"},
        {"40001", "the transaction could not be serialized"},
        {"40P01", "a deadlock was found"},
        {"42501", "insufficient privilege"},
        {"42P01", "there is no such table"},
        {"42601", "syntax error"},
        {"23505", "a unique constraint was violated"},
        {"08", "connection exception"},
        {"0A", "the feature is not supported"},
        {"21", "cardinality violation"},
        {"22", "data exception"},
        {"23", "a constraint was violated"},
        {"25", "invalid transaction state"},
        {"26", "there is no such prepared statement"},
        {"28", "authorization failed"},
        {"40", "the transaction was rolled back"},
        {"42", "syntax error, or access rule violation"},
        {"53", "insufficient resources"},
        {"54", "a limit of the program was exceeded"},
        {"55", "the object is not in the prerequisite state"},
        {"57", "operator intervention"},
        {"58", "system error of the server"},
        {"P0", "an error raised by PL/pgSQL"},
        {"XX", "internal error of the server"},
    };
    for (const row& r : rows)
        if (code.substr(0, r.begin.size()) == r.begin)
            return r.text;
    return "an error of the server";
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class pq_category_impl final : public boost::system::error_category {
public:
    constexpr pq_category_impl() noexcept : error_category(0x9c04b7e5a1d86f32ull) {}

    const char* name() const noexcept override { return "libpq"; }

    std::string message(int value) const override {
        char buffer[96];
        return this->message(value, buffer, sizeof(buffer));
    }

    const char* message(int value, char* buffer, std::size_t size) const noexcept override {
        switch (static_cast<pq_error>(value)) {
        case pq_error::connection_failed:
            return "the connection to the PostgreSQL server was not established";
        case pq_error::connection_lost:
            return "the connection to the PostgreSQL server broke";
        case pq_error::request_refused:
            return "libpq did not accept the request";
        case pq_error::pipeline_aborted:
            return "an earlier command of the pipeline failed";
        case pq_error::command_failed:
            return "the command failed";
        }
        if (value < first_sqlstate)
            return "unknown libpq error";
        char code[6];
        spell(value, code);
        std::snprintf(buffer, size, "SQLSTATE %s: %s", code, sqlstate_class(code));
        return buffer;
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        const auto is = [value](pq_error e) { return value == static_cast<int>(e); };
        if (value == sqlstate_value("57014") || is(pq_error::pipeline_aborted))
            return errc::make_error_condition(errc::operation_canceled);
        if (is(pq_error::connection_lost) ||
            value / 36 == sqlstate_value("57P00") / 36 || // the server ends the connection
            value / sqlstate_value("01000") == 8)         // class 08, connection exceptions
            return errc::make_error_condition(errc::connection_reset);
        if (is(pq_error::request_refused))
            return errc::make_error_condition(errc::invalid_argument);
        return boost::system::error_condition(value, *this);
    }

    static void spell(int value, char (&code)[6]) noexcept {
        code[5] = '\0';
        for (int i = 4; i >= 0; --i, value /= 36)
            code[i] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[value % 36];
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the adapter's errors; its name is "libpq".
/**
 * A value is a `pq_error`, or stands for the SQLSTATE that the server reported.
 */
inline const boost::system::error_category& pq_category() noexcept {
    static const detail::pq_category_impl instance;
    return instance;
}

/// Makes an `error_code` of a `pq_error`; this is how `pq_error` converts to `error_code`.
/**
 * @param e The error.
 * @returns An error code of `pq_category()`.
 */
inline error_code make_error_code(pq_error e) noexcept {
    return error_code(static_cast<int>(e), pq_category());
}

/// Makes the `error_code` that stands for an SQLSTATE.
/**
 * SQLSTATE 57014, the end of a cancelled query, compares equal to `errc::operation_canceled`;
 * 57P01 to 57P05 and class 08, the end of a connection, to `errc::connection_reset`.
 *
 * @param code The five characters, such as "23505". Other text gives
 * `pq_error::command_failed`.
 * @returns An error code of `pq_category()`.
 *
 * @par Example
 * @code
 * if (ec == moor::adapt::pq_sqlstate("40001"))
 *     return retry(); // the transaction could not be serialized
 * @endcode
 */
inline error_code pq_sqlstate(std::string_view code) noexcept {
    return error_code(detail::sqlstate_value(code), pq_category());
}

/// Returns the SQLSTATE of an error; empty if the error has none.
/**
 * @param ec The error.
 */
inline std::string pq_sqlstate_of(const error_code& ec) {
    if (ec.category() != pq_category() || ec.value() < detail::first_sqlstate)
        return std::string();
    char code[6];
    detail::pq_category_impl::spell(ec.value(), code);
    return code;
}

/// Returns the error of a result; no error if the command succeeded, or if there is no result.
/**
 * @param r The result.
 */
inline error_code pq_error_of(const PGresult* r) noexcept {
    switch (PQresultStatus(r)) {
    case PGRES_BAD_RESPONSE:
    case PGRES_FATAL_ERROR:
        break;
#if defined(LIBPQ_HAS_PIPELINING)
    case PGRES_PIPELINE_ABORTED:
        return make_error_code(pq_error::pipeline_aborted);
#endif
    default:
        return error_code();
    }
    if (!r)
        return error_code();
    if (const char* code = PQresultErrorField(r, PG_DIAG_SQLSTATE))
        return pq_sqlstate(code);
    return make_error_code(pq_error::command_failed);
}

// ---- parameters ---------------------------------------------------------------------------------

/// The parameters of a command, `$1` and so on, and the format of its result.
/**
 * Parameters are text, which the server converts to the parameter's type, or binary. The object
 * keeps copies of all values.
 *
 * @par Example
 * @code
 * co_await c.async_exec_params("insert into t values ($1, $2)", moor::adapt::pq_params(7, "seven"),
 *                              asio::use_awaitable);
 * @endcode
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 */
class pq_params {
public:
    /// Constructs an empty list.
    pq_params() = default;

    /// Constructs the parameters of these values, each as `add` takes it.
    /**
     * @param first The value of `$1`.
     * @param others The values of `$2` and so on.
     */
    template <class T, class... Ts,
              std::enable_if_t<!std::is_same<std::decay_t<T>, pq_params>::value, int> = 0>
    explicit pq_params(const T& first, const Ts&... others) {
        add(first);
        (add(others), ...);
    }

    /// Adds text.
    /**
     * @param text The text. A command with a null character in a text is refused, since libpq would
     * take the text for shorter.
     */
    pq_params& add(std::string_view text) { return push(std::string(text), 0, false); }
    /// Adds text.
    /**
     * @param text The text; a null pointer is NULL.
     */
    pq_params& add(const char* text) { return text ? add(std::string_view(text)) : add(nullptr); }
    /// Adds NULL.
    pq_params& add(std::nullptr_t) {
        values_.emplace_back();
        return *this;
    }
    /// Adds NULL.
    pq_params& add(std::nullopt_t) { return add(nullptr); }

    /// Adds a number, a truth value or a character.
    /**
     * @param n The number.
     */
    template <class N, std::enable_if_t<std::is_arithmetic<N>::value, int> = 0>
    pq_params& add(N n) {
        if constexpr (std::is_same<N, bool>::value) {
            return add(n ? "t" : "f");
        } else if constexpr (std::is_same<N, char>::value) {
            return add(std::string_view(&n, 1));
        } else if constexpr (std::is_floating_point<N>::value) {
            if (std::isnan(n))
                return add("NaN"); // of which the C library also has a negative one
            std::ostringstream text;
            text.imbue(std::locale::classic());
            text.precision(std::numeric_limits<N>::max_digits10);
            text << n;
            return push(text.str(), 0, false);
        } else {
            return push(std::to_string(n), 0, false);
        }
    }

    /// Adds a value, or NULL if there is none.
    /**
     * @param value The value.
     */
    template <class T>
    pq_params& add(const std::optional<T>& value) {
        return value ? add(*value) : add(nullptr);
    }

    /// Adds a value in the type's binary format.
    /**
     * @param bytes The bytes.
     * @param type The type's object identifier; 0: the server infers the type.
     */
    pq_params& add_binary(std::string_view bytes, Oid type = 0) {
        return push(std::string(bytes), type, true);
    }

    /// Asks the server for the result in binary format.
    pq_params& request_binary() noexcept {
        result_format_ = 1;
        return *this;
    }

    /// Returns the number of parameters.
    std::size_t size() const noexcept { return values_.size(); }

    /// Returns whether libpq accepts all of the values.
    /**
     * libpq does not accept a text with a null character, nor a value whose length does not fit in
     * an `int`.
     */
    bool is_suitable() const noexcept { return is_suitable_; }

    /// Calls `f(n, types, values, lengths, formats, result_format)`, as libpq wants the parameters.
    /**
     * @param f The function, whose result is returned.
     */
    template <class F>
    int apply(F f) const {
        std::vector<Oid> types;
        std::vector<const char*> values;
        std::vector<int> lengths, formats;
        for (const parameter& v : values_) {
            types.push_back(v.type);
            values.push_back(v.bytes ? v.bytes->c_str() : nullptr);
            lengths.push_back(v.bytes ? static_cast<int>(v.bytes->size()) : 0);
            formats.push_back(v.is_binary);
        }
        return f(static_cast<int>(values_.size()), types.data(), values.data(), lengths.data(),
                 formats.data(), result_format_);
    }

private:
    struct parameter {
        std::optional<std::string> bytes;
        Oid type = 0;
        bool is_binary = false;
    };

    pq_params& push(std::string bytes, Oid type, bool is_binary) {
        is_suitable_ = is_suitable_ &&
                       bytes.size() <= std::size_t((std::numeric_limits<int>::max)()) &&
                       (is_binary || !detail::has_null(bytes));
        values_.push_back({std::move(bytes), type, is_binary});
        return *this;
    }

    std::vector<parameter> values_;
    int result_format_ = 0;
    bool is_suitable_ = true;
};

} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<::moor::adapt::pq_error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ADAPT_LIBPQ_TYPES_HPP
