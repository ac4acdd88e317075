//
// moor/adapt/hiredis_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for hiredis: commands, replies, errors.
//

#ifndef MOOR_ADAPT_HIREDIS_TYPES_HPP
#define MOOR_ADAPT_HIREDIS_TYPES_HPP

#include <moor/error.hpp>

#include <cstddef>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

/// Frees hiredis' asynchronous contexts.
/**
 * @par Example
 * @code
 * moor::adapt::redis_handle c(redisAsyncConnect("127.0.0.1", 6379));
 * @endcode
 */
struct redis_deleter {
    /// Closes the connection, and frees the context.
    void operator()(redisAsyncContext* c) const noexcept { redisAsyncFree(c); }
};

/// An owner of an asynchronous context of hiredis.
using redis_handle = std::unique_ptr<redisAsyncContext, redis_deleter>;

// ---- errors -------------------------------------------------------------------------------------

/// Errors of hiredis, of a reply, and of the adapter.
/**
 * | value               | compares equal to             |
 * | ------------------- | ----------------------------- |
 * | `connection_closed` | `errc::connection_reset`      |
 * | `protocol_error`    | `errc::protocol_error`        |
 * | `out_of_memory`     | `errc::not_enough_memory`     |
 * | `timed_out`         | `errc::timed_out`             |
 * | the others          | themselves only               |
 */
enum class redis_error {
    /// REDIS_ERR_IO, if the error of the system is not known. A known error is reported itself.
    io_error = REDIS_ERR_IO,
    /// REDIS_ERR_OTHER, such as an error that the server sends before closing the connection.
    other = REDIS_ERR_OTHER,
    /// REDIS_ERR_EOF: the server closed the connection.
    connection_closed = REDIS_ERR_EOF,
    /// REDIS_ERR_PROTOCOL: hiredis does not understand the bytes of the server.
    protocol_error = REDIS_ERR_PROTOCOL,
    /// REDIS_ERR_OOM: memory ran out.
    out_of_memory = REDIS_ERR_OOM,
    /// REDIS_ERR_TIMEOUT, of hiredis 1.0 and later: a time limit of the context has passed.
    timed_out = 6,

