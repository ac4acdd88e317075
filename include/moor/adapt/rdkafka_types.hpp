//
// moor/adapt/rdkafka_types.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The values of the adapter for librdkafka: errors, configurations, messages, records, reports.
//

#ifndef MOOR_ADAPT_RDKAFKA_TYPES_HPP
#define MOOR_ADAPT_RDKAFKA_TYPES_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/error.hpp>

#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <librdkafka/rdkafka.h>

namespace moor {
/// Adapters of foreign libraries: one optional header for each library.
namespace adapt {

// ---- errors -------------------------------------------------------------------------------------

/// The most frequent errors of librdkafka.
/**
 * The values are those of `rd_kafka_resp_err_t`. Values without an enumerator may occur, too: see
 * `kafka_error_code`.
 *
 * | value                   | compares equal to                      |
 * | ----------------------- | -------------------------------------- |
 * | `timeout`               | `errc::timed_out`                      |
 * | `message_timeout`       | `errc::timed_out`                      |
 * | `queue_full`            | `errc::no_buffer_space`                |
 * | `message_too_large`     | `errc::message_size`                   |
 * | `invalid_argument`      | `errc::invalid_argument`               |
 * | `topic_not_authorized`  | `errc::permission_denied`              |
 * | `group_not_authorized`  | `errc::permission_denied`              |
 * | the others              | themselves only                        |
 */
enum class kafka_error {
    /// The end of a partition, if `enable.partition.eof` is set.
    partition_eof = RD_KAFKA_RESP_ERR__PARTITION_EOF,
    /// No broker has reported the message as stored within `message.timeout.ms`.
    message_timeout = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT,
    /// A request has timed out.
    timeout = RD_KAFKA_RESP_ERR__TIMED_OUT,
    /// A connection to a broker has failed.
    transport = RD_KAFKA_RESP_ERR__TRANSPORT,
    /// No broker can be reached.
    all_brokers_down = RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
    /// The producer's queue is full.
    queue_full = RD_KAFKA_RESP_ERR__QUEUE_FULL,
    /// The partition does not exist.
    unknown_partition = RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
    /// The topic does not exist, according to librdkafka.
    unknown_topic = RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
    /// The topic or the partition does not exist, according to the broker.
    unknown_topic_or_partition = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    /// The name of the topic is malformed.
    bad_topic = RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
    /// The message is larger than `message.max.bytes`, or than the broker allows.
    message_too_large = RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
    /// An argument is invalid.
    invalid_argument = RD_KAFKA_RESP_ERR__INVALID_ARG,
    /// The state of the object does not allow the operation: for example, the consumer was closed.
    bad_state = RD_KAFKA_RESP_ERR__STATE,
    /// The consumer has no group.
    unknown_group = RD_KAFKA_RESP_ERR__UNKNOWN_GROUP,
    /// No operation was pending for `max.poll.interval.ms`: the consumer has left the group.
    max_poll_exceeded = RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED,
    /// The broker does not allow access to the topic.
    topic_not_authorized = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    /// The broker does not allow access to the group.
    group_not_authorized = RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
    /// An error after which the object can't be used any more: see `rd_kafka_fatal_error`.
    fatal = RD_KAFKA_RESP_ERR__FATAL
};

} // namespace adapt
} // namespace moor

namespace boost {
namespace system {

template <>
struct is_error_code_enum<::moor::adapt::kafka_error> : std::true_type {};

} // namespace system
} // namespace boost

namespace moor {
namespace adapt {

namespace detail {

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"
#endif

class kafka_category_impl final : public boost::system::error_category {
public:
    constexpr kafka_category_impl() noexcept : error_category(0x7c0e94d15ab2f386ull) {}

    const char* name() const noexcept override { return "librdkafka"; }

    std::string message(int value) const override { return this->message(value, nullptr, 0); }

    const char* message(int value, char*, std::size_t) const noexcept override {
        return rd_kafka_err2str(static_cast<rd_kafka_resp_err_t>(value));
    }

    boost::system::error_condition default_error_condition(int value) const noexcept override {
        namespace errc = boost::system::errc;
        switch (value) {
        case RD_KAFKA_RESP_ERR__TIMED_OUT:
        case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
            return errc::make_error_condition(errc::timed_out);
        case RD_KAFKA_RESP_ERR__QUEUE_FULL:
            return errc::make_error_condition(errc::no_buffer_space);
        case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
            return errc::make_error_condition(errc::message_size);
        case RD_KAFKA_RESP_ERR__INVALID_ARG:
            return errc::make_error_condition(errc::invalid_argument);
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
            return errc::make_error_condition(errc::permission_denied);
        }
        return boost::system::error_condition(value, *this);
    }
};

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

struct kafka_conf_deleter {
    void operator()(rd_kafka_conf_t* c) const noexcept { rd_kafka_conf_destroy(c); }
};

/// The last owner destroys the client, which blocks for ever while a message of the client exists.
using kafka_client = std::shared_ptr<rd_kafka_t>;

struct kafka_message_deleter {
    void operator()(rd_kafka_message_t* m) noexcept {
        rd_kafka_message_destroy(m);
        client.reset();
    }

