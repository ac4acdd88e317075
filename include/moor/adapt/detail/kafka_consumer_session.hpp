//
// moor/adapt/detail/kafka_consumer_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A consumer in a loop: the operations that wait for a message, and those that close the consumer.
//

#ifndef MOOR_ADAPT_DETAIL_KAFKA_CONSUMER_SESSION_HPP
#define MOOR_ADAPT_DETAIL_KAFKA_CONSUMER_SESSION_HPP

#include <moor/adapt/detail/kafka_session.hpp>
#include <moor/adapt/rdkafka_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>
#include <moor/readiness.hpp>
#include <moor/watcher.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>
#include <boost/system/system_error.hpp>
#include <boost/throw_exception.hpp>

#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <utility>

#include <librdkafka/rdkafka.h>

namespace moor {
namespace adapt {
namespace detail {

class kafka_consumer_session final : public kafka_session {
public:
    kafka_consumer_session(const executor_type& ex, kafka_client consumer)
        : kafka_session(ex, std::move(consumer)), poll_timer_(ex, [this](error_code, readiness) {
              const auto keep = shared_from_this();
              is_timer_set_ = false;
              serve();
          }) {
        poll_timer_.keeps_running(false);
        // All callbacks are served with the messages. A consumer without a group has no queue.
        if (const auto e = rd_kafka_poll_set_consumer(native_handle()))
            boost::throw_exception(
                boost::system::system_error(kafka_error_code(e), "moor::adapt::kafka_consumer"));
        queue_ = attach(rd_kafka_queue_get_consumer(native_handle()));
    }
    ~kafka_consumer_session() override {
        if (is_closing_ && !close_error_)
            finish_close();
    }

    template <class Handler>
    void start_consume(Handler&& handler) {
        auto started = consume_operation::start(std::forward<Handler>(handler), executor());
        if (is_closing_)
            return started.complete(kafka_error::bad_state, {});
        if (started)
            add(consumes_, std::move(started),
                [](consume_operation& op, error_code ec) { op.complete(ec, {}); });
    }

    template <class Handler>
    void start_close(Handler&& handler) {
        auto started = close_operation::start(std::forward<Handler>(handler), executor());
        if (!started)
            return;
        if (const error_code ec = begin_close())
            return started.complete(ec);
        add(closes_, std::move(started),
            [](close_operation& op, error_code ec) { op.complete(ec); });
    }

    void end_all(error_code ec) override {
        end_consumes(ec);
        while (!closes_.empty())
            taken(closes_).complete(ec);
        update();
    }

private:
    using consume_operation = operation<void(error_code, kafka_message)>;
    using close_operation = operation<void(error_code)>;

    template <class Operation, class End>
    void add(std::list<Operation>& list, Operation op, End end) {
        const auto p = list.insert(list.end(), std::move(op));
        p->on_cancel([this, &list, p, end](boost::asio::cancellation_type_t) {
            Operation cancelled = std::move(*p);
            list.erase(p);
            update();
            end(cancelled, boost::asio::error::operation_aborted);
        });
        serve_soon();
    }

    template <class Operation>
    static Operation taken(std::list<Operation>& list) {
        Operation first = std::move(list.front());
        list.pop_front();
        return first;
    }

    void end_consumes(error_code ec) {
        while (!consumes_.empty())
            taken(consumes_).complete(ec, {});
    }

    error_code begin_close() {
        if (std::exchange(is_closing_, true))
            return close_error_;
        end_consumes(boost::asio::error::operation_aborted);
        drop_messages();
        closing_queue_ = attach(rd_kafka_queue_new(native_handle()));
        // librdkafka closes the consumer on a thread of its own.
        if (rd_kafka_error_t* e =
                rd_kafka_consumer_close_queue(native_handle(), closing_queue_.get())) {
            close_error_ = kafka_error_code(rd_kafka_error_code(e));
            rd_kafka_error_destroy(e);
        }
        return close_error_;
    }

