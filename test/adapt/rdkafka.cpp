// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for librdkafka against librdkafka's mock cluster, which is in this program: brokers
// with sockets and a thread, which can be taken down and made slow.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/faults.hpp"
#include "support/quiet.hpp"
#include "support/sanitizers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/rdkafka.hpp>
#include <moor/registration_service.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <librdkafka/rdkafka_mock.h>

#if MOOR_TEST_THREAD_SANITIZER
#include <pthread.h>
#include <threads.h>

// librdkafka makes its threads by thrd_create, which ThreadSanitizer does not know: the first call
// of malloc on such a thread would end the program. These two take the place of the C library's.
extern "C" int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
    struct call {
        thrd_start_t function;
        void* argument;
    };
    const auto run = [](void* p) -> void* {
        const call c = *static_cast<call*>(p);
        delete static_cast<call*>(p);
        c.function(c.argument);
        return nullptr;
    };
    return pthread_create(thread, nullptr, run, new call{function, argument}) == 0 ? thrd_success
                                                                                   : thrd_error;
}
extern "C" int thrd_join(thrd_t thread, int*) {
    return pthread_join(thread, nullptr) == 0 ? thrd_success : thrd_error;
}
#endif

BOOST_AUTO_TEST_SUITE(rdkafka)

namespace {

namespace asio = boost::asio;
using moor::adapt::basic_kafka_consumer;
using moor::adapt::basic_kafka_producer;
using moor::adapt::kafka_conf;
using moor::adapt::kafka_consumer;
using moor::adapt::kafka_error;
using moor::adapt::kafka_message;
using moor::adapt::kafka_producer;
using moor::adapt::kafka_record;
using moor::adapt::kafka_report;
using moor::adapt::kafka_value;
using moor::adapt::make_kafka_conf;
using test::error_code;
using namespace std::chrono_literals;

const error_code eof(kafka_error::partition_eof);
const error_code bad_state(kafka_error::bad_state);

using properties = std::vector<std::pair<std::string, std::string>>;

kafka_conf conf_of(const properties& more) {
    kafka_conf conf = make_kafka_conf({{"log_level", "0"}});
    for (const auto& [name, value] : more)
        BOOST_REQUIRE(rd_kafka_conf_set(conf.get(), name.c_str(), value.c_str(), nullptr, 0) ==
                      RD_KAFKA_CONF_OK);
    return conf;
}

/// One broker, for all cases.
class cluster {
public:
    static cluster& get() {
        static cluster c;
        return c;
    }

    std::string address() const { return rd_kafka_mock_cluster_bootstraps(mock_); }

    /// A topic that no other case has.
    std::string topic(int partitions = 1) {
        const std::string name = "t" + std::to_string(++topics_);
        BOOST_REQUIRE(!rd_kafka_mock_topic_create(mock_, name.c_str(), partitions, 1));
        return name;
    }
    void take_down() { BOOST_REQUIRE(!rd_kafka_mock_broker_set_down(mock_, 1)); }
    void bring_up() { BOOST_REQUIRE(!rd_kafka_mock_broker_set_up(mock_, 1)); }
    void be_slow(std::chrono::milliseconds d) {
        BOOST_REQUIRE(!rd_kafka_mock_broker_set_rtt(mock_, 1, static_cast<int>(d.count())));
    }
    /// The next requests of the kind fail.
    void fail(std::int16_t request, std::size_t times, rd_kafka_resp_err_t e) {
        const std::vector<rd_kafka_resp_err_t> errors(times, e);
        rd_kafka_mock_push_request_errors_array(mock_, request, times, errors.data());
    }

private:
    cluster() {
        client_ = rd_kafka_new(
            RD_KAFKA_PRODUCER,
            conf_of({{"bootstrap.servers", "127.0.0.1:1"}, {"client.id", "mock"}}).release(),
            nullptr, 0);
        mock_ = rd_kafka_mock_cluster_new(client_, 1);
    }
    ~cluster() {
        rd_kafka_mock_cluster_destroy(mock_);
        rd_kafka_destroy(client_);
    }

    rd_kafka_t* client_;
    rd_kafka_mock_cluster_t* mock_;
    int topics_ = 0;
};

constexpr std::int16_t produce_request = 0;

/// A broker that is slow, or down, until the end of a scope.
struct slow_broker {
    explicit slow_broker(std::chrono::milliseconds d) { cluster::get().be_slow(d); }
    ~slow_broker() { cluster::get().be_slow(0ms); }
};

kafka_conf for_producer(properties more = {}) {
    more.insert(more.begin(), {{"bootstrap.servers", cluster::get().address()},
                               {"linger.ms", "0"},
                               {"reconnect.backoff.ms", "10"},
                               {"reconnect.backoff.max.ms", "50"}});
    return conf_of(more);
}
kafka_conf for_consumer(properties more = {}) {
    more.insert(more.begin(), {{"bootstrap.servers", cluster::get().address()},
                               {"group.id", "group"},
                               {"auto.offset.reset", "earliest"},
                               {"fetch.wait.max.ms", "20"},
                               {"enable.auto.commit", "false"},
                               {"reconnect.backoff.ms", "10"},
                               {"reconnect.backoff.max.ms", "50"}});
    return conf_of(more);
}

/// Asks for a topic, and waits. A client that hears of a topic while it connects may ask again only
/// after a second.
void know(rd_kafka_t* client, const std::string& topic) {
    rd_kafka_topic_t* const t = rd_kafka_topic_new(client, topic.c_str(), nullptr);
    const rd_kafka_metadata_t* data = nullptr;
    BOOST_REQUIRE(!rd_kafka_metadata(client, 0, t, &data, 20000));
    rd_kafka_metadata_destroy(data);
    rd_kafka_topic_destroy(t);
}

/// Reads a partition from its beginning.
template <class Consumer>
void assign(Consumer& c, const std::string& topic, std::int64_t offset = 0, int partitions = 1) {
    know(c.native_handle(), topic);
    rd_kafka_topic_partition_list_t* list = rd_kafka_topic_partition_list_new(partitions);
    for (int i = 0; i != partitions; ++i)
        rd_kafka_topic_partition_list_add(list, topic.c_str(), i)->offset = offset;
    BOOST_REQUIRE(!rd_kafka_assign(c.native_handle(), list));
    rd_kafka_topic_partition_list_destroy(list);
}

using consumed = test::called_with<kafka_message>;
using produced = test::called_with<kafka_report>;

/// A context, and calls that run it until an operation is over.
struct loop : test::context_fixture {
    cluster& brokers = cluster::get();