    kafka_client client{};
};

} // namespace detail

/// The category of the adapter's errors; its name is "librdkafka".
inline const boost::system::error_category& kafka_category() noexcept {
    static const detail::kafka_category_impl instance;
    return instance;
}

/// Makes an `error_code` of a `kafka_error`, for the conversion of `kafka_error` to `error_code`.
/**
 * @param e The error.
 * @returns An error code of `kafka_category()`.
 */
inline error_code make_error_code(kafka_error e) noexcept {
    return error_code(static_cast<int>(e), kafka_category());
}

/// Makes an `error_code` of an error of librdkafka.
/**
 * @param e The result of a function of librdkafka.
 * @returns The error, of `kafka_category()`; no error for `RD_KAFKA_RESP_ERR_NO_ERROR`.
 *
 * @par Example
 * @code
 * if (moor::error_code ec = moor::adapt::kafka_error_code(rd_kafka_subscribe(rk, topics)))
 *     throw boost::system::system_error(ec);
 * @endcode
 */
inline error_code kafka_error_code(rd_kafka_resp_err_t e) noexcept {
    return e == RD_KAFKA_RESP_ERR_NO_ERROR ? error_code()
                                           : error_code(static_cast<int>(e), kafka_category());
}

// ---- configurations -----------------------------------------------------------------------------

/// A configuration of librdkafka, which a consumer or a producer takes.
using kafka_conf = std::unique_ptr<rd_kafka_conf_t, detail::kafka_conf_deleter>;

/// Makes a configuration of properties and their values.
/**
 * Set callbacks with librdkafka's functions, such as `rd_kafka_conf_set_rebalance_cb`.
 *
 * @param properties The names of the properties, as in librdkafka's CONFIGURATION.md, and values.
 * @returns The configuration.
 * @throws boost::system::system_error If librdkafka does not know a property, or refuses a value.
 * The exception has the text of librdkafka. A value with a null character is refused, too.
 *
 * @par Example
 * @code
 * auto conf = moor::adapt::make_kafka_conf({{"bootstrap.servers", "kafka.example.com"},
 *                                           {"group.id", "readers"}});
 * @endcode
 */
inline kafka_conf
make_kafka_conf(std::initializer_list<std::pair<const char*, std::string>> properties) {
    kafka_conf conf(rd_kafka_conf_new());
    for (const auto& [name, value] : properties) {
        if (detail::has_null(value)) // where librdkafka would end the value
            boost::throw_exception(
                boost::system::system_error(make_error_code(kafka_error::invalid_argument),
                                            std::string(name) + " has a null character"));
        char text[512] = "";
        if (rd_kafka_conf_set(conf.get(), name, value.c_str(), text, sizeof(text)) !=
            RD_KAFKA_CONF_OK)
            boost::throw_exception(
                boost::system::system_error(make_error_code(kafka_error::invalid_argument), text));
    }
    return conf;
}

// ---- what a consumer receives -------------------------------------------------------------------

/// A message, which may outlive its consumer.
/**
 * A message shares the ownership of librdkafka's object with the consumer. If the consumer borrows
 * the object, the message has to be destroyed before the object.
 */
using kafka_message = std::unique_ptr<rd_kafka_message_t, detail::kafka_message_deleter>;

/// The key of a message.
/**
 * @param m The message.
 * @returns The bytes of the key, which the message owns; a null view if there is no key.
 */
inline std::string_view kafka_key(const rd_kafka_message_t& m) noexcept {
    return {static_cast<const char*>(m.key), m.key ? m.key_len : 0};
}

/// The value of a message; with an error, librdkafka's text for the error.
/**
 * @param m The message.
 * @returns The bytes of the value, which the message owns; a null view if there is no value.
 *
 * @par Example
 * @code
 * auto m = co_await consumer.async_consume(asio::use_awaitable);
 * std::cout << moor::adapt::kafka_value(*m) << '\n';
 * @endcode
 */
inline std::string_view kafka_value(const rd_kafka_message_t& m) noexcept {
    return {static_cast<const char*>(m.payload), m.payload ? m.len : 0};
}

// ---- what a producer sends ----------------------------------------------------------------------

/// A message for `async_produce`.
/**
 * @par Example
 * @code
 * moor::adapt::kafka_record r;
 * r.topic = "news";
 * r.value = "text";
 * r.headers = {{"trace", "7"}};
 * auto report = co_await producer.async_produce(std::move(r), asio::use_awaitable);
 * @endcode
 */
struct kafka_record {
    /// The topic.
    std::string topic{};
    /// The key, by which the partitioner chooses the partition.
    std::optional<std::string> key{};
    /// The value. Without a value, a compacted topic may delete earlier messages with the same key.
    std::optional<std::string> value{};
    /// The partition; by default, the partitioner chooses one.
    std::int32_t partition = RD_KAFKA_PARTITION_UA;
    /// The time in milliseconds since 1970; 0: now.
    std::int64_t timestamp = 0;
    /// The headers.
    std::vector<std::pair<std::string, std::string>> headers{};
};

/// Where a message has been stored.
/**
 * @par Example
 * @code
 * kafka_report r = co_await producer.async_produce("news", "key", "text", asio::use_awaitable);
 * std::cout << "stored at " << r.partition << ':' << r.offset << '\n';
 * @endcode
 */
struct kafka_report {
    /// The partition, or -1 if none was chosen.
    std::int32_t partition = -1;
    /// The offset in the partition; `RD_KAFKA_OFFSET_INVALID` (-1001) if not known.
    std::int64_t offset = RD_KAFKA_OFFSET_INVALID;
};

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_RDKAFKA_TYPES_HPP