    /// The reply is an error. The reply has its text.
    reply_error = 100,
    /// hiredis can't match the replies of this command with commands.
    unsupported_command,
    /// The connection has subscriptions, and accepts no other commands.
    subscribed
};

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class redis_category_impl final : public boost::system::error_category {
public:
    constexpr redis_category_impl() noexcept : error_category(0x7d1f03c85be2a964ull) {}

    const char* name() const noexcept override { return "hiredis"; }

    std::string message(int value) const override {
        char buffer[96];
        return this->message(value, buffer, sizeof(buffer));
    }

    const char* message(int value, char*, std::size_t) const noexcept override {
        switch (static_cast<redis_error>(value)) {
        case redis_error::io_error:
            return "input or output of the connection failed";
        case redis_error::other:
            return "hiredis reported an error";
        case redis_error::connection_closed:
            return "the Redis server closed the connection";
        case redis_error::protocol_error:
            return "the server did not keep to the protocol";
        case redis_error::out_of_memory:
            return "hiredis had no memory";
        case redis_error::timed_out:
            return "a time limit of the connection is over";
        case redis_error::reply_error:
            return "the server replied with an error";
        case redis_error::unsupported_command:
            return "hiredis does not support the command";
        case redis_error::subscribed:
            return "the command is not possible while there are subscriptions";
        }
        return "unknown hiredis error";
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (static_cast<redis_error>(value)) {
        case redis_error::connection_closed:
            return errc::make_error_condition(errc::connection_reset);
        case redis_error::protocol_error:
            return errc::make_error_condition(errc::protocol_error);
        case redis_error::out_of_memory:
            return errc::make_error_condition(errc::not_enough_memory);
        case redis_error::timed_out:
            return errc::make_error_condition(errc::timed_out);
        default:
            return boost::system::error_condition(value, *this);
        }
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

} // namespace detail

/// The category of the adapter's errors; its name is "hiredis".
inline const boost::system::error_category& redis_category() noexcept {
    static const detail::redis_category_impl instance;
    return instance;
}

/// Makes an `error_code` of a `redis_error`; this is how `redis_error` converts to `error_code`.
/**
 * @param e The error.
 * @returns An error code of `redis_category()`.
 */
inline error_code make_error_code(redis_error e) noexcept {
    return error_code(static_cast<int>(e), redis_category());
}

// ---- replies ------------------------------------------------------------------------------------

/// The types of replies. Types after `array` are of RESP3, which needs hiredis 1.0 or later.
enum class redis_type {
    /// No value, such as of a key that does not exist.
    nil = REDIS_REPLY_NIL,
    /// A word such as OK.
    status = REDIS_REPLY_STATUS,
    /// An error.
    error = REDIS_REPLY_ERROR,
    /// An integer.
    integer = REDIS_REPLY_INTEGER,
    /// A string of bytes.
    string = REDIS_REPLY_STRING,
    /// A list of replies.
    array = REDIS_REPLY_ARRAY,
    /// A real number.
    real = 7,
    /// A truth value.
    boolean = 8,
    /// Keys with values.
    map = 9,
    /// A list without an order.
    set = 10,
    /// Keys with values that describe another reply.
    attribute = 11,
    /// A message that the server sends without a command: see `async_receive`.
    push = 12,
    /// An integer of any size, as text.
    big_number = 13,
    /// A string with a format.
    verbatim = 14
};

/// A reply of the server, or a message that the server pushes, with all its elements.
/**
 * @par Example
 * @code
 * redis_reply r = co_await c.async_command("HGETALL", "user:7", asio::use_awaitable);
 * if (const redis_reply* name = r.find("name"))
 *     std::cout << name->text << '\n';
 * @endcode
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 */
struct redis_reply {
    /// The type.
    redis_type type = redis_type::nil;
    /// The bytes of a status, an error, a string or a number that is not an `integer`.
    std::string text{};
    /// The value of an integer; 1 or 0 for a boolean.
    long long integer = 0;
    /// The value of a real number.
    double real = 0;
    /// The format of a verbatim string, such as "txt".
    std::string format{};
    /// The elements; of a map or an attribute, the keys, each with its value behind it.
    std::vector<redis_reply> elements{};

    /// Constructs nil.
    redis_reply() = default;

    /// Copies a reply of hiredis.
    /**
     * @param r The reply, which hiredis frees after its callback.
     */
    explicit redis_reply(const redisReply& r) : type(static_cast<redis_type>(r.type)) {
        switch (type) {
        case redis_type::nil:
            break;
        case redis_type::integer:
        case redis_type::boolean:
            integer = r.integer;
            break;
        case redis_type::array:
        case redis_type::map:
        case redis_type::set:
        case redis_type::attribute:
        case redis_type::push:
            elements.reserve(r.elements);
            for (std::size_t i = 0; i != r.elements; ++i)
                elements.emplace_back(*r.element[i]);
            break;
        default:
            text.assign(r.str, r.len);
#if HIREDIS_MAJOR >= 1
            if (type == redis_type::real)
                real = r.dval;
            if (type == redis_type::verbatim)
                format = r.vtype;
#endif
        }
    }

    /// Returns whether there is no value, such as for a key that does not exist.
    bool is_nil() const noexcept { return type == redis_type::nil; }

    /// Returns whether the server reported an error; `text` says which.
    bool is_error() const noexcept { return type == redis_type::error; }

    /// Returns the value for a key, in a map or in an array with which RESP2 represents a map.
    /**
     * @param key The key.
     * @returns The value, a part of this reply; or the null pointer.
     */
    const redis_reply* find(std::string_view key) const noexcept {
        for (std::size_t i = 0; i + 1 < elements.size(); i += 2)
            if (elements[i].text == key)
                return &elements[i + 1];
        return nullptr;
    }
};

// ---- commands -----------------------------------------------------------------------------------

/// Whether a type can be an argument of a command: something like a string, or a number.
template <class T>
inline constexpr bool is_redis_argument = std::is_convertible<const T&, std::string_view>::value ||
                                          std::is_arithmetic<std::decay_t<T>>::value;

/// A command: its name and its arguments, which may have any bytes.
/**
 * @par Example
 * @code
 * moor::adapt::redis_command del("DEL");
 * for (const std::string& key : keys)
 *     del.add(key);
 * co_await c.async_command(std::move(del), asio::use_awaitable);
 * @endcode
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe.
 */
class redis_command {
public:
    /// Constructs an empty command, to which a name has to be added.
    redis_command() = default;

    /// Constructs a command of these words.
    /**
     * @param words The name and the arguments.
     */
    redis_command(std::vector<std::string> words) : words_(std::move(words)) {}

    /// Constructs a command of these values, each as `add` takes it.
    /**
     * @param name The name.
     * @param arguments The arguments.
     */
    template <class Name, class... Arguments, std::enable_if_t<is_redis_argument<Name>, int> = 0>
    explicit redis_command(const Name& name, const Arguments&... arguments) {
        words_.reserve(1 + sizeof...(arguments));
        add(name);
        (add(arguments), ...);
    }

    /// Adds bytes.
    /**
     * @param bytes The bytes.
     */
    redis_command& add(std::string_view bytes) {
        words_.emplace_back(bytes);
        return *this;
    }

    /// Adds a number or a character.
    /**
     * @param n The number.
     */
    template <class N, std::enable_if_t<std::is_arithmetic<N>::value, int> = 0>
    redis_command& add(N n) {
        if constexpr (std::is_same<N, char>::value) {
            return add(std::string_view(&n, 1));
        } else if constexpr (std::is_floating_point<N>::value) {
            char text[64];
            std::snprintf(text, sizeof(text), "%.*Lg", std::numeric_limits<N>::max_digits10,
                          static_cast<long double>(n));
            for (char& c : text)
                if (c == ',') // of the program's locale
                    c = '.';
            return add(std::string_view(text));
        } else {
            return add(std::string_view(std::to_string(n)));
        }
    }

    /// Returns the name and the arguments.
    const std::vector<std::string>& words() const noexcept { return words_; }

private:
    std::vector<std::string> words_;
};

} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<::moor::adapt::redis_error> : std::true_type {};

} // namespace system
} // namespace boost

#endif // MOOR_ADAPT_HIREDIS_TYPES_HPP