    template <class Consumer>
    consumed consume(Consumer& c) {
        consumed o;
        c.async_consume(o.handler());
        BOOST_TEST(o.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Consumer>
    std::string text(Consumer& c) {
        const consumed o = consume(c);
        BOOST_CHECK_EQUAL(o.ec, error_code());
        return o.value ? std::string(kafka_value(*o.value)) : "nothing";
    }
    template <class Producer>
    produced produce(Producer& p, kafka_record r) {
        produced o;
        p.async_produce(std::move(r), o.handler());
        BOOST_TEST(o.times == 0);
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Producer>
    void produce(Producer& p, const std::string& topic, const std::string& value) {
        BOOST_CHECK_EQUAL(produce(p, kafka_record{topic, {}, value}).ec, error_code());
    }
    template <class Consumer>
    error_code close(Consumer& c) {
        test::called done;
        c.async_close(done.handler());
        BOOST_TEST(done.times == 0);
        test::run_until(io, [&] { return bool(done); });
        return done.ec;
    }
    /// To the end. (run_for: see there.)
    void run(std::chrono::seconds most = 60s) {
        const test::watchdog dog(io, most);
        io.restart();
        io.run();
        BOOST_REQUIRE(!dog.has_bitten());
    }
};

/// A loop whose end leaves no descriptor behind, with a consumer and a producer of a topic.
struct pair_fixture : loop {
    long descriptors = prepare();
    std::string topic = brokers.topic();
    std::optional<kafka_consumer> consumer{std::in_place, io, for_consumer()};
    std::optional<kafka_producer> producer{std::in_place, io, for_producer()};
    kafka_consumer& c = *consumer;
    kafka_producer& p = *producer;

    pair_fixture() {
        know(p.native_handle(), topic);
        assign(c, topic);
    }
    ~pair_fixture() {
        consumer.reset();
        producer.reset();
        // The brokers' side of the connections is closed by their thread, also that of connections
        // of an earlier case.
        BOOST_TEST(test::wait_for([&] { return test::open_descriptors() <= descriptors; }));
    }
    void send(const std::string& value) { produce(p, topic, value); }

private:
    /// The reactor's descriptors belong to the context.
    long prepare() {
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        run();
        static long first = test::open_descriptors();
        BOOST_REQUIRE(test::wait_for([&] { return test::open_descriptors() <= first + 2; }));
        return test::open_descriptors();
    }
};

} // namespace

// ---- messages -----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_message_arrives_as_it_was_sent, pair_fixture) {
    BOOST_TEST_MESSAGE("librdkafka " << rd_kafka_version_str());
    kafka_record r;
    r.topic = topic;
    r.key = "key";
    r.value = std::string("va\0lue", 6);
    r.timestamp = 1700000000000;
    r.headers = {{"first", "1"}, {"second", std::string("\0", 1)}};
    const produced report = produce(p, r);
    BOOST_CHECK_EQUAL(report.ec, error_code());
    BOOST_TEST(report.value.partition == 0);
    BOOST_TEST(report.value.offset == 0);

    const consumed o = consume(c);
    BOOST_REQUIRE_EQUAL(o.ec, error_code());
    const rd_kafka_message_t& m = *o.value;
    BOOST_TEST(moor::adapt::kafka_key(m) == "key");
    BOOST_TEST((kafka_value(m) == std::string_view("va\0lue", 6)));
    BOOST_TEST(rd_kafka_topic_name(m.rkt) == topic);
    BOOST_TEST(m.offset == 0);
    BOOST_TEST(rd_kafka_message_timestamp(&m, nullptr) == 1700000000000);
    rd_kafka_headers_t* headers = nullptr;
    BOOST_REQUIRE(!rd_kafka_message_headers(&m, &headers));
    BOOST_TEST(rd_kafka_header_cnt(headers) == 2u);

    produced again;
    p.async_produce(topic, "", "", again.handler());
    test::run_until(io, [&] { return bool(again); });
    BOOST_TEST(again.value.offset == 1);
    const consumed empty = consume(c);
    BOOST_TEST((empty.value->payload != nullptr && empty.value->key != nullptr));
    BOOST_TEST(kafka_value(*empty.value).empty());
    BOOST_CHECK_EQUAL(produce(p, {topic}).ec, error_code());
    const consumed nothing = consume(c);
    BOOST_TEST((nothing.value->payload == nullptr && nothing.value->key == nullptr));
}

BOOST_FIXTURE_TEST_CASE(the_end_of_a_partition_is_an_error_with_a_message, pair_fixture) {
    send("one");
    kafka_consumer each(io, for_consumer({{"enable.partition.eof", "true"}}));
    assign(each, topic);
    BOOST_TEST(text(each) == "one");
    const consumed o = consume(each);
    BOOST_CHECK_EQUAL(o.ec, eof);
    BOOST_REQUIRE(o.value);
    BOOST_TEST(o.value->offset == 1);
    BOOST_TEST(rd_kafka_topic_name(o.value->rkt) == topic);
    send("two");
    BOOST_TEST(text(each) == "two");
    BOOST_CHECK_EQUAL(consume(each).ec, eof);
}

BOOST_FIXTURE_TEST_CASE(errors_are_those_of_librdkafka, pair_fixture) {
    BOOST_CHECK_EQUAL(produce(p, {std::string("a\0b", 3), {}, "x"}).ec,
                      error_code(kafka_error::bad_topic));
    BOOST_CHECK_EQUAL(produce(p, {"", {}, "x"}).ec, error_code(kafka_error::bad_topic));
    BOOST_CHECK_EQUAL(produce(p, {topic, {}, std::string(2000000, 'x')}).ec,
                      error_code(kafka_error::message_too_large));
    kafka_record r{topic, {}, "x"};
    r.partition = 7;
    r.headers = {{"lost", "?"}};
    BOOST_CHECK_EQUAL(produce(p, r).ec, error_code(kafka_error::unknown_partition));
    brokers.fail(produce_request, 1, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    kafka_producer unwelcome(io, for_producer());
    know(unwelcome.native_handle(), topic);
    BOOST_CHECK_EQUAL(produce(unwelcome, {topic, {}, "x"}).ec,
                      error_code(kafka_error::topic_not_authorized));
    send("works"); // nothing of this does harm
    BOOST_TEST(text(c) == "works");

    namespace errc = boost::system::errc;
    BOOST_TEST((error_code(kafka_error::message_timeout) == errc::timed_out));
    BOOST_TEST((error_code(kafka_error::queue_full) == errc::no_buffer_space));
    BOOST_TEST((error_code(kafka_error::topic_not_authorized) == errc::permission_denied));
    BOOST_TEST(eof.message() == rd_kafka_err2str(RD_KAFKA_RESP_ERR__PARTITION_EOF));
    BOOST_TEST(std::string(eof.category().name()) == "librdkafka");
    BOOST_CHECK_EQUAL(moor::adapt::kafka_error_code(RD_KAFKA_RESP_ERR_NO_ERROR), error_code());
}

BOOST_FIXTURE_TEST_CASE(a_bad_configuration_is_refused_with_a_reason, loop) {
    auto check = [](auto make, const char* reason) {
        try {
            make();
            BOOST_ERROR("no exception");
        } catch (const boost::system::system_error& e) {
            BOOST_CHECK_EQUAL(e.code(), error_code(kafka_error::invalid_argument));
            BOOST_TEST(std::string(e.what()).find(reason) != std::string::npos, e.what());
        }
    };
    check([] { make_kafka_conf({{"no.such.property", "1"}}); }, "no.such.property");
    check([] { make_kafka_conf({{"session.timeout.ms", "soon"}}); }, "session.timeout.ms");
    check([] { make_kafka_conf({{"client.id", std::string("a\0b", 3)}}); }, "client.id");
    check(
        [&] {
            kafka_consumer(io, conf_of({{"session.timeout.ms", "400000"}, {"group.id", "g"}}));
        },
        "session.timeout.ms");
    check(
        [&] {
            kafka_producer(io, conf_of({{"bootstrap.servers", "127.0.0.1:1"},
                                        {"enable.idempotence", "true"},
                                        {"max.in.flight", "100"}}));
        },
        "max.in.flight");
    try {
        kafka_consumer no_group(io, conf_of({{"bootstrap.servers", brokers.address()}}));
        BOOST_ERROR("no exception");
    } catch (const boost::system::system_error& e) {
        BOOST_CHECK_EQUAL(e.code(), error_code(kafka_error::unknown_group));
    }
    {
        const test::fault none(test::call::eventfd, EMFILE);
        BOOST_CHECK_THROW(kafka_consumer(io, for_consumer()), boost::system::system_error);
        BOOST_CHECK_THROW(kafka_producer(io, for_producer()), boost::system::system_error);
    }
}

// ---- many ---------------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(ten_thousand_messages_in_a_row_come_in_order, pair_fixture) {
    const int most = 10000;
    int sent = 0, received = 0, wrong = 0;
    std::function<void()> send_next = [&] {
        p.async_produce({topic, {}, std::to_string(sent)}, [&](error_code ec, kafka_report r) {
            wrong += ec || r.offset != sent;
            if (++sent != most)
                send_next();
        });
    };
    const auto before = test::counts();
    send_next();
    run();
    const auto between = test::counts();
    std::function<void()> receive_next = [&] {
        c.async_consume([&](error_code ec, const kafka_message& m) {
            wrong += ec || kafka_value(*m) != std::to_string(received) || m->offset != received;
            if (++received != most)
                receive_next();
        });
    };
    receive_next();
    run();
    const auto after = test::counts();
    BOOST_TEST(sent == most);
    BOOST_TEST(received == most);
    BOOST_TEST(wrong == 0);
    for (const auto& used : {between - before, after - between})
        BOOST_TEST_MESSAGE("a message: " << double(used.turns()) / most << " turns, "
                                         << double(used.poll) / most << " poll, "
                                         << double(used.epoll_ctl) / most << " epoll_ctl");
}

BOOST_FIXTURE_TEST_CASE(two_thousand_messages_at_once_are_all_reported_and_received, pair_fixture) {
    const std::string wide = brokers.topic(3);
    kafka_consumer each(io, for_consumer());
    know(p.native_handle(), wide);
    assign(each, wide, 0, 3);
    const std::size_t most = 2000;
    std::vector<int> seen(most, 0);
    std::vector<std::pair<int, std::int64_t>> places(most);
    int good = 0;
    for (std::size_t i = 0; i != most; ++i)
        each.async_consume([&](error_code ec, const kafka_message& m) {
            const std::size_t n = std::stoul(std::string(kafka_value(*m)));
            good += !ec && n < most && ++seen[n] == 1;
        });
    for (std::size_t i = 0; i != most; ++i)
        p.async_produce(wide, "key" + std::to_string(i), std::to_string(i),
                        [&, i](error_code ec, kafka_report r) {
                            places[i] = {r.partition, r.offset};
                            good += !ec && r.offset >= 0;
                        });
    run();
    BOOST_TEST(good == 2 * int(most));
    // Each report is of its own message.
    assign(each, wide, 0, 3);
    int right = 0;
    for (std::size_t i = 0; i != most; ++i)
        each.async_consume([&](error_code, const kafka_message& m) {
            const std::size_t n = std::stoul(std::string(kafka_value(*m)));
            right += places.at(n) == std::make_pair(int(m->partition), m->offset);
        });
    run();
    BOOST_TEST(right == int(most));
}

BOOST_FIXTURE_TEST_CASE(messages_wait_for_a_full_queue_in_order, pair_fixture) {
    kafka_producer small(io, for_producer({{"queue.buffering.max.messages", "10"}}));
    int good = 0;
    for (int i = 0; i != 200; ++i)
        small.async_produce({topic, {}, std::to_string(i)}, [&, i](error_code ec, kafka_report r) {
            good += !ec && r.offset == i;
        });
    BOOST_TEST(rd_kafka_outq_len(small.native_handle()) <= 20); // with reports that are queued
    test::called flushed;
    small.async_flush(flushed.handler());
    test::run_until(io, [&] { return bool(flushed); });
    run();
    BOOST_TEST(good == 200);
    for (int i = 0; i != 200; ++i)
        BOOST_TEST(text(c) == std::to_string(i));

    kafka_producer tiny(io, for_producer({{"queue.buffering.max.kbytes", "1"}}));
    BOOST_CHECK_EQUAL(produce(tiny, {topic, {}, std::string(5000, 'x')}).ec,
                      error_code(kafka_error::queue_full));
    produce(tiny, topic, "small");
}

BOOST_FIXTURE_TEST_CASE(many_reports_at_once_let_other_handlers_run, loop) {
    kafka_producer nowhere(io, conf_of({{"bootstrap.servers", "127.0.0.1:1"}}));
    constexpr int count = 5500;
    int ended = 0, good = 0, most = 0;
    const error_code purged = moor::adapt::kafka_error_code(RD_KAFKA_RESP_ERR__PURGE_QUEUE);
    for (int i = 0; i != count; ++i)
        nowhere.async_produce({"topic", {}, "x"}, [&](error_code ec, kafka_report) {
            ++ended;
            good += ec == purged;
        });
    BOOST_REQUIRE(!rd_kafka_purge(nowhere.native_handle(), RD_KAFKA_PURGE_F_QUEUE));
    std::function<void(int)> other = [&](int before) {
        most = std::max(most, ended - before);
        if (ended != count)
            asio::post(io, [&, now = ended] { other(now); });
    };
    other(0);
    run();
    BOOST_TEST(good == count);
    BOOST_TEST(most <= 2000); // two calls of the library at most, of 1,000 reports each
}

// ---- cancellation -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_cancelled_consume_loses_no_message, pair_fixture) {
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total}) {
        consumed cancelled, other;
        asio::cancellation_signal signal;
        c.async_consume(asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
        c.async_consume(other.handler());
        test::run_ready(io);
        signal.emit(type);
        BOOST_TEST(cancelled.times == 0); // not from within
        test::run_until(io, [&] { return bool(cancelled); });
        BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
        BOOST_TEST(!cancelled.value);
        signal.emit(type); // for nobody
        send("for the other");
        test::run_until(io, [&] { return bool(other); });
        BOOST_TEST(kafka_value(*other.value) == "for the other");
        BOOST_TEST(cancelled.times == 1);
    }
    // At any time.
    const int most = 300;
    for (int i = 0; i != most; ++i)
        p.async_produce({topic, {}, std::to_string(i)}, [](error_code, kafka_report) {});
    int received = 0;
    for (int turns = 0; received != most; turns = (turns + 1) % 7) {
        consumed o;
        asio::cancellation_signal signal;
        io.restart();
        c.async_consume(asio::bind_cancellation_slot(signal.slot(), o.handler()));
        for (int i = 0; i != turns && !o; ++i)
            io.poll_one();
        signal.emit(asio::cancellation_type::total);
        test::run_until(io, [&] { return bool(o); });
        if (o.ec)
            BOOST_REQUIRE_EQUAL(o.ec, test::aborted);
        else
            BOOST_REQUIRE_EQUAL(std::string(kafka_value(*o.value)), std::to_string(received++));
    }
    run();
}

