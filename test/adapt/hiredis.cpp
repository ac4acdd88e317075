// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// The adapter for hiredis against a real server, which servers.sh starts. Without it, each case
// fails.

#include "support/context.hpp"
#include "support/counts.hpp"
#include "support/full_server.hpp"
#include "support/quiet.hpp"
#include "support/servers.hpp"
#include "support/vocabulary.hpp"

#include <moor/adapt/hiredis.hpp>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/asio/write.hpp>

#if defined(BOOST_ASIO_HAS_CO_AWAIT)
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#endif

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <exception>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <signal.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

BOOST_AUTO_TEST_SUITE(hiredis)

namespace {

namespace asio = boost::asio;
using moor::adapt::redis_command;
using moor::adapt::redis_connection;
using moor::adapt::redis_error;
using moor::adapt::redis_handle;
using moor::adapt::redis_reply;
using moor::adapt::redis_type;
using test::control_server;
using test::error_code;
using test::variable;
using words = std::vector<std::string>;
using namespace std::chrono_literals;

const error_code not_connected(asio::error::not_connected);
const error_code invalid_argument(asio::error::invalid_argument);
const error_code connection_closed(redis_error::connection_closed);
const error_code reply_error(redis_error::reply_error);
const error_code subscribed(redis_error::subscribed);

std::uint16_t port_of(const char* name) {
    return static_cast<std::uint16_t>(std::stoi(variable(name)));
}
std::uint16_t port() { return port_of("MOOR_SERVERS_REDIS_PORT"); }
std::string path() { return variable("MOOR_SERVERS_REDIS_SOCKET"); }

/// The server does not run while this exists.
class stopped_server {
public:
    stopped_server() {
        std::ifstream file(variable("MOOR_SERVERS_DIR") + "/redis.pid");
        file >> pid_;
        BOOST_REQUIRE(pid_ > 0);
        BOOST_REQUIRE(::kill(pid_, SIGSTOP) == 0);
    }
    ~stopped_server() { ::kill(pid_, SIGCONT); }
    stopped_server(const stopped_server&) = delete;
    stopped_server& operator=(const stopped_server&) = delete;

private:
    ::pid_t pid_ = 0;
};

using outcome = test::called_with<redis_reply>;

/// A context, and calls that run it until an operation is over.
struct loop : test::context_fixture {
    template <class Start>
    error_code run_ec(Start start) {
        test::called done;
        start(done.handler());
        BOOST_TEST(done.times == 0); // not from within the initiating function
        test::run_until(io, [&] { return bool(done); });
        BOOST_TEST(done.times == 1);
        return done.ec;
    }
    template <class Connection>
    error_code connect(Connection& c, std::uint16_t p = port()) {
        return run_ec([&](auto h) { c.async_connect("127.0.0.1", p, std::move(h)); });
    }
    template <class Connection>
    error_code connect_unix(Connection& c, const std::string& where = path()) {
        return run_ec([&](auto h) { c.async_connect_unix(where, std::move(h)); });
    }

    template <class Start>
    outcome run(Start start) {
        outcome o;
        start(o.handler());
        BOOST_TEST(o.times == 0);
        test::run_until(io, [&] { return bool(o); });
        BOOST_TEST(o.times == 1);
        return o;
    }
    template <class Connection, class... Values>
    outcome command(Connection& c, const Values&... values) {
        return run([&](auto h) { c.async_command(values..., std::move(h)); });
    }
    template <class Connection>
    outcome receive(Connection& c) {
        return run([&](auto h) { c.async_receive(std::move(h)); });
    }
    template <class Connection>
    void check_works(Connection& c) {
        BOOST_CHECK_EQUAL(command(c, "SET", "works", 42).ec, error_code());
        BOOST_TEST(command(c, "GET", "works").value.text == "42");
    }
};

/// A loop whose end leaves no descriptor behind.
struct counted_loop : loop {
    long descriptors = 0;

    counted_loop() { // the reactor's descriptors belong to the context
        moor::watcher w(io);
        asio::steady_timer t(io, 0s);
        t.async_wait([](error_code) {});
        test::run_all(io);
        descriptors = test::open_descriptors();
    }
    void check_descriptors() { BOOST_TEST(test::open_descriptors() == descriptors); }
};

/// A connection, and another one beside it.
struct connected : counted_loop {
    std::optional<redis_connection> connection{std::in_place, io};
    redis_connection& c = *connection;
    std::optional<redis_connection> second{std::in_place, io};
    redis_connection& other = *second;

    connected() {
        BOOST_REQUIRE_EQUAL(connect(c), error_code());
        BOOST_REQUIRE_EQUAL(connect_unix(other), error_code());
        BOOST_REQUIRE_EQUAL(command(other, "FLUSHALL").ec, error_code());
    }
    ~connected() {
        connection.reset();
        second.reset();
        check_descriptors();
    }

    /// Publishes, and checks the number of those that receive the message.
    void publish(const std::string& channel, const std::string& text, long long receivers = 1) {
        BOOST_TEST(command(other, "PUBLISH", channel, text).value.integer == receivers);
    }
};

std::string text_of(const redis_reply& r) {
    std::string text = r.text;
    for (const redis_reply& e : r.elements)
        text += (&e == r.elements.data() ? "" : " ") + text_of(e);
    return r.type == redis_type::integer ? std::to_string(r.integer) : text;
}

} // namespace

// ---- connecting ---------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(connects_by_name_by_address_and_on_a_unix_socket, loop) {
    redis_connection c(io);
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.native_handle());
    for (const char* host : {"127.0.0.1", "localhost"}) { // which may be ::1 first
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_connect(host, port(), std::move(h)); }),
                          error_code());
        BOOST_TEST(c.is_open());
        check_works(c);
    }
    BOOST_CHECK_EQUAL(connect_unix(c), error_code());
    check_works(c);
    const outcome info = command(c, "INFO", "server");
    const std::size_t at = info.value.text.find("redis_version:");
    BOOST_REQUIRE(at != std::string::npos);
    BOOST_TEST_MESSAGE(
        "hiredis " << HIREDIS_MAJOR << '.' << HIREDIS_MINOR << '.' << HIREDIS_PATCH << ", "
                   << info.value.text.substr(at, info.value.text.find('\r', at) - at));
}

