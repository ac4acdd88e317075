//
// moor/adapt/rdkafka.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Consumers and producers of Apache Kafka, by librdkafka. Needs librdkafka 1.9 or later; link with
// -lrdkafka.
//
// The library's contract, as the adapter keeps it:
//
// - librdkafka has threads of its own, one for each broker and a main thread, which send and
//   receive. The adapter adds no thread.
// - Most callbacks of the program run where the program polls: those for rebalances, commits,
//   errors, throttling, statistics and new tokens. The others run on librdkafka's threads.
// - rd_kafka_queue_io_event_enable writes to a descriptor when an empty queue receives an entry,
//   and not again until the queue is empty. The adapter reads its eventfd first, and then takes
//   the entries out of the queue, in several turns of the loop if there are many reports.
// - librdkafka takes a consumer whose queue is not polled for max.poll.interval.ms out of the
//   group, even if there was nothing to consume. While an operation waits, the adapter polls twice
//   in this time.
// - rd_kafka_destroy waits for ever while the program has a message. The adapter's messages share
//   the ownership of the client, so the last owner destroys the client.
// - librdkafka can't take back a message that a producer has sent. A cancelled operation completes,
//   and the adapter drops the report.
// - librdkafka stores the offset of a message, for a later commit, when the message is taken out of
//   the queue. async_close first pauses the partitions: librdkafka then drops the messages in the
//   queue, and does not commit their offsets.
// - While a consumer is being closed, librdkafka waits for the answer to each rebalance, also in
//   rd_kafka_destroy. The destructor gives the answers.
// - If the producer's queue is full, the adapter keeps further messages, in order.
//
// What blocks: rd_kafka_consumer_close and rd_kafka_flush, for which there are async_close and
// async_flush; rd_kafka_destroy, which joins librdkafka's threads, for a few milliseconds, but
// until the consumer is closed if async_close has begun. The constructors start these threads.
// subscribe, assign, unassign, assignment, pause and resume wait for librdkafka's main thread, but
// for no broker; async_close calls two of these functions. Of the other functions, those with a
// timeout ask a broker and block up to this time: rd_kafka_seek, rd_kafka_committed,
// rd_kafka_metadata, rd_kafka_query_watermark_offsets. rd_kafka_commit blocks, too, unless the last
// argument is 1.
//
// Threads: all members of a consumer or a producer have to be called, and cancellation signals
// emitted, on the object's executor, which has to be a strand if several threads run the context.
//
// Lifetimes: a consumer or a producer owns librdkafka's object, and may outlive the execution
// context. A consumer may also borrow librdkafka's object. The destructor completes pending
// operations with operation_aborted. The callbacks that run where the program polls may use or
// destroy the consumer or the producer.
//
// An example: example/kafka.cpp.
//

#ifndef MOOR_ADAPT_RDKAFKA_HPP
#define MOOR_ADAPT_RDKAFKA_HPP

#include <moor/adapt/detail/initiation.hpp>
#include <moor/adapt/detail/kafka_consumer_session.hpp>
#include <moor/adapt/detail/kafka_producer_session.hpp>
#include <moor/adapt/detail/kafka_session.hpp>
#include <moor/adapt/rdkafka_types.hpp>
#include <moor/detail/initiate.hpp>
#include <moor/error.hpp>
#include <moor/registration.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/error.hpp>

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <librdkafka/rdkafka.h>