BOOST_FIXTURE_TEST_CASE(a_cancelled_produce_ends_at_once_and_its_report_is_dropped, pair_fixture) {
    send("first"); // connected
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total}) {
        produced cancelled;
        asio::cancellation_signal signal;
        {
            const slow_broker slow(300ms);
            p.async_produce({topic, {}, "taken"},
                            asio::bind_cancellation_slot(signal.slot(), cancelled.handler()));
            test::run_ready(io);
            signal.emit(type);
            run(); // nothing is left that keeps the loop
            BOOST_TEST(cancelled.times == 1);
            BOOST_CHECK_EQUAL(cancelled.ec, test::aborted);
            test::called flushed; // which waits for the message nevertheless
            p.async_flush(flushed.handler());
            run();
            BOOST_CHECK_EQUAL(flushed.ec, error_code());
            BOOST_TEST(rd_kafka_outq_len(p.native_handle()) == 0);
        }
        BOOST_TEST(cancelled.times == 1);
    }
    for (const char* expected : {"first", "taken", "taken", "taken"})
        BOOST_TEST(text(c) == expected);
}

BOOST_FIXTURE_TEST_CASE(a_message_that_waits_for_the_queue_is_not_sent_when_cancelled,
                        pair_fixture) {
    kafka_producer small(io, for_producer({{"queue.buffering.max.messages", "1"}}));
    const slow_broker slow(100ms);
    produced o[3];
    asio::cancellation_signal signal, of_flush;
    test::called flushed, not_flushed;
    small.async_produce({topic, {}, "0"}, o[0].handler());
    small.async_produce({topic, {}, "1"},
                        asio::bind_cancellation_slot(signal.slot(), o[1].handler()));
    small.async_flush(asio::bind_cancellation_slot(of_flush.slot(), not_flushed.handler()));
    small.async_flush(flushed.handler());
    small.async_produce({topic, {}, "2"}, o[2].handler());
    signal.emit(asio::cancellation_type::total);
    of_flush.emit(asio::cancellation_type::total);
    test::run_until(io, [&] { return o[1] && not_flushed; });
    BOOST_CHECK_EQUAL(o[1].ec, test::aborted);
    BOOST_CHECK_EQUAL(not_flushed.ec, test::aborted);
    BOOST_TEST(!o[0]);
    test::run_until(io, [&] { return bool(flushed); });
    BOOST_TEST(o[0].times == 1);
    BOOST_TEST(!o[2]); // later than the flush
    run();
    BOOST_TEST(o[2].value.offset == 1);
    BOOST_TEST(text(c) == "0");
    BOOST_TEST(text(c) == "2");
}

