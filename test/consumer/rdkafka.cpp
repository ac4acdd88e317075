// Copyright (c) 2025 The Moor authors
// Distributed under the Boost Software License, Version 1.0. (See LICENSE_1_0.txt)

// The least that a consumer of the adapter for librdkafka does: fail to send to no topic, which
// needs no broker.

#include <moor/adapt/rdkafka.hpp>

#include <boost/asio/io_context.hpp>

int main() {
    boost::asio::io_context io;
    moor::adapt::kafka_producer p(
        io,
        moor::adapt::make_kafka_conf({{"bootstrap.servers", "127.0.0.1:1"}, {"log_level", "0"}}));
    bool is_refused = false;
    p.async_produce("", "key", "value", [&](moor::error_code ec, moor::adapt::kafka_report) {
        is_refused = ec == moor::adapt::kafka_error::bad_topic;
    });
    io.run();
    return is_refused ? 0 : 1;
}