namespace moor {
namespace adapt {

namespace detail {

// What the initiating functions do, once their tokens say so.
struct kafka_consume {
    template <class Handler>
    void operator()(kafka_consumer_session& s, Handler&& handler) const {
        s.start_consume(std::forward<Handler>(handler));
    }
};
struct kafka_close {
    template <class Handler>
    void operator()(kafka_consumer_session& s, Handler&& handler) const {
        s.start_close(std::forward<Handler>(handler));
    }
};
struct kafka_produce {
    template <class Handler>
    void operator()(kafka_producer_session& s, Handler&& handler, kafka_record record) const {
        s.start_produce(std::forward<Handler>(handler), std::move(record));
    }
};
struct kafka_flush {
    template <class Handler>
    void operator()(kafka_producer_session& s, Handler&& handler) const {
        s.start_flush(std::forward<Handler>(handler));
    }
};

} // namespace detail

/// A consumer of Apache Kafka, by librdkafka.
/**
 * Choose the topics or partitions with librdkafka's functions: `rd_kafka_subscribe`,
 * `rd_kafka_assign` and similar functions take `native_handle()`, and do not wait for a broker.
 *
 * @par Operations At Once
 * Any number of operations may be pending. Each message goes to the operation that was started
 * first.
 *
 * @par Callbacks
 * The callbacks for rebalances, commits, errors, throttling, statistics and new tokens are called
 * on the executor, while an operation is pending. Such a callback may use or destroy the consumer.
 * librdkafka calls the other callbacks on threads of its own, at any time: the callbacks for logs
 * (without `log.queue`), sockets, files, names and certificates, and interceptors. No callback may
 * throw. Events in place of callbacks (`rd_kafka_conf_set_events`) are not supported, except logs
 * that go to another queue.
 *
 * @par The Group
 * If no operation is pending for `max.poll.interval.ms`, librdkafka takes the consumer out of the
 * group.
 *
 * @par Cancellation
 * For each type of cancellation, the operation completes with `operation_aborted`, and no message
 * is lost: the next operation receives it.
 *
 * @par Errors
 * `kafka_error`: an error of librdkafka, with a message that has the text
 * (`rd_kafka_message_errstr`), and the topic and partition, if the error is about one. Most errors
 * are temporary, and the consumer goes on; `partition_eof` is no failure. A broker that can't be
 * reached is no error of an operation: librdkafka connects again, and reports the broker to the
 * callback of `rd_kafka_conf_set_error_cb`. @n
 * `kafka_error::bad_state`: the consumer was closed. @n
 * `operation_aborted`: the operation was cancelled, or the consumer was closed or destroyed. @n
 * An error of a watcher, if the eventfd can't be watched any more.
 *
 * @tparam Executor The type of the I/O executor, which converts to `boost::asio::any_io_executor`.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A consumer alone does not, and is not watched.
 * After the last operation, a timer may wake the loop once more, at most half of
 * `max.poll.interval.ms` later.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called, and cancellation signals emitted, on
 * the executor, which has to be a strand if several threads run the execution context. librdkafka's
 * functions may be called on any thread, except functions that poll, such as
 * `rd_kafka_consumer_poll`, which take the messages that the adapter waits for.
 *
 * @par Lifetimes
 * The destructor of a consumer completes pending operations with `operation_aborted`, and joins
 * librdkafka's threads, which takes some milliseconds. The destructor does not leave the group, and
 * commits no offsets: wait for `async_close` first. Once `async_close` has begun, the destructor
 * blocks until librdkafka has closed the consumer, even if the operation was cancelled: if no
 * broker answers, up to 5 seconds, and with commits up to `session.timeout.ms` or
 * `socket.timeout.ms`. librdkafka has no function that ends this time. Then, the destructor answers
 * a revocation in place of the program's callback, but may call the callback for throttling.@n
 * Messages may outlive the consumer: the last one destroys librdkafka's object. Other objects of
 * librdkafka, such as an `rd_kafka_topic_t`, have to be destroyed first; otherwise librdkafka
 * blocks for ever. A consumer may outlive its execution context, and be destroyed then. An
 * operation goes on when its consumer is moved. A consumer that was moved from can only be assigned
 * to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> print(asio::io_context& io) {
 *     moor::adapt::kafka_consumer consumer(
 *         io, moor::adapt::make_kafka_conf({{"bootstrap.servers", "kafka.example.com"},
 *                                           {"group.id", "readers"}}));
 *     rd_kafka_topic_partition_list_t* topics = rd_kafka_topic_partition_list_new(1);
 *     rd_kafka_topic_partition_list_add(topics, "news", RD_KAFKA_PARTITION_UA);
 *     rd_kafka_subscribe(consumer.native_handle(), topics);
 *     rd_kafka_topic_partition_list_destroy(topics);
 *     for (;;) {
 *         auto m = co_await consumer.async_consume(asio::use_awaitable);
 *         std::cout << moor::adapt::kafka_value(*m) << '\n';
 *     }
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_kafka_consumer {
    using session = detail::kafka_consumer_session;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    template <class Start>
    using initiation = detail::initiation<session, Start>;
    template <class Signature, class Token, class Start>
    using initiated = moor::detail::initiated<Signature, Token, initiation<Start>>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = rd_kafka_t*;

    /// The consumer's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The consumer's type.
        using other = basic_kafka_consumer<OtherExecutor>;
    };

    /// Constructs a consumer, and starts librdkafka's threads.
    /**
     * @param ex The I/O executor.
     * @param conf The configuration, which must not be null, and has a `group.id`.
     * @throws boost::system::system_error If librdkafka does not accept the configuration, or if
     * the process has too many descriptors.
     */
    basic_kafka_consumer(const executor_type& ex, kafka_conf conf)
        : session_(detail::make_kafka_session<session>(
              ex, session::make(RD_KAFKA_CONSUMER, std::move(conf)))),
          executor_(ex) {}
    /// Constructs a consumer, and starts librdkafka's threads.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param conf The configuration, which must not be null, and has a `group.id`.
     * @throws boost::system::system_error As the other overload does.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_kafka_consumer(Context& context, kafka_conf conf)
        : basic_kafka_consumer(executor_type(context.get_executor()), std::move(conf)) {}
    /// Constructs a consumer that borrows librdkafka's object.
    /**
     * All events of the object go to the consumer's queue (`rd_kafka_poll_set_consumer`). The
     * object has to outlive the consumer, and the consumer's messages.
     *
     * @param ex The I/O executor.
     * @param borrowed An object of the type `RD_KAFKA_CONSUMER` with a `group.id`.
     * @throws boost::system::system_error If the object has no group, or if the process has too
     * many descriptors.
     */
    basic_kafka_consumer(const executor_type& ex, native_handle_type borrowed)
        : session_(detail::make_kafka_session<session>(
              ex, detail::kafka_client(borrowed, [](rd_kafka_t*) {}))),
          executor_(ex) {}
    /// Constructs a consumer that borrows librdkafka's object.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param borrowed An object of the type `RD_KAFKA_CONSUMER`, as for the other overload.
     * @throws boost::system::system_error As the other overload does.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_kafka_consumer(Context& context, native_handle_type borrowed)
        : basic_kafka_consumer(executor_type(context.get_executor()), borrowed) {}