BOOST_FIXTURE_TEST_CASE(cancel_ends_all_and_the_objects_are_used_again, pair_fixture) {
    consumed in[3];
    produced out[3];
    test::called flushed;
    send("first");
    BOOST_TEST(text(c) == "first");
    {
        const slow_broker slow(100ms);
        for (consumed& each : in)
            c.async_consume(each.handler());
        for (produced& each : out)
            p.async_produce({topic, {}, "late"}, each.handler());
        p.async_flush(flushed.handler());
        c.cancel();
        p.cancel();
        run();
    }
    for (const consumed& each : in)
        BOOST_CHECK_EQUAL(each.ec, test::aborted);
    for (const produced& each : out)
        BOOST_CHECK_EQUAL(each.ec, test::aborted);
    BOOST_CHECK_EQUAL(flushed.ec, test::aborted);
    for (int i = 0; i != 3; ++i)
        BOOST_TEST(text(c) == "late");
    send("next");
    BOOST_TEST(text(c) == "next");
}

BOOST_FIXTURE_TEST_CASE(a_slow_broker_meets_a_deadline, pair_fixture) {
    send("first");
    BOOST_TEST(text(c) == "first");
    const slow_broker slow(500ms);
    for (bool is_consume : {true, false}) {
        consumed in;
        produced out;
        asio::cancellation_signal signal;
        asio::steady_timer deadline(io, 20ms);
        if (is_consume)
            c.async_consume(asio::bind_cancellation_slot(signal.slot(), in.handler()));
        else
            p.async_produce({topic, {}, "x"},
                            asio::bind_cancellation_slot(signal.slot(), out.handler()));
        deadline.async_wait([&](error_code) { signal.emit(asio::cancellation_type::terminal); });
        run();
        BOOST_CHECK_EQUAL(is_consume ? in.ec : out.ec, test::aborted);
    }
}

