//
// mqtt.cpp
//
// Copyright (c) 2025 The Moor authors. Distributed under the Boost Software License, Version 1.0.
// (See accompanying file LICENSE_1_0.txt or copy at http://www.boost.org/LICENSE_1_0.txt)
//
// A bridge between the terminal and an MQTT broker. The program prints the messages of a topic, and
// publishes each line of its standard input to the topic. With a broker of its own:
//
//     example/run.sh mqtt
//
// With another broker:
//
//     g++ -std=c++20 -I../include mqtt.cpp -pthread -lmosquitto
//     ./a.out TOPIC HOST PORT
//
// doc/adapt-mosquitto.adoc shows the parts between the markers.
//

#include <moor.hpp>
#include <moor/adapt/mosquitto.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <utility>

#include <unistd.h>

namespace asio = boost::asio;
namespace adapt = moor::adapt;
using asio::use_awaitable;
using namespace std::chrono_literals;

namespace {

/// What the coroutines share.
struct bridge {
    adapt::mosquitto_client client;
    std::string topic, host;
    int port;
    long sent = 0;
    long received = 0;
    bool has_input = true;

    /// Without input, the program ends when the last line has come back.
    void end_if_over() {
        if (!has_input && received >= sent)
            client.async_disconnect(asio::detached);
    }
};

//[show
/// Prints messages until the connection ends, and returns the reason.
asio::awaitable<moor::error_code> show_messages(bridge& b) {
    for (;;) {
        auto [ec, m] = co_await b.client.async_receive(asio::as_tuple(use_awaitable));
        if (ec)
            co_return ec;
        std::cout << m.topic << ": " << m.payload << std::endl;
        ++b.received;
        b.end_if_over();
    }
}
//]

//[send
/// Publishes the lines of the standard input.
asio::awaitable<void> send_lines(bridge& b) {
    moor::stream_descriptor in(b.client.get_executor(), moor::borrow(STDIN_FILENO));
    std::string text;
    for (;;) {
        auto [end, size] = co_await asio::async_read_until(in, asio::dynamic_buffer(text), '\n',
                                                           asio::as_tuple(use_awaitable));
        if (end)
            break;
        std::string line = text.substr(0, size - 1);
        text.erase(0, size);
        ++b.sent;
        // Completes when the broker has acknowledged the message.
        auto [ec] =
            co_await b.client.async_publish(b.topic, line, 1, false, asio::as_tuple(use_awaitable));
        if (ec) {
            std::cerr << "not acknowledged: " << ec.message() << '\n';
            --b.sent;
        }
    }
    b.has_input = false;
    b.end_if_over();
}
//]

//[connect
/// Connects, and connects again when the connection ends: after a second first, then less often.
asio::awaitable<void> stay_connected(bridge& b) {
    asio::steady_timer timer(b.client.get_executor());
    bool is_first = true;
    for (std::chrono::seconds pause = 1s;; pause = std::min<std::chrono::seconds>(2 * pause, 60s)) {
        auto [ec] =
            co_await b.client.async_connect(b.host, b.port, 60, asio::as_tuple(use_awaitable));
        if (!ec) {
            pause = 1s;
            co_await b.client.async_subscribe(b.topic, 1, asio::as_tuple(use_awaitable));
            std::cout << "connected to " << b.host << std::endl;
            if (std::exchange(is_first, false))
                asio::co_spawn(b.client.get_executor(), send_lines(b), asio::detached);
            ec = co_await show_messages(b);
        }
        if (ec == asio::error::operation_aborted) // after async_disconnect
            co_return;
        std::cerr << b.host << ": " << ec.message() << '\n';
        timer.expires_after(pause);
        co_await timer.async_wait(use_awaitable);
    }
}
//]

} // namespace

int main(int argc, char** argv) {
    try {
        asio::io_context io;
        const char* own_port = std::getenv("MOOR_SERVERS_MQTT_PORT"); // of example/run.sh
        bridge b{adapt::mosquitto_client(io), argc > 1 ? argv[1] : "news",
                 argc > 2 ? argv[2] : "127.0.0.1",
                 std::stoi(argc > 3   ? argv[3]
                           : own_port ? own_port
                                      : "1883")};
        asio::signal_set signals(io, SIGINT, SIGTERM);
        signals.async_wait([&](moor::error_code, int) { io.stop(); });
        asio::co_spawn(io, stay_connected(b), [&](std::exception_ptr e) {
            io.stop(); // the terminal and the signals may be silent
            if (e)
                std::rethrow_exception(e);
        });
        io.run();
    } catch (const std::exception& e) {
        std::cerr << e.what() << '\n';
        return EXIT_FAILURE;
    }
}