    /// Moves a consumer, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_kafka_consumer(basic_kafka_consumer&& other) noexcept = default;
    /// Moves a consumer with another type of executor, with its pending operations.
    /**
     * This constructor lets a token's `as_default_on` take a consumer.
     *
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_kafka_consumer(basic_kafka_consumer<OtherExecutor>&& other)
        : session_(std::move(other.session_)), executor_(std::move(other.executor_)) {}
    /// Ends the present operations, as the destructor does, and moves another consumer.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_kafka_consumer& operator=(basic_kafka_consumer&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and destroys an owned object.
    ~basic_kafka_consumer() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return executor_.get_executor(); }

    /// Returns librdkafka's object, for `rd_kafka_subscribe` and other functions of librdkafka.
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Completes all pending operations with `operation_aborted`.
    /**
     * The consumer can be used again, unless `async_close` has begun: then only a further
     * `async_close` makes sense.
     */
    void cancel() { session_->end_all(boost::asio::error::operation_aborted); }

    /// Receives a message, or an error of the consumer.
    /**
     * With an error of librdkafka, the handler also receives a message, whose value is the text of
     * the error. With other errors, the message is null.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, kafka_message) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends, and no message is lost.
     * @par Example
     * @code
     * auto [ec, m] = co_await consumer.async_consume(asio::as_tuple(asio::use_awaitable));
     * if (ec == moor::adapt::kafka_error::partition_eof)
     *     std::cout << "all of partition " << m->partition << " was read\n";
     * @endcode
     */
    template <class Token = default_token>
    auto async_consume(Token&& token = default_token())
        -> initiated<void(error_code, kafka_message), Token, detail::kafka_consume> {
        return moor::detail::initiate<void(error_code, kafka_message), Token>(
            initiation<detail::kafka_consume>{session_.get()}, token);
    }