// ---- the broker goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_broker_that_goes_and_comes_back_is_used_again, pair_fixture) {
    kafka_producer hasty(io, for_producer({{"message.timeout.ms", "300"}}));
    const std::string other = brokers.topic();
    for (int round = 0; round != 2; ++round) {
        while (produce(hasty, {other, {}, "again"}).ec) { // until it is connected
        }
        send("before");
        BOOST_TEST(text(c) == "before");
        consumed pending;
        c.async_consume(pending.handler());
        test::run_ready(io);
        brokers.take_down();
        // A clear error at the end of the message's time.
        BOOST_CHECK_EQUAL(produce(hasty, {other, {}, "lost"}).ec,
                          error_code(kafka_error::message_timeout));
        produced patient;
        p.async_produce({topic, {}, "after"}, patient.handler());
        test::run_ready(io);
        BOOST_TEST(!patient);
        brokers.bring_up();
        test::run_until(io, [&] { return bool(patient); });
        BOOST_CHECK_EQUAL(patient.ec, error_code());
        test::run_until(io, [&] { return bool(pending); });
        while (pending.ec) { // errors of the connection are temporary
            BOOST_TEST((pending.ec == kafka_error::transport ||
                        pending.ec == kafka_error::all_brokers_down),
                       pending.ec.message());
            pending = consume(c);
        }
        BOOST_TEST(kafka_value(*pending.value) == "after");
    }
}

// ---- groups, and the end ------------------------------------------------------------------------

namespace {

/// What the rebalance callback has seen; its consumer in the opaque pointer.
struct rebalances {
    int assigned = 0, revoked = 0;
    std::function<void()> in_place_of_answer{}; // to a revocation

    static void set(rd_kafka_conf_t* conf, rebalances& r) {
        rd_kafka_conf_set_opaque(conf, &r);
        rd_kafka_conf_set_rebalance_cb(conf, [](rd_kafka_t* c, rd_kafka_resp_err_t e,
                                                rd_kafka_topic_partition_list_t* list, void* p) {
            rebalances& seen = *static_cast<rebalances*>(p);
            const bool is_assigned = e == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
            ++(is_assigned ? seen.assigned : seen.revoked);
            if (!is_assigned && seen.in_place_of_answer)
                return seen.in_place_of_answer();
            rd_kafka_assign(c, is_assigned ? list : nullptr);
        });
    }
};

void subscribe(kafka_consumer& c, const std::string& topic) {
    rd_kafka_topic_partition_list_t* list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic.c_str(), RD_KAFKA_PARTITION_UA);
    BOOST_REQUIRE(!rd_kafka_subscribe(c.native_handle(), list));
    rd_kafka_topic_partition_list_destroy(list);
}

std::int64_t committed_offset(rd_kafka_t* c, const std::string& topic) {
    rd_kafka_topic_partition_list_t* list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic.c_str(), 0);
    BOOST_TEST(!rd_kafka_committed(c, list, 20000));
    const std::int64_t offset = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return offset;
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_member_of_a_group_stays_while_it_waits_and_leaves_when_closed,
                        pair_fixture) {
    // The mock cluster lets a new group wait for 3 s, and a session has to be longer than that.
    rebalances seen;
    kafka_conf conf = for_consumer({{"group.id", "members"},
                                    {"enable.auto.commit", "true"},
                                    {"session.timeout.ms", "3200"},
                                    {"max.poll.interval.ms", "3200"},
                                    {"heartbeat.interval.ms", "200"}});
    rebalances::set(conf.get(), seen);
    kafka_consumer member(io, std::move(conf));
    subscribe(member, topic);
    consumed pending;
    member.async_consume(pending.handler());
    test::run_until(io, [&] { return seen.assigned == 1; });
    // Longer than max.poll.interval.ms without a message: the library would take the member out.
    test::called over;
    asio::steady_timer pause(io, 4000ms);
    pause.async_wait(over.handler());
    test::run_until(io, [&] { return bool(over); });
    BOOST_TEST(!pending, pending.ec.message());
    send("one");
    test::run_until(io, [&] { return bool(pending); });
    BOOST_CHECK_EQUAL(pending.ec, error_code());
    BOOST_TEST(seen.revoked == 0);

    consumed aborted;
    member.async_consume(aborted.handler());
    BOOST_CHECK_EQUAL(close(member), error_code());
    BOOST_CHECK_EQUAL(aborted.ec, test::aborted);
    BOOST_TEST(seen.revoked == 1);
    BOOST_CHECK_EQUAL(consume(member).ec, bad_state);
    BOOST_CHECK_EQUAL(close(member), error_code());
    run();
    kafka_consumer reader(io, for_consumer({{"group.id", "members"}}));
    BOOST_TEST(committed_offset(reader.native_handle(), topic) == 1);
}

BOOST_FIXTURE_TEST_CASE(a_consumer_that_is_being_closed_is_destroyed_at_any_time, pair_fixture) {
    // librdkafka waits for the answer to the revocation.
    constexpr std::size_t most = 4;
    rebalances seen[most];
    std::optional<kafka_consumer> members[most];
    consumed pending[most];
    test::called closed[most];
    for (std::size_t i = 0; i != most; ++i) {
        kafka_conf conf = for_consumer({{"group.id", "leaving" + std::to_string(i)}});
        rebalances::set(conf.get(), seen[i]);
        members[i].emplace(io, std::move(conf));
        subscribe(*members[i], topic);
        members[i]->async_consume(pending[i].handler());
    }
    for (const rebalances& each : seen)
        test::run_until(io, [&] { return each.assigned == 1; });

    // The revocation is in the queue, and nobody has received it.
    asio::cancellation_signal deadline;
    members[0]->async_close(asio::bind_cancellation_slot(deadline.slot(), closed[0].handler()));
    deadline.emit(asio::cancellation_type::total);
    rd_kafka_queue_t* q = rd_kafka_queue_get_consumer(members[0]->native_handle());
    BOOST_REQUIRE(test::wait_for([&] { return rd_kafka_queue_length(q) != 0; }));
    rd_kafka_queue_destroy(q);
    members[0].reset();
    // librdkafka has hardly begun.
    members[1]->async_close(closed[1].handler());
    members[1].reset();
    // A callback destroys the consumer, with and without an answer.
    seen[2].in_place_of_answer = [&] { members[2].reset(); };
    members[2]->async_close(closed[2].handler());
    seen[3].in_place_of_answer = [&] {
        rd_kafka_assign(members[3]->native_handle(), nullptr);
        members[3].reset();
    };
    members[3]->async_close(closed[3].handler());
    run();
    for (std::size_t i = 0; i != most; ++i) {
        BOOST_CHECK_EQUAL(pending[i].ec, test::aborted);
        BOOST_CHECK_EQUAL(closed[i].ec, test::aborted);
        BOOST_TEST(seen[i].revoked == (i < 2 ? 0 : 1));
        BOOST_TEST(!members[i]);
    }
}

