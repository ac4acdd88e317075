//
// moor/adapt/detail/kafka_producer_session.hpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A producer in a loop: messages whose delivery reports are pending.
//
//   waiting_   messages for which librdkafka's queue had no room, in order
//   sent_      messages that librdkafka has, also if their operations were cancelled meanwhile
//   flushes_   operations that wait until all messages up to a number were reported
//
// Invariants
//   1. librdkafka reports each message in sent_ once, from within serve(). librdkafka uses the
//      value until then, or until the client is destroyed.
//   2. Numbers increase from the first of sent_ to the last of waiting_.
//

#ifndef MOOR_ADAPT_DETAIL_KAFKA_PRODUCER_SESSION_HPP
#define MOOR_ADAPT_DETAIL_KAFKA_PRODUCER_SESSION_HPP

#include <moor/adapt/detail/has_null.hpp>
#include <moor/adapt/detail/kafka_session.hpp>
#include <moor/adapt/rdkafka_types.hpp>
#include <moor/error.hpp>
#include <moor/operation.hpp>

#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/error.hpp>

#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <utility>

#include <librdkafka/rdkafka.h>
#include <sys/types.h>

namespace moor {
namespace adapt {
namespace detail {

class kafka_producer_session final : public kafka_session {
public:
    kafka_producer_session(const executor_type& ex, kafka_conf conf)
        : kafka_session(ex, make(RD_KAFKA_PRODUCER, with_reports(std::move(conf)))),
          queue_(attach(rd_kafka_queue_get_main(native_handle()))) {}
    ~kafka_producer_session() override {
        queue_.reset();
        destroy_client(); // which uses the messages until then
    }

    template <class Handler>
    void start_produce(Handler&& handler, kafka_record&& record) {
        auto started = produce_operation::start(std::forward<Handler>(handler), executor());
        if (!started)
            return;
        const auto p = waiting_.emplace(waiting_.end(), *this, std::move(record), ++last_number_);
        p->operation = std::move(started);
        p->position = p;
        ++live_;
        p->operation.on_cancel([this, p](boost::asio::cancellation_type_t) { cancel(p); });
        send_waiting();
        update();
    }

    template <class Handler>
    void start_flush(Handler&& handler) {
        auto started = flush_operation::start(std::forward<Handler>(handler), executor());
        if (!started)
            return;
        const auto p = flushes_.insert(flushes_.end(), flush{std::move(started), last_number_});
        p->operation.on_cancel([this, p](boost::asio::cancellation_type_t) {
            flush_operation cancelled = std::move(p->operation);
            flushes_.erase(p);
            update();
            cancelled.complete(boost::asio::error::operation_aborted);
        });
        serve_soon();
    }

    void end_all(error_code ec) override {
        for (message& m : sent_)
            m.operation.complete(ec, {});
        for (message& m : waiting_)
            m.operation.complete(ec, {});
        waiting_.clear();
        live_ = 0;
        for (flush& f : flushes_)
            f.operation.complete(ec);
        flushes_.clear();
        update();
    }

private:
    using produce_operation = moor::operation<void(error_code, kafka_report)>;
    using flush_operation = moor::operation<void(error_code)>;

    static constexpr int max_reports = 1000; // in one turn of the loop

    struct message {
        message(kafka_producer_session& s, kafka_record&& r, std::uint64_t n)
            : session(s), record(std::move(r)), number(n) {}

        kafka_producer_session& session;
        kafka_record record;
        const std::uint64_t number;
        produce_operation operation{}; // empty: cancelled
        std::list<message>::iterator position{};
        bool is_sent = false;
    };
    using position = std::list<message>::iterator;

    struct flush {
        flush_operation operation;
        std::uint64_t number;
    };

    static kafka_conf with_reports(kafka_conf conf) {
        rd_kafka_conf_set_dr_msg_cb(conf.get(), &on_report);
        rd_kafka_conf_set(conf.get(), "delivery.report.only.error", "false", nullptr, 0);
        return conf;
    }