    /// Closes the consumer: commits, and leaves the group.
    /**
     * With `enable.auto.commit`, librdkafka commits the offsets of the messages that the program
     * has received. Other messages are dropped and not committed, so other members of the group
     * receive these messages. If no broker answers, librdkafka gives up after about
     * `session.timeout.ms`. Pending `async_consume` operations complete with `operation_aborted`,
     * later ones with `kafka_error::bad_state`. Several `async_close` operations may be pending.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Errors
     * Those of `rd_kafka_consumer_close_queue`.
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends. librdkafka goes on closing the consumer,
     * and another `async_close` waits for the end. The destructor waits, too, and blocks.
     * @par Example
     * @code
     * co_await consumer.async_close(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_close(Token&& token = default_token())
        -> initiated<void(error_code), Token, detail::kafka_close> {
        return moor::detail::initiate<void(error_code), Token>(
            initiation<detail::kafka_close>{session_.get()}, token);
    }

private:
    template <class OtherExecutor>
    friend class basic_kafka_consumer;

    detail::kafka_session_ptr<session> session_;
    basic_registration<Executor> executor_; // has no handle, and releases it with the context
};

/// A consumer on any I/O executor.
using kafka_consumer = basic_kafka_consumer<>;

/// A producer for Apache Kafka, by librdkafka.
/**
 * @par Operations At Once
 * Any number of messages may be in flight. Each operation completes with the report of its own
 * message, in the order of the reports. Whether the messages of one partition are stored in the
 * order of the calls depends on librdkafka's configuration.
 *
 * @par A Full Queue
 * `queue.buffering.max.messages` and `queue.buffering.max.kbytes` limit librdkafka's queue. Further
 * messages wait in the producer, in order, until librdkafka has reported others. The time of
 * `message.timeout.ms` begins when librdkafka takes a message. A message that is too large for the
 * empty queue fails with `kafka_error::queue_full`.
 *
 * @par Callbacks
 * The callbacks for errors, throttling, statistics and new tokens are called on the executor, while
 * an operation is pending. Such a callback may use or destroy the producer. librdkafka calls the
 * other callbacks on threads of its own, at any time: the callbacks for logs (without `log.queue`),
 * sockets, files, names and certificates, partitioners, and interceptors. A partitioner may also
 * run within `async_produce`. No callback may throw. The callback for delivery reports is the
 * adapter's, and events in place of callbacks (`rd_kafka_conf_set_events`) are not supported.
 *
 * @par Cancellation
 * For each type of cancellation, the operation completes with `operation_aborted`. A message that
 * waits for room in librdkafka's queue is not sent. librdkafka can't take back other messages: such
 * a message may still be stored, and the adapter drops the report.
 *
 * @par Errors
 * `kafka_error`: the error of the report, or of `rd_kafka_producev`. @n
 * `operation_aborted`: the operation was cancelled, or the producer was destroyed. @n
 * An error of a watcher, if the eventfd can't be watched any more.
 *
 * @tparam Executor The type of the I/O executor, which converts to `boost::asio::any_io_executor`.
 *
 * @par Outstanding Work
 * Pending operations keep `run()` from returning. A producer alone does not, and is not watched.
 *
 * @par Thread Safety
 * @e Distinct @e objects: Safe.@n
 * @e Shared @e objects: Unsafe. The members have to be called, and cancellation signals emitted, on
 * the executor, which has to be a strand if several threads run the execution context. librdkafka's
 * functions may be called on any thread, except `rd_kafka_poll` and `rd_kafka_flush`, which call
 * the adapter.
 *
 * @par Lifetimes
 * The destructor of a producer completes pending operations with `operation_aborted`, and joins
 * librdkafka's threads, which takes some milliseconds. Messages that were not sent are lost: wait
 * for `async_flush` first. Other objects of librdkafka, such as an `rd_kafka_topic_t`, have to be
 * destroyed first, too; otherwise librdkafka blocks for ever. A producer
 * may outlive its execution context, and be destroyed then. An operation goes on when its producer
 * is moved. A producer that was moved from can only be assigned to or destroyed.
 *
 * @par Example
 * @code
 * asio::awaitable<void> tell(asio::io_context& io) {
 *     moor::adapt::kafka_producer producer(
 *         io, moor::adapt::make_kafka_conf({{"bootstrap.servers", "kafka.example.com"}}));
 *     auto r = co_await producer.async_produce("news", "key", "text", asio::use_awaitable);
 *     std::cout << "stored at " << r.partition << ':' << r.offset << '\n';
 * }
 * @endcode
 */
template <class Executor = boost::asio::any_io_executor>
class basic_kafka_producer {
    using session = detail::kafka_producer_session;
    using default_token = boost::asio::default_completion_token_t<Executor>;
    template <class Start>
    using initiation = detail::initiation<session, Start>;
    template <class Signature, class Token, class Start, class... Args>
    using initiated = moor::detail::initiated<Signature, Token, initiation<Start>, Args...>;

public:
    /// The type of the I/O executor.
    using executor_type = Executor;

    /// The type of the handle.
    using native_handle_type = rd_kafka_t*;

    /// The producer's type with another executor.
    template <class OtherExecutor>
    struct rebind_executor {
        /// The producer's type.
        using other = basic_kafka_producer<OtherExecutor>;
    };

    /// Constructs a producer, and starts librdkafka's threads.
    /**
     * @param ex The I/O executor.
     * @param conf The configuration, which must not be null.
     * @throws boost::system::system_error If librdkafka does not accept the configuration, or if
     * the process has too many descriptors.
     */
    basic_kafka_producer(const executor_type& ex, kafka_conf conf)
        : session_(detail::make_kafka_session<session>(ex, std::move(conf))), executor_(ex) {}
    /// Constructs a producer, and starts librdkafka's threads.
    /**
     * @param context The execution context whose executor is the I/O executor.
     * @param conf The configuration, which must not be null.
     * @throws boost::system::system_error As the other overload does.
     */
    template <class Context, std::enable_if_t<moor::detail::is_context_v<Context>, int> = 0>
    basic_kafka_producer(Context& context, kafka_conf conf)
        : basic_kafka_producer(executor_type(context.get_executor()), std::move(conf)) {}