BOOST_FIXTURE_TEST_CASE(messages_that_a_closed_consumer_drops_are_not_committed, pair_fixture) {
    for (int i = 0; i != 100; ++i)
        p.async_produce({topic, {}, std::to_string(i)}, [](error_code, kafka_report) {});
    run();
    for (int i = 0; i != 5; ++i) {
        const std::string group = "closed" + std::to_string(i);
        kafka_consumer each(io,
                            for_consumer({{"group.id", group}, {"enable.auto.commit", "true"}}));
        assign(each, topic);
        BOOST_TEST(text(each) == "0");
        rd_kafka_queue_t* q = rd_kafka_queue_get_consumer(each.native_handle());
        BOOST_REQUIRE(test::wait_for([&] { return rd_kafka_queue_length(q) > 50; }));
        rd_kafka_queue_destroy(q);
        BOOST_CHECK_EQUAL(close(each), error_code());
        kafka_consumer reader(io, for_consumer({{"group.id", group}}));
        BOOST_TEST(committed_offset(reader.native_handle(), topic) == 1);
    }
}

BOOST_FIXTURE_TEST_CASE(a_consumer_is_closed_whatever_it_does, pair_fixture) {
    for (int i = 0; i != 500; ++i)
        p.async_produce({topic, {}, "text"}, [](error_code, kafka_report) {});
    run();
    for (int i = 0; i != 60; ++i) {
        kafka_consumer each(io, for_consumer());
        if (i % 3 != 0)
            assign(each, topic);
        if (i % 3 == 2) // and there are more
            BOOST_TEST(text(each) == "text");
        consumed pending;
        test::called closed[3];
        asio::cancellation_signal signal;
        each.async_consume(pending.handler());
        each.async_close(asio::bind_cancellation_slot(signal.slot(), closed[0].handler()));
        each.async_close(closed[1].handler());
        signal.emit(asio::cancellation_type::total);
        test::run_until(io, [&] { return closed[0] && closed[1]; });
        BOOST_CHECK_EQUAL(closed[0].ec, test::aborted);
        BOOST_CHECK_EQUAL(closed[1].ec, error_code());
        BOOST_TEST(bool(rd_kafka_consumer_closed(each.native_handle())));
        BOOST_CHECK_EQUAL(pending.ec, test::aborted);
        if (i % 2 == 0) { // half closed
            kafka_consumer half(io, for_consumer());
            assign(half, topic);
            half.async_close(closed[2].handler());
        } else {
            closed[2].ec = close(each);
        }
        run();
        BOOST_CHECK_EQUAL(closed[2].ec, i % 2 == 0 ? test::aborted : error_code());
    }
}

BOOST_FIXTURE_TEST_CASE(a_message_outlives_its_consumer, pair_fixture) {
    // rd_kafka_destroy would wait for it for ever.
    send("kept");
    send("queued");
    kafka_message kept;
    {
        kafka_consumer each(io, for_consumer());
        assign(each, topic);
        consumed o = consume(each);
        kept = std::move(o.value);
        BOOST_CHECK_EQUAL(close(each), error_code());
    }
    {
        auto each = std::make_unique<kafka_consumer>(io, for_consumer());
        assign(*each, topic);
        // The second one is queued, with its handler, when the consumer goes.
        std::string first, second;
        each->async_consume([&](error_code, const kafka_message& m) {
            first = kafka_value(*m);
            each.reset();
        });
        each->async_consume([&](error_code ec, const kafka_message& m) {
            second = ec ? "aborted" : std::string(kafka_value(*m));
        });
        run();
        BOOST_TEST(first == "kept");
        BOOST_TEST((second == "queued" || second == "aborted"));
    }
    BOOST_TEST(kafka_value(*kept) == "kept");
    BOOST_TEST(rd_kafka_topic_name(kept->rkt) == topic);
}

