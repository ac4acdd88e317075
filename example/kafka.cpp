//
// kafka.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// Reads a topic of Apache Kafka to its end, after it has written three messages there. Without
// arguments, the cluster is librdkafka's mock cluster within this program:
//
//     example/run.sh kafka
//
// With another cluster:
//
//     g++ -std=c++20 -I../include kafka.cpp -pthread -lrdkafka
//     ./a.out BROKERS TOPIC
//
// doc/adapt-rdkafka.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/rdkafka.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include <librdkafka/rdkafka_mock.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;

namespace {

//[produce
/// Writes messages, and prints where they are stored.
asio::awaitable<void> write(asio::io_context& io, std::string brokers, std::string topic) {
    adapt::kafka_producer producer(io, adapt::make_kafka_conf({{"bootstrap.servers", brokers}}));
    for (const char* text : {"one", "two", "three"}) {
        auto report = co_await producer.async_produce(topic, "key", text, use_awaitable);
        std::cout << "stored " << text << " at offset " << report.offset << '\n';
    }
}
//]

//[consume
/// Prints the messages of a partition, to its end.
asio::awaitable<void> read(asio::io_context& io, std::string brokers, std::string topic) {
    adapt::kafka_consumer consumer(io, adapt::make_kafka_conf({{"bootstrap.servers", brokers},
                                                               {"group.id", "example"},
                                                               {"enable.partition.eof", "true"}}));
    rd_kafka_topic_partition_list_t* list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic.c_str(), 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(consumer.native_handle(), list); // or rd_kafka_subscribe
    rd_kafka_topic_partition_list_destroy(list);
    for (;;) {
        auto [ec, m] = co_await consumer.async_consume(asio::as_tuple(use_awaitable));
        if (ec == adapt::kafka_error::partition_eof)
            break;
        if (ec)
            throw boost::system::system_error(ec, rd_kafka_message_errstr(m.get()));
        std::cout << m->offset << ": " << adapt::kafka_value(*m) << '\n';
    }
    co_await consumer.async_close(use_awaitable);
}
//]

asio::awaitable<void> write_and_read(asio::io_context& io, std::string brokers, std::string topic) {
    co_await write(io, brokers, topic);
    co_await read(io, brokers, topic);
}

} // namespace

int main(int argc, char** argv) {
    try {
        std::string brokers, topic = "news";
        std::unique_ptr<rd_kafka_t, void (*)(rd_kafka_t*)> mock(nullptr, &rd_kafka_destroy);
        if (argc == 3) {
            brokers = argv[1];
            topic = argv[2];
        } else { // a client that has a mock cluster, which ends with the client
            adapt::kafka_conf conf =
                adapt::make_kafka_conf({{"test.mock.num.brokers", "1"}, {"log_level", "3"}});
            mock.reset(rd_kafka_new(RD_KAFKA_PRODUCER, conf.release(), nullptr, 0));
            rd_kafka_mock_cluster_t* cluster = rd_kafka_handle_mock_cluster(mock.get());
            rd_kafka_mock_topic_create(cluster, topic.c_str(), 1, 1);
            brokers = rd_kafka_mock_cluster_bootstraps(cluster);
        }
        asio::io_context io;
        std::exception_ptr failure;
        asio::co_spawn(io, write_and_read(io, brokers, topic),
                       [&](std::exception_ptr e) { failure = e; });
        io.run();
        if (failure)
            std::rethrow_exception(failure);
        return EXIT_SUCCESS;
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