    /// Moves a producer, with its pending operations.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_kafka_producer(basic_kafka_producer&& other) noexcept = default;
    /// Moves a producer with another type of executor, with its pending operations.
    /**
     * This constructor lets a token's `as_default_on` take a producer.
     *
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    template <class OtherExecutor,
              std::enable_if_t<std::is_convertible<OtherExecutor, Executor>::value &&
                                   !std::is_same<OtherExecutor, Executor>::value,
                               int> = 0>
    basic_kafka_producer(basic_kafka_producer<OtherExecutor>&& other)
        : session_(std::move(other.session_)), executor_(std::move(other.executor_)) {}
    /// Ends the present operations, as the destructor does, and moves another producer.
    /**
     * @param other The object to move from, which can be assigned to or destroyed afterwards.
     */
    basic_kafka_producer& operator=(basic_kafka_producer&& other) noexcept = default;
    /// Completes pending operations with `operation_aborted`, and destroys librdkafka's object.
    ~basic_kafka_producer() = default;

    /// Returns the I/O executor.
    const executor_type& get_executor() const noexcept { return executor_.get_executor(); }

    /// Returns librdkafka's object.
    /**
     * Messages that the program produces without the adapter must have no opaque pointer.
     */
    native_handle_type native_handle() const noexcept { return session_->native_handle(); }

    /// Completes all pending operations with `operation_aborted`. The producer can be used again.
    void cancel() { session_->end_all(boost::asio::error::operation_aborted); }

    /// Sends a message, and completes when librdkafka reports the message as stored or failed.
    /**
     * The message is passed to librdkafka at once, unless librdkafka's queue is full.
     *
     * @param record The message.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, kafka_report) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends. The message may still be stored.
     * @par Example
     * @code
     * producer.async_produce({"news", std::nullopt, "a text"}, asio::detached);
     * @endcode
     */
    template <class Token = default_token>
    auto async_produce(kafka_record record, Token&& token = default_token())
        -> initiated<void(error_code, kafka_report), Token, detail::kafka_produce, kafka_record> {
        return moor::detail::initiate<void(error_code, kafka_report), Token>(
            initiation<detail::kafka_produce>{session_.get()}, token, std::move(record));
    }

    /// Sends a message, and completes when librdkafka reports the message as stored or failed.
    /**
     * @param topic The topic.
     * @param key The key, by which the partitioner chooses the partition.
     * @param value The value.
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code, kafka_report) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends. The message may still be stored.
     * @par Example
     * @code
     * auto r = co_await producer.async_produce("news", "key", "text", asio::use_awaitable);
     * std::cout << "stored at " << r.partition << ':' << r.offset << '\n';
     * @endcode
     */
    template <class Token = default_token>
    auto async_produce(std::string_view topic, std::string_view key, std::string_view value,
                       Token&& token = default_token())
        -> initiated<void(error_code, kafka_report), Token, detail::kafka_produce, kafka_record> {
        kafka_record record;
        record.topic = topic;
        record.key = key;
        record.value = value;
        return async_produce(std::move(record), std::forward<Token>(token));
    }

    /// Waits until all messages of earlier calls of `async_produce` were reported.
    /**
     * The operation also waits for messages whose operations were cancelled, but not for later
     * messages. Unlike `rd_kafka_flush`, the operation does not shorten `linger.ms`.
     *
     * @param token The completion token.
     *
     * @par Completion Signature
     * @code void(error_code) @endcode
     * @par Per-Operation Cancellation
     * `terminal`, `partial`, `total`: the operation ends.
     * @par Example
     * @code
     * co_await producer.async_flush(asio::use_awaitable);
     * @endcode
     */
    template <class Token = default_token>
    auto async_flush(Token&& token = default_token())
        -> initiated<void(error_code), Token, detail::kafka_flush> {
        return moor::detail::initiate<void(error_code), Token>(
            initiation<detail::kafka_flush>{session_.get()}, token);
    }

private:
    template <class OtherExecutor>
    friend class basic_kafka_producer;

    detail::kafka_session_ptr<session> session_;
    basic_registration<Executor> executor_; // has no handle, and releases it with the context
};

/// A producer on any I/O executor.
using kafka_producer = basic_kafka_producer<>;

} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_RDKAFKA_HPP