BOOST_FIXTURE_TEST_CASE(a_consumer_borrows_an_object, pair_fixture) {
    send("text");
    rd_kafka_t* native = rd_kafka_new(RD_KAFKA_CONSUMER, for_consumer().release(), nullptr, 0);
    for (int i = 0; i != 2; ++i) {
        kafka_consumer each(io, native);
        BOOST_TEST(each.native_handle() == native);
        assign(each, topic);
        BOOST_TEST(text(each) == "text");
    }
    rd_kafka_destroy(native);
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(objects_are_destroyed_after_any_turn_of_the_loop, pair_fixture) {
    send("text");
    bool was_over = false;
    for (int turns = 0; !was_over; ++turns) {
        io.restart();
        int ended = 0;
        const int started = 6;
        auto count = [&](auto&&...) { ++ended; };
        std::optional<kafka_consumer> in(std::in_place, io, for_consumer());
        std::optional<kafka_producer> out(std::in_place, io, for_producer());
        know(out->native_handle(), topic);
        assign(*in, topic);
        in->async_consume(count);
        in->async_consume(count);
        out->async_produce(topic, "", "text", count);
        out->async_produce(topic, "", "text", count);
        out->async_flush(count);
        out->async_produce({"", {}, "x"}, count);
        for (int i = 0; i != turns && ended != started; ++i)
            io.run_one();
        was_over = ended == started;
        in.reset();
        out.reset();
        run();
        BOOST_REQUIRE_EQUAL(ended, started);
    }
}

BOOST_FIXTURE_TEST_CASE(a_handler_destroys_its_object, pair_fixture) {
    send("text");
    auto in = std::make_unique<kafka_consumer>(io, for_consumer());
    auto out = std::make_unique<kafka_producer>(io, for_producer());
    know(out->native_handle(), topic);
    assign(*in, topic);
    test::called first, second;
    in->async_consume([&](error_code, const kafka_message&) {
        in.reset();
        ++first.times;
    });
    in->async_consume([](error_code, const kafka_message&) {});
    out->async_produce({topic, {}, "x"}, [&](error_code, kafka_report) {
        out.reset();
        ++second.times;
    });
    out->async_flush([](error_code) {});
    run();
    BOOST_TEST(first.times == 1);
    BOOST_TEST(second.times == 1);
}

BOOST_FIXTURE_TEST_CASE(a_callback_of_the_library_cancels_and_destroys, pair_fixture) {
    send("text");
    for (bool is_consumer : {true, false})
        for (bool destroys : {true, false}) {
            std::function<void()> act;
            kafka_conf conf = conf_of({{"bootstrap.servers", "127.0.0.1:1"}, {"group.id", "g"}});
            rd_kafka_conf_set_opaque(conf.get(), &act);
            rd_kafka_conf_set_error_cb(conf.get(), [](rd_kafka_t*, int, const char*, void* f) {
                (*static_cast<std::function<void()>*>(f))();
            });
            std::optional<kafka_consumer> in;
            std::optional<kafka_producer> out;
            int times = 0, aborted = 0;
            auto count = [&](error_code ec, auto&&...) { aborted += ec == test::aborted; };
            act = [&] {
                ++times;
                if (destroys) {
                    in.reset();
                    out.reset();
                } else {
                    if (in)
                        in->cancel();
                    if (out)
                        out->cancel();
                }
            };
            if (is_consumer) {
                in.emplace(io, std::move(conf));
                in->async_consume(count);
                in->async_consume(count);
            } else {
                out.emplace(io, std::move(conf));
                out->async_produce({topic, {}, "x"}, count);
                out->async_flush(count);
            }
            run();
            BOOST_TEST(times >= 1);
            BOOST_TEST(aborted == 2);
        }
}

namespace {

/// A consumer with a callback for commits, which calls `act`.
struct acting_fixture : pair_fixture {
    std::function<void()> act = [] {};
    kafka_consumer acting{io, conf()};

    acting_fixture() {
        assign(acting, topic);
        send("text");
        BOOST_TEST(text(acting) == "text");
    }

    /// Puts a callback into the queue, and then a message: both come from the same call of the
    /// library. The loop does not run meanwhile.
    void fill_queue() {
        rd_kafka_queue_t* q = rd_kafka_queue_get_consumer(acting.native_handle());
        BOOST_REQUIRE(!rd_kafka_commit(acting.native_handle(), nullptr, 1));
        BOOST_REQUIRE(test::wait_for([&] { return rd_kafka_queue_length(q) != 0; }));
        rd_kafka_topic_t* t = rd_kafka_topic_new(p.native_handle(), topic.c_str(), nullptr);
        char next[] = "next";
        BOOST_REQUIRE(!rd_kafka_produce(t, 0, RD_KAFKA_MSG_F_COPY, next, 4, nullptr, 0, nullptr));
        rd_kafka_topic_destroy(t);
        BOOST_REQUIRE(test::wait_for([&] { return rd_kafka_queue_length(q) >= 2; }));
        rd_kafka_queue_destroy(q);
    }

private:
    kafka_conf conf() {
        kafka_conf conf = for_consumer({{"group.id", topic}, {"enable.auto.commit", "true"}});
        rd_kafka_conf_set_opaque(conf.get(), this);
        rd_kafka_conf_set_offset_commit_cb(
            conf.get(), [](rd_kafka_t*, rd_kafka_resp_err_t, rd_kafka_topic_partition_list_t*,
                           void* self) { static_cast<acting_fixture*>(self)->act(); });
        return conf;
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(a_message_is_kept_that_a_callback_makes_nobody_wait_for, acting_fixture) {
    fill_queue();
    act = [&] { acting.cancel(); };
    BOOST_CHECK_EQUAL(consume(acting).ec, test::aborted);
    act = [] {};
    BOOST_TEST(text(acting) == "next");
}

BOOST_FIXTURE_TEST_CASE(a_message_that_was_kept_is_not_committed_by_a_close, acting_fixture) {
    fill_queue();
    act = [&] { acting.cancel(); };
    BOOST_CHECK_EQUAL(consume(acting).ec, test::aborted);
    act = [] {};
    BOOST_CHECK_EQUAL(close(acting), error_code()); // nobody has received "next"
    kafka_consumer reader(io, for_consumer({{"group.id", topic}}));
    BOOST_TEST(committed_offset(reader.native_handle(), topic) == 1);
}

BOOST_FIXTURE_TEST_CASE(a_callback_that_yields_leaves_a_message_for_the_next_turn, acting_fixture) {
    act = [&] { rd_kafka_yield(acting.native_handle()); };
    consumed next;
    acting.async_consume(next.handler());
    test::run_ready(io);
    fill_queue(); // so that the descriptor is read before the callback is called
    test::run_until(io, [&] { return bool(next); });
    BOOST_TEST(kafka_value(*next.value) == "next");
}

BOOST_AUTO_TEST_CASE(objects_outlive_their_context) {
    const std::string topic = cluster::get().topic();
    for (int stage = 0; stage != 6; ++stage) {
        std::optional<kafka_consumer> in;
        std::optional<kafka_producer> out;
        auto alive = std::make_shared<int>(0);
        {
            asio::io_context io;
            in.emplace(io, for_consumer());
            out.emplace(io, for_producer());
            assign(*in, topic);
            in->async_consume([alive](auto&&...) {});
            in->async_consume([alive](auto&&...) {});
            out->async_produce({topic, {}, "x"}, [alive](auto&&...) {});
            out->async_flush([alive](auto&&...) {});
            if (stage % 2)
                in->async_close([alive](auto&&...) {});
            for (int i = 0; i != stage; ++i)
                io.run_one();
        }
        BOOST_TEST(alive.use_count() == 1);
        in->cancel();
        out->cancel();
    }
}

namespace {

template <class Executor>
void check_outlives_its_context() {
    std::optional<basic_kafka_consumer<Executor>> in, in2;
    std::optional<basic_kafka_producer<Executor>> out, out2;
    {
        asio::io_context io;
        const Executor ex(asio::make_strand(io));
        in.emplace(ex, for_consumer());
        out.emplace(ex, for_producer());
        BOOST_TEST((in->get_executor() == ex && out->get_executor() == ex));
        in->async_consume([](auto&&...) {});
        out->async_produce({"topic", {}, "x"}, [](auto&&...) {});
    }
    in2.emplace(std::move(*in));
    out2.emplace(std::move(*out));
    *in = std::move(*in2);
    *out = std::move(*out2);
    if constexpr (!std::is_same<Executor, asio::any_io_executor>::value) {
        const kafka_consumer other_in(std::move(*in));
        const kafka_producer other_out(std::move(*out));
    }
}

} // namespace

BOOST_AUTO_TEST_CASE(objects_on_a_strand_outlive_their_context) {
    // The destructor of a strand uses a service of the context.
    check_outlives_its_context<asio::strand<asio::io_context::executor_type>>();
    check_outlives_its_context<asio::any_io_executor>();
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_the_object_does_not_leak) {
    const std::string topic = cluster::get().topic();
    auto alive = std::make_shared<int>(0);
    for (int turns = 0; turns != 4; ++turns) {
        asio::io_context io;
        auto in = std::make_shared<kafka_consumer>(io, for_consumer());
        auto out = std::make_shared<kafka_producer>(io, for_producer());
        assign(*in, topic);
        in->async_consume([in, alive](auto&&...) {});
        out->async_produce({topic, {}, "x"}, [out, alive](auto&&...) {});
        in.reset();
        out.reset();
        for (int i = 0; i != turns; ++i)
            io.poll_one();
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(the_end_of_the_service_ends_what_is_pending, pair_fixture) {
    consumed in;
    produced out;
    {
        const slow_broker slow(200ms);
        c.async_consume(in.handler());
        p.async_produce({topic, {}, "x"}, out.handler());
        test::run_ready(io);
        asio::use_service<moor::registration_service>(io).close();
        run();
    }
    for (const error_code& ec : {in.ec, out.ec})
        BOOST_TEST((ec == test::gone || ec == test::aborted), ec.message());
}

BOOST_FIXTURE_TEST_CASE(operations_go_on_when_objects_are_moved, pair_fixture) {
    consumed in[2];
    produced out[2];
    c.async_consume(in[0].handler());
    kafka_consumer consumer2(std::move(c));
    consumer2.async_consume(in[1].handler());
    p.async_produce({topic, {}, "one"}, out[0].handler());
    kafka_producer producer2(std::move(p));
    producer2.async_produce({topic, {}, "two"}, out[1].handler());
    run();
    BOOST_TEST(kafka_value(*in[0].value) == "one");
    BOOST_TEST(kafka_value(*in[1].value) == "two");
    BOOST_TEST(out[1].value.offset == 1);
    consumed aborted;
    consumer2.async_consume(aborted.handler());
    consumer2 = kafka_consumer(io, for_consumer());
    run();
    BOOST_CHECK_EQUAL(aborted.ec, test::aborted);
    c = std::move(consumer2);
    p = std::move(producer2);
    assign(c, topic);
    BOOST_TEST(text(c) == "one");
    send("three");
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(idle_objects_cost_nothing_and_let_the_loop_end, pair_fixture) {
    send("one");
    BOOST_TEST(text(c) == "one");
    run(); // returns
    for (bool is_waiting : {false, true}) {
        consumed o;
        if (is_waiting)
            c.async_consume(o.handler());
        test::run_ready(io);
        test::check_costs_nothing(io);
        BOOST_TEST(!o);
        c.cancel();
        run();
    }
    // Messages that nobody waits for wake nobody.
    kafka_producer other(io, for_producer());
    produce(other, topic, "two");
    rd_kafka_queue_t* q = rd_kafka_queue_get_consumer(c.native_handle());
    BOOST_TEST(test::wait_for([&] { return rd_kafka_queue_length(q) != 0; }));
    rd_kafka_queue_destroy(q);
    run();
    test::check_costs_nothing(io);
    BOOST_TEST(text(c) == "two");
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(objects_run_on_a_strand_of_a_thread_pool) {
    const std::string topic = cluster::get().topic();
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 300;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    std::optional<basic_kafka_consumer<strand_type>> in(std::in_place, strand, for_consumer());
    std::optional<basic_kafka_producer<strand_type>> out(std::in_place, strand, for_producer());
    know(out->native_handle(), topic);
    assign(*in, topic);
    asio::cancellation_signal signal;
    int sent = 0, received = 0;
    std::function<void()> send = [&] {
        outside += !strand.running_in_this_thread();
        if (sent++ != count)
            out->async_produce({topic, {}, "x"}, [&](error_code ec, kafka_report) {
                good += !ec;
                send();
            });
    };
    std::function<void()> receive = [&] {
        outside += !strand.running_in_this_thread();
        if (received++ != count)
            return in->async_consume([&](error_code ec, const kafka_message&) {
                good += !ec;
                receive();
            });
        in->async_consume(
            asio::bind_cancellation_slot(signal.slot(), [&](error_code ec, const kafka_message&) {
                outside += !strand.running_in_this_thread();
                good += ec == test::aborted;
                in.reset();
                out.reset();
                over.set_value();
            }));
        signal.emit(asio::cancellation_type::total);
    };
    asio::post(strand, send);
    asio::post(strand, receive);
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(good == 2 * count + 1);
    BOOST_TEST(outside == 0);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    const std::string topic = cluster::get().topic();
    asio::thread_pool pool(1);
    auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    kafka_consumer in(pool, for_consumer());
    kafka_producer out(pool, for_producer());
    know(out.native_handle(), topic);
    assign(in, topic);
    auto report = there([&] { return out.async_produce(topic, "k", "text", asio::use_future); });
    auto message = there([&] { return in.async_consume(asio::use_future); });
    auto flushed = there([&] { return out.async_flush(asio::use_future); });
    BOOST_TEST(report.get().offset == 0);
    BOOST_TEST(kafka_value(*message.get()) == "text");
    flushed.get();
    there([&] { return in.async_close(asio::use_future); }).get();
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> talk(asio::io_context& io, std::string topic, int& good) {
    kafka_producer out(io, for_producer());
    auto in = asio::use_awaitable_t<>::as_default_on(kafka_consumer(io, for_consumer()));
    know(out.native_handle(), topic);
    assign(in, topic);
    const kafka_report report = co_await out.async_produce(topic, "k", "text", use_awaitable);
    good += report.offset == 0;
    kafka_message m = co_await in.async_consume();
    good += kafka_value(*m) == "text";
    asio::steady_timer deadline(io, 20ms);
    auto first = co_await (in.async_consume(asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    try {
        co_await out.async_produce("", "k", "text", use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == kafka_error::bad_topic;
    }
    co_await out.async_flush(use_awaitable);
    co_await in.async_close();
    ++good;
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_produces_and_consumes, loop) {
    int good = 0;
    asio::co_spawn(io, talk(io, brokers.topic(), good), [](std::exception_ptr e) {
        if (e)
            std::rethrow_exception(e);
    });
    run();
    BOOST_TEST(good == 5);
}

#endif

BOOST_AUTO_TEST_SUITE_END()