BOOST_FIXTURE_TEST_CASE(a_connection_that_fails_says_why, counted_loop) {
    redis_connection c(io);
    BOOST_CHECK_EQUAL(connect(c, 1), error_code(asio::error::connection_refused));
    BOOST_TEST(c.error_message().find("refused") != std::string::npos);
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.native_handle());
    BOOST_TEST(
        (connect_unix(c, "/there/is/no/server") == boost::system::errc::no_such_file_or_directory));
    const error_code ec =
        run_ec([&](auto h) { c.async_connect("moor.invalid", port(), std::move(h)); });
    BOOST_TEST((ec == asio::error::host_not_found || ec == asio::error::host_not_found_try_again));
    BOOST_CHECK_EQUAL(command(c, "GET", "x").ec, not_connected);
    BOOST_CHECK_EQUAL(command(c, "SUBSCRIBE", "x").ec, not_connected);
    BOOST_CHECK_EQUAL(receive(c).ec, not_connected);
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(names_and_paths_that_hiredis_would_cut_are_refused, counted_loop) {
    redis_connection c(io);
    const std::string null(1, '\0');
    for (const std::string& host : {"127.0.0.1" + null, "localhost" + null + "x"})
        BOOST_CHECK_EQUAL(run_ec([&](auto h) { c.async_connect(host, port(), std::move(h)); }),
                          invalid_argument);
    BOOST_CHECK_EQUAL(connect_unix(c, path() + null), invalid_argument);
    // hiredis would connect to the part that is in its address.
    const std::string link = "/tmp/" + std::string(101, 'r');
    BOOST_REQUIRE(link.size() == sizeof(sockaddr_un::sun_path) - 2);
    ::unlink(link.c_str());
    BOOST_REQUIRE(::symlink(path().c_str(), link.c_str()) == 0);
    BOOST_CHECK_EQUAL(connect_unix(c, link), error_code());
    check_works(c);
    BOOST_CHECK_EQUAL(connect_unix(c, link + "r"), invalid_argument);
    BOOST_CHECK_EQUAL(connect_unix(c, link + std::string(1000, 'r')), invalid_argument);
    ::unlink(link.c_str());
    c.close();
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(the_text_of_an_earlier_error_is_not_kept, loop) {
    redis_connection c(io);
    BOOST_CHECK_EQUAL(connect(c, 1), error_code(asio::error::connection_refused));
    BOOST_TEST(!c.error_message().empty());
    const error_code ec =
        run_ec([&](auto h) { c.async_connect("moor.invalid", port(), std::move(h)); });
    BOOST_TEST(ec.failed());
    BOOST_TEST(c.error_message() == "");
}

BOOST_FIXTURE_TEST_CASE(a_password_is_a_command, loop) {
    redis_connection c(io);
    BOOST_REQUIRE_EQUAL(connect(c, port_of("MOOR_SERVERS_REDIS_LOCKED_PORT")), error_code());
    outcome o = command(c, "GET", "x");
    BOOST_CHECK_EQUAL(o.ec, reply_error);
    BOOST_TEST(o.value.is_error());
    BOOST_TEST(o.value.text.substr(0, 6) == "NOAUTH");
    BOOST_CHECK_EQUAL(command(c, "AUTH", "wrong").ec, reply_error);
    BOOST_TEST(command(c, "AUTH", "key").value.text == "OK");
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(connecting_is_cancelled_at_once, counted_loop) {
    for (const char* host : {"127.0.0.1", "localhost"})
        for (std::size_t turns = 0; turns != 5; ++turns) {
            redis_connection c(io);
            io.restart();
            test::called done;
            asio::cancellation_signal signal;
            c.async_connect(host, port(),
                            asio::bind_cancellation_slot(signal.slot(), done.handler()));
            for (std::size_t i = 0; i != turns && !done; ++i)
                io.run_one();
            const bool was_done = bool(done);
            signal.emit(asio::cancellation_type::terminal);
            test::run_until(io, [&] { return bool(done); });
            BOOST_TEST((turns != 0 || done.ec == test::aborted));
            BOOST_TEST((!done.ec || (done.ec == test::aborted && !was_done)));
            BOOST_TEST(done.times == 1);
            BOOST_TEST(c.is_open() == !done.ec);
            c.close();
            BOOST_TEST(!c.native_handle());
            test::run_ready(io);
        }
    const auto gone = [&] {
        test::run_ready(io); // the resolver may still be at it
        return test::open_descriptors() == descriptors;
    };
    BOOST_TEST(test::wait_for(gone));
}

BOOST_FIXTURE_TEST_CASE(a_new_attempt_replaces_one_that_is_pending, counted_loop) {
    redis_connection c(io);
    test::called first, second;
    c.async_connect("localhost", port(), first.handler());
    c.async_connect("127.0.0.1", port(), second.handler());
    test::run_until(io, [&] { return first && second; });
    BOOST_CHECK_EQUAL(first.ec, test::aborted);
    BOOST_CHECK_EQUAL(second.ec, error_code());
    check_works(c);
    io.restart();
    io.run(); // the resolver may still be at it
}

BOOST_FIXTURE_TEST_CASE(a_callback_of_hiredis_connects_while_the_connection_is_replaced,
                        counted_loop) {
    struct state {
        std::optional<redis_connection> c;
        test::called inner;
        bool connects = false;

        static void on_reply(redisAsyncContext*, void* reply, void* p) {
            auto& self = *static_cast<state*>(p);
            BOOST_TEST(!reply);
            if (self.connects)
                self.c->async_connect_unix(path(), self.inner.handler());
            else
                self.c.reset();
        }
    };
    for (bool connects : {true, false})
        for (const char* host : {"127.0.0.1", "localhost", ""}) {
            state s;
            s.c.emplace(io);
            s.connects = connects;
            BOOST_REQUIRE_EQUAL(connect(*s.c), error_code());
            redisAsyncCommand(s.c->native_handle(), &state::on_reply, &s, "BLPOP nothing 0");
            test::called outer;
            if (*host)
                s.c->async_connect(host, port(), outer.handler());
            else
                s.c->async_connect_unix(path(), outer.handler());
            test::run_until(io, [&] { return outer && bool(s.inner) == connects; });
            BOOST_CHECK_EQUAL(outer.ec, test::aborted);
            BOOST_TEST(s.c.has_value() == connects);
            if (connects) {
                BOOST_CHECK_EQUAL(s.inner.ec, error_code());
                check_works(*s.c);
            }
            s.c.reset();
            io.restart();
            io.run(); // the resolver may still be at it
            check_descriptors();
        }
}

BOOST_FIXTURE_TEST_CASE(a_context_that_hiredis_connects_is_taken_over, connected) {
    const auto take = [&](redisAsyncContext* raw) {
        return run_ec([&](auto h) { c.async_connect(redis_handle(raw), std::move(h)); });
    };
    BOOST_CHECK_EQUAL(take(redisAsyncConnectBind("127.0.0.1", port(), "127.0.0.1")), error_code());
    check_works(c);
    BOOST_CHECK_EQUAL(take(redisAsyncConnect("127.0.0.1", 1)),
                      error_code(asio::error::connection_refused));
    BOOST_CHECK_EQUAL(take(redisAsyncConnectUnix("/there/is/no/server")),
                      error_code(redis_error::io_error));
    BOOST_TEST(c.error_message().find("No such file") != std::string::npos);
    // One that has callbacks already.
    redisAsyncContext* raw = redisAsyncConnect("127.0.0.1", port());
    redisAsyncSetConnectCallback(raw, [](const redisAsyncContext*, int) {});
    BOOST_CHECK_EQUAL(take(raw), invalid_argument);
}

// ---- commands -----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(replies_own_what_they_have, connected) {
    outcome o = command(c, "SET", "key", "value");
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST((o.value.type == redis_type::status));
    BOOST_TEST(o.value.text == "OK");
    o = command(c, "GET", "key");
    BOOST_TEST((o.value.type == redis_type::string));
    BOOST_TEST(o.value.text == "value");
    o = command(c, "GET", "nothing");
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(o.value.is_nil());
    o = command(c, "STRLEN", "key");
    BOOST_TEST((o.value.type == redis_type::integer));
    BOOST_TEST(o.value.integer == 5);
    o = command(c, "LPUSH", "key", 1);
    BOOST_CHECK_EQUAL(o.ec, reply_error);
    BOOST_TEST(o.ec.message() == "the server replied with an error");
    BOOST_TEST((o.value.type == redis_type::error));
    BOOST_TEST(o.value.text.substr(0, 9) == "WRONGTYPE");
    o = command(c, "EVAL", "return {1, {'two', {false, redis.status_reply('four')}}}", 0);
    BOOST_TEST((o.value.type == redis_type::array));
    BOOST_TEST(text_of(o.value) == "1 two  four");
    BOOST_TEST(o.value.elements[1].elements[1].elements[0].is_nil());
    BOOST_TEST(command(c, "LRANGE", "nothing", 0, -1).value.elements.empty());

    // Any bytes, numbers, and words that were collected.
    const std::string bytes("a\0\r\n$\xff", 6);
    BOOST_CHECK_EQUAL(command(c, "SET", bytes, bytes).ec, error_code());
    BOOST_TEST(command(c, "GET", bytes).value.text == bytes);
    o = command(c, "HSET", "h", "int", -7, "real", 0.1, "char", 'c', "empty", "");
    BOOST_TEST(o.value.integer == 4);
    o = command(c, words{"HGETALL", "h"});
    BOOST_REQUIRE(o.value.find("real"));
    BOOST_TEST(o.value.find("int")->text == "-7");
    BOOST_TEST(std::stod(o.value.find("real")->text) == 0.1);
    BOOST_TEST(o.value.find("char")->text == "c");
    BOOST_TEST(o.value.find("empty")->text.empty());
    BOOST_TEST(!o.value.find("other"));
    redis_command del("DEL");
    del.add("h").add("key").add(bytes);
    BOOST_TEST(command(c, del).value.integer == 3);
}

BOOST_FIXTURE_TEST_CASE(what_hiredis_cannot_match_is_refused, connected) {
    BOOST_CHECK_EQUAL(command(c, redis_command()).ec, invalid_argument);
    BOOST_CHECK_EQUAL(command(c, "subscribe").ec, invalid_argument);
    for (const char* name : {"subscribe\r\n", "monitor\r\n", "x\ry"})
        BOOST_CHECK_EQUAL(command(c, name, "x").ec, invalid_argument);
    for (const words& each :
         {words{"MONITOR"}, words{"pmonitor"}, words{"SSUBSCRIBE", "x"}, words{"sunsubscribe"},
          words{"client", "REPLY", "off"}, words{"SYNC"}, words{"PSYNC", "?", "-1"}})
        BOOST_CHECK_EQUAL(command(c, each).ec, error_code(redis_error::unsupported_command));
    BOOST_CHECK_EQUAL(command(c, "").ec, reply_error);
    BOOST_CHECK_EQUAL(command(c, "CLIENT", "ID").ec, error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(long_values_go_both_ways, connected) {
    const std::string long_value(8 << 20, 'x');
    for (int i = 0; i != 2; ++i) {
        BOOST_CHECK_EQUAL(command(c, "SET", "long", long_value).ec, error_code());
        BOOST_TEST((command(c, "GET", "long").value.text == long_value));
    }
    // The server sends while it is being sent to.
    int good = 0;
    for (int i = 0; i != 8; ++i)
        c.async_command("ECHO", long_value, [&](error_code ec, const redis_reply& r) {
            good += !ec && r.text == long_value;
        });
    test::run_until(io, [&] { return good == 8; });
}

BOOST_FIXTURE_TEST_CASE(ten_thousand_commands_in_a_row_give_their_replies, connected) {
    const long most = 10000;
    long n = 0, wrong = 0;
    std::function<void()> next = [&] {
        c.async_command("ECHO", n, [&](error_code ec, const redis_reply& r) {
            wrong += ec || r.text != std::to_string(n);
            if (++n != most)
                next();
        });
    };
    next();
    const auto before = test::counts();
    {
        const test::watchdog dog(io, 120s); // run_for(): see there
        io.restart();
        io.run();
        BOOST_REQUIRE(!dog.has_bitten());
    }
    BOOST_TEST(n == most);
    BOOST_TEST(wrong == 0);
    const auto used = test::counts() - before;
    BOOST_TEST_MESSAGE("a command: " << double(used.turns()) / double(most) << " turns, "
                                     << double(used.poll) / double(most) << " poll, "
                                     << double(used.epoll_ctl) / double(most) << " epoll_ctl, "
                                     << double(used.fstat) / double(most) << " fstat");
}

BOOST_FIXTURE_TEST_CASE(two_hundred_commands_at_once_give_their_replies_in_order, connected) {
    for (int round = 0; round != 10; ++round) {
        int next = 0, good = 0;
        for (int i = 0; i != 200; ++i)
            c.async_command("ECHO", i, [&, i](error_code ec, const redis_reply& r) {
                good += !ec && next++ == i && r.text == std::to_string(i);
            });
        test::run_until(io, [&] { return next == 200; });
        BOOST_TEST(good == 200);
    }
}

BOOST_FIXTURE_TEST_CASE(two_hundred_connections_at_once_give_their_replies, loop) {
    std::deque<redis_connection> connections;
    int good = 0;
    for (int i = 0; i != 200; ++i) {
        redis_connection& c = connections.emplace_back(io);
        c.async_connect_unix(path(), [&, i](error_code ec) {
            BOOST_TEST_INFO(ec.message() << ": " << c.error_message());
            c.async_command("ECHO", i, [&, i](error_code e, const redis_reply& r) {
                good += !e && r.text == std::to_string(i);
            });
        });
    }
    {
        const test::watchdog dog(io, 60s);
        io.run();
        BOOST_REQUIRE(!dog.has_bitten());
    }
    BOOST_TEST(good == 200);
}

// ---- subscriptions ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(messages_arrive_before_and_after_somebody_waits, connected) {
    outcome o = command(c, "SUBSCRIBE", "one", "two", "one");
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST(text_of(o.value) == "subscribe one 2");
    o = command(c, "psubscribe", "t*");
    BOOST_TEST(text_of(o.value) == "psubscribe t* 3");

    outcome first, next;
    c.async_receive(first.handler());
    c.async_receive(next.handler());
    test::run_ready(io);
    BOOST_TEST(first.times == 0);
    const std::string bytes("a\0b", 3);
    publish("one", bytes);
    test::run_until(io, [&] { return bool(first); });
    BOOST_TEST(text_of(first.value) == "message one " + bytes);
    BOOST_TEST(next.times == 0);
    publish("two", "both", 2);
    test::run_until(io, [&] { return bool(next); });
    BOOST_TEST(text_of(next.value) == "message two both");
    BOOST_TEST(text_of(receive(c).value) == "pmessage t* two both");
    for (int i = 0; i != 100; ++i)
        publish("one", std::to_string(i));
    for (int i = 0; i != 100; ++i)
        BOOST_TEST(text_of(receive(c).value) == "message one " + std::to_string(i));

    // A wait that is cancelled takes nothing.
    outcome dropped, last;
    asio::cancellation_signal signal;
    c.async_receive(asio::bind_cancellation_slot(signal.slot(), dropped.handler()));
    c.async_receive(last.handler());
    test::run_ready(io);
    signal.emit(asio::cancellation_type::total);
    publish("one", "last");
    test::run_until(io, [&] { return last && dropped; });
    BOOST_CHECK_EQUAL(dropped.ec, test::aborted);
    BOOST_TEST(text_of(last.value) == "message one last");
}

BOOST_FIXTURE_TEST_CASE(commands_are_possible_before_and_after_subscriptions, connected) {
    outcome before[2], began, refused, ended[3];
    c.async_command("SET", "list", "no", before[0].handler());
    c.async_command("EVAL", "return {'message', 'one', 'no message'}", 0, before[1].handler());
    c.async_command("SUBSCRIBE", "one", "two", began.handler());
    c.async_command("GET", "works", refused.handler());
    test::run_until(io, [&] { return bool(began); });
    BOOST_TEST(before[0].value.text == "OK");
    BOOST_TEST(text_of(before[1].value) == "message one no message");
    BOOST_CHECK_EQUAL(refused.ec, subscribed);
    for (const char* each : {"PING", "QUIT", "RESET", "GET"})
        BOOST_CHECK_EQUAL(command(c, each).ec, subscribed);
    // What hiredis 0.14 does not know: it would call a wrong callback, or end the program.
    c.async_command("UNSUBSCRIBE", "three", "two", ended[0].handler());
    c.async_command("PUNSUBSCRIBE", ended[1].handler());
    publish("one", "still");
    BOOST_TEST(text_of(receive(c).value) == "message one still");
    publish("two", "no more", 0);
    c.async_command("UNSUBSCRIBE", ended[2].handler());
    test::run_until(io, [&] { return bool(ended[2]); });
    BOOST_TEST(text_of(ended[0].value) == "unsubscribe two 1");
    BOOST_TEST(ended[1].value.is_nil());
    BOOST_TEST(text_of(ended[2].value) == "unsubscribe one 0");
    BOOST_TEST(command(c, "UNSUBSCRIBE").value.is_nil());
    check_works(c);
    BOOST_TEST(command(c, "LRANGE", "nothing", 0, -1).value.elements.empty());
}

BOOST_FIXTURE_TEST_CASE(subscriptions_overlap_in_any_order, connected) {
    const char* const channels[] = {"a", "b", "pa", "a b", ""};
    int confirmed = 0, started = 0;
    const auto count = [&](error_code ec, const redis_reply&) { confirmed += !ec; };
    for (int round = 0; round != 50; ++round) {
        for (int i = 0; i != 8; ++i, ++started) {
            const int n = round * 7 + i * 3;
            c.async_command(n % 4 < 2 ? "SUBSCRIBE" : "UNSUBSCRIBE", channels[n % 5],
                            channels[n / 5 % 5], count);
        }
        if (round % 5 == 4) {
            c.async_command("UNSUBSCRIBE", count);
            ++started;
            test::run_until(io, [&] { return confirmed == started; });
            check_works(c);
        } else if (round % 3 == 0) {
            test::run_until(io, [&] { return confirmed == started; });
        }
    }
    BOOST_CHECK_EQUAL(command(c, "UNSUBSCRIBE").ec, error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(a_subscription_that_is_cancelled_begins_nevertheless, connected) {
    outcome dropped;
    asio::cancellation_signal signal;
    c.async_command("SUBSCRIBE", "one", "two",
                    asio::bind_cancellation_slot(signal.slot(), dropped.handler()));
    signal.emit(asio::cancellation_type::total);
    BOOST_TEST(text_of(command(c, "SUBSCRIBE", "three").value) == "subscribe three 3");
    BOOST_CHECK_EQUAL(dropped.ec, test::aborted);
    publish("two", "text");
    BOOST_TEST(text_of(receive(c).value) == "message two text");
}

BOOST_FIXTURE_TEST_CASE(a_slow_receiver_slows_the_server_down, connected) {
    BOOST_REQUIRE_EQUAL(command(c, "SUBSCRIBE", "one").ec, error_code());
    const int many = 20000;
    int published = 0;
    const std::string filler(1000, 'f');
    for (int i = 0; i != many; ++i)
        other.async_command(
            "PUBLISH", "one", filler + std::to_string(i),
            [&](error_code ec, const redis_reply& r) { published += !ec && r.integer == 1; });
    test::run_until(io, [&] { return published == many; });
    test::run_ready(io);
    const outcome clients = command(other, "CLIENT", "LIST", "TYPE", "pubsub");
    const std::size_t at = clients.value.text.find(" omem=");
    BOOST_REQUIRE(at != std::string::npos);
    // The rest is in the server, and not in this program.
    BOOST_TEST(std::stol(clients.value.text.substr(at + 6)) > 0);
    int received = 0, wrong = 0;
    std::function<void()> next = [&] {
        c.async_receive([&](error_code ec, const redis_reply& r) {
            wrong += ec || r.elements.at(2).text != filler + std::to_string(received);
            if (++received != many && !ec)
                next();
        });
    };
    next();
    test::run_until(io, [&] { return received == many; });
    BOOST_TEST(wrong == 0);
}

// ---- cancellation -------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(the_reply_of_a_cancelled_command_is_dropped, connected) {
    for (auto type : {asio::cancellation_type::terminal, asio::cancellation_type::partial,
                      asio::cancellation_type::total})
        for (int turns = 0; turns != 4; ++turns) {
            outcome before, dropped, after;
            asio::cancellation_signal signal;
            c.async_command("ECHO", "before", before.handler());
            c.async_command("ECHO", "dropped",
                            asio::bind_cancellation_slot(signal.slot(), dropped.handler()));
            c.async_command("ECHO", "after", after.handler());
            for (int i = 0; i != turns; ++i)
                io.run_one();
            const bool is_late = bool(dropped);
            signal.emit(type);
            test::run_until(io, [&] { return before && dropped && after; });
            BOOST_TEST(before.value.text == "before");
            BOOST_TEST((dropped.ec == test::aborted || dropped.value.text == "dropped"));
            BOOST_TEST((turns != 0 || dropped.ec == test::aborted));
            BOOST_TEST((!is_late || !dropped.ec));
            BOOST_TEST(after.value.text == "after");
            BOOST_TEST(dropped.times == 1);
        }
}

BOOST_FIXTURE_TEST_CASE(a_deadline_ends_the_wait_for_a_slow_server, connected) {
    outcome o;
    asio::cancellation_signal signal;
    {
        const stopped_server stopped;
        c.async_command("ECHO", "late", asio::bind_cancellation_slot(signal.slot(), o.handler()));
        asio::steady_timer timer(io, 20ms);
        timer.async_wait([&](error_code) { signal.emit(asio::cancellation_type::total); });
        io.restart();
        io.run(); // returns, although the reply is still missing
        BOOST_CHECK_EQUAL(o.ec, test::aborted);
        BOOST_TEST(c.is_open());
    }
    BOOST_TEST(command(c, "ECHO", "next").value.text == "next");
    BOOST_TEST(o.times == 1);

    outcome blocked;
    asio::cancellation_signal second_signal;
    c.async_command("BLPOP", "nothing", 0,
                    asio::bind_cancellation_slot(second_signal.slot(), blocked.handler()));
    outcome behind;
    c.async_command("ECHO", "behind", behind.handler());
    test::run_ready(io);
    second_signal.emit(asio::cancellation_type::total);
    test::run_ready(io);
    BOOST_CHECK_EQUAL(blocked.ec, test::aborted);
    BOOST_TEST(behind.times == 0);
    BOOST_TEST(command(other, "RPUSH", "nothing", "value").value.integer == 1);
    test::run_until(io, [&] { return bool(behind); });
    BOOST_TEST(behind.value.text == "behind");
}

BOOST_FIXTURE_TEST_CASE(a_server_that_does_not_answer_is_closed_at_once, connected) {
    const stopped_server stopped;
    outcome o[3];
    c.async_command("SUBSCRIBE", "one", o[0].handler());
    c.async_receive(o[1].handler());
    c.async_command("UNSUBSCRIBE", o[2].handler());
    test::run_ready(io);
    c.close();
    test::run_ready(io);
    for (const outcome& each : o) {
        BOOST_CHECK_EQUAL(each.ec, test::aborted);
        BOOST_TEST(each.times == 1);
    }
}

// ---- the server goes ----------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_connection_that_the_server_ends_says_so, connected) {
    const std::string id = std::to_string(command(c, "CLIENT", "ID").value.integer);
    outcome o[3];
    c.async_command("BLPOP", "nothing", 0, o[0].handler());
    c.async_command("ECHO", "never", o[1].handler());
    c.async_receive(o[2].handler());
    test::run_ready(io);
    BOOST_TEST(command(other, "CLIENT", "KILL", "ID", id).value.integer == 1);
    test::run_until(io, [&] { return o[0] && o[1] && o[2]; });
    for (const outcome& each : o) {
        BOOST_CHECK_EQUAL(each.ec, connection_closed);
        BOOST_TEST((each.ec == boost::system::errc::connection_reset));
    }
    BOOST_TEST(c.error_message() == "Server closed the connection");
    BOOST_TEST(!c.is_open());
    BOOST_TEST(!c.native_handle());
    BOOST_CHECK_EQUAL(command(c, "GET", "x").ec, not_connected);
    BOOST_CHECK_EQUAL(connect(c), error_code());
    check_works(c);
}

BOOST_FIXTURE_TEST_CASE(the_end_of_an_idle_connection_is_noticed, connected) {
    BOOST_REQUIRE_EQUAL(command(c, "SUBSCRIBE", "one").ec, error_code());
    publish("one", "text");
    const std::string id = command(other, "CLIENT", "LIST", "TYPE", "pubsub").value.text.substr(3);
    command(other, "CLIENT", "KILL", "ID", id.substr(0, id.find(' ')));
    other.async_command("BLPOP", "nothing", 0, [](auto&&...) {}); // so that the loop goes on
    test::run_until(io, [&] { return !c.is_open(); });
    BOOST_TEST(!c.native_handle());
    // What came before is not lost.
    BOOST_TEST(text_of(receive(c).value) == "message one text");
    BOOST_CHECK_EQUAL(receive(c).ec, not_connected);
}

BOOST_FIXTURE_TEST_CASE(a_server_that_is_killed_and_started_again_is_used_again, loop) {
    std::deque<redis_connection> connections;
    for (int i = 0; i != 3; ++i)
        connections.emplace_back(io);
    for (int round = 0; round != 2; ++round) {
        for (redis_connection& each : connections)
            BOOST_REQUIRE_EQUAL(connect(each), error_code());
        outcome o[5];
        connections[0].async_command("BLPOP", "nothing", 0, o[0].handler());
        connections[0].async_command("ECHO", "never", o[1].handler());
        connections[1].async_command("SUBSCRIBE", "one", o[2].handler());
        test::run_until(io, [&] { return bool(o[2]); });
        connections[1].async_receive(o[3].handler());
        test::run_ready(io);
        control_server("stop redis");
        connections[2].async_command("ECHO", "never", o[4].handler());
        test::run_until(io, [&] { return o[0] && o[1] && o[3] && o[4]; });
        BOOST_CHECK_EQUAL(o[2].ec, error_code());
        for (int i : {0, 1, 3, 4})
            BOOST_TEST((o[i].ec == boost::system::errc::connection_reset), o[i].ec.message());
        BOOST_CHECK_EQUAL(connect(connections[0]), error_code(asio::error::connection_refused));
        BOOST_TEST(connect_unix(connections[1]).failed());
        control_server("start redis");
        for (redis_connection& each : connections) {
            BOOST_CHECK_EQUAL(connect(each), error_code());
            check_works(each);
        }
    }
}

BOOST_FIXTURE_TEST_CASE(a_server_that_ended_is_found_by_reading_and_raises_no_sigpipe, loop) {
    static volatile std::sig_atomic_t signals;
    signals = 0;
    struct ::sigaction action = {}, before;
    action.sa_handler = [](int) { signals = signals + 1; };
    BOOST_REQUIRE(::sigaction(SIGPIPE, &action, &before) == 0);
    redis_connection c(io);
    BOOST_REQUIRE_EQUAL(connect_unix(c), error_code());
    test::run_ready(io);
    control_server("stop redis");
    BOOST_CHECK_EQUAL(command(c, "GET", "x").ec, connection_closed);
    BOOST_TEST(signals == 0);
    ::sigaction(SIGPIPE, &before, nullptr);
    control_server("start redis");
}

namespace {

/// A server that says something to whoever connects, and closes the connection.
struct rude_server {
    asio::ip::tcp::acceptor acceptor;
    asio::ip::tcp::socket socket;
    std::string text;

    rude_server(asio::io_context& io, std::string what)
        : acceptor(io, {asio::ip::address_v4::loopback(), 0}), socket(io), text(std::move(what)) {
        acceptor.async_accept(socket, [this](error_code) {
            asio::async_write(socket, asio::buffer(text),
                              [this](error_code, std::size_t) { socket.close(); });
        });
    }
    std::uint16_t port() const { return acceptor.local_endpoint().port(); }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(a_server_that_does_not_speak_redis_is_an_error, counted_loop) {
    struct row {
        std::string says;
        error_code expected;
        std::string message;
    };
    const row rows[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", redis_error::protocol_error, "Protocol error"},
        {"-ERR max number of clients reached\r\n", redis_error::other, "max number of clients"},
        {"+OK POP3 ready\r\n", redis_error::protocol_error, "reply without a command"},
        {":1\r\n", redis_error::protocol_error, "reply without a command"},
        {"$-1\r\n", redis_error::protocol_error, "reply without a command"},
        {"*2\r\n+a\r\n+b\r\n", redis_error::protocol_error, "reply without a command"},
        {"$10\r\nhalf", redis_error::connection_closed, "closed"},
        {"", redis_error::connection_closed, "closed"}};
    for (const row& r : rows) {
        rude_server server(io, r.says);
        redis_connection c(io);
        BOOST_REQUIRE_EQUAL(connect(c, server.port()), error_code());
        BOOST_CHECK_EQUAL(receive(c).ec, r.expected);
        BOOST_TEST(c.error_message().find(r.message) != std::string::npos, c.error_message());
    }
    BOOST_TEST((error_code(redis_error::protocol_error) == boost::system::errc::protocol_error));
    BOOST_TEST((error_code(redis_error::timed_out) == boost::system::errc::timed_out));
    BOOST_TEST((error_code(redis_error::out_of_memory) == boost::system::errc::not_enough_memory));
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(a_rejected_subscription_ends_the_connection, connected) {
    BOOST_REQUIRE_EQUAL(
        command(other, "ACL", "SETUSER", "quiet", "on", ">key", "+@all", "~*", "resetchannels").ec,
        error_code());
    BOOST_REQUIRE_EQUAL(command(c, "AUTH", "quiet", "key").ec, error_code());
    BOOST_CHECK_EQUAL(command(c, "SUBSCRIBE", "news").ec, error_code(redis_error::other));
    BOOST_TEST(c.error_message().substr(0, 6) == "NOPERM");
    BOOST_TEST(!c.is_open());
}

// ---- lifetimes ----------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(a_connection_is_destroyed_after_any_turn_of_the_loop, counted_loop) {
    for (bool is_local : {true, false}) {
        for (int turns = 0;; ++turns) {
            io.restart();
            int ended = 0, started = 1;
            bool is_done = false;
            std::optional<redis_connection> c(std::in_place, io);
            asio::cancellation_signal signal;
            const auto count = [&](auto&&...) { ++ended; };
            const auto go_on = [&](error_code ec) {
                ++ended;
                if (ec || !c)
                    return;
                started += 5;
                c->async_command("ECHO", "dropped",
                                 asio::bind_cancellation_slot(signal.slot(), count));
                signal.emit(asio::cancellation_type::total);
                c->async_command("ECHO", "x", count);
                c->async_command("SUBSCRIBE", "one", "two", count);
                c->async_receive(count);
                c->async_command("UNSUBSCRIBE", [&](error_code e, const redis_reply&) {
                    ++ended;
                    is_done = true;
                    if (!e)
                        c.reset();
                });
            };
            if (is_local)
                c->async_connect_unix(path(), go_on);
            else
                c->async_connect("127.0.0.1", port(), go_on);
            for (int i = 0; i != turns && !is_done; ++i)
                io.run_one();
            const bool was_done = is_done;
            c.reset();
            test::run_ready(io);
            BOOST_REQUIRE_EQUAL(ended, started);
            BOOST_REQUIRE_EQUAL(test::open_descriptors(), descriptors);
            if (was_done)
                break;
        }
    }
}

BOOST_AUTO_TEST_CASE(a_connection_outlives_its_context) {
    for (int stage = 0; stage != 6; ++stage) {
        std::optional<redis_connection> c;
        auto alive = std::make_shared<int>(0);
        {
            asio::io_context io;
            c.emplace(asio::make_strand(io));
            asio::cancellation_signal signal;
            const auto hold = [alive](auto&&...) {};
            c->async_connect(
                stage == 0 ? "localhost" : "127.0.0.1", port(), [&, alive](error_code ec) {
                    if (ec)
                        return;
                    c->async_command("BLPOP", "nothing", 0,
                                     asio::bind_cancellation_slot(signal.slot(), hold));
                    c->async_command("SUBSCRIBE", "one", hold);
                    c->async_receive(hold);
                    signal.emit(asio::cancellation_type::total);
                });
            for (int i = 0; i != stage && i != 3; ++i)
                io.run_one();
            for (int i = 3; i < stage; ++i)
                test::run_ready(io);
        }
        BOOST_TEST(alive.use_count() == 1);
        if (stage % 2 != 0)
            c->close();
        c.reset();
    }
}

BOOST_AUTO_TEST_CASE(a_handler_that_owns_the_connection_does_not_leak) {
    auto alive = std::make_shared<int>(0);
    {
        asio::io_context io;
        auto c = std::make_shared<redis_connection>(io);
        bool is_connected = false;
        c->async_connect("127.0.0.1", port(), [c, alive, &is_connected](error_code ec) {
            is_connected = !ec;
            c->async_receive([c, alive](error_code, const redis_reply&) {});
            c->async_command("BLPOP", "nothing", 0, [c, alive](error_code, const redis_reply&) {});
        });
        c.reset();
        test::run_until(io, [&] { return is_connected; });
    }
    BOOST_TEST(alive.use_count() == 1);
}

BOOST_FIXTURE_TEST_CASE(operations_go_on_when_their_connection_is_moved, connected) {
    outcome o[3];
    asio::cancellation_signal signal;
    c.async_command("ECHO", "moved", o[0].handler());
    c.async_command("BLPOP", "nothing", 0,
                    asio::bind_cancellation_slot(signal.slot(), o[1].handler()));
    c.async_receive(o[2].handler());
    redis_connection moved(std::move(c));
    test::run_until(io, [&] { return bool(o[0]); });
    BOOST_TEST(o[0].value.text == "moved");
    signal.emit(asio::cancellation_type::total);
    moved = redis_connection(io);
    test::run_ready(io);
    BOOST_CHECK_EQUAL(o[1].ec, test::aborted);
    BOOST_CHECK_EQUAL(o[2].ec, test::aborted);
    BOOST_CHECK_EQUAL(connect(moved), error_code());
    check_works(moved);
    test::called connecting;
    moved.async_connect("localhost", port(), connecting.handler());
    redis_connection again(std::move(moved));
    test::run_until(io, [&] { return bool(connecting); });
    BOOST_CHECK_EQUAL(connecting.ec, error_code());
    check_works(again);
}

BOOST_FIXTURE_TEST_CASE(hiredis_own_functions_are_used_beside_the_adapter, connected) {
    static std::vector<std::string> seen;
    seen.clear();
    const auto note = [](redisAsyncContext*, void* reply, void*) {
        seen.push_back(reply ? static_cast<redisReply*>(reply)->str : "none");
    };
    outcome o[2];
    c.async_command("ECHO", "one", o[0].handler());
    redisAsyncCommand(c.native_handle(), note, nullptr, "ECHO %s", "two");
    c.async_command("ECHO", "three", o[1].handler());
    test::run_until(io, [&] { return bool(o[1]); });
    BOOST_TEST(o[0].value.text == "one");
    BOOST_TEST(o[1].value.text == "three");
    BOOST_TEST(seen == std::vector<std::string>{"two"}, boost::test_tools::per_element());
    // A callback of hiredis destroys the connection.
    static std::optional<redis_connection>* ending;
    std::optional<redis_connection> mortal(std::in_place, io);
    ending = &mortal;
    BOOST_REQUIRE_EQUAL(connect(mortal.value()), error_code());
    redisAsyncCommand(
        mortal->native_handle(),
        [](redisAsyncContext*, void*, void*) {
            ending->reset();
            seen.emplace_back("ended");
        },
        nullptr, "ECHO ends");
    outcome never;
    mortal->async_command("ECHO", "never", never.handler());
    test::run_until(io, [&] { return bool(never); });
    BOOST_CHECK_EQUAL(never.ec, test::aborted);
    BOOST_TEST(seen.back() == "ended");
    // The program disconnects by hiredis, which waits for the replies.
    outcome last, refused, message;
    c.async_command("ECHO", "last", last.handler());
    c.async_receive(message.handler());
    redisAsyncDisconnect(c.native_handle());
    c.async_command("ECHO", "refused", refused.handler());
    test::run_until(io, [&] { return last && message && refused; });
    BOOST_TEST(last.value.text == "last");
    BOOST_CHECK_EQUAL(refused.ec, not_connected);
    BOOST_CHECK_EQUAL(message.ec, test::aborted);
    BOOST_TEST(!c.is_open());
    BOOST_REQUIRE_EQUAL(connect(c), error_code());
    c.async_receive(message.handler());
    redisAsyncFree(c.native_handle());
    BOOST_TEST(!c.is_open());
    test::run_until(io, [&] { return message.times == 2; });
}

// ---- nothing to do ------------------------------------------------------------------------------

BOOST_FIXTURE_TEST_CASE(an_idle_connection_costs_nothing_and_lets_the_loop_end, connected) {
    check_works(c);
    io.restart();
    io.run(); // returns although the connections are open
    test::check_costs_nothing(io);
    // Nor does a connection that waits for messages.
    BOOST_CHECK_EQUAL(command(c, "SUBSCRIBE", "one").ec, error_code());
    outcome o;
    c.async_receive(o.handler());
    test::run_ready(io);
    test::check_costs_nothing(io);
    BOOST_TEST(o.times == 0);
    c.close();
    io.restart();
    io.run();
    BOOST_CHECK_EQUAL(o.ec, test::aborted);
}

// ---- executors and tokens -----------------------------------------------------------------------

BOOST_AUTO_TEST_CASE(a_connection_runs_on_a_strand_of_a_thread_pool) {
    asio::thread_pool pool(3);
    using strand_type = asio::strand<asio::thread_pool::executor_type>;
    strand_type strand = asio::make_strand(pool.get_executor());
    constexpr int count = 200;
    std::atomic<int> good{0}, outside{0};
    std::promise<void> over;
    moor::adapt::basic_redis_connection<strand_type> c(strand);
    int n = 0;
    std::function<void()> next = [&] {
        outside += !strand.running_in_this_thread();
        if (n == count) {
            c.close();
            over.set_value();
            return;
        }
        c.async_command("ECHO", n, [&](error_code ec, const redis_reply& r) {
            good += !ec && r.text == std::to_string(n);
            ++n;
            next();
        });
    };
    asio::post(strand, [&] {
        c.async_connect("localhost", port(), [&](error_code ec) {
            if (!ec)
                return next();
            over.set_value();
        });
    });
    BOOST_TEST((over.get_future().wait_for(60s) == std::future_status::ready));
    pool.join();
    BOOST_TEST(good == count);
    BOOST_TEST(outside == 0);
}

BOOST_AUTO_TEST_CASE(futures_are_completed_by_a_thread_of_the_context) {
    asio::thread_pool pool(1);
    auto there = [&](auto f) { return asio::post(pool, asio::use_future(f)).get(); };
    redis_connection c(pool);
    there([&] { return c.async_connect("127.0.0.1", port(), asio::use_future); }).get();
    std::future<redis_reply> r =
        there([&] { return c.async_command("ECHO", 9, asio::use_future); });
    BOOST_TEST(r.get().text == "9");
    there([&] { c.close(); });
    pool.join();
}

#if defined(BOOST_ASIO_HAS_CO_AWAIT)

namespace {

using asio::use_awaitable;
using namespace asio::experimental::awaitable_operators;

asio::awaitable<void> race(redis_connection& c, int& good) {
    co_await c.async_connect("localhost", port(), use_awaitable);
    asio::steady_timer deadline(co_await asio::this_coro::executor, 20ms);
    auto first = co_await (c.async_command("BLPOP", "nothing", 0, asio::as_tuple(use_awaitable)) ||
                           deadline.async_wait(asio::as_tuple(use_awaitable)));
    good += first.index() == 1;
    using with_default = asio::use_awaitable_t<>::as_default_on_t<redis_connection>;
    with_default d(co_await asio::this_coro::executor);
    co_await d.async_connect_unix(path());
    good += (co_await d.async_command("RPUSH", "nothing", "ends the command")).integer == 1;
    redis_reply r = co_await c.async_command("ECHO", 42, use_awaitable);
    good += r.text == "42";
    try {
        co_await c.async_command("NONSENSE", use_awaitable);
    } catch (const boost::system::system_error& e) {
        good += e.code() == reply_error;
    }
}

} // namespace

BOOST_FIXTURE_TEST_CASE(a_coroutine_races_a_command_against_a_timer, loop) {
    redis_connection c(io);
    int good = 0;
    bool is_over = false;
    asio::co_spawn(io, race(c, good), [&](std::exception_ptr e) {
        is_over = true;
        if (e)
            std::rethrow_exception(e);
    });
    test::run_until(io, [&] { return is_over; });
    BOOST_TEST(good == 4);
}

#endif

// ---- attach -------------------------------------------------------------------------------------

namespace {

/// What hiredis' callbacks were told; `context` is null once hiredis has freed it.
struct raw_loop : counted_loop {
    redisAsyncContext* context = nullptr;
    std::vector<std::string> seen;
    bool frees = false, disconnects = false;
    int opened = -1; // -2: a callback without a reply opens a descriptor

    static raw_loop& of(const redisAsyncContext* c) { return *static_cast<raw_loop*>(c->data); }

    static void on_connect(const redisAsyncContext* c, int status) {
        of(c).seen.emplace_back(status == REDIS_OK ? "connected" : "failed");
        if (status != REDIS_OK)
            of(c).context = nullptr;
    }
    static void on_disconnect(const redisAsyncContext* c, int status) {
        of(c).seen.emplace_back(status == REDIS_OK ? "disconnected" : "lost");
        of(c).context = nullptr;
    }
    static void on_reply(redisAsyncContext* c, void* reply, void*) {
        raw_loop& self = of(c);
        const auto* r = static_cast<const redisReply*>(reply);
        self.seen.push_back(r ? text_of(redis_reply(*r)) : "none");
        if (!r && self.opened == -2)
            self.opened = ::dup(0);
        if (std::exchange(self.frees, false))
            redisAsyncFree(c);
        if (std::exchange(self.disconnects, false))
            redisAsyncDisconnect(c);
    }

    void open(redisAsyncContext* c, bool has_callbacks_before = false) {
        context = c;
        seen.clear();
        BOOST_REQUIRE(context);
        context->data = this;
        if (!has_callbacks_before)
            moor::adapt::attach(io, context);
        redisAsyncSetConnectCallback(context, &on_connect);
        redisAsyncSetDisconnectCallback(context, &on_disconnect);
        if (has_callbacks_before)
            moor::adapt::attach(io, context);
    }
    void open() { open(redisAsyncConnect("127.0.0.1", port())); }

    template <class... Args>
    void send(const char* format, Args... args) {
        BOOST_TEST(redisAsyncCommand(context, &on_reply, nullptr, format, args...) == REDIS_OK);
    }
    /// hiredis' loop ends when the connection ends.
    void run() {
        const test::watchdog dog(io, 60s);
        io.restart();
        io.run();
        BOOST_REQUIRE(!dog.has_bitten());
        BOOST_TEST(!context);
    }
    void check_seen(const std::vector<std::string>& expected) {
        BOOST_TEST(seen == expected, boost::test_tools::per_element());
        check_descriptors();
    }
};

} // namespace

BOOST_FIXTURE_TEST_CASE(attach_runs_hiredis_own_functions_and_callbacks, raw_loop) {
    for (bool has_callbacks_before : {false, true})
        for (bool is_local : {false, true}) {
            open(is_local ? redisAsyncConnectUnix(path().c_str())
                          : redisAsyncConnect("127.0.0.1", port()),
                 has_callbacks_before);
            send("SET %s %s", "key", "value");
            send("GET %s", "key");
            redisAsyncDisconnect(context); // once the replies are there
            run();
            check_seen({"connected", "OK", "value", "disconnected"});
        }
    // Without a command, and without a callback that is set after the call.
    open(redisAsyncConnect("127.0.0.1", port()), true);
    test::run_until(io, [&] { return !seen.empty(); });
    redisAsyncDisconnect(context);
    run();
    check_seen({"connected", "disconnected"});
}

BOOST_FIXTURE_TEST_CASE(a_context_is_freed_within_its_own_callback, raw_loop) {
    for (bool is_local : {false, true}) {
        open(is_local ? redisAsyncConnectUnix(path().c_str())
                      : redisAsyncConnect("127.0.0.1", port()));
        send("ECHO one");
        test::run_until(io, [&] { return seen.size() == 2; });
        // Readable and writable at once: the reply that frees the context, and more to send.
        send("ECHO frees");
        frees = true;
        test::run_until(io, [&] { return !context || (send("ECHO more"), false); });
        BOOST_TEST(!context);
        run();
        BOOST_TEST(seen[1] == "one");
        BOOST_TEST(seen[2] == "frees");
        BOOST_TEST(seen.back() == "disconnected");
        check_descriptors();
    }
    open();
    disconnects = true;
    send("ECHO one");
    send("ECHO two");
    run();
    check_seen({"connected", "one", "two", "disconnected"});
    open();
    send("ECHO never");
    redisAsyncFree(context); // before the loop has seen it
    context = nullptr;
    io.restart();
    io.run();
    check_seen({"none"});
}

BOOST_FIXTURE_TEST_CASE(an_attached_context_is_freed_when_the_connection_ends, raw_loop) {
    open(redisAsyncConnect("127.0.0.1", 1));
    send("ECHO never");
    run();
    check_seen({"failed", "none"});
    open();
    send("CLIENT KILL SKIPME no TYPE normal");
    run();
    check_seen({"connected", seen.size() > 1 ? seen[1] : "", "lost"});
}

BOOST_FIXTURE_TEST_CASE(subscriptions_of_hiredis_work, raw_loop) {
    open();
    send("SUBSCRIBE one");
    redis_connection other(io);
    BOOST_REQUIRE_EQUAL(connect(other), error_code());
    test::run_until(io, [&] { return seen.size() == 2; });
    for (int i = 0; i != 3; ++i)
        BOOST_TEST(command(other, "PUBLISH", "one", i).value.integer == 1);
    test::run_until(io, [&] { return seen.size() == 5; });
    redisAsyncFree(context);
    other.close();
    run();
    check_seen({"connected", "subscribe one 1", "message one 0", "message one 1", "message one 2",
                "none", "disconnected"});
}

BOOST_FIXTURE_TEST_CASE(what_cannot_be_attached_is_an_error, raw_loop) {
    error_code ec;
    moor::adapt::attach(io, nullptr, ec);
    BOOST_CHECK_EQUAL(ec, invalid_argument);
    const redis_handle bad(redisAsyncConnectUnix("/there/is/no/server"));
    moor::adapt::attach(io.get_executor(), bad.get(), ec);
    BOOST_CHECK_EQUAL(ec, invalid_argument);
    {
        const redis_handle twice(redisAsyncConnect("127.0.0.1", port()));
        moor::adapt::attach(io, twice.get(), ec);
        BOOST_CHECK_EQUAL(ec, error_code());
        BOOST_CHECK_THROW(moor::adapt::attach(io, twice.get()), boost::system::system_error);
        BOOST_CHECK_THROW(moor::adapt::attach(io.get_executor(), twice.get()),
                          boost::system::system_error);
    }
    check_descriptors();
}

BOOST_FIXTURE_TEST_CASE(a_descriptor_that_was_closed_by_another_ends_the_context, raw_loop) {
    open();
    send("ECHO one");
    test::run_until(io, [&] { return seen.size() == 2; });
    opened = -2;
    ::close(context->c.fd);
    send("ECHO never");
    run();
    BOOST_TEST(seen[2] == "none");
    BOOST_TEST(::close(opened) == 0); // hiredis has not closed the number
    check_descriptors();
}

BOOST_AUTO_TEST_CASE(an_attached_context_outlives_the_execution_context) {
    for (int turns = 0; turns != 3; ++turns) {
        redis_handle c(redisAsyncConnect("127.0.0.1", port()));
        {
            asio::io_context io;
            moor::adapt::attach(asio::make_strand(io), c.get());
            redisAsyncCommand(
                c.get(), [](redisAsyncContext*, void*, void*) {}, nullptr, "BLPOP nothing 0");
            for (int i = 0; i != turns; ++i)
                test::run_ready(io);
        }
        redisAsyncCommand(
            c.get(), [](redisAsyncContext*, void*, void*) {}, nullptr, "ECHO never");
    }
}

// ---- hiredis 1.0 and later ----------------------------------------------------------------------

#if HIREDIS_MAJOR >= 1

BOOST_FIXTURE_TEST_CASE(time_limits_of_hiredis_end_the_connection, connected) {
    timeval limit{60, 0};
    redisOptions options = {};
    REDIS_OPTIONS_SET_TCP(&options, "127.0.0.1", port());
    options.command_timeout = &limit;
    options.options |= REDIS_OPT_NOAUTOFREE;
    BOOST_REQUIRE_EQUAL(run_ec([&](auto h) {
                            c.async_connect(redis_handle(redisAsyncConnectWithOptions(&options)),
                                            std::move(h));
                        }),
                        error_code());
    check_works(c);
    test::check_is_quiet(io);
    limit = {0, 50000};
    redisAsyncSetTimeout(c.native_handle(), limit);
    BOOST_CHECK_EQUAL(command(c, "BLPOP", "nothing", 0).ec, error_code(redis_error::timed_out));
    BOOST_TEST(!c.is_open());
    // No answer to the attempt.
    const test::full_server full;
    REDIS_OPTIONS_SET_TCP(&options, "127.0.0.1", full.port());
    options.connect_timeout = &limit;
    BOOST_CHECK_EQUAL(run_ec([&](auto h) {
                          c.async_connect(redis_handle(redisAsyncConnectWithOptions(&options)),
                                          std::move(h));
                      }),
                      error_code(redis_error::timed_out));
}

BOOST_FIXTURE_TEST_CASE(a_time_limit_for_connecting_holds_whenever_callbacks_are_set, raw_loop) {
    const test::full_server full;
    descriptors = test::open_descriptors();
    timeval limit{0, 50000};
    redisOptions options = {};
    REDIS_OPTIONS_SET_TCP(&options, "127.0.0.1", full.port());
    options.connect_timeout = &limit;
    for (bool has_callbacks_before : {false, true}) {
        open(redisAsyncConnectWithOptions(&options), has_callbacks_before);
        run();
        check_seen({"failed"});
    }
}

BOOST_FIXTURE_TEST_CASE(replies_that_the_program_should_free_are_freed, connected) {
    redisOptions options = {};
    REDIS_OPTIONS_SET_TCP(&options, "127.0.0.1", port());
    options.options |= REDIS_OPT_NOAUTOFREEREPLIES;
    BOOST_REQUIRE_EQUAL(run_ec([&](auto h) {
                            c.async_connect(redis_handle(redisAsyncConnectWithOptions(&options)),
                                            std::move(h));
                        }),
                        error_code());
    check_works(c); // or the sanitizer finds a leak
}

BOOST_FIXTURE_TEST_CASE(resp3_has_more_types_and_pushes, connected) {
    outcome o = command(c, "HELLO", 3);
    BOOST_CHECK_EQUAL(o.ec, error_code());
    BOOST_TEST((o.value.type == redis_type::map));
    BOOST_REQUIRE(o.value.find("proto"));
    BOOST_TEST(o.value.find("proto")->integer == 3);
    const auto debug = [&](const char* what) {
        return command(c, "DEBUG", "PROTOCOL", what).value;
    };
    BOOST_TEST((debug("set").type == redis_type::set));
    BOOST_TEST(debug("set").elements.size() == 3u);
    BOOST_TEST((debug("map").type == redis_type::map));
    BOOST_TEST(debug("map").find("0") == nullptr); // the keys are integers
    BOOST_TEST((debug("double").type == redis_type::real));
    BOOST_TEST(debug("double").real == 3.141);
    BOOST_TEST(debug("double").text == "3.141");
    BOOST_TEST((debug("true").type == redis_type::boolean));
    BOOST_TEST(debug("true").integer == 1);
    BOOST_TEST(debug("false").integer == 0);
    BOOST_TEST(debug("null").is_nil());
    BOOST_TEST((debug("bignum").type == redis_type::big_number));
    BOOST_TEST(debug("bignum").text == "1234567999999999999999999999999999999");
    BOOST_TEST((debug("verbatim").type == redis_type::verbatim));
    BOOST_TEST(debug("verbatim").format == "txt");
    BOOST_TEST(debug("verbatim").text == "This is a verbatim\nstring");

    BOOST_CHECK_EQUAL(command(c, "CLIENT", "TRACKING", "on").ec, error_code());
    check_works(c);
    BOOST_CHECK_EQUAL(command(other, "SET", "works", 7).ec, error_code());
    o = receive(c);
    BOOST_TEST((o.value.type == redis_type::push));
    BOOST_TEST(text_of(o.value) == "invalidate works");
    check_works(c);
    BOOST_TEST(text_of(command(c, "SUBSCRIBE", "one", "two").value) == "subscribe two 2");
    publish("one", "text");
    do // what the connection itself has changed is pushed, too
        o = receive(c);
    while (o.value.elements[0].text == "invalidate");
    BOOST_TEST((o.value.type == redis_type::push));
    BOOST_TEST(text_of(o.value) == "message one text");
    BOOST_CHECK_EQUAL(command(c, "GET", "x").ec, subscribed);
    BOOST_CHECK_EQUAL(command(c, "UNSUBSCRIBE").ec, error_code());
    check_works(c);
}

#else

BOOST_FIXTURE_TEST_CASE(resp3_is_an_error_for_this_hiredis, connected) {
    BOOST_CHECK_EQUAL(command(c, "HELLO", 3).ec, error_code(redis_error::protocol_error));
    BOOST_TEST(!c.is_open());
}

#endif

BOOST_AUTO_TEST_SUITE_END()