    /// Called by librdkafka, from within serve().
    static void on_report(rd_kafka_t*, const rd_kafka_message_t* report, void*) {
        if (auto* m = static_cast<message*>(report->_private)) // the program's own: null
            m->session.finish(m->position, kafka_error_code(report->err),
                              {report->partition, report->offset});
    }

    void finish(position p, error_code ec, kafka_report report) {
        if (++reports_ % max_reports == 0)
            rd_kafka_yield(native_handle()); // leaves the others for the next turn
        live_ -= bool(p->operation);
        p->operation.complete(ec, report);
        sent_.erase(p);
    }

    void cancel(position p) {
        produce_operation cancelled = std::move(p->operation);
        --live_;
        if (!p->is_sent)
            waiting_.erase(p);
        update();
        cancelled.complete(boost::asio::error::operation_aborted, {});
    }

    void send_waiting() {
        while (!waiting_.empty()) {
            const position p = waiting_.begin();
            const error_code ec = send(*p);
            if (ec == kafka_error::queue_full && rd_kafka_outq_len(native_handle()) != 0)
                return; // until librdkafka has reported a message
            if (ec) {
                --live_;
                p->operation.complete(ec, {});
                waiting_.erase(p);
            } else {
                p->is_sent = true;
                sent_.splice(sent_.end(), waiting_, p);
            }
        }
    }

    error_code send(message& m) {
        kafka_record& r = m.record;
        if (r.topic.empty() || has_null(r.topic))
            return kafka_error::bad_topic;
        rd_kafka_headers_t* headers = nullptr;
        if (!r.headers.empty()) {
            headers = rd_kafka_headers_new(r.headers.size());
            for (const auto& [name, value] : r.headers)
                rd_kafka_header_add(headers, name.data(), static_cast<ssize_t>(name.size()),
                                    value.data(), static_cast<ssize_t>(value.size()));
        }
        // librdkafka copies the key, and takes the headers on success. Its macros for the arguments
        // are extensions of the language.
        const rd_kafka_resp_err_t e = rd_kafka_producev(
            native_handle(), RD_KAFKA_VTYPE_TOPIC, r.topic.c_str(), RD_KAFKA_VTYPE_PARTITION,
            r.partition, RD_KAFKA_VTYPE_KEY, bytes(r.key), size_of(r.key), RD_KAFKA_VTYPE_VALUE,
            bytes(r.value), size_of(r.value), RD_KAFKA_VTYPE_TIMESTAMP, r.timestamp,
            RD_KAFKA_VTYPE_HEADERS, headers, RD_KAFKA_VTYPE_OPAQUE, static_cast<void*>(&m),
            RD_KAFKA_VTYPE_END);
        if (e && headers)
            rd_kafka_headers_destroy(headers);
        return kafka_error_code(e);
    }

    static void* bytes(std::optional<std::string>& s) { return s ? s->data() : nullptr; }
    static std::size_t size_of(const std::optional<std::string>& s) { return s ? s->size() : 0; }

    void serve() override {
        rd_kafka_poll(native_handle(), 0);
        send_waiting();
        while (!flushes_.empty() && flushes_.front().number < oldest_number()) {
            flushes_.front().operation.complete(error_code());
            flushes_.pop_front();
        }
        update();
    }

    void update() { watch(live_ != 0 || !flushes_.empty(), queue_); }

    /// The number of the first message that was not reported.
    std::uint64_t oldest_number() const noexcept {
        if (!sent_.empty())
            return sent_.front().number;
        return waiting_.empty() ? last_number_ + 1 : waiting_.front().number;
    }

    std::list<message> waiting_, sent_;
    std::list<flush> flushes_;
    std::uint64_t last_number_ = 0;
    std::uint64_t reports_ = 0;
    std::size_t live_ = 0; // messages whose operation is pending
    kafka_queue queue_;
};

} // namespace detail
} // namespace adapt
} // namespace moor

#endif // MOOR_ADAPT_DETAIL_KAFKA_PRODUCER_SESSION_HPP