    /// Waits until librdkafka has closed the consumer, for a time, and answers each rebalance.
    /**
     * While a consumer closes, librdkafka waits for the answer to each rebalance, and
     * rd_kafka_destroy does, too. rd_kafka_assign waits for ever if librdkafka has just closed the
     * consumer, so the session calls this function only if an answer is due. If no broker answers,
     * librdkafka leaves the group after 5 seconds, but rd_kafka_destroy has to end the commits.
     */
    void finish_close() noexcept {
        for (int i = 0; i != 60 && !rd_kafka_consumer_closed(native_handle()); ++i) {
            rd_kafka_event_t* e = rd_kafka_queue_poll(closing_queue_.get(), 100);
            if (e ? rd_kafka_event_type(e) == RD_KAFKA_EVENT_REBALANCE
                  : std::exchange(may_owe_answer_, false))
                rd_kafka_assign(native_handle(), nullptr);
            rd_kafka_event_destroy(e);
        }
    }

    /// Drops the messages that the program has not received, so that the last commit omits them.
    /**
     * librdkafka stores the offset of each message that is taken out of a queue. A pause makes the
     * messages in the queue outdated, and librdkafka drops outdated messages.
     */
    void drop_messages() {
        if (kept_ && !kept_->err && property("enable.auto.offset.store") == "true")
            rd_kafka_offset_store(kept_->rkt, kept_->partition, kept_->offset - 1);
        kept_.reset();
        rd_kafka_topic_partition_list_t* partitions = nullptr;
        if (rd_kafka_assignment(native_handle(), &partitions))
            return;
        rd_kafka_pause_partitions(native_handle(), partitions);
        rd_kafka_topic_partition_list_destroy(partitions);
    }

    /// The next message; if there is none, the callbacks are served.
    kafka_message next() {
        if (kept_)
            return std::move(kept_);
        return kafka_message(rd_kafka_consumer_poll(native_handle(), 0),
                             kafka_message_deleter{client()});
    }

    void serve() override {
        while (!consumes_.empty()) {
            kafka_message m = next();
            if (!m)
                break;
            if (consumes_.empty()) { // a callback has cancelled the operation
                kept_ = std::move(m);
                break;
            }
            const error_code ec = kafka_error_code(m->err);
            taken(consumes_).complete(ec, std::move(m));
        }
        if (!closes_.empty()) {
            // Beside the callbacks, the queue has errors, as messages that nobody waits for. For
            // such a message, rd_kafka_queue_poll_callback would abort the program.
            while (kafka_message(rd_kafka_consume_queue(closing_queue_.get(), 0))) {}
            may_owe_answer_ = !is_open();
            if (rd_kafka_consumer_closed(native_handle()))
                while (!closes_.empty())
                    taken(closes_).complete(error_code());
        }
        update();
    }

    void update() {
        const bool is_waiting = !consumes_.empty() || !closes_.empty();
        watch(is_waiting, is_closing_ ? closing_queue_ : queue_);
        // A consumer that is not polled leaves its group, even if there is nothing to consume. The
        // timer stays set after the last operation: otherwise each message would set and cancel it.
        if (is_waiting && is_open() && !is_timer_set_) {
            poll_timer_.expires_after(poll_interval_);
            is_timer_set_ = true;
        }
    }

    std::string property(const char* name) const {
        char value[32] = "";
        std::size_t size = sizeof(value);
        rd_kafka_conf_get(rd_kafka_conf(native_handle()), name, value, &size);
        return value;
    }

    const std::chrono::milliseconds poll_interval_{std::stoi(property("max.poll.interval.ms")) / 2 +
                                                   1};
    moor::watcher poll_timer_;
    bool is_timer_set_ = false;
    bool is_closing_ = false;
    bool may_owe_answer_ = false; // a callback has destroyed the consumer
    error_code close_error_;
    std::list<consume_operation> consumes_;
    std::list<close_operation> closes_;
    kafka_message kept_;
    kafka_queue queue_, closing_queue_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_KAFKA_CONSUMER_SESSION_HPP
